//! Layout operators.

use super::map::{broadcast_index, grows_by_leading_ones, leading_zeros};
use crate::expr::{Expr, ExprId};
use crate::ops::define::{
    AnchorForm, DefineError, ElementForm, Follow, clamp, delinearise, in_range, linearise,
};
use crate::ops::{Broadcast, Concat, Definer, Fact, Literal, Pad, PadMode, Slice, Transpose, View};

/// Operators that cannot follow an anchor.
macro_rules! never_follows {
    () => {
        fn follow(&self, _input: usize, _inputs: &[Fact], _output: &Fact) -> Follow {
            Follow::Never
        }

        fn forward(&self, _at: &mut Definer<'_>, _input: usize, index: &[ExprId]) -> Vec<ExprId> {
            index.to_vec()
        }
    };
}
pub(super) use never_follows;

impl ElementForm for View {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let index = reshape(at, index, &self.shape, &at.input(0).shape);
        at.read(0, &index)
    }

    fn follow(&self, _input: usize, _inputs: &[Fact], _output: &Fact) -> Follow {
        Follow::Moves
    }

    fn forward(&self, at: &mut Definer<'_>, _input: usize, index: &[ExprId]) -> Vec<ExprId> {
        reshape(at, index, &at.input(0).shape, &self.shape)
    }
}

/// The index in shape `to` of the element at `index` in shape `from`, of as many elements. Axes are regrouped within the
/// shortest runs of equal products only: an index outside of its axis, as below a guard, then concerns no axis of other runs.
fn reshape(at: &mut Definer<'_>, index: &[ExprId], from: &[usize], to: &[usize]) -> Vec<ExprId> {
    let mut result = Vec::with_capacity(to.len());
    let (mut first_from, mut first_to) = (0, 0);
    while first_from < from.len() && first_to < to.len() {
        let (mut end_from, mut end_to) = (first_from + 1, first_to + 1);
        let (mut product_from, mut product_to) = (from[first_from], to[first_to]);
        while product_from != product_to {
            let (product, shape, end) = if product_from < product_to && end_from < from.len() {
                (&mut product_from, from, &mut end_from)
            } else if end_to < to.len() {
                (&mut product_to, to, &mut end_to)
            } else {
                break;
            };
            *product = product.saturating_mul(shape[*end]);
            *end += 1;
        }
        let run = linearise(at.pool(), &index[first_from..end_from], &from[first_from..end_from]);
        result.extend(delinearise(at.pool(), run, &to[first_to..end_to]));
        (first_from, first_to) = (end_from, end_to);
    }
    // What is left has extent 1.
    result.resize_with(to.len(), || at.pool().int(0));
    result
}

impl ElementForm for Transpose {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let mut source = index.to_vec();
        for (&axis, &i) in self.perm.iter().zip(index) {
            source[axis] = i;
        }
        at.read(0, &source)
    }

    fn follow(&self, _input: usize, _inputs: &[Fact], _output: &Fact) -> Follow {
        Follow::Moves
    }

    fn forward(&self, _at: &mut Definer<'_>, _input: usize, index: &[ExprId]) -> Vec<ExprId> {
        self.perm.iter().map(|&axis| index[axis]).collect()
    }
}

impl ElementForm for Slice {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let mut source = Vec::with_capacity(index.len());
        for (axis, &i) in self.axes.iter().zip(index) {
            let scaled = at.pool().mul_int(i, axis.step);
            source.push(at.pool().add_int(scaled, axis.start as i64));
        }
        at.read(0, &source)
    }

    never_follows!();
}

impl ElementForm for Broadcast {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let x = at.input(0);
        let source = broadcast_index(at.pool(), index, &x.shape);
        at.read(0, &source)
    }

    fn follow(&self, input: usize, inputs: &[Fact], output: &Fact) -> Follow {
        if grows_by_leading_ones(&inputs[input].shape, &output.shape) { Follow::Moves } else { Follow::Never }
    }

    fn forward(&self, at: &mut Definer<'_>, _input: usize, index: &[ExprId]) -> Vec<ExprId> {
        leading_zeros(at.pool(), index, self.shape.len())
    }
}

impl ElementForm for Pad {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let shape = &at.input(0).shape;
        let mut source = Vec::with_capacity(index.len());
        let mut inside = at.pool().truth();
        for ((&(before, after), &extent), &i) in self.pads.iter().zip(shape).zip(index) {
            let i = at.pool().add_int(i, -(before as i64));
            if (before, after) == (0, 0) {
                source.push(i);
                continue;
            }
            let last = extent as i64 - 1;
            let pool = at.pool();
            source.push(match self.mode {
                PadMode::Constant(_) => {
                    let fits = in_range(pool, i, 0, last + 1);
                    inside = pool.and(inside, fits);
                    i
                }
                PadMode::Edge => clamp(pool, i, 0, last),
                PadMode::Reflect => {
                    // Both mirror images lie within; the clamp lets that be seen from the intervals.
                    let (left, right) = (pool.mul_int(i, -1), pool.mul_int(i, -1));
                    let right = pool.add_int(right, 2 * last);
                    let (is_left, is_right) = (pool.less_int(i, 0), pool.at_least_int(i, last + 1));
                    let mirrored = pool.select(is_right, right, i);
                    let mirrored = pool.select(is_left, left, mirrored);
                    clamp(pool, mirrored, 0, last)
                }
                PadMode::Wrap => pool.mod_int(i, extent as i64),
            });
        }
        let inside = at.pool().simplify(inside);
        let value = at.read(0, &source)?;
        let value = at.pool().guard(inside, value);
        Ok(match self.mode {
            PadMode::Constant(literal) if literal.as_f64() != 0.0 => {
                let outside = match literal {
                    Literal::Float(bits, dtype) => at.pool().constant(f64::from_bits(bits), dtype),
                    Literal::Int(value, dtype) => at.pool().intern(Expr::Int(value, dtype)),
                };
                at.pool().select(inside, value, outside)
            }
            PadMode::Constant(_) | PadMode::Edge | PadMode::Reflect | PadMode::Wrap => value,
        })
    }

    never_follows!();
}

impl Concat {
    /// Where each operand starts along the axis, and where it ends.
    fn ranges(&self, at: &Definer<'_>) -> Vec<(i64, i64)> {
        let mut start = 0;
        (0..at.input_count())
            .map(|input| {
                let range = (start, start + at.input(input).shape[self.axis] as i64);
                start = range.1;
                range
            })
            .collect()
    }
}

impl ElementForm for Concat {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let mut result = None;
        for (input, (start, end)) in self.ranges(at).into_iter().enumerate().rev() {
            if start == end {
                continue;
            }
            let mut source = index.to_vec();
            source[self.axis] = at.pool().add_int(index[self.axis], -start);
            let inside = in_range(at.pool(), index[self.axis], start, end);
            let inside = at.pool().simplify(inside);
            let value = at.read(input, &source)?;
            let value = at.pool().guard(inside, value);
            let before_end = at.pool().less_int(index[self.axis], end);
            result = Some(match result {
                Some(behind) => at.pool().select(before_end, value, behind),
                None => value,
            });
        }
        result.ok_or_else(|| at.unsupported("the output has no element"))
    }

    never_follows!();
}

/// One statement an operand, each in range without guards.
impl AnchorForm for Concat {
    fn operand_names(&self) -> &'static [&'static str] {
        &[]
    }

    fn can_be_followed(&self) -> bool {
        true
    }

    fn may_collapse(&self) -> bool {
        true
    }

    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError> {
        for (input, (start, _)) in self.ranges(at).into_iter().enumerate() {
            let (mut index, opened) = at.open_numbered("i", &at.input(input).shape);
            let value = at.read(input, &index)?;
            index[self.axis] = at.pool().add_int(index[self.axis], start);
            at.emit(0, &index, value)?;
            at.close(opened);
        }
        Ok(())
    }
}
