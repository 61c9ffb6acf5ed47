//! How the values between groups lie in memory.
//!
//! A convolution sums over channels for many output channels at once. Where channels lie in blocks of a vector, its inputs and
//! results are vectors as they are in memory, with no packing before and no transposing behind. The layout costs nothing where
//! every group that touches a value works on blocks: so it is chosen over the whole graph.
//!
//! # Rules
//! Every value between groups whose channels fill blocks starts out in blocks. A group that has no use for blocks takes them from
//! the values it touches; a group that works on several values alike (a sum, a concatenation, a pooling) takes them from all if
//! one has none. A convolution reads either layout, but blocks only where its result has blocks. Repeated until nothing changes.

use super::Group;
use crate::graph::{Graph, Node, Op, ValueId};
use crate::tensor::{DType, MemoryLayout};

/// The layouts of a graph's values; rows for those it does not know.
#[derive(Clone, Debug, Default)]
pub struct Layouts(Vec<MemoryLayout>);

impl Layouts {
    /// The layout of a value.
    pub fn of(&self, value: ValueId) -> MemoryLayout {
        self.0.get(value.index()).copied().unwrap_or_default()
    }

    /// How many values lie in blocks.
    pub fn blocked(&self) -> usize {
        self.0.iter().filter(|&&layout| layout != MemoryLayout::Rows).count()
    }

    fn in_blocks(&self, value: ValueId) -> bool {
        self.of(value) != MemoryLayout::Rows
    }

    /// Whether that changed the layout.
    fn into_rows(&mut self, value: ValueId) -> bool {
        let changed = self.in_blocks(value);
        if changed {
            self.0[value.index()] = MemoryLayout::Rows;
        }
        changed
    }

    /// All of `values` in rows if one is; whether that changed a layout.
    fn alike(&mut self, values: &[ValueId]) -> bool {
        let rows = values.iter().any(|&value| !self.in_blocks(value));
        rows && values.iter().fold(false, |changed, &value| self.into_rows(value) | changed)
    }
}

/// Chooses how the values between `groups` lie, channels in blocks of `block` or in rows.
pub fn lay_out(graph: &Graph, groups: &[Group], block: usize) -> Layouts {
    let blocks = MemoryLayout::ChannelBlocks(block);
    let mut layouts = Layouts(vec![MemoryLayout::Rows; graph.values().len()]);
    for &value in groups.iter().flat_map(|group| &group.outputs) {
        let fact = graph.fact(value);
        let output = graph.outputs().iter().any(|output| output.value == value);
        if !output && fact.dtype == DType::F32 && is_image(graph, value) && blocks.fits(&fact.shape) {
            layouts.0[value.index()] = blocks;
        }
    }
    while groups.iter().fold(false, |changed, group| restrict(graph, group, &mut layouts) | changed) {}
    layouts
}

/// Whether a value has channels and places that each have them.
fn is_image(graph: &Graph, value: ValueId) -> bool {
    let shape = &graph.fact(value).shape;
    shape.len() >= 3 && shape[2..].iter().product::<usize>() > 1
}

/// Takes blocks from values where `group` demands it; whether it did.
fn restrict(graph: &Graph, group: &Group, layouts: &mut Layouts) -> bool {
    let touched: Vec<ValueId> = group.inputs.iter().chain(&group.outputs).copied().collect();
    if !touched.iter().any(|&value| layouts.in_blocks(value)) {
        return false;
    }
    // What is computed element by element must lie like the result; smaller operands are read for each of its places.
    let images = |values: &[ValueId]| -> Vec<ValueId> {
        let known = |value: &ValueId| graph.constant(*value).is_none() && is_image(graph, *value);
        values.iter().copied().filter(known).collect()
    };
    let elementwise = group.nodes().filter(|&node| Some(node) != group.anchor).all(|node| {
        let Node { op, inputs, .. } = &graph.nodes()[node];
        let spreads = matches!(op, Op::Broadcast(_));
        // Where no place is left, or only rows come in, it does not see the layout.
        let sees = inputs
            .iter()
            .any(|&input| if spreads { layouts.in_blocks(input) } else { is_image(graph, input) });
        matches!(op, Op::Map(_)) || !sees
    });
    let alike = if !elementwise {
        None
    } else if let Some(anchor) = group.anchor {
        let Node { op, inputs, .. } = &graph.nodes()[anchor];
        let x = inputs[0];
        if let Op::Conv(conv) = op
            && conv.groups == 1
        {
            let others: Vec<ValueId> = touched.iter().copied().filter(|&value| value != x).collect();
            let changed = layouts.alike(&images(&others));
            let rows = !group.outputs.iter().all(|&output| layouts.in_blocks(output));
            return (rows && layouts.into_rows(x)) | changed;
        }
        if let Op::Reduce(reduce) = op {
            let rank = graph.fact(x).shape.len();
            let over_places = reduce.axes.len() + 2 == rank && reduce.axes.iter().all(|&axis| axis >= 2);
            over_places.then(Vec::new)
        } else if let Op::Concat(concat) = op {
            (concat.axis == 1).then(|| touched.clone())
        } else {
            matches!(op, Op::Pool(_)).then(|| images(&touched))
        }
    } else {
        Some(images(&touched))
    };
    match alike {
        Some(values) if group.prologue.is_empty() => layouts.alike(&values),
        Some(_) | None => touched.iter().fold(false, |changed, &value| layouts.into_rows(value) | changed),
    }
}
