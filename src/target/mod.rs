//! Layer 1: plain data describing a device: limits, features, sizes and rates; presets; saved profiles.
//!
//! Nothing here detects a device; `runtime` does, and hands out these types.

mod cpu;
mod gpu;
mod limits;
mod record;

pub use cpu::{CpuIsa, CpuTarget};
pub use gpu::{CooperativeMatrix, GpuBackend, GpuFeatures, GpuKind, GpuLimits, GpuTarget, SubgroupSizes};
pub use limits::{Demand, Limit, MeasuredRates, ReadRate};
pub use record::{RecordError, TargetRecord};

/// The device a model is compiled for.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A processor with its threads.
    Cpu(CpuTarget),
    /// A graphics adapter.
    Gpu(GpuTarget),
}

impl Target {
    /// The device's name, for people.
    pub fn name(&self) -> &str {
        match self {
            Target::Cpu(cpu) => &cpu.name,
            Target::Gpu(gpu) => &gpu.name,
        }
    }

    /// What the device can do per second at best, estimated or measured.
    pub fn rates(&self) -> Rates {
        match self {
            Target::Cpu(cpu) => cpu.rates,
            Target::Gpu(gpu) => gpu.rates,
        }
    }

    /// Text that differs between targets for which a schedule or a compiled bundle may differ: device, driver, backend
    /// and a hash over limits and features. Rates take no part, so that measuring them keeps what was tuned.
    pub fn fingerprint(&self) -> String {
        let without_rates = match self.clone() {
            Target::Cpu(cpu) => Target::Cpu(CpuTarget { rates: Rates::UNKNOWN, ..cpu }),
            Target::Gpu(gpu) => Target::Gpu(GpuTarget { rates: Rates::UNKNOWN, ..gpu }),
        };
        let hash = blake3::hash(TargetRecord::from(&without_rates).to_json().as_bytes()).to_hex();
        let short = &hash.as_str()[..12];
        match self {
            Target::Cpu(cpu) => {
                format!("cpu/{}/{}/{} threads/{short}", cpu.isa.name(), cpu.name, cpu.threads)
            }
            Target::Gpu(gpu) => {
                format!("gpu/{}/{}/{}/{short}", gpu.backend.name(), gpu.name, gpu.driver)
            }
        }
    }
}

/// Upper bounds on speed, the two roofs of the roofline model (Williams, Waterman, Patterson 2009) and the fixed cost
/// of a kernel. Estimates until measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Floating-point operations on f32 per second; a fused multiply-add counts 2.
    pub flop_per_second: f64,
    /// Bytes moved from and to main memory per second.
    pub bytes_per_second: f64,
    /// Time to start one kernel, in nanoseconds.
    pub launch_ns: f64,
}

impl Rates {
    /// Neutral values for comparisons that must not depend on speed.
    pub const UNKNOWN: Rates = Rates { flop_per_second: 1.0, bytes_per_second: 1.0, launch_ns: 0.0 };
}

#[cfg(test)]
mod tests;
