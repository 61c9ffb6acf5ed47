//! Speed of the kernels of every instruction set this machine has, beside the machine's own limit.

use std::collections::BTreeSet;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use paisley_kernels::tile::Depth;
use paisley_kernels::window::{DepthwiseArgs, WindowArgs};
use paisley_kernels::{Isa, TileArgs, UnaryOp, table};

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
                    depths: [
                        Depth::ONE,
                        Depth::ONE,
                        Depth::ONE,
                        Depth { count: depth, a: kernel.rows as isize, b: kernel.cols as isize },
                    ],
                    a: a.as_ptr(),
                    a_row: 1,
                    b: b.as_ptr(),
                    b_vector: table(isa).lanes as isize,
                    c: c.as_mut_ptr(),
                    c_row: kernel.cols as isize,
                    c_vector: table(isa).lanes as isize,
                    accumulate: true,
                };
                group.throughput(Throughput::Elements((2 * rows * kernel.cols * depth) as u64));
                group.bench_function(BenchmarkId::new(kernel.name, rows), |bencher| {
                    // SAFETY: the panels have the sizes the arguments say, and the table's instruction set is present.
                    bencher.iter(|| unsafe { (kernel.run)(black_box(args)) });
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
                a: a.as_ptr(),
                a_row: lanes as isize,
                b: b.as_ptr(),
                b_vector: (depth * lanes) as isize,
                c: c.as_mut_ptr(),
                c_row: lanes as isize,
                c_vector: (kernel.rows * lanes) as isize,
                accumulate: true,
            };
            group.throughput(Throughput::Elements((2 * kernel.rows * kernel.cols * depth) as u64));
            group.bench_function(BenchmarkId::new(kernel.name, "blocked"), |bencher| {
                // SAFETY: the panels have the sizes the arguments say, and the table's instruction set is present.
                bencher.iter(|| unsafe { (kernel.run)(black_box(args)) });
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

criterion_group!(kernels, tiles, unary, depthwise);
criterion_main!(kernels);
