use super::*;
use crate::base::Random;
use crate::tensor::{Tolerance, compare};

fn nest(text: &str) -> Nest {
    let nest = Nest::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    nest.verify().unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    nest
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = Random::new(seed);
    Tensor::from_fn(DType::F32, shape, |_| rng.normal())
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_slice(&[values.len()], values)
}

#[track_caller]
fn assert_close(actual: &Tensor, expected: &Tensor) {
    let comparison = compare(actual, expected, Tolerance::KERNEL_F32);
    assert!(comparison.within, "{comparison:?} {actual:?} {expected:?}");
}

/// Runs with all checks and with none; both must agree.
#[track_caller]
fn run_both(text: &str, params: &[Tensor]) -> Vec<Tensor> {
    let nest = nest(text);
    let checked = run(&nest, params).unwrap();
    assert_eq!(checked, run_with(&nest, params, Options::FAST).unwrap());
    checked
}

#[track_caller]
fn fails(text: &str, params: &[Tensor]) -> String {
    run(&nest(text), params).unwrap_err().to_string()
}

#[test]
fn matmul_with_epilogue() {
    let (m, n, k) = (5, 7, 6);
    let (a, b, bias) = (random(&[m, k], 1), random(&[k, n], 2), random(&[n], 3));
    let text = "
nest matmul_bias_relu
  in    a: f32[5, 6]
  const b: f32[6, 7]
  const bias: f32[7]
  out   y: f32[5, 7]
  for i in 5, j in 7:
    register acc: f32
    init: acc = 0.0
    for k in 6:
      update: acc += a[i, k] * b[k, j]
    epilogue: y[i, j] = max(acc + bias[j], 0.0)
";
    let y = run_both(text, &[a.clone(), b.clone(), bias.clone()]);
    let expected = Tensor::from_fn(DType::F32, &[m, n], |at| {
        let (i, j) = (at / n, at % n);
        let sum: f64 = (0..k).map(|x| a.get_f64(i * k + x) * b.get_f64(x * n + j)).sum();
        (sum + bias.get_f64(j)).max(0.0)
    });
    assert_close(&y[0], &expected);
}

#[test]
fn convolution_with_padding_stride_and_groups() {
    let (x, w) = (random(&[2, 4, 7, 6], 1), random(&[6, 2, 3, 3], 2));
    let text = "
nest conv
  in    x: f32[2, 4, 7, 6]
  const w: f32[6, 2, 3, 3]
  out   y: f32[2, 6, 4, 3]
  for n in 2, k in 6, p in 4, q in 3:
    init: y[n, k, p, q] = 0.0
    for c in 2, r in 3, s in 3:
      update: y[n, k, p, q] += guard(2 * p + r >= 1 and 2 * p + r < 8 and 2 * q + s >= 1 and 2 * q + s < 7, x[n, 2 * (k // 3) + c, 2 * p + r - 1, 2 * q + s - 1]) * w[k, c, r, s]
";
    let y = run_both(text, &[x.clone(), w.clone()]);
    let expected = Tensor::from_fn(DType::F32, &[2, 6, 4, 3], |at| {
        let (q, p, k, n) = (at % 3, at / 3 % 4, at / 12 % 6, at / 72);
        let mut sum = 0.0;
        for (c, r, s) in (0..18).map(|i| (i / 9, i / 3 % 3, i % 3)) {
            let (row, column) = ((2 * p + r).wrapping_sub(1), (2 * q + s).wrapping_sub(1));
            if row < 7 && column < 6 {
                let channel = 2 * (k / 3) + c;
                let from = x.get_f64(((n * 4 + channel) * 7 + row) * 6 + column);
                sum += from * w.get_f64(((k * 2 + c) * 3 + r) * 3 + s);
            }
        }
        sum
    });
    assert_close(&y[0], &expected);
}

#[test]
fn softmax() {
    let x = random(&[3, 10], 4);
    let text = "
nest softmax
  in    x: f32[3, 10]
  out   y: f32[3, 10]
  for i in 3 parallel:
    register top: f32
    register sum: f32
    start: top = -inf
    for j in 10:
      reduce: top max= x[i, j]
    clear: sum = 0.0
    for j in 10:
      add: sum += exp(x[i, j] - top)
    for j in 10:
      scale: y[i, j] = exp(x[i, j] - top) / sum
";
    let y = run_both(text, std::slice::from_ref(&x));
    let expected = Tensor::from_fn(DType::F32, &[3, 10], |at| {
        let row: Vec<f64> = (0..10).map(|j| x.get_f64(at / 10 * 10 + j).exp()).collect();
        row[at % 10] / row.iter().sum::<f64>()
    });
    assert_close(&y[0], &expected);
}

#[test]
fn gather_checks_its_index() {
    let text = "
nest gather
  in    x: f32[3]
  in    i: i64[2]
  out   y: f32[2]
  for a in 2:
    take: y[a] = x[i[a]]
";
    let x = floats(&[1.0, 2.0, 3.0]);
    let y = run_both(text, &[x.clone(), Tensor::from_slice(&[2], &[2i64, 0])]);
    assert_eq!(y[0].to_f64_vec(), [3.0, 1.0]);
    let message = fails(text, &[x, Tensor::from_slice(&[2], &[2i64, -1])]);
    assert_eq!(message, "block `take` accesses buffer `x` at -1 in dimension 0, whose extent is 3");
}

#[test]
fn guards_and_selects_evaluate_what_they_choose() {
    let text = "
nest lazy
  in    x: f32[3]
  in    i: i64[4]
  out   y: f32[4]
  for a in 4:
    take: y[a] = guard(i[a] >= 0 and i[a] < 3, x[i[a]]) + select(i[a] < 3, 10.0, x[i[a] - 3])
";
    let index = Tensor::from_slice(&[4], &[-1i64, 0, 2, 5]);
    let y = run_both(text, &[floats(&[1.0, 2.0, 3.0]), index]);
    assert_eq!(y[0].to_f64_vec(), [10.0, 11.0, 13.0, 3.0]);
}

#[test]
fn conditions_of_blocks_hold_back_everything() {
    let text = "
nest masked
  in    x: f32[5]
  out   y: f32[5]
  for a in 2, b in 3:
    copy: y[3 * a + b] = 2.0 * x[3 * a + b] if 3 * a + b < 5
";
    let y = run_both(text, &[floats(&[1.0, 2.0, 3.0, 4.0, 5.0])]);
    assert_eq!(y[0].to_f64_vec(), [2.0, 4.0, 6.0, 8.0, 10.0]);
}

#[test]
fn integers_wrap_at_their_width() {
    let text = "
nest wrap
  in    a: u8[3]
  in    b: u64[2]
  out   y: u8[3]
  out   z: i64[3]
  out   q: u64[2]
  out   f: f32[2]
  for i in 3:
    sum: y[i] = a[i] + 250_u8
    difference: z[i] = i64(a[i] - 5_u8)
  for i in 2:
    half: q[i] = b[i] / 2_u64
    float: f[i] = f32(b[i])
";
    let a = Tensor::from_slice(&[3], &[1u8, 5, 10]);
    let b = Tensor::from_slice(&[2], &[u64::MAX, 4]);
    let y = run_both(text, &[a, b]);
    assert_eq!(y[0].to_i64_vec().unwrap(), [251, 255, 4]);
    assert_eq!(y[1].to_i64_vec().unwrap(), [252, 0, 5]);
    assert_eq!(y[2].view::<u64>().unwrap()[..], [u64::MAX / 2, 2]);
    assert_eq!(y[3].to_f64_vec(), [u64::MAX as f64, 4.0]);
}

#[test]
fn stores_and_casts_round() {
    let text = "
nest round
  in    x: f32[2]
  out   y: f16[2]
  out   z: f32[2]
  out   n: i8[2]
  for i in 2:
    half: y[i] = f16(x[i])
    back: z[i] = f32(f16(x[i])) - x[i]
    int: n[i] = i8(x[i])
";
    let x = floats(&[0.1, 1000.7]);
    let y = run_both(text, std::slice::from_ref(&x));
    assert_eq!(y[0], x.cast(DType::F16));
    let lost = Tensor::from_fn(DType::F32, &[2], |i| x.cast(DType::F16).get_f64(i) - x.get_f64(i));
    assert_eq!(y[1], lost);
    assert_eq!(y[2].to_i64_vec().unwrap(), [0, 127]);
}

/// 0.5 over the f32 next to 5 / 255 is just below 25.5, which is the quotient in f32.
#[test]
fn a_tie_in_f32_is_a_tie() {
    let text = "
nest tie
  in    x: f32[1]
  in    s: f32[1]
  out   y: f32[1]
  out   n: u8[1]
  out   z: f32[1]
  round: y[0] = round(x[0] / s[0])
  int: n[0] = u8(x[0] / s[0] * 2.0)
  less: z[0] = select(x[0] / s[0] < 25.5, 1.0, 0.0)
";
    let scale = 5.0_f32 / 255.0;
    assert!(0.5 / f64::from(scale) < 25.5);
    let y = run_both(text, &[floats(&[0.5]), floats(&[scale])]);
    assert_eq!(y.iter().map(|tensor| tensor.get_f64(0)).collect::<Vec<_>>(), [26.0, 51.0, 0.0]);
}

#[test]
fn preparation_packs_constants() {
    let text = "
nest packed
  in    x: f32[2]
  const w: f32[2, 3]
  out   y: f32[3]
  prepare:
    packed p: f32[3, 2]
    for i in 2, j in 3:
      pack: p[j, i] = w[i, j]
  for j in 3:
    clear: y[j] = 0.0
    for i in 2:
      update: y[j] += x[i] * p[j, i]
";
    let w = Tensor::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let y = run_both(text, &[floats(&[1.0, 10.0]), w]);
    assert_eq!(y[0].to_f64_vec(), [41.0, 52.0, 63.0]);
}

const COOPERATIVE: &str = "
nest reverse
  in    x: f32[2, 8]
  out   y: f32[2, 8]
  for w in 2 workgroup.x:
    workgroup tile: f32[4] pad 1
    for i in 4 invocation.x:
      register mine: f32
      for k in 2:
        barrier
        copy: tile[i] = x[w, 4 * k + i]
        barrier
        take: mine = tile[3 - i]
        write: y[w, 4 * k + i] = mine
";

#[test]
fn invocations_cooperate_through_barriers() {
    let x = Tensor::from_fn(DType::F32, &[2, 8], |i| i as f64);
    let y = run_both(COOPERATIVE, std::slice::from_ref(&x));
    let expected = Tensor::from_fn(DType::F32, &[2, 8], |i| (i / 4 * 4 + 3 - i % 4) as f64);
    assert_eq!(y[0], expected);
}

#[test]
fn a_missing_barrier_is_a_race() {
    let x = Tensor::zeros(DType::F32, &[2, 8]);
    let second = COOPERATIVE.replacen("        barrier\n        take", "        take", 1);
    let races = Options { check_races: true, check_uninitialised: false };
    let message = run_with(&nest(&second), std::slice::from_ref(&x), races).unwrap_err().to_string();
    assert!(message.contains("`tile`") && message.contains("without a barrier between"), "{message}");
    // The reads of one step race with the writes of the next one.
    let first = COOPERATIVE.replacen("        barrier\n        copy", "        copy", 1);
    let message = fails(&first, std::slice::from_ref(&x));
    assert!(message.contains("blocks `take` and `copy`"), "{message}");
}

#[test]
fn neighbouring_invocation_loops_need_a_barrier() {
    let with = "
nest two
  in    x: f32[4]
  out   y: f32[4]
  workgroup tile: f32[4]
  for i in 4 invocation.x:
    copy: tile[i] = x[i]
  barrier
  for i in 4 invocation.x:
    write: y[i] = tile[3 - i]
";
    let x = floats(&[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(run_both(with, std::slice::from_ref(&x))[0].to_f64_vec(), [4.0, 3.0, 2.0, 1.0]);
    let message = fails(&with.replace("  barrier\n", ""), &[x]);
    assert!(message.contains("without a barrier"), "{message}");
}

#[test]
fn barriers_meet_in_two_dimensions() {
    let text = "
nest transpose
  in    x: f32[4, 4]
  out   y: f32[4, 4]
  workgroup tile: f32[4, 4]
  for i in 4 invocation.y:
    for j in 4 invocation.x:
      copy: tile[i, j] = x[i, j]
      barrier
      write: y[i, j] = tile[j, i]
";
    let x = random(&[4, 4], 5);
    let y = run_both(text, std::slice::from_ref(&x));
    assert_eq!(y[0], Tensor::from_fn(DType::F32, &[4, 4], |i| x.get_f64(i % 4 * 4 + i / 4)));
}

#[test]
fn parallel_iterations_must_not_meet() {
    let text = "
nest sum
  in    x: f32[4]
  out   y: f32
  clear: y = 0.0
  for i in 4 parallel:
    update: y += x[i]
";
    let message = fails(text, &[floats(&[1.0; 4])]);
    assert_eq!(
        message,
        "blocks `update` and `update` both access buffer `y` at [], one writing, in iterations of the loop `i` whose \
         order is not defined"
    );
    let message = fails(
        "
nest shift
  in    x: f32[4]
  out   y: f32[4]
  first: y[0] = x[0]
  for i in 3 workgroup.x:
    next: y[i + 1] = y[i] + x[i + 1]
",
        &[floats(&[1.0; 4])],
    );
    assert!(message.contains("loop `i`"), "{message}");
}

#[test]
fn a_read_before_a_write_of_another_iteration_is_a_race() {
    let text = "
nest back
  in    x: f32[4]
  out   y: f32[4]
  for i in 4:
    fill: y[i] = x[i]
  for i in 3 parallel:
    shift: y[i] = y[i + 1]
";
    let message = fails(text, &[floats(&[1.0; 4])]);
    assert!(message.contains("blocks `shift` and `shift`"), "{message}");
}

#[test]
fn local_buffers_of_parallel_iterations_are_their_own() {
    let text = "
nest own
  in    x: f32[4]
  out   y: f32[4]
  for i in 4 parallel:
    register t: f32
    take: t = x[i]
    give: y[i] = t * t
";
    let y = run_both(text, &[floats(&[1.0, 2.0, 3.0, 4.0])]);
    assert_eq!(y[0].to_f64_vec(), [1.0, 4.0, 9.0, 16.0]);
}

#[test]
fn vector_loops_run_by_statement() {
    let text = "
nest lanes
  in    x: f32[4]
  out   y: f32[4]
  register t: f32[4]
  for i in 4 vector:
    take: t[i] = x[i]
    turn: y[i] = t[3 - i]
";
    let y = run_both(text, &[floats(&[1.0, 2.0, 3.0, 4.0])]);
    assert_eq!(y[0].to_f64_vec(), [4.0, 3.0, 2.0, 1.0]);
    let private = "
nest lanes
  in    x: f32[4, 2]
  out   y: f32[4]
  for i in 4 vector:
    register t: f32
    clear: t = 0.0
    for k in 2:
      update: t += x[i, k]
    give: y[i] = t
";
    let x = Tensor::from_fn(DType::F32, &[4, 2], |i| i as f64);
    assert_eq!(run_both(private, &[x])[0].to_f64_vec(), [1.0, 5.0, 9.0, 13.0]);
}

#[test]
fn undefined_elements_are_errors() {
    let text = "
nest undefined
  in    x: f32[2]
  out   y: f32[2]
  for i in 2:
    register t: f32
    take: t = x[i] if i < 1
    give: y[i] = t
";
    let x = floats(&[1.0, 2.0]);
    assert_eq!(
        fails(text, std::slice::from_ref(&x)),
        "block `give` reads buffer `t` at [], which was not written"
    );
    let hole = "
nest hole
  in    x: f32[2]
  out   y: f32[2, 2]
  for i in 2:
    give: y[i, 1] = x[i]
";
    assert_eq!(fails(hole, &[x]), "output `y` is never written at [0, 0]");
}

#[test]
fn tensors_must_fit() {
    let nest = nest("nest id\n  in x: f32[2]\n  out y: f32[2]\n  for i in 2:\n    copy: y[i] = x[i]\n");
    assert_eq!(run(&nest, &[]), Err(InterpError::ParamCount { expected: 1, given: 0 }));
    let error = run(&nest, &[Tensor::zeros(DType::F32, &[3])]).unwrap_err();
    assert!(matches!(error, InterpError::Param { .. }));
}

/// Random sums, products, quotients and remainders of loop variables, guarded or not, agree with direct evaluation.
#[test]
fn index_arithmetic_agrees_with_evaluation() {
    use crate::expr::{BinaryOp, Expr, ExprId, ExprPool};
    use crate::loopir::NestBuilder;
    fn grow(pool: &mut ExprPool, vars: &[ExprId], rng: &mut Random, depth: usize) -> ExprId {
        if depth == 0 {
            return if rng.below(4) == 0 { pool.int(rng.below(20) as i64 - 6) } else { *rng.pick(vars) };
        }
        let a = grow(pool, vars, rng, depth - 1);
        let b = grow(pool, vars, rng, depth - 1);
        let positive = pool.int(rng.below(9) as i64 + 1);
        match rng.below(7) {
            0 => pool.binary(BinaryOp::FloorDiv, a, positive),
            1 => pool.binary(BinaryOp::Mod, a, positive),
            2 => pool.binary(BinaryOp::Mul, a, b),
            3 => pool.binary(BinaryOp::Sub, a, b),
            4 => pool.binary(BinaryOp::Max, a, b),
            5 => {
                let condition = pool.binary(BinaryOp::Lt, a, b);
                pool.guard(condition, a)
            }
            _ => pool.add(a, b),
        }
    }
    fn eval(pool: &ExprPool, id: ExprId, point: &[i64]) -> i64 {
        match *pool.get(id) {
            Expr::Int(value, _) => value,
            Expr::Var(var) => point[var.index()],
            Expr::Binary(op, a, b) => op.eval_i64(eval(pool, a, point), eval(pool, b, point)),
            Expr::Guard(condition, a) if eval(pool, condition, point) != 0 => eval(pool, a, point),
            Expr::Guard(..) => 0,
            _ => unreachable!(),
        }
    }
    let mut rng = Random::new(11);
    for _ in 0..300 {
        let extents: Vec<usize> = (0..3).map(|_| rng.below(4) + 1).collect();
        let mut builder = NestBuilder::new("random");
        let y = builder.param(Role::Output, "y", DType::I64, &extents);
        let vars = builder.open_all(&[("i", extents[0]), ("j", extents[1]), ("k", extents[2])]);
        let value = grow(builder.pool(), &vars, &mut rng, 4);
        builder.store("set", y, &vars, value);
        builder.close(3);
        let nest = builder.finish();
        let reparsed = Nest::parse(&nest.to_string()).unwrap();
        let result = run(&reparsed, &[]).unwrap()[0].to_i64_vec().unwrap();
        for (at, result) in result.into_iter().enumerate() {
            let point = [at / extents[2] / extents[1], at / extents[2] % extents[1], at % extents[2]];
            assert_eq!(result, eval(&nest.pool, value, &point.map(|x| x as i64)), "{nest}");
        }
    }
}
