//! Golden schedules.

mod products;

use super::*;
use crate::loopir::{Combiner, NestBuilder, Role};
use crate::target::{CpuIsa, CpuTarget};
use crate::tensor::DType;
use expect_test::{Expect, expect};

/// `x: [C, H, H]`, `w: [K, C, 3, 3]`, padding 1, stride 1.
fn conv3x3(c: usize, k: usize, h: usize) -> Nest {
    let mut n = NestBuilder::new("conv");
    let x = n.param(Role::Input, "x", DType::F32, &[c, h, h]);
    let w = n.param(Role::Constant, "w", DType::F32, &[k, c, 3, 3]);
    let y = n.param(Role::Output, "y", DType::F32, &[k, h, h]);
    let kpq = n.open_all(&[("k", k), ("p", h), ("q", h)]);
    let acc = n.alloc(Scope::Register, "acc", DType::F32, &[]);
    let zero = n.pool().constant(0.0, DType::F32);
    n.store("init", acc, &[], zero);
    let crs = n.open_all(&[("c", c), ("r", 3), ("s", 3)]);
    let pool = n.pool();
    let (row, column) = (pool.add(kpq[1], crs[1]), pool.add(kpq[2], crs[2]));
    let (row, column) = (pool.add_int(row, -1), pool.add_int(column, -1));
    let edges = [
        pool.at_least_int(row, 0),
        pool.less_int(row, h as i64),
        pool.at_least_int(column, 0),
        pool.less_int(column, h as i64),
    ];
    let inside = pool.conjunction(&edges);
    let read = pool.load(x, &[crs[0], row, column]);
    let read = pool.guard(inside, read);
    let weight = pool.load(w, &[kpq[0], crs[0], crs[1], crs[2]]);
    let product = pool.mul(read, weight);
    n.update("update", acc, &[], Combiner::Add, product);
    n.close(3);
    let sum = n.pool().load(acc, &[]);
    n.store("store", y, &kpq, sum);
    n.close(3);
    n.finish()
}

/// `x: [C, H, H]` in windows of 3 x 3 with stride 2 and padding 1; with weights of each channel a depthwise convolution, else
/// the largest element.
fn windows(c: usize, h: usize, weighted: bool) -> Nest {
    let mut n = NestBuilder::new("windows");
    let out = h / 2;
    let x = n.param(Role::Input, "x", DType::F32, &[c, h, h]);
    let w = weighted.then(|| n.param(Role::Constant, "w", DType::F32, &[c, 3, 3]));
    let y = n.param(Role::Output, "y", DType::F32, &[c, out, out]);
    let cpq = n.open_all(&[("c", c), ("p", out), ("q", out)]);
    let acc = n.alloc(Scope::Register, "acc", DType::F32, &[]);
    let start = n.pool().constant(if weighted { 0.0 } else { f64::NEG_INFINITY }, DType::F32);
    n.store("init", acc, &[], start);
    let rs = n.open_all(&[("r", 3), ("s", 3)]);
    let pool = n.pool();
    let [row, column] = [(cpq[1], rs[0]), (cpq[2], rs[1])].map(|(at, inside)| {
        let doubled = pool.mul_int(at, 2);
        let sum = pool.add(doubled, inside);
        pool.add_int(sum, -1)
    });
    let edges = [pool.at_least_int(row, 0), pool.at_least_int(column, 0)];
    let inside = pool.conjunction(&edges);
    let read = pool.load(x, &[cpq[0], row, column]);
    let read = pool.guard(inside, read);
    let (value, combine) = match w {
        Some(w) => {
            let weight = pool.load(w, &[cpq[0], rs[0], rs[1]]);
            (pool.mul(read, weight), Combiner::Add)
        }
        None => (pool.select(inside, read, start), Combiner::Max),
    };
    n.update("update", acc, &[], combine, value);
    n.close(2);
    let total = n.pool().load(acc, &[]);
    n.store("store", y, &cpq, total);
    n.close(3);
    n.finish()
}

fn check(nest: &Nest, expected: Expect) {
    let target = Target::Cpu(CpuTarget::preset(CpuIsa::Avx512, 2));
    let (scheduled, trace) = schedule(nest, &target);
    expected.assert_eq(&format!("{trace}{scheduled}"));
}

#[test]
fn a_large_convolution() {
    check(
        &conv3x3(64, 64, 56),
        expect![[r#"
            split p = [_, 4]
            reorder p.0 k p.1 q
            stage_in x at p.0 in workgroup by c r s p.1 q
            fuse p.1 q as j
            split j = [_, 7, 32]
            split k = [_, 11]
            reorder k.0 j.0 j.1 k.1 j.2
            relayout w by k.0 c r s k.1
            fuse c r as d_0
            fuse d_0 s as d
            stage_out acc at j.1 in register
            reorder d k.1 j.2
            replace d by fma_12x32
            parallel p.0
            nest conv
              in    x: f32[64, 56, 56]
              const w: f32[64, 64, 3, 3]
              out   y: f32[64, 56, 56]
              prepare:
                packed w_p: f32[6, 64, 3, 3, 11]
                for w_p.k.0 in 6, w_p.c in 64, w_p.r in 3, w_p.s in 3, w_p.k.1 in 11:
                  pack_w: w_p[w_p.k.0, w_p.c, w_p.r, w_p.s, w_p.k.1] = guard(w_p.k.0 * 11 + w_p.k.1 < 64, w[w_p.k.0 * 11 + w_p.k.1, w_p.c, w_p.r, w_p.s])
              for p.0 in 14 parallel:
                workgroup x_s: f32[64, 3, 3, 4, 56]
                for x_s.c in 64, x_s.r in 3, x_s.s in 3, x_s.p.1 in 4, x_s.q in 56:
                  stage_x: x_s[x_s.c, x_s.r, x_s.s, x_s.p.1, x_s.q] = guard(p.0 * 4 + x_s.r + x_s.p.1 >= 1 and p.0 * 4 + x_s.r + x_s.p.1 < 57 and x_s.s + x_s.q >= 1 and x_s.s + x_s.q < 57, x[x_s.c, p.0 * 4 + x_s.r + x_s.p.1 + -1, x_s.s + x_s.q + -1])
                for k.0 in 6, j.0 in 1, j.1 in 7:
                  register acc: f32[11, 32]
                  for k.1 in 11, j.2 in 32:
                    init: acc[k.1, j.2] = 0.0 if k.0 * 11 + k.1 < 64
                  for d in 576 by fma_12x32, k.1 in 11, j.2 in 32:
                    update: acc[k.1, j.2] += x_s[d // 9, d // 3 % 3, d % 3, (j.1 * 32 + j.2) // 56, (j.1 * 32 + j.2) % 56] * w_p[k.0, d // 9, d // 3 % 3, d % 3, k.1] if k.0 * 11 + k.1 < 64
                  for k.1 in 11, j.2 in 32:
                    store: y[k.0 * 11 + k.1, p.0 * 4 + (j.1 * 32 + j.2) // 56, (j.1 * 32 + j.2) % 56] = acc[k.1, j.2] if k.0 * 11 + k.1 < 64
        "#]],
    );
}

#[test]
fn a_small_convolution() {
    check(
        &conv3x3(512, 512, 7),
        expect![[r#"
            reorder k p q
            stage_in x in global by c r s p q
            parallel x_s.c
            fuse p q as j
            split j = [_, 2, 32]
            split k = [_, 12]
            reorder k.0 j.0 j.1 k.1 j.2
            relayout w by k.0 c r s k.1
            fuse c r as d_0
            fuse d_0 s as d
            stage_out acc at j.1 in register
            reorder d k.1 j.2
            replace d by fma_12x32
            parallel k.0
            nest conv
              in    x: f32[512, 7, 7]
              const w: f32[512, 512, 3, 3]
              out   y: f32[512, 7, 7]
              prepare:
                packed w_p: f32[43, 512, 3, 3, 12]
                for w_p.k.0 in 43, w_p.c in 512, w_p.r in 3, w_p.s in 3, w_p.k.1 in 12:
                  pack_w: w_p[w_p.k.0, w_p.c, w_p.r, w_p.s, w_p.k.1] = guard(w_p.k.0 * 12 + w_p.k.1 < 512, w[w_p.k.0 * 12 + w_p.k.1, w_p.c, w_p.r, w_p.s])
              global x_s: f32[512, 3, 3, 7, 7]
              for x_s.c in 512 parallel, x_s.r in 3, x_s.s in 3, x_s.p in 7, x_s.q in 7:
                stage_x: x_s[x_s.c, x_s.r, x_s.s, x_s.p, x_s.q] = guard(x_s.r + x_s.p >= 1 and x_s.r + x_s.p < 8 and x_s.s + x_s.q >= 1 and x_s.s + x_s.q < 8, x[x_s.c, x_s.r + x_s.p + -1, x_s.s + x_s.q + -1])
              for k.0 in 43 parallel, j.0 in 1, j.1 in 2:
                register acc: f32[12, 32]
                for k.1 in 12, j.2 in 32:
                  init: acc[k.1, j.2] = 0.0 if j.1 * 32 + j.2 < 49 and k.0 * 12 + k.1 < 512
                for d in 4608 by fma_12x32, k.1 in 12, j.2 in 32:
                  update: acc[k.1, j.2] += x_s[d // 9, d // 3 % 3, d % 3, (j.1 * 32 + j.2) // 7, (j.1 * 32 + j.2) % 7] * w_p[k.0, d // 9, d // 3 % 3, d % 3, k.1] if j.1 * 32 + j.2 < 49 and k.0 * 12 + k.1 < 512
                for k.1 in 12, j.2 in 32:
                  store: y[k.0 * 12 + k.1, (j.1 * 32 + j.2) // 7, (j.1 * 32 + j.2) % 7] = acc[k.1, j.2] if j.1 * 32 + j.2 < 49 and k.0 * 12 + k.1 < 512
        "#]],
    );
}

#[test]
fn a_depthwise_convolution() {
    check(
        &windows(32, 112, true),
        expect![[r#"
        stage_in x at c in workgroup
        stage_out acc at c in register
        reorder r s p q
        replace r by depthwise
        parallel c
        nest windows
          in    x: f32[32, 112, 112]
          const w: f32[32, 3, 3]
          out   y: f32[32, 56, 56]
          for c in 32 parallel:
            workgroup x_s: f32[1, 113, 113]
            for x_s.0 in 1, x_s.1 in 113, x_s.2 in 113:
              stage_x: x_s[x_s.0, x_s.1, x_s.2] = guard(x_s.1 >= 1 and x_s.2 >= 1, x[c + x_s.0, x_s.1 + -1, x_s.2 + -1])
            register acc: f32[56, 56]
            for p in 56, q in 56:
              init: acc[p, q] = 0.0
            for r in 3 by depthwise, s in 3, p in 56, q in 56:
              update: acc[p, q] += x_s[0, r + p * 2, s + q * 2] * w[c, r, s]
            for p in 56, q in 56:
              store: y[c, p, q] = acc[p, q]
    "#]],
    );
}

#[test]
fn a_max_pool_of_blocks() {
    let nest = "nest pool
  in    x: f32[20, 56, 56, 16]
  out   y: f32[20, 28, 28, 16]
  for c.0 in 20, p in 28, q in 28, c.1 in 16:
    register acc: f32
    init: acc = -inf
    for r in 3, s in 3:
      update: acc max= select(p * 2 + r < 56 and q * 2 + s < 56, guard(p * 2 + r < 56 and q * 2 + s < 56, x[c.0, p * 2 + r, q * 2 + s, c.1]), -inf)
    store: y[c.0, p, q, c.1] = acc
";
    check(
        &Nest::parse(nest).unwrap(),
        expect![[r#"
            split p = [_, 1, 7]
            reorder p.0 c.0 p.1
            stage_out acc at p.1 in register
            reorder r s q c.1
            replace r by pool_max_lanes_16
            parallel p.0
            parallel c.0
            nest pool
              in    x: f32[20, 56, 56, 16]
              out   y: f32[20, 28, 28, 16]
              for p.0 in 4 parallel, c.0 in 20 parallel, p.1 in 1:
                register acc: f32[7, 28, 16]
                for p.2 in 7, q in 28, c.1 in 16:
                  init: acc[p.2, q, c.1] = -inf
                for p.2 in 7, r in 3 by pool_max_lanes_16, s in 3, q in 28, c.1 in 16:
                  update: acc[p.2, q, c.1] max= select(r + p.0 * 14 + p.2 * 2 < 56 and s + q * 2 < 56, guard(r + p.0 * 14 + p.2 * 2 < 56 and s + q * 2 < 56, x[c.0, r + p.0 * 14 + p.2 * 2, s + q * 2, c.1]), -inf)
                for p.2 in 7, q in 28, c.1 in 16:
                  store: y[c.0, p.0 * 7 + p.2, q, c.1] = acc[p.2, q, c.1]
        "#]],
    );
}

#[test]
fn a_mean_over_the_places_of_blocks() {
    let nest = "nest mean
  in    x: f32[20, 196, 16]
  out   y: f32[320]
  for c.0 in 20, c.1 in 16:
    register acc: f32
    init: acc = 0.0
    for r in 196:
      update: acc += x[c.0, r, c.1]
    store: y[c.0 * 16 + c.1] = acc / 196.0
";
    check(
        &Nest::parse(nest).unwrap(),
        expect![[r#"
            split c.0 = [_, 1, 5]
            reorder c.0.0 c.0.1
            stage_out acc at c.0.1 in register
            reorder r c.0.2 c.1
            replace r by pool_sum_lanes_16
            parallel c.0.0
            parallel c.0.1
            nest mean
              in    x: f32[20, 196, 16]
              out   y: f32[320]
              for c.0.0 in 4 parallel, c.0.1 in 1 parallel:
                register acc: f32[5, 16]
                for c.0.2 in 5, c.1 in 16:
                  init: acc[c.0.2, c.1] = 0.0
                for r in 196 by pool_sum_lanes_16, c.0.2 in 5, c.1 in 16:
                  update: acc[c.0.2, c.1] += x[c.0.0 * 5 + c.0.2, r, c.1]
                for c.0.2 in 5, c.1 in 16:
                  store: y[c.0.0 * 80 + c.0.2 * 16 + c.1] = acc[c.0.2, c.1] / 196.0
        "#]],
    );
}

#[test]
fn a_max_pool() {
    check(
        &windows(64, 56, false),
        expect![[r#"
        stage_in x at c in workgroup
        stage_out acc at c in register
        reorder r s p q
        replace r by pool_max
        parallel c
        nest windows
          in    x: f32[64, 56, 56]
          out   y: f32[64, 28, 28]
          for c in 64 parallel:
            workgroup x_s: f32[1, 57, 57]
            for x_s.0 in 1, x_s.1 in 57, x_s.2 in 57:
              stage_x: x_s[x_s.0, x_s.1, x_s.2] = select(x_s.1 >= 1 and x_s.2 >= 1, guard(x_s.1 >= 1 and x_s.2 >= 1, x[c + x_s.0, x_s.1 + -1, x_s.2 + -1]), -inf)
            register acc: f32[28, 28]
            for p in 28, q in 28:
              init: acc[p, q] = -inf
            for r in 3 by pool_max, s in 3, p in 28, q in 28:
              update: acc[p, q] max= x_s[0, r + p * 2, s + q * 2]
            for p in 28, q in 28:
              store: y[c, p, q] = acc[p, q]
    "#]],
    );
}

/// What a convolution of `w` over `x` is where the channels of `x` and `y` lie in blocks; `sum` is the loops of the sum and the block.
fn in_blocks(params: &str, loops: &str, sum: &str) -> Nest {
    let text = format!(
        "nest conv\n{params}  for {loops}:\n    register acc: f32\n    init: acc = 0.0\n    for {sum}\n    \
         store: y[k.0, p, q, k.1] = max(acc, 0.0)\n"
    );
    Nest::parse(&text).unwrap()
}

#[test]
fn a_convolution_in_blocks() {
    let x =
        "guard(p + r >= 1 and p + r < 57 and q + s >= 1 and q + s < 57, x[c.0, p + r + -1, q + s + -1, c.1])";
    check(
        &in_blocks(
            "  in    x: f32[4, 56, 56, 16]\n  const w: f32[64, 64, 3, 3]\n  out   y: f32[4, 56, 56, 16]\n",
            "k.0 in 4, p in 56, q in 56, k.1 in 16",
            &format!(
                "c.0 in 4, r in 3, s in 3, c.1 in 16:\n      update: acc += {x} * w[k.0 * 16 + k.1, c.0 * 16 + c.1, r, s]"
            ),
        ),
        expect![[r#"
            split k.0 = [_, 2]
            split p = [_, 14, 1]
            reorder p.0 k.0.0 p.1 p.2 k.0.1 q k.1
            stage_in x at p.0 in workgroup
            relayout w by k.0.0 c.0 r s c.1 k.0.1 k.1
            stage_out acc at p.1 in register
            reorder c.0 r s c.1 q k.0.1 k.1
            replace c.0 by fma_12x2x16
            parallel p.0
            nest conv
              in    x: f32[4, 56, 56, 16]
              const w: f32[64, 64, 3, 3]
              out   y: f32[4, 56, 56, 16]
              prepare:
                packed w_p: f32[2, 4, 3, 3, 16, 2, 16]
                for w_p.k.0.0 in 2, w_p.c.0 in 4, w_p.r in 3, w_p.s in 3, w_p.c.1 in 16, w_p.k.0.1 in 2, w_p.k.1 in 16:
                  pack_w: w_p[w_p.k.0.0, w_p.c.0, w_p.r, w_p.s, w_p.c.1, w_p.k.0.1, w_p.k.1] = w[w_p.k.0.0 * 32 + w_p.k.0.1 * 16 + w_p.k.1, w_p.c.0 * 16 + w_p.c.1, w_p.r, w_p.s]
              for p.0 in 4 parallel:
                workgroup x_s: f32[4, 16, 58, 16]
                for x_s.0 in 4, x_s.1 in 16, x_s.2 in 58, x_s.3 in 16:
                  stage_x: x_s[x_s.0, x_s.1, x_s.2, x_s.3] = guard(p.0 * 14 + x_s.1 >= 1 and p.0 * 14 + x_s.1 < 57 and x_s.2 >= 1 and x_s.2 < 57, x[x_s.0, p.0 * 14 + x_s.1 + -1, x_s.2 + -1, x_s.3])
                for k.0.0 in 2, p.1 in 14:
                  register acc: f32[1, 2, 56, 16]
                  for p.2 in 1, k.0.1 in 2, q in 56, k.1 in 16:
                    init: acc[p.2, k.0.1, q, k.1] = 0.0
                  for p.2 in 1, c.0 in 4 by fma_12x2x16, r in 3, s in 3, c.1 in 16, q in 56, k.0.1 in 2, k.1 in 16:
                    update: acc[p.2, k.0.1, q, k.1] += x_s[c.0, r + p.1, s + q, c.1] * w_p[k.0.0, c.0, r, s, c.1, k.0.1, k.1]
                  for p.2 in 1, k.0.1 in 2, q in 56, k.1 in 16:
                    store: y[k.0.0 * 2 + k.0.1, p.0 * 14 + p.1, q, k.1] = max(acc[p.2, k.0.1, q, k.1], 0.0)
        "#]],
    );
}

#[test]
fn a_pointwise_convolution_in_blocks() {
    check(
        &in_blocks(
            "  in    x: f32[4, 56, 56, 16]\n  const w: f32[256, 64]\n  out   y: f32[16, 56, 56, 16]\n",
            "k.0 in 16, p in 56, q in 56, k.1 in 16",
            "c.0 in 4, c.1 in 16:\n      update: acc += x[c.0, p, q, c.1] * w[k.0 * 16 + k.1, c.0 * 16 + c.1]",
        ),
        expect![[r#"
            split k.0 = [_, 2]
            fuse p q as i
            split i = [_, 8, 98]
            reorder i.0 k.0.0 i.1 k.0.1 i.2 k.1
            relayout w by k.0.0 c.0 c.1 k.0.1 k.1
            stage_out acc at i.1 in register
            reorder c.0 c.1 i.2 k.0.1 k.1
            replace c.0 by fma_12x2x16
            parallel i.0
            nest conv
              in    x: f32[4, 56, 56, 16]
              const w: f32[256, 64]
              out   y: f32[16, 56, 56, 16]
              prepare:
                packed w_p: f32[8, 4, 16, 2, 16]
                for w_p.k.0.0 in 8, w_p.c.0 in 4, w_p.c.1 in 16, w_p.k.0.1 in 2, w_p.k.1 in 16:
                  pack_w: w_p[w_p.k.0.0, w_p.c.0, w_p.c.1, w_p.k.0.1, w_p.k.1] = w[w_p.k.0.0 * 32 + w_p.k.0.1 * 16 + w_p.k.1, w_p.c.0 * 16 + w_p.c.1]
              for i.0 in 4 parallel, k.0.0 in 8, i.1 in 8:
                register acc: f32[2, 98, 16]
                for k.0.1 in 2, i.2 in 98, k.1 in 16:
                  init: acc[k.0.1, i.2, k.1] = 0.0
                for c.0 in 4 by fma_12x2x16, c.1 in 16, i.2 in 98, k.0.1 in 2, k.1 in 16:
                  update: acc[k.0.1, i.2, k.1] += x[c.0, i.0 * 14 + (i.1 * 98 + i.2) // 56, (i.1 * 98 + i.2) % 56, c.1] * w_p[k.0.0, c.0, c.1, k.0.1, k.1]
                for k.0.1 in 2, i.2 in 98, k.1 in 16:
                  store: y[k.0.0 * 2 + k.0.1, i.0 * 14 + (i.1 * 98 + i.2) // 56, (i.1 * 98 + i.2) % 56, k.1] = max(acc[k.0.1, i.2, k.1], 0.0)
        "#]],
    );
}

#[test]
fn a_pointwise_convolution_of_blocks_that_are_not_full_or_not_even() {
    check_trace(
        &in_blocks(
            "  in    x: f32[2, 56, 56, 16]\n  const w: f32[144, 24]\n  out   y: f32[9, 56, 56, 16]\n",
            "k.0 in 9, p in 56, q in 56, k.1 in 16",
            "c.0 in 2, c.1 in 16:\n      update: acc += x[c.0, p, q, c.1] * w[k.0 * 16 + k.1, c.0 * 16 + c.1] if c.0 * 16 + c.1 < 24",
        ),
        expect![[r#"
            split k.0 = [_, 3]
            fuse p q as i
            split i = [_, 28, 56]
            reorder i.0 k.0.0 i.1 k.0.1 i.2 k.1
            relayout w by k.0.0 c.0 c.1 k.0.1 k.1
            stage_out acc at i.1 in register
            reorder c.0 c.1 i.2 k.0.1 k.1
            replace c.0 by fma_8x3x16
            parallel i.0
        "#]],
    );
}

#[test]
fn a_depthwise_convolution_in_blocks() {
    check(
        &in_blocks(
            "  in    x: f32[4, 57, 57, 16]\n  const w: f32[64, 3, 3]\n  out   y: f32[4, 28, 28, 16]\n",
            "k.0 in 4, p in 28, q in 28, k.1 in 16",
            "r in 3, s in 3:\n      update: acc += x[k.0, p * 2 + r, q * 2 + s, k.1] * w[k.0 * 16 + k.1, r, s]",
        ),
        expect![[r#"
            split p = [_, 1, 7]
            reorder p.0 k.0 p.1 p.2 q k.1
            relayout w by k.0 r s k.1
            stage_out acc at p.1 in register
            reorder r s q k.1
            replace r by fma_lanes_16
            parallel p.0
            nest conv
              in    x: f32[4, 57, 57, 16]
              const w: f32[64, 3, 3]
              out   y: f32[4, 28, 28, 16]
              prepare:
                packed w_p: f32[4, 3, 3, 16]
                for w_p.k.0 in 4, w_p.r in 3, w_p.s in 3, w_p.k.1 in 16:
                  pack_w: w_p[w_p.k.0, w_p.r, w_p.s, w_p.k.1] = w[w_p.k.0 * 16 + w_p.k.1, w_p.r, w_p.s]
              for p.0 in 4 parallel, k.0 in 4, p.1 in 1:
                register acc: f32[7, 28, 16]
                for p.2 in 7, q in 28, k.1 in 16:
                  init: acc[p.2, q, k.1] = 0.0
                for p.2 in 7, r in 3 by fma_lanes_16, s in 3, q in 28, k.1 in 16:
                  update: acc[p.2, q, k.1] += x[k.0, r + p.0 * 14 + p.2 * 2, s + q * 2, k.1] * w_p[k.0, r, s, k.1]
                for p.2 in 7, q in 28, k.1 in 16:
                  store: y[k.0, p.0 * 7 + p.2, q, k.1] = max(acc[p.2, q, k.1], 0.0)
        "#]],
    );
}

#[test]
fn a_pointwise_convolution_makes_bands_of_its_operand() {
    let text = "nest conv_conv\n  in    x: f32[4, 112, 112, 16]\n  const own: f32[64, 1, 3, 3]\n  const w: f32[24, 64]\n  \
        out   y: f32[2, 56, 56, 16]\n  global t: f32[1, 4, 56, 56, 16]\n  \
        for t.g.0 in 4, t.p in 56, t.q in 56, t.g.1 in 16:\n    register t.acc: f32\n    init_t.acc: t.acc = 0.0\n    \
        for t.r in 3, t.s in 3:\n      update_t.acc: t.acc += guard(t.p * 2 + t.r >= 1 and t.q * 2 + t.s >= 1, \
        x[t.g.0, t.p * 2 + t.r + -1, t.q * 2 + t.s + -1, t.g.1]) * own[t.g.0 * 16 + t.g.1, 0, t.r, t.s]\n    \
        make_t: t[0, t.g.0, t.p, t.q, t.g.1] = max(t.acc, 0.0)\n  \
        for k.0 in 2, p in 56, q in 56, k.1 in 16:\n    register acc: f32\n    init: acc = 0.0\n    \
        for c.0 in 4, c.1 in 16:\n      update: acc += t[0, c.0, p, q, c.1] * \
        guard(k.0 * 16 + k.1 < 24, w[k.0 * 16 + k.1, c.0 * 16 + c.1])\n    store: y[k.0, p, q, k.1] = acc\n";
    check(
        &Nest::parse(text).unwrap(),
        expect![[r#"
        split k.0 = [_, 2]
        split p = [_, 14]
        reorder p.0 k.0.0 p.1 q k.0.1 k.1
        compute_at make_t in p.0
        relayout own by t.1 t.r t.s t.4
        split t.2 = [_, 2]
        stage_out t.acc at t.2.0 in register
        reorder t.r t.s t.3 t.4
        replace t.r by fma_lanes_16
        fuse p.1 q as i
        split i = [_, 98]
        reorder k.0.0 i.0 k.0.1 i.1 k.1
        relayout w by k.0.0 c.0 c.1 k.0.1 k.1
        stage_out acc at i.0 in register
        reorder c.0 c.1 i.1 k.0.1 k.1
        replace c.0 by fma_12x2x16
        parallel p.0
        nest conv_conv
          in    x: f32[4, 112, 112, 16]
          const own: f32[64, 1, 3, 3]
          const w: f32[24, 64]
          out   y: f32[2, 56, 56, 16]
          prepare:
            packed own_p: f32[4, 3, 3, 16]
            for own_p.t.1 in 4, own_p.t.r in 3, own_p.t.s in 3, own_p.t.4 in 16:
              pack_own: own_p[own_p.t.1, own_p.t.r, own_p.t.s, own_p.t.4] = own[own_p.t.1 * 16 + own_p.t.4, 0, own_p.t.r, own_p.t.s]
            packed w_p: f32[1, 4, 16, 2, 16]
            for w_p.k.0.0 in 1, w_p.c.0 in 4, w_p.c.1 in 16, w_p.k.0.1 in 2, w_p.k.1 in 16:
              pack_w: w_p[w_p.k.0.0, w_p.c.0, w_p.c.1, w_p.k.0.1, w_p.k.1] = guard(w_p.k.0.1 * 16 + w_p.k.1 < 24, w[w_p.k.0.1 * 16 + w_p.k.1, w_p.c.0 * 16 + w_p.c.1])
          for p.0 in 4 parallel:
            workgroup t: f32[1, 4, 14, 56, 16]
            for t.1 in 4, t.2.0 in 7:
              register t.acc: f32[2, 56, 16]
              for t.2.1 in 2, t.3 in 56, t.4 in 16:
                init_t.acc: t.acc[t.2.1, t.3, t.4] = 0.0
              for t.2.1 in 2, t.r in 3 by fma_lanes_16, t.s in 3, t.3 in 56, t.4 in 16:
                update_t.acc: t.acc[t.2.1, t.3, t.4] += guard(t.r + p.0 * 28 + t.2.0 * 4 + t.2.1 * 2 >= 1 and t.s + t.3 * 2 >= 1, x[t.1, t.r + p.0 * 28 + t.2.0 * 4 + t.2.1 * 2 + -1, t.s + t.3 * 2 + -1, t.4]) * own_p[t.1, t.r, t.s, t.4]
              for t.2.1 in 2, t.3 in 56, t.4 in 16:
                make_t: t[0, t.1, t.2.0 * 2 + t.2.1, t.3, t.4] = max(t.acc[t.2.1, t.3, t.4], 0.0)
            for k.0.0 in 1, i.0 in 8:
              register acc: f32[2, 98, 16]
              for k.0.1 in 2, i.1 in 98, k.1 in 16:
                init: acc[k.0.1, i.1, k.1] = 0.0
              for c.0 in 4 by fma_12x2x16, c.1 in 16, i.1 in 98, k.0.1 in 2, k.1 in 16:
                update: acc[k.0.1, i.1, k.1] += t[0, c.0, (i.0 * 98 + i.1) // 56, (i.0 * 98 + i.1) % 56, c.1] * w_p[k.0.0, c.0, c.1, k.0.1, k.1]
              for k.0.1 in 2, i.1 in 98, k.1 in 16:
                store: y[k.0.1, p.0 * 14 + (i.0 * 98 + i.1) // 56, (i.0 * 98 + i.1) % 56, k.1] = acc[k.0.1, i.1, k.1]
    "#]],
    );
}

#[test]
fn every_tile_is_an_instruction() {
    for name in cpu::tile_names() {
        assert!(super::super::instruction_named(&name).is_some(), "{name}");
    }
}

fn check_trace(nest: &Nest, expected: Expect) {
    let target = Target::Cpu(CpuTarget::preset(CpuIsa::Avx512, 2));
    expected.assert_eq(&schedule(nest, &target).1.to_string());
}

#[test]
fn a_patch_embedding_is_divided_over_threads() {
    let nest: Nest = "nest embed
  in    x: f32[3, 112, 112]
  const w: f32[64, 3, 8, 8]
  out   y: f32[196, 64]
  for k in 64, p in 14, q in 14:
    register acc: f32
    init: acc = 0.0
    for c in 3, r in 8, s in 8:
      update: acc += x[c, p * 8 + r, q * 8 + s] * w[k, c, r, s]
    store: y[p * 14 + q, k] = acc
"
    .parse()
    .unwrap();
    check_trace(
        &nest,
        expect![[r#"
        reorder p q k
        split k = [_, 2, 32]
        split q = [_, 7]
        reorder q.0 k.0 k.1 q.1 k.2
        stage_in x in global by p q.0 c r s q.1
        parallel x_s.p
        fuse c r as d_0
        fuse d_0 s as d
        relayout w by k.1 d k.2
        stage_out acc at k.1 in register
        reorder d q.1 k.2
        replace d by fma_12x32
        parallel p
    "#]],
    );
}

#[test]
fn a_map_over_blocks_is_divided_by_planes() {
    let map = Nest::parse(
        "nest map
  in    x: f32[20, 196, 16]
  const w: f32[320]
  out   y: f32[20, 196, 16]
  for b in 20, i in 196, l in 16:
    store: y[b, i, l] = x[b, i, l] * w[b * 16 + l]
",
    );
    check_trace(
        &map.unwrap(),
        expect![[r#"
        parallel b
    "#]],
    );
}

#[test]
fn places_of_a_stride_are_read_as_one_row() {
    let nest: Nest = "nest pointwise
  in    x: f32[4, 14, 14, 16]
  const w: f32[64, 64]
  out   y: f32[4, 7, 7, 16]
  for k in 4, p in 7, q in 7, l in 16:
    register acc: f32
    init: acc = 0.0
    for c in 4, d in 16:
      update: acc += x[c, p * 2, q * 2, d] * w[k * 16 + l, c * 16 + d]
    store: y[k, p, q, l] = acc
"
    .parse()
    .unwrap();
    check_trace(
        &nest,
        expect![[r#"
            stage_in x in global by c p q d
            parallel x_s.c
            parallel x_s.p
            split k = [_, 2]
            fuse p q as i
            split i = [_, 1, 25]
            reorder i.0 k.0 i.1 k.1 i.2 l
            relayout w by k.0 c d k.1 l
            stage_out acc at i.1 in register
            reorder c d i.2 k.1 l
            replace c by fma_12x2x16
            parallel i.0
        "#]],
    );
}

#[test]
fn a_shuffle_before_a_sum_divides_its_loop() {
    let nest: Nest = "nest shuffled
  in    x: f32[64, 49]
  const w: f32[64, 64]
  out   y: f32[4, 49, 16]
  for k in 4, p in 49, l in 16:
    register acc: f32
    init: acc = 0.0
    for c in 64:
      update: acc += x[c // 2 + c % 2 * 32, p] * w[k * 16 + l, c]
    store: y[k, p, l] = acc
"
    .parse()
    .unwrap();
    check_trace(
        &nest,
        expect![[r#"
            split c = [_, 2]
            split k = [_, 2]
            split p = [_, 1, 25]
            reorder p.0 k.0 p.1 k.1 p.2 l
            relayout w by k.0 c.0 c.1 k.1 l
            stage_out acc at p.1 in register
            reorder c.0 c.1 p.2 k.1 l
            replace c.0 by fma_12x2x16
            parallel p.0
        "#]],
    );
}
