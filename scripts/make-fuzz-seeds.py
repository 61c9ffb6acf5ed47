#!/usr/bin/env python3
"""Write the seeds of the importer's fuzzer: small models, sound ones and ones that are broken in a single way.

Writes OUT/NAME.onnx and OUT/index.json, an object a file: file, expect ("accepted", "refused", or "any": either, but without a panic and
without memory beyond what the file warrants) and why. "Accepted" and "refused" are about building the graph with every symbolic dimension
bound to 1. Needs onnx and numpy; the same versions give the same bytes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SEEDS = []


def seed(name, expect, why, content):
    """Adds a seed: a model or its bytes."""
    data = content.SerializeToString(deterministic=True) if isinstance(content, ModelProto) else content
    SEEDS.append((name, expect, why, data))


def value(name, shape, dtype=FLOAT):
    """A declared input or output."""
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs=None, outputs=None, constants=(), opset=17, ir=8, functions=()):
    """A model of `nodes`; by default from x: f32[1, 4] to y of the same shape."""
    inputs = [value("x", [1, 4])] if inputs is None else inputs
    outputs = [value("y", [1, 4])] if outputs is None else outputs
    graph = helper.make_graph(nodes, "seed", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="seed", functions=list(functions))


def node(op, inputs, outputs, **attributes):
    """A node named after its first output."""
    return helper.make_node(op, inputs, outputs, name=f"{op.lower()}_{outputs[0]}" if outputs else op.lower(), **attributes)


def constant(name, array, dtype=np.float32):
    """An initializer."""
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def claim(name, dims, dtype=FLOAT, **fields):
    """An initializer with just the fields given, whatever they contradict."""
    return TensorProto(name=name, dims=dims, data_type=dtype, **fields)


def external(name, dims, **entries):
    """An initializer whose data lie in another file."""
    tensor = claim(name, dims, data_location=TensorProto.EXTERNAL)
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


RELU = node("Relu", ["x"], ["y"])
ADD_W = node("Add", ["x", "w"], ["y"])


def sound():
    """Models that must be accepted."""
    seed("relu", "accepted", "one node", model([RELU]))
    seed("add-raw", "accepted", "an initializer as raw bytes", model([ADD_W], constants=[constant("w", [1, 2, 3, 4])]))
    typed = claim("w", [4], float_data=[1, 2, 3, 4])
    seed("add-typed", "accepted", "an initializer in its typed field", model([ADD_W], constants=[typed]))
    image = [value("x", ["batch", 3, 8, 8])]
    weights = constant("w", np.arange(54).reshape(2, 3, 3, 3) / 54)
    conv = [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])]
    seed("conv-symbolic", "accepted", "a symbolic batch", model(conv, image, [value("y", ["batch", 2, 8, 8])], [weights]))
    seed("opset-7", "accepted", "the oldest opset", model([RELU], opset=7, ir=3))
    chain = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    small = [constant("zero", 0, np.int64), constant("axes", [0], np.int64), constant("rest", [-1], np.int64)]
    seed("shape-chain", "accepted", "shape arithmetic", model(chain, [value("x", ["n", 2, 2])], [value("y", ["n", 4])], small))
    seed("optional-left-out", "accepted", "an empty name is an input left out", model([node("Clip", ["x", "", "hi"], ["y"])], constants=[constant("hi", 6.0)]))
    seed("shadowed-input", "accepted", "an initializer is the default of an input", model([ADD_W], [value("x", [1, 4]), value("w", [4])], constants=[constant("w", [1, 2, 3, 4])]))
    seed("chain", "accepted", "4000 nodes in a row: depth is no reason to overflow a stack", model(
        [node("Relu", ["x" if i == 0 else f"t{i - 1}"], ["y" if i == 3999 else f"t{i}"]) for i in range(4000)]))
    doubling = [node("Add", [f"t{i}", f"t{i}"], [f"t{i + 1}"]) for i in range(60)]
    seed("doubling-uses", "accepted", "60 times x + x: a tree of it has 2^60 leaves", model(
        [node("Relu", ["x"], ["t0"]), *doubling, node("Relu", ["t60"], ["y"])]))
    seed("zero-elements", "any", "a dimension of 0", model([RELU], [value("x", [0, 4])], [value("y", [0, 4])]))


def broken_bytes():
    """Files that are no protobuf, or not quite."""
    good = model([ADD_W], constants=[constant("w", [1, 2, 3, 4])]).SerializeToString(deterministic=True)
    seed("empty", "refused", "no byte", b"")
    seed("text", "refused", "a text file", b"Paisley, next to Glasgow, wove patterns.\n")
    seed("png", "refused", "a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0")
    seed("truncated-early", "refused", "the first 9 bytes", good[:9])
    seed("truncated-half", "refused", "the first half", good[: len(good) // 2])
    seed("truncated-late", "refused", "the last byte is missing", good[:-1])
    seed("garbage-after", "any", "more bytes after the model", good + b"\xff\xff\xff\xff")
    seed("wire-type-graph", "refused", "the graph (field 7) as a number", b"\x08\x08\x38\x2a")
    seed("wire-type-ir", "refused", "the IR version (field 1) as bytes", b"\x0a\x03abc")
    seed("wire-type-7", "refused", "a wire type that does not exist", b"\x0f\x00")
    seed("field-0", "refused", "field number 0", b"\x00\x00")
    seed("varint-overlong", "refused", "a number of eleven bytes", b"\x08" + b"\xff" * 11)
    seed("length-huge", "refused", "a graph of 2^62 bytes", b"\x3a" + b"\xff" * 8 + b"\x3f" + b"\0" * 16)
    seed("groups-deep", "refused", "500 nested groups", b"\xf3\x06" * 500)
    seed("not-utf8", "any", "a name that is no UTF-8", good.replace(b"seed", b"\xff\xfe\xfd\xfc"))
    zeros = b"\x3a\x04\x0a\x02\x0a\x00"
    seed("node-empty", "refused", "a node without operator, without opset", zeros)


def nested(levels):
    """A model of `levels` branches, one inside the other, in bytes: the library refuses to write many of them."""

    def field(number, content):
        size, length = len(content), b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = helper.make_graph([node("Identity", ["x"], ["y"])], "inner", [], [value("y", [1, 4])]).SerializeToString(deterministic=True)
    for _ in range(levels):
        # One branch only: with two, the size would double at each level.
        branch = field(5, field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05")
        graph = field(1, field(1, b"condition") + field(2, b"y") + field(4, b"If") + branch)
    ends = model([], constants=[constant("condition", True, np.bool_)]).graph.SerializeToString(deterministic=True)
    return b"\x08\x08" + field(7, graph + ends) + field(8, b"\x10\x11")


def broken_structure():
    """Graphs that do not hold together."""
    seed("no-graph", "refused", "a model without a graph", ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]))
    no_opset = model([RELU])
    del no_opset.opset_import[:]
    seed("no-opset", "refused", "no opset", no_opset)
    seed("opset-0", "refused", "opset 0", model([RELU], opset=0))
    seed("opset-negative", "refused", "opset -1", model([RELU], opset=-1))
    seed("opset-future", "refused", "opset 99999", model([RELU], opset=99999))
    seed("cycle-self", "refused", "a node that reads itself", model([node("Add", ["x", "y"], ["y"])]))
    seed("cycle", "refused", "two nodes that read one another", model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["a"], ["y"])]))
    seed("unsorted", "any", "a node before the one it reads", model([node("Relu", ["a"], ["y"]), node("Relu", ["x"], ["a"])]))
    seed("undefined-input", "refused", "a value that nothing makes", model([node("Add", ["x", "nowhere"], ["y"])]))
    seed("undefined-output", "refused", "a graph output that nothing makes", model([node("Relu", ["x"], ["z"])]))
    seed("made-twice", "refused", "two nodes with one output name", model([RELU, node("Sigmoid", ["x"], ["y"])]))
    seed("made-over-input", "refused", "a node whose output is the graph's input", model([node("Relu", ["x"], ["x"]), RELU]))
    seed("constant-twice", "any", "two initializers of one name", model([ADD_W], constants=[constant("w", [1] * 4), constant("w", [2] * 4)]))
    seed("no-outputs", "any", "a graph without outputs", model([RELU], outputs=[]))
    seed("input-twice", "any", "two inputs of one name", model([RELU], [value("x", [1, 4]), value("x", [2, 4])]))
    untyped = model([RELU])
    untyped.graph.input[0].ClearField("type")
    seed("input-untyped", "refused", "an input without a type", untyped)
    seed("input-rankless", "any", "an input without a shape", model([RELU], [value("x", None)]))
    seed("input-negative", "any", "an input dimension of -5", model([RELU], [value("x", [-5, 4])]))
    seed("input-wrong-count", "refused", "Relu of two values", model([node("Relu", ["x", "x"], ["y"])]))
    seed("input-missing", "refused", "Add of one value", model([node("Add", ["x"], ["y"])]))
    seed("output-surplus", "refused", "Relu with two outputs", model([node("Relu", ["x"], ["y", "z"])]))
    seed("operator-unknown", "refused", "an operator that does not exist", model([node("Paisley", ["x"], ["y"])]))
    seed("operators-unknown", "refused", "three of them: all should be named at once", model(
        [node("Warp", ["x"], ["a"]), node("Weft", ["a"], ["b"]), node("Loom", ["b"], ["y"])]))
    seed("domain-unknown", "refused", "a domain that is not imported", model([node("Relu", ["x"], ["y"], domain="org.nowhere")]))
    seed("nested-20", "any", "20 nested branches", nested(20))
    seed("nested-500", "refused", "500 nested branches", nested(500))
    recursive = helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="local")], [helper.make_opsetid("local", 1)])
    calls = model([node("F", ["x"], ["y"], domain="local")], functions=[recursive])
    calls.opset_import.append(helper.make_opsetid("local", 1))
    seed("function-recursive", "refused", "a function that calls itself", calls)
    body = helper.make_graph(
        [node("Identity", ["c"], ["c1"]), node("Identity", ["v"], ["v1"])], "body",
        [value("i", [], INT64), value("c", [], TensorProto.BOOL), value("v", [1, 4])], [value("c1", [], TensorProto.BOOL), value("v1", [1, 4])])
    endless = model([node("Loop", ["", "yes", "x"], ["y"], body=body)], constants=[constant("yes", True, np.bool_)])
    seed("loop-endless", "any", "a loop that never ends", endless)


def broken_types():
    """Element types and attributes that do not fit."""
    seed("type-mixed", "refused", "float plus integer", model([ADD_W], constants=[constant("w", [1, 2, 3, 4], np.int64)]))
    seed("type-unknown", "refused", "element type 99", model([ADD_W], constants=[claim("w", [4], 99, raw_data=b"\0" * 16)]))
    seed("type-undefined", "refused", "element type 0", model([ADD_W], constants=[claim("w", [4], 0, raw_data=b"\0" * 16)]))
    seed("type-input-unknown", "refused", "an input of element type 77", model([RELU], [value("x", [1, 4], 77)]))
    seed("type-string", "refused", "an initializer of strings", model([ADD_W], constants=[claim("w", [4], TensorProto.STRING, string_data=[b"a"] * 4)]))
    seed("attribute-type", "refused", "strides as a text", model([node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides="wide")], [value("x", [1, 1, 4, 4])]))
    twice = node("Softmax", ["x"], ["y"], axis=1)
    twice.attribute.append(helper.make_attribute("axis", 0))
    seed("attribute-twice", "any", "an attribute given twice", model([twice]))
    unknown = node("Softmax", ["x"], ["y"], twist=3)
    seed("attribute-unknown", "refused", "an attribute that Softmax does not have", model([unknown]))
    seed("attribute-missing", "refused", "Concat without its axis", model([node("Concat", ["x", "x"], ["y"])]))
    seed("axis-out-of-range", "refused", "axis 100 of two", model([node("Softmax", ["x"], ["y"], axis=100)]))
    seed("axis-minimum", "refused", "axis -2^63", model([node("Softmax", ["x"], ["y"], axis=-(2**63))]))
    seed("permutation-short", "refused", "one axis for two", model([node("Transpose", ["x"], ["y"], perm=[0])]))
    seed("permutation-repeats", "refused", "the same axis twice", model([node("Transpose", ["x"], ["y"], perm=[1, 1])]))
    image, weights = [value("x", [1, 4, 8, 8])], constant("w", np.ones((4, 4, 3, 3)))
    for name, why, attributes in [
        ("stride-0", "stride 0", {"strides": [0, 1]}),
        ("stride-negative", "stride -1", {"strides": [-1, 1]}),
        ("stride-huge", "stride 2^62", {"strides": [2**62, 2**62]}),
        ("dilation-0", "dilation 0", {"dilations": [0, 0]}),
        ("dilation-huge", "dilation 2^62", {"dilations": [2**62, 1]}),
        ("pads-huge", "padding of 2^62", {"pads": [2**62, 2**62, 2**62, 2**62]}),
        ("pads-minimum", "padding of -2^63", {"pads": [-(2**63), 0, 0, 0]}),
        ("pads-short", "two paddings for two axes", {"pads": [1, 1]}),
        ("group-0", "0 groups", {"group": 0}),
        ("group-uneven", "3 groups of 4 channels", {"group": 3}),
        ("group-negative", "-1 groups", {"group": -1}),
        ("kernel-other", "a kernel shape other than the weights'", {"kernel_shape": [5, 5]}),
        ("auto-pad-unknown", "auto_pad as nobody knows it", {"auto_pad": "SOMEHOW"}),
    ]:
        expect = "any" if name == "stride-huge" else "refused"
        seed(f"conv-{name}", expect, f"a convolution with {why}", model([node("Conv", ["x", "w"], ["y"], **attributes)], image, [value("y", None)], [weights]))
    seed("conv-kernel-too-large", "refused", "a kernel larger than the picture", model(
        [node("Conv", ["x", "w"], ["y"])], [value("x", [1, 4, 2, 2])], [value("y", None)], [weights]))
    seed("conv-channels", "refused", "weights for other channels", model([node("Conv", ["x", "w"], ["y"])], [value("x", [1, 3, 8, 8])], [value("y", None)], [weights]))
    seed("pool-huge", "any", "a window of 2^40 with as much padding", model(
        [node("AveragePool", ["x"], ["y"], kernel_shape=[2**40, 1], pads=[2**39, 0, 2**39, 0], count_include_pad=1)], image, [value("y", None)]))


def broken_sizes():
    """Sizes that lie, overflow or would fill the memory."""
    for name, why, tensor in [
        ("claims-tebibyte", "2^40 elements in 4 bytes", claim("w", [2**40], raw_data=b"\0" * 4)),
        ("claims-nothing", "2^31 elements without data", claim("w", [2**31])),
        ("overflows", "2^93 elements", claim("w", [2**31, 2**31, 2**31], raw_data=b"\0" * 4)),
        ("overflows-to-0", "2^64 elements, 0 in 64 bits", claim("w", [2**32, 2**32])),
        ("negative", "a dimension of -1", claim("w", [-1], raw_data=b"")),
        ("minimum", "a dimension of -2^63", claim("w", [-(2**63)], raw_data=b"")),
        ("short", "3 values for 4", claim("w", [4], float_data=[1, 2, 3])),
        ("long", "5 values for 4", claim("w", [4], float_data=[1, 2, 3, 4, 5])),
        ("odd", "a length that is no multiple of 4", claim("w", [4], raw_data=b"\0" * 15)),
        ("both", "typed and raw data", claim("w", [4], float_data=[1, 2, 3, 4], raw_data=b"\0" * 16)),
        ("wrong-field", "floats in the field of integers", claim("w", [4], int64_data=[1, 2, 3, 4])),
    ]:
        seed(f"initializer-{name}", "any" if name == "both" else "refused", f"an initializer with {why}", model([ADD_W], constants=[tensor]))
    seed("input-huge", "any", "an input of 2^62 x 4", model([RELU], [value("x", [2**62, 4])], [value("y", None)]))
    huge = constant("shape", [2**40], np.int64)
    fill = [node("ConstantOfShape", ["shape"], ["w"]), node("Add", ["x", "w"], ["y"])]
    seed("fill-tebibyte", "any", "a constant of 2^40 elements, made while folding", model(fill, [value("x", [1])], [value("y", None)], [huge]))
    seed("expand-tebibyte", "any", "a constant expanded to 2^40 elements", model(
        [node("Expand", ["c", "shape"], ["w"]), node("Add", ["x", "w"], ["y"])], [value("x", [1])], [value("y", None)], [huge, constant("c", [1.0])]))
    seed("tile-tebibyte", "any", "a constant repeated 2^40 times", model(
        [node("Tile", ["c", "shape"], ["w"]), node("Add", ["x", "w"], ["y"])], [value("x", [1])], [value("y", None)], [huge, constant("c", [1.0])]))
    limits = [constant("start", 0, np.int64), constant("limit", 2**62, np.int64), constant("delta", 1, np.int64)]
    seed("range-huge", "any", "a range of 2^62 numbers", model(
        [node("Range", ["start", "limit", "delta"], ["r"]), node("Cast", ["r"], ["y"], to=FLOAT)], [value("x", [1])], [value("y", None)], limits))
    limits[2] = constant("delta", 0, np.int64)
    seed("range-step-0", "any", "a range with step 0", model([node("Range", ["start", "limit", "delta"], ["y"])], [value("x", [1])], [value("y", None, INT64)], limits))
    seed("pad-huge", "any", "2^40 elements of padding", model(
        [node("Pad", ["x", "pads"], ["y"])], [value("x", [4])], [value("y", None)], [constant("pads", [2**40, 0], np.int64)]))
    for source, start, constants in (("constant", "c0", [constant("c0", [1.0])]), ("value", "x", [])):
        names = [start, *(f"c{i}" for i in range(1, 61))]
        doubling = [node("Concat", [a, a], [b], axis=0) for a, b in zip(names, names[1:], strict=False)]
        last = node("Add", ["x", "c60"], ["y"]) if source == "constant" else node("Relu", ["c60"], ["y"])
        expect = "any" if source == "constant" else "refused"
        seed(f"concat-doubling-{source}", expect, f"a {source} doubled 60 times", model([*doubling, last], [value("x", [16])], [value("y", None)], constants))
    for name, shape, expect in [("two-free", [-1, -1], "refused"), ("uneven", [3, -1], "refused"), ("negative", [-7, 4], "refused"), ("overflows", [2**62, 2**62], "refused")]:
        seed(f"reshape-{name}", expect, f"a reshape of [1, 4] to {shape}", model([node("Reshape", ["x", "s"], ["y"])], outputs=[value("y", None)], constants=[constant("s", shape, np.int64)]))
    seed("broadcast-mismatch", "refused", "[1, 4] plus [3]", model([ADD_W], constants=[constant("w", [1, 2, 3])]))
    seed("matmul-mismatch", "refused", "[1, 4] times [3, 2]", model([node("MatMul", ["x", "w"], ["y"])], outputs=[value("y", None)], constants=[constant("w", np.ones((3, 2)))]))
    seed("gather-out-of-range", "any", "a constant index 9 of 4", model(
        [node("Gather", ["x", "i"], ["y"], axis=1)], outputs=[value("y", None)], constants=[constant("i", [9], np.int64)]))
    seed("slice-extreme", "any", "a slice from -2^63 to 2^63 - 1", model(
        [node("Slice", ["x", "a", "b", "axes"], ["y"])], outputs=[value("y", None)],
        constants=[constant("a", [-(2**63)], np.int64), constant("b", [2**63 - 1], np.int64), constant("axes", [1], np.int64)]))
    seed("divide-by-0", "any", "shape arithmetic with a division by 0", model(
        [node("Div", ["four", "none"], ["q"]), node("Reshape", ["x", "q"], ["y"])], outputs=[value("y", None)],
        constants=[constant("four", [4], np.int64), constant("none", [0], np.int64)]))


def broken_paths():
    """Data outside the file."""
    for name, why, entries in [
        ("parent", "in the folder above", {"location": "../weights.bin"}),
        ("parent-deep", "above, by way of below", {"location": "weights/../../../../../../../../etc/passwd"}),
        ("absolute", "at an absolute path", {"location": "/etc/passwd"}),
        ("drive", "on a drive", {"location": "C:\\Windows\\win.ini"}),
        ("url", "behind an address", {"location": "file:///etc/passwd"}),
        ("device", "on a device", {"location": "/dev/zero"}),
        ("folder", "in a folder, not a file", {"location": "."}),
        ("missing", "in a file that is not there", {"location": "nowhere.bin"}),
        ("nameless", "nowhere", {}),
        ("empty-name", "in a file without a name", {"location": ""}),
        ("zero-byte", "in a file whose name holds a zero byte", {"location": "a\0b"}),
        ("offset-negative", "before the start of a file", {"location": "index.json", "offset": "-4"}),
        ("offset-huge", "beyond the end of a file", {"location": "index.json", "offset": str(2**63), "length": "16"}),
        ("offset-text", "at a place that is no number", {"location": "index.json", "offset": "soon"}),
        ("length-huge", "in more bytes than a file has", {"location": "index.json", "length": str(2**64 - 1)}),
        ("length-other", "in fewer bytes than it needs", {"location": "index.json", "length": "8"}),
    ]:
        seed(f"external-{name}", "refused", f"weights {why}", model([ADD_W], constants=[external("w", [4], **entries)]))


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to; its *.onnx files are replaced")
    arguments = parser.parse_args()
    for part in (sound, broken_bytes, broken_structure, broken_types, broken_sizes, broken_paths):
        part()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for old in arguments.out.glob("*.onnx"):
        old.unlink()
    rows = []
    for name, expect, why, data in sorted(SEEDS):
        (arguments.out / f"{name}.onnx").write_bytes(data)
        rows.append(json.dumps({"file": f"{name}.onnx", "expect": expect, "why": why}))
    if len({name for name, *_ in SEEDS}) != len(SEEDS):
        raise SystemExit("two seeds have one name")
    (arguments.out / "index.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
    print(f"{len(SEEDS)} seeds, {sum(len(data) for *_, data in SEEDS)} bytes")


if __name__ == "__main__":
    main()
