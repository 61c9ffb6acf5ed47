//! Tests on whatever adapter the machine has; without one each says that it was skipped.

use super::*;
use crate::target::{GpuKind, GpuLimits};
use std::time::{Duration, Instant};

/// A device of the first adapter, or `None` with a loud note.
fn open(test: &str, options: GpuOptions) -> Option<Gpu> {
    match Gpu::open(0, options) {
        Ok(gpu) => Some(gpu),
        Err(GpuError::NoAdapter) => {
            eprintln!("SKIPPED: no Vulkan adapter: {test}");
            None
        }
        Err(error) => panic!("{test}: {error}"),
    }
}

macro_rules! gpu_or_skip {
    ($test:literal) => {
        gpu_or_skip!($test, GpuOptions::default())
    };
    ($test:literal, $options:expr) => {
        match open($test, $options) {
            Some(gpu) => gpu,
            None => return,
        }
    };
}

const DOUBLE: &str = "
    @group(0) @binding(0) var<storage, read> x: array<f32>;
    @group(0) @binding(1) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < arrayLength(&y)) { y[id.x] = 2.0 * x[id.x]; }
    }";

const INCREMENT: &str = "
    @group(0) @binding(0) var<storage, read_write> x: array<f32>;
    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < arrayLength(&x)) { x[id.x] += 1.0; }
    }";

fn kernel(name: &str, wgsl: &str, bindings: &[BindingKind], groups: u32) -> GpuKernel {
    GpuKernel {
        name: name.to_string(),
        wgsl: wgsl.to_string(),
        entry: "main".to_string(),
        bindings: bindings.to_vec(),
        workgroups: [groups, 1, 1],
        bounds_checked: true,
        zero_workgroup_memory: true,
    }
}

fn double(groups: u32) -> GpuKernel {
    kernel("double", DOUBLE, &[BindingKind::Read, BindingKind::ReadWrite], groups)
}

fn increment(groups: u32) -> GpuKernel {
    kernel("increment", INCREMENT, &[BindingKind::ReadWrite], groups)
}

fn dispatch(kernel: GpuKernel, ranges: &[BufferRange]) -> Step {
    Step::Dispatch(Dispatch { kernel, ranges: ranges.to_vec() })
}

fn floats(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn as_floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Whether the device still computes.
fn assert_works(gpu: &Gpu) {
    let x = gpu.allocate(4096).unwrap();
    let y = gpu.allocate(4096).unwrap();
    let program = gpu.prepare(&[dispatch(double(16), &[x.whole(), y.whole()])]).unwrap();
    let report = program.run(&[(x.whole(), &floats(1024))], &[y.whole()], Timing::Wall).unwrap();
    let expected: Vec<f32> = (0..1024).map(|i| 2.0 * i as f32).collect();
    assert_eq!(as_floats(&report.outputs[0]), expected);
}

#[test]
fn adapters_are_described_as_opened() {
    let gpu = gpu_or_skip!("adapters_are_described_as_opened");
    let listed = adapters();
    assert_eq!(listed[0].name, gpu.target().name);
    assert_eq!(listed[0].limits, gpu.target().limits);
    let missing = Gpu::open(listed.len(), GpuOptions::default());
    let expected = GpuError::AdapterIndex { index: listed.len(), found: listed.len() };
    assert_eq!(missing.err(), Some(expected));
}

#[test]
fn a_program_computes_and_reports() {
    let gpu = gpu_or_skip!("a_program_computes_and_reports");
    assert_works(&gpu);
    let x = gpu.allocate(4096).unwrap();
    let y = gpu.allocate(4096).unwrap();
    // A binding of an odd number of elements, in the middle of a memory, unchecked.
    let mut unchecked = double(2);
    unchecked.bounds_checked = false;
    let (from, to) = (x.range(256, 4 * 77), y.range(512, 4 * 77));
    let program = gpu.prepare(&[dispatch(unchecked, &[from.clone(), to.clone()])]).unwrap();
    let report = program.run(&[(from, &floats(77))], &[to], Timing::Device).unwrap();
    assert_eq!(as_floats(&report.outputs[0])[76], 152.0);
    assert_eq!((report.dispatches, report.copies, report.copied_bytes), (1, 2, 2 * 4 * 77));
    assert!(report.device_ns.unwrap() <= report.wall_ns);
    assert!(report.kernel_ns.is_none());
}

#[test]
fn steps_see_what_earlier_steps_wrote_and_can_be_run_in_parts() {
    let gpu = gpu_or_skip!(
        "steps_see_what_earlier_steps_wrote_and_can_be_run_in_parts",
        GpuOptions { max_steps_per_command_buffer: 3, ..GpuOptions::default() }
    );
    let arena = gpu.allocate(8192).unwrap();
    let (low, high) = (arena.range(0, 4096), arena.range(4096, 4096));
    let mut steps = vec![dispatch(increment(16), std::slice::from_ref(&low)); 7];
    // Within one memory, which no single command can do.
    steps.push(Step::Copy { from: low.clone(), to: high.clone() });
    steps.push(dispatch(increment(16), std::slice::from_ref(&high)));
    let program = gpu.prepare(&steps).unwrap();
    let input = floats(1024);
    let report =
        program.run(&[(low.clone(), &input)], &[low.clone(), high.clone()], Timing::Kernels).unwrap();
    assert_eq!(as_floats(&report.outputs[0])[10], 17.0);
    assert_eq!(as_floats(&report.outputs[1])[10], 18.0);
    if gpu.target().features.timestamps {
        assert_eq!(report.kernel_ns.unwrap().len(), 8);
    }

    program.run_steps(0..2, &[(low.clone(), &input)], &[], Timing::Wall).unwrap();
    let between = as_floats(&gpu.download(std::slice::from_ref(&low)).unwrap()[0]);
    assert_eq!(between[10], 12.0);
    gpu.upload(&[(low.clone(), &floats(1024))]).unwrap();
    let rest = program.run_steps(7..9, &[], &[high], Timing::Device).unwrap();
    assert_eq!(as_floats(&rest.outputs[0])[10], 11.0);
}

#[test]
fn half_precision_computes_where_the_adapter_has_it() {
    let gpu = gpu_or_skip!("half_precision_computes_where_the_adapter_has_it");
    if !gpu.target().features.f16 {
        eprintln!("SKIPPED: no f16: half_precision_computes_where_the_adapter_has_it");
        return;
    }
    let wgsl = DOUBLE.replace("f32", "f16").replace("2.0 *", "2.0h *");
    let kernel = GpuKernel { wgsl: format!("enable f16;\n{wgsl}"), ..double(1) };
    let x = gpu.allocate(256).unwrap();
    let y = gpu.allocate(256).unwrap();
    // 5 elements of 2 bytes: the length is no multiple of 4.
    let values: Vec<u8> =
        [0.5, 1.0, -2.0, 3.25, 1000.0].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    let program = gpu.prepare(&[dispatch(kernel, &[x.range(0, 10), y.range(0, 10)])]).unwrap();
    let report =
        program.run(&[(x.range(0, 10), &padded(&values)[..10])], &[y.range(0, 10)], Timing::Wall).unwrap();
    let out: Vec<half::f16> = bytemuck::pod_collect_to_vec(&report.outputs[0]);
    assert_eq!(out.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), [1.0, 2.0, -4.0, 6.5, 2000.0]);
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut all = bytes.to_vec();
    all.resize(bytes.len().next_multiple_of(4), 0);
    all
}

#[test]
fn identical_kernels_share_a_pipeline_until_their_programs_are_gone() {
    let gpu = gpu_or_skip!("identical_kernels_share_a_pipeline_until_their_programs_are_gone");
    let x = gpu.allocate(4096).unwrap();
    let steps = |count| vec![dispatch(increment(count), &[x.whole()]), dispatch(increment(1), &[x.whole()])];
    let first = gpu.prepare(&steps(16)).unwrap();
    let second = gpu.prepare(&steps(8)).unwrap();
    assert_eq!(gpu.pipeline_count(), 1);
    drop(first);
    assert_eq!(gpu.pipeline_count(), 1);
    drop(second);
    assert_eq!(gpu.pipeline_count(), 0);
}

#[test]
fn an_invalid_shader_is_an_error_and_the_device_survives() {
    let gpu = gpu_or_skip!("an_invalid_shader_is_an_error_and_the_device_survives");
    let x = gpu.allocate(4096).unwrap();
    let prepare = |wgsl: &str, entry: &str| {
        let kernel =
            GpuKernel { entry: entry.to_string(), ..kernel("bad", wgsl, &[BindingKind::ReadWrite], 1) };
        gpu.prepare(&[dispatch(kernel, &[x.whole()])]).err().unwrap()
    };
    let syntax = prepare(&INCREMENT.replace("+= 1.0", "+= nothing"), "main");
    assert!(
        matches!(&syntax, GpuError::Validation { what, text } if what == "kernel `bad`" && text.contains("nothing")),
        "{syntax}"
    );
    let entry = prepare(INCREMENT, "other");
    assert!(matches!(&entry, GpuError::Validation { .. }), "{entry}");
    let binding = prepare(&INCREMENT.replace("read_write", "read").replace("x[id.x] += 1.0;", ""), "main");
    assert!(matches!(&binding, GpuError::Validation { .. }), "{binding}");
    let short = prepare(
        &INCREMENT.replace("array<f32>", "array<f32, 5000>").replace("arrayLength(&x)", "5000u"),
        "main",
    );
    assert!(matches!(&short, GpuError::Validation { .. }), "{short}");
    assert_works(&gpu);
}

#[test]
fn what_exceeds_the_limits_is_refused_before_submission() {
    let limits = GpuLimits {
        max_workgroups_per_dimension: 100,
        max_storage_buffer_binding_bytes: 1024,
        max_buffer_bytes: 64 << 10,
        ..GpuLimits::WEBGPU_DEFAULT
    };
    let gpu = gpu_or_skip!(
        "what_exceeds_the_limits_is_refused_before_submission",
        GpuOptions { limits: Some(limits.clone()), ..GpuOptions::default() }
    );
    let loops = gpu.target().limits.max_loop_iterations;
    assert_eq!(gpu.target().limits, GpuLimits { max_loop_iterations: loops, ..limits });
    assert_eq!(
        gpu.allocate(64 << 20).err(),
        Some(GpuError::BufferTooLarge { bytes: 64 << 20, max: 64 << 10 })
    );

    let x = gpu.allocate(4096).unwrap();
    let y = gpu.allocate(4096).unwrap();
    let refusal = |kernel: GpuKernel, ranges: &[BufferRange]| gpu.prepare(&[dispatch(kernel, ranges)]).err();
    let small = x.range(0, 1024);
    assert!(matches!(
        refusal(increment(101), std::slice::from_ref(&small)),
        Some(GpuError::GridTooLarge { grid: [101, 1, 1], max: 100, .. })
    ));
    assert!(matches!(
        refusal(increment(1), &[x.range(0, 1028)]),
        Some(GpuError::BindingTooLarge { binding: 0, bytes: 1028, max: 1024, .. })
    ));
    assert!(matches!(
        refusal(increment(1), &[x.range(4, 8)]),
        Some(GpuError::Misaligned { offset: 4, alignment: 256, .. })
    ));
    for bad in [x.range(4096, 4), x.range(0, 4100), x.range(0, 0), x.range(!255, 512)] {
        assert!(matches!(refusal(increment(1), &[bad]), Some(GpuError::OutOfRange { .. })));
    }
    assert!(matches!(
        refusal(double(1), std::slice::from_ref(&small)),
        Some(GpuError::BindingCount { expected: 2, given: 1, .. })
    ));
    assert!(matches!(
        refusal(double(1), &[small.clone(), x.range(1024, 1024)]),
        Some(GpuError::MixedAccess { .. })
    ));
    assert!(matches!(
        refusal(kernel("many", INCREMENT, &[BindingKind::Read; 9], 1), &vec![y.range(0, 4); 9]),
        Some(GpuError::TooManyBindings { count: 9, max: 8, .. })
    ));
    let program = gpu.prepare(&[dispatch(double(1), &[small.clone(), y.range(0, 1024)])]).unwrap();
    let mismatch = program.run(&[(small, &[0; 8])], &[], Timing::Wall);
    assert!(matches!(mismatch, Err(GpuError::SizeMismatch { given: 8, expected: 1024, .. })));

    // Transfers larger than any one buffer go in parts.
    let memories: Vec<Memory> = (0..3).map(|_| gpu.allocate(64 << 10).unwrap()).collect();
    let data = floats(16 << 10);
    let inputs: Vec<(BufferRange, &[u8])> = memories.iter().map(|m| (m.whole(), &data[..])).collect();
    let ranges: Vec<BufferRange> = memories.iter().map(Memory::whole).collect();
    let report = program.run(&inputs, &ranges, Timing::Wall).unwrap();
    assert!(report.outputs.iter().all(|output| output[..] == data[..]));
    assert_works_within(&gpu);
}

/// As [`assert_works`], within a binding limit of 1024 bytes.
fn assert_works_within(gpu: &Gpu) {
    let x = gpu.allocate(1024).unwrap();
    let program = gpu.prepare(&[dispatch(increment(4), &[x.whole()])]).unwrap();
    let report = program.run(&[(x.whole(), &floats(256))], &[x.whole()], Timing::Wall).unwrap();
    assert_eq!(as_floats(&report.outputs[0])[255], 256.0);
}

#[test]
fn a_wait_is_bounded_and_the_process_lives() {
    let gpu = gpu_or_skip!(
        "a_wait_is_bounded_and_the_process_lives",
        GpuOptions { timeout: Duration::from_millis(10), ..GpuOptions::default() }
    );
    // A long chain of dependent operations, by one invocation on hardware and by many short ones on a software adapter,
    // whose loops are limited: far beyond the time limit, yet seconds at most.
    let (groups, rounds) = if gpu.target().kind == GpuKind::Software { (4000, 1) } else { (1, 1000) };
    let wgsl = &"
        @group(0) @binding(0) var<storage, read_write> x: array<f32>;
        @compute @workgroup_size(1)
        fn main() {
            var value = x[0];
            for (var round = 0u; round < ROUNDSu; round++) {
                for (var i = 0u; i < 60000u; i++) { value = fma(value, 0.999999, 1.0); }
            }
            x[0] = value;
        }"
    .replace("ROUNDS", &rounds.to_string());
    let x = gpu.allocate(256).unwrap();
    let program = gpu
        .prepare(&[dispatch(kernel("long", wgsl, &[BindingKind::ReadWrite], groups), &[x.whole()])])
        .unwrap();
    let start = Instant::now();
    let outcome = program.run(&[(x.whole(), &floats(64))], &[x.whole()], Timing::Wall);
    let took = start.elapsed();
    match outcome {
        Err(GpuError::Timeout { after }) => assert_eq!(after, Duration::from_millis(10)),
        other => panic!("expected a timeout after {took:?}: {other:?}"),
    }
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Closing the busy device does not wait for it either, and another one works meanwhile.
    drop((program, x, gpu));
    assert!(start.elapsed() < took + Duration::from_secs(1));
    assert_works(&Gpu::open(0, GpuOptions::default()).unwrap());
}

#[test]
fn a_lost_device_is_an_error_and_another_can_be_opened() {
    let gpu = gpu_or_skip!("a_lost_device_is_an_error_and_another_can_be_opened");
    let x = gpu.allocate(4096).unwrap();
    let program = gpu.prepare(&[dispatch(increment(16), &[x.whole()])]).unwrap();
    program.run(&[], &[x.whole()], Timing::Device).unwrap();
    gpu.destroy();
    let is_lost = |error: Option<GpuError>| matches!(error, Some(GpuError::DeviceLost { .. }));
    assert!(is_lost(program.run(&[(x.whole(), &floats(1024))], &[x.whole()], Timing::Device).err()));
    assert!(is_lost(gpu.allocate(4096).err()));
    assert!(is_lost(gpu.upload(&[(x.whole(), &floats(1024))]).err()));
    assert!(is_lost(gpu.download(&[x.whole()]).err()));
    assert!(is_lost(gpu.prepare(&[dispatch(increment(16), &[x.whole()])]).err()));
    drop((program, x));
    assert_works(&Gpu::open(0, GpuOptions::default()).unwrap());
}

#[test]
fn loops_run_as_often_as_the_target_says() {
    let gpu = gpu_or_skip!("loops_run_as_often_as_the_target_says");
    let iterations = gpu.target().limits.max_loop_iterations.min(1_000_000);
    let wgsl = "
        @group(0) @binding(0) var<storage, read_write> x: array<u32>;
        @compute @workgroup_size(1)
        fn main() {
            for (var i = 0u; i < COUNTu; i++) { x[0] += 1u; }
        }"
    .replace("COUNT", &iterations.to_string());
    let x = gpu.allocate(256).unwrap();
    let kernel = kernel("count", &wgsl, &[BindingKind::ReadWrite], 1);
    let report =
        gpu.prepare(&[dispatch(kernel, &[x.whole()])]).unwrap().run(&[], &[x.whole()], Timing::Wall).unwrap();
    assert_eq!(report.outputs[0][..4], iterations.to_le_bytes());
}
