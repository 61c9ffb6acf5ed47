//! Whole models, CPU and GPU on the same inputs, with copies: small models of this repository, or those whose paths are in
//! `PAISLEY_BENCH_MODELS`, separated by colons (static shapes, or open leading dimensions, which become 1).

mod common;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use paisley::base::Random;
use paisley::onnx::{Dim, NoFolder};
use paisley::tensor::{Tolerance, compare};
use paisley::{Bindings, Model, OpenDevice, Session, Tensor, load};

const SMALL: &str = "tests/data/mnist-cntk.onnx:examples/models/resnet18-w16.onnx";

fn session(model: &Model, device: &OpenDevice) -> Session {
    let bindings = model.inputs().iter().fold(Bindings::new(), |bindings, input| {
        match input.dims.iter().flatten().next() {
            Some(Dim::Symbol(symbol)) => bindings.dim(symbol, 1),
            Some(Dim::Known(_) | Dim::Unknown) | None => bindings,
        }
    });
    load(model, &bindings, device).unwrap_or_else(|error| panic!("{error}"))
}

fn inputs(session: &Session) -> Vec<Tensor> {
    let plan = session.plan();
    let mut random = Random::new(1);
    let facts = plan.inputs.iter().map(|&value| plan.values[value].fact.clone());
    facts.map(|fact| Tensor::from_fn(fact.dtype, &fact.shape, |_| random.unit())).collect()
}

fn models(criterion: &mut Criterion) {
    let paths = std::env::var("PAISLEY_BENCH_MODELS").unwrap_or_else(|_| SMALL.to_string());
    let devices = common::devices();
    for path in paths.split(':') {
        let name = path.rsplit('/').next().unwrap_or(path);
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let model =
            Model::from_bytes(bytes.into(), NoFolder).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut group = criterion.benchmark_group("model");
        let mut expected: Option<Vec<Tensor>> = None;
        for (kind, device) in &devices {
            let mut session = session(&model, device);
            let inputs = inputs(&session);
            // A time of a wrong answer is none.
            let outputs = session.run_ordered(&inputs, false).expect("the model should run").outputs;
            for (a, b) in outputs.iter().zip(expected.get_or_insert_with(|| outputs.clone())) {
                assert!(compare(a, b, Tolerance::OfLargest(1e-3)).within, "{name} on {kind} differs");
            }
            group.bench_function(BenchmarkId::new(name, kind), |bencher| {
                bencher.iter(|| session.run_ordered(&inputs, false).expect("the model should run"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, models);
criterion_main!(benches);
