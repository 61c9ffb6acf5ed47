use super::*;
use crate::expr::{BinaryOp, UnaryOp};
use crate::ops::{
    Broadcast, Concat, Gather, Literal, Map, MatMul, Pad, PadMode, Reduce, ReduceKind, Scalar, Slice,
    SliceAxis, TopK, Transpose, View,
};
use crate::tensor::DType;
use expect_test::expect;

fn relu() -> Map {
    Map { scalar: Scalar::Input(0).max(Scalar::constant(0.0, DType::F32)) }
}

fn chain() -> Graph {
    let mut graph = Graph::new("chain");
    let x = graph.add_input("x", Fact::new(DType::F32, &[2, 3]));
    let w = graph.add_constant("w", Tensor::zeros(DType::F32, &[3, 4]));
    let unused = graph.add_constant("unused", Tensor::scalar(2.5f32));
    let h = graph.add_node("dense", MatMul::default(), &[x, w], &["h"]).unwrap()[0];
    let y = graph.add_node("relu", relu(), &[h], &["h"]).unwrap()[0];
    graph.add_node("dead", relu(), &[unused], &["z"]).unwrap();
    let best = graph.add_node("best", TopK { k: 1, axis: 1, largest: true }, &[y], &["v", "i"]).unwrap();
    graph.add_output("v", best[0]);
    graph.add_output("y", y);
    graph
}

#[test]
fn text_and_drawing() {
    let graph = chain();
    graph.verify().unwrap();
    expect![[r#"
        graph chain
          in    x: f32[2, 3]
          const w: f32[3, 4]
          const unused: f32[] = 2.5
          h: f32[2, 4] = matmul(x, w)
          h.1: f32[2, 4] = map(h) max(x0, 0.0)
          z: f32[] = map(unused) max(x0, 0.0)
          v: f32[2, 1], i: i64[2, 1] = top_k(h.1) k 1, axis 1
          out   v
          out   y = h.1
    "#]]
    .assert_eq(&graph.to_string());
    expect![[r#"
        digraph "chain" {
          node [shape=box]
          v0 [label="x", shape=ellipse]
          n0 [label="matmul"]
          v0 -> n0 [label="f32[2, 3]"]
          n1 [label="map\nmax(x0, 0.0)"]
          n0 -> n1 [label="f32[2, 4]"]
          n2 [label="top_k\nk 1, axis 1"]
          n1 -> n2 [label="f32[2, 4]"]
          o0 [label="v", shape=ellipse]
          n2 -> o0 [label="f32[2, 1]"]
          o1 [label="y", shape=ellipse]
          n1 -> o1 [label="f32[2, 4]"]
        }
    "#]]
    .assert_eq(&graph.pruned().to_dot());
}

#[test]
fn rewriting_keeps_names_and_drops_what_is_dead() {
    let graph = chain();
    let rewritten = graph.rewrite(|step| match step.node.op {
        Op::Map(_) => {
            let twice = step.add(relu(), &step.inputs.clone()).unwrap();
            Some(step.add(relu(), &twice).unwrap())
        }
        _ => None,
    });
    rewritten.verify().unwrap();
    expect![[r#"
        graph chain
          in    x: f32[2, 3]
          const w: f32[3, 4]
          h: f32[2, 4] = matmul(x, w)
          h.1: f32[2, 4] = map(h) max(x0, 0.0)
          h.1.1: f32[2, 4] = map(h.1) max(x0, 0.0)
          v: f32[2, 1], i: i64[2, 1] = top_k(h.1.1) k 1, axis 1
          out   v
          out   y = h.1.1
    "#]]
    .assert_eq(&rewritten.to_string());
    assert_eq!(rewritten.flop(rewritten.nodes().ids().next().unwrap()), 2 * 2 * 3 * 4);
    let uses = graph.uses();
    let h = graph.value_named("h").unwrap();
    assert!(uses.only(h).is_some());
    let y = graph.value_named("h.1").unwrap();
    assert!(uses.only(y).is_none() && uses.is_output(y));
}

#[test]
fn wrong_graphs_do_not_verify() {
    let mut graph = chain();
    assert!(graph.add_node("bad", Concat { axis: 7 }, &[graph.inputs()[0]], &["bad"]).is_err());
    graph.verify().unwrap();
    let mut wrong_fact = chain();
    let h = wrong_fact.value_named("h").unwrap();
    wrong_fact.values[h].fact.shape = vec![4, 2];
    assert!(matches!(wrong_fact.verify(), Err(VerifyError::Fact { .. })));
    let mut cyclic = chain();
    cyclic.nodes[Id::new(0)].inputs[0] = cyclic.value_named("h.1").unwrap();
    assert!(matches!(cyclic.verify(), Err(VerifyError::Order { .. })));
    let mut missing = chain();
    missing.nodes[Id::new(0)].inputs.pop();
    assert!(matches!(missing.verify(), Err(VerifyError::Node { .. })));
    let mut twice = chain();
    let x = twice.inputs()[0];
    twice.add_output("v", x);
    assert!(matches!(twice.verify(), Err(VerifyError::Value { .. })));
}

/// The result of an operator on constants, as numbers.
fn folded(op: impl Into<Op>, inputs: &[Tensor]) -> Option<Vec<f64>> {
    let op = op.into();
    let facts: Vec<Fact> = inputs.iter().map(Fact::of).collect();
    let outputs = op.def().infer(&facts.iter().collect::<Vec<_>>()).unwrap();
    let result = fold(&op, &inputs.iter().collect::<Vec<_>>(), &outputs)?.pop()?;
    assert_eq!(Fact::of(&result), outputs[0]);
    Some(result.to_f64_vec())
}

#[test]
fn data_movement_folds() {
    let x = Tensor::from_fn(DType::I32, &[2, 3], |i| i as f64);
    let transpose = Transpose { perm: vec![1, 0] };
    assert_eq!(folded(transpose, std::slice::from_ref(&x)).unwrap(), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(folded(View { shape: vec![6] }, std::slice::from_ref(&x)).unwrap(), [0., 1., 2., 3., 4., 5.]);
    let axes = vec![SliceAxis { start: 1, step: -1, size: 2 }, SliceAxis { start: 0, step: 2, size: 2 }];
    assert_eq!(folded(Slice { axes }, std::slice::from_ref(&x)).unwrap(), [3., 5., 0., 2.]);
    let row = Tensor::from_slice(&[3], &[7i32, 8, 9]);
    assert_eq!(folded(Broadcast { shape: vec![2, 3] }, &[row]).unwrap(), [7., 8., 9., 7., 8., 9.]);
    assert_eq!(folded(Concat { axis: 1 }, &[x.clone(), x.clone()]).unwrap()[..6], [0., 1., 2., 0., 1., 2.]);
    let indices = Tensor::from_slice(&[2], &[-1i64, 0]);
    assert_eq!(folded(Gather { axis: 1 }, &[x.clone(), indices]).unwrap(), [2., 0., 5., 3.]);
    let outside = Tensor::from_slice(&[1], &[3i64]);
    assert_eq!(folded(Gather { axis: 1 }, &[x.clone(), outside]), None);
    let pad = Pad { pads: vec![(1, 0), (0, 1)], mode: PadMode::Constant(Literal::Int(-1, DType::I32)) };
    assert_eq!(folded(pad, &[x]).unwrap(), [-1., -1., -1., -1., 0., 1., 2., -1., 3., 4., 5., -1.]);
}

#[test]
fn arithmetic_folds_exactly() {
    let large = Tensor::from_slice(&[2], &[(1i64 << 53) + 1, i64::MAX]);
    let plus_one = Map { scalar: Scalar::Input(0).plus(Scalar::Constant(Literal::Int(1, DType::I64))) };
    let op = Op::Map(plus_one);
    let result = fold(&op, &[&large], &[Fact::new(DType::I64, &[2])]).unwrap().pop().unwrap();
    assert_eq!(result.to_i64_vec().unwrap(), [(1 << 53) + 2, i64::MIN]);
    let bytes = Tensor::from_slice(&[2], &[200u8, 10]);
    let double = Map { scalar: Scalar::Input(0).plus(Scalar::Input(0)) };
    assert_eq!(folded(double, std::slice::from_ref(&bytes)).unwrap(), [144., 20.]);
    let test = Map {
        scalar: Scalar::Input(0)
            .cast(DType::F32)
            .binary(BinaryOp::Gt, Scalar::constant(99.5, DType::F32))
            .unary(UnaryOp::Not)
            .select(
                Scalar::constant(1.0, DType::F32),
                Scalar::constant(0.5, DType::F32).unary(UnaryOp::Sqrt),
            ),
    };
    assert_eq!(folded(test, &[bytes]).unwrap(), [f64::from(0.5f64.sqrt() as f32), 1.0]);
    let x = Tensor::from_fn(DType::I64, &[2, 3], |i| i as f64 + 1.0);
    let reduce = |kind| folded(Reduce { kind, axes: vec![1], keep: true }, std::slice::from_ref(&x)).unwrap();
    assert_eq!(reduce(ReduceKind::Product), [6., 120.]);
    assert_eq!(reduce(ReduceKind::Max), [3., 6.]);
    let nothing = Tensor::zeros(DType::I64, &[0, 2]);
    let largest = Reduce { kind: ReduceKind::Max, axes: vec![0], keep: false };
    assert_eq!(folded(largest, &[nothing]), None);
}
