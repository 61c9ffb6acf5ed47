//! Analytic schedules: what a nest gets on a target when nothing was measured.
//!
//! A rule looks at the shape of a nest (a contraction, a window or other reduction, an element-wise loop) and writes a trace from
//! footprints and the target's numbers. Steps that the nest refuses are left out, so that every nest gets a schedule: at worst
//! its own loops.

mod cpu;
mod gpu;
mod shape;

pub use shape::{Contraction, Reduction, find_reductions};

use super::{Step, Tail, Trace};
use crate::expr::Scope;
use crate::loopir::{LoopKind, Nest};
use crate::target::Target;

/// The trace for `nest` on `target`, and the nest it makes.
pub fn schedule(nest: &Nest, target: &Target) -> (Nest, Trace) {
    let mut scheduler = Scheduler { nest: nest.clone(), trace: Trace::default() };
    match target {
        Target::Cpu(target) => cpu::schedule(&mut scheduler, target),
        Target::Gpu(target) => gpu::schedule(&mut scheduler, target),
    }
    (scheduler.nest, scheduler.trace)
}

/// A nest and the steps that made it.
struct Scheduler {
    nest: Nest,
    trace: Trace,
}

impl Scheduler {
    /// Applies `step` where it applies; whether it did.
    fn step(&mut self, step: Step) -> bool {
        let applied = step.apply(&mut self.nest).is_ok();
        if applied {
            self.trace.steps.push(step);
        }
        applied
    }

    /// Runs `rule`; where it gives up, all its steps are undone.
    fn attempt(&mut self, rule: impl FnOnce(&mut Scheduler) -> Option<()>) -> bool {
        let (nest, length) = (self.nest.clone(), self.trace.steps.len());
        let done = rule(self).is_some();
        if !done {
            self.nest = nest;
            self.trace.steps.truncate(length);
        }
        done
    }

    fn split(&mut self, of: &str, factors: &[usize]) -> Option<()> {
        self.step(Step::Split { of: of.into(), factors: factors.to_vec(), tail: Tail::Guard }).then_some(())
    }

    fn fuse(&mut self, outer: &str, inner: &str, name: &str) -> Option<()> {
        self.step(Step::Fuse { outer: outer.into(), inner: inner.into(), name: name.into() }).then_some(())
    }

    /// Fuses loops, each directly in the one before, into one of that name; a single loop keeps its own.
    fn fuse_all(&mut self, names: &[String], name: &str) -> Option<String> {
        let (first, rest) = names.split_first()?;
        let mut fused = first.clone();
        for (place, inner) in rest.iter().enumerate() {
            let into = if place + 1 == rest.len() { name.to_string() } else { format!("{name}_{place}") };
            self.fuse(&fused, inner, &into)?;
            fused = into;
        }
        Some(fused)
    }

    fn reorder(&mut self, order: &[String]) -> Option<()> {
        self.step(Step::Reorder { order: order.to_vec() }).then_some(())
    }

    fn bind(&mut self, of: &str, kind: LoopKind) -> Option<()> {
        self.step(Step::Bind { of: of.into(), kind }).then_some(())
    }

    fn stage_in(&mut self, buffer: &str, at: Option<&str>, scope: Scope, by: &[String]) -> Option<()> {
        let (buffer, at, by) = (buffer.to_string(), at.map(str::to_string), by.to_vec());
        self.step(Step::StageIn { buffer, at, scope, by, pad: 0, vector: 1 }).then_some(())
    }

    fn stage_out(&mut self, buffer: &str, at: Option<&str>) -> Option<()> {
        let (buffer, at) = (buffer.to_string(), at.map(str::to_string));
        self.step(Step::StageOut { buffer, at, scope: Scope::Register }).then_some(())
    }

    fn relayout(&mut self, buffer: &str, by: &[String]) -> Option<()> {
        self.step(Step::Relayout { buffer: buffer.into(), by: by.to_vec() }).then_some(())
    }

    fn extent(&self, name: &str) -> usize {
        self.nest.loops_named(name).first().map_or(1, |&var| self.nest.pool.vars[var].extent)
    }
}

#[cfg(test)]
mod tests;
