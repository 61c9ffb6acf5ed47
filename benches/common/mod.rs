//! What the benches share: the devices of this machine.

use paisley::{DeviceChoice, DeviceOptions, OpenDevice};

/// The CPU and, where there is one, the first adapter, with the names of reports: a software adapter is no GPU result.
pub(crate) fn devices() -> Vec<(String, OpenDevice)> {
    let options = DeviceOptions::new(None);
    let mut devices = vec![];
    for choice in [DeviceChoice::Cpu, DeviceChoice::Gpu(0)] {
        match OpenDevice::open(choice, &options) {
            Ok(device) => {
                let kind = if device.is_software_adapter() { "software adapter" } else { device.kind() };
                devices.push((kind.to_string(), device));
            }
            Err(error) => eprintln!("SKIPPED {choice}: {error}"),
        }
    }
    devices
}
