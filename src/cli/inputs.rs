//! What a model is fed: arrays from files, shapes from these and from flags, random numbers for the rest.

use super::arguments::ModelArguments;
use super::error::CliError;
use super::{files, images};
use crate::base::{Random, fits_memory};
use crate::graph::Graph;
use crate::onnx::{Bindings, Dim, InputDecl, Model};
use crate::ops::Fact;
use crate::runtime::RuntimeError;
use crate::tensor::{DType, Tensor};
use std::collections::BTreeMap;

/// Arrays that were given, and what they and the flags say of the model's open dimensions.
pub(super) struct Given {
    /// By input name, with where each comes from.
    arrays: BTreeMap<String, (Tensor, String)>,
    /// For [`Model::graph`].
    pub(super) bindings: Bindings,
    /// What was decided without being asked for.
    pub(super) notes: Vec<String>,
    seed: u64,
}

/// One input of a run.
pub(super) struct Input {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    /// Where it comes from.
    pub(super) source: String,
}

/// Reads the files that `arguments` name and binds what the model leaves open.
pub(super) fn gather(model: &Model, arguments: &ModelArguments) -> Result<Given, CliError> {
    let mut gatherer = Gatherer {
        model,
        arguments,
        arrays: BTreeMap::new(),
        shapes: BTreeMap::new(),
        symbols: BTreeMap::new(),
        notes: vec![],
    };
    gatherer.shapes()?;
    gatherer.archive()?;
    gatherer.files()?;
    gatherer.leading_dimensions();
    gatherer.complain_of_open_dimensions()?;
    gatherer.finish()
}

struct Gatherer<'a> {
    model: &'a Model,
    arguments: &'a ModelArguments,
    arrays: BTreeMap<String, (Tensor, String)>,
    shapes: BTreeMap<String, Vec<usize>>,
    symbols: BTreeMap<String, usize>,
    notes: Vec<String>,
}

impl Gatherer<'_> {
    fn declaration(&self, name: &str) -> Result<&InputDecl, CliError> {
        self.model.inputs().iter().find(|input| input.name == name).ok_or_else(|| {
            let known: Vec<String> = self.model.inputs().iter().map(describe).collect();
            CliError::input(format!("the model has no input `{name}`; its inputs are {}", known.join(", ")))
        })
    }

    /// `--shape`: of an input, or of a dimension.
    fn shapes(&mut self) -> Result<(), CliError> {
        for (name, shape) in &self.arguments.shape {
            let named = |dim: &Dim| matches!(dim, Dim::Symbol(symbol) if symbol == name);
            let is_symbol = self.model.inputs().iter().any(|input| input.dims.iter().flatten().any(named));
            if self.model.inputs().iter().any(|input| input.name == *name) {
                self.bind(name, &shape.0)?;
                self.shapes.insert(name.clone(), shape.0.clone());
            } else if let ([extent], true) = (&shape.0[..], is_symbol) {
                self.symbols.insert(name.clone(), *extent);
            } else if is_symbol {
                return Err(CliError::input(format!("`{name}` is one dimension; write --shape {name}=1")));
            } else {
                return Err(self.declaration(name).map(drop).err().unwrap_or_else(|| CliError::input("")));
            }
        }
        Ok(())
    }

    /// Notes the extents that `shape` gives to dimensions the input names.
    fn bind(&mut self, name: &str, shape: &[usize]) -> Result<(), CliError> {
        let dims = self.declaration(name)?.dims.clone().unwrap_or_default();
        if dims.len() != shape.len() {
            return Ok(());
        }
        for (dim, &extent) in dims.iter().zip(shape) {
            if let Dim::Symbol(symbol) = dim {
                let known = *self.symbols.entry(symbol.clone()).or_insert(extent);
                if known != extent {
                    return Err(CliError::input(format!(
                        "input `{name}`: dimension `{symbol}` is {extent} here and {known} elsewhere; give it one extent"
                    )));
                }
            }
        }
        Ok(())
    }

    /// `--inputs`.
    fn archive(&mut self) -> Result<(), CliError> {
        let Some(path) = &self.arguments.inputs else { return Ok(()) };
        let input_of = |key: &str| {
            let name = |input: &&InputDecl| input.name == key || key.strip_prefix("in:") == Some(&input.name);
            self.model.inputs().iter().find(name).map(|input| input.name.clone())
        };
        for (key, tensor) in files::read_npz(path, |key| input_of(key).is_some())? {
            match (input_of(&key), tensor) {
                (Some(name), Some(tensor)) => self.add(&name, tensor, path.display().to_string())?,
                // Arrays with expected outputs lie beside the inputs in files of reference results.
                (None, _) if key.starts_with("out:") => {}
                (_, _) => {
                    let error = self.declaration(&key).map(drop).err();
                    return Err(error.unwrap_or_else(|| CliError::input("")).about(path.display()));
                }
            }
        }
        Ok(())
    }

    /// `--input`.
    fn files(&mut self) -> Result<(), CliError> {
        for (name, path) in &self.arguments.input {
            let input = self.declaration(name)?.clone();
            let (tensor, source) = if images::is_image(path) {
                let dims = self.known_dims(&input).ok_or_else(|| {
                    CliError::input(format!(
                        "input `{name}` has no declared shape; give --shape {name}=1x3x224x224"
                    ))
                })?;
                images::read(path, &input, &dims, self.arguments)
                    .map_err(|text| CliError::input(format!("input `{name}`: {text}")))?
            } else {
                (files::read_npy(path)?, path.display().to_string())
            };
            self.add(name, tensor, source)?;
        }
        Ok(())
    }

    /// The dimensions of an input, those known that flags and earlier arrays bind.
    fn known_dims(&self, input: &InputDecl) -> Option<Vec<Dim>> {
        if let Some(shape) = self.shapes.get(&input.name) {
            return Some(shape.iter().map(|&extent| Dim::Known(extent)).collect());
        }
        let dims = input.dims.as_ref()?.iter();
        Some(
            dims.map(|dim| match dim {
                Dim::Symbol(symbol) => {
                    self.symbols.get(symbol).map_or(dim.clone(), |&extent| Dim::Known(extent))
                }
                Dim::Known(_) | Dim::Unknown => dim.clone(),
            })
            .collect(),
        )
    }

    fn add(&mut self, name: &str, tensor: Tensor, source: String) -> Result<(), CliError> {
        let input = self.declaration(name)?.clone();
        let given = format!("{}{:?}", tensor.dtype(), tensor.shape());
        if tensor.dtype() != input.dtype {
            return Err(CliError::input(format!(
                "input `{name}`: the model wants {}, but {given} was given",
                describe(&input)
            )));
        }
        if let Some(dims) = self.known_dims(&input) {
            let fits = dims.len() == tensor.shape().len()
                && dims.iter().zip(tensor.shape()).all(|(dim, extent)| match dim {
                    Dim::Known(known) => known == extent,
                    Dim::Symbol(_) | Dim::Unknown => true,
                });
            if !fits {
                return Err(CliError::input(format!(
                    "input `{name}`: the model wants {}, but {given} was given; if the file declares it wrongly, say so with \
                     --shape {name}={}",
                    describe(&input),
                    tensor.shape().iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
                )));
            }
        }
        self.bind(name, tensor.shape())?;
        self.shapes.insert(name.to_string(), tensor.shape().to_vec());
        if self.arrays.insert(name.to_string(), (tensor, source)).is_some() {
            return Err(CliError::input(format!("input `{name}` is given twice")));
        }
        Ok(())
    }

    /// A leading dimension that nothing binds is a batch of one.
    fn leading_dimensions(&mut self) {
        for input in self.model.inputs() {
            if self.shapes.contains_key(&input.name) {
                continue;
            }
            if let Some(Dim::Symbol(symbol)) = input.dims.iter().flatten().next()
                && !self.symbols.contains_key(symbol)
            {
                self.symbols.insert(symbol.clone(), 1);
                self.notes.push(format!(
                    "dimension `{symbol}` is not given: 1 (change it with --shape {symbol}=N)"
                ));
            }
        }
        for input in self.model.inputs() {
            let Some(dims) = self.known_dims(input) else { continue };
            if let [Dim::Unknown, rest @ ..] = &dims[..] {
                let rest: Option<Vec<usize>> = rest
                    .iter()
                    .map(|dim| match dim {
                        Dim::Known(extent) => Some(*extent),
                        Dim::Symbol(_) | Dim::Unknown => None,
                    })
                    .collect();
                if let Some(rest) = rest {
                    let name = &input.name;
                    self.shapes.insert(name.clone(), [vec![1], rest].concat());
                    self.notes.push(format!("the leading dimension of `{name}` is not given: 1"));
                }
            }
        }
    }

    fn complain_of_open_dimensions(&self) -> Result<(), CliError> {
        let mut missing = vec![];
        for input in self.model.inputs() {
            let shape = match self.known_dims(input) {
                Some(dims) if dims.iter().all(|dim| matches!(dim, Dim::Known(_))) => continue,
                Some(dims) => dims
                    .iter()
                    .map(|dim| match dim {
                        Dim::Known(extent) => extent.to_string(),
                        Dim::Symbol(_) | Dim::Unknown => "N".into(),
                    })
                    .collect::<Vec<_>>()
                    .join("x"),
                None => "NxN".into(),
            };
            missing.push(format!("  {} (--shape {}={shape})", describe(input), input.name));
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(CliError::input(format!(
                "the shapes of these inputs are not known; give the arrays, or shapes with numbers for N:\n{}",
                missing.join("\n")
            ))),
        }
    }

    fn finish(mut self) -> Result<Given, CliError> {
        let mut bindings = Bindings::new();
        for (name, shape) in &self.shapes {
            bindings = bindings.shape(name, shape);
        }
        for (symbol, extent) in &self.symbols {
            bindings = bindings.dim(symbol, *extent);
        }
        for name in &self.arguments.constant {
            self.declaration(name)?;
            let Some((tensor, _)) = self.arrays.remove(name) else {
                return Err(CliError::input(format!("--constant {name}: no array is given for it")));
            };
            bindings = bindings.value(name, tensor);
        }
        let seed = self.arguments.fill.seed;
        Ok(Given { arrays: self.arrays, bindings, notes: self.notes, seed })
    }
}

impl Given {
    /// The inputs of `graph`, in its order: those given, and random numbers for the others.
    ///
    /// # Errors
    /// When they do not fit in memory.
    pub(super) fn inputs(&self, graph: &Graph) -> Result<Vec<Input>, CliError> {
        let made =
            graph.inputs().iter().filter(|&&value| !self.arrays.contains_key(&graph.values()[value].name));
        let bytes = made.map(|&value| graph.fact(value).size_bytes()).fold(0, usize::saturating_add);
        if !fits_memory(bytes) {
            return Err(RuntimeError::Memory { bytes }.into());
        }
        let inputs = graph.inputs().iter().enumerate();
        Ok(inputs
            .map(|(index, &value)| {
                let name = graph.values()[value].name.clone();
                let (tensor, source) = self.arrays.get(&name).cloned().unwrap_or_else(|| {
                    let seed = self.seed;
                    let stream = seed ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    (random(graph.fact(value), stream), format!("not given: random numbers of seed {seed}"))
                });
                Input { name, tensor, source }
            })
            .collect())
    }
}

/// Floats uniform in 0 to 1; integers and bools 0 or 1, which are safe as indices and masks.
fn random(fact: &Fact, seed: u64) -> Tensor {
    let mut random = Random::new(seed);
    match fact.dtype {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
            Tensor::from_fn(fact.dtype, &fact.shape, |_| random.unit())
        }
        DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool => Tensor::from_fn(fact.dtype, &fact.shape, |_| random.below(2) as f64),
    }
}

fn describe(input: &InputDecl) -> String {
    let dims = match &input.dims {
        None => "..".to_string(),
        Some(dims) => dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "),
    };
    format!("{}: {}[{dims}]", input.name, input.dtype)
}
