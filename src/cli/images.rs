//! Photographs as inputs.

use super::arguments::ModelArguments;
use crate::onnx::{Dim, InputDecl};
use crate::tensor::{DType, Tensor};
use image::imageops::{FilterType, crop_imm, resize};
use image::{ImageReader, RgbImage};
use std::path::Path;

/// Where an image-shaped input has its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `[.., C, H, W]`
    ChannelsFirst,
    /// `[.., H, W, C]`
    ChannelsLast,
}

/// How values 0 to 255 become elements.
struct Values {
    scale: f32,
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// Whether a file is read as an image.
pub(super) fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The image at `path` as `input` wants it, and a sentence on what was done to it. `dims` are the input's dimensions as far
/// as they are known; height and width that are not are the image's own, a batch that is not is 1.
pub(super) fn read(
    path: &Path,
    input: &InputDecl,
    dims: &[Dim],
    arguments: &ModelArguments,
) -> Result<(Tensor, String), String> {
    let extent = |axis: usize| match dims[axis] {
        Dim::Known(extent) => Some(extent),
        Dim::Symbol(_) | Dim::Unknown => None,
    };
    let (layout, channels) = layout(dims).ok_or_else(|| {
        let shown: Vec<String> = dims.iter().map(Dim::to_string).collect();
        format!("{}[{}] is not shaped like an image; give it a .npy array", input.dtype, shown.join(", "))
    })?;
    let first = dims.len() - 3;
    let (height_axis, width_axis) = match layout {
        Layout::ChannelsFirst => (first + 1, first + 2),
        Layout::ChannelsLast => (first, first + 1),
    };
    let image = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let image = image.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let image = image.decode().map_err(|error| format!("{}: {error}", path.display()))?.to_rgb8();
    let (height, width) = (
        extent(height_axis).unwrap_or(image.height() as usize),
        extent(width_axis).unwrap_or(image.width() as usize),
    );
    let batch = if first == 1 { extent(0).unwrap_or(1) } else { 1 };
    let (fitted, done) = fit(&image, width, height)?;
    let values = Values {
        scale: if input.dtype == DType::U8 { 1.0 } else { arguments.image_scale },
        mean: arguments.image_mean.clone(),
        deviation: arguments.image_std.clone(),
    };
    for (name, list) in [("--image-mean", &values.mean), ("--image-std", &values.deviation)] {
        if !matches!(list.len(), 0 | 1) && list.len() != channels {
            return Err(format!("{name} has {} values for {channels} channels", list.len()));
        }
    }
    if !input.dtype.is_float() && input.dtype != DType::U8 {
        return Err(format!(
            "an image does not become elements of type {}; give it a .npy array",
            input.dtype
        ));
    }
    let element = |channel: usize, y: usize, x: usize| values.of(&fitted, channel, channels, x, y);
    let plane = height * width;
    let tensor = match layout {
        Layout::ChannelsFirst => Tensor::from_fn(input.dtype, &[batch, channels, height, width], |i| {
            element(i / plane % channels, i / width % height, i % width)
        }),
        Layout::ChannelsLast => Tensor::from_fn(input.dtype, &[batch, height, width, channels], |i| {
            element(i % channels, i / (width * channels) % height, i / channels % width)
        }),
    };
    let shape = if first == 1 { tensor.shape().to_vec() } else { tensor.shape()[1..].to_vec() };
    let tensor = tensor.reshaped(&shape).ok_or("the image should fill its shape")?;
    let repeated = match dims[0] {
        Dim::Symbol(_) | Dim::Unknown if first == 1 => ", as a batch of 1".to_string(),
        Dim::Known(_) | Dim::Symbol(_) | Dim::Unknown if batch > 1 => format!(", {batch} times"),
        Dim::Known(_) | Dim::Symbol(_) | Dim::Unknown => String::new(),
    };
    Ok((tensor, format!("{}{done}{repeated}", path.display())))
}

/// Channels 3 or 1, before or behind height and width; a batch before them or nothing.
fn layout(dims: &[Dim]) -> Option<(Layout, usize)> {
    let first = dims.len().checked_sub(3).filter(|&first| first <= 1)?;
    for channels in [3, 1] {
        for (axis, layout) in [(first, Layout::ChannelsFirst), (first + 2, Layout::ChannelsLast)] {
            if dims[axis] == Dim::Known(channels) {
                return Some((layout, channels));
            }
        }
    }
    None
}

/// The middle of the image, as large as the aspect ratio allows, in that size.
fn fit(image: &RgbImage, width: usize, height: usize) -> Result<(RgbImage, String), String> {
    let size = |extent: usize| u32::try_from(extent).ok().filter(|&extent| extent > 0 && extent <= 1 << 15);
    let (Some(width), Some(height)) = (size(width), size(height)) else {
        return Err(format!("an image of {width} x {height} is not possible"));
    };
    let (have_width, have_height) = image.dimensions();
    if have_width == 0 || have_height == 0 {
        return Err("the image is empty".into());
    }
    let scaled = |have: u32, numerator: u32, denominator: u32| {
        let extent = u64::from(have) * u64::from(numerator) / u64::from(denominator);
        u32::try_from(extent).unwrap_or(u32::MAX).max(1)
    };
    let crop_width = have_width.min(scaled(have_height, width, height));
    let crop_height = have_height.min(scaled(have_width, height, width));
    let cropped = crop_imm(
        image,
        (have_width - crop_width) / 2,
        (have_height - crop_height) / 2,
        crop_width,
        crop_height,
    );
    let mut done = String::new();
    if (crop_width, crop_height) != (have_width, have_height) {
        done += &format!(", cropped to {crop_width} x {crop_height}");
    }
    if (crop_width, crop_height) != (width, height) {
        done += &format!(", resized to {width} x {height}");
    }
    Ok((resize(&cropped.to_image(), width, height, FilterType::Triangle), done))
}

impl Values {
    fn of(&self, image: &RgbImage, channel: usize, channels: usize, x: usize, y: usize) -> f64 {
        let pixel = image.get_pixel(x as u32, y as u32).0;
        // The weights of ITU-R BT.601 for a model of one channel.
        let value = match channels {
            1 => 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]),
            _more => f32::from(pixel[channel]),
        };
        let of = |list: &[f32], default| match list {
            [] => default,
            [one] => *one,
            many => many[channel],
        };
        f64::from((value * self.scale - of(&self.mean, 0.0)) / of(&self.deviation, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found() {
        let known = |dims: &[usize]| layout(&dims.iter().map(|&dim| Dim::Known(dim)).collect::<Vec<_>>());
        assert_eq!(known(&[1, 3, 32, 32]), Some((Layout::ChannelsFirst, 3)));
        assert_eq!(known(&[1, 32, 32, 3]), Some((Layout::ChannelsLast, 3)));
        assert_eq!(known(&[1, 28, 28]), Some((Layout::ChannelsFirst, 1)));
        assert_eq!(known(&[1, 64, 8, 8]), None);
        assert_eq!(known(&[10]), None);
        let open = [Dim::Symbol("n".into()), Dim::Known(3), Dim::Unknown, Dim::Unknown];
        assert_eq!(layout(&open), Some((Layout::ChannelsFirst, 3)));
    }

    #[test]
    fn the_middle_is_taken() {
        let image = RgbImage::from_fn(4, 2, |x, _| image::Rgb([x as u8, 0, 0]));
        let (fitted, done) = fit(&image, 2, 2).unwrap();
        assert_eq!((fitted.get_pixel(0, 0).0[0], fitted.get_pixel(1, 1).0[0]), (1, 2));
        assert_eq!(done, ", cropped to 2 x 2");
        assert!(fit(&image, 0, 2).is_err());
    }
}
