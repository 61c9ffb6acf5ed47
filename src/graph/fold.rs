//! Evaluation of operators on constants. What shape arithmetic and weights need (maps, data movement, reductions of
//! integers) is evaluated here, without a nest and exactly; small cases of everything else by their nests.

use super::Op;
use crate::ops::{self, Concat, Fact, Gather, Literal, Map, Pad, PadMode, Reduce, ReduceKind, Scalar};
use crate::tensor::{DType, Tensor, row_major_strides};
use bytes::Bytes;

/// The most operations of a node that is evaluated by its nest.
const MOST_FLOP: u64 = 1 << 18;

/// The outputs of `op` for constant inputs, given the facts it infers for them; `None` when it is too large or cannot be
/// evaluated. In maps floats are computed in f64 and rounded once to the output's type (and at each cast).
pub fn fold(op: &Op, inputs: &[&Tensor], outputs: &[Fact]) -> Option<Vec<Tensor>> {
    let output = outputs.first()?;
    let tensor = match op {
        Op::Map(op) => map(op, inputs, output)?,
        Op::View(_) => inputs[0].reshaped(&output.shape)?,
        Op::Transpose(op) => {
            let strides = row_major_strides(inputs[0].shape());
            let strides: Vec<i64> = op.perm.iter().map(|&axis| strides[axis] as i64).collect();
            strided(inputs[0], 0, &strides, output)
        }
        Op::Broadcast(_) => {
            strided(inputs[0], 0, &broadcast_strides(inputs[0].shape(), &output.shape), output)
        }
        Op::Slice(op) => {
            let strides = row_major_strides(inputs[0].shape());
            let start = op.axes.iter().zip(&strides).map(|(axis, stride)| axis.start * stride).sum();
            let steps: Vec<i64> =
                op.axes.iter().zip(&strides).map(|(axis, &stride)| axis.step * stride as i64).collect();
            strided(inputs[0], start, &steps, output)
        }
        Op::Concat(op) => concat(op, inputs, output),
        Op::Gather(op) => gather(op, inputs, output)?,
        Op::Pad(Pad { pads, mode: PadMode::Constant(value) }) => pad(pads, *value, inputs[0], output),
        Op::Reduce(op) if inputs[0].dtype().is_integer() && is_exact(op.kind) => {
            reduce(op, inputs[0], output)?
        }
        Op::Pad(_)
        | Op::Reduce(_)
        | Op::MatMul(_)
        | Op::Conv(_)
        | Op::Pool(_)
        | Op::ArgReduce(_)
        | Op::CumSum(_)
        | Op::Softmax(_)
        | Op::Normalize(_)
        | Op::TopK(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_) => return by_nest(op, inputs, outputs),
    };
    Some(vec![tensor])
}

fn by_nest(op: &Op, inputs: &[&Tensor], outputs: &[Fact]) -> Option<Vec<Tensor>> {
    let facts: Vec<Fact> = inputs.iter().map(|input| Fact::of(input)).collect();
    let flop = op.def().flop(&facts.iter().collect::<Vec<_>>(), &outputs.iter().collect::<Vec<_>>());
    let inputs: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    if flop > MOST_FLOP { None } else { ops::evaluate(op.def(), &inputs).ok() }
}

/// Strides of a tensor of `shape` read as one of `wide`: 0 along the axes that repeat.
fn broadcast_strides(shape: &[usize], wide: &[usize]) -> Vec<i64> {
    let strides = row_major_strides(shape);
    let missing = wide.len() - shape.len();
    (0..wide.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(axis) if shape[axis] != 1 => strides[axis] as i64,
            Some(_) | None => 0,
        })
        .collect()
}

/// Calls `visit` with the offset of every element of `shape`, row-major, in storage that starts at `start` and has `strides`.
fn for_each_offset(shape: &[usize], start: usize, strides: &[i64], mut visit: impl FnMut(usize)) {
    for_each_offsets(shape, &mut [start as i64], &[strides], |offsets| visit(offsets[0] as usize));
}

/// [`for_each_offset`] in several storages at once, `offsets` being where each starts.
fn for_each_offsets(
    shape: &[usize],
    offsets: &mut [i64],
    strides: &[impl AsRef<[i64]>],
    mut visit: impl FnMut(&[i64]),
) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        visit(offsets);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            for (offset, strides) in offsets.iter_mut().zip(strides) {
                *offset += strides.as_ref()[axis];
            }
            if index[axis] < shape[axis] {
                break;
            }
            for (offset, strides) in offsets.iter_mut().zip(strides) {
                *offset -= strides.as_ref()[axis] * shape[axis] as i64;
            }
            index[axis] = 0;
        }
    }
}

/// The elements of `x` at the given strides.
fn strided(x: &Tensor, start: usize, strides: &[i64], output: &Fact) -> Tensor {
    let size = output.dtype.size_bytes();
    let mut bytes = Vec::with_capacity(output.size_bytes());
    for_each_offset(&output.shape, start, strides, |offset| {
        bytes.extend_from_slice(&x.bytes()[offset * size..][..size]);
    });
    tensor(output, bytes)
}

fn tensor(fact: &Fact, bytes: Vec<u8>) -> Tensor {
    Tensor::new(fact.dtype, fact.shape.clone(), Bytes::from(bytes))
        .expect("the elements should fill the output")
}

fn concat(op: &Concat, inputs: &[&Tensor], output: &Fact) -> Tensor {
    let outer: usize = output.shape[..op.axis].iter().product();
    let mut bytes = Vec::with_capacity(output.size_bytes());
    for row in 0..outer {
        for input in inputs {
            let length = input.bytes().len() / outer;
            bytes.extend_from_slice(&input.bytes()[row * length..][..length]);
        }
    }
    tensor(output, bytes)
}

fn gather(op: &Gather, inputs: &[&Tensor], output: &Fact) -> Option<Tensor> {
    let (x, indices) = (inputs[0], inputs[1].to_i64_vec()?);
    let outer: usize = x.shape()[..op.axis].iter().product();
    let extent = x.shape()[op.axis];
    let row = x.shape()[op.axis + 1..].iter().product::<usize>() * x.dtype().size_bytes();
    let mut bytes = Vec::with_capacity(output.size_bytes());
    for block in 0..outer {
        for &index in &indices {
            let index = if index < 0 { index + extent as i64 } else { index };
            let index = usize::try_from(index).ok().filter(|&index| index < extent)?;
            bytes.extend_from_slice(&x.bytes()[(block * extent + index) * row..][..row]);
        }
    }
    Some(tensor(output, bytes))
}

fn pad(pads: &[(usize, usize)], value: Literal, x: &Tensor, output: &Fact) -> Tensor {
    let size = output.dtype.size_bytes();
    let mut element = Vec::with_capacity(size);
    match value {
        Literal::Float(bits, dtype) => dtype.write_f64(f64::from_bits(bits), &mut element),
        Literal::Int(value, dtype) => dtype.write_i64(value, &mut element),
    }
    let mut bytes = element.repeat(output.len());
    let strides = row_major_strides(&output.shape);
    let start = pads.iter().zip(&strides).map(|(pad, stride)| pad.0 * stride).sum();
    let signed: Vec<i64> = strides.iter().map(|&stride| stride as i64).collect();
    let mut from = x.bytes().chunks_exact(size);
    for_each_offset(x.shape(), start, &signed, |offset| {
        if let Some(element) = from.next() {
            bytes[offset * size..][..size].copy_from_slice(element);
        }
    });
    tensor(output, bytes)
}

/// Whether [`reduce`] knows the reduction.
fn is_exact(kind: ReduceKind) -> bool {
    match kind {
        ReduceKind::Sum | ReduceKind::Product | ReduceKind::Max | ReduceKind::Min => true,
        ReduceKind::Mean
        | ReduceKind::L1
        | ReduceKind::L2
        | ReduceKind::SumSquare
        | ReduceKind::LogSum
        | ReduceKind::LogSumExp => false,
    }
}

/// Sums, products and extremes of integers: what shapes are reduced by.
fn reduce(op: &Reduce, x: &Tensor, output: &Fact) -> Option<Tensor> {
    let values = x.to_i64_vec()?;
    let (first, combine): (Option<i64>, fn(i64, i64) -> i64) = match op.kind {
        ReduceKind::Sum => (Some(0), i64::wrapping_add),
        ReduceKind::Product => (Some(1), i64::wrapping_mul),
        ReduceKind::Max => (None, i64::max),
        ReduceKind::Min => (None, i64::min),
        ReduceKind::Mean
        | ReduceKind::L1
        | ReduceKind::L2
        | ReduceKind::SumSquare
        | ReduceKind::LogSum
        | ReduceKind::LogSumExp => return None,
    };
    let strides = row_major_strides(x.shape());
    let select = |kept: bool| -> (Vec<usize>, Vec<i64>) {
        (0..x.shape().len())
            .filter(|axis| op.axes.contains(axis) != kept)
            .map(|axis| (x.shape()[axis], strides[axis] as i64))
            .unzip()
    };
    let ((outer, outer_strides), (inner, inner_strides)) = (select(true), select(false));
    if first.is_none() && inner.contains(&0) {
        return None;
    }
    let mut bytes = Vec::with_capacity(output.size_bytes());
    for_each_offset(&outer, 0, &outer_strides, |start| {
        let mut result = first;
        for_each_offset(&inner, start, &inner_strides, |offset| {
            result = Some(result.map_or(values[offset], |result| combine(result, values[offset])));
        });
        output.dtype.write_i64(result.unwrap_or(0), &mut bytes);
    });
    Some(tensor(output, bytes))
}

/// An element while it is computed with: integers and bools are exact.
#[derive(Clone, Copy)]
enum Number {
    Float(f64),
    Int(i64),
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            Number::Float(value) => value,
            Number::Int(value) => value as f64,
        }
    }

    fn holds(self) -> bool {
        match self {
            Number::Float(value) => value != 0.0,
            Number::Int(value) => value != 0,
        }
    }

    fn cast(self, dtype: DType) -> Number {
        let mut bytes = Vec::with_capacity(8);
        match self {
            Number::Float(value) => dtype.write_f64(value, &mut bytes),
            Number::Int(value) => dtype.write_i64(value, &mut bytes),
        }
        match dtype.read_i64(&bytes, 0) {
            Some(value) => Number::Int(value),
            None => Number::Float(dtype.read_f64(&bytes, 0)),
        }
    }

    fn wrapped(value: i64, dtype: DType) -> Number {
        match dtype {
            DType::I64 | DType::U64 | DType::Bool => Number::Int(value),
            DType::F16
            | DType::BF16
            | DType::F32
            | DType::F64
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::U8
            | DType::U16
            | DType::U32 => Number::Int(value).cast(dtype),
        }
    }
}

fn map(op: &Map, inputs: &[&Tensor], output: &Fact) -> Option<Tensor> {
    let dtypes: Vec<DType> = inputs.iter().map(|input| input.dtype()).collect();
    // The integer operations are those of signed numbers.
    if dtypes.contains(&DType::U64) || output.dtype == DType::U64 {
        return None;
    }
    let strides: Vec<Vec<i64>> =
        inputs.iter().map(|input| broadcast_strides(input.shape(), &output.shape)).collect();
    let mut bytes = Vec::with_capacity(output.size_bytes());
    let mut complete = true;
    for_each_offsets(&output.shape, &mut vec![0; inputs.len()], &strides, |offsets| {
        let element = |input: usize| {
            let (x, at) = (inputs[input], offsets[input] as usize);
            match x.dtype().read_i64(x.bytes(), at) {
                Some(value) => Number::Int(value),
                None => Number::Float(x.get_f64(at)),
            }
        };
        match evaluate(&op.scalar, &element, &dtypes) {
            Some(Number::Float(value)) => output.dtype.write_f64(value, &mut bytes),
            Some(Number::Int(value)) => output.dtype.write_i64(value, &mut bytes),
            None => complete = false,
        }
    });
    complete.then(|| tensor(output, bytes))
}

fn evaluate(scalar: &Scalar, element: &dyn Fn(usize) -> Number, dtypes: &[DType]) -> Option<Number> {
    let eval = |scalar: &Scalar| evaluate(scalar, element, dtypes);
    Some(match scalar {
        Scalar::Input(i) => element(*i),
        Scalar::Constant(Literal::Float(bits, _)) => Number::Float(f64::from_bits(*bits)),
        Scalar::Constant(Literal::Int(value, _)) => Number::Int(*value),
        Scalar::Unary(op, a) => match eval(a)? {
            Number::Float(x) if op.is_test() => Number::Int(op.eval_f64(x) as i64),
            Number::Float(x) => Number::Float(op.eval_f64(x)),
            Number::Int(x) => match scalar.dtype(dtypes).ok()? {
                DType::Bool if !op.is_test() => Number::Int(op.eval_f64(x as f64) as i64),
                dtype => Number::wrapped(op.eval_i64(x)?, dtype),
            },
        },
        Scalar::Binary(op, a, b) => match (eval(a)?, eval(b)?) {
            (Number::Int(a), Number::Int(b)) => {
                Number::wrapped(op.eval_i64(a, b), scalar.dtype(dtypes).ok()?)
            }
            (a, b) => match op.eval_f64(a.as_f64(), b.as_f64()) {
                truth if op.is_comparison() => Number::Int(truth as i64),
                value => Number::Float(value),
            },
        },
        Scalar::Select(c, a, b) => {
            if eval(c)?.holds() {
                eval(a)?
            } else {
                eval(b)?
            }
        }
        Scalar::Cast(dtype, a) => eval(a)?.cast(*dtype),
    })
}
