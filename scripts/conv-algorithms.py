#!/usr/bin/env python3
"""Compare the algorithms for convolutions on some layers with one another and with ONNX Runtime, and write a dated table.

Makes a model of a convolution with a bias and a limit below (Relu), and its golden arrays, for each layer, in a scratch folder, and runs it by each
algorithm that applies to it and as the compiler chooses; rounds of processes in random order. The inputs and the outputs of a model are rows, so what works on blocks of
channels pays for their conversion here, which it does not where its neighbours do too.

All samples go to benches/results/DATE-conv-algorithms.json, the table to DATE-conv-algorithms.md beside it. Layers and numbers of threads that are not named
keep what that day's file has. The exit code is 1 when a run fails or exceeds the tolerance. Needs numpy and onnx, and onnxruntime in the interpreter of
--python.
"""

import argparse
import dataclasses
import random
import sys
import tempfile
from pathlib import Path

import corpus
import engine
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PEER = "onnxruntime"
ALGORITHMS = ("direct", "im2col", "implicit_gemm", "spatial_pack", "winograd2", "winograd4")
MAX_SAMPLES = 60
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution that keeps the size of its images but for the stride."""

    channels: int
    filters: int
    kernel: tuple
    image: tuple
    stride: int = 1
    groups: int = 1

    @property
    def name(self):
        """Kernel, channels, image and what else there is."""
        sizes = ["x".join(map(str, self.kernel)), f"{self.channels}-{self.filters}", "x".join(map(str, self.image))]
        extras = [f"{letter}{value}" for letter, value in (("s", self.stride), ("g", self.groups)) if value > 1]
        return "-".join(sizes + extras)

    def places(self):
        """The extents of the output."""
        return [(extent + 2 * (taps // 2) - taps) // self.stride + 1 for extent, taps in zip(self.image, self.kernel, strict=True)]

    @property
    def flop(self):
        """Multiplications and additions."""
        return int(2 * self.filters * self.channels // self.groups * np.prod(self.kernel) * np.prod(self.places()))


LAYERS = (
    Layer(64, 64, (3, 3), (56, 56)),
    Layer(256, 256, (3, 3), (14, 14)),
    Layer(128, 128, (3, 3), (28, 28), stride=2),
    Layer(256, 64, (1, 1), (56, 56)),
    Layer(3, 64, (7, 7), (224, 224), stride=2),
    Layer(256, 256, (3, 3), (14, 14), groups=32),
    Layer(256, 256, (3, 3), (14, 14), groups=8),
    Layer(64, 64, (1, 3), (56, 56)),
    Layer(64, 64, (3, 1), (56, 56)),
    Layer(128, 128, (1, 3), (28, 28)),
    Layer(128, 128, (3, 1), (28, 28)),
    Layer(64, 64, (3,), (1024,)),
)


def write(layer, folder):
    """The model and its golden arrays."""
    draw = np.random.default_rng(layer.flop)
    depth, rank = layer.channels // layer.groups, len(layer.kernel)
    x = draw.standard_normal((1, layer.channels, *layer.image), dtype=np.float32)
    scale = np.float32(1 / np.sqrt(depth * np.prod(layer.kernel)))
    w = draw.standard_normal((layer.filters, depth, *layer.kernel), dtype=np.float32) * scale
    bias = draw.standard_normal(layer.filters, dtype=np.float32)

    pads = [taps // 2 for taps in layer.kernel]
    padded = np.pad(x[0].astype(np.float64), [(0, 0), *((pad, pad) for pad in pads)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, layer.kernel, axis=tuple(range(1, rank + 1)))
    windows = windows[(slice(None), *[slice(None, None, layer.stride)] * rank)]
    windows = windows.reshape(layer.groups, depth, *windows.shape[1:])
    filters = w.astype(np.float64).reshape(layer.groups, -1, *w.shape[1:])
    taps = [1, *range(2 + rank, 2 + 2 * rank)]
    sums = [np.tensordot(of, over, axes=(range(1, 2 + rank), [axis - 1 for axis in taps])) for of, over in zip(filters, windows, strict=True)]
    y = np.concatenate(sums) + bias.reshape(-1, *[1] * rank)
    y = np.maximum(y, 0).astype(np.float32)[None]

    def declare(name, array):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)

    conv = helper.make_node("Conv", ["x", "w", "b"], ["sum"], strides=[layer.stride] * rank, pads=pads * 2, group=layer.groups)
    nodes = [conv, helper.make_node("Relu", ["sum"], ["y"])]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, layer.name, [declare("x", x)], [declare("y", y)], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / f"{layer.name}.onnx")
    np.savez(folder / f"{layer.name}.npz", **{"in:x": x, "out:y": y})


def kernels(paisley, path, threads, options):
    """The names of the kernels of a model."""
    document = engine.call([paisley, "explain", path, "--device", "cpu", "--threads", threads, "--json", *options])
    return [kernel["name"] for kernel in document["kernels"]]


def algorithm_of(names):
    """The algorithm that kernels of these names compute a convolution by."""
    found = [algorithm for algorithm in ALGORITHMS for name in names if f"conv_{algorithm}" in name]
    return found[0] if found else "direct"


def measure(layer, threads, arguments):
    """The record of one layer with one number of threads."""
    with tempfile.TemporaryDirectory() as scratch:
        write(layer, Path(scratch))
        path, golden = Path(scratch) / f"{layer.name}.onnx", Path(scratch) / f"{layer.name}.npz"
        inputs, wanted = corpus.golden(golden)
        rules = f"--runs {arguments.runs} --min-time {arguments.min_time} --max-time {arguments.max_time}"
        chosen = algorithm_of(kernels(arguments.paisley, path, threads, []))
        engines, errors = {}, {}
        for algorithm in ("chosen", *ALGORITHMS):
            options = [] if algorithm == "chosen" else ["--algorithm", algorithm]
            if options and algorithm_of(kernels(arguments.paisley, path, threads, options)) != algorithm:
                continue
            got, _ = engine.run(arguments.paisley, path, inputs, "cpu", ["--threads", threads, *options], arguments.timeout)
            errors[algorithm] = corpus.error(got, wanted)
            shown = " ".join(options)
            engines[algorithm] = lambda shown=shown: engine.bench(arguments.paisley, path, inputs, "cpu", f"--threads {threads} {rules} {shown}")
        engines[PEER] = lambda: engine.peer(arguments.python, PEER, path, golden, threads, rules, arguments.timeout)
        rounds = []
        for _ in range(arguments.rounds):
            order = random.sample(sorted(engines), len(engines))
            rounds.append({name: engine.thinned(engines[name](), MAX_SAMPLES) for name in order})
        errors[PEER] = max(document[PEER]["error"] for document in rounds)
    return {"name": layer.name, "threads": threads, "flop": layer.flop, "chosen": chosen, "errors": errors, "rounds": rounds}


def table(result):
    """The text of the table."""
    environment = result["environment"]
    commits = " and ".join(dict.fromkeys(record["commit"] for record in result["models"]))
    lines = [
        f"# Algorithms for convolutions, {environment['date']}",
        "",
        f"Written by `scripts/conv-algorithms.py`. {environment['cpu']}, {environment['cores']} cores; Paisley at commit {commits}; {PEER}"
        f" {environment['peers'][PEER]}. Float32, copies included; {environment['rounds']} rounds of at least {environment['min_time']} s and"
        f" {environment['runs']} runs, each in a process of its own, in random order. Samples, thinned: `{result['file']}`.",
        "",
        "A layer is named by its window, input and output channels, image, stride and groups; it has a bias and a limit below. Times are medians of all runs in us, a dash"
        " where an algorithm does not apply. *chosen* is what runs where no algorithm is asked for. Input and output are rows, so that times of what"
        " works on blocks of channels include their conversion.",
    ]
    for threads in sorted({record["threads"] for record in result["models"]}):
        rows = [["layer", "chosen", "time", *ALGORITHMS, PEER, "GFLOP/s"]]
        for record in (record for record in result["models"] if record["threads"] == threads):
            times = {name: engine.pooled(record["rounds"], name) for name in ("chosen", *ALGORITHMS, PEER)}
            cells = [engine.figure(time and time * 1e3, ".1f") for time in times.values()]
            rows.append([record["name"], record["chosen"], *cells, engine.figure(record["flop"] / times["chosen"] / 1e6, ".0f")])
        lines += ["", f"## {threads} thread{'s' if threads > 1 else ''}", "", *engine.markdown(rows)]
    return "\n".join(lines) + "\n"


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="layers, such as 3x3-64-64-56x56 (default: all)")
    engine.add_options(parser, PEER)
    arguments = parser.parse_args()

    bad = []
    for layer, record in engine.record(parser, arguments, PEER, "conv-algorithms", LAYERS, measure, table):
        print(f"{layer.name}, {record['threads']} threads: {record['chosen']}", file=sys.stderr, flush=True)
        bad += [f"{name} on {layer.name}" for name, error in record["errors"].items() if error > TOLERANCE]
    if bad:
        sys.exit(f"beyond the tolerance: {', '.join(bad)}")


if __name__ == "__main__":
    main()
