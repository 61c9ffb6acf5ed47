//! The table of ONNX operators: a row says which versions and attributes it takes and how it is composed of the operators of
//! the graph. To add an operator on known blocks, write its function and its row.

mod constants;
mod einsum;
mod elementwise;
mod indexing;
mod linear;
mod norm;
mod quantize;
mod quantize_more;
mod recurrent;
mod reduce;
mod resize;
mod shape;
mod window;

use super::call::{Call, Values};
use super::problem::Refusal;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The operator that is not a row's composition but a choice of the importer.
pub(super) const IF: &str = "If";

/// One ONNX operator, or some versions of it.
pub(super) struct Row {
    domain: &'static str,
    name: &'static str,
    /// The first and last version of the standard operators it is for.
    opsets: (i64, i64),
    /// Every attribute it knows. One that the function ignores has no influence on the result.
    pub(super) attributes: &'static [&'static str],
    pub(super) import: fn(&mut Call<'_>) -> Values,
}

const fn row(
    name: &'static str,
    attributes: &'static [&'static str],
    import: fn(&mut Call<'_>) -> Values,
) -> Row {
    Row { domain: "", name, opsets: (1, i64::MAX), attributes, import }
}

impl Row {
    const fn since(self, opset: i64) -> Row {
        Row { opsets: (opset, self.opsets.1), ..self }
    }

    const fn until(self, opset: i64) -> Row {
        Row { opsets: (self.opsets.0, opset), ..self }
    }

    const fn domain(self, domain: &'static str) -> Row {
        Row { domain, ..self }
    }
}

const CHOICE: &[Row] = &[row(IF, &["then_branch", "else_branch"], |_| {
    Err(Refusal::unsupported("a branch outside the importer"))
})];

const TABLES: &[&[Row]] = &[
    CHOICE,
    constants::ROWS,
    einsum::ROWS,
    elementwise::ROWS,
    indexing::ROWS,
    linear::ROWS,
    norm::ROWS,
    quantize::ROWS,
    quantize_more::ROWS,
    recurrent::ROWS,
    reduce::ROWS,
    resize::ROWS,
    shape::ROWS,
    window::ROWS,
];

/// Operators whose results have a shape that depends on data, or that are none of a tensor program.
const REASONS: &[(&str, &[&str])] = &[
    (
        "its output shape depends on data",
        &["Compress", "NonMaxSuppression", "NonZero", "Unique", "StringSplit"],
    ),
    ("loops depend on data", &["Loop", "Scan"]),
    (
        "it works on sequences, maps or optional values",
        &[
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ],
    ),
    (
        "its result is random",
        &[
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ],
    ),
    ("it works on strings", &["RegexFullMatch", "StringConcat", "StringNormalizer", "TfIdfVectorizer"]),
];

static INDEX: LazyLock<HashMap<(&str, &str), Vec<&Row>>> = LazyLock::new(|| {
    let mut index: HashMap<_, Vec<&Row>> = HashMap::new();
    for row in TABLES.iter().copied().flatten() {
        index.entry((row.domain, row.name)).or_default().push(row);
    }
    index
});

/// The row of an operator, or why there is none. The domain of the standard operators is empty.
pub(super) fn find(domain: &str, name: &str, opset: i64) -> Result<&'static Row, Refusal> {
    match INDEX.get(&(domain, name)) {
        Some(rows) => {
            let fits = |row: &&&Row| !domain.is_empty() || (row.opsets.0..=row.opsets.1).contains(&opset);
            rows.iter()
                .find(fits)
                .copied()
                .ok_or_else(|| Refusal::unsupported(format!("the operator {name} of opset {opset}")))
        }
        None if domain.is_empty() => {
            let reason = REASONS.iter().find(|(_, names)| names.contains(&name)).map(|(reason, _)| *reason);
            Err(Refusal::unsupported(match reason {
                Some(reason) => format!("the operator {name}: {reason}"),
                None => format!("the operator {name}"),
            }))
        }
        None => Err(Refusal::unsupported(format!("the operator {name} of the domain {domain}"))),
    }
}
