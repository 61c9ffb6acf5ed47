//! Which adapters there are, and their description as [`GpuTarget`].

use super::GpuError;
use crate::target::{
    CooperativeMatrix, GpuBackend, GpuFeatures, GpuKind, GpuLimits, GpuTarget, SubgroupSizes,
};
use crate::tensor::DType;

/// Every adapter of this machine, the most capable kind first. The place in the list is the number that
/// [`Gpu::open`](super::Gpu::open) takes.
pub fn adapters() -> Vec<GpuTarget> {
    enumerate().iter().map(|adapter| describe(adapter, &adapter.limits(), adapter.features())).collect()
}

/// The adapter of number `index`.
pub(super) fn adapter_at(index: usize) -> Result<wgpu::Adapter, GpuError> {
    let mut all = enumerate();
    let found = all.len();
    match found {
        0 => Err(GpuError::NoAdapter),
        _ if index >= found => Err(GpuError::AdapterIndex { index, found }),
        _ => Ok(all.swap_remove(index)),
    }
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    all.sort_by_key(|adapter| kind_of(adapter.get_info().device_type));
    all
}

/// What a device of `adapter` is that was opened with these limits and features.
pub(super) fn describe(
    adapter: &wgpu::Adapter,
    limits: &wgpu::Limits,
    features: wgpu::Features,
) -> GpuTarget {
    let info = adapter.get_info();
    let kind = kind_of(info.device_type);
    let max_loop_iterations = match kind {
        GpuKind::Software => GpuLimits::LLVMPIPE_LOOP_ITERATIONS,
        GpuKind::Discrete | GpuKind::Integrated | GpuKind::Other => u32::MAX,
    };
    GpuTarget {
        name: info.name,
        vendor: info.vendor,
        backend: backend_of(info.backend),
        driver: [info.driver, info.driver_info].join(" ").trim().to_string(),
        kind,
        limits: GpuLimits {
            max_storage_buffer_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_workgroup_size: [
                limits.max_compute_workgroup_size_x,
                limits.max_compute_workgroup_size_y,
                limits.max_compute_workgroup_size_z,
            ],
            max_workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
            max_storage_buffers_per_stage: limits.max_storage_buffers_per_shader_stage,
            storage_offset_alignment_bytes: limits.min_storage_buffer_offset_alignment,
            max_loop_iterations,
        },
        features: GpuFeatures {
            f16: features.contains(wgpu::Features::SHADER_F16),
            i64: features.contains(wgpu::Features::SHADER_INT64),
            f32_atomics: features.contains(wgpu::Features::SHADER_FLOAT32_ATOMIC),
            subgroups: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some(SubgroupSizes { min: info.subgroup_min_size, max: info.subgroup_max_size }),
            subgroup_barrier: features.contains(wgpu::Features::SUBGROUP_BARRIER),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            packed_int8_dot: true,
            cooperative_matrices: cooperative_matrices(adapter, features),
        },
        rates: GpuTarget::estimated_rates(kind),
    }
}

fn cooperative_matrices(adapter: &wgpu::Adapter, features: wgpu::Features) -> Vec<CooperativeMatrix> {
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return Vec::new();
    }
    let dtype = |scalar| match scalar {
        wgpu::CooperativeScalarType::F32 => DType::F32,
        wgpu::CooperativeScalarType::F16 => DType::F16,
        wgpu::CooperativeScalarType::I32 => DType::I32,
        wgpu::CooperativeScalarType::U32 => DType::U32,
    };
    let properties = adapter.cooperative_matrix_properties();
    properties
        .into_iter()
        .filter(|shape| !shape.saturating_accumulation)
        .map(|shape| CooperativeMatrix {
            m: shape.m_size,
            n: shape.n_size,
            k: shape.k_size,
            input: dtype(shape.ab_type),
            accumulator: dtype(shape.cr_type),
        })
        .collect()
}

fn kind_of(device_type: wgpu::DeviceType) -> GpuKind {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => GpuKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => GpuKind::Integrated,
        wgpu::DeviceType::Cpu => GpuKind::Software,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => GpuKind::Other,
    }
}

fn backend_of(backend: wgpu::Backend) -> GpuBackend {
    match backend {
        wgpu::Backend::Noop => GpuBackend::None,
        wgpu::Backend::Vulkan => GpuBackend::Vulkan,
        wgpu::Backend::Metal => GpuBackend::Metal,
        wgpu::Backend::Dx12 => GpuBackend::Dx12,
        wgpu::Backend::Gl => GpuBackend::Gl,
        wgpu::Backend::BrowserWebGpu => GpuBackend::BrowserWebGpu,
    }
}
