//! The registry: every kernel, compiled for every instruction set.
//!
//! One row of `kernels!` names a kernel; the row makes its field of [`KernelTable`] and one compiled copy for each
//! instruction set. One row of `tiles!` does the same for a tile shape. Dispatch, tests and benchmarks go over the
//! tables and find whatever the rows say.

use half::{bf16, f16};

use crate::activation::Activation;
use crate::copy::CopyArgs;
use crate::isa::Isa;
use crate::plane::Operand;
use crate::pooling::PoolArgs;
use crate::program::ElementType;
use crate::scalar::{BinaryOp, UnaryOp};
use crate::simd::Vector;
use crate::simd::dots::DotVector;
use crate::tile::dots::{self, DotArgs, DotKernel};
use crate::tile::lanes::{self, LaneArgs, LaneKernel, Windows};
use crate::tile::{self, Stored, TileArgs, TileKernel};
use crate::transform::{Matrix, TransformArgs};
use crate::vector::body::Form;
use crate::window::{DepthwiseArgs, Pool, WindowArgs};

/// The kernels of one instruction set.
///
/// The vector operations are its methods (see [`crate::vector`]), as are the window operations (see
/// [`crate::window`]), pooling (see [`crate::pooling`]) and the transforms of tiles (see [`crate::transform`]). A table is only given out where the CPU has its instruction set.
#[derive(Debug)]
pub struct KernelTable {
    /// The instruction set.
    pub isa: Isa,
    /// Lanes of f32 in a vector.
    pub lanes: usize,
    /// The matrix-multiplication tiles, the one to prefer first.
    pub tiles: &'static [TileKernel],
    /// The tile whose elements are vectors.
    pub lane_tile: &'static LaneKernel,
    dots: &'static [DotKernel],
    pub(crate) raw: RawKernels,
}

impl KernelTable {
    /// The matrix-multiplication tile to prefer.
    pub fn tile(&self) -> &'static TileKernel {
        &self.tiles[0]
    }

    /// The tiles of products of bytes that this machine has what they need for, the ones to prefer first.
    pub fn dots(&self) -> impl Iterator<Item = &'static DotKernel> + use<> {
        self.dots.iter().filter(|kernel| (kernel.has)())
    }
}

/// The kernels of `isa`, or of the most capable instruction set below it where this machine does not have it.
pub fn table(isa: Isa) -> &'static KernelTable {
    match isa.min(Isa::detect()) {
        Isa::Generic => &generic::TABLE,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &avx2::TABLE,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &avx512::TABLE,
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 => &generic::TABLE,
    }
}

/// The tiles of an instruction set: each row gives a function, a name, the numbers of rows and those of vectors of
/// columns that are compiled.
macro_rules! tiles {
    ($isa:ident, $vector:ty, $features:tt, $($run:ident $name:literal $rows:tt x $vectors:tt),*;
     lanes $lane_run:ident $lane_name:literal $lane_rows:tt;
     dots $($dot_run:ident $dot_name:literal $dot_vector:ty, $dot_features:tt $has:expr, $dot_rows:tt x $dot_vectors:tt),*) => {
        $(tiles!(@dot_run $dot_vector, $dot_features, $dot_run $dot_rows x $dot_vectors);)*
        static DOTS: &[DotKernel] = &[$(DotKernel {
            name: $dot_name,
            isa: Isa::$isa,
            has: $has,
            rows: $dot_rows.len(),
            cols: <$dot_vector as DotVector>::LANES * $dot_vectors.len(),
            run: $dot_run,
        }),*];
        tiles!(@lane_run $vector, $features, $lane_run $lane_rows);
        static LANE_TILE: LaneKernel =
            LaneKernel { name: $lane_name, isa: Isa::$isa, rows: $lane_rows.len(), run: $lane_run };
        $(tiles!(@run $vector, $features, $run $rows x $vectors);)*
        static TILES: &[TileKernel] = &[$(TileKernel {
            name: $name,
            isa: Isa::$isa,
            rows: $rows.len(),
            cols: <$vector as Vector>::LANES * $vectors.len(),
            run: $run,
        }),*];
    };
    (@run $vector:ty, [$($feature:literal)?], $run:ident $rows:tt x $vectors:tt) => {
        /// # Safety
        /// As for [`TileKernel::run`].
        unsafe fn $run(args: &TileArgs) {
            /// # Safety
            /// As for [`tile::body`].
            $(#[target_feature(enable = $feature)])?
            unsafe fn kernel<
                B: Stored,
                const ROWS: usize,
                const VECTORS: usize,
                const SUMS: usize,
                const PARTIAL: bool,
                const STEP: usize,
            >(
                args: &TileArgs,
            ) {
                // SAFETY: the caller grants the contract; the features are those of the vector type.
                unsafe { tile::body::<$vector, B, ROWS, VECTORS, SUMS, PARTIAL, STEP>(args) }
            }
            const VECTOR: usize = <$vector as Vector>::LANES;
            static KERNELS: tile::Forms<{ $rows.len() }, { $vectors.len() }> = tile::Forms {
                single: [
                    tiles!(@rows $vector, f32, false, 0, $rows, $vectors),
                    tiles!(@rows $vector, f32, true, 0, $rows, $vectors),
                    tiles!(@rows $vector, f32, false, 1, $rows, $vectors),
                    tiles!(@rows $vector, f32, true, 1, $rows, $vectors),
                    tiles!(@rows $vector, f32, false, { VECTOR }, $rows, $vectors),
                    tiles!(@rows $vector, f32, false, { 2 * VECTOR }, $rows, $vectors),
                ],
                f16: [
                    tiles!(@rows $vector, f16, false, 0, $rows, $vectors),
                    tiles!(@rows $vector, f16, true, 0, $rows, $vectors),
                    tiles!(@rows $vector, f16, false, { VECTOR }, $rows, $vectors),
                ],
                bf16: [
                    tiles!(@rows $vector, bf16, false, 0, $rows, $vectors),
                    tiles!(@rows $vector, bf16, true, 0, $rows, $vectors),
                    tiles!(@rows $vector, bf16, false, { VECTOR }, $rows, $vectors),
                ],
            };
            // SAFETY: the variants are in the order `dispatch` expects; the caller grants the contract.
            unsafe {
                tile::dispatch(&KERNELS, VECTOR, args);
                tile::activate(activate, VECTOR, args);
            }
        }
    };
    (@lane_run $vector:ty, [$($feature:literal)?], $run:ident [$($row:literal),*]) => {
        /// # Safety
        /// As for [`LaneKernel::run`].
        unsafe fn $run(args: &LaneArgs) {
            /// # Safety
            /// As for [`lanes::body`].
            $(#[target_feature(enable = $feature)])?
            unsafe fn kernel<const ROWS: usize, const STEP: usize, const ENDS: usize>(
                args: &LaneArgs,
                piece: &lanes::Piece,
            ) {
                // SAFETY: the caller grants the contract; the features are those of the vector type.
                unsafe { lanes::body::<$vector, ROWS, STEP, ENDS>(args, piece) }
            }
            static KERNELS: lanes::Variants<{ [$($row),*].len() }> = [
                [$(kernel::<$row, 0, { lanes::EDGES }>),*],
                [$(kernel::<$row, 1, 0>),*],
                [$(kernel::<$row, 1, 1>),*],
                [$(kernel::<$row, 1, { lanes::EDGES }>),*],
                [$(kernel::<$row, 2, 0>),*],
                [$(kernel::<$row, 2, 1>),*],
                [$(kernel::<$row, 2, { lanes::EDGES }>),*],
            ];
            // SAFETY: the variants are in the order of their rows; the caller grants the contract.
            unsafe { lanes::dispatch(&KERNELS, activate, <$vector as Vector>::LANES, args) }
        }
    };
    (@dot_run $vector:ty, [$($feature:literal)?], $run:ident $rows:tt x $vectors:tt) => {
        /// # Safety
        /// As for [`DotKernel::run`].
        unsafe fn $run(args: &DotArgs) {
            /// # Safety
            /// As for [`dots::body`].
            $(#[target_feature(enable = $feature)])?
            unsafe fn kernel<
                const ROWS: usize,
                const VECTORS: usize,
                const SUMS: usize,
                const PARTIAL: bool,
                const SIGNED: bool,
            >(
                args: &DotArgs,
            ) {
                // SAFETY: the caller grants the contract; the features are those of the vector type.
                unsafe { dots::body::<$vector, ROWS, VECTORS, SUMS, PARTIAL, SIGNED>(args) }
            }
            static KERNELS: dots::Variants<{ $rows.len() }, { $vectors.len() }> = [
                tiles!(@dot_rows $vector, false, false, $rows, $vectors),
                tiles!(@dot_rows $vector, true, false, $rows, $vectors),
                tiles!(@dot_rows $vector, false, true, $rows, $vectors),
                tiles!(@dot_rows $vector, true, true, $rows, $vectors),
            ];
            // SAFETY: the variants are in the order `dispatch` expects; the caller grants the contract.
            unsafe { dots::dispatch(&KERNELS, <$vector as DotVector>::LANES, args) }
        }
    };
    (@dot_rows $vector:ty, $partial:literal, $signed:literal, [$($row:literal),*], $vectors:tt) => {
        [$(tiles!(@dot_row $vector, $partial, $signed, $row, $vectors)),*]
    };
    (@dot_row $vector:ty, $partial:literal, $signed:literal, $row:literal, [$($vectors:literal),*]) => {
        [$(kernel::<$row, $vectors, { dots::partial_sums::<$vector>($row * $vectors) }, $partial, $signed>),*]
    };
    (@rows $vector:ty, $stored:ty, $partial:literal, $step:tt, [$($row:literal),*], $vectors:tt) => {
        [$(tiles!(@row $vector, $stored, $partial, $step, $row, $vectors)),*]
    };
    (@row $vector:ty, $stored:ty, $partial:literal, $step:tt, $row:literal, [$($vectors:literal),*]) => {
        [$(kernel::<$stored, $row, $vectors, { tile::partial_sums::<$vector>($row * $vectors) }, $partial, $step>),*]
    };
}

/// The rows: module, name and arguments of each kernel, whose body is the function `module::body::name` over a vector
/// type. Hands them to a macro, behind what else that takes.
macro_rules! kernels {
    ($callback:ident! ($($first:tt)*)) => {
        $callback! {
            $($first)*
            vector::unary(op: UnaryOp, target: *mut f32, source: *const f32, count: usize);
            vector::binary(op: BinaryOp, form: Form, target: *mut f32, left: *const f32, right: *const f32, count: usize);
            vector::compare(op: BinaryOp, form: Form, target: *mut u8, left: *const f32, right: *const f32, count: usize);
            vector::multiply_add(form: Form, target: *mut f32, left: *const f32, right: *const f32, count: usize);
            vector::select(target: *mut f32, mask: *const u8, yes: *const f32, no: *const f32, count: usize);
            vector::reduce(op: BinaryOp, source: *const f32, count: usize, start: f32) -> f32;
            vector::reduce_rows(op: BinaryOp, target: (*mut f32, isize), source: (*const f32, isize), extents: (usize, usize));
            vector::sum_product(left: *const f32, right: *const f32, count: usize) -> f32;
            vector::sum_product_rows(target: (*mut f32, isize), left: (*const f32, isize), right: (*const f32, isize), extents: (usize, usize));
            vector::gather_strided(target: *mut f32, source: *const f32, stride: isize, count: usize);
            vector::scatter_strided(target: *mut f32, stride: isize, source: *const f32, count: usize);
            vector::f16_to_f32(target: *mut f32, source: *const f16, count: usize);
            vector::f32_to_f16(target: *mut f16, source: *const f32, count: usize);
            vector::bf16_to_f32(target: *mut f32, source: *const bf16, count: usize);
            vector::f32_to_bf16(target: *mut bf16, source: *const f32, count: usize);
            integer::convert(to: ElementType, from: ElementType, target: *mut u8, source: *const u8, count: usize) -> bool;
            integer::arithmetic(op: BinaryOp, dtype: ElementType, target: *mut u8, a: *const u8, b: *const u8, count: usize) -> bool;
            window::depthwise_row(args: &DepthwiseArgs);
            window::pool_row(pool: Pool, accumulate: bool, args: &WindowArgs);
            pooling::pool_lanes(args: &PoolArgs);
            pooling::pool_bytes(signed: bool, windows: &Windows);
            transform::transform(matrix: Matrix, args: &TransformArgs);
            copy::copy_planes(args: &CopyArgs<'_>);
            copy::interleave_bytes(target: (*mut u8, isize), source: (*const u8, isize), extents: (usize, usize));
            activation::activate(activation: Activation, target: (*mut f32, isize), source: (*const f32, isize), extents: (usize, usize));
            plane::binary_rows(op: BinaryOp, target: (*mut f32, isize), operands: [Operand; 2], extents: (usize, usize)) -> bool;
            plane::multiply_add_rows(target: (*mut f32, isize), operands: [Operand; 3], extents: (usize, usize));
        }
    };
}

/// The struct of the kernels named by the rows.
macro_rules! raw_kernels {
    ($($module:ident::$name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        /// The entry points behind the safe methods of [`KernelTable`]; contracts are those of the bodies.
        #[derive(Debug)]
        pub(crate) struct RawKernels {
            $(pub(crate) $name: unsafe fn($($type),*) $(-> $result)?,)*
        }
    };
}

/// The table of an instruction set: the rows compiled with its features.
macro_rules! instance {
    ($isa:ident, $vector:ty, $features:tt, { $($tiles:tt)* },
     $($module:ident::$name:ident $arguments:tt $(-> $result:ty)?;)*) => {
        use super::*;

        tiles!($isa, $vector, $features, $($tiles)*);
        $(instance!(@kernel $vector, $features, $module::$name $arguments $(-> $result)?);)*
        pub(super) static TABLE: KernelTable = KernelTable {
            isa: Isa::$isa,
            lanes: <$vector as Vector>::LANES,
            tiles: TILES,
            lane_tile: &LANE_TILE,
            dots: DOTS,
            raw: RawKernels { $($name),* },
        };
    };
    (@kernel $vector:ty, [$($feature:literal)?],
     $module:ident::$name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        /// # Safety
        /// As for the body of the same name.
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: the caller grants the body's contract; the features are those of the vector type.
            unsafe { crate::$module::body::$name::<$vector>($($argument),*) }
        }
    };
}

kernels!(raw_kernels!());

mod generic {
    kernels!(instance! (
        Generic, crate::simd::lanes::Lanes, [],
        {
            run_3x12 "fma_3x12_f32_generic" [1, 2, 3] x [1, 2, 3],
            run_4x8 "fma_4x8_f32_generic" [1, 2, 3, 4] x [1, 2],
            run_1x32 "fma_1x32_f32_generic" [1] x [1, 2, 3, 4, 5, 6, 7, 8];
            lanes run_lanes "fma_lanes_8_f32_generic" [1, 2, 3, 4, 5, 6, 7, 8];
            dots run_dots "dots_3x12_generic" crate::simd::dots::DotBaseline, [] || true, [1, 2, 3] x [1, 2, 3]
        },
    ));
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    kernels!(instance! (
        Avx2, crate::simd::avx2::Avx2, ["avx2,fma,f16c"],
        {
            run_6x16 "fma_6x16_f32_avx2" [1, 2, 3, 4, 5, 6] x [1, 2],
            run_4x24 "fma_4x24_f32_avx2" [1, 2, 3, 4] x [1, 2, 3],
            run_12x8 "fma_12x8_f32_avx2" [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] x [1],
            run_1x64 "fma_1x64_f32_avx2" [1] x [1, 2, 3, 4, 5, 6, 7, 8];
            lanes run_lanes "fma_lanes_12_f32_avx2" [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
            dots run_vnni "dots_4x16_avx_vnni" crate::simd::dots::DotAvxVnni, ["avx2,avxvnni"]
                || std::arch::is_x86_feature_detected!("avxvnni"), [1, 2, 3, 4] x [1, 2],
            run_dots "dots_4x16_avx2" crate::simd::dots::DotAvx2, ["avx2"] || true, [1, 2, 3, 4] x [1, 2]
        },
    ));
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    kernels!(instance! (
        Avx512, crate::simd::avx512::Avx512, ["avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"],
        {
            run_14x32 "fma_14x32_f32_avx512" [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] x [1, 2],
            run_8x48 "fma_8x48_f32_avx512" [1, 2, 3, 4, 5, 6, 7, 8] x [1, 2, 3],
            run_1x128 "fma_1x128_f32_avx512" [1] x [1, 2, 3, 4, 5, 6, 7, 8];
            lanes run_lanes "fma_lanes_14_f32_avx512" [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
            dots run_vnni_12x32 "dots_12x32_vnni" crate::simd::dots::DotVnni, ["avx512f,avx512bw,avx512vnni"]
                || std::arch::is_x86_feature_detected!("avx512vnni"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] x [1, 2],
            run_vnni_8x48 "dots_8x48_vnni" crate::simd::dots::DotVnni, ["avx512f,avx512bw,avx512vnni"]
                || std::arch::is_x86_feature_detected!("avx512vnni"), [1, 2, 3, 4, 5, 6, 7, 8] x [1, 2, 3],
            run_dots_10x32 "dots_10x32_avx512" crate::simd::dots::DotAvx512, ["avx512f,avx512bw"] || true,
                [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] x [1, 2],
            run_dots_6x48 "dots_6x48_avx512" crate::simd::dots::DotAvx512, ["avx512f,avx512bw"] || true,
                [1, 2, 3, 4, 5, 6] x [1, 2, 3]
        },
    ));
}
