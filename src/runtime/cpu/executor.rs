//! Sequences of programs for a plan.

use super::{kernels, program};
use crate::codegen::cpu::CpuCode;
use crate::expr::{BufferId, Role};
use crate::plan::{Code, Place, Plan, SpreadArena, Step, ValueId};
use crate::runtime::{Profile, Row, Run, RuntimeError, Span};
use crate::target::CpuTarget;
use crate::tensor::Tensor;
use bytes::Bytes;
use paisley_kernels::KernelTable;
use paisley_kernels::pool::Pool;
use paisley_kernels::program::{
    AlignedBytes, Binding, Extents, Memory, Program, Region, Sequence, Step as ProgramStep, Timeline,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Runs the steps of a plan on the threads of a pool.
#[derive(Debug)]
pub struct CpuExecutor {
    pool: Pool,
    sequence: Sequence,
    outputs: Vec<Output>,
    timeline: Timeline,
}

/// Memory of an output, which a run's tensor shares. The next run writes there again if that tensor is gone by then.
#[derive(Clone, Debug)]
struct Output(Arc<AlignedBytes>);

impl Output {
    fn new(length: usize) -> Output {
        Output(Arc::new(AlignedBytes::zeroed(length)))
    }

    /// The memory, where no tensor has it, else other memory of the same size.
    fn free(&mut self) -> Option<&mut AlignedBytes> {
        if Arc::get_mut(&mut self.0).is_none() {
            *self = Output::new(self.0.len());
        }
        Arc::get_mut(&mut self.0)
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl CpuExecutor {
    /// Packs the constants of `plan`, all of whose steps are CPU programs, and makes it ready to run. A constant that nothing else
    /// reads leaves the plan as soon as it is packed, so that no two forms of all of them are in memory at once.
    ///
    /// # Errors
    /// Where a program does not verify or the threads cannot be started.
    pub fn new(plan: &mut Plan, target: &CpuTarget) -> Result<CpuExecutor, RuntimeError> {
        let pool = Pool::new(target.threads).map_err(RuntimeError::defect)?;
        let table = kernels(target.isa);
        let mut constants = Constants::default();
        let mut programs: HashMap<_, Arc<Program>> = HashMap::new();
        let spread = if pool.threads() > 1 { plan.spread_arena() } else { None };
        let (mut steps, mut spread_bindings) = (vec![], vec![]);
        for (at, last_reads) in plan.last_reads().into_iter().enumerate() {
            let step = &plan.steps[at];
            let kernel = plan.kernel(step);
            let Code::Cpu(code) = &kernel.code else {
                return Err(RuntimeError::Defect(format!("kernel '{}' is not a CPU program", kernel.name)));
            };
            let compiled = match programs.get(&step.kernel) {
                Some(compiled) => compiled.clone(),
                None => {
                    let compiled = Arc::new(program(code, table).map_err(RuntimeError::defect)?);
                    programs.insert(step.kernel, compiled.clone());
                    compiled
                }
            };
            let packed = prepare_constants(plan, step, table, &pool)?;
            let packed: HashMap<BufferId, usize> =
                packed.into_iter().map(|(buffer, bytes)| (buffer, constants.add(bytes))).collect();
            let bindings = bind(plan, step, code, &compiled, &packed, &mut constants)?;
            if let Some(spread) = &spread {
                spread_bindings.push(bind_spread(plan, step, code, &bindings, spread));
            }
            steps.push(ProgramStep { program: compiled, bindings });
            for value in last_reads {
                plan.values[value].place = Place::Resident;
            }
        }
        let size = |value: ValueId| plan.values[value].storage_bytes();
        let made: Vec<usize> = made_outputs(plan).into_iter().map(size).collect();
        let extents = Extents {
            arena: plan.arena_bytes,
            inputs: plan.inputs.iter().map(|&value| size(value)).collect(),
            outputs: made,
        };
        let outputs = extents.outputs.iter().map(|&bytes| Output::new(bytes)).collect();
        let mut sequence = Sequence::new(steps, constants.bytes, extents).map_err(RuntimeError::defect)?;
        if let Some(spread) = spread {
            sequence = sequence.with_spread(&spread_bindings, spread.bytes).map_err(RuntimeError::defect)?;
        }
        Ok(CpuExecutor { pool, sequence, outputs, timeline: Timeline::default() })
    }

    /// Runs once. `inputs` are of the plan's types and shapes; `profile` asks where the time goes.
    ///
    /// # Errors
    /// Where an index read from data is out of range.
    pub fn run(&mut self, plan: &Plan, inputs: &[Tensor], profile: bool) -> Result<Run, RuntimeError> {
        let aligned: Vec<AlignedInput> = inputs.iter().map(AlignedInput::new).collect();
        let slices: Vec<&[u8]> = aligned.iter().map(AlignedInput::bytes).collect();
        let start = Instant::now();
        {
            let free = self.outputs.iter_mut().filter_map(Output::free);
            let mut outputs: Vec<&mut [u8]> = free.map(|bytes| &mut bytes[..]).collect();
            let memory = Memory { inputs: &slices, outputs: &mut outputs };
            self.sequence
                .run(&self.pool, memory, profile.then_some(&mut self.timeline))
                .map_err(RuntimeError::run)?;
        }
        let device_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let outputs = plan
            .outputs
            .iter()
            .map(|output| {
                let value = &plan.values[output.value];
                Ok(match &value.place {
                    Place::Input(index) => inputs[*index].clone(),
                    Place::Constant(tensor) => tensor.clone(),
                    Place::Output(index) => {
                        let bytes = Bytes::from_owner(self.outputs[*index].clone());
                        Tensor::new(value.fact.dtype, value.fact.shape.clone(), bytes)
                            .map_err(RuntimeError::defect)?
                    }
                    Place::Arena { .. } | Place::Resident | Place::Within { .. } => {
                        return Err(RuntimeError::Defect("an output is not kept".into()));
                    }
                })
            })
            .collect::<Result<_, RuntimeError>>()?;
        Ok(Run {
            outputs,
            device_ns: Some(device_ns),
            profile: profile.then(|| profile_of(&self.timeline, plan.steps.len())),
            copies: 0,
            copied_bytes: 0,
        })
    }
}

/// What a timeline says of the steps of a plan.
fn profile_of(timeline: &Timeline, steps: usize) -> Profile {
    let times = timeline.step_times(steps);
    let threads = timeline.threads();
    let span = |span: paisley_kernels::program::Span| Span {
        row: Row::Thread(span.thread),
        step: span.step,
        begin_ns: span.begin_ns,
        end_ns: span.end_ns,
    };
    Profile {
        step_ns: times.iter().map(|time| time.wall_ns).collect(),
        wait: (threads > 1).then(|| times.iter().map(|time| time.wait(threads)).collect()),
        spans: timeline.spans().map(span).collect(),
    }
}

/// Runs one step of a plan whose other steps run elsewhere.
#[derive(Debug)]
pub struct StepRunner {
    sequence: Sequence,
    reads: Vec<ValueId>,
    writes: Vec<(ValueId, AlignedBytes)>,
}

impl StepRunner {
    /// Packs the step's constants and makes it ready to run.
    ///
    /// # Errors
    /// Where its program does not verify.
    pub fn new(
        plan: &Plan,
        step: &Step,
        code: &CpuCode,
        target: &CpuTarget,
        pool: &Pool,
    ) -> Result<StepRunner, RuntimeError> {
        let table = kernels(target.isa);
        let nest = &plan.kernel(step).scheduled;
        let mut constants = Constants::default();
        let packed: HashMap<BufferId, usize> = prepare_constants(plan, step, table, pool)?
            .into_iter()
            .map(|(buffer, bytes)| (buffer, constants.add(bytes)))
            .collect();
        let compiled = Arc::new(program(code, table).map_err(RuntimeError::defect)?);
        let (mut reads, mut writes, mut bindings) = (vec![], vec![], vec![]);
        for (at, buffer) in code.bindings.iter().enumerate() {
            let region = match packed.get(buffer) {
                Some(&index) => Region::Constant(index),
                None => {
                    let value = param_value(step, &nest.params, *buffer)
                        .ok_or_else(|| RuntimeError::Defect("a buffer is not bound".into()))?;
                    match &plan.values[value].place {
                        Place::Constant(tensor) => {
                            Region::Constant(constants.tensor(value, tensor, compiled.alignment(at)))
                        }
                        Place::Resident => return Err(packed_already(plan, value)),
                        Place::Input(_) | Place::Arena { .. } | Place::Output(_) | Place::Within { .. }
                            if nest.pool.buffers[*buffer].role == Role::Output =>
                        {
                            writes.push((value, AlignedBytes::zeroed(plan.values[value].storage_bytes())));
                            Region::Output(writes.len() - 1)
                        }
                        Place::Input(_) | Place::Arena { .. } | Place::Output(_) | Place::Within { .. } => {
                            reads.push(value);
                            Region::Input(reads.len() - 1)
                        }
                    }
                }
            };
            bindings.push(Binding { region, offset_bytes: 0 });
        }
        let extents = Extents {
            inputs: reads.iter().map(|&value| plan.values[value].storage_bytes()).collect(),
            outputs: writes.iter().map(|(_, bytes)| bytes.len()).collect(),
            ..Extents::default()
        };
        let steps = vec![ProgramStep { program: compiled, bindings }];
        let sequence = Sequence::new(steps, constants.bytes, extents).map_err(RuntimeError::defect)?;
        Ok(StepRunner { sequence, reads, writes })
    }

    /// Reads its values from `host` and puts the values it makes there.
    ///
    /// # Errors
    /// Where an index read from data is out of range.
    pub fn run(
        &mut self,
        plan: &Plan,
        pool: &Pool,
        host: &mut HashMap<ValueId, Tensor>,
    ) -> Result<(), RuntimeError> {
        let inputs: Vec<AlignedInput> = self
            .reads
            .iter()
            .map(|value| host.get(value).map(AlignedInput::new))
            .collect::<Option<_>>()
            .ok_or_else(|| RuntimeError::Defect("a step reads what was not made".into()))?;
        let slices: Vec<&[u8]> = inputs.iter().map(AlignedInput::bytes).collect();
        {
            let mut outputs: Vec<&mut [u8]> =
                self.writes.iter_mut().map(|(_, bytes)| &mut bytes[..]).collect();
            let memory = Memory { inputs: &slices, outputs: &mut outputs };
            self.sequence.run(pool, memory, None).map_err(RuntimeError::run)?;
        }
        for (value, bytes) in &self.writes {
            let fact = &plan.values[*value].fact;
            let tensor = Tensor::new(fact.dtype, fact.shape.clone(), Bytes::copy_from_slice(bytes));
            host.insert(*value, tensor.map_err(RuntimeError::defect)?);
        }
        Ok(())
    }
}

/// Values whose place is an output, by the index of that.
fn made_outputs(plan: &Plan) -> Vec<ValueId> {
    let mut made: Vec<(usize, ValueId)> = plan
        .values
        .iter_with_ids()
        .filter_map(
            |(id, value)| if let Place::Output(index) = value.place { Some((index, id)) } else { None },
        )
        .collect();
    made.sort_unstable();
    made.into_iter().map(|(_, id)| id).collect()
}

/// What the steps of a sequence read and no run changes.
#[derive(Default)]
struct Constants {
    bytes: Vec<Bytes>,
    /// Tensors that are among them, aligned or where they lay.
    known: HashMap<(ValueId, bool), usize>,
}

impl Constants {
    fn add(&mut self, bytes: AlignedBytes) -> usize {
        self.bytes.push(Bytes::from_owner(bytes));
        self.bytes.len() - 1
    }

    /// A tensor: where it lies, if any address will do, else in aligned memory.
    fn tensor(&mut self, value: ValueId, tensor: &Tensor, alignment: usize) -> usize {
        let in_place = alignment == 1;
        *self.known.entry((value, in_place)).or_insert_with(|| {
            let bytes = tensor.bytes();
            self.bytes.push(match in_place {
                true => bytes.clone(),
                false => Bytes::from_owner(AlignedBytes::copy_of(bytes)),
            });
            self.bytes.len() - 1
        })
    }
}

fn packed_already(plan: &Plan, value: ValueId) -> RuntimeError {
    RuntimeError::Defect(format!("constant '{}' is no longer in the plan", plan.values[value].name))
}

/// The memory of each external buffer of a step.
fn bind(
    plan: &Plan,
    step: &Step,
    code: &CpuCode,
    program: &Program,
    packed: &HashMap<BufferId, usize>,
    constants: &mut Constants,
) -> Result<Vec<Binding>, RuntimeError> {
    let nest = &plan.kernel(step).scheduled;
    code.bindings
        .iter()
        .enumerate()
        .map(|(at, buffer)| {
            if let Some(&index) = packed.get(buffer) {
                return Ok(Binding { region: Region::Constant(index), offset_bytes: 0 });
            }
            let value = param_value(step, &nest.params, *buffer)
                .ok_or_else(|| RuntimeError::Defect("a buffer is not bound".into()))?;
            let (owner, start) = plan.memory(value);
            Ok(match &plan.values[owner].place {
                Place::Input(index) => Binding { region: Region::Input(*index), offset_bytes: start },
                Place::Output(index) => Binding { region: Region::Output(*index), offset_bytes: start },
                Place::Arena { offset_bytes } => {
                    Binding { region: Region::Arena, offset_bytes: offset_bytes + start }
                }
                Place::Constant(tensor) => {
                    let index = constants.tensor(value, tensor, program.alignment(at));
                    Binding { region: Region::Constant(index), offset_bytes: 0 }
                }
                Place::Within { .. } => return Err(RuntimeError::Defect("a value has no memory".into())),
                Place::Resident => return Err(packed_already(plan, value)),
            })
        })
        .collect()
}

/// The same bindings, with the values of the arena where they lie in the spread one.
fn bind_spread(
    plan: &Plan,
    step: &Step,
    code: &CpuCode,
    bindings: &[Binding],
    spread: &SpreadArena,
) -> Vec<Binding> {
    let params = &plan.kernel(step).scheduled.params;
    let moved = |buffer: BufferId| {
        let (owner, start) = plan.memory(param_value(step, params, buffer)?);
        Some(Binding { region: Region::Arena, offset_bytes: spread.offsets.get(&owner)? + start })
    };
    let buffers = code.bindings.iter().zip(bindings);
    buffers.map(|(&buffer, binding)| moved(buffer).unwrap_or(*binding)).collect()
}

/// The value bound to a parameter.
fn param_value(step: &Step, params: &[BufferId], buffer: BufferId) -> Option<ValueId> {
    params.iter().position(|&param| param == buffer).and_then(|place| step.bindings.get(place).copied())
}

/// Runs the preparation of a step's kernel: the bytes of its packed buffers.
///
/// # Errors
/// Where the program does not verify, or a constant that is to be packed is none.
pub fn prepare_constants(
    plan: &Plan,
    step: &Step,
    table: &'static KernelTable,
    pool: &Pool,
) -> Result<Vec<(BufferId, AlignedBytes)>, RuntimeError> {
    let kernel = plan.kernel(step);
    let Some(code) = &kernel.preparation else { return Ok(vec![]) };
    let nest = &kernel.scheduled;
    let compiled = Arc::new(program(code, table).map_err(RuntimeError::defect)?);
    let (mut inputs, mut packed, mut bindings) = (vec![], vec![], vec![]);
    for (at, &buffer) in code.bindings.iter().enumerate() {
        match param_value(step, &nest.params, buffer) {
            Some(value) => {
                let Place::Constant(tensor) = &plan.values[value].place else {
                    return Err(RuntimeError::Defect(format!(
                        "kernel '{}' packs what is no constant",
                        kernel.name
                    )));
                };
                bindings.push(Binding { region: Region::Input(inputs.len()), offset_bytes: 0 });
                inputs.push(AlignedInput::at(tensor.bytes(), compiled.alignment(at)));
            }
            None => {
                let declared = &nest.pool.buffers[buffer];
                let bytes = AlignedBytes::zeroed(declared.storage_len() * declared.dtype.size_bytes());
                bindings.push(Binding { region: Region::Output(packed.len()), offset_bytes: 0 });
                packed.push((buffer, bytes));
            }
        }
    }
    let extents = Extents {
        inputs: inputs.iter().map(|input| input.bytes().len()).collect(),
        outputs: packed.iter().map(|(_, bytes)| bytes.len()).collect(),
        ..Extents::default()
    };
    let steps = vec![ProgramStep { program: compiled, bindings }];
    let mut sequence = Sequence::new(steps, vec![], extents).map_err(RuntimeError::defect)?;
    {
        let slices: Vec<&[u8]> = inputs.iter().map(AlignedInput::bytes).collect();
        let mut outputs: Vec<&mut [u8]> = packed.iter_mut().map(|(_, bytes)| &mut bytes[..]).collect();
        let memory = Memory { inputs: &slices, outputs: &mut outputs };
        sequence.run(pool, memory, None).map_err(RuntimeError::run)?;
    }
    Ok(packed)
}

/// A tensor's bytes at an address that a program can read them from: as they are where that is so, else copied.
enum AlignedInput<'a> {
    InPlace(&'a [u8]),
    Copied(AlignedBytes),
}

impl AlignedInput<'_> {
    fn new(tensor: &Tensor) -> AlignedInput<'_> {
        AlignedInput::at(tensor.bytes(), tensor.dtype().size_bytes())
    }

    fn at(bytes: &[u8], alignment: usize) -> AlignedInput<'_> {
        if bytes.as_ptr().addr().is_multiple_of(alignment) {
            AlignedInput::InPlace(bytes)
        } else {
            AlignedInput::Copied(AlignedBytes::copy_of(bytes))
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            AlignedInput::InPlace(bytes) => bytes,
            AlignedInput::Copied(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::detect;
    use super::*;
    use crate::graph::Graph;
    use crate::ops::{Fact, MatMul};
    use crate::plan::Place;
    use crate::tensor::DType;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Bytes that say when they are no longer needed.
    struct Weights(Vec<u8>, Arc<AtomicBool>);

    impl AsRef<[u8]> for Weights {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Weights {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn packed_weights_leave_the_plan() {
        let dropped = Arc::new(AtomicBool::new(false));
        let values: Vec<u8> = (0..24 * 40).flat_map(|i| (i as f32).to_le_bytes()).collect();
        // At an address that is not aligned, as in a file.
        let owner = Weights([&[0], &values[..]].concat(), dropped.clone());
        let weights = Tensor::new(DType::F32, vec![24, 40], Bytes::from_owner(owner).slice(1..)).unwrap();
        let mut graph = Graph::new("product");
        let x = graph.add_input("x", Fact { dtype: DType::F32, shape: vec![3, 24] });
        let w = graph.add_constant("w", weights);
        let y = graph.add_node("product", MatMul::default(), &[x, w], &["y"]).unwrap();
        graph.add_output("y", y[0]);
        let target = detect(Some(2));
        let device = crate::compiler::Device::Cpu(target.clone());
        let mut plan = crate::compiler::compile(&graph, &device, &mut Default::default()).unwrap();
        drop(graph);
        let mut executor = CpuExecutor::new(&mut plan, &target).unwrap();
        assert!(dropped.load(Ordering::Relaxed));
        assert!(plan.values.iter().all(|value| !matches!(value.place, Place::Constant(_))));
        let x = Tensor::from_fn(DType::F32, &[3, 24], |i| f64::from(i % 24 == i / 24));
        let run = executor.run(&plan, &[x], false).unwrap();
        assert_eq!(run.outputs[0], Tensor::from_fn(DType::F32, &[3, 40], |i| i as f64));

        // Outputs that are kept stay as they are, and the memory of others is used again.
        let kept = run.outputs;
        let zeros = Tensor::from_fn(DType::F32, &[3, 24], |_| 0.0);
        let run = executor.run(&plan, std::slice::from_ref(&zeros), false).unwrap();
        assert_eq!(kept[0], Tensor::from_fn(DType::F32, &[3, 40], |i| i as f64));
        assert_eq!(run.outputs[0], Tensor::from_fn(DType::F32, &[3, 40], |_| 0.0));
        let place = run.outputs[0].bytes().as_ptr();
        drop(run);
        let run = executor.run(&plan, &[zeros], false).unwrap();
        assert_eq!(run.outputs[0].bytes().as_ptr(), place);
    }
}
