//! Operators that move elements.

use super::{Call, Refusal, Row, Values, row};
use crate::graph::ValueId;
use crate::ops::{Concat, Literal, Pad, PadMode, Slice, SliceAxis};
use crate::tensor::broadcast_shapes;

pub(super) const ROWS: &[Row] = &[
    row("Reshape", &["allowzero"], reshape),
    row("Flatten", &["axis"], flatten),
    row("Squeeze", &["axes"], squeeze),
    row("Unsqueeze", &["axes"], unsqueeze),
    row("Transpose", &["perm"], transpose),
    row("Expand", &[], expand),
    row("Tile", &[], tile),
    row("Concat", &["axis"], concat),
    row("Split", &["axis", "split", "num_outputs"], split),
    row("Slice", &["axes", "starts", "ends"], slice),
    row("Pad", &["mode", "pads", "value"], pad),
    row("DepthToSpace", &["blocksize", "mode"], depth_to_space),
    row("SpaceToDepth", &["blocksize", "mode"], space_to_depth),
];

fn reshape(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let wanted = call.known_ints(1, "shape")?.ok_or_else(|| Refusal::invalid("input 1 is missing"))?;
    let keep_zero = call.flag("allowzero", false)?;
    let shape = call.shape(x);
    let misfit = || Refusal::invalid(format!("{shape:?} cannot be reshaped to {wanted:?}"));
    let mut dims = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (axis, &dim) in wanted.iter().enumerate() {
        dims.push(match dim {
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            0 if !keep_zero => *shape.get(axis).ok_or_else(misfit)?,
            dim => usize::try_from(dim).map_err(|_| misfit())?,
        });
    }
    if let Some(axis) = open {
        let known = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let known = known.filter(|&known| known > 0).ok_or_else(misfit)?;
        dims[axis] = shape.iter().product::<usize>() / known;
    }
    Ok(vec![call.view(x, dims)?])
}

fn flatten(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let shape = call.shape(x);
    let axis = match call.int("axis", 1)? {
        axis if usize::try_from(axis) == Ok(shape.len()) => shape.len(),
        axis => call.axis(axis, shape.len())?,
    };
    let (outer, inner) = shape.split_at(axis);
    Ok(vec![call.view(x, vec![outer.iter().product(), inner.iter().product()])?])
}

fn squeeze(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let shape = call.shape(x);
    let axes = match call.ints_or_input("axes", 1)? {
        Some(axes) => call.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
        return Err(Refusal::invalid(format!("axis {axis} of {shape:?} has not extent 1")));
    }
    let kept = (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    Ok(vec![call.view(x, kept)?])
}

fn unsqueeze(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let shape = call.shape(x);
    let axes = call.ints_or_input("axes", 1)?.ok_or_else(|| Refusal::invalid("the axes are missing"))?;
    let rank = shape.len() + axes.len();
    let axes = call.axes(&axes, rank)?;
    let mut dims = shape.into_iter();
    let wide =
        (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { dims.next().unwrap_or(1) }).collect();
    Ok(vec![call.view(x, wide)?])
}

fn transpose(call: &mut Call<'_>) -> Values {
    call.takes_inputs(1)?;
    let x = call.input(0)?;
    let rank = call.rank(x);
    let perm = match call.ints("perm")? {
        None => (0..rank).rev().collect(),
        Some(perm) => perm.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?,
    };
    Ok(vec![call.transpose(x, perm)?])
}

/// Both shapes may widen the other.
fn expand(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let wanted = call.known_ints(1, "shape")?.ok_or_else(|| Refusal::invalid("input 1 is missing"))?;
    let wanted = call.extents(&wanted, "extents")?;
    let fact = call.fact(x);
    let shape = broadcast_shapes(&fact.shape, &wanted)
        .ok_or_else(|| Refusal::invalid(format!("{fact} does not broadcast with {wanted:?}")))?;
    Ok(vec![call.broadcast(x, shape)?])
}

/// `[d0, d1..]` as `[1, d0, 1, d1..]`, repeated to `[r0, d0, r1, d1..]`, as `[r0 * d0, r1 * d1..]`.
fn tile(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let repeats = call.known_ints(1, "repeats")?.ok_or_else(|| Refusal::invalid("input 1 is missing"))?;
    let repeats = call.extents(&repeats, "repeats")?;
    let shape = call.shape(x);
    if repeats.len() != shape.len() {
        return Err(Refusal::invalid(format!("{repeats:?} are not one repeat an axis of {shape:?}")));
    }
    let (mut split, mut wide, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for (&dim, &repeat) in shape.iter().zip(&repeats) {
        if repeat != 1 {
            split.push(1);
            wide.push(repeat);
        }
        split.push(dim);
        wide.push(dim);
        let product = dim.checked_mul(repeat);
        joined.push(product.ok_or_else(|| Refusal::invalid(format!("{repeats:?} repeats of {shape:?}")))?);
    }
    let split = call.view(x, split)?;
    let wide = call.broadcast(split, wide)?;
    Ok(vec![call.view(wide, joined)?])
}

fn concat(call: &mut Call<'_>) -> Values {
    let inputs = call.all_inputs()?;
    let axis = call.needed_int("axis")?;
    let axis = call.axis(axis, call.rank(inputs[0]))?;
    match inputs[..] {
        [x] => Ok(vec![x]),
        _ => Ok(vec![call.add(Concat { axis }, &inputs)?]),
    }
}

/// Sizes are given, or there are as many parts as outputs, the last one smaller where the extent does not divide.
fn split(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    let extent = call.shape(x)[axis];
    let sizes = match call.ints_or_input("split", 1)? {
        Some(sizes) => call.extents(&sizes, "sizes")?,
        None => {
            let count = call.output_count();
            if call.int("num_outputs", count as i64)? != count as i64 || count == 0 {
                return Err(Refusal::invalid(format!("it has {count} outputs")));
            }
            let size = extent.div_ceil(count);
            (0..count).map(|part| extent.saturating_sub(part * size).min(size)).collect()
        }
    };
    let total = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    if total != Some(extent) {
        return Err(Refusal::invalid(format!("sizes {sizes:?} do not add up to {extent}")));
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        parts.push(call.slice(x, axis, start, size)?);
        start += size;
    }
    Ok(parts)
}

fn slice(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let shape = call.shape(x);
    let missing = |what: &str| Refusal::invalid(format!("the {what} are missing"));
    let starts = call.ints_or_input("starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = call.ints_or_input("ends", 2)?.ok_or_else(|| missing("ends"))?;
    let axes = match call.ints_or_input("axes", 3)? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = call.known_ints(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Refusal::invalid("starts, ends, axes and steps differ in number"));
    }
    call.axes(&axes, shape.len())?;
    let mut result: Vec<SliceAxis> = shape.iter().map(|&dim| SliceAxis::all(dim)).collect();
    for i in 0..starts.len() {
        let axis = call.axis(axes[i], shape.len())?;
        result[axis] = slice_axis(shape[axis], starts[i], ends[i], steps[i])?;
    }
    if result.iter().zip(&shape).all(|(axis, &dim)| *axis == SliceAxis::all(dim)) {
        return Ok(vec![x]);
    }
    Ok(vec![call.add(Slice { axes: result }, &[x])?])
}

/// Clamps like a slice of Python: an end beyond the extent, or before the start when stepping down, is cut.
fn slice_axis(extent: usize, start: i64, end: i64, step: i64) -> Result<SliceAxis, Refusal> {
    let dim = extent as i64;
    let from_start = |value: i64| if value < 0 { value.saturating_add(dim) } else { value };
    let (start, count) = match step {
        0 => return Err(Refusal::invalid("a step is 0")),
        1.. => {
            let (start, end) = (from_start(start).clamp(0, dim), from_start(end).clamp(0, dim));
            (start, (end - start).max(0) as u64)
        }
        _ => {
            let start = from_start(start).clamp(-1, dim - 1);
            (start.max(0), (start - from_start(end).clamp(-1, dim - 1)).max(0) as u64)
        }
    };
    let size = count.div_ceil(step.unsigned_abs()) as usize;
    Ok(SliceAxis { start: start as usize, step, size })
}

fn pad(call: &mut Call<'_>) -> Values {
    let mut x = call.input(0)?;
    let rank = call.rank(x);
    let dtype = call.dtype(x);
    let pads = call.ints_or_input("pads", 1)?.ok_or_else(|| Refusal::invalid("the pads are missing"))?;
    let axes = match call.known_ints(3, "axes")? {
        Some(axes) => axes.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Refusal::invalid(format!("the pads {pads:?} do not fit {} axes", axes.len())));
    }
    let mode = match &*call.string("mode", "constant")? {
        "constant" => {
            let value = match call.known(2, "value")? {
                Some(value) if value.len() == 1 => super::super::call::literal(&value),
                Some(value) => {
                    return Err(Refusal::invalid(format!("the value has {} elements", value.len())));
                }
                None => Literal::new(f64::from(call.float("value", 0.0)?), dtype),
            };
            PadMode::Constant(value)
        }
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        "wrap" => PadMode::Wrap,
        other => return Err(call.bad_attribute("mode", other)),
    };
    let mut around = vec![(0, 0); rank];
    let mut kept: Vec<SliceAxis> = call.shape(x).iter().map(|&dim| SliceAxis::all(dim)).collect();
    for (i, &axis) in axes.iter().enumerate() {
        let amount = |value: i64| usize::try_from(value.max(0)).unwrap_or(usize::MAX);
        let (before, after) = (pads[i], pads[i + axes.len()]);
        around[axis] = (amount(before), amount(after));
        // Negative padding cuts.
        let (cut, cut_after) = (amount(before.saturating_neg()), amount(after.saturating_neg()));
        let size = kept[axis].size.checked_sub(cut).and_then(|size| size.checked_sub(cut_after));
        let size =
            size.ok_or_else(|| Refusal::invalid(format!("the pads {pads:?} cut more than there is")))?;
        kept[axis] = SliceAxis { start: cut, step: 1, size };
    }
    if call.shape(x).iter().zip(&kept).any(|(&dim, axis)| axis.size != dim) {
        x = call.add(Slice { axes: kept }, &[x])?;
    }
    Ok(vec![pad_or_same(call, x, around, mode)?])
}

fn pad_or_same(
    call: &mut Call<'_>,
    x: ValueId,
    pads: Vec<(usize, usize)>,
    mode: PadMode,
) -> Result<ValueId, Refusal> {
    if pads.iter().all(|&pad| pad == (0, 0)) { Ok(x) } else { call.add(Pad { pads, mode }, &[x]) }
}

/// Batch, channels, height and width, and the block size, which is positive.
fn blocks(call: &Call<'_>, x: ValueId) -> Result<([usize; 4], usize), Refusal> {
    let fact = call.fact(x);
    let shape = <[usize; 4]>::try_from(&fact.shape[..])
        .map_err(|_| Refusal::invalid(format!("{fact} has not 4 dimensions")))?;
    let block = call.int("blocksize", 0)?;
    let block = usize::try_from(block).ok().filter(|&block| block > 0 && block < 1 << 16);
    Ok((shape, block.ok_or_else(|| Refusal::invalid("the block size is not positive"))?))
}

fn depth_to_space(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let ([n, c, h, w], block) = blocks(call, x)?;
    let depth = c / (block * block);
    let (split, perm) = match &*call.string("mode", "DCR")? {
        "DCR" => (vec![n, block, block, depth, h, w], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => (vec![n, depth, block, block, h, w], vec![0, 1, 4, 2, 5, 3]),
        other => return Err(call.bad_attribute("mode", other)),
    };
    let split = call.view(x, split)?;
    let moved = call.transpose(split, perm)?;
    Ok(vec![call.view(moved, vec![n, depth, h.saturating_mul(block), w.saturating_mul(block)])?])
}

fn space_to_depth(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let ([n, c, h, w], block) = blocks(call, x)?;
    let perm = match &*call.string("mode", "DCR")? {
        "DCR" => vec![0, 3, 5, 1, 2, 4],
        "CRD" => vec![0, 1, 3, 5, 2, 4],
        other => return Err(call.bad_attribute("mode", other)),
    };
    let split = call.view(x, vec![n, c, h / block, block, w / block, block])?;
    let moved = call.transpose(split, perm)?;
    Ok(vec![call.view(moved, vec![n, c.saturating_mul(block * block), h / block, w / block])?])
}
