//! `split i = [_, f1, f2]`: one loop into several.
//!
//! ```text
//! for i in 100: body(i)      ->      for i.0 in 7, i.1 in 16: body(16 * i.0 + i.1) if 16 * i.0 + i.1 < 100
//! ```
//!
//! For tiling: the inner loops run over a tile. The outermost extent follows from the rest. Factors that do not divide leave a
//! tail: `guard` puts a condition on every block, `peel` lets a copy of the body do the last iterations, so that the main part
//! needs no condition. Refuses factors of 0, and loops that are bound or replaced already.

use super::rewrite::{add_condition, copy_stmts, loops_named, new_var, substitute};
use super::{Refusal, Tail};
use crate::expr::VarId;
use crate::loopir::print::kind_name;
use crate::loopir::{Loop, LoopKind, Nest, Stmt, walk};
use std::collections::HashMap;

pub(super) fn apply(nest: &mut Nest, of: &str, factors: &[usize], tail: Tail) -> Result<(), Refusal> {
    for var in loops_named(nest, of)? {
        split_one(nest, var, factors, tail)?;
    }
    Ok(())
}

fn split_one(nest: &mut Nest, var: VarId, factors: &[usize], tail: Tail) -> Result<(), Refusal> {
    let variable = nest.pool.vars[var].clone();
    let (name, extent) = (variable.name, variable.extent);
    let tile: usize = factors.iter().product();
    if factors.is_empty() || tile == 0 {
        return Err(Refusal::Factors { of: name, extent, factors: factors.to_vec() });
    }
    let found = nest.loop_of(var).ok_or_else(|| Refusal::NoLoop(name.clone()))?;
    if found.kind != LoopKind::Serial {
        return Err(Refusal::Kind { of: name, kind: kind_name(found.kind) });
    }
    let body = found.body.clone();
    let rest = extent % tile;
    let result = if tail == Tail::Peel && rest != 0 && extent > tile {
        let mut remainder = copy_stmts(nest, &body, "_tail");
        let last = new_var(&mut nest.pool, name.clone(), rest);
        let start = nest.pool.var(last);
        let shifted = nest.pool.add_int(start, (extent - rest) as i64);
        substitute(&mut nest.pool, &mut remainder, &HashMap::from([(var, shifted)]));
        let mut main = tiled(nest, var, extent - rest, factors, body);
        main.push(Stmt::Loop(Loop { var: last, kind: LoopKind::Serial, instruction: None, body: remainder }));
        main
    } else {
        tiled(nest, var, extent, factors, body)
    };
    let mut result = Some(result);
    walk::replace_loop(&mut nest.body, var, &mut |_| result.take().unwrap_or_default());
    Ok(())
}

/// The loops of the first `extent` iterations.
fn tiled(nest: &mut Nest, var: VarId, extent: usize, factors: &[usize], mut body: Vec<Stmt>) -> Vec<Stmt> {
    let pool = &mut nest.pool;
    let name = pool.vars[var].name.clone();
    let tile: usize = factors.iter().product();
    let mut extents = vec![extent.div_ceil(tile)];
    extents.extend_from_slice(factors);
    let vars: Vec<VarId> = extents
        .iter()
        .enumerate()
        .map(|(level, &extent)| new_var(pool, format!("{name}.{level}"), extent))
        .collect();
    let mut value = pool.int(0);
    for (&var, &extent) in vars.iter().zip(&extents) {
        let scaled = pool.mul_int(value, extent as i64);
        // A loop of one iteration has the value 0, so that no stride depends on it.
        let var = if extent == 1 { pool.int(0) } else { pool.var(var) };
        value = pool.add(scaled, var);
    }
    let value = pool.simplify(value);
    substitute(pool, &mut body, &HashMap::from([(var, value)]));
    if !extent.is_multiple_of(tile) {
        let inside = pool.less_int(value, extent as i64);
        let inside = pool.simplify(inside);
        add_condition(pool, &mut body, inside);
    }
    vars.into_iter().rev().fold(body, |body, var| {
        vec![Stmt::Loop(Loop { var, kind: LoopKind::Serial, instruction: None, body })]
    })
}
