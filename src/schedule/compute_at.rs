//! `compute_at pad in p`: computes what a block writes where it is needed.
//!
//! ```text
//! for i in 10: double: t[i] = x[i] * 2.0                  for p in 8:
//! for p in 8, r in 3: sum: y[p] += t[p + r]       ->        for t.0 in 3: double: t[t.0] = x[p + t.0] * 2.0
//!                                                           for r in 3: sum: y[p] += t[r]
//! ```
//!
//! For locality: the intermediate shrinks to the region one iteration reads, some of it computed more than once. Refuses what
//! [`inline`](super::inline) refuses, reads that are not affine or reach different regions, and a value that is not there, or
//! another one, at the loop: of loops or local buffers around the block only, or of a local buffer that is written again. The
//! block must be the only one that writes its buffer.

use super::rewrite::{loops_named, new_var, substitute_store};
use super::stage_in::{nested, redirect_reads};
use super::{Refusal, inline};
use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, Role, Scope, VarId};
use crate::loopir::{Nest, Stmt, Store, walk};
use std::collections::HashMap;

pub(super) fn apply(nest: &mut Nest, block: &str, at: &str) -> Result<(), Refusal> {
    let store = nest.block(block).ok_or_else(|| Refusal::NoBlock(block.to_string()))?.clone();
    let refuse = |reason: &str| Refusal::Block { block: block.to_string(), reason: reason.to_string() };
    if store.combine.is_some() || store.condition.is_some() {
        return Err(refuse("combines or has a condition"));
    }
    let buffer = store.buffer;
    if nest.pool.buffers[buffer].role != Role::Local {
        return Err(refuse("writes a buffer that lives outside the nest"));
    }
    let mut writers = 0;
    nest.visit_stores(&mut |writer| writers += usize::from(writer.buffer == buffer));
    if writers > 1 {
        return Err(refuse("is not the only writer of its buffer"));
    }
    let [place] = loops_named(nest, at)?[..] else { return Err(refuse("can be computed in one loop only")) };
    let mut vars: Vec<VarId> = vec![];
    for &index in &store.index {
        match nest.pool.as_var(index) {
            Some(var) if !vars.contains(&var) => vars.push(var),
            Some(_) | None => return Err(refuse("writes at a computed index")),
        }
    }
    if nest.loops_around(block).contains(&place) {
        return Err(refuse("is computed in that loop already"));
    }
    if !is_known_at(nest, &store, &vars, place) {
        return Err(refuse("computes a value that is not known in that loop"));
    }
    let mut body = nest.loop_of(place).map(|of| of.body.clone()).unwrap_or_default();
    let mut inside = vec![];
    nest.visit_loops(&mut |of, around| {
        if around.iter().any(|outer| outer.var == place) {
            inside.push(of.var);
        }
    });
    // Every read of the buffer, in the place and elsewhere.
    let (mut reads, mut elsewhere): (Vec<ExprId>, usize) = (vec![], 0);
    let count = |stmts: &[Stmt], into: &mut Vec<ExprId>| {
        let mut n = 0;
        walk::visit_stores(stmts, &mut |user| {
            for load in user.roots().flat_map(|root| nest.pool.loads_of(root)) {
                if matches!(nest.pool.get(load), Expr::Load(known, _) if *known == buffer) {
                    n += 1;
                    into.push(load);
                }
            }
        });
        n
    };
    let here = count(&body, &mut reads);
    elsewhere += count(&nest.body, &mut vec![]) - here;
    if here == 0 || elsewhere > 0 {
        return Err(refuse("is read outside of that loop, or not in it"));
    }
    reads.sort();
    reads.dedup();
    let rank = vars.len();
    let shape = nest.pool.buffers[buffer].shape.clone();
    let mut bases: Vec<Affine> = vec![];
    let mut sizes = vec![0usize; rank];
    for (first, &read) in reads.iter().enumerate() {
        let Expr::Load(_, index) = nest.pool.get(read).clone() else { continue };
        for axis in 0..rank {
            let form = nest.pool.affine(index[axis]);
            let (mut base, mut inner) = (Affine::constant(form.constant), Affine::default());
            for (&atom, &coefficient) in &form.terms {
                let varies = nest.pool.vars_of(atom).iter().any(|var| inside.contains(var));
                if varies { inner.add_term(atom, coefficient) } else { base.add_term(atom, coefficient) }
            }
            let range =
                inner.interval(&nest.pool).ok_or_else(|| refuse("is read at an index that is not affine"))?;
            base.constant += range.low;
            if first == 0 {
                bases.push(base);
            } else if bases[axis] != base {
                return Err(refuse("is read in several different regions"));
            }
            sizes[axis] = sizes[axis].max((range.high - range.low + 1) as usize);
        }
    }
    let pool = &mut nest.pool;
    let name = pool.buffers[buffer].name.clone();
    let fresh: Vec<VarId> =
        sizes.iter().enumerate().map(|(axis, &size)| new_var(pool, format!("{name}.{axis}"), size)).collect();
    let (mut map, mut inside_shape) = (HashMap::new(), vec![]);
    for axis in 0..rank {
        let base = pool.from_affine(&bases[axis]);
        let var = pool.var(fresh[axis]);
        let value = pool.add(base, var);
        let value = pool.simplify(value);
        map.insert(vars[axis], value);
        let low = pool.at_least_int(value, 0);
        let high = pool.less_int(value, shape[axis] as i64);
        inside_shape.push(pool.simplify(low));
        inside_shape.push(pool.simplify(high));
    }
    let mut places = vec![];
    for read in reads {
        let Expr::Load(_, index) = pool.get(read).clone() else { continue };
        let mut place = vec![];
        for axis in 0..rank {
            let base = pool.from_affine(&bases[axis]);
            let offset = pool.binary(BinaryOp::Sub, index[axis], base);
            place.push(pool.simplify(offset));
        }
        places.push((read, place));
    }
    let mut moved = store.clone();
    substitute_store(pool, &mut moved, &map);
    moved.index = fresh.iter().map(|&var| pool.var(var)).collect();
    let condition = pool.conjunction(&inside_shape);
    moved.condition = if pool.conjuncts(condition).is_empty() { None } else { Some(condition) };
    redirect_reads(pool, &mut body, buffer, &places);
    let local = &mut pool.buffers[buffer];
    local.shape = sizes;
    local.scope = if local.scope == Scope::Global { Scope::Workgroup } else { local.scope };
    inline::remove(&mut nest.body, block, buffer);
    body.splice(0..0, [Stmt::Alloc(buffer), nested(&fresh, moved)]);
    if let Some(of) = walk::find_loop_mut(&mut nest.body, place) {
        of.body = body;
    }
    Ok(())
}

/// Whether the value of `store`, which its loops `vars` run over, is the same when computed in the loop `place`.
fn is_known_at(nest: &Nest, store: &Store, vars: &[VarId], place: VarId) -> bool {
    let around_block = nest.loops_around(&store.block);
    let mut around_place = vec![];
    nest.visit_loops(&mut |of, around| {
        if of.var == place {
            around_place = around.iter().map(|outer| outer.var).collect();
        }
    });
    let only_around_block = |var: &VarId| around_block.contains(var) && !around_place.contains(var);
    let value_vars = nest.pool.vars_of(store.value);
    if value_vars.iter().any(|var| only_around_block(var) && !vars.contains(var)) {
        return false;
    }
    let visible = allocated_before(&nest.body, place).unwrap_or_default();
    let mut behind = false;
    let mut written_again = vec![];
    nest.visit_stores(&mut |writer| {
        let repeated = nest.loops_around(&writer.block).iter().any(only_around_block);
        if behind || repeated {
            written_again.push(writer.buffer);
        }
        behind |= writer.block == store.block;
    });
    nest.pool.buffers_read(store.value).iter().all(|buffer| match nest.pool.buffers[*buffer].role {
        Role::Local => visible.contains(buffer) && !written_again.contains(buffer),
        Role::Output => !written_again.contains(buffer),
        Role::Input | Role::Constant | Role::Packed => true,
    })
}

/// The buffers allocated in the bodies around the loop `place`, in front of it; `None` where it is not under `stmts`.
fn allocated_before(stmts: &[Stmt], place: VarId) -> Option<Vec<BufferId>> {
    let mut allocated = vec![];
    for stmt in stmts {
        match stmt {
            Stmt::Alloc(id) => allocated.push(*id),
            Stmt::Loop(of) if of.var == place => return Some(allocated),
            Stmt::Loop(of) => {
                if let Some(inside) = allocated_before(&of.body, place) {
                    allocated.extend(inside);
                    return Some(allocated);
                }
            }
            Stmt::Store(_) | Stmt::Barrier => {}
        }
    }
    None
}
