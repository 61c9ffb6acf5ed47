//! Writes at positions that are data: a copy of the operand, block `copy`, then the updates, block `scatter`, over loops `u0` ..

use super::gather::wrapped_position;
use crate::expr::ExprId;
use crate::loopir::Combiner;
use crate::ops::define::{AnchorForm, DefineError, in_range};
use crate::ops::{Definer, ScatterElements, ScatterNd, ScatterReduction};

impl ScatterReduction {
    fn combiner(self) -> Option<Combiner> {
        match self {
            ScatterReduction::Replace => None,
            ScatterReduction::Add => Some(Combiner::Add),
            ScatterReduction::Multiply => Some(Combiner::Mul),
            ScatterReduction::Max => Some(Combiner::Max),
            ScatterReduction::Min => Some(Combiner::Min),
        }
    }
}

/// `y = x`.
fn copy(at: &mut Definer<'_>) -> Result<(), DefineError> {
    let (index, opened) = at.open_numbered("i", &at.input(0).shape);
    let value = at.read(0, &index)?;
    at.store("copy", &index, value, None, None);
    at.close(opened);
    Ok(())
}

/// The positions along `axes` that operand 1 holds at each of `places`, and whether all lie within.
fn positions(
    at: &mut Definer<'_>,
    places: &[(usize, Vec<ExprId>)],
) -> Result<(Vec<ExprId>, ExprId), DefineError> {
    let mut found = vec![];
    let mut inside = at.pool().truth();
    for (axis, place) in places {
        let extent = at.input(0).shape[*axis];
        let position = wrapped_position(at, 1, place, extent)?;
        let fits = in_range(at.pool(), position, 0, extent as i64);
        inside = at.pool().and(inside, fits);
        found.push(position);
    }
    Ok((found, inside))
}

impl AnchorForm for ScatterElements {
    fn operand_names(&self) -> &'static [&'static str] {
        &["x", "indices", "updates"]
    }

    fn can_be_followed(&self) -> bool {
        false
    }

    fn may_collapse(&self) -> bool {
        true
    }

    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError> {
        copy(at)?;
        let (place, opened) = at.open_numbered("u", &at.input(1).shape);
        let (found, inside) = positions(at, &[(self.axis, place.clone())])?;
        let value = at.read(2, &place)?;
        let mut target = place;
        target[self.axis] = found[0];
        at.store("scatter", &target, value, self.reduction.combiner(), Some(inside));
        at.close(opened);
        Ok(())
    }
}

impl AnchorForm for ScatterNd {
    fn operand_names(&self) -> &'static [&'static str] {
        &["x", "indices", "updates"]
    }

    fn can_be_followed(&self) -> bool {
        false
    }

    fn may_collapse(&self) -> bool {
        true
    }

    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError> {
        copy(at)?;
        let outer = at.input(1).rank() - 1;
        let depth = at.input(1).shape[outer];
        let (place, opened) = at.open_numbered("u", &at.input(2).shape);
        let places: Vec<(usize, Vec<ExprId>)> = (0..depth)
            .map(|axis| (axis, [&place[..outer], &[at.pool().int(axis as i64)]].concat()))
            .collect();
        let (mut target, inside) = positions(at, &places)?;
        target.extend(&place[outer..]);
        let value = at.read(2, &place)?;
        at.store("scatter", &target, value, self.reduction.combiner(), Some(inside));
        at.close(opened);
        Ok(())
    }
}
