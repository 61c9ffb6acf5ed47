//! Transforms of tiles.

use super::*;
use crate::activation::Activation;
use crate::transform::Matrix;
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
        accumulate,
        finish,
    };
    code.body.push(parallel(t, rows as usize, vec![Node::Call(Call::Transform(transform))]));
    code
}

#[test]
fn transforms_of_every_matrix() {
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for matrix in Matrix::ALL {
            let after_first = Accumulate::UnlessZero(Affine::counter(CounterId(0)));
            for accumulate in [Accumulate::Never, Accumulate::Always, after_first] {
                for finished in [false, true] {
                    let code = transform(matrix, lanes, accumulate.clone(), finished);
                    compare(&code, &contents(&code, 1), 1e-5, &[isa], &[1, 2]);
                }
            }
        }
    }
    let refused = |change: fn(&mut Transform)| {
        let mut code = transform(Matrix::Input4, table(Isa::Generic).lanes, Accumulate::Never, true);
        let Node::Loop(outer) = &mut code.body[0] else { panic!("a loop") };
        let Node::Call(Call::Transform(transform)) = &mut outer.body[0] else { panic!("a transform") };
        change(transform);
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
}
