//! `replace k.1 by fma_12x32`: lets an instruction stand for a loop and all in it.
//!
//! ```text
//! for k.1 in 256, i.1 in 12, j.2 in 32: update: ..      ->      for k.1 in 256 by fma_12x32, i.1 in 12, j.2 in 32: update: ..
//! ```
//!
//! The loops stay in the nest, so its meaning stays visible; the emitter calls the instruction in their place. Refuses what
//! does not unify with the instruction's nest, saying which part does not.

use super::Refusal;
use super::instruction::{instruction_named, unify};
use super::rewrite::loops_named;
use crate::loopir::{Nest, walk};

pub(super) fn apply(nest: &mut Nest, of: &str, instruction: &str) -> Result<(), Refusal> {
    let refuse = |reason: String| Refusal::Instruction {
        of: of.to_string(),
        instruction: instruction.to_string(),
        reason,
    };
    let wanted =
        instruction_named(instruction).ok_or_else(|| refuse("there is no such instruction".into()))?;
    for var in loops_named(nest, of)? {
        let found = nest.loop_of(var).ok_or_else(|| Refusal::NoLoop(of.to_string()))?.clone();
        unify(&mut nest.pool, &found, wanted).map_err(refuse)?;
        if let Some(found) = walk::find_loop_mut(&mut nest.body, var) {
            found.instruction = Some(instruction.to_string());
        }
    }
    Ok(())
}
