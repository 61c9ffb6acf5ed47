//! Products and convolutions of bytes are exact on every instruction set, whichever micro-kernel computes them.

use paisley::base::Random;
use paisley::compiler::{self, Timings};
use paisley::expr::UnaryOp;
use paisley::graph::{Graph, Op, ValueId};
use paisley::ops::{Conv, Fact, Map, MatMul, Scalar};
use paisley::runtime::cpu::CpuExecutor;
use paisley::runtime::reference;
use paisley::target::{CpuIsa, CpuTarget};
use paisley::tensor::{DType, Tensor};

use super::support::processor;

/// A graph of a chain of sums of products of bytes, and its inputs.
struct Chain {
    graph: Graph,
    inputs: Vec<Tensor>,
    rng: Random,
}

impl Chain {
    fn new(seed: u64) -> Chain {
        Chain { graph: Graph::new("chain"), inputs: vec![], rng: Random::new(seed) }
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.rng.below(high - low + 1)
    }

    /// Bytes, of which some are the least and the largest.
    fn bytes(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let (low, high) = if dtype == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
        let rng = &mut self.rng;
        Tensor::from_fn(dtype, shape, |_| match rng.below(6) {
            0 => low,
            1 => high,
            _ => low + rng.below(256) as f64,
        })
    }

    fn byte_type(&mut self) -> DType {
        *self.rng.pick(&[DType::U8, DType::I8])
    }

    fn input(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        let tensor = self.bytes(dtype, shape);
        let value = self.graph.add_input("x", Fact::of(&tensor));
        self.inputs.push(tensor);
        value
    }

    fn weights(&mut self, shape: &[usize]) -> ValueId {
        let tensor = self.bytes(DType::I8, shape);
        self.graph.add_constant("w", tensor)
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        self.graph.add_node("node", op, inputs, &["v"]).unwrap()[0]
    }

    /// Bytes of the sums again: scaled, rounded, moved and saturated.
    fn requantised(&mut self, sums: ValueId, dtype: DType) -> ValueId {
        let constant = |value: f64| Scalar::constant(value, DType::F32);
        let (low, high) = if dtype == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
        let scaled = Scalar::Input(0).cast(DType::F32).times(constant(0.0007)).unary(UnaryOp::Round);
        let scalar = scaled.plus(constant(3.0)).max(constant(low)).min(constant(high)).cast(dtype);
        self.add(Map { scalar }, &[sums])
    }

    /// Compares the results of every instruction set and of one and two threads with the definition.
    fn check(mut self, result: ValueId) {
        self.graph.add_output("y", result);
        let run = |device: &compiler::Device, target: &CpuTarget| {
            let mut plan = compiler::compile(&self.graph, device, &mut Timings::default()).unwrap();
            let mut executor = CpuExecutor::new(&mut plan, target).unwrap();
            executor.run(&plan, &self.inputs, false).unwrap().outputs[0].clone()
        };
        let reference = compiler::Device::Reference;
        let plan = compiler::compile(&self.graph, &reference, &mut Timings::default()).unwrap();
        let expected = reference::run(&plan, &self.inputs).unwrap().outputs;
        for isa in CpuIsa::ALL.into_iter().filter(|&isa| isa <= processor().isa) {
            for threads in [1, 2] {
                let target = CpuTarget::preset(isa, threads);
                let actual = run(&compiler::Device::Cpu(target.clone()), &target);
                for at in 0..actual.len() {
                    let (actual, expected) = (actual.get_f64(at), expected[0].get_f64(at));
                    assert_eq!(actual, expected, "at {at} on {isa:?} of\n{}", self.graph);
                }
            }
        }
    }
}

#[test]
fn products_of_bytes_are_exact() {
    for seed in 0..24 {
        let mut chain = Chain::new(seed);
        let (rows, columns) = (chain.between(1, 40), chain.between(1, 70));
        let depth = chain.between(1, 40) * if seed % 3 == 0 { 1 } else { 4 };
        let (of_a, of_sums) = (chain.byte_type(), chain.byte_type());
        let a = chain.input(of_a, &[rows, depth]);
        let b = if chain.rng.below(3) == 0 {
            chain.input(DType::I8, &[depth, columns])
        } else {
            chain.weights(&[depth, columns])
        };
        let product = chain.add(MatMul::default(), &[a, b]);
        let result = if seed % 2 == 0 { product } else { chain.requantised(product, of_sums) };
        chain.check(result);
    }
}

#[test]
fn convolutions_of_bytes_are_exact() {
    for seed in 0..24 {
        let mut chain = Chain::new(1000 + seed);
        let dtype = chain.byte_type();
        let (height, width) = (chain.between(3, 12), chain.between(3, 12));
        let mut channels = *chain.rng.pick(&[3, 16, 20, 32]);
        let mut x = chain.input(dtype, &[1, channels, height, width]);
        for _ in 0..2 {
            let filters = *chain.rng.pick(&[16, 24, 32, 48]);
            let (kernel, stride) = (*chain.rng.pick(&[1, 3]), *chain.rng.pick(&[1, 1, 2]));
            let w = chain.weights(&[filters, channels, kernel, kernel]);
            let conv = Conv {
                strides: vec![stride; 2],
                dilations: vec![1; 2],
                pads: vec![(kernel / 2, kernel / 2); 2],
                groups: 1,
                edge: if dtype == DType::U8 { 113 } else { -7 } * chain.rng.below(2) as i64,
                algorithm: None,
            };
            let sums = chain.add(conv, &[x, w]);
            x = chain.requantised(sums, dtype);
            channels = filters;
        }
        chain.check(x);
    }
}
