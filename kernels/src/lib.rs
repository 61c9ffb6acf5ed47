//! CPU micro-kernels.
