use super::{CopyArgs, Limit};
use crate::guard::Guarded;
use crate::isa::Isa;
use crate::table;

/// Copies `extents` out of a plane of `height x width` with a border of zeros around it, in steps of `stride`, as a convolution's
/// window at row `up` and column `left` of the border sees it.
fn padded(
    isa: Isa,
    extents: [usize; 3],
    plane: [usize; 2],
    stride: [usize; 2],
    offset: [i64; 2],
    slanted: bool,
) {
    let [outers, rows, cols] = extents;
    let [height, width] = plane;
    let slant = i64::from(slanted);
    let (mut memory, mut results) = (Guarded::new(1 << 14), Guarded::new(1 << 14));
    let source = &*memory.last(outers * height * width, |i| i as f32 + 1.0);
    let pitch = cols + 3;
    let target = results.last(outers * rows * pitch - 3, |_| 77.5);
    let row = |r: usize| r as i64 * stride[0] as i64 - offset[0];
    let col = |r: usize, c: usize| c as i64 * stride[1] as i64 - offset[1] + slant * r as i64;
    let limits = [
        Limit { start: -offset[0], strides: [0, stride[0] as i64, 0], end: height as i64 },
        Limit { start: -offset[1], strides: [0, slant, stride[1] as i64], end: 1 << 48 },
        Limit {
            start: width as i64 - 1 + offset[1],
            strides: [0, -slant, -(stride[1] as i64)],
            end: 1 << 48,
        },
    ];
    let first = -(offset[0] as isize * width as isize) - offset[1] as isize;
    let args = CopyArgs {
        target: target.as_mut_ptr(),
        target_strides: [(rows * pitch) as isize, pitch as isize],
        source: source.as_ptr().wrapping_offset(first),
        source_strides: [
            (height * width) as isize,
            (stride[0] * width) as isize + slant as isize,
            stride[1] as isize,
        ],
        extents,
        limits: &limits,
    };
    // SAFETY: the slices span what the arguments name under the limits.
    unsafe { (table(isa).raw.copy_planes)(&args) };
    for (at, &got) in target.iter().enumerate() {
        let (o, r, c) = (at / (rows * pitch), at / pitch % rows, at % pitch);
        let (y, x) = (row(r), col(r, c));
        let inside = 0 <= y && y < height as i64 && 0 <= x && x < width as i64;
        let want = match (c < cols, inside) {
            (false, _) => 77.5,
            (true, false) => 0.0,
            (true, true) => source[o * height * width + y as usize * width + x as usize],
        };
        assert_eq!(got, want, "{isa} {o}, {r}, {c} of {extents:?} of {plane:?} by {stride:?} at {offset:?}");
    }
}

#[test]
fn copies_what_is_inside_and_zeros() {
    for isa in Isa::available() {
        for plane in [[1, 1], [4, 4], [3, 7], [9, 16], [5, 40]] {
            for stride in [[1, 1], [2, 2], [1, 3]] {
                for offset in [[0, 0], [1, 1], [2, 0], [0, 3], [-1, -1], [60, 60]] {
                    for extents in [[1, 1, 1], [2, 4, 4], [3, 5, 9], [1, 3, 33], [2, 2, 16]] {
                        padded(isa, extents, plane, stride, offset, false);
                        padded(isa, extents, plane, stride, offset, true);
                    }
                }
            }
        }
    }
}

#[test]
fn transposes_with_borders() {
    let [outers, rows, cols] = [2, 37, 21];
    for isa in Isa::available() {
        for (from, to) in [(0, 37), (3, 30), (20, 20)] {
            let source: Vec<f32> = (0..outers * cols * rows).map(|i| i as f32 + 1.0).collect();
            let mut target = vec![77.5; outers * rows * cols];
            let limits = [
                Limit { start: -from, strides: [0, 1, 0], end: to - from },
                Limit { start: 18, strides: [0, 0, -1], end: 1 << 48 },
            ];
            let args = CopyArgs {
                target: target.as_mut_ptr(),
                target_strides: [(rows * cols) as isize, cols as isize],
                source: source.as_ptr(),
                source_strides: [(rows * cols) as isize, 1, rows as isize],
                extents: [outers, rows, cols],
                limits: &limits,
            };
            // SAFETY: the vectors are as large as the extents.
            unsafe { (table(isa).raw.copy_planes)(&args) };
            for (at, &got) in target.iter().enumerate() {
                let (o, r, c) = (at / (rows * cols), at / cols % rows, at % cols);
                let inside = (from..to).contains(&(r as i64)) && c <= 18;
                let want = if inside { source[o * rows * cols + c * rows + r] } else { 0.0 };
                assert_eq!(got, want, "{isa} {o}, {r}, {c}");
            }
        }
    }
}
