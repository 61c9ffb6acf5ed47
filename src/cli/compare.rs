//! `paisley compare`.

use super::arguments::{DeviceArguments, ModelArguments};
use super::error::{Answer, CliError};
use super::files;
use super::prepare::{self, Imported};
use super::report::{self, Table};
use crate::runtime::{DeviceChoice, OpenDevice};
use crate::tensor::{Comparison, Tensor, Tolerance, compare};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Runs a model on two devices, or on one and takes the other side from a file, and lays the outputs side by side.
///
/// The exit code is 1 where an output differs by more than the tolerance. Where `--with` is a file that holds inputs too (keys
/// `in:NAME` and `out:NAME`) and `--inputs` is not given, they are taken from it.
#[derive(Args)]
#[command(after_help = "Examples:
  paisley compare model.onnx --device gpu --with reference
  paisley compare model.onnx --device cpu --with golden.npz --tolerance 1e-4")]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    device: DeviceArguments,

    /// The other side: a device, or a file of arrays keyed by output name (or `out:` and the name)
    #[arg(long, value_name = "DEVICE-or-FILE.npz")]
    with: String,

    /// The largest difference that counts as equal, as a part of the output's largest value
    #[arg(long, value_name = "PART", default_value_t = 1e-3)]
    tolerance: f64,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// One output on both sides.
struct Pair {
    name: String,
    ours: Tensor,
    theirs: Tensor,
    comparison: Comparison,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, CliError> {
    let [choice] = arguments.device.device[..] else {
        return Err(CliError::input("--device takes one device here; the other one goes to --with"));
    };
    if arguments.tolerance.is_nan() || arguments.tolerance < 0.0 {
        return Err(CliError::input("--tolerance is a positive number, or 0"));
    }
    let other_device = arguments.with.parse::<DeviceChoice>().ok();
    let file = PathBuf::from(&arguments.with);
    let model = prepare_arguments(arguments, other_device.is_none().then_some(&file))?;
    let imported = prepare::import(&model)?;
    let options = arguments.device.options();
    let device = OpenDevice::open(choice, &options)?;
    let ours = outputs(&imported, &device)?;
    let (theirs, other_line) = match other_device {
        Some(choice) => {
            let other = OpenDevice::open(choice, &options)?;
            let line = report::device_line(&other);
            (outputs(&imported, &other)?.into_iter().map(|(_, tensor)| tensor).collect(), line)
        }
        None => (expected(&file, &ours)?, format!("file: {}", file.display())),
    };
    let tolerance = Tolerance::OfLargest(arguments.tolerance);
    let pairs: Vec<Pair> = ours
        .into_iter()
        .zip(theirs)
        .map(|((name, ours), theirs)| {
            let comparison = compare(&ours, &theirs, tolerance);
            Pair { name, ours, theirs, comparison }
        })
        .collect();
    let within = pairs.iter().all(|pair| pair.comparison.within);
    if arguments.json {
        report::print_json(&json!({
            "model": arguments.model.model.display().to_string(),
            "device": device.kind(),
            "adapter": device.name(),
            "software_adapter": device.is_software_adapter(),
            "with": arguments.with,
            "tolerance": arguments.tolerance,
            "within": within,
            "notes": imported.given.notes,
            "outputs": pairs.iter().map(pair_json).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut text = format!("A  {}\nB  {other_line}\n", report::device_line(&device));
        for input in &imported.inputs {
            text += &format!("   input {}: {}\n", input.name, input.source);
        }
        for note in &imported.given.notes {
            text += &format!("   note: {note}\n");
        }
        text += &table(&pairs);
        text += &format!(
            "{} within {:e} of the largest value\n",
            if within { "all outputs are" } else { "NOT all outputs are" },
            arguments.tolerance
        );
        report::print(&text)?;
    }
    Ok(within.into())
}

/// The arguments of the model, with the inputs that a file of expected outputs holds.
fn prepare_arguments(arguments: &Arguments, file: Option<&PathBuf>) -> Result<ModelArguments, CliError> {
    let mut model = arguments.model.clone();
    if let Some(file) = file
        && model.inputs.is_none()
        && model.input.is_empty()
        && files::read_npz(file, |_| false)?.keys().any(|key| key.starts_with("in:"))
    {
        model.inputs = Some(file.clone());
    }
    Ok(model)
}

fn outputs(imported: &Imported, device: &OpenDevice) -> Result<Vec<(String, Tensor)>, CliError> {
    let mut prepared = prepare::session(imported, imported.graph.clone(), device)?;
    let run = prepared.session.run_ordered(&prepared.inputs, false)?;
    let names = prepared.session.plan().outputs.iter().map(|output| output.name.clone());
    Ok(names.zip(run.outputs).collect())
}

/// The file's array for each output.
fn expected(file: &Path, ours: &[(String, Tensor)]) -> Result<Vec<Tensor>, CliError> {
    let wanted =
        |key: &str| ours.iter().any(|(name, _)| key == name || key.strip_prefix("out:") == Some(name));
    let mut arrays = files::read_npz(file, wanted)?;
    let keys: Vec<String> = arrays.keys().cloned().collect();
    ours.iter()
        .map(|(name, _)| {
            let found =
                arrays.remove(&format!("out:{name}")).flatten().or_else(|| arrays.remove(name).flatten());
            found.ok_or_else(|| {
                CliError::input(format!(
                    "{}: there is no array for output `{name}`; it holds {}",
                    file.display(),
                    keys.join(", ")
                ))
            })
        })
        .collect()
}

impl Pair {
    /// Whether types and shapes allow a comparison at all.
    fn comparable(&self) -> bool {
        self.ours.dtype() == self.theirs.dtype() && self.ours.shape() == self.theirs.shape()
    }

    /// The index of the worst element and both values.
    fn worst(&self) -> Option<(Vec<usize>, f64, f64)> {
        let flat = self.comparison.worst.filter(|_| self.comparable())?;
        let strides = crate::tensor::row_major_strides(self.ours.shape());
        let index = strides.iter().zip(self.ours.shape()).map(|(stride, dim)| flat / stride % dim).collect();
        Some((index, self.ours.get_f64(flat), self.theirs.get_f64(flat)))
    }
}

fn table(pairs: &[Pair]) -> String {
    let mut table = Table::new(&[
        "output",
        "type and shape",
        ">largest difference",
        ">of largest",
        "",
        "where",
        ">A",
        ">B",
    ]);
    for pair in pairs {
        let fact = |tensor: &Tensor| format!("{}{:?}", tensor.dtype(), tensor.shape());
        if !pair.comparable() {
            let facts = format!("{} against {}", fact(&pair.ours), fact(&pair.theirs));
            table.row(&[&pair.name, &facts, &"-", &"-", &"DIFFERS", &"", &"", &""]);
            continue;
        }
        let word = if pair.comparison.within { "ok" } else { "DIFFERS" };
        let (place, a, b) = pair.worst().map_or_else(Default::default, |(index, a, b)| {
            (format!("{index:?}"), format!("{a:.7}"), format!("{b:.7}"))
        });
        table.row(&[
            &pair.name,
            &fact(&pair.ours),
            &format!("{:.2e}", pair.comparison.max_absolute),
            &format!("{:.2e}", pair.comparison.max_of_largest),
            &word,
            &place,
            &a,
            &b,
        ]);
    }
    table.print("")
}

fn pair_json(pair: &Pair) -> Value {
    json!({
        "name": pair.name,
        "dtype": pair.ours.dtype().name(),
        "shape": pair.ours.shape(),
        "other_dtype": pair.theirs.dtype().name(),
        "other_shape": pair.theirs.shape(),
        "max_absolute": number(pair.comparison.max_absolute),
        "max_of_largest": number(pair.comparison.max_of_largest),
        "within": pair.comparison.within,
        "worst": pair.worst().map(|(index, a, b)| json!({ "index": index, "a": number(a), "b": number(b) })),
    })
}

/// A number of a JSON document, which has none for infinities and NaN: their names stand there.
pub(super) fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}
