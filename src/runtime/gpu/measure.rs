//! What an adapter does at best, measured.

use super::{BindingKind, Dispatch, Gpu, GpuError, GpuKernel, Step, Timing};
use crate::codegen::wgsl::{ARITHMETIC_PROBE, ARITHMETIC_PROBE_FLOP, PROBE_WORKGROUP, READ_PROBE};
use crate::target::{MeasuredRates, ReadRate};

/// A run of the arithmetic is long enough from here on.
const ENOUGH_NS: u64 = 5_000_000;
/// Workgroups that read, at most: enough for every adapter, few enough for each invocation to read many vectors of large data.
const READ_GROUPS: u64 = 2048;
/// Sizes that are read, as powers of two, and the bytes read at each size in all.
const READ_BYTES: std::ops::RangeInclusive<u32> = 18..=27;
const READ_TOTAL: u64 = 1 << 27;
const ROUNDS: usize = 3;

/// Measures the adapter: of some short rounds the best.
///
/// # Errors
/// Where the adapter fails or does not finish in time.
pub fn measure_rates(gpu: &Gpu) -> Result<MeasuredRates, GpuError> {
    let limits = &gpu.target().limits;
    let mut groups = 64;
    let mut flop_per_second = 0.0f64;
    loop {
        let flop = u64::from(groups) * PROBE_WORKGROUP * ARITHMETIC_PROBE_FLOP;
        let ns = time(gpu, &arithmetic(gpu, groups)?)?;
        flop_per_second = flop_per_second.max(1e9 * flop as f64 / ns.max(1) as f64);
        if ns >= ENOUGH_NS || groups * 4 > limits.max_workgroups_per_dimension {
            break;
        }
        groups *= 4;
    }
    let most = limits.max_storage_buffer_binding_bytes.min(limits.max_buffer_bytes);
    let sizes = READ_BYTES.map(|power| 1u64 << power).filter(|&bytes| bytes <= most);
    let reads = sizes.map(|bytes| {
        let repeats = (READ_TOTAL / bytes).clamp(1, 64);
        let ns = time(gpu, &read(gpu, bytes, repeats)?)?;
        let bytes_per_second = 1e9 * (bytes * repeats) as f64 / ns.max(1) as f64;
        Ok(ReadRate { bytes, bytes_per_second })
    });
    let reads = reads.collect::<Result<_, GpuError>>()?;
    Ok(MeasuredRates { flop_per_second, reads, hand_over_ns: None })
}

/// The least device time of some runs, after one that is not counted.
fn time(gpu: &Gpu, steps: &[Step]) -> Result<u64, GpuError> {
    let program = gpu.prepare(steps)?;
    program.run(&[], &[], Timing::Wall)?;
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let report = program.run(&[], &[], Timing::Device)?;
        // A timestamp that was lost reads as zero.
        best = best.min(report.device_ns.filter(|&ns| ns > 0).unwrap_or(report.wall_ns));
    }
    Ok(best)
}

fn kernel(entry: &str, wgsl: &str, bindings: &[BindingKind], groups: u32) -> GpuKernel {
    GpuKernel {
        name: entry.to_string(),
        wgsl: wgsl.to_string(),
        entry: entry.to_string(),
        bindings: bindings.to_vec(),
        workgroups: [groups, 1, 1],
        bounds_checked: true,
        zero_workgroup_memory: true,
    }
}

fn arithmetic(gpu: &Gpu, groups: u32) -> Result<Vec<Step>, GpuError> {
    let result = gpu.allocate(4 * PROBE_WORKGROUP * u64::from(groups))?;
    let kernel = kernel("arithmetic", ARITHMETIC_PROBE, &[BindingKind::ReadWrite], groups);
    Ok(vec![Step::Dispatch(Dispatch { kernel, ranges: vec![result.whole()] })])
}

fn read(gpu: &Gpu, bytes: u64, repeats: u64) -> Result<Vec<Step>, GpuError> {
    let groups = (bytes / 16 / (8 * PROBE_WORKGROUP)).clamp(1, READ_GROUPS);
    let (data, result) = (gpu.allocate(bytes)?, gpu.allocate(4 * PROBE_WORKGROUP * groups)?);
    let kernel = kernel("read_all", READ_PROBE, &[BindingKind::Read, BindingKind::ReadWrite], groups as u32);
    let step = Step::Dispatch(Dispatch { kernel, ranges: vec![data.whole(), result.whole()] });
    Ok((0..repeats).map(|_| step.clone()).collect())
}
