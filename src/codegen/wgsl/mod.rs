//! WGSL compute shaders from scheduled nests.
//!
//! # Kernels
//!
//! The boundary between two dispatches is the only barrier that holds for a whole device, so each statement on the top level
//! of a nest's body becomes one kernel; where a buffer of registers or workgroup memory is allocated there, it and all that
//! follows. Global local buffers are bound like parameters: they are scratch memory that outlives a kernel.
//!
//! # Loops
//!
//! `workgroup` loops form the grid, and are the outermost loops of a kernel; several of one axis multiply. A grid beyond the
//! limit of a dimension is folded: one flat number over all dimensions, the workgroups beyond the last one leave at once.
//! `invocation` loops form the workgroup. Statements between them are run by the first invocation, with barriers around.
//! `unroll` and `vector` loops are expanded, up to [`MAX_STATEMENTS`] statements; beyond, the outer loop stays a loop. Four
//! lanes of a `vector` loop become one `vec4` statement where that makes memory accesses wide. `parallel` loops are serial.
//!
//! # Memory
//!
//! Shapes are constants of the text. A buffer has one element type in a kernel: `vec4` where every access of it is four
//! aligned neighbours or a known component of such. Register buffers are named variables where all their indices are
//! constant after expansion, else arrays; together they have at most [`MAX_PRIVATE_BYTES`], the arrays [`MAX_ARRAY_BYTES`].
//! An index that is not proved to be in range is clamped, and a store through one is skipped where it is out of range: a kernel never reads or writes outside of
//! its buffers, whatever the data. Where a buffer is larger than a binding may be and a `workgroup` loop walks it, several
//! kernels share the work, each with a part of it.
//!
//! # Numbers
//!
//! Stored types are f32, f16, i32 and u32, see [`storage_type`]; f64, u64 and bf16 are refused. i64 is computed in i32: values
//! beyond its range wrap, constants beyond it saturate. WGSL promises nothing about NaN and infinity: `min` and `max` of a
//! NaN give either operand, a driver may assume that there are none; drivers that follow IEEE give IEEE results here.
//! Functions keep to 1e-6 absolute or relative error, except where the driver's own `exp`, `log`, `sin` and `cos` do not.

mod broadcast;
mod expand;
mod grid;
mod layout;
mod lower;
mod names;
mod ops;
mod probe;
mod speculate;
mod values;
mod window;
mod writer;

pub use probe::{ARITHMETIC_PROBE, ARITHMETIC_PROBE_FLOP, PROBE_WORKGROUP, READ_PROBE};

use crate::expr::{BufferId, Role, Scope};
use crate::loopir::{Nest, Stmt};
use crate::target::GpuTarget;
use crate::tensor::DType;
use grid::Grid;

/// The most statements that expanding loops may make of one loop; a loop that would exceed it stays a loop.
pub const MAX_STATEMENTS: usize = 1024;

/// The most bytes of variables and arrays that an invocation may have: what the WGSL specification demands that every implementation allows
/// for the variables of a function (section "Limits"). Adapters do not say whether they allow more.
pub const MAX_PRIVATE_BYTES: u64 = 8192;

/// The most bytes of arrays that an invocation may have, all declarations together. Registers have no addresses: a shader compiler turns each access at a
/// computed index into a choice among all elements and unrolls the loops around it, or moves the array to memory. What it
/// generates, and how long that takes, grows faster than the array; nothing limits it but the size of arrays.
pub const MAX_ARRAY_BYTES: u64 = 1024;

/// How a kernel declares a binding. Constants are read; all others are declared writable also where they are only read, so
/// that they can share one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A storage buffer of a kernel. Its number in [`WgslKernel::bindings`] is its `@binding` in group 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The buffer of the nest.
    pub buffer: BufferId,
    /// Its name in the nest.
    pub name: String,
    /// How it is declared.
    pub access: Access,
    /// Whether the kernel writes it.
    pub written: bool,
    /// The type of the stored elements: F32, F16, I32 or U32.
    pub stored: DType,
    /// Where in the buffer the binding begins; a multiple of the target's alignment.
    pub offset_bytes: u64,
    /// Bytes from there on that the kernel can reach.
    pub bytes: u64,
}

/// One compute shader: text, interface, grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgslKernel {
    /// `<nest>_<first 8 digits of the text's hash>`; the name of the entry point too.
    pub name: String,
    /// The module.
    pub text: String,
    /// Storage buffers in order of their binding numbers: parameters first.
    pub bindings: Vec<Binding>,
    /// Workgroups along x, y and z.
    pub workgroups: [u32; 3],
    /// Invocations of a workgroup along x, y and z.
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_memory_bytes: u32,
    /// Whether the device needs the feature f16.
    pub f16: bool,
    /// Whether every access was proved in range when the kernel was emitted; otherwise some are checked while it runs.
    /// Either way no access is out of range, every loop ends and no integer is divided by zero.
    pub bounds_proved: bool,
}

/// Why a nest cannot run on a device. Another schedule helps against [`Limit`](WgslError::Limit) and
/// [`Structure`](WgslError::Structure); against the others, another device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WgslError {
    /// An element type without a form on the device.
    #[error("nest '{nest}': {what} is of type {dtype}, which shaders do not have; run it on the CPU")]
    Type {
        /// The nest.
        nest: String,
        /// The buffer or block.
        what: String,
        /// The type.
        dtype: DType,
    },
    /// An operation without a meaning on its type.
    #[error("nest '{nest}': operation {op} is not defined for {dtype}")]
    Operation {
        /// The nest.
        nest: String,
        /// The operation.
        op: &'static str,
        /// The operands' type.
        dtype: DType,
    },
    /// A feature the adapter lacks.
    #[error(
        "nest '{nest}' needs the feature {feature}, which the adapter does not have; choose f32 or another device"
    )]
    Feature {
        /// The nest.
        nest: String,
        /// The feature's name.
        feature: &'static str,
    },
    /// More than the adapter allows.
    #[error(
        "nest '{nest}' needs {needed} of {limit}, and the adapter allows {allowed}; choose smaller tiles"
    )]
    Limit {
        /// The nest.
        nest: String,
        /// The field of [`GpuLimits`](crate::target::GpuLimits), `max_private_bytes` for [`MAX_PRIVATE_BYTES`]
        /// or `max_array_bytes` for [`MAX_ARRAY_BYTES`].
        limit: &'static str,
        /// What the kernel takes.
        needed: u64,
        /// What the adapter has.
        allowed: u64,
    },
    /// Loops or allocations in an order that has no form in a kernel.
    #[error("nest '{nest}': {what} {reason}")]
    Structure {
        /// The nest.
        nest: String,
        /// The loop or buffer.
        what: String,
        /// What is wrong with its place.
        reason: &'static str,
    },
}

/// The type in which elements of `dtype` are stored on a device: f32 and f16 as they are, u32 as it is, bool as u32, other
/// integers as i32; `None` for types that devices do not have. Whoever moves tensors to a device converts.
pub fn storage_type(dtype: DType) -> Option<DType> {
    match dtype {
        DType::F32 | DType::F16 => Some(dtype),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 => Some(DType::I32),
        DType::U32 | DType::Bool => Some(DType::U32),
        DType::F64 | DType::BF16 | DType::U64 => None,
    }
}

/// The kernels of a scheduled, verified nest, in the order in which they run; its preparation is not part of it. Statements
/// that do nothing give no kernel. Equal nests give equal kernels.
///
/// # Errors
/// When the nest has something without a form in WGSL, or exceeds the target's limits.
pub fn emit(nest: &Nest, target: &GpuTarget) -> Result<Vec<WgslKernel>, WgslError> {
    let mut kernels = vec![];
    for stmts in dispatches(nest) {
        match window::parts(nest, stmts, target) {
            None => kernels.extend(kernel_of(nest, stmts, target)?),
            Some(parts) => {
                for window::Part { nest, offsets } in parts {
                    let mut kernel = kernel_of(&nest, &nest.body, target)?;
                    for binding in kernel.iter_mut().flat_map(|kernel| &mut kernel.bindings) {
                        binding.offset_bytes = offsets.get(&binding.buffer).copied().unwrap_or(0);
                    }
                    kernels.extend(kernel);
                }
            }
        }
    }
    Ok(kernels)
}

/// The kernel of statements; `None` where they do nothing.
fn kernel_of(nest: &Nest, stmts: &[Stmt], target: &GpuTarget) -> Result<Option<WgslKernel>, WgslError> {
    match Grid::of(nest, stmts, target)? {
        Some(grid) => writer::write_kernel(nest, &grid, target),
        None => Ok(None),
    }
}

/// The statements of each kernel.
fn dispatches(nest: &Nest) -> Vec<&[Stmt]> {
    let mut parts = vec![];
    for (place, stmt) in nest.body.iter().enumerate() {
        match stmt {
            Stmt::Alloc(id) if nest.pool.buffers[*id].scope != Scope::Global => {
                parts.push(&nest.body[place..]);
                break;
            }
            Stmt::Alloc(_) | Stmt::Barrier => {}
            Stmt::Loop(_) | Stmt::Store(_) => parts.push(&nest.body[place..=place]),
        }
    }
    parts
}

/// How a buffer of that role is declared.
fn access_of(role: Role) -> Access {
    match role {
        Role::Constant | Role::Packed => Access::Read,
        Role::Input | Role::Output | Role::Local => Access::ReadWrite,
    }
}

#[cfg(test)]
mod tests;
