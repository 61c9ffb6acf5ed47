//! Transforms of tiles.

use super::*;
use crate::activation::Activation;
use crate::transform::{Matrix, Sides};
use expect_test::expect;

/// Tiles of a plane of `lanes` channels, as many in each of its rows as a bound says, to planes of points; finished or not.
fn transform(matrix: Matrix, lanes: usize, accumulate: Accumulate, finished: bool) -> Code {
    let (points, results) = (matrix.columns() as i64, matrix.rows().len() as i64);
    let (rows, most) = (3i64, 4i64);
    let (lane, row) = (lanes as i64, (points + 2 * most) * lanes as i64);
    let mut code = Code::new(matrix.name());
    let x = input(&mut code, 0, ElementType::F32, ((points + 2 * rows) * row) as usize);
    let y = output(&mut code, 1, ElementType::F32, (rows * results * results * most * lane) as usize);
    let bias = input(&mut code, 2, ElementType::F32, lanes);
    let other = input(&mut code, 3, ElementType::F32, (rows * results * results * most * lane) as usize);
    let t = code.counter("t");
    let finish = finished.then(|| Finish {
        start: Some((code.access(bias, affine(0, &[])), 0)),
        addend: Some((
            code.access(other, affine(0, &[(t, most * lane)])),
            [lane, rows * most * lane, results * rows * most * lane],
        )),
        low: Literal::Float(-2.0),
        high: Literal::Float(3.0),
        activation: Some(Activation::Silu),
    });
    let transform = Transform {
        matrix,
        sides: Sides::Both,
        x: code.access(x, affine(0, &[(t, 2 * row)])),
        x_row_stride: row,
        x_col_stride: lane,
        x_tile_stride: 2 * lane,
        y: code.access(y, affine(0, &[(t, most * lane)])),
        y_row_stride: rows * most * lane,
        y_col_stride: results * rows * most * lane,
        y_tile_stride: lane,
        tiles: Trip::Bounded {
            max: most as usize,
            bounds: vec![Bound { value: affine(2, &[(t, 1)]), divisor: 1 }],
        },
        lanes,
        guard: vec![],
        accumulate,
        finish,
    };
    code.body.push(parallel(t, rows as usize, vec![Node::Call(Call::Transform(transform))]));
    code
}

/// The transform that code of [`transform`] has.
fn only_transform(code: &mut Code) -> &mut Transform {
    let Node::Loop(outer) = &mut code.body[0] else { panic!("a loop") };
    let Node::Call(Call::Transform(transform)) = &mut outer.body[0] else { panic!("a transform") };
    transform
}

#[test]
fn transforms_of_every_matrix() {
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for matrix in Matrix::ALL {
            let after_first = Accumulate::UnlessZero(Affine::counter(CounterId(0)));
            for accumulate in [Accumulate::Never, Accumulate::Always, after_first] {
                for (finished, sides) in
                    [false, true].into_iter().flat_map(|on| Sides::ALL.map(|of| (on, of)))
                {
                    let mut code = transform(matrix, lanes, accumulate.clone(), finished);
                    only_transform(&mut code).sides = sides;
                    compare(&code, &contents(&code, 1), 1e-5, &[isa], &[1, 2]);
                }
            }
        }
    }
    let refused = |change: fn(&mut Transform)| {
        let mut code = transform(Matrix::Input4, table(Isa::Generic).lanes, Accumulate::Never, true);
        change(only_transform(&mut code));
        code.verify(table(Isa::Generic)).unwrap_err().problem
    };
    assert_eq!(refused(|of| of.y_tile_stride -= 1), Problem::TransformOverlap);
    assert_eq!(refused(|of| of.y = of.x), Problem::TransformOverlap);
    assert_eq!(refused(|of| of.lanes = 5), Problem::TransformLanes { isa: Isa::Generic, lanes: 5 });
    fn finish(of: &mut Transform) -> &mut Finish {
        of.finish.as_mut().unwrap()
    }
    assert_eq!(refused(|of| finish(of).addend.as_mut().unwrap().0 = of.y), Problem::TransformOverlap);
    assert_eq!(refused(|of| finish(of).start.as_mut().unwrap().1 = 8), Problem::TransformStart);
    let far = |of: &mut Transform| finish(of).addend.as_mut().unwrap().1[2] *= 2;
    assert!(matches!(refused(far), Problem::OutOfRange { .. }));
    assert!(matches!(refused(|of| of.x_col_stride *= 9), Problem::OutOfRange { .. }));
    assert!(matches!(refused(|of| of.y_col_stride *= 2), Problem::OutOfRange { .. }));
}

/// A transform whose first row of tiles begins before the plane, and whose last tiles end behind it.
fn at_edges(lanes: usize) -> Code {
    let mut code = transform(Matrix::Input4, lanes, Accumulate::Never, false);
    let (lane, row) = (lanes as i64, 14 * lanes as i64);
    let condition = |constant: i64, of_counter: i64, strides: [i64; 3], limit: i64| Condition {
        value: affine(constant, if of_counter == 0 { &[] } else { &[(CounterId(0), 2)] }),
        strides: strides.to_vec(),
        limit,
    };
    let t = CounterId(0);
    let transform = only_transform(&mut code);
    transform.guard = vec![condition(-1, 2, [0, 1, 0], 7), condition(-1, 0, [2, 0, 1], 9)];
    let x = transform.x;
    code.accesses[x.index()].offset = affine(-row - lane, &[(t, 2 * row)]);
    code
}

#[test]
fn transforms_leave_out_what_is_beyond_an_edge() {
    for isa in Isa::available() {
        let mut code = at_edges(table(isa).lanes);
        compare(&code, &contents(&code, 1), 1e-5, &[isa], &[1, 2]);
        only_transform(&mut code).sides = Sides::Row;
        compare(&code, &contents(&code, 1), 1e-5, &[isa], &[1, 2]);
    }
    let refused = |change: fn(&mut Vec<Condition>)| {
        let mut code = at_edges(table(Isa::Generic).lanes);
        change(&mut only_transform(&mut code).guard);
        code.verify(table(Isa::Generic)).unwrap_err().problem
    };
    assert_eq!(refused(|guard| guard[1].strides[1] = 1), Problem::TransformGuard);
    assert_eq!(refused(|guard| guard.push(guard[0].clone())), Problem::TransformGuard);
    assert_eq!(refused(|guard| guard[0].strides.push(0)), Problem::Strides { op: 0, found: 4, wanted: 3 });
    assert!(matches!(refused(|guard| guard.truncate(1)), Problem::OutOfRange { .. }));
    expect![[r#"
        program winograd_input_4
          in 0 x0: f32[1344]
          inout 1 y1: f32[3456]
          in 2 x2: f32[8]
          in 3 x3: f32[3456]
        phase 0
          parallel for t in 3
            transform min(4, t + 2) x 8: y1[32 t + 8 tile + 96 row + 576 col + lane] = winograd_input_4(x0[224 t + 16 tile + 112 row + 8 col + lane - 120]) where 0 <= 2 t + row - 1 < 7 and 0 <= 2 tile + col - 1 < 9
    "#]].assert_eq(&at_edges(8).to_string());
}

#[test]
fn transforms_print() {
    expect![[r#"
        program winograd_output_4
          in 0 x0: f32[1344]
          inout 1 y1: f32[1536]
          in 2 x2: f32[8]
          in 3 x3: f32[1536]
        phase 0
          parallel for t in 3
            transform min(4, t + 2) x 8: y1[32 t + 8 tile + 96 row + 384 col + lane] = winograd_output_4(x0[224 t + 16 tile + 112 row + 8 col + lane]) from x2[lane] plus x3[32 t + 8 tile + 96 row + 384 col + lane] within -2.0 to 3.0 then silu
    "#]].assert_eq(&transform(Matrix::Output4, 8, Accumulate::Never, true).to_string());
    let mut row = transform(Matrix::Output2, 8, Accumulate::Always, false);
    only_transform(&mut row).sides = Sides::Row;
    expect![[r#"
        program winograd_output_2
          in 0 x0: f32[960]
          inout 1 y1: f32[384]
          in 2 x2: f32[8]
          in 3 x3: f32[384]
        phase 0
          parallel for t in 3
            transform min(4, t + 2) x 8: y1[32 t + 8 tile + 96 row + 192 col + lane] += winograd_output_2_row(x0[192 t + 16 tile + 96 row + 8 col + lane])
    "#]].assert_eq(&row.to_string());
}
