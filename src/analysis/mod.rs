//! Layer 4: what can be said about a nest without running it.

mod dependence;
mod footprint;
mod races;
mod work;

pub use dependence::{Access, accesses, carried_buffers};
pub use footprint::{Footprint, footprints};
pub use races::{RaceError, verify_races};
pub use work::{Work, work};
