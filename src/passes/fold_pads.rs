//! Explicit padding becomes the padding of the window behind it.

use crate::graph::{Graph, Op};
use crate::ops::{Conv, Pad, PadMode};

/// Replaces `conv(pad(x))`, where the pad puts zeros around the spatial dimensions, by a convolution with larger pads.
pub fn fold_pads(graph: &Graph) -> Graph {
    graph.rewrite(|step| {
        let Op::Conv(conv) = &step.node.op else { return None };
        let before = &step.new.nodes()[step.new.producer(step.inputs[0])?];
        let (Op::Pad(Pad { pads, mode: PadMode::Constant(value) }), &[x]) = (&before.op, &before.inputs[..])
        else {
            return None;
        };
        if value.as_f64() != conv.edge as f64 || pads[..2] != [(0, 0); 2] {
            return None;
        }
        let pads =
            conv.pads.iter().zip(&pads[2..]).map(|(own, more)| (own.0 + more.0, own.1 + more.1)).collect();
        let inputs: Vec<_> = [x].iter().chain(&step.inputs[1..]).copied().collect();
        step.add(Conv { pads, ..conv.clone() }, &inputs).ok()
    })
}
