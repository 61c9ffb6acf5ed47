//! `compute_at pad in p`: computes what a block writes where it is needed.
//!
//! ```text
//! for i in 10: double: t[i] = x[i] * 2.0                  for p in 8:
//! for p in 8, r in 3: sum: y[p] += t[p + r]       ->        for t.0 in 3: double: t[t.0] = x[p + t.0] * 2.0
//!                                                           for r in 3: sum: y[p] += t[r]
//! ```
//!
//! For locality: the intermediate shrinks to the region one iteration reads, some of it computed more than once. What the block is
//! computed from beside it, a sum kept in a register, moves with it, and so do the loops between that and the block, such as those over
//! a row of which every element needs the sum: they stay as they are.
//!
//! Refuses what [`inline`](super::inline) refuses, reads that are not affine, reach different regions or only a part of what such loops
//! compute, and a value that is not there, or another one, at the loop: of loops or local buffers around the block only, or of
//! a local buffer that is written again. The block must be the only one that writes its buffer.

use super::Refusal;
use super::rewrite::{add_condition, loops_named, new_var, substitute};
use super::stage_in::redirect_reads;
use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, Role, Scope, VarId};
use crate::loopir::{Loop, LoopKind, Nest, Stmt, Store, walk};
use std::collections::{HashMap, HashSet};

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
    // The loop over each dimension; none over one of a single place.
    let mut vars: Vec<Option<VarId>> = vec![];
    for &index in &store.index {
        match nest.pool.as_var(index) {
            Some(var) if !vars.contains(&Some(var)) => vars.push(Some(var)),
            None if nest.pool.as_int(index) == Some(0) => vars.push(None),
            Some(_) | None => return Err(refuse("writes at a computed index")),
        }
    }
    if nest.loops_around(block).contains(&place) {
        return Err(refuse("is computed in that loop already"));
    }
    let around_place = loops_around_loop(nest, place);
    let producer =
        Producer::of(nest, &store, &around_place).ok_or_else(|| refuse("shares what it is computed from"))?;
    if !producer.is_known_at(nest, &store, &vars, place) {
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
    let moved_along = |axis: usize| vars[axis].is_some_and(|var| producer.loops.contains(&var));
    let whole = |axis: usize| bases[axis] == Affine::constant(0) && sizes[axis] == shape[axis];
    if (0..rank).any(|axis| moved_along(axis) && !whole(axis)) {
        return Err(refuse("is read in part where it is computed as a whole"));
    }
    let pool = &mut nest.pool;
    let name = pool.buffers[buffer].name.clone();
    let (mut map, mut inside_shape, mut fresh, mut index) = (HashMap::new(), vec![], vec![], vec![]);
    for axis in 0..rank {
        let Some(var) = vars[axis] else {
            index.push(pool.int(0));
            continue;
        };
        if moved_along(axis) {
            index.push(pool.var(var));
            continue;
        }
        let base = pool.from_affine(&bases[axis]);
        // A dimension of one place needs no loop.
        if sizes[axis] == 1 {
            index.push(pool.int(0));
        } else {
            let own = new_var(pool, format!("{name}.{axis}"), sizes[axis]);
            fresh.push(own);
            index.push(pool.var(own));
        }
        let value = pool.add(base, index[axis]);
        let value = pool.simplify(value);
        map.insert(var, value);
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
    let mut moved = producer.stmts.clone();
    substitute(pool, &mut moved, &map);
    let condition = pool.conjunction(&inside_shape);
    if !pool.conjuncts(condition).is_empty() {
        add_condition(pool, &mut moved, condition);
    }
    walk::change_stores(&mut moved, &mut |writer| {
        if writer.buffer == buffer {
            writer.index.clone_from(&index);
        }
    });
    redirect_reads(pool, &mut body, buffer, &places);
    let local = &mut pool.buffers[buffer];
    local.shape = sizes;
    local.scope = if local.scope == Scope::Global { Scope::Workgroup } else { local.scope };
    producer.remove(&mut nest.body, &store);
    let computed = fresh.into_iter().rev().fold(moved, |body, var| {
        vec![Stmt::Loop(Loop { var, kind: LoopKind::Serial, instruction: None, body })]
    });
    body.splice(0..0, [vec![Stmt::Alloc(buffer)], computed].concat());
    if let Some(of) = walk::find_loop_mut(&mut nest.body, place) {
        of.body = body;
    }
    Ok(())
}

/// A block, in loops of its own, and what it alone is computed from, side by side in one body.
struct Producer {
    stmts: Vec<Stmt>,
    /// The loops of the block that are among the statements.
    loops: Vec<VarId>,
    /// Buffers that are allocated there.
    own: HashSet<BufferId>,
}

impl Producer {
    /// `None` where other statements see what it is computed from. The loops `outside` are not the producer's.
    fn of(nest: &Nest, store: &Store, outside: &[VarId]) -> Option<Producer> {
        let read = nest.pool.buffers_read(store.value);
        let (body, loops) = home_of(nest, store, outside, &read)?;
        let allocated: HashSet<BufferId> = body.iter().filter_map(allocation).collect();
        let reads = |stmt: &Stmt| {
            let mut read = HashSet::new();
            walk::visit_stores(std::slice::from_ref(stmt), &mut |user| {
                read.extend(user.roots().flat_map(|root| nest.pool.buffers_read(root)));
            });
            read
        };
        let mut own: HashSet<BufferId> = read.into_iter().filter(|id| allocated.contains(id)).collect();
        let (mut stmts, mut behind) = (vec![], true);
        for stmt in body.iter().rev() {
            let is_store = body_of(std::slice::from_ref(stmt), &store.block).is_some();
            behind &= !is_store;
            let mut needed = is_store || allocation(stmt).is_some_and(|id| own.contains(&id));
            walk::visit_stores(std::slice::from_ref(stmt), &mut |writer| {
                needed |= own.contains(&writer.buffer)
            });
            if needed && behind {
                return None;
            }
            if needed {
                own.extend(reads(stmt).intersection(&allocated));
                stmts.insert(0, stmt.clone());
            } else if reads(stmt).iter().any(|id| own.contains(id)) {
                return None;
            }
        }
        Some(Producer { stmts, loops, own })
    }

    /// Whether the value of `store`, which loops `vars` run over, is the same when computed in the loop `place`.
    fn is_known_at(&self, nest: &Nest, store: &Store, vars: &[Option<VarId>], place: VarId) -> bool {
        let around_block = nest.loops_around(&store.block);
        let around_place = loops_around_loop(nest, place);
        let only_around_block = |var: &VarId| around_block.contains(var) && !around_place.contains(var);
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
        let readable = |buffer: &BufferId| match nest.pool.buffers[*buffer].role {
            Role::Local => {
                self.own.contains(buffer) || (visible.contains(buffer) && !written_again.contains(buffer))
            }
            Role::Output => !written_again.contains(buffer),
            Role::Input | Role::Constant | Role::Packed => true,
        };
        let mut known = true;
        walk::visit_stores(&self.stmts, &mut |moved| {
            for root in moved.roots() {
                let foreign = |var: &VarId| only_around_block(var) && !vars.contains(&Some(*var));
                known &= !nest.pool.vars_of(root).iter().any(foreign);
                known &= nest.pool.buffers_read(root).iter().all(readable);
            }
            known &= moved.buffer == store.buffer || self.own.contains(&moved.buffer);
        });
        known
    }

    /// Removes it, the allocation of what it writes, and loops that become empty.
    fn remove(&self, stmts: &mut Vec<Stmt>, store: &Store) {
        stmts.retain_mut(|stmt| {
            if self.stmts.contains(stmt) {
                return false;
            }
            match stmt {
                Stmt::Loop(of) => {
                    let was_empty = of.body.is_empty();
                    self.remove(&mut of.body, store);
                    was_empty || !of.body.is_empty()
                }
                Stmt::Alloc(id) => *id != store.buffer,
                Stmt::Store(_) | Stmt::Barrier => true,
            }
        });
    }
}

fn allocation(stmt: &Stmt) -> Option<BufferId> {
    if let Stmt::Alloc(id) = stmt { Some(*id) } else { None }
}

/// The body that has all that the block is computed from and does not read from elsewhere, and the loops between that and the block. It
/// is the outermost one, but for the loops `outside`, that allocates what the block reads; else the one with the block itself.
fn home_of<'a>(
    nest: &'a Nest,
    store: &Store,
    outside: &[VarId],
    read: &[BufferId],
) -> Option<(&'a [Stmt], Vec<VarId>)> {
    let around = nest.loops_around(&store.block);
    for (depth, var) in around.iter().enumerate().filter(|(_, var)| !outside.contains(var)) {
        let body = &nest.loop_of(*var)?.body;
        if body.iter().filter_map(allocation).any(|id| read.contains(&id)) {
            return Some((body, around[depth + 1..].to_vec()));
        }
    }
    Some((body_of(&nest.body, &store.block)?, vec![]))
}

/// The loops around a loop, outermost first.
fn loops_around_loop(nest: &Nest, place: VarId) -> Vec<VarId> {
    let mut found = vec![];
    nest.visit_loops(&mut |of, around| {
        if of.var == place {
            found = around.iter().map(|outer| outer.var).collect();
        }
    });
    found
}

/// The statements beside the block of that name.
fn body_of<'a>(stmts: &'a [Stmt], block: &str) -> Option<&'a [Stmt]> {
    if stmts.iter().any(|stmt| matches!(stmt, Stmt::Store(store) if store.block == block)) {
        return Some(stmts);
    }
    stmts.iter().find_map(|stmt| if let Stmt::Loop(of) = stmt { body_of(&of.body, block) } else { None })
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
