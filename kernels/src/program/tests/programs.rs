//! Programs by hand: each feature once, and what is refused.

use super::*;
use expect_test::expect;

/// `y = relu(x + bias)` over 56 x 56 rows of a padded image, parallel over channels.
fn chain() -> Code {
    let mut code = Code::new("chain");
    let x = input(&mut code, 0, ElementType::F32, 8 * 58 * 58);
    let bias = input(&mut code, 1, ElementType::F32, 8);
    let y = output(&mut code, 2, ElementType::F32, 8 * 56 * 56);
    let c = code.counter("c");
    let from = code.access(x, affine(59, &[(c, 58 * 58)]));
    let with = code.access(bias, affine(0, &[(c, 1)]));
    let to = code.access(y, affine(0, &[(c, 56 * 56)]));
    let mut block = Block::new("relu", vec![Trip::Constant(56), Trip::Constant(56)]);
    let a = block.load(&code, from, &[58, 1], vec![]);
    let b = block.load(&code, with, &[0, 0], vec![]);
    let sum = block.binary(BinaryOp::Add, a, b);
    let zero = block.constant(ElementType::F32, Literal::Float(0.0));
    let value = block.binary(BinaryOp::Max, sum, zero);
    block.store(to, &[56, 1], value, Combine::Replace);
    code.body.push(parallel(c, 8, vec![block.node()]));
    code
}

#[test]
fn element_wise_chain() {
    check(&chain());
}

#[test]
fn chain_over_merged_dimensions_in_place() {
    let mut code = Code::new("in place");
    let y = output(&mut code, 0, ElementType::F32, 3 * 7 * 500);
    let x = input(&mut code, 1, ElementType::F32, 3 * 7 * 500);
    let (from, to) = (code.access(x, affine(0, &[])), code.access(y, affine(0, &[])));
    let mut block = Block::new("add", vec![Trip::Constant(3), Trip::Constant(7), Trip::Constant(500)]);
    let strides = [3500, 500, 1];
    let a = block.load(&code, to, &strides, vec![]);
    let b = block.load(&code, from, &strides, vec![]);
    let sum = block.binary(BinaryOp::Add, a, b);
    block.store(to, &strides, sum, Combine::Replace);
    code.body.push(block.node());
    check(&code);
}

/// The rows of a strided, padded window as a matrix: guards over counters and over dimensions.
fn im2col() -> Code {
    let (size, kernel, out, channels) = (11i64, 3usize, 6usize, 4usize);
    let mut code = Code::new("im2col");
    let x = input(&mut code, 0, ElementType::F32, channels * 121);
    let y = output(&mut code, 1, ElementType::F32, channels * kernel * kernel * out * out);
    let [c, r, s] = ["c", "r", "s"].map(|name| code.counter(name));
    let from = code.access(x, affine(-size - 1, &[(c, 121), (r, size), (s, 1)]));
    let to = code.access(y, affine(0, &[(c, 9 * 36), (r, 3 * 36), (s, 36)]));
    let mut block = Block::new("window", vec![Trip::Constant(out), Trip::Constant(out)]);
    let guard = vec![
        Condition { value: affine(-1, &[(r, 1)]), strides: vec![2, 0], limit: size },
        Condition { value: affine(-1, &[(s, 1)]), strides: vec![0, 2], limit: size },
    ];
    let value = block.load(&code, from, &[2 * size, 2], guard);
    block.store(to, &[out as i64, 1], value, Combine::Replace);
    let rows = serial(r, kernel, vec![serial(s, kernel, vec![block.node()])]);
    code.body.push(parallel(c, channels, vec![rows]));
    code
}

#[test]
fn guarded_windows() {
    check(&im2col());
}

#[test]
fn guards_with_falling_indices_and_two_dimensions() {
    let mut code = Code::new("falling");
    let x = input(&mut code, 0, ElementType::I32, 390);
    let y = output(&mut code, 1, ElementType::I32, 13 * 32);
    let (from, to) = (code.access(x, affine(400, &[])), code.access(y, affine(0, &[])));
    let mut block = Block::new("reverse", vec![Trip::Constant(13), Trip::Constant(32)]);
    let guard = vec![Condition { value: affine(400, &[]), strides: vec![-32, -1], limit: 390 }];
    let value = block.load(&code, from, &[-32, -1], guard);
    block.store(to, &[32, 1], value, Combine::Replace);
    code.body.push(block.node());
    check(&code);
}

#[test]
fn limits_next_to_overflow_are_refused() {
    let mut code = Code::new("limit");
    let x = input(&mut code, 0, ElementType::I32, 8);
    let y = output(&mut code, 1, ElementType::I32, 8);
    let (from, to) = (code.access(x, affine(-4, &[])), code.access(y, affine(0, &[])));
    let with_limit = |limit: i64| {
        let mut code = code.clone();
        let mut block = Block::new("copy", vec![Trip::Constant(8)]);
        let guard = vec![Condition { value: affine(-4, &[]), strides: vec![1], limit }];
        let value = block.load(&code, from, &[1], guard);
        block.store(to, &[1], value, Combine::Replace);
        code.body.push(block.node());
        code
    };
    check(&with_limit(1 << 48));
    for limit in [i64::MAX, i64::MIN, 1 << 62] {
        let error = Program::serial(with_limit(limit), table(Isa::Generic)).err().unwrap();
        assert!(matches!(error.problem, Problem::Overflow), "{error}");
    }
}

/// A reduction with each combiner over the given dimensions of a 5 x 70 x 33 block.
fn reduction(dtype: ElementType, combine: Combine, strides: [i64; 3], length: usize) -> Code {
    let mut code = Code::new("reduction");
    let x = input(&mut code, 0, dtype, 5 * 70 * 33);
    let y = output(&mut code, 1, dtype, length);
    let (from, to) = (code.access(x, affine(0, &[])), code.access(y, affine(0, &[])));
    let mut block = Block::new("reduce", vec![Trip::Constant(5), Trip::Constant(70), Trip::Constant(33)]);
    let value = block.load(&code, from, &[70 * 33, 33, 1], vec![]);
    block.store(to, &strides, value, combine);
    code.body.push(block.node());
    code
}

#[test]
fn reductions() {
    for dtype in ElementType::ALL {
        for combine in [Combine::Add, Combine::Min, Combine::Max] {
            for (strides, length) in [
                ([0, 0, 0], 1),
                ([0, 0, 1], 33),
                ([0, 1, 0], 70),
                ([1, 0, 0], 5),
                ([33, 0, 1], 165),
                ([70, 1, 0], 350),
            ] {
                let code = reduction(dtype, combine, strides, length);
                let half = matches!(dtype, ElementType::F16 | ElementType::BF16);
                if half && combine == Combine::Add {
                    continue; // sums of half floats depend on their order beyond any useful tolerance
                }
                check_with(&code, &contents(&code, 3), 1e-4);
            }
        }
    }
    check(&reduction(ElementType::I64, Combine::Mul, [70, 1, 0], 350));
}

#[test]
fn sums_of_f32_keep_their_precision() {
    let count = 1 << 20;
    let mut code = Code::new("sum");
    let x = input(&mut code, 0, ElementType::F32, count);
    let y = output(&mut code, 1, ElementType::F32, 1);
    let (from, to) = (code.access(x, affine(0, &[])), code.access(y, affine(0, &[])));
    let mut block = Block::new("sum", vec![Trip::Constant(count)]);
    let value = block.load(&code, from, &[1], vec![]);
    block.store(to, &[0], value, Combine::Add);
    code.body.push(block.node());
    let values = vec![vec![Number::Float(f64::from(0.1f32)); count], vec![Number::Float(0.0)]];
    let found = execute(&code, Isa::detect(), 1, &values).unwrap()[1][0].float();
    let wanted = f64::from(0.1f32) * count as f64;
    assert!((found - wanted).abs() < 1e-5 * wanted, "{found} {wanted}");
}

#[test]
fn sums_of_products_of_every_form() {
    for (a_strides, b_strides) in [([40, 1], [37, 1]), ([37, 1], [0, 1]), ([1, 0], [40, 1]), ([1, 0], [0, 0])]
    {
        for (step, columns) in [(1, 1), (1, 7), (2, 8), (0, 16), (1, 37)] {
            let mut code = Code::new("products");
            let [a, b] = [0, 1].map(|index| input(&mut code, index, ElementType::F32, 9 * 40));
            let y = output(&mut code, 2, ElementType::F32, 20);
            let [a, b, y] = [a, b, y].map(|buffer| code.access(buffer, affine(0, &[])));
            let mut block = Block::new("sum", vec![Trip::Constant(9), Trip::Constant(columns)]);
            let a = block.load(&code, a, &a_strides, vec![]);
            let b = block.load(&code, b, &b_strides, vec![]);
            let product = block.binary(BinaryOp::Mul, a, b);
            block.store(y, &[step, 0], product, Combine::Add);
            code.body.push(block.node());
            check(&code);
        }
    }
}

#[test]
fn rows_that_are_stored_apart() {
    for (outer, rows) in [(7, 3), (3, 7)] {
        let mut code = Code::new("apart");
        let x = input(&mut code, 0, ElementType::F32, 7 * 7 * 8);
        let scale = input(&mut code, 1, ElementType::F32, 7 * 8);
        let y = output(&mut code, 2, ElementType::F32, 7 * 100);
        let [x, scale, y] = [x, scale, y].map(|buffer| code.access(buffer, affine(0, &[])));
        let mut block = Block::new("apart", [outer, rows, 8].map(Trip::Constant).to_vec());
        let x = block.load(&code, x, &[8 * rows as i64, 8, 1], vec![]);
        let scale = block.load(&code, scale, &[0, 8, 1], vec![]);
        let product = block.binary(BinaryOp::Mul, x, scale);
        block.store(y, &[8, 100, 1], product, Combine::Replace);
        code.body.push(block.node());
        check(&code);
    }
}

/// `y[i] = table[index[i]]` where a mask holds.
fn gather(masked: bool) -> Code {
    let mut code = Code::new("gather");
    let table = input(&mut code, 0, ElementType::F16, 11);
    let index = input(&mut code, 1, ElementType::I32, 2000);
    let y = output(&mut code, 2, ElementType::F16, 2000);
    let (from, to) = (code.access(index, affine(0, &[])), code.access(y, affine(0, &[])));
    let mut block = Block::new("gather", vec![Trip::Constant(2000)]);
    let narrow = block.load(&code, from, &[1], vec![]);
    let index = block.cast(narrow, ElementType::I64);
    let zero = block.constant(ElementType::I64, Literal::Int(0));
    let mask = masked.then(|| block.binary(BinaryOp::Ge, index, zero));
    let value = block.register(ElementType::F16);
    block.ops.push(BlockOp::Gather { to: value, buffer: table, index, mask });
    block.store(to, &[1], value, Combine::Replace);
    code.body.push(block.node());
    code
}

#[test]
fn gathers() {
    check(&gather(true));
    let code = gather(false);
    let error = execute(&code, Isa::detect(), 2, &contents(&code, 1)).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("`gather`: index -"), "{text}");
    assert!(text.ends_with("outside buffer `x0` of 11 elements; check the index tensors"), "{text}");
}

#[test]
fn scatters_count_and_refuse() {
    let mut code = Code::new("histogram");
    let x = input(&mut code, 0, ElementType::I64, 3000);
    let y = output(&mut code, 1, ElementType::U32, 8);
    let from = code.access(x, affine(0, &[]));
    let mut block = Block::new("count", vec![Trip::Constant(3000)]);
    let index = block.load(&code, from, &[1], vec![]);
    let one = block.constant(ElementType::U32, Literal::Int(1));
    let zero = block.constant(ElementType::I64, Literal::Int(0));
    let mask = Some(block.binary(BinaryOp::Ge, index, zero));
    let combine = Combine::Add;
    block.ops.push(BlockOp::Scatter { buffer: y, index, value: one, combine, mask });
    code.body.push(block.node());
    check(&code);
    let mut contents = contents(&code, 1);
    contents[0][17] = Number::Int(8);
    let error = execute(&code, Isa::detect(), 1, &contents).unwrap_err();
    assert!(matches!(error, RunError::Index { index: 8, length: 8, .. }), "{error}");
}

/// Windows of 3 x 3 over planes of 20 x 31 that are padded already, a channel an iteration.
fn windows(kind: &str, stride: i64, dilation: i64) -> Code {
    let extent = |size: i64| ((size - 2 * dilation - 1) / stride + 1) as usize;
    let (channels, outputs, count) = (3, extent(20), extent(31));
    let mut code = Code::new(format!("{kind} {stride} {dilation}"));
    let x = input(&mut code, 0, ElementType::F32, channels * 620);
    let weights = input(&mut code, 1, ElementType::F32, channels * 9);
    let bias = input(&mut code, 2, ElementType::F32, channels);
    let y = output(&mut code, 3, ElementType::F32, channels * outputs * count);
    let c = code.counter("c");
    let weights = code.access(weights, affine(0, &[(c, 9)]));
    let bias = code.access(bias, affine(0, &[(c, 1)]));
    let y = code.access(y, affine(0, &[(c, (outputs * count) as i64)]));
    let depthwise = |start, start_per_result, start_output_stride| WindowKind::Depthwise {
        weights,
        start,
        start_per_result,
        start_output_stride,
    };
    let window = Window {
        kind: match kind {
            "max" => WindowKind::Max,
            "sum" => WindowKind::Sum,
            "in place" => depthwise(y, true, count as i64),
            _ => depthwise(bias, false, 0),
        },
        x: code.access(x, affine(0, &[(c, 620)])),
        x_row_stride: 31 * dilation,
        x_output_stride: 31 * stride,
        stride: stride as usize,
        dilation: dilation as usize,
        rows: Trip::Constant(3),
        cols: 3,
        y,
        y_output_stride: count as i64,
        outputs: Trip::Constant(outputs),
        count: Trip::Constant(count),
    };
    code.body.push(parallel(c, channels, vec![Node::Call(Call::Window(window))]));
    code
}

#[test]
fn windows_of_every_kind() {
    for kind in ["depthwise", "in place", "max", "sum"] {
        for (stride, dilation) in [(1, 1), (2, 1), (1, 2), (3, 4)] {
            check(&windows(kind, stride, dilation));
        }
    }
    let mut code = windows("in place", 1, 1);
    let Node::Loop(outer) = &mut code.body[0] else { panic!("a loop") };
    let Node::Call(Call::Window(window)) = &mut outer.body[0] else { panic!("a window") };
    window.y_output_stride = 1;
    assert_eq!(code.verify(table(Isa::Generic)).unwrap_err().problem, Problem::WindowOverlap);
}

/// `y = relu(a b + bias)` by packed panels and tiles, with tails everywhere: two phases, one shared buffer.
fn matmul(isa: Isa, (m, n, k): (usize, usize, usize)) -> Code {
    let kernel = table(isa).tile();
    let (rows, cols, depth) = (kernel.rows, kernel.cols, 16);
    let (row_panels, col_panels, depth_panels) = (m.div_ceil(rows), n.div_ceil(cols), k.div_ceil(depth));
    let tail = |extent: usize, counter: CounterId, panel: usize| Trip::Bounded {
        max: panel,
        bounds: vec![Bound { value: affine(extent as i64, &[(counter, -(panel as i64))]), divisor: 1 }],
    };
    let mut code = Code::new("matmul");
    let a = input(&mut code, 0, ElementType::F32, m * k);
    let b = input(&mut code, 1, ElementType::F32, k * n);
    let bias = input(&mut code, 2, ElementType::F32, n);
    let y = output(&mut code, 3, ElementType::F32, m * n);
    let packed = code.buffer("packed", ElementType::F32, col_panels * k * cols, Place::Shared);
    let panel = code.buffer("panel", ElementType::F32, depth * rows, Place::Scratch);

    let (p, j) = (code.counter("p"), code.counter("j"));
    let mut pack = Block::new("pack", vec![Trip::Constant(k), tail(n, p, cols)]);
    let from = code.access(b, affine(0, &[(p, cols as i64)]));
    let to = code.access(packed, affine(0, &[(p, (k * cols) as i64)]));
    let value = pack.load(&code, from, &[n as i64, 1], vec![]);
    pack.store(to, &[cols as i64, 1], value, Combine::Replace);
    code.body.push(parallel(p, col_panels, vec![pack.node()]));

    let (i, l) = (code.counter("i"), code.counter("l"));
    let start = [(i, (rows * k) as i64), (l, depth as i64)];
    let from = code.access(a, affine(0, &start));
    let to = code.access(panel, affine(0, &[]));
    let mut stage = Block::new("stage", vec![tail(k, l, depth), tail(m, i, rows)]);
    let value = stage.load(&code, from, &[1, k as i64], vec![]);
    stage.store(to, &[rows as i64, 1], value, Combine::Replace);
    let c = code.access(y, affine(0, &[(i, (rows * n) as i64), (j, cols as i64)]));
    let tile = Tile {
        a: to,
        a_line_stride: 0,
        a_row_stride: 1,
        a_col_stride: 0,
        terms: Terms::Products {
            b: code.access(packed, affine(0, &[(j, (k * cols) as i64), (l, (depth * cols) as i64)])),
            b_block_stride: 0,
        },
        c,
        c_line_stride: 0,
        c_row_stride: n as i64,
        c_block_stride: 0,
        lines: Trip::Constant(1),
        rows: tail(m, i, rows),
        blocks: 1,
        cols: tail(n, j, cols),
        depths: vec![Depth { trip: tail(k, l, depth), a_stride: rows as i64, b_stride: cols as i64 }],
        guard: vec![],
        accumulate: Accumulate::UnlessZero(Affine::counter(l)),
        finish: None,
        scaled: None,
    };
    let mut epilogue = Block::new("epilogue", vec![tail(m, i, rows), tail(n, j, cols)]);
    let with = code.access(bias, affine(0, &[(j, cols as i64)]));
    let sum = epilogue.load(&code, c, &[n as i64, 1], vec![]);
    let bias = epilogue.load(&code, with, &[0, 1], vec![]);
    let sum = epilogue.binary(BinaryOp::Add, sum, bias);
    let zero = epilogue.constant(ElementType::F32, Literal::Float(0.0));
    let sum = epilogue.binary(BinaryOp::Max, sum, zero);
    epilogue.store(c, &[n as i64, 1], sum, Combine::Replace);
    let reduction = serial(l, depth_panels, vec![stage.node(), Node::Call(Call::Tile(Box::new(tile)))]);
    let inner = parallel(i, row_panels, vec![reduction, epilogue.node()]);
    code.body.push(parallel(j, col_panels, vec![inner]));
    code
}

#[test]
fn matmul_with_tails() {
    for isa in Isa::available() {
        for size in [(1, 1, 1), (12, 32, 16), (25, 67, 41), (3, 130, 7)] {
            let code = matmul(isa, size);
            let contents = contents(&code, 5);
            let mut wanted = contents.clone();
            interpret(&code, &mut wanted).unwrap();
            for threads in [1, 2, 5] {
                let found = execute(&code, isa, threads, &contents).unwrap();
                for (found, wanted) in found[3].iter().zip(&wanted[3]) {
                    let (found, wanted) = (found.float(), wanted.float());
                    assert!((found - wanted).abs() <= 1e-4 * (1.0 + wanted.abs()), "{found} {wanted}");
                }
            }
        }
    }
}

#[test]
fn every_operation_of_every_type() {
    let unary = |code: &mut Code, dtype: ElementType, op: UnaryOp| {
        let x = input(code, 0, dtype, 200);
        let y = output(code, 1, if op.is_test() { ElementType::Bool } else { dtype }, 200);
        let (from, to) = (code.access(x, affine(0, &[])), code.access(y, affine(0, &[])));
        let mut block = Block::new(op.name(), vec![Trip::Constant(200)]);
        let x = block.load(code, from, &[1], vec![]);
        let value = block.unary(op, x);
        block.store(to, &[1], value, Combine::Replace);
        code.body.push(block.node());
    };
    let binary = |code: &mut Code, dtype: ElementType, op: BinaryOp, strides: [i64; 2]| {
        let (a, b) = (input(code, 0, dtype, 200), input(code, 1, dtype, 200));
        let y = output(code, 2, if op.is_comparison() { ElementType::Bool } else { dtype }, 200);
        let [a, b, to] = [a, b, y].map(|buffer| code.access(buffer, affine(0, &[])));
        let mut block = Block::new(op.name(), vec![Trip::Constant(200)]);
        let a = block.load(code, a, &[strides[0]], vec![]);
        let b = block.load(code, b, &[strides[1]], vec![]);
        let value = block.binary(op, a, b);
        block.store(to, &[1], value, Combine::Replace);
        code.body.push(block.node());
    };
    let mut ran = 0;
    let mut compare = |code: Code| {
        if code.verify(table(Isa::Generic)).is_ok() {
            let half = code.buffers.iter().any(|b| matches!(b.dtype, ElementType::F16 | ElementType::BF16));
            check_with(&code, &contents(&code, 7), if half { 1e-2 } else { 1e-5 });
            ran += 1;
        }
    };
    for dtype in ElementType::ALL {
        for op in UnaryOp::ALL {
            let mut code = Code::new(format!("{} {}", dtype.name(), op.name()));
            unary(&mut code, dtype, op);
            compare(code);
        }
        for op in BinaryOp::ALL {
            for strides in [[1, 1], [1, 0], [0, 1], [0, 0]] {
                let mut code = Code::new(format!("{} {}", dtype.name(), op.name()));
                binary(&mut code, dtype, op, strides);
                compare(code);
            }
        }
    }
    // All but `not` on the four float types, and on the nine others what has a meaning there.
    let on_integers = UnaryOp::ALL.into_iter().filter(|op| op.on_integers().is_some()).count();
    assert_eq!(ran, 4 * (UnaryOp::ALL.len() - 1) + 9 * on_integers + 4 * 4 * 16 + 9 * 4 * 21);
}

#[test]
fn casts_between_all_types() {
    for from in ElementType::ALL {
        for to in ElementType::ALL {
            let mut code = Code::new(format!("{} to {}", from.name(), to.name()));
            let (x, y) = (input(&mut code, 0, from, 100), output(&mut code, 1, to, 100));
            let [x, y] = [x, y].map(|buffer| code.access(buffer, affine(0, &[])));
            let mut block = Block::new("cast", vec![Trip::Constant(100)]);
            let value = block.load(&code, x, &[1], vec![]);
            let value = block.cast(value, to);
            block.store(y, &[1], value, Combine::Replace);
            code.body.push(block.node());
            check_with(&code, &contents(&code, 9), 0.0);
        }
    }
}

#[test]
fn steps_follow_one_another() {
    let mut code = Code::new("shift");
    let (x, y) = (input(&mut code, 0, ElementType::F32, 1000), output(&mut code, 1, ElementType::F32, 1000));
    let i = code.counter("i");
    let (from, to) = (code.access(x, affine(0, &[])), code.access(y, affine(0, &[(i, 1)])));
    let last = code.access(x, affine(999, &[(i, -1)]));
    let mut block = Block::new("reverse", vec![Trip::Constant(1)]);
    let a = block.load(&code, last, &[0], vec![]);
    let b = block.load(&code, from, &[0], vec![]);
    let value = block.binary(BinaryOp::Add, a, b);
    block.store(to, &[1], value, Combine::Replace);
    code.body.push(parallel(i, 1000, vec![block.node()]));
    // SAFETY: iteration `i` writes element `i` of `y` only.
    let program = Arc::new(unsafe { Program::new(code, table(Isa::detect())) }.unwrap());
    let arena = |offset_bytes| Binding { region: Region::Arena, offset_bytes };
    let (input, output) = (
        Binding { region: Region::Input(0), offset_bytes: 0 },
        Binding { region: Region::Output(0), offset_bytes: 4000 },
    );
    let step = |from, to| Step { program: program.clone(), bindings: vec![from, to] };
    let steps = vec![step(input, arena(0)), step(arena(0), arena(4000)), step(arena(4000), output)];
    let extents = Extents { arena: 8000, inputs: vec![4000], outputs: vec![8000] };
    let spread = [[input, arena(8000)], [arena(8000), arena(0)], [arena(0), output]].map(Vec::from);
    let sequence = Sequence::new(steps, vec![], extents).unwrap();
    let mut sequence = sequence.with_spread(&spread, 12000).unwrap();
    assert!(!sequence.spread.as_ref().unwrap().is_used());
    let x: Vec<u8> = (0..1000).flat_map(|at| (at as f32).to_ne_bytes()).collect();
    let x = AlignedBytes::copy_of(&x);
    let reverse = |x: &[f32]| -> Vec<f32> { x.iter().rev().map(|value| value + x[0]).collect() };
    let start: Vec<f32> = (0..1000).map(|at| at as f32).collect();
    let wanted = reverse(&reverse(&reverse(&start)));
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads).unwrap();
        for round in 0..100 {
            sequence.distance.pretend(round % 3 == 0);
            let mut y = AlignedBytes::zeroed(8000);
            let mut timeline = Timeline::default();
            let asked = (round % 2 == 0).then_some(&mut timeline);
            let memory = Memory { inputs: &[&x], outputs: &mut [&mut y] };
            sequence.run(&pool, memory, asked).unwrap();
            let found: Vec<f32> =
                y[4000..].chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect();
            assert_eq!(found, wanted);
            assert!(sequence.spread.as_ref().unwrap().is_used());
            let times = timeline.step_times(3);
            assert_eq!(round % 2 == 0, times.iter().all(|time| time.wall_ns > 0));
            // A thread that comes late has no part in a phase.
            let spans = if round % 2 == 0 { 3..=3 * threads } else { 0..=0 };
            assert!(spans.contains(&timeline.spans().count()));
            assert!(times.iter().all(|time| time.busy_ns <= threads as u64 * time.wall_ns));
        }
    }
    let pool = Pool::new(1).unwrap();
    let memory = Memory { inputs: &[&x[4..]], outputs: &mut [] };
    let error = sequence.run(&pool, memory, None).unwrap_err();
    assert_eq!(error.to_string(), "the run has 0 outputs, but the sequence was made for 1");
}

#[test]
fn a_failed_run_ends_and_the_next_one_works() {
    let mut code = Code::new("pick");
    let table_of = input(&mut code, 0, ElementType::F32, 4);
    let picks = input(&mut code, 1, ElementType::I64, 500);
    let y = output(&mut code, 2, ElementType::F32, 500);
    let i = code.counter("i");
    let (from, to) = (code.access(picks, Affine::counter(i)), code.access(y, Affine::counter(i)));
    let mut block = Block::new("pick", vec![Trip::Constant(1)]);
    let index = block.load(&code, from, &[0], vec![]);
    let value = block.register(ElementType::F32);
    block.ops.push(BlockOp::Gather { to: value, buffer: table_of, index, mask: None });
    block.store(to, &[0], value, Combine::Replace);
    let phase = parallel(i, 500, vec![block.node()]);
    code.body.push(phase);
    // SAFETY: iteration `i` writes element `i` of `y` only.
    let program = Arc::new(unsafe { Program::new(code, table(Isa::detect())) }.unwrap());
    let bind = |region| Binding { region, offset_bytes: 0 };
    let bindings = vec![bind(Region::Input(0)), bind(Region::Input(1)), bind(Region::Output(0))];
    let steps = vec![Step { program, bindings }; 3];
    let extents = Extents { arena: 0, inputs: vec![16, 4000], outputs: vec![2000] };
    let mut sequence = Sequence::new(steps, vec![], extents).unwrap();
    let floats = AlignedBytes::zeroed(16);
    let mut picks = AlignedBytes::zeroed(4000);
    let mut out = AlignedBytes::zeroed(2000);
    for threads in [1, 2, 5] {
        for round in 0..50 {
            picks[3200] = if round % 2 == 0 { 4 } else { 3 };
            let memory = Memory { inputs: &[&floats, &picks], outputs: &mut [&mut out] };
            match sequence.run(pool(threads), memory, None) {
                Ok(()) => assert_eq!(round % 2, 1),
                Err(error) => {
                    assert_eq!(round % 2, 0);
                    assert!(matches!(error, RunError::Index { index: 4, length: 4, .. }), "{error}");
                }
            }
        }
    }
}

#[test]
fn bindings_are_checked() {
    let code = chain();
    // SAFETY: channels are apart.
    let program = Arc::new(unsafe { Program::new(code, table(Isa::Generic)) }.unwrap());
    let arena = |offset_bytes| Binding { region: Region::Arena, offset_bytes };
    let extents = Extents { arena: 1 << 20, ..Extents::default() };
    let refuse = |bindings: Vec<Binding>| {
        let step = Step { program: program.clone(), bindings };
        Sequence::new(vec![step], vec![], extents.clone()).unwrap_err().problem.to_string()
    };
    expect!["0 bindings for 3 external buffers"].assert_eq(&refuse(vec![]));
    let bindings = vec![arena(0), arena(0), arena(1 << 19)];
    let step = Step { program: program.clone(), bindings };
    let spread = |bindings: &[Vec<Binding>], bytes| {
        let sequence = Sequence::new(vec![step.clone()], vec![], extents.clone()).unwrap();
        sequence.with_spread(bindings, bytes).unwrap_err().problem.to_string()
    };
    expect!["0 bindings for 3 external buffers"].assert_eq(&spread(&[], 1 << 20));
    expect!["buffer `y2` needs 624640 bytes of the arena, which has 524288"]
        .assert_eq(&spread(&[vec![arena(0), arena(0), arena(1 << 19)]], 1 << 19));
    expect!["buffer `x0` needs 1107644 bytes of the arena, which has 1048576"].assert_eq(&refuse(vec![
        arena(1000000 - 4),
        arena(0),
        arena(64),
    ]));
    expect!["buffers `y2` and `x1` overlap, and the first is written; declare one buffer for both"]
        .assert_eq(&refuse(vec![arena(200000), arena(0), arena(16)]));
    expect!["buffer `x1` is bound at byte 2, which is not aligned for its elements"]
        .assert_eq(&refuse(vec![arena(0), arena(2), arena(16)]));
    let constant = Binding { region: Region::Constant(0), offset_bytes: 0 };
    expect!["buffer `x0` is bound to constant 0, which does not exist"].assert_eq(&refuse(vec![
        constant,
        arena(0),
        arena(16),
    ]));
}

#[test]
fn unsafe_programs_are_refused() {
    fn block(code: &mut Code) -> &mut Block {
        let Node::Loop(outer) = &mut code.body[0] else { panic!("a loop") };
        let Node::Call(Call::Block(block)) = &mut outer.body[0] else { panic!("a block") };
        block
    }
    let refuse = |wanted: &str, change: &dyn Fn(&mut Code)| {
        let mut code = chain();
        change(&mut code);
        let error = code.verify(table(Isa::Generic)).unwrap_err();
        assert!(error.problem.to_string().contains(wanted), "{error}");
        error.to_string()
    };
    let text = refuse("access0 is not proved to stay inside buffer `x0` of 26852 elements", &|code| {
        code.buffers[0].length = 26852;
    });
    assert!(text.starts_with("CPU program `chain`, phase 0, loop c, block `relu`: "), "{text}");
    refuse("buffer `y2` is stored to, but not declared writable", &|code| {
        code.buffers[2].place = Place::External { index: 2, writable: false };
    });
    refuse("buffers `x0` and `x1` have the same binding", &|code| {
        code.buffers[1].place = Place::External { index: 0, writable: false };
    });
    refuse("operation 1 uses register v1 before it is set", &|code| block(code).ops.swap(1, 2));
    refuse("operation 1 needs f64, but finds f32", &|code| code.buffers[1].dtype = ElementType::F64);
    refuse("the block has 4 dimensions", &|code| block(code).dims = vec![Trip::Constant(1); 4]);
    refuse("counter i0 belongs to two loops", &|code| {
        let Node::Loop(outer) = &mut code.body[0] else { panic!("a loop") };
        outer.body = vec![serial(outer.counter, 1, vec![])];
    });
    refuse("loop i0 is parallel, but not at the top", &|code| {
        let n = code.counter("n");
        code.body = vec![serial(n, 2, std::mem::take(&mut code.body))];
    });
    refuse("counter i0 is used outside its loop", &|code| {
        let mut late = Block::new("late", vec![Trip::Constant(1)]);
        let access = AccessId(code.accesses.len() as u32 - 1);
        late.load(code, access, &[0], vec![]);
        code.body.push(late.node());
    });
    refuse("is not proved", &|code| {
        // A loop that never runs proves nothing about what follows it.
        let never = code.counter("never");
        code.body.insert(0, serial(never, 0, vec![]));
        code.buffers[0].length = 1;
    });
    refuse("operation 7 needs a float, but finds i64", &|code| {
        let to = block(code).register(ElementType::I64);
        let x = block(code).constant(ElementType::I64, Literal::Int(1));
        block(code).ops.push(BlockOp::Unary { to, op: UnaryOp::Exp, x });
    });
    refuse("the tile's target overlaps", &|code| {
        let access = AccessId(2);
        let tile = Tile {
            a: AccessId(0),
            a_line_stride: 0,
            a_row_stride: 1,
            a_col_stride: 0,
            terms: Terms::Products { b: AccessId(0), b_block_stride: 0 },
            c: access,
            c_line_stride: 0,
            c_row_stride: 7,
            c_block_stride: 0,
            lines: Trip::Constant(1),
            rows: Trip::Constant(2),
            blocks: 1,
            cols: Trip::Constant(8),
            depths: vec![Depth { trip: Trip::Constant(1), a_stride: 1, b_stride: 1 }],
            guard: vec![],
            accumulate: Accumulate::Never,
            finish: None,
            scaled: None,
        };
        let Node::Loop(outer) = &mut code.body[0] else { panic!("a loop") };
        outer.body.push(Node::Call(Call::Tile(Box::new(tile))));
    });
}

#[test]
fn serial_programs_need_no_promise() {
    let error = Program::serial(chain(), table(Isa::Generic)).unwrap_err();
    assert!(matches!(error.problem, Problem::NestedParallel(_)));
    let code = reduction(ElementType::F32, Combine::Add, [0, 0, 0], 1);
    Program::serial(code, table(Isa::Generic)).unwrap();
}

#[test]
fn printed() {
    expect![[r#"
        program chain
          in 0 x0: f32[26912]
          in 1 x1: f32[8]
          inout 2 y2: f32[25088]
        phase 0
          parallel for c in 8
            block relu over d0 in 56, d1 in 56
              v0: f32 = x0[3364 c + 58 d0 + d1 + 59]
              v1: f32 = x1[c]
              v2: f32 = add(v0, v1)
              v3: f32 = 0.0
              v4: f32 = max(v2, v3)
              y2[3136 c + 56 d0 + d1] = v4
    "#]]
    .assert_eq(&chain().to_string());
    expect![[r#"
        program im2col
          in 0 x0: f32[484]
          inout 1 y1: f32[1296]
        phase 0
          parallel for c in 4
            for r in 3
              for s in 3
                block window over d0 in 6, d1 in 6
                  v0: f32 = x0[121 c + 11 r + s + 22 d0 + 2 d1 - 12] where 0 <= r + 2 d0 - 1 < 11 and 0 <= s + 2 d1 - 1 < 11
                  y1[324 c + 108 r + 36 s + 6 d0 + d1] = v0
    "#]].assert_eq(&im2col().to_string());
    expect![[r#"
        program depthwise 2 1
          in 0 x0: f32[1860]
          in 1 x1: f32[27]
          in 2 x2: f32[3]
          inout 3 y3: f32[405]
        phase 0
          parallel for c in 3
            window 9 x 15 of 3 x 3: y3[135 c + 15 out + at] = x2[c] + sum x1[9 c + 3 row + col] * x0[620 c + 62 out + 31 row + 2 at + col]
    "#]].assert_eq(&windows("depthwise", 2, 1).to_string());
    expect![[r#"
        program max 2 1
          in 0 x0: f32[1860]
          in 1 x1: f32[27]
          in 2 x2: f32[3]
          inout 3 y3: f32[405]
        phase 0
          parallel for c in 3
            window 9 x 15 of 3 x 3: y3[135 c + 15 out + at] = max x0[620 c + 62 out + 31 row + 2 at + col]
    "#]]
    .assert_eq(&windows("max", 2, 1).to_string());
    expect![[r#"
        program gather
          in 0 x0: f16[11]
          in 1 x1: i32[2000]
          inout 2 y2: f16[2000]
        phase 0
          block gather over d0 in 2000
            v0: i32 = x1[d0]
            v1: i64 = cast(v0)
            v2: i64 = 0
            v3: bool = ge(v1, v2)
            v4: f16 = x0[v1] where v3
            y2[d0] = v4
    "#]]
    .assert_eq(&gather(true).to_string());
    expect![[r#"
        program matmul
          in 0 x0: f32[1025]
          in 1 x1: f32[2747]
          in 2 x2: f32[67]
          inout 3 y3: f32[1675]
          shared packed: f32[2952]
          scratch panel: f32[48]
        phase 0
          parallel for p in 6
            block pack over d0 in 41, d1 in min(12, 67 - 12 p)
              v0: f32 = x1[12 p + 67 d0 + d1]
              packed[492 p + 12 d0 + d1] = v0
        phase 1
          parallel for j in 6
            parallel for i in 9
              for l in 3
                block stage over d0 in min(16, 41 - 16 l), d1 in min(3, 25 - 3 i)
                  v0: f32 = x0[123 i + 16 l + d0 + 41 d1]
                  panel[3 d0 + d1] = v0
                tile min(3, 25 - 3 i) x min(12, 67 - 12 j) x min(16, 41 - 16 l): y3[201 i + 12 j + 67 row + col] (+)= [adds unless l = 0] panel[row + 3 depth] * packed[492 j + 192 l + col + 12 depth]
              block epilogue over d0 in min(3, 25 - 3 i), d1 in min(12, 67 - 12 j)
                v0: f32 = y3[201 i + 12 j + 67 d0 + d1]
                v1: f32 = x2[12 j + d1]
                v2: f32 = add(v0, v1)
                v3: f32 = 0.0
                v4: f32 = max(v2, v3)
                y3[201 i + 12 j + 67 d0 + d1] = v4
    "#]].assert_eq(&matmul(Isa::Generic, (25, 67, 41)).to_string());
}
