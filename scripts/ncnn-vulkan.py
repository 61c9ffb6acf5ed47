#!/usr/bin/env python3
"""Time ncnn's Vulkan backend, the nearest peer on a GPU without CUDA, on models of the corpus.

Converts each model with pnnx in a scratch folder, runs it in float32 on a Vulkan adapter, checks the output against the golden one, and prints a
JSON document with medians and all samples. On a machine without a GPU, Vulkan's software adapter serves: compare with `paisley bench --device gpu`
on the same adapter only. Needs the pip packages ncnn and pnnx (which brings torch).
"""

import argparse
import importlib.metadata
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus
import numpy as np


def convert(model, inputs, folder):
    """Converts an ONNX file with one input; returns the paths of ncnn's two files."""
    (array,) = inputs.values()
    shutil.copyfile(model, folder / "model.onnx")
    shape = ",".join(map(str, array.shape))
    pnnx = shutil.which("pnnx") or str(Path(sys.executable).with_name("pnnx"))
    command = [pnnx, "model.onnx", f"inputshape=[{shape}]f32", "fp16=0"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / "model.ncnn.param", folder / "model.ncnn.bin"


def measure(model, golden, seconds, vulkan, threads):
    """The record of one model."""
    import ncnn

    inputs, outputs = corpus.golden(golden)
    with tempfile.TemporaryDirectory() as scratch:
        param, weights = convert(model, inputs, Path(scratch))
        net = ncnn.Net()
        net.opt.use_vulkan_compute = vulkan
        net.opt.num_threads = threads
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, False)
        start = time.perf_counter()
        if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
            raise SystemExit(f"ncnn does not load {model.name}")
        load_ms = (time.perf_counter() - start) * 1e3
    (array,) = inputs.values()
    given = ncnn.Mat(np.ascontiguousarray(array[0]))

    def sample():
        start = time.perf_counter()
        with net.create_extractor() as extractor:
            extractor.input(net.input_names()[0], given)
            _, result = extractor.extract(net.output_names()[0])
            got = np.array(result)
        return (time.perf_counter() - start) * 1e3, got

    _, got = sample()
    ((name, wanted),) = outputs.items()
    error = corpus.error({name: got.reshape(wanted.shape)}, outputs)
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
