//! `paisley check`.

use super::arguments::{ModelArguments, TargetArguments};
use super::error::{Answer, CliError};
use super::inputs;
use super::prepare;
use super::report::{self, Progress};
use crate::compiler::{self, CompileError, Device, Timings};
use crate::graph::Graph;
use crate::onnx::{Model, Problem, ProblemKind};
use crate::plan::{Code, Plan};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Says everything that would keep a model from running, at once and before running it: operators, attributes and types that
/// are not supported, dimensions that must be given, and for each device what it could not run and which limits are hit.
///
/// The exit code is 1 where the model would not run. A kernel that an adapter cannot run but the CPU can is no such thing: it is
/// listed with its reason.
#[derive(Args)]
#[command(after_help = "Examples:
  paisley check model.onnx
  paisley check model.onnx --device cpu,gpu --shape input=1x3x224x224
  paisley check model.onnx --profile mobile         (a preset, or a file of `paisley devices --save`)")]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    target: TargetArguments,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What a device would do with the model.
struct Verdict {
    device: String,
    problems: Vec<Problem>,
    plan: Option<Plan>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, CliError> {
    let model = prepare::read(&arguments.model)?;
    let (graph, problems, notes) = graph(&model, &arguments.model);
    let mut verdicts = vec![];
    if let Some(graph) = &graph {
        for (name, device) in arguments.target.targets()? {
            let progress = Progress::new(&format!("compiling for {name}"));
            verdicts.push(verdict(graph, name, &device));
            progress.done();
        }
    }
    let runs = problems.is_empty() && verdicts.iter().all(|verdict| verdict.problems.is_empty());
    let path = arguments.model.model.display().to_string();
    if arguments.json {
        report::print_json(&json!({
            "model": path,
            "runs": runs,
            "opset": model.opset(),
            "problems": problems.iter().map(problem_json).collect::<Vec<_>>(),
            "notes": notes,
            "devices": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut text = format!(
            "{path}: opset {}, {} of weights\n",
            model.opset(),
            report::bytes(model.weight_bytes() as u64)
        );
        notes.iter().for_each(|note| text += &format!("  note: {note}\n"));
        text += &problem_list("the model", &problems);
        for verdict in &verdicts {
            text += &verdict.text();
        }
        text += if runs { "it would run\n" } else { "it would NOT run\n" };
        report::print(&text)?;
    }
    Ok(runs.into())
}

/// The graph, or every problem with it, and what was assumed.
fn graph(model: &Model, arguments: &ModelArguments) -> (Option<Graph>, Vec<Problem>, Vec<String>) {
    match inputs::gather(model, arguments) {
        Ok(given) => match model.graph(&given.bindings) {
            Ok(graph) => (Some(graph), vec![], given.notes),
            Err(error) => (None, error.problems, given.notes),
        },
        Err(error) => {
            let binding = Problem {
                kind: ProblemKind::Binding,
                place: "the inputs".into(),
                reason: error.to_string(),
                remedy: String::new(),
            };
            (None, model.check().into_iter().chain([binding]).collect(), vec![])
        }
    }
}

fn verdict(graph: &Graph, device: String, target: &Device) -> Verdict {
    let place = |origin: String, reason: String| Problem {
        kind: ProblemKind::Unsupported,
        place: format!("node {origin}"),
        reason,
        remedy: String::new(),
    };
    match compiler::compile(graph, target, &mut Timings::default()) {
        Ok(plan) => Verdict { device, problems: limits(&plan, target), plan: Some(plan) },
        Err(first) => {
            let mut all = compiler::problems(graph, target);
            if all.is_empty() {
                all.push(first);
            }
            let problem = |error| match error {
                CompileError::Define { origin, reason } | CompileError::Emit { origin, reason } => {
                    place(origin, reason)
                }
                CompileError::Nest { .. } | CompileError::Schedule(_) | CompileError::Defect(_) => {
                    place("unknown".into(), error.to_string())
                }
            };
            Verdict { device, problems: all.into_iter().map(problem).collect(), plan: None }
        }
    }
}

/// Memory that an adapter does not give in one piece.
fn limits(plan: &Plan, device: &Device) -> Vec<Problem> {
    let Device::Gpu(target, _) = device else { return vec![] };
    let limit = target.limits.max_buffer_bytes;
    let values =
        plan.values.iter().map(|value| (format!("value `{}`", value.name), 4 * value.storage_len() as u64));
    let all = values.chain([("the intermediate values together".to_string(), plan.arena_bytes as u64)]);
    all.filter(|(_, bytes)| *bytes > limit)
        .map(|(place, bytes)| Problem {
            kind: ProblemKind::Unsupported,
            place,
            reason: format!(
                "{} do not fit the largest buffer of {}",
                report::bytes(bytes),
                report::bytes(limit)
            ),
            remedy: "take a smaller batch, or another device".into(),
        })
        .collect()
}

impl Verdict {
    /// How many steps run where.
    fn steps(&self) -> BTreeMap<&'static str, usize> {
        let mut steps = BTreeMap::new();
        if let Some(plan) = &self.plan {
            for step in &plan.steps {
                *steps.entry(plan.kernel(step).code.device()).or_default() += 1;
            }
        }
        steps
    }

    /// Nodes that do not run on the adapter, and why.
    fn fallbacks(&self) -> Vec<(&str, &str)> {
        let Some(plan) = &self.plan else { return vec![] };
        let steps = plan.steps.iter();
        steps
            .filter_map(|step| Some((step.origin.as_str(), plan.kernel(step).fallback.as_deref()?)))
            .collect()
    }

    /// Kernels whose accesses are checked while they run, as they could not be proved in range.
    fn checked(&self) -> usize {
        let kernels = self.plan.iter().flat_map(|plan| plan.kernels.iter());
        let unproved = |code: &Code| match code {
            Code::Gpu(kernels) => kernels.iter().any(|kernel| !kernel.bounds_proved),
            Code::Cpu(_) | Code::Interpreted => false,
        };
        kernels.filter(|kernel| unproved(&kernel.code)).count()
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.device);
        if let Some(plan) = &self.plan {
            let steps: Vec<String> =
                self.steps().iter().map(|(device, count)| format!("{count} on {device}")).collect();
            text += &format!(
                "  steps: {}; {} distinct kernels\n  memory: {} of constants, {} of intermediate values\n",
                if steps.is_empty() { "none".into() } else { steps.join(", ") },
                plan.kernels.len(),
                report::bytes(plan.constant_bytes() as u64),
                report::bytes(plan.arena_bytes as u64),
            );
            if self.checked() > 0 {
                text += &format!("  {} kernels check some accesses while they run\n", self.checked());
            }
        }
        for (origin, reason) in self.fallbacks() {
            text += &format!("  on the CPU: {origin}: {reason}\n");
        }
        text + &problem_list("this device", &self.problems)
    }

    fn json(&self) -> Value {
        let fallback = |(origin, reason): &(&str, &str)| json!({ "node": origin, "reason": reason });
        json!({
            "device": self.device,
            "runs": self.problems.is_empty(),
            "problems": self.problems.iter().map(problem_json).collect::<Vec<_>>(),
            "steps": self.steps(),
            "kernels": self.plan.as_ref().map(|plan| plan.kernels.len()),
            "kernels_with_checked_accesses": self.checked(),
            "constant_bytes": self.plan.as_ref().map(Plan::constant_bytes),
            "arena_bytes": self.plan.as_ref().map(|plan| plan.arena_bytes),
            "fallbacks": self.fallbacks().iter().map(fallback).collect::<Vec<_>>(),
        })
    }
}

fn problem_list(of: &str, problems: &[Problem]) -> String {
    match problems.len() {
        0 => String::new(),
        count => {
            let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}\n")).collect();
            format!("{count} problem{} with {of}:\n{}", if count == 1 { "" } else { "s" }, lines.concat())
        }
    }
}

fn problem_json(problem: &Problem) -> Value {
    let kind = match problem.kind {
        ProblemKind::Invalid => "invalid",
        ProblemKind::Unsupported => "unsupported",
        ProblemKind::Binding => "binding",
    };
    json!({ "kind": kind, "place": problem.place, "reason": problem.reason, "remedy": problem.remedy })
}
