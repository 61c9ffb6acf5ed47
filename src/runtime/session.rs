//! A plan on a device, ready to run again and again.

use super::cpu::CpuExecutor;
use super::gpu::GpuExecutor;
use super::{OpenDevice, Run, RuntimeError, reference};
use crate::base::fits_memory;
use crate::expr::Role;
use crate::plan::{Code, Kernel, Place, Plan, Value};
use crate::tensor::Tensor;
use std::fmt;

/// A model compiled for a device and resident there. It keeps its memory between runs; one run at a time.
pub struct Session {
    plan: Plan,
    device: OpenDevice,
    executor: Executor,
    last: Option<(usize, u64)>,
}

enum Executor {
    Reference,
    Cpu(Box<CpuExecutor>),
    Gpu(Box<GpuExecutor>),
}

/// Which steps run where, and what is moved between host and device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Steps on the adapter.
    pub gpu_steps: usize,
    /// Steps that are programs on the processor.
    pub cpu_steps: usize,
    /// Steps of the interpreter.
    pub host_steps: usize,
    /// Distinct kernels.
    pub kernels: usize,
    /// Copies between host and adapter in the last run; `None` before the first.
    pub copies: Option<usize>,
    /// Their bytes.
    pub copied_bytes: Option<u64>,
    /// The model's nodes that do not run on the adapter, and why.
    pub fallbacks: Vec<(String, String)>,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Placement { gpu_steps, cpu_steps, host_steps, kernels, copies, copied_bytes, fallbacks: _ } =
            self;
        write!(f, "{gpu_steps} steps on the GPU, {cpu_steps} on the CPU, {host_steps} on the host")?;
        write!(f, " ({kernels} distinct kernels)")?;
        match (copies, copied_bytes) {
            (Some(copies), Some(bytes)) => write!(f, "; {copies} copies of {bytes} bytes in all"),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// Bytes that a plan takes on the host: its values, constants aside, as they are there already, and what its CPU programs keep
/// for themselves on each thread.
fn host_bytes(plan: &Plan, device: &OpenDevice) -> usize {
    let own = |value: &Value| match (&value.place, device) {
        (Place::Constant(_) | Place::Resident | Place::Within { .. }, _) => 0,
        (Place::Arena { .. }, OpenDevice::Cpu(_) | OpenDevice::Gpu(..)) => 0,
        (Place::Arena { .. }, OpenDevice::Reference) | (Place::Input(_) | Place::Output(_), _) => {
            value.storage_bytes()
        }
    };
    let (arena, threads) = match device {
        OpenDevice::Reference => (0, 1),
        OpenDevice::Cpu(target) => (plan.arena_bytes, target.threads),
        OpenDevice::Gpu(_, cpu) => (0, cpu.threads),
    };
    let locals = |kernel: &Kernel| match &kernel.code {
        Code::Cpu(_) => {
            let buffers = kernel.scheduled.pool.buffers.iter();
            let local = buffers.filter(|buffer| buffer.role == Role::Local);
            let bytes = local.map(|buffer| buffer.storage_len().saturating_mul(buffer.dtype.size_bytes()));
            bytes.fold(0, usize::saturating_add).saturating_mul(threads)
        }
        Code::Gpu(_) | Code::Interpreted => 0,
    };
    let largest = plan.kernels.iter().map(locals).max().unwrap_or(0);
    plan.values.iter().map(own).fold(arena.saturating_add(largest), usize::saturating_add)
}

impl Session {
    /// Makes `plan`, which was compiled for `device`, ready to run there: constants are packed and uploaded, pipelines built.
    ///
    /// # Errors
    /// When the device fails or refuses, the plan is for another one, or its values do not fit in memory.
    pub fn new(mut plan: Plan, device: &OpenDevice) -> Result<Session, RuntimeError> {
        let bytes = host_bytes(&plan, device);
        if !fits_memory(bytes) {
            return Err(RuntimeError::Memory { bytes });
        }
        let executor = match device {
            OpenDevice::Reference => Executor::Reference,
            OpenDevice::Cpu(target) => Executor::Cpu(Box::new(CpuExecutor::new(&mut plan, target)?)),
            OpenDevice::Gpu(gpu, cpu) => Executor::Gpu(Box::new(GpuExecutor::new(&plan, gpu, cpu)?)),
        };
        Ok(Session { plan, device: device.clone(), executor, last: None })
    }

    /// What is executed.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where.
    pub fn device(&self) -> &OpenDevice {
        &self.device
    }

    /// Runs once with the inputs of these names, in any order; gives the outputs with their names, in the model's order.
    ///
    /// # Errors
    /// When an input is missing, unknown, given twice or of another type or shape; when the device fails; when an index read
    /// from data is out of range.
    pub fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let ordered = self.ordered(inputs)?;
        let run = self.run_ordered(&ordered, false)?;
        let names = self.plan.outputs.iter().map(|output| output.name.clone());
        Ok(names.zip(run.outputs).collect())
    }

    /// The inputs in the plan's order, checked.
    ///
    /// # Errors
    /// When they are not those of the model.
    pub fn ordered(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>, RuntimeError> {
        let refuse = |name: &str, problem: String| RuntimeError::Input { name: name.to_string(), problem };
        let names: Vec<String> = self.plan.inputs.iter().map(|&value| self.describe(value)).collect();
        let wanted = if names.is_empty() { "none".to_string() } else { names.join(", ") };
        for (i, (name, _)) in inputs.iter().enumerate() {
            if !self.plan.inputs.iter().any(|&value| self.plan.values[value].name == *name) {
                return Err(refuse(name, format!("the model has no such input; its inputs are {wanted}")));
            }
            if inputs[..i].iter().any(|(other, _)| other == name) {
                return Err(refuse(name, "it is given twice".into()));
            }
        }
        self.plan
            .inputs
            .iter()
            .map(|&value| {
                let (name, fact) = (&self.plan.values[value].name, &self.plan.values[value].fact);
                let given = inputs.iter().find(|(given, _)| given == name);
                let (_, tensor) =
                    given.ok_or_else(|| refuse(name, format!("it is missing; the model wants {fact}")))?;
                if tensor.dtype() != fact.dtype || tensor.shape() != fact.shape {
                    let problem = format!(
                        "the model wants {fact}, but {}{:?} was given",
                        tensor.dtype(),
                        tensor.shape()
                    );
                    return Err(refuse(name, problem));
                }
                Ok(tensor.clone())
            })
            .collect()
    }

    fn describe(&self, value: crate::plan::ValueId) -> String {
        format!("{}: {}", self.plan.values[value].name, self.plan.values[value].fact)
    }

    /// Runs once with inputs that [`ordered`](Self::ordered) gave; `profile` asks where the time goes.
    ///
    /// # Errors
    /// When the device fails, or an index read from data is out of range.
    pub fn run_ordered(&mut self, inputs: &[Tensor], profile: bool) -> Result<Run, RuntimeError> {
        let run = match &mut self.executor {
            Executor::Reference => reference::run(&self.plan, inputs)?,
            Executor::Cpu(executor) => executor.run(&self.plan, inputs, profile)?,
            Executor::Gpu(executor) => executor.run(&self.plan, inputs, profile)?,
        };
        self.last = Some((run.copies, run.copied_bytes));
        Ok(run)
    }

    /// What runs where.
    pub fn placement(&self) -> Placement {
        let mut placement = Placement {
            gpu_steps: 0,
            cpu_steps: 0,
            host_steps: 0,
            kernels: self.plan.kernels.len(),
            copies: self.last.map(|(copies, _)| copies),
            copied_bytes: self.last.map(|(_, bytes)| bytes),
            fallbacks: vec![],
        };
        for step in &self.plan.steps {
            let kernel = self.plan.kernel(step);
            match kernel.code {
                Code::Gpu(_) => placement.gpu_steps += 1,
                Code::Cpu(_) => placement.cpu_steps += 1,
                Code::Interpreted => placement.host_steps += 1,
            }
            if let Some(reason) = &kernel.fallback {
                placement.fallbacks.push((step.origin.clone(), reason.clone()));
            }
        }
        placement
    }
}
