#!/usr/bin/env python3
"""Run and time all models of the corpus beside ONNX Runtime, and write docs/models.md.

MODELS is a folder as `corpus-models.py` writes it. For each model: `paisley run` on its golden inputs on each device, compared with the
golden outputs; `paisley bench` on the CPU in turns with ONNX Runtime, each round in processes of their own in random order, with the same
number of threads; `paisley bench` on the GPU. The samples, thinned where there are thousands, go to benches/results/DATE-models.json, from
which the table is made; models that are not named keep the rows of the latest such file. Needs numpy and onnxruntime.

The exit code is 1 when a model fails or exceeds its tolerance.
"""

import argparse
import datetime
import json
import os
import platform
import random
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus
import engine
import numpy as np

RESULTS = engine.ROOT / "benches/results"
MAX_SAMPLES = 500
SOFTWARE = ("llvmpipe", "lavapipe", "swiftshader", "software", "warp")


def measure_onnxruntime(model, inputs, threads):
    """In this process: session creation and steady runs, by the rules that `paisley bench` follows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    load_ms = (time.perf_counter() - start) * 1e3
    feeds, _ = corpus.golden(inputs)

    def sample():
        start = time.perf_counter()
        session.run(None, feeds)
        return (time.perf_counter() - start) * 1e3

    first_run_ms = sample()
    warm_up = time.perf_counter()
    n_warm_up = 0
    while (time.perf_counter() - warm_up < 0.2 or n_warm_up < 10) and time.perf_counter() - warm_up < 10:
        sample()
        n_warm_up += 1
    samples = []
    start = time.perf_counter()
    while (time.perf_counter() - start < 3 or len(samples) < 100) and time.perf_counter() - start < 20:
        samples.append(sample())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "version": onnxruntime.__version__,
        "threads": threads,
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "samples_ms": [round(sample, 4) for sample in samples],
        "peak_memory_bytes": peak,
    }


def thinned(document):
    """The document with at most MAX_SAMPLES samples, evenly out of all, and the number of all."""
    samples = document["samples_ms"]
    every = max(1, -(-len(samples) // MAX_SAMPLES))
    return document | {"n_samples": len(samples), "samples_ms": [round(sample, 4) for sample in samples[::every]]}


def attempt(action):
    """What `action` returns with its samples thinned, or the failure as a record."""
    try:
        result = action()
        return thinned(result) if isinstance(result, dict) and "samples_ms" in result else result
    except engine.Failure as failure:
        return {"failed": str(failure)}


def bench(arguments, path, golden, device, options):
    """One process of `paisley bench`, on the golden inputs."""
    inputs, _ = corpus.golden(golden)
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "inputs.npz"
        np.savez(given, **inputs)
        command = [arguments.paisley, "bench", path, "--inputs", given, "--device", device, "--json", *shlex.split(options)]
        if device == "cpu":
            command += ["--threads", arguments.threads]
        document = engine.call(command, arguments.timeout)
    document = document[0] if isinstance(document, list) else document
    return document | {"model": path.stem}


def measure(model, arguments):
    """The record of one model."""
    path, golden = arguments.models / f"{model.name}.onnx", arguments.models / f"{model.name}.npz"
    inputs, wanted = corpus.golden(golden)
    record = {"name": model.name, "file_bytes": path.stat().st_size, "tolerance": model.tolerance, "errors": {}}

    for device in arguments.devices:
        if device == "reference" and not model.small:
            continue

        def compare(device=device):
            got, _ = engine.run(arguments.paisley, path, inputs, device, timeout=arguments.timeout)
            return corpus.error(got, wanted)

        record["errors"][device] = attempt(compare)

    if arguments.rounds and "cpu" in arguments.devices:
        worker = [sys.executable, __file__, "--onnxruntime", path, golden, "--threads", arguments.threads]
        engines = {
            "cpu": lambda: bench(arguments, path, golden, "cpu", arguments.cpu_options),
            "onnxruntime": lambda: engine.call(worker, arguments.timeout),
        }
        rounds = []
        for _ in range(arguments.rounds):
            order = random.sample(sorted(engines), len(engines))
            rounds.append({name: attempt(engines[name]) for name in order})
        record["rounds"] = rounds
    if arguments.rounds and "gpu" in arguments.devices:
        record["gpu"] = attempt(lambda: bench(arguments, path, golden, "gpu", arguments.gpu_options))
    return record


def as_text(result):
    """The results as JSON, a model a line."""
    head = json.dumps({key: value for key, value in result.items() if key != "models"})[:-1]
    rows = ",\n".join(json.dumps(record) for record in result["models"])
    return f'{head}, "models": [\n{rows}\n]}}\n'


def is_bad(record):
    """Whether a device failed or exceeded the tolerance."""
    return any(isinstance(e, dict) or e > record["tolerance"] for e in record["errors"].values())


def pooled(record, name):
    """The median over the samples of all rounds, or None."""
    documents = [r[name] for r in record.get("rounds", []) if "samples_ms" in r[name]]
    samples = [sample for document in documents for sample in document["samples_ms"]]
    return statistics.median(samples) if samples else None


def middle(record, name, *fields):
    """The median over the rounds of the sum of `fields`, or None."""
    documents = [r[name] for r in record.get("rounds", []) if "failed" not in r[name]]
    return statistics.median(sum(d[f] for f in fields) for d in documents) if documents else None


def figure(value, form):
    """`value` as text; a dash where there is none."""
    return "-" if value is None else format(value, form)


def table(result):
    """The text of docs/models.md."""
    environment = result["environment"]
    gpus = [r["gpu"] for r in result["models"] if "adapter" in r.get("gpu", {})]
    adapter = gpus[0]["adapter"] if gpus else None
    adapter = adapter.get("name", str(adapter)) if isinstance(adapter, dict) else adapter
    software = adapter is not None and any(word in adapter.lower() for word in SOFTWARE)
    commits = dict.fromkeys(record["commit"] for record in result["models"])
    rows = []
    for record in result["models"]:

        def shown(device, record=record):
            error = record["errors"].get(device)
            if error is None:
                return "-"
            if isinstance(error, dict):
                return "**fails**"
            return f"{error:.1e}" if error <= record["tolerance"] else f"**{error:.1e}**"

        cpu, ort = pooled(record, "cpu"), pooled(record, "onnxruntime")
        gpu = record.get("gpu", {}).get("steady_ms", {}).get("p50")
        peak = middle(record, "cpu", "peak_memory_bytes")
        rows.append([
            record["name"],
            figure(record["file_bytes"] / 1e6, ".1f"),
            *(shown(device) for device in ("reference", "cpu", "gpu")),
            figure(cpu, ".2f"),
            figure(ort, ".2f"),
            figure(cpu / ort if cpu and ort else None, ".2f"),
            figure(gpu, ".1f"),
            figure(middle(record, "cpu", "load_ms", "compile_ms"), ".0f"),
            figure(peak / 1e6 if peak else None, ".0f"),
        ])
    head = ["model", "file MB", "error reference", "error cpu", "error gpu", "cpu ms", "ONNX Runtime ms", "ratio",
            f"gpu ms{' (software adapter)' if software else ''}", "load ms", "peak MB"]
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] + ["--:"] * (len(head) - 1), *rows]]
    note = " **It is a software adapter, which computes on the CPU: these are not figures of a GPU.**" if software else ""
    return "\n".join([
        "# Models",
        "",
        "<!-- Written by scripts/models-table.py: change that, not this. -->",
        "",
        f"Batch and shapes are those of the golden inputs; float32; {environment['threads']} threads; {environment['cpu']}, {environment['cores']} cores;"
        f" {environment['date']}, commit {' and '.join(commits)}. Raw samples: `{result['file']}`.",
        "",
        "*Error* is the largest difference from ONNX Runtime without optimisations, relative to the largest output; 1e-4 is allowed, or 1e-3 where ONNX"
        " Runtime's own optimisations already make more than 5e-6; bold is beyond it. Only small models run on the reference interpreter.",
        f"*cpu ms* and *ONNX Runtime ms* ({environment['onnxruntime']}) are medians over {environment['rounds']} rounds in turns, copies included; *ratio* is the"
        " first over the second. *load ms* is reading, optimising and compiling for the CPU. *peak MB* is the process' peak resident memory on the CPU.",
        *([f"The GPU is {adapter}.{note}"] if adapter else []),
        "",
        *lines,
        "",
    ])


def cpu_name():
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(arguments):
    """The conditions of this measurement."""
    import onnxruntime

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=engine.ROOT, capture_output=True, text=True, check=False)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": os.getloadavg()[0],
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "onnxruntime": onnxruntime.__version__,
    }


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", nargs="?", help="folder of models")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to measure (default: all)")
    parser.add_argument("--paisley", type=Path, metavar="FILE", help="the binary (default: the release build)")
    parser.add_argument("--devices", type=lambda text: text.split(","), default=["reference", "cpu", "gpu"], metavar="LIST", help="default: reference,cpu,gpu")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of both engines (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of timing (default: 3; 0: errors only)")
    parser.add_argument("--cpu-options", default="", metavar="TEXT", help="further options of `paisley bench` on the CPU")
    parser.add_argument("--gpu-options", default="", metavar="TEXT", help="further options of `paisley bench` on the GPU")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="for one call of an engine (default: 900)")
    parser.add_argument("--table-only", action="store_true", help="write the table of the latest results again, measure nothing")
    parser.add_argument("--onnxruntime", nargs=2, metavar=("MODEL", "NPZ"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.onnxruntime:
        print(json.dumps(measure_onnxruntime(*arguments.onnxruntime, arguments.threads)))
        return
    earlier = sorted(RESULTS.glob("*-models.json"))
    result = json.loads(earlier[-1].read_text()) if earlier else {"models": []}
    records = {record["name"]: record for record in result["models"]}
    if not arguments.table_only:
        if arguments.models is None:
            parser.error("MODELS is missing")
        arguments.paisley = engine.binary(arguments.paisley)
        result["environment"] = environment(arguments)
        file = RESULTS / f"{result['environment']['date']}-models.json"
        result["file"] = file.relative_to(engine.ROOT).as_posix()
        file.parent.mkdir(parents=True, exist_ok=True)
        for model in corpus.choose(arguments.names):
            print(f"{model.name} ...", file=sys.stderr, flush=True)
            records[model.name] = measure(model, arguments) | {"commit": result["environment"]["commit"]}
            result["models"] = [records[m.name] for m in corpus.MODELS if m.name in records]
            # Written after each model: a long run that is stopped has lost nothing.
            file.write_text(as_text(result))
            print(f"  errors {records[model.name]['errors']}", file=sys.stderr, flush=True)
    if not records:
        parser.error("no results yet: name a folder of models")
    (engine.ROOT / "docs/models.md").write_text(table(result))
    bad = [record["name"] for record in result["models"] if is_bad(record)]
    if bad:
        sys.exit(f"failed or beyond its tolerance: {', '.join(bad)}")


if __name__ == "__main__":
    main()
