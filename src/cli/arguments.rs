//! Options that several commands share.

use super::error::CliError;
use super::files;
use crate::compiler;
use crate::ops::ConvAlgorithm;
use crate::runtime::cpu::detect;
use crate::runtime::{DeviceChoice, DeviceOptions, OpenDevice};
use crate::target::{CpuIsa, CpuTarget, GpuTarget, Target, TargetRecord};
use clap::Args;
use std::path::{Path, PathBuf};

/// The model, and what is fed to it.
#[derive(Args, Clone)]
pub(super) struct ModelArguments {
    /// The ONNX file
    pub(super) model: PathBuf,

    /// Input arrays, keyed by input name (or `in:` and the name)
    #[arg(long, value_name = "FILE.npz", help_heading = "Inputs")]
    pub(super) inputs: Option<PathBuf>,

    /// One input: a .npy array, or a PNG or JPEG image for an image-shaped input
    ///
    /// An image is cropped at its centre to the input's aspect ratio, resized to its height and width, and laid out with the
    /// channels where the input has them; values are 0 to 1 unless `--image-scale`, `--image-mean` or `--image-std` say otherwise.
    #[arg(long, value_name = "NAME=FILE", help_heading = "Inputs", value_parser = named::<PathBuf>)]
    pub(super) input: Vec<(String, PathBuf)>,

    /// What inputs that are not given hold: floats uniform in 0 to 1, integers and bools 0 or 1
    #[arg(long, value_name = "random:SEED", default_value = "random:0", help_heading = "Inputs")]
    pub(super) fill: Fill,

    /// The shape of an input, `image=1x3x224x224`, or the extent of a dimension that the model names, `batch=1`
    ///
    /// A shape wins over what the file declares. A leading dimension that nothing binds is 1.
    #[arg(long, value_name = "NAME=SHAPE", help_heading = "Inputs", value_parser = named::<Shape>)]
    pub(super) shape: Vec<(String, Shape)>,

    /// An input whose value, given by --inputs or --input, the model is compiled for (where shapes depend on it)
    #[arg(long, value_name = "NAME", help_heading = "Inputs")]
    pub(super) constant: Vec<String>,

    /// How convolutions are computed: direct, im2col, implicit_gemm, spatial_pack, winograd2 or winograd4
    ///
    /// Those that the algorithm does not apply to, and all where it is not given, are computed as their sizes suggest; how many it applies
    /// to is told. im2col writes all windows as the columns of a matrix; implicit_gemm writes those of a few places at a time;
    /// spatial_pack copies the input to tiles. Winograd's algorithms are for windows of 3x3, 1x3, 3x1 and 3 with stride 1, and
    /// round differently: winograd4 more than winograd2.
    #[arg(long, value_name = "ALGORITHM", help_heading = "Compiling")]
    pub(super) algorithm: Option<ConvAlgorithm>,

    /// What an image's values 0 to 255 are multiplied with: a number or a fraction
    #[arg(long, value_name = "FACTOR", default_value = "1/255", help_heading = "Images", value_parser = fraction)]
    pub(super) image_scale: f32,

    /// What is subtracted then: one number, or one a channel
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', help_heading = "Images")]
    pub(super) image_mean: Vec<f32>,

    /// What the result is divided by: one number, or one a channel
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', help_heading = "Images")]
    pub(super) image_std: Vec<f32>,
}

/// Where to run.
#[derive(Args)]
pub(super) struct DeviceArguments {
    /// Where to run: auto, cpu, gpu, gpu:N or reference; several with commas
    ///
    /// `auto` is the first GPU, or the CPU where there is none; a software adapter counts as none. `reference` interprets the
    /// unscheduled loop nests: right by definition, and slow.
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', default_value = "auto")]
    pub(super) device: Vec<DeviceChoice>,

    /// Threads of the CPU; one for each physical core where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,

    /// Instruction set of the CPU's kernels: generic, avx2 or avx512; the most capable that the processor has where not given
    #[arg(long, value_name = "ISA", value_parser = isa)]
    pub(super) isa: Option<CpuIsa>,
}

impl DeviceArguments {
    /// How devices are opened.
    pub(super) fn options(&self) -> DeviceOptions {
        let threads = self.threads.map(usize::from).or_else(super::host::physical_cores);
        let mut options = DeviceOptions::new(threads);
        if let Some(isa) = self.isa {
            let CpuTarget { cores, threads, .. } = options.cpu;
            options.cpu = CpuTarget { cores, ..CpuTarget::preset(isa, threads) };
        }
        if let Some(name) = super::host::cpu_name() {
            options.cpu.name = name;
        }
        options
    }

    /// Opens every device asked for, each once, with notes on what became of `auto`.
    pub(super) fn open(&self) -> Result<(Vec<OpenDevice>, Vec<String>), CliError> {
        let options = self.options();
        let (mut opened, mut seen, mut notes) = (Vec::<OpenDevice>::new(), vec![], vec![]);
        for &choice in &self.device {
            let device = OpenDevice::open(choice, &options)?;
            let resolved = match (choice, &device) {
                (DeviceChoice::Auto, OpenDevice::Cpu(_)) => {
                    notes.push("auto is the CPU: no GPU was found (`paisley devices` lists adapters)".into());
                    "cpu".to_string()
                }
                (DeviceChoice::Auto, OpenDevice::Gpu(gpu, _)) => format!("gpu {}", gpu.target().name),
                (DeviceChoice::Auto, OpenDevice::Reference) | (DeviceChoice::Reference, _) => {
                    choice.to_string()
                }
                (DeviceChoice::Cpu, _) => choice.to_string(),
                (DeviceChoice::Gpu(_), device) => format!("{choice} {}", device.name()),
            };
            if !seen.contains(&resolved) {
                seen.push(resolved);
                opened.push(device);
            }
        }
        Ok((opened, notes))
    }
}

/// An instruction set that this processor has.
fn isa(text: &str) -> Result<CpuIsa, String> {
    let most = detect(None).isa;
    let had: Vec<&str> = CpuIsa::ALL.into_iter().filter(|isa| *isa <= most).map(CpuIsa::name).collect();
    match CpuIsa::from_name(text) {
        Some(isa) if isa <= most => Ok(isa),
        Some(_) => Err(format!("this processor does not have it; it has {}", had.join(", "))),
        None => Err(format!("no such instruction set; this processor has {}", had.join(", "))),
    }
}

/// What to compile for, without running.
#[derive(Args)]
pub(super) struct TargetArguments {
    #[command(flatten)]
    pub(super) device: DeviceArguments,

    /// Compile for a described device instead: a file that `paisley devices --save` wrote, or one of the presets
    /// webgpu-default, mobile, discrete, llvmpipe, generic, avx2 and avx512
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "isa"])]
    pub(super) profile: Option<PathBuf>,
}

impl TargetArguments {
    /// What to compile for, with names for people.
    pub(super) fn targets(&self) -> Result<Vec<(String, compiler::Device)>, CliError> {
        let Some(profile) = &self.profile else {
            let (devices, notes) = self.device.open()?;
            notes.iter().for_each(|note| super::report::note(note));
            let describe = |device: &OpenDevice| (super::report::device_line(device), device.into());
            return Ok(devices.iter().map(describe).collect());
        };
        let target = profile_target(profile)?;
        let name = format!("profile {}", target.name());
        Ok(vec![match target {
            Target::Cpu(target) => (name, compiler::Device::Cpu(target)),
            Target::Gpu(target) => (name, compiler::Device::Gpu(Box::new(target), self.device.options().cpu)),
        }])
    }
}

fn profile_target(profile: &Path) -> Result<Target, CliError> {
    let preset = match profile.to_str() {
        Some("webgpu-default") => Some(Target::Gpu(GpuTarget::webgpu_default())),
        Some("mobile") => Some(Target::Gpu(GpuTarget::mobile())),
        Some("discrete") => Some(Target::Gpu(GpuTarget::discrete())),
        Some("llvmpipe") => Some(Target::Gpu(GpuTarget::llvmpipe())),
        Some(name) => CpuIsa::from_name(name)
            .map(|isa| Target::Cpu(CpuTarget::preset(isa, super::host::physical_cores().unwrap_or(1)))),
        None => None,
    };
    match preset {
        Some(target) => Ok(target),
        None => {
            let wrong =
                |error: &dyn std::fmt::Display| CliError::input(format!("{}: {error}", profile.display()));
            let bytes = files::map(profile)?;
            let text = std::str::from_utf8(&bytes).map_err(|error| wrong(&error))?;
            let record = TargetRecord::from_json(text).map_err(|error| wrong(&error))?;
            record.to_target().map_err(|error| wrong(&error))
        }
    }
}

/// A shape as the command line writes it: `1x3x224x224`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape(pub(super) Vec<usize>);

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let dims = text.split(['x', ',']).map(|dim| dim.trim().parse());
        dims.collect::<Result<_, _>>()
            .map(Shape)
            .map_err(|_| format!("'{text}' is no shape; write it like 1x3x224x224"))
    }
}

/// What fills inputs that are not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) seed: u64,
}

impl std::str::FromStr for Fill {
    type Err = String;

    fn from_str(text: &str) -> Result<Fill, String> {
        let seed = text.strip_prefix("random:").and_then(|seed| seed.parse().ok());
        seed.map(|seed| Fill { seed }).ok_or_else(|| "write random:SEED with a whole number".into())
    }
}

/// `NAME=VALUE`; the last `=` separates, as names may hold one.
fn named<T: std::str::FromStr>(text: &str) -> Result<(String, T), String>
where
    T::Err: std::fmt::Display,
{
    let (name, value) = text.rsplit_once('=').ok_or_else(|| "write NAME=VALUE".to_string())?;
    let value = value.parse::<T>().map_err(|error| error.to_string())?;
    Ok((name.to_string(), value))
}

fn fraction(text: &str) -> Result<f32, String> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let number = |text: &str| text.trim().parse::<f32>().ok().filter(|value| value.is_finite());
    match (number(numerator), number(denominator)) {
        (Some(numerator), Some(denominator)) if denominator != 0.0 => Ok(numerator / denominator),
        _other => Err("write a number, or a fraction like 1/255".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_parse() {
        assert_eq!("1x3x8".parse(), Ok(Shape(vec![1, 3, 8])));
        assert_eq!("7".parse(), Ok(Shape(vec![7])));
        assert!("1x".parse::<Shape>().is_err());
        assert_eq!("random:7".parse(), Ok(Fill { seed: 7 }));
        assert!("random:".parse::<Fill>().is_err());
        assert_eq!(fraction("1/4"), Ok(0.25));
        assert!(fraction("1/0").is_err());
        assert_eq!(named::<Shape>("a=b=2"), Ok(("a=b".into(), Shape(vec![2]))));
    }
}
