//! Which buffers carry a dependence from one iteration of a loop to another.

use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, ExprPool, Interval, VarId};
use crate::loopir::{Combiner, Facts, Loop, Range, Stmt, Store, walk};
use std::collections::{BTreeMap, BTreeSet};

/// One way in which a block touches a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// One index expression a dimension.
    pub index: Vec<ExprId>,
    /// Whether the element is written; a combining block writes without counting as a read.
    pub write: bool,
    /// How a combining block combines.
    pub combine: Option<Combiner>,
    /// What holds where the element is touched.
    pub condition: Option<ExprId>,
}

/// All accesses under `stmts`, by buffer, each distinct one once.
pub fn accesses(pool: &ExprPool, stmts: &[Stmt]) -> BTreeMap<BufferId, Vec<Access>> {
    let mut all: BTreeMap<BufferId, Vec<Access>> = BTreeMap::new();
    let mut add = |buffer: BufferId, access: Access| {
        let list = all.entry(buffer).or_default();
        if !list.contains(&access) {
            list.push(access);
        }
    };
    walk::visit_stores(stmts, &mut |store: &Store| {
        let conditional = store.index.iter().chain([&store.value]).map(|&root| (root, store.condition));
        for (root, condition) in conditional.chain(store.condition.map(|root| (root, None))) {
            for load in pool.loads_of(root) {
                if let Expr::Load(buffer, index) = pool.get(load) {
                    add(*buffer, Access { index: index.to_vec(), write: false, combine: None, condition });
                }
            }
        }
        let (index, condition) = (store.index.clone(), store.condition);
        add(store.buffer, Access { index, write: true, combine: store.combine, condition });
    });
    all
}

/// The buffers through which one iteration of `of` may see or disturb another: those written in its body, living longer than
/// one iteration, for which it cannot be shown that different iterations touch different elements. Conservative: a buffer
/// whose addresses are not understood is listed.
pub fn carried_buffers(pool: &mut ExprPool, of: &Loop) -> Vec<BufferId> {
    let mut inner = BTreeSet::new();
    let mut private = BTreeSet::new();
    collect(&of.body, &mut inner, &mut private);
    let touched = accesses(pool, &of.body);
    touched
        .into_iter()
        .filter(|(buffer, list)| !private.contains(buffer) && list.iter().any(|access| access.write))
        .filter(|(buffer, list)| !disjoint(pool, *buffer, list, of.var, &inner))
        .map(|(buffer, _)| buffer)
        .collect()
}

/// The loops under `stmts`, and the buffers allocated there.
pub(super) fn collect(stmts: &[Stmt], inner: &mut BTreeSet<VarId>, private: &mut BTreeSet<BufferId>) {
    for stmt in stmts {
        match stmt {
            Stmt::Loop(of) => {
                inner.insert(of.var);
                collect(&of.body, inner, private);
            }
            Stmt::Alloc(buffer) => {
                private.insert(*buffer);
            }
            Stmt::Store(_) | Stmt::Barrier => {}
        }
    }
}

/// Whether different values of `var` always touch different elements: shown for one dimension alone, or for the linear address.
fn disjoint(
    pool: &mut ExprPool,
    buffer: BufferId,
    list: &[Access],
    var: VarId,
    inner: &BTreeSet<VarId>,
) -> bool {
    let rank = pool.buffers[buffer].shape.len();
    let facts: Vec<Facts> = list.iter().map(|access| facts_of(pool, access.condition)).collect();
    let by_dimension = (0..rank).any(|axis| {
        let forms: Vec<Affine> = list.iter().map(|access| pool.affine(access.index[axis])).collect();
        separated(pool, &forms, &facts, var, inner)
    });
    if by_dimension {
        return true;
    }
    let linear: Vec<ExprId> = list.iter().map(|access| pool.linear_index(buffer, &access.index)).collect();
    let forms: Vec<Affine> = linear.into_iter().map(|index| pool.affine(index)).collect();
    if separated(pool, &forms, &facts, var, inner) {
        return true;
    }
    let [linear, others @ ..] = forms.as_slice() else { return true };
    let [first, ..] = list else { return true };
    if list.iter().any(|access| access.index != first.index) || others.iter().any(|other| other != linear) {
        return false;
    }
    let mut places = vec![linear.clone()];
    places.extend(first.index.iter().map(|&index| pool.affine(index)));
    by_digits(pool, &places, var, inner)
}

fn facts_of(pool: &mut ExprPool, condition: Option<ExprId>) -> Facts {
    let mut facts = Facts::default();
    if let Some(condition) = condition {
        facts.assume(pool, condition);
    }
    facts
}

/// The test for the one access of a fused loop, whose variable occurs as `x // a % b` of a sum `x`. Where all `places` are
/// equal in two iterations, so are the atoms whose steps exceed what all smaller terms span together; where these contain
/// every digit of `x` in a mixed radix, so is `x`, which may in turn determine atoms; and so is `var` if the mixed-radix test
/// shows it for such an `x`.
fn by_digits(pool: &mut ExprPool, places: &[Affine], var: VarId, inner: &BTreeSet<VarId>) -> bool {
    let varies = |pool: &ExprPool, atom: ExprId| {
        let vars = pool.vars_of(atom);
        vars.iter().any(|used| *used == var || inner.contains(used)) || !pool.loads_of(atom).is_empty()
    };
    let mut equal: BTreeSet<ExprId> = BTreeSet::new();
    let mut known_sums: BTreeSet<ExprId> = BTreeSet::new();
    let mut places = places.to_vec();
    while !places.is_empty() {
        for place in places.drain(..) {
            let mut terms: Vec<(i64, ExprId)> =
                place.terms.iter().map(|(&atom, &step)| (step.abs(), atom)).collect();
            terms.retain(|&(_, atom)| varies(pool, atom) && !equal.contains(&atom));
            terms.sort_unstable_by(|a, b| b.cmp(a));
            for (number, &(step, atom)) in terms.iter().enumerate() {
                let span = terms[number + 1..].iter().try_fold(0i64, |sum, &(step, atom)| {
                    let range = pool.interval(atom)?;
                    sum.checked_add(step.checked_mul(range.high.checked_sub(range.low)?)?)
                });
                if span.is_none_or(|span| span >= step) {
                    break;
                }
                equal.insert(atom);
            }
        }
        let mut sums: BTreeSet<ExprId> = BTreeSet::new();
        let mut radices: BTreeSet<i64> = BTreeSet::new();
        for &atom in &equal {
            let Expr::Binary(op, of, divisor) = *pool.get(atom) else { continue };
            let Expr::Int(divisor, _) = *pool.get(divisor) else { continue };
            match (op, pool.get(of)) {
                (BinaryOp::Mod, Expr::Binary(BinaryOp::FloorDiv, x, _)) => {
                    sums.insert(*x);
                    radices.insert(divisor);
                }
                (BinaryOp::Mod, _) => {
                    sums.insert(of);
                    radices.insert(divisor);
                }
                (BinaryOp::FloorDiv, _) => {
                    sums.insert(of);
                }
                (_, _) => {}
            }
        }
        let determined = |pool: &ExprPool, form: &Affine| {
            form.terms.keys().all(|atom| equal.contains(atom) || !varies(pool, *atom))
        };
        for sum in sums {
            if known_sums.contains(&sum) || !digits_cover(pool, sum, &radices, &determined) {
                continue;
            }
            known_sums.insert(sum);
            let form = pool.affine(sum);
            if separated(pool, std::slice::from_ref(&form), &[Facts::default()], var, inner) {
                return true;
            }
            places.push(form);
        }
    }
    false
}

/// Whether `sum` is made of digits that are `determined`, the radices of all but the highest among `radices`.
fn digits_cover(
    pool: &mut ExprPool,
    sum: ExprId,
    radices: &BTreeSet<i64>,
    determined: &impl Fn(&ExprPool, &Affine) -> bool,
) -> bool {
    let mut place = 1i64;
    loop {
        // From the sum itself, as the quotient of a quotient may have another form.
        let rest = pool.div_int(sum, place);
        let form = pool.affine(rest);
        if determined(pool, &form) {
            return true;
        }
        // The largest digit first: a smaller one may be a part of it.
        let digit = radices.iter().rev().copied().filter(|&radix| radix > 1).find(|&radix| {
            let digit = pool.mod_int(rest, radix);
            let digit = pool.affine(digit);
            determined(pool, &digit)
        });
        let Some(radix) = digit else { return false };
        let Some(next) = place.checked_mul(radix) else { return false };
        place = next;
    }
}

/// The mixed-radix test. Every form is `outer + step * var + inner`, with one `outer` and one `step` for all. The inner terms
/// fall into small ones, whose total span stays below `|step|`, and large ones, multiples of a number that all the rest stays
/// below; then two forms meet only where `var` is equal. Each form is taken where its facts hold.
pub(super) fn separated(
    pool: &mut ExprPool,
    forms: &[Affine],
    facts: &[Facts],
    var: VarId,
    inner: &BTreeSet<VarId>,
) -> bool {
    let extent = pool.vars[var].extent as i64;
    if extent <= 1 {
        return true;
    }
    let mut common: Option<(Affine, i64)> = None;
    let (mut small, mut large) = (None::<Interval>, 0i64);
    for (form, facts) in forms.iter().zip(facts) {
        let Some(step) = form.coefficient(pool, var) else { return false };
        let mut outer = Affine::default();
        let mut span = Interval::point(form.constant);
        for (&atom, &coefficient) in &form.terms {
            if *pool.get(atom) == Expr::Var(var) {
                continue;
            }
            if !pool.vars_of(atom).iter().any(|used| inner.contains(used)) && pool.loads_of(atom).is_empty() {
                outer.add_term(atom, coefficient);
            } else if coefficient.abs() < step.abs() {
                let Some(range) = range_of(pool, facts, atom).and_then(|range| range.scale(coefficient))
                else {
                    return false;
                };
                let Some(sum) = span.plus(range) else { return false };
                span = sum;
            } else {
                large = gcd(large, coefficient);
            }
        }
        match &common {
            None => common = Some((outer, step)),
            Some(known) if *known == (outer, step) => {}
            Some(_) => return false,
        }
        small = Some(small.map_or(span, |known| Interval {
            low: known.low.min(span.low),
            high: known.high.max(span.high),
        }));
    }
    let (Some((_, step)), Some(small)) = (common, small) else { return true };
    let span = small.high - small.low;
    step != 0 && span < step.abs() && (large == 0 || (extent - 1) * step.abs() + span < large)
}

/// The values of an atom where `facts` hold.
fn range_of(pool: &mut ExprPool, facts: &Facts, atom: ExprId) -> Option<Interval> {
    let Range { low, high } = facts.range(pool, atom);
    let own = pool.interval(atom);
    let low = low.into_iter().chain(own.map(|own| own.low)).max()?;
    let high = high.into_iter().chain(own.map(|own| own.high)).min()?;
    // Facts that contradict one another leave nothing; a point is more than that.
    Some(Interval { low, high: high.max(low) })
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopir::Nest;

    /// What the loop `p` carries when a band of rows is copied by runs that end beyond the band, under a condition.
    fn carried(rows: usize, condition: &str) -> Vec<String> {
        let text = format!(
            "\
nest band
  in    x: f32[28, 28]
  out   y: f32[28, 28]
  for p in 7:
    for j in 4, i in 32:
      copy: y[p * {rows} + (j * 32 + i) // 28, (j * 32 + i) % 28] = x[p * {rows} + (j * 32 + i) // 28, 0]{condition}
"
        );
        let mut nest = Nest::parse(&text).unwrap();
        let of = nest.loop_of(nest.loops_named("p")[0]).unwrap().clone();
        let carried = carried_buffers(&mut nest.pool, &of);
        carried.into_iter().map(|buffer| nest.pool.buffers[buffer].name.clone()).collect()
    }

    #[test]
    fn a_condition_keeps_bands_apart() {
        assert_eq!(carried(4, " if j * 32 + i < 112"), [""; 0]);
        assert_eq!(carried(4, " if p * 4 + (j * 32 + i) // 28 < 28 and j * 32 + i < 112"), [""; 0]);
        assert_eq!(carried(4, ""), ["y"]);
        // One element of the next band is within the condition.
        assert_eq!(carried(4, " if j * 32 + i < 113"), ["y"]);
        assert_eq!(carried(3, " if j * 32 + i < 112"), ["y"]);
    }
}
