//! Products of a matrix that the nest makes first, as the columns of a convolution: the threads write it together, run by run, and then
//! divide the tiles of the product.

use super::super::shape::find_reductions;
use super::super::{Scheduler, loop_names};
use super::{contraction_tiles, share_out};
use crate::loopir::Stmt;
use crate::target::CpuTarget;

pub(super) fn product_of_columns(scheduler: &mut Scheduler, target: &CpuTarget) -> Option<()> {
    let reductions = find_reductions(&scheduler.nest);
    let ([product], [Stmt::Alloc(columns), Stmt::Loop(copy), Stmt::Loop(_)]) =
        (reductions.as_slice(), scheduler.nest.body.as_slice())
    else {
        return None;
    };
    let (mut copying, mut at) = (vec![copy.var], copy);
    while let [Stmt::Loop(inner)] = at.body.as_slice() {
        copying.push(inner.var);
        at = inner;
    }
    let copying = loop_names(&scheduler.nest, &copying);
    let (columns, product) = (*columns, product.clone());
    let factors = product.factors(&mut scheduler.nest)?;
    if !factors.iter().any(|factor| factor.buffer == columns) {
        return None;
    }
    let tiled = contraction_tiles(scheduler, &product, target);
    // The innermost loop is a run of memory.
    share_out(scheduler, &copying[..copying.len() - 1], target);
    tiled.then_some(())
}
