//! Layer 8: emission of scheduled nests for a device.

pub mod wgsl;
