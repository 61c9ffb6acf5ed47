#!/usr/bin/env python3
"""Run and time all models of the corpus beside ONNX Runtime, and write docs/models.md.

MODELS is a folder as `corpus-models.py` writes it. For each model: `paisley run` on its golden inputs on each device, compared with the
golden outputs; `paisley bench` on the CPU in turns with ONNX Runtime, each round in processes of their own in random order, with the same
number of threads; `paisley bench` on the GPU. The samples, thinned where there are thousands, go to benches/results/DATE-models.json, from
which the table is made; models that are not named keep the rows of the latest such file. Needs numpy, and onnxruntime
in the interpreter that --python names.

The exit code is 1 when a model fails or exceeds its tolerance.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import corpus
import engine

SOFTWARE = ("llvmpipe", "lavapipe", "swiftshader", "software", "warp")


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

        record["errors"][device] = engine.attempt(compare)

    if arguments.rounds and "cpu" in arguments.devices:
        options = f"--threads {arguments.threads} {arguments.cpu_options}"
        engines = {
            "cpu": lambda: engine.bench(arguments.paisley, path, inputs, "cpu", options, arguments.timeout),
            "onnxruntime": lambda: engine.peer(
                arguments.python, "onnxruntime", path, golden, arguments.threads, "--max-time 20", arguments.timeout
            ),
        }
        rounds = []
        for _ in range(arguments.rounds):
            order = random.sample(sorted(engines), len(engines))
            rounds.append({name: engine.attempt(engines[name]) for name in order})
        record["rounds"] = rounds
    if arguments.rounds and "gpu" in arguments.devices:
        record["gpu"] = engine.attempt(
            lambda: engine.bench(arguments.paisley, path, inputs, "gpu", arguments.gpu_options, arguments.timeout)
        )
    return record


def is_bad(record):
    """Whether a device failed or exceeded the tolerance."""
    return any(isinstance(e, dict) or e > record["tolerance"] for e in record["errors"].values())


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

        rounds = record.get("rounds", [])
        cpu, ort = engine.pooled(rounds, "cpu"), engine.pooled(rounds, "onnxruntime")
        gpu = record.get("gpu", {}).get("steady_ms", {}).get("p50")
        peak = engine.middle(rounds, "cpu", "peak_memory_bytes")
        rows.append([
            record["name"],
            engine.figure(record["file_bytes"] / 1e6, ".1f"),
            *(shown(device) for device in ("reference", "cpu", "gpu")),
            engine.figure(cpu, ".2f"),
            engine.figure(ort, ".2f"),
            engine.figure(cpu / ort if cpu and ort else None, ".2f"),
            engine.figure(gpu, ".1f"),
            engine.figure(engine.middle(rounds, "cpu", "load_ms", "compile_ms"), ".0f"),
            engine.figure(peak / 1e6 if peak else None, ".0f"),
        ])
    head = ["model", "file MB", "error reference", "error cpu", "error gpu", "cpu ms", "ONNX Runtime ms", "ratio",
            f"gpu ms{' (software adapter)' if software else ''}", "load ms", "peak MB"]
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
        *engine.markdown([head, *rows]),
        "",
    ])


def environment(arguments):
    """The conditions of this measurement."""
    versions = engine.call([arguments.python or sys.executable, engine.PEER, "list"])
    if arguments.rounds and "onnxruntime" not in versions:
        raise SystemExit("onnxruntime is not installed for this interpreter; name another with --python")
    return engine.environment() | {
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "onnxruntime": versions.get("onnxruntime"),
    }


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", nargs="?", help="folder of models")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to measure (default: all)")
    parser.add_argument("--paisley", type=Path, metavar="FILE", help="the binary (default: the release build)")
    parser.add_argument("--python", type=Path, metavar="FILE", help="interpreter with onnxruntime (default: this one)")
    parser.add_argument("--devices", type=lambda text: text.split(","), default=["reference", "cpu", "gpu"], metavar="LIST", help="default: reference,cpu,gpu")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of both engines (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of timing (default: 3; 0: errors only)")
    parser.add_argument("--cpu-options", default="", metavar="TEXT", help="further options of `paisley bench` on the CPU")
    parser.add_argument("--gpu-options", default="", metavar="TEXT", help="further options of `paisley bench` on the GPU")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="for one call of an engine (default: 900)")
    parser.add_argument("--table-only", action="store_true", help="write the table of the latest results again, measure nothing")
    arguments = parser.parse_args()

    earlier = sorted(engine.RESULTS.glob("*-models.json"))
    result = json.loads(earlier[-1].read_text()) if earlier else {"models": []}
    records = {record["name"]: record for record in result["models"]}
    if not arguments.table_only:
        if arguments.models is None:
            parser.error("MODELS is missing")
        arguments.paisley = engine.binary(arguments.paisley)
        result["environment"] = environment(arguments)
        file = engine.RESULTS / f"{result['environment']['date']}-models.json"
        result["file"] = file.relative_to(engine.ROOT).as_posix()
        file.parent.mkdir(parents=True, exist_ok=True)
        for model in corpus.choose(arguments.names):
            print(f"{model.name} ...", file=sys.stderr, flush=True)
            records[model.name] = measure(model, arguments) | {"commit": result["environment"]["commit"]}
            result["models"] = [records[m.name] for m in corpus.MODELS if m.name in records]
            # Written after each model: a long run that is stopped has lost nothing.
            file.write_text(engine.as_text(result))
            print(f"  errors {records[model.name]['errors']}", file=sys.stderr, flush=True)
    if not records:
        parser.error("no results yet: name a folder of models")
    (engine.ROOT / "docs/models.md").write_text(table(result))
    bad = [record["name"] for record in result["models"] if is_bad(record)]
    if bad:
        sys.exit(f"failed or beyond its tolerance: {', '.join(bad)}")


if __name__ == "__main__":
    main()
