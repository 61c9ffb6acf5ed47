//! A new operator: its meaning is written once, as a loop nest, and runs on every device with a schedule that nobody wrote.
//!
//!     cargo run --release --example add_operator
//!
//! The operator here divides each row by the root of its mean square and scales it (RMSNorm; Zhang and Sennrich, 2019). To make one
//! known to ONNX models too, follow `docs/recipes`: an operator that existing blocks express is a row of `src/onnx/rows`.
use paisley::compiler::{Device, compile_nest};
use paisley::expr::UnaryOp;
use paisley::loopir::{Combiner, Nest, NestBuilder, Role, Scope};
use paisley::tensor::{Tolerance, compare};
use paisley::{DType, DeviceChoice, DeviceOptions, OpenDevice, Session, Tensor, interp};

/// `y[i, j] = x[i, j] / sqrt(mean over j of x[i, j]^2 + epsilon) * scale[j]`.
fn rms_norm(rows: usize, columns: usize, epsilon: f64) -> Nest {
    let mut n = NestBuilder::new("rms_norm");
    let x = n.param(Role::Input, "x", DType::F32, &[rows, columns]);
    let scale = n.param(Role::Constant, "scale", DType::F32, &[columns]);
    let y = n.param(Role::Output, "y", DType::F32, &[rows, columns]);
    let i = n.open("i", rows);

    let sum = n.alloc(Scope::Register, "sum", DType::F32, &[]);
    let zero = n.pool().constant(0.0, DType::F32);
    n.store("init", sum, &[], zero);
    let k = n.open("k", columns);
    let element = n.pool().load(x, &[i, k]);
    let square = n.pool().mul(element, element);
    n.update("update", sum, &[], Combiner::Add, square);
    n.close(1);

    let j = n.open("j", columns);
    let (sum, epsilon) = (n.pool().load(sum, &[]), n.pool().constant(epsilon, DType::F32));
    let part = n.pool().constant(1.0 / columns as f64, DType::F32);
    let mean = n.pool().mul(sum, part);
    let mean = n.pool().add(mean, epsilon);
    let root = n.pool().unary(UnaryOp::Sqrt, mean);
    let (element, factor) = (n.pool().load(x, &[i, j]), n.pool().load(scale, &[j]));
    let scaled = n.pool().mul(element, factor);
    let value = n.pool().binary(paisley::expr::BinaryOp::Div, scaled, root);
    n.store("normalise", y, &[i, j], value);
    n.close(2);
    n.finish()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nest = rms_norm(32, 256, 1e-6);
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
