//! Parameters whose channels lie in blocks.
//!
//! A nest is defined over row-major tensors; where a tensor lies otherwise, this rewrites every access of it and cuts the loops
//! over its channels, so that addresses stay affine and a block is the innermost loop:
//!
//! ```text
//! for i0 in 64, i1 in 49: store: y[i0, i1] = max(x[i0, i1], 0.0)
//! ->
//! for i0.0 in 4, i1 in 49, i0.1 in 16: store: y[i0.0, i1, i0.1] = max(x[i0.0, i1, i0.1], 0.0)
//! ```

use crate::expr::{BinaryOp, BufferId, Expr, ExprId, ExprPool};
use crate::loopir::{Nest, Stmt, walk};
use crate::schedule::{Step, Tail};
use crate::tensor::MemoryLayout;

/// Lays the parameters of `nest` out; `layouts` has one for each, in order, and those it does not name lie in rows.
pub(super) fn lay_out(nest: &mut Nest, layouts: &[MemoryLayout]) {
    let mut blocks = vec![];
    for (param, &layout) in nest.params.clone().into_iter().zip(layouts) {
        if let MemoryLayout::ChannelBlocks(block) = layout {
            access_in_blocks(nest, param, layout, block as i64);
            blocks.push(block);
        }
    }
    blocks.sort_unstable();
    blocks.dedup();
    for block in blocks {
        for name in loops_over_channels(nest, block) {
            let split = Step::Split { of: name.clone(), factors: vec![block], tail: Tail::Guard };
            // A loop that cannot be cut keeps its addresses, which are right and slow.
            if split.apply(nest).is_ok() {
                sink(nest, &format!("{name}.1"));
            }
        }
    }
}

/// Gives every access of `buffer` the index that its element has in blocks.
fn access_in_blocks(nest: &mut Nest, buffer: BufferId, layout: MemoryLayout, block: i64) {
    let Nest { pool, body, .. } = nest;
    pool.buffers[buffer].shape = layout.storage_shape(&pool.buffers[buffer].shape);
    let in_blocks = |pool: &mut ExprPool, index: &[ExprId]| -> Vec<ExprId> {
        let mut index = index.to_vec();
        let channel = index[1];
        let (first, rest) = (pool.div_int(channel, block), pool.mod_int(channel, block));
        index[1] = pool.simplify(first);
        index.push(pool.simplify(rest));
        index
    };
    walk::change_stores(body, &mut |store| {
        if store.buffer == buffer {
            store.index = in_blocks(pool, &store.index);
        }
        store.change_exprs(&mut |root| {
            pool.rewrite(root, &mut |pool, id| {
                let Expr::Load(of, index) = pool.get(id).clone() else { return None };
                (of == buffer).then(|| {
                    let index = in_blocks(pool, &index);
                    pool.load(buffer, &index)
                })
            })
        });
    });
}

/// The loops whose counter modulo `block` is part of an address.
fn loops_over_channels(nest: &mut Nest, block: usize) -> Vec<String> {
    let mut dividends = vec![];
    nest.visit_stores(&mut |store| {
        for root in store.index.iter().copied().chain([store.value]) {
            nest.pool.visit(root, &mut |id| {
                if let Expr::Binary(BinaryOp::Mod, dividend, divisor) = *nest.pool.get(id)
                    && *nest.pool.get(divisor) == Expr::Int(block as i64, crate::tensor::DType::I64)
                {
                    dividends.push(dividend);
                }
            });
        }
    });
    let mut names = vec![];
    for dividend in dividends {
        let form = nest.pool.affine(dividend);
        let Some(terms) = form.variables(&nest.pool) else { continue };
        let moving: Vec<_> = terms.into_iter().filter(|(_, step)| step % block as i64 != 0).collect();
        if let [(var, 1)] = moving[..]
            && form.constant % block as i64 == 0
        {
            let variable = &nest.pool.vars[var];
            if variable.extent.is_multiple_of(block) && !names.contains(&variable.name) {
                names.push(variable.name.clone());
            }
        }
    }
    names
}

/// Moves the loops of that name into the loops directly nested in them.
fn sink(nest: &mut Nest, name: &str) {
    for var in nest.loops_named(name) {
        let Some(mut at) = nest.loop_of(var) else { continue };
        let mut order = vec![];
        while let [Stmt::Loop(inner)] = at.body.as_slice() {
            order.push(nest.pool.vars[inner.var].name.clone());
            at = inner;
        }
        if !order.is_empty() {
            order.push(name.to_string());
            // Where the order matters the loop stays where it is.
            let _stays = Step::Reorder { order }.apply(nest);
        }
    }
}
