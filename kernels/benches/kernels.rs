//! Speed of the kernels of every instruction set this machine has, beside the machine's own limit.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use paisley_kernels::pool::Pool;
use paisley_kernels::pooling::PoolArgs;
use paisley_kernels::program::AlignedBytes;
use paisley_kernels::rates::{flop_per_second, read_bytes_per_second};
use paisley_kernels::tile::Depth;
use paisley_kernels::tile::dots::DOT_TERMS;
use paisley_kernels::tile::lanes::{Edge, Windows};
use paisley_kernels::transform::{Matrix, Sides, TransformArgs};
use paisley_kernels::window::{self, DepthwiseArgs, WindowArgs};
use paisley_kernels::{Activation, BinaryOp, DotArgs, Factor, Finish, Isa, TileArgs, UnaryOp, table};

/// Multiplies packed panels that fit the first-level cache; elements are floating-point operations.
fn tiles(criterion: &mut Criterion) {
    let depth = 256;
    let mut group = criterion.benchmark_group("tile");
    for isa in Isa::available() {
        for kernel in table(isa).tiles {
            let a = vec![1.0f32; depth * kernel.rows];
            let b = vec![1.0f32; depth * kernel.cols];
            let mut c = vec![0.0f32; kernel.rows * kernel.cols];
            for rows in BTreeSet::from([kernel.rows, kernel.rows.div_ceil(2), 1]) {
                let args = TileArgs {
                    rows,
                    cols: kernel.cols,
                    depths: Depth::single(depth, kernel.rows as isize, kernel.cols as isize),
                    tail: None,
                    a: a.as_ptr(),
                    a_row: 1,
                    b: Factor::F32(b.as_ptr()),
                    b_vector: table(isa).lanes as isize,
                    c: c.as_mut_ptr(),
                    c_row: kernel.cols as isize,
                    c_vector: table(isa).lanes as isize,
                    accumulate: true,
                    finish: Finish::NONE,
                    ahead_rows: usize::MAX,
                };
                group.throughput(Throughput::Elements((2 * rows * kernel.cols * depth) as u64));
                group.bench_function(BenchmarkId::new(kernel.name, rows), |bencher| {
                    // SAFETY: the panels have the sizes the arguments say, and the table's instruction set is present.
                    bencher.iter(|| unsafe { (kernel.run)(black_box(&args)) });
                });
            }
            // Channels blocked by the vector, as a convolution reads them: the terms of a row are next to one another.
            let lanes = table(isa).lanes;
            let args = TileArgs {
                rows: kernel.rows,
                cols: kernel.cols,
                depths: [
                    Depth::ONE,
                    Depth::ONE,
                    Depth {
                        count: depth / lanes,
                        a: (kernel.rows * lanes) as isize,
                        b: (lanes * lanes) as isize,
                    },
                    Depth { count: lanes, a: 1, b: lanes as isize },
                ],
                tail: None,
                a: a.as_ptr(),
                a_row: lanes as isize,
                b: Factor::F32(b.as_ptr()),
                b_vector: (depth * lanes) as isize,
                c: c.as_mut_ptr(),
                c_row: lanes as isize,
                c_vector: (kernel.rows * lanes) as isize,
                accumulate: true,
                finish: Finish::NONE,
                ahead_rows: usize::MAX,
            };
            group.throughput(Throughput::Elements((2 * kernel.rows * kernel.cols * depth) as u64));
            group.bench_function(BenchmarkId::new(kernel.name, "blocked"), |bencher| {
                // SAFETY: the panels have the sizes the arguments say, and the table's instruction set is present.
                bencher.iter(|| unsafe { (kernel.run)(black_box(&args)) });
            });
        }
    }
    group.finish();
}

/// Multiplies packed panels of bytes that fit the first-level cache; elements are operations on integers.
fn dots(criterion: &mut Criterion) {
    let depth = 256;
    let mut group = criterion.benchmark_group("dots");
    for isa in Isa::available() {
        for kernel in table(isa).dots() {
            let a = vec![1u8; depth * kernel.rows * DOT_TERMS];
            let b = vec![1i8; depth * kernel.cols * DOT_TERMS];
            let mut c = vec![0i32; kernel.rows * kernel.cols];
            let lanes = table(isa).lanes;
            for (rows, a_signed) in [(kernel.rows, false), (kernel.rows, true), (1, false)] {
                let args = DotArgs {
                    rows,
                    cols: kernel.cols,
                    depths: Depth::single(depth, DOT_TERMS as isize, (kernel.cols * DOT_TERMS) as isize),
                    tail: None,
                    a: a.as_ptr(),
                    a_signed,
                    a_row: (depth * DOT_TERMS) as isize,
                    b: b.as_ptr(),
                    b_vector: (lanes * DOT_TERMS) as isize,
                    c: c.as_mut_ptr().cast(),
                    c_row: kernel.cols as isize,
                    c_vector: lanes as isize,
                    accumulate: true,
                    scaled: None,
                };
                let operations = 2 * rows * kernel.cols * depth * DOT_TERMS;
                let name = format!("{rows}{}", if a_signed { " signed" } else { "" });
                group.throughput(Throughput::Elements(operations as u64));
                group.bench_function(BenchmarkId::new(kernel.name, name), |bencher| {
                    // SAFETY: the panels have the sizes the arguments say, and the machine has what the kernel needs.
                    bencher.iter(|| unsafe { (kernel.run)(black_box(&args)) });
                });
            }
        }
    }
    group.finish();
}

/// A product of 1024^3 on panels that are packed beforehand, by depths that keep a panel of `b` in the first-level cache, on one
/// thread and two; beside it the time that as many operations take at the rate measured for each sample. Elements are
/// floating-point operations.
fn panels(criterion: &mut Criterion) {
    let (size, depth) = (1024usize, 256);
    let kernels = table(Isa::detect());
    let tile = kernels.tile();
    let (row_panels, col_panels) = (size.div_ceil(tile.rows), size.div_ceil(tile.cols));
    let a = vec![1.0f32; row_panels * tile.rows * size];
    let b = vec![1.0f32; col_panels * tile.cols * size];
    let pitch = col_panels * tile.cols;
    let mut c = vec![0.0f32; row_panels * tile.rows * pitch];
    let start = Address(c.as_mut_ptr());
    let flop = (2 * size * size * size) as u64;
    let mut group = criterion.benchmark_group("panels_1024");
    group.throughput(Throughput::Elements(flop)).sample_size(20);
    for threads in [1, 2] {
        let pool = Pool::new(threads).expect("a small pool");
        let product = |thread: usize| {
            for begin in (0..size).step_by(depth) {
                for j in (thread..col_panels).step_by(threads) {
                    for i in 0..row_panels {
                        let args = TileArgs {
                            rows: tile.rows,
                            cols: tile.cols,
                            depths: Depth::single(depth, tile.rows as isize, tile.cols as isize),
                            tail: None,
                            a: a[(i * size + begin) * tile.rows..].as_ptr(),
                            a_row: 1,
                            b: Factor::F32(b[(j * size + begin) * tile.cols..].as_ptr()),
                            b_vector: kernels.lanes as isize,
                            c: start.at(i * tile.rows * pitch + j * tile.cols),
                            c_row: pitch as isize,
                            c_vector: kernels.lanes as isize,
                            accumulate: begin > 0,
                            finish: Finish::NONE,
                            ahead_rows: usize::MAX,
                        };
                        // SAFETY: panels and result have the sizes the arguments say; each thread has columns of its own; the
                        // machine has the table's instruction set.
                        unsafe { (tile.run)(&args) };
                    }
                }
            }
        };
        group.bench_function(BenchmarkId::new("packed", threads), |bencher| {
            bencher.iter(|| pool.run(product));
        });
        group.bench_function(BenchmarkId::new("peak", threads), |bencher| {
            let rate = |time| flop_per_second(kernels, &pool, time).expect("the tile should not panic");
            at_rate(bencher, flop, rate);
        });
    }
    group.finish();
}

/// An address that threads share; they write apart.
#[derive(Clone, Copy)]
struct Address(*mut f32);

// SAFETY: whoever follows it sees to that.
unsafe impl Sync for Address {}

impl Address {
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Times `work` at the rate that is measured for as long as what is reported, which criterion plans by.
fn at_rate(bencher: &mut Bencher<'_>, work: u64, rate: impl Fn(Duration) -> f64) {
    let expected = rate(Duration::from_millis(5));
    bencher.iter_custom(|count| {
        let work = count as f64 * work as f64;
        Duration::from_secs_f64(work / rate(Duration::from_secs_f64(work / expected)))
    });
}

/// Bytes read a second from data of several sizes, on one thread and two; elements are bytes.
fn reads(criterion: &mut Criterion) {
    let kernels = table(Isa::detect());
    let data = vec![1.0f32; 1 << 24];
    let mut group = criterion.benchmark_group("read");
    group.sample_size(10);
    for threads in [1, 2] {
        let pool = Pool::new(threads).expect("a small pool");
        for bytes in [1usize << 15, 1 << 19, 1 << 22, 1 << 26] {
            group.throughput(Throughput::Bytes(bytes as u64));
            let name = format!("{} KiB", bytes >> 10);
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                let own = &data[..bytes / size_of::<f32>()];
                at_rate(bencher, bytes as u64, |time| {
                    read_bytes_per_second(kernels, &pool, own, time).expect("the reduction should not panic")
                });
            });
        }
    }
    group.finish();
}

/// Elementary functions over a slice in the first-level cache; elements are values.
fn unary(criterion: &mut Criterion) {
    let source: Vec<f32> = (0..2048).map(|i| i as f32 / 256.0 - 4.0).collect();
    let mut target = vec![0.0; source.len()];
    let mut group = criterion.benchmark_group("unary");
    group.throughput(Throughput::Elements(source.len() as u64));
    for isa in Isa::available() {
        for op in [
            UnaryOp::Abs,
            UnaryOp::Exp,
            UnaryOp::Log,
            UnaryOp::Tanh,
            UnaryOp::Erf,
            UnaryOp::Sigmoid,
            UnaryOp::Sin,
        ] {
            group.bench_function(BenchmarkId::new(isa.name(), op.name()), |bencher| {
                bencher.iter(|| table(isa).unary(op, black_box(&mut target), black_box(&source)));
            });
        }
    }
    group.finish();
}

/// Activations over a slice in the first-level cache; elements are values.
fn activations(criterion: &mut Criterion) {
    let source: Vec<f32> = (0..2048).map(|i| i as f32 / 256.0 - 4.0).collect();
    let mut target = vec![0.0; source.len()];
    let mut group = criterion.benchmark_group("activation");
    group.throughput(Throughput::Elements(source.len() as u64));
    for isa in Isa::available() {
        for activation in Activation::ALL {
            group.bench_function(BenchmarkId::new(isa.name(), activation.name()), |bencher| {
                bencher.iter(|| table(isa).activate(activation, black_box(&mut target), black_box(&source)));
            });
        }
    }
    group.finish();
}

/// Operations of two operands and reductions over slices in the first-level cache; elements are values.
fn binary(criterion: &mut Criterion) {
    let left: Vec<f32> = (0..2048).map(|i| i as f32 / 256.0 - 4.0).collect();
    let right: Vec<f32> = left.iter().map(|value| value + 8.5).collect();
    let mut target = vec![0.0; left.len()];
    let mut group = criterion.benchmark_group("binary");
    group.throughput(Throughput::Elements(left.len() as u64));
    for isa in Isa::available() {
        for op in [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Max, BinaryOp::Pow] {
            group.bench_function(BenchmarkId::new(isa.name(), op.name()), |bencher| {
                bencher.iter(|| table(isa).binary(op, black_box(&mut target), black_box(&left), &right));
            });
        }
        group.bench_function(BenchmarkId::new(isa.name(), "sum"), |bencher| {
            bencher.iter(|| table(isa).reduce(BinaryOp::Add, black_box(&left), 0.0));
        });
        group.bench_function(BenchmarkId::new(isa.name(), "sum of products"), |bencher| {
            bencher.iter(|| table(isa).sum_product(black_box(&left), &right));
        });
    }
    group.finish();
}

/// Pooling of one 56x56 channel; elements are values read by windows.
fn pool(criterion: &mut Criterion) {
    let size = 56;
    let mut group = criterion.benchmark_group("pool");
    for isa in Isa::available() {
        for (name, kind, side, stride) in [
            ("max 3x3 stride 2", window::Pool::Max, 3, 2),
            ("max 2x2 stride 2", window::Pool::Max, 2, 2),
            ("sum 3x3 stride 1", window::Pool::Sum, 3, 1),
        ] {
            let pitch = (size - 1) * stride + side;
            let x = vec![1.0f32; pitch * pitch];
            let mut y = vec![0.0f32; size * size];
            let args = WindowArgs {
                x: x.as_ptr(),
                x_row: pitch as isize,
                x_output: (stride * pitch) as isize,
                window_rows: side,
                window_cols: side,
                stride,
                dilation: 1,
                y: y.as_mut_ptr(),
                y_output: size as isize,
                outputs: size,
                count: size,
            };
            group.throughput(Throughput::Elements((side * side * size * size) as u64));
            group.bench_function(BenchmarkId::new(isa.name(), name), |bencher| {
                // SAFETY: the planes have the sizes the arguments say.
                bencher.iter(|| unsafe { table(isa).pool_row(kind, false, black_box(&args)) });
            });
        }
    }
    group.finish();
}

/// Pooling of a block of channels of one image of 28x28, padded so that windows are shorter at its edges, and of all its places;
/// elements are vectors of results, or of the image.
fn pool_lanes(criterion: &mut Criterion) {
    let size = 28;
    let mut group = criterion.benchmark_group("pool lanes");
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        let bytes = size_of::<f32>() * size * size * lanes;
        let (mut from, mut to) = (AlignedBytes::zeroed(bytes), AlignedBytes::zeroed(bytes));
        for (name, pool, side, stride) in [
            ("max 3x3 stride 1", window::Pool::Max, 3, 1),
            ("max 3x3 stride 2", window::Pool::Max, 3, 2),
            ("max 2x2 stride 2", window::Pool::Max, 2, 2),
            ("max 5x5 stride 1", window::Pool::Max, 5, 1),
            ("sum 3x3 stride 1", window::Pool::Sum, 3, 1),
            ("sum of all", window::Pool::Sum, size, size),
        ] {
            let (results, before) = (size / stride, if side < size { (side / 2) as i64 } else { 0 });
            let [column, row] = [1, size].map(|places| (places * lanes) as isize);
            let edge = |line: usize, row: usize| Edge {
                start: -before,
                line: line as i64,
                row: row as i64,
                step: 1,
                limit: size as i64,
            };
            let windows = Windows {
                lines: results,
                rows: results,
                depths: [Depth { count: side, a: row, b: 0 }, Depth { count: side, a: column, b: 0 }],
                edges: [edge(stride, 0), edge(0, stride)],
                a: from.as_mut_ptr().cast::<f32>().wrapping_offset(-(before as isize) * (row + column)),
                a_line: stride as isize * row,
                a_row: stride as isize * column,
                c: to.as_mut_ptr().cast(),
                c_line: results as isize * column,
                c_row: column,
                accumulate: false,
                finish: Finish::NONE,
                addend_line: 0,
            };
            let args = PoolArgs { pool, windows, divisor: 1.0 };
            let vectors = if side < size { results * results } else { size * size };
            group.throughput(Throughput::Elements(vectors as u64));
            group.bench_function(BenchmarkId::new(isa.name(), name), |bencher| {
                // SAFETY: the image and the results have the sizes the arguments say.
                bencher.iter(|| unsafe { table(isa).pool_lanes(black_box(&args)) });
            });
        }
    }
    group.finish();
}

/// Depthwise convolutions of one 56x56 channel; elements are floating-point operations.
fn depthwise(criterion: &mut Criterion) {
    let size = 56;
    let mut group = criterion.benchmark_group("depthwise");
    for isa in Isa::available() {
        for side in [3, 5, 7] {
            for stride in [1, 2] {
                let pitch = (size - 1) * stride + side;
                let x = vec![1.0f32; pitch * pitch];
                let weights = vec![1.0f32; side * side];
                let (mut y, bias) = (vec![0.0f32; size * size], 0.0);
                let window = WindowArgs {
                    x: x.as_ptr(),
                    x_row: pitch as isize,
                    x_output: (stride * pitch) as isize,
                    window_rows: side,
                    window_cols: side,
                    stride,
                    dilation: 1,
                    y: y.as_mut_ptr(),
                    y_output: size as isize,
                    outputs: size,
                    count: size,
                };
                let args = DepthwiseArgs {
                    window,
                    weights: weights.as_ptr(),
                    init: &bias,
                    init_step: 0,
                    init_output: 0,
                };
                group.throughput(Throughput::Elements((2 * side * side * size * size) as u64));
                let name = format!("{side}x{side} stride {stride}");
                group.bench_function(BenchmarkId::new(isa.name(), name), |bencher| {
                    // SAFETY: the planes have the sizes the arguments say.
                    bencher.iter(|| unsafe { table(isa).depthwise_row(black_box(&args)) });
                });
            }
        }
    }
    group.finish();
}

/// Tiles of one row of a plane of 56 columns, in the first-level cache; elements are tiles of one vector of channels.
fn transforms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transform");
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for matrix in Matrix::ALL {
            let (side, results) = (matrix.columns(), matrix.rows().len());
            // Points lie in planes of their own; a tile of the image is beside the next.
            let step = results.min(side - 2);
            let tiles = 56 / step;
            let points = [side * tiles, tiles, 1].map(|stride| (stride * lanes) as isize);
            let image = [58, 1, step].map(|stride| (stride * lanes) as isize);
            let (x, y) = if side == results { (image, points) } else { (points, image) };
            // Aligned as programs have it, so that no vector lies across two lines of the cache.
            let bytes = size_of::<f32>() * side * side * 58 * lanes;
            let (mut from, mut to) = (AlignedBytes::zeroed(bytes), AlignedBytes::zeroed(bytes));
            let args = TransformArgs {
                sides: Sides::Both,
                x: from.as_mut_ptr().cast_const().cast(),
                x_row: x[0],
                x_col: x[1],
                x_tile: x[2],
                y: to.as_mut_ptr().cast(),
                y_row: y[0],
                y_col: y[1],
                y_tile: y[2],
                tiles,
                edges: [Edge::NONE; 2],
                accumulate: false,
                finish: Finish::NONE,
                addend_tile: 0,
                stream: false,
            };
            group.throughput(Throughput::Elements(tiles as u64));
            group.bench_function(BenchmarkId::new(isa.name(), matrix.name()), |bencher| {
                // SAFETY: the planes have the sizes the arguments say.
                bencher.iter(|| unsafe { table(isa).transform(matrix, black_box(&args)) });
            });
        }
    }
    group.finish();
}

criterion_group!(
    kernels,
    tiles,
    dots,
    panels,
    reads,
    unary,
    activations,
    binary,
    depthwise,
    pool,
    pool_lanes,
    transforms
);
criterion_main!(kernels);
