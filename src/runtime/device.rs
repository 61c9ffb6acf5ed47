//! Which device to use, and that device opened.

use super::RuntimeError;
use super::cpu::detect;
use super::gpu::{self, Gpu, GpuError, GpuOptions};
use crate::target::{CpuTarget, GpuKind, Target};
use std::fmt;
use std::str::FromStr;

/// The device someone asks for. Prints and parses as `auto`, `cpu`, `gpu`, `gpu:N` and `reference`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first adapter that is hardware, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The adapter of that number in [`gpu::adapters`], a software adapter too.
    Gpu(usize),
    /// The interpreter.
    Reference,
}

/// A word that names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no device; write auto, cpu, gpu, gpu:N (N as `paisley devices` lists them) or reference")]
pub struct DeviceChoiceError(String);

impl FromStr for DeviceChoice {
    type Err = DeviceChoiceError;

    fn from_str(text: &str) -> Result<DeviceChoice, DeviceChoiceError> {
        let unknown = || DeviceChoiceError(text.to_string());
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "gpu" => Ok(DeviceChoice::Gpu(0)),
            "reference" => Ok(DeviceChoice::Reference),
            _other => {
                let number = text.strip_prefix("gpu:").ok_or_else(unknown)?;
                number.parse().map(DeviceChoice::Gpu).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Gpu(0) => f.write_str("gpu"),
            DeviceChoice::Gpu(index) => write!(f, "gpu:{index}"),
            DeviceChoice::Reference => f.write_str("reference"),
        }
    }
}

/// How devices are opened.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The processor: it runs `cpu`, and what an adapter cannot run.
    pub cpu: CpuTarget,
    /// How an adapter is opened.
    pub gpu: GpuOptions,
}

impl DeviceOptions {
    /// The processor of this machine with that many threads, one a core where `None`, and adapters as they are.
    pub fn new(threads: Option<usize>) -> DeviceOptions {
        DeviceOptions { cpu: detect(threads), gpu: GpuOptions::default() }
    }
}

/// A device ready for sessions. Cloning shares it.
#[derive(Clone)]
pub enum OpenDevice {
    /// The interpreter.
    Reference,
    /// A processor.
    Cpu(CpuTarget),
    /// An adapter, and the processor for what it cannot run.
    Gpu(Gpu, CpuTarget),
}

impl fmt::Debug for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenDevice({}: {})", self.kind(), self.name())
    }
}

impl OpenDevice {
    /// Opens what `choice` says. [`DeviceChoice::Auto`] never takes a software adapter, and takes the processor where there is
    /// no adapter.
    ///
    /// # Errors
    /// When an adapter is asked for and cannot be had.
    pub fn open(choice: DeviceChoice, options: &DeviceOptions) -> Result<OpenDevice, RuntimeError> {
        let open = |index| Gpu::open(index, options.gpu.clone());
        let cpu = || OpenDevice::Cpu(options.cpu.clone());
        Ok(match choice {
            DeviceChoice::Reference => OpenDevice::Reference,
            DeviceChoice::Cpu => cpu(),
            DeviceChoice::Gpu(index) => OpenDevice::Gpu(open(index)?, options.cpu.clone()),
            DeviceChoice::Auto => {
                let hardware = |adapter: &crate::target::GpuTarget| adapter.kind != GpuKind::Software;
                match gpu::adapters().iter().position(hardware) {
                    None => cpu(),
                    Some(index) => match open(index) {
                        Ok(opened) => OpenDevice::Gpu(opened, options.cpu.clone()),
                        Err(GpuError::NoAdapter | GpuError::AdapterIndex { .. } | GpuError::Open { .. }) => {
                            cpu()
                        }
                        Err(error) => return Err(error.into()),
                    },
                }
            }
        })
    }

    /// `reference`, `cpu` or `gpu`.
    pub fn kind(&self) -> &'static str {
        match self {
            OpenDevice::Reference => "reference",
            OpenDevice::Cpu(_) => "cpu",
            OpenDevice::Gpu(..) => "gpu",
        }
    }

    /// The device's name, for people.
    pub fn name(&self) -> &str {
        match self {
            OpenDevice::Reference => "interpreter",
            OpenDevice::Cpu(target) => &target.name,
            OpenDevice::Gpu(gpu, _) => &gpu.target().name,
        }
    }

    /// What it is, in the compiler's terms; `None` for the interpreter.
    pub fn target(&self) -> Option<Target> {
        match self {
            OpenDevice::Reference => None,
            OpenDevice::Cpu(target) => Some(Target::Cpu(target.clone())),
            OpenDevice::Gpu(gpu, _) => Some(Target::Gpu(gpu.target().clone())),
        }
    }

    /// Threads of the processor that take part.
    pub fn threads(&self) -> usize {
        match self {
            OpenDevice::Reference => 1,
            OpenDevice::Cpu(target) | OpenDevice::Gpu(_, target) => target.threads,
        }
    }

    /// Whether it is an adapter in name only: shaders executed on the processor.
    pub fn is_software_adapter(&self) -> bool {
        match self {
            OpenDevice::Reference | OpenDevice::Cpu(_) => false,
            OpenDevice::Gpu(gpu, _) => gpu.target().kind == GpuKind::Software,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_print_as_they_parse() {
        for text in ["auto", "cpu", "gpu", "gpu:3", "reference"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("gpu:0".parse(), Ok(DeviceChoice::Gpu(0)));
        for text in ["", "tpu", "gpu:", "gpu:-1", "gpu1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
