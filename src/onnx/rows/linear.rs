//! Matrix products and convolutions.

use super::window::Window;
use super::{Call, Refusal, Row, Values, row};
use crate::graph::ValueId;
use crate::ops::{Conv, Literal, MatMul, Pad, PadMode, Scalar, Slice, SliceAxis};

pub(super) const ROWS: &[Row] = &[
    row("MatMul", &[], |call| {
        let (a, b) = (call.input(0)?, call.input(1)?);
        Ok(vec![matmul(call, a, b)?])
    }),
    row("Gemm", &["alpha", "beta", "transA", "transB", "broadcast"], gemm),
    row("Conv", CONV, |call| {
        let (x, w, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
        Ok(vec![convolution(call, x, w, bias, 0)?])
    }),
    row(
        "ConvTranspose",
        &[
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "output_padding",
            "output_shape",
            "pads",
            "strides",
        ],
        conv_transpose,
    ),
];

/// The attributes of a convolution.
pub(super) const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// The product of NumPy: a vector is a row on the left and a column on the right, and its axis is dropped again.
pub(super) fn matmul(call: &mut Call<'_>, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
    let (mut left, mut right) = (call.shape(a), call.shape(b));
    let (vector_a, vector_b) = (left.len() == 1, right.len() == 1);
    if vector_a {
        left.insert(0, 1);
    }
    if vector_b {
        right.push(1);
    }
    let (a, b) = (call.view(a, left)?, call.view(b, right)?);
    let product = call.add(MatMul::default(), &[a, b])?;
    let mut shape = call.shape(product);
    if vector_b {
        shape.pop();
    }
    if vector_a {
        shape.remove(shape.len() - if vector_b { 1 } else { 2 });
    }
    call.view(product, shape)
}

/// `alpha * a * b + beta * c`.
fn gemm(call: &mut Call<'_>) -> Values {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    let op = MatMul { transpose_a: call.flag("transA", false)?, transpose_b: call.flag("transB", false)? };
    if call.rank(a) != 2 || call.rank(b) != 2 {
        return Err(Refusal::invalid(format!("{} and {} are not matrices", call.fact(a), call.fact(b))));
    }
    let product = call.add(op, &[a, b])?;
    let dtype = call.dtype(product);
    let scaled = |x: Scalar, by: f32| {
        if by == 1.0 { x } else { Scalar::constant(f64::from(by), dtype).times(x) }
    };
    let result = match call.optional(2).filter(|_| beta != 0.0) {
        Some(c) => {
            let sum =
                call.map(&[product, c], |x| scaled(x[0].clone(), alpha).plus(scaled(x[1].clone(), beta)))?;
            if call.shape(sum) != call.shape(product) {
                return Err(Refusal::invalid(format!("{} does not broadcast to the product", call.fact(c))));
            }
            sum
        }
        None if alpha == 1.0 => product,
        None => call.map(&[product], |x| scaled(x[0].clone(), alpha))?,
    };
    Ok(vec![result])
}

/// The convolution that the node's attributes describe, of other operands than its inputs, whose edge is as stated.
pub(super) fn convolution(
    call: &mut Call<'_>,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
    edge: i64,
) -> Result<ValueId, Refusal> {
    let kernel = kernel(call, w)?;
    let Window { strides, dilations, pads, .. } = Window::read(call, x, kernel)?;
    let groups = groups(call)?;
    let inputs: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
    call.add(Conv { strides, dilations, pads, groups, edge, algorithm: None }, &inputs)
}

/// The kernel's extents, which `kernel_shape` must agree with.
fn kernel(call: &Call<'_>, w: ValueId) -> Result<Vec<usize>, Refusal> {
    let kernel = call.shape(w).get(2..).unwrap_or(&[]).to_vec();
    match call.ints("kernel_shape")? {
        Some(stated) if call.extents(&stated, "kernel extents")? != kernel => {
            Err(Refusal::invalid(format!("kernel_shape is {stated:?}, but the weights are {}", call.fact(w))))
        }
        Some(_) | None => Ok(kernel),
    }
}

fn groups(call: &Call<'_>) -> Result<usize, Refusal> {
    let groups = call.int("group", 1)?;
    usize::try_from(groups)
        .ok()
        .filter(|&groups| groups > 0)
        .ok_or_else(|| call.bad_attribute("group", groups))
}

/// The convolution of `x`, with zeros between its elements, with the mirrored kernel.
fn conv_transpose(call: &mut Call<'_>) -> Values {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (kernel, groups) = (kernel(call, w)?, groups(call)?);
    let rank = kernel.len();
    let shape = call.shape(x);
    let of_weights = call.shape(w);
    if shape.len() != rank + 2 || rank == 0 || !of_weights[0].is_multiple_of(groups) {
        return Err(Refusal::invalid(format!("{} does not fit {}", call.fact(w), call.fact(x))));
    }
    let window = transposed_window(call, &shape[2..], &kernel)?;
    let mut spread = x;
    for axis in 0..rank {
        spread = spread_out(call, spread, axis + 2, window.strides[axis])?;
    }
    // w[C, K / groups, r..] as [K, C / groups, r..], mirrored in r.
    let (depth, filters) = (of_weights[0] / groups, of_weights[1]);
    let grouped = call.view(w, [&[groups, depth, filters], &kernel[..]].concat())?;
    let perm: Vec<usize> = [0, 2, 1].into_iter().chain(3..rank + 3).collect();
    let swapped = call.transpose(grouped, perm)?;
    let total = groups.checked_mul(filters).ok_or_else(|| Refusal::invalid("too many filters"))?;
    let swapped = call.view(swapped, [&[total, depth], &kernel[..]].concat())?;
    let mut axes = vec![SliceAxis::all(total), SliceAxis::all(depth)];
    axes.extend(kernel.iter().map(|&size| SliceAxis { start: size - 1, step: -1, size }));
    let mirrored =
        if kernel.iter().all(|&size| size == 1) { swapped } else { call.add(Slice { axes }, &[swapped])? };

    // Output element 0 lies pads.0 behind the first full overlap; negative padding cuts.
    let (mut pads, mut cuts) = (Vec::new(), Vec::new());
    for (axis, &extent) in kernel.iter().enumerate() {
        let reach = (extent - 1) * window.dilations[axis];
        let (before, after) = (
            reach as i64 - window.pads[axis].0 as i64,
            reach as i64 - window.pads[axis].1 as i64 + window.output_padding[axis] as i64,
        );
        pads.push((before.max(0) as usize, after.max(0) as usize));
        cuts.push(((-before).max(0) as usize, (-after).max(0) as usize));
    }
    let op =
        Conv { strides: vec![1; rank], dilations: window.dilations, pads, groups, edge: 0, algorithm: None };
    let inputs: Vec<ValueId> = [spread, mirrored].into_iter().chain(call.optional(2)).collect();
    let mut result = call.add(op, &inputs)?;
    for (axis, (before, after)) in cuts.into_iter().enumerate() {
        let size = call.shape(result)[axis + 2].checked_sub(before + after);
        let size = size.ok_or_else(|| Refusal::invalid("the pads cut more than there is"))?;
        result = call.slice(result, axis + 2, before, size)?;
    }
    Ok(vec![result])
}

struct TransposedWindow {
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<(usize, usize)>,
    output_padding: Vec<usize>,
}

/// The attributes of a transposed convolution over the extents `spatial`, with automatic padding worked out.
fn transposed_window(
    call: &Call<'_>,
    spatial: &[usize],
    kernel: &[usize],
) -> Result<TransposedWindow, Refusal> {
    const LARGEST: usize = 1 << 24;
    let rank = kernel.len();
    let list = |name: &str, length: usize, default: usize| -> Result<Vec<usize>, Refusal> {
        let values = match call.ints(name)? {
            Some(values) => call.extents(&values, name)?,
            None => vec![default; length],
        };
        if values.len() == length && values.iter().all(|&value| value < LARGEST) {
            Ok(values)
        } else {
            Err(call.bad_attribute(name, values))
        }
    };
    let (strides, dilations) = (list("strides", rank, 1)?, list("dilations", rank, 1)?);
    let mut output_padding = list("output_padding", rank, 0)?;
    let fits = |values: &[usize]| values.iter().all(|&value| value > 0 && value < LARGEST);
    if !fits(&strides) || !fits(&dilations) || !fits(kernel) || !fits(spatial) {
        return Err(Refusal::invalid("strides, dilations, kernel and input must not be empty or huge"));
    }
    let auto_pad = call.string("auto_pad", "NOTSET")?;
    let same = match &*auto_pad {
        "SAME_UPPER" | "SAME_LOWER" => true,
        "NOTSET" | "VALID" | "" => false,
        _ => return Err(call.bad_attribute("auto_pad", auto_pad)),
    };
    let wanted = match call.ints("output_shape")? {
        Some(shape) => Some(call.extents(&shape, "output_shape")?),
        None if same => Some(spatial.iter().zip(&strides).map(|(&dim, &stride)| dim * stride).collect()),
        None => None,
    };
    let mut pads = Vec::with_capacity(rank);
    match wanted {
        None if auto_pad == "VALID" => pads.extend(vec![(0, 0); rank]),
        None => {
            let values = list("pads", 2 * rank, 0)?;
            pads.extend((0..rank).map(|axis| (values[axis], values[axis + rank])));
        }
        Some(wanted) => {
            // Some exporters give the batch and the channels too.
            let wanted =
                wanted.get(wanted.len().saturating_sub(rank)..).filter(|wanted| wanted.len() == rank);
            let wanted = wanted.ok_or_else(|| call.bad_attribute("output_shape", wanted))?;
            for axis in 0..rank {
                let reach = (kernel[axis] - 1) * dilations[axis] + 1;
                let full = strides[axis] * (spatial[axis] - 1) + output_padding[axis] + reach;
                let total = full.saturating_sub(wanted[axis]);
                output_padding[axis] += wanted[axis].saturating_sub(full).min(LARGEST);
                let (less, more) = (total / 2, total - total / 2);
                pads.push(if auto_pad == "SAME_UPPER" { (less, more) } else { (more, less) });
            }
        }
    }
    Ok(TransposedWindow { strides, dilations, pads, output_padding })
}

/// `stride - 1` zeros between the elements of an axis.
fn spread_out(call: &mut Call<'_>, x: ValueId, axis: usize, stride: usize) -> Result<ValueId, Refusal> {
    if stride == 1 {
        return Ok(x);
    }
    let mut shape = call.shape(x);
    let extent = shape[axis];
    shape.insert(axis + 1, 1);
    let split = call.view(x, shape.clone())?;
    let mut pads = vec![(0, 0); shape.len()];
    pads[axis + 1] = (0, stride - 1);
    let mode = PadMode::Constant(Literal::zero(call.dtype(x)));
    let padded = call.add(Pad { pads, mode }, &[split])?;
    shape.remove(axis + 1);
    shape[axis] = extent * stride;
    let joined = call.view(padded, shape)?;
    call.slice(joined, axis, 0, (extent - 1) * stride + 1)
}
