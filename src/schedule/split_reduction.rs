//! `split_reduction acc over k.0`: makes the iterations of a reduction's loop independent.
//!
//! ```text
//! init: acc = 0.0                                  register acc_r: f32[4]
//! for k.0 in 4:                                    for k.0 in 4:
//!   for k.1 in 8: update: acc += x[..]      ->       partial: acc_r[k.0] = 0.0
//!                                                    for k.1 in 8: update: acc_r[k.0] += x[..]
//!                                                  init: acc = 0.0
//!                                                  for k.0 in 4: combine: acc += acc_r[k.0]
//! ```
//!
//! For parallel reductions (split-K, rfactor) and for several accumulators in flight. Refuses loops that do more than combine
//! into the accumulator, and accumulators that the loop reads.

use super::Refusal;
use super::rewrite::{buffer_named, loops_named, new_var};
use crate::expr::{BufferId, ExprId, Role};
use crate::loopir::{Buffer, Combiner, Loop, LoopKind, Nest, Stmt, Store, walk};

pub(super) fn apply(nest: &mut Nest, buffer: &str, over: &str) -> Result<(), Refusal> {
    let id = buffer_named(nest, buffer)?;
    for var in loops_named(nest, over)? {
        let of = nest.loop_of(var).ok_or_else(|| Refusal::NoLoop(over.to_string()))?.clone();
        let refuse =
            |reason: &str| Refusal::Buffer { buffer: buffer.to_string(), reason: reason.to_string() };
        let mut updates: Vec<Store> = vec![];
        walk::visit_stores(&of.body, &mut |store| updates.push(store.clone()));
        let [update] = updates.as_slice() else {
            return Err(refuse("is not the only thing the loop computes"));
        };
        let Some(combiner) = update.combine.filter(|_| update.buffer == id) else {
            return Err(refuse("is not combined into by the loop"));
        };
        if crate::analysis::accesses(&nest.pool, &of.body)[&id].iter().any(|access| !access.write) {
            return Err(refuse("is read by the loop"));
        }
        let inner: Vec<_> = update.index.iter().flat_map(|&index| nest.pool.vars_of(index)).collect();
        if inner.iter().any(|&used| walk::contains_loop(&of.body, used) || used == var) {
            return Err(refuse(
                "has an element for each iteration; stage it out after the reduction is split",
            ));
        }
        rewrite(nest, of, update.clone(), combiner, id);
    }
    Ok(())
}

fn rewrite(nest: &mut Nest, mut of: Loop, update: Store, combiner: Combiner, id: BufferId) {
    let (name, dtype, scope) = {
        let buffer = &nest.pool.buffers[id];
        (format!("{}_r", buffer.name), buffer.dtype, buffer.scope)
    };
    let name = nest.fresh_buffer_name(&name);
    let extent = nest.pool.vars[of.var].extent;
    let partial = nest.pool.buffers.push(Buffer {
        name,
        dtype,
        shape: vec![extent],
        scope,
        role: Role::Local,
        row_padding: 0,
    });
    // Where nothing was combined the accumulator may not even be there.
    let conjuncts = update.condition.map(|condition| nest.pool.conjuncts(condition)).unwrap_or_default();
    let outside = |condition: &ExprId| {
        let used = nest.pool.vars_of(*condition);
        !used.iter().any(|&used| used == of.var || walk::contains_loop(&of.body, used))
    };
    let outside: Vec<ExprId> = conjuncts.into_iter().filter(outside).collect();
    let condition = if outside.is_empty() { None } else { Some(nest.pool.conjunction(&outside)) };
    let blocks = [nest.fresh_block_name("partial"), nest.fresh_block_name("combine")];
    let pool = &mut nest.pool;
    let at = pool.var(of.var);
    let identity = pool.constant(combiner.identity(), dtype);
    walk::change_stores(&mut of.body, &mut |store| {
        store.buffer = partial;
        store.index = vec![at];
    });
    let start = Store {
        block: blocks[0].clone(),
        buffer: partial,
        index: vec![at],
        value: identity,
        combine: None,
        condition: None,
    };
    of.body.insert(0, Stmt::Store(start));
    let role = pool.vars[of.var].name.clone();
    let again = new_var(pool, role, extent);
    let again_value = pool.var(again);
    let value = pool.load(partial, &[again_value]);
    let combine = Store {
        block: blocks[1].clone(),
        buffer: id,
        index: update.index,
        value,
        combine: Some(combiner),
        condition,
    };
    let finish =
        Loop { var: again, kind: LoopKind::Serial, instruction: None, body: vec![Stmt::Store(combine)] };
    let var = of.var;
    let mut result = Some(vec![Stmt::Alloc(partial), Stmt::Loop(of), Stmt::Loop(finish)]);
    walk::replace_loop(&mut nest.body, var, &mut |_| result.take().unwrap_or_default());
}
