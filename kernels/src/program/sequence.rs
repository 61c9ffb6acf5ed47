//! Running programs one after the other on the threads of a pool.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;

use super::Program;
use super::apart::Distance;
use super::code::Place;
use super::machine::{Fault, Machine, Registers};
use super::memory::AlignedBytes;
use super::timeline::{Marks, Timeline};
use crate::pool::{Pool, PoolError, Turn, locked, panic_message};

/// A piece of memory that sequences run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Region {
    /// The arena of intermediate results.
    Arena,
    /// One of the constants; read-only.
    Constant(usize),
    /// One of a run's inputs; read-only.
    Input(usize),
    /// One of a run's outputs.
    Output(usize),
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Region::Arena => f.write_str("the arena"),
            Region::Constant(at) => write!(f, "constant {at}"),
            Region::Input(at) => write!(f, "input {at}"),
            Region::Output(at) => write!(f, "output {at}"),
        }
    }
}

/// Where an external buffer of a step lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// In which memory.
    pub region: Region,
    /// How far from its start; a multiple of the element size.
    pub offset_bytes: usize,
}

/// A program and the memory of its external buffers, by their index.
#[derive(Clone, Debug)]
pub struct Step {
    /// What runs.
    pub program: Arc<Program>,
    /// On what.
    pub bindings: Vec<Binding>,
}

/// The bytes of the memory that a run gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extents {
    /// Of the arena.
    pub arena: usize,
    /// Of each input.
    pub inputs: Vec<usize>,
    /// Of each output.
    pub outputs: Vec<usize>,
}

/// Why steps cannot become a [`Sequence`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} (`{program}`): {problem}")]
pub struct SequenceError {
    /// Which step.
    pub step: usize,
    /// Its program's name.
    pub program: String,
    /// What is wrong.
    pub problem: BindingProblem,
}

/// What can be wrong with the bindings of a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingProblem {
    /// Too many or too few.
    #[error("{found} bindings for {wanted} external buffers")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// No such constant, input or output.
    #[error("buffer `{buffer}` is bound to {region}, which does not exist")]
    Missing {
        /// The buffer.
        buffer: String,
        /// Its binding's region.
        region: Region,
    },
    /// The buffer ends outside.
    #[error("buffer `{buffer}` needs {end} bytes of {region}, which has {extent}")]
    OutOfRange {
        /// The buffer.
        buffer: String,
        /// Its binding's region.
        region: Region,
        /// Where the buffer ends.
        end: usize,
        /// Where the region ends.
        extent: usize,
    },
    /// An offset that is not a multiple of the element size, or one in a constant that is not aligned for it.
    #[error("buffer `{buffer}` is bound at byte {offset}, which is not aligned for its elements")]
    Misaligned {
        /// The buffer.
        buffer: String,
        /// The binding's offset.
        offset: usize,
    },
    /// A writable buffer in read-only memory.
    #[error("buffer `{buffer}` is written, but bound to {region}")]
    ReadOnly {
        /// The buffer.
        buffer: String,
        /// Its binding's region.
        region: Region,
    },
    /// A writable buffer in memory that another buffer has, too.
    #[error(
        "buffers `{written}` and `{other}` overlap, and the first is written; declare one buffer for both"
    )]
    Overlap {
        /// The writable buffer.
        written: String,
        /// The other.
        other: String,
    },
}

/// The memory of a run.
#[derive(Debug)]
pub struct Memory<'a> {
    /// The arena.
    pub arena: &'a mut AlignedBytes,
    /// The inputs, each aligned for its element type.
    pub inputs: &'a [&'a [u8]],
    /// The outputs, each aligned for its element type.
    pub outputs: &'a mut [&'a mut [u8]],
}

/// Why a run did not finish. The outputs and the arena are then undefined, but the sequence can be run again.
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
    /// The place of every buffer of each step.
    placed: Vec<Vec<Placed>>,
    /// Step and phase of everything that runs, in order.
    phases: Vec<(usize, usize)>,
    units: Vec<Unit>,
    /// Iterations of all units, and those of all runs before.
    iterations: u64,
    base: u64,
    thread_bytes: usize,
    shared: AlignedBytes,
    /// The start of each region during a run: the arena, the shared memory, constants, inputs, outputs.
    regions: Vec<*mut u8>,
    workers: Vec<Worker>,
    /// Asked for where threads hand results over within a step.
    distance: Distance,
}

// SAFETY: the region pointers are only followed during `run`, which sets them first and borrows what they point to.
unsafe impl Send for Sequence {}
// SAFETY: as for `Send`; everything that changes does so in `run`, which borrows the sequence exclusively.
unsafe impl Sync for Sequence {}

/// Where a buffer of a step is.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// An index of the regions, or `None` for the thread's own memory.
    region: Option<usize>,
    offset: usize,
}

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
        let mut sequence = Sequence {
            alignments: Vec::new(),
            placed: Vec::new(),
            phases: Vec::new(),
            units: Vec::new(),
            iterations: 0,
            base: 0,
            thread_bytes: 0,
            shared: AlignedBytes::zeroed(0),
            regions: Vec::new(),
            workers: Vec::new(),
            distance: Distance::default(),
            steps: Vec::new(),
            constants,
            extents,
        };
        let mut shared_bytes = 0;
        for (at, step) in steps.iter().enumerate() {
            let placed = sequence.place(step).map_err(|problem| SequenceError {
                step: at,
                program: step.program.code.name.clone(),
                problem,
            })?;
            sequence.placed.push(placed);
            shared_bytes = shared_bytes.max(step.program.shared.0);
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
        sequence.shared = AlignedBytes::zeroed(shared_bytes);
        sequence.steps = steps;
        Ok(sequence)
    }

    /// The steps it was made from.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Checks a step's bindings and finds its buffers' places.
    fn place(&mut self, step: &Step) -> Result<Vec<Placed>, BindingProblem> {
        let Step { program, bindings } = step;
        if bindings.len() != program.bindings.len() {
            return Err(BindingProblem::Count { found: bindings.len(), wanted: program.bindings.len() });
        }
        for (binding, need) in bindings.iter().zip(&program.bindings) {
            let buffer = || program.code.buffers[need.buffer.index()].name.clone();
            let Binding { region, offset_bytes: offset } = *binding;
            let (extent, read_only) = match region {
                Region::Arena => (Some(self.extents.arena), false),
                Region::Constant(at) => (self.constants.get(at).map(|bytes| bytes.len()), true),
                Region::Input(at) => (self.extents.inputs.get(at).copied(), true),
                Region::Output(at) => (self.extents.outputs.get(at).copied(), false),
            };
            let Some(extent) = extent else {
                return Err(BindingProblem::Missing { buffer: buffer(), region });
            };
            let end = offset.saturating_add(need.bytes);
            if end > extent {
                return Err(BindingProblem::OutOfRange { buffer: buffer(), region, end, extent });
            }
            let base = match region {
                Region::Constant(at) => self.constants.get(at).map_or(0, |bytes| bytes.as_ptr().addr()),
                Region::Arena | Region::Input(_) | Region::Output(_) => 0,
            };
            if !base.wrapping_add(offset).is_multiple_of(need.alignment) {
                return Err(BindingProblem::Misaligned { buffer: buffer(), offset });
            }
            if need.writable && read_only {
                return Err(BindingProblem::ReadOnly { buffer: buffer(), region });
            }
            if matches!(region, Region::Input(_) | Region::Output(_)) {
                match self.alignments.iter_mut().find(|(known, _)| *known == region) {
                    Some((_, alignment)) => *alignment = (*alignment).max(need.alignment),
                    None => self.alignments.push((region, need.alignment)),
                }
            }
            let bytes = offset..end;
            for (other, other_need) in bindings.iter().zip(&program.bindings) {
                let other_end = other.offset_bytes.saturating_add(other_need.bytes);
                let overlap = other.region == region && bytes.start < other_end && other.offset_bytes < end;
                if need.writable && overlap && other_need.buffer != need.buffer {
                    let other = program.code.buffers[other_need.buffer.index()].name.clone();
                    return Err(BindingProblem::Overlap { written: buffer(), other });
                }
            }
        }
        let buffers = program.code.buffers.iter().enumerate();
        Ok(buffers
            .map(|(at, buffer)| match buffer.place {
                Place::External { index, writable: _ } => {
                    let Binding { region, offset_bytes } = bindings[index];
                    Placed { region: Some(self.region(region)), offset: offset_bytes }
                }
                Place::Shared => Placed { region: Some(1), offset: program.shared.1[at] },
                Place::Scratch => Placed { region: None, offset: program.scratch.1[at] },
            })
            .collect())
    }

    /// The index of a region in `regions`.
    fn region(&self, region: Region) -> usize {
        match region {
            Region::Arena => 0,
            Region::Constant(at) => 2 + at,
            Region::Input(at) => 2 + self.constants.len() + at,
            Region::Output(at) => 2 + self.constants.len() + self.extents.inputs.len() + at,
        }
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
        let Memory { arena, inputs, outputs } = memory;
        self.regions.clear();
        self.regions.extend([arena.start(), self.shared.start()]);
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
        let measures = usize::from(!self.shared.is_empty() && pool.threads() > 1 && self.distance.begin());
        let run = Run {
            sequence: self,
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
        let Memory { arena, inputs, outputs } = memory;
        let count = |what, found: usize, wanted: usize| {
            if found == wanted { Ok(()) } else { Err(RunError::Count { what, found, wanted }) }
        };
        count("inputs", inputs.len(), self.extents.inputs.len())?;
        count("outputs", outputs.len(), self.extents.outputs.len())?;
        let extent = |region, found: usize, wanted: usize| {
            if found == wanted { Ok(()) } else { Err(RunError::Extent { region, found, wanted }) }
        };
        if arena.len() < self.extents.arena {
            extent(Region::Arena, arena.len(), self.extents.arena)?;
        }
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

/// A run under way.
struct Run<'a> {
    sequence: &'a Sequence,
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

    /// Measures how far the threads are from one another.
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
            let (table, apart) = (program.table, self.sequence.distance.apart());
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
        for (base, placed) in own.registers.bases.iter_mut().zip(&self.sequence.placed[step]) {
            let start = placed.region.map_or(own_memory, |region| self.sequence.regions[region]);
            *base = start.wrapping_add(placed.offset);
        }
    }
}
