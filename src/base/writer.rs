//! Text with indentation.

use std::fmt::{self, Write};

/// Collects lines of text, each indented by the current depth. One level is `step` spaces.
#[derive(Debug)]
pub struct IndentWriter {
    text: String,
    depth: usize,
    step: usize,
}

impl IndentWriter {
    /// An empty text whose levels are `step` spaces wide.
    pub fn new(step: usize) -> Self {
        IndentWriter { text: String::new(), depth: 0, step }
    }

    /// Adds one indented line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        let width = self.depth * self.step;
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{:width$}{line}", "");
    }

    /// Deepens the indentation of the lines that follow.
    pub fn indent(&mut self) {
        self.depth += 1;
    }

    /// Undoes one [`indent`](Self::indent).
    pub fn dedent(&mut self) {
        self.depth -= 1;
    }

    /// The text collected.
    pub fn finish(self) -> String {
        self.text
    }
}
