//! Processors.

use super::Rates;

/// The instruction sets the micro-kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CpuIsa {
    /// Whatever the compiler's baseline for the architecture vectorises to.
    Generic,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl CpuIsa {
    /// Every instruction set, weakest first.
    pub const ALL: [CpuIsa; 3] = [CpuIsa::Generic, CpuIsa::Avx2, CpuIsa::Avx512];

    /// The name used in text forms.
    pub fn name(self) -> &'static str {
        match self {
            CpuIsa::Generic => "generic",
            CpuIsa::Avx2 => "avx2",
            CpuIsa::Avx512 => "avx512",
        }
    }

    /// The instruction set of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<CpuIsa> {
        CpuIsa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The f32 values in one vector register.
    pub fn vector_lanes_f32(self) -> usize {
        match self {
            CpuIsa::Generic => 4,
            CpuIsa::Avx2 => 8,
            CpuIsa::Avx512 => 16,
        }
    }

    /// The number of vector registers a kernel may keep values in.
    pub fn vector_registers(self) -> usize {
        match self {
            CpuIsa::Generic | CpuIsa::Avx2 => 16,
            CpuIsa::Avx512 => 32,
        }
    }
}

/// A processor and how much of it may be used.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuTarget {
    /// The model's name, for people.
    pub name: String,
    /// The instruction set kernels are chosen from.
    pub isa: CpuIsa,
    /// Physical cores.
    pub cores: usize,
    /// Threads that run kernels; usually the cores.
    pub threads: usize,
    /// The f32 values in one vector register.
    pub vector_lanes_f32: usize,
    /// First-level data cache of one core.
    pub l1_bytes: usize,
    /// Second-level cache of one core.
    pub l2_bytes: usize,
    /// Last-level cache, shared by all cores.
    pub l3_bytes: usize,
    /// Upper bounds on speed, all threads together.
    pub rates: Rates,
}

impl CpuTarget {
    /// A processor of `isa` with `threads` cores and threads, with caches and rates usual for its kind.
    pub fn preset(isa: CpuIsa, threads: usize) -> CpuTarget {
        let lanes = isa.vector_lanes_f32();
        let (l1_bytes, l2_bytes) = match isa {
            CpuIsa::Generic => (32 << 10, 256 << 10),
            CpuIsa::Avx2 => (32 << 10, 512 << 10),
            CpuIsa::Avx512 => (48 << 10, 1 << 20),
        };
        // Two fused multiply-adds of one register each cycle at 3 GHz.
        let flop_per_core = 2.0 * 2.0 * lanes as f64 * 3e9;
        CpuTarget {
            name: isa.name().to_string(),
            isa,
            cores: threads,
            threads,
            vector_lanes_f32: lanes,
            l1_bytes,
            l2_bytes,
            l3_bytes: 16 << 20,
            rates: Rates {
                flop_per_second: flop_per_core * threads as f64,
                bytes_per_second: 20e9,
                launch_ns: 500.0,
            },
        }
    }
}
