//! `paisley run`.

use super::arguments::{DeviceArguments, ModelArguments};
use super::error::{Answer, CliError};
use super::prepare::{self, Imported};
use super::report::{self, Progress};
use super::{compare, files};
use crate::graph::Graph;
use crate::runtime::{OpenDevice, Placement, Run};
use crate::tensor::{Tensor, Tolerance};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many classes are printed.
const TOP: usize = 5;

/// Answers of two devices agree within this part of the largest value.
const AGREEMENT: f64 = 1e-3;

/// Runs a model once and prints its outputs, what ran where, and how long it took.
///
/// With several devices the model runs on each and the answers are compared with those of the first; the exit code is 1 where
/// they differ by more than 0.001 of the largest value.
#[derive(Args)]
#[command(after_help = "Examples:
  paisley run model.onnx --inputs arrays.npz --outputs results.npz
  paisley run net.onnx --input image=cat.png --labels classes.txt --device auto,cpu
  paisley run bert.onnx --shape input_ids=1x128 --shape attention_mask=1x128 --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    device: DeviceArguments,

    /// Write the outputs, keyed by output name; of the first device where there are several
    #[arg(long, value_name = "FILE.npz")]
    outputs: Option<PathBuf>,

    /// Names of classes, one a line: print the most likely ones
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What one device answered.
struct Answered {
    device: OpenDevice,
    load: Duration,
    compile: Duration,
    wall: Duration,
    run: Run,
    placement: Placement,
    names: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, CliError> {
    let labels = arguments.labels.as_deref().map(read_labels).transpose()?;
    let mut imported = prepare::import(&arguments.model)?;
    let (devices, mut notes) = arguments.device.open()?;
    notes.extend(imported.given.notes.iter().cloned());
    if !arguments.json {
        report::print(&heading(arguments, &imported, &notes))?;
    }
    let mut answered: Vec<Answered> = vec![];
    let mut devices = devices.into_iter().peekable();
    while let Some(device) = devices.next() {
        let more = devices.peek().is_some();
        let graph = if more { imported.graph.clone() } else { std::mem::take(&mut imported.graph) };
        let answer = run_on(&imported, graph, device)?;
        if !arguments.json {
            report::print(&answer_text(&answer, labels.as_deref())?)?;
        }
        answered.push(answer);
    }
    if let Some(path) = &arguments.outputs {
        let first = &answered[0];
        let named: Vec<(String, Tensor)> =
            first.names.iter().cloned().zip(first.run.outputs.iter().cloned()).collect();
        files::write_npz(path, &named)?;
    }
    let agreements: Vec<(bool, f64)> =
        answered[1..].iter().map(|other| agreement(&answered[0], other)).collect();
    let agree = agreements.iter().all(|(agree, _)| *agree);
    if arguments.json {
        let mut document = json!({
            "model": arguments.model.model.display().to_string(),
            "inputs": imported.inputs.iter().map(|input| json!({
                "name": input.name, "dtype": input.tensor.dtype().name(), "shape": input.tensor.shape(),
                "source": input.source,
            })).collect::<Vec<_>>(),
            "notes": notes,
            "results": answered.iter().map(|answer| answer_json(answer, labels.as_deref()))
                .collect::<Result<Vec<_>, _>>()?,
        });
        if answered.len() > 1 {
            document["agree"] = json!(agree);
            document["largest_difference"] =
                compare::number(agreements.iter().map(|(_, difference)| *difference).fold(0.0, f64::max));
        }
        report::print_json(&document)?;
    } else {
        let mut text = String::new();
        for (other, (agree, difference)) in answered[1..].iter().zip(&agreements) {
            let (verb, first) = (if *agree { "agree" } else { "DIFFER" }, answered[0].device.kind());
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "the answers of {first} and {} {verb}: largest difference {difference:.1e} of the largest value",
                other.device.kind()
            );
        }
        report::print(&text)?;
    }
    Ok(agree.into())
}

fn run_on(imported: &Imported, graph: Graph, device: OpenDevice) -> Result<Answered, CliError> {
    let mut prepared = prepare::session(imported, graph, &device)?;
    let progress = Progress::new(&format!("running on {}", device.kind()));
    let start = Instant::now();
    let run = prepared.session.run_ordered(&prepared.inputs, false)?;
    let wall = start.elapsed();
    progress.done();
    let names = prepared.session.plan().outputs.iter().map(|output| output.name.clone()).collect();
    let placement = prepared.session.placement();
    Ok(Answered { device, load: prepared.load, compile: prepared.compile, wall, run, placement, names })
}

/// Whether two devices agree on every output, and the largest difference relative to the largest value.
fn agreement(first: &Answered, other: &Answered) -> (bool, f64) {
    let pairs = other.run.outputs.iter().zip(&first.run.outputs);
    let compared = pairs.map(|(a, b)| crate::tensor::compare(a, b, Tolerance::OfLargest(AGREEMENT)));
    compared.fold((true, 0.0), |(agree, difference), comparison| {
        (agree && comparison.within, f64::max(difference, comparison.max_of_largest))
    })
}

fn heading(arguments: &Arguments, imported: &Imported, notes: &[String]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}: opset {}, {} of weights",
        arguments.model.model.display(),
        imported.opset,
        report::bytes(imported.weight_bytes as u64)
    );
    for input in &imported.inputs {
        let (dtype, shape) = (input.tensor.dtype(), input.tensor.shape());
        let _ = writeln!(text, "  input {}: {dtype}{shape:?}  {}", input.name, input.source);
    }
    for note in notes {
        let _ = writeln!(text, "  note: {note}");
    }
    text.push('\n');
    text
}

fn answer_text(answer: &Answered, labels: Option<&[String]>) -> Result<String, CliError> {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", report::device_line(&answer.device));
    let _ = writeln!(text, "  placement  {}", placement_text(&answer.placement));
    for (origin, reason) in &answer.placement.fallbacks {
        let _ = writeln!(text, "             {origin}: on the CPU, because {reason}");
    }
    let device = answer
        .run
        .device_ns
        .map_or(String::new(), |ns| format!(" ({} without copies)", report::time(Duration::from_nanos(ns))));
    let _ = writeln!(
        text,
        "  times      load {}, compile {}, first run {}{device}",
        report::time(answer.load),
        report::time(answer.compile),
        report::time(answer.wall)
    );
    let ranked = ranked(answer, labels)?;
    for ((name, output), classes) in answer.names.iter().zip(&answer.run.outputs).zip(ranked) {
        let summary = Summary::of(output);
        let _ =
            writeln!(text, "  output     {name}: {}{:?}  {}", output.dtype(), output.shape(), summary.text());
        for row in classes.unwrap_or_default() {
            for (label, _, probability) in row {
                let _ = writeln!(text, "    {:6.2} %  {label}", 100.0 * probability);
            }
        }
    }
    text.push('\n');
    Ok(text)
}

fn placement_text(placement: &Placement) -> String {
    let mut parts = vec![];
    let places = [
        (placement.gpu_steps, "GPU"),
        (placement.cpu_steps, "CPU"),
        (placement.host_steps, "host (interpreted)"),
    ];
    for (count, place) in places {
        if count > 0 {
            parts.push(format!("{count} step{} on the {place}", if count == 1 { "" } else { "s" }));
        }
    }
    if parts.is_empty() {
        parts.push("nothing to compute".into());
    }
    parts.push(format!("{} distinct kernels", placement.kernels));
    match (placement.copies, placement.copied_bytes) {
        (Some(0), _) => parts.push("no copies".into()),
        (Some(copies), Some(bytes)) => parts.push(format!("{copies} copies ({})", report::bytes(bytes))),
        (Some(_) | None, _) => {}
    }
    parts.join(", ")
}

fn answer_json(answer: &Answered, labels: Option<&[String]>) -> Result<Value, CliError> {
    let ms = |time: Duration| 1e3 * time.as_secs_f64();
    let outputs = answer.names.iter().zip(&answer.run.outputs).zip(ranked(answer, labels)?);
    let outputs: Vec<Value> = outputs
        .map(|((name, output), classes)| {
            let mut value = Summary::of(output).json();
            value["name"] = json!(name);
            value["dtype"] = json!(output.dtype().name());
            value["shape"] = json!(output.shape());
            if let Some(rows) = classes {
                let rows = rows.iter().map(|row| {
                    let class = |(label, index, probability): &Class| {
                        json!({ "label": label, "index": index, "probability": probability })
                    };
                    row.iter().map(class).collect::<Vec<_>>()
                });
                value["top"] = rows.collect::<Vec<_>>().into();
            }
            value
        })
        .collect();
    Ok(json!({
        "device": answer.device.kind(),
        "adapter": answer.device.name(),
        "software_adapter": answer.device.is_software_adapter(),
        "threads": answer.device.threads(),
        "placement": placement_json(&answer.placement),
        "load_ms": ms(answer.load),
        "compile_ms": ms(answer.compile),
        "first_run_ms": ms(answer.wall),
        "device_ms": answer.run.device_ns.map(|ns| ns as f64 / 1e6),
        "outputs": outputs,
    }))
}

/// The placement as scripts read it.
pub(super) fn placement_json(placement: &Placement) -> Value {
    let fallback = |(origin, reason): &(String, String)| json!({ "node": origin, "reason": reason });
    json!({
        "gpu_steps": placement.gpu_steps,
        "cpu_steps": placement.cpu_steps,
        "host_steps": placement.host_steps,
        "kernels": placement.kernels,
        "copies": placement.copies,
        "copied_bytes": placement.copied_bytes,
        "fallbacks": placement.fallbacks.iter().map(fallback).collect::<Vec<_>>(),
    })
}

/// What can be said of a tensor in a line.
struct Summary {
    min: f64,
    max: f64,
    mean: f64,
    not_finite: usize,
}

impl Summary {
    fn of(tensor: &Tensor) -> Summary {
        let values = tensor.to_f64_vec();
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        Summary {
            min: finite.iter().copied().fold(f64::INFINITY, f64::min),
            max: finite.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            mean: finite.iter().sum::<f64>() / finite.len() as f64,
            not_finite: values.len() - finite.len(),
        }
    }

    fn text(&self) -> String {
        let not_finite = match self.not_finite {
            0 => String::new(),
            count => format!(", {count} not finite"),
        };
        if self.min > self.max {
            return format!("nothing finite{not_finite}");
        }
        format!("min {:.5}, max {:.5}, mean {:.5}{not_finite}", self.min, self.max, self.mean)
    }

    fn json(&self) -> Value {
        json!({
            "min": compare::number(self.min), "max": compare::number(self.max), "mean": compare::number(self.mean),
            "not_finite": self.not_finite,
        })
    }
}

/// A class's name, number and probability.
type Class = (String, usize, f64);

/// The most likely classes of each row of each output whose last dimension has as many elements as there are labels.
fn ranked(answer: &Answered, labels: Option<&[String]>) -> Result<Vec<Option<Vec<Vec<Class>>>>, CliError> {
    let Some(labels) = labels else { return Ok(vec![None; answer.names.len()]) };
    let fits = |output: &&Tensor| !labels.is_empty() && output.shape().last() == Some(&labels.len());
    let outputs = &answer.run.outputs;
    if !outputs.iter().any(|output| fits(&output)) {
        let facts: Vec<String> = answer
            .names
            .iter()
            .zip(outputs)
            .map(|(name, output)| format!("{name}: {}{:?}", output.dtype(), output.shape()))
            .collect();
        return Err(CliError::input(format!(
            "there are {} labels, but no output ends with a dimension of that many: {}",
            labels.len(),
            facts.join(", ")
        )));
    }
    let rows = |output: &Tensor| {
        output.to_f64_vec().chunks(labels.len()).map(|row| top_classes(row, labels)).collect::<Vec<_>>()
    };
    Ok(outputs.iter().map(|output| fits(&output).then(|| rows(output))).collect())
}

/// The most likely classes of a row of probabilities, or of logits, which the softmax makes probabilities.
fn top_classes(row: &[f64], labels: &[String]) -> Vec<Class> {
    let sum: f64 = row.iter().sum();
    let are_probabilities = row.iter().all(|&value| (0.0..=1.0).contains(&value)) && (sum - 1.0).abs() < 1e-2;
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = row.iter().map(|value| (value - largest).exp()).sum();
    let probability = |value: f64| if are_probabilities { value } else { (value - largest).exp() / total };
    let mut classes: Vec<Class> = row
        .iter()
        .zip(labels)
        .enumerate()
        .map(|(index, (&value, label))| (label.clone(), index, probability(value)))
        .collect();
    classes.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.1.cmp(&b.1)));
    classes.truncate(TOP);
    classes
}

fn read_labels(path: &Path) -> Result<Vec<String>, CliError> {
    let bytes = files::map(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| CliError::input(format!("{}: it is no UTF-8 text ({error})", path.display())))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_probabilities() {
        let labels: Vec<String> = ["a", "b", "c"].map(str::to_string).to_vec();
        let top = top_classes(&[0.0, 2.0f64.ln(), f64::NEG_INFINITY], &labels);
        assert_eq!((top[0].0.as_str(), top[0].1), ("b", 1));
        assert!((top[0].2 - 2.0 / 3.0).abs() < 1e-12);
        let kept = top_classes(&[0.25, 0.75, 0.0], &labels);
        assert!((kept[0].2 - 0.75).abs() < 1e-12);
    }
}
