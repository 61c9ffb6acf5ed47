#!/usr/bin/env python3
"""Time ncnn's Vulkan backend, the nearest peer on a GPU without CUDA, on models of the corpus.

Converts each model with pnnx in a scratch folder, runs it in float32 on a Vulkan adapter, checks the output against the golden one, and prints a
JSON document with medians and all samples. On a machine without a GPU, Vulkan's software adapter serves: compare with `paisley bench --device gpu`
on the same adapter only. Needs the pip packages ncnn and pnnx (which brings torch).
"""

import argparse
import importlib.metadata
import json
import statistics
import tempfile
import time
from pathlib import Path

import corpus
import peer_process


def measure(model, golden, seconds, vulkan, threads):
    """The record of one model."""
    inputs, outputs = corpus.golden(golden)
    with tempfile.TemporaryDirectory() as scratch:
        load = peer_process.ncnn(model, inputs, threads, Path(scratch), vulkan)
        start = time.perf_counter()
        run = load()
        load_ms = (time.perf_counter() - start) * 1e3

    def sample():
        start = time.perf_counter()
        got = run()
        return (time.perf_counter() - start) * 1e3, got

    _, results = sample()
    got = {name: result.reshape(outputs[name].shape) for name, result in zip(outputs, results, strict=True)}
    error = corpus.error(got, outputs)
    for _ in range(2):
        sample()
    samples = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(samples) < 10:
        samples.append(round(sample()[0], 3))
    return {
        "model": model.stem,
        "error": error,
        "load_ms": load_ms,
        "median_ms": statistics.median(samples),
        "min_ms": min(samples),
        "samples_ms": samples,
    }


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS", help="folder of models, as corpus-models.py writes it")
    parser.add_argument("names", nargs="*", default=["resnet18", "mobilenet_v2"], metavar="NAME", help="default: resnet18 mobilenet_v2")
    parser.add_argument("--seconds", type=float, default=10, help="of steady runs for each model (default: 10)")
    parser.add_argument("--cpu", action="store_true", help="ncnn's CPU backend instead")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of the CPU backend (default: 2)")
    arguments = parser.parse_args()

    import ncnn

    if not arguments.cpu and ncnn.get_gpu_count() == 0:
        raise SystemExit("ncnn finds no Vulkan adapter")
    adapter = None if arguments.cpu else ncnn.get_gpu_info(0).device_name()
    models = [
        measure(arguments.models / f"{m.name}.onnx", arguments.models / f"{m.name}.npz", arguments.seconds, not arguments.cpu, arguments.threads)
        for m in corpus.choose(arguments.names)
    ]
    print(json.dumps({"ncnn": importlib.metadata.version("ncnn"), "adapter": adapter, "models": models}, indent=1))


if __name__ == "__main__":
    main()
