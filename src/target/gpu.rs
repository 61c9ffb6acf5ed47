//! Graphics adapters.

use super::Rates;
use crate::tensor::DType;

/// The interface an adapter is driven through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GpuBackend {
    /// Vulkan.
    Vulkan,
    /// Apple's Metal.
    Metal,
    /// Direct3D 12.
    Dx12,
    /// OpenGL or OpenGL ES.
    Gl,
    /// WebGPU of a browser.
    BrowserWebGpu,
    /// No device behind it: a preset, or a stub.
    None,
}

impl GpuBackend {
    /// The name used in text forms.
    pub fn name(self) -> &'static str {
        match self {
            GpuBackend::Vulkan => "vulkan",
            GpuBackend::Metal => "metal",
            GpuBackend::Dx12 => "dx12",
            GpuBackend::Gl => "gl",
            GpuBackend::BrowserWebGpu => "webgpu",
            GpuBackend::None => "none",
        }
    }
}

/// What sort of hardware executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GpuKind {
    /// A graphics card with its own memory.
    Discrete,
    /// A graphics unit that shares the processor's memory.
    Integrated,
    /// Shaders executed on the processor; invocations of a workgroup run one after another in vector lanes.
    Software,
    /// Virtual or unknown.
    Other,
}

impl GpuKind {
    /// The name used in text forms.
    pub fn name(self) -> &'static str {
        match self {
            GpuKind::Discrete => "discrete",
            GpuKind::Integrated => "integrated",
            GpuKind::Software => "software",
            GpuKind::Other => "other",
        }
    }
}

/// What one dispatch may use. A kernel within these is accepted by the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuLimits {
    /// Largest range of a buffer one binding may cover.
    pub max_storage_buffer_binding_bytes: u64,
    /// Largest buffer.
    pub max_buffer_bytes: u64,
    /// Most workgroups along each of the grid's dimensions.
    pub max_workgroups_per_dimension: u32,
    /// Most invocations in a workgroup.
    pub max_invocations_per_workgroup: u32,
    /// Most invocations in a workgroup along x, y and z.
    pub max_workgroup_size: [u32; 3],
    /// Most bytes of workgroup memory.
    pub max_workgroup_memory_bytes: u32,
    /// Most storage buffers a kernel may bind.
    pub max_storage_buffers_per_stage: u32,
    /// What the offset of a binding must be a multiple of.
    pub storage_offset_alignment_bytes: u32,
    /// Most loop iterations one invocation may execute, all its loops together. An adapter that has such a limit leaves
    /// its loops silently when it is reached, so a kernel that exceeds it computes wrong results.
    pub max_loop_iterations: u32,
}

impl GpuLimits {
    /// The defaults of WebGPU, which every conforming adapter offers.
    pub const WEBGPU_DEFAULT: GpuLimits = GpuLimits {
        max_storage_buffer_binding_bytes: 128 << 20,
        max_buffer_bytes: 256 << 20,
        max_workgroups_per_dimension: 65535,
        max_invocations_per_workgroup: 256,
        max_workgroup_size: [256, 256, 64],
        max_workgroup_memory_bytes: 16 << 10,
        max_storage_buffers_per_stage: 8,
        storage_offset_alignment_bytes: 256,
        max_loop_iterations: u32::MAX,
    };

    /// [`max_loop_iterations`](Self::max_loop_iterations) of Mesa's llvmpipe: `LP_MAX_TGSI_LOOP_ITERATIONS` less one, as
    /// the count is decremented before it is tested.
    pub const LLVMPIPE_LOOP_ITERATIONS: u32 = 65534;

    /// The stricter of the two limits, field by field.
    pub fn lowered_to(&self, other: &GpuLimits) -> GpuLimits {
        let size = |axis: usize| self.max_workgroup_size[axis].min(other.max_workgroup_size[axis]);
        GpuLimits {
            max_storage_buffer_binding_bytes: self
                .max_storage_buffer_binding_bytes
                .min(other.max_storage_buffer_binding_bytes),
            max_buffer_bytes: self.max_buffer_bytes.min(other.max_buffer_bytes),
            max_workgroups_per_dimension: self
                .max_workgroups_per_dimension
                .min(other.max_workgroups_per_dimension),
            max_invocations_per_workgroup: self
                .max_invocations_per_workgroup
                .min(other.max_invocations_per_workgroup),
            max_workgroup_size: [size(0), size(1), size(2)],
            max_workgroup_memory_bytes: self.max_workgroup_memory_bytes.min(other.max_workgroup_memory_bytes),
            max_storage_buffers_per_stage: self
                .max_storage_buffers_per_stage
                .min(other.max_storage_buffers_per_stage),
            storage_offset_alignment_bytes: self
                .storage_offset_alignment_bytes
                .max(other.storage_offset_alignment_bytes),
            max_loop_iterations: self.max_loop_iterations.min(other.max_loop_iterations),
        }
    }
}

/// The range of subgroup sizes a pipeline may get; it cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubgroupSizes {
    /// Fewest invocations in a subgroup.
    pub min: u32,
    /// Most invocations in a subgroup.
    pub max: u32,
}

/// A matrix product a subgroup can execute as one operation: `C[m, n] += A[m, k] * B[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooperativeMatrix {
    /// Rows of A and C.
    pub m: u32,
    /// Columns of B and C.
    pub n: u32,
    /// Columns of A and rows of B.
    pub k: u32,
    /// Element type of A and B.
    pub input: DType,
    /// Element type of C.
    pub accumulator: DType,
}

/// What a kernel may use beyond the core of WGSL; each has a fallback.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GpuFeatures {
    /// `f16` in shaders and storage buffers.
    pub f16: bool,
    /// 64-bit integers.
    pub i64: bool,
    /// Atomic addition on f32.
    pub f32_atomics: bool,
    /// Subgroup operations, and the sizes of subgroups.
    pub subgroups: Option<SubgroupSizes>,
    /// Subgroup barriers.
    pub subgroup_barrier: bool,
    /// Timestamps at the begin and end of passes.
    pub timestamps: bool,
    /// `dot4I8Packed` and its kin; whether the hardware has an instruction for it is not known.
    pub packed_int8_dot: bool,
    /// Matrix products of subgroups.
    pub cooperative_matrices: Vec<CooperativeMatrix>,
}

/// A graphics adapter: who it is, what it allows, what it can do, how fast it may be.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuTarget {
    /// The adapter's name.
    pub name: String,
    /// The vendor's number, a PCI id where the low 16 bits say so.
    pub vendor: u32,
    /// The interface.
    pub backend: GpuBackend,
    /// The driver's name and version.
    pub driver: String,
    /// The sort of hardware.
    pub kind: GpuKind,
    /// Limits.
    pub limits: GpuLimits,
    /// Features.
    pub features: GpuFeatures,
    /// Upper bounds on speed.
    pub rates: Rates,
}

impl GpuTarget {
    /// Rates to assume for an adapter of `kind` before any measurement.
    pub fn estimated_rates(kind: GpuKind) -> Rates {
        match kind {
            GpuKind::Discrete => {
                Rates { flop_per_second: 10e12, bytes_per_second: 400e9, launch_ns: 5_000.0 }
            }
            GpuKind::Integrated => {
                Rates { flop_per_second: 1e12, bytes_per_second: 50e9, launch_ns: 10_000.0 }
            }
            GpuKind::Software => Rates { flop_per_second: 50e9, bytes_per_second: 10e9, launch_ns: 20_000.0 },
            GpuKind::Other => Rates { flop_per_second: 1e12, bytes_per_second: 50e9, launch_ns: 10_000.0 },
        }
    }

    /// An adapter with nothing but WebGPU's default limits: what runs here runs everywhere.
    pub fn webgpu_default() -> GpuTarget {
        GpuTarget {
            name: "webgpu-default".to_string(),
            vendor: 0,
            backend: GpuBackend::None,
            driver: String::new(),
            kind: GpuKind::Other,
            limits: GpuLimits::WEBGPU_DEFAULT,
            features: GpuFeatures::default(),
            rates: GpuTarget::estimated_rates(GpuKind::Other),
        }
    }

    /// Mesa's software adapter for Vulkan.
    pub fn llvmpipe() -> GpuTarget {
        GpuTarget {
            name: "llvmpipe".to_string(),
            vendor: 0x10005,
            backend: GpuBackend::Vulkan,
            driver: "llvmpipe".to_string(),
            kind: GpuKind::Software,
            limits: GpuLimits {
                max_buffer_bytes: (1 << 31) - 1,
                max_invocations_per_workgroup: 1024,
                max_workgroup_size: [1024, 1024, 1024],
                max_workgroup_memory_bytes: 32 << 10,
                max_storage_buffers_per_stage: 32,
                storage_offset_alignment_bytes: 16,
                max_loop_iterations: GpuLimits::LLVMPIPE_LOOP_ITERATIONS,
                ..GpuLimits::WEBGPU_DEFAULT
            },
            features: GpuFeatures {
                f16: true,
                i64: true,
                f32_atomics: true,
                subgroups: Some(SubgroupSizes { min: 8, max: 8 }),
                subgroup_barrier: true,
                timestamps: true,
                packed_int8_dot: true,
                cooperative_matrices: Vec::new(),
            },
            rates: GpuTarget::estimated_rates(GpuKind::Software),
        }
    }

    /// A graphics card as of the early 2020s, through Vulkan.
    pub fn discrete() -> GpuTarget {
        let matrix = |accumulator| CooperativeMatrix { m: 16, n: 16, k: 16, input: DType::F16, accumulator };
        GpuTarget {
            name: "discrete".to_string(),
            vendor: 0,
            backend: GpuBackend::Vulkan,
            driver: String::new(),
            kind: GpuKind::Discrete,
            limits: GpuLimits {
                max_storage_buffer_binding_bytes: (1 << 31) - 1,
                max_buffer_bytes: (1 << 31) - 1,
                max_invocations_per_workgroup: 1024,
                max_workgroup_size: [1024, 1024, 64],
                max_workgroup_memory_bytes: 48 << 10,
                max_storage_buffers_per_stage: 32,
                storage_offset_alignment_bytes: 16,
                ..GpuLimits::WEBGPU_DEFAULT
            },
            features: GpuFeatures {
                f16: true,
                i64: true,
                f32_atomics: true,
                subgroups: Some(SubgroupSizes { min: 32, max: 32 }),
                subgroup_barrier: true,
                timestamps: true,
                packed_int8_dot: true,
                cooperative_matrices: vec![matrix(DType::F16), matrix(DType::F32)],
            },
            rates: GpuTarget::estimated_rates(GpuKind::Discrete),
        }
    }

    /// A phone's graphics unit with little more than the defaults.
    pub fn mobile() -> GpuTarget {
        GpuTarget {
            name: "mobile".to_string(),
            vendor: 0,
            backend: GpuBackend::Vulkan,
            driver: String::new(),
            kind: GpuKind::Integrated,
            limits: GpuLimits {
                max_storage_buffers_per_stage: 4,
                max_invocations_per_workgroup: 128,
                max_workgroup_size: [128, 128, 64],
                ..GpuLimits::WEBGPU_DEFAULT
            },
            features: GpuFeatures { f16: true, ..GpuFeatures::default() },
            rates: Rates { flop_per_second: 200e9, bytes_per_second: 15e9, launch_ns: 30_000.0 },
        }
    }
}
