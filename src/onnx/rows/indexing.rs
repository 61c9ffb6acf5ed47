//! Operators that read or write at positions that are data.

use super::{Call, Refusal, Row, Values, row};
use crate::ops::{Gather, GatherElements, GatherNd, ScatterElements, ScatterNd, ScatterReduction, TopK};

pub(super) const ROWS: &[Row] = &[
    row("Gather", &["axis"], gather),
    row("GatherElements", &["axis"], gather_elements),
    row("GatherND", &["batch_dims"], gather_nd),
    row("Scatter", &["axis"], scatter_elements).until(10),
    row("ScatterElements", &["axis", "reduction"], scatter_elements),
    row("ScatterND", &["reduction"], scatter_nd),
    row("TopK", &["axis", "k", "largest", "sorted"], top_k),
];

fn gather(call: &mut Call<'_>) -> Values {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.int("axis", 0)?;
    let axis = call.axis(axis, call.rank(x))?;
    Ok(vec![call.add(Gather { axis }, &[x, indices])?])
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
