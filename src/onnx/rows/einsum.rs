//! Sums of products in Einstein's notation, as transposes and matrix products.

use super::{Call, Refusal, Row, Values, row};
use crate::graph::ValueId;
use crate::ops::{MatMul, Reduce, ReduceKind, Slice, SliceAxis};

pub(super) const ROWS: &[Row] = &[row("Einsum", &["equation"], einsum)];

/// An operand with a label for each axis.
struct Term {
    value: ValueId,
    labels: Vec<char>,
}

/// Operands are multiplied from left to right; a label is summed over once neither the result nor a later operand has it.
fn einsum(call: &mut Call<'_>) -> Values {
    let equation: String = call.string("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let inputs = call.all_inputs()?;
    let bad = || Refusal::invalid(format!("the equation {equation:?} does not fit the inputs"));
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (&*equation, None),
    };
    let operands: Vec<&str> = left.split(',').collect();
    if operands.len() != inputs.len() {
        return Err(bad());
    }
    let mut terms = Vec::new();
    let mut widest = 0;
    for (&value, operand) in inputs.iter().zip(&operands) {
        let named = operand.replace("...", "").chars().count();
        let rest = call.rank(value).checked_sub(named).ok_or_else(bad)?;
        if !operand.contains("...") && rest != 0 {
            return Err(bad());
        }
        widest = widest.max(rest);
        terms.push(Term { value, labels: labels(operand, rest).ok_or_else(bad)? });
    }
    let result = match right {
        Some(right) => labels(right, widest).ok_or_else(bad)?,
        None => {
            let all: Vec<char> = terms.iter().flat_map(|term| term.labels.iter().copied()).collect();
            let mut once: Vec<char> = all
                .iter()
                .copied()
                .filter(|label| {
                    !label.is_ascii_digit() && all.iter().filter(|other| *other == label).count() == 1
                })
                .collect();
            once.sort_unstable();
            labels("...", widest).ok_or_else(bad)?.into_iter().chain(once).collect()
        }
    };
    let terms = terms.into_iter().map(|term| diagonal(call, term)).collect::<Result<Vec<_>, _>>()?;
    let mut rest = terms.into_iter();
    let mut sum = rest.next().ok_or_else(bad)?;
    while let Some(next) = rest.next() {
        let needed = |label: &char| {
            result.contains(label) || rest.as_slice().iter().any(|term| term.labels.contains(label))
        };
        sum = product(call, sum, next, &needed)?;
    }
    let sum = reduced(call, sum, &|label| result.contains(label))?;
    let perm = result.iter().map(|label| sum.labels.iter().position(|other| other == label));
    let perm = perm.collect::<Option<Vec<usize>>>().filter(|perm| perm.len() == sum.labels.len());
    Ok(vec![call.transpose(sum.value, perm.ok_or_else(bad)?)?])
}

/// The labels of an operand; the `rest` axes of an ellipsis are digits that count from the right.
fn labels(operand: &str, rest: usize) -> Option<Vec<char>> {
    let ellipsis: String = (0..rest).rev().map(|i| char::from_digit(i as u32, 10)).collect::<Option<_>>()?;
    let text = operand.replace("...", &ellipsis);
    text.chars().all(|c| c.is_ascii_alphanumeric()).then(|| text.chars().collect())
}

/// The operand with only one axis of each label: the diagonal of the axes that share one.
fn diagonal(call: &mut Call<'_>, mut term: Term) -> Result<Term, Refusal> {
    while let Some((first, second)) = (1..term.labels.len())
        .find_map(|i| Some((term.labels[..i].iter().position(|label| *label == term.labels[i])?, i)))
    {
        let shape = call.shape(term.value);
        let (rank, extent) = (shape.len(), shape[first]);
        if extent != shape[second] {
            return Err(Refusal::invalid(format!("axes {first} and {second} of {shape:?} share a label")));
        }
        let others = (0..rank).filter(|&axis| axis != first && axis != second);
        let moved = call.transpose(term.value, others.chain([first, second]).collect())?;
        let mut flat = call.shape(moved)[..rank - 2].to_vec();
        flat.push(extent * extent);
        let flat = call.view(moved, flat)?;
        let mut axes: Vec<SliceAxis> = call.shape(flat).iter().map(|&dim| SliceAxis::all(dim)).collect();
        axes[rank - 2] = SliceAxis { start: 0, step: extent as i64 + 1, size: extent };
        term.value = call.add(Slice { axes }, &[flat])?;
        let label = term.labels.remove(second);
        term.labels.remove(first);
        term.labels.push(label);
    }
    Ok(term)
}

/// The sum over the labels that are not needed any more.
fn reduced(call: &mut Call<'_>, term: Term, needed: &dyn Fn(&char) -> bool) -> Result<Term, Refusal> {
    let axes: Vec<usize> = (0..term.labels.len()).filter(|&axis| !needed(&term.labels[axis])).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let labels = term.labels.into_iter().filter(needed).collect();
    let value = call.add(Reduce { kind: ReduceKind::Sum, axes, keep: false }, &[term.value])?;
    Ok(Term { value, labels })
}

fn product(call: &mut Call<'_>, a: Term, b: Term, needed: &dyn Fn(&char) -> bool) -> Result<Term, Refusal> {
    let a = reduced(call, a, &|label| needed(label) || b.labels.contains(label))?;
    let b = reduced(call, b, &|label| needed(label) || a.labels.contains(label))?;
    let extent = |call: &Call<'_>, term: &Term, label: &char| {
        term.labels.iter().position(|other| other == label).map_or(1, |axis| call.shape(term.value)[axis])
    };
    let shared: Vec<char> = a.labels.iter().copied().filter(|label| b.labels.contains(label)).collect();
    let (batch, summed): (Vec<char>, Vec<char>) = shared.iter().partition(|label| needed(label));
    let only = |term: &Term| -> Vec<char> {
        term.labels.iter().copied().filter(|label| !shared.contains(label)).collect()
    };
    let (rows, columns) = (only(&a), only(&b));
    let extents = |call: &Call<'_>, term: &Term, labels: &[char]| -> Vec<usize> {
        labels.iter().map(|label| extent(call, term, label)).collect()
    };
    let arranged = |call: &mut Call<'_>, term: &Term, parts: [&[char]; 3]| -> Result<ValueId, Refusal> {
        let perm = parts
            .concat()
            .iter()
            .filter_map(|label| term.labels.iter().position(|other| other == label))
            .collect();
        let mut shape = extents(call, term, parts[0]);
        shape.push(extents(call, term, parts[1]).iter().product());
        shape.push(extents(call, term, parts[2]).iter().product());
        let moved = call.transpose(term.value, perm)?;
        call.view(moved, shape)
    };
    let left = arranged(call, &a, [&batch, &rows, &summed])?;
    let right = arranged(call, &b, [&batch, &summed, &columns])?;
    let product = call.add(MatMul::default(), &[left, right])?;
    let rank = call.rank(product);
    let mut shape = call.shape(product)[..rank - 2].to_vec();
    shape.extend(extents(call, &a, &rows));
    shape.extend(extents(call, &b, &columns));
    Ok(Term { value: call.view(product, shape)?, labels: [batch, rows, columns].concat() })
}
