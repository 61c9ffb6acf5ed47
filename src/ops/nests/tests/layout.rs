//! Elementwise work, layout and selection.

use super::*;

#[test]
fn elementwise_work_is_one_loop() {
    golden(
        &relu(),
        &[f32s(&[1, 64, 56, 56])],
        expect![[r#"
        nest relu
          in    x0: f32[200704]
          out   y: f32[200704]
          for i0 in 200704:
            store: y[i0] = max(x0[i0], 0.0)
    "#]],
    );
    golden(
        &add(),
        &[f32s(&[1, 64, 56, 56]), f32s(&[1, 64, 56, 56])],
        expect![[r#"
        nest add
          in    x0: f32[200704]
          in    x1: f32[200704]
          out   y: f32[200704]
          for i0 in 200704:
            store: y[i0] = x0[i0] + x1[i0]
    "#]],
    );
}

#[test]
fn broadcasting_keeps_the_loops_it_needs() {
    golden(
        &add(),
        &[f32s(&[8, 64, 56, 56]), f32s(&[64, 1, 1])],
        expect![[r#"
        nest add
          in    x0: f32[8, 64, 3136]
          in    x1: f32[64]
          out   y: f32[8, 64, 3136]
          for i0 in 8, i1 in 64, i2 in 3136:
            store: y[i0, i1, i2] = x0[i0, i1, i2] + x1[i1]
    "#]],
    );
    golden(
        &add(),
        &[f32s(&[4, 5]), f32s(&[])],
        expect![[r#"
        nest add
          in    x0: f32[20]
          in    x1: f32
          out   y: f32[20]
          for i0 in 20:
            store: y[i0] = x0[i0] + x1
    "#]],
    );
}

#[test]
fn layout_operators_move_elements() {
    golden(
        &Transpose { perm: vec![0, 2, 3, 1] },
        &[f32s(&[8, 64, 56, 56])],
        expect![[r#"
        nest transpose
          in    x0: f32[8, 64, 3136]
          out   y: f32[8, 3136, 64]
          for i0 in 8, i1 in 3136, i2 in 64:
            store: y[i0, i1, i2] = x0[i0, i2, i1]
    "#]],
    );
    golden(
        &View { shape: vec![6, 4] },
        &[f32s(&[2, 3, 4])],
        expect![[r#"
            nest view
              in    x0: f32[24]
              out   y: f32[24]
              for i0 in 24:
                store: y[i0] = x0[i0]
        "#]],
    );
    let axes = vec![SliceAxis::all(4), SliceAxis { start: 5, step: -2, size: 3 }, SliceAxis::all(7)];
    golden(
        &Slice { axes },
        &[f32s(&[4, 6, 7])],
        expect![[r#"
        nest slice
          in    x0: f32[4, 6, 7]
          out   y: f32[4, 3, 7]
          for i0 in 4, i1 in 3, i2 in 7:
            store: y[i0, i1, i2] = x0[i0, i1 * -2 + 5, i2]
    "#]],
    );
    let mode = PadMode::Constant(Literal::new(1.5, DType::F32));
    golden(
        &Pad { pads: vec![(0, 0), (2, 1)], mode },
        &[f32s(&[4, 6])],
        expect![[r#"
        nest pad
          in    x0: f32[4, 6]
          out   y: f32[4, 9]
          for i0 in 4, i1 in 9:
            store: y[i0, i1] = select(i1 >= 2 and i1 < 8, guard(i1 >= 2 and i1 < 8, x0[i0, i1 + -2]), 1.5)
    "#]],
    );
    golden(
        &Concat { axis: 1 },
        &[f32s(&[2, 3, 5, 5]), f32s(&[2, 4, 5, 5])],
        expect![[r#"
        nest concat
          in    x0: f32[2, 75]
          in    x1: f32[2, 100]
          out   y: f32[2, 175]
          for i0 in 2, i1 in 75:
            store: y[i0, i1] = x0[i0, i1]
          for i0 in 2, i1 in 100:
            store1: y[i0, i1 + 75] = x1[i0, i1]
    "#]],
    );
}

#[test]
fn gather_wraps_negative_indices() {
    let indices = Fact::new(DType::I64, &[10]);
    golden(
        &Gather { axis: 0 },
        &[f32s(&[1000, 64]), indices],
        expect![[r#"
        nest gather
          in    x0: f32[1000, 64]
          in    x1: i64[10]
          out   y: f32[10, 64]
          for i0 in 10, i1 in 64:
            store: y[i0, i1] = x0[min(max(select(x1[i0] < 0, x1[i0] + 1000, x1[i0]), 0), 999), i1]
    "#]],
    );
}

#[test]
fn layout_results_match_plain_ones() {
    let mut rng = Random::new(2);
    let x = random(&mut rng, &[2, 3, 4]);
    let y = run(&Transpose { perm: vec![2, 0, 1] }, std::slice::from_ref(&x)).remove(0);
    close(&y, &by_index(DType::F32, &[4, 2, 3], |i| at(&x, &[i[1], i[2], i[0]])));

    let y = run(&View { shape: vec![4, 1, 6] }, std::slice::from_ref(&x)).remove(0);
    close(&y, &x.reshaped(&[4, 1, 6]).unwrap());

    let axes = vec![
        SliceAxis { start: 1, step: 1, size: 1 },
        SliceAxis { start: 2, step: -2, size: 2 },
        SliceAxis::all(4),
    ];
    let y = run(&Slice { axes }, std::slice::from_ref(&x)).remove(0);
    close(&y, &by_index(DType::F32, &[1, 2, 4], |i| at(&x, &[1, 2 - 2 * i[1], i[2]])));

    let b = random(&mut rng, &[2, 2, 4]);
    let y = run(&Concat { axis: 1 }, &[x.clone(), b.clone()]).remove(0);
    let expected =
        by_index(
            DType::F32,
            &[2, 5, 4],
            |i| {
                if i[1] < 3 { at(&x, i) } else { at(&b, &[i[0], i[1] - 3, i[2]]) }
            },
        );
    close(&y, &expected);

    let row = random(&mut rng, &[3, 1]);
    let y = run(&Broadcast { shape: vec![2, 3, 5] }, std::slice::from_ref(&row)).remove(0);
    close(&y, &by_index(DType::F32, &[2, 3, 5], |i| at(&row, &[i[1], 0])));
    let y = run(&add(), &[x.clone(), row.clone()]).remove(0);
    close(&y, &by_index(DType::F32, &[2, 3, 4], |i| at(&x, i) + at(&row, &[i[1], 0])));
}

#[test]
fn pads_match_plain_ones() {
    let x = Tensor::from_slice(&[4], &[1.0f32, 2.0, 3.0, 4.0]);
    let pad = |before, after, mode| {
        run(&Pad { pads: vec![(before, after)], mode }, std::slice::from_ref(&x))[0].to_f64_vec()
    };
    let constant = |value| PadMode::Constant(Literal::new(value, DType::F32));
    assert_eq!(pad(2, 1, constant(0.0)), [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0]);
    assert_eq!(pad(1, 2, constant(7.0)), [7.0, 1.0, 2.0, 3.0, 4.0, 7.0, 7.0]);
    assert_eq!(pad(2, 2, PadMode::Edge), [1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0]);
    assert_eq!(pad(3, 3, PadMode::Reflect), [4.0, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]);
    assert_eq!(pad(1, 2, PadMode::Wrap), [4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0]);
}

#[test]
fn gathers_and_scatters_match_plain_ones() {
    let x = Tensor::from_fn(DType::F32, &[3, 4], |i| i as f64);
    let indices = Tensor::from_slice(&[2, 2], &[0i64, -1, 2, 1]);
    let y = run(&Gather { axis: 1 }, &[x.clone(), indices.clone()]).remove(0);
    let places = [[0, 3], [2, 1]];
    close(&y, &by_index(DType::F32, &[3, 2, 2], |i| at(&x, &[i[0], places[i[1]][i[2]]])));
    // Outside of the axis some element is read.
    let far = Tensor::from_slice(&[2], &[99i32, -99]);
    assert_eq!(run(&Gather { axis: 0 }, &[x.clone(), far])[0].shape(), [2, 4]);

    let y = run(&GatherElements { axis: 1 }, &[x.clone(), indices.clone()]).remove(0);
    assert_eq!(y.to_f64_vec(), [0.0, 3.0, 6.0, 5.0]);
    let y = run(&GatherNd { batch_dims: 0 }, &[x.clone(), indices.clone()]).remove(0);
    assert_eq!(y.to_f64_vec(), [3.0, 9.0]);
    let rows = Tensor::from_slice(&[3, 1], &[3i64, 2, -4]);
    let y = run(&GatherNd { batch_dims: 1 }, &[x.clone(), rows]).remove(0);
    assert_eq!(y.to_f64_vec(), [3.0, 6.0, 8.0]);

    let updates = Tensor::from_slice(&[2, 2], &[10.0f32, 20.0, 30.0, 40.0]);
    let scatter = |reduction| ScatterElements { axis: 1, reduction };
    let y =
        run(&scatter(ScatterReduction::Replace), &[x.clone(), indices.clone(), updates.clone()]).remove(0);
    assert_eq!(y.to_f64_vec(), [10.0, 1.0, 2.0, 20.0, 4.0, 40.0, 30.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    let y = run(&scatter(ScatterReduction::Add), &[x.clone(), indices, updates]).remove(0);
    assert_eq!(y.to_f64_vec(), [10.0, 1.0, 2.0, 23.0, 4.0, 45.0, 36.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    // Repeated places combine; places outside are left out.
    let rows = Tensor::from_slice(&[3, 1], &[-1i64, 2, 5]);
    let updates = Tensor::from_fn(DType::F32, &[3, 4], |i| i as f64);
    let y = run(&ScatterNd { reduction: ScatterReduction::Add }, &[x, rows, updates]).remove(0);
    assert_eq!(y.to_f64_vec(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 12.0, 15.0, 18.0, 21.0]);
}

#[test]
fn scatter_copies_then_writes() {
    golden(
        &ScatterNd { reduction: ScatterReduction::Replace },
        &[f32s(&[8, 16]), Fact::new(DType::I64, &[3, 1]), f32s(&[3, 16])],
        expect![[r#"
            nest scatter_nd
              in    x: f32[8, 16]
              in    indices: i64[3]
              in    updates: f32[3, 16]
              out   y: f32[8, 16]
              for i0 in 8, i1 in 16:
                copy: y[i0, i1] = x[i0, i1]
              for u0 in 3, u1 in 16:
                scatter: y[select(indices[u0] < 0, indices[u0] + 8, indices[u0]), u1] = updates[u0, u1] if select(indices[u0] < 0, indices[u0] + 8, indices[u0]) >= 0 and select(indices[u0] < 0, indices[u0] + 8, indices[u0]) < 8
        "#]],
    );
}

#[test]
fn maps_follow_their_expression() {
    let x = Tensor::from_slice(&[3], &[-1.0f32, 0.5, 2.0]);
    let clipped =
        Scalar::Input(0).max(Scalar::constant(0.0, DType::F32)).min(Scalar::constant(1.0, DType::F32));
    assert_eq!(run(&Map { scalar: clipped }, std::slice::from_ref(&x))[0].to_f64_vec(), [0.0, 0.5, 1.0]);
    let positive = Scalar::Input(0).binary(BinaryOp::Gt, Scalar::constant(0.0, DType::F32));
    let chosen = positive.select(Scalar::Input(0).unary(UnaryOp::Neg), Scalar::constant(3.0, DType::F32));
    let rounded = Map { scalar: chosen.cast(DType::I32) };
    assert_eq!(run(&rounded, &[x])[0].to_i64_vec(), Some(vec![3, 0, -2]));
}

#[test]
fn empty_tensors_have_nests() {
    let empty = Tensor::zeros(DType::F32, &[0, 3]);
    let two = Tensor::from_fn(DType::F32, &[2, 3], |i| i as f64);
    assert_eq!(run(&relu(), std::slice::from_ref(&empty))[0].shape(), [0, 3]);
    assert_eq!(run(&View { shape: vec![3, 0, 7] }, std::slice::from_ref(&empty))[0].shape(), [3, 0, 7]);
    assert_eq!(run(&Transpose { perm: vec![1, 0] }, std::slice::from_ref(&empty))[0].shape(), [3, 0]);
    let all = run(&Concat { axis: 0 }, &[empty.clone(), two.clone(), empty.clone()]).remove(0);
    close(&all, &two);
    let sum = Reduce { kind: ReduceKind::Sum, axes: vec![0], keep: false };
    assert_eq!(run(&sum, std::slice::from_ref(&empty))[0].to_f64_vec(), [0.0; 3]);
    let nothing = Tensor::zeros(DType::F32, &[2, 0]);
    assert_eq!(run(&MatMul::default(), &[nothing, empty.clone()])[0].to_f64_vec(), [0.0; 6]);
    let pad = Pad { pads: vec![(1, 0), (0, 0)], mode: PadMode::Constant(Literal::new(2.0, DType::F32)) };
    assert_eq!(run(&pad, &[empty])[0].to_f64_vec(), [2.0; 3]);
}

/// Every access is seen to be in range from the extents alone, gathers included.
#[test]
fn gathers_are_provably_in_range() {
    let op = Gather { axis: 0 };
    let facts = [f32s(&[7, 4]), Fact::new(DType::I32, &[5])];
    let nest = define_group(&Group::single(&op, &facts, infer(&op, &facts)), &[]).unwrap();
    let value = nest.block("store").unwrap().value;
    for load in nest.pool.loads_of(value) {
        let crate::expr::Expr::Load(buffer, index) = nest.pool.get(load) else { continue };
        for (&i, &extent) in index.iter().zip(&nest.pool.buffers[*buffer].shape) {
            assert!(
                nest.pool.interval(i).is_some_and(|range| range.within(extent)),
                "{}",
                nest.pool.display(i)
            );
        }
    }
}
