#!/usr/bin/env python3
"""Measure another engine on one model, in this process, and print one JSON document; other scripts call it.

Load, first run and steady runs are timed by the rules that `paisley bench` follows: it warms up for at least 0.2 s and 10 runs until the median is
stable, at most 10 s, then measures for `--min-time` and `--runs`, whichever takes longer, but not beyond `--max-time`. Inputs are host arrays, and
outputs are copied to host arrays. The outputs are compared with the golden ones. Everything is float32 on the CPU.

ncnn and torch do not read ONNX files: pnnx converts for them, which is not timed.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus
import numpy as np

WARM_UP_SECONDS, WARM_UP_RUNS, WARM_UP_LIMIT, STABLE = 0.2, 10, 10, 0.03


def onnxruntime(model, inputs, threads, scratch):
    """ONNX Runtime with all its optimisations, as it comes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1

    def load():
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda: dict(zip(names, session.run(None, inputs), strict=True))

    return load


def openvino(model, inputs, threads, scratch):
    """OpenVINO for latency, in float32."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}

    def load():
        graph = core.read_model(model)
        graph.reshape({name: array.shape for name, array in inputs.items()})
        compiled = core.compile_model(graph, "CPU", options)
        request = compiled.create_infer_request()

        def run():
            results = request.infer(inputs)
            return {next(iter(output.get_names())): results[output] for output in compiled.outputs}

        return run

    return load


def convert(model, inputs, scratch):
    """Makes files of ncnn and torch of a model, with pnnx; returns their folder."""
    shutil.copyfile(model, scratch / "model.onnx")
    kinds = {np.dtype(np.float32): "f32", np.dtype(np.int64): "i64", np.dtype(np.int32): "i32"}
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]{kinds[array.dtype]}" for array in inputs.values())
    # Its command is a script in some folder; this is what that calls.
    command = [sys.executable, "-c", "import pnnx; pnnx.pnnx()", "model.onnx", f"inputshape={shapes}", "fp16=0"]
    done = subprocess.run(command, cwd=scratch, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode != 0 or not (scratch / "model_pnnx.py").exists():
        raise SystemExit(f"pnnx does not convert {Path(model).stem}")
    return scratch


def in_order(results, names):
    """Results by the golden outputs' names, which converted models have lost."""
    return dict(zip(names, results, strict=True))


def ncnn(model, inputs, threads, scratch, vulkan=False):
    """ncnn, converted by pnnx, in float32."""
    import ncnn

    folder = convert(model, inputs, scratch)
    given = [ncnn.Mat(np.ascontiguousarray(array[0])) for array in inputs.values()]

    def load():
        net = ncnn.Net()
        net.opt.use_vulkan_compute = vulkan
        net.opt.num_threads = threads
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, False)
        if net.load_param(str(folder / "model.ncnn.param")) != 0 or net.load_model(str(folder / "model.ncnn.bin")) != 0:
            raise SystemExit(f"ncnn does not load {Path(model).stem}")

        def run():
            with net.create_extractor() as extractor:
                for name, array in zip(net.input_names(), given, strict=True):
                    extractor.input(name, array)
                return [np.array(extractor.extract(name)[1]) for name in net.output_names()]

        return run

    return load


def torch(model, inputs, threads, scratch):
    """PyTorch's eager mode, converted by pnnx."""
    import torch

    torch.set_num_threads(threads)
    folder = convert(model, inputs, scratch)

    def load():
        os.chdir(folder)
        spec = importlib.util.spec_from_file_location("model_pnnx", folder / "model_pnnx.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        net = module.Model().float().eval()

        def run():
            with torch.inference_mode():
                results = net(*(torch.from_numpy(array) for array in inputs.values()))
            return [result.numpy() for result in (results if isinstance(results, tuple | list) else [results])]

        return run

    return load


ENGINES = {"onnxruntime": onnxruntime, "openvino": openvino, "ncnn": ncnn, "torch": torch}
PACKAGES = {"ncnn": ["ncnn", "pnnx"], "torch": ["torch", "pnnx"]}


def available():
    """The engines whose packages this interpreter has, with their versions."""
    found = {}
    for name in ENGINES:
        if all(importlib.util.find_spec(package) for package in PACKAGES.get(name, [name])):
            found[name] = importlib.metadata.version(name)
    return found


def peak_memory_bytes():
    """The most memory that this process has held."""
    try:
        # What the system counts for `getrusage` includes the process that started this one.
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def is_stable(samples):
    """Whether the medians of both halves are the same."""
    half = len(samples) // 2
    a, b = statistics.median(samples[:half]), statistics.median(samples[half:])
    return abs(a - b) <= STABLE * b


def warm_up(sample, runs, seconds, limit):
    """Samples until the times do not fall any more."""
    samples = []
    start = time.perf_counter()
    while time.perf_counter() - start < limit:
        samples.append(sample())
        window = len(samples) // 3
        enough = len(samples) >= runs and time.perf_counter() - start >= seconds
        if enough and (window == 0 or is_stable(samples[-2 * window :])):
            break


def measure(name, model, golden, arguments, scratch):
    """The record of an engine on one model."""
    inputs, wanted = corpus.golden(golden)
    load = ENGINES[name](str(model), inputs, arguments.threads, scratch)
    base_memory_bytes = peak_memory_bytes()
    start = time.perf_counter()
    run = load()
    load_ms = (time.perf_counter() - start) * 1e3

    def sample():
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3

    first_run_ms = sample()
    warm_up(
        sample,
        min(WARM_UP_RUNS, arguments.runs),
        min(WARM_UP_SECONDS, max(arguments.min_time, 1e-3)),
        min(WARM_UP_LIMIT, arguments.max_time),
    )
    samples = []
    start = time.perf_counter()
    while (time.perf_counter() - start < arguments.min_time or len(samples) < arguments.runs) and (
        not samples or time.perf_counter() - start < arguments.max_time
    ):
        samples.append(sample())
    peak = peak_memory_bytes()
    got = run()
    if isinstance(got, list):
        got = {name: result.reshape(wanted[name].shape) for name, result in in_order(got, wanted).items()}
    return {
        "version": importlib.metadata.version(name),
        "threads": arguments.threads,
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "samples_ms": samples,
        "peak_memory_bytes": peak,
        "base_memory_bytes": base_memory_bytes,
        "error": corpus.error(got, wanted),
    }


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=[*ENGINES, "list"], help="the engine; `list` prints those that are installed")
    parser.add_argument("model", type=Path, metavar="MODEL", nargs="?", help="an ONNX file")
    parser.add_argument("golden", type=Path, metavar="NPZ", nargs="?", help="its inputs and outputs")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="runs measured at least (default: 100)")
    parser.add_argument("--min-time", type=float, default=3, metavar="SECONDS", help="measured at least (default: 3)")
    parser.add_argument("--max-time", type=float, default=120, metavar="SECONDS", help="measured at most (default: 120)")
    arguments = parser.parse_args()
    if arguments.engine == "list":
        print(json.dumps(available()))
        return
    if arguments.golden is None:
        parser.error("MODEL and NPZ are missing")
    model, golden = arguments.model.resolve(), arguments.golden.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        document = measure(arguments.engine, model, golden, arguments, Path(scratch))
        os.chdir(Path(__file__).parent)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
