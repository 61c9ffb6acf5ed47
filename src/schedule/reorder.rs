//! `reorder j k i`: another order of directly nested loops.
//!
//! ```text
//! for i in 4, k in 8, j in 4: body      ->      for j in 4, k in 8, i in 4: body
//! ```
//!
//! For locality and for what shall be innermost. Refuses loops with anything between them, and orders that could change a
//! result: a loop may move when its iterations touch different elements, or only combine into elements that nothing in the
//! loops reads. (Sums may be reassociated; that is the one freedom a schedule has with numbers.)

use super::Refusal;
use super::rewrite::loops_named;
use crate::analysis::{accesses, carried_buffers};
use crate::expr::{BufferId, ExprPool, VarId};
use crate::loopir::{Loop, Nest, Stmt, walk};

pub(super) fn apply(nest: &mut Nest, order: &[String]) -> Result<(), Refusal> {
    // A loop of a name that fewest loops have is in every chain that is meant.
    let mut rarest: Option<Vec<VarId>> = None;
    for name in order {
        let loops = loops_named(nest, name)?;
        if rarest.as_ref().is_none_or(|fewest| loops.len() < fewest.len()) {
            rarest = Some(loops);
        }
    }
    for var in rarest.into_iter().flatten() {
        reorder_around(nest, var, order)?;
    }
    Ok(())
}

/// Reorders the loops named in `order` that share a chain with the loop of `var`, one of them.
fn reorder_around(nest: &mut Nest, var: VarId, order: &[String]) -> Result<(), Refusal> {
    // The chain: loops around `var`, `var` itself, and the loops directly nested in it.
    let mut path: Vec<VarId> = vec![];
    nest.visit_loops(&mut |of, around| {
        if of.var == var {
            path = around.iter().map(|outer| outer.var).chain([var]).collect();
        }
    });
    let mut innermost = nest.loop_of(var).ok_or_else(|| Refusal::NoLoop(order[0].clone()))?;
    while let [Stmt::Loop(inner)] = innermost.body.as_slice() {
        path.push(inner.var);
        innermost = inner;
    }
    let name_of = |var: &VarId| nest.pool.vars[*var].name.as_str();
    let places: Vec<usize> =
        (0..path.len()).filter(|&i| order.iter().any(|name| name == name_of(&path[i]))).collect();
    for name in order {
        if !places.iter().any(|&i| name_of(&path[i]) == name) {
            return Err(Refusal::NotNested { outer: order[0].clone(), inner: name.clone() });
        }
    }
    let (Some(&start), Some(&end)) = (places.first(), places.last()) else { return Ok(()) };
    let mut loops: Vec<Loop> = vec![];
    let mut at = nest.loop_of(path[start]).ok_or_else(|| Refusal::NoLoop(order[0].clone()))?.clone();
    let top = at.var;
    for place in start..=end {
        let body = std::mem::take(&mut at.body);
        loops.push(at);
        if place == end {
            at = Loop { var: path[end], kind: crate::loopir::LoopKind::Serial, instruction: None, body };
            break;
        }
        match <[Stmt; 1]>::try_from(body) {
            Ok([Stmt::Loop(inner)]) => at = inner,
            Ok(_) | Err(_) => {
                return Err(Refusal::NotNested {
                    outer: order[0].clone(),
                    inner: name_of(&path[end]).to_string(),
                });
            }
        }
    }
    let body = at.body;
    let mut wanted = loops.clone();
    let named: Vec<usize> = places.iter().map(|&place| place - start).collect();
    for (&place, name) in named.iter().zip(order) {
        let from = loops.iter().position(|of| nest.pool.vars[of.var].name == *name);
        let from = from.ok_or_else(|| Refusal::NoLoop(name.clone()))?;
        wanted[place] = loops[from].clone();
    }
    let moved: Vec<VarId> =
        (0..loops.len()).filter(|&i| loops[i].var != wanted[i].var).map(|i| loops[i].var).collect();
    check(&mut nest.pool, &loops, &body, &moved)?;
    let rebuilt = wanted.into_iter().rev().fold(body, |body, of| vec![Stmt::Loop(Loop { body, ..of })]);
    let mut rebuilt = Some(rebuilt);
    walk::replace_loop(&mut nest.body, top, &mut |_| rebuilt.take().unwrap_or_default());
    Ok(())
}

/// Refuses where a moved loop carries a dependence through a buffer that is not merely combined into.
fn check(pool: &mut ExprPool, loops: &[Loop], body: &[Stmt], moved: &[VarId]) -> Result<(), Refusal> {
    let touched = accesses(pool, body);
    let commutes = |buffer: &BufferId| {
        let list = &touched[buffer];
        list.iter().all(|access| access.combine.is_some() && access.combine == list[0].combine)
    };
    for (place, of) in loops.iter().enumerate() {
        if !moved.contains(&of.var) {
            continue;
        }
        let inside = loops[place + 1..].iter().rev().fold(body.to_vec(), |body, inner| {
            vec![Stmt::Loop(Loop { var: inner.var, kind: inner.kind, instruction: None, body })]
        });
        let whole = Loop { var: of.var, kind: of.kind, instruction: None, body: inside };
        if let Some(buffer) = carried_buffers(pool, &whole).into_iter().find(|buffer| !commutes(buffer)) {
            return Err(Refusal::Carried {
                of: pool.vars[of.var].name.clone(),
                buffer: pool.buffers[buffer].name.clone(),
            });
        }
    }
    Ok(())
}
