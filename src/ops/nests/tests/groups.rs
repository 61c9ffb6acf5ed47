//! Groups: prologues, epilogues, several outputs, refusals.

use super::Source::{External as X, Node};
use super::*;
use crate::tensor::MemoryLayout;

fn conv(pad: usize) -> Conv {
    Conv {
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads: vec![(pad, pad); 2],
        groups: 1,
        edge: 0,
        algorithm: None,
    }
}

#[test]
fn conv_bias_residual_relu() {
    let (conv, add, relu) = (conv(1), add(), relu());
    let shapes: [&[usize]; 4] = [&[1, 4, 6, 6], &[8, 4, 3, 3], &[8], &[1, 8, 6, 6]];
    let mut b = Builder::new(&shapes.map(f32s));
    let y = b.anchor(&conv, &[X(0), X(1), X(2)]);
    let sum = b.node(&add, &[y, X(3)]);
    let out = b.node(&relu, &[sum]);
    let group = b.finish(&[sum, out]);
    expect![[r#"
        nest conv_add_relu
          in    x: f32[1, 4, 6, 6]
          in    w: f32[8, 4, 3, 3]
          in    b: f32[8]
          in    x0: f32[1, 8, 6, 6]
          out   y: f32[1, 8, 6, 6]
          out   y1: f32[1, 8, 6, 6]
          for k in 8, p in 6, q in 6:
            register acc: f32
            init: acc = 0.0
            for c in 4, r in 3, s in 3:
              update: acc += guard(p + r >= 1 and p + r < 7 and (q + s >= 1 and q + s < 7), x[0, c, p + r + -1, q + s + -1]) * w[k, c, r, s]
            store: y[0, k, p, q] = acc + b[k] + x0[0, k, p, q]
            store1: y1[0, k, p, q] = max(acc + b[k] + x0[0, k, p, q], 0.0)
    "#]].assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(1);
    check_group(&group, &shapes.map(|shape| random(&mut rng, shape)));
}

#[test]
fn channels_in_blocks() {
    // The last block has 8 channels of 16 that are 0: weights beyond the last channel are read as 0.
    let (conv, relu) = (conv(0), relu());
    let shapes: [&[usize]; 3] = [&[1, 24, 6, 6], &[24, 24, 3, 3], &[24]];
    let mut b = Builder::new(&shapes.map(f32s));
    let y = b.anchor(&conv, &[X(0), X(1), X(2)]);
    let y = b.node(&relu, &[y]);
    let group = b.finish(&[y]);
    let (rows, blocks) = (MemoryLayout::Rows, MemoryLayout::ChannelBlocks(16));
    expect![[r#"
        nest conv_relu
          in    x: f32[1, 2, 6, 6, 16]
          in    w: f32[24, 24, 3, 3]
          in    b: f32[24]
          out   y: f32[1, 2, 4, 4, 16]
          for k.0 in 2, p in 4, q in 4, k.1 in 16:
            register acc: f32
            init: acc = 0.0
            for c.0 in 2, r in 3, s in 3, c.1 in 16:
              update: acc += x[0, c.0, p + r, q + s, c.1] * guard(k.0 * 16 + k.1 < 24, w[k.0 * 16 + k.1, c.0 * 16 + c.1, r, s]) if c.0 * 16 + c.1 < 24
            store: y[0, k.0, p, q, k.1] = max(acc + guard(k.0 * 16 + k.1 < 24, b[k.0 * 16 + k.1]), 0.0)
    "#]].assert_eq(&define_group(&group, &[blocks, rows, rows, blocks]).unwrap().to_string());
}

#[test]
fn values_that_are_not_zero_beyond_the_last_channel() {
    let sigmoid = Map { scalar: Scalar::Input(0).unary(UnaryOp::Sigmoid) };
    let mut b = Builder::new(&[f32s(&[1, 24, 6, 6])]);
    let y = b.node(&sigmoid, &[X(0)]);
    let group = b.finish(&[y]);
    let blocks = MemoryLayout::ChannelBlocks(16);
    expect![[r#"
        nest sigmoid
          in    x0: f32[2, 36, 16]
          out   y: f32[2, 36, 16]
          for i0 in 2, i1 in 36, i2 in 16:
            store: y[i0, i1, i2] = guard(i0 * 16 + i2 < 24, sigmoid(x0[i0, i1, i2]))
    "#]]
    .assert_eq(&define_group(&group, &[blocks, blocks]).unwrap().to_string());
}

#[test]
fn values_that_do_not_depend_on_the_channel() {
    // What is added is not 0 beyond the last channel.
    let add = add();
    let mut b = Builder::new(&[f32s(&[1, 24, 6, 6]), f32s(&[1])]);
    let spread = Broadcast { shape: vec![1, 24, 6, 6] };
    let one = b.node(&spread, &[X(1)]);
    let y = b.node(&add, &[X(0), one]);
    let group = b.finish(&[y]);
    let (rows, blocks) = (MemoryLayout::Rows, MemoryLayout::ChannelBlocks(16));
    expect![[r#"
        nest broadcast_add
          in    x0: f32[2, 36, 16]
          in    x1: f32
          out   y: f32[2, 36, 16]
          for i0 in 2, i1 in 36, i2 in 16:
            store: y[i0, i1, i2] = guard(i0 * 16 + i2 < 24, x0[i0, i1, i2] + x1)
    "#]]
    .assert_eq(&define_group(&group, &[blocks, rows, blocks]).unwrap().to_string());
}

#[test]
fn matmul_view_transpose() {
    // Heads are split off the columns and moved outwards.
    let (matmul, add) = (MatMul::default(), add());
    let (view, transpose) = (View { shape: vec![2, 8, 3, 4] }, Transpose { perm: vec![0, 2, 1, 3] });
    let shapes: [&[usize]; 3] = [&[2, 8, 16], &[16, 12], &[12]];
    let mut b = Builder::new(&shapes.map(f32s));
    let y = b.anchor(&matmul, &[X(0), X(1)]);
    let y = b.node(&add, &[y, X(2)]);
    let y = b.node(&view, &[y]);
    let y = b.node(&transpose, &[y]);
    let group = b.finish(&[y]);
    expect![[r#"
        nest matmul_add_view_transpose
          in    a: f32[16, 16]
          in    b: f32[16, 12]
          in    x0: f32[12]
          out   y: f32[2, 3, 8, 4]
          for i in 16, j in 12:
            register acc: f32
            init: acc = 0.0
            for k in 16:
              update: acc += a[i, k] * b[k, j]
            store: y[i // 8, j // 4, i % 8, j % 4] = acc + x0[j]
    "#]]
    .assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(1);
    check_group(&group, &shapes.map(|shape| random(&mut rng, shape)));
}

#[test]
fn transposed_views_into_matmul() {
    let (view, transpose) = (View { shape: vec![2, 8, 3, 4] }, Transpose { perm: vec![0, 2, 1, 3] });
    let matmul = MatMul { transpose_a: false, transpose_b: true };
    let mut b = Builder::new(&[f32s(&[16, 12]), f32s(&[2, 3, 5, 4])]);
    let x = b.node(&view, &[X(0)]);
    let x = b.node(&transpose, &[x]);
    let y = b.anchor(&matmul, &[x, X(1)]);
    let group = b.finish(&[y]);
    expect![[r#"
        nest view_transpose_matmul
          in    a: f32[16, 12]
          in    b: f32[2, 3, 5, 4]
          out   y: f32[2, 3, 8, 5]
          for b0 in 2, b1 in 3, i in 8, j in 5:
            register acc: f32
            init: acc = 0.0
            for k in 4:
              update: acc += a[b0 * 8 + i, b1 * 4 + k] * b[b0, b1, j, k]
            store: y[b0, b1, i, j] = acc
    "#]]
    .assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(1);
    check_group(&group, &[random(&mut rng, &[16, 12]), random(&mut rng, &[2, 3, 5, 4])]);
}

#[test]
fn pad_and_relu_into_conv() {
    let (conv, relu) = (conv(0), relu());
    let pad = Pad {
        pads: vec![(0, 0), (0, 0), (1, 2), (0, 1)],
        mode: PadMode::Constant(Literal::zero(DType::F32)),
    };
    let shapes: [&[usize]; 2] = [&[1, 2, 5, 5], &[3, 2, 3, 3]];
    let mut b = Builder::new(&shapes.map(f32s));
    let x = b.node(&relu, &[X(0)]);
    let x = b.node(&pad, &[x]);
    let y = b.anchor(&conv, &[x, X(1)]);
    let group = b.finish(&[y]);
    expect![[r#"
        nest relu_pad_conv
          in    x: f32[1, 2, 5, 5]
          in    w: f32[3, 2, 3, 3]
          out   y: f32[1, 3, 6, 4]
          for k in 3, p in 6, q in 4:
            register acc: f32
            init: acc = 0.0
            for c in 2, r in 3, s in 3:
              update: acc += guard(p + r >= 1 and p + r < 6 and q + s < 5, max(x[0, c, p + r + -1, q + s], 0.0)) * w[k, c, r, s]
            store: y[0, k, p, q] = acc
    "#]].assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(1);
    check_group(&group, &shapes.map(|shape| random(&mut rng, shape)));
}

#[test]
fn normalisation_of_groups_with_scale() {
    // Group normalisation: [n, c, h, w] seen as [n, groups, rest], normalised, seen as it was, scaled per channel.
    let (split, joined) = (View { shape: vec![2, 2, 27] }, View { shape: vec![2, 6, 3, 3] });
    let normalize = Normalize { axis: 2, epsilon: 1e-5, center: true };
    let scale = Map { scalar: Scalar::Input(0).binary(BinaryOp::Mul, Scalar::Input(1)) };
    let mut b = Builder::new(&[f32s(&[2, 6, 3, 3]), f32s(&[6, 1, 1])]);
    let x = b.node(&split, &[X(0)]);
    let y = b.anchor(&normalize, &[x]);
    let y = b.node(&joined, &[y]);
    let y = b.node(&scale, &[y, X(1)]);
    let group = b.finish(&[y]);
    expect![[r#"
        nest view_normalize_view_mul
          in    x: f32[2, 54]
          in    x0: f32[6]
          out   y: f32[2, 54]
          for i0 in 2, i1 in 2:
            register sum: f32
            init_sum: sum = 0.0
            for r in 27:
              update_sum: sum += x[i0, i1 * 27 + r]
            register mean: f32
            mean: mean = sum / 27.0
            register squares: f32
            init_squares: squares = 0.0
            for r in 27:
              update_squares: squares += (x[i0, i1 * 27 + r] - mean) * (x[i0, i1 * 27 + r] - mean)
            register scale: f32
            scale: scale = 1.0 / sqrt(squares / 27.0 + 1e-5)
            for r in 27:
              store: y[i0, i1 * 27 + r] = (x[i0, i1 * 27 + r] - mean) * scale * x0[i1 * 3 + r // 9]
    "#]]
    .assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(1);
    check_group(&group, &[random(&mut rng, &[2, 6, 3, 3]), random(&mut rng, &[6, 1, 1])]);
}

#[test]
fn elementwise_groups_share_their_loops() {
    let (add, relu) = (add(), relu());
    let (slice, concat) = (
        Slice { axes: vec![SliceAxis::all(4), SliceAxis { start: 2, step: 1, size: 3 }] },
        Concat { axis: 1 },
    );
    let mut b = Builder::new(&[f32s(&[4, 5]), f32s(&[4, 3])]);
    let part = b.node(&slice, &[X(0)]);
    let sum = b.node(&add, &[part, X(1)]);
    let out = b.node(&relu, &[sum]);
    let all = b.node(&concat, &[out, X(0)]);
    let group = b.finish(&[sum, out, all]);
    expect![[r#"
        nest slice_add_relu_concat
          in    x0: f32[4, 5]
          in    x1: f32[4, 3]
          out   y: f32[4, 3]
          out   y1: f32[4, 3]
          out   y2: f32[4, 8]
          for i0 in 4, i1 in 3:
            store: y[i0, i1] = x0[i0, i1 + 2] + x1[i0, i1]
            store1: y1[i0, i1] = max(x0[i0, i1 + 2] + x1[i0, i1], 0.0)
          for i0 in 4, i1 in 3:
            store2: y2[i0, i1] = max(x0[i0, i1 + 2] + x1[i0, i1], 0.0)
          for i0 in 4, i1 in 5:
            store3: y2[i0, i1 + 3] = x0[i0, i1]
    "#]]
    .assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(1);
    check_group(&group, &[random(&mut rng, &[4, 5]), random(&mut rng, &[4, 3])]);
}

#[test]
fn concat_can_be_read_and_followed() {
    let (concat, relu, flip) = (Concat { axis: 0 }, relu(), Transpose { perm: vec![1, 0] });
    let shapes: [&[usize]; 3] = [&[2, 3], &[1, 3], &[4, 3]];
    let mut rng = Random::new(1);
    let tensors = shapes.map(|shape| random(&mut rng, shape));
    let mut b = Builder::new(&shapes.map(f32s));
    let y = b.anchor(&concat, &[X(0), X(1), X(2)]);
    let y = b.node(&relu, &[y]);
    let y = b.node(&flip, &[y]);
    let followed = b.finish(&[y]);
    expect![[r#"
        nest concat_relu_transpose
          in    x0: f32[2, 3]
          in    x1: f32[3]
          in    x2: f32[4, 3]
          out   y: f32[3, 7]
          for i0 in 2, i1 in 3:
            store: y[i1, i0] = max(x0[i0, i1], 0.0)
          for i0 in 3:
            store1: y[i0, 2] = max(x1[i0], 0.0)
          for i0 in 4, i1 in 3:
            store2: y[i1, i0 + 3] = max(x2[i0, i1], 0.0)
    "#]]
    .assert_eq(&define_group(&followed, &[]).unwrap().to_string());
    check_group(&followed, &tensors);
    let mut b = Builder::new(&shapes.map(f32s));
    let y = b.node(&concat, &[X(0), X(1), X(2)]);
    let y = b.node(&relu, &[y]);
    let read = b.finish(&[y]);
    expect![[r#"
        nest concat_relu
          in    x0: f32[2, 3]
          in    x1: f32[3]
          in    x2: f32[4, 3]
          out   y: f32[7, 3]
          for i0 in 7, i1 in 3:
            store: y[i0, i1] = max(select(i0 < 2, guard(i0 < 2, x0[i0, i1]), select(i0 < 3, guard(i0 >= 2 and i0 < 3, x1[i1]), guard(i0 >= 3, x2[i0 + -3, i1]))), 0.0)
    "#]].assert_eq(&define_group(&read, &[]).unwrap().to_string());
    check_group(&read, &tensors);
}

#[test]
fn groups_that_do_not_fit_are_refused() {
    let (softmax, add) = (Softmax { axis: 1, log: false }, add());
    let sum = Reduce { kind: ReduceKind::Sum, axes: vec![1], keep: true };
    let mut b = Builder::new(&[f32s(&[4, 5])]);
    let y = b.node(&softmax, &[X(0)]);
    let y = b.node(&add, &[y, X(0)]);
    let error = define_group(&b.finish(&[y]), &[]).unwrap_err();
    assert_eq!(error, DefineError::NotInline { node: 0, label: "softmax".into() });
    let mut b = Builder::new(&[f32s(&[4, 5])]);
    let y = b.anchor(&sum, &[X(0)]);
    let y = b.node(&add, &[X(0), y]);
    let error = define_group(&b.finish(&[y]), &[]).unwrap_err();
    assert_eq!(error, DefineError::CannotFollow { node: 1, label: "add".into() });
    assert!(matches!(y, Node(1, 0)));
    let scatter = ScatterNd { reduction: ScatterReduction::Add };
    let mut b = Builder::new(&[f32s(&[4, 5]), Fact::new(DType::I64, &[2, 1]), f32s(&[2, 5])]);
    let y = b.anchor(&scatter, &[X(0), X(1), X(2)]);
    let y = b.node(&add, &[y, X(0)]);
    let error = define_group(&b.finish(&[y]), &[]).unwrap_err();
    assert_eq!(error, DefineError::CannotFollow { node: 1, label: "add".into() });
}

#[test]
fn only_what_an_output_needs_has_to_follow() {
    let (concat, add) = (Concat { axis: 0 }, add());
    let slice = Slice { axes: vec![SliceAxis { start: 1, step: 1, size: 2 }, SliceAxis::all(3)] };
    let mut b = Builder::new(&[f32s(&[2, 3]), f32s(&[2, 3])]);
    let all = b.node(&concat, &[X(0), X(1)]);
    let part = b.node(&slice, &[all]);
    let sum = b.node(&add, &[part, X(0)]);
    let group = b.finish(&[all, sum]);
    let mut rng = Random::new(1);
    check_group(&group, &[random(&mut rng, &[2, 3]), random(&mut rng, &[2, 3])]);
}

#[test]
fn long_chains_of_shared_values_are_defined_quickly() {
    // Each link reads the one before twice.
    let swish =
        Map { scalar: Scalar::Input(0).binary(BinaryOp::Mul, Scalar::Input(0).unary(UnaryOp::Sigmoid)) };
    let mut b = Builder::new(&[f32s(&[2, 3, 4])]);
    let mut x = X(0);
    for _ in 0..60 {
        x = b.node(&swish, &[x]);
    }
    let nest = define_group(&b.finish(&[x]), &[]).unwrap();
    assert_eq!(nest.block("store").unwrap().index.len(), 1);
}

/// A second result of the anchor, and a value before it, as outputs.
#[test]
fn outputs_come_from_before_and_after_the_anchor() {
    let (relu, add) = (relu(), add());
    let top = TopK { k: 2, axis: 1, largest: true };
    let mut b = Builder::new(&[f32s(&[3, 5]), f32s(&[3, 2])]);
    let x = b.node(&relu, &[X(0)]);
    let y = b.anchor(&top, &[x]);
    let sum = b.node(&add, &[y, X(1)]);
    let group = b.finish(&[x, sum, Node(1, 1)]);
    let mut rng = Random::new(1);
    check_group(&group, &[random(&mut rng, &[3, 5]), random(&mut rng, &[3, 2])]);
}

/// A convolution of each channel by itself and a rectifier, whose result a 1x1 convolution keeps.
fn depthwise_and_pointwise<'a>(
    depthwise: &'a Conv,
    pointwise: &'a Conv,
    relu: &'a Map,
    shapes: &[Fact],
) -> Group<'a> {
    let mut b = Builder::new(shapes);
    let y = b.node(depthwise, &[X(0), X(1), X(2)]);
    let y = b.node(relu, &[y]);
    let kept = b.keep(y);
    let y = b.anchor(pointwise, &[kept, X(3)]);
    let y = b.node(relu, &[y]);
    b.finish(&[y])
}

#[test]
fn a_kept_value_has_loops_of_its_own() {
    let (depthwise, pointwise, relu) = (Conv { groups: 4, ..conv(1) }, conv(0), relu());
    let shapes: [&[usize]; 4] = [&[2, 4, 6, 6], &[4, 1, 3, 3], &[4], &[8, 4, 1, 1]];
    let group = depthwise_and_pointwise(&depthwise, &pointwise, &relu, &shapes.map(f32s));
    expect![[r#"
        nest conv_relu_conv_relu
          in    x: f32[2, 4, 6, 6]
          in    x0: f32[4, 1, 3, 3]
          in    x1: f32[4]
          in    w: f32[8, 4, 1, 1]
          out   y: f32[2, 8, 6, 6]
          global t: f32[2, 4, 6, 6]
          for t.n in 2, t.g in 4, t.p in 6, t.q in 6:
            register t.acc: f32
            init_t.acc: t.acc = 0.0
            for t.r in 3, t.s in 3:
              update_t.acc: t.acc += guard(t.p + t.r >= 1 and t.p + t.r < 7 and (t.q + t.s >= 1 and t.q + t.s < 7), x[t.n, t.g, t.p + t.r + -1, t.q + t.s + -1]) * x0[t.g, 0, t.r, t.s]
            make_t: t[t.n, t.g, t.p, t.q] = max(t.acc + x1[t.g], 0.0)
          for n in 2, k in 8, p in 6, q in 6:
            register acc: f32
            init: acc = 0.0
            for c in 4:
              update: acc += t[n, c, p, q] * w[k, c, 0, 0]
            store: y[n, k, p, q] = max(acc, 0.0)
    "#]].assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(5);
    check_group(&group, &shapes.map(|shape| random(&mut rng, shape)));
}

#[test]
fn a_kept_value_lies_in_blocks_where_its_operand_does() {
    let (scale, pointwise) = (Map { scalar: Scalar::Input(0).times(Scalar::Input(1)) }, conv(0));
    let shapes: [&[usize]; 3] = [&[1, 24, 6, 6], &[1, 24, 1, 1], &[8, 24, 1, 1]];
    let mut b = Builder::new(&shapes.map(f32s));
    let y = b.node(&scale, &[X(0), X(1)]);
    let kept = b.keep(y);
    let y = b.anchor(&pointwise, &[kept, X(2)]);
    let group = b.finish(&[y]);
    let (rows, blocks) = (MemoryLayout::Rows, MemoryLayout::ChannelBlocks(16));
    expect![[r#"
        nest mul_conv
          in    x: f32[1, 2, 6, 6, 16]
          in    x0: f32[1, 24, 1, 1]
          in    w: f32[8, 24, 1, 1]
          out   y: f32[1, 1, 6, 6, 16]
          global t: f32[1, 2, 6, 6, 16]
          for t.i0.0 in 2, t.i1 in 6, t.i2 in 6, t.i0.1 in 16:
            make_t: t[0, t.i0.0, t.i1, t.i2, t.i0.1] = x[0, t.i0.0, t.i1, t.i2, t.i0.1] * guard(t.i0.0 * 16 + t.i0.1 < 24, x0[0, t.i0.0 * 16 + t.i0.1, 0, 0])
          for k.0 in 1, p in 6, q in 6, k.1 in 16:
            register acc: f32
            init: acc = 0.0
            for c.0 in 2, c.1 in 16:
              update: acc += t[0, c.0, p, q, c.1] * guard(k.1 < 8, w[k.1, c.0 * 16 + c.1, 0, 0]) if c.0 * 16 + c.1 < 24
            store: y[0, 0, p, q, k.1] = acc
    "#]].assert_eq(&define_group(&group, &[blocks, rows, rows, blocks]).unwrap().to_string());
    let mut rng = Random::new(6);
    check_group(&group, &shapes.map(|shape| random(&mut rng, shape)));
}

#[test]
fn an_attention_keeps_its_scores_and_their_softmax() {
    let (scores, product) = (MatMul { transpose_b: true, ..MatMul::default() }, MatMul::default());
    let scale = Map { scalar: Scalar::Input(0).times(Scalar::constant(0.5, DType::F32)) };
    let softmax = Softmax { axis: 2, log: false };
    let shapes: [&[usize]; 3] = [&[2, 5, 4], &[2, 7, 4], &[2, 7, 3]];
    let mut b = Builder::new(&shapes.map(f32s));
    let y = b.node(&scores, &[X(0), X(1)]);
    let y = b.node(&scale, &[y]);
    let y = b.keep(y);
    let y = b.node(&softmax, &[y]);
    let y = b.keep(y);
    let y = b.anchor(&product, &[y, X(2)]);
    let group = b.finish(&[y]);
    expect![[r#"
        nest matmul_mul_softmax_matmul
          in    a: f32[2, 5, 4]
          in    x0: f32[2, 7, 4]
          in    b: f32[2, 7, 3]
          out   y: f32[2, 5, 3]
          global t: f32[2, 5, 7]
          for t.b0 in 2, t.i in 5, t.j in 7:
            register t.acc: f32
            init_t.acc: t.acc = 0.0
            for t.k in 4:
              update_t.acc: t.acc += a[t.b0, t.i, t.k] * x0[t.b0, t.j, t.k]
            make_t: t[t.b0, t.i, t.j] = t.acc * 0.5
          global t1: f32[2, 5, 7]
          for t1.i0 in 2, t1.i1 in 5:
            register t1.peak: f32
            init_t1.peak: t1.peak = -inf
            for t1.r in 7:
              update_t1.peak: t1.peak max= t[t1.i0, t1.i1, t1.r]
            register t1.sum: f32
            init_t1.sum: t1.sum = 0.0
            for t1.r in 7:
              update_t1.sum: t1.sum += exp(t[t1.i0, t1.i1, t1.r] - t1.peak)
            for t1.r in 7:
              make_t1: t1[t1.i0, t1.i1, t1.r] = exp(t[t1.i0, t1.i1, t1.r] - t1.peak) / t1.sum
          for b0 in 2, i in 5, j in 3:
            register acc: f32
            init: acc = 0.0
            for k in 7:
              update: acc += t1[b0, i, k] * b[b0, k, j]
            store: y[b0, i, j] = acc
    "#]]
    .assert_eq(&define_group(&group, &[]).unwrap().to_string());
    let mut rng = Random::new(8);
    check_group(&group, &shapes.map(|shape| random(&mut rng, shape)));
}
