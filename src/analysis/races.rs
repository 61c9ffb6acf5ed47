//! Whether loops whose iterations run side by side keep out of each other's way.
//!
//! Parallel and workgroup loops must not carry a dependence at all. Invocations may share elements when a barrier lies
//! between: the statements that invocations run between two barriers form a *phase*, and in a phase no element that one
//! invocation writes may be touched by another. The end of a serial loop that contains a barrier and its start are in one
//! phase, and so are invocation loops that follow one another in a workgroup.
//!
//! A phase is proved by the mixed-radix test of [`carried_buffers`], or else by visiting all elements that it touches, for all
//! values of the variables in their addresses. What neither proves is reported: data-dependent addresses, addresses that
//! depend on a loop around the barrier (double buffers that alternate), and phases too large to visit.

use super::dependence::{carried_buffers, separated};
use crate::expr::{Affine, BufferId, Expr, ExprId, ExprPool, VarId};
use crate::loopir::{Axis, Facts, Loop, LoopKind, Nest, Stmt, Store};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Elements visited at most to prove one buffer in one phase.
const MAX_VISITS: usize = 1 << 20;

/// Iterations that could not be shown to keep apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaceError {
    /// A parallel or workgroup loop.
    #[error(
        "iterations of the loop `{of}` may touch the same elements of buffer `{buffer}`, one of them writing"
    )]
    Iterations {
        /// The loop's name.
        of: String,
        /// The buffer.
        buffer: String,
    },
    /// The invocations of a workgroup.
    #[error(
        "invocations may touch the same elements of buffer `{buffer}` in the blocks {blocks:?}, one of them writing, \
         without a barrier between"
    )]
    Invocations {
        /// The buffer.
        buffer: String,
        /// The blocks that touch it between two barriers.
        blocks: Vec<String>,
    },
}

/// Shows that the body of `nest` has no race, whatever the data. Meant for nests that verify.
///
/// # Errors
/// All that could not be shown.
pub fn verify_races(nest: &Nest) -> Result<(), Vec<RaceError>> {
    let mut pool = nest.pool.clone();
    let mut errors = vec![];
    nest.visit_loops(&mut |of, _| match of.kind {
        LoopKind::Parallel | LoopKind::Workgroup(_) => {
            for buffer in carried_buffers(&mut pool, of) {
                errors.push(RaceError::Iterations {
                    of: pool.vars[of.var].name.clone(),
                    buffer: pool.buffers[buffer].name.clone(),
                });
            }
        }
        LoopKind::Serial | LoopKind::Vector | LoopKind::Unroll | LoopKind::Invocation(_) => {}
    });
    let mut phases = Phases { pool, errors, open: vec![], around: vec![], shared: BTreeSet::new() };
    phases.shared.extend(&nest.params);
    phases.stmts(&nest.body);
    phases.end();
    if phases.errors.is_empty() { Ok(()) } else { Err(phases.errors) }
}

/// One access, with the loops around it.
#[derive(Clone)]
struct Touch<'a> {
    buffer: BufferId,
    index: Vec<ExprId>,
    write: bool,
    store: &'a Store,
    around: Vec<&'a Loop>,
}

struct Phases<'a> {
    pool: ExprPool,
    errors: Vec<RaceError>,
    /// What was touched since the last barrier.
    open: Vec<Touch<'a>>,
    around: Vec<&'a Loop>,
    /// Buffers that invocations share.
    shared: BTreeSet<BufferId>,
}

impl<'a> Phases<'a> {
    fn stmts(&mut self, stmts: &'a [Stmt]) {
        for stmt in stmts {
            match stmt {
                Stmt::Barrier => self.end(),
                Stmt::Alloc(id) => {
                    let own = |of: &&Loop| matches!(of.kind, LoopKind::Invocation(_) | LoopKind::Vector);
                    if !self.around.iter().any(own) {
                        self.shared.insert(*id);
                    }
                }
                Stmt::Store(store) => self.store(store),
                Stmt::Loop(of) => {
                    // What other workgroups or threads do is for the test of their loops.
                    let apart = matches!(of.kind, LoopKind::Workgroup(_) | LoopKind::Parallel);
                    if apart {
                        self.end();
                    }
                    self.around.push(of);
                    self.stmts(&of.body);
                    if has_barrier(&of.body) && self.pool.vars[of.var].extent > 1 {
                        // Once more: the end of an iteration meets the start of the next one.
                        self.stmts(&of.body);
                    }
                    self.around.pop();
                    if apart {
                        self.end();
                    }
                }
            }
        }
    }

    fn store(&mut self, store: &'a Store) {
        if !self.around.iter().any(|of| matches!(of.kind, LoopKind::Invocation(_))) {
            return;
        }
        let touch = |phases: &mut Phases<'a>, buffer: BufferId, index: Vec<ExprId>, write: bool| {
            if phases.shared.contains(&buffer) {
                let around = phases.around.clone();
                phases.open.push(Touch { buffer, index, write, store, around });
            }
        };
        for load in store.roots().flat_map(|root| self.pool.loads_of(root)).collect::<BTreeSet<_>>() {
            if let Expr::Load(buffer, index) = self.pool.get(load).clone() {
                touch(self, buffer, index.to_vec(), false);
            }
        }
        touch(self, store.buffer, store.index.clone(), true);
    }

    /// Ends the phase: checks each buffer that was written in it.
    fn end(&mut self) {
        let mut by_buffer: BTreeMap<BufferId, Vec<Touch<'a>>> = BTreeMap::new();
        for touch in std::mem::take(&mut self.open) {
            by_buffer.entry(touch.buffer).or_default().push(touch);
        }
        for (buffer, touches) in by_buffer {
            if touches.iter().any(|touch| touch.write)
                && !kept_apart(&mut self.pool, &touches)
                && !visit_all(&mut self.pool, &touches)
            {
                let mut blocks: Vec<String> = vec![];
                for touch in &touches {
                    if !blocks.contains(&touch.store.block) {
                        blocks.push(touch.store.block.clone());
                    }
                }
                let buffer = self.pool.buffers[buffer].name.clone();
                let error = RaceError::Invocations { buffer, blocks };
                if !self.errors.contains(&error) {
                    self.errors.push(error);
                }
            }
        }
    }
}

fn has_barrier(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Loop(of) => has_barrier(&of.body),
        Stmt::Barrier => true,
        Stmt::Store(_) | Stmt::Alloc(_) => false,
    })
}

impl<'a> Touch<'a> {
    /// The loops with one value in a phase, and those that take all theirs: the latter are inside of the last workgroup or
    /// parallel loop.
    fn loops(&self) -> (&[&'a Loop], &[&'a Loop]) {
        let apart = |of: &&Loop| matches!(of.kind, LoopKind::Workgroup(_) | LoopKind::Parallel);
        self.around.split_at(self.around.iter().rposition(apart).map_or(0, |last| last + 1))
    }

    fn lanes(&self) -> Vec<VarId> {
        let lanes = self.around.iter().filter(|of| matches!(of.kind, LoopKind::Invocation(_)));
        lanes.map(|of| of.var).collect()
    }

    /// The address without the part that is the same all through a phase, and that part.
    fn address(&self, pool: &mut ExprPool) -> (Affine, Affine) {
        let linear = pool.linear_index(self.buffer, &self.index);
        let (_, free) = self.loops();
        let (mut varying, mut fixed) = (pool.affine(linear), Affine::default());
        for (atom, coefficient) in varying.terms.clone() {
            let used = pool.vars_of(atom);
            if !used.iter().any(|var| free.iter().any(|of| of.var == *var)) && pool.loads_of(atom).is_empty()
            {
                fixed.add_term(atom, coefficient);
                varying.add_term(atom, -coefficient);
            }
        }
        (varying, fixed)
    }
}

/// The mixed-radix test, for each invocation loop in turn: all other loops that take all their values count as inside of it.
fn kept_apart(pool: &mut ExprPool, touches: &[Touch<'_>]) -> bool {
    let lanes = touches[0].lanes();
    if touches.iter().any(|touch| touch.lanes() != lanes) {
        return false;
    }
    let free: BTreeSet<VarId> = touches.iter().flat_map(|touch| touch.loops().1).map(|of| of.var).collect();
    let linear: Vec<ExprId> =
        touches.iter().map(|touch| pool.linear_index(touch.buffer, &touch.index)).collect();
    let forms: Vec<Affine> = linear.into_iter().map(|linear| pool.affine(linear)).collect();
    lanes.iter().all(|lane| {
        let others = free.iter().copied().filter(|var| var != lane).collect();
        separated(pool, &forms, &vec![Facts::default(); forms.len()], *lane, &others)
    })
}

/// One more than the coordinate of an invocation on each axis; 0 outside of the loops of the axis.
type Lane = [u32; 3];

/// Visits the elements that `touches` can reach, writes first; whether no invocation meets what another one wrote.
fn visit_all(pool: &mut ExprPool, touches: &[Touch<'_>]) -> bool {
    let mut addresses: Vec<(Affine, Affine)> = touches.iter().map(|touch| touch.address(pool)).collect();
    if addresses.iter().any(|(_, fixed)| *fixed != addresses[0].1) {
        for (varying, fixed) in &mut addresses {
            varying.add_scaled(fixed, 1);
        }
    }
    let mut visits = vec![];
    let mut fixed = BTreeSet::new();
    for (touch, (address, _)) in touches.iter().zip(addresses) {
        let address = pool.from_affine(&address);
        if !pool.loads_of(address).is_empty() {
            return false;
        }
        let used = pool.vars_of(address);
        fixed.extend(touch.loops().0.iter().map(|of| of.var).filter(|var| used.contains(var)));
        let mut vars = vec![];
        for of in touch.loops().1 {
            match of.kind {
                LoopKind::Invocation(axis) => vars.push((of.var, Some(axis))),
                LoopKind::Serial
                | LoopKind::Parallel
                | LoopKind::Vector
                | LoopKind::Unroll
                | LoopKind::Workgroup(_) => {
                    if used.contains(&of.var) {
                        vars.push((of.var, None));
                    }
                }
            }
        }
        let conditions = match touch.store.condition {
            Some(condition) if touch.write => pool.conjuncts(condition),
            Some(_) | None => vec![],
        };
        visits.push((touch.write, Visit { address, conditions, vars }));
    }
    // Writes come first.
    visits.sort_by_key(|(write, _)| !write);
    let times = points(pool, fixed.iter().copied());
    let each = visits.iter().try_fold(0usize, |sum, (_, visit)| {
        sum.checked_add(points(pool, visit.vars.iter().map(|(var, _)| *var))?)
    });
    let all = times.and_then(|times| each?.checked_mul(times));
    if all.is_none_or(|all| all > MAX_VISITS) {
        return false;
    }
    let fixed: Vec<(VarId, Option<Axis>)> = fixed.into_iter().map(|var| (var, None)).collect();
    for_points(pool, &fixed, &mut HashMap::new(), [0; 3], &mut |point, _| {
        let mut writers: HashMap<i64, Lane> = HashMap::new();
        visits.iter().all(|(write, visit)| visit.run(pool, &mut point.clone(), *write, &mut writers))
    })
}

/// The number of combinations of values; `None` where it overflows.
fn points(pool: &ExprPool, mut vars: impl Iterator<Item = VarId>) -> Option<usize> {
    vars.try_fold(1usize, |n, var| n.checked_mul(pool.vars[var].extent))
}

/// An access in all iterations of the loops that matter to it.
struct Visit {
    address: ExprId,
    conditions: Vec<ExprId>,
    vars: Vec<(VarId, Option<Axis>)>,
}

impl Visit {
    /// Whether no element was written by another invocation; a write is added to `writers`.
    fn run(
        &self,
        pool: &ExprPool,
        point: &mut HashMap<VarId, i64>,
        write: bool,
        writers: &mut HashMap<i64, Lane>,
    ) -> bool {
        for_points(pool, &self.vars, point, [0; 3], &mut |point, lane| {
            if self.conditions.iter().any(|&condition| evaluate(pool, condition, point) == Some(0)) {
                return true;
            }
            let Some(address) = evaluate(pool, self.address, point) else { return false };
            match writers.get_mut(&address) {
                Some(writer) if lanes_differ(*writer, lane) => false,
                Some(writer) => {
                    if write {
                        *writer = std::array::from_fn(|axis| writer[axis].max(lane[axis]));
                    }
                    true
                }
                None => {
                    if write {
                        writers.insert(address, lane);
                    }
                    true
                }
            }
        })
    }
}

fn lanes_differ(a: Lane, b: Lane) -> bool {
    a.iter().zip(b).any(|(&a, b)| a != 0 && b != 0 && a != b)
}

/// Calls `visit` with each combination of values of `vars` while it answers true; whether it always did.
fn for_points(
    pool: &ExprPool,
    vars: &[(VarId, Option<Axis>)],
    point: &mut HashMap<VarId, i64>,
    lane: Lane,
    visit: &mut dyn FnMut(&HashMap<VarId, i64>, Lane) -> bool,
) -> bool {
    let Some((&(var, axis), rest)) = vars.split_first() else { return visit(point, lane) };
    (0..pool.vars[var].extent).all(|value| {
        point.insert(var, value as i64);
        let mut lane = lane;
        if let Some(axis) = axis {
            let place = match axis {
                Axis::X => 0,
                Axis::Y => 1,
                Axis::Z => 2,
            };
            lane[place] = value as u32 + 1;
        }
        for_points(pool, rest, point, lane, visit)
    })
}

/// The value of an index expression without loads.
fn evaluate(pool: &ExprPool, id: ExprId, point: &HashMap<VarId, i64>) -> Option<i64> {
    match *pool.get(id) {
        Expr::Int(value, _) => Some(value),
        Expr::Var(var) => point.get(&var).copied(),
        Expr::Unary(op, a) => op.eval_i64(evaluate(pool, a, point)?),
        Expr::Binary(op, a, b) => Some(op.eval_i64(evaluate(pool, a, point)?, evaluate(pool, b, point)?)),
        Expr::Select(condition, a, b) => {
            let chosen = if evaluate(pool, condition, point)? != 0 { a } else { b };
            evaluate(pool, chosen, point)
        }
        Expr::Guard(condition, a) => {
            if evaluate(pool, condition, point)? != 0 {
                evaluate(pool, a, point)
            } else {
                Some(0)
            }
        }
        Expr::Float(..) | Expr::Load(..) | Expr::Cast(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp;
    use crate::tensor::{DType, Tensor};

    fn races(text: &str) -> Vec<String> {
        let nest = Nest::parse(text).unwrap();
        nest.verify().unwrap();
        match verify_races(&nest) {
            Ok(()) => vec![],
            Err(errors) => errors.iter().map(RaceError::to_string).collect(),
        }
    }

    const TILED: &str = "
nest transpose
  in    x: f32[6, 16, 8]
  out   y: f32[6, 8, 16]
  for w in 6 workgroup.x:
    workgroup tile: f32[16, 8] pad 1
    for i in 4 invocation.y, j in 4 invocation.x:
      for k in 2:
        barrier
        for c in 8:
          copy: tile[2 * c + (i * 4 + j) // 8, (i * 4 + j) % 8] = x[w, 2 * c + (i * 4 + j) // 8, (i * 4 + j) % 8]
        barrier
        for a in 2, b in 2:
          write: y[w, 4 * k + i, 4 * j + 2 * a + b] = tile[4 * j + 2 * a + b, 4 * k + i]
";

    #[test]
    fn cooperative_copies_between_barriers_are_proved() {
        assert!(races(TILED).is_empty());
        let nest = Nest::parse(TILED).unwrap();
        interp::run(&nest, &[Tensor::zeros(DType::F32, &[6, 16, 8])]).unwrap();
    }

    #[test]
    fn each_missing_barrier_is_found() {
        let expected = "invocations may touch the same elements of buffer `tile` in the blocks [\"copy\", \"write\"], one of them \
             writing, without a barrier between";
        assert_eq!(races(&TILED.replacen("        barrier\n        for a", "        for a", 1)), [expected]);
        let reversed = expected.replace("[\"copy\", \"write\"]", "[\"write\", \"copy\"]");
        assert_eq!(races(&TILED.replacen("        barrier\n        for c", "        for c", 1)), [reversed]);
    }

    #[test]
    fn parallel_loops_must_not_meet() {
        let text = |target: &str| {
            format!(
                "nest t\n  in    x: f32[4, 4]\n  out   y: f32[4, 4]\n  for i in 4 parallel, j in 4:\n    s: {target} = x[i, j]\n"
            )
        };
        assert!(races(&text("y[i, j]")).is_empty());
        assert_eq!(
            races(&text("y[j, 0]")),
            ["iterations of the loop `i` may touch the same elements of buffer `y`, one of them writing"]
        );
    }

    #[test]
    fn two_invocations_may_not_write_one_element() {
        let text = |index: &str, condition: &str| {
            format!(
                "nest t\n  in    x: f32[8]\n  out   y: f32[8]\n  for w in 1 workgroup.x, i in 12 invocation.x:\n    s: y[{index}] = x[{index}]{condition}\n"
            )
        };
        assert_eq!(races(&text("i // 2", "")).len(), 1);
        assert_eq!(races(&text("i % 8", "")).len(), 1);
        // The condition keeps those apart that would meet.
        assert!(races(&text("i % 8", " if i < 8")).is_empty());
    }

    #[test]
    fn invocation_loops_after_one_another_need_a_barrier() {
        let text = |barrier: &str| {
            format!(
                "
nest two
  in    x: f32[4]
  out   y: f32[4]
  workgroup tile: f32[4]
  for i in 4 invocation.x:
    copy: tile[i] = x[i]
{barrier}  for j in 4 invocation.x:
    write: y[j] = tile[3 - j]
"
            )
        };
        assert!(races(&text("  barrier\n")).is_empty());
        assert_eq!(races(&text("")).len(), 1);
        // An invocation may read what it wrote itself.
        assert!(races(&text("").replace("3 - j", "j")).is_empty());
    }

    #[test]
    fn what_depends_on_data_is_not_proved() {
        let text = "
nest scatter
  in    i: i64[4]
  in    x: f32[4]
  out   y: f32[4]
  for a in 4 parallel:
    put: y[i[a]] = x[a]
";
        assert_eq!(races(text).len(), 1);
    }
}
