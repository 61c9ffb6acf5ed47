//! One node of the file while a row turns it into graph nodes.

use super::problem::Refusal;
use super::proto::{AttributeProto, AttributeType, NodeProto};
use super::weights::{self, External};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::{self, Graph, Op, Source, ValueId};
use crate::ops::{Broadcast, Fact, Literal, Map, Scalar, Slice, SliceAxis, Transpose, View};
use crate::tensor::{DType, Tensor, broadcast_shapes};

/// Results above this many elements are not computed while importing.
const FOLD_ELEMENTS: usize = 1 << 16;

/// The most elements of a constant that a row makes up.
const MADE_UP_ELEMENTS: usize = 1 << 24;

/// A node of the file: its attributes and inputs to read, the graph to add to.
pub(crate) struct Call<'a> {
    pub(super) graph: &'a mut Graph,
    /// Bytes that may still be spent on constants that are computed.
    pub(super) fold_budget_bytes: &'a mut usize,
    pub(super) external: &'a External,
    pub(super) node: &'a NodeProto,
    pub(super) origin: &'a str,
    /// The version of the standard operators.
    pub(crate) opset: i64,
    pub(super) inputs: Vec<Option<ValueId>>,
}

pub(crate) type Values = Result<Vec<ValueId>, Refusal>;

impl Call<'_> {
    /// The number of inputs, left-out ones included.
    pub(crate) fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Input `i`, which the operator needs.
    pub(crate) fn input(&self, i: usize) -> Result<ValueId, Refusal> {
        self.optional(i).ok_or_else(|| Refusal::invalid(format!("input {i} is missing")))
    }

    /// Input `i`, unless it is left out.
    pub(crate) fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// All inputs, which may not be left out; at least one.
    pub(crate) fn all_inputs(&self) -> Values {
        (0..self.input_count().max(1)).map(|i| self.input(i)).collect()
    }

    /// Refuses a file that gives more than `most` inputs.
    pub(crate) fn takes_inputs(&self, most: usize) -> Result<(), Refusal> {
        match self.inputs.len() {
            given if given > most => {
                Err(Refusal::invalid(format!("{given} inputs are given, and it takes at most {most}")))
            }
            _fitting => Ok(()),
        }
    }

    /// The number of outputs the file asks for.
    pub(crate) fn output_count(&self) -> usize {
        self.node.output.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)
    }

    pub(crate) fn fact(&self, value: ValueId) -> Fact {
        self.graph.fact(value).clone()
    }

    pub(crate) fn shape(&self, value: ValueId) -> Vec<usize> {
        self.graph.fact(value).shape.clone()
    }

    pub(crate) fn dtype(&self, value: ValueId) -> DType {
        self.graph.fact(value).dtype
    }

    pub(crate) fn rank(&self, value: ValueId) -> usize {
        self.graph.fact(value).rank()
    }

    // Attributes.

    fn attribute(&self, name: &str, wanted: AttributeType) -> Result<Option<&AttributeProto>, Refusal> {
        let Some(attribute) = self.node.attribute.iter().find(|attribute| attribute.name == name) else {
            return Ok(None);
        };
        if !attribute.ref_attr_name.is_empty() {
            return Err(Refusal::invalid(format!("attribute {name} refers to a function's attribute")));
        }
        // Version 1 of the format has no types.
        let given = AttributeType::try_from(attribute.r#type).ok();
        if given == Some(wanted) || given == Some(AttributeType::Undefined) {
            return Ok(Some(attribute));
        }
        let given = given.map_or("of an unknown type".into(), |given| format!("{given:?}").to_lowercase());
        let wanted = format!("{wanted:?}").to_lowercase();
        Err(Refusal::invalid(format!("attribute {name} is {given}, but {wanted} is needed")))
    }

    pub(crate) fn has_attribute(&self, name: &str) -> bool {
        self.node.attribute.iter().any(|attribute| attribute.name == name)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64, Refusal> {
        Ok(self.attribute(name, AttributeType::Int)?.map_or(default, |a| a.i.unwrap_or(0)))
    }

    /// The attribute `name`, which the operator needs.
    pub(crate) fn needed_int(&self, name: &str) -> Result<i64, Refusal> {
        self.attribute(name, AttributeType::Int)?
            .map(|a| a.i.unwrap_or(0))
            .ok_or_else(|| Refusal::invalid(format!("its attribute `{name}` is missing")))
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f32, Refusal> {
        Ok(self.attribute(name, AttributeType::Float)?.map_or(default, |a| a.f.unwrap_or(0.0)))
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Refusal> {
        Ok(self.attribute(name, AttributeType::Ints)?.map(|a| a.ints.clone()))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, Refusal> {
        Ok(self.attribute(name, AttributeType::Floats)?.map(|a| a.floats.clone()))
    }

    pub(crate) fn string(&self, name: &str, default: &str) -> Result<String, Refusal> {
        match self.attribute(name, AttributeType::String)? {
            None => Ok(default.to_owned()),
            Some(attribute) => String::from_utf8(attribute.s.clone().unwrap_or_default().to_vec())
                .map_err(|_| Refusal::invalid(format!("attribute {name} is not UTF-8"))),
        }
    }

    pub(crate) fn strings(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(attribute) = self.attribute(name, AttributeType::Strings)? else { return Ok(None) };
        let texts = attribute.strings.iter().map(|text| String::from_utf8(text.to_vec()));
        texts
            .collect::<Result<_, _>>()
            .map(Some)
            .map_err(|_| Refusal::invalid(format!("attribute {name} is not UTF-8")))
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>, Refusal> {
        match self.attribute(name, AttributeType::Tensor)?.and_then(|attribute| attribute.t.as_ref()) {
            None => Ok(None),
            Some(proto) => weights::tensor(proto, self.external).map(Some),
        }
    }

    /// An attribute that is the number of an element type.
    pub(crate) fn dtype_attribute(&self, name: &str) -> Result<Option<DType>, Refusal> {
        match self.attribute(name, AttributeType::Int)?.map(|attribute| attribute.i.unwrap_or(0)) {
            None => Ok(None),
            Some(number) => weights::dtype(i32::try_from(number).unwrap_or(-1)).map(Some),
        }
    }

    /// The refusal of a value that attribute `name` should not have.
    pub(crate) fn bad_attribute(&self, name: &str, value: impl std::fmt::Debug) -> Refusal {
        Refusal::invalid(format!("attribute {name} is {value:?}"))
    }

    // Constants.

    /// The constant that input `i` is, `None` when it is left out. Refused when it is not known.
    pub(crate) fn known(&self, i: usize, what: &str) -> Result<Option<Tensor>, Refusal> {
        let Some(value) = self.optional(i) else { return Ok(None) };
        if let Some(tensor) = self.graph.constant(value) {
            return Ok(Some(tensor.clone()));
        }
        let name = &self.graph.values()[value].name;
        Err(match self.graph.values()[value].source {
            Source::Input => Refusal::binding(
                format!("the {what}, input `{name}` of the model, must be known when it is compiled"),
                format!("bind the value of `{name}`"),
            ),
            Source::Constant(_) | Source::Node(..) => Refusal::unsupported(format!(
                "the {what} (`{name}`) depend on data, but must be known when the model is compiled"
            )),
        })
    }

    /// The integers that input `i` is, `None` when it is left out. Refused when they are not known.
    pub(crate) fn known_ints(&self, i: usize, what: &str) -> Result<Option<Vec<i64>>, Refusal> {
        match self.known(i, what)? {
            None => Ok(None),
            Some(tensor) => tensor.to_i64_vec().map(Some).ok_or_else(|| {
                Refusal::invalid(format!("the {what} are {}, but integers are needed", tensor.dtype()))
            }),
        }
    }

    /// The single integer that input `i` is.
    pub(crate) fn known_int(&self, i: usize, what: &str) -> Result<Option<i64>, Refusal> {
        match self.known_ints(i, what)?.as_deref() {
            None => Ok(None),
            Some(&[value]) => Ok(Some(value)),
            Some(values) => Err(Refusal::invalid(format!("the {what} is {values:?}"))),
        }
    }

    /// Integers that are an attribute in old versions of an operator and input `i` in new ones.
    pub(crate) fn ints_or_input(&self, name: &str, i: usize) -> Result<Option<Vec<i64>>, Refusal> {
        match self.ints(name)? {
            Some(values) => Ok(Some(values)),
            None => self.known_ints(i, name),
        }
    }

    /// An axis that may count from the end.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Refusal> {
        let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        from_start
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|&axis| axis < rank)
            .ok_or_else(|| Refusal::invalid(format!("there is no axis {axis} in a tensor of rank {rank}")))
    }

    /// Axes that may count from the end, ascending; refused when one repeats.
    pub(crate) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Refusal> {
        let mut result = axes.iter().map(|&axis| self.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
        result.sort_unstable();
        if result.is_sorted_by(|a, b| a < b) {
            Ok(result)
        } else {
            Err(Refusal::invalid(format!("an axis repeats in {axes:?}")))
        }
    }

    /// Extents from integers of the file.
    pub(crate) fn extents(&self, values: &[i64], what: &str) -> Result<Vec<usize>, Refusal> {
        let extents = values.iter().map(|&value| usize::try_from(value)).collect::<Result<Vec<_>, _>>();
        extents.map_err(|_| Refusal::invalid(format!("{what} {values:?} are negative")))
    }

    // Nodes.

    fn name(&self, what: &str) -> String {
        let base = self.node.output.iter().find(|name| !name.is_empty()).map_or(self.origin, |name| name);
        format!("{base}.{what}")
    }

    /// Adds a constant.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = self.name("constant");
        self.graph.add_constant(&name, tensor)
    }

    /// The elements of a value, where they are known.
    pub(crate) fn tensor_of(&self, value: ValueId) -> Option<&Tensor> {
        self.graph.constant(value)
    }

    /// Adds an operator of one output, or its result where that is known.
    pub(crate) fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, Refusal> {
        Ok(self.add_all(op, inputs)?[0])
    }

    /// Adds an operator, or its results where they are known.
    pub(crate) fn add_all(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Values {
        let op = op.into();
        let name = self.name(op.def().name());
        if let Some(results) = self.folded(&op, inputs)? {
            return Ok(results.into_iter().map(|tensor| self.graph.add_constant(&name, tensor)).collect());
        }
        Ok(self.graph.add_node(self.origin, op, inputs, &[&name])?)
    }

    fn folded(&mut self, op: &Op, inputs: &[ValueId]) -> Result<Option<Vec<Tensor>>, Refusal> {
        let tensors: Option<Vec<&Tensor>> = inputs.iter().map(|&input| self.graph.constant(input)).collect();
        let Some(tensors) = tensors else { return Ok(None) };
        let facts = op.def().infer(&self.graph.facts(inputs))?;
        let facts = facts.into_iter().map(Fact::checked).collect::<Result<Vec<_>, _>>()?;
        // Time counts like memory: eight bytes an operation.
        let cost_bytes = match op {
            // Shares the bytes of its input.
            Op::View(_) => 0,
            _ if facts.iter().all(|fact| fact.len() <= FOLD_ELEMENTS)
                && tensors.iter().all(|tensor| tensor.len() <= FOLD_ELEMENTS) =>
            {
                let flop = op.def().flop(&self.graph.facts(inputs), &facts.iter().collect::<Vec<_>>());
                let bytes: usize = facts.iter().map(Fact::size_bytes).sum();
                bytes.saturating_add(usize::try_from(flop).unwrap_or(usize::MAX).saturating_mul(8))
            }
            _ => return Ok(None),
        };
        if cost_bytes > *self.fold_budget_bytes {
            return Ok(None);
        }
        *self.fold_budget_bytes -= cost_bytes;
        Ok(graph::fold(op, &tensors, &facts))
    }

    /// `scalar` of the elements of `inputs`, which broadcast. A constant of one element becomes part of the expression where
    /// that leaves the shape of the result alone.
    pub(crate) fn map(
        &mut self,
        inputs: &[ValueId],
        scalar: impl FnOnce(&[Scalar]) -> Scalar,
    ) -> Result<ValueId, Refusal> {
        let args: Vec<Scalar> = (0..inputs.len()).map(Scalar::Input).collect();
        self.map_scalar(inputs, &scalar(&args))
    }

    /// [`map`](Self::map) with the expression at hand.
    pub(crate) fn map_scalar(&mut self, inputs: &[ValueId], scalar: &Scalar) -> Result<ValueId, Refusal> {
        let literals: Vec<Option<Literal>> = inputs
            .iter()
            .map(|&input| self.graph.constant(input).filter(|tensor| tensor.len() == 1).map(literal))
            .collect();
        let ranks = |literal: bool| {
            let of = inputs.iter().zip(&literals).filter(move |(_, value)| value.is_some() == literal);
            of.map(|(&input, _)| self.graph.fact(input).rank()).max()
        };
        let inline = ranks(false) >= ranks(true);
        let mut kept = Vec::new();
        let scalar = scalar.substitute(&mut |i| match literals[i] {
            Some(literal) if inline => Scalar::Constant(literal),
            Some(_) | None => {
                let place = kept.iter().position(|&input| input == inputs[i]).unwrap_or(kept.len());
                if place == kept.len() {
                    kept.push(inputs[i]);
                }
                Scalar::Input(place)
            }
        });
        // Inputs that the expression does not read must still take part in the shape.
        let shape = inputs
            .iter()
            .try_fold(Vec::new(), |shape, &input| broadcast_shapes(&shape, &self.graph.fact(input).shape));
        let kept_shape = kept
            .iter()
            .try_fold(Vec::new(), |shape, &input| broadcast_shapes(&shape, &self.graph.fact(input).shape));
        if shape.is_none() || kept.is_empty() {
            let shapes: Vec<String> = self.graph.facts(inputs).iter().map(|fact| fact.to_string()).collect();
            return Err(Refusal::invalid(format!("{} do not broadcast", shapes.join(" and "))));
        }
        let result = self.add(Map { scalar }, &kept)?;
        match shape {
            Some(shape) if Some(&shape) != kept_shape.as_ref() => self.add(Broadcast { shape }, &[result]),
            Some(_) | None => Ok(result),
        }
    }

    /// `op(x)` elementwise.
    pub(crate) fn unary(&mut self, op: UnaryOp, x: ValueId) -> Result<ValueId, Refusal> {
        self.map(&[x], |x| x[0].clone().unary(op))
    }

    /// `op(a, b)` elementwise.
    pub(crate) fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
        self.map(&[a, b], |x| x[0].clone().binary(op, x[1].clone()))
    }

    /// `x` as `dtype`; `x` itself when it is.
    pub(crate) fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId, Refusal> {
        if self.dtype(x) == dtype { Ok(x) } else { self.map(&[x], |x| x[0].clone().cast(dtype)) }
    }

    /// `x` in another shape; `x` itself when it has it.
    pub(crate) fn view(&mut self, x: ValueId, shape: Vec<usize>) -> Result<ValueId, Refusal> {
        if self.graph.fact(x).shape == shape { Ok(x) } else { self.add(View { shape }, &[x]) }
    }

    /// `x` with permuted axes; `x` itself when the order stays.
    pub(crate) fn transpose(&mut self, x: ValueId, perm: Vec<usize>) -> Result<ValueId, Refusal> {
        if perm.iter().copied().eq(0..self.rank(x)) {
            return Ok(x);
        }
        self.add(Transpose { perm }, &[x])
    }

    /// Elements `start..start + size` of one axis of `x`; `x` itself when that is all.
    pub(crate) fn slice(
        &mut self,
        x: ValueId,
        axis: usize,
        start: usize,
        size: usize,
    ) -> Result<ValueId, Refusal> {
        let mut axes: Vec<SliceAxis> =
            self.graph.fact(x).shape.iter().map(|&dim| SliceAxis::all(dim)).collect();
        match axes.get_mut(axis) {
            Some(part) if part.size == size => return Ok(x),
            Some(part) => *part = SliceAxis { start, step: 1, size },
            None => return Err(Refusal::invalid(format!("{} has no axis {axis}", self.fact(x)))),
        }
        self.add(Slice { axes }, &[x])
    }

    /// `x` repeated to `shape`; `x` itself when it has it.
    pub(crate) fn broadcast(&mut self, x: ValueId, shape: Vec<usize>) -> Result<ValueId, Refusal> {
        if self.graph.fact(x).shape == shape { Ok(x) } else { self.add(Broadcast { shape }, &[x]) }
    }

    /// A vector `v[C]` as `[C, 1, 1..]`, so that it broadcasts along axis 1 of a tensor of `rank`.
    pub(crate) fn per_channel(&mut self, v: ValueId, rank: usize) -> Result<ValueId, Refusal> {
        let mut shape = self.shape(v);
        if shape.len() != 1 || rank < 2 {
            return Err(Refusal::invalid(format!("{} is not one value a channel", self.fact(v))));
        }
        shape.extend(vec![1; rank - 2]);
        self.view(v, shape)
    }

    /// The constant of `shape` whose elements are `value(i)`; refused when it would be huge.
    pub(crate) fn generate(
        &mut self,
        dtype: DType,
        shape: &[usize],
        value: impl FnMut(usize) -> f64,
    ) -> Result<ValueId, Refusal> {
        let fact = Fact::new(dtype, shape).checked()?;
        if fact.len() > MADE_UP_ELEMENTS || fact.size_bytes() > *self.fold_budget_bytes {
            return Err(Refusal::unsupported(format!("a constant {fact} is too large")));
        }
        *self.fold_budget_bytes -= fact.size_bytes();
        Ok(self.constant(Tensor::from_fn(dtype, shape, value)))
    }

    /// The constant `0, 1, .. extent - 1` along `axis` of a tensor of `rank` whose other extents are 1.
    pub(crate) fn positions(
        &mut self,
        dtype: DType,
        extent: usize,
        axis: usize,
        rank: usize,
    ) -> Result<ValueId, Refusal> {
        let mut shape = vec![1; rank];
        shape[axis] = extent;
        self.generate(dtype, &shape, |i| i as f64)
    }
}

/// The first element as a constant of an expression.
pub(crate) fn literal(tensor: &Tensor) -> Literal {
    match tensor.to_i64_vec() {
        Some(values) => Literal::Int(values[0], tensor.dtype()),
        None => Literal::new(tensor.get_f64(0), tensor.dtype()),
    }
}
