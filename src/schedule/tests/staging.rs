//! Copies of what is read.

use super::*;

#[test]
fn a_region_staged() {
    check(
        chain(),
        "split p = [_, 4]\nstage_in t at p.0 in register",
        expect![[r#"
        nest chain
          in    x: f32[10]
          out   y: f32[8]
          global t: f32[10]
          for i in 10:
            double: t[i] = x[i] + x[i]
          for p.0 in 2:
            register t_s: f32[6]
            for t_s.0 in 6:
              stage_t: t_s[t_s.0] = t[p.0 * 4 + t_s.0]
            for p.1 in 4:
              init: y[p.0 * 4 + p.1] = 0.0
              for r in 3:
                sum: y[p.0 * 4 + p.1] += t_s[r + p.1]
    "#]],
    );
}

#[test]
fn what_the_nest_computes_is_copied_behind_it() {
    let nest = "nest scaled
  in    x: f32[8]
  const w: f32[4, 8]
  out   y: f32[4]
  global u: f32[8, 4]
  for i in 8, j in 4:
    weights: u[i, j] = w[j, i] * 2.0
  for k in 4:
    register acc: f32
    init: acc = 0.0
    for c in 8:
      update: acc += x[c] * u[c, k]
    store: y[k] = acc
";
    check(
        Nest::parse(nest).unwrap(),
        "stage_in u in global by k c\ncompute_at weights in u_s.k\nprepare u_s",
        expect![[r#"
            nest scaled
              in    x: f32[8]
              const w: f32[4, 8]
              out   y: f32[4]
              prepare:
                packed u_s: f32[4, 8]
                for u_s.k in 4:
                  workgroup u: f32[8, 1]
                  for u.0 in 8:
                    weights: u[u.0, 0] = w[u_s.k, u.0] * 2.0
                  for u_s.c in 8:
                    stage_u: u_s[u_s.k, u_s.c] = u[u_s.c, 0]
              for k in 4:
                register acc: f32
                init: acc = 0.0
                for c in 8:
                  update: acc += x[c] * u_s[k, c]
                store: y[k] = acc
        "#]],
    );
}
