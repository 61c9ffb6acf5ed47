//! One thread's execution of a tile.

use super::code::{Accumulate, Trip};
use super::lower::{FinishOp, Kernel, TileOp};
use super::machine::Machine;
use crate::tile::lanes::{Edge, LaneArgs};
use crate::tile::{DEPTHS, Depth, Finish, TileArgs};

impl Machine<'_> {
    /// # Safety
    /// As for [`Machine::phase`], with the pointers of the tile's accesses at the counters' values.
    pub(super) unsafe fn tile(&mut self, op: &TileOp) {
        let trip = |trip: &Trip| trip.evaluate(self.counters);
        let (lines, rows, cols) = (trip(&op.lines), trip(&op.rows), trip(&op.cols));
        if lines == 0 || rows == 0 || cols == 0 {
            return;
        }
        let depths = op.depths.each_ref().map(|(count, a, b)| Depth { count: trip(count), a: *a, b: *b });
        let accumulate = match &op.accumulate {
            Accumulate::Never => false,
            Accumulate::Always => true,
            Accumulate::UnlessZero(form) => form.evaluate(self.counters) != 0,
        };
        let [a, b] = [op.a, op.b].map(|access| self.pointers[access].cast_const().cast());
        let c = self.pointers[op.c].cast();
        let (finish, addend_line) = self.finish(&op.finish);
        let (a_row, c_row) = (op.a_row, op.c_row);
        match &op.kernel {
            Kernel::Matrix(kernel) => {
                let (b_vector, c_vector, cols) = (op.b_vector, op.c_vector, op.whole_cols + cols);
                let mut args = TileArgs {
                    rows,
                    cols,
                    depths,
                    a,
                    a_row,
                    b,
                    b_vector,
                    c,
                    c_row,
                    c_vector,
                    accumulate,
                    finish,
                };
                for _ in 0..lines {
                    // SAFETY: the verifier proved the elements of all operands in range and `c` apart from the others, each
                    // element once; the kernel is of a table the CPU has the instruction set of, and takes tiles this large.
                    unsafe { (kernel.run)(&args) };
                    args.a = args.a.wrapping_offset(op.a_line);
                    args.c = args.c.wrapping_offset(op.c_line);
                    args.finish.addend = args.finish.addend.wrapping_offset(addend_line);
                }
            }
            Kernel::Lanes { kernel, edges: clips } => {
                let mut edges = [Edge::NONE; DEPTHS];
                for clip in clips {
                    edges[clip.level] = Edge { start: clip.value.evaluate(self.counters), ..clip.edge };
                }
                let args = LaneArgs {
                    lines,
                    rows,
                    depths,
                    edges,
                    a,
                    a_line: op.a_line,
                    a_row,
                    b,
                    c,
                    c_line: op.c_line,
                    c_row,
                    accumulate,
                    finish,
                    addend_line,
                };
                // SAFETY: as above, where the elements of `a` in range are those of the terms that count, and columns are vectors.
                unsafe { (kernel.run)(&args) };
            }
        }
    }

    /// What becomes of sums, and the stride of lines in what is added to them.
    fn finish(&self, op: &FinishOp) -> (Finish, isize) {
        let FinishOp { start, addend, low, high } = *op;
        let pointer = |access: usize| self.pointers[access].cast_const().cast();
        let (start, start_vector) =
            start.map_or((std::ptr::null(), 0), |(access, vector)| (pointer(access), vector));
        let (addend, [addend_line, addend_row, addend_vector]) =
            addend.map_or((std::ptr::null(), [0; 3]), |(access, strides)| (pointer(access), strides));
        (Finish { start, start_vector, addend, addend_row, addend_vector, low, high }, addend_line)
    }
}
