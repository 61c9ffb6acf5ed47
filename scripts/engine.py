"""Measurements of Paisley and of other engines from scripts, each in a process of its own. Not a script: the others import it."""

import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches/results"
PEER = Path(__file__).resolve().with_name("peer_process.py")
MAX_SAMPLES = 500


class Failure(Exception):
    """An engine did not do what it was asked; the text is its last line on stderr."""


def binary(given):
    """The binary to call: `given`, or the release build of this repository, which is brought up to date."""
    if given:
        return str(given)
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    metadata = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    described = subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return str(Path(json.loads(described)["target_directory"]) / "release/paisley")


def call(command, timeout=None):
    """Runs `command` and returns the JSON document it prints."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"no answer within {timeout} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [""]
        raise Failure(f"exit code {done.returncode}: {lines[-1]}")
    return json.loads(done.stdout)


def run(paisley, model, inputs, device, options=(), timeout=None):
    """One run on `device`: the outputs by name, and the document that the binary printed."""
    with tempfile.TemporaryDirectory() as scratch:
        given, wanted = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"
        np.savez(given, **inputs)
        command = [paisley, "run", model, "--inputs", given, "--device", device, "--outputs", wanted, "--json", *options]
        document = call(command, timeout)
        with np.load(wanted) as arrays:
            return {name: arrays[name] for name in arrays.files}, document


def bench(paisley, model, inputs, device, options="", timeout=None):
    """One process of `paisley bench` on one device; `options` are a text as in a shell."""
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "inputs.npz"
        np.savez(given, **inputs)
        command = [paisley, "bench", model, "--inputs", given, "--device", device, "--json", *shlex.split(options)]
        document = call(command, timeout)
    # The path is of this machine.
    return document | {"model": Path(model).stem}


def peer(python, name, model, golden, threads, options="", timeout=None):
    """One process of another engine, by the rules and with the options of `paisley bench`; see `peer_process.py`."""
    return call([python or sys.executable, PEER, name, model, golden, "--threads", threads, *shlex.split(options)], timeout)


def thinned(document, most=MAX_SAMPLES):
    """The document with at most `most` samples, evenly out of all, and the number of all."""
    samples = document["samples_ms"]
    every = max(1, -(-len(samples) // most))
    return document | {"n_samples": document.get("n_samples", len(samples)), "samples_ms": [round(sample, 4) for sample in samples[::every]]}


def attempt(action):
    """What `action` returns with its samples thinned, or the failure as a record."""
    try:
        result = action()
        return thinned(result) if isinstance(result, dict) and "samples_ms" in result else result
    except Failure as failure:
        return {"failed": str(failure)}


def succeeded(rounds, name):
    """The documents of an engine in the rounds where it did not fail."""
    return [r[name] for r in rounds if name in r and "failed" not in r[name]]


def pooled(rounds, name):
    """The median over the samples of all rounds, or None."""
    samples = [sample for document in succeeded(rounds, name) for sample in document["samples_ms"]]
    return statistics.median(samples) if samples else None


def middle(rounds, name, *fields):
    """The median over the rounds of the sum of `fields`, or None."""
    documents = [d for d in succeeded(rounds, name) if all(d.get(field) is not None for field in fields)]
    return statistics.median(sum(d[f] for f in fields) for d in documents) if documents else None


def figure(value, form):
    """`value` as text; a dash where there is none."""
    return "-" if value is None else format(value, form)


def markdown(rows):
    """The lines of a table: the first row are the headings, the first column is text and all others numbers."""
    lines = [rows[0], ["---"] + ["--:"] * (len(rows[0]) - 1), *rows[1:]]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def as_text(result):
    """The results as JSON, a model a line."""
    head = json.dumps({key: value for key, value in result.items() if key != "models"})[:-1]
    rows = ",\n".join(json.dumps(record) for record in result["models"])
    return f'{head}, "models": [\n{rows}\n]}}\n'


def cpu_name():
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def governor():
    """How the system chooses the first core's clock, or None where it does not tell."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def environment():
    """The conditions of a measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "governor": governor(),
        "load_average": os.getloadavg()[0],
    }


def add_options(parser, peer):
    """Adds the options of a script that measures cases of one node, beside `peer`."""
    parser.add_argument("--paisley", type=Path, metavar="FILE", help="the binary (default: the release build)")
    parser.add_argument("--python", type=Path, metavar="FILE", help=f"interpreter that has {peer} (default: this one)")
    parser.add_argument("--threads", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2], metavar="LIST", help="default: 1,2")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="runs in a round at least (default: 15)")
    parser.add_argument("--min-time", type=float, default=0.2, metavar="SECONDS", help="of a round at least (default: 0.2)")
    parser.add_argument("--max-time", type=float, default=10, metavar="SECONDS", help="of a round at most (default: 10)")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for one process (default: 300)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="default: benches/results")


def record(parser, arguments, peer, kind, cases, measure, table):
    """Measures the cases that `arguments.names` has, by name or by their `kind` (default: all), with each number of threads, and writes the records
    to the day's file `DATE-kind.json`, and what `table(result)` makes of all beside it. Yields each case and its record.

    `cases` is a list; `measure(case, threads, arguments)` gives a record with `name` and `threads`.
    """
    known = {case.name: case for case in cases}
    chosen = [case for case in cases if not arguments.names or {case.name, getattr(case, "kind", None)} & set(arguments.names)]
    if not chosen:
        parser.error(f"no such name; known: {', '.join(known)}")
    installed = call([arguments.python or sys.executable, PEER, "list"])
    if peer not in installed:
        parser.error(f"{peer} is not installed for the interpreter of --python")
    arguments.paisley = binary(arguments.paisley)
    rules = {"rounds": arguments.rounds, "runs": arguments.runs, "min_time": arguments.min_time}
    described = environment() | rules | {"peers": {peer: installed[peer]}}
    file = arguments.out / f"{described['date']}-{kind}.json"
    result = json.loads(file.read_text()) if file.exists() else {"models": []}
    result |= {"environment": described, "file": file.name}
    records = {(done["name"], done["threads"]): done for done in result["models"]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for threads in arguments.threads:
        for case in chosen:
            measured = measure(case, threads, arguments) | {"commit": described["commit"]}
            records[(case.name, threads)] = measured
            order = [(name, n) for n in sorted({n for _, n in records}) for name in known]
            result["models"] = [records[key] for key in order if key in records]
            # Written after each case: a long run that is stopped has lost nothing.
            file.write_text(as_text(result))
            file.with_suffix(".md").write_text(table(result))
            yield case, measured
