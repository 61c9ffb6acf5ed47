//! What the fuzz target does with the bytes of a model file, and the ordinary tests with its seeds.

use paisley::graph::Graph;
use paisley::onnx::{Bindings, Dim, ImportError, Model, NoFolder};
use paisley::passes::{GroupPolicy, group, simplify};

/// Bytes as a model file, all the way to its kernel groups, open dimensions being 1: it may be refused, but neither panic nor
/// take memory beyond what the file warrants.
///
/// # Errors
/// What the importer says.
///
/// # Panics
/// When a graph that the importer or the simplifier makes does not verify.
pub(crate) fn import_model(bytes: &[u8]) -> Result<Graph, ImportError> {
    let model = Model::from_bytes(bytes.to_vec().into(), NoFolder)?;
    let problems = model.check();
    if !problems.is_empty() {
        return Err(ImportError { problems });
    }
    let extent = |dim: &Dim| match dim {
        Dim::Known(extent) => *extent,
        Dim::Symbol(_) | Dim::Unknown => 1,
    };
    let bindings = model.inputs().iter().fold(Bindings::new(), |bindings, input| {
        let shape: Vec<usize> = input.dims.iter().flatten().map(extent).collect();
        bindings.shape(&input.name, &shape)
    });
    let graph = model.graph(&bindings)?;
    graph.verify().expect("an imported graph should verify");
    let simplified = simplify(&graph);
    simplified.verify().expect("a simplified graph should verify");
    group(&simplified, GroupPolicy::default());
    Ok(graph)
}
