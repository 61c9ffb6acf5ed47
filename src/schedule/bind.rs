//! `bind i workgroup.x`, `parallel i`, `vectorise i`, `unroll i`: says how a loop's iterations run.
//!
//! ```text
//! for i in 64: body      ->      for i in 64 workgroup.x: body
//! ```
//!
//! Refuses `parallel`, `workgroup` and `invocation` where iterations depend on one another, `vector` where they depend on one
//! another other than by combining, `invocation` where iterations write registers that live outside, and a loop that has a
//! kind already.

use super::Refusal;
use super::rewrite::loops_named;
use crate::analysis::{accesses, carried_buffers};
use crate::loopir::print::kind_name;
use crate::loopir::{BufferId, Loop, LoopKind, Nest, Scope, Stmt, walk};

pub(super) fn apply(nest: &mut Nest, of: &str, kind: LoopKind) -> Result<(), Refusal> {
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
    Ok(())
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
