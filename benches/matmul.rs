//! A packed matrix product of 1024^3 through the whole compiler, on one thread and on two, beside what the same threads do at best:
//! `peak` is the time that as many operations take at the rate measured for each sample. Throughput in floating-point operations.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use paisley::base::Random;
use paisley::compiler::{Device, Timings, compile};
use paisley::graph::Graph;
use paisley::ops::{Fact, MatMul};
use paisley::{DType, DeviceChoice, DeviceOptions, OpenDevice, Session, Tensor};
use paisley_kernels::pool::Pool;
use paisley_kernels::rates::flop_per_second;
use paisley_kernels::{Isa, table};
use std::time::Duration;

const SIZE: usize = 1024;
const PEAK_TIME: Duration = Duration::from_millis(5);

fn matmul(criterion: &mut Criterion) {
    let mut random = Random::new(1);
    let mut graph = Graph::new("matmul");
    let x = graph.add_input("x", Fact::new(DType::F32, &[SIZE, SIZE]));
    let weights = Tensor::from_fn(DType::F32, &[SIZE, SIZE], |_| random.normal());
    let weights = graph.add_constant("w", weights);
    let op = MatMul { transpose_a: false, transpose_b: false };
    let outputs = graph.add_node("matmul", op, &[x, weights], &["y"]).expect("the shapes should fit");
    graph.add_output("y", outputs[0]);
    let inputs = [Tensor::from_fn(DType::F32, &[SIZE, SIZE], |_| random.normal())];

    let flop = 2 * (SIZE as u64).pow(3);
    let mut group = criterion.benchmark_group(format!("matmul_{SIZE}"));
    group.throughput(Throughput::Elements(flop)).sample_size(20);
    for threads in [1, 2] {
        let device = OpenDevice::open(DeviceChoice::Cpu, &DeviceOptions::new(Some(threads)))
            .expect("the processor should be there");
        let plan = compile(&graph, &Device::from(&device), &mut Timings::default())
            .unwrap_or_else(|error| panic!("{error}"));
        let mut session = Session::new(plan, &device).unwrap_or_else(|error| panic!("{error}"));
        group.bench_function(BenchmarkId::new("packed", threads), |bencher| {
            bencher.iter(|| session.run_ordered(&inputs, false).expect("the product should run"));
        });
        let pool = Pool::new(threads).expect("a small pool");
        group.bench_function(BenchmarkId::new("peak", threads), |bencher| {
            let rate =
                |time| flop_per_second(table(Isa::detect()), &pool, time).expect("the tile should not panic");
            let expected = rate(PEAK_TIME);
            bencher.iter_custom(|count| {
                // For as long as what is reported, which criterion plans by.
                let work = count as f64 * flop as f64;
                Duration::from_secs_f64(work / rate(Duration::from_secs_f64(work / expected)))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matmul);
criterion_main!(benches);
