#!/usr/bin/env python3
"""Compare Paisley's speed on the CPU with other engines, and write a dated table.

MODELS is a folder as `corpus-models.py` writes it. For each model and number of threads there are rounds; in each round every engine has a process of
its own, one after the other in random order, which loads the model, runs it on its golden inputs and measures by the rules of `paisley bench`, with copies
of inputs and outputs. So no two engines share the machine, and all see the same changes of its speed. Outputs of every engine are compared with the
golden ones: a time of a wrong answer is none.

Then the binary profiles one more run of each: the least time that this machine needs for the steps (the roofline), and which steps are furthest from it.

Peers are those of onnxruntime (required), openvino, ncnn and torch that the interpreter of --python can import; ncnn and torch need pnnx too, which
converts the models. All samples go to benches/results/DATE-peers.json, the table to DATE-peers.md beside it. Models and numbers of threads that are not
named keep what that day's file has.

The exit code is 1 when Paisley or onnxruntime fails on a model or exceeds its tolerance.
"""

import argparse
import json
import math
import random
import statistics
import sys
from pathlib import Path

import corpus
import engine

REQUIRED = "onnxruntime"
LOSSES = 3


def measure(model, threads, peers, arguments, options=""):
    """The record of one model with one number of threads; `options` are more of `paisley bench`."""
    path, golden = arguments.models / f"{model.name}.onnx", arguments.models / f"{model.name}.npz"
    inputs, wanted = corpus.golden(golden)
    rules = f"--runs {arguments.runs} --min-time {arguments.min_time} --max-time {arguments.max_time}"

    def compare():
        got, _ = engine.run(arguments.paisley, path, inputs, "cpu", ["--threads", threads], arguments.timeout)
        return corpus.error(got, wanted)

    def paisley():
        return engine.bench(arguments.paisley, path, inputs, "cpu", f"--threads {threads} {rules} {options}", arguments.timeout)

    def peer(name):
        return lambda: engine.peer(arguments.python, name, path, golden, threads, rules, arguments.timeout)

    engines = {"paisley": paisley} | {name: peer(name) for name in peers}
    record = {"name": model.name, "threads": threads, "tolerance": model.tolerance, "error": engine.attempt(compare)}
    rounds = []
    for _ in range(arguments.rounds):
        done = {}
        for name in random.sample(sorted(engines), len(engines)):
            done[name] = engine.attempt(engines[name])
            if "failed" in done[name]:
                # It would fail again, after the same time.
                del engines[name]
        rounds.append(done)
    return record | {"rounds": rounds}


def profile(model, threads, arguments):
    """How far the steps of a model are from the roofline, and the `LOSSES` of them that lose the most time."""
    inputs, _ = corpus.golden(arguments.models / f"{model.name}.npz")
    rules = f"--profile --threads {threads} --runs 10 --min-time {arguments.min_time} --max-time {arguments.max_time}"
    document = engine.bench(arguments.paisley, arguments.models / f"{model.name}.onnx", inputs, "cpu", rules, arguments.timeout)["profile"]
    steps = sorted(document["steps"], key=lambda step: step["limit_ms"] - step["ms"])
    kept = ("step", "kernel", "ms", "limit_ms", "bound_by")
    losses = [{key: step[key] for key in kept} for step in steps[:LOSSES]]
    return {key: document[key] for key in ("measured", "total_ms", "limit_ms", "wait")} | {"losses": losses}


def error(record, name):
    """The error of an engine's outputs; infinite where it failed."""
    if name == "paisley":
        return record["error"] if isinstance(record["error"], float | int) else math.inf
    documents = engine.succeeded(record["rounds"], name)
    return max((document["error"] for document in documents), default=math.inf)


def is_right(record, name):
    """Whether an engine ran and its outputs are within the tolerance."""
    return error(record, name) <= record["tolerance"] and bool(engine.succeeded(record["rounds"], name))


def of_rounds(record, name):
    """The median of each round, None where the engine failed."""
    return [engine.pooled([r], name) for r in record["rounds"]]


def ratio(record, name):
    """The peer's time over Paisley's, and the least and the largest of the rounds; None where one of both has no right answer."""
    if not (is_right(record, name) and is_right(record, "paisley")):
        return None
    ratios = [peer / own for peer, own in zip(of_rounds(record, name), of_rounds(record, "paisley"), strict=True) if peer and own]
    if not ratios:
        return None
    return engine.pooled(record["rounds"], name) / engine.pooled(record["rounds"], "paisley"), min(ratios), max(ratios)


def cells(record, name):
    """The median and the spread of the rounds' medians, in milliseconds."""
    if not is_right(record, name):
        found = engine.succeeded(record["rounds"], name)
        return f"error {error(record, name):.0e}" if found else "fails"
    medians = [median for median in of_rounds(record, name) if median]
    return f"{engine.pooled(record['rounds'], name):.2f} ({min(medians):.2f} to {max(medians):.2f})"


def share(found):
    """A ratio as text; a tilde says that the rounds do not tell which is faster."""
    if found is None:
        return "-"
    middle, least, most = found
    return f"{'~' if least <= 1 <= most else ''}{middle:.2f}"


def speed_table(records, peers):
    """Times and ratios for one number of threads."""
    rows = [["model", "paisley ms", *(cell for name in peers for cell in (f"{name} ms", "ratio"))]]
    for record in records:
        rows.append([record["name"], cells(record, "paisley"), *(c for name in peers for c in (cells(record, name), share(ratio(record, name))))])
    means = []
    for name in peers:
        found = [r[0] for r in (ratio(record, name) for record in records) if r]
        mean = f"**{statistics.geometric_mean(found):.2f}** of {len(found)}" if found else "-"
        means += ["", mean]
    return engine.markdown([*rows, ["geometric mean", "", *means]])


def start_table(records, peers):
    """Load times and memory for one number of threads."""
    engines = ["paisley", *peers]
    rows = [["model", *(f"{name} load ms" for name in engines), *(f"{name} MB" for name in engines)]]
    for record in records:

        def load(name, record=record):
            fields = ("load_ms", "compile_ms") if name == "paisley" else ("load_ms",)
            return engine.figure(engine.middle(record["rounds"], name, *fields), ".0f")

        def memory(name, record=record):
            peak = engine.middle(record["rounds"], name, "peak_memory_bytes")
            return engine.figure(peak / 1e6 if peak else None, ".0f")

        rows.append([record["name"], *map(load, engines), *map(memory, engines)])
    return engine.markdown(rows)


def limit_table(records):
    """Distances from the roofline for one number of threads, and where the time goes that is lost."""
    rows = [["model", "steps ms", "at least ms", "of limit", "wait", "loses most"]]
    for record in records:
        found = record.get("profile", {"failed": "not measured"})
        if "failed" in found:
            continue

        def loss(step, total=found["total_ms"]):
            beyond = (step["ms"] - step["limit_ms"]) / total
            return f"{step['kernel']} ({step['bound_by']}): {step['limit_ms'] / step['ms']:.0%} of limit, {beyond:.0%} of all time beyond it"

        times = [f"{found['total_ms']:.2f}", f"{found['limit_ms']:.2f}", f"{found['limit_ms'] / found['total_ms']:.0%}"]
        wait = "-" if found["wait"] is None else f"{found['wait']:.0%}"
        rows.append([record["name"], *times, wait, "; ".join(map(loss, found["losses"]))])
    return engine.markdown(rows)


def table(result):
    """The text of the table."""
    environment = result["environment"]
    peers = list(environment["peers"])
    versions = ", ".join(f"{name} {version}" for name, version in environment["peers"].items())
    commits = " and ".join(dict.fromkeys(record["commit"] for record in result["models"]))
    lines = [
        f"# Paisley and its peers, {environment['date']}",
        "",
        f"Written by `scripts/peers.py`. {environment['cpu']}, {environment['cores']} cores; Paisley at commit {commits}; {versions}. Float32, shapes of the"
        f" golden inputs, copies included; {environment['rounds']} rounds of at least {environment['min_time']} s and {environment['runs']} runs, each engine in a"
        f" process of its own in each, in random order. All samples: `{result['file']}`.",
        "",
        "*ms* is the median of all runs and, in brackets, the least and the largest median of a round. *ratio* is the peer's time over Paisley's: above 1 Paisley"
        " is faster; ~ where rounds disagree which is. *load ms* is everything before the first run, reading and compiling included. *MB* is the peak of the"
        " process' resident memory, for the peers with Python and NumPy in it. *at least ms* is the roofline of the steps, by the operators' own counts and"
        " rates measured beside them; above 100 % an algorithm needs fewer operations than counted.",
    ]
    for threads in sorted({record["threads"] for record in result["models"]}):
        records = [record for record in result["models"] if record["threads"] == threads]
        lines += ["", f"## {threads} thread{'s' if threads > 1 else ''}", "", *speed_table(records, peers), "", *start_table(records, peers), "", *limit_table(records)]
    return "\n".join(lines) + "\n"


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", help="folder of models")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to measure (default: those of usual size)")
    parser.add_argument("--paisley", type=Path, metavar="FILE", help="the binary (default: the release build)")
    parser.add_argument("--python", type=Path, metavar="FILE", help="interpreter that has the peers (default: this one)")
    parser.add_argument("--peers", type=lambda text: text.split(","), metavar="LIST", help="default: all that are installed")
    parser.add_argument("--threads", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2], metavar="LIST", help="default: 1,2")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--runs", type=int, default=35, metavar="N", help="runs in a round at least (default: 35)")
    parser.add_argument("--min-time", type=float, default=1, metavar="SECONDS", help="of a round at least (default: 1)")
    parser.add_argument("--max-time", type=float, default=30, metavar="SECONDS", help="of a round at most (default: 30)")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="for one process (default: 900)")
    parser.add_argument("--out", type=Path, default=engine.RESULTS, metavar="FOLDER", help="default: benches/results")
    arguments = parser.parse_args()

    installed = engine.call([arguments.python or sys.executable, engine.PEER, "list"])
    peers = arguments.peers or list(installed)
    missing = [name for name in dict.fromkeys([REQUIRED, *peers]) if name not in installed]
    if missing:
        parser.error(f"not installed for the interpreter of --python: {', '.join(missing)}")
    arguments.paisley = engine.binary(arguments.paisley)
    chosen = corpus.choose(arguments.names or corpus.USUAL)
    environment = engine.environment() | {
        "rounds": arguments.rounds,
        "runs": arguments.runs,
        "min_time": arguments.min_time,
        "peers": {name: installed[name] for name in peers},
    }
    name = f"{environment['date']}-peers"
    file = arguments.out / f"{name}.json"
    result = json.loads(file.read_text()) if file.exists() else {"models": []}
    environment["peers"] = result.get("environment", {}).get("peers", {}) | environment["peers"]
    result |= {"environment": environment, "file": file.name}
    records = {(record["name"], record["threads"]): record for record in result["models"]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    bad = []
    for threads in arguments.threads:
        for model in chosen:
            record = measure(model, threads, peers, arguments) | {"commit": environment["commit"]}
            record["profile"] = engine.attempt(lambda model=model, threads=threads: profile(model, threads, arguments))
            records[(model.name, threads)] = record
            order = [(m.name, n) for n in sorted({n for _, n in records}) for m in corpus.MODELS]
            result["models"] = [records[key] for key in order if key in records]
            # Written after each model: a long run that is stopped has lost nothing.
            file.write_text(engine.as_text(result))
            file.with_suffix(".md").write_text(table(result))
            shown = ", ".join(f"{peer} {share(ratio(record, peer))}" for peer in peers)
            print(f"{model.name}, {threads} threads: {cells(record, 'paisley')} ms; {shown}", file=sys.stderr, flush=True)
            needed = [name for name in ("paisley", REQUIRED) if name == "paisley" or name in peers]
            bad += [f"{name} on {model.name}" for name in needed if not is_right(record, name)]
    if bad:
        sys.exit(f"failed or beyond its tolerance: {', '.join(bad)}")


if __name__ == "__main__":
    main()
