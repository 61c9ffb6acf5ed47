//! How much a nest computes and how often it reads and writes: upper bounds, taken as if every condition held.

use crate::expr::{BufferId, Expr, ExprId, ExprPool};
use crate::loopir::{Stmt, Store};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};

/// What a run of statements does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Arithmetic operations on data. Each operation of one or two operands on a type other than i64 and bool counts one,
    /// whatever its cost; so does combining. Index arithmetic, comparisons, casts, selects and guards count nothing. An
    /// operation that a block uses twice counts once.
    pub operations: u64,
    /// Blocks that ran.
    pub blocks: u64,
    /// Elements read, by buffer, each time anew; combining reads too.
    pub reads: BTreeMap<BufferId, u64>,
    /// Elements written, by buffer, each time anew.
    pub writes: BTreeMap<BufferId, u64>,
}

/// What one run of `stmts` does.
pub fn work(pool: &ExprPool, stmts: &[Stmt]) -> Work {
    fn walk(pool: &ExprPool, stmts: &[Stmt], times: u64, work: &mut Work) {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(of) => {
                    walk(pool, &of.body, times.saturating_mul(pool.vars[of.var].extent as u64), work);
                }
                Stmt::Store(store) => work.add_store(pool, store, times),
                Stmt::Alloc(_) | Stmt::Barrier => {}
            }
        }
    }
    let mut sum = Work::default();
    walk(pool, stmts, 1, &mut sum);
    sum
}

impl Work {
    fn add_store(&mut self, pool: &ExprPool, store: &Store, times: u64) {
        let add = |count: &mut u64| *count = count.saturating_add(times);
        add(&mut self.blocks);
        add(self.writes.entry(store.buffer).or_default());
        if store.combine.is_some() {
            add(self.reads.entry(store.buffer).or_default());
            add(&mut self.operations);
        }
        for id in nodes_of(pool, store) {
            match pool.get(id) {
                Expr::Load(buffer, _) => add(self.reads.entry(*buffer).or_default()),
                Expr::Unary(..) | Expr::Binary(..) => {
                    if !matches!(pool.dtype(id), DType::I64 | DType::Bool) {
                        add(&mut self.operations);
                    }
                }
                Expr::Int(..)
                | Expr::Float(..)
                | Expr::Var(_)
                | Expr::Select(..)
                | Expr::Guard(..)
                | Expr::Cast(..) => {}
            }
        }
    }
}

/// The distinct expressions a block evaluates.
fn nodes_of(pool: &ExprPool, store: &Store) -> BTreeSet<ExprId> {
    let mut nodes = BTreeSet::new();
    for root in store.roots() {
        pool.visit(root, &mut |id| {
            nodes.insert(id);
        });
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopir::Nest;

    const CONV: &str = "\
nest conv
  in    x: f32[8, 18, 18]
  const w: f32[16, 8, 3, 3]
  out   y: f32[16, 16, 16]
  for k in 16, p in 16:
    for q in 16:
      register acc: f32
      init: acc = 0.0
      for c in 8, r in 3, s in 3:
        update: acc += x[c, p + r, q + s] * w[k, c, r, s]
      finish: y[k, p, q] = max(acc, 0.0)
";

    #[test]
    fn work_counts_operations_and_accesses() {
        let nest = Nest::parse(CONV).unwrap();
        let work = work(&nest.pool, &nest.body);
        let outputs = 16 * 16 * 16;
        assert_eq!(work.operations, outputs * (2 * 72 + 1));
        assert_eq!(work.blocks, outputs * (72 + 2));
        assert_eq!(work.reads[&nest.buffer_named("x").unwrap()], outputs * 72);
        assert_eq!(work.reads[&nest.buffer_named("acc").unwrap()], outputs * 73);
        assert_eq!(work.writes[&nest.buffer_named("acc").unwrap()], outputs * 73);
    }
}
