//! `stage_out acc at j.1 in register`: keeps a tile of a local buffer over several loops.
//!
//! ```text
//! for j.1 in 4, i.2 in 8:                       for j.1 in 4:
//!   register acc: f32                             register acc: f32[8]
//!   init: acc = 0.0                        ->     for i.2 in 8: init: acc[i.2] = 0.0
//!   for k in 64: update: acc += a * b             for i.2 in 8, k in 64: update: acc[i.2] += a * b
//!   store: y[..] = acc                            for i.2 in 8: store: y[..] = acc[i.2]
//! ```
//!
//! For register tiles: the loops between the place and the buffer are distributed over the statements, and the buffer gets a
//! dimension for each. Afterwards `reorder` can bring the reduction outside of the tile. Other buffers allocated beside it grow
//! likewise. Refuses loops that are not directly nested, and loops whose iterations depend on one another.

use super::Refusal;
use super::rewrite::{buffer_named, redirect, wrap};
use crate::analysis::carried_buffers;
use crate::expr::{BufferId, ExprId, Scope, VarId};
use crate::loopir::{Loop, Nest, Stmt, walk};

pub(super) fn apply(nest: &mut Nest, buffer: &str, at: Option<&str>, scope: Scope) -> Result<(), Refusal> {
    let id = buffer_named(nest, buffer)?;
    let refuse = |reason: &str| Refusal::Buffer { buffer: buffer.to_string(), reason: reason.to_string() };
    let around = path_to_alloc(&nest.body, id).ok_or_else(|| refuse("is not allocated in the nest"))?;
    let between = match at {
        None => around.clone(),
        Some(at) => {
            let place = around.iter().position(|&var| nest.pool.vars[var].name == at);
            let place = place
                .ok_or_else(|| Refusal::NotNested { outer: at.to_string(), inner: buffer.to_string() })?;
            around[place + 1..].to_vec()
        }
    };
    nest.pool.buffers[id].scope = scope;
    let Some(&top) = between.first() else { return Ok(()) };
    let mut loops: Vec<Loop> = vec![];
    for (place, &var) in between.iter().enumerate() {
        let of = nest.loop_of(var).ok_or_else(|| refuse("is not in a loop"))?.clone();
        if let (Some(next), false) = (between.get(place + 1), matches!(of.body.as_slice(), [Stmt::Loop(_)])) {
            return Err(Refusal::NotNested {
                outer: nest.pool.vars[var].name.clone(),
                inner: nest.pool.vars[*next].name.clone(),
            });
        }
        if let Some(&carried) = carried_buffers(&mut nest.pool, &of).first() {
            return Err(Refusal::Carried {
                of: nest.pool.vars[var].name.clone(),
                buffer: nest.pool.buffers[carried].name.clone(),
            });
        }
        loops.push(of);
    }
    let Some(body) = loops.last().map(|innermost| innermost.body.clone()) else { return Ok(()) };
    let grown: Vec<BufferId> =
        body.iter().filter_map(|stmt| if let Stmt::Alloc(id) = stmt { Some(*id) } else { None }).collect();
    let extents: Vec<usize> = between.iter().map(|&var| nest.pool.vars[var].extent).collect();
    let prefix: Vec<ExprId> = between.iter().map(|&var| nest.pool.var(var)).collect();
    let mut result = vec![];
    for &id in &grown {
        let shape = &mut nest.pool.buffers[id].shape;
        *shape = [extents.as_slice(), shape.as_slice()].concat();
        result.push(Stmt::Alloc(id));
    }
    for mut stmt in body.into_iter().filter(|stmt| !matches!(stmt, Stmt::Alloc(_))) {
        let pool = &mut nest.pool;
        walk::change_stores(std::slice::from_mut(&mut stmt), &mut |store| {
            store.change_exprs(&mut |root| {
                grown.iter().fold(root, |root, &id| {
                    redirect(pool, root, id, id, &mut |_, index| [prefix.as_slice(), index].concat())
                })
            });
            if grown.contains(&store.buffer) {
                store.index = [prefix.as_slice(), &store.index].concat();
            }
        });
        result.extend(wrap(&mut nest.pool, &loops, vec![stmt]));
    }
    let mut result = Some(result);
    walk::replace_loop(&mut nest.body, top, &mut |_| result.take().unwrap_or_default());
    Ok(())
}

/// The loops around the allocation of `id`, outermost first.
fn path_to_alloc(stmts: &[Stmt], id: BufferId) -> Option<Vec<VarId>> {
    stmts.iter().find_map(|stmt| match stmt {
        Stmt::Alloc(known) if *known == id => Some(vec![]),
        Stmt::Loop(of) => path_to_alloc(&of.body, id).map(|path| [vec![of.var], path].concat()),
        Stmt::Alloc(_) | Stmt::Store(_) | Stmt::Barrier => None,
    })
}
