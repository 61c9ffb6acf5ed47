//! Loads that all invocations of a subgroup make alike.
//!
//! Hardware makes such a load once. A software adapter gathers it for every lane, at the price of any other load, and hands
//! values from lane to lane for nothing. So where several loads at regular distances do not depend on the invocation, each
//! lane makes one of them and tells the others:
//!
//! ```text
//! let w_at = w[base + 3 * lane];  ..  subgroupBroadcast(w_at, 0u)  ..  subgroupBroadcast(w_at, 1u)
//! ```
//!
//! That takes subgroups of one known size with all their invocations, so workgroups of whole subgroups, and statements that
//! all invocations run.

use super::grid::Grid;
use super::layout::{self, Place};
use super::writer::Writer;
use crate::expr::{BinaryOp, BufferId, Expr, ExprId, ExprPool, Scope, VarId, Variable};
use crate::target::{GpuKind, GpuTarget};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Fewer loads are not worth sharing.
const MIN_LOADS: usize = 3;

/// What the writer knows of subgroups.
pub(super) struct Subgroups {
    /// The number of an invocation in its subgroup.
    pub(super) lane: VarId,
    size: usize,
    /// Variables that differ between the invocations of a workgroup.
    pub(super) differing: BTreeSet<VarId>,
    /// Statements around the current one that not all invocations run.
    pub(super) divergent: usize,
    /// For a load of the stores being written: the load that each lane makes, and the lane whose it is.
    shared: HashMap<ExprId, (ExprId, usize)>,
}

impl Subgroups {
    /// Subgroups in which loads are shared; `None` where that is impossible or useless.
    pub(super) fn of(pool: &mut ExprPool, grid: &Grid, target: &GpuTarget) -> Option<Subgroups> {
        let sizes = target.features.subgroups.filter(|_| target.kind == GpuKind::Software)?;
        let invocations: u32 = grid.workgroup_size.iter().product();
        if sizes.min != sizes.max || sizes.min == 0 || !invocations.is_multiple_of(sizes.min) {
            return None;
        }
        let size = sizes.min as usize;
        let lane = pool.vars.push(Variable { name: "subgroup_lane".to_string(), extent: size });
        let (differing, shared) = (BTreeSet::new(), HashMap::new());
        Some(Subgroups { lane, size, differing, divergent: 0, shared })
    }
}

impl Writer {
    /// Whether an expression has one value for all invocations of a workgroup.
    pub(super) fn is_uniform(&self, id: ExprId) -> bool {
        let Some(subgroups) = &self.subgroups else { return false };
        self.pool.loads_of(id).is_empty()
            && self.pool.vars_of(id).iter().all(|var| !subgroups.differing.contains(var))
    }

    /// The load that each lane makes for `load`, and the lane that makes this one.
    pub(super) fn shared_load(&self, load: ExprId) -> Option<(ExprId, usize)> {
        let subgroups = self.subgroups.as_ref().filter(|subgroups| subgroups.divergent == 0)?;
        subgroups.shared.get(&load).copied()
    }

    /// Chooses which of the counted loads lanes share.
    pub(super) fn share_loads(&mut self) {
        let Some(subgroups) = &mut self.subgroups else { return };
        subgroups.shared.clear();
        if subgroups.divergent > 0 {
            return;
        }
        let mut loads: Vec<ExprId> = self.counts.keys().copied().collect();
        loads.sort_unstable();
        // Places by buffer, whether they are of `vec4`s, and all but the constant of the index.
        let mut groups: BTreeMap<(BufferId, bool, ExprId), Vec<(i64, ExprId)>> = BTreeMap::new();
        for load in loads {
            if let Some((buffer, wide, place)) = self.uniform_place(load) {
                let mut form = self.pool.affine(place);
                let constant = std::mem::take(&mut form.constant);
                let base = self.pool.from_affine(&form);
                groups.entry((buffer, wide, base)).or_default().push((constant, load));
            }
        }
        for ((buffer, wide, base), mut loads) in groups {
            loads.sort_unstable();
            let mut rest = loads.as_slice();
            while let [(first, _), ..] = rest {
                let first = *first;
                let step = rest.get(1).map_or(1, |(second, _)| second - first);
                let size = self.subgroups.as_ref().map_or(1, |subgroups| subgroups.size);
                let regular = |number: usize| rest[number].0 == first + step * number as i64;
                let count = (0..rest.len().min(size)).take_while(|&number| regular(number)).count();
                let (run, others) = rest.split_at(count.max(1));
                rest = others;
                if run.len() >= MIN_LOADS {
                    let all = self.lane_load(buffer, wide, base, (first, step), run.len());
                    let shared = run.iter().enumerate().map(|(lane, &(_, load))| (load, (all, lane)));
                    self.subgroups.iter_mut().for_each(|subgroups| subgroups.shared.extend(shared.clone()));
                    self.counts.insert(all, run.len());
                }
            }
        }
    }

    /// The buffer of a load of f32 that all invocations make alike, whether it is of a `vec4`, and its place there.
    fn uniform_place(&mut self, load: ExprId) -> Option<(BufferId, bool, ExprId)> {
        let Expr::Load(buffer, index) = self.pool.get(load).clone() else { return None };
        let layout = self.layouts[&buffer];
        let declared = &self.pool.buffers[buffer];
        let global = declared.scope == Scope::Global && declared.dtype == DType::F32;
        if !global || layout.variables || self.written.contains(&buffer) {
            return None;
        }
        let place = match (layout.wide, layout::place(&mut self.pool, index[0], self.lane)) {
            (true, Some(Place::Whole(quarter))) => quarter,
            (true, Some(Place::Component(..)) | None) => return None,
            (false, _) if self.pool.uses_var(index[0], self.lane) => return None,
            (false, _) => index[0],
        };
        self.is_uniform(place).then_some((buffer, layout.wide, place))
    }

    /// The load of `base + first + step * lane` for the first `count` lanes; further lanes repeat the last one.
    fn lane_load(
        &mut self,
        buffer: BufferId,
        wide: bool,
        base: ExprId,
        (first, step): (i64, i64),
        count: usize,
    ) -> ExprId {
        let Some((lane, size)) = self.subgroups.as_ref().map(|subgroups| (subgroups.lane, subgroups.size))
        else {
            return base;
        };
        let mut number = self.pool.var(lane);
        if count < size {
            let last = self.pool.int(count as i64 - 1);
            number = self.pool.binary(BinaryOp::Min, number, last);
        }
        let offset = self.pool.mul_int(number, step);
        let place = self.pool.add(base, offset);
        let mut place = self.pool.add_int(place, first);
        if wide {
            place = self.pool.mul_int(place, 4);
            let component = self.pool.var(self.lane);
            place = self.pool.add(place, component);
        }
        let place = self.pool.simplify(place);
        self.pool.load(buffer, &[place])
    }
}
