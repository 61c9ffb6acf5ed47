//! One nest as a plan of its own: what is written by hand, tried by a tuner, or reproduced from a report.

use super::{CompileError, Device, Timings, build, emit_preparation};
use crate::analysis::verify_races;
use crate::base::Id;
use crate::codegen::{cpu, wgsl};
use crate::loopir::{Nest, Role};
use crate::ops::Fact;
use crate::plan::{Code, Kernel, Output, Place, Plan, Step, Value};
use crate::schedule::Trace;
use crate::tensor::{MemoryLayout, Tensor};

/// A plan that runs `nest` once. Its inputs and outputs are the nest's, under the names of the buffers; `constants` are the
/// nest's constants, in order. It is scheduled by `trace`, or by the analytic rule where that is `None`.
///
/// # Errors
/// When the nest is not valid, has a race, or does not fit the constants; when a step of the trace does not apply or what it
/// makes of the nest does not run on the device. A schedule that is given is never exchanged for another.
pub fn compile_nest(
    nest: &Nest,
    constants: &[Tensor],
    trace: Option<&Trace>,
    device: &Device,
) -> Result<Plan, CompileError> {
    let invalid = |reason: String| CompileError::Nest { nest: nest.name.clone(), reason };
    verify(nest).map_err(invalid)?;
    let kernel = match trace {
        None => build(nest.clone(), nest.structural_hash(), device, &nest.name, &mut Timings::default())?,
        Some(trace) => scheduled_by(nest, trace, device)?,
    };
    let mut plan = Plan { name: nest.name.clone(), ..Plan::default() };
    let mut constants = constants.iter();
    for &param in &nest.params {
        let buffer = &nest.pool.buffers[param];
        let fact = Fact::new(buffer.dtype, &buffer.shape);
        let place = match buffer.role {
            Role::Input => Place::Input(plan.inputs.len()),
            Role::Output => Place::Output(plan.outputs.len()),
            Role::Constant => {
                let tensor = constants.next().filter(|tensor| Fact::of(tensor) == fact).ok_or_else(|| {
                    invalid(format!("a constant for buffer '{}: {fact}' is missing", buffer.name))
                })?;
                Place::Constant(tensor.clone())
            }
            Role::Local | Role::Packed => return Err(invalid("a local buffer is a parameter".into())),
        };
        let value =
            plan.values.push(Value { name: buffer.name.clone(), fact, layout: MemoryLayout::Rows, place });
        match buffer.role {
            Role::Input => plan.inputs.push(value),
            Role::Output => plan.outputs.push(Output { name: buffer.name.clone(), value }),
            Role::Constant | Role::Local | Role::Packed => {}
        }
    }
    let bindings = plan.values.ids().collect();
    plan.steps.push(Step { origin: nest.name.clone(), kernel: Id::new(0), bindings, flop: 0 });
    plan.kernels.push(kernel);
    Ok(plan)
}

/// What keeps a nest from being run at all.
fn verify(nest: &Nest) -> Result<(), String> {
    let list = |errors: Vec<String>| errors.join("; ");
    nest.verify().map_err(|errors| list(errors.iter().map(ToString::to_string).collect()))?;
    verify_races(nest).map_err(|errors| list(errors.iter().map(ToString::to_string).collect()))
}

fn scheduled_by(nest: &Nest, trace: &Trace, device: &Device) -> Result<Kernel, CompileError> {
    let mut scheduled = nest.clone();
    trace.apply(&mut scheduled)?;
    let emit = |reason: String| CompileError::Emit { origin: nest.name.clone(), reason };
    verify(&scheduled).map_err(|reason| emit(format!("after its schedule: {reason}")))?;
    let code = match device {
        Device::Reference => Code::Interpreted,
        Device::Cpu(_) => Code::Cpu(cpu::emit(&scheduled).map_err(|error| emit(error.to_string()))?),
        Device::Gpu(target, _) => {
            Code::Gpu(wgsl::emit(&scheduled, target).map_err(|error| emit(error.to_string()))?)
        }
    };
    let preparation = match device {
        Device::Reference => None,
        Device::Cpu(_) | Device::Gpu(..) => emit_preparation(&scheduled, &nest.name)?,
    };
    let hash = nest.structural_hash();
    Ok(Kernel {
        name: format!("{}_{}", nest.name, &hash.to_string()[..8]),
        hash,
        nest: nest.clone(),
        scheduled,
        trace: trace.clone(),
        preparation,
        code,
        fallback: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::cpu::{CpuExecutor, detect};
    use crate::tensor::DType;

    const DOUBLE: &str =
        "nest double\n  in    x: f32[8]\n  out   y: f32[8]\n  for i in 8:\n    twice: y[i] = x[i] * 2.0\n";

    fn on_cpu(nest: &str, trace: &str) -> Result<Plan, CompileError> {
        let (nest, trace) = (Nest::parse(nest).unwrap(), Trace::parse(trace).unwrap());
        compile_nest(&nest, &[], Some(&trace), &Device::Cpu(detect(Some(2))))
    }

    #[test]
    fn a_nest_runs_with_its_schedule() {
        let mut plan = on_cpu(DOUBLE, "split i = [_, 4]\nparallel i.0").unwrap();
        let x = Tensor::from_fn(DType::F32, &[8], |i| i as f64);
        let run = CpuExecutor::new(&mut plan, &detect(Some(2))).unwrap().run(&plan, &[x], false).unwrap();
        assert_eq!(run.outputs, [Tensor::from_fn(DType::F32, &[8], |i| 2.0 * i as f64)]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(on_cpu(DOUBLE, "parallel j"), Err(CompileError::Schedule(_))));
        assert!(matches!(on_cpu(DOUBLE, "bind i workgroup.x"), Err(CompileError::Emit { .. })));
        let racing = DOUBLE.replace("for i in 8:", "for i in 8 parallel:").replace("y[i]", "y[0]");
        if let Ok(nest) = Nest::parse(&racing) {
            let refused = compile_nest(&nest, &[], None, &Device::Cpu(detect(Some(2))));
            assert!(matches!(refused, Err(CompileError::Nest { .. })), "{refused:?}");
        }
    }
}
