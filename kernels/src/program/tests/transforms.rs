//! Transforms of tiles.

use super::*;
use crate::transform::Matrix;
use expect_test::expect;

/// Tiles of a plane of `lanes` channels, as many in each of its rows as a bound says, to planes of points.
fn transform(matrix: Matrix, lanes: usize, accumulate: Accumulate) -> Code {
    let (points, results) = (matrix.columns() as i64, matrix.rows().len() as i64);
    let (rows, most) = (3i64, 4i64);
    let (lane, row) = (lanes as i64, (points + 2 * most) * lanes as i64);
    let mut code = Code::new(matrix.name());
    let x = input(&mut code, 0, ElementType::F32, ((points + 2 * rows) * row) as usize);
    let y = output(&mut code, 1, ElementType::F32, (rows * results * results * most * lane) as usize);
    let t = code.counter("t");
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
                let code = transform(matrix, lanes, accumulate);
                compare(&code, &contents(&code, 1), 1e-5, &[isa], &[1, 2]);
            }
        }
    }
    let refused = |change: fn(&mut Transform)| {
        let mut code = transform(Matrix::Input4, table(Isa::Generic).lanes, Accumulate::Never);
        let Node::Loop(outer) = &mut code.body[0] else { panic!("a loop") };
        let Node::Call(Call::Transform(transform)) = &mut outer.body[0] else { panic!("a transform") };
        change(transform);
        code.verify(table(Isa::Generic)).unwrap_err().problem
    };
    assert_eq!(refused(|of| of.y_tile_stride -= 1), Problem::TransformOverlap);
    assert_eq!(refused(|of| of.y = of.x), Problem::TransformOverlap);
    assert_eq!(refused(|of| of.lanes = 5), Problem::TransformLanes { isa: Isa::Generic, lanes: 5 });
    assert!(matches!(refused(|of| of.x_col_stride *= 9), Problem::OutOfRange { .. }));
    assert!(matches!(refused(|of| of.y_col_stride *= 2), Problem::OutOfRange { .. }));
}

#[test]
fn transforms_print() {
    expect![[r#"
        program winograd_output_4
          in 0 x0: f32[1344]
          inout 1 y1: f32[1536]
        phase 0
          parallel for t in 3
            transform min(4, t + 2) x 8: y1[32 t + 8 tile + 96 row + 384 col + lane] = winograd_output_4(x0[224 t + 16 tile + 112 row + 8 col + lane])
    "#]].assert_eq(&transform(Matrix::Output4, 8, Accumulate::Never).to_string());
}
