//! Kernels and the pipelines built from them.

use super::GpuError;
use super::device::{Shared, lock};
use std::collections::HashMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

/// Enough for deeply nested shaders in the parser and in the driver's compiler.
const COMPILER_STACK_BYTES: usize = 16 << 20;

/// How a kernel accesses a storage buffer; must agree with its declaration in the shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A compute shader with its interface and grid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuKernel {
    /// The name, for errors and profiles.
    pub name: String,
    /// The module's text.
    pub wgsl: String,
    /// The entry point.
    pub entry: String,
    /// The storage buffers of group 0, by binding number.
    pub bindings: Vec<BindingKind>,
    /// Workgroups along x, y and z.
    pub workgroups: [u32; 3],
    /// Whether the driver adds its run-time checks. `false` states that a verifier has proved for this grid and for
    /// ranges of the bound sizes: every access in range, every loop finite, no division by zero.
    pub bounds_checked: bool,
    /// Whether workgroup memory is zeroed first. `false` states that the kernel writes before it reads.
    pub zero_workgroup_memory: bool,
}

/// A pipeline and the layout of its bind group.
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// What a pipeline depends on: everything of the kernel but name and grid.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    wgsl: String,
    entry: String,
    bindings: Vec<BindingKind>,
    bounds_checked: bool,
    zero_workgroup_memory: bool,
}

impl Key {
    fn of(kernel: &GpuKernel) -> Key {
        let GpuKernel {
            name: _,
            wgsl,
            entry,
            bindings,
            workgroups: _,
            bounds_checked,
            zero_workgroup_memory,
        } = kernel.clone();
        Key { wgsl, entry, bindings, bounds_checked, zero_workgroup_memory }
    }
}

/// The pipelines that programs of a device hold.
#[derive(Default)]
pub(super) struct PipelineCache {
    pipelines: Mutex<HashMap<Key, Weak<Pipeline>>>,
}

impl PipelineCache {
    /// How many are alive.
    pub(super) fn len(&self) -> usize {
        lock(&self.pipelines).values().filter(|pipeline| pipeline.strong_count() > 0).count()
    }

    /// The pipelines of `kernels`, in their order; what is not there is built on as many threads as there are cores.
    pub(super) fn get_or_build(
        &self,
        shared: &Shared,
        kernels: &[&GpuKernel],
    ) -> Result<Vec<Arc<Pipeline>>, GpuError> {
        let keys: Vec<Key> = kernels.iter().map(|kernel| Key::of(kernel)).collect();
        let mut ready: HashMap<&Key, Arc<Pipeline>> = HashMap::new();
        let mut missing: Vec<(&Key, &GpuKernel)> = Vec::new();
        {
            let cached = lock(&self.pipelines);
            for (key, kernel) in keys.iter().zip(kernels) {
                if ready.contains_key(key) || missing.iter().any(|(other, _)| *other == key) {
                    continue;
                }
                match cached.get(key).and_then(Weak::upgrade) {
                    Some(pipeline) => drop(ready.insert(key, pipeline)),
                    None => missing.push((key, kernel)),
                }
            }
        }
        // Unlocked meanwhile: two threads that miss the same kernel both build it, and the later one is kept.
        let built = build_all(shared, &missing)?;
        let mut cached = lock(&self.pipelines);
        cached.retain(|_, pipeline| pipeline.strong_count() > 0);
        for ((key, _), pipeline) in missing.into_iter().zip(built) {
            cached.insert(key.clone(), Arc::downgrade(&pipeline));
            ready.insert(key, pipeline);
        }
        Ok(keys.iter().map(|key| Arc::clone(&ready[key])).collect())
    }
}

fn build_all(shared: &Shared, kernels: &[(&Key, &GpuKernel)]) -> Result<Vec<Arc<Pipeline>>, GpuError> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Pipeline, GpuError>>>> =
        kernels.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, kernel)) = kernels.get(index) else { break };
            *lock(&results[index]) = Some(build(shared, kernel));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(kernels.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            let builder = thread::Builder::new().stack_size(COMPILER_STACK_BYTES);
            if builder.spawn_scoped(scope, work).is_err() {
                // Without another thread this one does the work.
                work();
            }
        }
    });
    results
        .into_iter()
        .map(|result| {
            let result = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            result.expect("every kernel should have been built").map(Arc::new)
        })
        .collect()
}

fn build(shared: &Shared, kernel: &GpuKernel) -> Result<Pipeline, GpuError> {
    let what = format!("kernel `{}`", kernel.name);
    // In three scopes, so that the first error is the cause and not what follows from it.
    let module = shared.checked(&what, |device| create_module(device, kernel))?;
    let layout = shared.checked(&what, |device| create_layout(device, kernel))?;
    let pipeline = shared.checked(&what, |device| {
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(&kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: kernel.zero_workgroup_memory,
            },
            cache: None,
        })
    })?;
    Ok(Pipeline { pipeline, layout })
}

fn create_layout(device: &wgpu::Device, kernel: &GpuKernel) -> wgpu::BindGroupLayout {
    let entries: Vec<wgpu::BindGroupLayoutEntry> = kernel
        .bindings
        .iter()
        .zip(0..)
        .map(|(kind, binding)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage {
                    read_only: match kind {
                        BindingKind::Read => true,
                        BindingKind::ReadWrite => false,
                    },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(&kernel.name),
        entries: &entries,
    })
}

#[expect(unsafe_code, reason = "leaving out run-time checks is sound only with the verifier's proof")]
fn create_module(device: &wgpu::Device, kernel: &GpuKernel) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(&kernel.name),
        source: wgpu::ShaderSource::Wgsl(kernel.wgsl.as_str().into()),
    };
    if kernel.bounds_checked {
        return device.create_shader_module(descriptor);
    }
    // SAFETY: `bounds_checked == false` states that the verifier proved all accesses in range, all loops finite and all
    // divisors non-zero for this grid; naga validates the module all the same, and no ray query or mesh shader exists.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
