//! Operators that read or write at positions that are data.

use super::{Call, Refusal, Row, Values, row};
use crate::ops::{
    Gather, GatherElements, GatherNd, ScatterElements, ScatterNd, ScatterReduction, Slice, SliceAxis, TopK,
};

pub(super) const ROWS: &[Row] = &[
    row("Gather", &["axis"], gather),
    row("GatherElements", &["axis"], gather_elements),
    row("GatherND", &["batch_dims"], gather_nd),
    row("Scatter", &["axis"], scatter_elements).until(10),
    row("ScatterElements", &["axis", "reduction"], scatter_elements),
    row("ScatterND", &["reduction"], scatter_nd),
    row("TopK", &["axis", "k", "largest", "sorted"], top_k),
];

/// Known indices at a constant distance from each other select a slice.
fn gather(call: &mut Call<'_>) -> Values {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    let shape = call.shape(x);
    let known = call.known_ints(1, "indices").ok().flatten();
    let Some(part) = known.and_then(|known| progression(&known, shape[axis])) else {
        return Ok(vec![call.add(Gather { axis }, &[x, indices])?]);
    };
    let mut axes: Vec<SliceAxis> = shape.iter().map(|&dim| SliceAxis::all(dim)).collect();
    axes[axis] = part;
    let slice = if part == SliceAxis::all(shape[axis]) { x } else { call.add(Slice { axes }, &[x])? };
    let joined = [&shape[..axis], &call.shape(indices), &shape[axis + 1..]].concat();
    Ok(vec![call.view(slice, joined)?])
}

/// The part of an axis of `extent` elements that `indices` select, when they are evenly spaced and in range.
fn progression(indices: &[i64], extent: usize) -> Option<SliceAxis> {
    let at = |index: i64| {
        let index = if index < 0 { index + extent as i64 } else { index };
        usize::try_from(index).ok().filter(|&index| index < extent)
    };
    let places = indices.iter().map(|&index| at(index)).collect::<Option<Vec<usize>>>()?;
    let start = *places.first()?;
    let step = places.get(1).map_or(1, |&next| next as i64 - start as i64);
    let even = places.windows(2).all(|pair| pair[1] as i64 - pair[0] as i64 == step);
    (even && step != 0).then_some(SliceAxis { start, step, size: places.len() })
}

fn gather_elements(call: &mut Call<'_>) -> Values {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    Ok(vec![call.add(GatherElements { axis }, &[x, indices])?])
}

fn gather_nd(call: &mut Call<'_>) -> Values {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let batch_dims = call.int("batch_dims", 0)?;
    let batch_dims = usize::try_from(batch_dims).map_err(|_| call.bad_attribute("batch_dims", batch_dims))?;
    Ok(vec![call.add(GatherNd { batch_dims }, &[x, indices])?])
}

fn reduction(call: &Call<'_>) -> Result<ScatterReduction, Refusal> {
    Ok(match &*call.string("reduction", "none")? {
        "none" => ScatterReduction::Replace,
        "add" => ScatterReduction::Add,
        "mul" => ScatterReduction::Multiply,
        "max" => ScatterReduction::Max,
        "min" => ScatterReduction::Min,
        other => return Err(call.bad_attribute("reduction", other)),
    })
}

fn scatter_elements(call: &mut Call<'_>) -> Values {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    let reduction = reduction(call)?;
    Ok(vec![call.add(ScatterElements { axis, reduction }, &[x, indices, updates])?])
}

fn scatter_nd(call: &mut Call<'_>) -> Values {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let reduction = reduction(call)?;
    Ok(vec![call.add(ScatterNd { reduction }, &[x, indices, updates])?])
}

/// The order is that of sorted results, which unsorted ones may have too.
fn top_k(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let k = if call.has_attribute("k") { Some(call.int("k", 0)?) } else { call.known_int(1, "k")? };
    let k = k.ok_or_else(|| Refusal::invalid("k is missing"))?;
    let k = usize::try_from(k).map_err(|_| Refusal::invalid(format!("k is {k}")))?;
    let axis = call.int("axis", -1)?;
    let axis = call.axis(axis, call.rank(x))?;
    let largest = call.flag("largest", true)?;
    call.add_all(TopK { k, axis, largest }, &[x])
}
