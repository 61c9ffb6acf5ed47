//! Whether the cores that threads run on have a cache in common.
//!
//! What a thread writes and another has read costs several times as much to write again where the two share no cache, so that it then
//! is better written past the caches, and what only one of them reads where only that one writes. A system moves threads, and a virtual machine its cores, unseen and while they run: so it is
//! measured again and again, by a few hand-overs between two threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A longer way to another thread and back leaves the cache that cores have in common.
const FAR: Duration = Duration::from_nanos(180);
/// Ways to the other thread and back; the shortest counts.
const ROUNDS: usize = 4;
/// How long each of the two waits for the other at most: it may have no core just then.
const PATIENCE: Duration = Duration::from_micros(5);
/// Looks at the ball between two at the clock, which takes as long as a hand-over. No pauses between them: those take that long, too.
const LOOKS: usize = 32;
/// How long what was measured holds.
const VALIDITY: Duration = Duration::from_millis(10);

/// What is known of the cores of a run's threads.
#[derive(Debug, Default)]
pub(super) struct Distance {
    apart: AtomicBool,
    measured: Option<Instant>,
    ball: Ball,
}

/// What two threads throw to one another: a number that is odd on the way there, in lines of a cache that hold nothing else.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Ball(AtomicUsize);

/// The number of the last throw, which comes back no more.
const LAST: usize = 2 * ROUNDS + 1;

impl Distance {
    /// Whether the threads had no cache in common when that was last measured; not, as long as it was not.
    pub(super) fn apart(&self) -> bool {
        self.apart.load(Ordering::Relaxed)
    }

    /// As if that had just been measured.
    #[cfg(test)]
    pub(super) fn pretend(&mut self, apart: bool) {
        self.apart = AtomicBool::new(apart);
        self.measured = Some(Instant::now());
    }

    /// Whether it is time to measure. Each thread of the run then calls [`measure`](Self::measure), or may.
    pub(super) fn begin(&mut self) -> bool {
        let now = Instant::now();
        if self.measured.is_some_and(|measured| now.duration_since(measured) < VALIDITY) {
            return false;
        }
        self.measured = Some(now);
        *self.ball.0.get_mut() = 0;
        true
    }

    /// A thread's part: the first throws to the last of `threads`. Where the other does not come, what was known stays.
    pub(super) fn measure(&self, thread: usize, threads: usize) {
        if thread == 0 {
            if let Some(shortest) = self.throw() {
                self.apart.store(shortest > FAR, Ordering::Relaxed);
            }
        } else if thread + 1 == threads {
            self.throw_back();
        }
    }

    fn throw(&self) -> Option<Duration> {
        let mut shortest = None;
        let start = Instant::now();
        for round in 0..ROUNDS {
            let thrown = Instant::now();
            self.ball.0.store(2 * round + 1, Ordering::Release);
            if self.look(start, |ball| ball == 2 * round + 2).is_none() {
                self.ball.0.store(LAST, Ordering::Release);
                return None;
            }
            let way = thrown.elapsed();
            shortest = Some(shortest.map_or(way, |shortest: Duration| shortest.min(way)));
        }
        self.ball.0.store(LAST, Ordering::Release);
        shortest
    }

    fn throw_back(&self) {
        let start = Instant::now();
        while let Some(ball) = self.look(start, |ball| ball % 2 == 1) {
            if ball == LAST {
                return;
            }
            // Not over the last one.
            let _ = self.ball.0.compare_exchange(ball, ball + 1, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The number of the ball once it is `awaited`; `None` where it has not come before patience ends.
    fn look(&self, start: Instant, awaited: impl Fn(usize) -> bool) -> Option<usize> {
        loop {
            for _ in 0..LOOKS {
                let ball = self.ball.0.load(Ordering::Acquire);
                if awaited(ball) {
                    return Some(ball);
                }
            }
            if start.elapsed() > PATIENCE {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_measured_once_in_a_while() {
        let mut distance = Distance::default();
        assert!(!distance.apart());
        assert!(distance.begin());
        // Alone: nobody throws back, and what was known stays.
        distance.pretend(true);
        distance.measure(0, 2);
        assert!(distance.apart());
        distance.measure(1, 2);
        assert!(!distance.begin());
    }

    #[test]
    fn the_last_thread_throws_back() {
        for _ in 0..100 {
            let mut distance = Distance::default();
            assert!(distance.begin());
            std::thread::scope(|scope| {
                scope.spawn(|| distance.measure(1, 2));
                distance.measure(0, 2);
            });
            assert_eq!(distance.ball.0.load(Ordering::Relaxed), LAST);
        }
    }
}
