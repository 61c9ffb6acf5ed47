//! Small real models against the outputs of another engine, on every device.

use super::support::{Device, read_npz, repository};
use paisley::graph::Graph;
use paisley::onnx::{Bindings, Model, NoFolder};
use paisley::tensor::{Tensor, Tolerance, compare};
use std::collections::BTreeMap;

/// The largest difference allowed, of the largest value of an output.
const BOUND: f64 = 1e-4;

/// Model and golden arrays: inputs `in:NAME`, outputs `out:NAME`.
const MODELS: [(&str, &str); 4] = [
    ("examples/models/resnet18-w16.onnx", "tests/data/resnet18-w16.npz"),
    ("tests/data/mnist-cntk.onnx", "tests/data/mnist-cntk.npz"),
    ("tests/data/mtcnn-rnet.onnx", "tests/data/mtcnn-rnet.npz"),
    ("tests/data/mtcnn-onet.onnx", "tests/data/mtcnn-onet.npz"),
];

/// Each model's path, graph and golden arrays.
pub(crate) fn models() -> impl Iterator<Item = (&'static str, Graph, BTreeMap<String, Tensor>)> {
    MODELS.into_iter().map(|(model, golden)| {
        let arrays = read_npz(&repository(golden));
        let bytes = std::fs::read(repository(model)).unwrap();
        let read = Model::from_bytes(bytes.into(), NoFolder).unwrap();
        let bindings = read.inputs().iter().fold(Bindings::new(), |bindings, input| {
            bindings.shape(&input.name, arrays[&format!("in:{}", input.name)].shape())
        });
        let graph = read.graph(&bindings).unwrap_or_else(|error| panic!("{model}: {error}"));
        (model, graph, arrays)
    })
}

fn agrees_on(device: Device) {
    if !device.is_there() {
        return;
    }
    for (model, graph, arrays) in models() {
        let plan = device.compile(&graph).unwrap_or_else(|error| panic!("{model}: {error}"));
        let given = |id: &_| arrays[&format!("in:{}", plan.values[*id].name)].clone();
        let inputs: Vec<Tensor> = plan.inputs.iter().map(given).collect();
        let outputs = device.run(&plan, &inputs).unwrap_or_else(|error| panic!("{model}: {error}"));
        for (output, actual) in plan.outputs.iter().zip(&outputs) {
            let expected = &arrays[&format!("out:{}", output.name)];
            let comparison = compare(actual, expected, Tolerance::OfLargest(BOUND));
            assert!(comparison.within, "{model} on {}, {}: {comparison:?}", device.name(), output.name);
        }
    }
}

#[test]
fn real_models_agree_on_the_reference() {
    agrees_on(Device::Reference);
}

#[test]
fn real_models_agree_on_the_cpu() {
    agrees_on(Device::Cpu);
}

#[test]
fn real_models_agree_on_the_gpu() {
    agrees_on(Device::Gpu);
}
