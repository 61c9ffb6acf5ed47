//! Dimensions that are walked through as one become one.
//!
//! Shapes carry structure that a computation does not use: `relu` of `[1, 64, 56, 56]` is a loop over 200704 elements, a
//! mean over the last two axes a reduction over 3136. Nests of work without structure of its own are brought to that form,
//! so that equal work of different shapes is equal text, with equal schedules.
//!
//! Both functions keep the meaning: elements and their order in memory stay, only loops and the shapes of parameters change.

use crate::expr::{BufferId, Expr, ExprId, ExprPool, VarId};
use crate::loopir::{Loop, Nest, Stmt, Store, Variable, walk};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

/// Merges a loop with the only loop in it where both are of one role (names that differ in their numbers alone) and each
/// access moves by the inner loop's extent times the inner step when the outer loop steps. Numbers loops anew: `i0`, `i1` ...
/// from the outside.
///
/// Before, with `x: f32[4, 8]`: `for i0 in 4, i1 in 8: y[i0, i1] = x[i0, i1]`. After: `for i0 in 32: y[i0 // 8, i0 % 8] = ...`,
/// which [`merge_dimensions`] brings to `y[i0] = x[i0]`.
pub fn merge_loops(nest: &mut Nest) {
    let pinned = data_dimensions(nest);
    let Nest { pool, body, .. } = nest;
    merge_in(pool, &pinned, body);
    number(pool, body, &mut HashMap::new());
}

/// For each buffer its dimensions that are indexed by data somewhere: they stay, so that the index can be seen to be in range.
type Pinned = HashMap<BufferId, Vec<usize>>;

fn data_dimensions(nest: &Nest) -> Pinned {
    let by_data = |index: Vec<ExprId>| -> Vec<usize> {
        (0..index.len()).filter(|&axis| !nest.pool.loads_of(index[axis]).is_empty()).collect()
    };
    accesses(nest)
        .into_iter()
        .map(|(buffer, indices)| (buffer, indices.into_iter().flat_map(by_data).collect()))
        .collect()
}

fn merge_in(pool: &mut ExprPool, pinned: &Pinned, stmts: &mut [Stmt]) {
    for stmt in stmts {
        if let Stmt::Loop(outer) = stmt {
            // Inner pairs first, so that what is left below a loop is as merged as it can be.
            merge_in(pool, pinned, &mut outer.body);
            while merge_with_inner(pool, pinned, outer) {}
        }
    }
}

fn role(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
}

fn merge_with_inner(pool: &mut ExprPool, pinned: &Pinned, outer: &mut Loop) -> bool {
    let [Stmt::Loop(inner)] = outer.body.as_mut_slice() else { return false };
    let (a, b) = (pool.vars[outer.var].clone(), pool.vars[inner.var].clone());
    if role(&a.name) != role(&b.name) || a.extent == 0 || b.extent == 0 {
        return false;
    }
    let pair = Pair {
        outer: outer.var,
        inner: inner.var,
        extent: b.extent as i64,
        pinned,
        known: RefCell::default(),
    };
    let mut walked_as_one = true;
    walk::visit_stores(&inner.body, &mut |store| walked_as_one &= pair.merges_in_store(pool, store));
    if !walked_as_one {
        return false;
    }
    let merged = pool.vars.push(Variable { name: a.name, extent: a.extent * b.extent });
    let var = pool.var(merged);
    let map = HashMap::from([
        (pair.outer, pool.div_int(var, pair.extent)),
        (pair.inner, pool.mod_int(var, pair.extent)),
    ]);
    walk::change_stores(&mut inner.body, &mut |store| {
        store.change_exprs(&mut |id| pool.substitute(id, &map));
    });
    outer.var = merged;
    outer.body = std::mem::take(&mut inner.body);
    true
}

/// Two loops that may become one.
struct Pair<'a> {
    outer: VarId,
    inner: VarId,
    extent: i64,
    pinned: &'a Pinned,
    /// What is known of expressions, which share parts.
    known: RefCell<HashMap<ExprId, bool>>,
}

impl Pair<'_> {
    fn merges_in_store(&self, pool: &mut ExprPool, store: &Store) -> bool {
        self.merges_in_access(pool, store.buffer, &store.index)
            && self.merges_in(pool, store.value)
            && store.condition.is_none_or(|condition| self.merges_in(pool, condition))
    }

    fn merges_in_access(&self, pool: &mut ExprPool, buffer: BufferId, index: &[ExprId]) -> bool {
        let linear = pool.linear_index(buffer, index);
        let form = pool.affine(linear);
        let step = |var: VarId| {
            form.terms
                .iter()
                .find(|(atom, _)| *pool.get(**atom) == Expr::Var(var))
                .map_or(0, |(_, &step)| step)
        };
        if step(self.outer) != step(self.inner) * self.extent {
            return false;
        }
        let axis_of = |var: VarId| index.iter().position(|&i| pool.uses_var(i, var));
        if let (Some(first), Some(last)) = (axis_of(self.outer), axis_of(self.inner))
            && first != last
            && self
                .pinned
                .get(&buffer)
                .is_some_and(|axes| axes.iter().any(|axis| (first..=last).contains(axis)))
        {
            return false;
        }
        let others: Vec<ExprId> =
            form.terms.keys().copied().filter(|&atom| !matches!(pool.get(atom), Expr::Var(_))).collect();
        others.into_iter().all(|atom| self.merges_in(pool, atom))
    }

    /// Whether the two variables occur in accesses alone, and so that they merge.
    fn merges_in(&self, pool: &mut ExprPool, id: ExprId) -> bool {
        if let Some(&known) = self.known.borrow().get(&id) {
            return known;
        }
        let merges = match pool.get(id).clone() {
            Expr::Int(..) | Expr::Float(..) => true,
            Expr::Var(var) => var != self.outer && var != self.inner,
            Expr::Load(buffer, index) => self.merges_in_access(pool, buffer, &index),
            Expr::Unary(..) | Expr::Binary(..) | Expr::Select(..) | Expr::Guard(..) | Expr::Cast(..) => {
                pool.operands(id).into_iter().all(|operand| self.merges_in(pool, operand))
            }
        };
        self.known.borrow_mut().insert(id, merges);
        merges
    }
}

fn number(pool: &mut ExprPool, stmts: &[Stmt], counts: &mut HashMap<String, usize>) {
    for stmt in stmts {
        if let Stmt::Loop(inner) = stmt {
            let name = &pool.vars[inner.var].name;
            let role = role(name).to_string();
            let numbered = role != *name;
            if numbered {
                let count = counts.entry(role.clone()).or_insert(0);
                pool.vars[inner.var].name = format!("{role}{count}");
                *count += 1;
            }
            number(pool, &inner.body, counts);
            if numbered && let Some(count) = counts.get_mut(&role) {
                *count -= 1;
            }
        }
    }
}

/// Merges adjacent dimensions of a buffer where that takes divisions out of its accesses and puts none in; with `units` also
/// drops dimensions of extent 1.
///
/// Before: `x: f32[2, 3, 4]` read as `x[i // 3, i % 3, j]`. After: `x: f32[6, 4]` read as `x[i, j]`.
pub fn merge_dimensions(nest: &mut Nest, units: bool) {
    if units {
        drop_units(nest);
    }
    loop {
        // One pair of each buffer, the innermost first, until there is none.
        let mut merged = HashMap::new();
        for (buffer, indices) in accesses(nest) {
            let axes = (1..nest.pool.buffers[buffer].shape.len()).rev();
            let pool = &mut nest.pool;
            if let Some(axis) = { axes }.find(|&axis| merging_simplifies(pool, buffer, &indices, axis - 1)) {
                merged.insert(buffer, (axis, pool.buffers[buffer].shape[axis]));
            }
        }
        if merged.is_empty() {
            return;
        }
        for (&buffer, &(axis, inner)) in &merged {
            let shape = &mut nest.pool.buffers[buffer].shape;
            shape.remove(axis);
            shape[axis - 1] *= inner;
        }
        change_accesses(nest, &merged, &mut |pool, &(axis, inner), index| {
            let low = index.remove(axis);
            index[axis - 1] = joined(pool, index[axis - 1], low, inner);
        });
    }
}

fn drop_units(nest: &mut Nest) {
    let mut kept = HashMap::new();
    for (buffer, declared) in nest.pool.buffers.iter_with_ids() {
        if declared.shape.contains(&1) {
            kept.insert(buffer, declared.shape.iter().map(|&extent| extent != 1).collect::<Vec<bool>>());
        }
    }
    for &buffer in kept.keys() {
        nest.pool.buffers[buffer].shape.retain(|&extent| extent != 1);
    }
    change_accesses(nest, &kept, &mut |_, kept, index| {
        let mut kept = kept.iter();
        index.retain(|_| kept.next() == Some(&true));
    });
}

fn joined(pool: &mut ExprPool, high: ExprId, low: ExprId, extent: usize) -> ExprId {
    let scaled = pool.mul_int(high, extent as i64);
    let sum = pool.add(scaled, low);
    pool.simplify(sum)
}

/// Terms of an index that are more than a loop variable times a constant.
fn complexity(pool: &mut ExprPool, index: ExprId) -> usize {
    let form = pool.affine(index);
    form.terms.keys().filter(|&&atom| !matches!(pool.get(atom), Expr::Var(_))).count()
}

/// Whether `axis` and the next one of `buffer`, which is accessed at `indices`, are better one.
fn merging_simplifies(pool: &mut ExprPool, buffer: BufferId, indices: &[Vec<ExprId>], axis: usize) -> bool {
    let (mut never_worse, mut better) = (true, false);
    for index in indices {
        if [index[axis], index[axis + 1]].iter().any(|&i| !pool.loads_of(i).is_empty()) {
            return false;
        }
        let extent = pool.buffers[buffer].shape[axis + 1];
        let apart = complexity(pool, index[axis]) + complexity(pool, index[axis + 1]);
        let sum = joined(pool, index[axis], index[axis + 1], extent);
        let together = complexity(pool, sum);
        never_worse &= together <= apart;
        better |= together < apart;
    }
    never_worse && better
}

/// The indices at which a nest touches each buffer.
fn accesses(nest: &Nest) -> BTreeMap<BufferId, Vec<Vec<ExprId>>> {
    let mut found = BTreeMap::<BufferId, Vec<Vec<ExprId>>>::new();
    nest.visit_stores(&mut |store| {
        found.entry(store.buffer).or_default().push(store.index.clone());
        for root in store.roots() {
            for load in nest.pool.loads_of(root) {
                if let Expr::Load(of, index) = nest.pool.get(load) {
                    found.entry(*of).or_default().push(index.to_vec());
                }
            }
        }
    });
    found
}

/// Changes the indices of all accesses of the buffers that `changes` has something for.
fn change_accesses<T>(
    nest: &mut Nest,
    changes: &HashMap<BufferId, T>,
    change: &mut impl FnMut(&mut ExprPool, &T, &mut Vec<ExprId>),
) {
    if changes.is_empty() {
        return;
    }
    let Nest { pool, preparation, body, .. } = nest;
    for stmts in [preparation, body] {
        walk::change_stores(stmts, &mut |store| {
            store.change_exprs(&mut |id| {
                pool.rewrite(id, &mut |pool, part| {
                    let Expr::Load(of, index) = pool.get(part) else { return None };
                    let (of, how) = (*of, changes.get(of)?);
                    let mut index = index.to_vec();
                    change(pool, how, &mut index);
                    Some(pool.load(of, &index))
                })
            });
            if let Some(how) = changes.get(&store.buffer) {
                change(pool, how, &mut store.index);
            }
        });
    }
}
