//! The loops of the native types that have no vector kernels: integers and f64, and f32 where those lack an operation.
//! Each operation means what [`crate::scalar`] says, at the type's own width.

use super::convert::map;
use crate::scalar::{BinaryOp, OnIntegers, UnaryOp};

/// A native type and its operations on single values.
pub(super) trait Lane: Copy {
    /// The operation; what has no meaning on the type, which the verifier refuses, leaves the value as it is.
    fn unary(op: UnaryOp, x: Self) -> Self;
    /// The operation; comparisons give 0 or 1.
    fn binary(op: BinaryOp, a: Self, b: Self) -> Self;
    /// Whether it is not 0.
    fn is_true(self) -> bool;
    /// The tests among the unary operations.
    fn test(op: UnaryOp, x: Self) -> bool;
}

/// Runs `$body` with `$constant` the operation: as a constant for those named, so that each of them has its own vectorised
/// loop, and as a variable for the others.
macro_rules! specialised {
    ($kind:ident, $op:ident => $body:expr, [$($name:ident)*]) => {
        match $op {
            $($kind::$name => {
                let $op = const { $kind::$name };
                $body
            })*
            $op => $body,
        }
    };
}

/// `target[i] = op(x[i])`.
///
/// # Safety
/// As for [`map`].
pub(super) unsafe fn unary<T: Lane>(op: UnaryOp, target: *mut T, x: *const T, count: usize) {
    // SAFETY: the caller grants the contract of `map`.
    unsafe {
        specialised!(UnaryOp, op => map(target, x, count, |x| T::unary(op, x)), [Neg Abs Sqrt Not]);
    }
}

/// `target[i] = test(x[i])`, a bool.
///
/// # Safety
/// As for [`map`].
pub(super) unsafe fn test<T: Lane>(op: UnaryOp, target: *mut u8, x: *const T, count: usize) {
    // SAFETY: the caller grants the contract of `map`.
    unsafe { map(target, x, count, |x| u8::from(T::test(op, x))) }
}

/// `target[i] = op(a[i], b[i])`.
///
/// # Safety
/// As for [`zip`].
pub(super) unsafe fn binary<T: Lane>(op: BinaryOp, target: *mut T, a: *const T, b: *const T, count: usize) {
    // SAFETY: the caller grants the contract of `zip`.
    unsafe {
        specialised!(
            BinaryOp, op => zip(target, a, b, count, |a, b| T::binary(op, a, b)),
            [Add Sub Mul Div Min Max And Or Xor]
        );
    }
}

/// `target[i] = op(a[i], b[i])`, a bool.
///
/// # Safety
/// As for [`zip`].
pub(super) unsafe fn compare<T: Lane>(op: BinaryOp, target: *mut u8, a: *const T, b: *const T, count: usize) {
    // SAFETY: the caller grants the contract of `zip`.
    unsafe {
        specialised!(
            BinaryOp, op => zip(target, a, b, count, |a, b| u8::from(T::binary(op, a, b).is_true())),
            [Lt Le Gt Ge Eq Ne]
        );
    }
}

/// `target[i] = f(a[i], b[i])`.
///
/// # Safety
/// All are valid for `count` elements; the target may be the very address of an operand if `U` is not larger than `T`, and
/// overlaps no operand otherwise.
#[inline(always)]
pub(super) unsafe fn zip<T: Copy, U>(
    target: *mut U,
    a: *const T,
    b: *const T,
    count: usize,
    f: impl Fn(T, T) -> U,
) {
    for i in 0..count {
        // SAFETY: the caller grants `count` elements of each.
        unsafe { *target.add(i) = f(*a.add(i), *b.add(i)) };
    }
}

macro_rules! integers {
    ($($own:ident),*) => {$(
        impl Lane for $own {
            #[inline(always)]
            fn unary(op: UnaryOp, x: $own) -> $own {
                const ZERO: $own = 0;
                match op.on_integers() {
                    Some(OnIntegers::Neg) => x.wrapping_neg(),
                    Some(OnIntegers::Abs) => if x < ZERO { x.wrapping_neg() } else { x },
                    Some(OnIntegers::Sign) => $own::from(x > ZERO).wrapping_sub($own::from(x < ZERO)),
                    Some(OnIntegers::Not) => !x,
                    Some(OnIntegers::Same | OnIntegers::False) | None => x,
                }
            }

            #[inline(always)]
            fn binary(op: BinaryOp, a: $own, b: $own) -> $own {
                const ZERO: $own = 0;
                match op {
                    BinaryOp::Add => a.wrapping_add(b),
                    BinaryOp::Sub => a.wrapping_sub(b),
                    BinaryOp::Mul => a.wrapping_mul(b),
                    BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod | BinaryOp::Rem if b == 0 => 0,
                    BinaryOp::Div => a.wrapping_div(b),
                    BinaryOp::FloorDiv => {
                        let uneven = a.wrapping_rem(b) != 0 && (a < ZERO) != (b < ZERO);
                        a.wrapping_div(b).wrapping_sub($own::from(uneven))
                    }
                    BinaryOp::Mod => {
                        let rest = a.wrapping_rem(b);
                        if rest != 0 && (rest < ZERO) != (b < ZERO) { rest + b } else { rest }
                    }
                    BinaryOp::Rem => a.wrapping_rem(b),
                    BinaryOp::Min => a.min(b),
                    BinaryOp::Max => a.max(b),
                    BinaryOp::Pow => power(a, b),
                    BinaryOp::And => a & b,
                    BinaryOp::Or => a | b,
                    BinaryOp::Xor => a ^ b,
                    BinaryOp::Shl => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0),
                    BinaryOp::Shr => {
                        let places = u32::try_from(b).unwrap_or(u32::MAX);
                        a.checked_shr(places).unwrap_or(if a < ZERO { !0 } else { 0 })
                    }
                    BinaryOp::Lt => $own::from(a < b),
                    BinaryOp::Le => $own::from(a <= b),
                    BinaryOp::Gt => $own::from(a > b),
                    BinaryOp::Ge => $own::from(a >= b),
                    BinaryOp::Eq => $own::from(a == b),
                    BinaryOp::Ne => $own::from(a != b),
                }
            }

            #[inline(always)]
            fn is_true(self) -> bool {
                self != 0
            }

            #[inline(always)]
            fn test(_: UnaryOp, _: $own) -> bool {
                false
            }
        }

        impl Power for $own {
            const ONE: $own = 1;

            fn times(self, other: $own) -> $own {
                self.wrapping_mul(other)
            }

            fn parts(self) -> (bool, u64) {
                (i128::from(self) < 0, self as u64)
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// What [`power`] needs of an integer.
trait Power: Copy {
    const ONE: Self;
    fn times(self, other: Self) -> Self;
    /// Whether it is negative, and its two's complement.
    fn parts(self) -> (bool, u64);
}

/// `base^exponent`, wrapping; the truncated quotient where the exponent is negative.
fn power<T: Power + PartialEq + Lane>(base: T, exponent: T) -> T {
    let (negative, mut exponent) = exponent.parts();
    let zero = T::ONE.times(T::binary(BinaryOp::Sub, T::ONE, T::ONE));
    if negative {
        let minus_one = T::unary(UnaryOp::Neg, T::ONE);
        return if base == T::ONE || (base == minus_one && exponent.is_multiple_of(2)) {
            T::ONE
        } else if base == minus_one {
            minus_one
        } else {
            zero
        };
    }
    let (mut result, mut square) = (T::ONE, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.times(square);
        }
        square = square.times(square);
        exponent >>= 1;
    }
    result
}

macro_rules! floats {
    ($($own:ident),*) => {$(
        impl Lane for $own {
            #[inline(always)]
            fn unary(op: UnaryOp, x: $own) -> $own {
                op.eval_f64(f64::from(x)) as $own
            }

            #[inline(always)]
            fn binary(op: BinaryOp, a: $own, b: $own) -> $own {
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div => a / b,
                    BinaryOp::Min => if a.is_nan() || a < b { a } else { b },
                    BinaryOp::Max => if a.is_nan() || a > b { a } else { b },
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
                    | BinaryOp::Ne => op.eval_f64(f64::from(a), f64::from(b)) as $own,
                }
            }

            #[inline(always)]
            fn is_true(self) -> bool {
                self != 0.0
            }

            #[inline(always)]
            fn test(op: UnaryOp, x: $own) -> bool {
                op.eval_f64(f64::from(x)) != 0.0
            }
        }
    )*};
}

floats!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_integers_are_wide_ones_wrapped() {
        let values: Vec<i8> = vec![-128, -127, -9, -8, -3, -2, -1, 0, 1, 2, 3, 7, 8, 9, 100, 127];
        for op in BinaryOp::ALL {
            for &a in &values {
                for &b in &values {
                    let wide = op.eval_i64(i64::from(a), i64::from(b));
                    assert_eq!(i8::binary(op, a, b), wide as i8, "{op:?} {a} {b}");
                    let (a, b) = (a as u8, b as u8);
                    let wide = op.eval_i64(i64::from(a), i64::from(b));
                    assert_eq!(u8::binary(op, a, b), wide as u8, "{op:?} {a} {b}");
                }
            }
        }
        for op in UnaryOp::ALL.into_iter().filter(|op| !op.is_test()) {
            for &x in &values {
                let Some(wide) = op.eval_i64(i64::from(x)) else { continue };
                assert_eq!(i8::unary(op, x), wide as i8, "{op:?} {x}");
            }
        }
    }

    #[test]
    fn unsigned_integers_of_64_bits_are_not_signed() {
        let top = 1u64 << 63;
        assert_eq!(u64::binary(BinaryOp::Div, top, 2), 1 << 62);
        assert_eq!(u64::binary(BinaryOp::Shr, top, 63), 1);
        assert_eq!(u64::binary(BinaryOp::Max, top, 1), top);
        assert_eq!(u64::binary(BinaryOp::Lt, 1, top), 1);
        assert_eq!(u64::binary(BinaryOp::Pow, 3, top), 1);
        assert_eq!(u64::unary(UnaryOp::Abs, top), top);
    }

    #[test]
    fn floats_evaluate_as_named() {
        let values = [-2.5, -0.0, 0.0, 1.0, 3.75, f64::INFINITY, f64::NAN];
        for op in BinaryOp::ALL {
            for a in values {
                for b in values {
                    let (own, named) = (f64::binary(op, a, b), op.eval_f64(a, b));
                    assert!(
                        own == named || (own.is_nan() && named.is_nan()),
                        "{op:?} {a} {b}: {own} {named}"
                    );
                }
            }
        }
    }
}
