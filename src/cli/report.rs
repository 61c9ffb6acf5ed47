//! Printing: the answer on standard output, notes and progress on standard error, numbers for people.

use super::error::CliError;
use crate::runtime::OpenDevice;
use crate::target::GpuTarget;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

/// Prints a part of the answer.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints the answer of `--json`.
pub(super) fn print_json(document: &serde_json::Value) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(document).map_err(io::Error::from)?;
    print(&(text + "\n"))
}

/// A line on standard error; where that is closed there is nobody to tell.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A spinner or bar on standard error, where that is a terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Something whose length is not known.
    pub(super) fn new(what: &str) -> Progress {
        let bar = ProgressBar::new_spinner().with_message(what.to_string());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Progress(bar)
    }

    /// Something that takes `total` steps of whatever unit.
    pub(super) fn of(what: &str, total: u64) -> Progress {
        let bar = ProgressBar::new(total).with_message(what.to_string());
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {percent} % {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress(bar)
    }

    pub(super) fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    pub(super) fn done(self) {
        self.0.finish_and_clear();
    }
}

/// `gpu: NAME (discrete, vulkan)`.
pub(super) fn device_line(device: &OpenDevice) -> String {
    let threads = |count: usize| format!("{count} thread{}", if count == 1 { "" } else { "s" });
    match device {
        OpenDevice::Reference => "reference: the interpreter".to_string(),
        OpenDevice::Cpu(target) => {
            format!("cpu: {} ({}, {})", target.name, target.isa.name(), threads(target.threads))
        }
        OpenDevice::Gpu(gpu, _) => format!("gpu: {}", adapter_line(gpu.target())),
    }
}

/// `NAME (discrete, vulkan)`, and the mark of software.
pub(super) fn adapter_line(target: &GpuTarget) -> String {
    let mark = if target.kind == crate::target::GpuKind::Software {
        format!(" - {SOFTWARE}")
    } else {
        String::new()
    };
    format!("{} ({}, {}){mark}", target.name, target.kind.name(), target.backend.name())
}

/// What every figure of a software adapter is marked with.
pub(super) const SOFTWARE: &str = "software adapter, not a GPU result";

/// `12.3 ms`, with three digits that count.
pub(super) fn time(duration: Duration) -> String {
    milliseconds(1e3 * duration.as_secs_f64())
}

/// `12.3 ms` of a number of milliseconds.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{} us", digits(1e3 * ms)),
        ms if ms < 1000.0 => format!("{} ms", digits(ms)),
        ms => format!("{} s", digits(ms / 1e3)),
    }
}

/// Three digits that count.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _large => format!("{value:.0}"),
    }
}

/// `1.2 MB`.
pub(super) fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        count if count < 1e3 => format!("{count} B"),
        count if count < 1e6 => format!("{} kB", digits(count / 1e3)),
        count if count < 1e9 => format!("{} MB", digits(count / 1e6)),
        count => format!("{} GB", digits(count / 1e9)),
    }
}

/// Rows in aligned columns, two spaces between; columns of numbers to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; `>` before one aligns its column to the right.
    pub(super) fn new(headings: &[&str]) -> Table {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let row = headings.iter().map(|heading| heading.trim_start_matches('>').to_string()).collect();
        Table { rows: vec![row], right }
    }

    pub(super) fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// The table, each line behind `indent`.
    pub(super) fn print(&self, indent: &str) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.right).map(|((cell, &width), &right)| {
                if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text += indent;
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(milliseconds(0.01234), "12.3 us");
        assert_eq!(milliseconds(1234.0), "1.23 s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234_567), "1.23 MB");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["name", ">n"]);
        table.row(&[&"a", &12]);
        assert_eq!(table.print(" "), " name   n\n a     12\n");
    }
}
