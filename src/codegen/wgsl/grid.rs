//! The grid of a kernel: which loops are workgroups, how large a workgroup is.

use super::WgslError;
use crate::expr::{Scope, VarId};
use crate::loopir::{Axis, Loop, LoopKind, Nest, Stmt};
use crate::target::{GpuLimits, GpuTarget};

/// Loops of one axis, outermost first, with their extents.
pub(super) type AxisLoops = Vec<(VarId, usize)>;

/// The outer loops of a kernel and what they contain.
pub(super) struct Grid {
    /// The workgroup loops of each axis.
    pub(super) workgroup_loops: [AxisLoops; 3],
    /// Workgroups along each axis of the nest.
    pub(super) extents: [u32; 3],
    /// What is dispatched.
    pub(super) workgroups: [u32; 3],
    /// Whether what is dispatched is one flat number over `extents`.
    pub(super) folded: bool,
    /// Invocations along each axis.
    pub(super) workgroup_size: [u32; 3],
    /// Whether there are `invocation` loops at all.
    pub(super) has_invocations: bool,
    /// What a workgroup does.
    pub(super) body: Vec<Stmt>,
}

pub(super) fn axis_index(axis: Axis) -> usize {
    match axis {
        Axis::X => 0,
        Axis::Y => 1,
        Axis::Z => 2,
    }
}

pub(super) fn structure(nest: &Nest, var: VarId, reason: &'static str) -> WgslError {
    WgslError::Structure {
        nest: nest.name.clone(),
        what: format!("loop '{}'", nest.pool.vars[var].name),
        reason,
    }
}

pub(super) fn limit(nest: &Nest, limit: &'static str, needed: u64, allowed: u64) -> Result<(), WgslError> {
    if needed <= allowed {
        return Ok(());
    }
    Err(WgslError::Limit { nest: nest.name.clone(), limit, needed, allowed })
}

impl Grid {
    /// The grid of a kernel of these statements; `None` where no iteration of them does anything.
    pub(super) fn of(nest: &Nest, stmts: &[Stmt], target: &GpuTarget) -> Result<Option<Grid>, WgslError> {
        if !does_something(nest, stmts) {
            return Ok(None);
        }
        let mut workgroup_loops: [AxisLoops; 3] = Default::default();
        let mut around: Vec<&Loop> = vec![];
        let mut allocs = vec![];
        let mut body = stmts;
        while contains(body, is_workgroup) {
            let mut inner = None;
            for stmt in body {
                match stmt {
                    Stmt::Alloc(id) => allocs.push(Stmt::Alloc(*id)),
                    Stmt::Loop(of) if inner.is_none() => inner = Some(of),
                    Stmt::Loop(of) => return Err(structure(nest, of.var, "is beside workgroup loops")),
                    Stmt::Store(_) | Stmt::Barrier => {
                        let of = first_workgroup_loop(body);
                        let var = of.expect("there should be a workgroup loop").var;
                        return Err(structure(nest, var, "is a workgroup loop beside other statements"));
                    }
                }
            }
            let of = inner.expect("a body that contains a loop should have one");
            match of.kind {
                LoopKind::Workgroup(axis) => {
                    workgroup_loops[axis_index(axis)].push((of.var, nest.pool.vars[of.var].extent));
                }
                LoopKind::Serial
                | LoopKind::Parallel
                | LoopKind::Vector
                | LoopKind::Unroll
                | LoopKind::Invocation(_) => around.push(of),
            }
            body = &of.body;
        }
        // A loop above workgroup loops goes inside them: for invocations, and iterations that need no order, it is the same.
        let mut body = body.to_vec();
        for of in around.into_iter().rev() {
            match of.kind {
                LoopKind::Invocation(_) | LoopKind::Parallel => {}
                LoopKind::Serial | LoopKind::Vector | LoopKind::Unroll | LoopKind::Workgroup(_) => {
                    if nest.pool.vars[of.var].extent > 1 {
                        return Err(structure(nest, of.var, "is in order, around workgroups that have none"));
                    }
                }
            }
            body = vec![Stmt::Loop(Loop { body, ..of.clone() })];
        }
        allocs.extend(body);
        let body = allocs;

        let mut size = [1; 3];
        workgroup_size(nest, &body, [1; 3], &mut size);
        let has_invocations = contains(&body, |kind| matches!(kind, LoopKind::Invocation(_)));
        if has_invocations {
            no_shared_registers(nest, &body)?;
        }
        let limits = &target.limits;
        let workgroup_size = check_workgroup_size(nest, size, limits)?;
        let mut extents = [1u32; 3];
        for axis in 0..3 {
            let product: u128 = workgroup_loops[axis].iter().map(|&(_, extent)| extent as u128).product();
            extents[axis] = u32::try_from(product).map_err(|_| grid_error(nest, product, limits))?;
        }
        let (workgroups, folded) = fold(nest, extents, limits)?;
        Ok(Some(Grid { workgroup_loops, extents, workgroups, folded, workgroup_size, has_invocations, body }))
    }

    /// Workgroups that do something.
    pub(super) fn total(&self) -> u64 {
        self.extents.iter().map(|&extent| u64::from(extent)).product()
    }
}

fn is_workgroup(kind: LoopKind) -> bool {
    matches!(kind, LoopKind::Workgroup(_))
}

/// Whether a loop of a kind is among `stmts` or inside them.
pub(super) fn contains(stmts: &[Stmt], kind: impl Fn(LoopKind) -> bool + Copy) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Loop(of) => kind(of.kind) || contains(&of.body, kind),
        Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => false,
    })
}

/// Whether a barrier is among `stmts` or inside them.
pub(super) fn contains_barrier(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Loop(of) => contains_barrier(&of.body),
        Stmt::Barrier => true,
        Stmt::Store(_) | Stmt::Alloc(_) => false,
    })
}

fn first_workgroup_loop(stmts: &[Stmt]) -> Option<&Loop> {
    stmts.iter().find_map(|stmt| match stmt {
        Stmt::Loop(of) if is_workgroup(of.kind) => Some(of),
        Stmt::Loop(of) => first_workgroup_loop(&of.body),
        Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => None,
    })
}

fn does_something(nest: &Nest, stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Loop(of) => nest.pool.vars[of.var].extent > 0 && does_something(nest, &of.body),
        Stmt::Store(_) => true,
        Stmt::Alloc(_) | Stmt::Barrier => false,
    })
}

/// The largest product of `invocation` loops along each axis.
fn workgroup_size(nest: &Nest, stmts: &[Stmt], outer: [usize; 3], size: &mut [usize; 3]) {
    for axis in 0..3 {
        size[axis] = size[axis].max(outer[axis]);
    }
    for stmt in stmts {
        if let Stmt::Loop(of) = stmt {
            let mut inner = outer;
            if let LoopKind::Invocation(axis) = of.kind {
                inner[axis_index(axis)] *= nest.pool.vars[of.var].extent;
            }
            workgroup_size(nest, &of.body, inner, size);
        }
    }
}

/// Registers allocated outside of the `invocation` loops would have to be shared by the invocations.
fn no_shared_registers(nest: &Nest, stmts: &[Stmt]) -> Result<(), WgslError> {
    for stmt in stmts {
        match stmt {
            Stmt::Alloc(id) if nest.pool.buffers[*id].scope == Scope::Register => {
                return Err(WgslError::Structure {
                    nest: nest.name.clone(),
                    what: format!("buffer '{}'", nest.pool.buffers[*id].name),
                    reason: "is in registers, outside of the invocation loops; use scope workgroup",
                });
            }
            Stmt::Loop(of) if !matches!(of.kind, LoopKind::Invocation(_)) => {
                no_shared_registers(nest, &of.body)?;
            }
            Stmt::Loop(_) | Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => {}
        }
    }
    Ok(())
}

fn check_workgroup_size(nest: &Nest, size: [usize; 3], limits: &GpuLimits) -> Result<[u32; 3], WgslError> {
    let total: u64 = size.iter().map(|&s| s as u64).product();
    let allowed = u64::from(limits.max_invocations_per_workgroup);
    limit(nest, "max_invocations_per_workgroup", total, allowed)?;
    let mut checked = [1; 3];
    for axis in 0..3 {
        let allowed = limits.max_workgroup_size[axis];
        limit(nest, "max_workgroup_size", size[axis] as u64, u64::from(allowed))?;
        checked[axis] = size[axis] as u32;
    }
    Ok(checked)
}

fn grid_error(nest: &Nest, needed: u128, limits: &GpuLimits) -> WgslError {
    WgslError::Limit {
        nest: nest.name.clone(),
        limit: "max_workgroups_per_dimension",
        needed: u64::try_from(needed).unwrap_or(u64::MAX),
        allowed: u64::from(limits.max_workgroups_per_dimension),
    }
}

/// What to dispatch for a grid, and whether it is folded.
fn fold(nest: &Nest, extents: [u32; 3], limits: &GpuLimits) -> Result<([u32; 3], bool), WgslError> {
    let max = u64::from(limits.max_workgroups_per_dimension);
    if extents.iter().all(|&extent| u64::from(extent) <= max) {
        return Ok((extents, false));
    }
    let total: u128 = extents.iter().map(|&extent| u128::from(extent)).product();
    // The flat number is computed in i32.
    if total >= 1 << 31 {
        return Err(grid_error(nest, total, limits));
    }
    let total = total as u64;
    let z = total.div_ceil(max * max);
    let y = total.div_ceil(z).div_ceil(max);
    let x = total.div_ceil(z).div_ceil(y);
    if x > max || y > max || z > max || x * y * z >= 1 << 31 {
        return Err(grid_error(nest, u128::from(total), limits));
    }
    Ok(([x as u32, y as u32, z as u32], true))
}
