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
    (slanted, stream): (bool, bool),
) {
    let [outers, rows, cols] = extents;
    let [height, width] = plane;
    let slant = i64::from(slanted);
    let (mut memory, mut results) = (Guarded::new(1 << 14), Guarded::new(1 << 14));
    let source = &*memory.last(outers * height * width, |i| i as f32 + 1.0);
    let pitch = cols + 3;
    // Whole rows, where a vector of each is to be aligned.
    let behind = if stream { 0 } else { 3 };
    let target = results.last(outers * rows * pitch - behind, |_| 77.5);
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
        stream,
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
                    for extents in [[1, 1, 1], [2, 4, 4], [3, 5, 9], [1, 3, 33], [2, 2, 16], [2, 4, 29]] {
                        for form in [(false, false), (true, false), (false, true), (true, true)] {
                            padded(isa, extents, plane, stride, offset, form);
                        }
                    }
                }
            }
        }
    }
}

/// Transposes planes of `cols x rows` into `rows x pitch`, of which the rows `inside` and the first `across` columns are given.
fn transposed(isa: Isa, [rows, cols, pitch]: [usize; 3], inside: [usize; 2], across: usize, stream: bool) {
    let outers = 2;
    let (mut memory, mut results) = (Guarded::new(1 << 14), Guarded::new(1 << 14));
    let source = &*memory.last(outers * cols * rows, |i| i as f32 + 1.0);
    let target = results.last(outers * rows * pitch - (pitch - cols), |_| 77.5);
    let [from, to] = inside.map(|row| row as i64);
    let limits = [
        Limit { start: -from, strides: [0, 1, 0], end: to - from },
        Limit { start: across as i64 - 1, strides: [0, 0, -1], end: 1 << 48 },
    ];
    let args = CopyArgs {
        target: target.as_mut_ptr(),
        target_strides: [(rows * pitch) as isize, pitch as isize],
        source: source.as_ptr(),
        source_strides: [(rows * cols) as isize, 1, rows as isize],
        extents: [outers, rows, cols],
        limits: &limits,
        stream,
    };
    // SAFETY: the slices are as large as the extents.
    unsafe { (table(isa).raw.copy_planes)(&args) };
    for (at, &got) in target.iter().enumerate() {
        let (o, r, c) = (at / (rows * pitch), at / pitch % rows, at % pitch);
        let want = match (c < cols, (inside[0]..inside[1]).contains(&r) && c < across) {
            (false, _) => 77.5,
            (true, false) => 0.0,
            (true, true) => source[o * rows * cols + c * rows + r],
        };
        assert_eq!(got, want, "{isa} {o}, {r}, {c} of {rows} x {cols} by {pitch}, {inside:?} x {across}");
    }
}

#[test]
fn transposes_with_borders() {
    for isa in Isa::available() {
        for (cols, across) in [(21, 19), (12, 12), (12, 9), (6, 6), (28, 28), (28, 26), (3, 3), (16, 16)] {
            for pitch in [cols, cols + 3] {
                for rows in [16, 17, 37] {
                    for inside in [[0, rows], [3, rows], [3, rows - 1], [5, 5]] {
                        for stream in [false, true] {
                            transposed(isa, [rows, cols, pitch], inside, across, stream);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn copies_runs_in_the_order_of_the_source() {
    let [outers, rows, cols] = [3, 5, 32];
    let mut results = Guarded::new(1 << 14);
    for (isa, stream) in Isa::available().into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
        for source_strides in [[160, 32, 1], [32, 96, 1], [0, 32, 1], [-160, 32, 1]] {
            let source: Vec<f32> = (0..outers * rows * cols).map(|i| i as f32 + 1.0).collect();
            let target = results.last(outers * rows * cols, |_| 77.5);
            let first = if source_strides[0] < 0 { (outers - 1) * 160 } else { 0 };
            let args = CopyArgs {
                target: target.as_mut_ptr(),
                target_strides: [(rows * cols) as isize, cols as isize],
                source: source[first..].as_ptr(),
                source_strides,
                extents: [outers, rows, cols],
                limits: &[],
                stream,
            };
            // SAFETY: the strides stay in the vectors.
            unsafe { (table(isa).raw.copy_planes)(&args) };
            for (at, &got) in target.iter().enumerate() {
                let index = [at / (rows * cols), at / cols % rows, at % cols];
                let offset: isize =
                    index.iter().zip(source_strides).map(|(&at, stride)| at as isize * stride).sum();
                assert_eq!(
                    got,
                    source[first.wrapping_add_signed(offset)],
                    "{isa} {index:?} {source_strides:?}"
                );
            }
        }
    }
}

#[test]
fn channels_of_bytes_are_interleaved() {
    let (mut memory, mut results) = (Guarded::new(1 << 12), Guarded::new(1 << 12));
    for isa in Isa::available() {
        for channels in [4, 8, 16] {
            for (places, more) in
                [0, 1, 15, 16, 17, 40].into_iter().flat_map(|places| [(places, 0), (places, 4)])
            {
                let pitch = channels + more;
                let source: &[u8] = memory.last(places * channels, |i| (i * 37 % 255) as u8);
                let target: &mut [u8] = results.last((places * pitch).saturating_sub(more), |_| 255);
                let (to, from) = ((target.as_mut_ptr(), pitch as isize), (source.as_ptr(), places as isize));
                // SAFETY: the slices span the places and channels.
                unsafe { (table(isa).raw.interleave_bytes)(to, from, (places, channels)) };
                for (at, &got) in target.iter().enumerate() {
                    let (place, channel) = (at / pitch, at % pitch);
                    let want = if channel < channels { source[channel * places + place] } else { 255 };
                    assert_eq!(got, want, "{isa} {place}, {channel} of {places} x {channels}");
                }
            }
        }
    }
}
