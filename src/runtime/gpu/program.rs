//! Programs: ordered dispatches and copies, prepared once and run many times.

use super::device::{Shared, lock};
use super::memory::{
    check_downloads, check_uploads, create_buffer, download_in_parts, fits_staging, map, map_failed,
    upload_in_parts,
};
use super::pipeline::Pipeline;
use super::{BufferRange, GpuError, GpuKernel, Memory};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Passes whose two timestamps fit one query set.
const PASSES_PER_QUERY_SET: usize = (wgpu::QUERY_SET_MAX_QUERIES / 2) as usize;

/// One execution of a kernel over its grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The kernel.
    pub kernel: GpuKernel,
    /// What each of its bindings covers, by binding number. Writable ranges may not overlap other ranges.
    pub ranges: Vec<BufferRange>,
}

/// One step of a program. A step sees all that earlier steps wrote.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Run a kernel.
    Dispatch(Dispatch),
    /// Copy between ranges of one length that do not overlap.
    Copy {
        /// The bytes to copy.
        from: BufferRange,
        /// Where to.
        to: BufferRange,
    },
}

/// What a run measures besides its wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Nothing.
    Wall,
    /// The device's time, copies from and to the host apart.
    Device,
    /// The device's time of every kernel too. Kernels then do not overlap, so the sum may exceed a run without.
    Kernels,
}

/// What a run returned and took.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The bytes of the ranges asked for.
    pub outputs: Vec<Bytes>,
    /// From the first byte uploaded to the last byte downloaded, in nanoseconds.
    pub wall_ns: u64,
    /// From the first kernel's begin to the last one's end. By the device's clock where it has timestamps, else by the
    /// host's around the dispatches. `None` unless asked for.
    pub device_ns: Option<u64>,
    /// Begin and end of each dispatch run, in order, in nanoseconds from the begin of the first. `None` unless asked for and the
    /// device has timestamps.
    pub kernel_ns: Option<Vec<Range<u64>>>,
    /// Kernels run.
    pub dispatches: usize,
    /// Copies between host and device.
    pub copies: usize,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// Steps ready to run on the device they were prepared for.
pub struct GpuProgram {
    shared: Arc<Shared>,
    steps: Vec<PreparedStep>,
    /// Where copies within one memory pass through, as a command cannot copy within a buffer.
    scratch: Option<Memory>,
}

enum PreparedStep {
    Dispatch { name: String, pipeline: Arc<Pipeline>, bind_group: wgpu::BindGroup, workgroups: [u32; 3] },
    Copy { from: BufferRange, to: BufferRange },
}

impl GpuProgram {
    pub(super) fn prepare(shared: &Arc<Shared>, steps: &[Step]) -> Result<GpuProgram, GpuError> {
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Dispatch(dispatch) => check_dispatch(shared, dispatch)?,
                Step::Copy { from, to } => check_copy(index, from, to)?,
            }
        }
        let kernels: Vec<&GpuKernel> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Dispatch(dispatch) => Some(&dispatch.kernel),
                Step::Copy { .. } => None,
            })
            .collect();
        let mut pipelines = shared.pipelines.get_or_build(shared, &kernels)?.into_iter();
        let scratch_bytes = steps.iter().map(scratch_bytes).max().unwrap_or(0);
        let scratch = (scratch_bytes > 0).then(|| Memory::allocate(shared, scratch_bytes)).transpose()?;
        let steps = steps
            .iter()
            .map(|step| match step {
                Step::Dispatch(dispatch) => {
                    let pipeline = pipelines.next().expect("every dispatch should have a pipeline");
                    prepare_dispatch(shared, dispatch, pipeline)
                }
                Step::Copy { from, to } => Ok(PreparedStep::Copy { from: from.clone(), to: to.clone() }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let program = GpuProgram { shared: Arc::clone(shared), steps, scratch };
        program.validate()?;
        Ok(program)
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Uploads `inputs`, runs all steps and downloads `outputs`, with one submission where they fit.
    ///
    /// # Errors
    /// When a range is not valid, or the device fails or does not finish in time.
    pub fn run(
        &self,
        inputs: &[(BufferRange, &[u8])],
        outputs: &[BufferRange],
        timing: Timing,
    ) -> Result<RunReport, GpuError> {
        self.run_steps(0..self.steps.len(), inputs, outputs, timing)
    }

    /// As [`run`](Self::run), but only the steps of `range`, so that host steps can run in between.
    ///
    /// # Panics
    /// When `range` reaches beyond the steps.
    pub fn run_steps(
        &self,
        range: Range<usize>,
        inputs: &[(BufferRange, &[u8])],
        outputs: &[BufferRange],
        timing: Timing,
    ) -> Result<RunReport, GpuError> {
        let shared = &*self.shared;
        let steps = &self.steps[range];
        check_uploads(inputs)?;
        check_downloads(outputs)?;
        shared.alive()?;
        let mut transfers = lock(&shared.transfers);
        let start = Instant::now();

        let upload_bytes: u64 = inputs.iter().map(|(range, _)| range.padded_size()).sum();
        let download_bytes: u64 = outputs.iter().map(BufferRange::padded_size).sum();
        let by_host_clock = timing != Timing::Wall && !shared.target.features.timestamps;
        let fuse_upload = !by_host_clock && fits_staging(shared, upload_bytes);
        let fuse_download = !by_host_clock && fits_staging(shared, download_bytes);
        if !fuse_upload {
            upload_in_parts(shared, &mut transfers, inputs)?;
        }
        let clock = match timing {
            Timing::Wall => None,
            Timing::Device | Timing::Kernels if by_host_clock => None,
            Timing::Device => Some(Clock::new(shared, segments(shared, steps, false))?),
            Timing::Kernels => Some(Clock::new(shared, segments(shared, steps, true))?),
        };
        let host_clock = Instant::now();
        let submission = shared.checked("running a program", |device| {
            let mut buffers = Vec::new();
            if fuse_upload {
                let mut encoder = device.create_command_encoder(&Default::default());
                transfers.stage_upload(shared, &mut encoder, inputs)?;
                buffers.push(encoder.finish());
            }
            self.record(device, steps, clock.as_ref(), &mut buffers);
            if fuse_download {
                let mut encoder = device.create_command_encoder(&Default::default());
                transfers.stage_download(shared, &mut encoder, outputs)?;
                buffers.push(encoder.finish());
            }
            Ok(shared.queue.submit(buffers))
        })??;
        let (downloaded, host_ns) = if fuse_download {
            (transfers.finish_download(shared, submission, outputs)?, None)
        } else {
            transfers.finish(shared, submission)?;
            let host_ns = nanoseconds(host_clock);
            (download_in_parts(shared, &mut transfers, outputs)?, Some(host_ns))
        };
        let wall_ns = nanoseconds(start);

        let (device_ns, kernel_ns) = match &clock {
            Some(clock) => {
                let (device_ns, kernel_ns) = clock.read(shared)?;
                (Some(device_ns), (timing == Timing::Kernels).then_some(kernel_ns))
            }
            None => (host_ns.filter(|_| by_host_clock), None),
        };
        Ok(RunReport {
            outputs: downloaded,
            wall_ns,
            device_ns,
            kernel_ns,
            dispatches: steps.iter().filter(|step| matches!(step, PreparedStep::Dispatch { .. })).count(),
            copies: inputs.len() + outputs.len(),
            copied_bytes: inputs.iter().map(|(range, _)| range.size).sum::<u64>()
                + outputs.iter().map(|range| range.size).sum::<u64>(),
        })
    }

    /// Records every step once without submitting, so that what the library refuses is found before the first run.
    fn validate(&self) -> Result<(), GpuError> {
        for step in &self.steps {
            let name = match step {
                PreparedStep::Dispatch { name, .. } => format!("kernel `{name}`"),
                PreparedStep::Copy { .. } => "a copy".to_string(),
            };
            self.shared.checked(&name, |device| {
                self.record(device, std::slice::from_ref(step), None, &mut Vec::new());
            })?;
        }
        Ok(())
    }

    /// Records `steps` to command buffers.
    fn record(
        &self,
        device: &wgpu::Device,
        steps: &[PreparedStep],
        clock: Option<&Clock>,
        buffers: &mut Vec<wgpu::CommandBuffer>,
    ) {
        let plain;
        let segments = match clock {
            Some(clock) => &clock.segments,
            None => {
                plain = segments(&self.shared, steps, false);
                &plain
            }
        };
        let mut encoder: Option<wgpu::CommandEncoder> = None;
        let mut recorded = 0;
        for Segment { steps: range, pass } in segments {
            let current = encoder.get_or_insert_with(|| device.create_command_encoder(&Default::default()));
            let timestamps = clock.zip(*pass).map(|(clock, pass)| clock.writes(pass));
            self.record_segment(current, &steps[range.clone()], timestamps);
            recorded += range.len();
            if recorded >= self.shared.options.max_steps_per_command_buffer {
                buffers.extend(encoder.take().map(wgpu::CommandEncoder::finish));
                recorded = 0;
            }
        }
        buffers.extend(encoder.map(wgpu::CommandEncoder::finish));
    }

    fn record_segment(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        steps: &[PreparedStep],
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        if let [PreparedStep::Copy { from, to }] = steps {
            return self.record_copy(encoder, from, to);
        }
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("paisley"), timestamp_writes });
        for step in steps {
            match step {
                PreparedStep::Dispatch { name: _, pipeline, bind_group, workgroups: [x, y, z] } => {
                    pass.set_pipeline(&pipeline.pipeline);
                    pass.set_bind_group(0, bind_group, &[]);
                    pass.dispatch_workgroups(*x, *y, *z);
                }
                PreparedStep::Copy { .. } => unreachable!("a copy is a segment of its own"),
            }
        }
    }

    fn record_copy(&self, encoder: &mut wgpu::CommandEncoder, from: &BufferRange, to: &BufferRange) {
        let size = from.padded_size();
        let mut copy = |from: &wgpu::Buffer, from_offset, to: &wgpu::Buffer, to_offset| {
            encoder.copy_buffer_to_buffer(from, from_offset, to, to_offset, size);
        };
        match &self.scratch {
            Some(scratch) if from.memory == to.memory => {
                copy(&from.memory.buffer, from.offset, &scratch.buffer, 0);
                copy(&scratch.buffer, 0, &to.memory.buffer, to.offset);
            }
            _ => copy(&from.memory.buffer, from.offset, &to.memory.buffer, to.offset),
        }
    }
}

/// Steps recorded together.
struct Segment {
    steps: Range<usize>,
    /// The compute pass's number among the passes; none for a copy.
    pass: Option<usize>,
}

/// Cuts `steps` into segments: every copy alone, dispatches together up to the limit, or alone when `single`.
fn segments(shared: &Shared, steps: &[PreparedStep], single: bool) -> Vec<Segment> {
    let max = if single { 1 } else { shared.options.max_steps_per_command_buffer.max(1) };
    let mut all: Vec<Segment> = Vec::new();
    let mut passes = 0;
    for (index, step) in steps.iter().enumerate() {
        let own = index..index + 1;
        match (step, all.last_mut()) {
            (PreparedStep::Copy { .. }, _) => all.push(Segment { steps: own, pass: None }),
            (PreparedStep::Dispatch { .. }, Some(Segment { steps, pass: Some(_) })) if steps.len() < max => {
                steps.end = own.end;
            }
            (PreparedStep::Dispatch { .. }, _) => {
                all.push(Segment { steps: own, pass: Some(passes) });
                passes += 1;
            }
        }
    }
    all
}

fn check_dispatch(shared: &Shared, dispatch: &Dispatch) -> Result<(), GpuError> {
    let Dispatch { kernel, ranges } = dispatch;
    let limits = &shared.target.limits;
    let name = || kernel.name.clone();
    let (expected, given) = (kernel.bindings.len(), ranges.len());
    if expected != given {
        return Err(GpuError::BindingCount { kernel: name(), expected, given });
    }
    let max = limits.max_storage_buffers_per_stage as usize;
    if given > max {
        return Err(GpuError::TooManyBindings { kernel: name(), count: given, max });
    }
    let max = limits.max_workgroups_per_dimension;
    if kernel.workgroups.iter().any(|&groups| groups > max) {
        return Err(GpuError::GridTooLarge { kernel: name(), grid: kernel.workgroups, max });
    }
    let max = limits.max_storage_buffer_binding_bytes;
    for (binding, range) in ranges.iter().enumerate() {
        let what = format!("binding {binding} of kernel `{}`", kernel.name);
        range.check(&what, u64::from(limits.storage_offset_alignment_bytes))?;
        if range.padded_size() > max {
            return Err(GpuError::BindingTooLarge { kernel: name(), binding, bytes: range.size, max });
        }
    }
    let bound = || kernel.bindings.iter().zip(ranges);
    let mixed = bound()
        .any(|(kind, range)| bound().any(|(other, near)| near.memory == range.memory && other != kind));
    if mixed { Err(GpuError::MixedAccess { kernel: name() }) } else { Ok(()) }
}

fn check_copy(index: usize, from: &BufferRange, to: &BufferRange) -> Result<(), GpuError> {
    from.check(&format!("the source of the copy in step {index}"), 4)?;
    to.check(&format!("the destination of the copy in step {index}"), 4)?;
    if from.size != to.size {
        let what = format!("the source of the copy in step {index}");
        return Err(GpuError::SizeMismatch { what, given: from.size, expected: to.size });
    }
    Ok(())
}

fn scratch_bytes(step: &Step) -> u64 {
    match step {
        Step::Copy { from, to } if from.memory == to.memory => from.padded_size(),
        Step::Copy { .. } | Step::Dispatch(_) => 0,
    }
}

fn prepare_dispatch(
    shared: &Shared,
    dispatch: &Dispatch,
    pipeline: Arc<Pipeline>,
) -> Result<PreparedStep, GpuError> {
    let Dispatch { kernel, ranges } = dispatch;
    let entries: Vec<wgpu::BindGroupEntry<'_>> = ranges
        .iter()
        .zip(0..)
        .map(|(range, binding)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &range.memory.buffer,
                offset: range.offset,
                size: wgpu::BufferSize::new(range.padded_size()),
            }),
        })
        .collect();
    let bind_group = shared.checked(&format!("kernel `{}`", kernel.name), |device| {
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&kernel.name),
            layout: &pipeline.layout,
            entries: &entries,
        })
    })?;
    Ok(PreparedStep::Dispatch {
        name: kernel.name.clone(),
        pipeline,
        bind_group,
        workgroups: kernel.workgroups,
    })
}

/// Timestamps of the passes of one run: two queries a pass.
struct Clock {
    segments: Vec<Segment>,
    passes: usize,
    sets: Vec<wgpu::QuerySet>,
}

impl Clock {
    fn new(shared: &Shared, segments: Vec<Segment>) -> Result<Clock, GpuError> {
        let passes = segments.iter().filter(|segment| segment.pass.is_some()).count();
        let sets = shared.checked("timestamp queries", |device| {
            let create = |count| {
                device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count,
                })
            };
            query_counts(passes).map(create).collect()
        })?;
        Ok(Clock { segments, passes, sets })
    }

    fn writes(&self, pass: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * (pass % PASSES_PER_QUERY_SET) as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[pass / PASSES_PER_QUERY_SET],
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// The time from the first pass to the last, and when each pass that dispatches began and ended, in nanoseconds. To be
    /// called after the run's submission is done, as queries resolved in the submission that writes them may read as zero.
    fn read(&self, shared: &Shared) -> Result<(u64, Vec<Range<u64>>), GpuError> {
        let period = f64::from(shared.queue.get_timestamp_period());
        let mut ticks: Vec<u64> = Vec::with_capacity(2 * self.passes);
        for (set, queries) in self.sets.iter().zip(query_counts(self.passes)) {
            let bytes = u64::from(queries) * 8;
            let resolve_usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = create_buffer(shared, "timestamps", bytes, resolve_usage)?;
            let read_usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let readable = create_buffer(shared, "timestamps", bytes, read_usage)?;
            let submission = shared.checked("resolving timestamps", |device| {
                let mut encoder = device.create_command_encoder(&Default::default());
                encoder.resolve_query_set(set, 0..queries, &resolved, 0);
                encoder.copy_buffer_to_buffer(&resolved, 0, &readable, 0, bytes);
                shared.queue.submit([encoder.finish()])
            })?;
            map(shared, &readable, wgpu::MapMode::Read, bytes, Some(submission))?;
            let view = readable.slice(..).get_mapped_range().map_err(map_failed)?;
            ticks.extend(bytemuck::pod_collect_to_vec::<u8, u64>(&view));
        }
        let first = ticks.first().copied().unwrap_or(0);
        let since = |tick: u64| (tick.saturating_sub(first) as f64 * period) as u64;
        let total = ticks.last().map_or(0, |&last| since(last));
        let spans = ticks.chunks_exact(2).map(|pair| since(pair[0])..since(pair[1]).max(since(pair[0])));
        Ok((total, spans.collect()))
    }
}

/// The sizes of the query sets for `passes` passes.
fn query_counts(passes: usize) -> impl Iterator<Item = u32> {
    (0..passes)
        .step_by(PASSES_PER_QUERY_SET)
        .map(move |first| 2 * (passes - first).min(PASSES_PER_QUERY_SET) as u32)
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
