//! Running plans on an adapter, with steps that the adapter cannot run on the CPU in between.

use super::storage::{from_device, stored_bytes, to_device};
use super::{
    BindingKind, BufferRange, Dispatch, Gpu, GpuKernel, GpuProgram, Memory, Step as GpuStep, Timing,
};
use crate::base::round_up;
use crate::codegen::wgsl::{Access, WgslKernel};
use crate::expr::BufferId;
use crate::plan::{Code, Place, Plan, Step, ValueId};
use crate::runtime::cpu::{StepRunner, prepare_constants};
use crate::runtime::{Profile, Row, Run, RuntimeError, Span};
use crate::target::CpuTarget;
use crate::tensor::Tensor;
use paisley_kernels::pool::Pool;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Instant;

/// Runs the steps of a plan on an adapter; constants and intermediate values stay there between runs.
pub struct GpuExecutor {
    program: GpuProgram,
    segments: Vec<Segment>,
    ranges: HashMap<ValueId, BufferRange>,
    pool: Pool,
}

/// Steps that run without the host in between, and what is moved before and after.
struct Segment {
    /// Steps of the plan.
    steps: Range<usize>,
    /// Values the segment needs that the host has.
    uploads: Vec<ValueId>,
    /// Values made by the segment that the host needs.
    downloads: Vec<ValueId>,
    work: Work,
}

enum Work {
    /// Dispatches of the program, and how many belong to each step.
    Gpu(Range<usize>, Vec<usize>),
    /// One step on the CPU.
    Cpu(Box<StepRunner>),
}

impl GpuExecutor {
    /// Packs and uploads the constants of `plan`, builds its pipelines, and makes it ready to run.
    ///
    /// # Errors
    /// Where the adapter fails or refuses, or a CPU step does not verify.
    pub fn new(plan: &Plan, gpu: &Gpu, cpu: &CpuTarget) -> Result<GpuExecutor, RuntimeError> {
        let pool = Pool::new(cpu.threads).map_err(RuntimeError::defect)?;
        let alignment = gpu.target().limits.storage_offset_alignment_bytes.max(4) as usize;
        let ranges = place_values(plan, gpu, alignment)?;
        let scratch_bytes = plan.kernels.iter().map(|kernel| scratch(kernel, alignment).1).max().unwrap_or(0);
        let scratch_memory = if scratch_bytes > 0 { Some(gpu.allocate(scratch_bytes as u64)?) } else { None };
        let mut steps = vec![];
        let mut segments: Vec<Segment> = vec![];
        for (place, step) in plan.steps.iter().enumerate() {
            match &plan.kernel(step).code {
                Code::Gpu(kernels) => {
                    let first = steps.len();
                    let packed = upload_packed(plan, step, gpu, cpu, &pool)?;
                    for kernel in kernels {
                        let ranges =
                            bind(plan, step, kernel, &ranges, &packed, scratch_memory.as_ref(), alignment)?;
                        steps.push(GpuStep::Dispatch(Dispatch { kernel: gpu_kernel(kernel), ranges }));
                    }
                    let added = steps.len() - first;
                    match segments.last_mut() {
                        Some(Segment { steps: known, work: Work::Gpu(dispatches, counts), .. }) => {
                            known.end = place + 1;
                            dispatches.end = steps.len();
                            counts.push(added);
                        }
                        Some(_) | None => segments.push(Segment {
                            steps: place..place + 1,
                            uploads: vec![],
                            downloads: vec![],
                            work: Work::Gpu(first..steps.len(), vec![added]),
                        }),
                    }
                }
                Code::Cpu(code) => segments.push(Segment {
                    steps: place..place + 1,
                    uploads: vec![],
                    downloads: vec![],
                    work: Work::Cpu(Box::new(StepRunner::new(plan, step, code, cpu, &pool)?)),
                }),
                Code::Interpreted => {
                    return Err(RuntimeError::Defect("an interpreted step in a plan for an adapter".into()));
                }
            }
        }
        let program = gpu.prepare(&steps)?;
        place_copies(plan, &mut segments);
        Ok(GpuExecutor { program, segments, ranges, pool })
    }

    /// Runs once. `inputs` are of the plan's types and shapes; `profile` asks where the time goes.
    ///
    /// # Errors
    /// Where the device fails or does not finish in time, or an index read from data is out of range in a CPU step.
    pub fn run(&mut self, plan: &Plan, inputs: &[Tensor], profile: bool) -> Result<Run, RuntimeError> {
        let mut host: HashMap<ValueId, Tensor> =
            plan.inputs.iter().copied().zip(inputs.iter().cloned()).collect();
        let mut run = Run { outputs: vec![], device_ns: Some(0), profile: None, copies: 0, copied_bytes: 0 };
        let mut known = Profile { step_ns: vec![0; plan.steps.len()], wait: None, spans: vec![] };
        let mut is_known = true;
        let run_start = Instant::now();
        for segment in &mut self.segments {
            let begin_ns = nanoseconds(run_start);
            match &mut segment.work {
                Work::Cpu(runner) => {
                    runner.run(plan, &self.pool, &mut host)?;
                    let (step, end_ns) = (segment.steps.start, nanoseconds(run_start));
                    let elapsed = end_ns - begin_ns;
                    known.step_ns[step] = elapsed;
                    known.spans.push(Span { row: Row::Thread(0), step, begin_ns, end_ns });
                    run.device_ns = run.device_ns.map(|sum| sum + elapsed);
                }
                Work::Gpu(dispatches, counts) => {
                    let uploads: Vec<(BufferRange, Vec<u8>)> = segment
                        .uploads
                        .iter()
                        .filter_map(|value| {
                            Some((
                                self.ranges.get(value)?.clone(),
                                to_device(host_value(plan, &host, *value)?),
                            ))
                        })
                        .collect();
                    let uploads: Vec<(BufferRange, &[u8])> =
                        uploads.iter().map(|(range, bytes)| (range.clone(), bytes.as_slice())).collect();
                    let downloads: Vec<BufferRange> = segment
                        .downloads
                        .iter()
                        .filter_map(|value| self.ranges.get(value).cloned())
                        .collect();
                    let timing = if profile { Timing::Kernels } else { Timing::Device };
                    let report = self.program.run_steps(dispatches.clone(), &uploads, &downloads, timing)?;
                    run.copies += report.copies;
                    run.copied_bytes += report.copied_bytes;
                    run.device_ns = run.device_ns.zip(report.device_ns).map(|(sum, ns)| sum + ns);
                    is_known &= report.kernel_ns.is_some();
                    if let Some(kernel_ns) = report.kernel_ns {
                        let mut kernel_ns = kernel_ns.into_iter();
                        for (place, &count) in segment.steps.clone().zip(counts.iter()) {
                            for span in kernel_ns.by_ref().take(count) {
                                known.step_ns[place] += span.end - span.start;
                                let (begin_ns, end_ns) = (begin_ns + span.start, begin_ns + span.end);
                                known.spans.push(Span { row: Row::Adapter, step: place, begin_ns, end_ns });
                            }
                        }
                    }
                    for (&value, bytes) in segment.downloads.iter().zip(report.outputs) {
                        host.insert(value, from_device(&bytes, &plan.values[value].fact)?);
                    }
                }
            }
        }
        run.profile = (profile && is_known).then_some(known);
        for output in &plan.outputs {
            let value = host_value(plan, &host, output.value)
                .ok_or_else(|| RuntimeError::Defect(format!("output '{}' was not made", output.name)))?;
            run.outputs.push(value.clone());
        }
        Ok(run)
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn host_value<'a>(plan: &'a Plan, host: &'a HashMap<ValueId, Tensor>, value: ValueId) -> Option<&'a Tensor> {
    host.get(&value).or_else(|| match &plan.values[value].place {
        Place::Constant(tensor) => Some(tensor),
        Place::Input(_) | Place::Resident | Place::Arena { .. } | Place::Output(_) | Place::Within { .. } => {
            None
        }
    })
}

fn gpu_kernel(kernel: &WgslKernel) -> GpuKernel {
    GpuKernel {
        name: kernel.name.clone(),
        wgsl: kernel.text.clone(),
        entry: kernel.name.clone(),
        bindings: kernel
            .bindings
            .iter()
            .map(|binding| match binding.access {
                Access::Read => BindingKind::Read,
                Access::ReadWrite => BindingKind::ReadWrite,
            })
            .collect(),
        workgroups: kernel.workgroups,
        bounds_checked: !kernel.bounds_proved,
        zero_workgroup_memory: true,
    }
}

/// Device memory for every value that a GPU step touches.
fn place_values(
    plan: &Plan,
    gpu: &Gpu,
    alignment: usize,
) -> Result<HashMap<ValueId, BufferRange>, RuntimeError> {
    let mut touched = BTreeSet::new();
    for step in &plan.steps {
        match &plan.kernel(step).code {
            Code::Gpu(kernels) => {
                let nest = &plan.kernel(step).scheduled;
                for binding in kernels.iter().flat_map(|kernel| &kernel.bindings) {
                    let place = nest.params.iter().position(|&param| param == binding.buffer);
                    touched.extend(place.map(|place| step.bindings[place]));
                }
            }
            Code::Cpu(_) | Code::Interpreted => {}
        }
    }
    let arena = if plan.arena_bytes > 0 { Some(gpu.allocate(plan.arena_bytes as u64)?) } else { None };
    let mut ranges = HashMap::new();
    let mut constants: Vec<(BufferRange, Vec<u8>)> = vec![];
    for &value in &touched {
        let fact = &plan.values[value].fact;
        let bytes = stored_bytes(fact.len(), fact.dtype) as u64;
        let range = match (&plan.values[value].place, &arena) {
            (Place::Arena { offset_bytes }, Some(arena)) => {
                arena.range(round_up(*offset_bytes, alignment) as u64, bytes)
            }
            (Place::Arena { .. }, None) => return Err(RuntimeError::Defect("the arena is empty".into())),
            (Place::Within { .. }, _) => {
                return Err(RuntimeError::Defect("a value of a GPU lies within another".into()));
            }
            (Place::Input(_) | Place::Output(_) | Place::Constant(_) | Place::Resident, _) => {
                gpu.allocate(bytes)?.range(0, bytes)
            }
        };
        if let Place::Constant(tensor) = &plan.values[value].place {
            constants.push((range.clone(), to_device(tensor)));
        }
        ranges.insert(value, range);
    }
    let uploads: Vec<(BufferRange, &[u8])> =
        constants.iter().map(|(range, bytes)| (range.clone(), bytes.as_slice())).collect();
    gpu.upload(&uploads)?;
    Ok(ranges)
}

/// Offsets of a kernel's own global buffers in the scratch memory, and their size together.
fn scratch(kernel: &crate::plan::Kernel, alignment: usize) -> (HashMap<BufferId, (usize, usize)>, usize) {
    let (mut offsets, mut total) = (HashMap::new(), 0);
    if let Code::Gpu(kernels) = &kernel.code {
        for binding in kernels.iter().flat_map(|kernel| &kernel.bindings) {
            let local = kernel.scheduled.pool.buffers[binding.buffer].role == crate::expr::Role::Local;
            if local && !offsets.contains_key(&binding.buffer) {
                let buffer = &kernel.scheduled.pool.buffers[binding.buffer];
                let bytes = 4 * buffer.storage_len().max(1);
                offsets.insert(binding.buffer, (total, bytes));
                total += round_up(bytes, alignment);
            }
        }
    }
    (offsets, total)
}

/// Packs the constants of a step and uploads them.
fn upload_packed(
    plan: &Plan,
    step: &Step,
    gpu: &Gpu,
    cpu: &CpuTarget,
    pool: &Pool,
) -> Result<HashMap<BufferId, BufferRange>, RuntimeError> {
    let nest = &plan.kernel(step).scheduled;
    let mut ranges = HashMap::new();
    for (buffer, bytes) in prepare_constants(plan, step, crate::runtime::cpu::kernels(cpu.isa), pool)? {
        let declared = &nest.pool.buffers[buffer];
        let tensor =
            Tensor::new(declared.dtype, vec![declared.storage_len()], bytes::Bytes::copy_from_slice(&bytes))
                .map_err(RuntimeError::defect)?;
        let stored = to_device(&tensor);
        let range = gpu.allocate(stored.len() as u64)?.range(0, stored.len() as u64);
        gpu.upload(&[(range.clone(), &stored)])?;
        ranges.insert(buffer, range);
    }
    Ok(ranges)
}

/// The memory of each binding of a kernel.
fn bind(
    plan: &Plan,
    step: &Step,
    kernel: &WgslKernel,
    values: &HashMap<ValueId, BufferRange>,
    packed: &HashMap<BufferId, BufferRange>,
    scratch_memory: Option<&Memory>,
    alignment: usize,
) -> Result<Vec<BufferRange>, RuntimeError> {
    let compiled = plan.kernel(step);
    let nest = &compiled.scheduled;
    let (offsets, _) = scratch(compiled, alignment);
    kernel
        .bindings
        .iter()
        .map(|binding| {
            let param = nest.params.iter().position(|&param| param == binding.buffer);
            let value = param.and_then(|place| values.get(&step.bindings[place]).cloned());
            let local = offsets.get(&binding.buffer).zip(scratch_memory);
            let local = local.map(|(&(offset, bytes), memory)| memory.range(offset as u64, bytes as u64));
            let whole =
                value.or_else(|| packed.get(&binding.buffer).cloned()).or(local).ok_or_else(|| {
                    RuntimeError::Defect(format!(
                        "buffer '{}' of '{}' is not bound",
                        binding.name, kernel.name
                    ))
                })?;
            // A binding is the buffer of the nest or a window that ends inside of it, and what is bound has room for the buffer.
            Ok(whole.memory.range(whole.offset + binding.offset_bytes, binding.bytes))
        })
        .collect()
}

/// Decides what each segment moves: a value is uploaded before the first GPU segment that reads it when the host made it, and
/// downloaded after the GPU segment that makes it when the host reads it or it is an output.
fn place_copies(plan: &Plan, segments: &mut [Segment]) {
    let on_gpu = |segment: &Segment| matches!(segment.work, Work::Gpu(..));
    let mut on_host: BTreeSet<ValueId> = plan.inputs.iter().copied().collect();
    let mut on_device: BTreeSet<ValueId> = BTreeSet::new();
    let mut wanted_by_host: BTreeSet<ValueId> = plan.outputs.iter().map(|output| output.value).collect();
    for segment in segments.iter().filter(|segment| !on_gpu(segment)) {
        wanted_by_host.extend(plan.steps[segment.steps.clone()].iter().flat_map(|step| plan.read(step)));
    }
    for segment in segments {
        let gpu = on_gpu(segment);
        for step in &plan.steps[segment.steps.clone()] {
            for value in plan.read(step) {
                if gpu && on_host.contains(&value) && on_device.insert(value) {
                    segment.uploads.push(value);
                }
            }
            for value in plan.written(step) {
                if gpu {
                    on_device.insert(value);
                    if wanted_by_host.contains(&value) {
                        segment.downloads.push(value);
                    }
                } else {
                    on_host.insert(value);
                }
            }
        }
    }
}
