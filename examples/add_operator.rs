//! A new operator: its meaning is written once, as a loop nest, and runs on every device with a schedule that nobody wrote.
//!
//!     cargo run --release --example add_operator
//!
//! The operator here divides each row by its largest magnitude and scales it. To make one known to ONNX models too, follow
//! `docs/recipes`: an operator that existing blocks express is a row of `src/onnx/rows`.
use paisley::compiler::{Device, compile_nest};
use paisley::expr::{BinaryOp, UnaryOp};
use paisley::loopir::{Combiner, Nest, NestBuilder, Role, Scope};
use paisley::tensor::{Tolerance, compare};
use paisley::{DType, DeviceChoice, DeviceOptions, OpenDevice, Session, Tensor, interp};

/// `y[i, j] = x[i, j] / max(max over k of |x[i, k]|, least) * scale[j]`.
fn largest_to_one(rows: usize, columns: usize, least: f64) -> Nest {
    let mut n = NestBuilder::new("largest_to_one");
    let x = n.param(Role::Input, "x", DType::F32, &[rows, columns]);
    let scale = n.param(Role::Constant, "scale", DType::F32, &[columns]);
    let y = n.param(Role::Output, "y", DType::F32, &[rows, columns]);
    let i = n.open("i", rows);

    let largest = n.alloc(Scope::Register, "largest", DType::F32, &[]);
    let least = n.pool().constant(least, DType::F32);
    n.store("init", largest, &[], least);
    let k = n.open("k", columns);
    let element = n.pool().load(x, &[i, k]);
    let magnitude = n.pool().unary(UnaryOp::Abs, element);
    n.update("update", largest, &[], Combiner::Max, magnitude);
    n.close(1);

    let j = n.open("j", columns);
    let (element, factor) = (n.pool().load(x, &[i, j]), n.pool().load(scale, &[j]));
    let (scaled, largest) = (n.pool().mul(element, factor), n.pool().load(largest, &[]));
    let value = n.pool().binary(BinaryOp::Div, scaled, largest);
    n.store("normalise", y, &[i, j], value);
    n.close(2);
    n.finish()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nest = largest_to_one(32, 256, 1e-6);
    println!("{nest}");
    let x = Tensor::from_fn(DType::F32, &[32, 256], |i| (i % 11) as f64 - 5.0);
    let scale = Tensor::from_fn(DType::F32, &[256], |i| 1.0 + i as f64 / 256.0);
    let expected = interp::run(&nest, &[x.clone(), scale.clone()])?;

    for choice in [DeviceChoice::Reference, DeviceChoice::Cpu, DeviceChoice::Gpu(0)] {
        let device = match OpenDevice::open(choice, &DeviceOptions::new(None)) {
            Ok(device) => device,
            Err(error) => {
                println!("{choice}: {error}");
                continue;
            }
        };
        let plan = compile_nest(&nest, std::slice::from_ref(&scale), None, &Device::from(&device))?;
        let trace = plan.kernels.iter().map(|kernel| kernel.trace.to_string()).collect::<String>();
        let mut session = Session::new(plan, &device)?;
        let outputs = session.run(&[("x", x.clone())])?;
        let comparison = compare(&outputs[0].1, &expected[0], Tolerance::KERNEL_F32);
        println!("{choice}: {}, largest difference {:e}\n{trace}", device.name(), comparison.max_absolute);
        assert!(comparison.within, "every device should compute what the nest says");
    }
    Ok(())
}
