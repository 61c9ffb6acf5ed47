//! Where the buffers of a sequence's steps lie.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Program;
use super::code::Place;
use super::memory::AlignedBytes;

/// A piece of memory that sequences run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Region {
    /// The arena of intermediate results.
    Arena,
    /// One of the constants; read-only.
    Constant(usize),
    /// One of a run's inputs; read-only.
    Input(usize),
    /// One of a run's outputs.
    Output(usize),
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Region::Arena => f.write_str("the arena"),
            Region::Constant(at) => write!(f, "constant {at}"),
            Region::Input(at) => write!(f, "input {at}"),
            Region::Output(at) => write!(f, "output {at}"),
        }
    }
}

/// Where an external buffer of a step lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// In which memory.
    pub region: Region,
    /// How far from its start; a multiple of the element size.
    pub offset_bytes: usize,
}

/// A program and the memory of its external buffers, by their index.
#[derive(Clone, Debug)]
pub struct Step {
    /// What runs.
    pub program: Arc<Program>,
    /// On what.
    pub bindings: Vec<Binding>,
}

/// The bytes of the memory that a run gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extents {
    /// Of the arena.
    pub arena: usize,
    /// Of each input.
    pub inputs: Vec<usize>,
    /// Of each output.
    pub outputs: Vec<usize>,
}

/// Why steps cannot become a [`Sequence`](super::Sequence).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} (`{program}`): {problem}")]
pub struct SequenceError {
    /// Which step.
    pub step: usize,
    /// Its program's name.
    pub program: String,
    /// What is wrong.
    pub problem: BindingProblem,
}

/// What can be wrong with the bindings of a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingProblem {
    /// Too many or too few.
    #[error("{found} bindings for {wanted} external buffers")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// No such constant, input or output.
    #[error("buffer `{buffer}` is bound to {region}, which does not exist")]
    Missing {
        /// The buffer.
        buffer: String,
        /// Its binding's region.
        region: Region,
    },
    /// The buffer ends outside.
    #[error("buffer `{buffer}` needs {end} bytes of {region}, which has {extent}")]
    OutOfRange {
        /// The buffer.
        buffer: String,
        /// Its binding's region.
        region: Region,
        /// Where the buffer ends.
        end: usize,
        /// Where the region ends.
        extent: usize,
    },
    /// An offset that is not a multiple of the element size, or one in a constant that is not aligned for it.
    #[error("buffer `{buffer}` is bound at byte {offset}, which is not aligned for its elements")]
    Misaligned {
        /// The buffer.
        buffer: String,
        /// The binding's offset.
        offset: usize,
    },
    /// A writable buffer in read-only memory.
    #[error("buffer `{buffer}` is written, but bound to {region}")]
    ReadOnly {
        /// The buffer.
        buffer: String,
        /// Its binding's region.
        region: Region,
    },
    /// A writable buffer in memory that another buffer has, too.
    #[error(
        "buffers `{written}` and `{other}` overlap, and the first is written; declare one buffer for both"
    )]
    Overlap {
        /// The writable buffer.
        written: String,
        /// The other.
        other: String,
    },
}

/// Where a buffer of a step is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    /// An index of a run's regions, or `None` for the thread's own memory.
    pub(super) region: Option<usize>,
    pub(super) offset: usize,
}

/// The memory that runs share or give: the constants and the extents of everything else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) constants: &'a [Bytes],
    pub(super) extents: &'a Extents,
}

/// Whether the shared buffers of steps lie where those of other steps do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// In as little memory as possible.
    All,
    /// Only where they take as much memory: threads then divide them alike.
    Equal,
}

/// Where the buffers of steps lie, and the memory of those that neither a run gives nor a thread has.
#[derive(Debug)]
pub(super) struct Layout {
    /// The place of every buffer of each step.
    placed: Vec<Vec<Placed>>,
    arena_bytes: usize,
    shared_bytes: usize,
    /// The arena and the shared memory, once they were asked for.
    memory: Option<[AlignedBytes; 2]>,
}

impl Layout {
    /// Checks the bindings of steps and finds the places of their buffers.
    pub(super) fn new<'a>(
        steps: impl Iterator<Item = (&'a Program, &'a [Binding])>,
        known: Known<'_>,
        sharing: Sharing,
    ) -> Result<Layout, SequenceError> {
        let mut layout =
            Layout { placed: vec![], arena_bytes: known.extents.arena, shared_bytes: 0, memory: None };
        let mut starts: HashMap<usize, usize> = HashMap::new();
        for (step, (program, bindings)) in steps.enumerate() {
            let bytes = program.shared.0;
            let start = match sharing {
                Sharing::All => 0,
                Sharing::Equal => *starts.entry(bytes).or_insert(layout.shared_bytes),
            };
            layout.shared_bytes = layout.shared_bytes.max(start + bytes);
            let placed = place(program, bindings, known, start);
            let refuse = |problem| SequenceError { step, program: program.code.name.clone(), problem };
            layout.placed.push(placed.map_err(refuse)?);
        }
        Ok(layout)
    }

    /// The places of a step's buffers, by their index.
    pub(super) fn step(&self, step: usize) -> &[Placed] {
        &self.placed[step]
    }

    /// Whether steps have shared memory.
    pub(super) fn is_shared(&self) -> bool {
        self.shared_bytes > 0
    }

    /// Whether a run has used it.
    #[cfg(test)]
    pub(super) fn is_used(&self) -> bool {
        self.memory.is_some()
    }

    /// The starts of the arena and of the shared memory, which are taken from the system with the first call.
    pub(super) fn memory(&mut self) -> [*mut u8; 2] {
        let bytes = [self.arena_bytes, self.shared_bytes];
        self.memory.get_or_insert_with(|| bytes.map(AlignedBytes::zeroed)).each_mut().map(AlignedBytes::start)
    }
}

/// The index of a region in the regions of a run: the arena, the shared memory, constants, inputs, outputs.
fn index(region: Region, known: Known<'_>) -> usize {
    match region {
        Region::Arena => ARENA,
        Region::Constant(at) => SHARED + 1 + at,
        Region::Input(at) => SHARED + 1 + known.constants.len() + at,
        Region::Output(at) => SHARED + 1 + known.constants.len() + known.extents.inputs.len() + at,
    }
}

const ARENA: usize = 0;
const SHARED: usize = 1;

/// Checks a step's bindings and finds its buffers' places; its shared buffers begin at `shared`.
fn place(
    program: &Program,
    bindings: &[Binding],
    known: Known<'_>,
    shared: usize,
) -> Result<Vec<Placed>, BindingProblem> {
    let Known { constants, extents } = known;
    if bindings.len() != program.bindings.len() {
        return Err(BindingProblem::Count { found: bindings.len(), wanted: program.bindings.len() });
    }
    for (binding, need) in bindings.iter().zip(&program.bindings) {
        let buffer = || program.code.buffers[need.buffer.index()].name.clone();
        let Binding { region, offset_bytes: offset } = *binding;
        let (extent, read_only) = match region {
            Region::Arena => (Some(extents.arena), false),
            Region::Constant(at) => (constants.get(at).map(|bytes| bytes.len()), true),
            Region::Input(at) => (extents.inputs.get(at).copied(), true),
            Region::Output(at) => (extents.outputs.get(at).copied(), false),
        };
        let Some(extent) = extent else {
            return Err(BindingProblem::Missing { buffer: buffer(), region });
        };
        let end = offset.saturating_add(need.bytes);
        if end > extent {
            return Err(BindingProblem::OutOfRange { buffer: buffer(), region, end, extent });
        }
        let base = match region {
            Region::Constant(at) => constants.get(at).map_or(0, |bytes| bytes.as_ptr().addr()),
            Region::Arena | Region::Input(_) | Region::Output(_) => 0,
        };
        if !base.wrapping_add(offset).is_multiple_of(need.alignment) {
            return Err(BindingProblem::Misaligned { buffer: buffer(), offset });
        }
        if need.writable && read_only {
            return Err(BindingProblem::ReadOnly { buffer: buffer(), region });
        }
        for (other, other_need) in bindings.iter().zip(&program.bindings) {
            let other_end = other.offset_bytes.saturating_add(other_need.bytes);
            let overlap = other.region == region && offset < other_end && other.offset_bytes < end;
            if need.writable && overlap && other_need.buffer != need.buffer {
                let other = program.code.buffers[other_need.buffer.index()].name.clone();
                return Err(BindingProblem::Overlap { written: buffer(), other });
            }
        }
    }
    let buffers = program.code.buffers.iter().enumerate();
    Ok(buffers
        .map(|(at, buffer)| match buffer.place {
            Place::External { index: external, writable: _ } => {
                let Binding { region, offset_bytes } = bindings[external];
                Placed { region: Some(index(region, known)), offset: offset_bytes }
            }
            Place::Shared => Placed { region: Some(SHARED), offset: shared + program.shared.1[at] },
            Place::Scratch => Placed { region: None, offset: program.scratch.1[at] },
        })
        .collect())
}
