//! Products and convolutions of bytes are exact on every instruction set, whichever micro-kernel computes them.

use paisley::base::Random;
use paisley::compiler::{self, Timings};
use paisley::expr::{BinaryOp, UnaryOp};
use paisley::graph::{Graph, Op, ValueId};
use paisley::ops::{Conv, Fact, Map, MatMul, Pool, PoolKind, Scalar};
use paisley::plan::Code;
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

impl Chain {
    /// A convolution of each channel by itself, in f32, of which sums of bytes are exact, made bytes again.
    fn depthwise(&mut self, x: ValueId, kernel: usize, stride: usize) -> ValueId {
        let (dtype, channels) = (self.graph.fact(x).dtype, self.graph.fact(x).shape[1]);
        let zero = *self.rng.pick(&[0.0, 5.0]);
        let float = Scalar::Input(0).cast(DType::F32);
        let scalar = float.binary(BinaryOp::Sub, Scalar::constant(zero, DType::F32));
        let widened = self.add(Map { scalar }, &[x]);
        let rng = &mut self.rng;
        let shape = [channels, 1, kernel, kernel];
        let weights = Tensor::from_fn(DType::F32, &shape, |_| rng.below(255) as f64 - 127.0);
        let start = Tensor::from_fn(DType::F32, &[channels], |_| rng.below(2000) as f64 - 1000.0);
        let (w, b) = (self.graph.add_constant("w", weights), self.graph.add_constant("b", start));
        let conv = Conv {
            strides: vec![stride; 2],
            dilations: vec![1; 2],
            pads: vec![(kernel / 2, kernel / 2); 2],
            groups: channels,
            edge: 0,
            algorithm: None,
        };
        let sums = self.add(conv, &[widened, w, b]);
        self.scaled_by_channel(sums, dtype)
    }

    /// As [`requantised`](Self::requantised), with a scale for each channel, which is what tiles take.
    fn scaled_by_channel(&mut self, sums: ValueId, dtype: DType) -> ValueId {
        let channels = self.graph.fact(sums).shape[1];
        let rng = &mut self.rng;
        let scales = Tensor::from_fn(DType::F32, &[channels, 1, 1], |_| 0.0002 + 0.001 * rng.unit());
        let scale = self.graph.add_constant("scale", scales);
        let constant = |value: f64| Scalar::constant(value, DType::F32);
        let (low, high) = if dtype == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
        let of_sums = if self.graph.fact(sums).dtype == DType::F32 {
            Scalar::Input(0)
        } else {
            Scalar::Input(0).cast(DType::F32)
        };
        let scaled = of_sums.times(Scalar::Input(1)).unary(UnaryOp::Round);
        let scalar = scaled.plus(constant(3.0)).max(constant(low)).min(constant(high)).cast(dtype);
        self.add(Map { scalar }, &[sums, scale])
    }

    fn pointwise(&mut self, x: ValueId, filters: usize) -> ValueId {
        let (dtype, channels) = (self.graph.fact(x).dtype, self.graph.fact(x).shape[1]);
        let w = self.weights(&[filters, channels, 1, 1]);
        let conv = Conv {
            strides: vec![1; 2],
            dilations: vec![1; 2],
            pads: vec![(0, 0); 2],
            groups: 1,
            edge: 0,
            algorithm: None,
        };
        let sums = self.add(conv, &[x, w]);
        self.scaled_by_channel(sums, dtype)
    }
}

#[test]
fn networks_of_bytes_are_exact() {
    for seed in 0..24 {
        let mut chain = Chain::new(2000 + seed);
        let dtype = chain.byte_type();
        let (height, width) = (chain.between(3, 20), chain.between(3, 20));
        let channels = *chain.rng.pick(&[4, 8, 16]);
        let x = chain.input(dtype, &[1, channels, height, width]);
        let filters = *chain.rng.pick(&[16, 20, 24, 32, 48]);
        let mut x = chain.pointwise(x, filters);
        for _ in 0..2 {
            let (kernel, stride) = (*chain.rng.pick(&[2, 3, 5]), *chain.rng.pick(&[1, 1, 2]));
            x = if chain.rng.below(2) == 0 {
                chain.depthwise(x, 3, stride)
            } else {
                let pool = Pool {
                    kind: PoolKind::Max,
                    kernel: vec![kernel; 2],
                    strides: vec![stride; 2],
                    dilations: vec![1; 2],
                    pads: vec![(kernel / 2, kernel / 2); 2],
                    overhang: vec![0; 2],
                };
                chain.add(pool, &[x])
            };
        }
        let filters = *chain.rng.pick(&[16, 24]);
        let result = chain.pointwise(x, filters);
        chain.check(result);
    }
}

#[test]
fn depthwise_convolutions_of_bytes_are_tiles_that_read_and_write_bytes() {
    for isa in CpuIsa::ALL {
        let mut chain = Chain::new(0);
        let x = chain.input(DType::U8, &[1, 16, 14, 14]);
        let x = chain.pointwise(x, 32);
        let result = chain.depthwise(x, 3, 1);
        let result = chain.pointwise(result, 16);
        chain.graph.add_output("y", result);
        let device = compiler::Device::Cpu(CpuTarget::preset(isa, 2));
        let plan = compiler::compile(&chain.graph, &device, &mut Timings::default()).unwrap();
        let programs: Vec<String> = plan
            .kernels
            .iter()
            .filter_map(|kernel| match &kernel.code {
                Code::Cpu(code) => Some(code.code.to_string()),
                Code::Gpu(_) | Code::Interpreted => None,
            })
            .collect();
        let widening = programs.iter().find(|program| program.contains("make_t")).unwrap();
        assert!(widening.contains("scaled by") && !widening.contains("block store"), "{widening}");
    }
}
