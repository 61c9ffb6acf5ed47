//! Layer 10: the driver: from a graph to a plan.
//!
//! [`compile`] is the whole pipeline on one screen. Each stage is timed; in debug builds and tests a verifier runs between them.

mod load;
mod single;

pub use load::{Error, ErrorKind, load};
pub use single::compile_nest;

use crate::codegen::{cpu, wgsl};
use crate::graph::{Graph, Source, ValueId};
use crate::loopir::{Nest, NestHash};
use crate::ops::{self, View, define_group};
use crate::passes::{self, GroupLayout, GroupPolicy, Weights};
use crate::plan::{self, Code, Kernel, KernelId, Place, Plan, Step};
use crate::schedule::{Trace, TraceError, analytic};
use crate::target::{CpuIsa, CpuTarget, GpuTarget, Target};
use crate::tensor::{DType, MemoryLayout};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// What a plan is compiled for.
#[derive(Clone, Debug)]
pub enum Device {
    /// The interpreter, on unscheduled nests: slow, and right by definition.
    Reference,
    /// A processor.
    Cpu(CpuTarget),
    /// An adapter; steps it cannot run go to the processor.
    Gpu(Box<GpuTarget>, CpuTarget),
}

/// How long each stage took, in order.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    /// Stage and time.
    pub stages: Vec<(&'static str, Duration)>,
}

impl Timings {
    /// Runs one stage.
    pub fn stage<T>(&mut self, name: &'static str, run: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = run();
        let elapsed = start.elapsed();
        match self.stages.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += elapsed,
            None => self.stages.push((name, elapsed)),
        }
        result
    }

    /// The time of all stages.
    pub fn total(&self) -> Duration {
        self.stages.iter().map(|(_, time)| *time).sum()
    }
}

/// Why a graph does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A group of operators has no nest.
    #[error("node {origin}: {reason}")]
    Define {
        /// The model's nodes.
        origin: String,
        /// Why.
        reason: String,
    },
    /// No device can run a kernel.
    #[error("node {origin}: no device can run it: {reason}")]
    Emit {
        /// The model's nodes.
        origin: String,
        /// Why.
        reason: String,
    },
    /// A nest that was given is not valid.
    #[error("nest '{nest}': {reason}")]
    Nest {
        /// Its name.
        nest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A schedule that was given does not apply.
    #[error(transparent)]
    Schedule(#[from] TraceError),
    /// A defect of the compiler.
    #[error("{0} (this is a defect of Paisley; please report it)")]
    Defect(String),
}

/// Compiles `graph` for `device`.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(graph: &Graph, device: &Device, timings: &mut Timings) -> Result<Plan, CompileError> {
    let graph = &timings.stage("simplify", || simplify(graph, device));
    let groups = timings.stage("group", || group(graph, device));
    let layouts = timings.stage("lay out", || layouts(graph, &groups, device));
    let mut planner = Planner::new(graph);
    for (group, layout) in groups.iter().zip(&layouts) {
        if group.is_view(graph) && planner.alias(group.inputs[0], group.outputs[0], device, timings)? {
            continue;
        }
        if planner.concatenate(group, layout, device, timings)? {
            continue;
        }
        let origin = group.origin(graph);
        let nest = define(graph, group, layout, &origin, timings)?;
        let kernel = planner.kernel(nest, device, &origin, timings)?;
        let mut bindings = vec![];
        for (&input, &lies) in group.inputs.iter().zip(&layout.inputs) {
            bindings.push(planner.read(input, lies, device, timings)?);
        }
        for (&output, &lies) in group.outputs.iter().zip(&layout.outputs) {
            bindings.push(planner.value(output, lies));
        }
        planner.plan.steps.push(Step { origin, kernel, bindings, flop: group.flop(graph) });
    }
    planner.add_outputs(device, timings)?;
    let plan = timings.stage("plan", || planner.finish());
    plan.verify().map_err(|error| CompileError::Defect(error.to_string()))?;
    Ok(plan)
}

/// Everything that keeps `graph` from being compiled for `device`, of which [`compile`] reports the first: one a group of nodes.
pub fn problems(graph: &Graph, device: &Device) -> Vec<CompileError> {
    let graph = &simplify(graph, device);
    let groups = group(graph, device);
    let layouts = layouts(graph, &groups, device);
    let timings = &mut Timings::default();
    let mut tried = HashSet::new();
    let mut attempt = |(group, layout): (&passes::Group, &GroupLayout)| -> Result<(), CompileError> {
        let origin = group.origin(graph);
        let nest = define(graph, group, layout, &origin, timings)?;
        let hash = nest.structural_hash();
        if tried.insert(hash) { build(nest, hash, device, &origin, timings).map(drop) } else { Ok(()) }
    };
    groups.iter().zip(&layouts).filter_map(|pair| attempt(pair).err()).collect()
}

/// The graph as `device` runs it: after the passes for all devices, and those for this one.
pub fn simplify(graph: &Graph, device: &Device) -> Graph {
    let narrow: &[DType] = match device {
        Device::Reference => &[],
        Device::Cpu(_) => &[DType::F16, DType::BF16],
        Device::Gpu(target, _) if target.features.f16 => &[DType::BF16],
        Device::Gpu(..) => &[DType::F16, DType::BF16],
    };
    let weights = match device {
        Device::Cpu(target) => weights_on(target.isa),
        Device::Reference | Device::Gpu(..) => Weights::Widened,
    };
    let graph = passes::simplify(&passes::widen_floats(graph, narrow, weights));
    match device {
        Device::Cpu(target) => {
            let merged = passes::merge_channel_groups(&graph, target);
            drop(graph);
            let chosen = passes::choose_algorithms(&merged, target);
            drop(merged);
            match weights {
                Weights::Kept => passes::narrow_weights(chosen),
                Weights::Widened => chosen,
            }
        }
        Device::Reference | Device::Gpu(..) => graph,
    }
}

/// What becomes of weights of a narrow type: they are kept where a vector of them is converted at once, since to convert them one by one
/// takes longer than to read the other half of f32.
fn weights_on(isa: CpuIsa) -> Weights {
    match isa {
        CpuIsa::Generic => Weights::Widened,
        CpuIsa::Avx2 | CpuIsa::Avx512 => Weights::Kept,
    }
}

/// The groups of nodes that become one kernel each on `device`.
pub fn group(graph: &Graph, device: &Device) -> Vec<passes::Group> {
    let groups = passes::group(graph, GroupPolicy::default());
    match device {
        Device::Cpu(target) => {
            passes::keep_scores(graph, passes::keep_operands(graph, groups, target), target)
        }
        Device::Reference | Device::Gpu(..) => groups,
    }
}

/// How values lie in memory on a device: in blocks of a vector's lanes on a processor.
fn layouts(graph: &Graph, groups: &[passes::Group], device: &Device) -> Vec<GroupLayout> {
    match device {
        Device::Cpu(target) => passes::lay_out(graph, groups, target.isa.vector_lanes_f32()),
        Device::Reference | Device::Gpu(..) => groups.iter().map(GroupLayout::rows).collect(),
    }
}

/// The unscheduled nest of a group.
fn define(
    graph: &Graph,
    group: &passes::Group,
    layout: &GroupLayout,
    origin: &str,
    timings: &mut Timings,
) -> Result<Nest, CompileError> {
    let nest = timings
        .stage("define", || define_group(&group.definition(graph), &layout.params()))
        .map_err(|error| CompileError::Define { origin: origin.to_string(), reason: error.to_string() })?;
    check(&nest, "defined")?;
    Ok(nest)
}

/// Schedules and emits one nest.
fn build(
    nest: Nest,
    hash: NestHash,
    device: &Device,
    origin: &str,
    timings: &mut Timings,
) -> Result<Kernel, CompileError> {
    let name = format!("{}_{}", nest.name, &hash.to_string()[..8]);
    let (scheduled, trace, preparation, code, fallback) = match device {
        Device::Reference => (nest.clone(), Trace::default(), None, Code::Interpreted, None),
        Device::Cpu(target) => {
            let (scheduled, trace, preparation, code) = build_for_cpu(&nest, target, origin, timings)?;
            (scheduled, trace, preparation, code, None)
        }
        Device::Gpu(target, cpu_target) => {
            let (scheduled, trace) = timings
                .stage("schedule", || analytic::schedule(&nest, &Target::Gpu(target.as_ref().clone())));
            check(&scheduled, "scheduled")?;
            match timings.stage("emit", || wgsl::emit(&scheduled, target)) {
                Ok(kernels) => {
                    let preparation = emit_preparation(&scheduled, origin)?;
                    (scheduled, trace, preparation, Code::Gpu(kernels), None)
                }
                Err(refusal) => {
                    let (scheduled, trace, preparation, code) =
                        build_for_cpu(&nest, cpu_target, origin, timings)?;
                    (scheduled, trace, preparation, code, Some(refusal.to_string()))
                }
            }
        }
    };
    Ok(Kernel { name, hash, nest, scheduled, trace, preparation, code, fallback })
}

fn build_for_cpu(
    nest: &Nest,
    target: &CpuTarget,
    origin: &str,
    timings: &mut Timings,
) -> Result<(Nest, Trace, Option<cpu::CpuCode>, Code), CompileError> {
    let (scheduled, trace) =
        timings.stage("schedule", || analytic::schedule(nest, &Target::Cpu(target.clone())));
    check(&scheduled, "scheduled")?;
    let code = timings.stage("emit", || cpu::emit(&scheduled));
    let code =
        code.map_err(|error| CompileError::Emit { origin: origin.to_string(), reason: error.to_string() })?;
    let preparation = emit_preparation(&scheduled, origin)?;
    Ok((scheduled, trace, preparation, Code::Cpu(code)))
}

fn emit_preparation(nest: &Nest, origin: &str) -> Result<Option<cpu::CpuCode>, CompileError> {
    cpu::emit_preparation(nest)
        .map_err(|error| CompileError::Emit { origin: origin.to_string(), reason: error.to_string() })
}

/// Verifies a nest in debug builds.
fn check(nest: &Nest, stage: &str) -> Result<(), CompileError> {
    if cfg!(debug_assertions) {
        nest.verify().map_err(|errors| {
            let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
            CompileError::Defect(format!("the {stage} nest is not valid: {}\n{nest}", list.join("; ")))
        })?;
    }
    Ok(())
}

/// Collects kernels and steps.
struct Planner<'a> {
    graph: &'a Graph,
    plan: Plan,
    kernels: HashMap<NestHash, KernelId>,
    /// Every layout in which a value lies somewhere.
    values: HashMap<(ValueId, MemoryLayout), plan::ValueId>,
}

impl<'a> Planner<'a> {
    fn new(graph: &'a Graph) -> Planner<'a> {
        let plan = Plan { name: graph.name.clone(), ..Plan::default() };
        let mut planner = Planner { graph, plan, kernels: HashMap::new(), values: HashMap::new() };
        for &input in graph.inputs() {
            let value = planner.value(input, MemoryLayout::Rows);
            planner.plan.inputs.push(value);
        }
        planner
    }

    /// The value as it lies in that layout, made by a step that is to be added.
    fn value(&mut self, id: ValueId, layout: MemoryLayout) -> plan::ValueId {
        if let Some(&known) = self.values.get(&(id, layout)) {
            return known;
        }
        let value = &self.graph.values()[id];
        let made_outputs =
            self.plan.values.iter().filter(|value| matches!(value.place, Place::Output(_))).count();
        let place = match &value.source {
            Source::Input if layout == MemoryLayout::Rows => {
                Place::Input(self.graph.inputs().iter().position(|&input| input == id).unwrap_or(0))
            }
            Source::Constant(tensor) => Place::Constant(tensor.clone()),
            Source::Node(..) if layout == MemoryLayout::Rows && self.is_output(id) => {
                Place::Output(made_outputs)
            }
            Source::Input | Source::Node(..) => Place::Arena { offset_bytes: 0 },
        };
        let added = plan::Value { name: value.name.clone(), fact: value.fact.clone(), layout, place };
        let added = self.plan.values.push(added);
        self.values.insert((id, layout), added);
        added
    }

    fn is_output(&self, id: ValueId) -> bool {
        self.graph.outputs().iter().any(|output| output.value == id)
    }

    /// The value as it lies in that layout, converted if it only lies in another.
    fn read(
        &mut self,
        id: ValueId,
        layout: MemoryLayout,
        device: &Device,
        timings: &mut Timings,
    ) -> Result<plan::ValueId, CompileError> {
        let made = self.values.keys().copied().filter(|(known, _)| *known == id).min();
        match made {
            Some((_, from)) if !self.values.contains_key(&(id, layout)) => {
                let origin = format!("layout of {}", self.graph.values()[id].name);
                let bindings = [self.value(id, from), self.value(id, layout)];
                self.copy(bindings, origin, device, timings)?;
            }
            Some(_) | None => {}
        }
        Ok(self.value(id, layout))
    }

    /// Makes `view` another name of the memory of `of`; false where it needs memory of its own.
    fn alias(
        &mut self,
        of: ValueId,
        view: ValueId,
        device: &Device,
        timings: &mut Timings,
    ) -> Result<bool, CompileError> {
        let needed = self.is_output(view);
        if !needed {
            let known = self.read(of, MemoryLayout::Rows, device, timings)?;
            self.values.insert((view, MemoryLayout::Rows), known);
        }
        Ok(!needed)
    }

    /// A step that gives the first value's elements to the second, which may lie otherwise.
    fn copy(
        &mut self,
        bindings: [plan::ValueId; 2],
        origin: String,
        device: &Device,
        timings: &mut Timings,
    ) -> Result<(), CompileError> {
        let [from, to] = bindings.map(|value| &self.plan.values[value]);
        let copy = View { shape: to.fact.shape.clone() };
        let group = ops::Group::single(&copy, std::slice::from_ref(&from.fact), vec![to.fact.clone()]);
        let layouts = [from.layout, to.layout];
        let nest = timings
            .stage("define", || define_group(&group, &layouts))
            .map_err(|error| CompileError::Define { origin: origin.clone(), reason: error.to_string() })?;
        check(&nest, "defined")?;
        let kernel = self.kernel(nest, device, &origin, timings)?;
        self.plan.steps.push(Step { origin, kernel, bindings: bindings.to_vec(), flop: 0 });
        Ok(())
    }

    /// Concatenates in place on a processor: what `group` would join is made within the result, but for one operand at most, which
    /// is copied there. False where the group has to be a step: it does more, its operands are no ranges of the result's memory,
    /// or several of them [cannot lie](Plan::can_lie_within) there.
    fn concatenate(
        &mut self,
        group: &passes::Group,
        layout: &GroupLayout,
        device: &Device,
        timings: &mut Timings,
    ) -> Result<bool, CompileError> {
        let graph = self.graph;
        match device {
            Device::Cpu(_) => {}
            // Each value of a GPU is bound by itself, at offsets of its own.
            Device::Reference | Device::Gpu(..) => return Ok(false),
        }
        let Some(operands) = group.adjacent(graph, layout) else { return Ok(false) };
        let (&[output], &[lies]) = (&group.outputs[..], &layout.outputs[..]) else { return Ok(false) };
        let mut parts = vec![];
        let mut offset_bytes = 0;
        for &operand in operands {
            let value = self.read(operand, lies, device, timings)?;
            let bytes = self.plan.values[value].storage_bytes();
            if bytes > 0 {
                parts.push(plan::Part { value, offset_bytes });
            }
            offset_bytes += bytes;
        }
        let whole = self.value(output, lies);
        let in_place = self.plan.can_lie_within(whole, &parts);
        if in_place.iter().filter(|&&fits| !fits).count() > 1 {
            return Ok(false);
        }
        for (part, fits) in parts.into_iter().zip(in_place) {
            if fits {
                self.plan.place_within(whole, part);
                continue;
            }
            let place = Place::Within { whole, offset_bytes: part.offset_bytes };
            let copied = plan::Value { place, ..self.plan.values[part.value].clone() };
            let copied = self.plan.values.push(copied);
            self.copy([part.value, copied], group.origin(graph), device, timings)?;
        }
        Ok(true)
    }

    /// The kernel for `nest`: a known one where there is one of the same structure.
    fn kernel(
        &mut self,
        nest: Nest,
        device: &Device,
        origin: &str,
        timings: &mut Timings,
    ) -> Result<KernelId, CompileError> {
        let hash = timings.stage("hash", || nest.structural_hash());
        if let Some(&known) = self.kernels.get(&hash) {
            return Ok(known);
        }
        let kernel = build(nest, hash, device, origin, timings)?;
        let id = self.plan.kernels.push(kernel);
        self.kernels.insert(hash, id);
        Ok(id)
    }

    fn add_outputs(&mut self, device: &Device, timings: &mut Timings) -> Result<(), CompileError> {
        for output in self.graph.outputs() {
            let value = self.read(output.value, MemoryLayout::Rows, device, timings)?;
            self.plan.outputs.push(plan::Output { name: output.name.clone(), value });
        }
        Ok(())
    }

    fn finish(mut self) -> Plan {
        self.plan.place_in_arena();
        self.plan
    }
}
