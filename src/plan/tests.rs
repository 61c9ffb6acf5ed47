use super::*;
use crate::loopir::Nest;
use crate::tensor::DType;

/// A plan of values of the arena with those names and numbers of elements.
fn plan(values: &[(&str, usize)]) -> Plan {
    let mut plan = Plan::default();
    for (name, elems) in values {
        let (fact, layout) = (Fact::new(DType::F32, &[*elems]), MemoryLayout::Rows);
        let place = Place::Arena { offset_bytes: 0 };
        plan.values.push(Value { name: (*name).to_string(), fact, layout, place });
    }
    plan
}

fn id(value: usize) -> ValueId {
    ValueId::new(value)
}

fn part(value: usize, offset_bytes: usize) -> Part {
    Part { value: id(value), offset_bytes }
}

/// Adds a step that reads `from`, if any, and writes `to`.
fn step(plan: &mut Plan, from: Option<usize>, to: usize) {
    let nest = match from {
        None => "nest fill\n  out   y: f32[1]\n  for i in 1:\n    s: y[i] = 1.0\n",
        Some(_) => "nest copy\n  in    x: f32[1]\n  out   y: f32[1]\n  for i in 1:\n    s: y[i] = x[i]\n",
    };
    let nest = Nest::parse(nest).unwrap();
    let kernel = plan.kernels.push(Kernel {
        name: nest.name.clone(),
        hash: nest.structural_hash(),
        nest: nest.clone(),
        scheduled: nest,
        trace: Trace::default(),
        preparation: None,
        code: Code::Interpreted,
        fallback: None,
    });
    let bindings = from.into_iter().chain([to]).map(id).collect();
    plan.steps.push(Step { origin: String::new(), kernel, bindings, flop: 0 });
}

#[test]
fn parts_lie_at_their_offsets_and_keep_the_whole() {
    let mut plan = plan(&[("a", 4), ("b", 8), ("ab", 12), ("c", 4)]);
    let parts = [part(0, 0), part(1, 16)];
    assert_eq!(plan.can_lie_within(id(2), &parts), [true, true]);
    parts.into_iter().for_each(|part| plan.place_within(id(2), part));
    step(&mut plan, None, 0);
    step(&mut plan, Some(0), 1);
    step(&mut plan, Some(2), 3);
    assert_eq!((plan.memory(id(0)), plan.memory(id(1))), ((id(2), 0), (id(2), 16)));
    let whole = Lifetime { first: 0, last: 2, size_bytes: 48 };
    let copy = Lifetime { first: 2, last: 2, size_bytes: 16 };
    assert_eq!(plan.lifetimes(), [(id(2), whole), (id(3), copy)]);
    plan.place_in_arena();
    assert_eq!(plan.verify(), Ok(()));
}

#[test]
fn a_beginning_lies_within_the_longest() {
    let mut plan = plan(&[("a", 4), ("b", 8), ("ab", 12), ("c", 4), ("abc", 16)]);
    [part(0, 0), part(1, 16)].into_iter().for_each(|part| plan.place_within(id(2), part));
    // Whether the operands are those of the beginning or the beginning itself.
    assert_eq!(plan.can_lie_within(id(4), &[part(2, 0), part(3, 48)]), [true, true]);
    let parts = [part(0, 0), part(1, 16), part(3, 48)];
    assert_eq!(plan.can_lie_within(id(4), &parts), [true, true, true]);
    parts.into_iter().for_each(|part| plan.place_within(id(4), part));
    assert_eq!(
        [0, 1, 2, 3].map(|value| plan.memory(id(value))),
        [(id(4), 0), (id(4), 16), (id(4), 0), (id(4), 48)]
    );
}

#[test]
fn what_lies_elsewhere_stays_there() {
    let mut plan = plan(&[("a", 4), ("b", 4), ("ab", 8), ("other", 8)]);
    assert_eq!(plan.can_lie_within(id(3), &[part(0, 0), part(0, 16)]), [true, false]);
    [part(0, 0), part(1, 16)].into_iter().for_each(|part| plan.place_within(id(2), part));
    assert_eq!(plan.can_lie_within(id(3), &[part(1, 0), part(0, 16)]), [false, false]);
    // Its parts and then itself.
    plan.values[id(3)].fact.shape = vec![16];
    assert_eq!(plan.can_lie_within(id(3), &[part(0, 0), part(1, 16), part(2, 32)]), [true, true, false]);
    for place in [Place::Input(0), Place::Output(0), Place::Resident] {
        plan.values[id(0)].place = place;
        assert_eq!(plan.can_lie_within(id(3), &[part(0, 0)]), [false]);
    }
}

#[test]
fn defects_of_parts_are_found() {
    let whole = |second: usize, offset_bytes| {
        let mut plan = plan(&[("a", 4), ("b", second), ("ab", 8), ("c", 4)]);
        plan.place_within(id(2), part(0, 0));
        plan.place_within(id(2), part(1, offset_bytes));
        step(&mut plan, None, 0);
        step(&mut plan, None, 1);
        step(&mut plan, Some(2), 3);
        plan.place_in_arena();
        plan.verify()
    };
    assert_eq!(whole(4, 16), Ok(()));
    assert_eq!(whole(4, 12), Err(PlanError::Twice { step: 1, value: "b".into() }));
    assert_eq!(whole(2, 16), Err(PlanError::Early { step: 2, value: "ab".into() }));
    assert_eq!(whole(8, 16), Err(PlanError::Outside { part: "b".into(), whole: "ab".into() }));
}

#[test]
fn parts_of_each_other_are_refused() {
    let mut plan = plan(&[("a", 4), ("b", 4)]);
    for (value, whole) in [(0, 1), (1, 0)] {
        plan.values[id(value)].place = Place::Within { whole: id(whole), offset_bytes: 0 };
    }
    assert_eq!(plan.verify(), Err(PlanError::Outside { part: "a".into(), whole: "b".into() }));
}
