//! How each buffer of a kernel is held: in memory or as variables, as scalars or as `vec4`.

use super::expand::{FlatStore, Step};
use crate::expr::{BufferId, Expr, ExprId, ExprPool, Scope, VarId};
use std::collections::BTreeMap;

/// The most variables a register buffer becomes; a larger one is an array.
const MAX_VARIABLES: usize = 512;

/// The form of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether elements are `vec4`.
    pub(super) wide: bool,
    /// Whether each element is a variable of its own; otherwise the buffer is an array.
    pub(super) variables: bool,
}

/// Where an index of a buffer of `vec4`s points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To four neighbours: the index of the `vec4`.
    Whole(ExprId),
    /// To one of four.
    Component(ExprId, usize),
}

/// The place of a flat index among `vec4`s: all of one where it counts four aligned neighbours with `lane`, one component
/// where that is known.
pub(super) fn place(pool: &mut ExprPool, index: ExprId, lane: VarId) -> Option<Place> {
    if pool.uses_var(index, lane) {
        let first = first_lane(pool, index, lane)?;
        let (quarter, component) = quarter(pool, first)?;
        (component == 0).then_some(Place::Whole(quarter))
    } else {
        quarter(pool, index).map(|(quarter, component)| Place::Component(quarter, component))
    }
}

/// The index of lane 0 where the others follow it.
fn first_lane(pool: &mut ExprPool, index: ExprId, lane: VarId) -> Option<ExprId> {
    if let Expr::Select(condition, a, b) = *pool.get(index) {
        if pool.uses_var(condition, lane) || pool.uses_var(b, lane) {
            return None;
        }
        let a = first_lane(pool, a, lane)?;
        return Some(pool.select(condition, a, b));
    }
    let mut form = pool.affine(index);
    if form.coefficient(pool, lane) != Some(1) {
        return None;
    }
    let lane = pool.var(lane);
    form.add_term(lane, -1);
    Some(pool.from_affine(&form))
}

/// A quarter of an index and the rest, where the rest is known.
fn quarter(pool: &mut ExprPool, index: ExprId) -> Option<(ExprId, usize)> {
    if let Expr::Select(condition, a, b) = *pool.get(index) {
        let (a, component) = quarter(pool, a)?;
        let (b, other) = quarter(pool, b)?;
        return (component == other).then(|| (pool.select(condition, a, b), component));
    }
    let mut form = pool.affine(index);
    if form.terms.values().any(|coefficient| coefficient % 4 != 0) {
        return None;
    }
    let component = form.constant.rem_euclid(4) as usize;
    form.constant = form.constant.div_euclid(4);
    form.terms.values_mut().for_each(|coefficient| *coefficient /= 4);
    Some((pool.from_affine(&form), component))
}

/// What the accesses of one buffer have in common.
struct Accesses {
    constant: bool,
    /// Every access is a place among `vec4`s, and no store is to a component.
    only_places: bool,
    any_whole: bool,
    /// Quarters of which components are read, with the components as bits.
    quarters: BTreeMap<ExprId, u8>,
}

impl Accesses {
    /// Whether reading whole `vec4`s for their components makes fewer accesses, a `vec4` counted as two.
    fn packs(&self) -> bool {
        let components: u32 = self.quarters.values().map(|bits| bits.count_ones()).sum();
        let shared = self.quarters.values().filter(|bits| bits.count_ones() > 1).count();
        let alone = self.quarters.len() - shared;
        (2 * shared + alone) < components as usize
    }
}

/// Chooses the layout of every buffer, and splits wide stores that would not access any `vec4`.
pub(super) fn choose(pool: &mut ExprPool, steps: &mut Vec<Step>, lane: VarId) -> BTreeMap<BufferId, Layout> {
    let mut accesses: BTreeMap<BufferId, Accesses> = BTreeMap::new();
    visit_stores(steps, &mut |store| {
        for (buffer, index, written) in accessed(pool, store) {
            let lanes = pool.uses_var(index, lane);
            let mut places = vec![place(pool, index, lane)];
            if places == [None] && lanes && !written {
                places = (0..4)
                    .map(|number| {
                        let at = store_index(pool, index, lane, number);
                        place(pool, at, lane)
                    })
                    .collect();
            }
            let constant = pool.affine(index).terms.keys().all(|&atom| *pool.get(atom) == Expr::Var(lane));
            let of = accesses.entry(buffer).or_insert(Accesses {
                constant: true,
                only_places: true,
                any_whole: false,
                quarters: BTreeMap::new(),
            });
            of.constant &= constant;
            for place in places {
                of.only_places &= match place {
                    Some(Place::Whole(_)) => {
                        of.any_whole = true;
                        true
                    }
                    Some(Place::Component(quarter, component)) => {
                        *of.quarters.entry(quarter).or_insert(0) |= 1 << component;
                        !written
                    }
                    None => false,
                };
            }
        }
    });
    let mut layouts = BTreeMap::new();
    for (id, of) in accesses {
        let buffer = &pool.buffers[id];
        let quarters = buffer.storage_len().is_multiple_of(4);
        let variables =
            buffer.scope == Scope::Register && of.constant && buffer.storage_len() <= MAX_VARIABLES;
        let packed = of.only_places && (of.any_whole || buffer.scope == Scope::Global && of.packs());
        let wide = quarters && (packed || of.any_whole && variables);
        layouts.insert(id, Layout { wide, variables });
    }
    split(pool, steps, lane, &layouts);
    layouts
}

/// The flat index with the lane replaced by its number.
pub(super) fn store_index(pool: &mut ExprPool, index: ExprId, lane: VarId, number: i64) -> ExprId {
    let map = std::collections::HashMap::from([(lane, pool.int(number))]);
    pool.substitute(index, &map)
}

/// Buffers and flat indices a store reads and, last, writes.
fn accessed(pool: &ExprPool, store: &FlatStore) -> Vec<(BufferId, ExprId, bool)> {
    let mut all = vec![];
    for root in store.roots() {
        for load in pool.loads_of(root) {
            if let Expr::Load(buffer, index) = pool.get(load) {
                all.push((*buffer, index[0], false));
            }
        }
    }
    all.push((store.buffer, store.index, true));
    all
}

/// Calls `visit` for every store, in order.
pub(super) fn visit_stores(steps: &[Step], visit: &mut impl FnMut(&FlatStore)) {
    for step in steps {
        match step {
            Step::Store(store) => visit(store),
            Step::For { body, .. } | Step::Scope(body) | Step::Region { body, .. } => {
                visit_stores(body, visit);
            }
            Step::Declare(_) | Step::Barrier => {}
        }
    }
}

fn split(pool: &mut ExprPool, steps: &mut Vec<Step>, lane: VarId, layouts: &BTreeMap<BufferId, Layout>) {
    let mut out = Vec::with_capacity(steps.len());
    for mut step in steps.drain(..) {
        match &mut step {
            Step::Store(store) if store.wide && !gains(pool, store, lane, layouts) => {
                out.extend((0..4).map(|number| Step::Store(store.of_lane(pool, lane, number))));
                continue;
            }
            Step::For { body, .. } | Step::Scope(body) | Step::Region { body, .. } => {
                split(pool, body, lane, layouts);
            }
            Step::Store(_) | Step::Declare(_) | Step::Barrier => {}
        }
        out.push(step);
    }
    *steps = out;
}

/// Whether a wide store accesses a `vec4`.
fn gains(pool: &mut ExprPool, store: &FlatStore, lane: VarId, layouts: &BTreeMap<BufferId, Layout>) -> bool {
    accessed(pool, store).into_iter().any(|(buffer, index, _)| {
        layouts[&buffer].wide && matches!(place(pool, index, lane), Some(Place::Whole(_)))
    })
}
