//! What programs cost beyond their kernels: calls, blocks, phases and forks.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use paisley_kernels::pool::Pool;
use paisley_kernels::program::{
    Access, Accumulate, Affine, Binding, Block, BlockOp, Bound, Call, Code, Combine, Condition, CounterId,
    Depth, ElementType, Extents, Literal, Loop, Memory, Node, Place, Program, Region, Sequence, Step, Terms,
    Tile, Trip,
};
use paisley_kernels::{BinaryOp, Finish, Isa, TileArgs, UnaryOp, table, tile};

/// A program over three f32 buffers in the arena, the last of them writable, made ready to run.
struct Bench(Sequence);

impl Bench {
    fn new(code: Code) -> Bench {
        let (mut bindings, mut end) = (Vec::new(), 0);
        for buffer in &code.buffers {
            if matches!(buffer.place, Place::External { .. }) {
                bindings.push(Binding { region: Region::Arena, offset_bytes: end });
                end += (buffer.length * buffer.dtype.size_bytes()).next_multiple_of(64) + 64;
            }
        }
        // SAFETY: the iterations of the parallel loops below write apart.
        let program =
            unsafe { Program::new(code, table(Isa::detect())) }.expect("the program should be valid");
        let step = Step { program: Arc::new(program), bindings };
        let extents = Extents { arena: end, ..Extents::default() };
        Bench(Sequence::new(vec![step], vec![], extents).expect("the bindings should fit"))
    }

    fn run(&mut self, pool: &Pool) {
        let memory = Memory { inputs: &[], outputs: &mut [] };
        self.0.run(pool, memory, None).expect("the program should run");
    }
}

fn buffers(code: &mut Code, lengths: [usize; 3]) -> [Access; 3] {
    [0, 1, 2].map(|index| {
        let place = Place::External { index, writable: index == 2 };
        let buffer = code.buffer(format!("b{index}"), ElementType::F32, lengths[index], place);
        Access { buffer, offset: Affine::constant(0) }
    })
}

fn repeat(counter: CounterId, count: usize, parallel: bool, body: Vec<Node>) -> Node {
    Node::Loop(Loop { counter, trip: Trip::Constant(count), parallel, body })
}

/// Calls of a tile of depth 1, by the program and by a plain loop; elements are calls.
fn calls(criterion: &mut Criterion) {
    let kernel = table(Isa::detect()).tile();
    let lanes = table(Isa::detect()).lanes as isize;
    let count = 1000;
    let mut code = Code::new("calls");
    let [mut a, mut b, c] =
        buffers(&mut code, [count * kernel.rows, count * kernel.cols, kernel.rows * kernel.cols]);
    let i = code.counter("i");
    a.offset.add_term(i, kernel.rows as i64);
    b.offset.add_term(i, kernel.cols as i64);
    let tail = Bound { value: Affine { constant: 100_000, terms: vec![(i, -1)] }, divisor: 1 };
    let tile = Tile {
        a: code.access(a.buffer, a.offset),
        a_line_stride: 0,
        a_row_stride: 1,
        a_col_stride: 0,
        terms: Terms::Products { b: code.access(b.buffer, b.offset), b_block_stride: 0 },
        c: code.access(c.buffer, c.offset),
        c_line_stride: 0,
        c_row_stride: kernel.cols as i64,
        c_block_stride: 0,
        lines: Trip::Constant(1),
        rows: Trip::Bounded { max: kernel.rows, bounds: vec![tail] },
        blocks: 1,
        cols: Trip::Constant(kernel.cols),
        depths: vec![Depth {
            trip: Trip::Constant(1),
            a_stride: kernel.rows as i64,
            b_stride: kernel.cols as i64,
        }],
        guard: vec![],
        accumulate: Accumulate::UnlessZero(Affine::counter(i)),
        finish: None,
        scaled: None,
    };
    code.body.push(repeat(i, count, false, vec![Node::Call(Call::Tile(Box::new(tile)))]));
    let (mut bench, pool) = (Bench::new(code), Pool::new(1).expect("a pool without threads"));
    let mut group = criterion.benchmark_group("calls");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("program", |bencher| bencher.iter(|| bench.run(&pool)));
    let (a, b) = (vec![0.0f32; count * kernel.rows], vec![0.0f32; count * kernel.cols]);
    let mut c = vec![0.0f32; kernel.rows * kernel.cols];
    group.bench_function("loop", |bencher| {
        bencher.iter(|| {
            for i in 0..count {
                let args = TileArgs {
                    rows: kernel.rows,
                    cols: kernel.cols,
                    depths: [tile::Depth::ONE; tile::DEPTHS],
                    tail: None,
                    a: a[i * kernel.rows..].as_ptr(),
                    a_row: 1,
                    b: tile::Factor::F32(b[i * kernel.cols..].as_ptr()),
                    b_vector: lanes,
                    c: c.as_mut_ptr(),
                    c_row: kernel.cols as isize,
                    c_vector: lanes,
                    accumulate: i != 0,
                    finish: Finish::NONE,
                    ahead_rows: usize::MAX,
                };
                // SAFETY: the panels have the sizes the arguments say, and the table's instruction set is present.
                unsafe { (kernel.run)(black_box(&args)) };
            }
        });
    });
    group.finish();
}

/// `y = op(x)` or `y = x + x2` over blocks of a size, many times; elements are lanes.
fn blocks(criterion: &mut Criterion) {
    let pool = Pool::new(1).expect("a pool without threads");
    let mut group = criterion.benchmark_group("blocks");
    type Body = fn(&mut Block, [paisley_kernels::program::Register; 2]) -> paisley_kernels::program::Register;
    let relu: Body = |block, [x, _]| {
        let (zero, to) = (block.register(ElementType::F32), block.register(ElementType::F32));
        block.ops.push(BlockOp::Constant { to: zero, value: Literal::Float(0.0) });
        block.ops.push(BlockOp::Binary { to, op: BinaryOp::Max, a: x, b: zero });
        to
    };
    let add: Body = |block, [a, b]| {
        let to = block.register(ElementType::F32);
        block.ops.push(BlockOp::Binary { to, op: BinaryOp::Add, a, b });
        to
    };
    let sigmoid: Body = |block, [x, _]| {
        let to = block.register(ElementType::F32);
        block.ops.push(BlockOp::Unary { to, op: UnaryOp::Sigmoid, x });
        to
    };
    for (name, body) in [("relu", relu), ("add", add), ("sigmoid", sigmoid)] {
        for (dims, pitch) in [([1, 16], 16), ([12, 32], 40), ([8, 1024], 1024)] {
            let total = 8192;
            let (size, count) = (dims[0] * dims[1], total / (dims[0] * dims[1]));
            let mut code = Code::new(name);
            let places = buffers(&mut code, [count * dims[0] * pitch; 3]);
            let i = code.counter("i");
            let [a, b, c] = places.map(|mut place| {
                place.offset.add_term(i, (dims[0] * pitch) as i64);
                code.access(place.buffer, place.offset)
            });
            let mut block = Block::new(name, dims.map(Trip::Constant).to_vec());
            let strides = vec![pitch as i64, 1];
            let inputs = [a, b].map(|access| {
                let to = block.register(ElementType::F32);
                if access == a || name == "add" {
                    block.ops.push(BlockOp::Load { to, access, strides: strides.clone(), guard: vec![] });
                }
                to
            });
            let value = body(&mut block, inputs);
            let combine = Combine::Replace;
            block.ops.push(BlockOp::Store { access: c, strides, value, combine, guard: vec![], mask: None });
            code.body.push(repeat(i, count, false, vec![Node::Call(Call::Block(block))]));
            let mut bench = Bench::new(code);
            group.throughput(Throughput::Elements((size * count) as u64));
            let id = BenchmarkId::new(name, format!("{}x{}", dims[0], dims[1]));
            group.bench_function(id, |bencher| bencher.iter(|| bench.run(&pool)));
        }
    }
    group.finish();
}

/// Rows of padded 3x3 windows over 56 x 56; elements are lanes.
fn windows(criterion: &mut Criterion) {
    let pool = Pool::new(1).expect("a pool without threads");
    let mut code = Code::new("im2col");
    let [mut x, _, mut y] = buffers(&mut code, [56 * 56, 1, 9 * 56 * 56]);
    let (r, s) = (code.counter("r"), code.counter("s"));
    x.offset = Affine { constant: -57, terms: vec![(r, 56), (s, 1)] };
    y.offset = Affine { constant: 0, terms: vec![(r, 3 * 3136), (s, 3136)] };
    let (from, into) = (code.access(x.buffer, x.offset), code.access(y.buffer, y.offset));
    let mut block = Block::new("window", vec![Trip::Constant(56), Trip::Constant(56)]);
    let condition = |counter, strides| Condition {
        value: Affine { constant: -1, terms: vec![(counter, 1)] },
        strides,
        limit: 56,
    };
    let guard = vec![condition(r, vec![1, 0]), condition(s, vec![0, 1])];
    let to = block.register(ElementType::F32);
    block.ops.push(BlockOp::Load { to, access: from, strides: vec![56, 1], guard });
    let combine = Combine::Replace;
    let strides = vec![56, 1];
    block.ops.push(BlockOp::Store { access: into, strides, value: to, combine, guard: vec![], mask: None });
    let inner = repeat(s, 3, false, vec![Node::Call(Call::Block(block))]);
    code.body.push(repeat(r, 3, false, vec![inner]));
    let mut bench = Bench::new(code);
    let mut group = criterion.benchmark_group("windows");
    group.throughput(Throughput::Elements(9 * 3136));
    group.bench_function("im2col", |bencher| bencher.iter(|| bench.run(&pool)));
    group.finish();
}

/// Forks of an empty closure, and parallel phases of next to nothing, by the number of threads; elements are forks or phases.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("threads");
    let phases = 100;
    for threads in [1, 2] {
        let pool = Pool::new(threads).expect("a small pool");
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("fork", threads), |bencher| {
            bencher.iter(|| pool.run(|thread| _ = black_box(thread)));
        });
        let mut code = Code::new("phases");
        let place = Place::External { index: 0, writable: true };
        let buffer = code.buffer("y", ElementType::F32, threads, place);
        for _ in 0..phases {
            let i = code.counter("i");
            let to = code.access(buffer, Affine::counter(i));
            let mut block = Block::new("one", vec![Trip::Constant(1)]);
            let value = block.register(ElementType::F32);
            block.ops.push(BlockOp::Constant { to: value, value: Literal::Float(1.0) });
            let combine = Combine::Replace;
            let strides = vec![1];
            block.ops.push(BlockOp::Store { access: to, strides, value, combine, guard: vec![], mask: None });
            code.body.push(repeat(i, threads, true, vec![Node::Call(Call::Block(block))]));
        }
        let mut bench = Bench::new(code);
        group.throughput(Throughput::Elements(phases));
        group
            .bench_function(BenchmarkId::new("phases", threads), |bencher| bencher.iter(|| bench.run(&pool)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = calls, blocks, windows, threads
}
criterion_main!(benches);
