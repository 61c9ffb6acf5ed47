//! `prepare u`: computes a local buffer once, when the nest is compiled.
//!
//! ```text
//! local u: f32[4]                                            prepare: packed u: f32[4]; for c in 4: u[c] = w[c] * 2.0
//! for c in 4: u[c] = w[c] * 2.0                      ->
//! for i in 8, c in 4: y[i] += u[c] * x[i, c]                 for i in 8, c in 4: y[i] += u[c] * x[i, c]
//! ```
//!
//! For weights in another form. What the buffer is computed from moves with it. Refuses buffers that are not allocated at the top
//! of the nest, that depend on more than constants, or of which the nest computes something else beside them.

use super::Refusal;
use super::rewrite::buffer_named;
use super::stage_in::refuse;
use crate::expr::{BufferId, Role, Scope};
use crate::loopir::{Nest, Stmt, walk};
use std::collections::BTreeSet;

pub(super) fn apply(nest: &mut Nest, buffer: &str) -> Result<(), Refusal> {
    let id = buffer_named(nest, buffer)?;
    let at_top: BTreeSet<BufferId> = nest
        .body
        .iter()
        .filter_map(|stmt| if let Stmt::Alloc(id) = stmt { Some(*id) } else { None })
        .collect();
    if !at_top.contains(&id) {
        return Err(refuse(nest, id, "is not allocated at the top of the nest"));
    }
    let touched: Vec<(BTreeSet<BufferId>, BTreeSet<BufferId>)> =
        nest.body.iter().map(|stmt| reads_and_writes(nest, stmt)).collect();
    let mut wanted = BTreeSet::from([id]);
    loop {
        let known = wanted.len();
        for (reads, writes) in &touched {
            if !writes.is_disjoint(&wanted) {
                wanted.extend(reads.union(writes).filter(|id| at_top.contains(id)));
            }
        }
        if wanted.len() == known {
            break;
        }
    }
    let moves = |writes: &BTreeSet<BufferId>| !writes.is_disjoint(&wanted);
    for (reads, writes) in &touched {
        if moves(writes) {
            let role = |id: &BufferId| nest.pool.buffers[*id].role;
            if reads.iter().any(|read| role(read) == Role::Input) {
                return Err(refuse(nest, id, "depends on an input"));
            }
            if reads.union(writes).any(|touched| role(touched) == Role::Output) {
                return Err(refuse(nest, id, "is computed together with an output"));
            }
        } else if reads.iter().any(|read| *read != id && wanted.contains(read)) {
            return Err(refuse(nest, id, "is computed from what the nest reads elsewhere"));
        }
    }
    let buffer = &mut nest.pool.buffers[id];
    (buffer.role, buffer.scope) = (Role::Packed, Scope::Global);
    for (stmt, (_, writes)) in std::mem::take(&mut nest.body).into_iter().zip(&touched) {
        let allocates = matches!(&stmt, Stmt::Alloc(id) if wanted.contains(id));
        let to = if allocates || moves(writes) { &mut nest.preparation } else { &mut nest.body };
        to.push(stmt);
    }
    Ok(())
}

fn reads_and_writes(nest: &Nest, stmt: &Stmt) -> (BTreeSet<BufferId>, BTreeSet<BufferId>) {
    let (mut reads, mut writes) = (BTreeSet::new(), BTreeSet::new());
    walk::visit_stores(std::slice::from_ref(stmt), &mut |store| {
        reads.extend(store.roots().flat_map(|root| nest.pool.buffers_read(root)));
        writes.insert(store.buffer);
    });
    (reads, writes)
}
