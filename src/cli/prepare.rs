//! From a path to a session, timed.

use super::arguments::ModelArguments;
use super::error::CliError;
use super::files::{ModelFile, ModelFolder};
use super::inputs::{self, Given, Input};
use super::report::{self, Progress};
use crate::compiler::{Device, Timings, compile};
use crate::graph::Graph;
use crate::onnx::Model;
use crate::passes::{Applied, use_algorithm};
use crate::runtime::{OpenDevice, Session};
use std::time::{Duration, Instant};

/// A model at concrete shapes, with its inputs.
pub(super) struct Imported {
    /// The path, for messages.
    name: String,
    pub(super) opset: i64,
    /// Bytes of the weights in the file.
    pub(super) weight_bytes: usize,
    pub(super) given: Given,
    pub(super) graph: Graph,
    pub(super) inputs: Vec<Input>,
    /// Reading, decoding and importing, without reading the inputs.
    pub(super) time: Duration,
}

/// Reads the model and its inputs.
pub(super) fn import(arguments: &ModelArguments) -> Result<Imported, CliError> {
    let path = &arguments.model;
    let progress = Progress::new("loading");
    let start = Instant::now();
    let model = read(arguments)?;
    let mut time = start.elapsed();
    let given = inputs::gather(&model, arguments).map_err(|error| error.about(path.display()))?;
    let start = Instant::now();
    let graph = model.graph(&given.bindings).map_err(|error| CliError::from(error).about(path.display()))?;
    let (graph, applied) = match arguments.algorithm {
        Some(algorithm) => {
            let (graph, Applied { to, of }) = use_algorithm(&graph, algorithm);
            (graph, Some(format!("note: {algorithm} computes {to} of {of} convolutions")))
        }
        None => (graph, None),
    };
    time += start.elapsed();
    let inputs = given.inputs(&graph).map_err(|error| error.about(path.display()))?;
    progress.done();
    applied.iter().for_each(|note| report::note(note));
    let (name, opset, weight_bytes) = (path.display().to_string(), model.opset(), model.weight_bytes());
    Ok(Imported { name, opset, weight_bytes, given, graph, inputs, time })
}

/// Decodes the model.
pub(super) fn read(arguments: &ModelArguments) -> Result<Model, CliError> {
    let path = &arguments.model;
    let model = Model::decode(ModelFile::open(path)?, ModelFolder::of(path));
    model.map_err(|error| CliError::from(error).about(path.display()))
}

/// A session and how long its making took.
pub(super) struct Prepared {
    pub(super) session: Session,
    /// Load and optimise: import, and passes over the graph.
    pub(super) load: Duration,
    /// Nests, schedules, code, packed constants, pipelines.
    pub(super) compile: Duration,
    /// The compiler's stages, those of load and optimise first.
    pub(super) stages: Vec<(&'static str, Duration)>,
    pub(super) inputs: Vec<crate::tensor::Tensor>,
}

/// Compiles `graph`, which is that of `imported`, for `device` and makes it resident there. Where nobody else has the graph, its
/// weights leave memory one after the other as they are packed.
pub(super) fn session(imported: &Imported, graph: Graph, device: &OpenDevice) -> Result<Prepared, CliError> {
    let progress = Progress::new(&format!("compiling for {}", device.kind()));
    let mut timings = Timings::default();
    let plan = compile(&graph, &Device::from(device), &mut timings)
        .map_err(|error| CliError::from(error).about(&imported.name))?;
    drop(graph);
    let session = timings
        .stage("prepare", || Session::new(plan, device))
        .map_err(|error| CliError::from(error).about(&imported.name))?;
    let of_graph = |stage: &&(&str, Duration)| matches!(stage.0, "simplify" | "group");
    let load: Duration = timings.stages.iter().filter(of_graph).map(|(_, time)| *time).sum();
    let named: Vec<_> =
        imported.inputs.iter().map(|input| (input.name.as_str(), input.tensor.clone())).collect();
    let inputs = session.ordered(&named)?;
    progress.done();
    let compile = timings.total() - load;
    Ok(Prepared { session, load: imported.time + load, compile, stages: timings.stages, inputs })
}
