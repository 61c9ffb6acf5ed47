//! Running plans in the interpreter: slow, and right by definition.

use super::{Run, RuntimeError};
use crate::expr::Role;
use crate::interp;
use crate::plan::{Place, Plan, ValueId};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// Runs every step's unscheduled nest in the interpreter.
///
/// # Errors
/// Where an index read from data is out of range.
pub fn run(plan: &Plan, inputs: &[Tensor]) -> Result<Run, RuntimeError> {
    let mut made: HashMap<ValueId, Tensor> =
        plan.inputs.iter().copied().zip(inputs.iter().cloned()).collect();
    let options = interp::Options { check_races: false, check_uninitialised: false };
    let value = |made: &HashMap<ValueId, Tensor>, id: ValueId| match (&plan.values[id].place, made.get(&id)) {
        (_, Some(tensor)) => Ok(tensor.clone()),
        (Place::Constant(tensor), None) => Ok(tensor.clone()),
        (
            Place::Input(_) | Place::Resident | Place::Arena { .. } | Place::Output(_) | Place::Within { .. },
            None,
        ) => Err(RuntimeError::Defect(format!("value '{}' was not made", plan.values[id].name))),
    };
    for step in &plan.steps {
        let nest = &plan.kernel(step).nest;
        let mut params = vec![];
        for (&id, &param) in step.bindings.iter().zip(&nest.params) {
            let buffer = &nest.pool.buffers[param];
            if buffer.role != Role::Output {
                let tensor = value(&made, id)?;
                // A nest may walk through merged dimensions.
                let shaped = tensor.reshaped(&buffer.shape);
                params
                    .push(shaped.ok_or_else(|| {
                        RuntimeError::Defect(format!("'{}' has another size", buffer.name))
                    })?);
            }
        }
        let outputs = interp::run_with(nest, &params, options).map_err(RuntimeError::run)?;
        for (id, tensor) in plan.written(step).zip(outputs) {
            let shaped = tensor.reshaped(&plan.values[id].fact.shape);
            made.insert(id, shaped.ok_or_else(|| RuntimeError::Defect("a result has another size".into()))?);
        }
    }
    let outputs = plan.outputs.iter().map(|output| value(&made, output.value)).collect::<Result<_, _>>()?;
    Ok(Run { outputs, device_ns: None, profile: None, copies: 0, copied_bytes: 0 })
}
