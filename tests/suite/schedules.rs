//! Any legal schedule is right: random traces of the primitives on small computations, compared with the unscheduled nest.
//!
//! A trace is drawn step by step; what a step refuses is left out. What is kept must verify and be free of races, give the
//! same in the interpreter with all checks on, and the same from the code that is emitted for the processor and the adapter.
//!
//! `SCHEDULE_CASES=N` draws N times as many traces; `SCHEDULE_SEED=N` only the one of that seed, as a failure prints it.

mod draw;
mod problems;

use super::support::{Device, note};
use draw::Side;
use paisley::analysis::verify_races;
use paisley::base::Random;
use paisley::interp;
use paisley::loopir::Nest;
use paisley::schedule::Trace;
use paisley::tensor::{Tensor, Tolerance, compare};
use problems::{Family, Problem};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Failures after which a test stops.
const ENOUGH: usize = 3;

/// Iterations of a nest that is still run.
const MANY: usize = 1 << 20;

/// How a case ended that did not fail.
#[derive(Default)]
struct Counts {
    steps: usize,
    compared: usize,
    emission_refused: usize,
    /// Right in the interpreter, but not shown to be safe to run.
    unproved: usize,
}

/// What went wrong, with the nest at that point.
struct Failure {
    what: String,
    trace: Trace,
    scheduled: Option<Box<Nest>>,
}

/// The iterations of the loop that runs most often, those that a guard leaves empty included.
fn iterations(nest: &Nest) -> usize {
    let mut most = 0;
    nest.visit_loops(&mut |of, around| {
        let loops = around.iter().copied().chain([of]);
        let extents = loops.map(|of| nest.pool.vars[of.var].extent);
        most = most.max(extents.fold(1, usize::saturating_mul));
    });
    most
}

/// Applies 3 to 10 random steps.
fn scheduled(problem: &Problem, side: Side, rng: &mut Random) -> Result<(Trace, Nest), Failure> {
    let mut nest = problem.nest.clone();
    let mut trace = Trace::default();
    let wanted = 3 + rng.below(8);
    for _ in 0..20 * wanted {
        if trace.steps.len() == wanted {
            break;
        }
        let step = draw::step(&nest, side, rng);
        let applied = catch_unwind(AssertUnwindSafe(|| {
            let mut changed = nest.clone();
            step.apply(&mut changed).map(|()| changed)
        }));
        match applied {
            // Guarded tails of tails multiply: what the interpreter would take minutes for is left out.
            Ok(Ok(changed)) if iterations(&changed) > MANY => {}
            Ok(Ok(changed)) => {
                trace.steps.push(step);
                // A step that makes an invalid nest is to be found at once, not in what later steps make of it.
                if let Err(errors) = changed.verify() {
                    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    let what = format!("the nest does not verify: {}", errors.join("; "));
                    return Err(Failure { what, trace, scheduled: Some(changed.into()) });
                }
                nest = changed;
            }
            Ok(Err(_refused)) => {}
            Err(_) => {
                let what = format!("the step '{step}' panics");
                return Err(Failure { what, trace, scheduled: Some(nest.into()) });
            }
        }
    }
    Ok((trace, nest))
}

/// `actual` with NaN where `expected` has it, the mean of no elements for example: WGSL lets an implementation assume that no
/// value is NaN, so that anything may come of one.
fn with_nan_of(actual: &Tensor, expected: &Tensor) -> Tensor {
    if actual.shape() != expected.shape() {
        return actual.clone();
    }
    Tensor::from_fn(actual.dtype(), actual.shape(), |at| {
        if expected.get_f64(at).is_nan() { f64::NAN } else { actual.get_f64(at) }
    })
}

fn case(problem: &Problem, side: Side, rng: &mut Random, counts: &mut Counts) -> Result<(), Failure> {
    let (trace, nest) = scheduled(problem, side, rng)?;
    counts.steps += trace.steps.len();
    let fail = |what: String| Failure { what, trace: trace.clone(), scheduled: Some(nest.clone().into()) };
    let parsed = Trace::parse(&trace.to_string()).map_err(|error| fail(error.to_string()))?;
    if parsed != trace {
        return Err(fail("the trace does not survive being printed".into()));
    }
    let text = nest.to_string();
    let again =
        Nest::parse(&text).map_err(|error| fail(format!("the nest's text does not parse: {error}")))?;
    if again.structural_hash() != nest.structural_hash() {
        return Err(fail("the nest does not survive being printed".into()));
    }
    let params = problem.params();
    let expected =
        interp::run(&problem.nest, &params).map_err(|error| fail(format!("unscheduled: {error}")))?;
    let same = |outputs: &[Tensor]| {
        outputs.iter().zip(&expected).all(|(a, b)| compare(a, b, Tolerance::KERNEL_F32).within)
            && outputs.len() == expected.len()
    };
    let interpreted = interp::run(&nest, &params).map_err(|error| fail(format!("interpreted: {error}")))?;
    if !same(&interpreted) {
        return Err(fail(format!("the interpreter gives {interpreted:?}, not {expected:?}")));
    }
    let device = match side {
        Side::Cpu => Device::Cpu,
        Side::Gpu => Device::Gpu,
    };
    let plan = match device.compile_nest(&problem.nest, &problem.constants, &trace) {
        Ok(plan) => plan,
        Err(reason) => match side {
            // Races are excluded more strictly than they occur.
            _ if verify_races(&nest).is_err() => {
                counts.unproved += 1;
                return Ok(());
            }
            Side::Cpu => return Err(fail(format!("no CPU program: {reason}"))),
            // A random trace may ask for more workgroup memory or another structure than shaders have.
            Side::Gpu => {
                counts.emission_refused += 1;
                return Ok(());
            }
        },
    };
    let outputs = match device.run(&plan, &problem.inputs) {
        Ok(outputs) if side == Side::Gpu => {
            outputs.iter().zip(&expected).map(|(actual, expected)| with_nan_of(actual, expected)).collect()
        }
        Ok(outputs) => outputs,
        Err(reason) if reason.contains("is not proved to stay inside") => {
            counts.unproved += 1;
            return Ok(());
        }
        Err(reason) => return Err(fail(reason)),
    };
    if !same(&outputs) {
        return Err(fail(format!("the {} gives {outputs:?}, not {expected:?}", device.name())));
    }
    counts.compared += 1;
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

fn check(family: Family, side: Side, cases: u64) {
    if side == Side::Gpu && !Device::Gpu.is_there() {
        return;
    }
    let seeds = match number("SCHEDULE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..cases * number("SCHEDULE_CASES").unwrap_or(1),
    };
    let mut counts = Counts::default();
    let mut failures = vec![];
    for seed in seeds.clone() {
        let mut rng = Random::new(seed ^ (family as u64) << 32 ^ (side as u64) << 40);
        let problem = Problem::draw(family, &mut rng);
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&problem, side, &mut rng, &mut counts)));
        let failure = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(failure)) => failure,
            Err(_) => Failure { what: "panic".into(), trace: Trace::default(), scheduled: None },
        };
        let scheduled = failure.scheduled.map_or(String::new(), |nest| nest.to_string());
        failures.push(format!(
            "--- SCHEDULE_SEED={seed}: {}\n{}\n{}\n{scheduled}",
            failure.what, problem.nest, failure.trace
        ));
        if failures.len() == ENOUGH {
            break;
        }
    }
    note(format!(
        "schedules, {family:?} on {side:?}: {} of {} compared, {} steps, {} not shown to be safe, {} refused by the emitter",
        counts.compared,
        seeds.end - seeds.start,
        counts.steps,
        counts.unproved,
        counts.emission_refused
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

macro_rules! families {
    ($($name:ident: $family:ident),* $(,)?) => {
        mod on_the_cpu {
            use super::*;
            $(#[test] fn $name() { check(Family::$family, Side::Cpu, 60); })*
        }
        mod on_the_gpu {
            use super::*;
            $(#[test] fn $name() { check(Family::$family, Side::Gpu, 12); })*
        }
    };
}

families! {
    matmul: Matmul,
    convolution: Convolution,
    winograd: Winograd,
    softmax: Softmax,
    layer_norm: LayerNorm,
    pooling: Pooling,
    reduction: Reduction,
    elementwise: Elementwise,
}
