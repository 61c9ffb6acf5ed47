//! How much a nest computes, and which memory its parts touch. For cost models: counts are upper bounds, taken as if every
//! condition held.

use crate::expr::{Affine, BufferId, Expr, ExprId, ExprPool, VarId};
use crate::loopir::{Loop, Nest, Stmt, Store};
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
    for &root in store.index.iter().chain([&store.value]).chain(&store.condition) {
        pool.visit(root, &mut |id| {
            nodes.insert(id);
        });
    }
    nodes
}

/// The part of a buffer that some statements touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The buffer.
    pub buffer: BufferId,
    /// Distinct elements, at most those of the buffer.
    pub elements: u64,
    /// The bytes of those elements.
    pub bytes: u64,
    /// Whether they are read.
    pub read: bool,
    /// Whether they are written.
    pub written: bool,
}

/// What one run of the loop `of` touches, by buffer in order of ids: the variables of `of` and of the loops in it vary, those
/// around it are fixed. Buffers allocated inside count too.
///
/// Each access touches a box: in each dimension as many elements as its index takes values, counted from the spans of its
/// affine terms; accesses to one buffer add up.
pub fn footprints(pool: &mut ExprPool, of: &Loop) -> Vec<Footprint> {
    let mut varying = BTreeSet::from([of.var]);
    super::dependence::collect(&of.body, &mut varying, &mut BTreeSet::new());
    let touched = super::accesses(pool, &of.body);
    let mut found = vec![];
    for (buffer, list) in touched {
        let mut boxes: Vec<(&[ExprId], u64)> = vec![];
        for access in &list {
            if !boxes.iter().any(|(index, _)| *index == access.index) {
                let size = access
                    .index
                    .iter()
                    .zip(pool.buffers[buffer].shape.clone())
                    .map(|(&index, extent)| values_of(pool, index, &varying).min(extent as u64))
                    .fold(1, u64::saturating_mul);
                boxes.push((&access.index, size));
            }
        }
        let elements = boxes.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
        let elements = elements.min(pool.buffers[buffer].len() as u64);
        found.push(Footprint {
            buffer,
            elements,
            bytes: elements.saturating_mul(pool.buffers[buffer].dtype.size_bytes() as u64),
            read: list.iter().any(|access| !access.write || access.combine.is_some()),
            written: list.iter().any(|access| access.write),
        });
    }
    found
}

/// How many values an index takes at most when the `varying` variables do.
fn values_of(pool: &mut ExprPool, index: ExprId, varying: &BTreeSet<VarId>) -> u64 {
    let form: Affine = pool.affine(index);
    // The values lie on a grid of this step within this span; and no sum takes more values than the product of its terms'.
    let (mut step, mut span, mut product) = (0u64, 0u64, 1u64);
    for (&atom, &coefficient) in &form.terms {
        let varies =
            pool.vars_of(atom).iter().any(|var| varying.contains(var)) || !pool.loads_of(atom).is_empty();
        if varies {
            let Some(range) = pool.interval(atom) else { return u64::MAX };
            let width = range.high.abs_diff(range.low);
            step = gcd(step, coefficient.unsigned_abs());
            span = span.saturating_add(width.saturating_mul(coefficient.unsigned_abs()));
            product = product.saturating_mul(width.saturating_add(1));
        }
    }
    span.checked_div(step).map_or(1, |steps| steps.saturating_add(1).min(product))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The loops that a block reduces over, outermost first: the block combines, and the element it combines into lives longer than
/// an iteration of the loop and does not depend on its variable. Empty where there is no such block.
pub fn reductions(nest: &Nest, block: &str) -> Vec<VarId> {
    match nest.block(block) {
        Some(store) if store.combine.is_some() => {
            let used = |&var: &VarId| store.index.iter().any(|&index| nest.pool.uses_var(index, var));
            let around = nest.loops_around(block);
            let outside = depth_of_alloc(&nest.body, store.buffer).unwrap_or(0);
            around.into_iter().skip(outside).filter(|var| !used(var)).collect()
        }
        Some(_) | None => vec![],
    }
}

/// The number of loops around the allocation of `buffer` under `stmts`.
fn depth_of_alloc(stmts: &[Stmt], buffer: BufferId) -> Option<usize> {
    stmts.iter().find_map(|stmt| match stmt {
        Stmt::Loop(of) => depth_of_alloc(&of.body, buffer).map(|depth| depth + 1),
        Stmt::Alloc(id) => (*id == buffer).then_some(0),
        Stmt::Store(_) | Stmt::Barrier => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn named<'a>(nest: &Nest, of: &'a [Footprint], name: &str) -> &'a Footprint {
        let id = nest.buffer_named(name).unwrap();
        of.iter().find(|footprint| footprint.buffer == id).unwrap()
    }

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

    #[test]
    fn footprints_are_boxes() {
        let mut nest = Nest::parse(CONV).unwrap();
        let row = nest.loop_of(nest.loops_named("q")[0]).unwrap().clone();
        let found = footprints(&mut nest.pool, &row);
        assert_eq!(named(&nest, &found, "x").elements, 8 * 3 * 18);
        assert_eq!(named(&nest, &found, "w").bytes, 72 * 4);
        assert_eq!(named(&nest, &found, "y").elements, 16);
        let channels = nest.loop_of(nest.loops_named("c")[0]).unwrap().clone();
        let found = footprints(&mut nest.pool, &channels);
        assert_eq!(named(&nest, &found, "x").elements, 72);
        let acc = named(&nest, &found, "acc");
        assert!(acc.elements == 1 && acc.read && acc.written);
    }

    #[test]
    fn strides_and_data_are_understood() {
        let mut nest = Nest::parse(
            "\
nest strided
  in    x: f32[100]
  in    i: i64[9]
  out   y: f32[9]
  for a in 9:
    take: y[a] = x[10 * a + 3] + x[i[a]] + x[a // 3]
",
        )
        .unwrap();
        let all = nest.loop_of(nest.loops_named("a")[0]).unwrap().clone();
        let found = footprints(&mut nest.pool, &all);
        assert_eq!(named(&nest, &found, "x").elements, 100);
        let strided = Nest::parse(
            "nest s\n  in    x: f32[100]\n  out   y: f32[9]\n  for a in 9:\n    take: y[a] = x[10 * a + 3] + x[a // 3]\n",
        );
        let mut nest = strided.unwrap();
        let all = nest.loop_of(nest.loops_named("a")[0]).unwrap().clone();
        let found = footprints(&mut nest.pool, &all);
        assert_eq!(named(&nest, &found, "x").elements, 9 + 3);
    }

    #[test]
    fn reductions_are_loops_the_target_does_not_use() {
        let nest = Nest::parse(CONV).unwrap();
        let names: Vec<&str> =
            reductions(&nest, "update").iter().map(|&var| nest.pool.vars[var].name.as_str()).collect();
        assert_eq!(names, ["c", "r", "s"]);
        assert!(reductions(&nest, "finish").is_empty() && reductions(&nest, "none").is_empty());
    }
}
