//! `keep sum`: computes the value of a block once, where later blocks compute it again.
//!
//! ```text
//! for i in 4:                                        for i in 4:
//!   register acc: f32                                  register acc: f32
//!   init: acc = 0.0                                    init: acc = 0.0
//!   for r in 8: sum: acc += exp(x[i, r])        ->     register sum_v: f32[8]
//!   for s in 8: store: y[i, s] = exp(x[i, s]) / acc    for r in 8: keep_sum: sum_v[r] = exp(x[i, r])
//!                                                      for r in 8: sum: acc += sum_v[r]
//!                                                      for s in 8: store: y[i, s] = sum_v[s] / acc
//! ```
//!
//! For what costs more to compute than to read again: elementary functions, elements found through an index. The value is that over
//! the loops directly around the block; what follows them may have it at every iteration of as many loops of the same extents. Refuses
//! blocks without such loops or under a condition, a value that nothing after the block computes again, and one that
//! depends on what is written meanwhile.

use super::Refusal;
use super::rewrite::wrap;
use crate::expr::{BufferId, ExprId, Role, Scope, VarId};
use crate::loopir::{Buffer, Loop, LoopKind, Nest, Stmt, Store, walk};
use std::collections::{HashMap, HashSet};

pub(super) fn apply(nest: &mut Nest, block: &str) -> Result<(), Refusal> {
    let store = nest.block(block).ok_or_else(|| Refusal::NoBlock(block.to_string()))?.clone();
    let refuse = |reason: &str| Refusal::Block { block: block.to_string(), reason: reason.to_string() };
    let (parents, at) = place(&nest.body, block).ok_or_else(|| refuse("has no loop to itself"))?;
    let loops = {
        let stmts = list(&mut nest.body, &parents).ok_or_else(|| refuse("has no loop to itself"))?;
        chain(&stmts[at]).ok_or_else(|| refuse("has no loop to itself"))?
    };
    if store.condition.is_some() {
        return Err(refuse("is under a condition"));
    }
    if loops.iter().any(|of| of.kind != LoopKind::Serial || of.instruction.is_some()) {
        return Err(refuse("is in a loop that is bound or replaced"));
    }
    let Nest { pool, body, .. } = nest;
    let following = &list(body, &parents).ok_or_else(|| refuse("has no loop to itself"))?[at..];
    let read: HashSet<BufferId> = pool.buffers_read(store.value).into_iter().collect();
    let mut written = false;
    walk::visit_stores(following, &mut |store| written |= read.contains(&store.buffer));
    if written {
        return Err(refuse("depends on what is written from there on"));
    }

    let dtype = pool.dtype(store.value);
    let shape: Vec<usize> = loops.iter().map(|of| pool.vars[of.var].extent).collect();
    let name = nest.fresh_buffer_name(&format!("{block}_v"));
    let filling = nest.fresh_block_name(&format!("keep_{block}"));
    let kept = nest.pool.buffers.push(Buffer {
        name,
        dtype,
        shape: shape.clone(),
        scope: Scope::Register,
        role: Role::Local,
        row_padding: 0,
    });
    let own: Vec<VarId> = loops.iter().map(|of| of.var).collect();
    let Nest { pool, body, .. } = nest;
    let stmts = list(body, &parents).ok_or_else(|| refuse("has no loop to itself"))?;
    let mut again = false;
    for (place, stmt) in stmts[at..].iter_mut().enumerate() {
        let Some(chain) = chain(stmt) else { continue };
        let theirs: Vec<VarId> = chain.iter().map(|of| of.var).take(own.len()).collect();
        if theirs.iter().map(|&var| pool.vars[var].extent).ne(shape.iter().copied()) {
            continue;
        }
        let map: HashMap<VarId, ExprId> =
            own.iter().zip(&theirs).map(|(&own, &other)| (own, pool.var(other))).collect();
        let wanted = if place == 0 { store.value } else { pool.substitute(store.value, &map) };
        let index: Vec<ExprId> = theirs.iter().map(|&var| pool.var(var)).collect();
        walk::change_stores(std::slice::from_mut(stmt), &mut |other| {
            other.change_exprs(&mut |root| {
                pool.rewrite(root, &mut |pool, id| {
                    (id == wanted).then(|| {
                        again |= place > 0;
                        pool.load(kept, &index)
                    })
                })
            });
        });
    }
    if !again {
        return Err(refuse("has a value that nothing after it computes"));
    }
    let index = own.iter().map(|&var| pool.var(var)).collect();
    let filling =
        Store { block: filling, buffer: kept, index, value: store.value, combine: None, condition: None };
    let filling = wrap(pool, &loops, vec![Stmt::Store(filling)]);
    stmts.splice(at..at, [vec![Stmt::Alloc(kept)], filling].concat());
    Ok(())
}

/// The statements beside which the block has loops to itself, by the loops around them, and which of them it is in.
fn place(stmts: &[Stmt], block: &str) -> Option<(Vec<VarId>, usize)> {
    stmts.iter().enumerate().find_map(|(at, stmt)| {
        let Stmt::Loop(of) = stmt else { return None };
        let mut inner = stmt;
        while let Stmt::Loop(Loop { body, .. }) = inner
            && let [only] = body.as_slice()
        {
            inner = only;
        }
        match inner {
            Stmt::Store(store) => (store.block == block).then(|| (vec![], at)),
            Stmt::Loop(_) | Stmt::Alloc(_) | Stmt::Barrier => {
                let (parents, at) = place(&of.body, block)?;
                Some(([vec![of.var], parents].concat(), at))
            }
        }
    })
}

/// The body of the last of nested loops.
fn list<'a>(stmts: &'a mut Vec<Stmt>, parents: &[VarId]) -> Option<&'a mut Vec<Stmt>> {
    parents.iter().try_fold(stmts, |stmts, &var| {
        stmts.iter_mut().find_map(|stmt| match stmt {
            Stmt::Loop(of) if of.var == var => Some(&mut of.body),
            Stmt::Loop(_) | Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => None,
        })
    })
}

/// The loops around a single block, outermost first.
fn chain(stmt: &Stmt) -> Option<Vec<Loop>> {
    let (mut loops, mut at) = (vec![], stmt);
    while let Stmt::Loop(of) = at {
        loops.push(of.clone());
        let [inner] = of.body.as_slice() else { return None };
        at = inner;
    }
    matches!(at, Stmt::Store(_)).then_some(loops).filter(|loops| !loops.is_empty())
}
