//! Layer 4: what can be said about a nest without running it.

mod dependence;

pub use dependence::{Access, accesses, carried_buffers};
