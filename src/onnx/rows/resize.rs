//! Resampling, one axis after the other: what an output element reads, and with which weights, is known when the model is
//! compiled.

use super::{Call, Refusal, Row, Values, row};
use crate::expr::BinaryOp;
use crate::graph::ValueId;
use crate::ops::{Gather, MatMul, Scalar};
use crate::tensor::{DType, Tensor};

pub(super) const ROWS: &[Row] = &[
    row("Upsample", &["mode", "scales"], upsample),
    row("Resize", &["mode"], resize_10).until(10),
    row(
        "Resize",
        &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
        resize,
    )
    .since(11),
];

/// The most weights that are worked out for an axis.
const MOST_WEIGHTS: f64 = (1 << 24) as f64;

/// More taps than this are a matrix product.
const MOST_GATHERED_TAPS: usize = 4;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest(Rounding),
    Linear,
    Cubic { a: f64 },
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Clone, Copy, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    HalfPixelOfNearest,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    CropAndResize,
}

struct Options {
    mode: Mode,
    coordinates: Coordinates,
    antialias: bool,
    exclude_outside: bool,
    extrapolation: f64,
}

/// One axis: from `extent` elements to `size`, `scale` wider, of the part between the fractions `roi` of the axis.
struct Axis {
    axis: usize,
    extent: usize,
    size: usize,
    scale: f64,
    roi: (f64, f64),
}

impl Options {
    fn asymmetric(mode: &str) -> Result<Options, Refusal> {
        let mode = match mode {
            "nearest" => Mode::Nearest(Rounding::Floor),
            "linear" | "bilinear" => Mode::Linear,
            other => return Err(Refusal::invalid(format!("attribute mode is {other:?}"))),
        };
        Ok(Options {
            mode,
            coordinates: Coordinates::Asymmetric,
            antialias: false,
            exclude_outside: false,
            extrapolation: 0.0,
        })
    }

    /// Where the center of output element `i` lies among the inputs.
    fn position(&self, axis: &Axis, i: usize) -> f64 {
        let (x, extent, size) = (i as f64, axis.extent as f64, axis.size as f64);
        let half_pixel = (x + 0.5) / axis.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = size / (axis.scale * extent);
                extent / 2.0 * (1.0 - adjustment) + half_pixel
            }
            Coordinates::HalfPixelOfNearest => (x + 0.5) / axis.scale,
            Coordinates::PytorchHalfPixel => {
                if axis.size > 1 {
                    half_pixel
                } else {
                    0.0
                }
            }
            // The corner is where the scale puts it, even if no whole element lies there.
            Coordinates::AlignCorners => match axis.scale * extent - 1.0 {
                reach if reach > 0.0 => x * (extent - 1.0) / reach,
                _ => 0.0,
            },
            Coordinates::Asymmetric => x / axis.scale,
            Coordinates::CropAndResize => {
                let (start, end) = axis.roi;
                if axis.size > 1 {
                    start * (extent - 1.0) + x * (end - start) * (extent - 1.0) / (size - 1.0)
                } else {
                    0.5 * (start + end) * (extent - 1.0)
                }
            }
        }
    }

    /// Inputs and weights of output element `i`, the same number of them for all elements of an axis.
    fn taps(&self, axis: &Axis, i: usize) -> Vec<(usize, f64)> {
        let x = self.position(axis, i);
        let last = axis.extent as f64 - 1.0;
        let clamped = |place: f64| place.clamp(0.0, last) as usize;
        let (reach, a) = match self.mode {
            Mode::Nearest(rounding) => {
                let place = match rounding {
                    Rounding::PreferFloor => (x - 0.5).ceil(),
                    Rounding::PreferCeil => (x + 0.5).floor(),
                    Rounding::Floor => x.floor(),
                    Rounding::Ceil => x.ceil(),
                };
                return vec![(clamped(place), 1.0)];
            }
            Mode::Linear => (1.0, None),
            Mode::Cubic { a } => (2.0, Some(a)),
        };
        let stretch = if self.antialias { axis.scale.min(1.0) } else { 1.0 };
        let first = (-reach / stretch).floor() as i64 + 1;
        let base = x.floor();
        let mut taps: Vec<(usize, f64)> = (first..=1 - first)
            .map(|offset| {
                let place = base + offset as f64;
                let weight = kernel(((offset as f64) - (x - base)) * stretch, a);
                let outside = self.exclude_outside && !(0.0..=last).contains(&place);
                (clamped(place), if outside { 0.0 } else { weight })
            })
            .collect();
        if self.antialias || self.exclude_outside {
            let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
            taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        taps
    }
}

/// The triangle of linear interpolation, or the cubic convolution kernel with parameter `a` (Keys, "Cubic convolution
/// interpolation for digital image processing", 1981).
fn kernel(distance: f64, a: Option<f64>) -> f64 {
    let d = distance.abs();
    match a {
        None => (1.0 - d).max(0.0),
        Some(a) if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
        Some(a) if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
        Some(_) => 0.0,
    }
}

fn upsample(call: &mut Call<'_>) -> Values {
    let scales = match call.floats("scales")? {
        Some(scales) => scales.into_iter().map(f64::from).collect(),
        None => {
            call.known(1, "scales")?.ok_or_else(|| Refusal::invalid("the scales are missing"))?.to_f64_vec()
        }
    };
    let options = Options::asymmetric(&call.string("mode", "nearest")?)?;
    by_scales(call, &options, &scales)
}

fn resize_10(call: &mut Call<'_>) -> Values {
    let scales =
        call.known(1, "scales")?.ok_or_else(|| Refusal::invalid("the scales are missing"))?.to_f64_vec();
    let options = Options::asymmetric(&call.string("mode", "nearest")?)?;
    by_scales(call, &options, &scales)
}

fn by_scales(call: &mut Call<'_>, options: &Options, scales: &[f64]) -> Values {
    let shape = call.shape(call.input(0)?);
    if scales.len() != shape.len() {
        return Err(Refusal::invalid(format!("{scales:?} are not one scale an axis of {shape:?}")));
    }
    let axes = shape.iter().zip(scales).enumerate().map(|(axis, (&extent, &scale))| Axis {
        axis,
        extent,
        size: scaled(extent, scale),
        scale,
        roi: (0.0, 1.0),
    });
    resample(call, options, &axes.collect::<Vec<_>>())
}

fn scaled(extent: usize, scale: f64) -> usize {
    (extent as f64 * scale).floor() as usize
}

fn resize(call: &mut Call<'_>) -> Values {
    let shape = call.shape(call.input(0)?);
    let rounding = match &*call.string("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => Rounding::PreferFloor,
        "round_prefer_ceil" => Rounding::PreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => return Err(call.bad_attribute("nearest_mode", other)),
    };
    let mode = match &*call.string("mode", "nearest")? {
        "nearest" => Mode::Nearest(rounding),
        "linear" => Mode::Linear,
        "cubic" => Mode::Cubic { a: f64::from(call.float("cubic_coeff_a", -0.75)?) },
        other => return Err(call.bad_attribute("mode", other)),
    };
    let coordinates = match &*call.string("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "tf_half_pixel_for_nn" => Coordinates::HalfPixelOfNearest,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_crop_and_resize" => Coordinates::CropAndResize,
        other => return Err(call.bad_attribute("coordinate_transformation_mode", other)),
    };
    let options = Options {
        mode,
        coordinates,
        antialias: call.flag("antialias", false)?,
        exclude_outside: call.flag("exclude_outside", false)?,
        extrapolation: f64::from(call.float("extrapolation_value", 0.0)?),
    };
    let axes = match call.ints("axes")? {
        Some(axes) => axes.iter().map(|&axis| call.axis(axis, shape.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..shape.len()).collect(),
    };
    let given = |tensor: Option<Tensor>| tensor.filter(|tensor| !tensor.is_empty());
    let roi = match coordinates {
        Coordinates::CropAndResize => given(call.known(1, "roi")?).map(|roi| roi.to_f64_vec()),
        _ => None,
    };
    let roi = roi.unwrap_or_else(|| [vec![0.0; axes.len()], vec![1.0; axes.len()]].concat());
    let scales = given(call.known(2, "scales")?).map(|scales| scales.to_f64_vec());
    let sizes = call.known_ints(3, "sizes")?.filter(|sizes| !sizes.is_empty());
    let (scales, sizes) = match (scales, sizes) {
        (Some(scales), None) if scales.len() == axes.len() => {
            let sizes = axes.iter().zip(&scales).map(|(&axis, &scale)| scaled(shape[axis], scale)).collect();
            (scales, sizes)
        }
        (None, Some(sizes)) if sizes.len() == axes.len() => {
            let sizes = call.extents(&sizes, "sizes")?;
            let scales: Vec<f64> =
                axes.iter().zip(&sizes).map(|(&axis, &size)| size as f64 / shape[axis] as f64).collect();
            let one = match &*call.string("keep_aspect_ratio_policy", "stretch")? {
                "stretch" => None,
                "not_larger" => Some(scales.iter().copied().fold(f64::INFINITY, f64::min)),
                "not_smaller" => Some(scales.iter().copied().fold(0.0, f64::max)),
                other => return Err(call.bad_attribute("keep_aspect_ratio_policy", other)),
            };
            match one {
                None => (scales, sizes),
                Some(scale) => {
                    let size = |&axis: &usize| (shape[axis] as f64 * scale + 0.5).floor() as usize;
                    (vec![scale; axes.len()], axes.iter().map(size).collect())
                }
            }
        }
        _ => return Err(Refusal::invalid("either scales or sizes must be given, one an axis")),
    };
    if roi.len() != 2 * axes.len() {
        return Err(Refusal::invalid(format!("the roi {roi:?} is not one range an axis")));
    }
    let axes: Vec<Axis> = (0..axes.len())
        .map(|i| Axis {
            axis: axes[i],
            extent: shape[axes[i]],
            size: sizes[i],
            scale: scales[i],
            roi: (roi[i], roi[i + axes.len()]),
        })
        .collect();
    resample(call, &options, &axes)
}

fn resample(call: &mut Call<'_>, options: &Options, axes: &[Axis]) -> Values {
    let mut x = call.input(0)?;
    for axis in axes {
        if !(axis.scale.is_finite() && axis.scale > 0.0) || axis.extent == 0 {
            return Err(Refusal::invalid(format!("axis {} cannot be scaled by {}", axis.axis, axis.scale)));
        }
        let cropped = options.coordinates == Coordinates::CropAndResize && axis.roi != (0.0, 1.0);
        if axis.size == axis.extent && axis.scale == 1.0 && !cropped {
            continue;
        }
        let spread = if options.antialias { (1.0 / axis.scale).max(1.0) } else { 1.0 };
        if axis.size as f64 * spread > MOST_WEIGHTS || axis.extent as f64 > MOST_WEIGHTS {
            let (extent, size) = (axis.extent, axis.size);
            return Err(Refusal::unsupported(format!("resampling from {extent} to {size} elements")));
        }
        x = along(call, options, axis, x)?;
        if cropped {
            x = extrapolated(call, options, axis, x)?;
        }
    }
    Ok(vec![x])
}

fn along(call: &mut Call<'_>, options: &Options, axis: &Axis, x: ValueId) -> Result<ValueId, Refusal> {
    let taps: Vec<Vec<(usize, f64)>> = (0..axis.size).map(|i| options.taps(axis, i)).collect();
    let dtype = call.dtype(x);
    let count = taps.first().map_or(0, Vec::len);
    let column = |tap: usize| -> Vec<(usize, f64)> { taps.iter().map(|taps| taps[tap]).collect() };
    let indices = |call: &mut Call<'_>, taps: &[(usize, f64)]| {
        let places: Vec<i64> = taps.iter().map(|tap| tap.0 as i64).collect();
        call.constant(Tensor::from_slice(&[places.len()], &places))
    };
    if let Mode::Nearest(_) = options.mode {
        let factor = axis.size / axis.extent;
        if axis.size.is_multiple_of(axis.extent) && taps.iter().enumerate().all(|(i, t)| t[0].0 == i / factor)
        {
            return repeated(call, x, axis, factor);
        }
        let indices = indices(call, &column(0));
        return call.add(Gather { axis: axis.axis }, &[x, indices]);
    }
    let wide = if dtype.is_float() { x } else { call.cast(x, DType::F32)? };
    let float = call.dtype(wide);
    let result = if count <= MOST_GATHERED_TAPS {
        let mut sum: Option<ValueId> = None;
        for column in (0..count).map(column) {
            let indices = indices(call, &column);
            let part = call.add(Gather { axis: axis.axis }, &[wide, indices])?;
            let mut shape = vec![1; call.rank(x)];
            shape[axis.axis] = axis.size;
            let weights = call.generate(float, &shape, |i| column[i].1)?;
            sum = Some(match sum {
                None => call.binary(BinaryOp::Mul, part, weights)?,
                Some(sum) => {
                    call.map(&[sum, part, weights], |v| v[0].clone().plus(v[1].clone().times(v[2].clone())))?
                }
            });
        }
        sum.ok_or_else(|| Refusal::invalid("no element is left"))?
    } else {
        if axis.extent as f64 * axis.size as f64 > MOST_WEIGHTS {
            return Err(Refusal::unsupported(format!(
                "a filter from {} to {} elements",
                axis.extent, axis.size
            )));
        }
        let mut matrix = vec![0.0; axis.extent * axis.size];
        for (column, taps) in taps.iter().enumerate() {
            for &(row, weight) in taps {
                matrix[row * axis.size + column] += weight;
            }
        }
        let matrix = call.generate(float, &[axis.extent, axis.size], |i| matrix[i])?;
        let rank = call.rank(x);
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(axis.axis, rank - 1);
        let moved = call.transpose(wide, perm.clone())?;
        let rows = if rank == 1 { call.view(moved, vec![1, axis.extent])? } else { moved };
        let product = call.add(MatMul::default(), &[rows, matrix])?;
        let product = if rank == 1 { call.view(product, vec![axis.size])? } else { product };
        call.transpose(product, perm)?
    };
    call.cast(result, dtype)
}

/// Every element `factor` times: a view, a broadcast, a view.
fn repeated(call: &mut Call<'_>, x: ValueId, axis: &Axis, factor: usize) -> Result<ValueId, Refusal> {
    let mut shape = call.shape(x);
    shape.insert(axis.axis + 1, 1);
    let split = call.view(x, shape.clone())?;
    shape[axis.axis + 1] = factor;
    let wide = call.broadcast(split, shape.clone())?;
    shape.remove(axis.axis + 1);
    shape[axis.axis] = axis.size;
    call.view(wide, shape)
}

/// What lies outside of the input is the extrapolation value.
fn extrapolated(call: &mut Call<'_>, options: &Options, axis: &Axis, x: ValueId) -> Result<ValueId, Refusal> {
    let inside = |i: usize| (0.0..=axis.extent as f64 - 1.0).contains(&options.position(axis, i));
    let mut shape = vec![1; call.rank(x)];
    shape[axis.axis] = axis.size;
    let inside = call.generate(DType::Bool, &shape, |i| f64::from(u8::from(inside(i))))?;
    let value = Scalar::constant(options.extrapolation, call.dtype(x));
    call.map(&[inside, x], |v| v[0].clone().select(v[1].clone(), value))
}
