use super::*;

fn presets() -> Vec<Target> {
    let gpus =
        [GpuTarget::webgpu_default(), GpuTarget::llvmpipe(), GpuTarget::discrete(), GpuTarget::mobile()];
    let cpus = CpuIsa::ALL.map(|isa| Target::Cpu(CpuTarget::preset(isa, 4)));
    gpus.into_iter().map(Target::Gpu).chain(cpus).collect()
}

#[test]
fn every_preset_survives_a_round_trip_through_json() {
    for target in presets() {
        let text = TargetRecord::from(&target).to_json();
        let read = TargetRecord::from_json(&text).unwrap().to_target().unwrap();
        assert_eq!(read, target, "{text}");
    }
}

#[test]
fn fingerprints_tell_targets_apart_and_ignore_rates() {
    let all: std::collections::BTreeSet<String> = presets().iter().map(Target::fingerprint).collect();
    assert_eq!(all.len(), presets().len());

    let gpu = GpuTarget::llvmpipe();
    let measured = GpuTarget { rates: Rates { flop_per_second: 7e10, ..gpu.rates }, ..gpu.clone() };
    let updated = GpuTarget { driver: "llvmpipe 2".to_string(), ..gpu.clone() };
    let limited = GpuTarget { limits: GpuLimits::WEBGPU_DEFAULT, ..gpu.clone() };
    let fingerprint = |gpu: &GpuTarget| Target::Gpu(gpu.clone()).fingerprint();
    assert_eq!(fingerprint(&gpu), fingerprint(&measured));
    assert_ne!(fingerprint(&gpu), fingerprint(&updated));
    assert_ne!(fingerprint(&gpu), fingerprint(&limited));
}

#[test]
fn bad_profiles_are_refused_with_the_reason() {
    let good = TargetRecord::from(&Target::Gpu(GpuTarget::llvmpipe())).to_json();
    let newer = good.replace("\"version\": 1", "\"version\": 99");
    assert!(matches!(TargetRecord::from_json(&newer), Err(RecordError::Version { found: 99 })));
    assert!(matches!(TargetRecord::from_json("{"), Err(RecordError::Malformed(_))));
    let unknown = TargetRecord::from_json(&good.replace("\"vulkan\"", "\"glide\"")).unwrap();
    assert_eq!(
        unknown.to_target().unwrap_err().to_string(),
        "the target profile names an unknown backend `glide`"
    );
}

#[test]
fn lowering_takes_the_stricter_limit_everywhere() {
    let lowered = GpuTarget::llvmpipe().limits.lowered_to(&GpuLimits::WEBGPU_DEFAULT);
    let loops = GpuLimits::LLVMPIPE_LOOP_ITERATIONS;
    assert_eq!(lowered, GpuLimits { max_loop_iterations: loops, ..GpuLimits::WEBGPU_DEFAULT });
    assert_eq!(GpuLimits::WEBGPU_DEFAULT.lowered_to(&GpuTarget::llvmpipe().limits), lowered);
}
