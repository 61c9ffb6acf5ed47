//! Elementary functions over vectors. Polynomials are those of the Cephes library (Moshier, 1992) unless said.
//!
//! Errors are bounded over sweeps of all floats against double precision, with and without fused multiply-add.

#![expect(
    clippy::needless_range_loop,
    reason = "iterator calls taking vectors may stay calls without their features"
)]

use crate::simd::Vector;

/// The polynomial with the given coefficients, the highest power first.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(x: V, coefficients: [f32; N]) -> V {
    let mut value = x.like(coefficients[0]);
    for power in 1..N {
        value = value.mul_add(x, x.like(coefficients[power]));
    }
    value
}

#[inline(always)]
fn like_bits<V: Vector>(x: V, bits: u32) -> V {
    x.like(f32::from_bits(bits))
}

#[inline(always)]
fn sign_bit<V: Vector>(x: V) -> V {
    x.and(x.like(-0.0))
}

/// `|x|`.
#[inline(always)]
pub(crate) fn abs<V: Vector>(x: V) -> V {
    x.xor(sign_bit(x))
}

/// `-x`.
#[inline(always)]
pub(crate) fn neg<V: Vector>(x: V) -> V {
    x.xor(x.like(-0.0))
}

/// -1, 0 or 1 by the sign; zeros and NaN stay.
#[inline(always)]
pub(crate) fn sign<V: Vector>(x: V) -> V {
    let zero = x.like(0.0);
    let one = x.like(1.0).or(sign_bit(x));
    x.equal(zero).or(x.is_nan()).select(x, one)
}

/// The smaller; NaN if one is NaN.
#[inline(always)]
pub(crate) fn min<V: Vector>(a: V, b: V) -> V {
    a.lesser_or(b).with_nan_of(a, b)
}

/// The larger; NaN if one is NaN.
#[inline(always)]
pub(crate) fn max<V: Vector>(a: V, b: V) -> V {
    a.greater_or(b).with_nan_of(a, b)
}

/// 1.5 * 2^23: adding it to a float below 2^22 leaves the nearest integer in the low bits.
const ROUNDER: f32 = 12582912.0;

/// The nearest integer of a float below 2^22, and a vector whose low bits are that integer.
#[inline(always)]
fn nearest<V: Vector>(x: V) -> (V, V) {
    let raised = x.add(x.like(ROUNDER));
    (raised.sub(x.like(ROUNDER)), raised)
}

/// The nearest integer of `x * factor`, below 2^22, and a vector whose low bits are that integer.
#[inline(always)]
fn rounded<V: Vector>(x: V, factor: f32) -> (V, V) {
    let raised = x.mul_add(x.like(factor), x.like(ROUNDER));
    (raised.sub(x.like(ROUNDER)), raised)
}

/// [`Vector::scale`] without an instruction for it: `2^n` in two factors, since `n` reaches beyond the exponents of normal floats.
#[inline(always)]
pub(crate) fn scale<V: Vector>(x: V, n: V) -> V {
    let power = |bits: V| bits.shift_left::<23>().add_bits(x.like(1.0));
    let (half, half_bits) = nearest(n.mul(x.like(0.5)));
    let (_, rest_bits) = nearest(n.sub(half));
    x.mul(power(half_bits)).mul(power(rest_bits))
}

/// `e^x` within 1.1 ulp; overflows to infinity, underflows through the denormals to 0.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    // Beyond these bounds the result is infinite or 0 anyway; NaN passes both.
    exp_bounded(x.like(90.0).lesser_or(x.like(-105.0).greater_or(x)))
}

/// [`exp`] of what is between -105 and 90, or NaN.
#[inline(always)]
fn exp_bounded<V: Vector>(x: V) -> V {
    let (n, _) = rounded(x, std::f32::consts::LOG2_E);
    let r = n.mul_add(x.like(-0.693_359_4), x);
    let r = n.mul_add(x.like(2.121_944_4e-4), r);
    let series =
        polynomial(r, [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    series.mul_add(r.mul(r), r).add(x.like(1.0)).scale(n)
}

/// Natural logarithm within 0.9 ulp; -infinity at 0, NaN below.
#[inline(always)]
pub(crate) fn log<V: Vector>(x: V) -> V {
    let (zero, one) = (x.like(0.0), x.like(1.0));
    let denormal = x.less(x.like(f32::MIN_POSITIVE));
    let scaled = denormal.select(x.mul(x.like(8388608.0)), x);
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
    let lowest = like_bits(x, 0x3f35_04f3);
    let offset = scaled.add_bits(like_bits(x, 0x3f80_0000 - 0x3f35_04f3));
    let e = offset.shift_right::<23>().integer_to_float().sub(x.like(127.0));
    let e = e.sub(denormal.and(x.like(23.0)));
    let m = offset.and(like_bits(x, 0x007f_ffff)).add_bits(lowest).sub(one);
    let square = m.mul(m);
    let series = polynomial(
        m,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let small = e.mul_add(x.like(-2.121_944_4e-4), series.mul(m).mul(square));
    let small = square.mul_add(x.like(-0.5), small);
    let value = e.mul_add(x.like(0.693_359_4), m.add(small));
    let value = x.equal(zero).select(x.like(f32::NEG_INFINITY), value);
    let value = x.less(x.like(f32::INFINITY)).select(value, x);
    x.less(zero).select(x.like(f32::NAN), value)
}

/// `log(1 + x)` within 2.4 ulp: Kahan's correction of the rounding of `1 + x`.
#[inline(always)]
pub(crate) fn log1p<V: Vector>(x: V) -> V {
    let one = x.like(1.0);
    let sum = x.add(one);
    let rounded = sum.sub(one);
    let value = log(sum).mul(x.div(rounded));
    let value = rounded.equal(x.like(0.0)).select(x, value);
    x.less(x.like(f32::INFINITY)).select(value, x)
}

/// Hyperbolic tangent within 1.4 ulp.
#[inline(always)]
pub(crate) fn tanh<V: Vector>(x: V) -> V {
    let (magnitude, one) = (abs(x), x.like(1.0));
    let square = x.mul(x);
    let series =
        polynomial(square, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let small = series.mul(square).mul_add(x, x);
    let power = exp(magnitude.add(magnitude));
    let large = one.sub(x.like(2.0).div(power.add(one)));
    magnitude.less(x.like(0.625)).select(small, large).or(sign_bit(x))
}

/// `1 / (1 + e^-x)` within 2.4 ulp, denormal results included.
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    let (zero, one) = (x.like(0.0), x.like(1.0));
    let power = exp(neg(abs(x)));
    let numerator = x.less(zero).select(power, one);
    numerator.div(one.add(power))
}

/// `x * sigmoid(x)`, the factor within 2^-22: `x / (1 + e^-x)`, where the power of two of `e^-x` overflows as it should.
#[inline(always)]
pub(crate) fn silu<V: Vector>(x: V) -> V {
    let one = x.like(1.0);
    let bounded = x.like(88.0).lesser_or(x.like(-88.9).greater_or(x));
    let (n, bits) = rounded(bounded, -std::f32::consts::LOG2_E);
    let power = bits.shift_left::<23>().add_bits(one);
    // e^-x = 2^n e^-r; the coefficients are minimax over half a power of two to both sides.
    let r = n.mul_add(x.like(std::f32::consts::LN_2), bounded);
    let rest =
        polynomial(r, [-8.290_145e-3, 4.189_885e-2, -1.666_764_5e-1, 4.999_914_2e-1, -9.999_997e-1, 1.0]);
    x.div(rest.mul_add(power, one))
}

/// `x * clamp(x / 6 + 1 / 2, 0, 1)`.
#[inline(always)]
pub(crate) fn hard_swish<V: Vector>(x: V) -> V {
    let gate = x.mul_add(x.like(1.0 / 6.0), x.like(0.5));
    x.mul(x.like(1.0).lesser_or(x.like(0.0).greater_or(gate)))
}

/// `x * (1 + erf(x / sqrt(2))) / 2`, the factor within 2^-21. The error function is a rational minimax approximation, which is
/// exactly 1 at the bound, fused multiply-add or not.
#[inline(always)]
pub(crate) fn gelu<V: Vector>(x: V) -> V {
    let bounded = x.like(GELU_BOUND).lesser_or(x.like(-GELU_BOUND).greater_or(x));
    let square = bounded.mul(bounded);
    let numerator = polynomial(
        square,
        [4.459_447e-8, 1.257_959_1e-5, 3.378_636_3e-4, 9.354_733e-3, 6.785_856e-2, 7.978_845e-1],
    );
    let denominator =
        polynomial(square, [1.179_653e-6, 7.334_501_4e-5, 1.885_506_7e-3, 2.867_770_2e-2, 2.517_144e-1, 1.0]);
    let half = x.mul(x.like(0.5));
    half.mul_add(numerator.mul(bounded).div(denominator), half)
}

/// From here on the error function in [`gelu`] is 1.
const GELU_BOUND: f32 = 5.597_802_6;

/// Error function within 1.8 ulp; the polynomials are minimax approximations due to N. Juffa.
#[inline(always)]
pub(crate) fn erf<V: Vector>(x: V) -> V {
    let magnitude = abs(x);
    let square = x.mul(x);
    // From 4 on the result is 1; NaN stays.
    let bounded = x.like(4.0).lesser_or(magnitude);
    let small = polynomial(
        square,
        [-5.967_617e-4, 4.991_194e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_3e-1, 1.283_791_7e-1],
    )
    .mul_add(x, x);
    let exponent = polynomial(
        bounded,
        [
            -1.728_534_7e-5,
            3.831_971_3e-4,
            -3.883_964_4e-3,
            2.425_462_2e-2,
            -1.067_778_8e-1,
            -6.348_469e-1,
            -1.287_175_1e-1,
        ],
    )
    .mul_add(bounded, neg(bounded));
    let large = x.like(1.0).sub(exp_bounded(exponent)).or(sign_bit(x));
    magnitude.less(x.like(0.927_734_4)).select(small, large)
}

/// Largest magnitude that [`sin`] and [`cos`] reduce in single precision.
pub(crate) const CIRCULAR_LIMIT: f32 = 8192.0;

/// Sine within 2.4 ulp, for magnitudes up to [`CIRCULAR_LIMIT`].
#[inline(always)]
pub(crate) fn sin<V: Vector>(x: V) -> V {
    x.equal(x.like(0.0)).select(x, circular(x, 0))
}

/// Cosine within 2.4 ulp, for magnitudes up to [`CIRCULAR_LIMIT`].
#[inline(always)]
pub(crate) fn cos<V: Vector>(x: V) -> V {
    circular(x, 1)
}

/// The sine of `x + quarters * pi / 2`.
#[inline(always)]
fn circular<V: Vector>(x: V, quarters: u32) -> V {
    let (n, bits) = nearest(x.mul(x.like(std::f32::consts::FRAC_2_PI)));
    // pi / 2 in parts of 11 bits, whose products with n are exact, and the rest.
    let r = n.mul_add(x.like(-1.570_312_5), x);
    let r = n.mul_add(x.like(-4.837_513e-4), r);
    let r = n.mul_add(x.like(-7.549_533_6e-8), r);
    let r = n.mul_add(x.like(-2.563_344e-12), r);
    let square = r.mul(r);
    let sine = polynomial(square, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]).mul(square).mul_add(r, r);
    let cosine = polynomial(square, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2])
        .mul_add(square, x.like(-0.5))
        .mul_add(square, x.like(1.0));
    let quadrant = bits.add_bits(like_bits(x, quarters));
    let odd = quadrant.and(like_bits(x, 1)).equal(x.like(0.0));
    let flipped = quadrant.and(like_bits(x, 2)).shift_left::<30>();
    odd.select(sine, cosine).xor(flipped)
}
