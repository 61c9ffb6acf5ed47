//! Networks of bytes written with f32 operators: each reads what a DequantizeLinear gives and is followed by a QuantizeLinear. Here they
//! become the operators on bytes that they stand for, so that both ways to write a network run the same kernels.
//!
//! | between the two | becomes |
//! |---|---|
//! | Conv, MatMul | QLinearConv, QLinearMatMul |
//! | Gemm | QGemm |
//! | Add, Mul | QLinearAdd, QLinearMul |
//! | Concat | QLinearConcat |
//! | GlobalAveragePool | QLinearGlobalAveragePool |
//! | what moves elements or takes the largest, with one scale and zero point on both sides | the same of bytes |
//!
//! A Relu before the QuantizeLinear is dropped where that saturates at 0 by itself. Sums are exact then, where the file asks for sums of
//! rounded f32: a result that is nearly between two bytes may become the other one.

use super::model::is_standard;
use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use super::weights::{self, External};
use crate::tensor::{DType, Tensor};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

const MICROSOFT: &str = "com.microsoft";

/// What a bias may be off from the product of the scales that it is said to have, relative to it.
const SCALE_TOLERANCE: f64 = 1e-4;

/// The nodes of `graph` with their places there: those on bytes that some stand for, and the others as they are, but for those that
/// nothing reads any more.
pub(super) fn integer_operators<'a>(
    graph: &'a GraphProto,
    external: &External,
) -> Vec<(usize, Cow<'a, NodeProto>)> {
    let file = File::new(graph, external);
    let mut nodes: Vec<Cow<'_, NodeProto>> = graph.node.iter().map(Cow::Borrowed).collect();
    let mut stood_for = HashSet::new();
    for (i, node) in graph.node.iter().enumerate() {
        if let Some(found) = file.integer_operator(node) {
            stood_for.extend(found.stands_for);
            nodes[i] = Cow::Owned(found.node);
        }
    }
    let mut read: HashSet<String> = graph.output.iter().map(|info| info.name.clone()).collect();
    let mut kept = vec![];
    for (i, node) in nodes.into_iter().enumerate().rev() {
        if stood_for.contains(&i) && !node.output.iter().any(|output| read.contains(output)) {
            continue;
        }
        visit_reads(&node, &mut |name| {
            read.insert(name.to_owned());
        });
        kept.push((i, node));
    }
    kept.reverse();
    kept
}

/// Calls `visit` with each name that a node reads, in its branches too.
fn visit_reads<'n>(node: &'n NodeProto, visit: &mut impl FnMut(&'n str)) {
    node.input.iter().for_each(|name| visit(name));
    for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_deref()) {
        graph.node.iter().for_each(|node| visit_reads(node, visit));
        graph.output.iter().for_each(|info| visit(&info.name));
    }
}

/// A node on bytes, and the places of those it stands for beside the one it replaces.
struct Found {
    node: NodeProto,
    stands_for: Vec<usize>,
}

/// Bytes, or i32 of a bias, with scale and zero point: names, empty where there is no zero point.
struct Quantized<'a> {
    /// The DequantizeLinear.
    place: usize,
    x: &'a str,
    scale: &'a str,
    zero: &'a str,
    axis: i64,
}

impl Quantized<'_> {
    fn names(&self) -> [String; 3] {
        [self.x, self.scale, self.zero].map(str::to_owned)
    }
}

struct File<'a> {
    nodes: &'a [NodeProto],
    external: &'a External,
    producers: HashMap<&'a str, usize>,
    /// How often each name is read.
    uses: HashMap<&'a str, usize>,
    constants: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> File<'a> {
    fn new(graph: &'a GraphProto, external: &'a External) -> File<'a> {
        let mut constants: HashMap<&str, &TensorProto> =
            graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let (mut producers, mut uses) = (HashMap::new(), HashMap::new());
        for (i, node) in graph.node.iter().enumerate() {
            visit_reads(node, &mut |name| *uses.entry(name).or_default() += 1);
            producers.extend(node.output.iter().map(|output| (output.as_str(), i)));
            if let ("Constant", [output], [AttributeProto { t: Some(tensor), .. }]) =
                (node.op_type.as_str(), node.output.as_slice(), node.attribute.as_slice())
            {
                constants.insert(output, tensor);
            }
        }
        graph.output.iter().for_each(|info| *uses.entry(&info.name).or_default() += 1);
        File { nodes: &graph.node, external, producers, uses, constants }
    }

    /// The node on bytes that a QuantizeLinear is the end of.
    fn integer_operator(&self, quantize: &'a NodeProto) -> Option<Found> {
        let [x, scale, zero] = quantize.input.as_slice() else { return None };
        if !is(quantize, "QuantizeLinear") || !has_only(quantize, &["axis", "saturate"]) {
            return None;
        }
        let zero_point = self.single(zero).filter(|_| self.is_bytes(zero))?;
        self.single(scale)?;
        let mut stands_for = vec![];
        let mut place = self.only_read_here(x)?;
        if is(&self.nodes[place], "Relu") && Some(zero_point) == self.least(zero) {
            stands_for.push(place);
            place = self.only_read_here(self.nodes[place].input.first()?)?;
        }
        stands_for.push(place);
        let node = &self.nodes[place];
        let operands: Vec<Quantized<'a>> =
            node.input.iter().map_while(|name| self.dequantized(name)).collect();
        let result = [scale.clone(), zero.clone()];
        let of_operands = || operands.iter().flat_map(Quantized::names);
        let whole = node.input.len() == operands.len() && operands[..].iter().all(|of| self.is_single(of));
        let (op, domain, input, attributes): (_, _, Vec<String>, _) =
            match (node.op_type.as_str(), &*operands) {
                ("Conv", [x, w, bias @ ..])
                    if node.input.len() == operands.len()
                        && self.is_single(x)
                        && self.is_along(w, 0)
                        && self.is_centred(w)
                        && self.are_biases(bias, [x, w]) =>
                {
                    let bias = bias.iter().map(|bias| bias.x.to_owned());
                    let input = [x.names(), w.names()].concat().into_iter().chain(result).chain(bias);
                    ("QLinearConv", "", input.collect(), node.attribute.clone())
                }
                ("MatMul", [a, b])
                    if self.is_single(a) && self.is_along(b, self.rank(b.x)?.saturating_sub(1)) =>
                {
                    ("QLinearMatMul", "", of_operands().chain(result).collect(), vec![])
                }
                ("Gemm", [a, b, bias @ ..])
                    if node.input.len() == operands.len()
                        && self.is_single(a)
                        && self.is_along(b, usize::from(!transposes_b(node)))
                        && self.are_biases(bias, [a, b])
                        && is_unscaled(node) =>
                {
                    let bias = bias.first().map_or(String::new(), |bias| bias.x.to_owned());
                    let input = [a.names(), b.names()].concat().into_iter().chain([bias]).chain(result);
                    let attributes = node.attribute.iter().filter(|of| of.name != "beta").cloned();
                    ("QGemm", MICROSOFT, input.collect(), attributes.collect())
                }
                ("Add", [_, _]) if whole => {
                    ("QLinearAdd", MICROSOFT, of_operands().chain(result).collect(), vec![])
                }
                ("Mul", [_, _]) if whole => {
                    ("QLinearMul", MICROSOFT, of_operands().chain(result).collect(), vec![])
                }
                ("GlobalAveragePool", [_]) if whole => {
                    ("QLinearGlobalAveragePool", MICROSOFT, of_operands().chain(result).collect(), vec![])
                }
                ("Concat", [_, ..]) if whole => {
                    let input = result.into_iter().chain(of_operands());
                    ("QLinearConcat", MICROSOFT, input.collect(), node.attribute.clone())
                }
                (
                    op @ ("MaxPool" | "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice"
                    | "Identity"),
                    [x, ..],
                ) if self.is_single(x) && self.is_same(x.scale, scale) && self.is_same(x.zero, zero) => {
                    let others = node.input[1..].iter().cloned();
                    (op, "", [x.x.to_owned()].into_iter().chain(others).collect(), node.attribute.clone())
                }
                _other => return None,
            };
        stands_for.extend(operands.iter().map(|operand| operand.place));
        let node = NodeProto {
            input,
            output: quantize.output.clone(),
            name: node.name.clone(),
            op_type: op.to_owned(),
            attribute: attributes,
            domain: domain.to_owned(),
        };
        Some(Found { node, stands_for })
    }

    /// The node that gives a value, one of the standard operators, where it gives no other and nothing else reads it.
    fn only_read_here(&self, name: &str) -> Option<usize> {
        let place = *self.producers.get(name)?;
        let node = &self.nodes[place];
        (node.output.len() == 1 && is_standard(&node.domain) && self.uses.get(name) == Some(&1))
            .then_some(place)
    }

    fn dequantized(&self, name: &str) -> Option<Quantized<'a>> {
        let place = *self.producers.get(name)?;
        let node = &self.nodes[place];
        let (x, scale, zero) = match node.input.as_slice() {
            [x, scale] => (x, scale, ""),
            [x, scale, zero] => (x, scale, zero.as_str()),
            _other => return None,
        };
        if !is(node, "DequantizeLinear") || !has_only(node, &["axis"]) {
            return None;
        }
        let axis = attribute(node, "axis").map_or(1, |axis| axis.i.unwrap_or(0));
        Some(Quantized { place, x, scale, zero, axis })
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        weights::dtype(self.constants.get(name)?.data_type).ok()
    }

    fn rank(&self, name: &str) -> Option<usize> {
        Some(self.constants.get(name)?.dims.len())
    }

    fn tensor(&self, name: &str) -> Option<Tensor> {
        weights::tensor(self.constants.get(name)?, self.external).ok()
    }

    fn values(&self, name: &str) -> Option<Vec<f64>> {
        let tensor = self.tensor(name)?;
        Some((0..tensor.len()).map(|at| tensor.get_f64(at)).collect())
    }

    /// The one value of a constant.
    fn single(&self, name: &str) -> Option<f64> {
        match self.values(name)?.as_slice() {
            [value] => Some(*value),
            _several => None,
        }
    }

    fn is_bytes(&self, name: &str) -> bool {
        matches!(self.dtype(name), Some(DType::U8 | DType::I8))
    }

    /// The least value of the type of a constant of bytes.
    fn least(&self, name: &str) -> Option<f64> {
        let (least, _) = self.dtype(name)?.integer_range()?;
        Some(least as f64)
    }

    fn is_same(&self, a: &str, b: &str) -> bool {
        a == b
            || (self.dtype(a) == self.dtype(b) && self.values(a).is_some_and(|of| Some(of) == self.values(b)))
    }

    /// Whether bytes have one scale and one zero point.
    fn is_single(&self, of: &Quantized<'_>) -> bool {
        self.is_bytes(of.zero)
            && self.dtype(of.scale) == Some(DType::F32)
            && [of.scale, of.zero].iter().all(|name| self.single(name).is_some())
    }

    /// Whether bytes have one scale, or one for each place along an axis.
    fn is_along(&self, of: &Quantized<'_>, axis: usize) -> bool {
        let rank = self.rank(of.x).map_or(0, |rank| rank as i64);
        let along = [axis as i64, axis as i64 - rank].contains(&of.axis) && self.rank(of.scale) == Some(1);
        let bytes = self.is_bytes(of.zero) || (of.zero.is_empty() && self.dtype(of.x) == Some(DType::I8));
        bytes && self.dtype(of.scale) == Some(DType::F32) && (along || self.single(of.scale).is_some())
    }

    /// Whether the zero points of weights are in the middle of their type, so that they are none of signed bytes.
    fn is_centred(&self, of: &Quantized<'_>) -> bool {
        let middle = if self.dtype(of.zero) == Some(DType::U8) { 128.0 } else { 0.0 };
        of.zero.is_empty()
            || self.values(of.zero).is_some_and(|zeros| zeros.iter().all(|zero| *zero == middle))
    }

    /// Whether these are no bias, or one of i32 whose scale is the product of those of the factors.
    fn are_biases(&self, biases: &[Quantized<'_>], factors: [&Quantized<'_>; 2]) -> bool {
        let [bias] = biases else { return biases.is_empty() };
        let scales = [factors[0].scale, factors[1].scale, bias.scale].map(|name| self.values(name));
        let [Some(first), Some(second), Some(own)] = scales else { return false };
        let at = |values: &[f64], i: usize| values.get(if values.len() == 1 { 0 } else { i }).copied();
        let fits = (0..second.len().max(own.len())).all(|i| {
            let (Some(x), Some(y), Some(own)) = (at(&first, i), at(&second, i), at(&own, i)) else {
                return false;
            };
            (own - x * y).abs() <= SCALE_TOLERANCE * own.abs()
        });
        let uncentred = self.values(bias.zero).is_some_and(|zeros| zeros.iter().any(|zero| *zero != 0.0));
        self.dtype(bias.x) == Some(DType::I32) && self.rank(bias.x) == Some(1) && fits && !uncentred
    }
}

fn is(node: &NodeProto, op: &str) -> bool {
    node.op_type == op && is_standard(&node.domain)
}

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn has_only(node: &NodeProto, names: &[&str]) -> bool {
    node.attribute.iter().all(|attribute| names.contains(&attribute.name.as_str()))
}

/// Whether a Gemm adds its product and its bias as they are.
fn is_unscaled(node: &NodeProto) -> bool {
    let is_one = |name| attribute(node, name).is_none_or(|factor| factor.f == Some(1.0));
    is_one("alpha") && is_one("beta")
}

fn transposes_b(node: &NodeProto) -> bool {
    attribute(node, "transB").is_some_and(|attribute| attribute.i.unwrap_or(0) != 0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Attribute, Build, node};
    use super::*;

    const X: [&str; 3] = ["x", "sx", "zx"];
    const W: [&str; 3] = ["w", "sw", "zw"];
    const Y: [&str; 2] = ["sy", "zy"];

    fn floats(values: &[f32]) -> Tensor {
        let shape: &[usize] = if values.len() == 1 { &[] } else { &[values.len()] };
        Tensor::from_fn(DType::F32, shape, |at| f64::from(values[at]))
    }

    fn bytes(dtype: DType, shape: &[usize], value: f64) -> Tensor {
        Tensor::from_fn(dtype, shape, |_| value)
    }

    /// An image `x` of bytes, weights `w`, a bias `b` and what they are scaled by, and the scale and zero point of `y`.
    fn build() -> Build {
        Build::new(13)
            .input("x", DType::U8, &["1", "4", "6", "6"])
            .input("v", DType::U8, &["1", "4", "6", "6"])
            .constant("sx", floats(&[0.5]))
            .constant("zx", bytes(DType::U8, &[], 7.0))
            .constant("w", bytes(DType::I8, &[2, 4, 3, 3], 3.0))
            .constant("sw", floats(&[0.25, 0.125]))
            .constant("zw", bytes(DType::I8, &[2], 0.0))
            .constant("b", bytes(DType::I32, &[2], 5.0))
            .constant("sb", floats(&[0.125, 0.0625]))
            .constant("sy", floats(&[2.0]))
            .constant("zy", bytes(DType::U8, &[], 0.0))
            .output("y")
    }

    trait Quantised: Sized {
        fn dequantize(self, names: &[&str], to: &str, axis: i64) -> Self;
        fn quantize(self, from: &str, by: [&str; 2]) -> Self;
    }

    impl Quantised for Build {
        fn dequantize(self, names: &[&str], to: &str, axis: i64) -> Build {
            self.node("DequantizeLinear", names, &[to], vec![("axis", Attribute::Int(axis))])
        }

        fn quantize(self, from: &str, by: [&str; 2]) -> Build {
            self.node("QuantizeLinear", &[from, by[0], by[1]], &["y"], vec![])
        }
    }

    /// A convolution of what `x` and `w` stand for.
    fn convolution(build: Build) -> Build {
        build.dequantize(&X, "xf", 1).dequantize(&W, "wf", 0).dequantize(&["b", "sb"], "bf", 0).node(
            "Conv",
            &["xf", "wf", "bf"],
            &["yf"],
            vec![],
        )
    }

    fn in_f32(build: &Build) -> bool {
        integer_operators(&build.model().graph, &build.model().external)
            .iter()
            .all(|(_, node)| !node.op_type.starts_with("QLinear"))
    }

    /// Whether both mean one graph.
    fn same(build: &Build, other: &Build) {
        assert_eq!(build.text(), other.text());
        assert!(build.graph().is_ok(), "{}", build.text());
    }

    fn microsoft(mut build: Build, op: &str, inputs: &[&str]) -> Build {
        let node = NodeProto { domain: MICROSOFT.into(), ..node(op, inputs, &["y"], vec![]) };
        build.graph_mut().node.push(node);
        build
    }

    #[test]
    fn convolutions_are_those_of_bytes() {
        let names = [&X[..], &W, &Y, &["b"]].concat();
        let of_bytes = build().node("QLinearConv", &names, &["y"], vec![]);
        same(&convolution(build()).quantize("yf", Y), &of_bytes);
        let clipped = convolution(build()).node("Relu", &["yf"], &["clipped"], vec![]);
        same(&clipped.quantize("clipped", Y), &of_bytes);
    }

    #[test]
    fn sums_and_moves_are_those_of_bytes() {
        let both = || build().dequantize(&X, "xf", 1).dequantize(&["v", "sx", "zx"], "vf", 1);
        let sum = both().node("Add", &["xf", "vf"], &["yf"], vec![]).quantize("yf", Y);
        same(&sum, &microsoft(build(), "QLinearAdd", &[&X[..], &["v", "sx", "zx"], &Y].concat()));
        let window = || vec![("kernel_shape", Attribute::Ints(vec![2, 2]))];
        let largest = both().node("MaxPool", &["xf"], &["yf"], window()).quantize("yf", ["sx", "zx"]);
        same(&largest, &build().node("MaxPool", &["x"], &["y"], window()));
    }

    #[test]
    fn what_bytes_do_not_say_stays_in_f32() {
        // Another scale behind it.
        let moved = build().dequantize(&X, "xf", 1).node("Transpose", &["xf"], &["yf"], vec![]);
        let nodes = integer_operators(&moved.quantize("yf", Y).model().graph, &build().model().external)
            .iter()
            .map(|(_, node)| node.op_type.clone())
            .collect::<Vec<_>>();
        assert_eq!(nodes, ["DequantizeLinear", "Transpose", "QuantizeLinear"]);
        // The f32 result is read, too.
        assert!(in_f32(&convolution(build()).output("yf").quantize("yf", Y)));
        // A Relu that does not begin at the least byte.
        let clipped = convolution(build()).node("Relu", &["yf"], &["clipped"], vec![]);
        assert!(in_f32(&clipped.quantize("clipped", ["sy", "zx"])));
        // Scales along another axis, a bias of another scale, weights that are not centred.
        let conv = |w: &[&str], b: &[&str], axis| {
            let build = build()
                .constant("far", floats(&[0.5, 0.25]))
                .constant("off", bytes(DType::I8, &[2], 1.0))
                .dequantize(&X, "xf", 1);
            let build = build.dequantize(w, "wf", axis).dequantize(b, "bf", 0);
            build.node("Conv", &["xf", "wf", "bf"], &["yf"], vec![]).quantize("yf", Y)
        };
        assert!(!in_f32(&conv(&W, &["b", "sb"], 0)));
        assert!(in_f32(&conv(&W, &["b", "sb"], 1)));
        assert!(in_f32(&conv(&W, &["b", "far"], 0)));
        assert!(in_f32(&conv(&["w", "sw", "off"], &["b", "sb"], 0)));
    }

    #[test]
    fn a_scaled_product_stays_in_f32() {
        let product = |alpha: f32| {
            build()
                .input("r", DType::U8, &["3", "4"])
                .constant("m", bytes(DType::I8, &[4, 2], 3.0))
                .dequantize(&["r", "sx", "zx"], "xf", 1)
                .dequantize(&["m", "sw", "zw"], "mf", 1)
                .dequantize(&["b", "sb"], "bf", 0)
                .node("Gemm", &["xf", "mf", "bf"], &["yf"], vec![("alpha", Attribute::Float(alpha))])
                .quantize("yf", Y)
        };
        let on_bytes = |build: Build| {
            let model = build.model();
            integer_operators(&model.graph, &model.external).iter().any(|(_, node)| node.op_type == "QGemm")
        };
        assert!(on_bytes(product(1.0)));
        // The scale of the bias would be another one.
        assert!(!on_bytes(product(2.0)));
    }
}
