//! Single kernels, CPU and GPU on the same inputs, with copies; throughput in floating-point operations.

mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use paisley::base::Random;
use paisley::compiler::{Device, Timings, compile};
use paisley::graph::{Graph, Op};
use paisley::ops::{Conv, Fact, MatMul, Normalize, Softmax};
use paisley::tensor::{Tolerance, compare};
use paisley::{DType, Session, Tensor};

/// A graph of one operator on an input of the first shape and constants of the others.
fn graph(name: &str, op: impl Into<Op>, input: &[usize], constants: &[&[usize]]) -> Graph {
    let mut graph = Graph::new(name);
    let mut random = Random::new(1);
    let mut values = vec![graph.add_input("x", Fact::new(DType::F32, input))];
    for (i, shape) in constants.iter().enumerate() {
        let tensor = Tensor::from_fn(DType::F32, shape, |_| random.normal());
        values.push(graph.add_constant(&format!("c{i}"), tensor));
    }
    let outputs = graph.add_node(name, op, &values, &["y"]).expect("the shapes should fit");
    graph.add_output("y", outputs[0]);
    graph
}

fn convolution(stride: usize, pad: usize, groups: usize) -> Conv {
    Conv {
        strides: vec![stride; 2],
        dilations: vec![1; 2],
        pads: vec![(pad, pad); 2],
        groups,
        edge: 0,
        algorithm: None,
    }
}

fn operators(criterion: &mut Criterion) {
    let plain = MatMul { transpose_a: false, transpose_b: false };
    let graphs = [
        graph("matmul_128x256x256", plain, &[128, 256], &[&[256, 256]]),
        graph("conv_3x3_32_28x28", convolution(1, 1, 1), &[1, 32, 28, 28], &[&[32, 32, 3, 3]]),
        graph("conv_1x1_64_28x28", convolution(1, 0, 1), &[1, 64, 28, 28], &[&[64, 64, 1, 1]]),
        graph("conv_3x3_64_56x56", convolution(1, 1, 1), &[1, 64, 56, 56], &[&[64, 64, 3, 3]]),
        graph("conv_1x1_256_14x14", convolution(1, 0, 1), &[1, 256, 14, 14], &[&[256, 256, 1, 1]]),
        graph("grouped_3x3_8_64_28x28", convolution(1, 1, 8), &[1, 64, 28, 28], &[&[64, 8, 3, 3]]),
        graph("depthwise_3x3_64_28x28", convolution(1, 1, 64), &[1, 64, 28, 28], &[&[64, 1, 3, 3]]),
        graph("softmax_128x256", Softmax { axis: 1, log: false }, &[128, 256], &[]),
        graph("normalize_128x256", Normalize { axis: 1, epsilon: 1e-5, center: true }, &[128, 256], &[]),
    ];
    let devices = common::devices();
    let mut group = criterion.benchmark_group("operator");
    for graph in &graphs {
        let mut expected: Option<Tensor> = None;
        for (kind, device) in &devices {
            let plan = compile(graph, &Device::from(device), &mut Timings::default())
                .unwrap_or_else(|error| panic!("{}: {error}", graph.name));
            let flop: u64 = plan.steps.iter().map(|step| step.flop).sum();
            let mut session = Session::new(plan, device).unwrap_or_else(|error| panic!("{error}"));
            let mut random = Random::new(2);
            let fact = graph.fact(graph.inputs()[0]);
            let inputs = [Tensor::from_fn(fact.dtype, &fact.shape, |_| random.normal())];
            // A time of a wrong answer is none.
            let outputs = session.run_ordered(&inputs, false).expect("the operator should run").outputs;
            let first = expected.get_or_insert_with(|| outputs[0].clone());
            assert!(
                compare(&outputs[0], first, Tolerance::OfLargest(1e-4)).within,
                "{} on {kind}",
                graph.name
            );
            group.throughput(Throughput::Elements(flop));
            group.bench_function(BenchmarkId::new(&graph.name, kind), |bencher| {
                bencher.iter(|| session.run_ordered(&inputs, false).expect("the operator should run"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, operators);
criterion_main!(benches);
