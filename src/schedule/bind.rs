//! `bind i workgroup.x`, `parallel i`, `vectorise i`, `unroll i`: says how a loop's iterations run.
//!
//! ```text
//! for i in 64: body      ->      for i in 64 workgroup.x: body
//! ```
//!
//! Refuses `parallel`, `workgroup` and `invocation` where iterations depend on one another, `vector` where they depend on one
//! another other than by combining, and a loop that has a kind already.

use super::Refusal;
use super::rewrite::loops_named;
use crate::analysis::{accesses, carried_buffers};
use crate::loopir::print::kind_name;
use crate::loopir::{LoopKind, Nest, walk};

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
        if let Some(found) = walk::find_loop_mut(&mut nest.body, var) {
            found.kind = kind;
        }
    }
    Ok(())
}
