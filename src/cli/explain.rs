//! `paisley explain`.

use super::arguments::{ModelArguments, TargetArguments};
use super::error::{Answer, CliError};
use super::prepare;
use super::report::{self, Table};
use crate::compiler::{self, Device, Timings, compile, simplify};
use crate::graph::Graph;
use crate::plan::{Code, Kernel, KernelId, Plan};
use crate::target::Rates;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// Shows what a model becomes for a device: the graph, its groups, and of each kernel the loop nest that is its meaning, the
/// trace (the schedule), the scheduled nest, and the WGSL or CPU program.
///
/// Without options: a table of the kernels with the least time that the device's rates allow (the roofline).
#[derive(Args)]
#[command(after_help = "Examples:
  paisley explain model.onnx                               the kernels
  paisley explain model.onnx --stage graph                 the graph after its passes
  paisley explain model.onnx --kernel conv --stage nest    the nests of kernels whose name has `conv`
  paisley explain model.onnx --kernel 3 --profile mobile   all of kernel 3, for a device that is not here")]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    target: TargetArguments,

    /// Kernels to show: a number of the table, or a part of the name or of a node's name
    #[arg(long, value_name = "K")]
    kernel: Option<String>,

    /// What to show
    #[arg(long, value_name = "STAGE", value_enum)]
    stage: Option<Stage>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The graph as it was imported
    Imported,
    /// The graph after its passes, as the device runs it
    Graph,
    /// The graph after its passes, for Graphviz
    Dot,
    /// The groups of nodes that become one kernel each
    Groups,
    /// The unscheduled nest
    Nest,
    /// The schedule
    Trace,
    /// The scheduled nest
    Scheduled,
    /// WGSL or CPU program
    Code,
    /// Of each kernel, everything
    All,
}

impl Stage {
    /// Whether it is asked of kernels rather than of the graph.
    fn is_of_kernels(self) -> bool {
        match self {
            Stage::Imported | Stage::Graph | Stage::Dot | Stage::Groups => false,
            Stage::Nest | Stage::Trace | Stage::Scheduled | Stage::Code | Stage::All => true,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, CliError> {
    if let (Some(_), Some(stage)) = (&arguments.kernel, arguments.stage)
        && !stage.is_of_kernels()
    {
        return Err(CliError::input("this stage is of the whole graph; leave --kernel out"));
    }
    let imported = prepare::import(&arguments.model)?;
    imported.given.notes.iter().for_each(|note| report::note(&format!("note: {note}")));
    let mut targets = arguments.target.targets()?;
    if targets.len() > 1 {
        return Err(CliError::input("--device takes one device here"));
    }
    let Some((name, device)) = targets.pop() else { return Err(CliError::input("--device names no device")) };
    let graph = simplify(&imported.graph, &device);
    let graph_stages = |stage: Stage| match stage {
        Stage::Imported => Some(imported.graph.to_string()),
        Stage::Graph => Some(graph.to_string()),
        Stage::Dot => Some(graph.to_dot()),
        Stage::Groups => Some(groups(&graph, &device)),
        Stage::Nest | Stage::Trace | Stage::Scheduled | Stage::Code | Stage::All => None,
    };
    if let (Some(text), false) = (arguments.stage.and_then(graph_stages), arguments.json) {
        report::print(&text)?;
        return Ok(Answer::Yes);
    }
    let plan = compile(&imported.graph, &device, &mut Timings::default())?;
    let chosen = chosen(&plan, arguments.kernel.as_deref())?;
    if arguments.json {
        report::print_json(&json!({
            "model": arguments.model.model.display().to_string(),
            "device": name,
            "imported": imported.graph.to_string(),
            "graph": graph.to_string(),
            "groups": groups(&graph, &device),
            "kernels": chosen.iter().map(|&id| kernel_json(&plan, id, &device)).collect::<Vec<_>>(),
        }))?;
        return Ok(Answer::Yes);
    }
    let stage = match (&arguments.kernel, arguments.stage) {
        (None, None) => {
            report::print(&overview(&plan, &name, &device))?;
            return Ok(Answer::Yes);
        }
        (_, Some(stage)) => stage,
        (Some(_), None) => Stage::All,
    };
    let parts: Vec<String> = chosen.iter().map(|&id| kernel_text(&plan, id, stage)).collect();
    report::print(&parts.join("\n"))?;
    Ok(Answer::Yes)
}

fn groups(graph: &Graph, device: &Device) -> String {
    let groups = compiler::group(graph, device);
    let lines = groups.iter().map(|group| {
        let view = if group.is_view(graph) { "  (a view: no kernel)" } else { "" };
        format!("{}{view}\n", group.describe(graph))
    });
    lines.collect()
}

/// The kernels that `--kernel` means; all of them where it is not given.
fn chosen(plan: &Plan, kernel: Option<&str>) -> Result<Vec<KernelId>, CliError> {
    let Some(wanted) = kernel else { return Ok(plan.kernels.ids().collect()) };
    let by_number = wanted.parse().ok().and_then(|number: usize| plan.kernels.ids().nth(number));
    let found: Vec<KernelId> = match by_number {
        Some(id) => vec![id],
        None => plan
            .kernels
            .ids()
            .filter(|&id| {
                let mut origins = plan.steps.iter().filter(|step| step.kernel == id).map(|step| &step.origin);
                plan.kernels[id].name.contains(wanted) || origins.any(|origin| origin.contains(wanted))
            })
            .collect(),
    };
    match found.is_empty() {
        true => Err(CliError::input(format!(
            "no kernel is `{wanted}`; there are {}, which `paisley explain` without --kernel lists",
            plan.kernels.len()
        ))),
        false => Ok(found),
    }
}

/// What a kernel does in all its steps, and the least time for it.
struct Roofline {
    steps: usize,
    flop: u64,
    bytes: u64,
    ns: f64,
    /// What the least time comes from.
    bound: &'static str,
}

/// The roofline model (Williams, Waterman, Patterson 2009): operations at the rate of arithmetic, or bytes of parameters that
/// are touched at the rate of memory, whichever takes longer; and the start of each step.
fn roofline(plan: &Plan, id: KernelId, rates: Option<Rates>) -> Roofline {
    let steps: Vec<_> = plan.steps.iter().filter(|step| step.kernel == id).collect();
    let flop: u64 = steps.iter().map(|step| step.flop).sum();
    let bytes = plan.kernels[id].demand(flop).bytes() * steps.len() as u64;
    let rates = rates.unwrap_or(Rates::UNKNOWN);
    let times = [
        (1e9 * flop as f64 / rates.flop_per_second, "arithmetic"),
        (1e9 * bytes as f64 / rates.bytes_per_second, "memory"),
        (steps.len() as f64 * rates.launch_ns, "launch"),
    ];
    let (ns, bound) = times.into_iter().fold((0.0, "nothing"), |a, b| if b.0 > a.0 { b } else { a });
    Roofline { steps: steps.len(), flop, bytes, ns, bound }
}

fn rates(device: &Device) -> Option<Rates> {
    match device {
        Device::Reference => None,
        Device::Cpu(target) => Some(target.rates),
        Device::Gpu(target, _) => Some(target.rates),
    }
}

fn first_origin(plan: &Plan, id: KernelId) -> &str {
    plan.steps.iter().find(|step| step.kernel == id).map_or("", |step| step.origin.as_str())
}

fn overview(plan: &Plan, name: &str, device: &Device) -> String {
    let mut text = format!("{name}\n");
    let fact = |value| format!("{}: {}", plan.values[value].name, plan.values[value].fact);
    for &input in &plan.inputs {
        text += &format!("  in    {}\n", fact(input));
    }
    for output in &plan.outputs {
        text += &format!("  out   {}: {}\n", output.name, plan.values[output.value].fact);
    }
    text += &format!(
        "  {} steps of {} kernels, {} of constants, {} of intermediate values\n\n",
        plan.steps.len(),
        plan.kernels.len(),
        report::bytes(plan.constant_bytes() as u64),
        report::bytes(plan.arena_bytes as u64)
    );
    let mut table = Table::new(&[
        ">#",
        "kernel",
        "on",
        ">steps",
        ">MFLOP",
        ">bytes",
        ">at least",
        "bound by",
        "first of its nodes",
    ]);
    for (number, id) in plan.kernels.ids().enumerate() {
        let roofline = roofline(plan, id, rates(device));
        let kernel = &plan.kernels[id];
        let known = rates(device).is_some();
        table.row(&[
            &number,
            &kernel.name,
            &kernel.code.device(),
            &roofline.steps,
            &report::digits(roofline.flop as f64 / 1e6),
            &report::bytes(roofline.bytes),
            &if known { report::milliseconds(roofline.ns / 1e6) } else { "-".into() },
            &if known { roofline.bound } else { "-" },
            &first_origin(plan, id),
        ]);
    }
    text + &table.print("")
}

/// What runs, as text.
fn code_text(kernel: &Kernel) -> String {
    let mut text = String::new();
    if let Some(preparation) = &kernel.preparation {
        text += &format!("# packs constants, once\n{}\n", preparation.code);
    }
    match &kernel.code {
        Code::Interpreted => text += "interpreted\n",
        Code::Cpu(code) => text += &code.code.to_string(),
        Code::Gpu(kernels) => {
            for kernel in kernels {
                let [x, y, z] = kernel.workgroups;
                text += &format!("// {}: {x} x {y} x {z} workgroups\n{}", kernel.name, kernel.text);
            }
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn kernel_text(plan: &Plan, id: KernelId, stage: Stage) -> String {
    let kernel = &plan.kernels[id];
    let parts = [
        (Stage::Nest, "nest: what it means", kernel.nest.to_string()),
        (Stage::Trace, "trace: the schedule", kernel.trace.to_string()),
        (Stage::Scheduled, "scheduled: the nest after the trace", kernel.scheduled.to_string()),
        (Stage::Code, "code", code_text(kernel)),
    ];
    let steps: Vec<&str> =
        plan.steps.iter().filter(|step| step.kernel == id).map(|step| step.origin.as_str()).collect();
    let mut text = format!("== {} on {}: {}\n", kernel.name, kernel.code.device(), steps.join("; "));
    if let Some(reason) = &kernel.fallback {
        text += &format!("not on the GPU: {reason}\n");
    }
    for (of, title, part) in parts {
        if stage == Stage::All {
            text += &format!("-- {title}\n");
        }
        if stage == of || stage == Stage::All {
            text += &part;
            if !part.is_empty() && !part.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    text
}

fn kernel_json(plan: &Plan, id: KernelId, device: &Device) -> Value {
    let kernel = &plan.kernels[id];
    let roofline = roofline(plan, id, rates(device));
    let origins: Vec<&str> =
        plan.steps.iter().filter(|step| step.kernel == id).map(|step| step.origin.as_str()).collect();
    json!({
        "name": kernel.name,
        "device": kernel.code.device(),
        "nodes": origins,
        "fallback": kernel.fallback,
        "steps": roofline.steps,
        "flop": roofline.flop,
        "bytes": roofline.bytes,
        "roofline_ms": rates(device).map(|_| roofline.ns / 1e6),
        "nest": kernel.nest.to_string(),
        "trace": kernel.trace.to_string(),
        "scheduled": kernel.scheduled.to_string(),
        "code": code_text(kernel),
    })
}
