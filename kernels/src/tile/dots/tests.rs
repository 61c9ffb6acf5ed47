use super::{DOT_TERMS, DotArgs, DotKernel, Limits, Scaled};
use crate::guard::Guarded;
use crate::isa::Isa;
use crate::table;
use crate::tile::{DEPTHS, Depth, Tail};

/// What the elements around a tile of `c` hold.
const CANARY: i32 = 0x7777_7777;

/// Reproducible bytes, of which some are the least and the largest.
fn byte(index: usize) -> u8 {
    match (index as u32).wrapping_mul(0x9e37_79b9) >> 22 {
        upto @ 0..100 => [0, 0x7f, 0x80, 0xff][upto as usize % 4],
        other => other as u8,
    }
}

fn of_a(byte: u8, signed: bool) -> i32 {
    if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) }
}

/// Every kernel of the machine, with the lanes of its vectors.
fn kernels() -> impl Iterator<Item = (&'static DotKernel, usize)> {
    Isa::available()
        .into_iter()
        .flat_map(|isa| table(isa).dots().map(move |kernel| (kernel, table(isa).lanes)))
}

#[test]
fn each_instruction_set_has_a_kernel() {
    for isa in Isa::available() {
        assert!(table(isa).dots().all(|kernel| kernel.isa == isa));
        assert!(table(isa).dots().count() > 0);
    }
}

#[test]
fn tiles_of_every_size_give_the_product() {
    let (mut a_memory, mut b_memory, mut c_memory) =
        (Guarded::new(1 << 16), Guarded::new(1 << 16), Guarded::<i32>::new(1 << 16));
    for (kernel, lanes) in kernels() {
        for rows in (1..=kernel.rows).chain([kernel.rows + 1, 2 * kernel.rows + 3]) {
            for cols in 1..=kernel.cols {
                for (depth, a_signed, accumulate) in [
                    (0, false, false),
                    (1, true, false),
                    (5, false, true),
                    (8, true, true),
                    (11, false, false),
                ] {
                    // Rows of `a` as they lie in a matrix, and packed.
                    for a_row in [DOT_TERMS * depth + 3, DOT_TERMS] {
                        let a_depth = if a_row == DOT_TERMS { DOT_TERMS * rows } else { DOT_TERMS };
                        let c_row = cols + 3;
                        let last = |count: usize| count.saturating_sub(1);
                        let a_span = if depth == 0 {
                            0
                        } else {
                            last(rows) * a_row + last(depth) * a_depth + DOT_TERMS
                        };
                        let a = a_memory.last(a_span, byte);
                        let b = b_memory.last(depth * cols * DOT_TERMS, |i| byte(i + 1000).cast_signed());
                        let start = |index: usize| {
                            if index % c_row < cols { byte(index * 7).into() } else { CANARY }
                        };
                        let c = c_memory.last((rows - 1) * c_row + cols, start);
                        let args = DotArgs {
                            rows,
                            cols,
                            depths: Depth::single(depth, a_depth as isize, (cols * DOT_TERMS) as isize),
                            tail: None,
                            a: a.as_ptr(),
                            a_signed,
                            a_row: a_row as isize,
                            b: b.as_ptr(),
                            b_vector: (lanes * DOT_TERMS) as isize,
                            c: c.as_mut_ptr().cast(),
                            c_row: c_row as isize,
                            c_vector: lanes as isize,
                            accumulate,
                            scaled: None,
                        };
                        // SAFETY: the kernel is one of this machine's; the slices span the operands.
                        unsafe { (kernel.run)(&args) };
                        for (index, &got) in c.iter().enumerate() {
                            let (i, j) = (index / c_row, index % c_row);
                            let mut want = if accumulate || j >= cols { start(index) } else { 0 };
                            for (k, q) in (0..depth).flat_map(|k| (0..DOT_TERMS).map(move |q| (k, q))) {
                                if j < cols {
                                    want += of_a(a[i * a_row + k * a_depth + q], a_signed)
                                        * i32::from(b[(k * cols + j) * DOT_TERMS + q]);
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

#[test]
fn levels_of_the_sum_and_vectors_apart_give_the_product() {
    let tails = (0..DEPTHS - 1).flat_map(|level| [1, 3].map(|terms| Some(Tail { level, terms })));
    let tails: Vec<Option<Tail>> = tails.chain([None]).collect();
    for ((kernel, lanes), &tail) in kernels().flat_map(|kernel| tails.iter().map(move |tail| (kernel, tail)))
    {
        let (rows, vectors, counts) = (kernel.rows + 2, kernel.cols / lanes, [2, 3, 2, 5]);
        let terms = counts.iter().product::<usize>();
        let a: Vec<u8> = (0..rows * terms * DOT_TERMS).map(byte).collect();
        let b: Vec<i8> =
            (0..vectors * terms * lanes * DOT_TERMS).map(|i| byte(i + 9).cast_signed()).collect();
        let mut c = vec![CANARY; vectors * rows * lanes];
        let strides: Vec<usize> = (0..DEPTHS).map(|level| counts[level + 1..].iter().product()).collect();
        let args = DotArgs {
            rows,
            cols: vectors * lanes,
            depths: std::array::from_fn(|level| Depth {
                count: counts[level],
                a: (strides[level] * DOT_TERMS) as isize,
                b: (strides[level] * lanes * DOT_TERMS) as isize,
            }),
            tail,
            a: a.as_ptr(),
            a_signed: true,
            a_row: (terms * DOT_TERMS) as isize,
            b: b.as_ptr(),
            b_vector: (terms * lanes * DOT_TERMS) as isize,
            c: c.as_mut_ptr().cast(),
            c_row: lanes as isize,
            c_vector: (rows * lanes) as isize,
            accumulate: false,
            scaled: None,
        };
        // SAFETY: the kernel is one of this machine's; the strides stay in the vectors.
        unsafe { (kernel.run)(&args) };
        let counts_at = |k: &usize| {
            let at = |level: usize| k / strides[level] % counts[level];
            tail.is_none_or(|tail| at(tail.level) + 1 < counts[tail.level] || at(DEPTHS - 1) < tail.terms)
        };
        for (i, j) in (0..rows).flat_map(|i| (0..vectors * lanes).map(move |j| (i, j))) {
            let (vector, lane) = (j / lanes, j % lanes);
            let product = |k: usize| -> i32 {
                let of = |q: usize| {
                    of_a(a[(i * terms + k) * DOT_TERMS + q], true)
                        * i32::from(b[((vector * terms + k) * lanes + lane) * DOT_TERMS + q])
                };
                (0..DOT_TERMS).map(of).sum()
            };
            let want: i32 = (0..terms).filter(counts_at).map(product).sum();
            assert_eq!(c[(vector * rows + i) * lanes + lane], want, "{} at {i}, {j}", kernel.name);
        }
    }
}

#[test]
fn sums_are_scaled_to_bytes() {
    for (kernel, lanes) in kernels() {
        for (rows, cols) in
            (1..kernel.rows + 2).flat_map(|rows| (1..=kernel.cols).map(move |cols| (rows, cols)))
        {
            let depth = 3;
            let a: Vec<u8> = (0..rows * depth * DOT_TERMS).map(byte).collect();
            let b: Vec<i8> = (0..cols * depth * DOT_TERMS).map(|i| byte(i + 77).cast_signed()).collect();
            let start: Vec<i32> = (0..cols).map(|j| 1000 * (j as i32 % 7) - 3000).collect();
            let mut scale: Vec<f32> = (0..cols).map(|j| 0.5 / 64.0 * (1 + j % 5) as f32).collect();
            scale[0] = if rows % 2 == 0 { f32::NAN } else { 0.001 };
            for (single, signed) in [(false, false), (true, false), (false, true), (true, true)] {
                let (zero, low, high) = if signed { (-3.0, -128.0, 127.0) } else { (100.0, 0.0, 255.0) };
                let mut c = vec![0x55u8; rows * (cols + 1)];
                let args = DotArgs {
                    rows,
                    cols,
                    depths: Depth::single(depth, DOT_TERMS as isize, (cols * DOT_TERMS) as isize),
                    tail: None,
                    a: a.as_ptr(),
                    a_signed: signed,
                    a_row: (depth * DOT_TERMS) as isize,
                    b: b.as_ptr(),
                    b_vector: (lanes * DOT_TERMS) as isize,
                    c: c.as_mut_ptr(),
                    c_row: cols as isize + 1,
                    c_vector: lanes as isize,
                    accumulate: false,
                    scaled: Some(Scaled {
                        start: if single { std::ptr::null() } else { start.as_ptr() },
                        start_vector: lanes as isize,
                        scale: scale.as_ptr(),
                        scale_vector: (!single).then_some(lanes as isize),
                        limits: Limits { zero, low, high },
                    }),
                };
                // SAFETY: the kernel is one of this machine's; the strides stay in the vectors.
                unsafe { (kernel.run)(&args) };
                for (index, &got) in c.iter().enumerate() {
                    let (i, j) = (index / (cols + 1), index % (cols + 1));
                    if j == cols {
                        assert_eq!(got, 0x55, "{} behind {i}", kernel.name);
                        continue;
                    }
                    let mut sum = if single { 0 } else { start[j] };
                    for (k, q) in (0..depth).flat_map(|k| (0..DOT_TERMS).map(move |q| (k, q))) {
                        sum += of_a(a[(i * depth + k) * DOT_TERMS + q], signed)
                            * i32::from(b[(k * cols + j) * DOT_TERMS + q]);
                    }
                    let scaled = sum as f32 * scale[if single { 0 } else { j }];
                    let limited = (scaled.round_ties_even() + zero).clamp(low, high);
                    let want = if scaled.is_nan() { 0 } else { limited as i32 as u8 };
                    assert_eq!(got, want, "{} at {i}, {j}, {sum}", kernel.name);
                }
            }
        }
    }
}
