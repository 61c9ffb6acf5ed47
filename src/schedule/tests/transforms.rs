//! Transforms of tiles by a matrix, and what is none.

use super::*;
use paisley_kernels::transform::Matrix;

/// Tiles of a plane of 16 channels transformed by a matrix: `value` says how of its elements `B(row, column)` and the input `X`.
pub(crate) fn winograd(matrix: Matrix, value: &str, condition: &str) -> Nest {
    fn choose(of: &str, values: &[String]) -> String {
        let (last, before) = values.split_last().unwrap();
        let choices = before.iter().enumerate().rev();
        choices.fold(last.clone(), |rest, (at, value)| format!("select({of} < {}, {value}, {rest})", at + 1))
    }
    let element = |row: &str, column: &str| {
        let literals = |row: &&[f32]| row.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>();
        let rows: Vec<String> = matrix.rows().iter().map(|row| choose(column, &literals(row))).collect();
        choose(row, &rows)
    };
    let mut value = value.replace('X', "x[th * 2 + i, tw * 2 + j, l]");
    for [row, column] in [["a", "i"], ["b", "j"], ["a", "j"], ["i", "a"]] {
        value = value.replace(&format!("B({row}, {column})"), &element(row, column));
    }
    let (points, results) = (matrix.columns(), matrix.rows().len());
    let (height, width) = (4 + points, 6 + points);
    let text = format!(
        "nest tiles
  in    x: f32[{height}, {width}, 16]
  out   y: f32[{results}, {results}, 3, 4, 16]
  for th in 3, tw in 4, a in {results}, b in {results}, l in 16:
    register acc: f32
    init: acc = 0.0
    for i in {points}, j in {points}:
      update: acc += {value}
    store: y[a, b, th, tw, l] = acc{condition}
"
    );
    Nest::parse(&text).unwrap()
}

#[test]
fn transforms_of_rows_unify_by_their_matrix() {
    let one_sided = |matrix: Matrix, value: &str, condition: &str| {
        let mut nest = winograd(matrix, &value.replace("X", &format!("guard({condition}, X)")), "");
        // A row of the plane at a time: the other loops stay outside.
        let trace = "reorder th a tw b l\nstage_out acc at a in register\nreorder i j tw b l";
        Trace::parse(trace).unwrap().apply(&mut nest).unwrap();
        nest
    };
    for matrix in Matrix::ALL {
        let by = format!("replace j by {}_row_16", matrix.name());
        for condition in ["th * 2 + i < 5", "tw * 2 + j < 9 and tw * 2 + j >= 1", "tw < 3"] {
            if let Err(refusal) = step(&by).apply(&mut one_sided(matrix, "B(b, j) * X", condition)) {
                panic!("{matrix:?} where {condition}: {refusal}");
            }
        }
    }
    let refused = |value: &str, condition: &str| {
        let mut nest = one_sided(Matrix::Input4, value, condition);
        step("replace j by winograd_input_4_row_16").apply(&mut nest).unwrap_err().to_string()
    };
    expect![[r#"loop 'j' is not instruction 'winograd_input_4_row_16': a factor depends on the loops ["a", "i"], not on a row and a column of a matrix"#]]
        .assert_eq(&refused("B(a, i) * B(b, j) * X", "tw < 3"));
    expect!["loop 'j' is not instruction 'winograd_input_4_row_16': it reads under the condition 'b < 3' on other loops than a row or a column"]
        .assert_eq(&refused("B(b, j) * X", "b < 3"));
}

#[test]
fn transforms_unify_by_their_matrix() {
    let ordered = |matrix, value: &str| {
        let mut nest = winograd(matrix, value, "");
        let trace = "stage_out acc at th in register\nreorder i j tw a b l";
        Trace::parse(trace).unwrap().apply(&mut nest).unwrap();
        nest
    };
    for matrix in Matrix::ALL {
        for value in
            ["B(a, i) * B(b, j) * X", "X * (B(b, j) * B(a, i))", "B(b, j) * (0.5 * X) * (2.0 * B(a, i))"]
        {
            let by = format!("replace i by {}_16", matrix.name());
            if let Err(refusal) = step(&by).apply(&mut ordered(matrix, value)) {
                panic!("{matrix:?} of {value}: {refusal}");
            }
        }
    }
    // Elements that there are not.
    for condition in ["th * 2 + i < 7 and 0 <= th * 2 + i - 1", "tw * 2 + j < 9", "th < 2 and tw < 3"] {
        let value = format!("B(a, i) * B(b, j) * guard({condition}, X)");
        if let Err(refusal) =
            step("replace i by winograd_input_4_16").apply(&mut ordered(Matrix::Input4, &value))
        {
            panic!("{condition}: {refusal}");
        }
    }
    let refused_by = |value: &str, by: &str| {
        let mut nest = ordered(Matrix::Input4, value);
        let refusal = step(&format!("replace i by {by}")).apply(&mut nest).unwrap_err().to_string();
        refusal.strip_prefix(&format!("loop 'i' is not instruction '{by}': ")).unwrap().to_string()
    };
    for (value, by, reason) in [
        ("B(a, i) * B(b, j) * X", "winograd_input_4_8", expect!["loop 'l' has 16 iterations, 'l' at most 8"]),
        (
            "B(a, i) * B(b, j) * X",
            "winograd_output_4_16",
            expect!["loop 'a' has 6 iterations, 'p' at most 4"],
        ),
        (
            "B(a, i) * B(a, j) * X",
            "winograd_input_4_16",
            expect![[r#"a factor depends on the loops ["j", "a"], not on a row and a column of a matrix"#]],
        ),
        (
            "B(i, a) * B(b, j) * X",
            "winograd_input_4_16",
            expect!["its factors are 0 where a is 0 and i is 2, those of winograd_input_4 -5"],
        ),
        (
            "B(a, i) * X",
            "winograd_input_4_16",
            expect!["its factors are 1 where b is 0 and j is 0, those of winograd_input_4 4"],
        ),
        (
            "B(a, i) * B(b, j) * X * 0.5",
            "winograd_input_4_16",
            expect!["its factors are 2 where a is 0 and i is 0, those of winograd_input_4 4"],
        ),
        (
            "B(a, i) * B(b, j) * X * X",
            "winograd_input_4_16",
            expect!["its value is a product of 2 reads, not of one"],
        ),
        (
            "B(a, i) * B(b, j) * 2.0",
            "winograd_input_4_16",
            expect!["its factors are 8 where a is 0 and i is 0, those of winograd_input_4 4"],
        ),
        ("B(a, i) * B(b, j) * exp(X)", "winograd_input_4_16", expect!["operand 'x' is not a plain read"]),
        (
            "B(a, i) * B(b, j) * guard(i + j < 9, X)",
            "winograd_input_4_16",
            expect!["it reads under the condition 'i + j < 9' on other loops than a row or a column"],
        ),
        (
            "B(a, i) * B(b, j) * guard(a + i < 9, X)",
            "winograd_input_4_16",
            expect!["it reads under the condition 'i + a < 9' on other loops than a row or a column"],
        ),
        (
            "B(a, i) * B(b, j) * guard(i % 2 < 1, X)",
            "winograd_input_4_16",
            expect!["it reads under the condition 'i % 2 < 1', which is not affine"],
        ),
        (
            "B(a, i) * B(b, j) * cast_of(a) * X",
            "winograd_input_4_16",
            expect!["factor 'f32(0)' is not known"],
        ),
    ] {
        let value = value.replace("cast_of(a)", "f32(a)");
        reason.assert_eq(&refused_by(&value, by));
    }
}
