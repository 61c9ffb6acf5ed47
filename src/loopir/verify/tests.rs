use super::*;
use crate::base::Random;
use crate::interp::{self, InterpError, Options};
use crate::loopir::NestBuilder;
use crate::tensor::{DType, Tensor};
use expect_test::{Expect, expect};

/// A nest over `x: f32[8]`, `i: i64[8]`, `y: f32[8]` and a loop `a` of 8, with these lines in the loop.
fn in_loop(lines: &str) -> Nest {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    let head = "nest t\n  in    x: f32[8]\n  in    i: i64[8]\n  out   y: f32[8]\n  for a in 8:\n";
    let text = format!("{head}{lines}");
    Nest::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[track_caller]
fn refuses(nest: &Nest, expected: Expect) {
    let errors = nest.verify().unwrap_err();
    expected.assert_eq(&errors.iter().map(|error| format!("{error}\n")).collect::<String>());
}

#[test]
fn names_must_be_unique_and_printable() {
    let mut nest = in_loop("s: y[a] = x[a]\ns: y[a] = x[a]");
    nest.pool.buffers[nest.params[0]].name = "1x".into();
    nest.pool.buffers[nest.params[1]].name = "y".into();
    refuses(
        &nest,
        expect![[r#"
        the buffer `1x` cannot be named so: use letters, digits, `_` and `.`, and no word of the text form
        the buffer `y` exists twice: rename or remove one
        the block `s` exists twice: rename or remove one
    "#]],
    );
    let shadow = in_loop("for a in 8:\n  s: y[a] = x[a]");
    refuses(
        &shadow,
        expect![[r#"
        the loop or scalar buffer `a` exists twice: rename or remove one
    "#]],
    );
    let mut local = in_loop("register t: f32\ns: t = x[a]\nu: y[a] = t");
    let t = local.buffer_named("t").unwrap();
    local.pool.buffers[t].name = "a".into();
    refuses(
        &local,
        expect![[r#"
        the loop or scalar buffer `a` exists twice: rename or remove one
    "#]],
    );
}

#[test]
fn roles_and_scopes_must_fit() {
    let mut nest = in_loop("register t: f32\ns: t = x[a]\nu: y[a] = t");
    let t = nest.buffer_named("t").unwrap();
    nest.params.push(t);
    refuses(
        &nest,
        expect![[r#"
        buffer `t` of role Local and scope Register cannot stand as a parameter
        the allocation of `t` exists twice: rename or remove one
    "#]],
    );
    let mut nest = in_loop("register t: f32\ns: t = x[a]\nu: y[a] = t");
    let t = nest.buffer_named("t").unwrap();
    nest.pool.buffers[t].role = Role::Packed;
    refuses(
        &nest,
        expect![[r#"
        buffer `t` of role Packed and scope Register cannot stand as an allocation here
        block `s` writes buffer `t`, whose role is Packed
    "#]],
    );
    let mut nest = in_loop("s: y[a] = x[a]");
    nest.pool.buffers[nest.params[0]].shape = vec![usize::MAX, 2];
    assert!(
        nest.verify()
            .unwrap_err()
            .contains(&VerifyError::TooLarge { buffer: "x".into(), shape: vec![usize::MAX, 2] })
    );
}

#[test]
fn buffers_live_to_the_end_of_their_body() {
    let mut nest = in_loop("register t: f32\ns: t = x[a]\nu: y[a] = t");
    let Stmt::Loop(of) = &mut nest.body[0] else { unreachable!() };
    of.body.swap(0, 1);
    refuses(
        &nest,
        expect![[r#"
        block `s` accesses buffer `t` where it is not allocated
    "#]],
    );
}

#[test]
fn accesses_must_be_in_scope() {
    let text = "
nest t
  in    x: f32[8]
  out   y: f32[8]
  for a in 8:
    register t: f32
    s: t = x[a]
  for b in 8:
    u: y[b] = t
";
    let mut nest = Nest::parse(text).unwrap();
    refuses(
        &nest,
        expect![[r#"
        block `u` accesses buffer `t` where it is not allocated
    "#]],
    );
    // The variable of the first loop in the second one, and one variable in two loops.
    let Stmt::Loop(first) = nest.body[0].clone() else { unreachable!() };
    let Stmt::Loop(second) = &mut nest.body[1] else { unreachable!() };
    second.body.clone_from(&first.body);
    second.body.remove(0);
    let Stmt::Store(store) = &mut second.body[0] else { unreachable!() };
    store.block = "u".into();
    store.buffer = nest.params[1];
    store.index = vec![nest.pool.var(first.var)];
    refuses(
        &nest,
        expect![[r#"
        block `u` uses the loop variable `a` outside of its loop
    "#]],
    );
    nest.body.push(nest.body[0].clone());
    assert!(nest.verify().unwrap_err().contains(&VerifyError::BoundTwice { var: "a".into() }));
}

#[test]
fn inputs_are_read_only_and_preparation_sees_constants() {
    refuses(
        &in_loop("s: x[a] = 1.0"),
        expect![[r#"
        block `s` writes buffer `x`, whose role is Input
    "#]],
    );
    let text = "
nest t
  in    x: f32[8]
  const w: f32[8]
  out   y: f32[8]
  prepare:
    packed p: f32[8]
    register t: f32
    for a in 8:
      s: p[a] = w[a]
      r: p[a] = x[a]
    barrier
  for a in 8:
    u: y[a] = p[a]
    v: p[a] = 1.0
    q: t = 1.0
";
    refuses(
        &Nest::parse(text).unwrap(),
        expect![[r#"
        block `r` of the preparation accesses buffer `x`, whose role is Input
        a barrier cannot stand inside of the preparation
        block `v` writes buffer `p`, whose role is Packed
        block `q` accesses buffer `t` where it is not allocated
    "#]],
    );
}

#[test]
fn types_must_fit() {
    refuses(
        &in_loop("s: y[a] = i[a]"),
        expect![[r#"
        block `s`: the value `i[a]` is i64, but should be f32: cast it
    "#]],
    );
    refuses(
        &in_loop("s: y[x[a]] = x[a] + i[a] if a"),
        expect![[r#"
        block `s`: the index `x[a]` is f32, but should be i64: cast it
        block `s`: the condition `a` is i64, but should be bool: cast it
        block `s`: the right operand `i[a]` is i64, but should be f32: cast it
    "#]],
    );
    refuses(
        &in_loop("s: y[a] = select(a, guard(x[a], 1.0), a)"),
        expect![[r#"
        block `s`: the condition `x[a]` is f32, but should be bool: cast it
        block `s`: the condition `a` is i64, but should be bool: cast it
        block `s`: the last operand `a` is i64, but should be f32: cast it
    "#]],
    );
    refuses(
        &in_loop("s: y[a] = and(x[a], 1.0) + f32(exp(a)) + f32(300_u8)"),
        expect![[r#"
        block `s`: `x[a] and 1.0`: the operation `and` has no meaning for f32
        block `s`: `exp(a)`: the operation `exp` has no meaning for i64
        block `s`: the constant 300 is not one of u8
    "#]],
    );
    refuses(
        &in_loop("s: y[a] = x + y[a, a] + f32(-(a < 1))"),
        expect![[r#"
            block `s`: buffer `x` has 1 dimensions, but is accessed with 0 indices
            block `s`: buffer `y` has 1 dimensions, but is accessed with 2 indices
            block `s`: `-(a < 1)`: the operation `neg` has no meaning for bool
        "#]],
    );
}

#[test]
fn loop_kinds_must_fit() {
    let nested = |outer: &str, inner: &str| {
        Nest::parse(&format!(
            "nest t\n  out   y: f32[2, 2]\n  for a in 2 {outer}, b in 2 {inner}:\n    s: y[a, b] = 1.0\n"
        ))
        .unwrap()
    };
    for (outer, inner) in [
        ("workgroup.x", "invocation.x"),
        ("workgroup.x", "workgroup.y"),
        ("parallel", "parallel"),
        ("invocation.x", "vector"),
        ("unroll", "workgroup.z"),
        ("vector", "unroll"),
    ] {
        assert_eq!(nested(outer, inner).verify(), Ok(()), "{outer} {inner}");
    }
    for (outer, inner) in [
        ("invocation.x", "workgroup.x"),
        ("workgroup.x", "workgroup.x"),
        ("invocation.z", "invocation.z"),
        ("vector", "parallel"),
        ("workgroup.x", "parallel"),
        ("vector", "vector"),
        ("parallel", "invocation.x"),
    ] {
        let errors = nested(outer, inner).verify().unwrap_err();
        assert!(matches!(errors[0], VerifyError::Kind { .. }), "{outer} {inner}");
    }
    refuses(
        &nested("invocation.x", "invocation.x"),
        expect![[r#"
            the invocation.x loop `b` cannot stand inside of the invocation.x loop `a`
        "#]],
    );
    let barrier = Nest::parse("nest t\n  for a in 2 parallel:\n    barrier\n").unwrap();
    refuses(
        &barrier,
        expect![[r#"
            a barrier cannot stand inside of the parallel loop `a`
        "#]],
    );
}

#[test]
fn indices_must_be_in_range() {
    refuses(
        &in_loop("s: y[a] = x[a + 1]"),
        expect![[r#"
        block `s` accesses buffer `x` at `a + 1` in dimension 0, which is 1 to 8 but the extent is 8: guard the access
    "#]],
    );
    refuses(
        &in_loop("s: y[3 * a - 20] = guard(a > 2, x[a - 2]) if a >= 6"),
        expect![[r#"
        block `s` accesses buffer `y` at `3 * a - 20` in dimension 0, which is -2 to 1 but the extent is 8: guard the access
    "#]],
    );
}

#[track_caller]
fn proves(line: &str) {
    let nest = in_loop(line);
    assert_eq!(nest.verify(), Ok(()), "{line}");
    assert_eq!(nest.unproved_accesses(), [], "{line}");
}

#[test]
fn conditions_prove_ranges() {
    proves("s: y[a] = guard(a >= 1 and a < 5, x[a - 1] + x[a + 3])");
    proves("s: y[a] = select(a >= 4, x[a - 4], x[a + 4])");
    proves("s: y[a] = select(a < 4 or a > 6, 0.0, x[a + 1])");
    proves("s: y[2 * a] = x[7 - 2 * a] if a < 4");
    proves("for b in 8:\n  s: y[a] = guard(3 * a + b < 8, x[3 * a + b] + x[7 - b - 3 * a])");
    proves("for b in 8:\n  s: y[a] = guard(a + b < 4, x[2 * a + 2 * b + 1])");
    proves("for b in 4:\n  s: y[a] = guard((8 * a + b) // 16 < 2, x[2 * a + b // 2])");
    proves("for b in 4:\n  s: y[a] = guard(8 * a + b < 50, x[(8 * a + b) // 7])");
    proves("for b in 8:\n  s: y[a] = guard(a - b >= 0, x[a - b])");
    proves("for b in 8, c in 8:\n  s: y[a] = guard(a + b < 5 and c < 4, x[a + b + c])");
    proves("s: y[a] = guard(a < 0, x[a - 100])");
    proves("s: y[a] = guard(not(a >= 7), x[a + 1])");
    proves("for b in 20:\n  s: y[a] = guard(a == b, x[b])");
}

#[test]
fn quotients_taken_apart_are_proved() {
    let text = "
        nest n
          in    x: f32[3, 8]
          out   y: f32[24]
          for p in 4, q in 8:
            s: y[p * 8 + q] = x[(p * 8 + q) // 8, q] + x[p + q // 8, q] if p * 8 + q < 24
          for p in 2, q in 8, r in 2:
            t: y[p * 16 + q * 2 + r] = x[(p * 8 + q) // 4, q] if p * 16 + q * 2 + r < 24
          for p in 2, q in 16:
            u: y[p * 16 + q] = x[0, 0] if p * 8 + q // 2 < 12";
    assert_eq!(Nest::parse(text).unwrap().verify(), Ok(()));
}

#[test]
fn bands_that_hang_over_the_edge_are_proved() {
    let text = "
        nest n
          in    x: f32[9]
          out   y: f32[3, 2]
          for b in 6, r in 4, k in 3:
            s: y[0, 0] max= x[k + b * 6 + r // 2 * 3] if b * 4 + r < 6
          for f in 8, q in 5:
            t: y[f // 4 * 10 + (q + f % 4 * 5) // 2, (q + f % 4 * 5) % 2] = x[0] if q + f * 5 < 6 and f < 6
          for g in 24:
            u: y[g // 4 * 2 + g % 4 // 2, g % 4 % 2] = x[0] if g < 6
          for h in 16, r in 4:
            v: y[0, 0] += x[r % 2 + h // 4 * 2 + 5] if r // 2 + h // 2 % 2 * 2 < 1 and r + h // 2 * 4 < 16";
    assert_eq!(Nest::parse(text).unwrap().verify(), Ok(()));
}

#[test]
fn windows_in_rows_of_a_fused_loop_are_proved() {
    let text = "
        nest n
          in    x: f32[25]
          out   y: f32[25]
          for f in 25:
            register acc: f32
            init: acc = 0.0
            for r in 3:
              update: acc += guard(r + f % 5 >= 1 and r + f % 5 < 6, x[r + f - 1])
            store: y[f] = acc
          for g in 4, h in 8:
            t: y[g * 8 + h] = guard((g * 8 + h) % 5 < 4, x[g * 8 + h + 1]) if g * 8 + h < 25";
    assert_eq!(Nest::parse(text).unwrap().verify(), Ok(()));
}

#[test]
fn clamped_and_guarded_data_is_proved() {
    proves("s: y[a] = x[max(0, min(i[a], 7))]");
    proves("s: y[a] = guard(i[a] >= 0 and i[a] < 8, x[i[a]])");
    proves("s: y[i[a] % 8] = x[a]");
    proves("s: y[a] = x[select(i[a] >= 0 and i[a] < 8, 3, 4)]");
}

#[test]
fn unproved_data_is_reported_once_each() {
    let nest = in_loop("s: y[i[a]] = x[i[a] + 1] + x[i[a] + 1] + guard(i[a] < 8, x[i[a]])");
    assert_eq!(nest.verify(), Ok(()));
    let shown: Vec<String> = nest
        .unproved_accesses()
        .iter()
        .map(|access| {
            let (buffer, index) = (&nest.pool.buffers[access.buffer].name, nest.pool.display(access.index));
            format!("{} {buffer} {} {index}", access.block, access.axis)
        })
        .collect();
    assert_eq!(shown, ["s x 0 i[a] + 1", "s x 0 i[a]", "s y 0 i[a]"]);
}

/// A random nest with random kinds of loops, indices and conditions.
fn random_nest(rng: &mut Random) -> Nest {
    let extents: Vec<usize> = (0..3).map(|_| rng.below(5) + 1).collect();
    let mut builder = NestBuilder::new("random");
    let x = builder.param(Role::Input, "x", DType::F32, &[24]);
    let y = builder.param(Role::Output, "y", DType::F32, &[24]);
    let vars = builder.open_all(&[("a", extents[0]), ("b", extents[1]), ("c", extents[2])]);
    let mut grow = |builder: &mut NestBuilder| {
        let pool = builder.pool();
        let mut sum = pool.int(rng.below(7) as i64 - 3);
        for &var in &vars {
            let factor = *rng.pick(&[0, 0, 1, 1, 2, 3, 5, 12, -1]);
            let term = pool.mul_int(var, factor);
            sum = pool.add(sum, term);
        }
        match rng.below(5) {
            0 => pool.div_int(sum, 3),
            1 => pool.mod_int(sum, 24),
            _ => sum,
        }
    };
    let (target, source, left, right) =
        (grow(&mut builder), grow(&mut builder), grow(&mut builder), grow(&mut builder));
    let pool = builder.pool();
    let (low, high) = (pool.at_least_int(left, 0), pool.less_int(right, 10));
    let (within, below) = (pool.at_least_int(source, 0), pool.less_int(source, 24));
    let guard = [low, high, within, below].into_iter().fold(pool.truth(), |all, one| pool.and(all, one));
    let load = pool.load(x, &[source]);
    let value = pool.guard(guard, load);
    builder.store("s", y, &[target], value);
    builder.close(3);
    let mut nest = builder.finish();
    let conditions = [nest.pool.at_least_int(target, 0), nest.pool.less_int(target, 24)];
    let conditions = &conditions[rng.below(3).min(1)..];
    let condition = nest.pool.conjunction(conditions);
    let simple = nest.pool.simplify(condition);
    super::super::walk::change_stores(&mut nest.body, &mut |store| store.condition = Some(simple));
    let text = nest.to_string();
    let kinds = ["", " parallel", " workgroup.x", " invocation.x", " invocation.y", " vector"];
    let text = ["a", "b", "c"].iter().zip(&extents).fold(text, |text, (name, extent)| {
        text.replace(&format!("{name} in {extent}"), &format!("{name} in {extent}{}", rng.pick(&kinds)))
    });
    Nest::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What the verifier and the race analysis accept runs without an access out of range and without a race.
#[test]
fn what_is_proved_does_not_fail() {
    let mut rng = Random::new(5);
    let x = Tensor::zeros(DType::F32, &[24]);
    let (mut valid, mut apart) = (0, 0);
    for _ in 0..4000 {
        let nest = random_nest(&mut rng);
        if nest.verify().is_ok() {
            valid += 1;
            let proved = crate::analysis::verify_races(&nest).is_ok();
            apart += usize::from(proved);
            let options = Options { check_races: true, check_uninitialised: false };
            match interp::run_with(&nest, std::slice::from_ref(&x), options) {
                Ok(_) => {}
                Err(InterpError::Race { .. }) => assert!(!proved, "{nest}"),
                Err(error) => panic!("{error}\n{nest}"),
            }
        }
    }
    assert!(valid > 200 && apart > 50, "{valid} {apart}");
}
