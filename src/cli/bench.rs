//! `paisley bench`: the rules of measuring are in the help text.

use super::arguments::{DeviceArguments, ModelArguments};
use super::error::{Answer, CliError};
use super::files;
use super::host;
use super::prepare::{self, Imported, Prepared};
use super::profile::{self, Profiled};
use super::report::{self, Progress, Table};
use super::run::placement_json;
use crate::graph::Graph;
use crate::runtime::OpenDevice;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Warming up ends when it has taken this long and this many runs, and the median no longer moves.
const WARM_UP: Duration = Duration::from_millis(200);
const WARM_UP_RUNS: usize = 10;
/// Warming up ends after this time in any case.
const WARM_UP_LIMIT: Duration = Duration::from_secs(10);
/// Medians of two windows of runs are the same within this part.
const STABLE: f64 = 0.03;

/// Measures a model on one device or several, five numbers apart: load and optimise (read the file, import, rewrite the graph),
/// compile (loop nests, schedules, code, packed constants, pipelines), the first run, the steady state with copies of inputs and
/// outputs, and the steady state on the device alone.
///
/// Warms up for at least 0.2 s and 10 runs until the median is stable, at most 10 s; then measures for `--min-time` and `--runs`,
/// whichever takes longer, but not beyond `--max-time`. Several devices are measured one after another.
#[derive(Args)]
#[command(after_help = "Examples:
  paisley bench model.onnx --device cpu,gpu
  paisley bench model.onnx --device cpu --threads 1 --profile --trace trace.json
  paisley bench model.onnx --device gpu --runs 5 --min-time 0 --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    device: DeviceArguments,

    /// Runs measured at least
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// Seconds measured at least
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    min_time: Duration,

    /// Seconds measured at most; the number of runs says whether they sufficed
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    max_time: Duration,

    /// Add what each step (a kernel) takes: median time, GFLOP/s, GB/s of what it must touch, the least time that the machine
    /// needs for it (roofline, with rates measured in the same run) and how much of that limit it reaches, and the part of its time
    /// that threads wait for one another
    #[arg(long)]
    profile: bool,

    /// Steps to list, the longest first; `--json` has all
    #[arg(long, value_name = "N", default_value_t = 25, requires = "profile")]
    top: usize,

    /// Write the profile of a typical run in Chrome's trace format, for chrome://tracing or Perfetto: a row a thread
    #[arg(long, value_name = "FILE", requires = "profile")]
    trace: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// What one device took.
struct Measured {
    device: OpenDevice,
    load: Duration,
    compile: Duration,
    stages: Vec<(&'static str, Duration)>,
    first: Duration,
    /// Each run, in milliseconds.
    samples_ms: Vec<f64>,
    /// The device's part of each, where it can be told.
    device_ms: Option<Vec<f64>>,
    peak_memory_bytes: Option<u64>,
    placement: Value,
    flop: u64,
    profile: Option<Profiled>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, CliError> {
    let (devices, notes) = arguments.device.open()?;
    let mut measured = vec![];
    for device in devices {
        host::forget_peak_memory();
        // Read anew for each device, so that none profits from what another did.
        let mut imported = prepare::import(&arguments.model)?;
        let graph = std::mem::take(&mut imported.graph);
        if measured.is_empty() && !arguments.json {
            let mut text = format!("{}\n", arguments.model.model.display());
            for input in &imported.inputs {
                text += &format!("  input {}: {}\n", input.name, input.source);
            }
            for note in notes.iter().chain(&imported.given.notes) {
                text += &format!("  note: {note}\n");
            }
            report::print(&text)?;
        }
        let result = measure(arguments, &imported, graph, device)?;
        if !arguments.json {
            report::print(&result.text(arguments.top))?;
        }
        measured.push(result);
    }
    if let Some(path) = &arguments.trace {
        write_trace(path, &measured)?;
    }
    if arguments.json {
        let model = arguments.model.model.display().to_string();
        let mut documents: Vec<Value> = measured.iter().map(|result| result.json(&model)).collect();
        let document = if documents.len() == 1 { documents.remove(0) } else { documents.into() };
        report::print_json(&document)?;
    }
    Ok(Answer::Yes)
}

/// Writes the profiles as one trace, a process a device.
fn write_trace(path: &Path, measured: &[Measured]) -> Result<(), CliError> {
    let profiles = measured.iter().enumerate().filter_map(|(process, result)| {
        Some(result.profile.as_ref()?.trace(process, &report::device_line(&result.device)))
    });
    let events: Vec<Value> = profiles.flatten().collect();
    files::write_json(path, &json!({ "traceEvents": events, "displayTimeUnit": "ms" }))
}

fn measure(
    arguments: &Arguments,
    imported: &Imported,
    graph: Graph,
    device: OpenDevice,
) -> Result<Measured, CliError> {
    let mut prepared = prepare::session(imported, graph, &device)?;
    let start = Instant::now();
    prepared.session.run_ordered(&prepared.inputs, false)?;
    let first = start.elapsed();
    warm_up(&mut prepared, arguments)?;
    let (samples_ms, device_ms) = steady(&mut prepared, arguments)?;
    // Profiling takes memory that the model does not.
    let peak_memory_bytes = host::peak_memory_bytes();
    let profile = if arguments.profile { profile::profile(&mut prepared, &device)? } else { None };
    Ok(Measured {
        load: prepared.load,
        compile: prepared.compile,
        stages: prepared.stages,
        first,
        samples_ms,
        device_ms,
        peak_memory_bytes,
        placement: placement_json(&prepared.session.placement()),
        flop: prepared.session.plan().steps.iter().map(|step| step.flop).sum(),
        profile,
        device,
    })
}

fn one(prepared: &mut Prepared) -> Result<(f64, Option<f64>), CliError> {
    let start = Instant::now();
    let run = prepared.session.run_ordered(&prepared.inputs, false)?;
    let ms = 1e3 * start.elapsed().as_secs_f64();
    Ok((ms, run.device_ns.map(|ns| ns as f64 / 1e6)))
}

fn warm_up(prepared: &mut Prepared, arguments: &Arguments) -> Result<(), CliError> {
    let progress = Progress::new("warming up");
    // Who asks for fewer runs or less time asks for less warming up too.
    let runs = WARM_UP_RUNS.min(arguments.runs as usize);
    let time = WARM_UP.min(arguments.min_time.max(Duration::from_millis(1)));
    let mut samples = vec![];
    let start = Instant::now();
    while start.elapsed() < WARM_UP_LIMIT.min(arguments.max_time) {
        samples.push(one(prepared)?.0);
        let window = samples.len() / 3;
        let enough = samples.len() >= runs && start.elapsed() >= time;
        if enough && (window == 0 || is_stable(&samples[samples.len() - 2 * window..])) {
            break;
        }
    }
    progress.done();
    Ok(())
}

/// Whether the medians of both halves are the same.
fn is_stable(samples: &[f64]) -> bool {
    let (first, second) = samples.split_at(samples.len() / 2);
    let (a, b) = (Statistics::of(first).p50, Statistics::of(second).p50);
    (a - b).abs() <= STABLE * b
}

type Samples = (Vec<f64>, Option<Vec<f64>>);

fn steady(prepared: &mut Prepared, arguments: &Arguments) -> Result<Samples, CliError> {
    let runs = arguments.runs as usize;
    let progress = Progress::of("measuring", 1000);
    let (mut samples, mut device) = (vec![], Some(vec![]));
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        let done = samples.len() >= runs && elapsed >= arguments.min_time;
        if done || (!samples.is_empty() && elapsed >= arguments.max_time) {
            break;
        }
        let (ms, device_ms) = one(prepared)?;
        samples.push(ms);
        device = device.zip(device_ms).map(|(mut list, ms)| {
            list.push(ms);
            list
        });
        let part = (samples.len() as f64 / runs as f64)
            .min(start.elapsed().as_secs_f64() / arguments.min_time.as_secs_f64().max(1e-9))
            .max(start.elapsed().as_secs_f64() / arguments.max_time.as_secs_f64().max(1e-9));
        progress.at((1000.0 * part) as u64);
    }
    progress.done();
    Ok((samples, device))
}

/// Order statistics of samples, in their unit.
struct Statistics {
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    min: f64,
    mean: f64,
    /// The middle half.
    iqr: f64,
}

impl Statistics {
    /// Of at least one sample.
    fn of(samples: &[f64]) -> Statistics {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank; for the median of an even number the mean of the two in the middle.
        let rank =
            |part: f64| sorted[((part * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
        let middle = sorted.len() / 2;
        let p50 = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        };
        Statistics {
            p50,
            p90: rank(0.9),
            p95: rank(0.95),
            p99: rank(0.99),
            min: sorted[0],
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            iqr: rank(0.75) - rank(0.25),
        }
    }

    fn json(&self) -> Value {
        let Statistics { p50, p90, p95, p99, min, mean, iqr } = self;
        json!({ "p50": p50, "p90": p90, "p95": p95, "p99": p99, "min": min, "mean": mean, "iqr": iqr })
    }

    fn cells(&self) -> [String; 5] {
        [self.p50, self.p90, self.p99, self.min, self.mean].map(report::milliseconds)
    }
}

impl Measured {
    fn text(&self, top: usize) -> String {
        let mut text = format!("\n{}\n", report::device_line(&self.device));
        for (name, time) in
            [("load and optimise", self.load), ("compile", self.compile), ("first run", self.first)]
        {
            text += &format!("  {name:<18}{}\n", report::time(time));
        }
        let mut table = Table::new(&["steady", ">P50", ">P90", ">P99", ">min", ">mean"]);
        let rows = [("with copies", Some(&self.samples_ms)), ("device only", self.device_ms.as_ref())];
        for (name, samples) in rows {
            match samples {
                Some(samples) => {
                    let [p50, p90, p99, min, mean] = Statistics::of(samples).cells();
                    table.row(&[&name, &p50, &p90, &p99, &min, &mean]);
                }
                None => table.row(&[&name, &"not known", &"", &"", &"", &""]),
            }
        }
        text += &table.print("  ");
        let rate = self.flop as f64 / (1e6 * Statistics::of(&self.samples_ms).p50);
        text += &format!("  {} runs, {} GFLOP/s", self.samples_ms.len(), report::digits(rate));
        if let Some(peak) = self.peak_memory_bytes {
            text += &format!(", at most {} of memory", report::bytes(peak));
        }
        text.push('\n');
        if let Some(profile) = &self.profile {
            text += &profile.text(top);
        }
        text
    }

    fn json(&self, model: &str) -> Value {
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        let mut document = json!({
            "model": model,
            "device": self.device.kind(),
            "adapter": self.device.name(),
            "software_adapter": self.device.is_software_adapter(),
            "threads": self.device.threads(),
            "runs": self.samples_ms.len(),
            "load_ms": ms(self.load),
            "compile_ms": ms(self.compile),
            "stages_ms": self.stages.iter().map(|&(stage, time)| (stage, ms(time))).collect::<BTreeMap<_, _>>(),
            "first_run_ms": ms(self.first),
            "steady_ms": Statistics::of(&self.samples_ms).json(),
            "device_ms": self.device_ms.as_ref().map(|samples| Statistics::of(samples).json()),
            "peak_memory_bytes": self.peak_memory_bytes,
            "flop": self.flop,
            "placement": self.placement,
            "samples_ms": self.samples_ms,
        });
        if self.device.is_software_adapter() {
            document["remark"] = json!(report::SOFTWARE);
        }
        if let Some(profile) = &self.profile {
            document["profile"] = profile.json();
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        let statistics = Statistics::of(&samples);
        assert_eq!((statistics.p50, statistics.p90, statistics.p99), (50.5, 90.0, 99.0));
        assert_eq!((statistics.min, statistics.mean, statistics.iqr), (1.0, 50.5, 50.0));
        let one = Statistics::of(&[2.0]);
        assert_eq!((one.p50, one.p99), (2.0, 2.0));
    }

    #[test]
    fn a_drift_is_not_stable() {
        assert!(is_stable(&[1.0, 1.01, 0.99, 1.0]));
        assert!(!is_stable(&[2.0, 2.0, 1.0, 1.0]));
    }
}
