//! Operators whose result is known when the model is compiled.

use super::{Call, Refusal, Row, Values, row};
use crate::graph::ValueId;
use crate::ops::Fact;
use crate::tensor::{DType, Tensor};

const WINDOW: &[&str] = &["output_datatype", "periodic"];

pub(super) const ROWS: &[Row] = &[
    row(
        "Constant",
        &[
            "value",
            "value_float",
            "value_floats",
            "value_int",
            "value_ints",
            "value_string",
            "value_strings",
            "sparse_value",
        ],
        constant,
    ),
    row("ConstantOfShape", &["value"], constant_of_shape),
    row("EyeLike", &["dtype", "k"], eye_like),
    row("Range", &["stash_type"], range),
    row("Shape", &["start", "end"], shape),
    row("Size", &[], size),
    row("HannWindow", WINDOW, |call| cosine_window(call, [0.5, 0.5, 0.0])),
    row("HammingWindow", WINDOW, |call| cosine_window(call, [25.0 / 46.0, 21.0 / 46.0, 0.0])),
    row("BlackmanWindow", WINDOW, |call| cosine_window(call, [0.42, 0.5, 0.08])),
];

fn constant(call: &mut Call<'_>) -> Values {
    let tensor = if let Some(tensor) = call.tensor("value")? {
        tensor
    } else if call.has_attribute("value_float") {
        Tensor::scalar(call.float("value_float", 0.0)?)
    } else if let Some(values) = call.floats("value_floats")? {
        Tensor::from_slice(&[values.len()], &values)
    } else if call.has_attribute("value_int") {
        Tensor::scalar(call.int("value_int", 0)?)
    } else if let Some(values) = call.ints("value_ints")? {
        Tensor::from_slice(&[values.len()], &values)
    } else if call.has_attribute("sparse_value") {
        return Err(Refusal::unsupported("sparse constants"));
    } else if call.has_attribute("value_string") || call.has_attribute("value_strings") {
        return Err(Refusal::unsupported("tensors of strings"));
    } else {
        return Err(Refusal::invalid("it has no value"));
    };
    Ok(vec![call.constant(tensor)])
}

fn constant_of_shape(call: &mut Call<'_>) -> Values {
    let shape = call.known_ints(0, "shape")?.ok_or_else(|| Refusal::invalid("input 0 is missing"))?;
    let shape = call.extents(&shape, "extents")?;
    let value = call.tensor("value")?.unwrap_or_else(|| Tensor::scalar(0.0f32));
    if value.len() != 1 {
        return Err(Refusal::invalid(format!("the value has {} elements", value.len())));
    }
    let value = call.constant(value);
    let scalar = call.view(value, vec![])?;
    Ok(vec![call.broadcast(scalar, shape)?])
}

fn eye_like(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let fact = call.fact(x);
    let [rows, columns] = fact.shape[..] else {
        return Err(Refusal::invalid(format!("{fact} is no matrix")));
    };
    let dtype = call.dtype_attribute("dtype")?.unwrap_or(fact.dtype);
    let k = call.int("k", 0)?;
    let one = |i: usize| (i % columns) as i64 == ((i / columns) as i64).saturating_add(k);
    Ok(vec![call.generate(dtype, &[rows, columns], |i| f64::from(u8::from(one(i))))?])
}

fn range(call: &mut Call<'_>) -> Values {
    let scalar = |call: &Call<'_>, i: usize, what: &str| -> Result<Tensor, Refusal> {
        match call.known(i, what)? {
            Some(tensor) if tensor.len() == 1 => Ok(tensor),
            Some(tensor) => Err(Refusal::invalid(format!("the {what} is {:?}", tensor.shape()))),
            None => Err(Refusal::invalid(format!("the {what} is missing"))),
        }
    };
    let (start, limit, delta) =
        (scalar(call, 0, "start")?, scalar(call, 1, "limit")?, scalar(call, 2, "delta")?);
    let dtype = start.dtype();
    let (first, step) = (start.get_f64(0), delta.get_f64(0));
    if step == 0.0 || dtype == DType::Bool || [limit.dtype(), delta.dtype()] != [dtype; 2] {
        return Err(Refusal::invalid(format!("no range from {start:?} to {limit:?} by {delta:?}")));
    }
    let count = ((limit.get_f64(0) - first) / step).ceil().max(0.0) as usize;
    Ok(vec![call.generate(dtype, &[count], |i| first + i as f64 * step)?])
}

fn shape(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let shape = call.shape(x);
    let rank = shape.len() as i64;
    let bound =
        |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
    let (start, end) = (bound(call.int("start", 0)?), bound(call.int("end", rank)?));
    let dims: Vec<i64> = shape[start..end.max(start)].iter().map(|&dim| dim as i64).collect();
    Ok(vec![integers(call, &dims)])
}

fn size(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let Fact { shape, .. } = call.fact(x);
    Ok(vec![call.constant(Tensor::scalar(shape.iter().product::<usize>() as i64))])
}

fn integers(call: &mut Call<'_>, values: &[i64]) -> ValueId {
    call.constant(Tensor::from_slice(&[values.len()], values))
}

/// `a[0] - a[1] cos(2 pi i / n) + a[2] cos(4 pi i / n)`, where `n` is the size, or one less when the window is symmetric.
fn cosine_window(call: &mut Call<'_>, a: [f64; 3]) -> Values {
    let size = call.known_int(0, "size")?.ok_or_else(|| Refusal::invalid("the size is missing"))?;
    let size = call.extents(&[size], "sizes")?[0];
    let dtype = call.dtype_attribute("output_datatype")?.unwrap_or(DType::F32);
    let period = if call.flag("periodic", true)? { size } else { size.saturating_sub(1) }.max(1) as f64;
    let value = |i: usize| {
        let angle = std::f64::consts::TAU * i as f64 / period;
        a[0] - a[1] * angle.cos() + a[2] * (2.0 * angle).cos()
    };
    Ok(vec![call.generate(dtype, &[size], value)?])
}
