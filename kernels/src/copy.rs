//! Copies between planes of different pitches, with zeros where the source ends: padding, packing and im2col.

#[cfg(all(test, unix))]
mod tests;

/// `0 <= start + strides . (outer, row, column) < end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) start: i64,
    pub(crate) strides: [i64; 3],
    pub(crate) end: i64,
}

/// `target[o, r, c] = source[o, r, c]` where all limits hold, and 0 elsewhere. Strides count elements; the columns of the
/// target are contiguous. The source may lie at any address, aligned or not.
///
/// Every element of the target is written, and must be valid for that; the source is read only where all limits hold, must be
/// valid for reads there, and lies outside of the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyArgs<'a> {
    pub(crate) target: *mut f32,
    /// Over the outer dimension and the rows.
    pub(crate) target_strides: [isize; 2],
    pub(crate) source: *const f32,
    pub(crate) source_strides: [isize; 3],
    /// Outer dimension, rows, columns.
    pub(crate) extents: [usize; 3],
    pub(crate) limits: &'a [Limit],
    /// Whether whole vectors of the target are better written past the caches, where they are aligned.
    pub(crate) stream: bool,
}

/// Channels that [`body::interleave_bytes`] does together.
pub(crate) const CHANNELS: usize = 4;

/// The loops. Each is unsafe for the same reason: the caller grants the instruction set of `V` and the contract of [`CopyArgs`].
pub(crate) mod body {
    use super::{CHANNELS, CopyArgs, Limit};
    use crate::simd::bytes::Bytes;
    use crate::simd::{MOST_LANES, Vector};

    /// How many steps of the outer loop ahead the source is asked for: its rows may be too far apart for the processor to foresee.
    const AHEAD: isize = 8;

    /// An interval of indices, empty where `from == to`.
    #[derive(Clone, Copy)]
    struct Interval {
        from: usize,
        to: usize,
    }

    impl Interval {
        /// The indices `i` of the interval with `0 <= start + stride * i < end`.
        #[inline(always)]
        fn narrowed(self, start: i64, stride: i64, end: i64) -> Interval {
            let (low, high) = match stride {
                0 if 0 <= start && start < end => return self,
                0 => (0, 0),
                1 => (-start, end.saturating_sub(start)),
                2.. => (ceiling(-start, stride), ceiling(end.saturating_sub(start), stride)),
                _ => (start.saturating_sub(end).div_euclid(-stride) + 1, start.div_euclid(-stride) + 1),
            };
            let from = low.clamp(self.from as i64, self.to as i64);
            Interval { from: from as usize, to: high.clamp(from, self.to as i64) as usize }
        }
    }

    fn ceiling(value: i64, divisor: i64) -> i64 {
        -(-value).div_euclid(divisor)
    }

    /// Planes of bytes to places with their channels next to one another: `target[p * pitch + c] = source[c * plane + p]` for places `p`
    /// and channels `c`, which are a multiple of [`CHANNELS`].
    ///
    /// # Safety
    /// The elements of the source are valid for reads, those of the target for writes, and the one is apart from the other.
    #[expect(
        clippy::needless_range_loop,
        reason = "iterator calls taking vectors may stay calls without their features"
    )]
    #[inline(always)]
    pub(crate) unsafe fn interleave_bytes<V: Vector>(
        (target, pitch): (*mut u8, isize),
        (source, plane): (*const u8, isize),
        (places, channels): (usize, usize),
    ) {
        const PLACES: usize = 16;
        for first in (0..channels).step_by(CHANNELS) {
            let target = target.wrapping_add(first);
            let source = source.wrapping_offset(first as isize * plane);
            let mut place = 0;
            while place + PLACES <= places {
                // SAFETY: the caller grants these channels of so many places.
                unsafe {
                    let mut channels = [Bytes::splat(0); CHANNELS];
                    for c in 0..CHANNELS {
                        let source = source.wrapping_offset(c as isize * plane).add(place);
                        channels[c] = Bytes::load::<PLACES>(source);
                    }
                    let quarters = Bytes::interleaved(channels);
                    let target = target.wrapping_offset(place as isize * pitch);
                    for quarter in 0..CHANNELS {
                        let target = target.wrapping_offset(4 * quarter as isize * pitch);
                        if pitch == CHANNELS as isize {
                            quarters[quarter].store::<PLACES>(target);
                            continue;
                        }
                        let mut units = [[0u8; CHANNELS]; 4];
                        quarters[quarter].store::<PLACES>(units.as_mut_ptr().cast());
                        for (at, unit) in units.into_iter().enumerate() {
                            target
                                .wrapping_offset(at as isize * pitch)
                                .cast::<[u8; CHANNELS]>()
                                .write_unaligned(unit);
                        }
                    }
                }
                place += PLACES;
            }
            for place in place..places {
                for c in 0..CHANNELS {
                    // SAFETY: the caller grants this element.
                    unsafe {
                        let element = *source.wrapping_offset(c as isize * plane).add(place);
                        *target.wrapping_offset(place as isize * pitch).add(c) = element;
                    }
                }
            }
        }
    }

    /// Copies a block as [`CopyArgs`] says.
    #[inline(always)]
    pub(crate) unsafe fn copy_planes<V: Vector>(args: &CopyArgs<'_>) {
        let lanes = V::LANES as isize;
        let aligned = args.target.addr().is_multiple_of(size_of::<f32>() * V::LANES)
            && args.target_strides.iter().all(|stride| stride % lanes == 0);
        if args.stream && aligned {
            // SAFETY: the caller grants the contract, and whole vectors of the target are aligned.
            unsafe { copy::<V, true>(args) };
            V::settle();
        } else {
            // SAFETY: the caller grants the contract.
            unsafe { copy::<V, false>(args) };
        }
    }

    /// The same; with `STREAM`, vectors of the target from its start on are aligned.
    #[inline(always)]
    unsafe fn copy<V: Vector, const STREAM: bool>(args: &CopyArgs<'_>) {
        let CopyArgs { target, target_strides, source, source_strides, extents, limits, stream: _ } = *args;
        if limits.is_empty() && source_strides[2] == 1 {
            // SAFETY: the caller grants the contract.
            return unsafe { runs::<V, STREAM>((target, target_strides), (source, source_strides), extents) };
        }
        let [outers, rows, cols] = extents;
        for outer in 0..outers {
            let starts_at = |limit: &Limit| limit.start + limit.strides[0] * outer as i64;
            let (mut inside, mut across) = (Interval { from: 0, to: rows }, Interval { from: 0, to: cols });
            let mut slanted = false;
            for limit in limits {
                match limit.strides {
                    [_, 0, stride] => across = across.narrowed(starts_at(limit), stride, limit.end),
                    [_, stride, 0] => inside = inside.narrowed(starts_at(limit), stride, limit.end),
                    _ => slanted = true,
                }
            }
            let target = target.wrapping_offset(outer as isize * target_strides[0]);
            let source = source.wrapping_offset(outer as isize * source_strides[0]);
            if source_strides[1] == 1 && !matches!(source_strides[2], 1 | 2) && !slanted {
                // SAFETY: the caller grants the rows and columns of the target, and those inside of the source.
                unsafe {
                    let (target, source) = ((target, target_strides[1]), (source, source_strides[2]));
                    if STREAM && across.from.is_multiple_of(V::LANES) {
                        transposed::<V, true>(target, source, [rows, cols], [inside, across]);
                    } else {
                        transposed::<V, false>(target, source, [rows, cols], [inside, across]);
                    }
                }
                continue;
            }
            for row in 0..rows {
                let target = target.wrapping_offset(row as isize * target_strides[1]);
                let source = source.wrapping_offset(row as isize * source_strides[1]);
                let mut across = across;
                if row < inside.from || row >= inside.to {
                    across = Interval { from: 0, to: 0 };
                } else if slanted {
                    for limit in limits.iter().filter(|limit| limit.strides[1] != 0 && limit.strides[2] != 0)
                    {
                        let start = starts_at(limit) + limit.strides[1] * row as i64;
                        across = across.narrowed(start, limit.strides[2], limit.end);
                    }
                }
                // SAFETY: the caller grants the row of the target, and of the source the columns in the interval.
                unsafe {
                    match source_strides[2] {
                        1 => adjacent::<V, STREAM>(target, source, across, cols),
                        2 => alternate::<V>(target, source, across, cols),
                        stride => apart::<V>(target, (source, stride), across, cols),
                    }
                }
            }
        }
    }

    /// Writes a vector, which is aligned if it is to be streamed.
    #[inline(always)]
    unsafe fn put<V: Vector, const STREAM: bool>(value: V, target: *mut f32) {
        // SAFETY: the caller grants the elements and, where it asks for that, their alignment.
        unsafe {
            if STREAM {
                value.stream(target);
            } else {
                value.store(target);
            }
        }
    }

    /// Rows whose source is contiguous and whole, in the order in which the source lies in memory.
    #[inline(always)]
    unsafe fn runs<V: Vector, const STREAM: bool>(
        (target, target_strides): (*mut f32, [isize; 2]),
        (source, source_strides): (*const f32, [isize; 3]),
        extents: [usize; 3],
    ) {
        let cols = extents[2];
        let rows_outside = extents[0] == 1 || source_strides[0] < source_strides[1];
        let [outer, inner] = if rows_outside { [1, 0] } else { [0, 1] };
        let ahead = source_strides[outer].wrapping_mul(AHEAD);
        for o in 0..extents[outer] as isize {
            for i in 0..extents[inner] as isize {
                let target = target.wrapping_offset(o * target_strides[outer] + i * target_strides[inner]);
                let source = source.wrapping_offset(o * source_strides[outer] + i * source_strides[inner]);
                // SAFETY: the caller grants the columns of the row.
                unsafe {
                    let mut at = 0;
                    while at + V::LANES <= cols {
                        V::prefetch(source.wrapping_add(at).wrapping_offset(ahead));
                        put::<V, STREAM>(V::load(source.add(at)), target.add(at));
                        at += V::LANES;
                    }
                    if at < cols {
                        let rest = cols - at;
                        V::prefetch(source.wrapping_add(at).wrapping_offset(ahead));
                        V::load_between(source.add(at), 0, rest).store_first(target.add(at), rest);
                    }
                }
            }
        }
    }

    /// A row whose source is contiguous.
    #[inline(always)]
    unsafe fn adjacent<V: Vector, const STREAM: bool>(
        target: *mut f32,
        source: *const f32,
        across: Interval,
        cols: usize,
    ) {
        let mut at = 0;
        // SAFETY: lanes below `cols` are written, and those of the interval read.
        unsafe {
            while at < cols {
                let lanes = V::LANES.min(cols - at);
                let [from, to] = [across.from, across.to].map(|edge| edge.saturating_sub(at).min(lanes));
                let source = source.wrapping_add(at);
                if lanes == V::LANES {
                    let whole = from == 0 && to == lanes;
                    let value = if whole { V::load(source) } else { V::load_between(source, from, to) };
                    put::<V, STREAM>(value, target.add(at));
                } else {
                    V::load_between(source, from, to).store_first(target.add(at), lanes);
                }
                at += lanes;
            }
        }
    }

    /// A row of every other element.
    #[inline(always)]
    unsafe fn alternate<V: Vector>(target: *mut f32, source: *const f32, across: Interval, cols: usize) {
        let mut at = 0;
        while at < cols {
            let lanes = V::LANES.min(cols - at);
            let [from, to] = [across.from, across.to].map(|edge| edge.saturating_sub(at).min(lanes));
            // The elements from the first lane's to the last's; none where no lane is in the interval.
            let [from, to] = if from < to { [2 * from, 2 * to - 1] } else { [0, 0] };
            let source = source.wrapping_add(2 * at);
            // SAFETY: lanes below `cols` are written, and elements between those of the interval's lanes read.
            unsafe {
                let low = V::load_between(source, from.min(V::LANES), to.min(V::LANES));
                let behind = [from, to].map(|edge| edge.saturating_sub(V::LANES));
                let high = V::load_between(source.wrapping_add(V::LANES), behind[0], behind[1]);
                low.deinterleave(high).0.store_first(target.add(at), lanes);
            }
            at += lanes;
        }
    }

    /// A row of elements in other steps.
    #[inline(always)]
    unsafe fn apart<V: Vector>(
        target: *mut f32,
        (source, stride): (*const f32, isize),
        across: Interval,
        cols: usize,
    ) {
        // SAFETY: the caller grants the columns of the target and, in the interval, of the source.
        unsafe {
            zero::<V>(target, across.from);
            for col in across.from..across.to {
                *target.add(col) = source.wrapping_offset(col as isize * stride).read_unaligned();
            }
            zero::<V>(target.add(across.to), cols - across.to);
        }
    }

    /// Rows of which the source's are columns: by lines of the source, so that each comes into the cache once.
    #[inline(always)]
    unsafe fn transposed<V: Vector, const STREAM: bool>(
        (target, pitch): (*mut f32, isize),
        (source, stride): (*const f32, isize),
        [rows, cols]: [usize; 2],
        [inside, across]: [Interval; 2],
    ) {
        const LINE: usize = 16;
        // SAFETY: the caller grants the rows and columns of the target, and those of the intervals of the source.
        unsafe {
            if inside.to - inside.from < rows || across.to - across.from < cols {
                for row in 0..rows {
                    zero::<V>(target.wrapping_offset(row as isize * pitch), cols);
                }
            }
            let whole = |from: usize, to: usize| to - (to - from) % V::LANES;
            // Columns that fill half a tile make one too.
            let rest = (across.to - across.from) % V::LANES;
            let tiled_cols = if 2 * rest >= V::LANES { across.to } else { across.to - rest };
            let mut first = inside.from;
            while first < inside.to {
                let behind = inside.to.min(first + LINE);
                let tiled_rows = whole(first, behind);
                // The last columns come first, whose lanes behind are zeros, for elements that are zero or still to come.
                for col in (across.from..tiled_cols).step_by(V::LANES).rev() {
                    let lanes = V::LANES.min(across.to - col);
                    let rows_of_lanes = (col + V::LANES).div_ceil(cols);
                    let unmasked = if lanes == V::LANES {
                        rows
                    } else if pitch == cols as isize {
                        (rows + 1).saturating_sub(rows_of_lanes)
                    } else {
                        0
                    };
                    for row in (first..tiled_rows).step_by(V::LANES) {
                        let target = target.wrapping_offset(row as isize * pitch).wrapping_add(col);
                        let source = source.wrapping_offset(col as isize * stride).wrapping_add(row);
                        let unmasked = unmasked.saturating_sub(row).min(V::LANES);
                        tile::<V, STREAM>((target, pitch), (source, stride), lanes, unmasked);
                    }
                }
                for col in across.from..across.to {
                    let source = source.wrapping_offset(col as isize * stride);
                    let target = target.wrapping_add(col);
                    for row in if col < tiled_cols { tiled_rows } else { first }..behind {
                        *target.wrapping_offset(row as isize * pitch) =
                            source.wrapping_add(row).read_unaligned();
                    }
                }
                first = behind;
            }
        }
    }

    /// As many rows and columns as a vector has lanes, transposed in registers: of an element's place among all, the bits that
    /// say its column become those of its row, one with each round. The source has the first `lanes` of the columns. The first `unmasked`
    /// rows may be written with zeros for the others, the rest may not.
    #[expect(
        clippy::needless_range_loop,
        reason = "iterator calls taking vectors may stay calls without their features"
    )]
    #[inline(always)]
    unsafe fn tile<V: Vector, const STREAM: bool>(
        (target, pitch): (*mut f32, isize),
        (source, stride): (*const f32, isize),
        lanes: usize,
        unmasked: usize,
    ) {
        // SAFETY: the caller grants `LANES` rows of the source's `lanes` columns, of the target with as many, and of all `LANES` of the
        // target in the first `unmasked` rows.
        unsafe {
            let mut tile = [V::splat(0.0); MOST_LANES];
            for col in 0..V::LANES {
                if col < lanes {
                    tile[col] = V::load(source.wrapping_offset(col as isize * stride));
                }
            }
            let mut round = 1;
            while round < V::LANES {
                let before = tile;
                for pair in 0..V::LANES / 2 {
                    let (even, odd) = before[2 * pair].deinterleave(before[2 * pair + 1]);
                    (tile[pair], tile[pair + V::LANES / 2]) = (even, odd);
                }
                round *= 2;
            }
            for row in 0..V::LANES {
                let target = target.wrapping_offset(row as isize * pitch);
                if row < unmasked {
                    put::<V, STREAM>(tile[row], target);
                } else {
                    tile[row].store_first(target, lanes);
                }
            }
        }
    }

    /// Zeros.
    #[inline(always)]
    unsafe fn zero<V: Vector>(target: *mut f32, count: usize) {
        let mut at = 0;
        while at < count {
            let lanes = V::LANES.min(count - at);
            // SAFETY: the caller grants `count` elements.
            unsafe { V::splat(0.0).store_first(target.add(at), lanes) };
            at += lanes;
        }
    }
}
