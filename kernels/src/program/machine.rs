//! One thread's execution of a program: counters, running pointers, loops and windows. Tiles are in `tile`, transforms in
//! `transform`, blocks in `block`.

use super::block::Plane;
use super::code::{BufferId, Window, WindowKind};
use super::convert::Temporaries;
use super::lower::{COPY_LIMITS, CopyOp, LoopOp, Op, Phase, PointerStep};
use super::{Code, Program};
use crate::copy::{CopyArgs, Limit};
use crate::table::KernelTable;
use crate::window::{DepthwiseArgs, Pool, WindowArgs};

/// What goes wrong while a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The index of a gather or scatter is outside its buffer.
    Index { buffer: BufferId, index: i64 },
}

/// A thread's state, kept from run to run so that running allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Registers {
    pub(super) counters: Vec<i64>,
    pub(super) pointers: Vec<*mut u8>,
    pub(super) bases: Vec<*mut u8>,
    pub(super) values: Vec<Plane>,
}

// SAFETY: the pointers are only followed by the thread that runs a program, which sets them first.
unsafe impl Send for Registers {}

impl Registers {
    /// Makes room for a program.
    pub(super) fn fit(&mut self, program: &Program) {
        let Code { buffers, counters, accesses, .. } = program.code();
        let grow = |length: usize, wanted: usize| wanted.max(length);
        self.counters.resize(grow(self.counters.len(), counters.len()), 0);
        self.pointers.resize(grow(self.pointers.len(), accesses.len()), std::ptr::null_mut());
        self.bases.resize(grow(self.bases.len(), buffers.len()), std::ptr::null_mut());
        self.values.resize(grow(self.values.len(), program.lowered.registers), Plane::NOTHING);
    }
}

/// A thread that runs a program.
pub(super) struct Machine<'a> {
    pub(super) program: &'a Program,
    pub(super) table: &'static KernelTable,
    pub(super) counters: &'a mut [i64],
    pub(super) pointers: &'a mut [*mut u8],
    /// The first element of each buffer.
    pub(super) bases: &'a [*mut u8],
    pub(super) values: &'a mut [Plane],
    /// The thread's memory for registers; the temporaries come first.
    pub(super) lanes: *mut u8,
    /// Whether other threads of the run have no cache in common with this one.
    pub(super) apart: bool,
}

impl Machine<'_> {
    /// Runs the iterations `begin .. end` of a phase's merged parallel loops; a phase without has the iteration 0.
    ///
    /// # Safety
    /// The program is verified; every buffer's base is valid for its elements, and so is the register memory; no other thread
    /// touches what these iterations write or writes what they touch.
    pub(super) unsafe fn phase(&mut self, phase: &Phase, begin: usize, end: usize) -> Result<(), Fault> {
        self.counters.fill(0);
        let inner = phase.loops.last().map_or(1, |(_, trip)| *trip);
        let mut at = begin;
        while at < end {
            let mut rest = at;
            for (counter, trip) in phase.loops.iter().rev() {
                self.counters[*counter] = (rest % trip) as i64;
                rest /= trip;
            }
            self.place(phase);
            // As far as the innermost merged loop goes, pointers only move on.
            let stop = end.min(at - at % inner + inner);
            loop {
                // SAFETY: the caller grants the contract of `run`, and the counters are within the merged loops.
                unsafe { self.run(&phase.body)? };
                at += 1;
                if at == stop {
                    break;
                }
                if let Some((counter, _)) = phase.loops.last() {
                    self.counters[*counter] += 1;
                }
                advance(self.pointers, &phase.steps, 1);
            }
        }
        Ok(())
    }

    /// Sets the pointers of a phase's accesses from the counters.
    fn place(&mut self, phase: &Phase) {
        let code = self.program.code();
        for &at in &phase.accesses {
            let access = &code.accesses[at];
            let size = code.buffers[access.buffer.index()].dtype.size_bytes() as isize;
            let offset = access.offset.evaluate(self.counters) as isize * size;
            self.pointers[at] = self.bases[access.buffer.index()].wrapping_offset(offset);
        }
    }

    /// # Safety
    /// As for [`phase`](Self::phase), with the pointers of all accesses of `ops` at the counters' values.
    unsafe fn run(&mut self, ops: &[Op]) -> Result<(), Fault> {
        for op in ops {
            // SAFETY: the caller grants the contract.
            unsafe {
                match op {
                    Op::Loop(inner) => self.count(inner)?,
                    Op::Tile(tile) => self.tile(tile),
                    Op::Window(window) => self.window(window),
                    Op::Transform(transform) => self.transform(transform),
                    Op::Copy(copy) => self.copy(copy),
                    Op::Block(block) => self.block(block)?,
                }
            }
        }
        Ok(())
    }

    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn count(&mut self, op: &LoopOp) -> Result<(), Fault> {
        let LoopOp { counter, trip, steps, body } = op;
        let count = trip.evaluate(self.counters);
        for at in 0..count {
            self.counters[*counter] = at as i64;
            // SAFETY: the pointers have moved `at` steps from where the caller had them for this counter's 0.
            unsafe { self.run(body)? };
            advance(self.pointers, steps, 1);
        }
        self.counters[*counter] = 0;
        advance(self.pointers, steps, -(count as isize));
        Ok(())
    }

    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn copy(&mut self, op: &CopyOp) {
        let CopyOp { dims, source, target, guard, shared } = op;
        let extents = [0, 1, 2].map(|dim: usize| dims[dim].evaluate(self.counters));
        if source.size == 1 {
            for outer in 0..extents[0] as isize {
                let to = self.pointers[target.access].wrapping_offset(outer * target.strides[0]);
                let from =
                    self.pointers[source.access].cast_const().wrapping_offset(outer * source.strides[0]);
                let (to, from) = ((to, target.strides[1]), (from, source.strides[2]));
                // SAFETY: the verifier proved the elements of both in range, and they are in buffers of their own; channels are those of
                // a copy that interleaves.
                unsafe { (self.table.raw.interleave_bytes)(to, from, (extents[1], extents[2])) };
            }
            return;
        }
        let mut limits = [Limit { start: 0, strides: [0; 3], end: 0 }; COPY_LIMITS];
        for (limit, guard) in limits.iter_mut().zip(guard) {
            let start = guard.value.evaluate(self.counters);
            *limit = Limit { start, strides: guard.strides, end: guard.limit };
        }
        let args = CopyArgs {
            target: self.pointers[target.access].cast(),
            target_strides: [target.strides[0], target.strides[1]],
            source: self.pointers[source.access].cast_const().cast(),
            source_strides: source.strides,
            extents,
            limits: &limits[..guard.len()],
            stream: *shared && self.apart,
        };
        // SAFETY: the verifier proved the elements of both in range, those of the source under the limits; they are in buffers
        // of their own, and columns of the target are next to one another.
        unsafe { (self.table.raw.copy_planes)(&args) };
    }

    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn window(&mut self, op: &Window) {
        let Window {
            kind,
            x,
            x_row_stride,
            x_output_stride,
            stride,
            dilation,
            rows,
            cols,
            y,
            y_output_stride,
            outputs,
            count,
        } = op;
        let (window_rows, outputs) = (rows.evaluate(self.counters), outputs.evaluate(self.counters));
        let count = count.evaluate(self.counters);
        if window_rows == 0 || outputs == 0 || count == 0 {
            return;
        }
        let window = WindowArgs {
            x: self.pointers[x.index()].cast(),
            x_row: *x_row_stride as isize,
            x_output: *x_output_stride as isize,
            window_rows,
            window_cols: *cols,
            stride: *stride,
            dilation: *dilation,
            y: self.pointers[y.index()].cast(),
            y_output: *y_output_stride as isize,
            outputs,
            count,
        };
        // SAFETY: the verifier proved the elements of all operands in range, those of `y` in a buffer of their own or the very
        // starts, and the steps at least 1.
        unsafe {
            match kind {
                WindowKind::Depthwise { weights, start, start_per_result, start_output_stride } => {
                    self.table.depthwise_row(&DepthwiseArgs {
                        window,
                        weights: self.pointers[weights.index()].cast(),
                        init: self.pointers[start.index()].cast(),
                        init_step: usize::from(*start_per_result),
                        init_output: *start_output_stride as isize,
                    });
                }
                WindowKind::Max => self.table.pool_row(Pool::Max, true, &window),
                WindowKind::Sum => self.table.pool_row(Pool::Sum, true, &window),
            }
        }
    }

    /// The temporaries, with which register memory begins.
    #[inline(always)]
    pub(super) fn temporaries(&self) -> Temporaries {
        Temporaries(self.lanes)
    }
}

/// Moves pointers by a number of steps.
#[inline(always)]
fn advance(pointers: &mut [*mut u8], steps: &[PointerStep], count: isize) {
    for step in steps {
        pointers[step.access] = pointers[step.access].wrapping_offset(step.bytes * count);
    }
}
