//! Running programs one after the other on the threads of a pool.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::Program;
use super::apart::Distance;
use super::layout::{Binding, Extents, Known, Layout, Region, SequenceError, Sharing, Step};
use super::machine::{Fault, Machine, Registers};
use super::memory::AlignedBytes;
use super::timeline::{Marks, Timeline};
use crate::pool::{Pool, PoolError, Turn, locked, panic_message};

/// The memory that a run gives.
#[derive(Debug)]
pub struct Memory<'a> {
    /// The inputs, each aligned for its element type.
    pub inputs: &'a [&'a [u8]],
    /// The outputs, each aligned for its element type.
    pub outputs: &'a mut [&'a mut [u8]],
}

/// Why a run did not finish. The outputs are then undefined, but the sequence can be run again.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The memory of the run is not what the sequence was made for.
    #[error("{region} has {found} bytes, but the sequence was made for {wanted}")]
    Extent {
        /// Which memory.
        region: Region,
        /// Its bytes.
        found: usize,
        /// The bytes it should have.
        wanted: usize,
    },
    /// Too many or too few inputs or outputs.
    #[error("the run has {found} {what}, but the sequence was made for {wanted}")]
    Count {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// An input or output at an address that its elements cannot have.
    #[error("{region} is not aligned to {alignment} bytes; allocate it as its element type")]
    Misaligned {
        /// Which memory.
        region: Region,
        /// What it should be a multiple of.
        alignment: usize,
    },
    /// The index of a gather or scatter is outside its buffer.
    #[error(
        "`{program}`: index {index} is outside buffer `{buffer}` of {length} elements; check the index tensors"
    )]
    Index {
        /// The program's name.
        program: String,
        /// The buffer's name.
        buffer: String,
        /// The index.
        index: i64,
        /// The buffer's elements.
        length: usize,
    },
    /// A step panicked, which is a bug.
    #[error("`{program}` panicked: {message}; this is a bug in paisley")]
    Panicked {
        /// The program's name.
        program: String,
        /// The panic's message.
        message: String,
    },
    /// The pool failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Steps that run in order, every phase divided over the threads of a pool. A phase begins when the one before it is done.
///
/// Phases that are not parallel and follow one another run on one thread, as one.
#[derive(Debug)]
pub struct Sequence {
    steps: Vec<Step>,
    constants: Vec<Bytes>,
    extents: Extents,
    /// The largest element of the buffers bound to each input and output, in bytes.
    alignments: Vec<(Region, usize)>,
    /// Where the steps' buffers lie.
    layout: Layout,
    /// Where they lie in runs whose threads have no cache in common.
    pub(super) spread: Option<Layout>,
    /// Step and phase of everything that runs, in order.
    phases: Vec<(usize, usize)>,
    units: Vec<Unit>,
    /// Iterations of all units, and those of all runs before.
    iterations: u64,
    base: u64,
    thread_bytes: usize,
    /// The start of each region during a run: the arena, the shared memory, constants, inputs, outputs.
    regions: Vec<*mut u8>,
    workers: Vec<Worker>,
    pub(super) distance: Distance,
}

// SAFETY: the region pointers are only followed during `run`, which sets them first and borrows what they point to.
unsafe impl Send for Sequence {}
// SAFETY: as for `Send`; everything that changes does so in `run`, which borrows the sequence exclusively.
unsafe impl Sync for Sequence {}

/// What is divided at once.
#[derive(Clone, Debug)]
struct Unit {
    /// Which of the phases; more than one only where none is parallel.
    phases: Range<usize>,
    /// The iterations to be divided, at least 1; 1 for phases that are not parallel.
    total: usize,
    parallel: bool,
    /// The number of its first iteration in the first run.
    start: u64,
}

impl Unit {
    /// Its iterations that are a thread's unless another takes them.
    fn share(&self, base: u64, thread: usize, threads: usize) -> Range<u64> {
        let at = |thread: usize| base + self.start + (self.total * thread / threads) as u64;
        at(thread)..at(thread + 1)
    }
}

/// A thread's part in a run.
#[derive(Debug)]
#[repr(align(128))]
struct Worker {
    own: UnsafeCell<Own>,
    next: Next,
    marks: Marks,
}

// SAFETY: `own` is only touched by the thread whose worker it is, during `run`.
unsafe impl Sync for Worker {}

/// A thread's own memory.
#[derive(Debug)]
struct Own {
    registers: Registers,
    /// Scratch buffers from the start, registers behind those of the step at hand.
    memory: AlignedBytes,
    /// The step whose buffers the registers' bases are.
    step: Option<usize>,
}

/// The first of a thread's iterations that nobody has taken. Iterations are numbered through all units of all runs, so that none is
/// taken by a thread that is in another unit.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Next(AtomicU64);

impl Next {
    /// Takes some of the iterations `share` from the front: `split` says how many of those left.
    fn take(&self, share: Range<u64>, split: impl Fn(u64) -> u64) -> Option<Range<u64>> {
        let mut known = self.0.load(Ordering::Relaxed);
        while share.contains(&known) {
            let left = share.end - known;
            let taken = known..known + split(left).clamp(1, left);
            match self.0.compare_exchange_weak(known, taken.end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(taken),
                Err(now) => known = now,
            }
        }
        None
    }
}

impl Sequence {
    /// Checks the bindings and makes the steps ready to run. A constant may lie anywhere that is [aligned](Program::alignment) for
    /// the programs that read it.
    ///
    /// # Errors
    /// The first binding that does not fit its buffer, its region or the other bindings of its step.
    pub fn new(steps: Vec<Step>, constants: Vec<Bytes>, extents: Extents) -> Result<Sequence, SequenceError> {
        let known = Known { constants: &constants, extents: &extents };
        let bound = steps.iter().map(|step| (&*step.program, &step.bindings[..]));
        let layout = Layout::new(bound, known, Sharing::All)?;
        let mut sequence = Sequence {
            layout,
            spread: None,
            alignments: Vec::new(),
            phases: Vec::new(),
            units: Vec::new(),
            iterations: 0,
            base: 0,
            thread_bytes: 0,
            regions: Vec::new(),
            workers: Vec::new(),
            distance: Distance::default(),
            steps: Vec::new(),
            constants,
            extents,
        };
        for (at, step) in steps.iter().enumerate() {
            align(&mut sequence.alignments, &step.program, &step.bindings);
            sequence.thread_bytes = sequence.thread_bytes.max(step.program.thread_bytes());
            for (phase, lowered) in step.program.lowered.phases.iter().enumerate() {
                let (index, parallel) = (sequence.phases.len(), lowered.is_parallel());
                if lowered.total == 0 {
                    continue;
                }
                sequence.phases.push((at, phase));
                match sequence.units.last_mut() {
                    Some(unit) if !parallel && !unit.parallel => unit.phases.end = index + 1,
                    Some(_) | None => {
                        let (total, start) = (lowered.total, sequence.iterations);
                        sequence.iterations += total as u64;
                        sequence.units.push(Unit { phases: index..index + 1, total, parallel, start });
                    }
                }
            }
        }
        sequence.steps = steps;
        // Now, so that no run waits for the system.
        sequence.layout.memory();
        Ok(sequence)
    }

    /// Gives the steps other bindings, in an arena of another size, for runs whose threads have no cache in common. What one thread
    /// wrote or read last is then several times as costly for another to write, so that values of the arena are best apart: each
    /// is then written where the same thread wrote it in the run before. That memory is taken only when a run needs it.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_spread(mut self, bindings: &[Vec<Binding>], arena: usize) -> Result<Sequence, SequenceError> {
        let extents = Extents { arena, ..self.extents.clone() };
        let known = Known { constants: &self.constants, extents: &extents };
        let of = |at: usize| bindings.get(at).map_or(&[][..], Vec::as_slice);
        let bound = self.steps.iter().enumerate().map(|(at, step)| (&*step.program, of(at)));
        self.spread = Some(Layout::new(bound, known, Sharing::Equal)?);
        for (step, bindings) in self.steps.iter().zip(bindings) {
            align(&mut self.alignments, &step.program, bindings);
        }
        Ok(self)
    }

    /// The steps it was made from.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Runs all steps. `timeline`, if given, is filled with what each thread did.
    ///
    /// # Errors
    /// [`RunError`]; a run that fails ends early on all threads.
    pub fn run(
        &mut self,
        pool: &Pool,
        memory: Memory<'_>,
        timeline: Option<&mut Timeline>,
    ) -> Result<(), RunError> {
        self.check(&memory)?;
        let Memory { inputs, outputs } = memory;
        let apart = self.distance.apart();
        let layout = self.spread.as_mut().filter(|_| apart).unwrap_or(&mut self.layout);
        self.regions.clear();
        self.regions.extend(layout.memory());
        self.regions.extend(self.constants.iter().map(|bytes| bytes.as_ptr().cast_mut()));
        self.regions.extend(inputs.iter().map(|bytes| bytes.as_ptr().cast_mut()));
        self.regions.extend(outputs.iter_mut().map(|bytes| bytes.as_mut_ptr()));
        while self.workers.len() < pool.threads() {
            let mut registers = Registers::default();
            self.steps.iter().for_each(|step| registers.fit(&step.program));
            let memory = AlignedBytes::zeroed(self.thread_bytes);
            let own = UnsafeCell::new(Own { registers, memory, step: None });
            self.workers.push(Worker { own, next: Next::default(), marks: Marks::default() });
        }
        for worker in &mut self.workers {
            worker.own.get_mut().step = None;
        }
        if timeline.is_some() {
            let phases = self.phases.len();
            self.workers.iter_mut().for_each(|worker| worker.marks.reset(phases));
        }
        self.base += self.iterations;
        let matters = pool.threads() > 1 && (self.spread.is_some() || self.layout.is_shared());
        let measures = usize::from(matters && self.distance.begin());
        let run = Run {
            sequence: self,
            apart,
            threads: pool.threads(),
            start: timeline.is_some().then(Instant::now),
            missing: Missing::default(),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        };
        run.divide(0);
        pool.phases(measures + run.sequence.units.len(), |phase, thread| {
            match phase.checked_sub(measures) {
                Some(unit) => run.unit(unit, thread),
                None => run.measure(thread),
            }
        })?;
        if let Some(error) = locked(&run.error).take() {
            return Err(error);
        }
        if let Some(timeline) = timeline {
            let workers = self.workers[..pool.threads()].iter();
            timeline.fill(&self.phases, workers.map(|worker| &worker.marks));
        }
        Ok(())
    }

    fn check(&self, memory: &Memory<'_>) -> Result<(), RunError> {
        let Memory { inputs, outputs } = memory;
        let count = |what, found: usize, wanted: usize| {
            if found == wanted { Ok(()) } else { Err(RunError::Count { what, found, wanted }) }
        };
        count("inputs", inputs.len(), self.extents.inputs.len())?;
        count("outputs", outputs.len(), self.extents.outputs.len())?;
        let extent = |region, found: usize, wanted: usize| {
            if found == wanted { Ok(()) } else { Err(RunError::Extent { region, found, wanted }) }
        };
        for (at, (bytes, wanted)) in inputs.iter().zip(&self.extents.inputs).enumerate() {
            extent(Region::Input(at), bytes.len(), *wanted)?;
        }
        for (at, (bytes, wanted)) in outputs.iter().zip(&self.extents.outputs).enumerate() {
            extent(Region::Output(at), bytes.len(), *wanted)?;
        }
        for &(region, alignment) in &self.alignments {
            let address = match region {
                Region::Input(at) => inputs[at].as_ptr(),
                Region::Output(at) => outputs[at].as_ptr(),
                Region::Arena | Region::Constant(_) => continue,
            };
            if !(address as usize).is_multiple_of(alignment) {
                return Err(RunError::Misaligned { region, alignment });
            }
        }
        Ok(())
    }
}

/// Notes what the elements of the inputs and outputs bound to a program need.
fn align(alignments: &mut Vec<(Region, usize)>, program: &Program, bindings: &[Binding]) {
    for (Binding { region, .. }, need) in bindings.iter().zip(&program.bindings) {
        if matches!(region, Region::Input(_) | Region::Output(_)) {
            match alignments.iter_mut().find(|(known, _)| known == region) {
                Some((_, alignment)) => *alignment = (*alignment).max(need.alignment),
                None => alignments.push((*region, need.alignment)),
            }
        }
    }
}

/// A run under way.
struct Run<'a> {
    sequence: &'a Sequence,
    /// Whether its threads had no cache in common before it began.
    apart: bool,
    threads: usize,
    /// When it began, if its time is recorded.
    start: Option<Instant>,
    /// Iterations of the unit at hand that are not done.
    missing: Missing,
    failed: AtomicBool,
    error: Mutex<Option<RunError>>,
}

/// A count in a cache line of its own, since every thread changes it.
#[derive(Default)]
#[repr(align(128))]
struct Missing(AtomicUsize);

// SAFETY: the regions are borrowed for the run, and threads follow pointers into them only as the programs' contract says.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    /// Nanoseconds since the run began, if its time is recorded.
    fn now(&self) -> Option<u64> {
        self.start.map(|start| start.elapsed().as_nanos() as u64)
    }

    /// Records that a thread worked on a phase, if its time is recorded.
    fn mark(&self, thread: usize, phase: usize, begin: Option<u64>, end: Option<u64>) {
        if let Some((begin, end)) = begin.zip(end) {
            self.sequence.workers[thread].marks.set(phase, begin, end);
        }
    }

    /// Gives each thread its part of a unit, which has not begun.
    fn divide(&self, unit: usize) {
        let Some(unit) = self.sequence.units.get(unit) else { return };
        self.missing.0.store(unit.total, Ordering::Relaxed);
        for (thread, worker) in self.sequence.workers[..self.threads].iter().enumerate() {
            let share = unit.share(self.sequence.base, thread, self.threads);
            worker.next.0.store(share.start, Ordering::Relaxed);
        }
    }

    /// Measures how far the threads are from one another, for the runs to come.
    fn measure(&self, thread: usize) -> Turn {
        self.sequence.distance.measure(thread, self.threads);
        if thread == 0 { Turn::Complete } else { Turn::Over }
    }

    /// Runs iterations of a unit while there are any. Who does the last one makes the next unit ready.
    fn unit(&self, at: usize, thread: usize) -> Turn {
        let unit = &self.sequence.units[at];
        let begin = if unit.parallel { self.now() } else { None };
        let mut done = 0;
        while let Some(taken) = self.take(unit, thread) {
            if self.failed.load(Ordering::Relaxed) {
                return Turn::Stop;
            }
            let count = taken.len();
            if let Err((step, error)) = self.iterations(thread, unit, taken) {
                self.fail(step, error);
                return Turn::Stop;
            }
            done += count;
        }
        if done == 0 {
            return Turn::Over;
        }
        // Before others can go on, so that what a phase takes ends before the next one begins.
        self.mark(thread, unit.phases.start, begin, begin.and(self.now()));
        if self.missing.0.fetch_sub(done, Ordering::AcqRel) > done {
            return Turn::Over;
        }
        self.divide(at + 1);
        Turn::Complete
    }

    /// Notes why the run does not finish, if nothing is noted yet.
    fn fail(&self, step: usize, error: Result<Fault, String>) {
        self.failed.store(true, Ordering::Relaxed);
        let code = &self.sequence.steps[step].program.code;
        let error = match error {
            Ok(Fault::Index { buffer, index }) => {
                let buffer = &code.buffers[buffer.index()];
                RunError::Index {
                    program: code.name.clone(),
                    buffer: buffer.name.clone(),
                    index,
                    length: buffer.length,
                }
            }
            Err(message) => RunError::Panicked { program: code.name.clone(), message },
        };
        locked(&self.error).get_or_insert(error);
    }

    /// Some of the thread's own iterations of a unit, or half of what another has left.
    fn take(&self, unit: &Unit, thread: usize) -> Option<Range<usize>> {
        let from = |owner: usize, split: &dyn Fn(u64) -> u64| {
            let share = unit.share(self.sequence.base, owner, self.threads);
            self.sequence.workers[owner].next.take(share, split)
        };
        let own = from(thread, &|left| left / 4);
        let taken = own.or_else(|| {
            let others = (thread + 1..self.threads).chain(0..thread);
            { others }.find_map(|other| from(other, &|left| left.div_ceil(2)))
        })?;
        let first = self.sequence.base + unit.start;
        Some((taken.start - first) as usize..(taken.end - first) as usize)
    }

    /// Runs iterations of a unit; an error says in which step, and is a fault or a panic's message.
    fn iterations(
        &self,
        thread: usize,
        unit: &Unit,
        taken: Range<usize>,
    ) -> Result<(), (usize, Result<Fault, String>)> {
        // SAFETY: only this thread of the run touches its worker's own memory, and no other reference to it is alive.
        let own = unsafe { &mut *self.sequence.workers[thread].own.get() };
        for at in unit.phases.clone() {
            let (step, phase) = self.sequence.phases[at];
            let program = &*self.sequence.steps[step].program;
            if own.step != Some(step) {
                self.bind(own, step);
            }
            let begin = if unit.parallel { None } else { self.now() };
            let Own { registers: Registers { counters, pointers, bases, values }, memory, step: _ } =
                &mut *own;
            let lanes = memory.start().wrapping_add(program.scratch.0);
            let (table, apart) = (program.table, self.apart);
            let mut machine = Machine { program, table, counters, pointers, bases, values, lanes, apart };
            let phase = &program.lowered.phases[phase];
            // SAFETY: programs are verified when made; `place` proved external buffers inside their regions, aligned, and
            // those written apart from all others; shared and scratch memory are as large as their layouts; the maker
            // of the program promised that iterations are independent, and each is taken by one thread.
            let phase = AssertUnwindSafe(|| unsafe { machine.phase(phase, taken.start, taken.end) });
            match catch_unwind(phase) {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => return Err((step, Ok(fault))),
                Err(panic) => return Err((step, Err(panic_message(&*panic)))),
            }
            self.mark(thread, at, begin, begin.and(self.now()));
        }
        Ok(())
    }

    /// Sets the bases of a step's buffers.
    fn bind(&self, own: &mut Own, step: usize) {
        own.step = Some(step);
        let own_memory = own.memory.start();
        let Sequence { layout, spread, .. } = self.sequence;
        let layout = spread.as_ref().filter(|_| self.apart).unwrap_or(layout);
        for (base, placed) in own.registers.bases.iter_mut().zip(layout.step(step)) {
            let start = placed.region.map_or(own_memory, |region| self.sequence.regions[region]);
            *base = start.wrapping_add(placed.offset);
        }
    }
}
