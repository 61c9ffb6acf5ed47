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
        match nest.pool.get(index) {
            Expr::Var(var) if !vars.contains(var) => vars.push(*var),
            Expr::Int(0, _) => {}
            Expr::Var(_)
            | Expr::Int(..)
            | Expr::Float(..)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => return Err(refuse("writes at a computed index")),
        }
    }
    let loops = nest.loops_around(block);
    let inner_locals = nest.pool.loads_of(store.value).into_iter().any(|load| {
        matches!(nest.pool.get(load), Expr::Load(buffer, _) if nest.pool.buffers[*buffer].role == Role::Local)
    });
    if inner_locals || loops.iter().any(|var| !vars.contains(var) && nest.pool.uses_var(store.value, *var)) {
        return Err(refuse("computes a value that is not known where it is read"));
    }
    let buffer = store.buffer;
    remove(&mut nest.body, &store.block, buffer);
    let pool = &mut nest.pool;
    walk::change_stores(&mut nest.body, &mut |user| {
        change_exprs(user, &mut |root| {
            let replaced = pool.rewrite(root, &mut |pool, id| match pool.get(id).clone() {
                Expr::Load(known, index) if known == buffer => {
                    let map: HashMap<VarId, _> = store
                        .index
                        .iter()
                        .zip(index)
                        .filter_map(|(at, value)| {
                            if let Expr::Var(var) = pool.get(*at) { Some((*var, value)) } else { None }
                        })
                        .collect();
                    Some(pool.substitute(store.value, &map))
                }
                Expr::Int(..)
                | Expr::Float(..)
                | Expr::Var(_)
                | Expr::Load(..)
                | Expr::Unary(..)
                | Expr::Binary(..)
                | Expr::Select(..)
                | Expr::Guard(..)
                | Expr::Cast(..) => None,
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
