//! Tiles: their form for the executor, and one thread's execution of one.

use super::affine::{Affine, Condition};
use super::code::{self, AccessId, Accumulate, Code, ElementType, Literal, Terms, Tile, Trip};
use super::machine::Machine;
use crate::activation::Activation;
use crate::isa::ahead_rows;
use crate::pooling::PoolArgs;
use crate::table::KernelTable;
use crate::tile::dots::{DOT_TERMS, DotArgs, DotKernel, Limits, Scaled};
use crate::tile::lanes::{Edge, LANE_DEPTHS, LaneArgs, LaneKernel, ScaledLanes, Windows};
use crate::tile::{DEPTHS, Depth, Factor, Finish, Tail, TileArgs, TileKernel};
use crate::window::Pool;

/// A tile in the executor's form.
#[derive(Debug)]
pub(super) struct TileOp {
    kernel: Kernel,
    a: usize,
    a_line: isize,
    a_row: isize,
    c: usize,
    c_line: isize,
    c_row: isize,
    c_vector: isize,
    lines: Trip,
    rows: Trip,
    /// Columns of a block.
    cols: Trip,
    /// Columns of the blocks before the last.
    whole_cols: usize,
    /// Outermost first.
    depths: [(Trip, isize, isize); DEPTHS],
    accumulate: Accumulate,
    finish: FinishOp,
    scaled: Option<ScaledOp>,
}

/// The micro-kernel of a tile.
#[derive(Debug)]
enum Kernel {
    /// For a factor that is one for all columns.
    Matrix { kernel: &'static TileKernel, b: usize, b_type: ElementType, b_vector: isize, tail: Option<Tail> },
    /// For fours of bytes.
    Dots { kernel: &'static DotKernel, a_signed: bool, b: usize, b_vector: isize, tail: Option<Tail> },
    /// For a factor that has an element a column.
    Lanes { kernel: &'static LaneKernel, b: usize, edges: Box<[Clip]> },
    /// For no factors.
    Pool { pool: Pool, divisor: f32, edges: Box<[Clip]> },
    /// For the largest of bytes.
    PoolBytes { signed: bool, edges: Box<[Clip]> },
}

/// What becomes of sums that are scaled: accesses, and strides of vectors.
#[derive(Debug)]
struct ScaledOp {
    start: Option<(usize, isize)>,
    scale: (usize, Option<isize>),
    limits: Limits,
}

/// The terms of a level that count: an edge, and what its start is over the counters.
#[derive(Debug)]
pub(super) struct Clip {
    level: usize,
    value: Affine,
    edge: Edge,
}

/// What becomes of the sums of a tile or a transform: accesses, and strides of lines, of rows and of vectors.
#[derive(Debug)]
pub(super) struct FinishOp {
    start: Option<(usize, isize)>,
    addend: Option<(usize, [isize; 3])>,
    low: f32,
    high: f32,
    activation: Option<Activation>,
}

/// The kernel for a tile whose factor is one for all columns: one that takes its columns, in the fewest pieces of its rows.
fn tile_kernel(table: &'static KernelTable, tile: &Tile) -> Option<&'static TileKernel> {
    let vectors = tile.blocks > 1 && tile.cols == Trip::Constant(table.lanes);
    let fits =
        |kernel: &&TileKernel| (tile.blocks == 1 || vectors) && tile.blocks * tile.cols.max() <= kernel.cols;
    let pieces = |kernel: &&TileKernel| tile.rows.max().div_ceil(kernel.rows);
    table.tiles.iter().filter(fits).min_by_key(pieces)
}

/// The kernel for a tile of fours of bytes, chosen likewise.
fn dot_kernel(table: &'static KernelTable, tile: &Tile) -> Option<&'static DotKernel> {
    let vectors = tile.blocks > 1 && tile.cols == Trip::Constant(table.lanes);
    let fits =
        |kernel: &&DotKernel| (tile.blocks == 1 || vectors) && tile.blocks * tile.cols.max() <= kernel.cols;
    let pieces = |kernel: &&DotKernel| tile.rows.max().div_ceil(kernel.rows);
    table.dots().filter(fits).min_by_key(pieces)
}

/// Whether there is a kernel for a tile.
pub(super) fn tile_fits(table: &'static KernelTable, tile: &Tile) -> bool {
    match (tile.a_col_stride, tile.b()) {
        (_, _)
            if tile.scaled.is_some() && (tile.accumulate != Accumulate::Never || tile.finish.is_some()) =>
        {
            false
        }
        (0, Some(_)) if matches!(tile.terms, Terms::Dots { .. }) => {
            tile.finish.is_none() && dot_kernel(table, tile).is_some()
        }
        (_, _) if matches!(tile.terms, Terms::Dots { .. }) => false,
        (0, Some(_)) => tile.scaled.is_none() && tile_kernel(table, tile).is_some(),
        (1, _) => {
            let of_products = tile.scaled.is_none() || tile.b().is_some();
            let vector = tile.blocks == 1 && tile.cols == Trip::Constant(table.lanes);
            tile.depths.len() <= LANE_DEPTHS && of_products && vector
        }
        (_, _) => false,
    }
}

/// What the conditions on the terms of a matrix tile leave out; `None` where they leave out other than the last terms of the innermost
/// level in the last iteration of the outermost.
pub(super) fn tail(depths: &[code::Depth], guard: &[Condition]) -> Option<Option<Tail>> {
    let condition = match guard {
        [] => return Some(None),
        [condition] => condition,
        _several => return None,
    };
    let Condition { value: Affine { constant: start, terms: of_counters }, strides, limit } = condition;
    let constant = |depth: &code::Depth| match depth.trip {
        Trip::Constant(count) => i64::try_from(count).ok(),
        Trip::Bounded { .. } => None,
    };
    let counts: Vec<i64> = depths.iter().map(constant).collect::<Option<_>>()?;
    let ([0, 0, round, between @ .., step], [rounds, .., terms]) = (strides.as_slice(), counts.as_slice())
    else {
        return None;
    };
    let last = |rounds: i64, term: i64| {
        round.checked_mul(rounds)?.checked_add(step.checked_mul(term)?)?.checked_add(*start)
    };
    let grows = *start >= 0 && *round > 0 && *step > 0 && between.iter().all(|stride| *stride == 0);
    let left_before = *rounds > 1 && last(rounds - 2, terms - 1)? >= *limit;
    let room = limit.checked_sub(last((rounds - 1).max(0), 0)?)?;
    if !of_counters.is_empty() || !grows || left_before || room < 1 {
        return None;
    }
    let terms = ((room - 1) / step + 1).min(*terms);
    Some(Some(Tail { level: DEPTHS - depths.len(), terms: usize::try_from(terms).ok()? }))
}

impl TileOp {
    /// Lowers a tile that `table` has a kernel for.
    pub(super) fn lower(code: &Code, table: &'static KernelTable, tile: &Tile) -> TileOp {
        let Tile {
            a,
            a_line_stride,
            a_row_stride,
            a_col_stride,
            terms,
            c,
            c_line_stride,
            c_row_stride,
            c_block_stride,
            lines,
            rows,
            blocks,
            cols,
            depths,
            guard,
            accumulate,
            finish,
            scaled,
        } = tile;
        let lanes = table.lanes as isize;
        let vector = |stride: i64| if *blocks > 1 { stride as isize } else { lanes };
        let element_type =
            |access: AccessId| code.buffers[code.accesses[access.index()].buffer.index()].dtype;
        let edges = || guard.iter().map(|condition| clip(condition, 2)).collect();
        // Levels that are not there are outermost, of one term.
        let mut levels = [const { (Trip::Constant(1), 0, 0) }; DEPTHS];
        for (level, depth) in levels.iter_mut().rev().zip(depths.iter().rev()) {
            *level = (depth.trip.clone(), depth.a_stride as isize, depth.b_stride as isize);
        }
        TileOp {
            kernel: match *terms {
                Terms::Products { b, b_block_stride } if *a_col_stride == 0 => Kernel::Matrix {
                    kernel: tile_kernel(table, tile).expect("the verifier should have found a kernel"),
                    b: b.index(),
                    b_type: element_type(b),
                    b_vector: vector(b_block_stride),
                    tail: tail(depths, guard).expect("the verifier should have found what is left out"),
                },
                Terms::Dots { b, b_block_stride } => Kernel::Dots {
                    kernel: dot_kernel(table, tile).expect("the verifier should have found a kernel"),
                    a_signed: element_type(*a) == ElementType::I8,
                    b: b.index(),
                    b_vector: if *blocks > 1 { b_block_stride as isize } else { DOT_TERMS as isize * lanes },
                    tail: tail(depths, guard).expect("the verifier should have found what is left out"),
                },
                Terms::Products { b, b_block_stride: _ } => {
                    Kernel::Lanes { kernel: table.lane_tile, b: b.index(), edges: edges() }
                }
                Terms::Sum { divisor } => {
                    Kernel::Pool { pool: Pool::Sum, divisor: single(divisor), edges: edges() }
                }
                Terms::Largest if element_type(*a) != ElementType::F32 => {
                    Kernel::PoolBytes { signed: element_type(*a) == ElementType::I8, edges: edges() }
                }
                Terms::Largest => Kernel::Pool { pool: Pool::Max, divisor: 1.0, edges: edges() },
            },
            a: a.index(),
            a_line: *a_line_stride as isize,
            a_row: *a_row_stride as isize,
            c: c.index(),
            c_line: *c_line_stride as isize,
            c_row: *c_row_stride as isize,
            c_vector: vector(*c_block_stride),
            lines: lines.clone(),
            rows: rows.clone(),
            cols: cols.clone(),
            whole_cols: (blocks - 1) * table.lanes,
            depths: levels,
            accumulate: accumulate.clone(),
            finish: FinishOp::lower(finish.as_ref(), vector),
            scaled: scaled.map(|scaled| ScaledOp {
                start: scaled.start.map(|(access, block)| (access.index(), vector(block))),
                scale: (scaled.scale.index(), scaled.scale_block_stride.map(vector)),
                limits: Limits {
                    zero: single(scaled.zero),
                    low: single(scaled.low),
                    high: single(scaled.high),
                },
            }),
        }
    }
}

impl FinishOp {
    pub(super) fn lower(finish: Option<&code::Finish>, vector: impl Fn(i64) -> isize) -> FinishOp {
        let (start, addend) = finish.map_or((None, None), |finish| (finish.start, finish.addend));
        FinishOp {
            start: start.map(|(access, block)| (access.index(), vector(block))),
            addend: addend.map(|(access, [line, row, block])| {
                (access.index(), [line as isize, row as isize, vector(block)])
            }),
            low: finish.map_or(f32::NEG_INFINITY, |finish| single(finish.low)),
            high: finish.map_or(f32::INFINITY, |finish| single(finish.high)),
            activation: finish.and_then(|finish| finish.activation),
        }
    }
}

/// A factor of a type that matrix tiles have kernels for.
fn factor(address: *const f32, dtype: ElementType) -> Factor {
    match dtype {
        ElementType::F16 => Factor::F16(address.cast()),
        ElementType::BF16 => Factor::Bf16(address.cast()),
        ElementType::F32
        | ElementType::F64
        | ElementType::I8
        | ElementType::I16
        | ElementType::I32
        | ElementType::I64
        | ElementType::U8
        | ElementType::U16
        | ElementType::U32
        | ElementType::U64
        | ElementType::Bool => Factor::F32(address),
    }
}

fn single(literal: Literal) -> f32 {
    match literal {
        Literal::Float(value) => value as f32,
        Literal::Int(value) => value as f32,
    }
}

/// A condition on the terms of sums, over so many dimensions of their results, the line and the row, and over the levels of terms.
pub(super) fn clip(condition: &Condition, of_results: usize) -> Clip {
    let Condition { value, strides, limit } = condition;
    let (of_results, of_terms) = strides.split_at(of_results);
    let level = of_terms.iter().position(|stride| *stride != 0).unwrap_or(0);
    let of_result = |dim: usize| of_results.get(dim).copied().unwrap_or(0);
    let edge = Edge { start: 0, line: of_result(0), row: of_result(1), step: of_terms[level], limit: *limit };
    Clip { level: LANE_DEPTHS - of_terms.len() + level, value: value.clone(), edge }
}

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
        let read = |access: usize| self.pointers[access].cast_const().cast::<f32>();
        let a = read(op.a);
        let c = self.pointers[op.c].cast::<f32>();
        let (finish, addend_line) = self.finish(&op.finish);
        let TileOp { a_line, a_row, c_line, c_row, .. } = *op;
        let windows = |edges| Windows {
            lines,
            rows,
            depths: [depths[DEPTHS - 2], depths[DEPTHS - 1]],
            edges,
            a,
            a_line,
            a_row,
            c,
            c_line,
            c_row,
            accumulate,
            finish,
            addend_line,
        };
        match &op.kernel {
            Kernel::Matrix { kernel, b, b_type, b_vector, tail } => {
                let (b, b_vector, tail) = (factor(read(*b), *b_type), *b_vector, *tail);
                let (c_vector, cols) = (op.c_vector, op.whole_cols + cols);
                let mut args = TileArgs {
                    rows,
                    cols,
                    depths,
                    tail,
                    a,
                    a_row,
                    b,
                    b_vector,
                    c,
                    c_row,
                    c_vector,
                    accumulate,
                    finish,
                    ahead_rows: ahead_rows(),
                };
                for _ in 0..lines {
                    // SAFETY: the verifier proved the elements of all operands in range and `c` apart from the others, each
                    // element once; the kernel is of a table the CPU has the instruction set of, and takes tiles this large.
                    unsafe { (kernel.run)(&args) };
                    args.a = args.a.wrapping_offset(a_line);
                    args.c = args.c.wrapping_offset(c_line);
                    args.finish.addend = args.finish.addend.wrapping_offset(addend_line);
                }
            }
            Kernel::Dots { kernel, a_signed, b, b_vector, tail } => {
                let size = if op.scaled.is_some() { 1 } else { size_of::<i32>() as isize };
                let mut args = DotArgs {
                    rows,
                    cols: op.whole_cols + cols,
                    depths,
                    tail: *tail,
                    a: a.cast(),
                    a_signed: *a_signed,
                    a_row,
                    b: read(*b).cast(),
                    b_vector: *b_vector,
                    c: c.cast(),
                    c_row,
                    c_vector: op.c_vector,
                    accumulate,
                    scaled: op.scaled.as_ref().map(|of| Scaled {
                        start: of.start.map_or(std::ptr::null(), |(start, _)| read(start).cast()),
                        start_vector: of.start.map_or(0, |(_, vector)| vector),
                        scale: read(of.scale.0),
                        scale_vector: of.scale.1,
                        limits: of.limits,
                    }),
                };
                for _ in 0..lines {
                    // SAFETY: as above, of a kernel that this machine has what it needs for.
                    unsafe { (kernel.run)(&args) };
                    args.a = args.a.wrapping_offset(a_line);
                    args.c = args.c.wrapping_offset(c_line * size);
                }
            }
            Kernel::Lanes { kernel, b, edges } => {
                let scaled = op.scaled.as_ref().map(|of| ScaledLanes {
                    start: of.start.map_or(std::ptr::null(), |(start, _)| read(start)),
                    scale: read(of.scale.0),
                    single: of.scale.1.is_none(),
                    limits: of.limits,
                });
                let args = LaneArgs { windows: windows(self.edges(edges)), b: read(*b), scaled };
                // SAFETY: as above, where the elements of `a` in range are those of the terms that count, and columns are vectors.
                unsafe { (kernel.run)(&args) };
            }
            Kernel::Pool { pool, divisor, edges } => {
                let windows = windows(self.edges(edges));
                // SAFETY: as above.
                unsafe { self.table.pool_lanes(&PoolArgs { pool: *pool, windows, divisor: *divisor }) };
            }
            Kernel::PoolBytes { signed, edges } => {
                // SAFETY: as above, for elements that are bytes.
                unsafe { self.table.pool_bytes(*signed, &windows(self.edges(edges))) };
            }
        }
    }

    /// The terms of each level that count.
    pub(super) fn edges(&self, clips: &[Clip]) -> [Edge; LANE_DEPTHS] {
        let mut edges = [Edge::NONE; LANE_DEPTHS];
        for clip in clips {
            edges[clip.level] = Edge { start: clip.value.evaluate(self.counters), ..clip.edge };
        }
        edges
    }

    /// What becomes of sums, and the stride of lines in what is added to them.
    pub(super) fn finish(&self, op: &FinishOp) -> (Finish, isize) {
        let FinishOp { start, addend, low, high, activation } = *op;
        let pointer = |access: usize| self.pointers[access].cast_const().cast();
        let (start, start_vector) =
            start.map_or((std::ptr::null(), 0), |(access, vector)| (pointer(access), vector));
        let (addend, [addend_line, addend_row, addend_vector]) =
            addend.map_or((std::ptr::null(), [0; 3]), |(access, strides)| (pointer(access), strides));
        let finish = Finish { start, start_vector, addend, addend_row, addend_vector, low, high, activation };
        (finish, addend_line)
    }
}
