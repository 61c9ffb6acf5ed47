//! Pooling: loops `n`, `c`, the output position `p`, `q` and the window `r`, `s`, named as those of a convolution.
//! The position of the largest is a second reduction over the window, which compares with the first one's result.

use super::window::{Window, kernel_names, output_names};
use crate::expr::{BinaryOp, ExprId, ExprPool, UnaryOp};
use crate::loopir::Combiner;
use crate::ops::define::{AnchorForm, DefineError, accumulator, div_ceil};
use crate::ops::{Definer, Pool, PoolKind};
use crate::tensor::DType;

impl AnchorForm for Pool {
    fn operand_names(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn can_be_followed(&self) -> bool {
        true
    }

    fn may_collapse(&self) -> bool {
        false
    }

    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError> {
        let (x, y) = (at.input(0), at.output(0));
        let rank = self.kernel.len();
        let dtype = match self.kind {
            PoolKind::ArgMax => accumulator(x.dtype),
            PoolKind::Max | PoolKind::Average | PoolKind::AverageWithPads | PoolKind::Norm(_) => {
                accumulator(y.dtype)
            }
        };
        let windows: Vec<Window> = (0..rank)
            .map(|axis| Window {
                extent: x.shape[2 + axis],
                kernel: self.kernel[axis],
                stride: self.strides[axis],
                dilation: self.dilations[axis],
                before: self.pads[axis].0,
            })
            .collect();
        let (output_names, kernel_names) = (output_names(rank), kernel_names(rank));
        let mut outer = vec![("n", y.shape[0]), ("c", y.shape[1])];
        outer.extend(output_names.iter().map(String::as_str).zip(y.shape[2..].iter().copied()));
        let (index, opened) = at.open(&outer);
        let reduced: Vec<(&str, usize)> =
            kernel_names.iter().map(String::as_str).zip(self.kernel.iter().copied()).collect();
        let combiner = match self.kind {
            PoolKind::Max | PoolKind::ArgMax => Combiner::Max,
            PoolKind::Average | PoolKind::AverageWithPads | PoolKind::Norm(_) => Combiner::Add,
        };
        // An element of the window: where it lies, whether that is in the input, and its value there.
        let element = |at: &mut Definer<'_>, inner: &[ExprId]| {
            let mut source = index[..2].to_vec();
            let mut inside = at.pool().truth();
            for ((window, &p), &r) in windows.iter().zip(&index[2..]).zip(inner) {
                let position = window.position(at.pool(), p, r);
                let fits = window.inside(at.pool(), position);
                inside = at.pool().and(inside, fits);
                source.push(position);
            }
            let value = at.read_as(0, &source, dtype)?;
            let value = at.pool().guard(inside, value);
            Ok::<_, DefineError>((source, inside, value))
        };
        let total = at.accumulate("acc", dtype, combiner, &reduced, |at, inner| {
            let (_, inside, value) = element(at, inner)?;
            Ok(match self.kind {
                PoolKind::Max | PoolKind::ArgMax => {
                    let nothing = at.identity(Combiner::Max, dtype);
                    at.pool().select(inside, value, nothing)
                }
                PoolKind::Average | PoolKind::AverageWithPads => value,
                PoolKind::Norm(p) => magnitude_power(at.pool(), value, p),
            })
        })?;
        let value = match self.kind {
            PoolKind::Max => total,
            PoolKind::ArgMax => {
                let last = x.shape[2..].iter().product::<usize>() as i64 - 1;
                let none = at.pool().int(last);
                at.accumulate_from(none, "place", Combiner::Min, &reduced, |at, inner| {
                    let (source, inside, value) = element(at, inner)?;
                    let pool = at.pool();
                    let place =
                        source[2..].iter().zip(&x.shape[2..]).fold(pool.int(0), |place, (&i, &extent)| {
                            let scaled = pool.mul_int(place, extent as i64);
                            pool.add(scaled, i)
                        });
                    let equal = pool.binary(BinaryOp::Eq, value, total);
                    let found = pool.and(inside, equal);
                    Ok(pool.select(found, place, none))
                })?
            }
            PoolKind::Average | PoolKind::AverageWithPads => {
                let mut count = at.pool().int(1);
                for (axis, window) in windows.iter().enumerate() {
                    let range = match self.kind {
                        PoolKind::AverageWithPads => {
                            let (before, after) = self.pads[axis];
                            (-(before as i64), (window.extent + after) as i64)
                        }
                        PoolKind::Average | PoolKind::Max | PoolKind::ArgMax | PoolKind::Norm(_) => {
                            (0, window.extent as i64)
                        }
                    };
                    let extent = y.shape[2 + axis];
                    let along_axis = elements_within(at.pool(), *window, index[2 + axis], extent, range);
                    count = at.pool().mul(count, along_axis);
                }
                let count = count_as(at.pool(), dtype, count);
                at.pool().binary(BinaryOp::Div, total, count)
            }
            PoolKind::Norm(p) => root(at.pool(), total, p),
        };
        at.emit(0, &index, value)?;
        at.close(opened);
        Ok(())
    }
}

/// How many elements of window `p` of `windows` lie in `low..high`.
fn elements_within(
    pool: &mut ExprPool,
    window: Window,
    p: ExprId,
    windows: usize,
    (low, high): (i64, i64),
) -> ExprId {
    let (kernel, dilation) = (window.kernel as i64, window.dilation as i64);
    let first_start = -(window.before as i64);
    let last_start = first_start + (windows as i64 - 1) * window.stride as i64;
    if first_start >= low && last_start + (kernel - 1) * dilation < high {
        return pool.int(kernel);
    }
    let start = window.start(pool, p);
    let minus_start = pool.mul_int(start, -1);
    let (to_low, to_high) = (pool.add_int(minus_start, low), pool.add_int(minus_start, high));
    let (below, end) = (div_ceil(pool, to_low, dilation), div_ceil(pool, to_high, dilation));
    let (zero, kernel) = (pool.int(0), pool.int(kernel));
    let below = pool.binary(BinaryOp::Max, below, zero);
    let end = pool.binary(BinaryOp::Min, end, kernel);
    pool.binary(BinaryOp::Sub, end, below)
}

/// An index expression as a number of `dtype`.
fn count_as(pool: &mut ExprPool, dtype: DType, count: ExprId) -> ExprId {
    match pool.as_int(count) {
        Some(value) => pool.constant(value as f64, dtype),
        None => pool.cast(dtype, count),
    }
}

/// `|value|^p`.
fn magnitude_power(pool: &mut ExprPool, value: ExprId, p: i64) -> ExprId {
    match p {
        1 => pool.unary(UnaryOp::Abs, value),
        2 => pool.mul(value, value),
        _ => {
            let magnitude = pool.unary(UnaryOp::Abs, value);
            let p = pool.constant(p as f64, pool.dtype(value));
            pool.binary(BinaryOp::Pow, magnitude, p)
        }
    }
}

/// `value^(1/p)`.
fn root(pool: &mut ExprPool, value: ExprId, p: i64) -> ExprId {
    match p {
        1 => value,
        2 => pool.unary(UnaryOp::Sqrt, value),
        _ => {
            let inverse = pool.constant(1.0 / p as f64, pool.dtype(value));
            pool.binary(BinaryOp::Pow, value, inverse)
        }
    }
}
