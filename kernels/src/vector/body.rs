//! The loops behind the vector operations, written once for every instruction set.
//!
//! Each function is unsafe for the same reason: the caller grants the instruction set of `V`, and pointers valid for
//! `count` elements (one element where an operand is a scalar). A target may be the very address of an operand, and
//! overlaps no operand otherwise.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

use half::{bf16, f16};

use super::math;
use crate::scalar::{BinaryOp, Comparison, UnaryOp};
use crate::simd::Vector;
use crate::simd::bundle::Bundle;

/// Vectors of elementary functions that are computed at once.
pub(crate) const IN_FLIGHT: usize = 2;

/// Which operands of a binary operation are single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Both are arrays.
    Arrays,
    /// The right one is a single value.
    ScalarRight,
    /// The left one is a single value.
    ScalarLeft,
}

/// `target[l] = value` for every lane, where `value` is computed from a vector of each source. A macro, since a closure
/// might stay a call without the instruction set's features.
macro_rules! lanewise {
    ($vector:ty, $target:expr, $count:expr, |$($argument:ident = $source:tt),*| $value:expr) => {
        lanewise!($vector, $target, $count, |$($argument = $source, false),*| $value)
    };
    ($vector:ty, $target:expr, $count:expr, |$($argument:ident = $source:tt, $scalar:tt),*| $value:expr) => {{
        let (target, count): (*mut f32, usize) = ($target, $count);
        $(let $argument: *const f32 = $source;)*
        let mut at = 0;
        // SAFETY: `at + LANES <= count` in the loop and `at + rest == count` behind it, so the accesses are within the
        // `count` elements the caller grants.
        unsafe {
            while at + <$vector>::LANES <= count {
                $(let $argument = if $scalar {
                    <$vector>::splat(*$argument)
                } else {
                    <$vector>::load($argument.add(at))
                };)*
                $value.store(target.add(at));
                at += <$vector>::LANES;
            }
            if at < count {
                let rest = count - at;
                $(let $argument = if $scalar {
                    <$vector>::splat(*$argument)
                } else {
                    <$vector>::load_first($argument.add(at), rest)
                };)*
                $value.store_first(target.add(at), rest);
            }
        }
    }};
}

/// `target[l] = value` as [`lanewise`], several vectors at once, so that none waits for itself.
macro_rules! overlapped {
    ($vector:ty, $target:expr, $count:expr, |$x:ident = $source:ident| $value:expr) => {{
        let (target, source, count): (*mut f32, *const f32, usize) = ($target, $source, $count);
        let whole = count - count % <Bundle<$vector, IN_FLIGHT>>::LANES;
        lanewise!(Bundle<$vector, IN_FLIGHT>, target, whole, |$x = source| $value);
        // SAFETY: `whole <= count`.
        let (target, source) = unsafe { (target.add(whole), source.add(whole)) };
        lanewise!($vector, target, count - whole, |$x = source| $value);
    }};
}

/// `target[i] = op(source[i])`, a bool being 0 or 1.
#[inline(always)]
pub(crate) unsafe fn unary<V: Vector>(op: UnaryOp, target: *mut f32, source: *const f32, count: usize) {
    match op {
        UnaryOp::Neg => lanewise!(V, target, count, |x = source| math::neg(x)),
        UnaryOp::Abs => lanewise!(V, target, count, |x = source| math::abs(x)),
        UnaryOp::Sign => lanewise!(V, target, count, |x = source| math::sign(x)),
        UnaryOp::Floor => lanewise!(V, target, count, |x = source| x.floor()),
        UnaryOp::Ceil => lanewise!(V, target, count, |x = source| x.ceil()),
        UnaryOp::Round => lanewise!(V, target, count, |x = source| x.round()),
        UnaryOp::Sqrt => lanewise!(V, target, count, |x = source| x.sqrt()),
        UnaryOp::Exp => overlapped!(V, target, count, |x = source| math::exp(x)),
        UnaryOp::Log => overlapped!(V, target, count, |x = source| math::log(x)),
        UnaryOp::Log1p => overlapped!(V, target, count, |x = source| math::log1p(x)),
        UnaryOp::Tanh => overlapped!(V, target, count, |x = source| math::tanh(x)),
        UnaryOp::Erf => overlapped!(V, target, count, |x = source| math::erf(x)),
        UnaryOp::Sigmoid => overlapped!(V, target, count, |x = source| math::sigmoid(x)),
        UnaryOp::Sin | UnaryOp::Cos => {
            // SAFETY: the caller grants the contract.
            unsafe { circular::<V>(op, target, source, count) }
        }
        UnaryOp::Tan
        | UnaryOp::Asin
        | UnaryOp::Acos
        | UnaryOp::Atan
        | UnaryOp::Sinh
        | UnaryOp::Cosh
        | UnaryOp::Asinh
        | UnaryOp::Acosh
        | UnaryOp::Atanh
        | UnaryOp::Not
        | UnaryOp::IsNan
        | UnaryOp::IsInf => {
            // SAFETY: the caller grants `count` elements.
            unsafe { unary_scalars(op, target, source, count) }
        }
    }
}

/// `target[i] = op(source[i])` one by one, in double precision.
unsafe fn unary_scalars(op: UnaryOp, target: *mut f32, source: *const f32, count: usize) {
    for i in 0..count {
        // SAFETY: the caller grants `count` elements.
        unsafe { *target.add(i) = op.eval_f64(f64::from(*source.add(i))) as f32 };
    }
}

/// Sine or cosine: in vectors, or one by one in blocks with an argument too large for them.
#[inline(always)]
unsafe fn circular<V: Vector>(op: UnaryOp, target: *mut f32, source: *const f32, count: usize) {
    const BLOCK: usize = 64;
    let mut at = 0;
    while at < count {
        let length = BLOCK.min(count - at);
        // SAFETY: `at + length <= count`.
        let (target, source) = unsafe { (target.add(at), source.add(at)) };
        let mut largest = 0.0f32;
        for i in 0..length {
            // SAFETY: `i < length`.
            let magnitude = unsafe { *source.add(i) }.abs();
            largest = if magnitude > largest { magnitude } else { largest };
        }
        if largest > math::CIRCULAR_LIMIT {
            // SAFETY: `length` elements are granted.
            unsafe { unary_scalars(op, target, source, length) };
        } else if op == UnaryOp::Sin {
            overlapped!(V, target, length, |x = source| math::sin(x));
        } else {
            overlapped!(V, target, length, |x = source| math::cos(x));
        }
        at += length;
    }
}

/// `target[i] = op(left[i], right[i])`, a bool being 0 or 1.
#[inline(always)]
pub(crate) unsafe fn binary<V: Vector>(
    op: BinaryOp,
    form: Form,
    target: *mut f32,
    left: *const f32,
    right: *const f32,
    count: usize,
) {
    // SAFETY: the caller grants the contract.
    unsafe {
        match form {
            Form::Arrays => binary_form::<V, false, false>(op, target, left, right, count),
            Form::ScalarRight => binary_form::<V, false, true>(op, target, left, right, count),
            Form::ScalarLeft => binary_form::<V, true, false>(op, target, left, right, count),
        }
    }
}

#[inline(always)]
unsafe fn binary_form<V: Vector, const LEFT: bool, const RIGHT: bool>(
    op: BinaryOp,
    target: *mut f32,
    left: *const f32,
    right: *const f32,
    count: usize,
) {
    macro_rules! loops {
        (|$a:ident, $b:ident| $value:expr) => {
            lanewise!(V, target, count, |$a = left, LEFT, $b = right, RIGHT| $value)
        };
    }
    match op {
        BinaryOp::Add => loops!(|a, b| a.add(b)),
        BinaryOp::Sub => loops!(|a, b| a.sub(b)),
        BinaryOp::Mul => loops!(|a, b| a.mul(b)),
        BinaryOp::Div => loops!(|a, b| a.div(b)),
        BinaryOp::Min => loops!(|a, b| math::min(a, b)),
        BinaryOp::Max => loops!(|a, b| math::max(a, b)),
        // SAFETY: the caller grants one element at the least of both operands, or `count` is 0.
        BinaryOp::Pow if RIGHT && count > 0 && unsafe { *right } == 2.0 => {
            lanewise!(V, target, count, |a = left| a.mul(a))
        }
        // SAFETY: as above.
        BinaryOp::Pow if RIGHT && count > 0 && unsafe { *right } == 3.0 => {
            lanewise!(V, target, count, |a = left| a.mul(a).mul(a))
        }
        BinaryOp::FloorDiv
        | BinaryOp::Mod
        | BinaryOp::Rem
        | BinaryOp::Pow
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Shl
        | BinaryOp::Shr
        | BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge
        | BinaryOp::Eq
        | BinaryOp::Ne => {
            for i in 0..count {
                // SAFETY: the caller grants `count` elements, or one of a scalar operand.
                unsafe {
                    let a = f64::from(*left.add(if LEFT { 0 } else { i }));
                    let b = f64::from(*right.add(if RIGHT { 0 } else { i }));
                    *target.add(i) = op.eval_f64(a, b) as f32;
                }
            }
        }
    }
}

/// `target[i] = u8::from(op(left[i], right[i]) != 0)`.
#[inline(always)]
pub(crate) unsafe fn compare<V: Vector>(
    op: BinaryOp,
    form: Form,
    target: *mut u8,
    left: *const f32,
    right: *const f32,
    count: usize,
) {
    // SAFETY: the caller grants the contract.
    unsafe {
        match form {
            Form::Arrays => compare_form::<false, false>(op, target, left, right, count),
            Form::ScalarRight => compare_form::<false, true>(op, target, left, right, count),
            Form::ScalarLeft => compare_form::<true, false>(op, target, left, right, count),
        }
    }
}

#[inline(always)]
unsafe fn compare_form<const LEFT: bool, const RIGHT: bool>(
    op: BinaryOp,
    target: *mut u8,
    left: *const f32,
    right: *const f32,
    count: usize,
) {
    macro_rules! loops {
        (|$a:ident, $b:ident| $value:expr) => {
            for i in 0..count {
                // SAFETY: the caller grants `count` elements, or one of a scalar operand.
                unsafe {
                    let $a = *left.add(if LEFT { 0 } else { i });
                    let $b = *right.add(if RIGHT { 0 } else { i });
                    *target.add(i) = u8::from($value);
                }
            }
        };
    }
    match op.comparison() {
        Some(Comparison::Lt) => loops!(|a, b| a < b),
        Some(Comparison::Le) => loops!(|a, b| a <= b),
        Some(Comparison::Gt) => loops!(|a, b| a > b),
        Some(Comparison::Ge) => loops!(|a, b| a >= b),
        Some(Comparison::Eq) => loops!(|a, b| a == b),
        Some(Comparison::Ne) => loops!(|a, b| a != b),
        None => loops!(|a, b| op.eval_f64(f64::from(a), f64::from(b)) != 0.0),
    }
}

/// `target[i] += left[i] * right[i]`.
#[inline(always)]
pub(crate) unsafe fn multiply_add<V: Vector>(
    form: Form,
    target: *mut f32,
    left: *const f32,
    right: *const f32,
    count: usize,
) {
    match form {
        Form::Arrays => {
            lanewise!(V, target, count, |sum = target, a = left, b = right| a.mul_add(b, sum))
        }
        Form::ScalarRight => {
            lanewise!(V, target, count, |sum = target, false, a = left, false, b = right, true| a
                .mul_add(b, sum))
        }
        Form::ScalarLeft => {
            lanewise!(V, target, count, |sum = target, false, a = left, true, b = right, false| a
                .mul_add(b, sum))
        }
    }
}

/// `target[i] = if mask[i] != 0 { yes[i] } else { no[i] }`.
#[inline(always)]
pub(crate) unsafe fn select<V: Vector>(
    target: *mut f32,
    mask: *const u8,
    yes: *const f32,
    no: *const f32,
    count: usize,
) {
    let mut done = 0;
    while done + V::LANES <= count {
        // SAFETY: the instruction set is granted, and `done + LANES <= count`.
        unsafe {
            let (yes, no) = (V::load(yes.add(done)), V::load(no.add(done)));
            V::load_truth(mask.add(done)).select(yes, no).store(target.add(done));
        }
        done += V::LANES;
    }
    for i in done..count {
        // SAFETY: the caller grants `count` elements.
        unsafe {
            let (yes, no) = (*yes.add(i), *no.add(i));
            *target.add(i) = if *mask.add(i) != 0 { yes } else { no };
        }
    }
}

/// `start` combined with every element.
#[inline(always)]
pub(crate) unsafe fn reduce<V: Vector>(op: BinaryOp, source: *const f32, count: usize, start: f32) -> f32 {
    macro_rules! loops {
        ($identity:expr, |$a:ident, $b:ident| $vectors:expr, $scalars:expr) => {{
            // SAFETY: the caller grants the instruction set and `count` elements.
            unsafe {
                let mut totals = [V::splat($identity); 4];
                let mut at = 0;
                while at + 4 * V::LANES <= count {
                    for t in 0..4 {
                        let ($a, $b) = (totals[t], V::load(source.add(at + t * V::LANES)));
                        totals[t] = $vectors;
                    }
                    at += 4 * V::LANES;
                }
                while at + V::LANES <= count {
                    let ($a, $b) = (totals[0], V::load(source.add(at)));
                    totals[0] = $vectors;
                    at += V::LANES;
                }
                let again = matches!(op, BinaryOp::Min | BinaryOp::Max) && V::LANES <= count;
                if at < count && (again || op == BinaryOp::Add) {
                    // Elements that are there twice change neither minimum nor maximum, and zeros no sum.
                    let ($a, $b) = if again {
                        (totals[1], V::load(source.add(count - V::LANES)))
                    } else {
                        (totals[1], V::load_first(source.add(at), count - at))
                    };
                    totals[1] = $vectors;
                    at = count;
                }
                for t in 1..4 {
                    let ($a, $b) = (totals[0], totals[t]);
                    totals[0] = $vectors;
                }
                let mut total = totals[0].fold($scalars);
                while at < count {
                    total = $scalars(total, *source.add(at));
                    at += 1;
                }
                $scalars(start, total)
            }
        }};
    }
    match op {
        BinaryOp::Add => loops!(0.0, |a, b| a.add(b), |a: f32, b: f32| a + b),
        BinaryOp::Mul => loops!(1.0, |a, b| a.mul(b), |a: f32, b: f32| a * b),
        BinaryOp::Min => loops!(f32::INFINITY, |a, b| math::min(a, b), min),
        BinaryOp::Max => loops!(f32::NEG_INFINITY, |a, b| math::max(a, b), max),
        BinaryOp::Sub
        | BinaryOp::Div
        | BinaryOp::FloorDiv
        | BinaryOp::Mod
        | BinaryOp::Rem
        | BinaryOp::Pow
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Shl
        | BinaryOp::Shr
        | BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge
        | BinaryOp::Eq
        | BinaryOp::Ne => {
            let mut total = start;
            for i in 0..count {
                // SAFETY: the caller grants `count` elements.
                total = op.eval_f64(f64::from(total), f64::from(unsafe { *source.add(i) })) as f32;
            }
            total
        }
    }
}

/// `target[i * step] = op(target[i * step], row)` for each row of `source`, combined as by [`reduce`], and its place in the target.
#[inline(always)]
pub(crate) unsafe fn reduce_rows<V: Vector>(
    op: BinaryOp,
    (target, step): (*mut f32, isize),
    (source, pitch): (*const f32, isize),
    (rows, cols): (usize, usize),
) {
    for row in 0..rows as isize {
        // SAFETY: the caller grants the instruction set, the rows and their places.
        unsafe {
            let place = target.offset(row * step);
            *place = reduce::<V>(op, source.offset(row * pitch), cols, *place);
        }
    }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a.is_nan() || a < b { a } else { b }
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// The sum of `left[i] * right[i]`.
#[inline(always)]
pub(crate) unsafe fn sum_product<V: Vector>(left: *const f32, right: *const f32, count: usize) -> f32 {
    const SUMS: usize = 8;
    // SAFETY: the caller grants the instruction set and `count` elements of both.
    unsafe {
        let mut sums = [V::splat(0.0); SUMS];
        let mut at = 0;
        while at + SUMS * V::LANES <= count {
            for s in 0..SUMS {
                let (a, b) = (V::load(left.add(at + s * V::LANES)), V::load(right.add(at + s * V::LANES)));
                sums[s] = a.mul_add(b, sums[s]);
            }
            at += SUMS * V::LANES;
        }
        for s in 0..SUMS {
            if at + V::LANES <= count {
                sums[s] = V::load(left.add(at)).mul_add(V::load(right.add(at)), sums[s]);
                at += V::LANES;
            }
        }
        if at < count {
            let (a, b) = (V::load_first(left.add(at), count - at), V::load_first(right.add(at), count - at));
            sums[SUMS - 1] = a.mul_add(b, sums[SUMS - 1]);
        }
        let mut width = SUMS;
        while width > 1 {
            width /= 2;
            for s in 0..width {
                sums[s] = sums[s].add(sums[s + width]);
            }
        }
        sums[0].fold(|a, b| a + b)
    }
}

/// `target[i * step] += sum of left[i, j] * right[i, j]` for rows `i` with pitches, in any grouping.
#[inline(always)]
pub(crate) unsafe fn sum_product_rows<V: Vector>(
    (target, step): (*mut f32, isize),
    (left, left_pitch): (*const f32, isize),
    (right, right_pitch): (*const f32, isize),
    (rows, cols): (usize, usize),
) {
    for row in 0..rows as isize {
        // SAFETY: the caller grants the instruction set, the rows of both and their places.
        unsafe {
            let (left, right) = (left.offset(row * left_pitch), right.offset(row * right_pitch));
            *target.offset(row * step) += sum_product::<V>(left, right, cols);
        }
    }
}

/// `target[i] = source[i * stride]`.
#[inline(always)]
pub(crate) unsafe fn gather_strided<V: Vector>(
    target: *mut f32,
    source: *const f32,
    stride: isize,
    count: usize,
) {
    let mut done = 0;
    match stride {
        0 => return lanewise!(V, target, count, |x = source, true| x),
        1 => return lanewise!(V, target, count, |x = source| x),
        2 => {
            // The last odd element belongs to no lane, so that the last vector is left to the loop below.
            while done + V::LANES < count {
                // SAFETY: the instruction set is granted; `2 * (done + LANES)` is at most the last element read.
                unsafe {
                    let from = source.add(2 * done);
                    let (even, _) = V::load(from).deinterleave(V::load(from.add(V::LANES)));
                    even.store(target.add(done));
                }
                done += V::LANES;
            }
        }
        _ => {}
    }
    for i in done..count {
        // SAFETY: the caller grants `count` elements of both, `source` in steps of `stride`.
        unsafe { *target.add(i) = *source.offset(i as isize * stride) };
    }
}

/// `target[i * stride] = source[i]`.
#[inline(always)]
pub(crate) unsafe fn scatter_strided<V: Vector>(
    target: *mut f32,
    stride: isize,
    source: *const f32,
    count: usize,
) {
    // SAFETY: the caller grants `count` elements of both, `target` in steps of `stride`.
    unsafe {
        if stride == 1 {
            std::ptr::copy(source, target, count);
        } else {
            for i in 0..count {
                *target.offset(i as isize * stride) = *source.add(i);
            }
        }
    }
}

/// Widens half precision.
#[inline(always)]
pub(crate) unsafe fn f16_to_f32<V: Vector>(target: *mut f32, source: *const f16, count: usize) {
    // SAFETY: the caller grants the instruction set and `count` elements; `f16` is a transparent u16.
    unsafe {
        let mut at = 0;
        while at + V::LANES <= count {
            V::load_f16(source.add(at).cast()).store(target.add(at));
            at += V::LANES;
        }
        for i in at..count {
            *target.add(i) = (*source.add(i)).to_f32();
        }
    }
}

/// Rounds to half precision, ties to even.
#[inline(always)]
pub(crate) unsafe fn f32_to_f16<V: Vector>(target: *mut f16, source: *const f32, count: usize) {
    // SAFETY: the caller grants the instruction set and `count` elements; `f16` is a transparent u16.
    unsafe {
        let mut at = 0;
        while at + V::LANES <= count {
            V::load(source.add(at)).store_f16(target.add(at).cast());
            at += V::LANES;
        }
        for i in at..count {
            *target.add(i) = f16::from_f32(*source.add(i));
        }
    }
}

/// Widens bfloat16.
#[inline(always)]
pub(crate) unsafe fn bf16_to_f32<V: Vector>(target: *mut f32, source: *const bf16, count: usize) {
    for i in 0..count {
        // SAFETY: the caller grants `count` elements.
        unsafe { *target.add(i) = f32::from_bits(u32::from((*source.add(i)).to_bits()) << 16) };
    }
}

/// Rounds to bfloat16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) unsafe fn f32_to_bf16<V: Vector>(target: *mut bf16, source: *const f32, count: usize) {
    for i in 0..count {
        // SAFETY: the caller grants `count` elements.
        unsafe {
            let value = *source.add(i);
            let bits = value.to_bits();
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
            let kept = if value.is_nan() { bits | 0x40_0000 } else { rounded };
            *target.add(i) = bf16::from_bits((kept >> 16) as u16);
        }
    }
}
