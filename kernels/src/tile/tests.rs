use super::lanes::{Edge, LaneArgs, Windows};
use super::{DEPTHS, Depth, Factor, Finish, Tail, TileArgs};
use crate::guard::{Guarded, small_value};
use crate::isa::Isa;
use crate::table;
use half::{bf16, f16};

/// What the elements around a tile of `c` hold.
const CANARY: f32 = 77.5;

/// Runs every tile kernel on every number of rows and columns and compares with plain loops. The values are such that
/// all sums are exact, whatever their order.
fn check(depths: &[usize], layout: impl Fn(usize, usize, usize) -> (isize, isize, isize, isize)) {
    let room = 1 << 16;
    let (mut a_memory, mut b_memory, mut c_memory) =
        (Guarded::new(room), Guarded::new(room), Guarded::<f32>::new(room));
    let (mut f16_memory, mut bf16_memory) = (Guarded::<f16>::new(room), Guarded::<bf16>::new(room));
    for isa in Isa::available() {
        for kernel in table(isa).tiles {
            // More rows than registers hold are done piece by piece.
            for rows in (1..=kernel.rows).chain([kernel.rows + 1, 2 * kernel.rows + 3]) {
                for cols in 1..=kernel.cols {
                    for &depth in depths {
                        let (a_row, a_depth, b_depth, c_row) = layout(rows, cols, depth);
                        let span = |extents: [(usize, isize); 2], last: usize| {
                            extents
                                .iter()
                                .map(|&(n, stride)| n.saturating_sub(1) * stride as usize)
                                .sum::<usize>()
                                + last
                        };
                        let a = a_memory.last(span([(rows, a_row), (depth, a_depth)], 1), small_value);
                        let b_span = span([(depth, b_depth), (1, 0)], cols);
                        let b = b_memory.last(b_span, |i| small_value(i + 1000));
                        let halves = f16_memory.last(b_span, |i| f16::from_f32(small_value(i + 1000)));
                        let upper = bf16_memory.last(b_span, |i| bf16::from_f32(small_value(i + 1000)));
                        let factors = [
                            Factor::F32(b.as_ptr()),
                            Factor::F16(halves.as_ptr()),
                            Factor::Bf16(upper.as_ptr()),
                        ];
                        for (factor, accumulate) in
                            factors.into_iter().flat_map(|factor| [(factor, false), (factor, true)])
                        {
                            let start = |index: usize| {
                                let (i, j) = (index / c_row as usize, index % c_row as usize);
                                if j < cols { small_value(i * 7 + j) } else { CANARY }
                            };
                            let c = c_memory.last(span([(rows, c_row), (1, 0)], cols), start);
                            let args = TileArgs {
                                rows,
                                cols,
                                depths: Depth::single(depth, a_depth, b_depth),
                                tail: None,
                                a: a.as_ptr(),
                                a_row,
                                b: factor,
                                b_vector: table(isa).lanes as isize,
                                c: c.as_mut_ptr(),
                                c_row,
                                c_vector: table(isa).lanes as isize,
                                accumulate,
                                finish: Finish::NONE,
                                ahead_rows: 0,
                            };
                            // SAFETY: the table is of an available instruction set; the slices span the operands.
                            unsafe { (kernel.run)(&args) };
                            for (index, &got) in c.iter().enumerate() {
                                let (i, j) = (index / c_row as usize, index % c_row as usize);
                                let mut want = if accumulate || j >= cols { start(index) } else { 0.0 };
                                if j < cols {
                                    for k in 0..depth {
                                        want += a[i * a_row as usize + k * a_depth as usize]
                                            * b[k * b_depth as usize + j];
                                    }
                                }
                                assert_eq!(got, want, "{} at {i}, {j} of {args:?}", kernel.name);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn packed_panels_give_the_product() {
    check(&[0, 1, 2, 5, 8, 11, 16, 33], |rows, cols, _| (1, rows as isize, cols as isize, cols as isize));
}

#[test]
fn panels_wider_than_the_tile_are_left_alone() {
    check(&[3, 8], |_, cols, _| (1, 13, cols as isize + 5, cols as isize + 3));
}

#[test]
fn any_strides_give_the_product() {
    check(&[1, 7, 16], |_, cols, depth| (depth as isize + 2, 1, cols as isize + 3, cols as isize + 5));
    check(&[4], |_, cols, _| (2, 40, cols as isize + 1, cols as isize + 8));
}

#[test]
fn negative_strides_give_the_product() {
    for isa in Isa::available() {
        for kernel in table(isa).tiles {
            let (rows, cols, depth) = (kernel.rows, kernel.cols - 1, 9);
            let a: Vec<_> = (0..rows * depth).map(small_value).collect();
            let b: Vec<_> = (0..cols * depth).map(small_value).collect();
            let mut c = vec![0.0; rows * cols];
            let args = TileArgs {
                rows,
                cols,
                depths: Depth::single(depth, -(rows as isize), -(cols as isize)),
                tail: None,
                a: &a[a.len() - 1],
                a_row: -1,
                b: Factor::F32(&b[b.len() - cols]),
                b_vector: table(isa).lanes as isize,
                c: &mut c[(rows - 1) * cols],
                c_row: -(cols as isize),
                c_vector: table(isa).lanes as isize,
                accumulate: false,
                finish: Finish::NONE,
                ahead_rows: 0,
            };
            // SAFETY: the table is of an available instruction set; the strides stay in the vectors.
            unsafe { (kernel.run)(&args) };
            for i in 0..rows {
                for j in 0..cols {
                    let want: f32 = (0..depth).map(|k| a[k * rows + i] * b[k * cols + j]).sum();
                    assert_eq!(c[i * cols + j], want, "{} at {i}, {j}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn levels_of_the_sum_and_vectors_apart_give_the_product() {
    let tails = (0..DEPTHS - 1).flat_map(|level| [1, 3].map(|terms| Some(Tail { level, terms })));
    let tails: Vec<Option<Tail>> = tails.chain([None]).collect();
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for (kernel, &tail) in
            table(isa).tiles.iter().flat_map(|kernel| tails.iter().map(move |tail| (kernel, tail)))
        {
            let (rows, vectors, counts) = (kernel.rows + 2, kernel.cols / lanes, [2, 3, 2, 5]);
            let terms = counts.iter().product::<usize>();
            // Terms of `a` are next to one another, those of `b` a vector apart; vectors of `b` and `c` follow one another.
            let a: Vec<_> = (0..rows * terms).map(small_value).collect();
            let b: Vec<_> = (0..vectors * terms * lanes).map(small_value).collect();
            let mut c = vec![0.0; vectors * rows * lanes];
            let strides: Vec<usize> = (0..DEPTHS).map(|level| counts[level + 1..].iter().product()).collect();
            let args = TileArgs {
                rows,
                cols: vectors * lanes,
                depths: std::array::from_fn(|level| Depth {
                    count: counts[level],
                    a: strides[level] as isize,
                    b: (strides[level] * lanes) as isize,
                }),
                tail,
                a: a.as_ptr(),
                a_row: terms as isize,
                b: Factor::F32(b.as_ptr()),
                b_vector: (terms * lanes) as isize,
                c: c.as_mut_ptr(),
                c_row: lanes as isize,
                c_vector: (rows * lanes) as isize,
                accumulate: false,
                finish: Finish::NONE,
                ahead_rows: 0,
            };
            // SAFETY: the table is of an available instruction set; the strides stay in the vectors.
            unsafe { (kernel.run)(&args) };
            let counts_at = |k: &usize| {
                let at = |level: usize| k / strides[level] % counts[level];
                tail.is_none_or(|tail| at(tail.level) + 1 < counts[tail.level] || at(DEPTHS - 1) < tail.terms)
            };
            for i in 0..rows {
                for j in 0..vectors * lanes {
                    let (vector, lane) = (j / lanes, j % lanes);
                    let product = |k: usize| a[i * terms + k] * b[(vector * terms + k) * lanes + lane];
                    let want: f32 = (0..terms).filter(counts_at).map(product).sum();
                    assert_eq!(c[(vector * rows + i) * lanes + lane], want, "{} at {i}, {j}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn narrow_factors_are_converted_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for cols in [lanes, lanes - 1, lanes / 2 + 1, 1] {
            for bits in all.chunks_exact(cols) {
                let halves: Vec<f16> = bits.iter().map(|&bits| f16::from_bits(bits)).collect();
                let upper: Vec<bf16> = bits.iter().map(|&bits| bf16::from_bits(bits)).collect();
                let factors = [
                    (
                        Factor::F16(halves.as_ptr()),
                        halves.iter().map(|value| value.to_f32()).collect::<Vec<f32>>(),
                    ),
                    (Factor::Bf16(upper.as_ptr()), upper.iter().map(|value| value.to_f32()).collect()),
                ];
                for (b, wanted) in factors {
                    let mut c = vec![0.0; cols];
                    let args = TileArgs {
                        rows: 1,
                        cols,
                        depths: Depth::single(1, 1, 1),
                        tail: None,
                        a: &1.0,
                        a_row: 1,
                        b,
                        b_vector: lanes as isize,
                        c: c.as_mut_ptr(),
                        c_row: cols as isize,
                        c_vector: lanes as isize,
                        accumulate: false,
                        finish: Finish::NONE,
                        ahead_rows: 0,
                    };
                    // SAFETY: the table is of an available instruction set; the vectors have the columns.
                    unsafe { (table(isa).tile().run)(&args) };
                    for (got, want) in c.iter().zip(&wanted) {
                        assert!(got == want || (got.is_nan() && want.is_nan()), "{isa}: {got:e} of {want:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn sums_are_finished() {
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for kernel in table(isa).tiles {
            for rows in 1..kernel.rows + 2 {
                for cols in 1..=kernel.cols {
                    let depth = 3;
                    let values = |seed: usize, count: usize| -> Vec<f32> {
                        (0..count).map(|i| small_value(i + seed)).collect()
                    };
                    let (a, b) = (values(0, rows * depth), values(100, cols * depth));
                    let (start, mut addend) = (values(7, cols), values(31, rows * cols));
                    addend[0] = f32::NAN;
                    let mut c = vec![0.0; rows * cols];
                    let (low, high) = (-4.0, 9.0);
                    let args = TileArgs {
                        rows,
                        cols,
                        depths: Depth::single(depth, rows as isize, cols as isize),
                        tail: None,
                        a: a.as_ptr(),
                        a_row: 1,
                        b: Factor::F32(b.as_ptr()),
                        b_vector: lanes as isize,
                        c: c.as_mut_ptr(),
                        c_row: cols as isize,
                        c_vector: lanes as isize,
                        accumulate: false,
                        finish: Finish {
                            start: start.as_ptr(),
                            start_vector: lanes as isize,
                            addend: addend.as_ptr(),
                            addend_row: cols as isize,
                            addend_vector: lanes as isize,
                            low,
                            high,
                            activation: None,
                        },
                        ahead_rows: 0,
                    };
                    // SAFETY: the table is of an available instruction set; the strides stay in the vectors.
                    unsafe { (kernel.run)(&args) };
                    assert!(c[0].is_nan(), "{} of {rows} x {cols}", kernel.name);
                    for at in 1..rows * cols {
                        let (i, j) = (at / cols, at % cols);
                        let sum: f32 = (0..depth).map(|k| a[k * rows + i] * b[k * cols + j]).sum();
                        let want = (start[j] + sum + addend[at]).clamp(low, high);
                        assert_eq!(c[at], want, "{} at {i}, {j} of {rows} x {cols}", kernel.name);
                    }
                }
            }
        }
    }
}

/// A convolution of one channel a lane over lines of `count` places, as a plain sum of the terms inside.
#[test]
fn lanes_leave_out_what_is_beyond_an_edge() {
    for isa in Isa::available() {
        let kernels = table(isa);
        let lanes = kernels.lanes;
        for (size, stride, dilation) in
            [(1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 2), (9, 1, 1), (3, 3, 1)]
        {
            for count in 1..2 * kernels.lane_tile.rows + 3 {
                let (lines, pad) = (3usize, dilation * (size - 1) / 2);
                let (out_lines, out_count) = ((lines - 1) / stride + 1, (count - 1) / stride + 1);
                let x: Vec<f32> = (0..lines * count * lanes).map(small_value).collect();
                let w: Vec<f32> = (0..size * size * lanes).map(|i| small_value(i + 5)).collect();
                let start: Vec<f32> = (0..lanes).map(small_value).collect();
                let mut y = vec![0.0; out_lines * out_count * lanes];
                let (line, place) = ((count * lanes) as isize, lanes as isize);
                let edge = |limit: usize| Edge {
                    start: -(pad as i64),
                    line: 0,
                    row: 0,
                    step: dilation as i64,
                    limit: limit as i64,
                };
                let depth = |a: isize, b: usize| Depth {
                    count: size,
                    a: dilation as isize * a,
                    b: (b * lanes) as isize,
                };
                let windows = Windows {
                    lines: out_lines,
                    rows: out_count,
                    depths: [depth(line, size), depth(place, 1)],
                    edges: [
                        Edge { line: stride as i64, ..edge(lines) },
                        Edge { row: stride as i64, ..edge(count) },
                    ],
                    a: x.as_ptr().wrapping_offset(-(pad as isize) * (line + place)),
                    a_line: stride as isize * line,
                    a_row: stride as isize * place,
                    c: y.as_mut_ptr(),
                    c_line: (out_count * lanes) as isize,
                    c_row: lanes as isize,
                    accumulate: false,
                    finish: Finish { start: start.as_ptr(), ..Finish::NONE },
                    addend_line: 0,
                };
                let args = LaneArgs { windows, b: w.as_ptr(), scaled: None };
                // SAFETY: the table is of an available instruction set; terms inside the edges are elements of the vectors.
                unsafe { (kernels.lane_tile.run)(&args) };
                for (at, &got) in y.iter().enumerate() {
                    let (p, i, lane) = (at / lanes / out_count, at / lanes % out_count, at % lanes);
                    let mut want = start[lane];
                    for (r, s) in (0..size).flat_map(|r| (0..size).map(move |s| (r, s))) {
                        let (row, column) = (p * stride + r * dilation, i * stride + s * dilation);
                        if (pad..lines + pad).contains(&row) && (pad..count + pad).contains(&column) {
                            let place = (row - pad) * count + column - pad;
                            want += x[place * lanes + lane] * w[(r * size + s) * lanes + lane];
                        }
                    }
                    assert_eq!(
                        got, want,
                        "{isa}: line {p}, row {i} of {out_count}, window {size}, stride {stride}"
                    );
                }
            }
        }
    }
}
