//! Golden nests before and after schedules, and refusals.

mod staging;
mod transforms;

use super::*;
use crate::analysis::{verify_races, work};
use crate::interp;
use crate::loopir::{Buffer, Combiner, NestBuilder, Role};
use crate::tensor::{DType, Tensor};
use expect_test::{Expect, expect};
pub(crate) use transforms::winograd;

/// `y = a b`, as a definition leaves it.
pub(crate) fn matmul(rows: usize, columns: usize, depth: usize) -> Nest {
    let mut n = NestBuilder::new("matmul");
    let a = n.param(Role::Input, "a", DType::F32, &[rows, depth]);
    let b = n.param(Role::Constant, "b", DType::F32, &[depth, columns]);
    let y = n.param(Role::Output, "y", DType::F32, &[rows, columns]);
    let ij = n.open_all(&[("i", rows), ("j", columns)]);
    let acc = n.alloc(Scope::Register, "acc", DType::F32, &[]);
    let zero = n.pool().constant(0.0, DType::F32);
    n.store("init", acc, &[], zero);
    let k = n.open("k", depth);
    let (left, right) = (n.pool().load(a, &[ij[0], k]), n.pool().load(b, &[k, ij[1]]));
    let product = n.pool().mul(left, right);
    n.update("update", acc, &[], Combiner::Add, product);
    n.close(1);
    let sum = n.pool().load(acc, &[]);
    n.store("store", y, &ij, sum);
    n.close(2);
    n.finish()
}

fn check(mut nest: Nest, trace: &str, expected: Expect) {
    let trace = Trace::parse(trace).unwrap();
    assert_eq!(Trace::parse(&trace.to_string()).unwrap(), trace);
    let before = nest.clone();
    if let Err(error) = trace.apply(&mut nest) {
        panic!("{error}\n{nest}");
    }
    expected.assert_eq(&nest.to_string());
    same_meaning(&before, &nest);
}

/// The scheduled nest is valid and has no race, prints so that it can be parsed, and computes the same where that is quick.
fn same_meaning(before: &Nest, after: &Nest) {
    if let Err(errors) = after.verify() {
        panic!("{errors:?}\n{after}");
    }
    assert_eq!(verify_races(after), Ok(()), "{after}");
    let parsed = Nest::parse(&after.to_string()).unwrap();
    assert_eq!(parsed.structural_hash(), after.structural_hash());
    if work(&after.pool, &after.body).blocks > 4_000_000 {
        return;
    }
    let mut rng = crate::base::Random::new(1);
    let given = before.params.iter().map(|&id| &before.pool.buffers[id]).filter(|of| of.role != Role::Output);
    let params: Vec<Tensor> =
        given.map(|of| Tensor::from_fn(of.dtype, &of.shape, |_| rng.below(9) as f64 - 4.0)).collect();
    let expected = interp::run_with(before, &params, interp::Options::FAST).unwrap();
    let actual = interp::run(&parsed, &params).unwrap_or_else(|error| panic!("{error}\n{after}"));
    // Small integers, so that no sum rounds.
    assert_eq!(actual, expected);
}

fn step(text: &str) -> Step {
    Trace::parse(text).unwrap().steps.remove(0)
}

fn refused(mut nest: Nest, trace: &str, expected: Expect) {
    let before = nest.to_string();
    expected.assert_eq(&step(trace).apply(&mut nest).unwrap_err().to_string());
    assert_eq!(nest.to_string(), before);
}

#[test]
fn a_gpu_matmul() {
    check(
        matmul(512, 384, 256),
        "split i = [_, 16, 8]
         split j = [_, 16, 4]
         split k = [_, 16]
         reorder i.0 j.0 i.1 j.1 i.2 j.2
         stage_out acc at j.1 in register
         reorder k.0 k.1 i.2 j.2
         bind i.0 workgroup.y
         bind j.0 workgroup.x
         bind i.1 invocation.y
         bind j.1 invocation.x
         stage_in a at k.0 in workgroup by k.1 i.1 i.2 pad 1
         stage_in b at k.0 in workgroup by k.1 j.1 j.2 vector 4
         unroll i.2
         unroll k.1
         vectorise j.2",
        expect![[r#"
            nest matmul
              in    a: f32[512, 256]
              const b: f32[256, 384]
              out   y: f32[512, 384]
              for i.0 in 4 workgroup.y, j.0 in 6 workgroup.x:
                workgroup a_s: f32[16, 16, 8] pad 1
                workgroup b_s: f32[16, 16, 4]
                for i.1 in 16 invocation.y, j.1 in 16 invocation.x:
                  register acc: f32[8, 4]
                  for i.2 in 8 unroll, j.2 in 4 vector:
                    init: acc[i.2, j.2] = 0.0
                  for k.0 in 16:
                    barrier
                    for a_s.copy in 8:
                      stage_a: a_s[a_s.copy * 2 + i.1 // 8, j.1 // 8 + i.1 % 8 * 2, j.1 % 8] = a[i.0 * 128 + j.1 + i.1 % 8 * 16, k.0 * 16 + a_s.copy * 2 + i.1 // 8]
                    for b_s.copy in 1, b_s.lane in 4 vector:
                      stage_b: b_s[i.1 + b_s.copy * 16, j.1, b_s.lane] = b[i.1 + k.0 * 16 + b_s.copy * 16, j.0 * 64 + j.1 * 4 + b_s.lane]
                    barrier
                    for k.1 in 16 unroll, i.2 in 8 unroll, j.2 in 4 vector:
                      update: acc[i.2, j.2] += a_s[k.1, i.1, i.2] * b_s[k.1, j.1, j.2]
                  for i.2 in 8 unroll, j.2 in 4 vector:
                    store: y[i.0 * 128 + i.1 * 8 + i.2, j.0 * 64 + j.1 * 4 + j.2] = acc[i.2, j.2]
        "#]],
    );
}

#[test]
fn a_cpu_matmul_with_tails() {
    check(
        matmul(50, 70, 256),
        "split i = [_, 12]
         split j = [_, 32]
         relayout b by j.0 k j.1
         reorder j.0 i.0 i.1 j.1
         stage_out acc at i.0 in register
         reorder k i.1 j.1
         stage_in a at i.0 in register by k i.1
         replace k by fma_12x32
         parallel j.0",
        expect![[r#"
            nest matmul
              in    a: f32[50, 256]
              const b: f32[256, 70]
              out   y: f32[50, 70]
              prepare:
                packed b_p: f32[3, 256, 32]
                for b_p.j.0 in 3, b_p.k in 256, b_p.j.1 in 32:
                  pack_b: b_p[b_p.j.0, b_p.k, b_p.j.1] = guard(b_p.j.0 * 32 + b_p.j.1 < 70, b[b_p.k, b_p.j.0 * 32 + b_p.j.1])
              for j.0 in 3 parallel, i.0 in 5:
                register a_s: f32[256, 12]
                for a_s.k in 256, a_s.i.1 in 12:
                  stage_a: a_s[a_s.k, a_s.i.1] = guard(i.0 * 12 + a_s.i.1 < 50, a[i.0 * 12 + a_s.i.1, a_s.k])
                register acc: f32[12, 32]
                for i.1 in 12, j.1 in 32:
                  init: acc[i.1, j.1] = 0.0 if i.0 * 12 + i.1 < 50 and j.0 * 32 + j.1 < 70
                for k in 256 by fma_12x32, i.1 in 12, j.1 in 32:
                  update: acc[i.1, j.1] += a_s[k, i.1] * b_p[j.0, k, j.1] if i.0 * 12 + i.1 < 50 and j.0 * 32 + j.1 < 70
                for i.1 in 12, j.1 in 32:
                  store: y[i.0 * 12 + i.1, j.0 * 32 + j.1] = acc[i.1, j.1] if i.0 * 12 + i.1 < 50 and j.0 * 32 + j.1 < 70
        "#]],
    );
}

#[test]
fn a_constant_is_packed_as_what_it_is_converted_to() {
    let nest = |factor: &str| {
        let text = format!(
            "\
nest product
  in    x: f32[8]
  const w: f16[8, 6]
  out   y: f32[6]
  for j in 6:
    register acc: f32
    init: acc = 0.0
    for k in 8:
      update: acc += x[k] * f32({factor})
    store: y[j] = acc
"
        );
        Nest::parse(&text).unwrap()
    };
    check(
        nest("w[k, j]"),
        "split j = [_, 4]\nrelayout w by j.0 k j.1 as f32",
        expect![[r#"
        nest product
          in    x: f32[8]
          const w: f16[8, 6]
          out   y: f32[6]
          prepare:
            packed w_p: f32[2, 8, 4]
            for w_p.j.0 in 2, w_p.k in 8, w_p.j.1 in 4:
              pack_w: w_p[w_p.j.0, w_p.k, w_p.j.1] = f32(guard(w_p.j.0 * 4 + w_p.j.1 < 6, w[w_p.k, w_p.j.0 * 4 + w_p.j.1]))
          for j.0 in 2, j.1 in 4:
            register acc: f32
            init: acc = 0.0 if j.0 * 4 + j.1 < 6
            for k in 8:
              update: acc += x[k] * w_p[j.0, k, j.1] if j.0 * 4 + j.1 < 6
            store: y[j.0 * 4 + j.1] = acc if j.0 * 4 + j.1 < 6
    "#]],
    );
    refused(nest("w[k, j]"), "relayout w by k j as bf16", expect!["buffer 'w': is not stored as bf16"]);
    refused(
        nest("w[k, j] * w[k, j]"),
        "relayout w by k j as f32",
        expect!["buffer 'w': is read where it is not converted to f32"],
    );
}

#[test]
fn a_constant_is_packed_whatever_is_computed_from_it() {
    // The condition is on a value that the nest computes: it is not there when the constant is packed.
    let text = "\
nest prelu
  in    x: f32[4, 8]
  const w: f32[8]
  out   y: f32[4, 8]
  for i in 4, j in 8:
    register acc: f32
    keep: acc = x[i, j]
    store: y[i, j] = select(acc < 0.0, w[j] * acc, acc)
";
    check(
        Nest::parse(text).unwrap(),
        "split j = [_, 4]\nrelayout w by j.0 j.1",
        expect![[r#"
        nest prelu
          in    x: f32[4, 8]
          const w: f32[8]
          out   y: f32[4, 8]
          prepare:
            packed w_p: f32[2, 4]
            for w_p.j.0 in 2, w_p.j.1 in 4:
              pack_w: w_p[w_p.j.0, w_p.j.1] = w[w_p.j.0 * 4 + w_p.j.1]
          for i in 4, j.0 in 2, j.1 in 4:
            register acc: f32
            keep: acc = x[i, j.0 * 4 + j.1]
            store: y[i, j.0 * 4 + j.1] = select(acc < 0.0, w_p[j.0, j.1] * acc, acc)
    "#]],
    );
}

#[test]
fn a_peeled_split() {
    check(
        matmul(10, 4, 8),
        "split i = [_, 4] peel",
        expect![[r#"
        nest matmul
          in    a: f32[10, 8]
          const b: f32[8, 4]
          out   y: f32[10, 4]
          for i.0 in 2, i.1 in 4, j in 4:
            register acc: f32
            init: acc = 0.0
            for k in 8:
              update: acc += a[i.0 * 4 + i.1, k] * b[k, j]
            store: y[i.0 * 4 + i.1, j] = acc
          for i in 2, j in 4:
            register acc_tail: f32
            init_tail: acc_tail = 0.0
            for k in 8:
              update_tail: acc_tail += a[i + 8, k] * b[k, j]
            store_tail: y[i + 8, j] = acc_tail
    "#]],
    );
}

#[test]
fn a_split_reduction() {
    check(
        matmul(2, 2, 32),
        "split k = [_, 8]\nsplit_reduction acc over k.0",
        expect![[r#"
        nest matmul
          in    a: f32[2, 32]
          const b: f32[32, 2]
          out   y: f32[2, 2]
          for i in 2, j in 2:
            register acc: f32
            init: acc = 0.0
            register acc_r: f32[4]
            for k.0 in 4:
              partial: acc_r[k.0] = 0.0
              for k.1 in 8:
                update: acc_r[k.0] += a[i, k.0 * 8 + k.1] * b[k.0 * 8 + k.1, j]
            for k.0 in 4:
              combine: acc += acc_r[k.0]
            store: y[i, j] = acc
    "#]],
    );
}

#[test]
fn swizzled_loops_go_through_bands() {
    check(
        matmul(8, 6, 2),
        "swizzle i j in 4 as ij",
        expect![[r#"
        nest matmul
          in    a: f32[8, 2]
          const b: f32[2, 6]
          out   y: f32[8, 6]
          for ij in 48:
            register acc: f32
            init: acc = 0.0
            for k in 2:
              update: acc += a[ij // 24 * 4 + ij % 24 % 4, k] * b[k, ij % 24 // 4]
            store: y[ij // 24 * 4 + ij % 24 % 4, ij % 24 // 4] = acc
    "#]],
    );
    check(
        matmul(5, 6, 2),
        "swizzle i j in 2 as ij",
        expect![[r#"
        nest matmul
          in    a: f32[5, 2]
          const b: f32[2, 6]
          out   y: f32[5, 6]
          for ij in 36:
            register acc: f32
            init: acc = 0.0 if ij // 12 * 2 + ij % 12 % 2 < 5
            for k in 2:
              update: acc += a[ij // 12 * 2 + ij % 12 % 2, k] * b[k, ij % 12 // 2] if ij // 12 * 2 + ij % 12 % 2 < 5
            store: y[ij // 12 * 2 + ij % 12 % 2, ij % 12 // 2] = acc if ij // 12 * 2 + ij % 12 % 2 < 5
    "#]],
    );
}

#[test]
fn loops_of_no_iterations_fuse() {
    check(
        matmul(4, 0, 2),
        "fuse i j as f",
        expect![[r#"
            nest matmul
              in    a: f32[4, 2]
              const b: f32[2, 0]
              out   y: f32[4, 0]
              for f in 0:
                register acc: f32
                init: acc = 0.0
                for k in 2:
                  update: acc += a[f, k] * b[k, 0]
                store: y[f, 0] = acc
        "#]],
    );
}

fn chain() -> Nest {
    let mut n = NestBuilder::new("chain");
    let x = n.param(Role::Input, "x", DType::F32, &[10]);
    let y = n.param(Role::Output, "y", DType::F32, &[8]);
    let t = n.alloc(Scope::Global, "t", DType::F32, &[10]);
    let i = n.open("i", 10);
    let value = n.pool().load(x, &[i]);
    let double = n.pool().add(value, value);
    n.store("double", t, &[i], double);
    n.close(1);
    let p = n.open("p", 8);
    let zero = n.pool().constant(0.0, DType::F32);
    n.store("init", y, &[p], zero);
    let r = n.open("r", 3);
    let at = n.pool().add(p, r);
    let value = n.pool().load(t, &[at]);
    n.update("sum", y, &[p], Combiner::Add, value);
    n.close(2);
    n.finish()
}

#[test]
fn inlined() {
    check(
        chain(),
        "inline double",
        expect![[r#"
        nest chain
          in    x: f32[10]
          out   y: f32[8]
          for p in 8:
            init: y[p] = 0.0
            for r in 3:
              sum: y[p] += x[p + r] + x[p + r]
    "#]],
    );
}

#[test]
fn computed_at() {
    check(
        chain(),
        "compute_at double in p",
        expect![[r#"
        nest chain
          in    x: f32[10]
          out   y: f32[8]
          for p in 8:
            workgroup t: f32[3]
            for t.0 in 3:
              double: t[t.0] = x[p + t.0] + x[p + t.0]
            init: y[p] = 0.0
            for r in 3:
              sum: y[p] += t[r]
    "#]],
    );
}

#[test]
fn refusals() {
    let m = || matmul(8, 8, 8);
    refused(m(), "split z = [_, 4]", expect!["there is no loop 'z'"]);
    refused(m(), "split i = [_, 0]", expect!["the factors [0] cannot split loop 'i' of extent 8"]);
    refused(m(), "fuse i k as f", expect!["loop 'k' is not directly inside loop 'i'"]);
    refused(m(), "swizzle i k in 4 as f", expect!["loop 'k' is not directly inside loop 'i'"]);
    refused(m(), "swizzle i j in 0 as f", expect!["the factors [0] cannot split loop 'i' of extent 8"]);
    refused(m(), "reorder j k", expect!["loop 'k' is not directly inside loop 'j'"]);
    refused(m(), "parallel k", expect!["the iterations of loop 'k' depend on one another through 'acc'"]);
    refused(
        m(),
        "stage_in a at j in register by i",
        expect!["buffer 'a': is read at loop 'k', which is not listed"],
    );
    let mut bound = m();
    Trace::parse("bind i invocation.x").unwrap().apply(&mut bound).unwrap();
    refused(
        bound,
        "stage_in a at i in workgroup",
        expect!["buffer 'a': is read by each invocation of loop 'i' at places of its own"],
    );
    refused(m(), "relayout a by i k", expect!["buffer 'a': is not a constant"]);
    refused(m(), "relayout b by k j as bf16", expect!["buffer 'b': is not stored as bf16"]);
    refused(
        m(),
        "replace k by fma_12x32",
        expect!["loop 'k' is not instruction 'fma_12x32': it has 1 loops, the instruction 3"],
    );
    refused(
        m(),
        "replace k by magic",
        expect!["loop 'k' is not instruction 'magic': there is no such instruction"],
    );
    refused(m(), "inline store", expect!["block 'store': writes a buffer that lives outside the nest"]);
    refused(m(), "stage_out y in register", expect!["buffer 'y': is not allocated in the nest"]);
    refused(
        m(),
        "split_reduction acc over i",
        expect!["buffer 'acc': is not the only thing the loop computes"],
    );
}

/// A depthwise convolution `y[p, q] += x[2 p + r, 2 q + s] * w[r, s]` with the loops `r s p q`.
fn depthwise(x_columns: &str, w: &str, y: &str, condition: &str) -> Nest {
    let text = format!(
        "nest windows\n  in    x: f32[17, 17]\n  in    w: f32[3, 3]\n  out   y: f32[8, 8]\n  \
         for r in 3, s in 3, p in 8, q in 8:\n    \
         update: y[{y}] += x[p * 2 + r, {x_columns}] * w[{w}]{condition}\n"
    );
    Nest::parse(&text).unwrap()
}

#[test]
fn windows_are_refused_with_a_reason() {
    let by = "replace r by depthwise";
    let fit = || depthwise("q * 2 + s", "r, s", "p, q", "");
    assert!(step(by).apply(&mut fit()).is_ok());
    refused(
        fit(),
        "replace r by pool_sum",
        expect!["loop 'r' is not instruction 'pool_sum': operand 'x' is not a plain read"],
    );
    refused(
        fit(),
        "replace r by pool_max",
        expect!["loop 'r' is not instruction 'pool_max': block 'update' does not combine by Max"],
    );
    for (x_columns, w, y, condition, reason) in [
        ("s - q * 2 + 14", "r, s", "p, q", "", "operand 'x' has stride -2 over loop 'q', not Positive"),
        ("q * 2 + s", "s, r", "p, q", "", "operand 'w' has stride 1 over loop 'r', not Row"),
        ("q * 2 + s", "r, s", "q, p", "", "operand 'y' has stride 1 over loop 'p', not Row"),
        ("q * 2 + s", "r, s", "p, q", " if r < 2", "it runs under a condition on loop 'r'"),
        ("q * 2 + s", "r, s", "p, q", " if p + q < 9", "it runs under a condition on several of its loops"),
        (
            "q * 2 + s",
            "r, s",
            "p, q",
            " if p >= 1",
            "it runs under a condition that leaves out the first of loop 'p'",
        ),
        (
            "q * 2 + s",
            "r, s",
            "p, q",
            " if q % 2 < 1",
            "it runs under the condition 'q % 2 < 1', which limits no loop",
        ),
    ] {
        let refusal = step(by).apply(&mut depthwise(x_columns, w, y, condition)).unwrap_err();
        assert_eq!(refusal.to_string(), format!("loop 'r' is not instruction 'depthwise': {reason}"));
    }
    let ends_before = || depthwise("q * 2 + s", "r, s", "p, q", " if q * 2 < 9 and p < 7");
    assert!(step(by).apply(&mut ends_before()).is_ok());
}

#[test]
fn buffers_keep_their_padding() {
    let buffer = Buffer {
        name: "a".into(),
        dtype: DType::F32,
        shape: vec![4, 8],
        scope: Scope::Workgroup,
        role: Role::Local,
        row_padding: 1,
    };
    assert_eq!((buffer.strides(), buffer.storage_len()), (vec![9, 1], 36));
}

#[test]
fn what_a_loop_does_not_know_is_not_computed_there() {
    let by = "compute_at double in b";
    let overwritten = "
        nest n
          in    x: f32[8]
          out   y: f32[8]
          global t: f32[8]
          register r: f32
          first: r = 1.0
          for a in 8:
            double: t[a] = x[a] * r
          second: r = 2.0
          for b in 8:
            store: y[b] = t[b]";
    let moves_along = "
        nest n
          in    x: f32[8]
          out   y: f32[8]
          global t: f32[8]
          for a in 8:
            register r: f32
            first: r = x[a]
            double: t[a] = r * 2.0
          for b in 8:
            store: y[b] = t[b]";
    refused(
        Nest::parse(overwritten).unwrap(),
        by,
        expect!["block 'double': computes a value that is not known in that loop"],
    );
    let known = overwritten.replace("          second: r = 2.0\n", "");
    for text in [moves_along, &known] {
        assert!(step(by).apply(&mut Nest::parse(text).unwrap()).is_ok());
    }
}

#[test]
fn invocations_that_would_need_a_barrier_are_refused() {
    let text = "
        nest n
          in    x: f32[8]
          out   y: f32[8]
          workgroup t: f32[8]
          for a in 8:
            write: t[a] = x[a]
          for a in 8:
            read: y[a] = t[7 - a]";
    let reason = expect![
        "buffer 't': is shared by invocations in the blocks [\"write\", \"read\"] without a barrier between"
    ];
    refused(Nest::parse(text).unwrap(), "bind a invocation.x", reason);
    let same = Nest::parse(&text.replace("7 - a", "a")).unwrap();
    assert!(Trace::parse("bind a invocation.x").unwrap().apply(&mut same.clone()).is_ok());
}

#[test]
fn what_several_blocks_write_is_computed_where_it_is() {
    let text = "
        nest n
          in    x: f32[8]
          out   y: f32[8]
          global t: f32[8]
          for a in 8:
            double: t[a] = x[a] * 2.0
          for c in 8:
            more: t[c] += 1.0
          for b in 8:
            store: y[b] = t[b]";
    refused(
        Nest::parse(text).unwrap(),
        "compute_at double in b",
        expect!["block 'double': is not the only writer of its buffer"],
    );
}

const SUMS: &str = "
    nest sums
      in    x: f32[12]
      const w: f32[3]
      out   y: f32[8]
      global u: f32[3]
      for c in 3:
        double: u[c] = w[c] * 2.0
      global t: f32[10]
      for i in 10:
        register sum: f32
        init: sum = 0.0
        for r in 3:
          update: sum += x[i + r] * u[r]
        store: t[i] = sum
      for p in 8:
        init1: y[p] = 0.0
        for s in 3:
          update1: y[p] += t[p + s]";

#[test]
fn sums_are_computed_where_they_are_needed() {
    check(
        Nest::parse(SUMS).unwrap(),
        "split p = [_, 4]\ncompute_at store in p.0",
        expect![[r#"
        nest sums
          in    x: f32[12]
          const w: f32[3]
          out   y: f32[8]
          global u: f32[3]
          for c in 3:
            double: u[c] = w[c] * 2.0
          for p.0 in 2:
            workgroup t: f32[6]
            for t.0 in 6:
              register sum: f32
              init: sum = 0.0
              for r in 3:
                update: sum += x[r + p.0 * 4 + t.0] * u[r]
              store: t[t.0] = sum
            for p.1 in 4:
              init1: y[p.0 * 4 + p.1] = 0.0
              for s in 3:
                update1: y[p.0 * 4 + p.1] += t[s + p.1]
    "#]],
    );
    let shared =
        SUMS.replace("store: t[i] = sum", "store: t[i] = sum\n        again: y[i - 2] = sum if i >= 2");
    refused(
        Nest::parse(&shared).unwrap(),
        "compute_at store in p",
        expect!["block 'store': shares what it is computed from"],
    );
}

#[test]
fn rows_are_computed_where_they_are_needed() {
    let text = "
        nest rows
          in    x: f32[6, 8]
          out   y: f32[6]
          global t: f32[6, 8]
          for i in 6:
            register sum: f32
            init: sum = 0.0
            for r in 8:
              update: sum += x[i, r]
            for r in 8:
              divide: t[i, r] = x[i, r] / sum
          for p in 6:
            init1: y[p] = 0.0
            for k in 8:
              update1: y[p] += t[p, k]";
    check(
        Nest::parse(text).unwrap(),
        "split p = [_, 4]\ncompute_at divide in p.0",
        expect![[r#"
            nest rows
              in    x: f32[6, 8]
              out   y: f32[6]
              for p.0 in 2:
                workgroup t: f32[4, 8]
                for t.0 in 4:
                  register sum: f32
                  init: sum = 0.0 if p.0 * 4 + t.0 < 6
                  for r in 8:
                    update: sum += x[p.0 * 4 + t.0, r] if p.0 * 4 + t.0 < 6
                  for r in 8:
                    divide: t[t.0, r] = x[p.0 * 4 + t.0, r] / sum if p.0 * 4 + t.0 < 6
                for p.1 in 4:
                  init1: y[p.0 * 4 + p.1] = 0.0 if p.0 * 4 + p.1 < 6
                  for k in 8:
                    update1: y[p.0 * 4 + p.1] += t[p.1, k] if p.0 * 4 + p.1 < 6
        "#]],
    );
    // A part of the row would need all of the sum, and the loop over the row goes through all of it.
    refused(
        Nest::parse(text).unwrap(),
        "compute_at divide in k",
        expect!["block 'divide': is read in part where it is computed as a whole"],
    );
}

#[test]
fn values_that_are_needed_again_are_kept() {
    let text = "nest softmax
  in  x: f32[3, 8]
  out y: f32[3, 8]
  for i in 3:
    register acc: f32
    init: acc = 0.0
    for r in 8:
      sum: acc += abs(x[i, r])
    for s in 8:
      store: y[i, s] = abs(x[i, s]) + acc
";
    let nest = Nest::parse(text).unwrap();
    let kept = expect![[r#"
        nest softmax
          in    x: f32[3, 8]
          out   y: f32[3, 8]
          for i in 3:
            register acc: f32
            init: acc = 0.0
            register sum_v: f32[8]
            for r in 8:
              keep_sum: sum_v[r] = abs(x[i, r])
            for r in 8:
              sum: acc += sum_v[r]
            for s in 8:
              store: y[i, s] = sum_v[s] + acc
    "#]];
    check(nest.clone(), "keep sum", kept);
    refused(nest, "keep init", expect!["block 'init': has no loop to itself"]);
}

#[test]
fn what_depends_on_constants_is_prepared() {
    check(
        Nest::parse(SUMS).unwrap(),
        "prepare u\nrelayout u by r",
        expect![[r#"
        nest sums
          in    x: f32[12]
          const w: f32[3]
          out   y: f32[8]
          prepare:
            global u: f32[3]
            for c in 3:
              double: u[c] = w[c] * 2.0
            packed u_p: f32[3]
            for u_p.r in 3:
              pack_u: u_p[u_p.r] = u[u_p.r]
          global t: f32[10]
          for i in 10:
            register sum: f32
            init: sum = 0.0
            for r in 3:
              update: sum += x[i + r] * u_p[r]
            store: t[i] = sum
          for p in 8:
            init1: y[p] = 0.0
            for s in 3:
              update1: y[p] += t[p + s]
    "#]],
    );
    refused(Nest::parse(SUMS).unwrap(), "prepare t", expect!["buffer 't': depends on an input"]);
    refused(
        Nest::parse(SUMS).unwrap(),
        "prepare sum",
        expect!["buffer 'sum': is not allocated at the top of the nest"],
    );
    let together =
        SUMS.replace("double: u[c] = w[c] * 2.0", "double: u[c] = w[c] * 2.0\n        first: y[c] = 1.0");
    refused(
        Nest::parse(&together).unwrap(),
        "prepare u",
        expect!["buffer 'u': is computed together with an output"],
    );
}
