//! What can go wrong on a device.

use std::time::Duration;

/// A failure of a graphics device, or a request it cannot take.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GpuError {
    /// There is no adapter at all.
    #[error(
        "no graphics adapter was found; install a Vulkan, Metal or Direct3D 12 driver, or run on the processor"
    )]
    NoAdapter,
    /// There is no adapter of that number.
    #[error("there is no graphics adapter {index}; {found} were found")]
    AdapterIndex {
        /// The number asked for.
        index: usize,
        /// How many there are.
        found: usize,
    },
    /// The adapter gave no device.
    #[error("the adapter `{adapter}` could not be opened: {text}")]
    Open {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        text: String,
    },
    /// The device is gone; nothing on it can be used again.
    #[error("the graphics device was lost ({reason}); open it again to continue")]
    DeviceLost {
        /// The driver's words.
        reason: String,
    },
    /// The device has no memory left.
    #[error("the graphics device has no memory left for {what}; free some, or use a smaller model or batch")]
    OutOfMemory {
        /// What was to be created.
        what: String,
    },
    /// The driver library refused a shader or a command.
    #[error("{what} is invalid: {text}")]
    Validation {
        /// What was refused.
        what: String,
        /// Why, in the library's words.
        text: String,
    },
    /// The driver failed in a way that has no name.
    #[error("{what} failed inside the driver: {text}")]
    Internal {
        /// What was attempted.
        what: String,
        /// The driver's words.
        text: String,
    },
    /// The device did not finish in time. It may still be working; later calls wait for that first.
    #[error("the graphics device did not finish within {after:?}; raise the time limit or reduce the work")]
    Timeout {
        /// The time waited.
        after: Duration,
    },
    /// A grid has too many workgroups along an axis.
    #[error(
        "kernel `{kernel}` asks for a grid of {grid:?} workgroups, the device allows {max} along each axis"
    )]
    GridTooLarge {
        /// The kernel.
        kernel: String,
        /// Its grid.
        grid: [u32; 3],
        /// The limit.
        max: u32,
    },
    /// A buffer is larger than the device allows.
    #[error("a buffer of {bytes} bytes was asked for, the device allows {max}; split it")]
    BufferTooLarge {
        /// The size asked for.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A binding covers more bytes than the device allows.
    #[error("kernel `{kernel}` binds {bytes} bytes at {binding}, the device allows {max}; split the tensor")]
    BindingTooLarge {
        /// The kernel.
        kernel: String,
        /// The binding's number.
        binding: usize,
        /// The bytes bound.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A kernel binds more buffers than the device allows.
    #[error("kernel `{kernel}` binds {count} buffers, the device allows {max}")]
    TooManyBindings {
        /// The kernel.
        kernel: String,
        /// Its bindings.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A dispatch gives a kernel too few or too many ranges.
    #[error("kernel `{kernel}` has {expected} bindings, the dispatch gives {given} ranges")]
    BindingCount {
        /// The kernel.
        kernel: String,
        /// Its bindings.
        expected: usize,
        /// The ranges given.
        given: usize,
    },
    /// A dispatch binds one memory both read-only and writable.
    #[error(
        "kernel `{kernel}` binds one memory both Read and ReadWrite; bind all its ranges ReadWrite, or keep what is \
         only read in a memory of its own"
    )]
    MixedAccess {
        /// The kernel.
        kernel: String,
    },
    /// A range starts where the device cannot bind or copy.
    #[error("{what} starts at byte {offset}, which is not a multiple of {alignment}")]
    Misaligned {
        /// Whose range it is.
        what: String,
        /// Its first byte.
        offset: u64,
        /// What that must be a multiple of.
        alignment: u64,
    },
    /// A range is empty or reaches beyond its memory.
    #[error(
        "{what} covers bytes {offset}..{offset}+{size}, the memory has {available} and a range may not be empty"
    )]
    OutOfRange {
        /// Whose range it is.
        what: String,
        /// Its first byte.
        offset: u64,
        /// Its length.
        size: u64,
        /// The memory's length.
        available: u64,
    },
    /// Data and range, or the two ranges of a copy, differ in length.
    #[error("{what} has {given} bytes where {expected} are needed")]
    SizeMismatch {
        /// What was given.
        what: String,
        /// The bytes given.
        given: u64,
        /// The bytes needed.
        expected: u64,
    },
}
