//! What the steps share: finding what a name means, and copying statements with names of their own.

use super::Refusal;
use crate::expr::{BufferId, Expr, ExprId, ExprPool, VarId};
use crate::loopir::{Buffer, Loop, Nest, Stmt, Store, Variable, walk};
use std::collections::HashMap;

/// The loops of that name, none of them inside an instruction.
pub(super) fn loops_named(nest: &Nest, name: &str) -> Result<Vec<VarId>, Refusal> {
    let mut vars = vec![];
    let mut replaced = None;
    nest.visit_loops(&mut |of, around| {
        if nest.pool.vars[of.var].name == name {
            vars.push(of.var);
            if let Some(instruction) = around.iter().chain([&of]).find_map(|outer| outer.instruction.clone())
            {
                replaced = Some(Refusal::Replaced { of: name.to_string(), instruction });
            }
        }
    });
    match replaced {
        Some(refusal) => Err(refusal),
        None if vars.is_empty() => Err(Refusal::NoLoop(name.to_string())),
        None => Ok(vars),
    }
}

/// The buffer of that name.
pub(super) fn buffer_named(nest: &Nest, name: &str) -> Result<BufferId, Refusal> {
    nest.buffer_named(name).ok_or_else(|| Refusal::NoBuffer(name.to_string()))
}

/// A fresh variable.
pub(super) fn new_var(pool: &mut ExprPool, name: String, extent: usize) -> VarId {
    pool.vars.push(Variable { name, extent })
}

/// Puts `map`'s expressions in the place of variables in all blocks under `stmts`.
pub(super) fn substitute(pool: &mut ExprPool, stmts: &mut [Stmt], map: &HashMap<VarId, ExprId>) {
    walk::change_stores(stmts, &mut |store| substitute_store(pool, store, map));
}

/// Puts `map`'s expressions in the place of variables in one block.
pub(super) fn substitute_store(pool: &mut ExprPool, store: &mut Store, map: &HashMap<VarId, ExprId>) {
    change_exprs(store, &mut |root| pool.substitute(root, map));
    drop_true_condition(pool, store);
}

/// Changes every expression of a block.
pub(super) fn change_exprs(store: &mut Store, change: &mut impl FnMut(ExprId) -> ExprId) {
    for index in &mut store.index {
        *index = change(*index);
    }
    store.value = change(store.value);
    store.condition = store.condition.map(change);
}

fn drop_true_condition(pool: &ExprPool, store: &mut Store) {
    if store.condition.is_some_and(|condition| pool.conjuncts(condition).is_empty()) {
        store.condition = None;
    }
}

/// Adds a condition to every block under `stmts`.
pub(super) fn add_condition(pool: &mut ExprPool, stmts: &mut [Stmt], condition: ExprId) {
    walk::change_stores(stmts, &mut |store| {
        store.condition = Some(match store.condition {
            Some(known) => pool.and(known, condition),
            None => condition,
        });
    });
}

/// Puts one element of `new` in the place of each read of `old`, the index mapped by `index`.
pub(super) fn redirect(
    pool: &mut ExprPool,
    root: ExprId,
    old: BufferId,
    new: BufferId,
    index: &mut impl FnMut(&mut ExprPool, &[ExprId]) -> Vec<ExprId>,
) -> ExprId {
    pool.rewrite(root, &mut |pool, id| {
        let Expr::Load(buffer, at) = pool.get(id).clone() else { return None };
        (buffer == old).then(|| {
            let at = index(pool, &at);
            pool.load(new, &at)
        })
    })
}

/// A copy of `stmts` with loop variables, local buffers and block names of its own (names get `suffix`; loops keep theirs).
pub(super) fn copy_stmts(nest: &mut Nest, stmts: &[Stmt], suffix: &str) -> Vec<Stmt> {
    let mut vars = HashMap::new();
    let mut buffers = HashMap::new();
    collect_copies(nest, stmts, suffix, &mut vars, &mut buffers);
    rebuild(nest, stmts, suffix, &vars, &buffers)
}

fn collect_copies(
    nest: &mut Nest,
    stmts: &[Stmt],
    suffix: &str,
    vars: &mut HashMap<VarId, VarId>,
    buffers: &mut HashMap<BufferId, BufferId>,
) {
    for stmt in stmts {
        match stmt {
            Stmt::Loop(of) => {
                let var = nest.pool.vars[of.var].clone();
                vars.insert(of.var, nest.pool.vars.push(var));
                collect_copies(nest, &of.body, suffix, vars, buffers);
            }
            Stmt::Alloc(id) => {
                let buffer = nest.pool.buffers[*id].clone();
                let name = nest.fresh_buffer_name(&format!("{}{suffix}", buffer.name));
                buffers.insert(*id, nest.pool.buffers.push(Buffer { name, ..buffer }));
            }
            Stmt::Store(_) | Stmt::Barrier => {}
        }
    }
}

fn rebuild(
    nest: &mut Nest,
    stmts: &[Stmt],
    suffix: &str,
    vars: &HashMap<VarId, VarId>,
    buffers: &HashMap<BufferId, BufferId>,
) -> Vec<Stmt> {
    stmts
        .iter()
        .map(|stmt| match stmt {
            Stmt::Loop(of) => Stmt::Loop(Loop {
                var: vars[&of.var],
                kind: of.kind,
                instruction: of.instruction.clone(),
                body: rebuild(nest, &of.body, suffix, vars, buffers),
            }),
            Stmt::Alloc(id) => Stmt::Alloc(buffers[id]),
            Stmt::Barrier => Stmt::Barrier,
            Stmt::Store(store) => {
                let mut copy = store.clone();
                copy.block = nest.fresh_block_name(&format!("{}{suffix}", store.block));
                copy.buffer = buffers.get(&store.buffer).copied().unwrap_or(store.buffer);
                let map: HashMap<VarId, ExprId> =
                    vars.iter().map(|(&old, &new)| (old, nest.pool.var(new))).collect();
                let pool = &mut nest.pool;
                change_exprs(&mut copy, &mut |root| {
                    let renamed = buffers.iter().fold(root, |root, (&old, &new)| {
                        redirect(pool, root, old, new, &mut |_, index| index.to_vec())
                    });
                    pool.substitute(renamed, &map)
                });
                Stmt::Store(copy)
            }
        })
        .collect()
}

/// `stmts` inside fresh copies of `loops` (outermost first), the variables replaced.
pub(super) fn wrap(pool: &mut ExprPool, loops: &[Loop], mut stmts: Vec<Stmt>) -> Vec<Stmt> {
    let mut map = HashMap::new();
    let mut fresh = vec![];
    for of in loops {
        let variable = pool.vars[of.var].clone();
        let var = pool.vars.push(variable);
        map.insert(of.var, pool.var(var));
        fresh.push(Loop { var, kind: of.kind, instruction: None, body: vec![] });
    }
    substitute(pool, &mut stmts, &map);
    fresh.into_iter().rev().fold(stmts, |body, of| vec![Stmt::Loop(Loop { body, ..of })])
}
