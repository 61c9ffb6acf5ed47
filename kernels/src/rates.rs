//! How fast this machine is at best, measured: what the figures of kernels are compared with.

use crate::pool::{Pool, PoolError};
use crate::scalar::BinaryOp;
use crate::table::KernelTable;
use crate::tile::{Depth, Factor, Finish, TileArgs};
use std::hint::{black_box, spin_loop};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Depth of the panels that are multiplied: short enough for both to stay in a first-level cache of 32 KiB.
const DEPTH: usize = 128;
/// Values that are read by one call of a kernel.
const CHUNK: usize = 4096;
/// Bytes that are read between two looks at the clock, at least.
const PASS_BYTES: usize = 1 << 20;

/// Floating-point operations a second, all threads of `pool` together: the preferred matrix tile of `table` on panels in the
/// first-level cache, for about `time`.
///
/// # Errors
/// Those of [`Pool::run`].
pub fn flop_per_second(table: &'static KernelTable, pool: &Pool, time: Duration) -> Result<f64, PoolError> {
    let tile = table.tile();
    rate(pool, |_| {
        let (a, b) = (vec![1.0f32; DEPTH * tile.rows], vec![1.0f32; DEPTH * tile.cols]);
        let mut c = vec![0.0f32; tile.rows * tile.cols];
        let calls = 64;
        let flop = (2 * tile.rows * tile.cols * DEPTH * calls) as f64;
        repeat(time, move || {
            for _ in 0..calls {
                let args = TileArgs {
                    rows: tile.rows,
                    cols: tile.cols,
                    depths: Depth::single(DEPTH, tile.rows as isize, tile.cols as isize),
                    tail: None,
                    a: a.as_ptr(),
                    a_row: 1,
                    b: Factor::F32(b.as_ptr()),
                    b_vector: table.lanes as isize,
                    c: c.as_mut_ptr(),
                    c_row: tile.cols as isize,
                    c_vector: table.lanes as isize,
                    accumulate: false,
                    finish: Finish::NONE,
                    ahead_rows: usize::MAX,
                };
                // SAFETY: the panels have the sizes the arguments say, and a table is only given out where the machine has its
                // instruction set.
                unsafe { (tile.run)(black_box(&args)) };
            }
            flop
        })
    })
}

/// Bytes read a second, all threads of `pool` together: each reads its part of `data` again and again, for about `time`.
///
/// # Errors
/// Those of [`Pool::run`].
pub fn read_bytes_per_second(
    table: &'static KernelTable,
    pool: &Pool,
    data: &[f32],
    time: Duration,
) -> Result<f64, PoolError> {
    let part = data.len().div_ceil(pool.threads()).max(1);
    rate(pool, |thread| {
        let own = data.chunks(part).nth(thread).unwrap_or_default();
        let bytes = size_of_val(own);
        let passes = PASS_BYTES.div_ceil(bytes.max(1));
        repeat(if own.is_empty() { Duration::ZERO } else { time }, move || {
            for _ in 0..passes {
                for chunk in own.chunks(CHUNK) {
                    black_box(table.reduce(BinaryOp::Max, black_box(chunk), 0.0));
                }
            }
            (bytes * passes) as f64
        })
    })
}

/// Times that two threads hand over to one another, after as many that are not counted.
const HAND_OVERS: usize = 2000;
/// Looks for what the other writes between two offers of the core, which it may need.
const LOOKS: usize = 100;

/// What two threads write in turn, in lines of a cache that hold nothing else.
#[derive(Default)]
#[repr(align(128))]
struct Turns(AtomicUsize);

/// Nanoseconds until a thread of `pool` sees what another has written, the mean over many times; `None` where there is one thread. It
/// tells whether the cores that the threads run on have a cache in common: several times as long where they do not.
///
/// # Errors
/// Those of [`Pool::run`].
pub fn hand_over_ns(pool: &Pool) -> Result<Option<f64>, PoolError> {
    if pool.threads() < 2 {
        return Ok(None);
    }
    let (turns, measured) = (Turns::default(), Mutex::new(None));
    pool.run(|thread| {
        if thread > 1 {
            return;
        }
        let mut start = Instant::now();
        for turn in 0..2 * HAND_OVERS {
            if turn == HAND_OVERS {
                start = Instant::now();
            }
            if turn % 2 == thread {
                turns.0.store(turn + 1, Ordering::Release);
                continue;
            }
            let mut looks = 0;
            while turns.0.load(Ordering::Acquire) <= turn {
                looks += 1;
                if looks % LOOKS == 0 {
                    std::thread::yield_now();
                }
                spin_loop();
            }
        }
        let ns = start.elapsed().as_nanos() as f64 / HAND_OVERS as f64;
        *crate::pool::locked(&measured) = Some(ns);
    })?;
    Ok(*crate::pool::locked(&measured))
}

/// The rates of all threads together.
fn rate(pool: &Pool, work: impl Fn(usize) -> f64 + Sync) -> Result<f64, PoolError> {
    let sum = Mutex::new(0.0);
    pool.run(|thread| {
        let own = work(thread);
        *crate::pool::locked(&sum) += own;
    })?;
    Ok(*crate::pool::locked(&sum))
}

/// What `work` returns by the second, when it is repeated for `time`, once at least.
fn repeat(time: Duration, mut work: impl FnMut() -> f64) -> f64 {
    work();
    let (start, mut done) = (Instant::now(), 0.0);
    loop {
        done += work();
        let elapsed = start.elapsed();
        if elapsed >= time {
            return done / elapsed.as_secs_f64().max(1e-9);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::table::table;

    #[test]
    fn rates_are_those_of_a_machine() {
        let (pool, time) = (Pool::new(2).unwrap(), Duration::from_millis(2));
        let table = table(Isa::detect());
        let flop = flop_per_second(table, &pool, time).unwrap();
        assert!(flop > 1e8 && flop < 1e14, "{flop}");
        let data = vec![1.0; 1 << 16];
        let read = read_bytes_per_second(table, &pool, &data, time).unwrap();
        assert!(read > 1e8 && read < 1e14, "{read}");
        assert_eq!(read_bytes_per_second(table, &pool, &[], time).unwrap(), 0.0);
    }

    #[test]
    fn threads_hand_over() {
        let ns = hand_over_ns(&Pool::new(3).unwrap()).unwrap();
        assert!(ns.is_some_and(|ns| ns > 1.0), "{ns:?}");
        assert_eq!(hand_over_ns(&Pool::new(1).unwrap()).unwrap(), None);
    }
}
