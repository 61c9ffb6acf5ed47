//! What several subjects share: the devices, files of arrays, and notes that show in every test run.

use paisley::base::Random;
use paisley::compiler::{self, Timings};
use paisley::graph::Graph;
use paisley::loopir::Nest;
use paisley::plan::Plan;
use paisley::runtime::cpu::CpuExecutor;
use paisley::runtime::gpu::{Gpu, GpuError, GpuExecutor, GpuOptions};
use paisley::runtime::{cpu, reference};
use paisley::schedule::Trace;
use paisley::target::{CpuIsa, CpuTarget};
use paisley::tensor::{DType, Element, Tensor, Tolerance, compare};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Writes a line that the test harness does not capture: what was skipped and what was counted is seen in green runs too.
pub(crate) fn note(text: impl Display) {
    // A closed terminal is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Where a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Device {
    Reference,
    Cpu,
    Gpu,
}

impl Device {
    pub(crate) const ALL: [Device; 3] = [Device::Reference, Device::Cpu, Device::Gpu];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Device::Reference => "reference",
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        }
    }

    /// Whether the machine has it; says loudly where it has not.
    pub(crate) fn is_there(self) -> bool {
        self != Device::Gpu || gpu().is_some()
    }

    fn target(self) -> Result<compiler::Device, String> {
        Ok(match self {
            Device::Reference => compiler::Device::Reference,
            Device::Cpu => compiler::Device::Cpu(processor()),
            Device::Gpu => {
                let gpu = gpu().ok_or("there is no adapter")?;
                compiler::Device::Gpu(Box::new(gpu.target().clone()), processor())
            }
        })
    }

    /// `graph` compiled for the device.
    pub(crate) fn compile(self, graph: &Graph) -> Result<Plan, String> {
        let plan = compiler::compile(graph, &self.target()?, &mut Timings::default());
        plan.map_err(|error| error.to_string())
    }

    /// `nest`, scheduled by `trace`, compiled for the device.
    pub(crate) fn compile_nest(
        self,
        nest: &Nest,
        constants: &[Tensor],
        trace: &Trace,
    ) -> Result<Plan, String> {
        let plan = compiler::compile_nest(nest, constants, Some(trace), &self.target()?);
        plan.map_err(|error| error.to_string())
    }

    /// The outputs of a plan compiled for the device.
    pub(crate) fn run(self, plan: &Plan, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let text = |error: paisley::runtime::RuntimeError| error.to_string();
        let run = match self {
            Device::Reference => reference::run(plan, inputs),
            Device::Cpu => CpuExecutor::new(&mut plan.clone(), &processor())
                .and_then(|mut executor| executor.run(plan, inputs, false)),
            Device::Gpu => {
                let gpu = gpu().ok_or("there is no adapter")?;
                GpuExecutor::new(plan, gpu, &processor())
                    .and_then(|mut executor| executor.run(plan, inputs, false))
            }
        };
        run.map(|run| run.outputs).map_err(text)
    }
}

/// This processor, with two threads so that work is divided.
pub(crate) fn processor() -> CpuTarget {
    cpu::detect(Some(2))
}

/// The first adapter, opened once for all tests.
pub(crate) fn gpu() -> Option<&'static Gpu> {
    static GPU: LazyLock<Option<Gpu>> = LazyLock::new(|| match Gpu::open(0, GpuOptions::default()) {
        Ok(gpu) => Some(gpu),
        Err(GpuError::NoAdapter) => {
            note(
                "SKIPPED everything on a GPU: there is no adapter; scripts/setup-tests installs a software one",
            );
            None
        }
        Err(error) => panic!("the adapter does not open: {error}"),
    });
    GPU.as_ref()
}

/// The tensor in a `.npy` file, whose type and shape are known.
pub(crate) fn read_npy(path: &Path, dtype: DType, shape: &[usize]) -> Tensor {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let elements = bytes::Bytes::from(bytes).slice(10 + header_bytes..);
    Tensor::new(dtype, shape.to_vec(), elements).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The arrays of a `.npz` file by name.
pub(crate) fn read_npz(path: &Path) -> BTreeMap<String, Tensor> {
    fn tensor<T: Element + npyz::Deserialize>(array: npyz::NpyFile<impl std::io::Read>) -> Tensor {
        let shape: Vec<usize> = array.shape().iter().map(|&extent| extent as usize).collect();
        assert_eq!(array.order(), npyz::Order::C);
        Tensor::from_slice(&shape, &array.into_vec::<T>().unwrap())
    }
    let mut archive = npyz::npz::NpzArchive::open(path).unwrap();
    let names: Vec<String> = archive.array_names().map(str::to_string).collect();
    let read = |name: String| {
        let array = archive.by_name(&name).unwrap().unwrap();
        let tensor = match array.dtype().descr().trim_matches('\'') {
            "<f4" => tensor::<f32>(array),
            "<i8" => tensor::<i64>(array),
            other => panic!("{}: {name} is of type {other}", path.display()),
        };
        (name, tensor)
    };
    names.into_iter().map(read).collect()
}

/// Runs a network of one input on each instruction set of this machine and compares its outputs with those of the reference; the plans.
pub(crate) fn compare_with_reference(graph: &Graph, seed: u64) -> Vec<Plan> {
    let compile = |device: &compiler::Device| {
        compiler::compile(graph, device, &mut Timings::default())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{graph}"))
    };
    let mut rng = Random::new(seed);
    let fact = graph.fact(graph.inputs()[0]);
    let input = Tensor::from_fn(DType::F32, &fact.shape, |_| rng.unit() - 0.5);
    let expected = reference::run(&compile(&compiler::Device::Reference), std::slice::from_ref(&input))
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let mut plans = vec![];
    for isa in CpuIsa::ALL.into_iter().filter(|&isa| isa <= processor().isa) {
        let mut target = CpuTarget::preset(isa, 2);
        if seed % 2 == 1 {
            // So small that images of tests do not fit.
            target.l2_bytes = 1 << 14;
        }
        let mut plan = compile(&compiler::Device::Cpu(target.clone()));
        let run = CpuExecutor::new(&mut plan, &target)
            .and_then(|mut executor| executor.run(&plan, std::slice::from_ref(&input), false))
            .unwrap_or_else(|error| panic!("seed {seed}, {isa:?}: {error}"));
        for (output, (actual, expected)) in run.outputs.iter().zip(&expected.outputs).enumerate() {
            let comparison = compare(actual, expected, Tolerance::KERNEL_F32);
            assert!(comparison.within, "seed {seed}, {isa:?}, output {output}: {comparison:?}\n{graph}");
        }
        plans.push(plan);
    }
    plans
}
