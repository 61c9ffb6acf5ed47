#!/usr/bin/env python3
"""Write the ONNX project's node tests to files.

The onnx package builds its conformance cases in memory; this writes each into a folder of its own:

    OUT/<case>/model.onnx, input_0.npy ..., output_0.npy ...
    OUT/index.json

The index is a list of objects: case, op (of the node under test), op_types (all in the model, subgraphs included), domain, opset, rtol,
atol, and inputs and outputs with name, file, dtype and shape. An optional input or output that a case leaves out does not appear.
numpy has no bfloat16: such an array is stored as uint16 and its dtype says "bfloat16". A case with values that are no dense arrays of numbers
(sequences, optionals, strings, 4-bit and 8-bit floats ...) has "unsupported" with the reason instead of inputs and outputs, and no arrays.

The same onnx and numpy versions give the same bytes.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx

PLAIN = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.BOOL: "bool",
    **{getattr(onnx.TensorProto, f"{u}INT{n}"): f"{u.lower()}int{n}" for u in ("", "U") for n in (8, 16, 32, 64)},
}


class Unsupported(Exception):
    """A value that is no dense array of numbers."""


def to_array(value, declared):
    """The array to store for `value` of the declared type, and the name of its element type."""
    kind = declared.WhichOneof("value")
    if kind != "tensor_type":
        raise Unsupported(f"a value of {kind}")
    dtype = PLAIN.get(declared.tensor_type.elem_type)
    if dtype is None:
        raise Unsupported(f"elements of {onnx.TensorProto.DataType.Name(declared.tensor_type.elem_type)}")
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    if dtype == "bfloat16":
        array = array if array.dtype == np.uint16 else array.view(np.uint16)
    elif array.dtype != np.dtype(dtype):
        raise Unsupported(f"an array of {array.dtype} declared as {dtype}")
    return np.array(array, order="C"), dtype


def op_types(graph):
    """The operator names of `graph` and its subgraphs."""
    names = set()
    for node in graph.node:
        names.add(node.op_type)
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                names |= op_types(inner)
    return names


def write_case(case, op, folder):
    """Writes one case of the operator `op` and returns its row of the index."""
    graph = case.model.graph
    opsets = {o.domain: o.version for o in case.model.opset_import}
    domain = graph.node[0].domain
    row = {
        "case": case.name,
        "op": op,
        "op_types": sorted(op_types(graph)),
        "domain": domain,
        "opset": opsets.get("", opsets.get(domain)),
        "rtol": case.rtol,
        "atol": case.atol,
    }
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    if len(case.data_sets) != 1:
        raise SystemExit(f"{case.name} has {len(case.data_sets)} data sets: this script expects one")
    arrays = {}
    try:
        for what, values, infos in zip(("input", "output"), case.data_sets[0], (graph.input, graph.output), strict=True):
            if len(values) != len(infos):
                raise Unsupported(f"{len(values)} values for {len(infos)} {what}s")
            row[what + "s"] = []
            for i, (value, info) in enumerate(zip(values, infos, strict=True)):
                array, dtype = to_array(value, info.type)
                file = f"{what}_{i}.npy"
                arrays[file] = array
                row[what + "s"].append({"name": info.name, "file": file, "dtype": dtype, "shape": list(array.shape)})
    except Unsupported as reason:
        row.pop("inputs", None)
        row.pop("outputs", None)
        return row | {"unsupported": str(reason)}
    for file, array in arrays.items():
        np.save(folder / file, array, allow_pickle=False)
    return row


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to; its former contents are replaced")
    parser.add_argument("--op", metavar="TYPE", help="only the cases of one operator")
    arguments = parser.parse_args()

    np.random.seed(0)  # Most cases draw from the global generator, which nothing else seeds.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = sorted(collect_testcases(arguments.op), key=lambda case: case.name)

    unfinished = arguments.out.with_name(arguments.out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    # A case "NAME_expanded..." is case "NAME" with its operator written out as the function that defines it.
    ops = {case.name: case.model.graph.node[0].op_type for case in cases if "_expanded" not in case.name}
    rows = [write_case(case, ops[case.name.split("_expanded")[0]], unfinished / case.name) for case in cases]
    lines = ",\n".join(json.dumps(row) for row in rows)
    (unfinished / "index.json").write_text(f"[\n{lines}\n]\n")
    shutil.rmtree(arguments.out, ignore_errors=True)
    unfinished.rename(arguments.out)

    n_unsupported = sum("unsupported" in row for row in rows)
    print(f"{len(rows)} cases in {arguments.out}, {n_unsupported} of them with values that are no plain arrays")


if __name__ == "__main__":
    main()
