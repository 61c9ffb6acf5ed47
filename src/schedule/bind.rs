//! `bind i workgroup.x`, `parallel i`, `vectorise i`, `unroll i`: says how a loop's iterations run.
//!
//! ```text
//! for i in 64: body      ->      for i in 64 workgroup.x: body
//! ```
//!
//! Refuses `parallel`, `workgroup` and `invocation` where iterations depend on one another, `vector` where they depend on one
//! another other than by combining, `invocation` where iterations write registers that live outside or where invocations of loops
//! that follow one another would need a barrier between, and a loop that has a kind already.

use super::Refusal;
use super::rewrite::loops_named;
use crate::analysis::{RaceError, accesses, carried_buffers, verify_races};
use crate::loopir::print::kind_name;
use crate::loopir::{BufferId, Loop, LoopKind, Nest, Scope, Stmt, walk};

pub(super) fn apply(nest: &mut Nest, of: &str, kind: LoopKind) -> Result<(), Refusal> {
    let before = matches!(kind, LoopKind::Invocation(_)).then(|| nest.clone());
    for var in loops_named(nest, of)? {
        let found = nest.loop_of(var).ok_or_else(|| Refusal::NoLoop(of.to_string()))?.clone();
        if found.kind != LoopKind::Serial {
            return Err(Refusal::Kind { of: of.to_string(), kind: kind_name(found.kind) });
        }
        let combining_allowed = match kind {
            LoopKind::Serial | LoopKind::Unroll => None,
            LoopKind::Vector => Some(true),
            LoopKind::Parallel | LoopKind::Workgroup(_) | LoopKind::Invocation(_) => Some(false),
        };
        if let Some(combining_allowed) = combining_allowed {
            let touched = accesses(&nest.pool, &found.body);
            let carried = carried_buffers(&mut nest.pool, &found).into_iter().find(|buffer| {
                !(combining_allowed && touched[buffer].iter().all(|access| access.combine.is_some()))
            });
            if let Some(buffer) = carried {
                return Err(Refusal::Carried {
                    of: of.to_string(),
                    buffer: nest.pool.buffers[buffer].name.clone(),
                });
            }
        }
        if let LoopKind::Invocation(_) = kind
            && let Some(buffer) = outer_register(nest, &found)
        {
            let buffer = nest.pool.buffers[buffer].name.clone();
            let reason = format!("is in registers outside of loop '{of}', whose invocations would share it");
            return Err(Refusal::Buffer { buffer, reason });
        }
        if let Some(found) = walk::find_loop_mut(&mut nest.body, var) {
            found.kind = kind;
        }
    }
    match before {
        Some(before) if invocation_groups(&nest.body) > 1 => no_missing_barrier(nest, &before),
        Some(_) | None => Ok(()),
    }
}

/// The outermost invocation loops.
fn invocation_groups(stmts: &[Stmt]) -> usize {
    let groups = stmts.iter().map(|stmt| match stmt {
        Stmt::Loop(Loop { kind: LoopKind::Invocation(_), .. }) => 1,
        Stmt::Loop(of) => invocation_groups(&of.body),
        Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => 0,
    });
    groups.sum()
}

/// Refuses a nest in which invocations share what those of `before` did not.
fn no_missing_barrier(nest: &Nest, before: &Nest) -> Result<(), Refusal> {
    let Err(after) = verify_races(nest) else { return Ok(()) };
    let before = verify_races(before).err().unwrap_or_default();
    let shared = after.into_iter().filter(|race| !before.contains(race)).find_map(|race| match race {
        RaceError::Invocations { buffer, blocks } => Some((buffer, blocks)),
        RaceError::Iterations { .. } => None,
    });
    match shared {
        Some((buffer, blocks)) => {
            let reason =
                format!("is shared by invocations in the blocks {blocks:?} without a barrier between");
            Err(Refusal::Buffer { buffer, reason })
        }
        None => Ok(()),
    }
}

/// A register buffer that is written in a loop and allocated outside of it.
fn outer_register(nest: &Nest, of: &Loop) -> Option<BufferId> {
    fn allocates(stmts: &[Stmt], id: BufferId) -> bool {
        stmts.iter().any(|stmt| match stmt {
            Stmt::Loop(of) => allocates(&of.body, id),
            Stmt::Alloc(other) => *other == id,
            Stmt::Store(_) | Stmt::Barrier => false,
        })
    }
    accesses(&nest.pool, &of.body).into_iter().find_map(|(id, accesses)| {
        let outside = nest.pool.buffers[id].scope == Scope::Register && !allocates(&of.body, id);
        (outside && accesses.iter().any(|access| access.write)).then_some(id)
    })
}
