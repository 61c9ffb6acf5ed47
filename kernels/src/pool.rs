//! Persistent threads that run one closure together, and the barrier between the parts of what they run.
//!
//! A fork costs a store that the waiting threads see, not a wake-up: threads that wait spin and yield by turns for some
//! tens of microseconds, then sleep. So a session that runs again and again finds its threads awake, an idle one lets
//! its cores sleep, and more threads than cores still make progress.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Why a [`Pool`] could not be made or did not finish what it was to run.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The operating system refused a thread.
    #[error("thread {thread} of the pool could not be started: {source}; ask for fewer threads")]
    Spawn {
        /// Which thread.
        thread: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The closure panicked.
    #[error("thread {thread} of the pool panicked: {message}")]
    Panicked {
        /// Which thread was first.
        thread: usize,
        /// The panic's message.
        message: String,
    },
    /// A closure that a pool runs tried to run another on a pool.
    #[error("a pool cannot be used from within what a pool runs")]
    Nested,
}

/// A fixed number of threads, of which the caller of [`run`](Pool::run) is number 0.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
    /// Held while a closure runs: callers from different threads take turns.
    turn: Mutex<()>,
}

impl Pool {
    /// Starts `threads - 1` threads, and none for 0 or 1.
    ///
    /// # Errors
    /// [`PoolError::Spawn`]; no thread is left behind.
    pub fn new(threads: usize) -> Result<Pool, PoolError> {
        let threads = threads.max(1);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let patience = if threads <= cores { Patience::AWAKE } else { Patience::CROWDED };
        let shared = Arc::new(Shared {
            threads,
            job: UnsafeCell::new(None),
            start: Gate::new(patience),
            running: Gate::new(patience),
            barrier: Barrier::new(threads, patience),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { shared, others: Vec::with_capacity(threads - 1), turn: Mutex::new(()) };
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let body = move || shared.serve(thread);
            let spawned = std::thread::Builder::new().name(format!("paisley-{thread}")).spawn(body);
            pool.others.push(spawned.map_err(|source| PoolError::Spawn { thread, source })?);
        }
        Ok(pool)
    }

    /// How many threads there are, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Calls `work(thread)` once on every thread, and returns when all calls have. Calls from different threads take turns.
    ///
    /// # Errors
    /// [`PoolError::Panicked`] when a call panics, after the other calls have returned. [`PoolError::Nested`] within `run`.
    pub fn run(&self, work: impl Fn(usize) + Sync) -> Result<(), PoolError> {
        let Some(_inside) = Inside::enter() else { return Err(PoolError::Nested) };
        let _turn = locked(&self.turn);
        let shared = &*self.shared;
        if shared.threads > 1 {
            let work: &(dyn Fn(usize) + Sync) = &work;
            // SAFETY: the lifetime is only forgotten while this function waits below for every thread to be done with the
            // job, panics included. `job` is not read now: all other threads wait for `start` to change.
            unsafe {
                *shared.job.get() = Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(work));
            }
            shared.running.set(shared.threads - 1);
            shared.start.set(shared.start.get().wrapping_add(1));
        }
        shared.call(&work, 0);
        let mut running = shared.running.get();
        while running != 0 {
            shared.running.wait_while(running);
            running = shared.running.get();
        }
        match locked(&shared.panic).take() {
            Some((thread, message)) => Err(PoolError::Panicked { thread, message }),
            None => Ok(()),
        }
    }

    /// The barrier of the threads, to be used by all of them within [`run`](Pool::run) or by none.
    pub(crate) fn barrier(&self) -> &Barrier {
        &self.shared.barrier
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.start.set(self.shared.start.get().wrapping_add(1));
        for thread in self.others.drain(..) {
            // A thread of the pool catches every panic of its jobs, so that it has none to hand on.
            let _ = thread.join();
        }
    }
}

/// A closure that lives until every thread is done with it.
type Job = *const (dyn Fn(usize) + Sync + 'static);

struct Shared {
    threads: usize,
    /// Written by the caller of `run` while all other threads wait for `start`, read by them after it.
    job: UnsafeCell<Option<Job>>,
    start: Gate,
    /// How many of the other threads have not finished the job.
    running: Gate,
    barrier: Barrier,
    stop: AtomicBool,
    panic: Mutex<Option<(usize, String)>>,
}

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written only while the other threads wait for `start`
// (`running` was 0), and `start` and `running` order the write and the reads.
unsafe impl Sync for Shared {}
// SAFETY: nothing in it belongs to one thread; the job is `Sync` and so may be called from any.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Shared {
    /// The life of a thread that is not the caller.
    fn serve(&self, thread: usize) {
        let _inside = Inside::enter();
        let mut round = 0;
        loop {
            self.start.wait_while(round);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            round = round.wrapping_add(1);
            // SAFETY: `start` has changed, so the caller has written the job and waits for `running` before it goes on.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: as above; so the closure is alive until `running` says that this thread is done.
                self.call(unsafe { &*job }, thread);
            }
            self.running.decrement();
        }
    }

    fn call(&self, work: &(dyn Fn(usize) + Sync), thread: usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(thread))) {
            locked(&self.panic).get_or_insert((thread, panic_message(&*panic)));
        }
    }
}

/// The text of a caught panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

/// Locks a mutex whose data stay valid when a holder panics.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks this thread as inside of a pool's run.
struct Inside;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Inside {
    fn enter() -> Option<Inside> {
        (!INSIDE.replace(true)).then(|| Inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// How long to wait awake: rounds of some spins and a yield. The yields matter where whom one waits for is queued on this very
/// core, and cost little where no one is.
#[derive(Clone, Copy, Debug)]
struct Patience {
    rounds: u32,
    spins: u32,
}

impl Patience {
    /// There is a core for every thread.
    const AWAKE: Patience = Patience { rounds: 50, spins: 50 };
    /// Whom one waits for needs this core.
    const CROWDED: Patience = Patience { rounds: 50, spins: 2 };
}

/// A number that threads wait on.
#[derive(Debug)]
#[repr(align(64))]
struct Gate {
    value: AtomicUsize,
    sleepers: AtomicUsize,
    patience: Patience,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Gate {
    fn new(patience: Patience) -> Gate {
        Gate {
            value: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            patience,
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    fn get(&self) -> usize {
        self.value.load(Ordering::SeqCst)
    }

    fn set(&self, value: usize) {
        self.value.store(value, Ordering::SeqCst);
        self.wake();
    }

    fn decrement(&self) {
        self.value.fetch_sub(1, Ordering::SeqCst);
        self.wake();
    }

    /// A sleeper counts itself before it looks at the value for the last time, and this looks for sleepers after the value
    /// has changed: in the one order of these operations, one of the two sees the other.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _held = locked(&self.lock);
            self.changed.notify_all();
        }
    }

    /// Returns when the value is another one.
    fn wait_while(&self, value: usize) {
        for _ in 0..self.patience.rounds {
            for _ in 0..self.patience.spins {
                if self.value.load(Ordering::Acquire) != value {
                    return;
                }
                spin_loop();
            }
            std::thread::yield_now();
        }
        let mut held = locked(&self.lock);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.get() == value {
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where all threads of a pool wait for one another.
#[derive(Debug)]
pub(crate) struct Barrier {
    threads: usize,
    arrived: Arrivals,
    round: Gate,
}

#[derive(Debug)]
#[repr(align(64))]
struct Arrivals(AtomicUsize);

impl Barrier {
    fn new(threads: usize, patience: Patience) -> Barrier {
        Barrier { threads, arrived: Arrivals(AtomicUsize::new(0)), round: Gate::new(patience) }
    }

    /// Returns when every thread has called it. The last to arrive runs `prepare` before any returns; it must not panic.
    pub(crate) fn wait(&self, prepare: impl FnOnce()) {
        let round = self.round.get();
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.0.store(0, Ordering::Relaxed);
            prepare();
            self.round.set(round.wrapping_add(1));
        } else {
            self.round.wait_while(round);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for _ in 0..100 {
                let counts: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
                pool.run(|thread| {
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn barrier_separates_rounds() {
        for threads in [2, 5] {
            let pool = Pool::new(threads).unwrap();
            let (total, prepared) = (AtomicUsize::new(0), AtomicUsize::new(0));
            pool.run(|_| {
                for round in 1..=2000 {
                    total.fetch_add(1, Ordering::Relaxed);
                    pool.barrier().wait(|| {
                        prepared.fetch_add(1, Ordering::Relaxed);
                    });
                    assert_eq!(prepared.load(Ordering::Relaxed), round);
                    assert_eq!(total.load(Ordering::Relaxed), round * threads);
                    pool.barrier().wait(|| ());
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn panics_are_errors_and_leave_the_pool_usable() {
        let pool = Pool::new(3).unwrap();
        let error = pool.run(|thread| assert!(thread != 2, "thread two")).unwrap_err();
        assert_eq!(error.to_string(), "thread 2 of the pool panicked: thread two");
        pool.run(|_| ()).unwrap();
    }

    #[test]
    fn nested_runs_are_refused() {
        let pool = Pool::new(2).unwrap();
        let refused = AtomicUsize::new(0);
        pool.run(|_| {
            if matches!(pool.run(|_| ()), Err(PoolError::Nested)) {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        })
        .unwrap();
        assert_eq!(refused.into_inner(), 2);
    }

    #[test]
    fn sleeping_threads_wake() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(30));
            pool.run(|_| ()).unwrap();
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(2).unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(|_| {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        })
                        .unwrap();
                    }
                });
            }
        });
    }
}
