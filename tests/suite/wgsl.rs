//! Emitted kernels on an adapter against the interpreter, and in the languages of others.

use super::goldens::models;
use super::support::{gpu, processor};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use paisley::base::Random;
use paisley::codegen::wgsl::{Access, WgslError, WgslKernel, emit};
use paisley::compiler::{Device, Timings, compile};
use paisley::expr::{BinaryOp, BufferId, Role, UnaryOp};
use paisley::interp;
use paisley::loopir::{Nest, NestBuilder};
use paisley::plan::Code;
use paisley::runtime::gpu::{BindingKind, Dispatch, Gpu, GpuKernel, Memory, Step, Timing};
use paisley::schedule::Trace;
use paisley::target::GpuTarget;
use paisley::tensor::{DType, Tensor, Tolerance, compare};
use std::collections::HashMap;

fn parse(text: &str) -> Nest {
    let nest = Nest::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    nest.verify().unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    nest
}

fn scheduled(nest: &Nest, trace: &str) -> Nest {
    let mut nest = nest.clone();
    let trace = Trace::parse(trace).unwrap();
    trace.apply(&mut nest).unwrap_or_else(|error| panic!("{error}\n{nest}"));
    nest
}

fn gpu_kernel(kernel: &WgslKernel) -> GpuKernel {
    let kind = |access| match access {
        Access::Read => BindingKind::Read,
        Access::ReadWrite => BindingKind::ReadWrite,
    };
    GpuKernel {
        name: kernel.name.clone(),
        wgsl: kernel.text.clone(),
        entry: kernel.name.clone(),
        bindings: kernel.bindings.iter().map(|binding| kind(binding.access)).collect(),
        workgroups: kernel.workgroups,
        bounds_checked: false,
        zero_workgroup_memory: false,
    }
}

/// The outputs of the nest's kernels, in order of the parameters.
fn run(gpu: &Gpu, target: &GpuTarget, nest: &Nest, params: &[Tensor]) -> Vec<Tensor> {
    let kernels = emit(nest, target).unwrap_or_else(|error| panic!("{error}\n{nest}"));
    let mut memories: HashMap<BufferId, Memory> = HashMap::new();
    let mut steps = vec![];
    for kernel in &kernels {
        let mut ranges = vec![];
        for binding in &kernel.bindings {
            let elements = nest.pool.buffers[binding.buffer].storage_len().max(1);
            let bytes = (elements * binding.stored.size_bytes()) as u64;
            let memory = memories.entry(binding.buffer).or_insert_with(|| gpu.allocate(bytes).unwrap());
            ranges.push(memory.range(binding.offset_bytes, binding.bytes));
        }
        steps.push(Step::Dispatch(Dispatch { kernel: gpu_kernel(kernel), ranges }));
    }
    let given = nest.params.iter().filter(|&&id| nest.pool.buffers[id].role != Role::Output);
    let stored = |dtype| paisley::codegen::wgsl::storage_type(dtype).unwrap();
    let uploads: Vec<_> = given
        .zip(params)
        .filter_map(|(id, tensor)| Some((memories.get(id)?, tensor.cast(stored(tensor.dtype())))))
        .collect();
    let inputs: Vec<_> = uploads
        .iter()
        .map(|(memory, tensor)| (memory.range(0, tensor.bytes().len() as u64), &tensor.bytes()[..]))
        .collect();
    let outputs: Vec<BufferId> = nest.params_of(Role::Output).collect();
    let ranges: Vec<_> = outputs
        .iter()
        .map(|&id| {
            let buffer = &nest.pool.buffers[id];
            memories[&id].range(0, (buffer.len() * stored(buffer.dtype).size_bytes()) as u64)
        })
        .collect();
    let report = gpu.prepare(&steps).unwrap().run(&inputs, &ranges, Timing::Wall).unwrap();
    outputs
        .iter()
        .zip(report.outputs)
        .map(|(&id, bytes)| {
            let buffer = &nest.pool.buffers[id];
            Tensor::new(stored(buffer.dtype), buffer.shape.clone(), bytes).unwrap().cast(buffer.dtype)
        })
        .collect()
}

/// Random parameters: small whole numbers for integers, the standard normal for floats.
fn random_params(nest: &Nest, seed: u64) -> Vec<Tensor> {
    let mut rng = Random::new(seed);
    let given = nest.params.iter().map(|&id| &nest.pool.buffers[id]).filter(|b| b.role != Role::Output);
    given
        .map(|buffer| {
            Tensor::from_fn(buffer.dtype, &buffer.shape, |_| {
                if buffer.dtype.is_float() { rng.normal() } else { rng.below(7) as f64 }
            })
        })
        .collect()
}

#[track_caller]
fn assert_same(gpu: &Gpu, target: &GpuTarget, nest: &Nest, scheduled: &Nest, params: &[Tensor]) {
    let expected = interp::run(nest, params).unwrap_or_else(|error| panic!("{error}\n{nest}"));
    let actual = run(gpu, target, scheduled, params);
    for (actual, expected) in actual.iter().zip(&expected) {
        let tolerance = match expected.dtype() {
            DType::F16 => Tolerance::Elementwise { absolute: 2e-3, relative: 2e-3 },
            _ => Tolerance::KERNEL_F32,
        };
        let comparison = compare(actual, expected, tolerance);
        let at = comparison.worst.unwrap_or(0);
        assert!(
            comparison.within,
            "{comparison:?}\ngot {} expected {}\n{scheduled}\n{}",
            actual.get_f64(at),
            expected.get_f64(at),
            emit(scheduled, target).unwrap()[0].text
        );
    }
}

/// Runs a nest under several schedules; an empty one runs it as it is.
#[track_caller]
fn check(text: &str, traces: &[&str]) {
    let Some(gpu) = gpu() else { return };
    let nest = parse(text);
    let params = random_params(&nest, 11);
    for trace in traces {
        assert_same(gpu, gpu.target(), &nest, &scheduled(&nest, trace), &params);
    }
}

fn matmul(rows: usize, columns: usize, depth: usize) -> String {
    format!(
        "nest matmul
  in    a: f32[{rows}, {depth}]
  const b: f32[{depth}, {columns}]
  out   y: f32[{rows}, {columns}]
  for i in {rows}, j in {columns}:
    register acc: f32
    init: acc = 0.0
    for k in {depth}:
      update: acc += a[i, k] * b[k, j]
    store: y[i, j] = max(acc, 0.0)
"
    )
}

const TILED: &str = "split i = [_, 8, 4]
split j = [_, 8, 4]
split k = [_, 8]
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
vectorise j.2";

const UNSTAGED: &str = "split i = [_, 4, 4]
split j = [_, 16, 4]
reorder i.0 j.0 i.1 j.1 i.2 j.2
stage_out acc at j.1 in register
reorder k i.2 j.2
bind i.0 workgroup.y
bind j.0 workgroup.x
bind i.1 invocation.y
bind j.1 invocation.x
unroll i.2
vectorise j.2";

#[test]
fn matmuls() {
    for (rows, columns, depth) in [(64, 64, 32), (50, 70, 33), (33, 68, 40), (1, 5, 3)] {
        check(&matmul(rows, columns, depth), &["bind i workgroup.x", TILED, UNSTAGED]);
    }
}

#[test]
fn padded_convolutions() {
    check("nest conv
  in    x: f32[1, 5, 9, 11]
  const w: f32[6, 5, 3, 3]
  const b: f32[6]
  out   y: f32[1, 6, 5, 11]
  for k in 6, p in 5, q in 11:
    register acc: f32
    init: acc = b[k]
    for c in 5, r in 3, s in 3:
      update: acc += guard(p * 2 + r >= 1 and p * 2 + r < 10 and q + s >= 1 and q + s < 12, x[0, c, p * 2 + r - 1, q + s - 1]) * w[k, c, r, s]
    store: y[0, k, p, q] = tanh(acc)
",
        &[
            "",
            "unroll s\nunroll r\nbind k workgroup.x\nbind p invocation.y\nbind q invocation.x",
            "fuse p q as f\nsplit f = [_, 8, 4]\nbind k workgroup.y\nbind f.0 workgroup.x\nbind f.1 invocation.x\nvectorise f.2",
        ],
    );
}

#[test]
fn several_blocks_and_scratch_memory() {
    check(
        "nest softmax
  in    x: f32[12, 37]
  out   y: f32[12, 37]
  global e: f32[12, 37]
  for i in 12:
    register m: f32
    first: m = x[i, 0]
    for j in 37:
      largest: m max= x[i, j]
    for k in 37:
      power: e[i, k] = exp(x[i, k] - m)
  for i in 12:
    register s: f32
    zero: s = 0.0
    for j in 37:
      total: s += e[i, j]
    for k in 37:
      store: y[i, k] = e[i, k] / s
",
        &["", "bind i workgroup.x"],
    );
}

#[test]
fn cooperating_invocations() {
    let text = "nest row_sum
  in    x: f32[9, 100]
  out   y: f32[9]
  for i in 9 workgroup.x:
    workgroup part: f32[16]
    for t in 16 invocation.x:
      register acc: f32
      zero: acc = 0.0
      for j in 7:
        add: acc += x[i, j * 16 + t] if j * 16 + t < 100
      share: part[t] = acc
      barrier
      for h in 2:
        fold: part[t] += part[t + 8 - h * 4] if t + h * 4 < 8
        barrier
      fold2: part[t] += part[t + 2] if t < 2
      barrier
      fold3: part[t] += part[t + 1] if t < 1
      barrier
    store: y[i] = part[0] * 0.5
";
    check(text, &[""]);
    let text = "nest stages
  in    x: f32[6, 8]
  out   y: f32[6, 8]
  for i in 6 workgroup.y:
    workgroup part: f32[8]
    workgroup best: f32
    for a in 8 invocation.x:
      load: part[a] = x[i, a] * 2.0
    barrier
    init: best = part[0]
    for c in 8:
      pick: best max= part[c]
    barrier
    for b in 4 invocation.x, d in 2 invocation.y:
      store: y[i, b * 2 + d] = part[b * 2 + d] - best
";
    check(text, &[""]);
}

#[test]
fn vectorised_loops_around_registers_of_their_own() {
    check(
        "nest squares
  in    x: f32[3, 2, 6]
  out   y: f32[3, 2, 7]
  for n in 3, c in 2, p in 1:
    for q in 7:
      register acc: f32
      init: acc = 0.0
      for k in 2:
        update: acc += guard(q + k < 6, x[n, c, q + k]) * guard(q < 6, x[n, c, q])
      store: y[n, c, q] = acc
    for t in 1:
      register last: f32
      first: last = x[n, c, t]
      again: y[n, c, t] = last + 1.0
",
        &["vectorise c", "vectorise n", "unroll c"],
    );
}

#[test]
fn data_dependent_indices() {
    check(
        "nest gather
  in    t: f32[7, 8]
  in    at: i64[20]
  out   y: f32[20, 8]
  for i in 20, j in 8:
    store: y[i, j] = t[at[i], j]
",
        &["", "bind i workgroup.x\nvectorise j", "unroll j"],
    );
    check(
        "nest scatter
  in    at: i32[5]
  in    v: f32[5]
  out   y: f32[7]
  for i in 7:
    zero: y[i] = 0.0
  for i in 5:
    add: y[i64(at[i])] += v[i] if at[i] > 1_i32
",
        &[""],
    );
}

#[test]
fn selects_read_only_what_they_choose() {
    check(
        "nest concat
  in    a: f32[5]
  in    b: f32[12]
  out   y: f32[17]
  for i in 17:
    store: y[i] = select(i < 5, a[i], b[i - 5])
",
        &["", "split i = [_, 4]\nvectorise i.1", "split i = [_, 4]\nbind i.0 workgroup.x\nunroll i.1"],
    );
}

#[test]
fn grids_beyond_a_limit_are_folded() {
    let Some(gpu) = gpu() else { return };
    let nest = parse(
        "nest copy
  in    x: f32[7, 11, 13]
  out   y: f32[7, 11, 13]
  for i in 7 workgroup.z, j in 11 workgroup.y, k in 13 workgroup.x:
    store: y[i, j, k] = x[i, j, k]
",
    );
    let params = random_params(&nest, 3);
    for max in [11, 12] {
        let mut target = gpu.target().clone();
        target.limits.max_workgroups_per_dimension = max;
        let kernels = emit(&nest, &target).unwrap();
        assert!(kernels[0].workgroups.iter().all(|&groups| groups <= max));
        assert_same(gpu, &target, &nest, &nest, &params);
    }
    let mut target = gpu.target().clone();
    target.limits.max_workgroups_per_dimension = 9;
    assert!(matches!(
        emit(&nest, &target),
        Err(WgslError::Limit { limit: "max_workgroups_per_dimension", .. })
    ));
}

#[test]
fn buffers_beyond_the_limit_of_a_binding_are_used_in_parts() {
    let Some(gpu) = gpu() else { return };
    let nest = parse(&matmul(70, 52, 33));
    let params = random_params(&nest, 5);
    let mut target = gpu.target().clone();
    let largest = |kernels: &[WgslKernel]| {
        kernels.iter().flat_map(|kernel| &kernel.bindings).map(|binding| binding.bytes).max()
    };
    // `a` has 9240 bytes, `b` 6864, `y` 14560.
    for (limit, fewest) in [(10_000, 2), (7_000, 3)] {
        target.limits.max_storage_buffer_binding_bytes = limit;
        for trace in
            ["bind i workgroup.x", "split i = [_, 4]\nbind i.0 workgroup.x\nbind i.1 invocation.x", UNSTAGED]
        {
            let scheduled = scheduled(&nest, trace);
            let kernels = emit(&scheduled, &target).unwrap();
            assert!(kernels.len() >= fewest && largest(&kernels) <= Some(limit), "{kernels:?}");
            assert_same(gpu, &target, &nest, &scheduled, &params);
        }
    }
    // No loop of workgroups walks the rows of `b`.
    target.limits.max_storage_buffer_binding_bytes = 5_000;
    let refused = emit(&scheduled(&nest, "bind i workgroup.x"), &target);
    let limit = "max_storage_buffer_binding_bytes";
    assert!(matches!(refused, Err(WgslError::Limit { limit: named, .. }) if named == limit));
}

/// `y[i] = value(x[i])` over `values`, also with four lanes at once.
fn check_map(
    gpu: &Gpu,
    values: &Tensor,
    out: DType,
    build: impl Fn(&mut NestBuilder, paisley::expr::ExprId) -> paisley::expr::ExprId,
) {
    let extent = values.len();
    let mut n = NestBuilder::new("map");
    let x = n.param(Role::Input, "x", values.dtype(), &[extent]);
    let y = n.param(Role::Output, "y", out, &[extent]);
    let i = n.open("i", extent);
    let value = n.pool().load(x, &[i]);
    let value = build(&mut n, value);
    n.store("store", y, &[i], value);
    n.close(1);
    let nest = n.finish();
    for trace in ["bind i workgroup.x", "split i = [_, 4]\nbind i.0 workgroup.x\nvectorise i.1"] {
        let params = std::slice::from_ref(values);
        assert_same(gpu, gpu.target(), &nest, &scheduled(&nest, trace), params);
    }
}

fn numbers(values: impl IntoIterator<Item = f64>) -> Tensor {
    let mut values: Vec<f64> = values.into_iter().collect();
    while !values.len().is_multiple_of(4) {
        values.push(values[0]);
    }
    Tensor::from_fn(DType::F32, &[values.len()], |i| values[i])
}

#[test]
fn float_functions() {
    let Some(gpu) = gpu() else { return };
    for op in UnaryOp::ALL {
        let (low, high) = match op {
            UnaryOp::Not => continue,
            UnaryOp::Log | UnaryOp::Sqrt => (1e-3, 50.0),
            UnaryOp::Asin | UnaryOp::Acos | UnaryOp::Atanh => (-0.999, 0.999),
            UnaryOp::Log1p => (-0.999, 50.0),
            UnaryOp::Acosh => (1.0, 1e4),
            UnaryOp::Tan => (-1.4, 1.4),
            UnaryOp::Sin | UnaryOp::Cos => (-9.0, 9.0),
            UnaryOp::Exp | UnaryOp::Sinh | UnaryOp::Cosh => (-20.0, 20.0),
            _ => (-100.0, 100.0),
        };
        let even = (0..=200).map(|i| low + (high - low) * f64::from(i) / 200.0);
        let small =
            [-3.0, -0.5, -1e-3, 0.0, 1e-4, 0.5, 1.5, 2.5].into_iter().filter(|x| *x > low && *x < high);
        let values = numbers(even.chain(small));
        let out = if op.is_test() { DType::Bool } else { DType::F32 };
        check_map(gpu, &values, out, |n, x| n.pool().unary(op, x));
    }
}

#[test]
fn functions_do_not_overflow_where_their_value_is_finite() {
    let Some(gpu) = gpu() else { return };
    let large = numbers([-3e38, -1e30, -1e10, -700.0, 700.0, 1e10, 1e30, 3e38]);
    for op in [UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::Erf, UnaryOp::Atan, UnaryOp::Asinh] {
        check_map(gpu, &large, DType::F32, |n, x| n.pool().unary(op, x));
    }
    let large = numbers([1.0, 1e10, 1e30, 3e38]);
    check_map(gpu, &large, DType::F32, |n, x| n.pool().unary(UnaryOp::Acosh, x));
    let odd = numbers([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, -0.0, 3e38]);
    for op in [UnaryOp::IsNan, UnaryOp::IsInf] {
        check_map(gpu, &odd, DType::Bool, |n, x| n.pool().unary(op, x));
    }
}

#[test]
fn powers() {
    let Some(gpu) = gpu() else { return };
    let values = numbers([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 10.0]);
    for exponent in [-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 7.0] {
        if exponent < 0.0 {
            let values = numbers([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0]);
            check_power(gpu, &values, exponent);
        } else {
            check_power(gpu, &values, exponent);
        }
    }
}

fn check_power(gpu: &Gpu, values: &Tensor, exponent: f64) {
    check_map(gpu, values, DType::F32, |n, x| {
        let exponent = n.pool().constant(exponent, DType::F32);
        n.pool().binary(BinaryOp::Pow, x, exponent)
    });
}

/// Every operation of two operands on values of a type, each value with each.
fn check_binaries(gpu: &Gpu, dtype: DType, values: &[f64], skip: &[BinaryOp]) {
    let count = values.len();
    let a = Tensor::from_fn(dtype, &[count * count], |i| values[i / count]);
    let b = Tensor::from_fn(dtype, &[count * count], |i| values[i % count]);
    for op in BinaryOp::ALL.into_iter().filter(|op| !skip.contains(op)) {
        let mut n = NestBuilder::new("map");
        let (x, z) =
            (n.param(Role::Input, "a", dtype, a.shape()), n.param(Role::Input, "b", dtype, b.shape()));
        let out = if op.is_comparison() { DType::Bool } else { dtype };
        let y = n.param(Role::Output, "y", out, a.shape());
        let i = n.open("i", count * count);
        let (left, right) = (n.pool().load(x, &[i]), n.pool().load(z, &[i]));
        let value = n.pool().binary(op, left, right);
        n.store("store", y, &[i], value);
        n.close(1);
        let nest = n.finish();
        for trace in ["bind i workgroup.x", "split i = [_, 4]\nbind i.0 workgroup.x\nvectorise i.1"] {
            let params = [a.clone(), b.clone()];
            assert_same(gpu, gpu.target(), &nest, &scheduled(&nest, trace), &params);
        }
    }
}

const BITWISE: [BinaryOp; 5] = [BinaryOp::And, BinaryOp::Or, BinaryOp::Xor, BinaryOp::Shl, BinaryOp::Shr];

#[test]
fn float_arithmetic() {
    let Some(gpu) = gpu() else { return };
    // A floor of a quotient that is rounded to a whole number differs by 1; the values keep away from that.
    let values = [-7.3, -2.6, -1.1, 0.7, 1.3, 2.9, 8.7, 0.4];
    check_binaries(gpu, DType::F32, &values, &[&BITWISE[..], &[BinaryOp::Pow]].concat());
    if gpu.target().features.f16 {
        check_binaries(gpu, DType::F16, &values, &[&BITWISE[..], &[BinaryOp::Pow]].concat());
    }
}

#[test]
fn integer_arithmetic() {
    let Some(gpu) = gpu() else { return };
    let signed = [-128.0, -100.0, -7.0, -1.0, 0.0, 1.0, 2.0, 3.0, 31.0, 127.0, 5.0, 33.0];
    let unsigned = [0.0, 1.0, 2.0, 3.0, 7.0, 31.0, 100.0, 255.0];
    // Shifts by a negative amount have no meaning.
    let shifts = [BinaryOp::Shl, BinaryOp::Shr];
    for dtype in [DType::I8, DType::I16, DType::I32] {
        check_binaries(gpu, dtype, &signed, &shifts);
        check_binaries(gpu, dtype, &unsigned[..7], &[]);
    }
    for dtype in [DType::U8, DType::U16, DType::U32] {
        check_binaries(gpu, dtype, &unsigned, &[]);
    }
    // Results beyond 32 bits differ.
    let wide = [BinaryOp::Pow, BinaryOp::Shl, BinaryOp::Shr];
    check_binaries(gpu, DType::I64, &signed, &wide);
    let logical = [BinaryOp::And, BinaryOp::Or, BinaryOp::Xor];
    let others: Vec<BinaryOp> =
        BinaryOp::ALL.into_iter().filter(|op| !logical.contains(op) && !op.is_comparison()).collect();
    check_binaries(gpu, DType::Bool, &[0.0, 1.0], &others);
    let extremes = [-2147483648.0, -2147483647.0, -1.0, 0.0, 1.0, 3.0, 65536.0, 2147483647.0];
    check_binaries(gpu, DType::I32, &extremes, &shifts);
    for op in [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign, UnaryOp::Not] {
        for (dtype, values) in
            [(DType::I8, &signed[..]), (DType::I32, &extremes[..]), (DType::U8, &unsigned[..])]
        {
            let values = Tensor::from_fn(dtype, &[values.len()], |i| values[i]);
            check_map(gpu, &values, dtype, |n, x| n.pool().unary(op, x));
        }
    }
}

#[test]
fn conversions() {
    let Some(gpu) = gpu() else { return };
    let types = [
        DType::F32,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::Bool,
        DType::F16,
    ];
    let values: [f64; 12] = [-3e9, -70000.0, -300.0, -1.5, -0.4, 0.0, 0.6, 1.0, 200.7, 255.0, 40000.0, 3e9];
    for from in types {
        for to in types {
            // The two widest ranges do not contain one another's extremes.
            let values: Vec<f64> = values
                .into_iter()
                .filter(|x| from.is_float() || x.abs() < 1e9)
                .filter(|x| x.abs() < 60000.0 || (from != DType::F16 && to != DType::F16))
                .collect();
            let values = Tensor::from_fn(from, &[values.len() / 2 * 2], |i| values[i]);
            if from != to && values.len().is_multiple_of(4) {
                check_map(gpu, &values, to, |n, x| n.pool().cast(to, x));
            } else if from != to {
                let padded = Tensor::from_fn(from, &[values.len() + 2], |i| values.get_f64(i % values.len()));
                check_map(gpu, &padded, to, |n, x| n.pool().cast(to, x));
            }
        }
    }
}

#[test]
fn constants_of_every_kind() {
    let Some(gpu) = gpu() else { return };
    let values = numbers([-1.0, 0.0, 2.5, 1e20]);
    for constant in [f64::INFINITY, f64::NEG_INFINITY, 3.4e38, -3.4e38, 1e-40, -0.0, 0.1] {
        for op in [BinaryOp::Max, BinaryOp::Min] {
            check_map(gpu, &values, DType::F32, |n, x| {
                let constant = n.pool().constant(constant, DType::F32);
                n.pool().binary(op, x, constant)
            });
        }
    }
}

#[test]
fn kernels_of_real_models_are_portable() {
    let mut alone = GpuTarget::llvmpipe();
    alone.name = "llvmpipe without subgroups".to_string();
    alone.features.subgroups = None;
    let mut subgroups = 0;
    let targets = [
        GpuTarget::webgpu_default(),
        GpuTarget::llvmpipe(),
        alone,
        GpuTarget::discrete(),
        GpuTarget::mobile(),
    ];
    for (model, graph, _) in models() {
        for target in &targets {
            let device = Device::Gpu(Box::new(target.clone()), processor());
            let plan = compile(&graph, &device, &mut Timings::default()).unwrap();
            let mut count = 0;
            for kernel in plan.kernels.iter() {
                if let Code::Gpu(kernels) = &kernel.code {
                    kernels.iter().for_each(|kernel| assert_portable(&kernel.text, target));
                    count += kernels.len();
                    let shares = |kernel: &&WgslKernel| kernel.text.contains("subgroup");
                    subgroups += kernels.iter().filter(shares).count();
                }
            }
            assert!(count > 0, "{model} has no kernel for {}", target.name);
        }
    }
    assert!(subgroups > 0, "no kernel shares loads among lanes");
}

/// Validates a module with the target's features and writes it for Vulkan, Metal and Direct3D.
fn assert_portable(text: &str, target: &GpuTarget) {
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SHADER_FLOAT16, target.features.f16);
    capabilities.set(Capabilities::SUBGROUP, target.features.subgroups.is_some());
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{}\n{text}", error.emit_to_string(text)));
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}\n{text}", error.emit_to_string(text)));
    naga::back::spv::write_vec(&module, &info, &naga::back::spv::Options::default(), None).unwrap();
    let options = naga::back::msl::Options { fake_missing_bindings: true, ..Default::default() };
    naga::back::msl::write_string(&module, &info, &options, &Default::default()).unwrap();
    let options = naga::back::hlsl::Options {
        shader_model: naga::back::hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let pipeline = naga::back::hlsl::PipelineOptions::default();
    let mut out = String::new();
    naga::back::hlsl::Writer::new(&mut out, &options, &pipeline).write(&module, &info, None).unwrap();
}
