//! The verifier: what [`Program::new`](super::Program::new) proves about a [`Code`] before it may run.

mod tile;

use super::affine::{Affine, Condition};
use super::code::{
    AccessId, Accumulate, Block, BlockOp, BufferId, Call, Code, CounterId, Depth, ElementType, Finish, Loop,
    Node, Place, Register, Transform, Trip, Window, WindowKind,
};
use super::range::{Linear, Space};
use super::tile::tail;
use crate::isa::Isa;
use crate::scalar::{BinaryOp, UnaryOp};
use crate::table::KernelTable;

/// Why a [`Code`] is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CPU program `{program}`, {place}: {problem}")]
pub struct VerifyError {
    /// The program's name.
    pub program: String,
    /// The loops around and the call, for people.
    pub place: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a [`Code`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An id without a declaration.
    #[error("{0} is not declared; take ids from the code that uses them")]
    Undeclared(String),
    /// Two external buffers share a binding.
    #[error("buffers `{0}` and `{1}` have the same binding; give each its own, or use one writable buffer")]
    SharedBinding(String, String),
    /// External bindings are not numbered from 0 without gaps.
    #[error("buffer `{0}` has binding {1}, but there are only {2} bindings; number them from 0")]
    BindingNumber(String, usize, usize),
    /// A buffer of more bytes than memory can hold.
    #[error("buffer `{0}` is larger than the address space")]
    TooLarge(String),
    /// A counter outside its loop.
    #[error("counter {0} is used outside its loop")]
    CounterOutOfScope(CounterId),
    /// A counter of two loops.
    #[error("counter {0} belongs to two loops; declare one for each")]
    CounterTwice(CounterId),
    /// A parallel loop that the threads cannot divide.
    #[error(
        "loop {0} is parallel, but not at the top of a phase or alone in a parallel loop with a constant trip"
    )]
    NestedParallel(CounterId),
    /// A divisor below 1.
    #[error("a bound divides by {0}; divisors are at least 1")]
    Divisor(i64),
    /// A form whose values might not fit an i64.
    #[error("an affine form may exceed 62 bits")]
    Overflow,
    /// A block without dimensions or with more than three.
    #[error("the block has {0} dimensions; it should have 1 to 3")]
    Dimensions(usize),
    /// A list of strides that does not fit the dimensions.
    #[error("operation {op} has {found} strides for {wanted} dimensions")]
    Strides {
        /// Which operation of the block.
        op: usize,
        /// How many it has.
        found: usize,
        /// How many dimensions there are.
        wanted: usize,
    },
    /// A register set twice.
    #[error("operation {1} sets register {0} a second time")]
    SetTwice(Register, usize),
    /// A register used before it is set.
    #[error("operation {1} uses register {0} before it is set")]
    Unset(Register, usize),
    /// Types that do not fit one another.
    #[error("operation {op} needs {wanted}, but finds {}", .found.name())]
    Type {
        /// Which operation of the block; 0 for a tile.
        op: usize,
        /// What would fit.
        wanted: String,
        /// What is there.
        found: ElementType,
    },
    /// A store to a read-only buffer.
    #[error("buffer `{0}` is stored to, but not declared writable")]
    ReadOnly(String),
    /// A tile that no micro-kernel of the instruction set takes.
    #[error(
        "no {isa} kernel takes a tile of {rows} x {cols} and {levels} levels of the sum; take columns from its kernel table"
    )]
    TileSize {
        /// The instruction set.
        isa: Isa,
        /// The tile's largest row count.
        rows: usize,
        /// The tile's largest column count.
        cols: usize,
        /// The levels of its sum.
        levels: usize,
    },
    /// A tile whose target is also an operand, or whose elements overlap.
    #[error(
        "the tile's target overlaps its operands or itself; give it a buffer of its own and elements apart"
    )]
    TileOverlap,
    /// Conditions on the terms of a tile that its micro-kernel does not know.
    #[error(
        "a tile leaves out terms where it cannot: with an element a column each level of the sum has at most one condition, and only that on the innermost may move with the row, forward; with one factor for all columns only the last terms in the last iteration of the outermost level can be left out"
    )]
    TileGuard,
    /// A window with a stride, a dilation or a width of 0.
    #[error("a window's stride, dilation and columns are at least 1")]
    WindowStep,
    /// A window whose target is also an operand.
    #[error("the window's target overlaps what it reads; give it a buffer of its own")]
    WindowOverlap,
    /// A transform whose channels are no vector.
    #[error("no {isa} kernel transforms tiles of {lanes} channels; take the lanes of its kernel table")]
    TransformLanes {
        /// The instruction set.
        isa: Isa,
        /// The transform's channels.
        lanes: usize,
    },
    /// A transform whose target is also its operand, or whose elements overlap.
    #[error(
        "the transform's target overlaps its operand or itself; give it a buffer of its own and elements apart"
    )]
    TransformOverlap,
    /// Conditions on what a transform reads that it does not know.
    #[error(
        "a transform leaves out what it cannot: its rows and its columns have at most one condition each"
    )]
    TransformGuard,
    /// A transform whose columns start from values of their own.
    #[error("the columns of a transform start from different values; let all have the same")]
    TransformStart,
    /// An access that is not proved to stay inside its buffer.
    #[error(
        "{access} is not proved to stay inside buffer `{buffer}` of {length} elements; bound the loops or guard it"
    )]
    OutOfRange {
        /// Which access.
        access: AccessId,
        /// Its buffer's name.
        buffer: String,
        /// The buffer's elements.
        length: usize,
    },
}

impl Code {
    /// Proves that running the code touches no memory outside its buffers: every access stays inside its buffer for all
    /// values the counters can take (by intervals, using the bounds of loops and the guards), types fit, registers are set
    /// once and before use, counters are used in their loops only, only writable buffers are stored to, parallel loops are
    /// where threads can divide them. Not checked: whether iterations of parallel loops are independent, and indices of
    /// gathers and scatters, which are checked as they run. Tiles are checked against the kernels of `table`.
    ///
    /// # Errors
    /// The first problem found.
    pub fn verify(&self, table: &'static KernelTable) -> Result<(), VerifyError> {
        let mut verifier = Verifier {
            code: self,
            table,
            space: Space { last: vec![0; self.counters.len()], constraints: Vec::new() },
            in_scope: vec![false; self.counters.len()],
            seen: vec![false; self.counters.len()],
            place: Vec::new(),
        };
        verifier.program().map_err(|problem| VerifyError {
            program: self.name.clone(),
            place: if verifier.place.is_empty() { "declarations".into() } else { verifier.place.join(", ") },
            problem,
        })
    }
}

struct Verifier<'a> {
    code: &'a Code,
    table: &'static KernelTable,
    /// The variables are the counters by their index, then the dimensions of the call at hand.
    space: Space,
    in_scope: Vec<bool>,
    seen: Vec<bool>,
    place: Vec<String>,
}

type Check = Result<(), Problem>;

impl Verifier<'_> {
    fn program(&mut self) -> Check {
        self.declarations()?;
        for (at, phase) in self.code.body.iter().enumerate() {
            self.place = vec![format!("phase {at}")];
            self.node(phase, true)?;
        }
        Ok(())
    }

    fn declarations(&self) -> Check {
        let external = |place: Place| match place {
            Place::External { index, writable: _ } => Some(index),
            Place::Shared | Place::Scratch => None,
        };
        let bindings = self.code.buffers.iter().filter_map(|buffer| external(buffer.place)).count();
        let mut owners = vec![None; bindings];
        for buffer in &self.code.buffers {
            if buffer.length.checked_mul(buffer.dtype.size_bytes()).is_none_or(|bytes| bytes > 1 << 62) {
                return Err(Problem::TooLarge(buffer.name.clone()));
            }
            let Some(index) = external(buffer.place) else { continue };
            match owners.get_mut(index) {
                Some(owner @ None) => *owner = Some(&buffer.name),
                Some(Some(other)) => {
                    return Err(Problem::SharedBinding((*other).clone(), buffer.name.clone()));
                }
                None => return Err(Problem::BindingNumber(buffer.name.clone(), index, bindings)),
            }
        }
        self.code.accesses.iter().try_for_each(|access| self.buffer(access.buffer).map(|_| ()))
    }

    fn buffer(&self, id: BufferId) -> Result<&super::code::Buffer, Problem> {
        self.code.buffers.get(id.index()).ok_or_else(|| Problem::Undeclared(id.to_string()))
    }

    fn node(&mut self, node: &Node, may_be_parallel: bool) -> Check {
        match node {
            Node::Loop(inner) => self.count(inner, may_be_parallel),
            Node::Call(Call::Tile(tile)) => {
                self.place.push("tile".into());
                self.scoped(|verifier| verifier.tile(tile))
            }
            Node::Call(Call::Window(window)) => {
                self.place.push("window".into());
                self.scoped(|verifier| verifier.window(window))
            }
            Node::Call(Call::Transform(transform)) => {
                self.place.push("transform".into());
                self.scoped(|verifier| verifier.transform(transform))
            }
            Node::Call(Call::Block(block)) => {
                self.place.push(format!("block `{}`", block.name));
                self.scoped(|verifier| verifier.block(block))
            }
        }
    }

    /// Runs a check, and forgets the variables, constraints and places it added if it succeeds.
    fn scoped(&mut self, check: impl FnOnce(&mut Self) -> Check) -> Check {
        let (variables, constraints) = (self.space.last.len(), self.space.constraints.len());
        check(self)?;
        self.space.last.truncate(variables);
        self.space.constraints.truncate(constraints);
        self.place.pop();
        Ok(())
    }

    fn count(&mut self, node: &Loop, may_be_parallel: bool) -> Check {
        let Loop { counter, trip, parallel, body } = node;
        let at = counter.index();
        let name = self.code.counters.get(at).ok_or_else(|| Problem::Undeclared(counter.to_string()))?;
        self.place.push(format!("loop {name}"));
        if std::mem::replace(&mut self.seen[at], true) {
            return Err(Problem::CounterTwice(*counter));
        }
        let top = !self.in_scope.contains(&true);
        if *parallel && !(may_be_parallel && (top || matches!(trip, Trip::Constant(_)))) {
            return Err(Problem::NestedParallel(*counter));
        }
        self.scoped(|verifier| {
            verifier.trip(trip, at)?;
            verifier.in_scope[at] = true;
            for node in body {
                verifier.node(node, *parallel && body.len() == 1)?;
            }
            verifier.in_scope[at] = false;
            verifier.space.last[at] = 0;
            Ok(())
        })
    }

    /// Bounds a variable by a trip.
    fn trip(&mut self, trip: &Trip, variable: usize) -> Check {
        let last = trip.max() as i128 - 1;
        match variable.cmp(&self.space.last.len()) {
            std::cmp::Ordering::Less => self.space.last[variable] = last,
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => self.space.last.push(last),
        }
        let Trip::Bounded { max: _, bounds } = trip else { return Ok(()) };
        for bound in bounds {
            if bound.divisor < 1 {
                return Err(Problem::Divisor(bound.divisor));
            }
            let mut form = self.linear(&bound.value)?;
            form.constant -= 1;
            form.add(variable, -bound.divisor);
            self.space.constraints.push(form);
        }
        Ok(())
    }

    fn linear(&self, affine: &Affine) -> Result<Linear, Problem> {
        let mut form = Linear { constant: affine.constant.into(), coefficients: Vec::new() };
        for (counter, factor) in &affine.terms {
            if self.in_scope.get(counter.index()) != Some(&true) {
                return Err(Problem::CounterOutOfScope(*counter));
            }
            form.add(counter.index(), *factor);
        }
        self.fits(&form)?;
        Ok(form)
    }

    fn fits(&self, form: &Linear) -> Check {
        let terms = form.coefficients.iter().zip(&self.space.last);
        let largest = terms.fold(form.constant.abs(), |sum, (factor, last)| {
            sum.saturating_add(factor.abs().saturating_mul((*last).max(1)))
        });
        if largest < 1 << 62 { Ok(()) } else { Err(Problem::Overflow) }
    }

    /// Adds the dimensions of a call as variables; gives the first one's index.
    fn dims<'t>(&mut self, trips: impl IntoIterator<Item = &'t Trip>) -> Result<usize, Problem> {
        let first = self.space.last.len();
        for (at, trip) in trips.into_iter().enumerate() {
            self.trip(trip, first + at)?;
        }
        Ok(first)
    }

    fn with_dims(&self, affine: &Affine, first: usize, strides: &[i64]) -> Result<Linear, Problem> {
        let mut form = self.linear(affine)?;
        for (at, stride) in strides.iter().enumerate() {
            form.add(first + at, *stride);
        }
        self.fits(&form)?;
        Ok(form)
    }

    /// Proves an access in range and gives its element type.
    fn access(
        &self,
        id: AccessId,
        first: usize,
        strides: &[i64],
        guard: &[Condition],
        stores: bool,
    ) -> Result<ElementType, Problem> {
        let access = self.code.accesses.get(id.index()).ok_or_else(|| Problem::Undeclared(id.to_string()))?;
        let buffer = self.buffer(access.buffer)?;
        if stores {
            self.writable(access.buffer)?;
        }
        let offset = self.with_dims(&access.offset, first, strides)?;
        let within = |space: &Space| {
            space.proves(&offset) && space.proves(&offset.subtracted_from(buffer.length as i128 - 1))
        };
        let proved = if guard.is_empty() {
            within(&self.space)
        } else {
            let mut space = self.space.clone();
            for condition in guard {
                let form = self.with_dims(&condition.value, first, &condition.strides)?;
                let below = form.subtracted_from(i128::from(condition.limit) - 1);
                // What is left below the limit is computed as well.
                self.fits(&below)?;
                space.constraints.push(below);
                space.constraints.push(form);
            }
            within(&space)
        };
        if proved {
            Ok(buffer.dtype)
        } else {
            Err(Problem::OutOfRange { access: id, buffer: buffer.name.clone(), length: buffer.length })
        }
    }

    fn writable(&self, id: BufferId) -> Check {
        let buffer = self.buffer(id)?;
        match buffer.place {
            Place::External { index: _, writable: false } => Err(Problem::ReadOnly(buffer.name.clone())),
            Place::External { index: _, writable: true } | Place::Shared | Place::Scratch => Ok(()),
        }
    }

    /// Whether elements are apart that lie next to one another over the dimension `innermost` and by strides over the others, of which
    /// each has a stride, a count and a variable: what is inside of each stride is shorter than it.
    fn are_apart<const COUNT: usize>(
        &self,
        innermost: usize,
        mut outer: [(i64, usize, usize); COUNT],
    ) -> bool {
        outer.sort_by_key(|(stride, ..)| stride.unsigned_abs());
        let mut inside = Linear::default();
        inside.add(innermost, 1);
        outer.iter().filter(|(_, count, _)| *count > 1).all(|&(stride, _, dim)| {
            let room = inside.subtracted_from(i128::from(stride.unsigned_abs()) - 1);
            inside.add(dim, stride.saturating_abs());
            self.space.proves(&room)
        })
    }

    fn accumulation(&self, accumulate: &Accumulate) -> Check {
        match accumulate {
            Accumulate::Never | Accumulate::Always => Ok(()),
            Accumulate::UnlessZero(form) => self.linear(form).map(|_| ()),
        }
    }

    fn transform(&mut self, transform: &Transform) -> Check {
        let Transform {
            matrix,
            sides,
            x,
            x_row_stride,
            x_col_stride,
            x_tile_stride,
            y,
            y_row_stride,
            y_col_stride,
            y_tile_stride,
            tiles,
            lanes,
            guard,
            accumulate,
            finish,
        } = transform;
        if *lanes != self.table.lanes {
            return Err(Problem::TransformLanes { isa: self.table.isa, lanes: *lanes });
        }
        let (points, results) = (matrix.columns(), matrix.rows().len());
        let result_rows = sides.rows(results);
        // The variables: tile, channel, row and column of `x`, row and column of `y`.
        let counts = [*lanes, sides.rows(points), points, result_rows, results].map(Trip::Constant);
        let first = self.dims(std::iter::once(tiles).chain(&counts))?;
        let outer = [
            (*y_tile_stride, tiles.max(), first),
            (*y_row_stride, result_rows, first + 4),
            (*y_col_stride, results, first + 5),
        ];
        let buffer = |id: AccessId| self.code.accesses.get(id.index()).map(|access| access.buffer);
        let mut read = std::iter::once(*x).chain(finish.iter().flat_map(Finish::accesses));
        if read.any(|id| buffer(id) == buffer(*y)) || !self.are_apart(first + 1, outer) {
            return Err(Problem::TransformOverlap);
        }
        self.accumulation(accumulate)?;
        let results = |[tile, row, column]: [i64; 3]| [tile, 1, 0, 0, row, column];
        let (start, addend) = finish.as_ref().map_or((None, None), |finish| (finish.start, finish.addend));
        if start.is_some_and(|(_, column)| column != 0) {
            return Err(Problem::TransformStart);
        }
        let guard = of_rows_and_columns(guard)?;
        let x_strides = [*x_tile_stride, 1, *x_row_stride, *x_col_stride, 0, 0];
        expect_type(0, self.access(*x, first, &x_strides, &guard, false)?, ElementType::F32)?;
        let operands = [
            Some((*y, results([*y_tile_stride, *y_row_stride, *y_col_stride]), true)),
            start.map(|(access, _)| (access, results([0; 3]), false)),
            addend.map(|(access, strides)| (access, results(strides), false)),
        ];
        operands.into_iter().flatten().try_for_each(|(access, strides, stores)| {
            expect_type(0, self.access(access, first, &strides, &[], stores)?, ElementType::F32)
        })
    }

    fn window(&mut self, window: &Window) -> Check {
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
        } = window;
        let step = |value: &usize| i64::try_from(*value).ok().filter(|value| *value > 0);
        let (Some(stride), Some(dilation), Some(width)) = (step(stride), step(dilation), step(cols)) else {
            return Err(Problem::WindowStep);
        };
        // The variables: output row, window row, result, window column.
        let first = self.dims([outputs, rows, count, &Trip::Constant(*cols)])?;
        let access = |id, strides: [i64; 4], stores| {
            expect_type(0, self.access(id, first, &strides, &[], stores)?, ElementType::F32)
        };
        let buffer = |id: &AccessId| self.code.accesses.get(id.index()).map(|access| access.buffer);
        access(*x, [*x_output_stride, *x_row_stride, stride, dilation], false)?;
        access(*y, [*y_output_stride, 0, 1, 0], true)?;
        let mut apart = buffer(x) != buffer(y);
        match kind {
            WindowKind::Depthwise { weights, start, start_per_result, start_output_stride } => {
                access(*weights, [0, width, 0, 1], false)?;
                access(*start, [*start_output_stride, 0, i64::from(*start_per_result), 0], false)?;
                let in_place = start == y && *start_per_result && start_output_stride == y_output_stride;
                apart &= buffer(weights) != buffer(y) && (in_place || buffer(start) != buffer(y));
            }
            WindowKind::Max | WindowKind::Sum => {}
        }
        if apart { Ok(()) } else { Err(Problem::WindowOverlap) }
    }

    fn block(&mut self, block: &Block) -> Check {
        let Block { name: _, dims, registers, ops } = block;
        if dims.is_empty() || dims.len() > 3 {
            return Err(Problem::Dimensions(dims.len()));
        }
        let first = self.dims(dims)?;
        let mut set = vec![false; registers.len()];
        for (at, op) in ops.iter().enumerate() {
            let strides_fit = |strides: &[i64]| match strides.len() == dims.len() {
                true => Ok(()),
                false => Err(Problem::Strides { op: at, found: strides.len(), wanted: dims.len() }),
            };
            let guard_fits =
                |guard: &[Condition]| guard.iter().try_for_each(|condition| strides_fit(&condition.strides));
            for operand in op.operands() {
                if set.get(operand.index()) != Some(&true) {
                    return Err(Problem::Unset(operand, at));
                }
            }
            let dtype = |register: Register| registers[register.index()];
            let result = match op {
                BlockOp::Load { to: _, access, strides, guard } => {
                    strides_fit(strides)?;
                    guard_fits(guard)?;
                    Some(self.access(*access, first, strides, guard, false)?)
                }
                BlockOp::Constant { to: _, value: _ } | BlockOp::Cast { to: _, x: _ } => None,
                BlockOp::Index { to: _, value, strides } => {
                    strides_fit(strides)?;
                    self.with_dims(value, first, strides)?;
                    Some(ElementType::I64)
                }
                BlockOp::Unary { to: _, op, x } => Some(unary_result(at, *op, dtype(*x))?),
                BlockOp::Activate { to: _, activation: _, x } => {
                    expect_type(at, dtype(*x), ElementType::F32)?;
                    Some(ElementType::F32)
                }
                BlockOp::Binary { to: _, op, a, b } => {
                    expect_type(at, dtype(*b), dtype(*a))?;
                    Some(binary_result(at, *op, dtype(*a))?)
                }
                BlockOp::MultiplyAdd { to: _, a, b, c } => {
                    expect_type(at, dtype(*b), dtype(*a))?;
                    expect_type(at, dtype(*c), dtype(*a))?;
                    Some(dtype(*a))
                }
                BlockOp::Select { to: _, condition, then, otherwise } => {
                    expect_type(at, dtype(*condition), ElementType::Bool)?;
                    expect_type(at, dtype(*otherwise), dtype(*then))?;
                    Some(dtype(*then))
                }
                BlockOp::Gather { to: _, buffer, index, mask } => {
                    expect_type(at, dtype(*index), ElementType::I64)?;
                    mask.iter().try_for_each(|mask| expect_type(at, dtype(*mask), ElementType::Bool))?;
                    Some(self.buffer(*buffer)?.dtype)
                }
                BlockOp::Store { access, strides, value, combine: _, guard, mask } => {
                    strides_fit(strides)?;
                    guard_fits(guard)?;
                    mask.iter().try_for_each(|mask| expect_type(at, dtype(*mask), ElementType::Bool))?;
                    expect_type(at, dtype(*value), self.access(*access, first, strides, guard, true)?)?;
                    None
                }
                BlockOp::Scatter { buffer, index, value, combine: _, mask } => {
                    self.writable(*buffer)?;
                    expect_type(at, dtype(*index), ElementType::I64)?;
                    mask.iter().try_for_each(|mask| expect_type(at, dtype(*mask), ElementType::Bool))?;
                    expect_type(at, dtype(*value), self.buffer(*buffer)?.dtype)?;
                    None
                }
            };
            let Some(to) = op.result() else { continue };
            match set.get_mut(to.index()) {
                None => return Err(Problem::Undeclared(to.to_string())),
                Some(true) => return Err(Problem::SetTwice(to, at)),
                Some(fresh) => *fresh = true,
            }
            if let Some(result) = result {
                expect_type(at, dtype(to), result)?;
            }
        }
        Ok(())
    }
}

/// Conditions on the terms of a tile, over the dimensions of the tile.
fn of_terms(guard: &[Condition], depths: &[Depth], lanewise: bool) -> Result<Vec<Condition>, Problem> {
    let levels = depths.len();
    let mut free = vec![true; levels];
    let over_tile = |condition: &Condition| {
        let Condition { value, strides, limit } = condition;
        let [line, row, terms @ ..] = strides.as_slice() else {
            return Err(Problem::Strides { op: 0, found: strides.len(), wanted: 2 + levels });
        };
        if terms.len() != levels {
            return Err(Problem::Strides { op: 0, found: strides.len(), wanted: 2 + levels });
        }
        let level = terms.iter().position(|stride| *stride != 0).unwrap_or(0);
        let single = terms.iter().skip(level + 1).all(|stride| *stride == 0);
        let moves = *row == 0 || (*row > 0 && level + 1 == levels);
        if lanewise && !(single && moves && std::mem::replace(&mut free[level], false)) {
            return Err(Problem::TileGuard);
        }
        let strides = [*line, *row, 0, 0].into_iter().chain(terms.iter().copied()).collect();
        Ok(Condition { value: value.clone(), strides, limit: *limit })
    };
    let over_tile = guard.iter().map(over_tile).collect::<Result<_, _>>()?;
    if lanewise || tail(depths, guard).is_some() { Ok(over_tile) } else { Err(Problem::TileGuard) }
}

/// Conditions on the elements of a tile that a transform reads, over the dimensions of the transform.
fn of_rows_and_columns(guard: &[Condition]) -> Result<Vec<Condition>, Problem> {
    let mut free = [true; 2];
    let over_transform = |Condition { value, strides, limit }: &Condition| {
        let &[tile, row, column] = strides.as_slice() else {
            return Err(Problem::Strides { op: 0, found: strides.len(), wanted: 3 });
        };
        let side = usize::from(row == 0 && column != 0);
        if (row != 0 && column != 0) || !std::mem::replace(&mut free[side], false) {
            return Err(Problem::TransformGuard);
        }
        Ok(Condition { value: value.clone(), strides: vec![tile, 0, row, column, 0, 0], limit: *limit })
    };
    guard.iter().map(over_transform).collect()
}

fn expect_type(op: usize, found: ElementType, wanted: ElementType) -> Check {
    if found == wanted { Ok(()) } else { Err(Problem::Type { op, wanted: wanted.name().into(), found }) }
}

/// The result's type, or a refusal where the operation has no meaning on the type.
fn unary_result(at: usize, op: UnaryOp, found: ElementType) -> Result<ElementType, Problem> {
    let refuse = |wanted: &str| Err(Problem::Type { op: at, wanted: wanted.into(), found });
    if op.is_test() {
        Ok(ElementType::Bool)
    } else if op == UnaryOp::Not && found.is_float() {
        refuse("an integer or a bool")
    } else if !found.is_float() && op.eval_i64(0).is_none() {
        refuse("a float")
    } else {
        Ok(found)
    }
}

fn binary_result(at: usize, op: BinaryOp, found: ElementType) -> Result<ElementType, Problem> {
    let bitwise = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr);
    if bitwise && found.is_float() {
        Err(Problem::Type { op: at, wanted: "an integer or a bool".into(), found })
    } else {
        Ok(if op.is_comparison() { ElementType::Bool } else { found })
    }
}

impl BlockOp {
    /// The register it sets.
    pub fn result(&self) -> Option<Register> {
        match self {
            BlockOp::Load { to, .. }
            | BlockOp::Constant { to, .. }
            | BlockOp::Index { to, .. }
            | BlockOp::Unary { to, .. }
            | BlockOp::Activate { to, .. }
            | BlockOp::Binary { to, .. }
            | BlockOp::MultiplyAdd { to, .. }
            | BlockOp::Select { to, .. }
            | BlockOp::Cast { to, .. }
            | BlockOp::Gather { to, .. } => Some(*to),
            BlockOp::Store { .. } | BlockOp::Scatter { .. } => None,
        }
    }

    /// The registers it uses.
    pub fn operands(&self) -> impl Iterator<Item = Register> {
        let (fixed, mask): ([Option<Register>; 3], Option<Register>) = match self {
            BlockOp::Load { .. } | BlockOp::Constant { .. } | BlockOp::Index { .. } => ([None; 3], None),
            BlockOp::Unary { to: _, op: _, x }
            | BlockOp::Activate { to: _, activation: _, x }
            | BlockOp::Cast { to: _, x } => ([Some(*x), None, None], None),
            BlockOp::Binary { to: _, op: _, a, b } => ([Some(*a), Some(*b), None], None),
            BlockOp::MultiplyAdd { to: _, a, b, c } => ([Some(*a), Some(*b), Some(*c)], None),
            BlockOp::Select { to: _, condition, then, otherwise } => {
                ([Some(*condition), Some(*then), Some(*otherwise)], None)
            }
            BlockOp::Gather { to: _, buffer: _, index, mask } => ([Some(*index), None, None], *mask),
            BlockOp::Store { access: _, strides: _, value, combine: _, guard: _, mask } => {
                ([Some(*value), None, None], *mask)
            }
            BlockOp::Scatter { buffer: _, index, value, combine: _, mask } => {
                ([Some(*index), Some(*value), None], *mask)
            }
        };
        fixed.into_iter().chain([mask]).flatten()
    }
}
