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
use crate::expr::{BufferId, Scope, VarId};
use crate::loopir::{LoopKind, Nest, Stmt};
use crate::target::Target;
use crate::tensor::DType;

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
        let (before, length) = (self.nest.snapshot(), self.trace.steps.len());
        let done = rule(self).is_some();
        if !done {
            self.nest.restore(before);
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

    /// The name of the copy it makes; of the last one where it makes several.
    fn stage_in(&mut self, buffer: &str, at: Option<&str>, scope: Scope, by: &[String]) -> Option<String> {
        let (buffer, at, by) = (buffer.to_string(), at.map(str::to_string), by.to_vec());
        self.copying_step(Step::StageIn { buffer, at, scope, by, pad: 0, vector: 1 })
    }

    fn stage_out(&mut self, buffer: &str, at: Option<&str>) -> Option<()> {
        let (buffer, at) = (buffer.to_string(), at.map(str::to_string));
        self.step(Step::StageOut { buffer, at, scope: Scope::Register }).then_some(())
    }

    /// The name of the packed copy.
    fn relayout(&mut self, buffer: &str, by: &[String]) -> Option<String> {
        self.copying_step(Step::Relayout { buffer: buffer.into(), by: by.to_vec(), dtype: None })
    }

    /// The name of the packed copy, which is of another type.
    fn relayout_as(&mut self, buffer: &str, by: &[String], dtype: DType) -> Option<String> {
        self.copying_step(Step::Relayout { buffer: buffer.into(), by: by.to_vec(), dtype: Some(dtype) })
    }

    /// Applies a step that adds a copy of a buffer to the nest; the copy's name.
    fn copying_step(&mut self, step: Step) -> Option<String> {
        self.step(step).then(|| self.nest.pool.buffers.iter().next_back().map(|copy| copy.name.clone()))?
    }

    fn replace(&mut self, of: &str, instruction: &str) -> Option<()> {
        self.step(Step::Replace { of: of.into(), instruction: instruction.into() }).then_some(())
    }

    fn compute_at(&mut self, block: &str, at: &str) -> Option<()> {
        self.step(Step::ComputeAt { block: block.into(), at: at.into() }).then_some(())
    }

    /// Those of the names that are names of loops.
    fn present(&self, names: &[&str]) -> Vec<String> {
        let present = |name: &&&str| !self.nest.loops_named(name).is_empty();
        names.iter().filter(present).map(|name| name.to_string()).collect()
    }

    fn extent(&self, name: &str) -> usize {
        self.nest.loops_named(name).first().map_or(1, |&var| self.nest.pool.vars[var].extent)
    }

    /// Those of `loops` that a read of `buffer` depends on.
    fn loops_of_reads(&self, buffer: &str, loops: &[String]) -> Vec<String> {
        loops.iter().filter(|of| shape::reads_with(&self.nest, buffer, of)).cloned().collect()
    }

    /// Computes those buffers when the nest is compiled that depend on constants only; sums by vectors along the results.
    fn prepare_all(&mut self) {
        let at_top = |stmt: &Stmt| if let Stmt::Alloc(id) = stmt { Some(*id) } else { None };
        let buffers: Vec<BufferId> = self.nest.body.iter().filter_map(at_top).collect();
        for id in buffers {
            let reductions = find_reductions(&self.nest);
            let sum = reductions.iter().find(|sum| sum.stores.iter().any(|store| store.buffer == id));
            self.attempt(|scheduler| {
                if let Some(Reduction { outer, accumulator, inner, .. }) = sum
                    && let [.., around, _last] = outer.as_slice()
                {
                    let order = [inner.as_slice(), &outer[outer.len() - 1..]].concat();
                    let [around, order] =
                        [&[*around], order.as_slice()].map(|vars| loop_names(&scheduler.nest, vars));
                    scheduler.stage_out(
                        &buffer_name(&scheduler.nest, *accumulator),
                        around.first().map(String::as_str),
                    )?;
                    scheduler.reorder(&order)?;
                }
                let buffer = buffer_name(&scheduler.nest, id);
                scheduler.step(Step::Prepare { buffer }).then_some(())
            });
        }
    }

    /// The loops among the statements at the top of the nest.
    fn top_loops(&self) -> Vec<VarId> {
        let top = |stmt: &Stmt| if let Stmt::Loop(of) = stmt { Some(of.var) } else { None };
        self.nest.body.iter().filter_map(top).collect()
    }
}

fn buffer_name(nest: &Nest, buffer: BufferId) -> String {
    nest.pool.buffers[buffer].name.clone()
}

fn loop_name(nest: &Nest, var: VarId) -> String {
    nest.pool.vars[var].name.clone()
}

fn loop_names(nest: &Nest, vars: &[VarId]) -> Vec<String> {
    vars.iter().map(|&var| loop_name(nest, var)).collect()
}

/// How often the body of some loops in one another runs.
fn iterations(nest: &Nest, vars: &[VarId]) -> usize {
    vars.iter().map(|&var| nest.pool.vars[var].extent).product()
}

#[cfg(test)]
mod tests;
