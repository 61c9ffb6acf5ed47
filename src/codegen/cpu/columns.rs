//! Conditions over two dimensions that are one run of memory.
//!
//! A condition that ends both together, such as `4 * t + j < 54` over tiles of 4, is the length of one dimension instead of both.
//!
//! A condition on whole rows of `n` columns, `0 <= v + r < limit`, holds for exactly the elements `m = n * r + c` of which
//! `0 <= n * v + m < n * limit`. In that form it follows both dimensions in one step, so that they can be walked through as one.

use super::block::UNLIMITED;
use paisley_kernels::program as cpu;

/// Makes one dimension of two neighbours that every access walks through as one, where a condition of the store ends both together:
/// the condition becomes its length, for the reads too.
pub(super) fn cut(block: &mut cpu::Block) {
    let ends = |block: &cpu::Block| {
        (1..block.dims.len()).find_map(|inner| ending(block, inner).map(|(length, end)| (inner, length, end)))
    };
    while let Some((inner, length, end)) = ends(block) {
        let mut value = end.value.clone();
        value.constant += 1;
        let bounds = vec![cpu::Bound { value, divisor: -end.strides[inner] }];
        block.dims.splice(inner - 1..=inner, [cpu::Trip::Bounded { max: length, bounds }]);
        for op in &mut block.ops {
            if let cpu::BlockOp::Load { guard, .. } | cpu::BlockOp::Store { guard, .. } = op {
                guard.retain(|condition| *condition != end);
                for condition in guard {
                    condition.strides.remove(inner - 1);
                }
            }
            if let cpu::BlockOp::Load { strides, .. }
            | cpu::BlockOp::Store { strides, .. }
            | cpu::BlockOp::Index { strides, .. } = op
            {
                strides.remove(inner - 1);
            }
        }
    }
}

/// The number of elements of the dimension and the one around it, and the condition of the store that ends both together.
fn ending(block: &cpu::Block, inner: usize) -> Option<(usize, cpu::Condition)> {
    let [cpu::Trip::Constant(rows), cpu::Trip::Constant(columns)] = &block.dims[inner - 1..=inner] else {
        return None;
    };
    let (length, columns) = (rows.checked_mul(*columns)?, i64::try_from(*columns).ok()?);
    let one_run = |strides: &[i64]| strides[inner].checked_mul(columns) == Some(strides[inner - 1]);
    let mut guards = block
        .ops
        .iter()
        .filter_map(|op| if let cpu::BlockOp::Store { guard, .. } = op { Some(guard) } else { None });
    let guard = guards.next()?;
    let end = guard.iter().find(|condition| {
        let others = condition.strides.iter().filter(|stride| **stride != 0).count() > 2;
        condition.limit == UNLIMITED && condition.strides[inner] < 0 && one_run(&condition.strides) && !others
    })?;
    let joinable = all_strides(block, one_run, |condition| one_run(&condition.strides));
    joinable.then(|| (length, end.clone()))
}

/// Brings conditions on rows to that form where every access walks through the two innermost dimensions as one.
pub(super) fn join(block: &mut cpu::Block) {
    let [.., _, cpu::Trip::Constant(columns)] = block.dims.as_slice() else { return };
    let (outer, inner) = (block.dims.len() - 2, block.dims.len() - 1);
    let Ok(columns) = i64::try_from(*columns) else { return };
    let one_run = |strides: &[i64]| strides[inner].checked_mul(columns) == Some(strides[outer]);
    let on_rows =
        |condition: &cpu::Condition| condition.strides[inner] == 0 && condition.strides[outer].abs() == 1;
    let fits = |condition: &cpu::Condition| on_rows(condition) || one_run(&condition.strides);
    let joinable = all_strides(block, one_run, fits);
    if !joinable {
        return;
    }
    for op in &mut block.ops {
        if let cpu::BlockOp::Load { guard, .. } | cpu::BlockOp::Store { guard, .. } = op {
            for condition in guard.iter_mut().filter(|condition| on_rows(condition)) {
                if let Some(joined) = joined(condition, columns) {
                    *condition = joined;
                }
            }
        }
    }
}

/// Whether all accesses and indices of a block have strides, and all its guards conditions, of which the tests hold.
fn all_strides(
    block: &cpu::Block,
    strides_fit: impl Fn(&[i64]) -> bool,
    condition_fits: impl Fn(&cpu::Condition) -> bool,
) -> bool {
    block.ops.iter().all(|op| match op {
        cpu::BlockOp::Load { strides, guard, .. } | cpu::BlockOp::Store { strides, guard, .. } => {
            strides_fit(strides) && guard.iter().all(&condition_fits)
        }
        cpu::BlockOp::Index { strides, .. } => strides_fit(strides),
        cpu::BlockOp::Constant { .. }
        | cpu::BlockOp::Unary { .. }
        | cpu::BlockOp::Activate { .. }
        | cpu::BlockOp::Binary { .. }
        | cpu::BlockOp::MultiplyAdd { .. }
        | cpu::BlockOp::Select { .. }
        | cpu::BlockOp::Cast { .. }
        | cpu::BlockOp::Gather { .. }
        | cpu::BlockOp::Scatter { .. } => true,
    })
}

/// The condition in steps of columns; `None` where a number would overflow.
fn joined(condition: &cpu::Condition, columns: i64) -> Option<cpu::Condition> {
    let mut value = cpu::Affine::constant(condition.value.constant.checked_mul(columns)?);
    for &(counter, factor) in &condition.value.terms {
        value.add_term(counter, factor.checked_mul(columns)?);
    }
    let scaled = condition.strides.iter().map(|stride| stride.checked_mul(columns));
    let mut strides: Vec<i64> = scaled.collect::<Option<_>>()?;
    let [.., row, column] = condition.strides.as_slice() else { return None };
    debug_assert_eq!(*column, 0);
    *strides.last_mut()? = *row;
    if *row < 0 {
        // The last column of a row is the first to fail.
        value.constant = value.constant.checked_add(columns - 1)?;
    }
    Some(cpu::Condition { value, strides, limit: condition.limit.checked_mul(columns)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_on_rows_hold_for_the_same_elements() {
        for (start, row, limit) in [(-1, 1, 4), (3, -1, 4), (0, 1, 2), (1, -1, 100)] {
            let condition =
                cpu::Condition { value: cpu::Affine::constant(start), strides: vec![row, 0], limit };
            let joined = joined(&condition, 5).unwrap();
            let holds = |of: &cpu::Condition, r: i64, c: i64| {
                (0..of.limit).contains(&(of.value.constant + of.strides[0] * r + of.strides[1] * c))
            };
            assert_eq!(joined.strides[0], 5 * joined.strides[1]);
            for (r, c) in (0..7).flat_map(|r| (0..5).map(move |c| (r, c))) {
                assert_eq!(holds(&condition, r, c), holds(&joined, r, c), "{condition:?} at {r}, {c}");
            }
        }
    }
}
