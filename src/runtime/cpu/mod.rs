//! Running plans on the processor: programs over a pool of threads, resident constants, and where values lie between steps.

mod detect;
mod executor;
mod measure;

pub use detect::detect;
pub use executor::{CpuExecutor, StepRunner, prepare_constants};
pub use measure::measure_rates;

use crate::codegen::cpu::CpuCode;
use paisley_kernels::program::{Program, VerifyError};
use paisley_kernels::{Isa, KernelTable, table};

/// The micro-kernels of an instruction set.
pub(crate) fn kernels(isa: crate::target::CpuIsa) -> &'static KernelTable {
    table(match isa {
        crate::target::CpuIsa::Generic => Isa::Generic,
        crate::target::CpuIsa::Avx2 => Isa::Avx2,
        crate::target::CpuIsa::Avx512 => Isa::Avx512,
    })
}

/// Makes emitted code a program that can run.
///
/// # Errors
/// What the program's verifier finds.
#[expect(
    unsafe_code,
    reason = "the one place where the promise that parallel iterations are independent is made"
)]
pub(crate) fn program(code: &CpuCode, kernels: &'static KernelTable) -> Result<Program, VerifyError> {
    // SAFETY: a loop is parallel only where the step `bind` proved that its iterations touch different elements
    // (`analysis::carried_buffers`), and no later step can change that: a step keeps the meaning of the nest.
    unsafe { Program::new(code.code.clone(), kernels) }
}
