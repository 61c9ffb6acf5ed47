//! Which part of memory a loop touches.

use crate::expr::{Affine, BufferId, ExprId, ExprPool, VarId};
use crate::loopir::Loop;
use std::collections::BTreeSet;

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

    fn named<'a>(nest: &Nest, of: &'a [Footprint], name: &str) -> &'a Footprint {
        let id = nest.buffer_named(name).unwrap();
        of.iter().find(|footprint| footprint.buffer == id).unwrap()
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
}
