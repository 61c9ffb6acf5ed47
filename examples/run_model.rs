//! Loads a model, runs it on the best device there is, and says what ran where:
//!
//!     cargo run --release --example run_model
use paisley::{Bindings, DType, DeviceChoice, DeviceOptions, Model, OpenDevice, Tensor, load};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bytes = std::fs::read("examples/models/resnet18-w16.onnx")?;
    let model = Model::from_bytes(bytes.into(), paisley::onnx::NoFolder)?;
    let device = OpenDevice::open(DeviceChoice::Auto, &DeviceOptions::new(None))?;
    let mut session = load(&model, &Bindings::new().dim("batch", 1), &device)?;
    let image = Tensor::zeros(DType::F32, &[1, 3, 32, 32]);
    for (name, output) in session.run(&[("image", image)])? {
        println!("{name}: {output:?}");
    }
    println!("{}: {}", device.name(), session.placement());
    Ok(())
}
