//! `stage_in a at k.0 in workgroup by k.1 i.1 i.2`: copies what is read of a buffer nearer.
//!
//! ```text
//! for k.0 in 4:                               for k.0 in 4:
//!   for k.1 in 8, i in 16:             ->       workgroup a_s: f32[8, 16]
//!     update: acc[i] += a[i, 8*k.0+k.1]         for a_s.k.1 in 8, a_s.i in 16: stage_a: a_s[..] = a[..]
//!                                               for k.1 in 8, i in 16: update: acc[i] += a_s[k.1, i]
//! ```
//!
//! For reuse, for contiguous access and for getting rid of guards: with `by`, the copy is indexed by the loops named (this is
//! packing, and im2col where the read is a convolution's), its rows in the order given; without, it holds the region of the
//! buffer that the loops inside the place can reach, where that hangs over the edge zeros, or the constant that every read
//! selects there. Where the place is inside
//! `invocation` loops and the scope is `workgroup`, the invocations copy together, between barriers, `vector` elements at once.
//!
//! Without a place the copy is made at the start of the nest, or behind what computes the buffer.
//!
//! Refuses where reads of the buffer differ, depend on a loop inside the place that is not in `by`, or are not affine (region),
//! where a local buffer is not written as far as the copy would read it, and where invocations that copy together would each
//! need another copy.

use super::Refusal;
use super::rewrite::{buffer_named, loops_named, new_var};
use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, ExprPool, Role, Scope, VarId};
use crate::loopir::{Axis, Buffer, Facts, Loop, LoopKind, Nest, Stmt, Store, walk};
use std::collections::{HashMap, HashSet};

pub(super) struct Staging<'a> {
    pub(super) buffer: &'a str,
    pub(super) at: Option<&'a str>,
    pub(super) scope: Scope,
    pub(super) by: &'a [String],
    pub(super) pad: usize,
    pub(super) vector: usize,
}

pub(super) fn apply(nest: &mut Nest, staging: &Staging) -> Result<(), Refusal> {
    let id = buffer_named(nest, staging.buffer)?;
    match staging.at {
        None => stage_at(nest, id, staging, None),
        Some(at) => {
            let mut staged = false;
            for var in loops_named(nest, at)? {
                let reads = nest.loop_of(var).is_some_and(|of| reads_buffer(&nest.pool, &of.body, id));
                if reads {
                    stage_at(nest, id, staging, Some(var))?;
                    staged = true;
                }
            }
            if staged { Ok(()) } else { Err(refuse(nest, id, format!("is not read in loop '{at}'"))) }
        }
    }
}

pub(super) fn refuse(nest: &Nest, id: BufferId, reason: impl Into<String>) -> Refusal {
    Refusal::Buffer { buffer: nest.pool.buffers[id].name.clone(), reason: reason.into() }
}

fn reads_buffer(pool: &ExprPool, stmts: &[Stmt], id: BufferId) -> bool {
    let mut found = false;
    walk::visit_stores(stmts, &mut |store| {
        found |= store.roots().any(|root| pool.buffers_read(root).contains(&id));
    });
    found
}

fn writes_buffer(stmt: &Stmt, id: BufferId) -> bool {
    let mut found = false;
    walk::visit_stores(std::slice::from_ref(stmt), &mut |store| found |= store.buffer == id);
    found
}

fn loads_in(pool: &ExprPool, store: &Store) -> Vec<ExprId> {
    store.roots().flat_map(|root| pool.loads_of(root)).collect()
}

/// One read of the buffer: the node that the copy's element takes the place of, and what holds where it is evaluated.
struct Read {
    /// The guard around the load where that guards nothing else, else the load.
    node: ExprId,
    /// The choice between the node and a constant, its conjuncts, and the constant.
    chosen: Option<(ExprId, Vec<ExprId>, ExprId)>,
    index: Vec<ExprId>,
    /// Conjuncts of the guard that is part of the node.
    guards: Vec<ExprId>,
    /// Conjuncts of the block's condition and of the guards and selects of which only one operand holds the load.
    conditions: Vec<ExprId>,
    /// Loops inside the place, around the block.
    inside: Vec<VarId>,
}

fn reads(nest: &Nest, body: &[Stmt], id: BufferId) -> Result<Vec<Read>, Refusal> {
    fn walk(
        nest: &Nest,
        stmts: &[Stmt],
        id: BufferId,
        inside: &mut Vec<VarId>,
        out: &mut Vec<Read>,
    ) -> Result<(), Refusal> {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(of) => {
                    inside.push(of.var);
                    walk(nest, &of.body, id, inside, out)?;
                    inside.pop();
                }
                Stmt::Store(store) => {
                    if store.buffer == id {
                        return Err(refuse(
                            nest,
                            id,
                            format!("is written by block '{}' in the same place", store.block),
                        ));
                    }
                    let conditions = store.condition.map(|c| nest.pool.conjuncts(c)).unwrap_or_default();
                    let roots: Vec<ExprId> = store.roots().collect();
                    let (mut guarded, mut chosen) = (HashMap::new(), HashMap::new());
                    for &root in &roots {
                        nest.pool.visit(root, &mut |node| {
                            if let Expr::Guard(condition, value) = *nest.pool.get(node) {
                                guarded.insert(value, (node, condition));
                            }
                            if let Expr::Select(condition, value, otherwise) = *nest.pool.get(node)
                                && matches!(nest.pool.get(otherwise), Expr::Float(..) | Expr::Int(..))
                            {
                                chosen.insert(value, (node, condition, otherwise));
                            }
                        });
                    }
                    let enclosing = conditions_of_loads(&nest.pool, &roots);
                    for load in loads_in(&nest.pool, store) {
                        let Expr::Load(buffer, index) = nest.pool.get(load) else { continue };
                        if *buffer == id {
                            let (node, guards) = match guarded.get(&load) {
                                Some(&(node, condition)) => (node, nest.pool.conjuncts(condition)),
                                None => (load, vec![]),
                            };
                            let chosen = chosen.get(&node).map(|&(choice, condition, otherwise)| {
                                (choice, nest.pool.conjuncts(condition), otherwise)
                            });
                            let chosen_conditions = chosen.iter().flat_map(|(_, conditions, _)| conditions);
                            let around = enclosing.get(&load).into_iter().flatten().filter(|c| {
                                !guards.contains(c)
                                    && !conditions.contains(c)
                                    && !chosen_conditions.clone().any(|d| d == *c)
                            });
                            let conditions = conditions.iter().chain(around).copied().collect();
                            out.push(Read {
                                node,
                                chosen,
                                index: index.to_vec(),
                                guards,
                                conditions,
                                inside: inside.clone(),
                            });
                        }
                    }
                }
                Stmt::Alloc(_) | Stmt::Barrier => {}
            }
        }
        Ok(())
    }
    let mut out = vec![];
    walk(nest, body, id, &mut vec![], &mut out)?;
    if out.is_empty() { Err(refuse(nest, id, "is not read there")) } else { Ok(out) }
}

/// What holds wherever a load under `roots` is evaluated: conditions of guards and selects.
fn conditions_of_loads(pool: &ExprPool, roots: &[ExprId]) -> HashMap<ExprId, Vec<ExprId>> {
    /// Conditions of loads, and which expressions were walked under which conditions.
    #[derive(Default)]
    struct Found {
        of_loads: HashMap<ExprId, Vec<ExprId>>,
        walked: HashSet<(ExprId, Vec<ExprId>)>,
    }
    fn walk(pool: &ExprPool, id: ExprId, holds: &mut Vec<ExprId>, found: &mut Found) {
        if !found.walked.insert((id, holds.clone())) {
            return;
        }
        let mut under = |condition: Option<ExprId>, value: ExprId, found: &mut Found| {
            let before = holds.len();
            holds.extend(condition.map(|condition| pool.conjuncts(condition)).unwrap_or_default());
            walk(pool, value, holds, found);
            holds.truncate(before);
        };
        match *pool.get(id) {
            Expr::Guard(condition, value) => {
                under(None, condition, found);
                under(Some(condition), value, found);
            }
            Expr::Select(condition, then, otherwise) => {
                under(None, condition, found);
                under(Some(condition), then, found);
                under(None, otherwise, found);
            }
            Expr::Load(_, ref index) => {
                index.iter().for_each(|&index| under(None, index, found));
                match found.of_loads.get_mut(&id) {
                    Some(known) => known.retain(|condition| holds.contains(condition)),
                    None => {
                        found.of_loads.insert(id, holds.clone());
                    }
                }
            }
            Expr::Unary(_, a) | Expr::Cast(_, a) => under(None, a, found),
            Expr::Binary(_, a, b) => {
                under(None, a, found);
                under(None, b, found);
            }
            Expr::Int(..) | Expr::Float(..) | Expr::Var(_) => {}
        }
    }
    let mut found = Found::default();
    roots.iter().for_each(|&root| walk(pool, root, &mut vec![], &mut found));
    found.of_loads
}

/// What a copy holds and how the reads change.
pub(super) struct Capture {
    /// One variable a dimension of the copy, with its extent.
    pub(super) vars: Vec<VarId>,
    /// The copy's element at these variables.
    pub(super) value: ExprId,
    /// For each node of the body that reads the buffer, the index of its element in the copy.
    pub(super) places: Vec<(ExprId, Vec<ExprId>)>,
}

/// The copy indexed by loops named `by`, found inside the place or `around` it.
pub(super) fn capture_by_loops(
    nest: &mut Nest,
    body: &[Stmt],
    id: BufferId,
    by: &[String],
    around: &[VarId],
    prefix: &str,
) -> Result<Capture, Refusal> {
    let mut capture: Option<Capture> = None;
    for read in reads(nest, body, id)? {
        let mut by_vars = vec![];
        for name in by {
            let var = read.inside.iter().chain(around).find(|&&var| nest.pool.vars[var].name == *name);
            by_vars.push(*var.ok_or_else(|| Refusal::NoLoop(name.clone()))?);
        }
        let used = nest.pool.vars_of(read.node);
        if let Some(&missing) = used.iter().find(|var| read.inside.contains(var) && !by_vars.contains(var)) {
            return Err(refuse(
                nest,
                id,
                format!("is read at loop '{}', which is not listed", nest.pool.vars[missing].name),
            ));
        }
        let vars = match &capture {
            Some(capture) => capture.vars.clone(),
            None => {
                let shape: Vec<(String, usize)> = by_vars
                    .iter()
                    .map(|&var| {
                        (format!("{prefix}.{}", nest.pool.vars[var].name), nest.pool.vars[var].extent)
                    })
                    .collect();
                shape.into_iter().map(|(name, extent)| new_var(&mut nest.pool, name, extent)).collect()
            }
        };
        let known = |pool: &ExprPool, condition: ExprId| {
            let vars = pool.vars_of(condition);
            // What the nest computes may not be there where the copy is made.
            let given = pool
                .buffers_read(condition)
                .iter()
                .all(|&read| matches!(pool.buffers[read].role, Role::Input | Role::Constant | Role::Packed));
            given
                && vars.iter().any(|var| used.contains(var))
                && vars.iter().all(|var| by_vars.contains(var) || !read.inside.contains(var))
        };
        let conditions: Vec<ExprId> =
            read.conditions.iter().copied().filter(|&c| known(&nest.pool, c)).collect();
        let mut conditions = conditions;
        conditions.extend(edges(&mut nest.pool, id, &read, &conditions));
        let condition = nest.pool.conjunction(&conditions);
        let value = nest.pool.guard(condition, read.node);
        let map: HashMap<VarId, ExprId> =
            by_vars.iter().zip(&vars).map(|(&old, &new)| (old, nest.pool.var(new))).collect();
        let value = nest.pool.substitute(value, &map);
        let place: Vec<ExprId> = by_vars.iter().map(|&var| nest.pool.var(var)).collect();
        match &mut capture {
            None => capture = Some(Capture { vars, value, places: vec![(read.node, place)] }),
            Some(capture)
                if capture.value == value
                    && capture
                        .vars
                        .iter()
                        .zip(&by_vars)
                        .all(|(&a, &b)| nest.pool.vars[a].extent == nest.pool.vars[b].extent) =>
            {
                capture.places.push((read.node, place))
            }
            Some(_) => return Err(refuse(nest, id, "is read in several different ways")),
        }
    }
    capture.ok_or_else(|| refuse(nest, id, "is not read there"))
}

/// What must be asked, beside `conditions` that hold, so that the read stays in the buffer: a copy may reach further than the
/// reads whose place it takes. Indices from data are left as they are.
fn edges(pool: &mut ExprPool, id: BufferId, read: &Read, conditions: &[ExprId]) -> Vec<ExprId> {
    let mut facts = Facts::default();
    for &condition in conditions.iter().chain(&read.guards) {
        facts.assume(pool, condition);
    }
    let shape = pool.buffers[id].shape.clone();
    let mut edges = vec![];
    for (&index, &extent) in read.index.iter().zip(&shape) {
        if !pool.loads_of(index).is_empty() || facts.range(pool, index).within(extent) {
            continue;
        }
        edges.push(pool.at_least_int(index, 0));
        edges.push(pool.less_int(index, extent as i64));
    }
    edges.into_iter().map(|edge| pool.simplify(edge)).collect()
}

/// The copy of the region that the loops inside the place reach.
fn capture_region(nest: &mut Nest, body: &[Stmt], id: BufferId, prefix: &str) -> Result<Capture, Refusal> {
    let shape = nest.pool.buffers[id].shape.clone();
    let reads = reads(nest, body, id)?;
    let mut bases: Vec<Affine> = vec![];
    let mut sizes = vec![0usize; shape.len()];
    for (count, read) in reads.iter().enumerate() {
        for (axis, &index) in read.index.iter().enumerate() {
            let form = nest.pool.affine(index);
            let (mut base, mut inner) = (Affine::constant(form.constant), Affine::default());
            for (&atom, &coefficient) in &form.terms {
                let varies = nest.pool.vars_of(atom).iter().any(|var| read.inside.contains(var));
                if varies { inner.add_term(atom, coefficient) } else { base.add_term(atom, coefficient) }
            }
            let range = inner
                .interval(&nest.pool)
                .ok_or_else(|| refuse(nest, id, "is read at an index that is not affine"))?;
            base.constant += range.low;
            if count == 0 {
                bases.push(base);
            } else if bases[axis] != base {
                return Err(refuse(nest, id, "is read in several different regions"));
            }
            sizes[axis] = sizes[axis].max((range.high - range.low + 1) as usize);
        }
    }
    let pool = &mut nest.pool;
    let vars: Vec<VarId> = sizes
        .iter()
        .enumerate()
        .map(|(axis, &size)| new_var(pool, format!("{prefix}.{axis}"), size))
        .collect();
    let (mut index, mut inside) = (vec![], vec![]);
    for ((base, &var), &extent) in bases.iter().zip(&vars).zip(&shape) {
        let base = pool.from_affine(base);
        let var = pool.var(var);
        let at = pool.add(base, var);
        let at = pool.simplify(at);
        let low = pool.at_least_int(at, 0);
        let high = pool.less_int(at, extent as i64);
        inside.push(pool.simplify(low));
        inside.push(pool.simplify(high));
        index.push(at);
    }
    let condition = pool.conjunction(&inside);
    let load = pool.load(id, &index);
    let mut value = pool.guard(condition, load);
    let mut places = vec![];
    let mut outside = vec![];
    for read in reads {
        // A guard that only asks whether the element exists is the copy's zero; any other stays around the read.
        let mut edges = vec![];
        let mut place = vec![];
        for ((&index, base), &extent) in read.index.iter().zip(&bases).zip(&shape) {
            let low = pool.at_least_int(index, 0);
            let high = pool.less_int(index, extent as i64);
            edges.push(pool.simplify(low));
            edges.push(pool.simplify(high));
            let base = pool.from_affine(base);
            let offset = pool.binary(BinaryOp::Sub, index, base);
            place.push(pool.simplify(offset));
        }
        let mut only_edges =
            |conjuncts: &[ExprId]| conjuncts.iter().all(|conjunct| edges.contains(&pool.simplify(*conjunct)));
        let guarded_by_edges = only_edges(&read.guards);
        let chosen = read.chosen.filter(|(_, conjuncts, _)| guarded_by_edges && only_edges(conjuncts));
        let node = if guarded_by_edges { read.node } else { pool.load(id, &read.index) };
        outside.push(chosen.as_ref().map(|&(choice, _, constant)| (choice, constant)));
        places.push((node, place));
    }
    // The constant, where all reads choose the same one outside.
    if let Some(&Some((_, constant))) = outside.first()
        && outside.iter().all(|choice| choice.is_some_and(|(_, other)| other == constant))
    {
        value = pool.select(condition, value, constant);
        for (place, (choice, _)) in places.iter_mut().zip(outside.into_iter().flatten()) {
            place.0 = choice;
        }
    }
    Ok(Capture { vars, value, places })
}

/// The condition under which a copy is made: none, but for a local buffer that is only written under conditions, those, which
/// must hold at all reads and not change inside the place.
fn condition_of_copy(nest: &mut Nest, body: &[Stmt], id: BufferId) -> Result<Option<ExprId>, Refusal> {
    let mut written = vec![];
    nest.visit_stores(&mut |store| {
        if store.buffer == id {
            written.extend(store.condition.map(|c| nest.pool.conjuncts(c)).unwrap_or_default());
        }
    });
    written.sort();
    written.dedup();
    if written.is_empty() {
        return Ok(None);
    }
    for read in reads(nest, body, id)? {
        let inside =
            |condition: ExprId| nest.pool.vars_of(condition).iter().any(|var| read.inside.contains(var));
        if written.iter().any(|condition| !read.conditions.contains(condition) || inside(*condition)) {
            return Err(refuse(nest, id, "is written under a condition that is not known there"));
        }
    }
    Ok(Some(nest.pool.conjunction(&written)))
}

/// Puts elements of `copy` in the place of the captured nodes.
pub(super) fn redirect_reads(
    pool: &mut ExprPool,
    body: &mut [Stmt],
    copy: BufferId,
    places: &[(ExprId, Vec<ExprId>)],
) {
    walk::change_stores(body, &mut |store| {
        store.change_exprs(&mut |root| {
            pool.rewrite(root, &mut |pool, node| {
                places.iter().find(|(known, _)| *known == node).map(|(_, place)| pool.load(copy, place))
            })
        });
    });
}

fn stage_at(nest: &mut Nest, id: BufferId, staging: &Staging, at: Option<VarId>) -> Result<(), Refusal> {
    let around = at.map(|var| loops_around(nest, var)).unwrap_or_default();
    let (made, mut body) = match at {
        None => {
            let made = nest.body.iter().rposition(|stmt| writes_buffer(stmt, id)).map_or(0, |last| last + 1);
            (nest.body[..made].to_vec(), nest.body[made..].to_vec())
        }
        Some(var) => (vec![], nest.loop_of(var).map(|of| of.body.clone()).unwrap_or_default()),
    };
    let name = nest.fresh_buffer_name(&format!("{}_s", nest.pool.buffers[id].name));
    let condition = condition_of_copy(nest, &body, id)?;
    let capture = if staging.by.is_empty() {
        capture_region(nest, &body, id, &name)?
    } else {
        let around: Vec<VarId> = around.iter().map(|&(var, _)| var).chain(at).collect();
        capture_by_loops(nest, &body, id, staging.by, &around, &name)?
    };
    let invocations: Vec<(VarId, Axis)> = around
        .iter()
        .filter_map(
            |&(var, kind)| if let LoopKind::Invocation(axis) = kind { Some((var, axis)) } else { None },
        )
        .collect();
    let together = staging.scope == Scope::Workgroup && !invocations.is_empty();
    let mut needed = nest.pool.vars_of(capture.value);
    needed.extend(condition.map(|condition| nest.pool.vars_of(condition)).unwrap_or_default());
    if let Some((var, _)) = invocations.iter().find(|(var, _)| together && needed.contains(var)) {
        let name = nest.pool.vars[*var].name.clone();
        return Err(refuse(
            nest,
            id,
            format!("is read by each invocation of loop '{name}' at places of its own"),
        ));
    }
    let shape: Vec<usize> = capture.vars.iter().map(|&var| nest.pool.vars[var].extent).collect();
    let dtype = nest.pool.buffers[id].dtype;
    let block = nest.fresh_block_name(&format!("stage_{}", nest.pool.buffers[id].name));
    let copy = nest.pool.buffers.push(Buffer {
        name,
        dtype,
        shape,
        scope: staging.scope,
        role: Role::Local,
        row_padding: staging.pad,
    });
    redirect_reads(&mut nest.pool, &mut body, copy, &capture.places);
    let index: Vec<ExprId> = capture.vars.iter().map(|&var| nest.pool.var(var)).collect();
    let store = Store { block, buffer: copy, index, value: capture.value, combine: None, condition };
    match invocations.first() {
        Some(&(outermost, _)) if staging.scope == Scope::Workgroup => {
            let copying = cooperative(nest, &capture.vars, store, &invocations, staging.vector);
            body = between_barriers(nest, body, copying);
            put_body(nest, at, body);
            walk::replace_loop(&mut nest.body, outermost, &mut |of| vec![Stmt::Alloc(copy), Stmt::Loop(of)]);
        }
        Some(_) | None => {
            let copying = nested(&capture.vars, store);
            put_body(nest, at, [made, vec![Stmt::Alloc(copy), copying], body].concat());
        }
    }
    Ok(())
}

fn loops_around(nest: &Nest, var: VarId) -> Vec<(VarId, LoopKind)> {
    let mut result = vec![];
    nest.visit_loops(&mut |of, around| {
        if of.var == var {
            result = around.iter().map(|outer| (outer.var, outer.kind)).chain([(of.var, of.kind)]).collect();
        }
    });
    result
}

fn put_body(nest: &mut Nest, at: Option<VarId>, body: Vec<Stmt>) {
    match at {
        None => nest.body = body,
        Some(var) => {
            if let Some(of) = walk::find_loop_mut(&mut nest.body, var) {
                of.body = body;
            }
        }
    }
}

/// `store` in serial loops of `vars`.
pub(super) fn nested(vars: &[VarId], store: Store) -> Stmt {
    vars.iter().rev().fold(Stmt::Store(store), |inner, &var| {
        Stmt::Loop(Loop { var, kind: LoopKind::Serial, instruction: None, body: vec![inner] })
    })
}

/// The copy's elements dealt out over the invocations, neighbours to neighbours.
fn cooperative(
    nest: &mut Nest,
    vars: &[VarId],
    mut store: Store,
    invocations: &[(VarId, Axis)],
    vector: usize,
) -> Stmt {
    let pool = &mut nest.pool;
    let mut ordered = invocations.to_vec();
    ordered.sort_by_key(|&(_, axis)| std::cmp::Reverse(axis));
    let mut invocation = pool.int(0);
    let mut count = 1;
    for (var, _) in ordered {
        let extent = pool.vars[var].extent;
        count *= extent;
        let scaled = pool.mul_int(invocation, extent as i64);
        let var = pool.var(var);
        invocation = pool.add(scaled, var);
    }
    let shape: Vec<usize> = vars.iter().map(|&var| pool.vars[var].extent).collect();
    let total: usize = shape.iter().product();
    let lanes = if shape.last().is_some_and(|row| row % vector.max(1) == 0) { vector.max(1) } else { 1 };
    let name = pool.buffers[store.buffer].name.clone();
    let rounds = total.div_ceil(count * lanes);
    let round = new_var(pool, format!("{name}.copy"), rounds);
    let lane = new_var(pool, format!("{name}.lane"), lanes);
    let round_value = pool.var(round);
    let scaled = pool.mul_int(round_value, count as i64);
    let piece = pool.add(scaled, invocation);
    let piece = pool.mul_int(piece, lanes as i64);
    let lane_value = if lanes > 1 { pool.var(lane) } else { pool.int(0) };
    let flat = pool.add(piece, lane_value);
    let flat = pool.simplify(flat);
    let strides = crate::tensor::row_major_strides(&shape);
    let mut map = HashMap::new();
    for (axis, (&var, &stride)) in vars.iter().zip(&strides).enumerate() {
        let quotient = pool.div_int(flat, stride as i64);
        let index = if axis == 0 { quotient } else { pool.mod_int(quotient, shape[axis] as i64) };
        map.insert(var, pool.simplify(index));
    }
    super::rewrite::substitute_store(pool, &mut store, &map);
    if !total.is_multiple_of(count * lanes) {
        let inside = pool.less_int(flat, total as i64);
        let inside = pool.simplify(inside);
        store.condition = Some(store.condition.map_or(inside, |condition| pool.and(condition, inside)));
    }
    let inner = if lanes > 1 {
        Stmt::Loop(Loop {
            var: lane,
            kind: LoopKind::Vector,
            instruction: None,
            body: vec![Stmt::Store(store)],
        })
    } else {
        Stmt::Store(store)
    };
    Stmt::Loop(Loop { var: round, kind: LoopKind::Serial, instruction: None, body: vec![inner] })
}

/// `copying` at the start of `body` between barriers; copies staged at one place share them.
fn between_barriers(nest: &Nest, mut body: Vec<Stmt>, copying: Stmt) -> Vec<Stmt> {
    let staged = |stmt: &Stmt| {
        let mut workgroup = true;
        walk::visit_stores(std::slice::from_ref(stmt), &mut |store| {
            workgroup &= nest.pool.buffers[store.buffer].scope == Scope::Workgroup;
        });
        workgroup
    };
    let second = match body.split_first() {
        Some((Stmt::Barrier, rest)) => {
            rest.iter().position(|stmt| *stmt == Stmt::Barrier).map(|place| place + 1)
        }
        Some(_) | None => None,
    };
    match second {
        Some(second) if body[1..second].iter().all(staged) => body.insert(second, copying),
        Some(_) | None => {
            body.splice(0..0, [Stmt::Barrier, copying, Stmt::Barrier]);
        }
    }
    body
}
