//! Layer 9: running compiled programs on devices.

pub mod gpu;
