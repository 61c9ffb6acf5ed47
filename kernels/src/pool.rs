//! Persistent threads that run one closure together, and the phases of what they run.
//!
//! A fork, and the end of a phase, cost a store that the waiting threads see, not a wake-up: threads that wait spin and yield by
//! turns for about a millisecond, then sleep. So a session that runs again and again finds its threads awake, and an idle
//! one lets its cores sleep.
//!
//! A phase ends when its work is done, whoever did it. A thread that the system does not run just then, since the cores have other
//! work too, is waited for only if it has begun a piece of the phase: the others take the rest and go on without it.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
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

/// What a thread's part in a phase came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Others have the rest of the phase.
    Over,
    /// With this call all work of the phase is done, and what the next phase needs is ready.
    Complete,
    /// The run is to end now; phases that are not complete stay so.
    Stop,
}

impl Pool {
    /// Starts `threads - 1` threads, and none for 0 or 1.
    ///
    /// # Errors
    /// [`PoolError::Spawn`]; no thread is left behind.
    pub fn new(threads: usize) -> Result<Pool, PoolError> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            threads,
            job: UnsafeCell::new(None),
            state: Gate::default(),
            inside: Gate::default(),
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
        let missing = AtomicUsize::new(self.threads());
        let panicked = Mutex::new(None);
        self.phases(1, |_, thread| {
            // Not left to `phases`, which would not wait for those that have not begun.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(thread))) {
                locked(&panicked).get_or_insert((thread, panic_message(&*panic)));
            }
            if missing.fetch_sub(1, Ordering::AcqRel) == 1 { Turn::Complete } else { Turn::Over }
        })?;
        let panicked = locked(&panicked).take();
        panicked.map_or(Ok(()), |(thread, message)| Err(PoolError::Panicked { thread, message }))
    }

    /// Runs that many phases one after the other. In each, every thread that comes before it is complete calls
    /// `work(phase, thread)` once, which takes part until there is nothing left to take; exactly one call of a phase gives
    /// [`Turn::Complete`], or one of the run [`Turn::Stop`]. Returns when no call is under way any more.
    ///
    /// What a call did happens before what calls of later phases do if it happens before the call that completes its phase returns.
    ///
    /// # Errors
    /// As for [`run`](Self::run); a call that panics stops the run.
    pub(crate) fn phases(
        &self,
        phases: usize,
        work: impl Fn(usize, usize) -> Turn + Sync,
    ) -> Result<(), PoolError> {
        let Some(_inside) = Inside::enter() else { return Err(PoolError::Nested) };
        if phases == 0 {
            return Ok(());
        }
        let _turn = locked(&self.turn);
        let _busy = Busy::with(self.threads());
        let shared = &*self.shared;
        let work: &(dyn Fn(usize, usize) -> Turn + Sync) = &work;
        // SAFETY: the lifetime is only forgotten while this function waits below for every thread to be done with the job.
        let work = unsafe { std::mem::transmute::<&(dyn Fn(usize, usize) -> Turn + Sync), Work>(work) };
        let mut state = shared.state.get() + 1;
        let job = Job { work, first: state, phases };
        // SAFETY: the state says that no run is under way, and nobody is inside of one, so that nobody reads the job now.
        unsafe { *shared.job.get() = Some(job) };
        shared.state.set(state);
        while is_running(state) {
            // SAFETY: the closure is alive here.
            unsafe { shared.call(&job, state, 0) };
            state = shared.state.wait_while(state);
        }
        loop {
            match shared.inside.get() {
                0 => break,
                inside => shared.inside.wait_while(inside),
            };
        }
        match locked(&shared.panic).take() {
            Some((thread, message)) => Err(PoolError::Panicked { thread, message }),
            None => Ok(()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Another state without a run.
        self.shared.state.set(self.shared.state.get() + 2);
        for thread in self.others.drain(..) {
            // A thread of the pool catches every panic of its jobs, so that it has none to hand on.
            let _ = thread.join();
        }
    }
}

type Work = *const (dyn Fn(usize, usize) -> Turn + Sync + 'static);

/// A run.
#[derive(Clone, Copy)]
struct Job {
    /// A closure that lives until every thread is done with it.
    work: Work,
    /// The state in its first phase.
    first: usize,
    phases: usize,
}

struct Shared {
    threads: usize,
    /// Written by the caller of `phases` while there is no run and nobody inside, read by threads inside of one.
    job: UnsafeCell<Option<Job>>,
    /// Odd while there is a run: [`Job::first`] and 2 more for each phase behind. The end of a run adds 1. It only grows, so
    /// that no two phases of any runs have the same.
    state: Gate,
    /// How many of the other threads may be using the job.
    inside: Gate,
    stop: AtomicBool,
    panic: Mutex<Option<(usize, String)>>,
}

fn is_running(state: usize) -> bool {
    state % 2 == 1
}

// SAFETY: `job` is the only field that is not `Sync` by itself. Who reads it has entered `inside` before it saw the state of a run
// (both in the one order of sequentially consistent operations), and who writes it has seen the state of no run before it saw
// nobody inside, and is the only one to begin a run, since callers take turns: so either the reader is seen inside, or it sees
// that there is no run.
unsafe impl Sync for Shared {}
// SAFETY: nothing in it belongs to one thread; the closure of the job is `Sync` and so may be called from any.
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
        let mut known = 0;
        loop {
            // Known may be the state that came with the stop, after which no other comes.
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            // Outside, so that nobody waits for a thread that only waits.
            self.state.wait_while(known);
            self.inside.add(1);
            loop {
                let state = self.state.get();
                if state == known || !is_running(state) {
                    known = state;
                    break;
                }
                // SAFETY: this thread is inside and has seen a run after it came in, so that the job is written and its
                // closure alive until it leaves.
                unsafe {
                    if let Some(job) = *self.job.get() {
                        self.call(&job, state, thread);
                    }
                }
                known = state;
            }
            self.inside.add(usize::MAX);
        }
    }

    /// Takes part in a phase, and moves on where it is complete.
    ///
    /// # Safety
    /// The closure of the job must be alive.
    unsafe fn call(&self, job: &Job, state: usize, thread: usize) {
        let phase = (state - job.first) / 2;
        // SAFETY: the caller grants it.
        let work = unsafe { &*job.work };
        let turn = catch_unwind(AssertUnwindSafe(|| work(phase, thread))).unwrap_or_else(|panic| {
            locked(&self.panic).get_or_insert((thread, panic_message(&*panic)));
            Turn::Stop
        });
        match turn {
            Turn::Over => {}
            Turn::Complete if phase + 1 < job.phases => self.state.replace(state, state + 2),
            Turn::Complete => self.state.replace(state, state + 1),
            Turn::Stop => {
                // Another thread may have moved on meanwhile.
                let mut state = state;
                while is_running(state) {
                    self.state.replace(state, state + 1);
                    state = self.state.get();
                }
            }
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

/// How many threads the runs that are under way in this process have, all pools together.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// A run under way.
struct Busy(usize);

impl Busy {
    fn with(threads: usize) -> Busy {
        BUSY.fetch_add(threads, Ordering::Relaxed);
        Busy(threads)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// How long to wait awake: rounds of some spins and a yield. The yields matter where whom one waits for is queued on this very
/// core, and cost little where no one is.
const ROUNDS: u32 = 1000;
/// Where there is a core for every thread of all runs.
const SPINS: u32 = 50;
/// Where whom one waits for may need this core.
const SPINS_IN_A_CROWD: u32 = 2;

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A number that threads wait on.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Gate {
    value: AtomicUsize,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Gate {
    fn get(&self) -> usize {
        self.value.load(Ordering::SeqCst)
    }

    fn set(&self, value: usize) {
        self.value.store(value, Ordering::SeqCst);
        self.wake();
    }

    /// Adds, wrapping.
    fn add(&self, value: usize) {
        self.value.fetch_add(value, Ordering::SeqCst);
        self.wake();
    }

    /// Sets it to `next` if it is `known`.
    fn replace(&self, known: usize, next: usize) {
        if self.value.compare_exchange(known, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.wake();
        }
    }

    /// A sleeper counts itself before it looks at the value for the last time, and this looks for sleepers after the value
    /// has changed: in the one order of these operations, one of the two sees the other.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Who has looked at the value sleeps once the lock can be had. It is not held on, or who wakes would wait for it.
            drop(locked(&self.lock));
            self.changed.notify_all();
        }
    }

    /// Waits until the value is another one, and gives it.
    fn wait_while(&self, value: usize) -> usize {
        let spins = if BUSY.load(Ordering::Relaxed) > cores() { SPINS_IN_A_CROWD } else { SPINS };
        for _ in 0..ROUNDS {
            for _ in 0..spins {
                let now = self.get();
                if now != value {
                    return now;
                }
                spin_loop();
            }
            std::thread::yield_now();
        }
        let mut held = locked(&self.lock);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let now = loop {
            let now = self.get();
            if now != value {
                break now;
            }
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        now
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
    fn phases_follow_one_another() {
        for threads in [1, 2, 5, 16] {
            let pool = Pool::new(threads).unwrap();
            for _ in 0..20 {
                const PIECES: usize = 7;
                let (taken, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
                pool.phases(200, |phase, _| {
                    // Pieces are numbered through all phases: one of another phase is not taken.
                    let mine = phase * PIECES..(phase + 1) * PIECES;
                    while let Ok(_piece) = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |piece| {
                        mine.contains(&piece).then_some(piece + 1)
                    }) {
                        assert!(done.load(Ordering::Relaxed) >= phase * PIECES);
                        if done.fetch_add(1, Ordering::AcqRel) + 1 == (phase + 1) * PIECES {
                            return Turn::Complete;
                        }
                    }
                    Turn::Over
                })
                .unwrap();
                assert_eq!(done.into_inner(), 200 * PIECES);
            }
        }
    }

    #[test]
    fn a_thread_that_has_no_piece_is_not_waited_for_between_phases() {
        let pool = Pool::new(2).unwrap();
        let (late, release) = (AtomicBool::new(false), AtomicBool::new(false));
        pool.phases(1000, |phase, thread| {
            if thread == 1 {
                // As if the system had taken it off its core.
                late.store(true, Ordering::SeqCst);
                while !release.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                return Turn::Over;
            }
            while phase == 0 && !late.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            if phase == 999 {
                release.store(true, Ordering::SeqCst);
            }
            Turn::Complete
        })
        .unwrap();
    }

    #[test]
    fn a_run_stops_where_it_is_told() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..100 {
            let last = AtomicUsize::new(0);
            pool.phases(50, |phase, thread| {
                last.fetch_max(phase, Ordering::Relaxed);
                match (phase, thread) {
                    (20, _) => Turn::Stop,
                    (_, 0) => Turn::Complete,
                    _other => Turn::Over,
                }
            })
            .unwrap();
            assert_eq!(last.into_inner(), 20);
            let error = pool.phases(3, |phase, _| if phase == 0 { panic!("in a phase") } else { Turn::Over });
            assert!(error.unwrap_err().to_string().ends_with("in a phase"));
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
    fn threads_that_come_late_end_with_the_pool() {
        for _ in 0..3000 {
            let pool = Pool::new(16).unwrap();
            // The others may not have woken before this returns and the pool goes.
            pool.phases(2, |_, thread| if thread == 0 { Turn::Complete } else { Turn::Over }).unwrap();
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
