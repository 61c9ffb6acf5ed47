//! What the operating system tells of this machine and process; `None` where it does not.

use std::collections::BTreeSet;
use std::fs;

/// The processor's name.
pub(super) fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    field(&text, "model name").map(str::to_string)
}

/// Physical cores that this process may use.
pub(super) fn physical_cores() -> Option<usize> {
    let allowed = std::thread::available_parallelism().ok()?.get();
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let cores: BTreeSet<(&str, &str)> = text
        .split("\n\n")
        .filter_map(|processor| Some((field(processor, "physical id")?, field(processor, "core id")?)))
        .collect();
    (!cores.is_empty()).then(|| cores.len().min(allowed))
}

/// The most memory this process has held since it started, or since [`forget_peak_memory`].
pub(super) fn peak_memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes: u64 = field(&text, "VmHWM")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Begins to count [`peak_memory_bytes`] anew.
pub(super) fn forget_peak_memory() {
    // Where this cannot be written the peak covers the whole process, which is an upper bound still.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 143\nmodel name\t: A B\n";
        assert_eq!(field(text, "model name"), Some("A B"));
        assert_eq!(field(text, "name"), None);
    }
}
