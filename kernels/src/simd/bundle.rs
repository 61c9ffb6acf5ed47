//! Several vectors as one: operations on them do not wait for one another.

use super::Vector;

/// `N` vectors, whose lanes follow one another.
#[derive(Clone, Copy)]
pub(crate) struct Bundle<V, const N: usize>([V; N]);

/// A bundle each of whose vectors is `$value`, over the vectors at the same place of `$operand`s.
macro_rules! each {
    ($self:ident $(, $operand:ident)* => $value:expr) => {{
        let mut result = $self;
        for i in 0..N {
            let $self = $self.0[i];
            $(let $operand = $operand.0[i];)*
            result.0[i] = $value;
        }
        result
    }};
}

/// The methods that do the same to each vector.
macro_rules! by_vector {
    ($($name:ident($($operand:ident),*);)*) => {$(
        #[inline(always)]
        fn $name(self $(, $operand: Self)*) -> Self {
            let this = self;
            each!(this $(, $operand)* => this.$name($($operand),*))
        }
    )*};
}

/// A bundle whose vector at lane `$first` is `$value`.
macro_rules! made {
    ($vector:ty, |$first:ident| $value:expr) => {{
        let mut result = [<$vector>::splat(0.0); N];
        for i in 0..N {
            let $first = i * <$vector>::LANES;
            result[i] = $value;
        }
        Bundle(result)
    }};
}

// SAFETY (of the unsafe functions of this impl): the caller grants the instruction set and the memory of all lanes, of which each
// vector has its own.
impl<V: Vector, const N: usize> Vector for Bundle<V, N> {
    const LANES: usize = N * V::LANES;
    const ACCUMULATORS: usize = V::ACCUMULATORS / N;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as said at the impl.
        Bundle(unsafe { [V::splat(value); N] })
    }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: as said at the impl.
        unsafe { made!(V, |first| V::load(source.add(first))) }
    }
    #[inline(always)]
    unsafe fn load_first(source: *const f32, count: usize) -> Self {
        // SAFETY: as said at the impl; a vector reads no lane from `count` on.
        unsafe {
            made!(V, |first| V::load_first(
                source.wrapping_add(first),
                count.saturating_sub(first).min(V::LANES)
            ))
        }
    }
    #[inline(always)]
    unsafe fn load_between(source: *const f32, from: usize, to: usize) -> Self {
        let own = |lane: usize, first: usize| lane.saturating_sub(first).min(V::LANES);
        // SAFETY: as said at the impl; a vector reads its lanes of the interval.
        unsafe {
            made!(V, |first| V::load_between(source.wrapping_add(first), own(from, first), own(to, first)))
        }
    }
    #[inline(always)]
    unsafe fn gather(source: *const f32, stride: isize, count: usize) -> Self {
        // SAFETY: as said at the impl; a vector reads no lane from `count` on.
        unsafe {
            made!(V, |first| V::gather(
                source.wrapping_offset(first as isize * stride),
                stride,
                count.saturating_sub(first).min(V::LANES)
            ))
        }
    }
    #[inline(always)]
    unsafe fn load_truth(source: *const u8) -> Self {
        // SAFETY: as said at the impl.
        unsafe { made!(V, |first| V::load_truth(source.add(first))) }
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        for i in 0..N {
            // SAFETY: as said at the impl.
            unsafe { self.0[i].store(target.add(i * V::LANES)) };
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, count: usize) {
        for i in 0..N {
            let first = i * V::LANES;
            let own = count.saturating_sub(first).min(V::LANES);
            // SAFETY: as said at the impl; a vector writes no lane from `count` on.
            unsafe { self.0[i].store_first(target.wrapping_add(first), own) };
        }
    }
    #[inline(always)]
    unsafe fn load_f16(source: *const u16) -> Self {
        // SAFETY: as said at the impl.
        unsafe { made!(V, |first| V::load_f16(source.add(first))) }
    }
    #[inline(always)]
    unsafe fn load_f16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: as said at the impl; a vector reads no lane from `count` on.
        unsafe {
            made!(V, |first| V::load_f16_first(
                source.wrapping_add(first),
                count.saturating_sub(first).min(V::LANES)
            ))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        // SAFETY: as said at the impl.
        unsafe { made!(V, |first| V::load_bf16(source.add(first))) }
    }
    #[inline(always)]
    unsafe fn load_bf16_first(source: *const u16, count: usize) -> Self {
        // SAFETY: as said at the impl; a vector reads no lane from `count` on.
        unsafe {
            made!(V, |first| V::load_bf16_first(
                source.wrapping_add(first),
                count.saturating_sub(first).min(V::LANES)
            ))
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, target: *mut u16) {
        for i in 0..N {
            // SAFETY: as said at the impl.
            unsafe { self.0[i].store_f16(target.add(i * V::LANES)) };
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, target: *mut u8, count: usize) {
        for i in 0..N {
            let first = i * V::LANES;
            let own = count.saturating_sub(first).min(V::LANES);
            if own > 0 {
                // SAFETY: as said at the impl.
                unsafe { self.0[i].store_bytes(target.add(first), own) };
            }
        }
    }

    #[inline(always)]
    fn like(self, value: f32) -> Self {
        Bundle([self.0[0].like(value); N])
    }
    by_vector! {
        add(other);
        sub(other);
        mul(other);
        div(other);
        mul_add(factor, addend);
        sqrt();
        floor();
        ceil();
        round();
        scale(n);
        lesser_or(other);
        greater_or(other);
        less(other);
        equal(other);
        is_nan();
        with_nan_of(a, b);
        select(yes, no);
        and(other);
        or(other);
        xor(other);
        add_bits(other);
        integer_to_float();
    }
    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        let this = self;
        each!(this => this.shift_left::<BITS>())
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        let this = self;
        each!(this => this.shift_right::<BITS>())
    }

    #[inline(always)]
    fn deinterleave(self, next: Self) -> (Self, Self) {
        // Vectors `2 i` and `2 i + 1` of both together give vector `i` of the results.
        let (mut even, mut odd) = (self, self);
        for i in 0..N {
            let (first, second) = (2 * i, 2 * i + 1);
            let first = if first < N { self.0[first] } else { next.0[first - N] };
            let second = if second < N { self.0[second] } else { next.0[second - N] };
            (even.0[i], odd.0[i]) = first.deinterleave(second);
        }
        (even, odd)
    }
    #[inline(always)]
    fn fold(self, combine: impl Fn(f32, f32) -> f32) -> f32 {
        let mut total = self.0[0].fold(&combine);
        for i in 1..N {
            total = combine(total, self.0[i].fold(&combine));
        }
        total
    }
}
