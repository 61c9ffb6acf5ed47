//! An open device: error scopes, bounded waits, loss.

use super::adapter::{adapter_at, describe};
use super::memory::Transfers;
use super::pipeline::PipelineCache;
use super::{GpuError, GpuProgram, Memory, Step};
use crate::target::{GpuLimits, GpuTarget};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How a device is opened and used.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// The longest that any call waits for the device.
    pub timeout: Duration,
    /// Limits to stay within even where the adapter allows more.
    pub limits: Option<GpuLimits>,
    /// Ask for cooperative matrices where the adapter has them; experimental in the driver library.
    pub cooperative_matrices: bool,
    /// The most steps of a program put into one command buffer.
    pub max_steps_per_command_buffer: usize,
}

impl Default for GpuOptions {
    fn default() -> Self {
        GpuOptions {
            timeout: Duration::from_secs(60),
            limits: None,
            cooperative_matrices: false,
            max_steps_per_command_buffer: 256,
        }
    }
}

/// An open graphics device. Cloning shares it; it closes when the last clone and all programs are gone.
#[derive(Clone)]
pub struct Gpu {
    pub(super) shared: Arc<Shared>,
}

/// What clones of a [`Gpu`] and its programs share.
pub(super) struct Shared {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) target: GpuTarget,
    pub(super) options: GpuOptions,
    pub(super) pipelines: PipelineCache,
    pub(super) transfers: Mutex<Transfers>,
    /// Why the device is gone, once it is.
    lost: Arc<OnceLock<String>>,
    /// The first error that no scope caught, until a wait reports it.
    uncaptured: Arc<Mutex<Option<GpuError>>>,
}

impl Gpu {
    /// Opens the adapter of number `index` in [`adapters`](super::adapters) with all its limits and every feature that
    /// kernels may use.
    ///
    /// # Errors
    /// When there is no such adapter or its driver gives no device.
    pub fn open(index: usize, options: GpuOptions) -> Result<Gpu, GpuError> {
        let adapter = adapter_at(index)?;
        let features = wanted_features(&options) & adapter.features();
        let limits = wanted_limits(&adapter, &options);
        let experimental = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("paisley"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: experimental_features(experimental),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| GpuError::Open { adapter: adapter.get_info().name, text: error.to_string() })?;

        let lost = Arc::new(OnceLock::new());
        let lost_setter = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| {
            let text = if message.is_empty() { format!("{reason:?}") } else { message };
            // The first reason is the cause; later ones follow from it.
            let _ = lost_setter.set(text);
        });
        let uncaptured = Arc::new(Mutex::new(None));
        let uncaptured_setter = Arc::clone(&uncaptured);
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&uncaptured_setter).get_or_insert(translate("a device operation", error));
        }));

        let target = describe(&adapter, &limits, features);
        Ok(Gpu {
            shared: Arc::new(Shared {
                device,
                queue,
                target,
                options,
                pipelines: PipelineCache::default(),
                transfers: Mutex::new(Transfers::default()),
                lost,
                uncaptured,
            }),
        })
    }

    /// What this device is, with the limits and features it was opened with.
    pub fn target(&self) -> &GpuTarget {
        &self.shared.target
    }

    /// Memory of `bytes` bytes, zeroed.
    ///
    /// # Errors
    /// When that is more than one buffer may have, or than there is.
    pub fn allocate(&self, bytes: u64) -> Result<Memory, GpuError> {
        Memory::allocate(&self.shared, bytes)
    }

    /// A program of `steps`, ready to run: limits checked, pipelines built in parallel, commands validated.
    ///
    /// # Errors
    /// The first problem of the first step that has one.
    pub fn prepare(&self, steps: &[Step]) -> Result<GpuProgram, GpuError> {
        GpuProgram::prepare(&self.shared, steps)
    }

    /// How many pipelines the programs alive hold; identical kernels share one.
    pub fn pipeline_count(&self) -> usize {
        self.shared.pipelines.len()
    }

    /// Gives the device up at once. This and every other use of it then fails with [`GpuError::DeviceLost`].
    pub fn destroy(&self) {
        self.shared.device.destroy();
    }
}

impl Shared {
    /// Runs `work` and reports what the driver library found wrong with it; `what` names it in errors.
    pub(super) fn checked<T>(
        &self,
        what: &str,
        work: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T, GpuError> {
        let filters =
            [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let value = work(&self.device);
        // Scopes are a stack, so all are popped, the innermost first.
        let errors: Vec<wgpu::Error> =
            scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
        self.alive()?;
        match errors.into_iter().next() {
            Some(error) => Err(translate(what, error)),
            None => Ok(value),
        }
    }

    /// Fails when the device is gone.
    pub(super) fn alive(&self) -> Result<(), GpuError> {
        // Loss is reported from within polls only.
        self.poll(wgpu::PollType::Poll).map(drop)
    }

    /// Waits for everything up to `submission`, or for all submitted work, but no longer than the time limit.
    pub(super) fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<(), GpuError> {
        let timeout = self.options.timeout;
        self.poll(wgpu::PollType::Wait { submission_index: submission, timeout: Some(timeout) })?;
        match lock(&self.uncaptured).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn poll(&self, kind: wgpu::PollType) -> Result<wgpu::PollStatus, GpuError> {
        // The library panics when the driver reports loss from within a wait.
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(kind)));
        if polled.is_err() {
            let _ = self.lost.set("the driver lost the device while it was waited for".to_string());
        }
        if let Some(reason) = self.lost.get() {
            return Err(GpuError::DeviceLost { reason: reason.clone() });
        }
        match polled {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(wgpu::PollError::Timeout)) => Err(GpuError::Timeout { after: self.options.timeout }),
            Ok(Err(error @ wgpu::PollError::WrongSubmissionIndex(..))) => {
                Err(GpuError::Internal { what: "waiting".to_string(), text: error.to_string() })
            }
            Err(_) => Err(GpuError::DeviceLost { reason: "unknown".to_string() }),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let idle = matches!(self.poll(wgpu::PollType::Poll), Ok(wgpu::PollStatus::QueueEmpty));
        if !idle {
            // Releasing a queue waits for its work without limit; a device that hangs must not hang its owner.
            let (device, queue) = (self.device.clone(), self.queue.clone());
            let release = move || drop((queue, device));
            // Without a thread the release happens here after all.
            let _ = std::thread::Builder::new().name("paisley-gpu-release".to_string()).spawn(release);
        }
    }
}

/// The content of `mutex`, also after a panic of another holder: every holder leaves it consistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn translate(what: &str, error: wgpu::Error) -> GpuError {
    let what = what.to_string();
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { what },
        wgpu::Error::Validation { description, .. } => GpuError::Validation { what, text: description },
        wgpu::Error::Internal { description, .. } => GpuError::Internal { what, text: description },
    }
}

fn wanted_features(options: &GpuOptions) -> wgpu::Features {
    let mut features = wgpu::Features::SHADER_F16
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::SHADER_FLOAT32_ATOMIC
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SUBGROUP_BARRIER
        | wgpu::Features::TIMESTAMP_QUERY;
    if options.cooperative_matrices {
        features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    }
    features
}

fn wanted_limits(adapter: &wgpu::Adapter, options: &GpuOptions) -> wgpu::Limits {
    let all = adapter.limits();
    let Some(asked) = &options.limits else { return all };
    let limits = describe(adapter, &all, wgpu::Features::empty()).limits.lowered_to(asked);
    let [size_x, size_y, size_z] = limits.max_workgroup_size;
    wgpu::Limits {
        max_storage_buffer_binding_size: limits.max_storage_buffer_binding_bytes,
        max_buffer_size: limits.max_buffer_bytes,
        max_compute_workgroups_per_dimension: limits.max_workgroups_per_dimension,
        max_compute_invocations_per_workgroup: limits.max_invocations_per_workgroup,
        max_compute_workgroup_size_x: size_x,
        max_compute_workgroup_size_y: size_y,
        max_compute_workgroup_size_z: size_z,
        max_compute_workgroup_storage_size: limits.max_workgroup_memory_bytes,
        max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_stage,
        min_storage_buffer_offset_alignment: limits.storage_offset_alignment_bytes,
        ..all
    }
}

#[expect(unsafe_code, reason = "the library asks for an acknowledgement, in the form of an unsafe function")]
fn experimental_features(wanted: bool) -> wgpu::ExperimentalFeatures {
    if wanted {
        // SAFETY: asked for by the caller through `GpuOptions::cooperative_matrices`, which says that the feature is
        // experimental; the kernels that use it are validated by naga like all others.
        unsafe { wgpu::ExperimentalFeatures::enabled() }
    } else {
        wgpu::ExperimentalFeatures::disabled()
    }
}
