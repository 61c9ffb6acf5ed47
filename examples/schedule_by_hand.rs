//! A matrix product with a schedule written by hand, for the CPU and for a GPU, against the interpreter:
//!
//!     cargo run --release --example schedule_by_hand
//!
//! A schedule is a list of steps, each of which rewrites the nest into one of the same meaning or refuses with a reason. What
//! each step does stands in its file in `src/schedule`.
use paisley::compiler::{Device, compile_nest};
use paisley::loopir::Nest;
use paisley::schedule::Trace;
use paisley::tensor::{Tolerance, compare};
use paisley::{DType, DeviceChoice, DeviceOptions, OpenDevice, Session, Tensor, interp};

/// The meaning: what the interpreter runs and every schedule keeps.
const NEST: &str = "
nest matmul_relu
  in    a: f32[128, 96]
  const b: f32[96, 64]
  out   y: f32[128, 64]
  for i in 128, j in 64:
    register acc: f32
    init: acc = 0.0
    for k in 96:
      update: acc += a[i, k] * b[k, j]
    store: y[i, j] = max(acc, 0.0)
";

/// Tiles of 8 rows over the threads; the columns of a tile side by side in vectors.
const FOR_CPU: &str = "
split i = [_, 8]
parallel i.0
vectorise j
";

/// Workgroups of 8 x 8 invocations, each with a tile of 4 x 4 in registers.
const FOR_GPU: &str = "
split i = [_, 8, 4]
split j = [_, 8, 4]
reorder i.0 j.0 i.1 j.1 i.2 j.2
bind i.0 workgroup.y
bind j.0 workgroup.x
bind i.1 invocation.y
bind j.1 invocation.x
stage_out acc at j.1 in register
reorder k i.2 j.2
unroll i.2
unroll j.2
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nest = Nest::parse(NEST)?;
    let a = Tensor::from_fn(DType::F32, &[128, 96], |i| (i % 7) as f64 - 3.0);
    let b = Tensor::from_fn(DType::F32, &[96, 64], |i| (i % 5) as f64 - 2.0);
    let expected = interp::run(&nest, &[a.clone(), b.clone()])?;

    for (choice, text) in [(DeviceChoice::Cpu, FOR_CPU), (DeviceChoice::Gpu(0), FOR_GPU)] {
        let device = match OpenDevice::open(choice, &DeviceOptions::new(None)) {
            Ok(device) => device,
            Err(error) => {
                println!("{choice}: {error}");
                continue;
            }
        };
        let trace = Trace::parse(text)?;
        let plan = compile_nest(&nest, std::slice::from_ref(&b), Some(&trace), &Device::from(&device))?;
        println!(
            "{choice}: {}\n{}",
            device.name(),
            plan.kernels.iter().map(|k| k.scheduled.to_string()).collect::<String>()
        );
        let mut session = Session::new(plan, &device)?;
        let outputs = session.run(&[("a", a.clone())])?;
        let comparison = compare(&outputs[0].1, &expected[0], Tolerance::KERNEL_F32);
        println!("largest difference from the interpreter: {:e}\n", comparison.max_absolute);
        assert!(comparison.within, "a schedule should keep the meaning");
    }
    Ok(())
}
