//! Convolution, pooling and matrix products.

use super::*;

fn conv2d(strides: [usize; 2], dilations: [usize; 2], pads: [(usize, usize); 2], groups: usize) -> Conv {
    Conv {
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        pads: pads.to_vec(),
        groups,
        edge: 0,
        algorithm: None,
    }
}

#[test]
fn conv_is_guarded_where_it_is_padded() {
    golden(
        &conv2d([1, 1], [1, 1], [(1, 1), (0, 0)], 1),
        &[f32s(&[1, 64, 56, 56]), f32s(&[64, 64, 3, 3]), f32s(&[64])],
        expect![[r#"
            nest conv
              in    x: f32[1, 64, 56, 56]
              in    w: f32[64, 64, 3, 3]
              in    b: f32[64]
              out   y: f32[1, 64, 56, 54]
              for k in 64, p in 56, q in 54:
                register acc: f32
                init: acc = 0.0
                for c in 64, r in 3, s in 3:
                  update: acc += guard(p + r >= 1 and p + r < 57, x[0, c, p + r + -1, q + s]) * w[k, c, r, s]
                store: y[0, k, p, q] = acc + b[k]
        "#]],
    );
}

#[test]
fn depthwise_conv_has_no_channel_loops() {
    golden(
        &conv2d([2, 2], [1, 1], [(0, 0); 2], 32),
        &[f32s(&[1, 32, 9, 9]), f32s(&[32, 1, 3, 3])],
        expect![[r#"
            nest conv
              in    x: f32[1, 32, 9, 9]
              in    w: f32[32, 1, 3, 3]
              out   y: f32[1, 32, 4, 4]
              for g in 32, p in 4, q in 4:
                register acc: f32
                init: acc = 0.0
                for r in 3, s in 3:
                  update: acc += x[0, g, p * 2 + r, q * 2 + s] * w[g, 0, r, s]
                store: y[0, g, p, q] = acc
        "#]],
    );
}

#[test]
fn grouped_conv_counts_within_its_group() {
    let conv = Conv {
        strides: vec![1],
        dilations: vec![1],
        pads: vec![(0, 0)],
        groups: 2,
        edge: 0,
        algorithm: None,
    };
    golden(
        &conv,
        &[f32s(&[2, 6, 9]), f32s(&[8, 3, 3])],
        expect![[r#"
        nest conv
          in    x: f32[2, 6, 9]
          in    w: f32[8, 3, 3]
          out   y: f32[2, 8, 7]
          for n in 2, g in 2, k in 4, q in 7:
            register acc: f32
            init: acc = 0.0
            for c in 3, s in 3:
              update: acc += x[n, g * 3 + c, q + s] * w[g * 4 + k, c, s]
            store: y[n, g * 4 + k, q] = acc
    "#]],
    );
}

fn plain_conv(conv: &Conv, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let facts: Vec<Fact> = [Some(x), Some(w), bias].into_iter().flatten().map(Fact::of).collect();
    let y = infer(conv, &facts).remove(0);
    let (depth, filters) = (w.shape()[1], y.shape[1] / conv.groups);
    by_index(DType::F32, &y.shape, |index| {
        let mut sum = bias.map_or(0.0, |bias| at(bias, &index[1..2]));
        for i in 0..w.len() / w.shape()[0] {
            let inner = index_of(i, &w.shape()[1..]);
            let mut place = vec![index[0], index[1] / filters * depth + inner[0]];
            for axis in 0..conv.strides.len() {
                let position = index[2 + axis] * conv.strides[axis] + inner[1 + axis] * conv.dilations[axis];
                place.push(position.wrapping_sub(conv.pads[axis].0));
            }
            if place.iter().zip(x.shape()).all(|(i, extent)| i < extent) {
                sum += at(x, &place) * at(w, &[&[index[1]], &inner[..]].concat());
            }
        }
        sum
    })
}

#[test]
fn random_convs_match_a_plain_one() {
    let mut rng = Random::new(11);
    for _ in 0..60 {
        let rank = rng.below(3) + 1;
        let groups = rng.below(3) + 1;
        let (depth, filters) = (rng.below(3) + 1, rng.below(3) + 1);
        let mut below = |bound: usize, from: usize| -> Vec<usize> {
            (0..rank).map(|_| rng.below(bound) + from).collect()
        };
        let (strides, dilations, kernel) = (below(3, 1), below(2, 1), below(3, 1));
        let pads: Vec<(usize, usize)> = below(3, 0).into_iter().zip(below(3, 0)).collect();
        let spatial: Vec<usize> =
            below(4, 0).iter().zip(&kernel).map(|(more, k)| more + 2 * (k - 1) + 1).collect();
        let conv = Conv { strides, dilations, pads, groups, edge: 0, algorithm: None };
        let x = random(&mut rng, &[&[2, groups * depth], &spatial[..]].concat());
        let w = random(&mut rng, &[&[groups * filters, depth], &kernel[..]].concat());
        let bias = random(&mut rng, &[groups * filters]);
        close(&run(&conv, &[x.clone(), w.clone()])[0], &plain_conv(&conv, &x, &w, None));
        let expected = plain_conv(&conv, &x, &w, Some(&bias));
        let facts = [Fact::of(&x), Fact::of(&w)];
        for algorithm in ConvAlgorithm::ALL.into_iter().filter(|one| one.applies(&conv, &facts[0], &facts[1]))
        {
            let conv = Conv { algorithm: Some(algorithm), ..conv.clone() };
            close(&run(&conv, &[x.clone(), w.clone(), bias.clone()])[0], &expected);
        }
    }
}

#[test]
fn im2col_is_a_copy_and_a_product() {
    let conv = Conv { algorithm: Some(ConvAlgorithm::Im2col), ..conv2d([2, 1], [1, 2], [(1, 1), (0, 0)], 2) };
    golden(
        &conv,
        &[f32s(&[3, 8, 9, 9]), f32s(&[6, 4, 3, 2]), f32s(&[6])],
        expect![[r#"
            nest conv_im2col
              in    x: f32[3, 8, 9, 9]
              in    w: f32[6, 4, 3, 2]
              in    b: f32[6]
              out   y: f32[3, 6, 5, 7]
              global col: f32[3, 2, 4, 3, 2, 5, 7]
              for cn in 3, cg in 2, cc in 4, cr in 3, cs in 2, cp in 5, cq in 7:
                columns: col[cn, cg, cc, cr, cs, cp, cq] = guard(cr + cp * 2 >= 1 and cr + cp * 2 < 10, x[cn, cg * 4 + cc, cr + cp * 2 + -1, cs * 2 + cq])
              for n in 3, g in 2, k in 3, p in 5, q in 7:
                register acc: f32
                init: acc = 0.0
                for c in 4, r in 3, s in 2:
                  update: acc += col[n, g, c, r, s, p, q] * w[g * 3 + k, c, r, s]
                store: y[n, g * 3 + k, p, q] = acc + b[g * 3 + k]
        "#]],
    );
}

#[test]
fn spatial_pack_packs_tiles() {
    let conv = Conv { algorithm: Some(ConvAlgorithm::SpatialPack), ..conv2d([2, 1], [1, 1], [(1, 1); 2], 2) };
    golden(
        &conv,
        &[f32s(&[1, 8, 40, 29]), f32s(&[32, 4, 3, 3]), f32s(&[32])],
        expect![[r#"
            nest conv_spatial_pack
              in    x: f32[1, 8, 40, 29]
              in    w: f32[32, 4, 3, 3]
              in    b: f32[32]
              out   y: f32[1, 32, 20, 29]
              global xs: f32[1, 8, 4, 3, 11, 12]
              for xc in 8, xtp in 4, xtq in 3, xp in 11, xq in 12:
                packed: xs[0, xc, xtp, xtq, xp, xq] = guard(xtp * 10 + xp >= 1 and (xtq * 10 + xq >= 1 and xtq * 10 + xq < 30), x[0, xc, xtp * 10 + xp + -1, xtq * 10 + xq + -1])
              for g in 2, k in 16, tp in 4, tq in 3, p in 5, q in 10:
                register acc: f32
                init: acc = 0.0
                for c in 4, r in 3, s in 3:
                  update: acc += xs[0, g * 4 + c, tp, tq, p * 2 + r, q + s] * w[g * 16 + k, c, r, s]
                store: y[0, g * 16 + k, tp * 5 + p, tq * 10 + q] = acc + b[g * 16 + k] if tq * 10 + q < 29
        "#]],
    );
}

#[test]
fn winograd_is_a_sequence_of_sums() {
    let conv = Conv { algorithm: Some(ConvAlgorithm::Winograd2), ..conv2d([1, 1], [1, 1], [(1, 1); 2], 1) };
    golden(
        &conv,
        &[f32s(&[1, 32, 8, 7]), f32s(&[16, 32, 3, 3]), f32s(&[16])],
        expect![[r#"
            nest conv_winograd2
              in    x: f32[1, 32, 8, 7]
              in    w: f32[16, 32, 3, 3]
              in    b: f32[16]
              out   y: f32[1, 16, 8, 7]
              global u: f32[4, 4, 32, 16]
              for uk in 16, ua in 4, ub in 4, uc in 32:
                register u_sum: f32
                init_u_sum: u_sum = 0.0
                for ur in 3, us in 3:
                  update_u_sum: u_sum += select(ua < 1, select(ur < 1, 1.0, 0.0), select(ua < 2, 0.5, select(ua < 3, select(ur < 1, 0.5, select(ur < 2, -0.5, 0.5)), select(ur < 1, 0.0, select(ur < 2, 0.0, 1.0))))) * select(ub < 1, select(us < 1, 1.0, 0.0), select(ub < 2, 0.5, select(ub < 3, select(us < 1, 0.5, select(us < 2, -0.5, 0.5)), select(us < 1, 0.0, select(us < 2, 0.0, 1.0))))) * w[uk, uc, ur, us]
                weights: u[ua, ub, uc, uk] = u_sum
              global v: f32[1, 32, 4, 4, 4, 4]
              for vc in 32, va in 4, vb in 4, vh in 4, vw in 4:
                register v_sum: f32
                init_v_sum: v_sum = 0.0
                for r in 4, s in 4:
                  update_v_sum: v_sum += select(va < 1, select(r < 1, 1.0, select(r < 2, 0.0, select(r < 3, -1.0, 0.0))), select(va < 2, select(r < 1, 0.0, select(r < 2, 1.0, select(r < 3, 1.0, 0.0))), select(va < 3, select(r < 1, 0.0, select(r < 2, -1.0, select(r < 3, 1.0, 0.0))), select(r < 1, 0.0, select(r < 2, 1.0, select(r < 3, 0.0, -1.0)))))) * select(vb < 1, select(s < 1, 1.0, select(s < 2, 0.0, select(s < 3, -1.0, 0.0))), select(vb < 2, select(s < 1, 0.0, select(s < 2, 1.0, select(s < 3, 1.0, 0.0))), select(vb < 3, select(s < 1, 0.0, select(s < 2, -1.0, select(s < 3, 1.0, 0.0))), select(s < 1, 0.0, select(s < 2, 1.0, select(s < 3, 0.0, -1.0)))))) * guard(vh * 2 + r >= 1 and vh * 2 + r < 9 and (vw * 2 + s >= 1 and vw * 2 + s < 8), x[0, vc, vh * 2 + r + -1, vw * 2 + s + -1])
                transformed: v[0, vc, va, vb, vh, vw] = v_sum
              global m: f32[1, 16, 4, 4, 4, 4]
              for mk in 16, ma in 4, mb in 4, mh in 4, mw in 4:
                register m_sum: f32
                init_m_sum: m_sum = 0.0
                for c in 32:
                  update_m_sum: m_sum += v[0, c, ma, mb, mh, mw] * u[ma, mb, c, mk]
                products: m[0, mk, ma, mb, mh, mw] = m_sum
              for k in 16, th in 4, i in 2, tw in 4, j in 2:
                register acc: f32
                init: acc = 0.0
                for a in 4, b in 4:
                  update: acc += select(i < 1, select(a < 1, 1.0, select(a < 2, 1.0, select(a < 3, 1.0, 0.0))), select(a < 1, 0.0, select(a < 2, 1.0, -1.0))) * select(j < 1, select(b < 1, 1.0, select(b < 2, 1.0, select(b < 3, 1.0, 0.0))), select(b < 1, 0.0, select(b < 2, 1.0, -1.0))) * m[0, k, a, b, th, tw]
                store: y[0, k, th * 2 + i, tw * 2 + j] = acc + b[k] if tw * 2 + j < 7
        "#]],
    );
}

#[test]
fn winograd_along_one_dimension_has_tiles_of_rows() {
    let conv =
        Conv { algorithm: Some(ConvAlgorithm::Winograd2), ..conv2d([1, 1], [1, 1], [(0, 0), (1, 1)], 1) };
    golden(
        &conv,
        &[f32s(&[1, 32, 8, 7]), f32s(&[16, 32, 1, 3])],
        expect![[r#"
        nest conv_winograd2
          in    x: f32[1, 32, 8, 7]
          in    w: f32[16, 32, 1, 3]
          out   y: f32[1, 16, 8, 7]
          global u: f32[1, 4, 32, 16]
          for uk in 16, ub in 4, uc in 32:
            register u_sum: f32
            init_u_sum: u_sum = 0.0
            for us in 3:
              update_u_sum: u_sum += select(ub < 1, select(us < 1, 1.0, 0.0), select(ub < 2, 0.5, select(ub < 3, select(us < 1, 0.5, select(us < 2, -0.5, 0.5)), select(us < 1, 0.0, select(us < 2, 0.0, 1.0))))) * w[uk, uc, 0, us]
            weights: u[0, ub, uc, uk] = u_sum
          global v: f32[1, 32, 1, 4, 8, 4]
          for vc in 32, vb in 4, vh in 8, vw in 4:
            register v_sum: f32
            init_v_sum: v_sum = 0.0
            for s in 4:
              update_v_sum: v_sum += select(vb < 1, select(s < 1, 1.0, select(s < 2, 0.0, select(s < 3, -1.0, 0.0))), select(vb < 2, select(s < 1, 0.0, select(s < 2, 1.0, select(s < 3, 1.0, 0.0))), select(vb < 3, select(s < 1, 0.0, select(s < 2, -1.0, select(s < 3, 1.0, 0.0))), select(s < 1, 0.0, select(s < 2, 1.0, select(s < 3, 0.0, -1.0)))))) * guard(vw * 2 + s >= 1 and vw * 2 + s < 8, x[0, vc, vh, vw * 2 + s + -1])
            transformed: v[0, vc, 0, vb, vh, vw] = v_sum
          global m: f32[1, 16, 1, 4, 8, 4]
          for mk in 16, mb in 4, mh in 8, mw in 4:
            register m_sum: f32
            init_m_sum: m_sum = 0.0
            for c in 32:
              update_m_sum: m_sum += v[0, c, 0, mb, mh, mw] * u[0, mb, c, mk]
            products: m[0, mk, 0, mb, mh, mw] = m_sum
          for k in 16, th in 8, tw in 4, j in 2:
            register acc: f32
            init: acc = 0.0
            for b in 4:
              update: acc += select(j < 1, select(b < 1, 1.0, select(b < 2, 1.0, select(b < 3, 1.0, 0.0))), select(b < 1, 0.0, select(b < 2, 1.0, -1.0))) * m[0, k, 0, b, th, tw]
            store: y[0, k, th, tw * 2 + j] = acc if tw * 2 + j < 7
    "#]],
    );
}

#[test]
fn winograd_gives_what_the_definition_gives() {
    let mut rng = Random::new(12);
    for algorithm in [ConvAlgorithm::Winograd2, ConvAlgorithm::Winograd4] {
        for kernel in [&[3, 3][..], &[3, 3], &[3, 3], &[1, 3], &[3, 1], &[3]] {
            let rank = kernel.len();
            let pads = (0..rank).map(|_| (rng.below(3), rng.below(3))).collect();
            let (strides, dilations) = (vec![1; rank], vec![1; rank]);
            let conv = Conv { strides, dilations, pads, groups: 1, edge: 0, algorithm: None };
            let (batch, channels, filters) = (rng.below(2) + 1, rng.below(3) + 1, rng.below(3) + 1);
            let x = random(&mut rng, &[&[batch, channels], &[7, 5][2 - rank..]].concat());
            let w = random(&mut rng, &[&[filters, channels], kernel].concat());
            let bias = random(&mut rng, &[filters]);
            let expected = plain_conv(&conv, &x, &w, Some(&bias));
            let conv = Conv { algorithm: Some(algorithm), ..conv };
            close(&run(&conv, &[x, w, bias])[0], &expected);
        }
    }
}

#[test]
fn pools_have_window_loops() {
    let pool = Pool {
        kind: PoolKind::Max,
        kernel: vec![3, 3],
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads: vec![(1, 1); 2],
        overhang: vec![0, 0],
    };
    golden(
        &pool,
        &[f32s(&[1, 64, 112, 112])],
        expect![[r#"
        nest max_pool
          in    x: f32[1, 64, 112, 112]
          out   y: f32[1, 64, 56, 56]
          for c in 64, p in 56, q in 56:
            register acc: f32
            init: acc = -inf
            for r in 3, s in 3:
              update: acc max= select(p * 2 + r >= 1 and q * 2 + s >= 1, guard(p * 2 + r >= 1 and q * 2 + s >= 1, x[0, c, p * 2 + r + -1, q * 2 + s + -1]), -inf)
            store: y[0, c, p, q] = acc
    "#]],
    );
    let pool = Pool { kind: PoolKind::Average, ..pool };
    golden(
        &pool,
        &[f32s(&[1, 64, 112, 112])],
        expect![[r#"
        nest average_pool
          in    x: f32[1, 64, 112, 112]
          out   y: f32[1, 64, 56, 56]
          for c in 64, p in 56, q in 56:
            register acc: f32
            init: acc = 0.0
            for r in 3, s in 3:
              update: acc += guard(p * 2 + r >= 1 and q * 2 + s >= 1, x[0, c, p * 2 + r + -1, q * 2 + s + -1])
            store: y[0, c, p, q] = acc / f32((min(p * -2 + 113, 3) + max(p * -2 + 1, 0) * -1) * (min(q * -2 + 113, 3) + max(q * -2 + 1, 0) * -1))
    "#]],
    );
}

#[test]
fn random_pools_match_a_plain_one() {
    let mut rng = Random::new(5);
    for round in 0..120 {
        let rank = rng.below(3) + 1;
        let mut below = |bound: usize, from: usize| -> Vec<usize> {
            (0..rank).map(|_| rng.below(bound) + from).collect()
        };
        let (strides, dilations, kernel, more) = (below(3, 1), below(2, 1), below(3, 1), below(4, 0));
        let pads: Vec<(usize, usize)> = below(3, 0)
            .into_iter()
            .zip(below(3, 0))
            .zip(&kernel)
            .map(|((before, after), &k)| (before.min(k - 1), after.min(k - 1)))
            .collect();
        let overhang: Vec<usize> = below(2, 0).into_iter().zip(&strides).map(|(o, s)| o.min(s - 1)).collect();
        let spatial: Vec<usize> = more.iter().zip(&kernel).map(|(more, k)| more + 2 * (k - 1) + 2).collect();
        let kinds = [
            PoolKind::Max,
            PoolKind::Average,
            PoolKind::AverageWithPads,
            PoolKind::Norm(2),
            PoolKind::Norm(3),
            PoolKind::ArgMax,
        ];
        let pool = Pool { kind: kinds[round % 6], kernel, strides, dilations, pads, overhang };
        let x = random(&mut rng, &[&[2, 3], &spatial[..]].concat());
        // Few different values, so that the largest is often there twice.
        let x = match pool.kind {
            PoolKind::ArgMax => Tensor::from_fn(DType::F32, x.shape(), |i| (x.get_f64(i) * 3.0).round()),
            PoolKind::Max | PoolKind::Average | PoolKind::AverageWithPads | PoolKind::Norm(_) => x,
        };
        let y = infer(&pool, &[Fact::of(&x)]).remove(0);
        let expected = by_index(y.dtype, &y.shape, |index| {
            let (mut inside, mut counted, mut places) = (vec![], 0, vec![]);
            for i in 0..pool.kernel.iter().product() {
                let inner = index_of(i, &pool.kernel);
                let mut place = index[..2].to_vec();
                let mut in_padding = true;
                for axis in 0..rank {
                    let padded = index[2 + axis] * pool.strides[axis] + inner[axis] * pool.dilations[axis];
                    in_padding &= padded < pool.pads[axis].0 + x.shape()[2 + axis] + pool.pads[axis].1;
                    place.push(padded.wrapping_sub(pool.pads[axis].0));
                }
                counted += usize::from(in_padding);
                if place.iter().zip(x.shape()).all(|(i, extent)| i < extent) {
                    inside.push(at(&x, &place));
                    places.push(place[2..].iter().zip(&x.shape()[2..]).fold(0, |sum, (i, n)| sum * n + i));
                }
            }
            let sum: f64 = inside.iter().sum();
            match pool.kind {
                PoolKind::Max => inside.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                PoolKind::ArgMax => {
                    let largest = inside.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let first = inside.iter().position(|&value| value == largest);
                    let last = x.shape()[2..].iter().product::<usize>() - 1;
                    first.map_or(last, |first| places[first]) as f64
                }
                PoolKind::Average => sum / inside.len() as f64,
                PoolKind::AverageWithPads => sum / counted as f64,
                PoolKind::Norm(p) => {
                    let p = p as f64;
                    inside.iter().map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p)
                }
            }
        });
        close(&run(&pool, &[x])[0], &expected);
    }
}

#[test]
fn matmul_has_batch_row_column_and_depth_loops() {
    golden(
        &MatMul { transpose_a: false, transpose_b: true },
        &[f32s(&[8, 1, 32, 64]), f32s(&[12, 48, 64])],
        expect![[r#"
            nest matmul
              in    a: f32[8, 1, 32, 64]
              in    b: f32[12, 48, 64]
              out   y: f32[8, 12, 32, 48]
              for b0 in 8, b1 in 12, i in 32, j in 48:
                register acc: f32
                init: acc = 0.0
                for k in 64:
                  update: acc += a[b0, 0, i, k] * b[b1, j, k]
                store: y[b0, b1, i, j] = acc
        "#]],
    );
}

#[test]
fn a_batch_times_one_matrix_is_rows() {
    golden(
        &MatMul::default(),
        &[f32s(&[4, 7, 64]), f32s(&[64, 48])],
        expect![[r#"
        nest matmul
          in    a: f32[28, 64]
          in    b: f32[64, 48]
          out   y: f32[28, 48]
          for i in 28, j in 48:
            register acc: f32
            init: acc = 0.0
            for k in 64:
              update: acc += a[i, k] * b[k, j]
            store: y[i, j] = acc
    "#]],
    );
    let mut rng = Random::new(8);
    let (a, b) = (random(&mut rng, &[3, 1, 4, 5]), random(&mut rng, &[1, 5, 6]));
    let expected = by_index(DType::F32, &[3, 1, 4, 6], |i| {
        (0..5).map(|k| at(&a, &[i[0], 0, i[2], k]) * at(&b, &[0, k, i[3]])).sum()
    });
    close(&run(&MatMul::default(), &[a, b])[0], &expected);
}

#[test]
fn matmuls_match_a_plain_one() {
    let mut rng = Random::new(3);
    for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let op = MatMul { transpose_a, transpose_b };
        let turned =
            |turn: bool, rows: usize, columns: usize| if turn { [columns, rows] } else { [rows, columns] };
        let a = random(&mut rng, &[&[3, 1], &turned(transpose_a, 4, 5)[..]].concat());
        let b = random(&mut rng, &[&[2], &turned(transpose_b, 5, 6)[..]].concat());
        let expected = by_index(DType::F32, &[3, 2, 4, 6], |i| {
            let of = |turn: bool, row: usize, column: usize| if turn { [column, row] } else { [row, column] };
            (0..5)
                .map(|k| {
                    at(&a, &[&[i[0], 0], &of(transpose_a, i[2], k)[..]].concat())
                        * at(&b, &[&[i[1]], &of(transpose_b, k, i[3])[..]].concat())
                })
                .sum()
        });
        close(&run(&op, &[a, b])[0], &expected);
    }
    let a = Tensor::from_slice(&[1, 3], &[100i32, 2, 3]);
    let b = Tensor::from_slice(&[3, 1], &[1i32 << 30, 1, 2]);
    assert_eq!(run(&MatMul::default(), &[a, b])[0].to_i64_vec(), Some(vec![8]));
}

#[test]
fn half_precision_accumulates_in_f32() {
    let half = |shape: &[usize]| Fact::new(DType::F16, shape);
    golden(
        &MatMul::default(),
        &[half(&[4, 2048]), half(&[2048, 4])],
        expect![[r#"
        nest matmul
          in    a: f16[4, 2048]
          in    b: f16[2048, 4]
          out   y: f16[4, 4]
          for i in 4, j in 4:
            register acc: f32
            init: acc = 0.0
            for k in 2048:
              update: acc += f32(a[i, k]) * f32(b[k, j])
            store: y[i, j] = f16(acc)
    "#]],
    );
    let ones = |shape: &[usize]| Tensor::from_fn(DType::F16, shape, |_| 1.0);
    // 2048 + 1 is 2048 in f16.
    assert_eq!(run(&MatMul::default(), &[ones(&[1, 4096]), ones(&[4096, 1])])[0].get_f64(0), 4096.0);
}
