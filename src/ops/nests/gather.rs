//! Reads at positions that are data.

use super::layout::never_follows;
use crate::expr::ExprId;
use crate::ops::define::{DefineError, ElementForm, Follow, clamp};
use crate::ops::{Definer, Fact, Gather, GatherElements, GatherNd};
use crate::tensor::DType;

/// The position along an axis of `extent` that operand `input`, an index tensor, holds at `index`: negative ones count
/// from the end.
pub(super) fn wrapped_position(
    at: &mut Definer<'_>,
    input: usize,
    index: &[ExprId],
    extent: usize,
) -> Result<ExprId, DefineError> {
    let position = at.read_as(input, index, DType::I64)?;
    let negative = at.pool().less_int(position, 0);
    let from_end = at.pool().add_int(position, extent as i64);
    Ok(at.pool().select(negative, from_end, position))
}

/// As [`wrapped_position`], and within the axis whatever the data: the operators promise to read nothing outside.
fn position(
    at: &mut Definer<'_>,
    input: usize,
    index: &[ExprId],
    extent: usize,
) -> Result<ExprId, DefineError> {
    let wrapped = wrapped_position(at, input, index, extent)?;
    Ok(clamp(at.pool(), wrapped, 0, extent as i64 - 1))
}

impl ElementForm for Gather {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let behind = self.axis + at.input(1).rank();
        let selected = position(at, 1, &index[self.axis..behind], at.input(0).shape[self.axis])?;
        let source = [&index[..self.axis], &[selected], &index[behind..]].concat();
        at.read(0, &source)
    }

    never_follows!();
}

impl ElementForm for GatherElements {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let mut source = index.to_vec();
        source[self.axis] = position(at, 1, index, at.input(0).shape[self.axis])?;
        at.read(0, &source)
    }

    never_follows!();
}

impl ElementForm for GatherNd {
    fn element(&self, at: &mut Definer<'_>, _output: usize, index: &[ExprId]) -> Result<ExprId, DefineError> {
        let outer = at.input(1).rank() - 1;
        let depth = at.input(1).shape[outer];
        let mut source = index[..self.batch_dims].to_vec();
        for place in 0..depth {
            let mut of_place = index[..outer].to_vec();
            of_place.push(at.pool().int(place as i64));
            let extent = at.input(0).shape[self.batch_dims + place];
            source.push(position(at, 1, &of_place, extent)?);
        }
        source.extend(&index[outer..]);
        at.read(0, &source)
    }

    never_follows!();
}
