//! The data types of a CPU program. The module above says what they mean together.

use super::affine::{Affine, Bound, Condition};
use crate::activation::Activation;
use crate::scalar::{BinaryOp, UnaryOp};
use crate::transform::{Matrix, Sides};

/// The type of a buffer's elements and of a register's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    /// IEEE half precision; operations compute in f32 and round once each.
    F16,
    /// The upper half of an f32; operations compute in f32 and round once each.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Signed, 8 bits, wrapping.
    I8,
    /// Signed, 16 bits, wrapping.
    I16,
    /// Signed, 32 bits, wrapping.
    I32,
    /// Signed, 64 bits, wrapping; the type of every index.
    I64,
    /// Unsigned, 8 bits, wrapping.
    U8,
    /// Unsigned, 16 bits, wrapping.
    U16,
    /// Unsigned, 32 bits, wrapping.
    U32,
    /// Unsigned, 64 bits, wrapping.
    U64,
    /// One byte; 0 is false and 1 is true. Other bytes in memory count as true.
    Bool,
}

impl ElementType {
    /// Every type, in the order of the declaration.
    pub const ALL: [ElementType; 13] = [
        ElementType::F16,
        ElementType::BF16,
        ElementType::F32,
        ElementType::F64,
        ElementType::I8,
        ElementType::I16,
        ElementType::I32,
        ElementType::I64,
        ElementType::U8,
        ElementType::U16,
        ElementType::U32,
        ElementType::U64,
        ElementType::Bool,
    ];

    /// The name used in text forms: `f32`, `i64`, `bool` ...
    pub fn name(self) -> &'static str {
        match self {
            ElementType::F16 => "f16",
            ElementType::BF16 => "bf16",
            ElementType::F32 => "f32",
            ElementType::F64 => "f64",
            ElementType::I8 => "i8",
            ElementType::I16 => "i16",
            ElementType::I32 => "i32",
            ElementType::I64 => "i64",
            ElementType::U8 => "u8",
            ElementType::U16 => "u16",
            ElementType::U32 => "u32",
            ElementType::U64 => "u64",
            ElementType::Bool => "bool",
        }
    }

    /// Bytes an element takes.
    pub fn size_bytes(self) -> usize {
        match self {
            ElementType::I8 | ElementType::U8 | ElementType::Bool => 1,
            ElementType::F16 | ElementType::BF16 | ElementType::I16 | ElementType::U16 => 2,
            ElementType::F32 | ElementType::I32 | ElementType::U32 => 4,
            ElementType::F64 | ElementType::I64 | ElementType::U64 => 8,
        }
    }

    /// Whether it is f16, bf16, f32 or f64.
    pub fn is_float(self) -> bool {
        matches!(self, ElementType::F16 | ElementType::BF16 | ElementType::F32 | ElementType::F64)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $letter:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// Its place in the list it names an item of.
            #[inline]
            pub fn index(self) -> usize {
                self.0 as usize
            }

            fn next(length: usize) -> $name {
                $name(u32::try_from(length).expect("a program should have fewer than 2^32 of anything"))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    )*};
}

ids! {
    /// Names a [`Buffer`] of a [`Code`].
    BufferId, "buffer";
    /// Names the counter of one loop of a [`Code`].
    CounterId, "i";
    /// Names an [`Access`] of a [`Code`].
    AccessId, "access";
    /// Names a register of a [`Block`].
    Register, "v";
}

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Bound from outside at each step: binding `index` of the step. Two buffers that are bound to overlapping memory
    /// are refused unless both are read-only; for work in place declare one writable buffer.
    External {
        /// Which binding of the step.
        index: usize,
        /// Whether the program may store to it.
        writable: bool,
    },
    /// One for all threads while the program runs; undefined at its start.
    Shared,
    /// One for each thread; undefined at the start of each iteration of a parallel loop.
    Scratch,
}

/// A block of memory that a program reads or writes. Every buffer is aligned for its element type; shared and scratch
/// buffers are aligned to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// For people.
    pub name: String,
    /// The type of every element.
    pub dtype: ElementType,
    /// How many elements it has.
    pub length: usize,
    /// Where it lives.
    pub place: Place,
}

/// A running offset into a buffer, in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The buffer.
    pub buffer: BufferId,
    /// The offset as a form over the counters of the loops around the calls that use it.
    pub offset: Affine,
}

/// How often a loop runs or how long a dimension is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trip {
    /// Always that often.
    Constant(usize),
    /// The least of `max` and of every bound, and never below 0.
    Bounded {
        /// The largest count.
        max: usize,
        /// What cuts it short.
        bounds: Vec<Bound>,
    },
}

impl Trip {
    /// The largest count.
    pub fn max(&self) -> usize {
        match self {
            Trip::Constant(count) => *count,
            Trip::Bounded { max, bounds: _ } => *max,
        }
    }

    /// The count for the given counters.
    #[inline]
    pub fn evaluate(&self, counters: &[i64]) -> usize {
        match self {
            Trip::Constant(count) => *count,
            Trip::Bounded { max, bounds } => bounds.iter().fold(*max, |count, bound| {
                let value = bound.value.evaluate(counters);
                let limit = if bound.divisor == 1 { value } else { -(-value).div_euclid(bound.divisor) };
                count.min(limit.max(0) as usize)
            }),
        }
    }
}

/// A counted loop: `counter` takes the values `0 .. trip`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// Its counter, which no other loop has.
    pub counter: CounterId,
    /// How often it runs.
    pub trip: Trip,
    /// Whether its iterations are divided over the threads.
    pub parallel: bool,
    /// What it runs, in order.
    pub body: Vec<Node>,
}

/// A statement of a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A loop.
    Loop(Loop),
    /// A leaf.
    Call(Call),
}

/// A leaf of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A matrix product or a pooling on a register tile.
    Tile(Box<Tile>),
    /// Windows sliding over a plane.
    Window(Window),
    /// A matrix applied to the columns and the rows of tiles, or to tiles that are rows.
    Transform(Transform),
    /// A straight-line program over a few dimensions.
    Block(Block),
}

/// Whether a tile or a transform adds to what its target holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Accumulate {
    /// It overwrites.
    Never,
    /// It adds.
    Always,
    /// It adds where the form is not 0: the first round of a blocked reduction overwrites, later ones add.
    UnlessZero(Affine),
}

impl Accumulate {
    /// Whether it adds at the given counters.
    #[inline]
    pub fn evaluate(&self, counters: &[i64]) -> bool {
        match self {
            Accumulate::Never => false,
            Accumulate::Always => true,
            Accumulate::UnlessZero(form) => form.evaluate(counters) != 0,
        }
    }
}

/// `c[p, i, j, l] (+)= sum over k of a[p, i, k, l] * b[k, j, l]` for lines `p`, their rows `i`, blocks of columns `j`, columns `l` of a
/// block and the terms `k` of all levels of the sum, all f32, finished as `finish` says; `a` is one factor for all columns, or one
/// a column of a single block that is a vector. The columns of a block are next to one another in `b` and in `c`. Terms for
/// which a condition of `guard` fails are left out, and `a` is not read for them. The result is undefined where `c`
/// overlaps what is read. A pooling has the elements of `a` themselves as terms, of which `a` then has one a column. Bytes are
/// multiplied by fours, see [`Terms::Dots`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// The first element of `a`.
    pub a: AccessId,
    /// Elements from a line to the next in `a`.
    pub a_line_stride: i64,
    /// Elements from a row to the next in `a`.
    pub a_row_stride: i64,
    /// Elements from a column to the next in `a`: 0, or 1 where a block is a vector and there is one.
    pub a_col_stride: i64,
    /// What becomes of the elements of `a`.
    pub terms: Terms,
    /// The first element of `c`.
    pub c: AccessId,
    /// Elements from a line to the next in `c`.
    pub c_line_stride: i64,
    /// Elements from a row to the next in `c`.
    pub c_row_stride: i64,
    /// Elements from a block of columns to the next in `c`.
    pub c_block_stride: i64,
    /// Lines of `a` and `c`.
    pub lines: Trip,
    /// Rows of a line.
    pub rows: Trip,
    /// Blocks of columns of `b` and `c`. Where there are several, a block is a vector.
    pub blocks: usize,
    /// Columns of a block; their largest count and the blocks choose the micro-kernel.
    pub cols: Trip,
    /// The levels of each sum, outermost first: from one to [`DEPTHS`](crate::tile::DEPTHS).
    pub depths: Vec<Depth>,
    /// Conditions on the terms, over the line, the row and the levels of the sum, outermost first. Where `a` has a factor a
    /// column: at most one on a level, and on no other; that on the innermost level may move forward with the row. Else at most one,
    /// which leaves out the last terms of the innermost level in the last iteration of the outermost.
    pub guard: Vec<Condition>,
    /// Whether it adds to `c`.
    pub accumulate: Accumulate,
    /// What becomes of the sums.
    pub finish: Option<Finish>,
    /// What becomes of sums of products instead, which are added to nothing then: of bytes, or of elements that are a column each.
    pub scaled: Option<Scaled>,
}

/// What a [`Tile`] makes of the elements of `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terms {
    /// The sum of their products with those of `b`, which may be of f16 or bf16 where `a` has one for all columns.
    Products {
        /// The first element of `b`.
        b: AccessId,
        /// Elements from a block of columns to the next in `b`.
        b_block_stride: i64,
    },
    /// The sum of their products with those of `b` in i32, which wraps, where an element is [`DOT_TERMS`](crate::tile::dots::DOT_TERMS)
    /// neighbours: u8 or i8 of `a`, which has one for all columns, and i8 of `b`. There is no [`Finish`]; `c` is i32 if not scaled.
    Dots {
        /// The first element of `b`.
        b: AccessId,
        /// Elements from a block of columns to the next in `b`.
        b_block_stride: i64,
    },
    /// Their sum, divided by a float.
    Sum {
        /// What it is divided by.
        divisor: Literal,
    },
    /// The largest of them, f32 or, with no [`Finish`], bytes of one type; NaN if one is NaN, negative infinity or the least byte if there
    /// is none.
    Largest,
}

/// What becomes of a sum, of bytes or f32: `min(max(round((start[j, l] + sum) * scale[j, l]) + zero, low), high)` as a byte, u8 or i8, where ties
/// go to even and 0 is for NaN. The columns of a block are next to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scaled {
    /// The first element of `start`, of the type of the sums, and the elements from a block of columns to the next.
    pub start: Option<(AccessId, i64)>,
    /// The first element of `scale`, f32.
    pub scale: AccessId,
    /// Elements from a block of columns to the next in `scale`, or `None` where one is for all columns.
    pub scale_block_stride: Option<i64>,
    /// What is added to what is rounded.
    pub zero: Literal,
    /// The least result, not below that of the type.
    pub low: Literal,
    /// The largest result, at least `low` and not above that of the type.
    pub high: Literal,
}

/// What becomes of a sum of a [`Tile`]: `activation(clamp(start[j, l] + sum + addend[p, i, j, l], low, high))`, of which NaN stays
/// NaN. The columns of a block are next to one another; neither `start` nor `addend` is in the buffer of `c`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finish {
    /// The first element of `start`, and the elements from a block of columns to the next.
    pub start: Option<(AccessId, i64)>,
    /// The first element of `addend`, and the elements from a line to the next, from a row and from a block of columns.
    pub addend: Option<(AccessId, [i64; 3])>,
    /// The least result.
    pub low: Literal,
    /// The largest result.
    pub high: Literal,
    /// What is computed of that in the end.
    pub activation: Option<Activation>,
}

/// One level of the sum of a [`Tile`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Depth {
    /// Terms.
    pub trip: Trip,
    /// Elements from a term to the next in `a`.
    pub a_stride: i64,
    /// Elements from a term to the next in `b`; of no consequence where there is none.
    pub b_stride: i64,
}

/// Depthwise convolution or pooling of a padded plane, all f32: `y[o, q] = kind over r, s of x[o, q, r, s]`, where `x[o, q, r, s]`
/// is the element `o * x_output_stride + r * x_row_stride + q * stride + s * dilation` from `x`, for `o < outputs`, `q < count`,
/// `r < rows`, `s < cols`. Nothing is written where `rows` is 0. `y` is in another buffer than what is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// What is computed from a window.
    pub kind: WindowKind,
    /// The first element of the first window.
    pub x: AccessId,
    /// Elements from a row of a window to the next: the row pitch times the dilation.
    pub x_row_stride: i64,
    /// Elements from the windows of an output row to those of the next: the row pitch times the vertical stride.
    pub x_output_stride: i64,
    /// Elements from a window of an output row to the next, at least 1.
    pub stride: usize,
    /// Elements from a column of a window to the next, at least 1.
    pub dilation: usize,
    /// Rows of a window.
    pub rows: Trip,
    /// Columns of a window, at least 1.
    pub cols: usize,
    /// The first result.
    pub y: AccessId,
    /// Elements from an output row to the next.
    pub y_output_stride: i64,
    /// Output rows.
    pub outputs: Trip,
    /// Results in an output row.
    pub count: Trip,
}

/// What a [`Window`] computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// `start[o, q] + sum of weights[r * cols + s] * x[o, q, r, s]`.
    Depthwise {
        /// The first weight; they are next to one another.
        weights: AccessId,
        /// What the first sum starts from: in another buffer than `y`, or `y` itself with the same strides.
        start: AccessId,
        /// Whether each result of a row has a start of its own, next to one another, or they share one.
        start_per_result: bool,
        /// Elements from the start of an output row to the next.
        start_output_stride: i64,
    },
    /// The largest of the elements and of what `y` holds; NaN if one is NaN.
    Max,
    /// The sum of the elements and of what `y` holds.
    Sum,
}

/// `y[t, p, q, l] (+)= sum over i, j of M[p, i] * M[q, j] * x[t, i, j, l]` for tiles `t` and channels `l`, which are a vector and next
/// to one another, or of tiles that are rows `y[t, 0, q, l] (+)= sum over j of M[q, j] * x[t, 0, j, l]`; all f32, finished as `finish` says, of which tiles are the lines and columns `q` the blocks. Elements of `x` for which a
/// condition of `guard` fails are 0 and not read. `y` is in another buffer than what is read, and its elements are apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// `M`.
    pub matrix: Matrix,
    /// The sides of a tile that it is applied to.
    pub sides: Sides,
    /// The first element of the first tile.
    pub x: AccessId,
    /// Elements from a row `i` to the next in `x`.
    pub x_row_stride: i64,
    /// Elements from a column `j` to the next in `x`.
    pub x_col_stride: i64,
    /// Elements from a tile to the next in `x`.
    pub x_tile_stride: i64,
    /// The first result.
    pub y: AccessId,
    /// Elements from a row `p` to the next in `y`.
    pub y_row_stride: i64,
    /// Elements from a column `q` to the next in `y`.
    pub y_col_stride: i64,
    /// Elements from a tile to the next in `y`.
    pub y_tile_stride: i64,
    /// Tiles.
    pub tiles: Trip,
    /// Channels: the lanes of a vector.
    pub lanes: usize,
    /// The conditions over tile, row `i` and column `j` under which there is an element of `x`: at most one on its row and one on its
    /// column, each of which may move with the tile.
    pub guard: Vec<Condition>,
    /// Whether it adds to `y`.
    pub accumulate: Accumulate,
    /// What becomes of the sums; all columns have the same start.
    pub finish: Option<Finish>,
}

/// A straight-line program run for every element of `dims[0] x dims[1] x ..`. Each register is set by exactly one operation,
/// before it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// For people.
    pub name: String,
    /// One to three dimensions, outermost first.
    pub dims: Vec<Trip>,
    /// The type of each register.
    pub registers: Vec<ElementType>,
    /// The operations, in order.
    pub ops: Vec<BlockOp>,
}

/// A constant in a block, converted to its register's type as a cast would.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    /// A float.
    Float(f64),
    /// An integer, or a bool as 0 or 1; wraps to the register's width.
    Int(i64),
}

impl Literal {
    /// Its kind and its bits, which decide equality: NaN equals itself, and -0 does not equal 0.
    fn key(self) -> (bool, u64) {
        match self {
            Literal::Float(value) => (true, value.to_bits()),
            Literal::Int(value) => (false, value.cast_unsigned()),
        }
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Literal) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Literal {}

impl std::hash::Hash for Literal {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// What a store does with the value that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// Overwrites it; where several elements of a block fall on one place, the last in row-major order stays.
    Replace,
    /// Adds to it.
    Add,
    /// Multiplies it.
    Mul,
    /// Keeps the smaller; NaN if one is NaN.
    Min,
    /// Keeps the larger; NaN if one is NaN.
    Max,
}

impl Combine {
    /// The operation of what is there and the value, unless the value overwrites it.
    pub fn op(self) -> Option<BinaryOp> {
        match self {
            Combine::Replace => None,
            Combine::Add => Some(BinaryOp::Add),
            Combine::Mul => Some(BinaryOp::Mul),
            Combine::Min => Some(BinaryOp::Min),
            Combine::Max => Some(BinaryOp::Max),
        }
    }
}

/// One operation of a block. `strides` give elements per step of each dimension of the block, outermost first. Unless said,
/// operands and result have one type, and an operation means what [`UnaryOp`] and [`BinaryOp`] say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BlockOp {
    /// Reads memory; 0 where a condition of `guard` fails, and nothing is read there.
    Load {
        /// The register set.
        to: Register,
        /// Where the block's first element is.
        access: AccessId,
        /// Elements per step of each dimension.
        strides: Vec<i64>,
        /// All must hold.
        guard: Vec<Condition>,
    },
    /// The same value everywhere.
    Constant {
        /// The register set.
        to: Register,
        /// The value.
        value: Literal,
    },
    /// `value + sum(strides * dimension index)`, an i64.
    Index {
        /// The register set.
        to: Register,
        /// The part over the counters.
        value: Affine,
        /// The factor of each dimension.
        strides: Vec<i64>,
    },
    /// An operation of one operand; tests set a bool. `Sqrt`, `Exp` and the like need floats.
    Unary {
        /// The register set.
        to: Register,
        /// Which.
        op: UnaryOp,
        /// Its operand.
        x: Register,
    },
    /// An operation of two operands; comparisons set a bool.
    Binary {
        /// The register set.
        to: Register,
        /// Which.
        op: BinaryOp,
        /// The left operand.
        a: Register,
        /// The right operand.
        b: Register,
    },
    /// An activation of an f32.
    Activate {
        /// The register set.
        to: Register,
        /// Which.
        activation: Activation,
        /// Its operand.
        x: Register,
    },
    /// `a * b + c`, with one rounding or two.
    MultiplyAdd {
        /// The register set.
        to: Register,
        /// A factor.
        a: Register,
        /// A factor.
        b: Register,
        /// What is added.
        c: Register,
    },
    /// `then` where the bool `condition` holds, else `otherwise`.
    Select {
        /// The register set.
        to: Register,
        /// A bool.
        condition: Register,
        /// The value where it holds.
        then: Register,
        /// The value where it does not.
        otherwise: Register,
    },
    /// Conversion to the type of `to`: float to integer truncates and saturates, NaN gives 0; integers wrap; to bool is
    /// `x != 0`.
    Cast {
        /// The register set.
        to: Register,
        /// The operand, of any type.
        x: Register,
    },
    /// `buffer[index]`, and 0 without a read where the mask does not hold. An index outside the buffer ends the run with
    /// an error.
    Gather {
        /// The register set.
        to: Register,
        /// What is read.
        buffer: BufferId,
        /// i64: elements from the buffer's first.
        index: Register,
        /// A bool.
        mask: Option<Register>,
    },
    /// Writes memory where all of `guard` and the mask hold. With a `combine` and a stride of 0 it is a reduction over that
    /// dimension, of which the order of the terms is not fixed.
    Store {
        /// Where the block's first element is.
        access: AccessId,
        /// Elements per step of each dimension.
        strides: Vec<i64>,
        /// What is written.
        value: Register,
        /// What happens to the value that is there.
        combine: Combine,
        /// All must hold.
        guard: Vec<Condition>,
        /// A bool.
        mask: Option<Register>,
    },
    /// `buffer[index] = value`, in row-major order, where the mask holds. An index outside the buffer ends the run with
    /// an error.
    Scatter {
        /// What is written.
        buffer: BufferId,
        /// i64: elements from the buffer's first.
        index: Register,
        /// What is written.
        value: Register,
        /// What happens to the value that is there.
        combine: Combine,
        /// A bool.
        mask: Option<Register>,
    },
}

/// A program as data, not yet verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Code {
    /// For people.
    pub name: String,
    /// The buffers, by [`BufferId`].
    pub buffers: Vec<Buffer>,
    /// The name of each counter, by [`CounterId`].
    pub counters: Vec<String>,
    /// The accesses, by [`AccessId`].
    pub accesses: Vec<Access>,
    /// The phases, in order.
    pub body: Vec<Node>,
}

impl Code {
    /// A program without anything.
    pub fn new(name: impl Into<String>) -> Code {
        Code { name: name.into(), ..Code::default() }
    }

    /// Declares a buffer.
    pub fn buffer(
        &mut self,
        name: impl Into<String>,
        dtype: ElementType,
        length: usize,
        place: Place,
    ) -> BufferId {
        self.buffers.push(Buffer { name: name.into(), dtype, length, place });
        BufferId::next(self.buffers.len() - 1)
    }

    /// Declares the counter of one loop.
    pub fn counter(&mut self, name: impl Into<String>) -> CounterId {
        self.counters.push(name.into());
        CounterId::next(self.counters.len() - 1)
    }

    /// Declares an access; one that is there already is used again.
    pub fn access(&mut self, buffer: BufferId, offset: Affine) -> AccessId {
        let access = Access { buffer, offset };
        let known = self.accesses.iter().position(|known| *known == access);
        AccessId::next(known.unwrap_or_else(|| {
            self.accesses.push(access);
            self.accesses.len() - 1
        }))
    }
}

impl Tile {
    /// Everything it reads or writes.
    pub fn accesses(&self) -> impl Iterator<Item = AccessId> {
        let finish = self.finish.iter().flat_map(Finish::accesses);
        let scale = self.scaled.map(|scaled| scaled.scale).into_iter();
        let start = self.scaled.and_then(|scaled| scaled.start).map(|(access, _)| access);
        [self.a, self.c].into_iter().chain(self.b()).chain(finish).chain(scale).chain(start)
    }

    /// The first element of `b`, where it has one.
    pub fn b(&self) -> Option<AccessId> {
        match self.terms {
            Terms::Products { b, .. } | Terms::Dots { b, .. } => Some(b),
            Terms::Sum { .. } | Terms::Largest => None,
        }
    }
}

impl Transform {
    /// Everything it reads or writes.
    pub fn accesses(&self) -> impl Iterator<Item = AccessId> {
        [self.x, self.y].into_iter().chain(self.finish.iter().flat_map(Finish::accesses))
    }
}

impl Finish {
    /// Everything it reads.
    pub fn accesses(&self) -> impl Iterator<Item = AccessId> + use<> {
        let start = self.start.map(|(access, _)| access);
        start.into_iter().chain(self.addend.map(|(access, _)| access))
    }
}

impl Block {
    /// A block without operations.
    pub fn new(name: impl Into<String>, dims: Vec<Trip>) -> Block {
        Block { name: name.into(), dims, registers: Vec::new(), ops: Vec::new() }
    }

    /// Declares a register, to be set by one operation.
    pub fn register(&mut self, dtype: ElementType) -> Register {
        self.registers.push(dtype);
        Register::next(self.registers.len() - 1)
    }
}
