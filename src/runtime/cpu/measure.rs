//! What the processor does at best, measured.

use super::kernels;
use crate::runtime::RuntimeError;
use crate::target::{CpuTarget, MeasuredRates, ReadRate};
use paisley_kernels::pool::Pool;
use paisley_kernels::rates::{flop_per_second, hand_over_ns, read_bytes_per_second};
use std::time::Duration;

/// Sizes that are read: each power of two from what the first-level cache holds to what no cache does.
const READ_BYTES: std::ops::RangeInclusive<u32> = 15..=27;
const TIME: Duration = Duration::from_millis(4);
const ROUNDS: usize = 3;

/// Measures `target`, which is this machine, with its instruction set and threads: of some short rounds the best. Takes about a
/// quarter of a second, and 128 MiB of memory meanwhile.
///
/// # Errors
/// Where the threads cannot be started.
pub fn measure_rates(target: &CpuTarget) -> Result<MeasuredRates, RuntimeError> {
    let (table, pool) = (kernels(target.isa), Pool::new(target.threads).map_err(RuntimeError::defect)?);
    let data = vec![1.0f32; (1 << READ_BYTES.end()) / size_of::<f32>()];
    let mut best: Option<MeasuredRates> = None;
    for _ in 0..ROUNDS {
        let flop_per_second = flop_per_second(table, &pool, TIME).map_err(RuntimeError::defect)?;
        let reads = READ_BYTES
            .map(|power| {
                let bytes = 1usize << power;
                let rate = read_bytes_per_second(table, &pool, &data[..bytes / size_of::<f32>()], TIME);
                let bytes_per_second = rate.map_err(RuntimeError::defect)?;
                Ok(ReadRate { bytes: bytes as u64, bytes_per_second })
            })
            .collect::<Result<_, RuntimeError>>()?;
        let hand_over_ns = hand_over_ns(&pool).map_err(RuntimeError::defect)?;
        let round = MeasuredRates { flop_per_second, reads, hand_over_ns };
        best = Some(match best {
            Some(best) => best.or_faster(&round),
            None => round,
        });
    }
    Ok(best.unwrap_or_default())
}
