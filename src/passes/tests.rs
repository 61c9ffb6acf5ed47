use super::*;
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::{Op, ValueId};
use crate::ops::{
    Conv, Fact, Gather, Literal, Map, MatMul, Pad, PadMode, Pool, PoolKind, Reduce, ReduceKind, Scalar,
    Slice, SliceAxis, Softmax, Transpose, View,
};
use crate::target::{CpuIsa, CpuTarget};
use crate::tensor::{DType, MemoryLayout, Tensor};
use expect_test::{Expect, expect};

/// Adds a node of one output.
fn add(graph: &mut Graph, name: &str, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
    graph.add_node(name, op, inputs, &[name]).unwrap()[0]
}

fn input(graph: &mut Graph, name: &str, shape: &[usize]) -> ValueId {
    graph.add_input(name, Fact::new(DType::F32, shape))
}

fn constant(graph: &mut Graph, name: &str, shape: &[usize]) -> ValueId {
    graph.add_constant(name, Tensor::from_fn(DType::F32, shape, |i| i as f64 + 1.0))
}

fn conv(pad: usize) -> Conv {
    Conv {
        strides: vec![1; 2],
        dilations: vec![1; 2],
        pads: vec![(pad, pad); 2],
        groups: 1,
        edge: 0,
        algorithm: None,
    }
}

fn relu() -> Map {
    Map { scalar: Scalar::Input(0).max(Scalar::constant(0.0, DType::F32)) }
}

fn exp() -> Map {
    Map { scalar: Scalar::Input(0).unary(UnaryOp::Exp) }
}

fn sum() -> Map {
    Map { scalar: Scalar::Input(0).plus(Scalar::Input(1)) }
}

fn affine() -> Map {
    Map { scalar: Scalar::Input(0).times(Scalar::Input(1)).plus(Scalar::Input(2)) }
}

fn groups(graph: &Graph, expected: Expect) {
    graph.verify().unwrap();
    let text: String = group(graph, GroupPolicy::default())
        .iter()
        .map(|group| {
            let inputs: Vec<&str> =
                group.inputs.iter().map(|&value| graph.values()[value].name.as_str()).collect();
            format!("{} ({})\n", group.describe(graph), inputs.join(", "))
        })
        .collect();
    expected.assert_eq(&text);
}

#[test]
fn batch_norm_disappears_in_the_weights() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[1, 1, 4, 4]);
    let w = constant(&mut graph, "w", &[2, 1, 1, 2]);
    let scale = graph.add_constant("scale", Tensor::from_slice(&[2, 1, 1], &[2.0f32, 3.0]));
    let shift = graph.add_constant("shift", Tensor::from_slice(&[2, 1, 1], &[0.5f32, -0.5]));
    let c = add(&mut graph, "c", conv(0), &[x, w]);
    let n = add(&mut graph, "n", affine(), &[c, scale, shift]);
    let y = add(&mut graph, "y", relu(), &[n]);
    graph.add_output("y", y);
    let simplified = simplify(&graph);
    expect![[r#"
        graph test
          in    x: f32[1, 1, 4, 4]
          const w.scaled: f32[2, 1, 1, 2]
          const w.bias: f32[2]
          n: f32[1, 2, 4, 3] = conv(x, w.scaled, w.bias)
          y: f32[1, 2, 4, 3] = map(n) max(x0, 0.0)
          out   y
    "#]]
    .assert_eq(&simplified.to_string());
    let values = |name| simplified.constant(simplified.value_named(name).unwrap()).unwrap().to_f64_vec();
    assert_eq!(values("w.scaled"), [2.0, 4.0, 9.0, 12.0]);
    assert_eq!(values("w.bias"), [0.5, -0.5]);
}

#[test]
fn scales_of_products_disappear_in_the_weights() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[3, 2]);
    let w = constant(&mut graph, "w", &[2, 2]);
    let scale = graph.add_constant("scale", Tensor::from_slice(&[2], &[2.0f32, 3.0]));
    let shift = graph.add_constant("shift", Tensor::from_slice(&[2], &[1.0f32, 1.0]));
    let plain = add(&mut graph, "plain", MatMul::default(), &[x, w]);
    let plain = add(&mut graph, "plain_y", affine(), &[plain, scale, shift]);
    let op = MatMul { transpose_a: false, transpose_b: true };
    let transposed = add(&mut graph, "transposed", op, &[x, w]);
    let transposed = add(&mut graph, "transposed_y", affine(), &[transposed, scale, shift]);
    graph.add_output("plain", plain);
    graph.add_output("transposed", transposed);
    let simplified = simplify(&graph);
    let weights: Vec<Vec<f64>> = simplified
        .nodes()
        .iter()
        .filter(|node| matches!(node.op, Op::MatMul(_)))
        .map(|node| simplified.constant(node.inputs[1]).unwrap().to_f64_vec())
        .collect();
    assert_eq!(weights, [[2.0, 6.0, 6.0, 12.0], [2.0, 4.0, 9.0, 12.0]]);
}

#[test]
fn what_is_not_affine_by_channel_stays() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[1, 1, 4, 4]);
    let w = constant(&mut graph, "w", &[2, 1, 1, 1]);
    let by_column = constant(&mut graph, "by_column", &[4]);
    let a = add(&mut graph, "a", conv(0), &[x, w]);
    let b = add(&mut graph, "b", sum(), &[a, by_column]);
    let c = add(&mut graph, "c", conv(0), &[x, w]);
    let square = Map { scalar: Scalar::Input(0).times(Scalar::Input(0)) };
    let d = add(&mut graph, "d", square, &[c]);
    graph.add_output("b", b);
    graph.add_output("d", d);
    // The equal convolutions are one, so the map is not its only use either.
    assert_eq!(fold_affine(&graph).to_string(), graph.to_string());
    assert_eq!(simplify(&graph).nodes().len(), 3);
}

#[test]
fn layout_operators_join() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[2, 3, 4]);
    let a = add(&mut graph, "a", View { shape: vec![6, 4] }, &[x]);
    let b = add(&mut graph, "b", View { shape: vec![2, 3, 4] }, &[a]);
    let c = add(&mut graph, "c", Transpose { perm: vec![1, 0, 2] }, &[b]);
    let d = add(&mut graph, "d", Transpose { perm: vec![2, 1, 0] }, &[c]);
    let e = add(&mut graph, "e", View { shape: vec![4, 2, 1, 3] }, &[d]);
    let f = add(&mut graph, "f", Transpose { perm: vec![2, 0, 1, 3] }, &[e]);
    let g = add(&mut graph, "g", Map { scalar: Scalar::Input(0) }, &[f]);
    let all = Slice { axes: [1, 4, 2, 3].map(SliceAxis::all).to_vec() };
    let h = add(&mut graph, "h", all, &[g]);
    graph.add_output("h", h);
    expect![[r#"
        graph test
          in    x: f32[2, 3, 4]
          d: f32[4, 2, 3] = transpose(x) perm [2, 0, 1]
          f: f32[1, 4, 2, 3] = view(d)
          out   h = f
    "#]]
    .assert_eq(&simplify(&graph).to_string());
}

#[test]
fn pads_and_constants_fold() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[1, 1, 4, 4]);
    let w = constant(&mut graph, "w", &[1, 3, 1, 3]);
    let w = add(&mut graph, "wt", Transpose { perm: vec![2, 0, 1, 3] }, &[w]);
    let pad = Pad {
        pads: vec![(0, 0), (0, 0), (1, 2), (0, 1)],
        mode: PadMode::Constant(Literal::zero(DType::F32)),
    };
    let p = add(&mut graph, "p", pad, &[x]);
    let y = add(&mut graph, "y", conv(1), &[p, w]);
    graph.add_output("y", y);
    expect![[r#"
        graph test
          in    x: f32[1, 1, 4, 4]
          const wt: f32[1, 1, 3, 3]
          y: f32[1, 1, 7, 5] = conv(x, wt) pads [(2, 3), (1, 2)]
          out   y
    "#]]
    .assert_eq(&simplify(&graph).to_string());
}

#[test]
fn epilogues_stay_with_their_anchor() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[1, 2, 4, 4]);
    let w = constant(&mut graph, "w", &[2, 2, 3, 3]);
    let a = add(&mut graph, "a", conv(1), &[x, w]);
    let a = add(&mut graph, "ra", relu(), &[a]);
    let b = add(&mut graph, "b", conv(1), &[a, w]);
    // A swish: two uses of the product, both in the group.
    let gate = add(&mut graph, "gate", Map { scalar: Scalar::Input(0).unary(UnaryOp::Sigmoid) }, &[b]);
    let product = Map { scalar: Scalar::Input(0).times(Scalar::Input(1)) };
    let swish = add(&mut graph, "swish", product, &[b, gate]);
    let residual = add(&mut graph, "residual", sum(), &[swish, x]);
    let view = add(&mut graph, "view", View { shape: vec![2, 16] }, &[residual]);
    let moved = add(&mut graph, "moved", Transpose { perm: vec![1, 0] }, &[view]);
    let softmax = add(&mut graph, "softmax", Softmax { axis: 1, log: false }, &[moved]);
    graph.add_output("softmax", softmax);
    groups(
        &graph,
        expect![[r#"
            conv + map -> ra (x, w)
            conv + map + map + map + view + transpose -> moved (ra, w, x)
            softmax -> softmax (moved)
        "#]],
    );
}

#[test]
fn a_contraction_transposes_its_operand_itself() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[5, 4]);
    let mut projected = |name: &str, perm: &[usize]| {
        let w = constant(&mut graph, &format!("{name}_w"), &[4, 6]);
        let bias = constant(&mut graph, &format!("{name}_b"), &[6]);
        let product = add(&mut graph, &format!("{name}_p"), MatMul::default(), &[x, w]);
        let biased = add(&mut graph, &format!("{name}_s"), sum(), &[product, bias]);
        let heads = add(&mut graph, &format!("{name}_v"), View { shape: vec![5, 2, 3] }, &[biased]);
        add(&mut graph, name, Transpose { perm: perm.to_vec() }, &[heads])
    };
    let queries = projected("q", &[1, 0, 2]);
    let keys = projected("k", &[1, 2, 0]);
    let scores = add(&mut graph, "scores", MatMul::default(), &[queries, keys]);
    graph.add_output("scores", scores);
    groups(
        &graph,
        expect![[r#"
            matmul + map + view + transpose -> q (x, q_w, q_b)
            matmul + map -> k_s (x, k_w, k_b)
            view + transpose + matmul -> scores (k_s, q)
        "#]],
    );
}

#[test]
fn elements_read_at_two_places_keep_groups_apart() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[4, 4]);
    let w = constant(&mut graph, "w", &[4, 4]);
    let a = add(&mut graph, "a", MatMul::default(), &[x, w]);
    let t = add(&mut graph, "t", Transpose { perm: vec![1, 0] }, &[a]);
    let symmetric = add(&mut graph, "symmetric", sum(), &[a, t]);
    graph.add_output("y", symmetric);
    groups(
        &graph,
        expect![[r#"
            matmul -> a (x, w)
            transpose + map -> symmetric (a)
        "#]],
    );
}

#[test]
fn cheap_operands_are_computed_where_they_are_read() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[1, 2, 4, 4]);
    let w = constant(&mut graph, "w", &[2, 2, 3, 3]);
    let softmax = || Softmax { axis: 3, log: false };
    let cheap = add(&mut graph, "cheap", relu(), &[x]);
    let a = add(&mut graph, "a", softmax(), &[cheap]);
    let expensive = add(&mut graph, "expensive", exp(), &[x]);
    let b = add(&mut graph, "b", softmax(), &[expensive]);
    let packed = add(&mut graph, "packed", relu(), &[x]);
    let f = add(&mut graph, "f", conv(1), &[packed, w]);
    let once = add(&mut graph, "once", exp(), &[x]);
    let mean = Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep: false };
    let c = add(&mut graph, "c", mean, &[once]);
    let pad = Pad { pads: vec![(0, 0), (0, 0), (1, 1), (1, 1)], mode: PadMode::Edge };
    let shared = add(&mut graph, "shared", pad, &[x]);
    let d = add(&mut graph, "d", conv(0), &[shared, w]);
    let e = add(&mut graph, "e", conv(0), &[shared, w]);
    for (name, value) in [("a", a), ("b", b), ("c", c), ("d", d), ("e", e), ("f", f)] {
        graph.add_output(name, value);
    }
    groups(
        &graph,
        expect![[r#"
            map + softmax -> a (x)
            map -> expensive (x)
            softmax -> b (expensive)
            map -> packed (x)
            conv -> f (packed, w)
            map + reduce_mean -> c (x)
            pad -> shared (x)
            conv -> d (shared, w)
            conv -> e (shared, w)
        "#]],
    );
}

#[test]
fn what_is_repeated_must_be_cheap() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[4]);
    let wide = input(&mut graph, "wide", &[8, 4]);
    let indices = graph.add_input("indices", Fact::new(DType::I64, &[8]));
    let table = input(&mut graph, "table", &[100, 4]);
    let expensive = add(&mut graph, "expensive", exp(), &[x]);
    let cheap = add(&mut graph, "cheap", relu(), &[x]);
    let a = add(&mut graph, "a", sum(), &[wide, expensive]);
    let b = add(&mut graph, "b", sum(), &[wide, cheap]);
    let rows = add(&mut graph, "rows", Gather { axis: 0 }, &[table, indices]);
    let c = add(&mut graph, "c", sum(), &[rows, wide]);
    let mut many = c;
    for i in 0..8 {
        let more = input(&mut graph, &format!("more{i}"), &[8, 4]);
        many = add(
            &mut graph,
            &format!("sum{i}"),
            Map { scalar: Scalar::Input(0).binary(BinaryOp::Sub, Scalar::Input(1)) },
            &[many, more],
        );
    }
    for (name, value) in [("a", a), ("b", b), ("c", many)] {
        graph.add_output(name, value);
    }
    groups(
        &graph,
        expect![[r#"
            map -> expensive (x)
            map -> a (wide, expensive)
            map + map -> b (x, wide)
            gather + map + map + map -> sum1 (table, indices, wide, more0, more1)
            map + map + map + map + map + map -> sum7 (sum1, more2, more3, more4, more5, more6, more7)
        "#]],
    );
}

/// As a tree, the 20th sum of a value with itself has a million leaves.
#[test]
fn doubled_values_are_not_written_out_without_limit() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[4]);
    let last = (0..20).fold(x, |value, i| add(&mut graph, &format!("t{i}"), sum(), &[value, value]));
    graph.add_output("y", last);
    groups(
        &graph,
        expect![[r#"
        map + map -> t1 (x)
        map + map + map + map + map + map + map + map + map -> t10 (t1)
        map + map + map + map + map + map + map + map + map -> t19 (t10)
    "#]],
    );
}

/// The second axis of the sum has as many elements as a view gives it, and no channels.
#[test]
fn products_have_channels_only_behind_transposes() {
    let layouts = |transposed: bool| {
        let mut graph = Graph::new("test");
        let x = input(&mut graph, "x", &[1, 4, 4, 16]);
        let w = graph.add_constant("w", Tensor::zeros(DType::F32, &[16, 16]));
        let y = add(&mut graph, "y", MatMul::default(), &[x, w]);
        let y = if transposed {
            add(&mut graph, "moved", Transpose { perm: vec![0, 3, 1, 2] }, &[y])
        } else {
            add(&mut graph, "viewed", View { shape: vec![1, 16, 4, 4] }, &[y])
        };
        let other = input(&mut graph, "other", &[1, 16, 4, 4]);
        let y = add(&mut graph, "sum", sum(), &[y, other]);
        graph.add_output("y", y);
        let groups = group(&graph, GroupPolicy::default());
        let layouts = lay_out(&graph, &groups, 8);
        layouts.into_iter().flat_map(|layout| layout.outputs).collect::<Vec<_>>()
    };
    assert_eq!(layouts(true), [MemoryLayout::ChannelBlocks(8)]);
    assert_eq!(layouts(false), [MemoryLayout::Rows]);
}

#[test]
fn windows_of_one_element_go() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[1, 8, 6, 6]);
    let pool = |kind, extent| Pool {
        kind,
        kernel: vec![extent; 2],
        strides: vec![1; 2],
        dilations: vec![1; 2],
        pads: vec![(0, 0); 2],
        overhang: vec![0; 2],
    };
    let single = add(&mut graph, "single", pool(PoolKind::Average, 1), &[x]);
    let norm = add(&mut graph, "norm", pool(PoolKind::Norm(2), 1), &[single]);
    let several = add(&mut graph, "several", pool(PoolKind::Max, 2), &[norm]);
    graph.add_output("y", several);
    let after = simplify_layout(&graph);
    let left: Vec<&str> = after.nodes().iter().map(|node| node.op.def().name()).collect();
    assert_eq!(left, ["norm_pool", "max_pool"]);
}

#[test]
fn scalars_lose_what_does_nothing() {
    let x = || Scalar::Input(0);
    let number = |value: f64| Scalar::constant(value, DType::F32);
    let power = |exponent: f64| x().binary(BinaryOp::Pow, number(exponent));
    for (scalar, simple) in [
        (number(1.0).times(x()).over(number(1.0)), x()),
        (x().binary(BinaryOp::Sub, number(0.0)), x()),
        (x().plus(number(0.0)), x().plus(number(0.0))),
        (x().unary(UnaryOp::Neg).unary(UnaryOp::Neg), x()),
        (x().cast(DType::F32).unary(UnaryOp::Exp), x().unary(UnaryOp::Exp)),
        (x().cast(DType::F16).cast(DType::F32), x().cast(DType::F16).cast(DType::F32)),
        (power(1.0), x()),
        (power(2.0), x().times(x())),
        (power(3.0), x().times(x()).times(x())),
        (power(-1.0), number(1.0).over(x())),
        (power(0.5), power(0.5)),
    ] {
        let mut graph = Graph::new("test");
        let x = input(&mut graph, "x", &[4]);
        let y = add(&mut graph, "y", Map { scalar: scalar.clone() }, &[x]);
        graph.add_output("y", y);
        let after = simplify_scalars(&graph);
        let [node] = &after.nodes().iter().collect::<Vec<_>>()[..] else { panic!("{after}") };
        assert_eq!(node.op, Map { scalar: simple }.into(), "{scalar:?}");
    }
}

#[test]
fn groups_of_few_channels_merge_until_they_fill_blocks() {
    let avx2 = CpuTarget::preset(CpuIsa::Avx2, 2);
    let mut graph = Graph::new("test");
    let x = input(&mut graph, "x", &[1, 16, 3, 3]);
    let b = constant(&mut graph, "b", &[16]);
    for (name, groups) in [("halves", 2), ("fours", 4), ("pairs", 8), ("depthwise", 16)] {
        let w = constant(&mut graph, &format!("w_{name}"), &[16, 16 / groups, 1, 1]);
        let y = add(&mut graph, name, Conv { groups, ..conv(0) }, &[x, w, b]);
        graph.add_output(name, y);
    }
    let merged = merge_channel_groups(&graph, &avx2);
    expect![[r#"
        graph test
          in    x: f32[1, 16, 3, 3]
          const w_halves: f32[16, 8, 1, 1]
          const b: f32[16]
          const w_fours.merged: f32[16, 8, 1, 1]
          const w_pairs.merged: f32[16, 8, 1, 1]
          const w_depthwise: f32[16, 1, 1, 1]
          halves: f32[1, 16, 3, 3] = conv(x, w_halves, b) groups 2
          fours: f32[1, 16, 3, 3] = conv(x, w_fours.merged, b) groups 2
          pairs: f32[1, 16, 3, 3] = conv(x, w_pairs.merged, b) groups 2
          depthwise: f32[1, 16, 3, 3] = conv(x, w_depthwise, b) groups 16
          out   halves
          out   fours
          out   pairs
          out   depthwise
    "#]]
    .assert_eq(&merged.to_string());
    let weights = merged.constant(merged.value_named("w_fours.merged").unwrap()).unwrap().to_f64_vec();
    let rows: Vec<&[f64]> = weights.chunks(8).collect();
    assert_eq!(rows[0], [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(rows[7], [0.0, 0.0, 0.0, 0.0, 29.0, 30.0, 31.0, 32.0]);
    assert_eq!(rows[8], [33.0, 34.0, 35.0, 36.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn narrow_floats_become_f32_between_inputs_and_outputs() {
    let half = DType::F16;
    let mut graph = Graph::new("test");
    let x = graph.add_input("x", Fact::new(half, &[1, 1, 4, 4]));
    let w = graph.add_constant("w", Tensor::from_fn(half, &[2, 1, 3, 3], |i| i as f64));
    let pads = vec![(0, 0), (0, 0), (1, 1), (1, 1)];
    let pad = Pad { pads, mode: PadMode::Constant(Literal::new(1.0, half)) };
    let padded = add(&mut graph, "padded", pad, &[x]);
    let sums = add(&mut graph, "sums", conv(0), &[padded, w]);
    let limited = Scalar::Input(0).max(Scalar::constant(0.0, half)).cast(DType::F32);
    let y = add(&mut graph, "y", Map { scalar: limited.times(Scalar::constant(0.5, DType::F32)) }, &[sums]);
    let z = add(&mut graph, "z", Map { scalar: Scalar::Input(0).cast(half) }, &[y]);
    graph.add_output("y", y);
    graph.add_output("z", z);
    let wide = widen_floats(&graph, &[half, DType::BF16], Weights::Widened);
    wide.verify().unwrap();
    expect![[r#"
        graph test
          in    x: f16[1, 1, 4, 4]
          const w: f32[2, 1, 3, 3]
          x.f32: f32[1, 1, 4, 4] = map(x) f32(x0)
          padded: f32[1, 1, 6, 6] = pad(x.f32) pads [(0, 0), (0, 0), (1, 1), (1, 1)], value 1.0
          sums: f32[1, 2, 4, 4] = conv(padded, w)
          y: f32[1, 2, 4, 4] = map(sums) f32(max(x0, 0.0)) * 0.5
          z: f32[1, 2, 4, 4] = map(y) f32(x0)
          z.f16: f16[1, 2, 4, 4] = map(z) f16(x0)
          out   y
          out   z = z.f16
    "#]]
    .assert_eq(&wide.to_string());
    // Weights of a convolution of each channel by itself are not kept, those of others are.
    let mut kept = Graph::new("test");
    let x = kept.add_input("x", Fact::new(half, &[1, 2, 4, 4]));
    let w = kept.add_constant("w", Tensor::from_fn(half, &[2, 2, 3, 3], |i| i as f64));
    let y = add(&mut kept, "y", conv(1), &[x, w]);
    let lanes = kept.add_constant("lanes", Tensor::from_fn(half, &[2, 1, 3, 3], |i| i as f64));
    let z = add(&mut kept, "z", Conv { groups: 2, ..conv(1) }, &[y, lanes]);
    kept.add_output("z", z);
    expect![[r#"
        graph test
          in    x: f16[1, 2, 4, 4]
          const w: f16[2, 2, 3, 3]
          const lanes: f32[2, 1, 3, 3]
          x.f32: f32[1, 2, 4, 4] = map(x) f32(x0)
          y: f32[1, 2, 4, 4] = conv(x.f32, w) pads [(1, 1), (1, 1)]
          z: f32[1, 2, 4, 4] = conv(y, lanes) pads [(1, 1), (1, 1)], groups 2
          z.f16: f16[1, 2, 4, 4] = map(z) f16(x0)
          out   z = z.f16
    "#]]
    .assert_eq(&widen_floats(&kept, &[half], Weights::Kept).to_string());
    let bf16_only = widen_floats(&graph, &[DType::BF16], Weights::Widened);
    assert_eq!(bf16_only.to_string(), graph.to_string());
}

#[test]
fn weights_are_stored_in_half_their_bytes_where_nothing_is_lost() {
    let mut graph = Graph::new("test");
    // Values of 10 bits, of 8 bits that are too large for f16, or of more than either type has.
    let weights = |graph: &mut Graph, name: &str| {
        let value = |i: usize| match name {
            "brain" => ((i / 4) << 20) as f64,
            "single" => i as f64 / 3.0,
            _half => i as f64,
        };
        graph.add_constant(name, Tensor::from_fn(DType::F32, &[32, 32], value))
    };
    let mut x = input(&mut graph, "x", &[32, 32]);
    for name in ["half", "brain", "single"] {
        let w = weights(&mut graph, name);
        x = add(&mut graph, &format!("{name}_y"), MatMul::default(), &[x, w]);
    }
    let shared = weights(&mut graph, "shared");
    let product = add(&mut graph, "product", MatMul::default(), &[x, shared]);
    let sum = Map { scalar: Scalar::Input(0).plus(Scalar::Input(1)) };
    let y = add(&mut graph, "y", sum, &[product, shared]);
    graph.add_output("y", y);
    expect![[r#"
        graph test
          in    x: f32[32, 32]
          const half: f16[32, 32]
          const brain: bf16[32, 32]
          const single: f32[32, 32]
          const shared: f32[32, 32]
          half_y: f32[32, 32] = matmul(x, half)
          brain_y: f32[32, 32] = matmul(half_y, brain)
          single_y: f32[32, 32] = matmul(brain_y, single)
          product: f32[32, 32] = matmul(single_y, shared)
          y: f32[32, 32] = map(product, shared) x0 + x1
          out   y
    "#]]
    .assert_eq(&narrow_weights(graph).to_string());
}

#[test]
fn a_pointwise_convolution_keeps_a_large_operand() {
    let mut target = CpuTarget::preset(CpuIsa::Avx512, 2);
    target.l2_bytes = 1 << 16;
    let check = |side: usize, also_output: bool, expected: Expect| {
        let mut graph = Graph::new("test");
        let x = input(&mut graph, "x", &[1, 16, side, side]);
        let own = constant(&mut graph, "own", &[16, 1, 3, 3]);
        let w = constant(&mut graph, "w", &[16, 16, 1, 1]);
        let depthwise = add(&mut graph, "depthwise", Conv { groups: 16, ..conv(1) }, &[x, own]);
        let limited = add(&mut graph, "limited", relu(), &[depthwise]);
        let first = add(&mut graph, "first", conv(0), &[limited, w]);
        let mean = add(
            &mut graph,
            "mean",
            Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep: true },
            &[first],
        );
        let scaled = add(
            &mut graph,
            "scaled",
            Map { scalar: Scalar::Input(0).times(Scalar::Input(1)) },
            &[first, mean],
        );
        let second = add(&mut graph, "second", conv(0), &[scaled, w]);
        graph.add_output("second", second);
        if also_output {
            graph.add_output("limited", limited);
            graph.add_output("scaled", scaled);
        }
        let groups = keep_operands(&graph, group(&graph, GroupPolicy::default()), &target);
        let text: Vec<String> = groups
            .iter()
            .map(|group| format!("{} keeps {}\n", group.describe(&graph), group.kept.len()))
            .collect();
        expected.assert_eq(&text.concat());
    };
    check(
        16,
        false,
        expect![[r#"
        conv + map + conv -> first keeps 1
        reduce_mean -> mean keeps 0
        map + conv -> second keeps 1
    "#]],
    );
    // What fits the cache, and what is read elsewhere.
    check(
        14,
        false,
        expect![[r#"
        conv + map -> limited keeps 0
        conv -> first keeps 0
        reduce_mean -> mean keeps 0
        map -> scaled keeps 0
        conv -> second keeps 0
    "#]],
    );
    check(
        16,
        true,
        expect![[r#"
        conv + map -> limited keeps 0
        conv -> first keeps 0
        reduce_mean -> mean keeps 0
        map -> scaled keeps 0
        conv -> second keeps 0
    "#]],
    );
}
