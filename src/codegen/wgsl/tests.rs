use super::ops::HELPERS;
use super::*;
use crate::loopir::NestBuilder;
use crate::schedule::Trace;
use crate::schedule::tests::matmul;
use crate::target::{GpuLimits, GpuTarget};
use expect_test::{Expect, expect};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// Parses and validates a module, and writes it for every kind of device.
pub(super) fn assert_portable(text: &str) -> naga::Module {
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{}\n{text}", error.emit_to_string(text)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}\n{text}", error.emit_to_string(text)));
    write_all(&module, &info);
    module
}

fn write_all(module: &naga::Module, info: &ModuleInfo) {
    naga::back::spv::write_vec(module, info, &naga::back::spv::Options::default(), None).unwrap();
    let options = naga::back::msl::Options { fake_missing_bindings: true, ..Default::default() };
    naga::back::msl::write_string(module, info, &options, &Default::default()).unwrap();
    let options = naga::back::hlsl::Options {
        shader_model: naga::back::hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let pipeline = naga::back::hlsl::PipelineOptions::default();
    let mut text = String::new();
    naga::back::hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).unwrap();
}

/// Checks what a kernel says of itself against its module.
fn assert_consistent(kernel: &WgslKernel) {
    let module = assert_portable(&kernel.text);
    let [entry] = module.entry_points.as_slice() else { panic!("one entry point is expected") };
    assert_eq!(entry.name, kernel.name);
    assert_eq!(entry.workgroup_size, kernel.workgroup_size);
    let mut bindings = vec![];
    for (_, global) in module.global_variables.iter() {
        if let naga::AddressSpace::Storage { access } = global.space {
            let binding = global.binding.unwrap();
            assert_eq!(binding.group, 0);
            let size = module.types[global.ty].inner.size(module.to_ctx());
            bindings.push((binding.binding, access.contains(naga::StorageAccess::STORE), u64::from(size)));
        }
    }
    bindings.sort_unstable();
    let expected: Vec<_> = kernel
        .bindings
        .iter()
        .zip(0..)
        .map(|(binding, number)| (number, binding.access == Access::ReadWrite, binding.bytes))
        .collect();
    assert_eq!(bindings, expected);
}

fn scheduled(mut nest: Nest, trace: &str) -> Nest {
    Trace::parse(trace).unwrap().apply(&mut nest).unwrap();
    nest
}

#[test]
fn helpers_are_portable_alone_and_in_order() {
    let mut before: Vec<&str> = vec![];
    for helper in &HELPERS {
        assert!(helper.needs.iter().all(|needed| before.contains(needed)), "{}", helper.name);
        assert!(helper.text.contains(&format!("fn {}(", helper.name)));
        let mut needed = vec![helper.name];
        for other in HELPERS.iter().rev() {
            if needed.contains(&other.name) {
                needed.extend(other.needs);
            }
        }
        let used = HELPERS.iter().filter(|other| needed.contains(&other.name));
        assert_portable(&used.map(|other| other.text).collect::<String>());
        before.push(helper.name);
    }
}

fn emitted(nest: &Nest, target: &GpuTarget) -> Vec<WgslKernel> {
    let kernels = emit(nest, target).unwrap();
    kernels.iter().for_each(assert_consistent);
    let again = emit(nest, target).unwrap();
    assert_eq!(kernels, again);
    kernels
}

fn check(nest: &Nest, expected: Expect) {
    let kernels = emitted(nest, &GpuTarget::webgpu_default());
    let texts: Vec<String> = kernels
        .iter()
        .map(|kernel| format!("{}// dispatch {:?}\n", kernel.text, kernel.workgroups))
        .collect();
    expected.assert_eq(&texts.join("\n"));
}

fn elementwise(extent: usize) -> Nest {
    let mut n = NestBuilder::new("scale");
    let x = n.param(Role::Input, "x", DType::F32, &[extent]);
    let y = n.param(Role::Output, "y", DType::F32, &[extent]);
    let i = n.open("i", extent);
    let value = n.pool().load(x, &[i]);
    let two = n.pool().constant(2.0, DType::F32);
    let value = n.pool().mul(value, two);
    n.store("store", y, &[i], value);
    n.close(1);
    n.finish()
}

const TILED: &str = "split i = [_, 8, 2]
    split j = [_, 8, 4]
    split k = [_, 4]
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

#[test]
fn a_naive_elementwise_kernel() {
    check(
        &elementwise(10),
        expect![[r#"
        @group(0) @binding(0) var<storage, read_write> x: array<f32, 10>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32, 10>;

        @compute @workgroup_size(1, 1, 1)
        fn scale_34fc3fc5() {
          for (var i: i32 = 0; i < 10; i++) {
            y[i] = x[i] * 2.0;
          }
        }
        // dispatch [1, 1, 1]
    "#]],
    );
}

#[test]
fn a_bound_elementwise_kernel() {
    let nest = scheduled(
        elementwise(4000),
        "split i = [_, 64, 4]\nbind i.0 workgroup.x\nbind i.1 invocation.x\nvectorise i.2",
    );
    check(
        &nest,
        expect![[r#"
        @group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>, 1000>;
        @group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>, 1000>;

        @compute @workgroup_size(64, 1, 1)
        fn scale_c89aa04a(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_id) local_id: vec3<u32>) {
          let i_0 = i32(group_id.x);
          let i_1 = i32(local_id.x);
          let at = i_0 * 64 + i_1;
          if (i_0 * 256 + i_1 * 4 < 4000) {
            y[at] = x[at] * 2.0;
          }
        }
        // dispatch [16, 1, 1]
    "#]],
    );
}

#[test]
fn a_tiled_matmul() {
    check(
        &scheduled(matmul(64, 64, 16), TILED),
        expect![[r#"
        @group(0) @binding(0) var<storage, read_write> a: array<f32, 1024>;
        @group(0) @binding(1) var<storage, read> b: array<vec4<f32>, 256>;
        @group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>, 1024>;
        var<workgroup> a_s: array<f32, 96>;
        var<workgroup> b_s: array<vec4<f32>, 32>;

        @compute @workgroup_size(8, 8, 1)
        fn matmul_5e1a4225(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_id) local_id: vec3<u32>) {
          let j_0 = i32(group_id.x);
          let i_0 = i32(group_id.y);
          let i_1 = i32(local_id.y);
          let j_1 = i32(local_id.x);
          var acc_0_0: vec4<f32>;
          var acc_1_0: vec4<f32>;
          acc_0_0 = vec4<f32>(0.0);
          acc_1_0 = vec4<f32>(0.0);
          let at = i_0 * 256 + j_1 * 16 + (i_1 >> 1u) + (i_1 & 1) * 128;
          let at1 = i_1 * 12 + (j_1 >> 1u) * 3 + (j_1 & 1);
          let holds = i_1 * 32 + j_1 * 4 < 128;
          let at2 = i_1 * 8 + j_1;
          let at3 = i_1 * 16 + j_0 * 8 + j_1;
          let at4 = i_1 * 3;
          for (var k_0: i32 = 0; k_0 < 4; k_0++) {
            workgroupBarrier();
            a_s[at1] = a[at + k_0 * 4];
            if (holds) {
              b_s[at2] = b[at3 + k_0 * 64];
            }
            workgroupBarrier();
            let b_s_at = b_s[j_1];
            acc_0_0 += a_s[at4] * b_s_at;
            acc_1_0 += a_s[at4 + 1] * b_s_at;
            let b_s_at1 = b_s[j_1 + 8];
            acc_0_0 += a_s[at4 + 24] * b_s_at1;
            acc_1_0 += a_s[at4 + 25] * b_s_at1;
            let b_s_at2 = b_s[j_1 + 16];
            acc_0_0 += a_s[at4 + 48] * b_s_at2;
            acc_1_0 += a_s[at4 + 49] * b_s_at2;
            let b_s_at3 = b_s[j_1 + 24];
            acc_0_0 += a_s[at4 + 72] * b_s_at3;
            acc_1_0 += a_s[at4 + 73] * b_s_at3;
          }
          let at5 = i_0 * 256 + i_1 * 32 + j_0 * 8 + j_1;
          y[at5] = acc_0_0;
          y[at5 + 16] = acc_1_0;
        }
        // dispatch [2, 4, 1]
    "#]],
    );
}

#[test]
fn a_tile_beyond_the_edge_is_computed_and_not_stored() {
    let trace = "split i = [_, 2]
        split j = [_, 4]
        reorder i.0 j.0 i.1 j.1
        stage_out acc at j.0 in register
        reorder k i.1 j.1
        bind i.0 workgroup.y
        bind j.0 workgroup.x
        unroll i.1
        vectorise j.1";
    let nest = scheduled(matmul(3, 8, 5), trace);
    check(
        &nest,
        expect![[r#"
        @group(0) @binding(0) var<storage, read_write> a: array<f32, 15>;
        @group(0) @binding(1) var<storage, read> b: array<vec4<f32>, 10>;
        @group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>, 6>;

        @compute @workgroup_size(1, 1, 1)
        fn matmul_8ab44cec(@builtin(workgroup_id) group_id: vec3<u32>) {
          let j_0 = i32(group_id.x);
          let i_0 = i32(group_id.y);
          var acc_0_0: vec4<f32>;
          var acc_1_0: vec4<f32>;
          acc_0_0 = vec4<f32>(0.0);
          acc_1_0 = vec4<f32>(0.0);
          let at = i_0 * 10;
          let holds = i_0 * 2 < 2;
          for (var k: i32 = 0; k < 5; k++) {
            let at1 = at + k;
            let b_at = b[j_0 + k * 2];
            acc_0_0 += a[at1] * b_at;
            acc_1_0 += a[select(0, at1 + 5, holds)] * b_at;
          }
          let at2 = i_0 * 4 + j_0;
          y[at2] = acc_0_0;
          if (holds) {
            y[at2 + 2] = acc_1_0;
          }
        }
        // dispatch [2, 2, 1]
    "#]],
    );
}

#[test]
fn a_padded_convolution() {
    let nest = Nest::parse(
        "nest conv
  in    x: f32[3, 8]
  const w: f32[4, 3, 3]
  out   y: f32[4, 8]
  for k in 4 workgroup.x, p in 8 invocation.x:
    register acc: f32
    init: acc = 0.0
    for c in 3, r in 3:
      update: acc += guard(p + r >= 1 and p + r < 9, x[c, p + r - 1]) * w[k, c, r]
    store: y[k, p] = tanh(acc)
",
    )
    .unwrap();
    check(
        &nest,
        expect![[r#"
        @group(0) @binding(0) var<storage, read_write> x: array<f32, 24>;
        @group(0) @binding(1) var<storage, read> w: array<f32, 36>;
        @group(0) @binding(2) var<storage, read_write> y: array<f32, 32>;

        // The hyperbolic tangent without overflow, to a few units in the last place also near 0: a rational approximation of odd
        // terms, as in Eigen's generic_fast_tanh_float.
        fn tanh_f32(x: f32) -> f32 {
          let z = clamp(x, -9.0, 9.0);
          let t = z * z;
          var p = -2.76076847742355e-16;
          p = p * t + 2.00018790482477e-13;
          p = p * t - 8.60467152213735e-11;
          p = p * t + 5.12229709037114e-08;
          p = p * t + 1.48572235717979e-05;
          p = p * t + 6.37261928875436e-04;
          p = p * t + 4.89352455891786e-03;
          var q = 1.19825839466702e-06;
          q = q * t + 1.18534705686654e-04;
          q = q * t + 2.26843463243900e-03;
          q = q * t + 4.89352518554385e-03;
          return clamp(z * p / q, -1.0, 1.0);
        }

        @compute @workgroup_size(8, 1, 1)
        fn conv_1ce90ac3(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_id) local_id: vec3<u32>) {
          let k = i32(group_id.x);
          let p = i32(local_id.x);
          var acc: f32;
          acc = 0.0;
          let at2 = k * 9;
          for (var c: i32 = 0; c < 3; c++) {
            let at1 = p + c * 8;
            let at3 = at2 + c * 3;
            for (var r: i32 = 0; r < 3; r++) {
              let at = p + r;
              let holds = at >= 1 && at < 9;
              acc += select(0.0, x[select(0, at1 + r - 1, holds)], holds) * w[at3 + r];
            }
          }
          y[p + k * 8] = tanh_f32(acc);
        }
        // dispatch [4, 1, 1]
    "#]],
    );
}

fn refusal(text: &str, target: &GpuTarget) -> String {
    emit(&Nest::parse(text).unwrap(), target).unwrap_err().to_string()
}

#[test]
fn what_a_device_cannot_do_is_refused() {
    let target = GpuTarget::webgpu_default();
    let of_type = |dtype: &str| {
        let text = format!(
            "nest copy\n  in    x: {dtype}[4]\n  out   y: {dtype}[4]\n  for i in 4:\n    store: y[i] = x[i]\n"
        );
        refusal(&text, &target)
    };
    expect!["nest 'copy': buffer 'x' is of type f64, which shaders do not have; run it on the CPU"]
        .assert_eq(&of_type("f64"));
    expect![
        "nest 'copy' needs the feature f16, which the adapter does not have; choose f32 or another device"
    ]
    .assert_eq(&of_type("f16"));
    let sum = |loops: &str, local: &str| {
        format!(
            "nest sum\n  in    x: f32[512, 512]\n  out   y: f32[512, 512]\n  for {loops}:\n    {local}\n    store: y[i, j] = x[i, j]\n"
        )
    };
    expect!["nest 'sum' needs 512 of max_invocations_per_workgroup, and the adapter allows 256; choose smaller tiles"].assert_eq(&refusal(&sum("i in 512 workgroup.x, j in 512 invocation.x", ""), &target));
    expect!["nest 'sum': loop 'i' is in order, around workgroups that have none"]
        .assert_eq(&refusal(&sum("i in 512, j in 512 workgroup.x", ""), &target));
    expect!["nest 'sum' needs 20000 of max_workgroup_memory_bytes, and the adapter allows 16384; choose smaller tiles"].assert_eq(&refusal(&sum("i in 512 workgroup.x, j in 512", "workgroup t: f32[5000]\n    use: t[0] = 0.0"), &target));
    expect!["nest 'sum': buffer 't' is in global memory but allocated inside a loop"]
        .assert_eq(&refusal(&sum("i in 512 workgroup.x, j in 512", "global t: f32[5]"), &target));
    let private = "register t: f32[3000]\n    for k in 3000:\n      use: t[k] = 0.0";
    expect!["nest 'sum' needs 12000 of max_private_bytes, and the adapter allows 8192; choose smaller tiles"]
        .assert_eq(&refusal(&sum("i in 512 workgroup.x, j in 64 invocation.x", private), &target));
    let indexed = "register t: f32[300]\n    for k in 300:\n      use: t[k] = 0.0";
    expect!["nest 'sum' needs 1200 of max_array_bytes, and the adapter allows 1024; choose smaller tiles"]
        .assert_eq(&refusal(&sum("i in 512 workgroup.x, j in 64 invocation.x", indexed), &target));
    let lanes = "nest lanes
  in    x: f32[64, 14]
  out   y: f32[64]
  for i in 2 invocation.x, j in 32 vector:
    register t: f32[14]
    for k in 14:
      use: t[k] = x[32 * i + j, k]
    store: y[32 * i + j] = t[i]
";
    expect!["nest 'lanes' needs 1792 of max_array_bytes, and the adapter allows 1024; choose smaller tiles"]
        .assert_eq(&refusal(lanes, &target));
    let shared = "nest shared
  out   y: f32[8]
  for i in 2 workgroup.x:
    register t: f32
    for j in 4 invocation.x:
      store: y[i * 4 + j] = 0.0
";
    expect![
        "nest 'shared': buffer 't' is in registers, outside of the invocation loops; use scope workgroup"
    ]
    .assert_eq(&refusal(shared, &target));
    let uneven = "nest uneven
  out   y: f32[8]
  for i in 8 invocation.x:
    store: y[i] = 0.0
  for i in 4 invocation.x:
    store1: y[i] = 0.0
    barrier
";
    assert_eq!(emitted(&Nest::parse(uneven).unwrap(), &target).len(), 2);
    let few = GpuTarget { limits: GpuLimits { max_storage_buffers_per_stage: 1, ..target.limits }, ..target };
    expect![
        "nest 'sum' needs 2 of max_storage_buffers_per_stage, and the adapter allows 1; choose smaller tiles"
    ]
    .assert_eq(&refusal(&sum("i in 512 workgroup.x, j in 512", ""), &few));
}

#[test]
fn kernels_of_equal_nests_are_equal_and_of_others_are_not() {
    let target = GpuTarget::webgpu_default();
    let of = |extent| emitted(&elementwise(extent), &target).remove(0);
    assert_eq!(of(8), of(8));
    assert_ne!(of(8).name, of(9).name);
}

#[test]
fn a_large_unrolled_loop_stays_a_loop() {
    let text = "nest fill
  out   y: f32[100, 100]
  for i in 100 unroll, j in 100 unroll:
    store: y[i, j] = 1.0
";
    let kernels = emitted(&Nest::parse(text).unwrap(), &GpuTarget::webgpu_default());
    let text = &kernels[0].text;
    assert_eq!((text.matches("for (").count(), text.matches("] = 1.0").count()), (1, 100));
}
