//! Traces: schedules as data, with their text form.

use super::{Refusal, Step, Tail};
use crate::expr::Scope;
use crate::loopir::print::{kind_name, kind_named};
use crate::loopir::{LoopKind, Nest};
use crate::tensor::DType;
use std::fmt;

/// A schedule: steps in the order of their application. Prints as one line a step; [`Trace::parse`] reads that again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trace {
    /// The steps.
    pub steps: Vec<Step>,
}

/// What is wrong with the text of a trace, or which step was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line is not a step.
    #[error("line {line}: '{text}' is not a step; {expected}")]
    Parse {
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
        /// What the step's form is.
        expected: &'static str,
    },
    /// A step does not apply.
    #[error("step {place} ({step}): {refusal}")]
    Refused {
        /// Counted from 1.
        place: usize,
        /// The step's text.
        step: String,
        /// Why.
        refusal: Refusal,
    },
}

impl Trace {
    /// Applies all steps.
    ///
    /// # Errors
    /// The first step that is refused; `nest` is as the steps before it left it.
    pub fn apply(&self, nest: &mut Nest) -> Result<(), TraceError> {
        for (place, step) in self.steps.iter().enumerate() {
            step.apply(nest).map_err(|refusal| TraceError::Refused {
                place: place + 1,
                step: step.to_string(),
                refusal,
            })?;
        }
        Ok(())
    }

    /// Applies the steps that apply and says of each whether it did: replay on another nest.
    pub fn replay(&self, nest: &mut Nest) -> Vec<Result<(), Refusal>> {
        self.steps.iter().map(|step| step.apply(nest)).collect()
    }

    /// Reads the text form. Empty lines and lines that start with `#` say nothing.
    ///
    /// # Errors
    /// The first line that is not a step.
    pub fn parse(text: &str) -> Result<Trace, TraceError> {
        let mut steps = vec![];
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let step = parse_step(line);
            steps.push(step.map_err(|expected| TraceError::Parse {
                line: number + 1,
                text: line.to_string(),
                expected,
            })?);
        }
        Ok(Trace { steps })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::Workgroup => "workgroup",
        Scope::Register => "register",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Split { of, factors, tail } => {
                write!(f, "split {of} = [_")?;
                factors.iter().try_for_each(|factor| write!(f, ", {factor}"))?;
                write!(f, "]{}", if *tail == Tail::Peel { " peel" } else { "" })
            }
            Step::Fuse { outer, inner, name } => write!(f, "fuse {outer} {inner} as {name}"),
            Step::Swizzle { outer, inner, height, name } => {
                write!(f, "swizzle {outer} {inner} in {height} as {name}")
            }
            Step::Reorder { order } => write!(f, "reorder {}", order.join(" ")),
            Step::Bind { of, kind } => match kind {
                LoopKind::Parallel => write!(f, "parallel {of}"),
                LoopKind::Vector => write!(f, "vectorise {of}"),
                LoopKind::Unroll => write!(f, "unroll {of}"),
                LoopKind::Serial => write!(f, "bind {of} serial"),
                LoopKind::Workgroup(_) | LoopKind::Invocation(_) => {
                    write!(f, "bind {of} {}", kind_name(*kind))
                }
            },
            Step::Inline { block } => write!(f, "inline {block}"),
            Step::ComputeAt { block, at } => write!(f, "compute_at {block} in {at}"),
            Step::StageIn { buffer, at, scope, by, pad, vector } => {
                write!(f, "stage_in {buffer}")?;
                at.iter().try_for_each(|at| write!(f, " at {at}"))?;
                write!(f, " in {}", scope_name(*scope))?;
                if !by.is_empty() {
                    write!(f, " by {}", by.join(" "))?;
                }
                write!(f, "{}", if *pad > 0 { format!(" pad {pad}") } else { String::new() })?;
                write!(f, "{}", if *vector > 1 { format!(" vector {vector}") } else { String::new() })
            }
            Step::StageOut { buffer, at, scope } => {
                write!(f, "stage_out {buffer}")?;
                at.iter().try_for_each(|at| write!(f, " at {at}"))?;
                write!(f, " in {}", scope_name(*scope))
            }
            Step::Keep { block } => write!(f, "keep {block}"),
            Step::SplitReduction { buffer, over } => write!(f, "split_reduction {buffer} over {over}"),
            Step::Relayout { buffer, by, dtype } => {
                write!(f, "relayout {buffer} by {}", by.join(" "))?;
                dtype.iter().try_for_each(|dtype| write!(f, " as {dtype}"))
            }
            Step::Prepare { buffer } => write!(f, "prepare {buffer}"),
            Step::Replace { of, instruction } => write!(f, "replace {of} by {instruction}"),
        }
    }
}

fn parse_step(line: &str) -> Result<Step, &'static str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = |word: &&str| (*word).to_string();
    match words.as_slice() {
        ["split", of, "=", rest @ ..] => {
            let expected = "write 'split i = [_, 16, 8]', with 'peel' behind it for a peeled tail";
            let text = rest.join(" ");
            let (list, behind) = text.split_once(']').ok_or(expected)?;
            let list = list.strip_prefix("[_").ok_or(expected)?;
            let factors = list.split(',').skip(1).map(|factor| factor.trim().parse().map_err(|_| expected));
            let tail = match behind.trim() {
                "" => Tail::Guard,
                "peel" => Tail::Peel,
                _other => return Err(expected),
            };
            Ok(Step::Split { of: name(of), factors: factors.collect::<Result<_, _>>()?, tail })
        }
        ["fuse", outer, inner, "as", fused] => {
            Ok(Step::Fuse { outer: name(outer), inner: name(inner), name: name(fused) })
        }
        ["swizzle", outer, inner, "in", height, "as", fused] => {
            let height = height.parse().map_err(|_| "write 'swizzle i j in 4 as ij'")?;
            Ok(Step::Swizzle { outer: name(outer), inner: name(inner), height, name: name(fused) })
        }
        ["reorder", order @ ..] if !order.is_empty() => {
            Ok(Step::Reorder { order: order.iter().map(name).collect() })
        }
        ["bind", of, kind] => {
            let kind = if *kind == "serial" { Some(LoopKind::Serial) } else { kind_named(kind) };
            Ok(Step::Bind { of: name(of), kind: kind.ok_or("write 'bind i workgroup.x'")? })
        }
        ["parallel", of] => Ok(Step::Bind { of: name(of), kind: LoopKind::Parallel }),
        ["vectorise", of] => Ok(Step::Bind { of: name(of), kind: LoopKind::Vector }),
        ["unroll", of] => Ok(Step::Bind { of: name(of), kind: LoopKind::Unroll }),
        ["inline", block] => Ok(Step::Inline { block: name(block) }),
        ["compute_at", block, "in", at] => Ok(Step::ComputeAt { block: name(block), at: name(at) }),
        ["stage_in", buffer, rest @ ..] => parse_stage_in(buffer, rest),
        ["stage_out", buffer, rest @ ..] => {
            let (at, scope) = match rest {
                ["at", at, "in", scope] => (Some(name(at)), scope),
                ["in", scope] => (None, scope),
                _other => return Err("write 'stage_out acc at j.1 in register'"),
            };
            Ok(Step::StageOut { buffer: name(buffer), at, scope: scope_named(scope)? })
        }
        ["keep", block] => Ok(Step::Keep { block: name(block) }),
        ["split_reduction", buffer, "over", over] => {
            Ok(Step::SplitReduction { buffer: name(buffer), over: name(over) })
        }
        ["relayout", buffer, "by", by @ .., "as", dtype] => {
            let dtype = DType::from_name(dtype).ok_or("write 'relayout w by k c as f32'")?;
            let dtype = Some(dtype);
            Ok(Step::Relayout { buffer: name(buffer), by: by.iter().map(name).collect(), dtype })
        }
        ["relayout", buffer, "by", by @ ..] => {
            Ok(Step::Relayout { buffer: name(buffer), by: by.iter().map(name).collect(), dtype: None })
        }
        ["prepare", buffer] => Ok(Step::Prepare { buffer: name(buffer) }),
        ["replace", of, "by", instruction] => {
            Ok(Step::Replace { of: name(of), instruction: name(instruction) })
        }
        _other => Err(
            "known steps: split, fuse, swizzle, reorder, bind, parallel, vectorise, unroll, inline, compute_at, stage_in, \
                       stage_out, keep, split_reduction, relayout, prepare, replace",
        ),
    }
}

fn scope_named(name: &str) -> Result<Scope, &'static str> {
    [Scope::Global, Scope::Workgroup, Scope::Register]
        .into_iter()
        .find(|&scope| scope_name(scope) == name)
        .ok_or("a scope is 'global', 'workgroup' or 'register'")
}

fn parse_stage_in(buffer: &str, mut rest: &[&str]) -> Result<Step, &'static str> {
    let expected = "write 'stage_in a at k.0 in workgroup by k.1 i.1 pad 1 vector 4'";
    let mut at = None;
    if let ["at", place, tail @ ..] = rest {
        at = Some((*place).to_string());
        rest = tail;
    }
    let ["in", scope, tail @ ..] = rest else { return Err(expected) };
    let scope = scope_named(scope)?;
    let (mut by, mut pad, mut vector) = (vec![], 0, 1);
    let mut words = tail.iter().peekable();
    while let Some(&word) = words.next() {
        match word {
            "by" => {
                while let Some(name) = words.next_if(|word| !matches!(**word, "pad" | "vector")) {
                    by.push((*name).to_string());
                }
            }
            "pad" => pad = words.next().and_then(|word| word.parse().ok()).ok_or(expected)?,
            "vector" => vector = words.next().and_then(|word| word.parse().ok()).ok_or(expected)?,
            _other => return Err(expected),
        }
    }
    Ok(Step::StageIn { buffer: buffer.to_string(), at, scope, by, pad, vector })
}
