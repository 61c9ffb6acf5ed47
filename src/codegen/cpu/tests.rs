//! Golden programs: what calls of micro-kernels make of the blocks beside them.

use super::emit;
use crate::loopir::Nest;
use crate::schedule::Trace;
use crate::schedule::tests::winograd;
use expect_test::{Expect, expect};
use paisley_kernels::transform::Matrix;

fn check(mut nest: Nest, trace: &str, expected: Expect) {
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
    check(
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
fn a_transform_keeps_a_copy_that_does_more() {
    check(
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
