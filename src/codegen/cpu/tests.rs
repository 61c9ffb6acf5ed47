//! What code generation folds into the calls of micro-kernels.

use super::emit;
use crate::loopir::Nest;
use crate::schedule::Trace;
use crate::schedule::tests::winograd;
use expect_test::{Expect, expect};
use paisley_kernels::Activation;
use paisley_kernels::transform::Matrix;

fn check(nest: &str, trace: &str, expected: Expect) {
    expected.assert_eq(&calls(nest, trace));
}

/// The phases of the program of a nest with a schedule.
fn calls(nest: &str, trace: &str) -> String {
    let mut nest = Nest::parse(nest).unwrap();
    Trace::parse(trace).unwrap().apply(&mut nest).unwrap();
    let code = emit(&nest).unwrap().code.to_string();
    let calls = code.lines().skip_while(|line| !line.starts_with("phase"));
    calls.collect::<Vec<_>>().join("\n") + "\n"
}

/// A product whose results are added to a bias and to another tensor and clamped.
const PRODUCT: &str = "nest product
  in    x: f32[24, 16]
  const w: f32[16, 2, 8]
  const b: f32[2, 8]
  in    z: f32[2, 24, 8]
  out   y: f32[2, 24, 8]
  for i in 24, k.0 in 2, k.1 in 8:
    register acc: f32
    init: acc = 0.0
    for c in 16:
      update: acc += x[i, c] * w[c, k.0, k.1]
    store: y[k.0, i, k.1] = min(max(z[k.0, i, k.1] + (acc + b[k.0, k.1]), 0.0), 6.0)
";

const TILES: &str = "split i = [_, 10]
reorder i.0 k.0 i.1 k.1
stage_out acc at i.0 in register
reorder c i.1 k.0 k.1
replace c by fma_6x2x8";

#[test]
fn a_tile_finishes_its_sums() {
    check(
        PRODUCT,
        TILES,
        expect![[r#"
        phase 0
          for i.0 in 3
            tile min(10, 24 - 10 i.0) x (2 x 8) x 16: y[80 i.0 + 8 row + 192 block + col] = x[160 i.0 + 16 row + depth] * w[8 block + col + 16 depth] from b[8 block + col] plus z[80 i.0 + 8 row + 192 block + col] within 0.0 to 6.0
    "#]],
    );
}

#[test]
fn a_tile_ends_with_an_activation_however_it_is_written() {
    let sum = "(acc + b[k.0, k.1])";
    for (name, activations) in [
        ("silu", ["S * sigmoid(S)", "sigmoid(S) * S"]),
        (
            "hard_swish",
            ["S * min(max(S * 0.16666667 + 0.5, 0.0), 1.0)", "S * max(min(S + 3.0, 6.0), 0.0) / 6.0"],
        ),
        ("gelu", ["S * (erf(S / 1.4142135) + 1.0) * 0.5", "(0.5 * S) * (1.0 + erf(S * 0.70710677))"]),
    ] {
        for activation in activations {
            let nest = PRODUCT.replace(
                "min(max(z[k.0, i, k.1] + (acc + b[k.0, k.1]), 0.0), 6.0)",
                &activation.replace('S', sum),
            );
            let calls = calls(&nest, TILES);
            let end = format!(" from b[8 block + col] within -inf to inf then {name}\n");
            assert!(calls.ends_with(&end), "{activation}:\n{calls}");
        }
    }
}

#[test]
fn what_is_nearly_an_activation_is_none() {
    for other in
        ["acc * sigmoid(acc + 1.0)", "acc * (sigmoid(acc) * 2.0)", "acc * min(max(acc + 3.0, 0.0), 6.0)"]
    {
        let nest = PRODUCT.replace("min(max(z[k.0, i, k.1] + (acc + b[k.0, k.1]), 0.0), 6.0)", other);
        let calls = calls(&nest, TILES);
        assert!(
            Activation::ALL.iter().all(|activation| !calls.contains(activation.name())),
            "{other}:\n{calls}"
        );
    }
}

#[test]
fn an_activation_that_does_not_follow_a_tile_is_one_operation() {
    check(
        "nest gated
  in    x: f32[24, 16]
  out   y: f32[24, 16]
  for i in 24, c in 16:
    store: y[i, c] = sqrt(x[i, c] * sigmoid(x[i, c]))
",
        "",
        expect![[r#"
            phase 0
              block store over d0 in 24, d1 in 16
                v0: f32 = x[16 d0 + d1]
                v2: f32 = silu(v0)
                v3: f32 = sqrt(v2)
                y[16 d0 + d1] = v3
        "#]],
    );
}

#[test]
fn a_follower_that_is_more_than_a_clamped_sum_stays() {
    let squared = PRODUCT.replace("z[k.0, i, k.1] + (acc + b[k.0, k.1])", "acc * acc + b[k.0, k.1]");
    check(
        &squared,
        TILES,
        expect![[r#"
        phase 0
          for i.0 in 3
            tile min(10, 24 - 10 i.0) x (2 x 8) x 16: acc[8 row + 80 block + col] = x[160 i.0 + 16 row + depth] * w[8 block + col + 16 depth]
            block store over d0 in 2, d1 in min(10, 24 - 10 i.0), d2 in 8
              v0: f32 = acc[80 d0 + 8 d1 + d2]
              v1: f32 = b[8 d0 + d2]
              v2: f32 = v0 * v0 + v1
              v3: f32 = 0.0
              v4: f32 = max(v2, v3)
              v5: f32 = 6.0
              v6: f32 = min(v4, v5)
              y[80 i.0 + 192 d0 + 8 d1 + d2] = v6
    "#]],
    );
}

#[test]
fn terms_beyond_an_edge_are_left_out_and_lines_are_the_tile_s() {
    let nest = "nest depthwise
  in    x: f32[3, 12, 10, 8]
  const w: f32[3, 3, 3, 8]
  const b: f32[3, 8]
  out   y: f32[3, 12, 10, 8]
  for g.0 in 3, p in 12, q in 10, g.1 in 8:
    register acc: f32
    init: acc = 0.0
    for r in 3, s in 3:
      update: acc += guard(p + r >= 1 and p + r < 13 and (q + s >= 1 and q + s < 11), x[g.0, p + r + -1, q + s + -1, g.1]) * w[g.0, r, s, g.1]
    store: y[g.0, p, q, g.1] = max(acc + b[g.0, g.1], 0.0)
";
    let trace = "split p = [_, 5]
stage_out acc at p.0 in register
reorder r s q g.1
replace r by fma_lanes_8";
    check(
        nest,
        trace,
        expect![[r#"
        phase 0
          for g.0 in 3
            for p.0 in 3
              tile min(5, 12 - 5 p.0) x 10 x 8 x (3 x 3): y[960 g.0 + 400 p.0 + 80 line + 8 row + col] = x[960 g.0 + 400 p.0 + 80 line + 8 row + col + 80 depth0 + 8 depth1 - 88] * w[72 g.0 + col + 24 depth0 + 8 depth1] where 0 <= 5 p.0 + line + depth0 - 1 < 12 and 0 <= row + depth1 - 1 < 10 from b[8 g.0 + col] within 0.0 to inf
    "#]],
    );
}

/// A pooling of blocks, of which windows of 3 x 3 reach beyond the edge.
const POOLING: &str = "nest pool
  in    x: f32[3, 12, 10, 8]
  in    z: f32[3, 6, 5, 8]
  out   y: f32[3, 6, 5, 8]
  for c.0 in 3, p in 6, q in 5, c.1 in 8:
    register acc: f32
    init: acc = START
    for r in 3, s in 3:
      update: acc TERM
    store: y[c.0, p, q, c.1] = RESULT
";

fn pooling(start: &str, term: &str, result: &str) -> String {
    let inside = "p * 2 + r >= 1 and q * 2 + s >= 1";
    let read = format!("guard({inside}, x[c.0, p * 2 + r + -1, q * 2 + s + -1, c.1])");
    let term = term.replace("INSIDE", inside).replace("READ", &read);
    POOLING.replace("START", start).replace("TERM", &term).replace("RESULT", result)
}

fn of_lanes(instruction: &str) -> String {
    format!("stage_out acc at c.0 in register\nreorder r s q c.1\nreplace r by {instruction}")
}

#[test]
fn a_maximum_starts_from_nothing_and_writes_its_result() {
    check(
        &pooling("-inf", "max= select(INSIDE, READ, -inf)", "max(acc, 0.0)"),
        &of_lanes("pool_max_lanes_8"),
        expect![[r#"
            phase 0
              for c.0 in 3
                tile 6 x 5 x 8 x (3 x 3): y[240 c.0 + 40 line + 8 row + col] = max x[960 c.0 + 160 line + 16 row + col + 80 depth0 + 8 depth1 - 88] where 0 <= 2 line + depth0 - 1 < 281474976710656 and 0 <= 2 row + depth1 - 1 < 281474976710656 within 0.0 to inf
        "#]],
    );
}

#[test]
fn a_mean_divides_and_finishes_its_sum() {
    check(
        &pooling("0.0", "+= READ", "z[c.0, p, q, c.1] + acc / 9.0"),
        &of_lanes("pool_sum_lanes_8"),
        expect![[r#"
            phase 0
              for c.0 in 3
                tile 6 x 5 x 8 x (3 x 3): y[240 c.0 + 40 line + 8 row + col] = sum x[960 c.0 + 160 line + 16 row + col + 80 depth0 + 8 depth1 - 88] / 9.0 where 0 <= 2 line + depth0 - 1 < 281474976710656 and 0 <= 2 row + depth1 - 1 < 281474976710656 plus z[240 c.0 + 40 line + 8 row + col] within -inf to inf
        "#]],
    );
}

#[test]
fn what_is_beyond_an_edge_changes_no_maximum() {
    for term in ["max= READ", "max= select(INSIDE, READ, 0.0)"] {
        let mut nest = Nest::parse(&pooling("-inf", term, "acc")).unwrap();
        let refused = Trace::parse(&of_lanes("pool_max_lanes_8")).unwrap().apply(&mut nest);
        assert!(refused.unwrap_err().to_string().contains("operand 'a' is not a plain read"), "{term}");
    }
}

#[test]
fn a_quotient_of_what_is_not_pooled_stays() {
    check(
        &pooling("-inf", "max= select(INSIDE, READ, -inf)", "acc + z[c.0, p, q, c.1] / 9.0"),
        &of_lanes("pool_max_lanes_8"),
        expect![[r#"
            phase 0
              for c.0 in 3
                tile 6 x 5 x 8 x (3 x 3): acc[40 line + 8 row + col] = max x[960 c.0 + 160 line + 16 row + col + 80 depth0 + 8 depth1 - 88] where 0 <= 2 line + depth0 - 1 < 281474976710656 and 0 <= 2 row + depth1 - 1 < 281474976710656
                block store over d0 in 6, d1 in 5, d2 in 8
                  v0: f32 = acc[40 d0 + 8 d1 + d2]
                  v1: f32 = z[240 c.0 + 40 d0 + 8 d1 + d2]
                  v2: f32 = 9.0
                  v3: f32 = div(v1, v2)
                  v4: f32 = add(v0, v3)
                  y[240 c.0 + 40 d0 + 8 d1 + d2] = v4
        "#]],
    );
}

/// A product whose 24 terms lie in blocks of 16, under a condition on them.
fn product_in_blocks(condition: &str) -> Nest {
    let text = format!(
        "nest product
  in    x: f32[2, 9, 16]
  const w: f32[2, 16, 32]
  out   y: f32[9, 32]
  register acc: f32[9, 32]
  for i in 9, j in 32:
    init: acc[i, j] = 0.0
  for c.0 in 2, c.1 in 16, i in 9, j in 32:
    update: acc[i, j] += x[c.0, i, c.1] * w[c.0, c.1, j] if {condition}
  for i in 9, j in 32:
    store: y[i, j] = acc[i, j]
"
    );
    Nest::parse(&text).unwrap()
}

#[test]
fn the_last_terms_of_the_last_block_are_left_out() {
    let mut nest = product_in_blocks("c.0 * 16 + c.1 < 24");
    Trace::parse("replace c.0 by fma_12x32").unwrap().apply(&mut nest).unwrap();
    expect![[r#"
        program product.run
          in 0 x: f32[288]
          in 1 w: f32[1024]
          inout 2 y: f32[288]
          shared acc: f32[288]
        phase 0
          block init over d0 in 9, d1 in 32
            v0: f32 = 0.0
            acc[32 d0 + d1] = v0
        phase 1
          tile 9 x 32 x (2 x 16): acc[32 row + col] += x[16 row + 144 depth0 + depth1] * w[col + 512 depth0 + 32 depth1] where 0 <= 16 depth0 + depth1 < 24
        phase 2
          block store over d0 in 9, d1 in 32
            v0: f32 = acc[32 d0 + d1]
            y[32 d0 + d1] = v0
    "#]].assert_eq(&emit(&nest).unwrap().code.to_string());
}

#[test]
fn other_terms_are_not_left_out() {
    // Of the first block too, none of the last block, of rows, and the first ones.
    for condition in
        ["c.0 * 16 + c.1 < 12", "c.0 * 16 + c.1 < 16", "c.0 * 16 + i < 24", "c.0 * 16 + c.1 >= 3"]
    {
        let mut nest = product_in_blocks(condition);
        let refused = Trace::parse("replace c.0 by fma_12x32").unwrap().apply(&mut nest).unwrap_err();
        assert!(refused.to_string().contains("it runs under a condition"), "{condition}: {refused}");
    }
}

fn check_transform(mut nest: Nest, trace: &str, expected: Expect) {
    if let Err(error) = Trace::parse(trace).unwrap().apply(&mut nest) {
        panic!("{error}\n{nest}");
    }
    let code = emit(&nest).unwrap().code;
    let table = paisley_kernels::table(paisley_kernels::Isa::Avx512);
    if table.lanes == 16 {
        code.verify(table).unwrap();
    }
    expected.assert_eq(&code.to_string());
}

const SCHEDULE: &str = "stage_out acc at th in register
reorder i j tw a b l
";

#[test]
fn a_transform_overwrites_and_writes_where_it_is_copied_to() {
    check_transform(
        winograd(Matrix::Input4, "B(a, i) * B(b, j) * X", ""),
        &format!("{SCHEDULE}replace i by winograd_input_4_16\nparallel th"),
        expect![[r#"
            program tiles.run
              in 0 x: f32[1920]
              inout 1 y: f32[6912]
              scratch acc: f32[0]
            phase 0
              parallel for th in 3
                transform 4 x 16: y[64 th + 16 tile + 1152 row + 192 col + lane] = winograd_input_4(x[384 th + 32 tile + 192 row + 16 col + lane])
        "#]],
    );
}

#[test]
fn a_transform_finishes_its_sums() {
    let plain = winograd(Matrix::Output2, "B(a, i) * B(b, j) * X", "").to_string();
    let finished = plain
        .replace("  out ", "  const bias: f32[16]\n  in    other: f32[6, 8, 16]\n  out ")
        .replace("= acc", "= max(acc + bias[l] + other[th * 2 + a, tw * 2 + b, l], 0.0)");
    check_transform(
        Nest::parse(&finished).unwrap(),
        &format!("{SCHEDULE}replace i by winograd_output_2_16\nparallel th"),
        expect![[r#"
            program tiles.run
              in 0 x: f32[1280]
              in 1 bias: f32[16]
              in 2 other: f32[768]
              inout 3 y: f32[768]
              scratch acc: f32[0]
            phase 0
              parallel for th in 3
                transform 4 x 16: y[64 th + 16 tile + 384 row + 192 col + lane] = winograd_output_2(x[320 th + 32 tile + 160 row + 16 col + lane]) from bias[lane] plus other[256 th + 32 tile + 128 row + 16 col + lane] within 0.0 to inf
        "#]],
    );
}

#[test]
fn a_transform_keeps_a_copy_that_does_more() {
    check_transform(
        winograd(Matrix::Output2, "B(a, i) * B(b, j) * X", " if tw * 2 + b < 7"),
        &format!("{SCHEDULE}replace i by winograd_output_2_16\nparallel th"),
        expect![[r#"
            program tiles.run
              in 0 x: f32[1280]
              inout 1 y: f32[768]
              scratch acc: f32[256]
            phase 0
              parallel for th in 3
                transform 4 x 16: acc[64 tile + 32 row + 16 col + lane] = winograd_output_2(x[320 th + 32 tile + 160 row + 16 col + lane])
                for tw in 4
                  block store over d0 in 2, d1 in min(2, 7 - 2 tw), d2 in 16
                    v0: f32 = acc[64 tw + 32 d0 + 16 d1 + d2]
                    y[64 th + 16 tw + 384 d0 + 192 d1 + d2] = v0
        "#]],
    );
}

#[test]
fn a_transform_leaves_out_what_is_beyond_an_edge() {
    check_transform(
        winograd(
            Matrix::Input4,
            "B(a, i) * B(b, j) * guard(0 <= th * 2 + i - 1 and th * 2 + i < 9 and tw * 2 + j < 11, X)",
            "",
        ),
        &format!("{SCHEDULE}replace i by winograd_input_4_16\nparallel th"),
        expect![[r#"
            program tiles.run
              in 0 x: f32[1920]
              inout 1 y: f32[6912]
              scratch acc: f32[0]
            phase 0
              parallel for th in 3
                transform 4 x 16: y[64 th + 16 tile + 1152 row + 192 col + lane] = winograd_input_4(x[384 th + 32 tile + 192 row + 16 col + lane]) where 0 <= 2 th + row - 1 < 8 and 0 <= 2 tile + col + 281474976710645 < 281474976710656
        "#]],
    );
}

#[test]
fn a_transform_under_more_conditions_than_it_knows_is_loops() {
    let nest = winograd(Matrix::Input4, "B(a, i) * B(b, j) * guard(th < 2 and tw < 3, X)", "").to_string();
    let code = calls(&nest, &format!("{SCHEDULE}replace i by winograd_input_4_16\nparallel th"));
    assert!(code.contains("block update") && !code.contains("transform"), "{code}");
}

#[test]
fn an_end_over_the_outermost_and_the_innermost_loop_is_a_length() {
    check(
        "nest view
  in    x: f32[8, 784, 8]
  out   y: f32[58, 784]
  for b in 8, i in 784, l in 8:
    store: y[b * 8 + l, i] = x[b, i, l] if b * 8 + l < 58
",
        "",
        expect![[r#"
            phase 0
              for b in 8
                block store over d0 in 784, d1 in min(8, 58 - 8 b)
                  v0: f32 = x[6272 b + 8 d0 + d1]
                  y[6272 b + d0 + 784 d1] = v0
        "#]],
    );
}
