use super::{Matrix, Sides, TransformArgs};
use crate::guard::{Guarded, small_value};
use crate::isa::Isa;
use crate::table;
use crate::tile::Finish;
use crate::tile::lanes::Edge;

/// The strides of one operand: of rows, columns and tiles.
type Strides = [usize; 3];

/// Elements from the first to the last one of `tiles` tiles of so many rows and columns of vectors of `lanes`.
fn span(strides: Strides, [rows, columns]: [usize; 2], tiles: usize, lanes: usize) -> usize {
    (rows - 1) * strides[0] + (columns - 1) * strides[1] + (tiles - 1) * strides[2] + lanes
}

/// Tiles that overlap as those of a plane do, or lie apart; results by planes, or tile by tile.
fn strides(side: usize, results: usize, tiles: usize, lanes: usize) -> Vec<[Strides; 2]> {
    let pitch = (side + results * tiles + 1) * lanes;
    vec![
        [[pitch, lanes, results * lanes], [results * tiles * lanes, tiles * lanes, lanes]],
        [[side * lanes, lanes, side * side * lanes], [results * lanes, lanes, results * results * lanes]],
        [[lanes, pitch, side * lanes], [2 * pitch, lanes + 3, results * (lanes + 3)]],
    ]
}

#[test]
fn every_matrix_transforms_tiles() {
    let room = 1 << 16;
    let (mut inputs, mut results) = (Guarded::new(room), Guarded::new(room));
    for isa in Isa::available() {
        let kernels = table(isa);
        let lanes = kernels.lanes;
        for (matrix, sides) in Matrix::ALL.into_iter().flat_map(|of| Sides::ALL.map(|sides| (of, sides))) {
            let (q_count, j_count, rows) = (matrix.rows().len(), matrix.columns(), matrix.rows());
            let (p_count, i_count) = (sides.rows(q_count), sides.rows(j_count));
            for tiles in [1, 2, 5] {
                for [x_strides, y_strides] in strides(j_count, q_count, tiles, lanes) {
                    let x = &*inputs.last(span(x_strides, [i_count, j_count], tiles, lanes), small_value);
                    for (accumulate, stream) in [(false, false), (false, true), (true, false), (true, true)] {
                        let y = results.last(span(y_strides, [p_count, q_count], tiles, lanes), |_| 77.5);
                        let args = TransformArgs {
                            sides,
                            x: x.as_ptr(),
                            x_row: x_strides[0] as isize,
                            x_col: x_strides[1] as isize,
                            x_tile: x_strides[2] as isize,
                            y: y.as_mut_ptr(),
                            y_row: y_strides[0] as isize,
                            y_col: y_strides[1] as isize,
                            y_tile: y_strides[2] as isize,
                            tiles,
                            edges: [Edge::NONE; 2],
                            accumulate,
                            finish: Finish::NONE,
                            addend_tile: 0,
                            stream,
                        };
                        // SAFETY: the slices span what the arguments name.
                        unsafe { kernels.transform(matrix, &args) };
                        let mut wanted = vec![77.5; y.len()];
                        for (tile, p, q, lane) in indices([tiles, p_count, q_count, lanes]) {
                            let at = |strides: Strides, row: usize, col: usize| {
                                row * strides[0] + col * strides[1] + tile * strides[2] + lane
                            };
                            // Few bits each, so that no sum rounds but those of sixths.
                            let sum: f32 = indices([1, 1, i_count, j_count])
                                .map(|(_, _, i, j)| {
                                    let of_column = if sides == Sides::Both { rows[p][i] } else { 1.0 };
                                    of_column * rows[q][j] * x[at(x_strides, i, j)]
                                })
                                .sum();
                            wanted[at(y_strides, p, q)] = if accumulate { 77.5 + sum } else { sum };
                        }
                        let bound = if matrix == Matrix::Weights4 { 1e-5 } else { 0.0 };
                        let near = y.iter().zip(&wanted).all(|(got, wanted)| (got - wanted).abs() <= bound);
                        assert!(
                            near,
                            "{isa} {matrix:?} {sides:?}, {tiles} tiles by {x_strides:?} {y_strides:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn elements_beyond_an_edge_are_zeros_and_not_read() {
    let mut inputs = Guarded::new(1 << 16);
    for isa in Isa::available() {
        let kernels = table(isa);
        let lanes = kernels.lanes;
        for (matrix, sides) in
            [Matrix::Input2, Matrix::Input4].into_iter().flat_map(|of| Sides::ALL.map(|sides| (of, sides)))
        {
            let (side, step, tiles) = (matrix.columns(), matrix.columns() - 2, 3);
            // A plane whose first tile begins a row and a column before it, and which ends inside the last.
            for (height, width) in
                [(side, step * tiles), (side - 2, step * tiles - 1), (1, 1), (side - 1, step * tiles + 1)]
            {
                let plane = &*inputs.last(height * width * lanes, small_value);
                let pitch = (width + step * tiles + 3) * lanes;
                let mut padded = vec![0.0; (side + 1) * pitch];
                for (row, col, lane, _) in indices([height, width, lanes, 1]) {
                    padded[(row + 1) * pitch + (col + 1) * lanes + lane] =
                        plane[(row * width + col) * lanes + lane];
                }
                let count = side * side * tiles * lanes;
                let mut results = [vec![77.5; count], vec![77.5; count]];
                let edge = |line: usize, limit: usize| Edge {
                    start: -1,
                    line: line as i64,
                    row: 0,
                    step: 1,
                    limit: limit as i64,
                };
                let first = -((width * lanes + lanes) as isize);
                let planes = [
                    (
                        plane.as_ptr().wrapping_offset(first),
                        width * lanes,
                        [edge(0, height), edge(step, width)],
                    ),
                    (padded.as_ptr(), pitch, [Edge::NONE; 2]),
                ];
                for (y, (x, x_row, edges)) in results.iter_mut().zip(planes) {
                    let args = TransformArgs {
                        sides,
                        x,
                        x_row: x_row as isize,
                        x_col: lanes as isize,
                        x_tile: (step * lanes) as isize,
                        y: y.as_mut_ptr(),
                        y_row: (side * tiles * lanes) as isize,
                        y_col: (tiles * lanes) as isize,
                        y_tile: lanes as isize,
                        tiles,
                        edges,
                        accumulate: false,
                        finish: Finish::NONE,
                        addend_tile: 0,
                        stream: false,
                    };
                    // SAFETY: the planes span what the arguments name inside the edges.
                    unsafe { kernels.transform(matrix, &args) };
                }
                assert_eq!(results[0], results[1], "{isa} {matrix:?} {sides:?} of {height} x {width}");
            }
        }
    }
}

/// Every index of an array of these extents.
fn indices([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |at| (at / (b * c * d), at / (c * d) % b, at / d % c, at % d))
}
