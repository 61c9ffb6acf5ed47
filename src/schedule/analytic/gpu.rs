//! The rules for GPUs.

use super::Scheduler;
use crate::target::GpuTarget;

pub(super) fn schedule(scheduler: &mut Scheduler, target: &GpuTarget) {
    let _ = (scheduler, target);
}
