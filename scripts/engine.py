"""Calls of the `paisley` binary from scripts. Not a script: the others import it."""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """The binary did not do what it was asked; the text is its last line on stderr."""


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
