//! `inline shift`: puts the value a block writes in the place of each read of it.
//!
//! ```text
//! for i in 8: shift: t[i] = x[i] + 1.0                  for j in 8: scale: y[j] = (x[j] + 1.0) * 2.0
//! for j in 8: scale: y[j] = t[j] * 2.0          ->
//! ```
//!
//! For element-wise producers: the intermediate buffer disappears, its value is computed again at each read. Refuses blocks that
//! combine, that have a condition, that write at other than their plain loop variables, and buffers that live outside the nest.

use super::Refusal;
use super::rewrite::change_exprs;
use crate::expr::{BufferId, Expr, Role, VarId};
use crate::loopir::{Nest, Stmt, walk};
use std::collections::HashMap;

pub(super) fn apply(nest: &mut Nest, block: &str) -> Result<(), Refusal> {
    let store = nest.block(block).ok_or_else(|| Refusal::NoBlock(block.to_string()))?.clone();
    let refuse = |reason: &str| Refusal::Block { block: block.to_string(), reason: reason.to_string() };
    if store.combine.is_some() || store.condition.is_some() {
        return Err(refuse("combines or has a condition"));
    }
    if nest.pool.buffers[store.buffer].role != Role::Local {
        return Err(refuse("writes a buffer that lives outside the nest"));
    }
    let mut writers = 0;
    nest.visit_stores(&mut |other| writers += usize::from(other.buffer == store.buffer));
    if writers != 1 {
        return Err(refuse("is not the only writer of its buffer"));
    }
    let mut vars: Vec<VarId> = vec![];
    for &index in &store.index {
        match nest.pool.as_var(index) {
            Some(var) if !vars.contains(&var) => vars.push(var),
            None if nest.pool.as_int(index) == Some(0) => {}
            Some(_) | None => return Err(refuse("writes at a computed index")),
        }
    }
    let loops = nest.loops_around(block);
    let read = nest.pool.buffers_read(store.value);
    let inner_locals = read.iter().any(|&buffer| nest.pool.buffers[buffer].role == Role::Local);
    if inner_locals || loops.iter().any(|var| !vars.contains(var) && nest.pool.uses_var(store.value, *var)) {
        return Err(refuse("computes a value that is not known where it is read"));
    }
    let buffer = store.buffer;
    remove(&mut nest.body, &store.block, buffer);
    let pool = &mut nest.pool;
    walk::change_stores(&mut nest.body, &mut |user| {
        change_exprs(user, &mut |root| {
            let replaced = pool.rewrite(root, &mut |pool, id| {
                let Expr::Load(known, index) = pool.get(id).clone() else { return None };
                (known == buffer).then(|| {
                    let places = store.index.iter().zip(index);
                    let map: HashMap<VarId, _> =
                        places.filter_map(|(&at, value)| Some((pool.as_var(at)?, value))).collect();
                    pool.substitute(store.value, &map)
                })
            });
            pool.simplify(replaced)
        });
    });
    Ok(())
}

/// Removes a block, the allocation of its buffer, and loops that become empty.
pub(super) fn remove(stmts: &mut Vec<Stmt>, block: &str, buffer: BufferId) {
    stmts.retain_mut(|stmt| match stmt {
        Stmt::Loop(of) => {
            let was_empty = of.body.is_empty();
            remove(&mut of.body, block, buffer);
            was_empty || !of.body.is_empty()
        }
        Stmt::Store(store) => store.block != block,
        Stmt::Alloc(id) => *id != buffer,
        Stmt::Barrier => true,
    });
}
