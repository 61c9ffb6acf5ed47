//! Convolutions of few channels a group become ones of more.

use super::lay_out::fills_blocks;
use crate::graph::{Graph, Op};
use crate::ops::{Conv, ConvAlgorithm, OpDef};
use crate::target::CpuTarget;
use crate::tensor::Tensor;

/// Merges neighbouring groups of a convolution until the channels of one fill blocks of a vector of `target`, where a block then
/// has at most [`MOST_MERGED`] groups: weights between channels of different groups are 0. A convolution of each channel by itself
/// stays, as do those of weights that are not constant, and those that are computed by another algorithm than the definition.
///
/// Results are equal where all inputs are finite: 0 times an infinity is NaN, which an infinite input then gives to all channels that
/// its group was merged with.
pub fn merge_channel_groups(graph: &Graph, target: &CpuTarget) -> Graph {
    let block = target.isa.vector_lanes_f32();
    graph.rewrite(|step| {
        let Op::Conv(conv) = &step.node.op else { return None };
        if !matches!(conv.algorithm, None | Some(ConvAlgorithm::Direct)) {
            return None;
        }
        let [x, w, bias @ ..] = step.inputs.as_slice() else { return None };
        let (x, w, bias) = (*x, *w, bias.to_vec());
        let weights = step.new.constant(w)?.clone();
        let y = conv.infer(&[step.new.fact(x), step.new.fact(w)]).ok()?.pop()?;
        let (channels, filters) = (step.new.fact(x).shape[1] / conv.groups, y.shape[1] / conv.groups);
        let whole = |merged: &usize| {
            [channels, filters].into_iter().all(|of| (merged * of).is_multiple_of(block))
                && conv.groups.is_multiple_of(*merged)
        };
        let merged = (1..=MOST_MERGED).find(whole)?;
        if merged == 1 || (channels, filters) == (1, 1) || !fills_blocks(&y, block) {
            return None;
        }
        let name = format!("{}.merged", step.new.values()[w].name);
        let weights = step.new.add_constant(&name, block_diagonal(&weights, filters, merged));
        let conv = Conv { groups: conv.groups / merged, ..conv.clone() };
        step.add(conv, &[&[x, weights], bias.as_slice()].concat()).ok()
    })
}

/// Groups that become one at most: so many times the products are still fewer than what a convolution on rows loses.
pub const MOST_MERGED: usize = 4;

/// The weights of a convolution whose groups of `filters` are merged to groups of `merged` times as many.
fn block_diagonal(weights: &Tensor, filters: usize, merged: usize) -> Tensor {
    let (channels, window) = (weights.shape()[1], &weights.shape()[2..]);
    let places: usize = window.iter().product();
    let shape = [&[weights.shape()[0], merged * channels], window].concat();
    Tensor::from_fn(weights.dtype(), &shape, |at| {
        let (place, channel) = (at % places, at / places % (merged * channels));
        let filter = at / places / (merged * channels);
        if channel / channels == filter / filters % merged {
            weights.get_f64((filter * channels + channel % channels) * places + place)
        } else {
            0.0
        }
    })
}
