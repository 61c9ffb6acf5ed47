//! What processor this is.

use crate::target::{CpuIsa, CpuTarget};
use paisley_kernels::Isa;

/// The processor of this machine, with `threads` threads; `None` means one for each physical core.
pub fn detect(threads: Option<usize>) -> CpuTarget {
    let isa = match Isa::detect() {
        Isa::Generic => CpuIsa::Generic,
        Isa::Avx2 => CpuIsa::Avx2,
        Isa::Avx512 => CpuIsa::Avx512,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(cores).max(1);
    CpuTarget { cores, threads, ..CpuTarget::preset(isa, threads) }
}
