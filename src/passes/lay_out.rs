//! How the values between groups lie in memory.
//!
//! A convolution sums over channels for many output channels at once. Where channels lie in blocks of a vector, its inputs and
//! results are vectors as they are in memory, with no packing before and no transposing behind. The layout costs nothing between
//! groups that work on blocks: so it is chosen over the whole graph, and a value is converted where a group cannot.
//!
//! # Rules
//! In the order of evaluation: a convolution whose channels fill blocks, those of a group for itself, gives blocks, and reads either
//! layout; by Winograd's algorithm it reads blocks, and of a slice it reads rows. Pooling,
//! concatenation and what works element by element follow the larger part of what they read. A mean over all places reads either
//! layout. All else works on rows.

use super::Group;
use crate::graph::{Graph, Node, Op, ValueId};
use crate::ops::{ConvAlgorithm, Fact};
use crate::tensor::{DType, MemoryLayout};

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

/// What a group can do with blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It works on rows.
    Rows,
    /// It gives blocks, and reads this value as it lies.
    Gives(ValueId),
    /// It gives blocks, and reads this value in rows.
    GivesOfRows(ValueId),
    /// It reads and gives blocks.
    Blocks,
    /// It gives what it reads.
    Keeps,
    /// It reads this value as it lies, and gives rows.
    Reads(ValueId),
}

/// Chooses how the values between `groups` lie, channels in blocks of `block` or in rows; one layout a group, in order.
pub fn lay_out(graph: &Graph, groups: &[Group], block: usize) -> Vec<GroupLayout> {
    let blocks = MemoryLayout::ChannelBlocks(block);
    let mut made = vec![MemoryLayout::Rows; graph.values().len()];
    let mut layouts = vec![];
    for group in groups {
        let lies = |value: ValueId| made[value.index()];
        // What is computed for each place lies like the result; smaller operands are read for each of its places.
        let image = |value: ValueId| graph.constant(value).is_none() && is_image(graph, value);
        let touched = group.inputs.iter().chain(&group.outputs);
        let fits = touched.copied().filter(|&value| image(value)).all(|value| {
            let fact = graph.fact(value);
            fact.dtype == DType::F32 && blocks.fits(&fact.shape)
        });
        let (mut in_rows, mut in_blocks) = (0, 0);
        for &input in group.inputs.iter().filter(|&&input| image(input)) {
            let count = if lies(input) == blocks { &mut in_blocks } else { &mut in_rows };
            *count += graph.fact(input).len();
        }
        let role = role(graph, group, block);
        let gives = match role {
            // The value that is read as it lies need not fit.
            Use::Gives(x) | Use::GivesOfRows(x) => {
                let others = group.inputs.iter().filter(|&&input| input != x).chain(&group.outputs);
                let fit = |&value: &ValueId| !image(value) || blocks.fits(&graph.fact(value).shape);
                others.copied().all(|value| fit(&value))
            }
            Use::Blocks => fits,
            Use::Keeps => fits && in_blocks > in_rows,
            Use::Reads(_) | Use::Rows => false,
        };
        let read = |&input: &ValueId| match role {
            Use::Gives(x) | Use::Reads(x) if input == x => lies(input),
            Use::GivesOfRows(x) if input == x => MemoryLayout::Rows,
            Use::Gives(_) | Use::GivesOfRows(_) | Use::Blocks | Use::Keeps if gives && image(input) => blocks,
            Use::Gives(_) | Use::GivesOfRows(_) | Use::Blocks | Use::Keeps | Use::Reads(_) | Use::Rows => {
                MemoryLayout::Rows
            }
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

/// Whether a value has channels, and several places that have them.
fn is_image(graph: &Graph, value: ValueId) -> bool {
    let shape = &graph.fact(value).shape;
    shape.len() >= 3 && shape[2..].iter().product::<usize>() > 1
}

fn role(graph: &Graph, group: &Group, block: usize) -> Use {
    let elementwise = group.epilogue.iter().all(|&node| {
        let Node { op, inputs, .. } = &graph.nodes()[node];
        matches!(op, Op::Map(_)) || !inputs.iter().any(|&input| is_image(graph, input))
    });
    // What is sliced of channels begins anywhere in a block.
    let sliced = match group.prologue.as_slice() {
        [] => None,
        &[node] if matches!(graph.nodes()[node].op, Op::Slice(_)) => Some(&graph.nodes()[node]),
        _several => return Use::Rows,
    };
    if !elementwise {
        return Use::Rows;
    }
    let Some(anchor) = group.anchor else { return Use::Keeps };
    let Node { op, inputs, outputs, .. } = &graph.nodes()[anchor];
    let x = inputs[0];
    let channels = |value: ValueId| graph.fact(value).shape.get(1).copied().unwrap_or(0);
    if let Op::Conv(conv) = op {
        let depthwise = conv.groups == channels(x) && conv.groups == channels(outputs[0]);
        // Blocks that are mostly empty do more harm than good.
        let fill = channels(outputs[0]);
        let filled = is_image(graph, outputs[0]) && 4 * fill >= 3 * fill.next_multiple_of(block);
        let winograd = match conv.algorithm {
            None | Some(ConvAlgorithm::Direct) => false,
            Some(ConvAlgorithm::Winograd2 | ConvAlgorithm::Winograd4) => true,
        };
        // Blocks of a group are no other group's.
        let whole = [x, outputs[0]].into_iter().all(|of| channels(of).is_multiple_of(conv.groups * block));
        if let Some(slice) = sliced {
            let dense = filled && !winograd && conv.groups == 1 && slice.outputs[0] == x;
            return if dense { Use::GivesOfRows(slice.inputs[0]) } else { Use::Rows };
        }
        return match conv.groups {
            1 if filled && winograd => Use::Blocks,
            1 if filled => Use::Gives(x),
            _ if depthwise && filled => Use::Keeps,
            _ if whole && filled => Use::Gives(x),
            _ => Use::Rows,
        };
    }
    if sliced.is_some() {
        return Use::Rows;
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
