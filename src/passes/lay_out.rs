//! How the values between groups lie in memory.
//!
//! A convolution sums over channels for many output channels at once. Where channels lie in blocks of a vector, its inputs and
//! results are vectors as they are in memory, with no packing before and no transposing behind. The layout costs nothing between
//! groups that work on blocks: so it is chosen over the whole graph, and a value is converted where a group cannot.
//!
//! # Rules
//! In the order of evaluation: a convolution whose channels fill blocks, those of a group for itself, gives blocks, and reads either
//! layout; by Winograd's algorithm and where each channel is convolved by itself it reads blocks, and of sliced or shuffled
//! channels it reads rows. Pooling, concatenation and what works element by element follow the larger part of what they read. A
//! mean over all places reads either layout. All else works on rows.
//!
//! A transpose may make the channels the last axis, or the last axis the channels, as around normalisations over channels. Behind
//! the first a value lies in rows, in which the channels of a place are adjacent as in a block; so a convolution writes them itself.
//! A product or a normalisation before the second gives blocks, a product only where it is added to an image.

use super::Group;
use crate::graph::{Graph, Node, NodeId, Op, ValueId};
use crate::ops::{ConvAlgorithm, Fact, Transpose};
use crate::tensor::{DType, MemoryLayout};
use paisley_kernels::tile::dots::DOT_TERMS;
use std::collections::BTreeMap;

/// How the inputs and outputs of a group lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLayout {
    /// One an input of the group, in order.
    pub inputs: Vec<MemoryLayout>,
    /// One an output of the group, in order.
    pub outputs: Vec<MemoryLayout>,
}

impl GroupLayout {
    /// Everything in rows.
    pub fn rows(group: &Group) -> GroupLayout {
        GroupLayout {
            inputs: vec![MemoryLayout::Rows; group.inputs.len()],
            outputs: vec![MemoryLayout::Rows; group.outputs.len()],
        }
    }

    /// The layouts in the order of the parameters of the group's nest.
    pub fn params(&self) -> Vec<MemoryLayout> {
        [self.inputs.as_slice(), &self.outputs].concat()
    }
}

impl Group {
    /// The operands of a group that is a concatenation and nothing else, if each of them is a range of the result's memory, where
    /// they follow one another in this order. So it is where no axis before theirs has several elements, and blocks of channels
    /// are full.
    pub fn adjacent<'a>(&self, graph: &'a Graph, layout: &GroupLayout) -> Option<&'a [ValueId]> {
        let anchor = self.anchor.filter(|_| self.prologue.is_empty() && self.epilogue.is_empty())?;
        let Node { op: Op::Concat(concat), inputs, outputs, .. } = &graph.nodes()[anchor] else {
            return None;
        };
        let lies = *layout.outputs.first()?;
        let full = match lies {
            MemoryLayout::Rows => true,
            MemoryLayout::ChannelBlocks(block) => {
                let whole = |&input: &ValueId| graph.fact(input).shape[1].is_multiple_of(block);
                concat.axis == 1 && inputs.iter().all(whole)
            }
        };
        let before: usize = graph.fact(outputs[0]).shape[..concat.axis].iter().product();
        let alike = layout.inputs.iter().all(|&input| input == lies);
        (before == 1 && full && alike).then_some(inputs)
    }
}

/// What a group can do with blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It works on rows.
    Rows,
    /// It gives blocks, and reads this value as it lies.
    Gives(ValueId),
    /// It gives blocks, and reads this value in blocks of as many channels as a micro-kernel multiplies at once.
    Fours(ValueId),
    /// It reads and gives blocks.
    Blocks,
    /// It gives what it reads.
    Keeps,
    /// It reads this value as it lies, and gives rows.
    Reads(ValueId),
    /// It gives blocks, and reads blocks behind its anchor.
    Makes,
}

/// Chooses how the values between `groups` lie, channels in blocks of `block` or in rows; one layout a group, in order.
pub fn lay_out(graph: &Graph, groups: &[Group], block: usize) -> Vec<GroupLayout> {
    let blocks = MemoryLayout::ChannelBlocks(block);
    let mut made = vec![MemoryLayout::Rows; graph.values().len()];
    let mut layouts = vec![];
    for group in groups {
        let lies = |value: ValueId| made[value.index()];
        let (role, axes) = match channel_axes(graph, group) {
            Some(axes) => (role(graph, group, &axes, block), axes),
            None => (Use::Rows, BTreeMap::new()),
        };
        // What is computed for each place lies like the result; smaller operands are read for each of its places.
        let image = |value: ValueId| {
            graph.constant(value).is_none() && is_image(graph, value) && axes.get(&value) == Some(&1)
        };
        let touched = group.inputs.iter().chain(&group.outputs);
        let fits = touched.copied().filter(|&value| image(value)).all(|value| {
            let fact = graph.fact(value);
            matches!(fact.dtype, DType::F32 | DType::U8 | DType::I8 | DType::I32) && blocks.fits(&fact.shape)
        });
        let (mut in_rows, mut in_blocks) = (0, 0);
        for &input in group.inputs.iter().filter(|&&input| image(input)) {
            let count = if lies(input) == blocks { &mut in_blocks } else { &mut in_rows };
            *count += graph.fact(input).len();
        }
        let gives = match role {
            // The value that is read as it lies need not fit.
            Use::Gives(x) => {
                let others = group.inputs.iter().filter(|&&input| input != x).chain(&group.outputs);
                let fit = |&value: &ValueId| !image(value) || blocks.fits(&graph.fact(value).shape);
                others.copied().all(|value| fit(&value))
            }
            Use::Blocks | Use::Fours(_) | Use::Makes => fits,
            Use::Keeps => fits && in_blocks > in_rows,
            Use::Reads(_) | Use::Rows => false,
        };
        let read = |&input: &ValueId| match role {
            Use::Gives(x) | Use::Reads(x) if input == x => lies(input),
            Use::Fours(x) if gives && input == x && lies(input) == MemoryLayout::Rows => {
                MemoryLayout::ChannelBlocks(DOT_TERMS)
            }
            Use::Gives(_) | Use::Fours(_) | Use::Blocks | Use::Keeps | Use::Makes
                if gives && image(input) =>
            {
                blocks
            }
            Use::Gives(_)
            | Use::Fours(_)
            | Use::Blocks
            | Use::Keeps
            | Use::Makes
            | Use::Reads(_)
            | Use::Rows => MemoryLayout::Rows,
        };
        let inputs = group.inputs.iter().map(read).collect();
        let outputs: Vec<MemoryLayout> = group
            .outputs
            .iter()
            .map(|&output| if gives && image(output) { blocks } else { MemoryLayout::Rows })
            .collect();
        for (&output, &layout) in group.outputs.iter().zip(&outputs) {
            made[output.index()] = layout;
        }
        layouts.push(GroupLayout { inputs, outputs });
    }
    layouts
}

/// Whether the channels of an image fill blocks.
pub(super) fn fills_blocks(image: &Fact, block: usize) -> bool {
    let places: usize = image.shape.iter().skip(2).product();
    places > 1 && image.shape[1].is_multiple_of(block)
}

/// Whether so many channels nearly fill blocks: those that are mostly empty do more harm than good.
pub(super) fn nearly_fills(channels: usize, block: usize) -> bool {
    4 * channels >= 3 * channels.next_multiple_of(block)
}

/// Whether a value has channels, and several places that have them.
fn is_image(graph: &Graph, value: ValueId) -> bool {
    let shape = &graph.fact(value).shape;
    shape.len() >= 3 && shape[2..].iter().product::<usize>() > 1
}

/// The axis that holds the channels in each value that a group reads or computes, beside smaller operands: the second one for what
/// an anchor reads, or the last one for products and normalisations, and wherever transposes move it. `None` where that cannot be said, or
/// where the channels of the result are neither.
fn channel_axes(graph: &Graph, group: &Group) -> Option<BTreeMap<ValueId, usize>> {
    let mut axes = BTreeMap::new();
    let last_axis = |value: ValueId| graph.fact(value).shape.len().checked_sub(1);
    // What views make of the last axis is not followed.
    let of_rows = group.anchor.is_some_and(|anchor| works_on_last_axis(graph, anchor));
    if let Some(anchor) = group.anchor {
        let Node { op, inputs, outputs, .. } = &graph.nodes()[anchor];
        let axis = if of_rows { last_axis(outputs[0])? } else { 1 };
        let elementwise = matches!(op, Op::MatMul(_) | Op::Conv(_) | Op::Normalize(_));
        let images = if elementwise { &inputs[..1] } else { inputs };
        axes.extend(images.iter().chain(outputs).map(|&value| (value, axis)));
    }
    if !group.kept.is_empty() {
        let made = group
            .prologue
            .iter()
            .flat_map(|&node| [&graph.nodes()[node].inputs, &graph.nodes()[node].outputs]);
        axes.extend(made.flatten().filter(|&&value| is_image(graph, value)).map(|&value| (value, 1)));
    }
    for node in group.epilogue.iter().map(|&node| &graph.nodes()[node]) {
        let known = node.inputs.iter().find_map(|input| axes.get(input).copied());
        let axis = known.unwrap_or(1);
        for &input in node.inputs.iter().filter(|&&input| is_image(graph, input)) {
            if *axes.entry(input).or_insert(axis) != axis {
                return None;
            }
        }
        let moved = if let Op::Transpose(transpose) = &node.op {
            transpose.perm.iter().position(|&from| from == axis)?
        } else if matches!(node.op, Op::Map(_)) {
            axis
        } else if of_rows || node.inputs.iter().any(|&input| is_image(graph, input)) {
            return None;
        } else {
            continue;
        };
        axes.insert(node.outputs[0], moved);
    }
    let fits = |&output: &ValueId| {
        axes.get(&output).is_none_or(|&axis| axis == 1 || Some(axis) == last_axis(output))
    };
    group.outputs.iter().all(fits).then_some(axes)
}

/// Whether the last axis of a node's results is what may become channels.
fn works_on_last_axis(graph: &Graph, node: NodeId) -> bool {
    matches!(graph.nodes()[node].op, Op::MatMul(_) | Op::Normalize(_))
}

/// Whether nodes take some channels of an image or shuffle them, which begin anywhere in a block then, and leave its places in their order.
fn moves_channels(graph: &Graph, nodes: &[NodeId]) -> bool {
    let places = |value: ValueId| {
        let shape = &graph.fact(value).shape;
        (shape.len() > 3).then(|| (shape[0], shape[shape.len() - 2..].to_vec()))
    };
    nodes.iter().map(|&node| &graph.nodes()[node]).all(|Node { op, inputs, outputs, .. }| {
        if let Op::Transpose(Transpose { perm }) = op {
            let rank = perm.len();
            rank > 3 && [0, rank - 2, rank - 1].into_iter().all(|axis| perm[axis] == axis)
        } else if matches!(op, Op::View(_)) {
            places(inputs[0]).is_some() && places(inputs[0]) == places(outputs[0])
        } else {
            matches!(op, Op::Slice(_)) && nodes.len() == 1
        }
    })
}

fn role(graph: &Graph, group: &Group, axes: &BTreeMap<ValueId, usize>, block: usize) -> Use {
    let moved = match group.prologue.as_slice() {
        [] => None,
        // A convolution of an image that it keeps, or an attention.
        _kept if !group.kept.is_empty() => {
            let convolves =
                group.anchor.is_some_and(|anchor| matches!(graph.nodes()[anchor].op, Op::Conv(_)));
            return if convolves { Use::Blocks } else { Use::Rows };
        }
        nodes if moves_channels(graph, nodes) => group.prologue.last().map(|&node| &graph.nodes()[node]),
        _others => return Use::Rows,
    };
    let Some(anchor) = group.anchor else { return Use::Keeps };
    let Node { op, inputs, outputs, .. } = &graph.nodes()[anchor];
    let x = inputs[0];
    let channels = |value: ValueId| graph.fact(value).shape.get(1).copied().unwrap_or(0);
    if let Op::Conv(conv) = op {
        let depthwise = conv.groups == channels(x) && conv.groups == channels(outputs[0]);
        let filled = is_image(graph, outputs[0]) && nearly_fills(channels(outputs[0]), block);
        let winograd = match conv.algorithm {
            None | Some(ConvAlgorithm::Direct | ConvAlgorithm::SpatialPack) => false,
            Some(ConvAlgorithm::Winograd2 | ConvAlgorithm::Winograd4) => true,
            // The rows of its matrix are rows of the image.
            Some(ConvAlgorithm::Im2col | ConvAlgorithm::ImplicitGemm) => return Use::Rows,
        };
        let channels_last = group.outputs.iter().any(|output| axes.get(output) != Some(&1));
        // Blocks of a group are no other group's.
        let whole = [x, outputs[0]].into_iter().all(|of| channels(of).is_multiple_of(conv.groups * block));
        // Neighbours in a block are multiplied at once.
        if graph.fact(x).dtype != DType::F32 {
            let constant = graph.constant(inputs[1]).is_some();
            let fours = channels(x).is_multiple_of(4);
            let blocks = moved.is_none() && (whole || (conv.groups == 1 && fours)) && filled && constant;
            return match blocks {
                true if channels(x) < block => Use::Fours(x),
                true => Use::Blocks,
                false => Use::Rows,
            };
        }
        if let Some(last) = moved {
            let dense = filled && !winograd && conv.groups == 1 && last.outputs[0] == x;
            return if dense { Use::Gives(x) } else { Use::Rows };
        }
        return match conv.groups {
            // Its tiles are written in blocks.
            1 if winograd && channels_last => Use::Rows,
            1 if filled && winograd => Use::Blocks,
            1 if filled => Use::Gives(x),
            _ if depthwise && filled => Use::Blocks,
            _ if whole && filled => Use::Gives(x),
            _ => Use::Rows,
        };
    }
    if moved.is_some() {
        return Use::Rows;
    }
    if works_on_last_axis(graph, anchor) {
        let is_channels = |value: &ValueId| axes.get(value) == Some(&1) && is_image(graph, *value);
        let product = matches!(op, Op::MatMul(_));
        let constant = !product || graph.constant(inputs[1]).is_some();
        let images = if product { &group.inputs } else { &group.outputs };
        return if constant && images.iter().any(is_channels) { Use::Makes } else { Use::Rows };
    }
    if let Op::Reduce(reduce) = op {
        let rank = graph.fact(x).shape.len();
        let over_places = reduce.axes.len() + 2 == rank && reduce.axes.iter().all(|&axis| axis >= 2);
        return if over_places { Use::Reads(x) } else { Use::Rows };
    }
    if let Op::Concat(concat) = op {
        // Blocks of the inputs must be blocks of the result.
        let whole = inputs.iter().all(|&input| channels(input).is_multiple_of(block));
        return if concat.axis == 1 && whole { Use::Keeps } else { Use::Rows };
    }
    if matches!(op, Op::Pool(_)) { Use::Keeps } else { Use::Rows }
}
