//! Layer 8: what a session executes: steps in order, the tensors between them, and where each of these lives.
//!
//! A plan is for one model at concrete shapes and names no device's types: a step is a kernel with the values it reads and
//! writes. Kernels that are equal are stored once. Intermediate values share an arena: two values overlap in it only when no
//! step needs both, or when one is meant to lie [within](Place::Within) the other ([`verify`](Plan::verify) proves it).

mod arena;
mod verify;
mod within;

pub use arena::{Lifetime, SpreadArena, allocate};
pub use verify::PlanError;
pub use within::Part;

use crate::analysis;
use crate::base::IdVec;
use crate::codegen::cpu::CpuCode;
use crate::codegen::wgsl::WgslKernel;
use crate::expr::BufferId;
use crate::loopir::{Nest, NestHash, Role, Stmt};
use crate::ops::Fact;
use crate::schedule::Trace;
use crate::target::Demand;
use crate::tensor::{MemoryLayout, Tensor};
use std::collections::{BTreeMap, HashSet};

/// Where a value lives.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// It is given for each run: the input of that index.
    Input(usize),
    /// It is known.
    Constant(Tensor),
    /// It was known: a session keeps it on its device in the forms in which steps read it, and nowhere else.
    Resident,
    /// It is made by a step and lives in the arena from there on.
    Arena {
        /// From the arena's start.
        offset_bytes: usize,
    },
    /// It is made by a step and given back: the output of that index.
    Output(usize),
    /// It is a part of another value's memory: whatever makes it makes that part.
    Within {
        /// The value it is a part of.
        whole: ValueId,
        /// From where that begins.
        offset_bytes: usize,
    },
}

/// A tensor of the plan.
#[derive(Clone, Debug)]
pub struct Value {
    /// The name in the graph.
    pub name: String,
    /// Type and shape.
    pub fact: Fact,
    /// How its elements lie.
    pub layout: MemoryLayout,
    /// Where it lives.
    pub place: Place,
}

impl Value {
    /// Elements of its memory.
    pub fn storage_len(&self) -> usize {
        self.layout.storage_len(&self.fact.shape)
    }

    /// Bytes of its memory.
    pub fn storage_bytes(&self) -> usize {
        self.storage_len().saturating_mul(self.fact.dtype.size_bytes())
    }
}

/// The id of a [`Value`].
pub type ValueId = crate::base::Id<Value>;

/// Code of a kernel for one kind of device.
#[derive(Clone, Debug)]
pub enum Code {
    /// The unscheduled nest, run by the interpreter.
    Interpreted,
    /// A CPU program.
    Cpu(CpuCode),
    /// Shaders, dispatched in order.
    Gpu(Vec<WgslKernel>),
}

impl Kernel {
    /// What a step of it must do whatever its schedule, for `flop` operations: each parameter is moved once as far as it is
    /// touched.
    pub fn demand(&self, flop: u64) -> Demand {
        let (nest, mut pool) = (&self.nest, self.nest.pool.clone());
        let mut touched: BTreeMap<BufferId, u64> = BTreeMap::new();
        for stmt in &nest.body {
            let work = analysis::work(&nest.pool, std::slice::from_ref(stmt));
            let moved = |buffer| work.reads.get(&buffer).max(work.writes.get(&buffer)).copied().unwrap_or(0);
            let footprints = match stmt {
                Stmt::Loop(of) => analysis::footprints(&mut pool, of),
                Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => vec![],
            };
            for &param in &nest.params {
                let within = footprints.iter().find(|footprint| footprint.buffer == param);
                let elements = within.map_or(u64::MAX, |footprint| footprint.elements);
                *touched.entry(param).or_default() += moved(param).min(elements);
            }
        }
        let mut demand = Demand { flop, ..Demand::default() };
        for (param, elements) in touched {
            let buffer = &nest.pool.buffers[param];
            let bytes = elements.min(buffer.len() as u64) * buffer.dtype.size_bytes() as u64;
            match buffer.role {
                Role::Constant | Role::Packed => demand.constant_bytes += bytes,
                Role::Input | Role::Output | Role::Local => demand.value_bytes += bytes,
            }
        }
        demand
    }
}

impl Code {
    /// The word for where it runs, as reports print it.
    pub fn device(&self) -> &'static str {
        match self {
            Code::Interpreted => "reference",
            Code::Cpu(_) => "cpu",
            Code::Gpu(_) => "gpu",
        }
    }
}

/// What one or more steps run.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `NAME_HASH8`: the same in logs, entry points and reports.
    pub name: String,
    /// The hash of the unscheduled nest.
    pub hash: NestHash,
    /// The unscheduled nest: what it means.
    pub nest: Nest,
    /// The nest with the schedule applied.
    pub scheduled: Nest,
    /// The schedule.
    pub trace: Trace,
    /// What packs its constants, once.
    pub preparation: Option<CpuCode>,
    /// What runs.
    pub code: Code,
    /// Why it is not on the device that was asked for, where it is not.
    pub fallback: Option<String>,
}

/// The id of a [`Kernel`].
pub type KernelId = crate::base::Id<Kernel>;

/// A kernel applied to values.
#[derive(Clone, Debug)]
pub struct Step {
    /// The model's nodes it stems from.
    pub origin: String,
    /// What runs.
    pub kernel: KernelId,
    /// The values of the nest's parameters, in order.
    pub bindings: Vec<ValueId>,
    /// Floating-point operations, as the operators count them.
    pub flop: u64,
}

/// A named output of the model.
#[derive(Clone, Debug)]
pub struct Output {
    /// The name callers know.
    pub name: String,
    /// The value; an input, a constant or the place of another output where the model says so.
    pub value: ValueId,
}

/// A model ready to run; see the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The model's name.
    pub name: String,
    /// Tensors.
    pub values: IdVec<Value>,
    /// Distinct kernels.
    pub kernels: IdVec<Kernel>,
    /// What runs, in order.
    pub steps: Vec<Step>,
    /// The inputs, in order.
    pub inputs: Vec<ValueId>,
    /// The outputs, in order.
    pub outputs: Vec<Output>,
    /// The size of the arena.
    pub arena_bytes: usize,
}

impl Plan {
    /// The kernel of a step.
    pub fn kernel(&self, step: &Step) -> &Kernel {
        &self.kernels[step.kernel]
    }

    /// The values a step writes.
    pub fn written<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = ValueId> + 'a {
        self.bound(step, true)
    }

    /// The values a step reads.
    pub fn read<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = ValueId> + 'a {
        self.bound(step, false)
    }

    fn bound<'a>(&'a self, step: &'a Step, written: bool) -> impl Iterator<Item = ValueId> + 'a {
        let nest = &self.kernel(step).nest;
        let params = nest.params.iter().map(|&param| nest.pool.buffers[param].role == Role::Output);
        step.bindings
            .iter()
            .copied()
            .zip(params)
            .filter(move |&(_, output)| output == written)
            .map(|(value, _)| value)
    }

    /// From which step to which each value of the arena is needed, with all that lies within it.
    pub fn lifetimes(&self) -> Vec<(ValueId, Lifetime)> {
        let mut lifetimes: Vec<Option<Lifetime>> = vec![None; self.values.len()];
        for (place, step) in self.steps.iter().enumerate() {
            for &value in &step.bindings {
                let (value, _) = self.memory(value);
                let stored = &self.values[value];
                if let Place::Arena { .. } = stored.place {
                    // A device may store any element in 4 bytes.
                    let size_bytes = stored.storage_bytes().max(4 * stored.storage_len());
                    let lifetime = lifetimes[value.index()].get_or_insert(Lifetime {
                        first: place,
                        last: place,
                        size_bytes,
                    });
                    lifetime.last = place;
                }
            }
        }
        self.values.ids().zip(lifetimes).filter_map(|(id, lifetime)| Some((id, lifetime?))).collect()
    }

    /// Gives every value of the arena its offset.
    pub fn place_in_arena(&mut self) {
        let lifetimes = self.lifetimes();
        let plain: Vec<Lifetime> = lifetimes.iter().map(|(_, lifetime)| *lifetime).collect();
        let (offsets, total) = allocate(&plain);
        for ((value, _), offset_bytes) in lifetimes.into_iter().zip(offsets) {
            self.values[value].place = Place::Arena { offset_bytes };
        }
        self.arena_bytes = total;
    }

    /// Where the values of the arena would lie if none shared memory with another; `None` where that is too much.
    pub fn spread_arena(&self) -> Option<SpreadArena> {
        SpreadArena::new(self.lifetimes())
    }

    /// For each step the constants that no later step and no output reads.
    pub fn last_reads(&self) -> Vec<Vec<ValueId>> {
        let mut needed: HashSet<ValueId> = self.outputs.iter().map(|output| output.value).collect();
        let mut is_last =
            |&value: &ValueId| matches!(self.values[value].place, Place::Constant(_)) && needed.insert(value);
        let mut last: Vec<Vec<ValueId>> = self
            .steps
            .iter()
            .rev()
            .map(|step| step.bindings.iter().copied().filter(&mut is_last).collect())
            .collect();
        last.reverse();
        last
    }

    /// Bytes of the constants.
    pub fn constant_bytes(&self) -> usize {
        let size =
            |value: &Value| if let Place::Constant(tensor) = &value.place { tensor.bytes().len() } else { 0 };
        self.values.iter().map(size).sum()
    }
}

#[cfg(test)]
mod tests;
