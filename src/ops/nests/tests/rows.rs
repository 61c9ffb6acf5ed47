//! Reductions, softmax, normalisation, sorting.

use super::*;

#[test]
fn reductions_merge_axes() {
    let mean = Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep: true };
    golden(
        &mean,
        &[f32s(&[1, 512, 7, 7])],
        expect![[r#"
        nest reduce_mean
          in    x: f32[512, 49]
          out   y: f32[512]
          for i0 in 512:
            register acc: f32
            init: acc = 0.0
            for r0 in 49:
              update: acc += x[i0, r0]
            store: y[i0] = acc / 49.0
    "#]],
    );
    let sum = Reduce { kind: ReduceKind::Sum, axes: vec![0, 2], keep: false };
    golden(
        &sum,
        &[f32s(&[3, 4, 5])],
        expect![[r#"
        nest reduce_sum
          in    x: f32[3, 4, 5]
          out   y: f32[4]
          for i0 in 4:
            register acc: f32
            init: acc = 0.0
            for r0 in 3, r1 in 5:
              update: acc += x[r0, i0, r1]
            store: y[i0] = acc
    "#]],
    );
}

#[test]
fn log_sum_exp_shifts_by_the_peak() {
    let op = Reduce { kind: ReduceKind::LogSumExp, axes: vec![1], keep: false };
    golden(
        &op,
        &[f32s(&[4, 8])],
        expect![[r#"
        nest reduce_log_sum_exp
          in    x: f32[4, 8]
          out   y: f32[4]
          for i0 in 4:
            register peak: f32
            init_peak: peak = -inf
            for r0 in 8:
              update_peak: peak max= x[i0, r0]
            register shift: f32
            shift: shift = select(is_inf(peak), 0.0, peak)
            register acc: f32
            init: acc = 0.0
            for r0 in 8:
              update: acc += exp(x[i0, r0] - shift)
            store: y[i0] = log(acc) + shift
    "#]],
    );
}

#[test]
fn random_reductions_match_plain_ones() {
    let mut rng = Random::new(9);
    let kinds = [
        ReduceKind::Sum,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::Product,
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::SumSquare,
        ReduceKind::LogSum,
        ReduceKind::LogSumExp,
    ];
    for round in 0..60 {
        let rank = rng.below(4) + 1;
        let shape: Vec<usize> = (0..rank).map(|_| rng.below(4) + 1).collect();
        let axes: Vec<usize> = (0..rank).filter(|_| rng.below(2) == 0).collect();
        let op = Reduce { kind: kinds[round % 10], axes, keep: rng.below(2) == 0 };
        // Positive, so that every logarithm exists.
        let x = Tensor::from_fn(DType::F32, &shape, |_| rng.unit() + 0.1);
        let y = infer(&op, &[Fact::of(&x)]).remove(0);
        let expected = by_index(DType::F32, &y.shape, |index| {
            let of_output = |place: &[usize]| -> Vec<usize> {
                let axes = place.iter().enumerate();
                axes.filter_map(
                    |(axis, &i)| if op.axes.contains(&axis) { op.keep.then_some(0) } else { Some(i) },
                )
                .collect()
            };
            let values: Vec<f64> = (0..x.len())
                .map(|i| index_of(i, &shape))
                .filter(|place| of_output(place) == index)
                .map(|place| at(&x, &place))
                .collect();
            let sum = |f: fn(f64) -> f64| values.iter().map(|&v| f(v)).sum::<f64>();
            match op.kind {
                ReduceKind::Sum | ReduceKind::L1 => sum(|v| v),
                ReduceKind::Mean => sum(|v| v) / values.len() as f64,
                ReduceKind::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                ReduceKind::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
                ReduceKind::Product => values.iter().product(),
                ReduceKind::L2 => sum(|v| v * v).sqrt(),
                ReduceKind::SumSquare => sum(|v| v * v),
                ReduceKind::LogSum => sum(|v| v).ln(),
                ReduceKind::LogSumExp => sum(f64::exp).ln(),
            }
        });
        close(&run(&op, &[x])[0], &expected);
    }
}

#[test]
fn log_sum_exp_takes_infinities() {
    let op = Reduce { kind: ReduceKind::LogSumExp, axes: vec![1], keep: false };
    let inf = f32::INFINITY;
    let x = Tensor::from_slice(&[3, 2], &[-inf, -inf, inf, 0.0, 1000.0, 1000.0]);
    let y = run(&op, &[x]).remove(0).to_f64_vec();
    assert_eq!((y[0], y[1]), (f64::NEG_INFINITY, f64::INFINITY));
    assert!((y[2] - 1000.0 - 2f64.ln()).abs() < 1e-3);
}

#[test]
fn integer_reductions_start_from_their_limits() {
    let x = Tensor::from_slice(&[2, 2], &[-5i32, -7, 3, 4]);
    let reduce =
        |kind| run(&Reduce { kind, axes: vec![1], keep: false }, std::slice::from_ref(&x))[0].to_i64_vec();
    assert_eq!(reduce(ReduceKind::Max), Some(vec![-5, 4]));
    assert_eq!(reduce(ReduceKind::Min), Some(vec![-7, 3]));
    assert_eq!(reduce(ReduceKind::Mean), Some(vec![-6, 3]));
    assert_eq!(reduce(ReduceKind::L2), Some(vec![8, 5]));
    let flags = Tensor::from_slice(&[2], &[0u8, 200]).cast(DType::Bool);
    let any = Reduce { kind: ReduceKind::Max, axes: vec![0], keep: false };
    assert_eq!(run(&any, &[flags])[0].to_i64_vec(), Some(vec![1]));
}

#[test]
fn softmax_is_three_passes() {
    golden(
        &Softmax { axis: 3, log: false },
        &[f32s(&[1, 12, 128, 128])],
        expect![[r#"
        nest softmax
          in    x: f32[1536, 128]
          out   y: f32[1536, 128]
          for i0 in 1536:
            register peak: f32
            init_peak: peak = -inf
            for r in 128:
              update_peak: peak max= x[i0, r]
            register sum: f32
            init_sum: sum = 0.0
            for r in 128:
              update_sum: sum += exp(x[i0, r] - peak)
            for r in 128:
              store: y[i0, r] = exp(x[i0, r] - peak) / sum
    "#]],
    );
    golden(
        &Softmax { axis: 1, log: true },
        &[f32s(&[2, 10, 6])],
        expect![[r#"
        nest log_softmax
          in    x: f32[2, 10, 6]
          out   y: f32[2, 10, 6]
          for i0 in 2, i1 in 6:
            register peak: f32
            init_peak: peak = -inf
            for r in 10:
              update_peak: peak max= x[i0, r, i1]
            register sum: f32
            init_sum: sum = 0.0
            for r in 10:
              update_sum: sum += exp(x[i0, r, i1] - peak)
            register log_sum: f32
            log_sum: log_sum = log(sum)
            for r in 10:
              store: y[i0, r, i1] = x[i0, r, i1] - peak - log_sum
    "#]],
    );
}

#[test]
fn softmaxes_match_plain_ones() {
    let mut rng = Random::new(4);
    let x = Tensor::from_fn(DType::F32, &[3, 4, 5], |_| rng.normal() * 50.0);
    for axis in 0..3 {
        for log in [false, true] {
            let expected = by_index(DType::F32, x.shape(), |index| {
                let along: Vec<f64> = (0..x.shape()[axis])
                    .map(|i| {
                        let mut place = index.to_vec();
                        place[axis] = i;
                        at(&x, &place)
                    })
                    .collect();
                let peak = along.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = along.iter().map(|v| (v - peak).exp()).sum();
                let shifted = at(&x, index) - peak;
                if log { shifted - sum.ln() } else { shifted.exp() / sum }
            });
            close(&run(&Softmax { axis, log }, std::slice::from_ref(&x))[0], &expected);
        }
    }
}

#[test]
fn normalisation_is_two_pass() {
    golden(
        &Normalize { axis: 2, epsilon: 1e-5, center: true },
        &[f32s(&[1, 128, 768])],
        expect![[r#"
        nest normalize
          in    x: f32[128, 768]
          out   y: f32[128, 768]
          for i0 in 128:
            register sum: f32
            init_sum: sum = 0.0
            for r in 768:
              update_sum: sum += x[i0, r]
            register mean: f32
            mean: mean = sum / 768.0
            register squares: f32
            init_squares: squares = 0.0
            for r in 768:
              update_squares: squares += (x[i0, r] - mean) * (x[i0, r] - mean)
            register scale: f32
            scale: scale = 1.0 / sqrt(squares / 768.0 + 1e-5)
            for r in 768:
              store: y[i0, r] = (x[i0, r] - mean) * scale
    "#]],
    );
    golden(
        &Normalize { axis: 2, epsilon: 1e-5, center: false },
        &[f32s(&[2, 32, 4, 8])],
        expect![[r#"
        nest rms_normalize
          in    x: f32[64, 32]
          out   y: f32[64, 32]
          for i0 in 64:
            register squares: f32
            init_squares: squares = 0.0
            for r in 32:
              update_squares: squares += x[i0, r] * x[i0, r]
            register scale: f32
            scale: scale = 1.0 / sqrt(squares / 32.0 + 1e-5)
            for r in 32:
              store: y[i0, r] = x[i0, r] * scale
    "#]],
    );
}

#[test]
fn normalisations_match_plain_ones() {
    let mut rng = Random::new(6);
    let x = Tensor::from_fn(DType::F32, &[3, 4, 5], |_| rng.normal() + 3.0);
    for axis in 0..=3 {
        for center in [false, true] {
            let op = Normalize { axis, epsilon: 1e-3, center };
            let expected = by_index(DType::F32, x.shape(), |index| {
                let row: Vec<f64> = (0..x.len())
                    .map(|i| index_of(i, x.shape()))
                    .filter(|place| place[..axis] == index[..axis])
                    .map(|place| at(&x, &place))
                    .collect();
                let mean = if center { row.iter().sum::<f64>() / row.len() as f64 } else { 0.0 };
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
                (at(&x, index) - mean) / (variance + 1e-3).sqrt()
            });
            close(&run(&op, std::slice::from_ref(&x))[0], &expected);
        }
    }
}

#[test]
fn arg_reductions_are_two_reductions() {
    let op = ArgReduce { extreme: Extreme::Max, axis: 1, keep: false, last: false };
    golden(
        &op,
        &[f32s(&[4, 1000])],
        expect![[r#"
            nest arg_max
              in    x: f32[4, 1000]
              out   y: i64[4]
              for i0 in 4:
                register best: f32
                init_best: best = -inf
                for r in 1000:
                  update_best: best max= x[i0, r]
                register place: i64
                init_place: place = 999
                for r in 1000:
                  update_place: place min= select(x[i0, r] == best, r, 999)
                store: y[i0] = place
        "#]],
    );
    let x = Tensor::from_slice(&[2, 4], &[1.0f32, 5.0, 5.0, 2.0, 0.0, -3.0, 9.0, -3.0]);
    let place = |extreme, last| {
        let op = ArgReduce { extreme, axis: 1, keep: true, last };
        run(&op, std::slice::from_ref(&x))[0].to_i64_vec().unwrap()
    };
    assert_eq!(place(Extreme::Max, false), [1, 2]);
    assert_eq!(place(Extreme::Max, true), [2, 2]);
    assert_eq!(place(Extreme::Min, false), [0, 1]);
    assert_eq!(place(Extreme::Min, true), [0, 3]);
}

#[test]
fn running_sums_carry_a_register() {
    let x = Tensor::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let sum = |axis, exclusive, reverse| {
        run(&CumSum { axis, exclusive, reverse }, std::slice::from_ref(&x))[0].to_f64_vec()
    };
    assert_eq!(sum(1, false, false), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
    assert_eq!(sum(1, true, false), [0.0, 1.0, 3.0, 0.0, 4.0, 9.0]);
    assert_eq!(sum(1, false, true), [6.0, 5.0, 3.0, 15.0, 11.0, 6.0]);
    assert_eq!(sum(1, true, true), [5.0, 3.0, 0.0, 11.0, 6.0, 0.0]);
    assert_eq!(sum(0, false, false), [1.0, 2.0, 3.0, 5.0, 7.0, 9.0]);
}

#[test]
fn top_k_is_in_order_and_stable() {
    let x = Tensor::from_slice(&[2, 5], &[3.0f32, 1.0, 3.0, 9.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let top = |k, largest| {
        let y = run(&TopK { k, axis: 1, largest }, std::slice::from_ref(&x));
        (y[0].to_f64_vec(), y[1].to_i64_vec().unwrap())
    };
    assert_eq!(top(3, true), (vec![9.0, 3.0, 3.0, 0.0, 0.0, 0.0], vec![3, 0, 2, 0, 1, 2]));
    assert_eq!(top(1, true), (vec![9.0, 0.0], vec![3, 0]));
    assert_eq!(top(3, false), (vec![1.0, 1.0, 3.0, 0.0, 0.0, 0.0], vec![1, 4, 0, 0, 1, 2]));
    golden(
        &TopK { k: 5, axis: 0, largest: true },
        &[f32s(&[1000])],
        expect![[r#"
            nest top_k
              in    x: f32[1000]
              out   y: f32[5]
              out   y1: i64[5]
              register last: f32
              register last_place: i64
              init_last: last = -inf
              init_last_place: last_place = -1
              for j in 5:
                register best: f32
                init_best: best = -inf
                for r in 1000:
                  update_best: best max= select(j < 1 or (x[r] < last or x[r] == last and r > last_place), x[r], -inf)
                register place: i64
                init_place: place = 999
                for r in 1000:
                  update_place: place min= select((j < 1 or (x[r] < last or x[r] == last and r > last_place)) and x[r] == best, r, 999)
                store: y[j] = best
                store1: y1[j] = place
                last: last = best
                last_place: last_place = place
        "#]],
    );
}
