//! Stores to registers without conditions that only say whether anyone will look.
//!
//! A tile that hangs over the edge of its output gives each of its stores a condition. Where all stores to an element of a
//! register buffer have the same condition, fixed as long as the buffer lives, the element is undefined where it does not
//! hold, so nobody reads it there, and writing it anyway changes nothing. What the value loads is kept in range all the same.

use super::expand::{RawStore, Step};
use crate::expr::{BufferId, Expr, ExprId, ExprPool, Scope, VarId};
use std::collections::HashMap;

/// The conditions that all stores to an element have; by buffer alone where some index is not constant.
#[derive(Default)]
struct Common {
    elements: HashMap<(BufferId, ExprId), Vec<ExprId>>,
    buffers: HashMap<BufferId, Vec<ExprId>>,
    /// Buffers whose elements are not all known.
    unknown: Vec<BufferId>,
}

/// Turns conditions of register stores that do not matter into [`RawStore::indifferent`].
pub(super) fn speculate(pool: &mut ExprPool, steps: &mut [Step<RawStore>], lane: VarId) {
    let mut any = false;
    visit(steps, &mut Around::default(), &mut |store, around| {
        any |= !store.conditions.is_empty() && around.declared.contains_key(&store.buffer);
    });
    if !any {
        return;
    }
    let mut common = Common::default();
    visit(steps, &mut Around::default(), &mut |store, around| {
        collect(pool, store, around, lane, &mut common)
    });
    visit(steps, &mut Around::default(), &mut |store, _| relax(pool, store, lane, &common));
}

/// The loops around a statement, and how many of them were around each buffer's declaration.
#[derive(Default)]
struct Around {
    loops: Vec<VarId>,
    declared: HashMap<BufferId, usize>,
}

fn visit(
    steps: &mut [Step<RawStore>],
    around: &mut Around,
    on_store: &mut impl FnMut(&mut RawStore, &Around),
) {
    for step in steps {
        match step {
            Step::Declare(id) => {
                around.declared.insert(*id, around.loops.len());
            }
            Step::Store(store) => on_store(store, around),
            Step::For { var, body, .. } => {
                around.loops.push(*var);
                visit(body, around, on_store);
                around.loops.pop();
            }
            Step::Scope(body) | Step::Region { body, .. } => visit(body, around, on_store),
            Step::Barrier => {}
        }
    }
}

/// The flat index and the conditions of each lane.
fn lanes(pool: &mut ExprPool, store: &RawStore, lane: VarId) -> Vec<(ExprId, Vec<ExprId>)> {
    let linear = pool.linear_index(store.buffer, &store.index);
    if !store.wide {
        return vec![(linear, store.conditions.clone())];
    }
    (0..4)
        .map(|number| {
            let map = HashMap::from([(lane, pool.int(number))]);
            let conditions = store.conditions.iter().map(|&c| pool.substitute(c, &map)).collect();
            (pool.substitute(linear, &map), conditions)
        })
        .collect()
}

fn collect(pool: &mut ExprPool, store: &RawStore, around: &Around, lane: VarId, common: &mut Common) {
    let Some(&depth) = around.declared.get(&store.buffer) else { return };
    if pool.buffers[store.buffer].scope != Scope::Register {
        return;
    }
    for (index, mut conditions) in lanes(pool, store, lane) {
        conditions.retain(|&c| {
            pool.loads_of(c).is_empty() && around.loops[depth..].iter().all(|&var| !pool.uses_var(c, var))
        });
        if !matches!(pool.get(index), Expr::Int(..)) && !common.unknown.contains(&store.buffer) {
            common.unknown.push(store.buffer);
        }
        let shared = common.buffers.entry(store.buffer).or_insert_with(|| conditions.clone());
        shared.retain(|c| conditions.contains(c));
        let shared = common.elements.entry((store.buffer, index)).or_insert_with(|| conditions.clone());
        shared.retain(|c| conditions.contains(c));
    }
}

fn relax(pool: &mut ExprPool, store: &mut RawStore, lane: VarId, common: &Common) {
    if !common.buffers.contains_key(&store.buffer) || store.conditions.is_empty() {
        return;
    }
    let mut kept = vec![];
    let lanes = lanes(pool, store, lane);
    for (place, &condition) in store.conditions.iter().enumerate() {
        let indifferent = lanes.iter().all(|(index, conditions)| {
            let shared = if common.unknown.contains(&store.buffer) {
                &common.buffers[&store.buffer]
            } else {
                &common.elements[&(store.buffer, *index)]
            };
            shared.contains(&conditions[place])
        });
        if indifferent { store.indifferent.push(condition) } else { kept.push(condition) }
    }
    store.conditions = kept;
}
