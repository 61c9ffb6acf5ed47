//! `swizzle i j in 4 as ij`: two loops, one directly in the other, into one that goes through bands of the outer one.
//!
//! ```text
//! for i in 8, j in 6: body(i, j)      ->      for ij in 48: body(ij // 24 * 4 + ij % 4, ij // 4 % 6)
//! ```
//!
//! For the caches of a grid of tiles: neighbours in time share rows and columns of the operands, where row after row would go
//! through all columns before a row's data is used again. The last band may be incomplete, under a condition. Refuses what
//! its parts, `split`, `reorder` and `fuse`, refuse.

use super::rewrite::loops_named;
use super::{Refusal, Tail, fuse, reorder, split};
use crate::loopir::Nest;

pub(super) fn apply(
    nest: &mut Nest,
    outer: &str,
    inner: &str,
    height: usize,
    name: &str,
) -> Result<(), Refusal> {
    loops_named(nest, inner)?;
    let (band, row) = (format!("{outer}.0"), format!("{outer}.1"));
    split::apply(nest, outer, &[height], Tail::Guard)?;
    let order = [band.clone(), inner.to_string(), row.clone()];
    reorder::apply(nest, &order).map_err(|refusal| of_the_whole(refusal, outer, inner))?;
    fuse::apply(nest, inner, &row, inner)?;
    fuse::apply(nest, &band, inner, name)
}

/// A refusal to move the parts of `outer`, said of the loop that the step names.
fn of_the_whole(mut refusal: Refusal, whole: &str, inner: &str) -> Refusal {
    if let Refusal::NotNested { outer: part, .. } = &mut refusal {
        *part = whole.to_string();
    }
    if let Refusal::Carried { of: part, .. } = &mut refusal
        && part != inner
    {
        *part = whole.to_string();
    }
    refusal
}
