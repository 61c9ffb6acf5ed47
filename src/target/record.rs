//! The stored form of a target: JSON, versioned, apart from the types the compiler works with.

use super::{
    CooperativeMatrix, CpuIsa, CpuTarget, GpuBackend, GpuFeatures, GpuKind, GpuLimits, GpuTarget, Rates,
    SubgroupSizes, Target,
};
use crate::tensor::DType;
use serde::{Deserialize, Serialize};

/// The version this build writes; it reads every version up to it.
const VERSION: u32 = 1;

/// A saved target profile. Convert with `TargetRecord::from(&target)` and [`TargetRecord::to_target`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    version: u32,
    device: DeviceRecord,
}

/// Why a profile could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or not of the form of a profile.
    #[error("the target profile is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer build.
    #[error("the target profile has version {found}, this build reads up to {VERSION}; use a newer build")]
    Version {
        /// The version the profile states.
        found: u32,
    },
    /// A name that this build does not know.
    #[error("the target profile names an unknown {what} `{name}`")]
    UnknownName {
        /// What the name should denote.
        what: &'static str,
        /// The name.
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DeviceRecord {
    Cpu(CpuRecord),
    Gpu(GpuRecord),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RatesRecord {
    flop_per_second: f64,
    bytes_per_second: f64,
    launch_ns: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CpuRecord {
    name: String,
    isa: String,
    cores: usize,
    threads: usize,
    vector_lanes_f32: usize,
    l1_bytes: usize,
    l2_bytes: usize,
    l3_bytes: usize,
    rates: RatesRecord,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct GpuRecord {
    name: String,
    vendor: u32,
    backend: String,
    driver: String,
    kind: String,
    limits: LimitsRecord,
    features: FeaturesRecord,
    rates: RatesRecord,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LimitsRecord {
    max_storage_buffer_binding_bytes: u64,
    max_buffer_bytes: u64,
    max_workgroups_per_dimension: u32,
    max_invocations_per_workgroup: u32,
    max_workgroup_size: [u32; 3],
    max_workgroup_memory_bytes: u32,
    max_storage_buffers_per_stage: u32,
    storage_offset_alignment_bytes: u32,
    max_loop_iterations: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FeaturesRecord {
    #[serde(default)]
    f16: bool,
    #[serde(default)]
    i64: bool,
    #[serde(default)]
    f32_atomics: bool,
    #[serde(default)]
    subgroup_sizes: Option<[u32; 2]>,
    #[serde(default)]
    subgroup_barrier: bool,
    #[serde(default)]
    timestamps: bool,
    #[serde(default)]
    packed_int8_dot: bool,
    #[serde(default)]
    cooperative_matrices: Vec<MatrixRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct MatrixRecord {
    m: u32,
    n: u32,
    k: u32,
    input: String,
    accumulator: String,
}

impl TargetRecord {
    /// The record as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a record of numbers and strings should serialise")
    }

    /// The record in JSON text.
    ///
    /// # Errors
    /// When the text is malformed or of a newer version.
    pub fn from_json(text: &str) -> Result<TargetRecord, RecordError> {
        #[derive(Deserialize)]
        struct Header {
            version: u32,
        }
        let Header { version } = serde_json::from_str(text)?;
        if version > VERSION {
            return Err(RecordError::Version { found: version });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The target recorded.
    ///
    /// # Errors
    /// When a name in the record is unknown.
    pub fn to_target(&self) -> Result<Target, RecordError> {
        Ok(match &self.device {
            DeviceRecord::Cpu(cpu) => Target::Cpu(cpu.to_target()?),
            DeviceRecord::Gpu(gpu) => Target::Gpu(gpu.to_target()?),
        })
    }
}

impl From<&Target> for TargetRecord {
    fn from(target: &Target) -> TargetRecord {
        let device = match target {
            Target::Cpu(cpu) => DeviceRecord::Cpu(cpu.into()),
            Target::Gpu(gpu) => DeviceRecord::Gpu(gpu.into()),
        };
        TargetRecord { version: VERSION, device }
    }
}

/// The element of `all` that `name_of` gives `name`.
fn named<T: Copy>(
    what: &'static str,
    name: &str,
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
) -> Result<T, RecordError> {
    let unknown = || RecordError::UnknownName { what, name: name.to_string() };
    all.iter().copied().find(|&item| name_of(item) == name).ok_or_else(unknown)
}

impl From<Rates> for RatesRecord {
    fn from(rates: Rates) -> RatesRecord {
        let Rates { flop_per_second, bytes_per_second, launch_ns } = rates;
        RatesRecord { flop_per_second, bytes_per_second, launch_ns }
    }
}

impl RatesRecord {
    fn to_rates(&self) -> Rates {
        let RatesRecord { flop_per_second, bytes_per_second, launch_ns } = *self;
        Rates { flop_per_second, bytes_per_second, launch_ns }
    }
}

impl From<&CpuTarget> for CpuRecord {
    fn from(target: &CpuTarget) -> CpuRecord {
        let CpuTarget { name, isa, cores, threads, vector_lanes_f32, l1_bytes, l2_bytes, l3_bytes, rates } =
            target;
        CpuRecord {
            name: name.clone(),
            isa: isa.name().to_string(),
            cores: *cores,
            threads: *threads,
            vector_lanes_f32: *vector_lanes_f32,
            l1_bytes: *l1_bytes,
            l2_bytes: *l2_bytes,
            l3_bytes: *l3_bytes,
            rates: (*rates).into(),
        }
    }
}

impl CpuRecord {
    fn to_target(&self) -> Result<CpuTarget, RecordError> {
        Ok(CpuTarget {
            name: self.name.clone(),
            isa: named("instruction set", &self.isa, &CpuIsa::ALL, CpuIsa::name)?,
            cores: self.cores,
            threads: self.threads,
            vector_lanes_f32: self.vector_lanes_f32,
            l1_bytes: self.l1_bytes,
            l2_bytes: self.l2_bytes,
            l3_bytes: self.l3_bytes,
            rates: self.rates.to_rates(),
        })
    }
}

impl From<&GpuTarget> for GpuRecord {
    fn from(target: &GpuTarget) -> GpuRecord {
        let GpuTarget { name, vendor, backend, driver, kind, limits, features, rates } = target;
        GpuRecord {
            name: name.clone(),
            vendor: *vendor,
            backend: backend.name().to_string(),
            driver: driver.clone(),
            kind: kind.name().to_string(),
            limits: limits.into(),
            features: features.into(),
            rates: (*rates).into(),
        }
    }
}

impl GpuRecord {
    fn to_target(&self) -> Result<GpuTarget, RecordError> {
        let backends = [
            GpuBackend::Vulkan,
            GpuBackend::Metal,
            GpuBackend::Dx12,
            GpuBackend::Gl,
            GpuBackend::BrowserWebGpu,
            GpuBackend::None,
        ];
        let kinds = [GpuKind::Discrete, GpuKind::Integrated, GpuKind::Software, GpuKind::Other];
        Ok(GpuTarget {
            name: self.name.clone(),
            vendor: self.vendor,
            backend: named("backend", &self.backend, &backends, GpuBackend::name)?,
            driver: self.driver.clone(),
            kind: named("kind of adapter", &self.kind, &kinds, GpuKind::name)?,
            limits: self.limits.to_limits(),
            features: self.features.to_features()?,
            rates: self.rates.to_rates(),
        })
    }
}

impl From<&GpuLimits> for LimitsRecord {
    fn from(limits: &GpuLimits) -> LimitsRecord {
        let GpuLimits {
            max_storage_buffer_binding_bytes,
            max_buffer_bytes,
            max_workgroups_per_dimension,
            max_invocations_per_workgroup,
            max_workgroup_size,
            max_workgroup_memory_bytes,
            max_storage_buffers_per_stage,
            storage_offset_alignment_bytes,
            max_loop_iterations,
        } = *limits;
        LimitsRecord {
            max_storage_buffer_binding_bytes,
            max_buffer_bytes,
            max_workgroups_per_dimension,
            max_invocations_per_workgroup,
            max_workgroup_size,
            max_workgroup_memory_bytes,
            max_storage_buffers_per_stage,
            storage_offset_alignment_bytes,
            max_loop_iterations,
        }
    }
}

impl LimitsRecord {
    fn to_limits(&self) -> GpuLimits {
        GpuLimits {
            max_storage_buffer_binding_bytes: self.max_storage_buffer_binding_bytes,
            max_buffer_bytes: self.max_buffer_bytes,
            max_workgroups_per_dimension: self.max_workgroups_per_dimension,
            max_invocations_per_workgroup: self.max_invocations_per_workgroup,
            max_workgroup_size: self.max_workgroup_size,
            max_workgroup_memory_bytes: self.max_workgroup_memory_bytes,
            max_storage_buffers_per_stage: self.max_storage_buffers_per_stage,
            storage_offset_alignment_bytes: self.storage_offset_alignment_bytes,
            max_loop_iterations: self.max_loop_iterations,
        }
    }
}

impl From<&GpuFeatures> for FeaturesRecord {
    fn from(features: &GpuFeatures) -> FeaturesRecord {
        let GpuFeatures {
            f16,
            i64,
            f32_atomics,
            subgroups,
            subgroup_barrier,
            timestamps,
            packed_int8_dot,
            cooperative_matrices,
        } = features;
        FeaturesRecord {
            f16: *f16,
            i64: *i64,
            f32_atomics: *f32_atomics,
            subgroup_sizes: subgroups.map(|SubgroupSizes { min, max }| [min, max]),
            subgroup_barrier: *subgroup_barrier,
            timestamps: *timestamps,
            packed_int8_dot: *packed_int8_dot,
            cooperative_matrices: cooperative_matrices.iter().map(MatrixRecord::from).collect(),
        }
    }
}

impl FeaturesRecord {
    fn to_features(&self) -> Result<GpuFeatures, RecordError> {
        Ok(GpuFeatures {
            f16: self.f16,
            i64: self.i64,
            f32_atomics: self.f32_atomics,
            subgroups: self.subgroup_sizes.map(|[min, max]| SubgroupSizes { min, max }),
            subgroup_barrier: self.subgroup_barrier,
            timestamps: self.timestamps,
            packed_int8_dot: self.packed_int8_dot,
            cooperative_matrices: self
                .cooperative_matrices
                .iter()
                .map(MatrixRecord::to_matrix)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&CooperativeMatrix> for MatrixRecord {
    fn from(matrix: &CooperativeMatrix) -> MatrixRecord {
        let CooperativeMatrix { m, n, k, input, accumulator } = *matrix;
        MatrixRecord { m, n, k, input: input.name().to_string(), accumulator: accumulator.name().to_string() }
    }
}

impl MatrixRecord {
    fn to_matrix(&self) -> Result<CooperativeMatrix, RecordError> {
        Ok(CooperativeMatrix {
            m: self.m,
            n: self.n,
            k: self.k,
            input: named("element type", &self.input, &DType::ALL, DType::name)?,
            accumulator: named("element type", &self.accumulator, &DType::ALL, DType::name)?,
        })
    }
}
