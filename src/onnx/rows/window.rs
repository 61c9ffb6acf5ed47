//! Pooling, and the attributes of windows that it shares with convolution.

use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::{Literal, Pool, PoolKind, Reduce, ReduceKind, Scalar};
use crate::tensor::DType;

const POOL: &[&str] = &[
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "kernel_shape",
    "pads",
    "strides",
    "storage_order",
];

pub(super) const ROWS: &[Row] = &[
    row("MaxPool", POOL, max_pool),
    row("AveragePool", POOL, |call| {
        let counted = call.flag("count_include_pad", false)?;
        pool(call, if counted { PoolKind::AverageWithPads } else { PoolKind::Average })
    }),
    row("LpPool", &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides", "p"], |call| {
        let p = call.int("p", 2)?;
        if p < 1 {
            return Err(call.bad_attribute("p", p));
        }
        pool(call, PoolKind::Norm(p))
    }),
    row("GlobalAveragePool", &[], |call| global(call, ReduceKind::Mean)),
    row("GlobalMaxPool", &[], |call| global(call, ReduceKind::Max)),
    row("GlobalLpPool", &["p"], global_lp_pool),
    row("LRN", &["alpha", "beta", "bias", "size"], lrn),
];

/// Where windows lie, with every default and automatic padding worked out. One entry a spatial dimension.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) pads: Vec<(usize, usize)>,
    pub(super) overhang: Vec<usize>,
}

impl Window {
    /// The window of a node with the input `x[N, C, spatial..]` and that kernel.
    pub(super) fn read(call: &Call<'_>, x: ValueId, kernel: Vec<usize>) -> Result<Window, Refusal> {
        let fact = call.fact(x);
        let rank = kernel.len();
        let misfit =
            |what: &str| Refusal::invalid(format!("{what} do not fit {fact} with the kernel {kernel:?}"));
        let spatial =
            fact.shape.get(2..).filter(|spatial| spatial.len() == rank).ok_or_else(|| misfit("extents"))?;
        let positive = |name: &str| -> Result<Vec<usize>, Refusal> {
            let values = match call.ints(name)? {
                Some(values) => call.extents(&values, name)?,
                None => vec![1; rank],
            };
            if values.len() == rank && !values.contains(&0) { Ok(values) } else { Err(misfit(name)) }
        };
        let (strides, dilations) = (positive("strides")?, positive("dilations")?);
        let span = |axis: usize| -> Result<usize, Refusal> {
            let last = kernel[axis].checked_sub(1).and_then(|last| last.checked_mul(dilations[axis]));
            last.and_then(|last| last.checked_add(1)).ok_or_else(|| misfit("dilations"))
        };
        let auto_pad = call.string("auto_pad", "NOTSET")?;
        let mut pads = Vec::with_capacity(rank);
        match &*auto_pad {
            "NOTSET" | "" => {
                let values = match call.ints("pads")? {
                    Some(values) => call.extents(&values, "pads")?,
                    None => vec![0; 2 * rank],
                };
                if values.len() != 2 * rank {
                    return Err(misfit("pads"));
                }
                pads.extend((0..rank).map(|axis| (values[axis], values[axis + rank])));
            }
            "VALID" => pads.extend(vec![(0, 0); rank]),
            "SAME_UPPER" | "SAME_LOWER" => {
                for axis in 0..rank {
                    let windows = spatial[axis].div_ceil(strides[axis]);
                    let reach =
                        windows.saturating_sub(1).saturating_mul(strides[axis]).saturating_add(span(axis)?);
                    let total = reach.saturating_sub(spatial[axis]);
                    let (less, more) = (total / 2, total - total / 2);
                    pads.push(if auto_pad == "SAME_UPPER" { (less, more) } else { (more, less) });
                }
            }
            _ => return Err(call.bad_attribute("auto_pad", auto_pad)),
        }
        let mut overhang = vec![0; rank];
        if call.flag("ceil_mode", false)? {
            for axis in 0..rank {
                let (before, after) = pads[axis];
                let padded = before.checked_add(after).and_then(|sum| sum.checked_add(spatial[axis]));
                let padded = padded.ok_or_else(|| misfit("pads"))?;
                let steps = padded.checked_sub(span(axis)?).ok_or_else(|| misfit("pads"))?;
                let mut windows = steps.div_ceil(strides[axis]) + 1;
                // A window that would start behind the input and its padding in front does not exist.
                if (windows - 1) * strides[axis] >= spatial[axis].saturating_add(before) {
                    windows -= 1;
                }
                let reach =
                    windows.saturating_sub(1).saturating_mul(strides[axis]).saturating_add(span(axis)?);
                overhang[axis] = reach.saturating_sub(padded);
            }
        }
        Ok(Window { kernel, strides, dilations, pads, overhang })
    }
}

fn pool(call: &mut Call<'_>, kind: PoolKind) -> Values {
    let x = call.input(0)?;
    let kernel = call.ints("kernel_shape")?.ok_or_else(|| Refusal::invalid("kernel_shape is missing"))?;
    let kernel = call.extents(&kernel, "kernel extents")?;
    let Window { kernel, strides, dilations, pads, overhang } = Window::read(call, x, kernel)?;
    Ok(vec![call.add(Pool { kind, kernel, strides, dilations, pads, overhang }, &[x])?])
}

/// The indices are positions in the flattened input. `storage_order` is the order of the spatial dimensions alone: batch and
/// channel are the slowest in both.
fn max_pool(call: &mut Call<'_>) -> Values {
    let mut results = pool(call, PoolKind::Max)?;
    if call.output_count() < 2 {
        return Ok(results);
    }
    let column_major = call.flag("storage_order", false)?;
    let x = call.input(0)?;
    let shape = call.shape(x);
    let (outer, spatial) = shape.split_at(2);
    let plane = spatial.iter().product::<usize>() as i64;
    let place = pool(call, PoolKind::ArgMax)?[0];
    let mut starts_shape = outer.to_vec();
    starts_shape.extend(vec![1; spatial.len()]);
    let starts = call.generate(DType::I64, &starts_shape, |i| (i as i64 * plane) as f64)?;
    let constant = |value: i64| Scalar::Constant(Literal::Int(value, DType::I64));
    results.push(call.map(&[place, starts], |v| {
        let place = if column_major { transposed(&v[0], spatial, constant) } else { v[0].clone() };
        v[1].clone().plus(place)
    })?);
    Ok(results)
}

/// A row-major position in `extents` as the column-major one.
fn transposed(place: &Scalar, extents: &[usize], constant: impl Fn(i64) -> Scalar) -> Scalar {
    let (mut below, mut stride) = (extents.iter().product::<usize>() as i64, 1);
    let coordinates = extents.iter().map(|&extent| {
        let of_extent = extent as i64;
        below /= of_extent.max(1);
        let quotient = place.clone().binary(BinaryOp::FloorDiv, constant(below.max(1)));
        let coordinate = quotient.binary(BinaryOp::Mod, constant(of_extent.max(1)));
        let term = coordinate.times(constant(stride));
        stride *= of_extent;
        term
    });
    coordinates.reduce(Scalar::plus).unwrap_or_else(|| place.clone())
}

/// The reduction over all spatial dimensions.
pub(super) fn global(call: &mut Call<'_>, kind: ReduceKind) -> Values {
    let x = call.input(0)?;
    let axes: Vec<usize> = (2..call.rank(x)).collect();
    Ok(vec![call.add(Reduce { kind, axes, keep: true }, &[x])?])
}

fn global_lp_pool(call: &mut Call<'_>) -> Values {
    let p = call.int("p", 2)?;
    match p {
        1 => global(call, ReduceKind::L1),
        2 => global(call, ReduceKind::L2),
        3.. => {
            let x = call.input(0)?;
            let (axes, dtype) = ((2..call.rank(x)).collect(), call.dtype(x));
            let exponent = |p: f64| Scalar::constant(p, dtype);
            let power = call
                .map(&[x], |v| v[0].clone().unary(UnaryOp::Abs).binary(BinaryOp::Pow, exponent(p as f64)))?;
            let sum = call.add(Reduce { kind: ReduceKind::Sum, axes, keep: true }, &[power])?;
            Ok(vec![call.map(&[sum], |v| v[0].clone().binary(BinaryOp::Pow, exponent(1.0 / p as f64)))?])
        }
        _ => Err(call.bad_attribute("p", p)),
    }
}

/// `x / (bias + alpha * mean of x^2 over the window of channels)^beta`, where channels outside count as 0.
fn lrn(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let (fact, size) = (call.fact(x), call.int("size", 0)?);
    let size = usize::try_from(size)
        .ok()
        .filter(|&size| size > 0)
        .ok_or_else(|| call.bad_attribute("size", size))?;
    let (alpha, beta) = (call.float("alpha", 1e-4)?, call.float("beta", 0.75)?);
    let bias = call.float("bias", 1.0)?;
    let [batch, channels, ref spatial @ ..] = fact.shape[..] else {
        return Err(Refusal::invalid(format!("{fact} has no channels")));
    };
    let square = call.map(&[x], |v| v[0].clone().times(v[0].clone()))?;
    let flat = call.view(square, vec![batch, 1, channels, spatial.iter().product()])?;
    let mean = call.add(
        Pool {
            kind: PoolKind::AverageWithPads,
            kernel: vec![size, 1],
            strides: vec![1; 2],
            dilations: vec![1; 2],
            pads: vec![((size - 1) / 2, size / 2), (0, 0)],
            overhang: vec![0; 2],
        },
        &[flat],
    )?;
    let mean = call.view(mean, fact.shape.clone())?;
    let constant = |value: f32| Scalar::constant(f64::from(value), fact.dtype);
    let result = call.map(&[x, mean], |v| {
        let base = constant(bias).plus(constant(alpha).times(v[1].clone()));
        v[0].clone().over(base.binary(BinaryOp::Pow, constant(beta)))
    })?;
    Ok(vec![result])
}
