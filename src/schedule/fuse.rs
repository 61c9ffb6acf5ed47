//! `fuse p q as pq`: two loops, one directly in the other, into one.
//!
//! ```text
//! for p in 7, q in 8: body(p, q)      ->      for pq in 56: body(pq // 8, pq % 8)
//! ```
//!
//! For longer vectors and for one loop to divide over threads or a grid. Where both only form one address the division
//! disappears again. Refuses loops that are not directly nested, that are bound or replaced, and a name that is in use.

use super::Refusal;
use super::rewrite::{loops_named, new_var, substitute};
use crate::loopir::print::kind_name;
use crate::loopir::{Loop, LoopKind, Nest, Stmt, walk};
use std::collections::HashMap;

pub(super) fn apply(nest: &mut Nest, outer: &str, inner: &str, name: &str) -> Result<(), Refusal> {
    loops_named(nest, inner)?;
    if name != outer && name != inner && !nest.loops_named(name).is_empty() {
        return Err(Refusal::NameTaken(name.to_string()));
    }
    for var in loops_named(nest, outer)? {
        let of = nest.loop_of(var).ok_or_else(|| Refusal::NoLoop(outer.to_string()))?.clone();
        let not_nested = || Refusal::NotNested { outer: outer.to_string(), inner: inner.to_string() };
        let [Stmt::Loop(nested)] = of.body.as_slice() else { return Err(not_nested()) };
        if nest.pool.vars[nested.var].name != inner {
            return Err(not_nested());
        }
        for (kind, of) in [(of.kind, outer), (nested.kind, inner)] {
            if kind != LoopKind::Serial {
                return Err(Refusal::Kind { of: of.to_string(), kind: kind_name(kind) });
            }
        }
        let (rows, columns) = (nest.pool.vars[var].extent, nest.pool.vars[nested.var].extent);
        let fused = new_var(&mut nest.pool, name.to_string(), rows * columns);
        let value = nest.pool.var(fused);
        // Loops of no iterations have no values.
        let divisor = columns.max(1) as i64;
        let map = HashMap::from([
            (var, nest.pool.div_int(value, divisor)),
            (nested.var, nest.pool.mod_int(value, divisor)),
        ]);
        let mut body = nested.body.clone();
        substitute(&mut nest.pool, &mut body, &map);
        let mut result =
            Some(Stmt::Loop(Loop { var: fused, kind: LoopKind::Serial, instruction: None, body }));
        walk::replace_loop(&mut nest.body, var, &mut |_| result.take().into_iter().collect());
    }
    Ok(())
}
