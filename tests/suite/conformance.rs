//! The ONNX project's node tests on every device.
//!
//! `scripts/setup-tests` generates the cases. What must hold is data, under `tests/conformance/`:
//!
//! - `operators.txt`: the operators that are implemented. A case made of these alone must pass everywhere; one with another
//!   operator may be refused as unsupported. A wrong result is a failure whatever the operator.
//! - `expectations.txt`: the exceptions, each with its reason: `refuse`, the importer says that it is unsupported; `fail`,
//!   it is wrong or does not run; `skip`, it is not tried. An exception that no longer holds is a failure too.
//!
//! `CONFORMANCE_CASE=TEXT` runs the cases whose names contain that text.

use super::support::{Device, note, read_npy, repository};
use paisley::graph::Graph;
use paisley::onnx::{Bindings, ImportError, Model, NoFolder, ProblemKind};
use paisley::tensor::{DType, Tensor, Tolerance, compare};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const DATA: &str = "target/test-data/node-tests";

/// A row of the index.
#[derive(serde::Deserialize)]
struct Case {
    case: String,
    op_types: Vec<String>,
    rtol: f64,
    atol: f64,
    #[serde(default)]
    unsupported: Option<String>,
    #[serde(default)]
    inputs: Vec<Array>,
    #[serde(default)]
    outputs: Vec<Array>,
}

#[derive(serde::Deserialize)]
struct Array {
    name: String,
    file: String,
    dtype: String,
    shape: Vec<usize>,
}

impl Array {
    fn read(&self, folder: &Path) -> Tensor {
        let dtype = match self.dtype.as_str() {
            "bool" => DType::Bool,
            "bfloat16" => DType::BF16,
            name => {
                let short = name.replace("uint", "u").replace("int", "i").replace("float", "f");
                DType::from_name(&short).unwrap_or_else(|| panic!("no element type {name}"))
            }
        };
        read_npy(&folder.join(&self.file), dtype, &self.shape)
    }
}

/// What became of a case on a device.
enum Outcome {
    Passed { steps_elsewhere: usize },
    Refused(String),
    Failed(String),
}

/// What an exception says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Refuse,
    Fail,
    Skip,
}

struct Exception {
    /// `None`: every device.
    device: Option<Device>,
    word: Word,
    pattern: String,
    reason: String,
    used: Cell<bool>,
}

impl Exception {
    fn parse(line: &str) -> Exception {
        let mut rest = line;
        let mut next = || {
            let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            rest = behind.trim_start();
            word
        };
        let name = next();
        let device = Device::ALL.into_iter().find(|device| device.name() == name);
        assert!(device.is_some() || name == "all", "no device: {line}");
        let word = match next() {
            "refuse" => Word::Refuse,
            "fail" => Word::Fail,
            "skip" => Word::Skip,
            _ => panic!("not refuse, fail or skip: {line}"),
        };
        let pattern = next().to_string();
        assert!(!pattern.is_empty() && !rest.is_empty(), "not `DEVICE WORD CASES REASON`: {line}");
        Exception { device, word, pattern, reason: rest.to_string(), used: Cell::new(false) }
    }

    fn is_for(&self, case: &str, device: Device) -> bool {
        let named = match self.pattern.strip_suffix('*') {
            Some(start) => case.starts_with(start),
            None => case == self.pattern,
        };
        named && self.device.is_none_or(|of| of == device)
    }
}

/// The lines of a list, without comments.
fn lines(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(path)).unwrap();
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_string)
        .collect()
}

/// The graph of a case, with the inputs that shapes depend on bound to the case's arrays.
fn import(case: &Case, folder: &Path, tensors: &[Tensor]) -> Result<Graph, Outcome> {
    let bytes =
        std::fs::read(folder.join("model.onnx")).map_err(|error| Outcome::Failed(error.to_string()))?;
    let model = Model::from_bytes(bytes.into(), NoFolder).map_err(|error| refused(&error))?;
    let given = || case.inputs.iter().zip(tensors);
    // Some cases leave dimensions open.
    let mut bindings = given()
        .fold(Bindings::new(), |bindings, (input, tensor)| bindings.shape(&input.name, tensor.shape()));
    let mut bound = BTreeSet::new();
    let first_refusal = loop {
        let error = match model.graph(&bindings) {
            Ok(graph) => return Ok(graph),
            Err(error) => error,
        };
        let wanted = error.problems.iter().filter(|problem| problem.kind == ProblemKind::Binding);
        let wanted: Vec<String> = wanted.map(|problem| problem.remedy.clone()).collect();
        let before = bound.len();
        for (input, tensor) in given() {
            let remedy = format!("bind the value of `{}`", input.name);
            if wanted.contains(&remedy) && bound.insert(&input.name) {
                bindings = bindings.value(&input.name, tensor.clone());
            }
        }
        if bound.len() == before {
            break error;
        }
    };
    // What a shape is computed from is not named: it can only be a list of integers.
    for (input, tensor) in given() {
        if tensor.dtype().is_integer() && tensor.shape().len() <= 1 {
            bindings = bindings.value(&input.name, tensor.clone());
        }
    }
    model.graph(&bindings).map_err(|_| refused(&first_refusal))
}

/// What becomes of a case that is not imported: only what is not supported may be refused.
fn refused(error: &ImportError) -> Outcome {
    let supported = |kind| match kind {
        ProblemKind::Unsupported => false,
        ProblemKind::Invalid | ProblemKind::Binding => true,
    };
    match error.problems.iter().find(|problem| supported(problem.kind)) {
        Some(problem) => Outcome::Failed(problem.to_string()),
        None => Outcome::Refused(error.problems[0].reason.clone()),
    }
}

fn run(case: &Case, graph: &Graph, device: Device, inputs: &[Tensor], expected: &[Tensor]) -> Outcome {
    let result = device.compile(graph).and_then(|plan| {
        let of = |id: &_| case.inputs.iter().position(|input| input.name == plan.values[*id].name);
        let inputs: Vec<Tensor> =
            plan.inputs.iter().filter_map(of).map(|place| inputs[place].clone()).collect();
        let elsewhere = |step: &&_| plan.kernel(step).fallback.is_some();
        Ok((device.run(&plan, &inputs)?, plan.steps.iter().filter(elsewhere).count()))
    });
    let (outputs, steps_elsewhere) = match result {
        Ok(result) => result,
        Err(error) => return Outcome::Failed(error),
    };
    if outputs.len() != expected.len() {
        return Outcome::Failed(format!("{} outputs, not {}", outputs.len(), expected.len()));
    }
    for ((actual, expected), output) in outputs.iter().zip(expected).zip(&case.outputs) {
        // As the ONNX project's own runner has it: two units in the last place of a bfloat16.
        let relative = if expected.dtype() == DType::BF16 { case.rtol.max(1.0 / 64.0) } else { case.rtol };
        let comparison = compare(actual, expected, Tolerance::Elementwise { absolute: case.atol, relative });
        if !comparison.within {
            let shown = match comparison.worst {
                Some(at) => format!("element {at} is {}, not {}", actual.get_f64(at), expected.get_f64(at)),
                None => format!("it is {actual:?}, not {expected:?}"),
            };
            return Outcome::Failed(format!("output `{}`: {shown}", output.name));
        }
    }
    Outcome::Passed { steps_elsewhere }
}

/// The outcomes of a case on `devices`.
fn outcomes(case: &Case, devices: &[Device]) -> Vec<Outcome> {
    if let Some(reason) = &case.unsupported {
        return devices.iter().map(|_| Outcome::Refused(reason.clone())).collect();
    }
    let folder = repository(DATA).join(&case.case);
    let read = |arrays: &[Array]| arrays.iter().map(|array| array.read(&folder)).collect::<Vec<_>>();
    let (inputs, expected) = (read(&case.inputs), read(&case.outputs));
    let guarded = |work: &dyn Fn() -> Outcome| {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Outcome::Failed(format!("panic: {}", text.unwrap_or_default()))
        })
    };
    match catch_unwind(AssertUnwindSafe(|| import(case, &folder, &inputs))) {
        Ok(Ok(graph)) => {
            devices.iter().map(|&device| guarded(&|| run(case, &graph, device, &inputs, &expected))).collect()
        }
        Ok(Err(Outcome::Refused(reason))) => {
            devices.iter().map(|_| Outcome::Refused(reason.clone())).collect()
        }
        Ok(Err(Outcome::Failed(reason))) => devices.iter().map(|_| Outcome::Failed(reason.clone())).collect(),
        Ok(Err(Outcome::Passed { .. })) => unreachable!("an import does not pass"),
        Err(_) => devices.iter().map(|_| Outcome::Failed("panic while importing".into())).collect(),
    }
}

/// Counts of one device.
#[derive(Default)]
struct Totals {
    passed: usize,
    partly_elsewhere: usize,
    failed: usize,
    expected_to_fail: usize,
    skipped: BTreeMap<String, usize>,
}

impl Totals {
    fn skip(&mut self, reason: &str) {
        *self.skipped.entry(reason.to_string()).or_default() += 1;
    }
}

#[test]
fn onnx_node_tests() {
    let Ok(index) = std::fs::read_to_string(repository(DATA).join("index.json")) else {
        note(format!("SKIPPED about 1900 cases: no ONNX node tests in {DATA}; run scripts/setup-tests"));
        return;
    };
    let mut cases: Vec<Case> = serde_json::from_str(&index).unwrap();
    let only = std::env::var("CONFORMANCE_CASE").ok();
    if let Some(text) = &only {
        cases.retain(|case| case.case.contains(text));
    }
    let operators: BTreeSet<String> = lines("tests/conformance/operators.txt").into_iter().collect();
    let exceptions: Vec<Exception> =
        lines("tests/conformance/expectations.txt").iter().map(|line| Exception::parse(line)).collect();
    let devices: Vec<Device> = Device::ALL.into_iter().filter(|device| device.is_there()).collect();
    let find = |case: &Case, device| exceptions.iter().find(|exception| exception.is_for(&case.case, device));

    let tried: Vec<Vec<Device>> = cases
        .iter()
        .map(|case| {
            let skipped =
                |device: &Device| find(case, *device).is_some_and(|exception| exception.word == Word::Skip);
            devices.iter().copied().filter(|device| !skipped(device)).collect()
        })
        .collect();
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, Vec<Outcome>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(case) = cases.get(at)
                {
                    let outcomes = outcomes(case, &tried[at]);
                    results.lock().unwrap().insert(at, outcomes);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();

    let mut totals: BTreeMap<Device, Totals> =
        devices.iter().map(|&device| (device, Totals::default())).collect();
    let mut complaints: BTreeSet<String> = BTreeSet::new();
    for (at, case) in cases.iter().enumerate() {
        for (device, totals) in &mut totals {
            let outcome = tried[at].iter().position(|of| of == device).map(|place| &results[&at][place]);
            let exception = find(case, *device);
            if let Some(exception) = exception {
                exception.used.set(true);
            }
            let place = format!("{} on {}", case.case, device.name());
            match (outcome, exception) {
                (None, exception) => totals.skip(exception.map_or("", |exception| &exception.reason)),
                (Some(Outcome::Passed { steps_elsewhere }), exception) => {
                    totals.passed += 1;
                    totals.partly_elsewhere += usize::from(*steps_elsewhere > 0);
                    if let Some(exception) = exception {
                        complaints.insert(format!(
                            "{place}: passes, but is expected to {:?}: {}",
                            exception.word, exception.reason
                        ));
                    }
                }
                (Some(Outcome::Refused(_)), Some(exception)) if exception.word == Word::Refuse => {
                    totals.skip(&exception.reason);
                }
                (Some(Outcome::Refused(reason)), _) => {
                    totals.skip(reason);
                    let implemented = case.op_types.iter().all(|op| operators.contains(op));
                    if implemented && case.unsupported.is_none() {
                        complaints.insert(format!("{place}: refused: {reason}"));
                    }
                }
                (Some(Outcome::Failed(_)), Some(exception)) if exception.word == Word::Fail => {
                    totals.expected_to_fail += 1;
                }
                (Some(Outcome::Failed(reason)), _) => {
                    totals.failed += 1;
                    complaints.insert(format!("{place}: {reason}"));
                }
            }
        }
    }
    for (at, case) in cases.iter().enumerate() {
        let passed = |outcome: &Outcome| matches!(outcome, Outcome::Passed { .. });
        if results[&at].iter().all(passed) && !results[&at].is_empty() {
            for operator in case.op_types.iter().filter(|operator| !operators.contains(*operator)) {
                complaints.insert(format!("operators.txt lacks {operator}, but {} passes", case.case));
            }
        }
    }
    if only.is_none() && devices.len() == Device::ALL.len() {
        for exception in exceptions.iter().filter(|exception| !exception.used.get()) {
            complaints.insert(format!("expectation `{}`: there is no such case", exception.pattern));
        }
    }
    for (device, totals) in &totals {
        note(format!(
            "conformance, {}: {} passed ({} with steps on another device), {} failed, {} expected to fail, {} skipped",
            device.name(),
            totals.passed,
            totals.partly_elsewhere,
            totals.failed,
            totals.expected_to_fail,
            totals.skipped.values().sum::<usize>(),
        ));
        if *device == Device::Reference {
            let mut reasons: Vec<_> = totals.skipped.iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let reasons: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            note(format!("  skipped: {}", reasons.join("; ")));
        }
    }
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
