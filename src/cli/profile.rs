//! `paisley bench --profile`: the time of each step beside the least that the machine, measured in the same run, could need.

use super::error::CliError;
use super::prepare::Prepared;
use super::report::{self, Progress, Table};
use crate::plan::{Place, Plan};
use crate::runtime::{OpenDevice, Profile, Row, Session, Span, cpu, gpu};
use crate::target::{Demand, Limit, MeasuredRates};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Profiled runs: as many as fit into this time, within these bounds.
const TIME: Duration = Duration::from_secs(1);
const RUNS: std::ops::RangeInclusive<usize> = 11..=101;

/// Where the time of a model goes on a device.
pub(super) struct Profiled {
    /// The machine at its best.
    rates: MeasuredRates,
    /// What a hand-over between threads took before the runs and after them: the system may have moved them to other cores.
    hand_overs_ns: Vec<f64>,
    /// The longest first.
    steps: Vec<StepProfile>,
    runs: usize,
    /// The profile whose total time is the median.
    typical: Profile,
    /// Names of the plan's steps, in order.
    names: Vec<(String, String)>,
}

/// What one step took, and had to do.
struct StepProfile {
    /// Its place in the plan.
    place: usize,
    kernel: String,
    nodes: String,
    /// The median.
    ns: f64,
    least_ns: f64,
    /// The median of the mean part that its threads waited.
    wait: Option<f64>,
    demand: Demand,
    limit: Limit,
}

impl StepProfile {
    fn gflop_per_second(&self) -> f64 {
        self.demand.flop as f64 / self.ns.max(1.0)
    }

    fn gbyte_per_second(&self) -> f64 {
        self.demand.bytes() as f64 / self.ns.max(1.0)
    }

    fn bound(&self) -> &'static str {
        if self.limit.by_memory { "memory" } else { "arithmetic" }
    }
}

/// Measures the machine and each step; `None` where the device cannot tell the time of steps.
pub(super) fn profile(prepared: &mut Prepared, device: &OpenDevice) -> Result<Option<Profiled>, CliError> {
    let progress = Progress::new("profiling");
    let Some(before) = rates(device)? else { return Ok(None) };
    let mut profiles = vec![];
    let start = Instant::now();
    while profiles.len() < *RUNS.start() || (profiles.len() < *RUNS.end() && start.elapsed() < TIME) {
        let run = prepared.session.run_ordered(&prepared.inputs, true)?;
        let Some(profile) = run.profile else { return Ok(None) };
        profiles.push(profile);
    }
    // Before and after: the machine may have been slower for a while.
    let Some(after) = rates(device)? else { return Ok(None) };
    let hand_overs_ns = before.hand_over_ns.into_iter().chain(after.hand_over_ns).collect();
    progress.done();
    Ok(Some(Profiled::of(&prepared.session, before.or_faster(&after), hand_overs_ns, profiles)))
}

fn rates(device: &OpenDevice) -> Result<Option<MeasuredRates>, CliError> {
    Ok(match device {
        OpenDevice::Reference => None,
        OpenDevice::Cpu(target) => Some(cpu::measure_rates(target)?),
        OpenDevice::Gpu(gpu, _) => Some(gpu::measure_rates(gpu).map_err(crate::runtime::RuntimeError::from)?),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        even if even.is_multiple_of(2) => (values[middle - 1] + values[middle]) / 2.0,
        _odd => values[middle],
    }
}

/// Bytes that one inference touches: constants, intermediate values, inputs and outputs.
fn working_set_bytes(plan: &Plan) -> u64 {
    let own = plan.values.iter().map(|value| match value.place {
        Place::Arena { .. } | Place::Within { .. } => 0,
        Place::Constant(_) | Place::Resident | Place::Input(_) | Place::Output(_) => value.fact.size_bytes(),
    });
    (plan.arena_bytes + own.sum::<usize>()) as u64
}

impl Profiled {
    fn of(
        session: &Session,
        rates: MeasuredRates,
        hand_overs_ns: Vec<f64>,
        mut profiles: Vec<Profile>,
    ) -> Profiled {
        let plan = session.plan();
        let working_set = working_set_bytes(plan);
        let step = |(place, step): (usize, &crate::plan::Step)| {
            let of_all = |value: &dyn Fn(&Profile) -> Option<f64>| -> Option<f64> {
                profiles.iter().map(value).collect::<Option<Vec<f64>>>().map(median)
            };
            let demand = plan.kernel(step).demand(step.flop);
            StepProfile {
                place,
                kernel: plan.kernel(step).name.clone(),
                nodes: step.origin.clone(),
                ns: of_all(&|profile| profile.step_ns.get(place).map(|&ns| ns as f64)).unwrap_or(0.0),
                least_ns: profiles
                    .iter()
                    .filter_map(|profile| profile.step_ns.get(place))
                    .min()
                    .map_or(0.0, |&ns| ns as f64),
                wait: of_all(&|profile| profile.wait.as_ref()?.get(place).copied()),
                demand,
                limit: rates.limit(demand, working_set),
            }
        };
        let mut steps: Vec<StepProfile> = plan.steps.iter().enumerate().map(step).collect();
        steps.sort_by(|a, b| b.ns.total_cmp(&a.ns));
        let names =
            plan.steps.iter().map(|step| (plan.kernel(step).name.clone(), step.origin.clone())).collect();
        let runs = profiles.len();
        profiles.sort_by_key(|profile| profile.step_ns.iter().sum::<u64>());
        let typical = profiles.swap_remove(runs / 2);
        Profiled { rates, hand_overs_ns, steps, runs, typical, names }
    }

    fn total_ns(&self) -> f64 {
        self.steps.iter().map(|step| step.ns).sum()
    }

    fn limit_ns(&self) -> f64 {
        self.steps.iter().map(|step| step.limit.ns).sum()
    }

    /// The mean part of all steps' time that threads waited.
    fn wait(&self) -> Option<f64> {
        let waited: Option<f64> = self.steps.iter().map(|step| Some(step.wait? * step.ns)).sum();
        Some(waited? / self.total_ns().max(1.0))
    }

    /// The table of the `rows` longest steps.
    pub(super) fn text(&self, rows: usize) -> String {
        let percent = |part: f64| format!("{:.0} %", 100.0 * part);
        let optional = |part: Option<f64>| part.map_or("-".to_string(), percent);
        let mut table = Table::new(&[
            ">#",
            ">time",
            ">share",
            ">GFLOP/s",
            ">GB/s",
            ">at least",
            "by",
            ">of limit",
            ">wait",
            "kernel",
            "nodes",
        ]);
        let total = self.total_ns().max(1.0);
        for step in self.steps.iter().take(rows) {
            table.row(&[
                &step.place,
                &report::milliseconds(step.ns / 1e6),
                &format!("{:.1} %", 100.0 * step.ns / total),
                &report::digits(step.gflop_per_second()),
                &report::digits(step.gbyte_per_second()),
                &report::milliseconds(step.limit.ns / 1e6),
                &step.bound(),
                &percent(step.limit.ns / step.ns.max(1.0)),
                &optional(step.wait),
                &step.kernel,
                &step.nodes,
            ]);
        }
        let rest = self.steps.get(rows..).unwrap_or_default();
        if !rest.is_empty() {
            let (ns, limit) =
                rest.iter().fold((0.0, 0.0), |(ns, limit), step| (ns + step.ns, limit + step.limit.ns));
            let share = format!("{:.1} %", 100.0 * ns / total);
            let (time, least) = (report::milliseconds(ns / 1e6), report::milliseconds(limit / 1e6));
            let name = format!("{} more steps", rest.len());
            table.row(&[
                &"",
                &time,
                &share,
                &"",
                &"",
                &least,
                &"",
                &percent(limit / ns.max(1.0)),
                &"",
                &name,
                &"",
            ]);
        }
        let (flop, bytes) = self
            .steps
            .iter()
            .fold((0, 0), |(flop, bytes), step| (flop + step.demand.flop, bytes + step.demand.bytes()));
        table.row(&[
            &"",
            &report::milliseconds(total / 1e6),
            &"100 %",
            &report::digits(flop as f64 / total),
            &report::digits(bytes as f64 / total),
            &report::milliseconds(self.limit_ns() / 1e6),
            &"",
            &percent(self.limit_ns() / total),
            &optional(self.wait()),
            &"all steps",
            &"",
        ]);
        let mut text = format!(
            "\n  medians of {} runs; measured beside them: {} GFLOP/s, and reading",
            self.runs,
            report::digits(self.rates.flop_per_second / 1e9)
        );
        for (place, read) in self.rates.reads.iter().step_by(2).enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let rate = report::digits(self.rates.bytes_per_second(read.bytes) / 1e9);
            text += &format!("{comma} {} at {rate} GB/s", report::bytes(read.bytes));
        }
        if let [before, after] = self.hand_overs_ns.as_slice() {
            let [before, after] = [before, after].map(|ns| report::digits(*ns));
            text += &format!("; a hand-over between threads took {before} ns before and {after} ns after");
        }
        format!("{text}\n{}", table.print("  "))
    }

    pub(super) fn json(&self) -> Value {
        let step = |step: &StepProfile| {
            json!({
                "step": step.place,
                "kernel": step.kernel,
                "nodes": step.nodes,
                "ms": step.ns / 1e6,
                "least_ms": step.least_ns / 1e6,
                "share": step.ns / self.total_ns().max(1.0),
                "flop": step.demand.flop,
                "constant_bytes": step.demand.constant_bytes,
                "value_bytes": step.demand.value_bytes,
                "gflop_per_s": step.gflop_per_second(),
                "gbyte_per_s": step.gbyte_per_second(),
                "limit_ms": step.limit.ns / 1e6,
                "bound_by": step.bound(),
                "of_limit": step.limit.ns / step.ns.max(1.0),
                "wait": step.wait,
            })
        };
        let reads = self
            .rates
            .reads
            .iter()
            .map(|read| json!({ "bytes": read.bytes, "gbyte_per_s": read.bytes_per_second / 1e9 }));
        json!({
            "runs": self.runs,
            "measured": {
                "gflop_per_s": self.rates.flop_per_second / 1e9,
                "reads": reads.collect::<Vec<_>>(),
                "hand_over_ns": self.hand_overs_ns,
            },
            "total_ms": self.total_ns() / 1e6,
            "limit_ms": self.limit_ns() / 1e6,
            "wait": self.wait(),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }

    /// The events of a typical run in Chrome's trace format, as process `process`: a row a thread, with the time between its
    /// spans as waiting where threads share steps.
    pub(super) fn trace(&self, process: usize, title: &str) -> Vec<Value> {
        let mut rows: Vec<Row> = self.typical.spans.iter().map(|span| span.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let spans = || self.typical.spans.iter();
        let begin = spans().map(|span| span.begin_ns).min().unwrap_or(0);
        let end = spans().map(|span| span.end_ns).max().unwrap_or(0);
        let name = |what: &str, thread: usize, name: &str| json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } });
        let mut events = vec![name("process_name", 0, title)];
        for (thread, &row) in rows.iter().enumerate() {
            events.push(name(
                "thread_name",
                thread,
                &match row {
                    Row::Thread(number) => format!("thread {number}"),
                    Row::Adapter => "adapter".to_string(),
                },
            ));
            let event = |name: &str, category: &str, from: u64, to: u64, nodes: &str| {
                json!({
                    "ph": "X", "name": name, "cat": category, "pid": process, "tid": thread,
                    "ts": (from - begin) as f64 / 1e3, "dur": to.saturating_sub(from) as f64 / 1e3,
                    "args": { "nodes": nodes },
                })
            };
            let mut free = begin;
            for &Span { row: _, step, begin_ns, end_ns } in spans().filter(|span| span.row == row) {
                if self.typical.wait.is_some() && begin_ns > free {
                    events.push(event("wait", "wait", free, begin_ns, ""));
                }
                let (kernel, nodes) = &self.names[step];
                events.push(event(kernel, "kernel", begin_ns, end_ns, nodes));
                free = end_ns;
            }
            if self.typical.wait.is_some() && end > free {
                events.push(event("wait", "wait", free, end, ""));
            }
        }
        events
    }
}
