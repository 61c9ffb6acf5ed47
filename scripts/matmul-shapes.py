#!/usr/bin/env python3
"""Compare matrix products of many shapes with ONNX Runtime, and with what the machine does at best, and write a dated table.

Makes a model of one node and its golden arrays for each shape, in a scratch folder: MatMul with a constant factor, with two inputs, with batches, and
Gemm with a transposed constant factor and a bias; from a single row to 2048^3. Measures each as `peers.py` does, rounds of processes in random order. The
share of the limit is what `paisley bench --profile` reports: the least time for the product on this machine, by rates measured in the same process,
over the time it takes.

All samples go to benches/results/DATE-matmul.json, the table to DATE-matmul.md beside it. Shapes and numbers of threads that are not named keep what that
day's file has. The exit code is 1 when a product fails or exceeds its tolerance. Needs numpy and onnx, and onnxruntime in the interpreter of --python.
"""

import argparse
import dataclasses
import math
import statistics
import sys
import tempfile
from pathlib import Path

import engine
import numpy as np
import onnx
import peers
from onnx import TensorProto, helper, numpy_helper

PEER = "onnxruntime"
MAX_SAMPLES = 60
# Multiplications and additions from which on a product shall come near the limit.
LARGE = 2 * 1024**3


@dataclasses.dataclass(frozen=True)
class Product:
    """`y[.., m, n] = sum over k of a[.., m, k] * b[.., k, n]`."""

    kind: str  # constant, inputs, batched or gemm
    m: int
    k: int
    n: int
    batch: tuple = ()
    tolerance: float = 1e-4

    @property
    def name(self):
        """A name for files and options."""
        return "-".join([self.kind, "x".join(map(str, (*self.batch, self.m, self.k, self.n)))])

    @property
    def flop(self):
        """Multiplications and additions."""
        return 2 * math.prod((*self.batch, self.m, self.k, self.n))


def shapes():
    """All products, from small to large within each kind."""
    constant = [
        *((1, 768, 768), (1, 768, 3072), (1, 3072, 768), (1, 2048, 1000), (4, 768, 768), (8, 512, 2048), (16, 768, 3072), (32, 512, 512)),
        *((50, 512, 512), (64, 768, 768), (128, 384, 1536), (128, 768, 768), (128, 768, 3072), (128, 3072, 768), (197, 192, 768), (197, 768, 192)),
        *((197, 768, 2304), (256, 256, 256), (384, 384, 384), (512, 512, 512), (1000, 300, 700), (1024, 1024, 1024), (1024, 1024, 4096), (2048, 2048, 2048)),
    ]
    inputs = [
        *((1, 768, 768), (1, 1024, 4096), (8, 768, 768), (16, 512, 512), (64, 64, 64), (64, 768, 768), (100, 100, 100), (128, 128, 128)),
        *((128, 768, 768), (256, 256, 256), (256, 1024, 64), (512, 512, 512), (777, 333, 555), (768, 768, 768), (1024, 1024, 1024), (2048, 2048, 2048)),
    ]
    batched = [
        *(((4,), 128, 64, 128), ((12,), 128, 32, 128), ((12,), 128, 128, 64), ((12,), 197, 64, 197), ((12,), 197, 197, 64), ((8, 2), 64, 64, 64)),
        *(((12,), 512, 64, 512), ((12,), 512, 512, 64), ((16,), 256, 256, 256), ((32,), 1, 128, 512), ((4,), 512, 512, 512), ((2,), 1024, 1024, 1024)),
    ]
    gemm = [
        *((1, 768, 768), (1, 2048, 1000), (1, 4096, 4096), (8, 1024, 1000), (32, 768, 768), (64, 512, 2048)),
        *((128, 768, 3072), (256, 1024, 1024), (512, 768, 768), (1000, 512, 512), (1024, 1024, 1024), (2048, 1024, 2048)),
    ]
    return [
        *(Product("constant", *shape) for shape in constant),
        *(Product("inputs", *shape) for shape in inputs),
        *(Product("batched", m, k, n, batch) for batch, m, k, n in batched),
        *(Product("gemm", *shape) for shape in gemm),
    ]


def write(product, folder):
    """The model and its golden arrays."""
    random = np.random.default_rng(product.flop)

    def draw(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    a = draw(*product.batch, product.m, product.k)
    inputs, constants, node = {"a": a}, {}, helper.make_node("MatMul", ["a", "b"], ["y"])
    if product.kind == "gemm":
        constants = {"b": draw(product.n, product.k), "c": draw(product.n)}
        node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], transB=1)
        b, bias = constants["b"].T, constants["c"]
    else:
        b, bias = draw(*product.batch, product.k, product.n), np.float32(0)
        if product.kind == "constant":
            constants = {"b": b}
        else:
            inputs["b"] = b
    y = (a.astype(np.float64) @ b.astype(np.float64) + bias).astype(np.float32)

    def declare(name, array):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)

    given = [declare(name, array) for name, array in inputs.items()]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], product.name, given, [declare("y", y)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / f"{product.name}.onnx")
    np.savez(folder / f"{product.name}.npz", **{f"in:{name}": array for name, array in inputs.items()}, **{"out:y": y})


def measure(product, threads, arguments):
    """The record of one product with one number of threads."""
    with tempfile.TemporaryDirectory() as scratch:
        write(product, Path(scratch))
        arguments.models = Path(scratch)
        record = peers.measure(product, threads, [PEER], arguments, "--profile")
    for done in record["rounds"]:
        for name, document in done.items():
            if "samples_ms" in document:
                done[name] = engine.thinned(document, MAX_SAMPLES)
    return record | {"flop": product.flop}


def of_limit(record):
    """The least time over the time, the median of the rounds, or None."""
    profiles = [document["profile"] for document in engine.succeeded(record["rounds"], "paisley")]
    return statistics.median(profile["limit_ms"] / profile["total_ms"] for profile in profiles) if profiles else None


def microseconds(record, name):
    """The median and the least and the largest median of a round."""
    if not peers.is_right(record, name):
        return peers.cells(record, name)
    medians = [median * 1e3 for median in peers.of_rounds(record, name) if median]
    return f"{engine.pooled(record['rounds'], name) * 1e3:.1f} ({min(medians):.1f} to {max(medians):.1f})"


def speed_table(records):
    """Times, ratios and shares for one number of threads."""
    rows = [["product", "paisley us", f"{PEER} us", "ratio", "GFLOP/s", "of limit"]]
    for record in records:
        time, share = engine.pooled(record["rounds"], "paisley"), of_limit(record)
        cells = [microseconds(record, "paisley"), microseconds(record, PEER), peers.share(peers.ratio(record, PEER))]
        rate = engine.figure(record["flop"] / time / 1e6 if time else None, ".1f")
        rows.append([record["name"], *cells, rate, engine.figure(share, ".0%")])
    return engine.markdown(rows)


def summary(records):
    """The geometric means of the ratios, of each kind and of all, and the least share of the limit among the large products."""
    found = [(record, peers.ratio(record, PEER)) for record in records]
    found = [(record, ratio[0]) for record, ratio in found if ratio]
    means = {}
    for kind in dict.fromkeys(record["name"].split("-")[0] for record, _ in found):
        means[kind] = [ratio for record, ratio in found if record["name"].split("-")[0] == kind]
    means["all"] = [ratio for _, ratio in found]
    text = ", ".join(f"{kind} {statistics.geometric_mean(ratios):.2f} of {len(ratios)}" for kind, ratios in means.items() if ratios)
    shares = [of_limit(record) for record in records if record["flop"] >= LARGE]
    shares = [share for share in shares if share]
    least = f" Products of at least 1024^3 reach {min(shares):.0%} to {max(shares):.0%} of the limit." if shares else ""
    return f"Geometric means of the ratio: {text}.{least}"


def table(result):
    """The text of the table."""
    environment = result["environment"]
    commits = " and ".join(dict.fromkeys(record["commit"] for record in result["models"]))
    lines = [
        f"# Matrix products, {environment['date']}",
        "",
        f"Written by `scripts/matmul-shapes.py`. {environment['cpu']}, {environment['cores']} cores; Paisley at commit {commits}; {PEER}"
        f" {environment['peers'][PEER]}. Float32, copies included; {environment['rounds']} rounds of at least {environment['min_time']} s and"
        f" {environment['runs']} runs, each engine in a process of its own in each, in random order. Samples, thinned: `{result['file']}`.",
        "",
        "A product is named by its kind and [batches x] rows x depth x columns. *us* is the median of all runs and, in brackets, the least and the largest median"
        " of a round. *ratio* is the peer's time over Paisley's: above 1 Paisley is faster; ~ where rounds disagree which is. *of limit* is the least"
        " time by the rates of arithmetic and of memory that were measured in the same process, over the time.",
    ]
    for threads in sorted({record["threads"] for record in result["models"]}):
        records = [record for record in result["models"] if record["threads"] == threads]
        lines += ["", f"## {threads} thread{'s' if threads > 1 else ''}", "", summary(records), "", *speed_table(records)]
    return "\n".join(lines) + "\n"


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="products or kinds, such as gemm or constant-1x768x768 (default: all)")
    engine.add_options(parser, PEER)
    arguments = parser.parse_args()

    bad = []
    for product, record in engine.record(parser, arguments, PEER, "matmul", shapes(), measure, table):
        shown = f"{microseconds(record, 'paisley')} us; {peers.share(peers.ratio(record, PEER))}; {engine.figure(of_limit(record), '.0%')}"
        print(f"{product.name}, {record['threads']} threads: {shown}", file=sys.stderr, flush=True)
        bad += [f"{name} on {product.name}" for name in ("paisley", PEER) if not peers.is_right(record, name)]
    if bad:
        sys.exit(f"failed or beyond its tolerance: {', '.join(bad)}")


if __name__ == "__main__":
    main()
