//! The statements of a kernel, with `unroll` and `vector` loops expanded and expressions made flat.

use super::grid::{Grid, axis_index, contains, contains_barrier, structure};
use super::lower::Lowering;
use super::{MAX_STATEMENTS, WgslError, speculate};
use crate::expr::{BufferId, Expr, ExprId, ExprPool, Role, Scope, VarId, Variable};
use crate::loopir::{Combiner, Loop, LoopKind, Nest, Stmt, Store};
use std::collections::HashMap;

/// A statement of a kernel.
#[derive(Clone, Debug)]
pub(super) enum Step<S = FlatStore> {
    /// A register buffer comes to life.
    Declare(BufferId),
    /// One element, or four, written.
    Store(S),
    /// A loop.
    For { var: VarId, extent: usize, body: Vec<Step<S>> },
    /// Statements with declarations of their own.
    Scope(Vec<Step<S>>),
    /// What invocations below the bounds of their axes do, with variables counted by their numbers.
    Region { bounds: Vec<(usize, usize)>, locals: Vec<Local>, body: Vec<Step<S>> },
    /// All invocations meet.
    Barrier,
}

/// A variable that is `number / divisor % modulus` of the invocation's number along an axis.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) var: VarId,
    pub(super) axis: usize,
    pub(super) divisor: usize,
    pub(super) modulus: Option<usize>,
}

/// A block with flat indices. With `wide` it stands for the four values of the kernel's lane variable.
#[derive(Clone, Debug)]
pub(super) struct FlatStore {
    pub(super) buffer: BufferId,
    pub(super) index: ExprId,
    pub(super) value: ExprId,
    pub(super) combine: Option<Combiner>,
    /// All must hold.
    pub(super) conditions: Vec<ExprId>,
    pub(super) wide: bool,
}

impl FlatStore {
    /// The expressions in it.
    pub(super) fn roots(&self) -> impl Iterator<Item = ExprId> + '_ {
        self.conditions.iter().copied().chain([self.value, self.index])
    }

    /// The store of one lane.
    pub(super) fn of_lane(&self, pool: &mut ExprPool, lane: VarId, number: i64) -> FlatStore {
        let map = HashMap::from([(lane, pool.int(number))]);
        FlatStore {
            index: pool.substitute(self.index, &map),
            value: pool.substitute(self.value, &map),
            conditions: self.conditions.iter().map(|&c| pool.substitute(c, &map)).collect(),
            wide: false,
            ..self.clone()
        }
    }
}

/// A block with expanded variables replaced, indices and guards as the nest has them.
#[derive(Clone, Debug)]
pub(super) struct RawStore {
    pub(super) buffer: BufferId,
    pub(super) index: Vec<ExprId>,
    pub(super) value: ExprId,
    pub(super) combine: Option<Combiner>,
    /// All must hold.
    pub(super) conditions: Vec<ExprId>,
    /// Where one of these does not hold, what is written does not matter.
    pub(super) indifferent: Vec<ExprId>,
    pub(super) wide: bool,
}

/// The expanded statements of a kernel.
pub(super) struct Expanded {
    pub(super) pool: ExprPool,
    pub(super) steps: Vec<Step>,
    /// Counts the lanes of wide statements.
    pub(super) lane: VarId,
    pub(super) bounds_proved: bool,
}

pub(super) fn expand(nest: &Nest, grid: &Grid) -> Result<Expanded, WgslError> {
    let mut pool = nest.pool.clone();
    let lane = pool.vars.push(Variable { name: "lane".to_string(), extent: 4 });
    let mut expander = Expander { nest, grid, pool, lane, bounds_proved: true };
    let mut raw = vec![];
    let ctx = Context::default();
    if grid.has_invocations {
        expander.workgroup_steps(&grid.body, &ctx, &mut raw)?;
        while matches!(raw.last(), Some(Step::Barrier)) {
            raw.pop();
        }
    } else {
        expander.steps(&grid.body, &ctx, &mut raw)?;
    }
    speculate::speculate(&mut expander.pool, &mut raw, lane);
    let steps = expander.lower(raw);
    Ok(Expanded { pool: expander.pool, steps, lane, bounds_proved: expander.bounds_proved })
}

/// Whether a buffer is allocated somewhere in the statements.
fn contains_alloc(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Loop(of) => contains_alloc(&of.body),
        Stmt::Alloc(_) => true,
        Stmt::Store(_) | Stmt::Barrier => false,
    })
}

/// Adds a barrier, unless there is one.
fn push_barrier(out: &mut Vec<Step<RawStore>>) {
    if !matches!(out.last(), Some(Step::Barrier)) {
        out.push(Step::Barrier);
    }
}

/// What is known of the loops around a statement.
#[derive(Clone, Default)]
struct Context {
    /// Values of expanded variables.
    values: HashMap<VarId, ExprId>,
    /// `vector` loops, outermost first, to be expanded at each store.
    vectors: Vec<VarId>,
}

struct Expander<'a> {
    nest: &'a Nest,
    grid: &'a Grid,
    pool: ExprPool,
    lane: VarId,
    bounds_proved: bool,
}

impl Expander<'_> {
    fn extent(&self, of: &Loop) -> usize {
        self.pool.vars[of.var].extent
    }

    fn with_value(&mut self, ctx: &Context, var: VarId, value: i64) -> Context {
        let mut ctx = ctx.clone();
        ctx.values.insert(var, self.pool.int(value));
        ctx
    }

    /// Statements outside of `invocation` loops, with barriers between what different invocations do.
    fn workgroup_steps(
        &mut self,
        stmts: &[Stmt],
        ctx: &Context,
        out: &mut Vec<Step<RawStore>>,
    ) -> Result<(), WgslError> {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(of) if self.extent(of) == 0 => {}
                Stmt::Loop(of) if matches!(of.kind, LoopKind::Invocation(_)) => {
                    self.invocations(of, ctx, out)?;
                    push_barrier(out);
                }
                Stmt::Loop(of) if contains(&of.body, |kind| matches!(kind, LoopKind::Invocation(_))) => {
                    if self.extent(of) == 1 {
                        let ctx = self.with_value(ctx, of.var, 0);
                        self.workgroup_steps(&of.body, &ctx, out)?;
                    } else {
                        let mut body = vec![];
                        self.workgroup_steps(&of.body, ctx, &mut body)?;
                        out.push(Step::For { var: of.var, extent: self.extent(of), body });
                    }
                }
                Stmt::Loop(_) | Stmt::Store(_) => {
                    let mut body = vec![];
                    self.steps(std::slice::from_ref(stmt), ctx, &mut body)?;
                    let bounds = self.bounds([1; 3]);
                    out.push(Step::Region { bounds, locals: vec![], body });
                    push_barrier(out);
                }
                Stmt::Alloc(id) => self.no_global_alloc(*id)?,
                Stmt::Barrier => push_barrier(out),
            }
        }
        Ok(())
    }

    /// The bounds that keep invocations to `extents`.
    fn bounds(&self, extents: [usize; 3]) -> Vec<(usize, usize)> {
        (0..3)
            .filter(|&axis| extents[axis] < self.grid.workgroup_size[axis] as usize)
            .map(|axis| (axis, extents[axis]))
            .collect()
    }

    /// A chain of `invocation` loops.
    fn invocations(
        &mut self,
        outer: &Loop,
        ctx: &Context,
        out: &mut Vec<Step<RawStore>>,
    ) -> Result<(), WgslError> {
        let mut chain = vec![outer];
        let mut body = outer.body.as_slice();
        while contains(body, |kind| matches!(kind, LoopKind::Invocation(_))) {
            let [Stmt::Loop(inner)] = body else {
                let var = chain[chain.len() - 1].var;
                return Err(structure(
                    self.nest,
                    var,
                    "contains an invocation loop beside other statements; reorder it inside",
                ));
            };
            if !matches!(inner.kind, LoopKind::Invocation(_)) {
                return Err(structure(
                    self.nest,
                    inner.var,
                    "is between invocation loops; reorder it inside or outside",
                ));
            }
            chain.push(inner);
            body = &inner.body;
        }
        let mut extents = [1; 3];
        let mut locals = vec![];
        for of in chain.iter().rev() {
            let LoopKind::Invocation(axis) = of.kind else { continue };
            let axis = axis_index(axis);
            let extent = self.extent(of);
            let outermost = !chain
                .iter()
                .take_while(|other| other.var != of.var)
                .any(|other| matches!(other.kind, LoopKind::Invocation(a) if axis_index(a) == axis));
            let modulus = (!outermost).then_some(extent);
            locals.push(Local { var: of.var, axis, divisor: extents[axis], modulus });
            extents[axis] *= extent;
        }
        locals.reverse();
        let bounds = self.bounds(extents);
        if !bounds.is_empty() && contains_barrier(body) {
            return Err(structure(
                self.nest,
                outer.var,
                "contains a barrier, but not all invocations of the workgroup run it",
            ));
        }
        let mut steps = vec![];
        self.steps(body, ctx, &mut steps)?;
        out.push(Step::Region { bounds, locals, body: steps });
        Ok(())
    }

    /// Statements that one invocation runs.
    fn steps(
        &mut self,
        stmts: &[Stmt],
        ctx: &Context,
        out: &mut Vec<Step<RawStore>>,
    ) -> Result<(), WgslError> {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(of) => self.loop_steps(of, ctx, out)?,
                Stmt::Store(store) => self.store(store, ctx, out),
                Stmt::Alloc(id) => {
                    self.no_global_alloc(*id)?;
                    if self.grid.has_invocations {
                        // Inside of the invocation loops every invocation has its own.
                        self.pool.buffers[*id].scope = Scope::Register;
                    }
                    if self.pool.buffers[*id].scope == Scope::Register {
                        out.push(Step::Declare(*id));
                    }
                }
                Stmt::Barrier => push_barrier(out),
            }
        }
        Ok(())
    }

    fn no_global_alloc(&self, id: BufferId) -> Result<(), WgslError> {
        let buffer = &self.pool.buffers[id];
        if buffer.scope != Scope::Global || buffer.role != Role::Local {
            return Ok(());
        }
        Err(WgslError::Structure {
            nest: self.nest.name.clone(),
            what: format!("buffer '{}'", buffer.name),
            reason: "is in global memory but allocated inside a loop",
        })
    }

    fn loop_steps(
        &mut self,
        of: &Loop,
        ctx: &Context,
        out: &mut Vec<Step<RawStore>>,
    ) -> Result<(), WgslError> {
        let extent = self.extent(of);
        let expandable = extent * self.weight(&of.body) <= MAX_STATEMENTS;
        if extent <= 1 {
            let ctx = self.with_value(ctx, of.var, 0);
            return if extent == 0 { Ok(()) } else { self.steps(&of.body, &ctx, out) };
        }
        match of.kind {
            // Distributed over the statements below, its values would share what is allocated there.
            LoopKind::Vector if expandable && !contains_alloc(&of.body) && !contains_barrier(&of.body) => {
                let mut ctx = ctx.clone();
                ctx.vectors.push(of.var);
                self.steps(&of.body, &ctx, out)
            }
            LoopKind::Unroll | LoopKind::Vector if expandable => {
                for value in 0..extent {
                    let ctx = self.with_value(ctx, of.var, value as i64);
                    let mut body = vec![];
                    self.steps(&of.body, &ctx, &mut body)?;
                    if body.iter().any(|step| matches!(step, Step::Declare(_))) {
                        out.push(Step::Scope(body));
                    } else {
                        out.append(&mut body);
                    }
                }
                Ok(())
            }
            LoopKind::Serial | LoopKind::Parallel | LoopKind::Unroll | LoopKind::Vector => {
                let mut body = vec![];
                self.steps(&of.body, ctx, &mut body)?;
                out.push(Step::For { var: of.var, extent, body });
                Ok(())
            }
            LoopKind::Workgroup(_) | LoopKind::Invocation(_) => {
                Err(structure(self.nest, of.var, "is a grid loop inside a loop that is none"))
            }
        }
    }

    /// The statements that expansion makes of these.
    fn weight(&self, stmts: &[Stmt]) -> usize {
        let weight = |stmt: &Stmt| match stmt {
            Stmt::Loop(of) => {
                let body = self.weight(&of.body);
                let expanded = self.extent(of) * body;
                match of.kind {
                    LoopKind::Unroll | LoopKind::Vector if expanded <= MAX_STATEMENTS => expanded,
                    LoopKind::Serial
                    | LoopKind::Parallel
                    | LoopKind::Vector
                    | LoopKind::Unroll
                    | LoopKind::Workgroup(_)
                    | LoopKind::Invocation(_) => body,
                }
            }
            Stmt::Store(_) | Stmt::Barrier => 1,
            Stmt::Alloc(_) => 0,
        };
        stmts.iter().map(weight).sum()
    }

    /// All lanes of a store: four at once along the innermost `vector` loop.
    fn store(&mut self, store: &Store, ctx: &Context, out: &mut Vec<Step<RawStore>>) {
        let Some((&var, rest)) = ctx.vectors.split_first() else {
            return self.lanes(store, &ctx.values, false, out);
        };
        let extent = self.pool.vars[var].extent;
        let mut value = 0;
        while value < extent {
            let mut values = ctx.values.clone();
            if rest.is_empty() && value + 4 <= extent {
                let lane = self.pool.var(self.lane);
                values.insert(var, self.pool.add_int(lane, value as i64));
                self.lanes(store, &values, true, out);
                value += 4;
            } else {
                values.insert(var, self.pool.int(value as i64));
                self.store(store, &Context { values, vectors: rest.to_vec() }, out);
                value += 1;
            }
        }
    }

    /// One store, or four, with variables replaced.
    fn lanes(
        &mut self,
        store: &Store,
        values: &HashMap<VarId, ExprId>,
        wide: bool,
        out: &mut Vec<Step<RawStore>>,
    ) {
        let lane = self.lane;
        let place = |pool: &mut ExprPool, id: ExprId| {
            let id = pool.substitute(id, values);
            if wide { Lowering::without_lane(pool, id, lane) } else { id }
        };
        let condition = store.condition.map(|condition| place(&mut self.pool, condition));
        let conditions = condition.map(|c| self.pool.conjuncts(c)).unwrap_or_default();
        if conditions.iter().any(|&c| matches!(self.pool.get(c), Expr::Int(0, _))) {
            return;
        }
        out.push(Step::Store(RawStore {
            buffer: store.buffer,
            index: store.index.iter().map(|&i| place(&mut self.pool, i)).collect(),
            value: place(&mut self.pool, store.value),
            combine: store.combine,
            conditions,
            indifferent: vec![],
            wide,
        }));
    }

    /// All statements with flat stores.
    fn lower(&mut self, steps: Vec<Step<RawStore>>) -> Vec<Step> {
        let mut out = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Store(store) => self.lower_store(&store, &mut out),
                Step::Declare(id) => out.push(Step::Declare(id)),
                Step::For { var, extent, body } => {
                    out.push(Step::For { var, extent, body: self.lower(body) });
                }
                Step::Scope(body) => out.push(Step::Scope(self.lower(body))),
                Step::Region { bounds, locals, body } => {
                    out.push(Step::Region { bounds, locals, body: self.lower(body) });
                }
                Step::Barrier => out.push(Step::Barrier),
            }
        }
        out
    }

    /// A flat store; four where lanes differ in their conditions.
    fn lower_store(&mut self, store: &RawStore, out: &mut Vec<Step>) {
        let lane = self.lane;
        if store.wide && store.conditions.iter().any(|&c| self.pool.uses_var(c, lane)) {
            for number in 0..4 {
                let lane = store.of_lane(&mut self.pool, lane, number);
                self.lower_store(&lane, out);
            }
            return;
        }
        if store.conditions.iter().any(|&c| matches!(self.pool.get(c), Expr::Int(0, _))) {
            return;
        }
        let mut lowering = Lowering::new(&mut self.pool, lane, vec![]);
        let mut tests: Vec<ExprId> = store.conditions.iter().map(|&c| lowering.lower(c)).collect();
        let mut proved = lowering.proved;
        let mut lowering = Lowering::new(&mut self.pool, lane, store.conditions.clone());
        let (index, checks) = lowering.lower_store(store.buffer, &store.index);
        let value = lowering.lower_where(store.value, &store.indifferent);
        proved &= lowering.proved;
        self.bounds_proved &= proved;
        tests.extend(checks);
        let flat = FlatStore {
            buffer: store.buffer,
            index,
            value,
            combine: store.combine,
            conditions: tests,
            wide: store.wide,
        };
        if flat.wide && flat.conditions.iter().any(|&c| self.pool.uses_var(c, lane)) {
            for number in 0..4 {
                out.push(Step::Store(flat.of_lane(&mut self.pool, lane, number)));
            }
        } else {
            out.push(Step::Store(flat));
        }
    }
}

impl RawStore {
    /// The store of one lane.
    fn of_lane(&self, pool: &mut ExprPool, lane: VarId, number: i64) -> RawStore {
        let map = HashMap::from([(lane, pool.int(number))]);
        let mut all =
            |ids: &[ExprId]| -> Vec<ExprId> { ids.iter().map(|&id| pool.substitute(id, &map)).collect() };
        let (index, conditions, indifferent) =
            (all(&self.index), all(&self.conditions), all(&self.indifferent));
        let truth = pool.truth();
        let conditions = conditions.into_iter().filter(|&c| c != truth).collect();
        RawStore {
            index,
            value: pool.substitute(self.value, &map),
            conditions,
            indifferent,
            wide: false,
            ..self.clone()
        }
    }
}
