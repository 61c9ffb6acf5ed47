//! A decoded model file, before its shapes are known.

use super::import;
use super::problem::{ImportError, Problem, Refusal};
use super::proto::{DimensionValue, GraphProto, ModelProto, ValueInfoProto};
use super::weights::{self, DataFolder, External};
use super::{NEWEST_OPSET, OLDEST_OPSET};
use crate::graph::Graph;
use crate::tensor::{DType, Tensor};
use bytes::{Buf, Bytes};
use prost::Message;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// A declared dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Its extent.
    Known(usize),
    /// A name, equal wherever the name is.
    Symbol(String),
    /// Nothing.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(extent) => write!(f, "{extent}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// An input as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputDecl {
    /// The name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions; `None` where not even the rank is declared.
    pub dims: Option<Vec<Dim>>,
}

/// What the file leaves open: shapes of inputs, values of named dimensions, inputs that are constant. The entries win over
/// what the file declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bindings {
    shapes: BTreeMap<String, Vec<usize>>,
    dims: BTreeMap<String, usize>,
    values: BTreeMap<String, Tensor>,
}

impl Bindings {
    /// Nothing bound: enough for a file whose shapes are all known.
    pub fn new() -> Bindings {
        Bindings::default()
    }

    /// Gives `input` that shape; dimensions that it names by symbols are bound for other inputs too.
    pub fn shape(mut self, input: &str, shape: &[usize]) -> Bindings {
        self.shapes.insert(input.to_owned(), shape.to_vec());
        self
    }

    /// Gives the dimension that the file calls `symbol` that extent.
    pub fn dim(mut self, symbol: &str, extent: usize) -> Bindings {
        self.dims.insert(symbol.to_owned(), extent);
        self
    }

    /// Makes `input` a constant, for inputs that shapes depend on: the graph has no such input.
    pub fn value(mut self, input: &str, value: Tensor) -> Bindings {
        self.values.insert(input.to_owned(), value);
        self
    }
}

/// What becomes of an input.
pub(super) enum Bound {
    /// It stays an input of that type and shape.
    Input(DType, Vec<usize>),
    /// It is a constant.
    Constant(Tensor),
}

/// A decoded model file.
#[derive(Debug)]
pub struct Model {
    pub(super) graph: GraphProto,
    pub(super) opset: i64,
    pub(super) external: External,
    /// What is wrong with the file as a whole and with the declarations of its inputs.
    pub(super) problems: Vec<Problem>,
    inputs: Vec<InputDecl>,
    metadata: BTreeMap<String, String>,
}

impl Model {
    /// Decodes a file. Its weights stay slices of `bytes`; those in other files are read through `folder` when they are
    /// needed.
    ///
    /// # Errors
    /// When the bytes are no ONNX model. What else is wrong is reported by [`check`](Self::check).
    pub fn from_bytes(bytes: Bytes, folder: impl DataFolder + 'static) -> Result<Model, ImportError> {
        Model::decode(bytes, folder)
    }

    /// As [`from_bytes`](Self::from_bytes), from anything that gives bytes: the weights are what its
    /// [`copy_to_bytes`](Buf::copy_to_bytes) makes of their places, so that each may be memory of its own, to be given back
    /// when nothing needs that weight any more.
    ///
    /// # Errors
    /// As for [`from_bytes`](Self::from_bytes).
    pub fn decode(bytes: impl Buf, folder: impl DataFolder + 'static) -> Result<Model, ImportError> {
        let refuse = |refusal: Refusal| ImportError::one(refusal.at("the file"));
        let proto = ModelProto::decode(bytes).map_err(|error| {
            refuse(Refusal {
                remedy: "it is damaged, or another kind of file".into(),
                ..Refusal::invalid(format!("it is no ONNX model ({error})"))
            })
        })?;
        let graph = proto.graph.ok_or_else(|| refuse(Refusal::invalid("it holds no graph")))?;
        let mut problems = Vec::new();
        let standard = proto.opset_import.iter().find(|opset| is_standard(&opset.domain));
        // Files older than operator sets mean the first one.
        let opset = standard.map_or(1, |opset| opset.version);
        if !(OLDEST_OPSET..=NEWEST_OPSET).contains(&opset) {
            let refusal = Refusal {
                remedy: "convert it with onnx.version_converter".into(),
                ..Refusal::unsupported(format!(
                    "its opset is {opset}, but {OLDEST_OPSET} to {NEWEST_OPSET} are supported"
                ))
            };
            problems.push(refusal.at("the file"));
        }
        for function in &proto.functions {
            let place = format!("function `{}`", function.name);
            problems.push(Refusal::unsupported("functions defined in the file").at(place));
        }
        for initializer in &graph.sparse_initializer {
            let name = initializer.values.as_ref().map_or("", |values| &values.name);
            problems.push(Refusal::unsupported("sparse initializers").at(format!("initializer `{name}`")));
        }
        let initialized: HashSet<&str> = graph.initializer.iter().map(|tensor| &*tensor.name).collect();
        let mut inputs = Vec::new();
        for info in graph.input.iter().filter(|info| !initialized.contains(&*info.name)) {
            match declaration(info) {
                Ok(input) => inputs.push(input),
                Err(refusal) => problems.push(refusal.at(format!("input `{}`", info.name))),
            }
        }
        let metadata = proto.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Ok(Model { graph, opset, external: External::new(Box::new(folder)), problems, inputs, metadata })
    }

    /// The inputs the file declares, those that are initializers excluded.
    pub fn inputs(&self) -> &[InputDecl] {
        &self.inputs
    }

    /// The names of the outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.graph.output.iter().map(|info| info.name.as_str())
    }

    /// The version of the standard operators.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Name and text of the file's metadata properties.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The name of the graph.
    pub fn name(&self) -> &str {
        &self.graph.name
    }

    /// Bytes the initializers take in the file.
    pub fn weight_bytes(&self) -> usize {
        self.graph.initializer.iter().map(Message::encoded_len).sum()
    }

    /// What can be told without shapes to be invalid or unsupported, one problem a node and reason. An empty list does not
    /// promise that [`graph`](Self::graph) succeeds: it looks closer and reports these problems too.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.problems.clone();
        problems.extend(import::check_nodes(&self.graph.node, self.opset));
        problems
    }

    /// The model as a graph of concrete shapes.
    ///
    /// # Errors
    /// Every problem found: those of [`check`](Self::check), dimensions that nothing binds, shapes that do not fit,
    /// attributes and element types that are not supported, shapes that depend on data.
    pub fn graph(&self, bindings: &Bindings) -> Result<Graph, ImportError> {
        import::import(self, bindings)
    }

    /// What becomes of every input under `bindings`, or why that is not known.
    pub(super) fn bind(&self, bindings: &Bindings) -> Result<Vec<Bound>, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |place: String, reason: String, remedy: String| {
            problems.push(Refusal::binding(reason, remedy).at(place));
        };
        let declared: Vec<String> = self.inputs.iter().map(describe).collect();
        for name in bindings.shapes.keys().chain(bindings.values.keys()) {
            if !self.inputs.iter().any(|input| input.name == *name) {
                let remedy = format!("the inputs are {}", declared.join(", "));
                problem(format!("binding of `{name}`"), "the model has no such input".into(), remedy);
            }
        }
        let mut symbols: BTreeMap<&str, usize> =
            bindings.dims.iter().map(|(name, &extent)| (name.as_str(), extent)).collect();
        for name in bindings.dims.keys() {
            let named = |dim: &Dim| matches!(dim, Dim::Symbol(symbol) if symbol == name);
            if !self.inputs.iter().flat_map(|input| input.dims.iter().flatten()).any(named) {
                let remedy = format!("the inputs are {}", declared.join(", "));
                problem(format!("binding of `{name}`"), "no input has such a dimension".into(), remedy);
            }
        }
        let given = |input: &InputDecl| match bindings.values.get(&input.name) {
            Some(value) => Some(value.shape().to_vec()),
            None => bindings.shapes.get(&input.name).cloned(),
        };
        for input in &self.inputs {
            let (Some(shape), Some(dims)) = (given(input), &input.dims) else { continue };
            // A shape of another rank overrides the declaration and says nothing of its symbols.
            for (dim, extent) in dims.iter().zip(shape.iter().copied()).take(if dims.len() == shape.len() {
                usize::MAX
            } else {
                0
            }) {
                let Dim::Symbol(symbol) = dim else { continue };
                let bound = *symbols.entry(symbol).or_insert(extent);
                if bound != extent {
                    let reason = format!("dimension `{symbol}` is {extent} here and {bound} elsewhere");
                    problem(format!("input `{}`", input.name), reason, "give it one extent".into());
                }
            }
        }
        let mut bound = Vec::new();
        for input in &self.inputs {
            if let Some(value) = bindings.values.get(&input.name) {
                if value.dtype() != input.dtype {
                    let reason =
                        format!("the value bound to it is {}, but it is {}", value.dtype(), input.dtype);
                    problem(format!("input `{}`", input.name), reason, String::new());
                }
                bound.push(Bound::Constant(value.clone()));
                continue;
            }
            let shape = given(input).or_else(|| {
                let dims = input.dims.as_ref()?.iter();
                dims.map(|dim| match dim {
                    Dim::Known(extent) => Some(*extent),
                    Dim::Symbol(symbol) => symbols.get(symbol.as_str()).copied(),
                    Dim::Unknown => None,
                })
                .collect()
            });
            match shape {
                Some(shape) => bound.push(Bound::Input(input.dtype, shape)),
                None => problem(
                    format!("input `{}`", input.name),
                    format!("its shape is not known: {}", describe(input)),
                    "give its shape".into(),
                ),
            }
        }
        if problems.is_empty() { Ok(bound) } else { Err(problems) }
    }
}

/// Whether a domain is that of the standard operators.
pub(super) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn describe(input: &InputDecl) -> String {
    let dims = input
        .dims
        .as_ref()
        .map_or("..".into(), |dims| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "));
    format!("{}: {}[{dims}]", input.name, input.dtype)
}

fn declaration(info: &ValueInfoProto) -> Result<InputDecl, Refusal> {
    let tensor = info.r#type.as_ref().and_then(|of| of.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| Refusal::unsupported("inputs that are not tensors"))?;
    let dims = match &tensor.shape {
        None => None,
        Some(shape) => {
            let dims = shape.dim.iter().map(|dim| match &dim.value {
                Some(DimensionValue::Value(extent)) => match usize::try_from(*extent) {
                    Ok(extent) => Dim::Known(extent),
                    // Some exporters write -1 for an open dimension.
                    Err(_) => Dim::Unknown,
                },
                Some(DimensionValue::Param(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
                Some(DimensionValue::Param(_)) | None => Dim::Unknown,
            });
            Some(dims.collect())
        }
    };
    Ok(InputDecl { name: info.name.clone(), dtype: weights::dtype(tensor.elem_type)?, dims })
}
