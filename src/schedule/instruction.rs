//! Instructions: what hardware does well, declared as a nest with a name.
//!
//! An instruction's nest is a chain of loops around one combining block, of which the outermost may stand for several. A loop
//! unifies with it when it has the same loops in the same order, extents within the limits, the same shape of value, and accesses whose strides over these loops fit.

mod table;

pub use table::{INSTRUCTIONS, instruction_named};

use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, ExprPool, VarId};
use crate::loopir::{Combiner, Loop, LoopKind, Stmt};
use crate::tensor::DType;
use paisley_kernels::transform::{Matrix, Sides};
use std::collections::HashMap;

/// What the stride of an operand over a loop must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stride {
    /// The operand does not depend on the loop.
    Zero,
    /// Neighbours are adjacent.
    One,
    /// Neighbours are rows without gaps: the stride is the extent of the loop directly inside.
    Row,
    /// The operand moves forward.
    Positive,
    /// Anything that is the same everywhere.
    Any,
}

/// The value of an instruction's block.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// One operand.
    Single,
    /// The product of two.
    Product,
    /// The product, in any order, of one operand and of factors that read nothing, in loops `i j t p q l`: the factors over `p` and `i`
    /// are together the element `[p, i]` of the matrix at every iteration, those over `q` and `j` its element `[q, j]`. Of tiles that
    /// are rows there are only the loops `j t q l`.
    Transform(Matrix, Sides),
}

/// One operand: a name and its stride over each loop.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// The name in the instruction's documentation.
    pub name: &'static str,
    /// The types its elements may have.
    pub dtypes: &'static [DType],
    /// One rule a loop, outermost first.
    pub strides: &'static [Stride],
    /// Whether it may be a value that changes nothing instead of a read where an affine condition fails: on one of the loops that the
    /// outermost stands for, if on the last perhaps on the next loop too.
    pub edges: bool,
}

/// How many iterations of a loop of an instruction run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// A condition may cut the loop short.
    Some,
    /// All: no condition depends on the loop.
    All,
    /// As many as the largest extent.
    Exactly,
}

/// The family of micro-kernels that an instruction is emitted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// A matrix tile: the first of the target that holds the loops' extents.
    Tile,
    /// A matrix tile whose innermost loop is over neighbours of which the products are added at once.
    Dots,
    /// Windows over planes.
    Window,
    /// A matrix applied to tiles.
    Transform,
}

/// A nest with a name: `result[..] combine= value` in a chain of loops. Operands of another type than the result's are converted to it.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// The name a schedule uses.
    pub name: &'static str,
    /// Loops, outermost first: role, the largest extent, and how many of the iterations run.
    pub loops: &'static [(&'static str, usize, Runs)],
    /// How many loops the outermost one may stand for.
    pub levels: usize,
    /// Whether a condition may leave out the last iterations of the last of those in the last iteration of the first.
    pub tail: bool,
    /// The operands of the value, in order.
    pub operands: &'static [Operand],
    /// The value.
    pub value: Shape,
    /// How the result combines.
    pub combine: Combiner,
    /// The result's stride over each loop.
    pub result: Operand,
    /// What is called for it.
    pub emission: Emission,
}

/// How a loop is an instruction.
#[derive(Clone, Debug)]
pub struct Match {
    /// The loops, outermost first.
    pub loops: Vec<VarId>,
    /// How many of them the instruction's outermost loop stands for.
    pub levels: usize,
    /// For each operand: its buffer and the linear address.
    pub operands: Vec<(BufferId, Affine)>,
    /// The result's buffer and its linear address.
    pub result: (BufferId, Affine),
    /// The conjuncts under which the block runs.
    pub conditions: Vec<ExprId>,
    /// The conjuncts under which the first operand is read; elsewhere the term changes nothing.
    pub guards: Vec<ExprId>,
    /// The condition that leaves out the last terms in the last iteration of the first loop.
    pub tail: Option<ExprId>,
}

/// Unifies a loop and all in it with an instruction.
///
/// # Errors
/// The part that does not fit, as a sentence.
pub fn unify(pool: &mut ExprPool, of: &Loop, instruction: &Instruction) -> Result<Match, String> {
    let mut loops = vec![];
    let mut at = of;
    let store = loop {
        if at.kind != LoopKind::Serial {
            return Err(format!("loop '{}' is bound", pool.vars[at.var].name));
        }
        loops.push(at.var);
        match at.body.as_slice() {
            [Stmt::Loop(inner)] => at = inner,
            [Stmt::Store(store)] => break store,
            _several => return Err("it contains more than one block".into()),
        }
    };
    let wanted = instruction.loops.len();
    if loops.len() < wanted || loops.len() > wanted - 1 + instruction.levels {
        return Err(format!("it has {} loops, the instruction {wanted}", loops.len()));
    }
    let levels = loops.len() - wanted + 1;
    for (place, &var) in loops.iter().enumerate() {
        let (role, limit, runs) = instruction.loops[role(levels, place)];
        let variable = &pool.vars[var];
        if variable.extent > limit {
            return Err(format!(
                "loop '{}' has {} iterations, '{role}' at most {limit}",
                variable.name, variable.extent
            ));
        }
        if runs == Runs::Exactly && variable.extent != limit {
            return Err(format!(
                "loop '{}' has {} iterations, '{role}' exactly {limit}",
                variable.name, variable.extent
            ));
        }
    }
    if store.combine != Some(instruction.combine) {
        return Err(format!("block '{}' does not combine by {:?}", store.block, instruction.combine));
    }
    let values = match (instruction.value, pool.get(store.value).clone()) {
        (Shape::Product, Expr::Binary(BinaryOp::Mul, a, b)) => vec![a, b],
        (Shape::Product, _) => return Err("its value is not a product".into()),
        (Shape::Transform(matrix, sides), _) => {
            vec![transformed(pool, store.value, &loops, matrix, sides)?]
        }
        (Shape::Single, _) => vec![store.value],
    };
    let mut operands = None;
    let orders: &[&[usize]] = if values.len() == 2 { &[&[0, 1], &[1, 0]] } else { &[&[0]] };
    let mut reason = String::new();
    for order in orders {
        let attempt: Result<Vec<_>, String> = order
            .iter()
            .zip(instruction.operands)
            .map(|(&place, operand)| {
                let (read, guards) = match operand.edges {
                    true => under_conditions(pool, values[place], instruction.combine),
                    false => (values[place], vec![]),
                };
                // Operands are converted to the type of the result.
                let read = match pool.get(read) {
                    &Expr::Cast(dtype, converted) if instruction.result.dtypes == [dtype] => converted,
                    _read => read,
                };
                let Expr::Load(buffer, index) = pool.get(read).clone() else {
                    return Err(format!("operand '{}' is not a plain read", operand.name));
                };
                for &guard in &guards {
                    match instruction.emission {
                        Emission::Tile | Emission::Dots | Emission::Window => {
                            leaves_out_terms(pool, guard, &loops, levels)?
                        }
                        Emission::Transform => leaves_out_elements(pool, guard, &loops)?,
                    }
                }
                Ok((fits(pool, buffer, &index, &loops, operand)?, guards))
            })
            .collect();
        match attempt {
            Ok(found) => operands = operands.or(Some(found)),
            Err(why) if reason.is_empty() => reason = why,
            Err(_same_of_the_other_order) => {}
        }
    }
    let (operands, guards): (Vec<_>, Vec<_>) = operands.ok_or(reason)?.into_iter().unzip();
    let result = fits(pool, store.buffer, &store.index, &loops, &instruction.result)?;
    if operands.iter().any(|(buffer, _)| *buffer == result.0) {
        return Err("it reads what it writes".into());
    }
    let (tails, conditions): (Vec<ExprId>, Vec<ExprId>) = store
        .condition
        .map(|condition| pool.conjuncts(condition))
        .unwrap_or_default()
        .into_iter()
        .map(|condition| match (instruction.emission, loops.last()) {
            (Emission::Dots, Some(&neighbours)) => without(pool, condition, neighbours).unwrap_or(condition),
            _other => condition,
        })
        .collect::<Vec<_>>()
        .into_iter()
        .partition(|&condition| instruction.tail && is_tail(pool, condition, &loops, levels));
    for &condition in &conditions {
        let whole = loops.iter().enumerate().find(|&(place, &var)| {
            instruction.loops[role(levels, place)].2 != Runs::Some && pool.uses_var(condition, var)
        });
        if let Some((_, &whole)) = whole {
            let name = &pool.vars[whole].name;
            return Err(format!("it runs under a condition on loop '{name}'"));
        }
        limits_one_loop(pool, condition, &loops)?;
    }
    let of_terms = |&&condition: &&ExprId| loops[..levels].iter().any(|&var| pool.uses_var(condition, var));
    let tail = tails.first().copied();
    if tail.is_some() && tails.len() + conditions.iter().filter(of_terms).count() > 1 {
        return Err("several conditions leave out terms".into());
    }
    Ok(Match { loops, levels, operands, result, conditions, guards: guards.concat(), tail })
}

/// A condition that says the same without a loop of unit steps, of which all iterations or none are below the bound.
fn without(pool: &mut ExprPool, condition: ExprId, neighbours: VarId) -> Option<ExprId> {
    let extent = pool.vars[neighbours].extent as i64;
    let below = pool.below(condition)?;
    let terms = below.terms.variables(pool)?;
    let (own, others): (Vec<_>, Vec<_>) = terms.into_iter().partition(|(var, _)| *var == neighbours);
    let whole = |value: i64| value % extent == 0;
    let fits = matches!(own.as_slice(), [(_, 1)])
        && others.iter().all(|(_, factor)| whole(*factor))
        && whole(below.terms.constant)
        && whole(below.bound);
    if !fits {
        return None;
    }
    let mut sum = pool.int(below.terms.constant);
    for (var, factor) in others {
        let var = pool.var(var);
        let term = pool.mul_int(var, factor);
        sum = pool.add(sum, term);
    }
    Some(pool.less_int(sum, below.bound))
}

/// What is read, and the conjuncts under which it is, where the value is one that does not change what it is combined with
/// otherwise.
fn under_conditions(pool: &ExprPool, value: ExprId, combine: Combiner) -> (ExprId, Vec<ExprId>) {
    if let &Expr::Guard(condition, read) = pool.get(value)
        && combine == Combiner::Add
    {
        return (read, pool.conjuncts(condition));
    }
    if let &Expr::Select(condition, chosen, otherwise) = pool.get(value)
        && changes_nothing(pool, otherwise, combine)
    {
        let conjuncts = pool.conjuncts(condition);
        return match pool.get(chosen) {
            // Zero nowhere.
            &Expr::Guard(inner, read) if pool.conjuncts(inner) == conjuncts => (read, conjuncts),
            _read => (chosen, conjuncts),
        };
    }
    (value, vec![])
}

/// Whether an expression is the constant that leaves what it is combined with as it is.
fn changes_nothing(pool: &ExprPool, id: ExprId, combine: Combiner) -> bool {
    match *pool.get(id) {
        Expr::Float(bits, _) => f64::from_bits(bits) == combine.identity(),
        Expr::Int(value, dtype) => {
            let (low, high) = dtype.integer_range().unwrap_or((0, 0));
            value as f64 == combine.identity().clamp(low as f64, high as f64)
        }
        Expr::Var(_)
        | Expr::Load(..)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Select(..)
        | Expr::Guard(..)
        | Expr::Cast(..) => false,
    }
}

/// The operand of a product with the elements `[p, i]` and `[q, j]` of a matrix, for loops `i j t p q l`, or with its elements `[q, j]`
/// alone, for loops `j t q l`.
fn transformed(
    pool: &mut ExprPool,
    value: ExprId,
    loops: &[VarId],
    matrix: Matrix,
    sides: Sides,
) -> Result<ExprId, String> {
    let mut operands = vec![];
    // The factors that depend on the loops of a row and a column of the matrix, for each side of the operand.
    let mut sides = match (sides, loops) {
        (Sides::Both, &[i, j, _, p, q, _]) => vec![(p, i, vec![]), (q, j, vec![])],
        (Sides::Row, &[j, _, q, _]) => vec![(q, j, vec![])],
        (Sides::Both | Sides::Row, _) => return Err("it has not the loops of its sides".into()),
    };
    let mut factors = vec![value];
    while let Some(factor) = factors.pop() {
        if let Expr::Binary(BinaryOp::Mul, a, b) = *pool.get(factor) {
            factors.extend([b, a]);
        } else if !pool.loads_of(factor).is_empty() {
            operands.push(factor);
        } else {
            let vars = pool.vars_of(factor);
            let side =
                sides.iter_mut().find(|(row, column, _)| vars.iter().all(|var| var == row || var == column));
            let (.., own) = side.ok_or_else(|| {
                let names: Vec<&str> = vars.iter().map(|&var| pool.vars[var].name.as_str()).collect();
                format!("a factor depends on the loops {names:?}, not on a row and a column of a matrix")
            })?;
            own.push(factor);
        }
    }
    for (row, column, factors) in sides {
        for (at_row, elements) in matrix.rows().iter().enumerate() {
            for (at_column, &wanted) in elements.iter().enumerate() {
                let at = [(row, at_row), (column, at_column)];
                let at: HashMap<VarId, ExprId> =
                    at.into_iter().map(|(var, count)| (var, pool.int(count as i64))).collect();
                let mut found = 1.0;
                for &factor in &factors {
                    let known = pool.substitute(factor, &at);
                    let Expr::Float(bits, _) = *pool.get(known) else {
                        return Err(format!("factor '{}' is not known", pool.display(known)));
                    };
                    found *= f64::from_bits(bits);
                }
                if found != f64::from(wanted) {
                    let (row, column) = (&pool.vars[row].name, &pool.vars[column].name);
                    return Err(format!(
                        "its factors are {found} where {row} is {at_row} and {column} is {at_column}, those of {} {wanted}",
                        matrix.name()
                    ));
                }
            }
        }
    }
    match operands.as_slice() {
        [operand] => Ok(*operand),
        several => Err(format!("its value is a product of {} reads, not of one", several.len())),
    }
}

/// Which of an instruction's loops the loop at `place` is, where the outermost stands for `levels` loops.
fn role(levels: usize, place: usize) -> usize {
    (place + 1).saturating_sub(levels)
}

/// Fails unless the condition is affine, over one of the first `levels` loops at most, and over the loop after them only beside the
/// last of those.
fn leaves_out_terms(
    pool: &mut ExprPool,
    condition: ExprId,
    loops: &[VarId],
    levels: usize,
) -> Result<(), String> {
    match places_of(pool, condition, loops)?.as_slice() {
        [] => Ok(()),
        [place] if *place < levels => Ok(()),
        [last, row] if last + 1 == levels && *row == levels => Ok(()),
        _several => Err(format!("{} on several of its loops", reads_under(pool, condition))),
    }
}

/// Fails unless the condition is affine, and over a row or a column of what is transformed at most, beside the tile: the loops before
/// that one, which half of the others follow.
fn leaves_out_elements(pool: &mut ExprPool, condition: ExprId, loops: &[VarId]) -> Result<(), String> {
    let tile = loops.len() / 2 - 1;
    match places_of(pool, condition, loops)?.as_slice() {
        [] => Ok(()),
        [place] if *place <= tile => Ok(()),
        [side, with] if *side < tile && *with == tile => Ok(()),
        _others => Err(format!("{} on other loops than a row or a column", reads_under(pool, condition))),
    }
}

/// The places of the loops that an affine condition is over.
fn places_of(pool: &mut ExprPool, condition: ExprId, loops: &[VarId]) -> Result<Vec<usize>, String> {
    let affine = format!("{}, which is not affine", reads_under(pool, condition));
    let terms = pool.below(condition).and_then(|below| below.terms.variables(pool)).ok_or(affine)?;
    Ok((0..loops.len()).filter(|&place| terms.iter().any(|(var, _)| *var == loops[place])).collect())
}

fn reads_under(pool: &ExprPool, condition: ExprId) -> String {
    format!("it reads under the condition '{}'", pool.display(condition))
}

/// Whether the condition leaves out the last iterations of the last of the first `levels` loops in the last iteration of the first, and
/// nothing else.
fn is_tail(pool: &mut ExprPool, condition: ExprId, loops: &[VarId], levels: usize) -> bool {
    let [first, .., last] = loops[..levels] else { return false };
    let Some(below) = pool.below(condition) else { return false };
    let Some(terms) = below.terms.variables(pool) else { return false };
    let extent = |var: VarId| pool.vars[var].extent as i64;
    let step =
        |of: VarId| terms.iter().find(|(var, _)| *var == of).map(|(_, step)| *step).filter(|&step| step > 0);
    let (Some(round), Some(term), 2) = (step(first), step(last), terms.len()) else { return false };
    let at = |round_at: i64, term_at: i64| round * round_at + term * term_at;
    at(extent(first) - 2, extent(last) - 1) < below.bound && at(extent(first) - 1, 0) < below.bound
}

/// Fails unless the condition holds for the iterations before some end of at most one of the loops: a micro-kernel is given
/// counts, which say how many iterations run from the first one on.
fn limits_one_loop(pool: &mut ExprPool, condition: ExprId, loops: &[VarId]) -> Result<(), String> {
    if loops.iter().filter(|&&var| pool.uses_var(condition, var)).count() > 1 {
        return Err("it runs under a condition on several of its loops".into());
    }
    let terms = pool.below(condition).and_then(|below| below.terms.variables(pool)).ok_or_else(|| {
        format!("it runs under the condition '{}', which limits no loop", pool.display(condition))
    })?;
    match terms.into_iter().find(|(var, factor)| loops.contains(var) && *factor < 0) {
        Some((var, _)) => Err(format!(
            "it runs under a condition that leaves out the first of loop '{}'",
            pool.vars[var].name
        )),
        None => Ok(()),
    }
}

fn fits(
    pool: &mut ExprPool,
    buffer: BufferId,
    index: &[ExprId],
    loops: &[VarId],
    operand: &Operand,
) -> Result<(BufferId, Affine), String> {
    if !operand.dtypes.contains(&pool.buffers[buffer].dtype) {
        let names: Vec<String> = operand.dtypes.iter().map(DType::to_string).collect();
        return Err(format!("operand '{}' is not of type {}", operand.name, names.join(" or ")));
    }
    let linear = pool.linear_index(buffer, index);
    let form = pool.affine(linear);
    if form.variables(pool).is_none() {
        return Err(format!("the address of operand '{}' is not affine", operand.name));
    }
    let levels = loops.len() - operand.strides.len() + 1;
    for (place, &var) in loops.iter().enumerate() {
        let rule = operand.strides[role(levels, place)];
        let name = &pool.vars[var].name;
        let stride = form.coefficient(pool, var);
        let stride =
            stride.ok_or_else(|| format!("operand '{}' is not affine in loop '{name}'", operand.name))?;
        let fit = match rule {
            Stride::Zero => stride == 0,
            Stride::One => stride == 1 || pool.vars[var].extent == 1,
            Stride::Row => {
                let row = loops.get(place + 1).map_or(1, |&inside| pool.vars[inside].extent);
                stride == row as i64 || pool.vars[var].extent == 1
            }
            Stride::Positive => stride > 0 || pool.vars[var].extent == 1,
            Stride::Any => true,
        };
        if !fit {
            return Err(format!(
                "operand '{}' has stride {stride} over loop '{name}', not {rule:?}",
                operand.name
            ));
        }
    }
    Ok((buffer, form))
}
