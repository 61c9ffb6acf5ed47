//! Small random computations, as the compiler defines them.

use paisley::base::Random;
use paisley::expr::{BinaryOp, UnaryOp};
use paisley::graph::{Graph, Op, ValueId};
use paisley::loopir::{Nest, Role};
use paisley::ops::{
    Conv, ConvAlgorithm, Fact, Map, MatMul, Normalize, Pool, PoolKind, Reduce, ReduceKind, Scalar, Softmax,
    Transpose, define_group,
};
use paisley::passes::{GroupPolicy, group};
use paisley::tensor::{DType, Tensor};

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Matmul,
    Convolution,
    Winograd,
    Softmax,
    LayerNorm,
    Pooling,
    Reduction,
    Elementwise,
}

/// A nest and what it is given.
pub(super) struct Problem {
    pub(super) nest: Nest,
    pub(super) inputs: Vec<Tensor>,
    pub(super) constants: Vec<Tensor>,
}

impl Problem {
    /// A problem of the family: an anchor with what the compiler fuses before and after it.
    pub(super) fn draw(family: Family, rng: &mut Random) -> Problem {
        let nest = loop {
            let mut graph = Graph::new("problem");
            let mut builder = Builder { graph: &mut graph, rng };
            // A window may be larger than what it moves over.
            let Some(result) = builder.anchor(family).and_then(|value| builder.tail(value)) else { continue };
            graph.add_output("y", result);
            let groups = group(&graph, GroupPolicy::default());
            let groups: Vec<_> = groups.iter().filter(|group| !group.is_view(&graph)).collect();
            if groups.is_empty() {
                continue;
            }
            let chosen = *rng.pick(&groups);
            break define_group(&chosen.definition(&graph), &[])
                .unwrap_or_else(|error| panic!("a group should have a nest: {error}\n{graph}"));
        };
        let mut given = |role| {
            let buffers = nest.params_of(role).map(|id| nest.pool.buffers[id].clone()).collect::<Vec<_>>();
            let mut tensor = |buffer: &paisley::loopir::Buffer| {
                Tensor::from_fn(buffer.dtype, &buffer.shape, |_| 2.0 * rng.unit() - 1.0)
            };
            buffers.iter().map(&mut tensor).collect::<Vec<_>>()
        };
        let (inputs, constants) = (given(Role::Input), given(Role::Constant));
        Problem { nest, inputs, constants }
    }

    /// Inputs and constants in the order of the parameters.
    pub(super) fn params(&self) -> Vec<Tensor> {
        let (mut inputs, mut constants) = (self.inputs.iter(), self.constants.iter());
        let tensor = |role| match role {
            Role::Input => inputs.next(),
            Role::Constant => constants.next(),
            Role::Output | Role::Local | Role::Packed => None,
        };
        self.nest
            .params
            .iter()
            .map(|&id| self.nest.pool.buffers[id].role)
            .filter_map(tensor)
            .cloned()
            .collect()
    }
}

struct Builder<'a> {
    graph: &'a mut Graph,
    rng: &'a mut Random,
}

impl Builder<'_> {
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.rng.below(high - low + 1)
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.rng.below(one_in) == 0
    }

    fn shape(&mut self, rank: usize, most: usize) -> Vec<usize> {
        (0..rank).map(|_| self.between(1, most)).collect()
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        self.graph.add_input("x", Fact::new(DType::F32, shape))
    }

    /// A constant; what it holds is drawn later.
    fn weights(&mut self, shape: &[usize]) -> ValueId {
        self.graph.add_constant("w", Tensor::from_fn(DType::F32, shape, |_| 1.0))
    }

    fn either(&mut self, shape: &[usize]) -> ValueId {
        if self.chance(2) { self.input(shape) } else { self.weights(shape) }
    }

    /// The second factor of products: constants may be of a narrower type than the first.
    fn factor(&mut self, shape: &[usize]) -> ValueId {
        let dtype = *self.rng.pick(&[DType::F32, DType::F16, DType::BF16]);
        match self.chance(2) {
            true => self.input(shape),
            false => self.graph.add_constant("w", Tensor::from_fn(dtype, shape, |_| 1.0)),
        }
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Option<ValueId> {
        self.graph.add_node("node", op, inputs, &["v"]).ok().map(|outputs| outputs[0])
    }

    fn map(&mut self, inputs: &[ValueId], scalar: Scalar) -> Option<ValueId> {
        self.add(Map { scalar }, inputs)
    }

    fn extents(&self, value: ValueId) -> Vec<usize> {
        self.graph.fact(value).shape.clone()
    }

    fn anchor(&mut self, family: Family) -> Option<ValueId> {
        match family {
            Family::Matmul => self.matmul(),
            Family::Convolution => self.convolution(),
            Family::Winograd => self.winograd(),
            Family::Softmax => {
                let rank = self.between(1, 3);
                let shape = self.shape(rank, 9);
                let x = self.input(&shape);
                let x = self.head(x)?;
                let (axis, log) = (self.rng.below(rank), self.chance(3));
                self.add(Softmax { axis, log }, &[x])
            }
            Family::LayerNorm => self.layer_norm(),
            Family::Pooling => self.pooling(),
            Family::Reduction => self.reduction(),
            Family::Elementwise => {
                let rank = self.between(1, 4);
                let shape = self.shape(rank, 6);
                let x = self.input(&shape);
                self.head(x)
            }
        }
    }

    fn matmul(&mut self) -> Option<ValueId> {
        let (m, n, k) = (self.between(1, 14), self.between(1, 34), self.between(1, 9));
        let (transpose_a, transpose_b) = (self.chance(3), self.chance(3));
        let batch = if self.chance(3) { vec![self.between(1, 3)] } else { vec![] };
        let a = [batch.as_slice(), &if transpose_a { [k, m] } else { [m, k] }].concat();
        let b_batch = if self.chance(2) { batch.clone() } else { vec![] };
        let b = [b_batch.as_slice(), &if transpose_b { [n, k] } else { [k, n] }].concat();
        let (a, b) = (self.input(&a), self.factor(&b));
        let a = self.head(a)?;
        self.add(MatMul { transpose_a, transpose_b }, &[a, b])
    }

    fn convolution(&mut self) -> Option<ValueId> {
        let rank = self.between(1, 2);
        let groups = [1, 1, 2, 3][self.rng.below(4)];
        let (depth, filters) = (self.between(1, 4), self.between(1, 5));
        let spatial = self.shape(rank, 8);
        let kernel = self.shape(rank, 3);
        let batch = self.between(1, 2);
        let x = self.input(&[&[batch, groups * depth], spatial.as_slice()].concat());
        let x = self.head(x)?;
        let w = self.factor(&[&[groups * filters, depth], kernel.as_slice()].concat());
        let (strides, dilations) = (self.shape(rank, 3), self.shape(rank, 2));
        let pads = (0..rank).map(|_| (self.rng.below(3), self.rng.below(3))).collect();
        let bias = if self.chance(2) { Some(self.weights(&[groups * filters])) } else { None };
        let inputs: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
        let mut conv = Conv { strides, dilations, pads, groups, edge: 0, algorithm: None };
        let drawn = *self.rng.pick(&ConvAlgorithm::ALL);
        let applies = drawn.applies(&conv, self.graph.fact(x), self.graph.fact(w));
        conv.algorithm = (applies && self.chance(2)).then_some(drawn);
        self.add(conv, &inputs)
    }

    fn winograd(&mut self) -> Option<ValueId> {
        let (batch, depth, filters) = (self.between(1, 2), self.between(1, 3), self.between(1, 3));
        let kernel = *self.rng.pick(&[&[3, 3][..], &[3, 3], &[1, 3], &[3, 1], &[3]]);
        let rank = kernel.len();
        let spatial = self.shape(rank, 7);
        let x = self.input(&[&[batch, depth], spatial.as_slice()].concat());
        let x = self.head(x)?;
        let w = self.weights(&[&[filters, depth], kernel].concat());
        let pads = (0..rank).map(|_| (1 + self.rng.below(2), 1 + self.rng.below(2))).collect();
        let algorithm = Some(*self.rng.pick(&[ConvAlgorithm::Winograd2, ConvAlgorithm::Winograd4]));
        let conv =
            Conv { strides: vec![1; rank], dilations: vec![1; rank], pads, groups: 1, edge: 0, algorithm };
        self.add(conv, &[x, w])
    }

    fn layer_norm(&mut self) -> Option<ValueId> {
        let rank = self.between(1, 3);
        let shape = self.shape(rank, 8);
        let axis = self.rng.below(rank);
        let x = self.input(&shape);
        let x = self.head(x)?;
        let center = !self.chance(4);
        let y = self.add(Normalize { axis, epsilon: 1e-2, center }, &[x])?;
        let (scale, bias) = (self.weights(&shape[axis..]), self.weights(&shape[axis..]));
        self.map(&[y, scale, bias], Scalar::Input(0).times(Scalar::Input(1)).plus(Scalar::Input(2)))
    }

    fn pooling(&mut self) -> Option<ValueId> {
        let rank = self.between(1, 2);
        let kinds = [PoolKind::Max, PoolKind::Average, PoolKind::AverageWithPads, PoolKind::Norm(2)];
        let kind = *self.rng.pick(&kinds);
        let spatial = self.shape(rank, 9);
        let outer = self.shape(2, 3);
        let x = self.input(&[outer, spatial].concat());
        let x = self.head(x)?;
        let (kernel, strides, dilations) = (self.shape(rank, 3), self.shape(rank, 3), self.shape(rank, 2));
        let pads = kernel.iter().map(|&k| (self.rng.below(k), self.rng.below(k))).collect();
        let overhang = (0..rank).map(|_| self.rng.below(2)).collect();
        self.add(Pool { kind, kernel, strides, dilations, pads, overhang }, &[x])
    }

    fn reduction(&mut self) -> Option<ValueId> {
        let rank = self.between(1, 4);
        let shape = self.shape(rank, 7);
        let axes: Vec<usize> = (0..rank).filter(|_| self.rng.below(2) == 0).collect();
        let kinds = [
            ReduceKind::Sum,
            ReduceKind::Mean,
            ReduceKind::Max,
            ReduceKind::Min,
            ReduceKind::Product,
            ReduceKind::L1,
            ReduceKind::L2,
            ReduceKind::SumSquare,
            ReduceKind::LogSumExp,
        ];
        let x = self.input(&shape);
        let x = self.head(x)?;
        let (kind, keep) = (*self.rng.pick(&kinds), self.chance(2));
        self.add(Reduce { kind, axes, keep }, &[x])
    }

    /// Sometimes something before the anchor.
    fn head(&mut self, x: ValueId) -> Option<ValueId> {
        match self.rng.below(5) {
            0 => self.map(&[x], Scalar::Input(0).times(Scalar::constant(1.5, DType::F32))),
            1 => {
                let mut perm: Vec<usize> = (0..self.extents(x).len()).collect();
                shuffle(self.rng, &mut perm);
                // The shape stays what the anchor wants where the permuted input has it after the transposition.
                let shape = self.extents(x);
                let mut before = vec![0; perm.len()];
                perm.iter().zip(&shape).for_each(|(&axis, &extent)| before[axis] = extent);
                let before = self.input(&before);
                self.add(Transpose { perm }, &[before])
            }
            _nothing => Some(x),
        }
    }

    /// A chain of element-wise operators.
    fn tail(&mut self, mut value: ValueId) -> Option<ValueId> {
        for _ in 0..self.rng.below(4) {
            let shape = self.extents(value);
            value = match self.rng.below(6) {
                0 => self.map(&[value], Scalar::Input(0).max(Scalar::constant(0.0, DType::F32)))?,
                1 => self.map(&[value], Scalar::Input(0).unary(UnaryOp::Sigmoid))?,
                2 => {
                    let kept: Vec<usize> =
                        shape.iter().map(|&extent| if self.rng.below(2) == 0 { 1 } else { extent }).collect();
                    let other = self.either(&kept);
                    self.map(&[value, other], Scalar::Input(0).plus(Scalar::Input(1)))?
                }
                3 => {
                    let other = self.input(&shape);
                    self.map(&[value, other], Scalar::Input(0).binary(BinaryOp::Mul, Scalar::Input(1)))?
                }
                4 => {
                    let mut perm: Vec<usize> = (0..shape.len()).collect();
                    shuffle(self.rng, &mut perm);
                    self.add(Transpose { perm }, &[value])?
                }
                _clamp => self.map(
                    &[value],
                    Scalar::Input(0).min(Scalar::constant(0.5, DType::F32)).unary(UnaryOp::Tanh),
                )?,
            };
        }
        Some(value)
    }
}

/// Any order of `items`.
pub(super) fn shuffle<T>(rng: &mut Random, items: &mut [T]) {
    for place in (1..items.len()).rev() {
        items.swap(place, rng.below(place + 1));
    }
}
