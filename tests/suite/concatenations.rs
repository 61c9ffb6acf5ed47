//! Concatenations in place: networks on every instruction set against the reference, and which of them still copy.

use super::support::compare_with_reference;
use paisley::base::Random;
use paisley::graph::{Graph, ValueId};
use paisley::ops::{Concat, Conv, Fact, MatMul, View};
use paisley::plan::{Place, Plan};
use paisley::tensor::{DType, Tensor};

/// A network over images of 6 x 6, whose nodes are named by what they are and a number.
struct Network {
    graph: Graph,
    rng: Random,
    x: ValueId,
}

impl Network {
    fn new(images: usize) -> Network {
        let mut graph = Graph::new("network");
        let x = graph.add_input("x", Fact::new(DType::F32, &[images, 16, 6, 6]));
        Network { graph, rng: Random::new(7), x }
    }

    fn name(&self, of: &str) -> String {
        format!("{of}{}", self.graph.values().len())
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let rng = &mut self.rng;
        let tensor = Tensor::from_fn(DType::F32, shape, |_| rng.unit() - 0.5);
        let name = self.name("k");
        self.graph.add_constant(&name, tensor)
    }

    fn conv(&mut self, x: ValueId, filters: usize) -> ValueId {
        let channels = self.graph.fact(x).shape[1];
        let conv = Conv {
            strides: vec![1; 2],
            dilations: vec![1; 2],
            pads: vec![(0, 0); 2],
            groups: 1,
            edge: 0,
            algorithm: None,
        };
        let w = self.constant(&[filters, channels, 1, 1]);
        let name = self.name("conv");
        self.graph.add_node(&name, conv, &[x, w], &[&name]).expect("a convolution")[0]
    }

    fn concat(&mut self, operands: &[ValueId]) -> ValueId {
        let name = self.name("concat");
        self.graph.add_node(&name, Concat { axis: 1 }, operands, &[&name]).expect("a concatenation")[0]
    }

    /// The steps that concatenate, or copy an operand to its place, on each instruction set.
    fn copies(mut self, outputs: &[ValueId]) -> Vec<usize> {
        for (at, &output) in outputs.iter().enumerate() {
            self.graph.add_output(&format!("y{at}"), output);
        }
        let copies = |plan: &Plan| plan.steps.iter().filter(|step| step.origin.starts_with("concat")).count();
        let plans = compare_with_reference(&self.graph, 3);
        assert!(!plans.is_empty());
        plans.iter().map(copies).collect()
    }
}

#[track_caller]
fn check(copies: &[usize], expected: usize) {
    assert!(copies.iter().all(|&count| count == expected), "{copies:?} steps copy, {expected} should");
}

#[test]
fn growing_prefixes_are_never_copied() {
    let mut net = Network::new(1);
    let mut all = net.conv(net.x, 16);
    for _ in 0..3 {
        let more = net.conv(all, 16);
        all = net.concat(&[all, more]);
    }
    let y = net.conv(all, 16);
    check(&net.copies(&[y]), 0);
}

#[test]
fn a_concatenation_is_an_output() {
    let mut net = Network::new(1);
    let (a, b) = (net.conv(net.x, 16), net.conv(net.x, 32));
    let y = net.concat(&[a, b]);
    let next = net.conv(y, 16);
    check(&net.copies(&[y, next]), 0);
}

#[test]
fn what_lies_elsewhere_is_copied() {
    let mut net = Network::new(1);
    let a = net.conv(net.x, 16);
    let joined = net.concat(&[a, net.x]);
    let y = net.conv(joined, 16);
    check(&net.copies(&[y]), 1);

    // An operand that is given back in rows, while it lies in blocks here.
    let mut net = Network::new(1);
    let (a, b) = (net.conv(net.x, 16), net.conv(net.x, 16));
    let joined = net.concat(&[a, b]);
    let y = net.conv(joined, 16);
    check(&net.copies(&[y, a]), 0);

    // The same operand again.
    let mut net = Network::new(1);
    let a = net.conv(net.x, 16);
    let joined = net.concat(&[a, a]);
    let y = net.conv(joined, 16);
    check(&net.copies(&[y]), 1);
}

#[test]
fn several_copies_are_one_step() {
    let mut net = Network::new(1);
    let (before, behind) = (net.constant(&[1, 16, 6, 6]), net.constant(&[1, 16, 6, 6]));
    let a = net.conv(net.x, 16);
    let joined = net.concat(&[before, a, behind]);
    let y = net.conv(joined, 16);
    check(&net.copies(&[y]), 1);
}

#[test]
fn images_of_a_batch_are_interleaved() {
    let mut net = Network::new(2);
    let (a, b) = (net.conv(net.x, 16), net.conv(net.x, 16));
    let joined = net.concat(&[a, b]);
    let y = net.conv(joined, 16);
    check(&net.copies(&[y]), 1);
}

#[test]
fn operands_of_any_kind_give_what_the_reference_gives() {
    // Channels that fill no block.
    let mut net = Network::new(1);
    let (a, b) = (net.conv(net.x, 12), net.conv(net.x, 20));
    let joined = net.concat(&[a, b]);
    let y = net.conv(joined, 16);
    net.copies(&[y]);

    // A concatenation of what another has, in another place.
    let mut net = Network::new(1);
    let (a, b) = (net.conv(net.x, 16), net.conv(net.x, 16));
    let inner = net.concat(&[a, b]);
    let outer = net.concat(&[a, b, inner]);
    let turned = net.concat(&[b, a]);
    let (y, z) = (net.conv(outer, 16), net.conv(turned, 16));
    net.copies(&[y, z]);

    // Nothing.
    let mut net = Network::new(1);
    let (a, b) = (net.conv(net.x, 16), net.conv(net.x, 16));
    let nothing = net.constant(&[1, 0, 6, 6]);
    let joined = net.concat(&[a, nothing, b]);
    let y = net.conv(joined, 16);
    net.copies(&[y]);

    // Rows.
    let mut net = Network::new(1);
    let flat =
        net.graph.add_node("flat", View { shape: vec![1, 576] }, &[net.x], &["flat"]).expect("a view")[0];
    let product = |net: &mut Network, columns: usize| {
        let w = net.constant(&[576, columns]);
        let name = net.name("product");
        net.graph.add_node(&name, MatMul::default(), &[flat, w], &[&name]).expect("a product")[0]
    };
    let (a, b) = (product(&mut net, 10), product(&mut net, 23));
    let joined = net.concat(&[a, b]);
    check(&net.copies(&[joined]), 0);
}

#[test]
fn parts_lie_within_the_whole() {
    let mut net = Network::new(1);
    let (a, b) = (net.conv(net.x, 16), net.conv(net.x, 16));
    let joined = net.concat(&[a, b]);
    let y = net.conv(joined, 16);
    net.graph.add_output("y", y);
    for plan in compare_with_reference(&net.graph, 5) {
        let within = plan.values.iter().filter(|value| matches!(value.place, Place::Within { .. })).count();
        assert_eq!(within, 2);
    }
}
