use half::{bf16, f16};

use crate::guard::{Guarded, small_value};
use crate::isa::Isa;
use crate::scalar::{BinaryOp, UnaryOp};
use crate::table;

/// Lengths around every multiple of a vector that a loop treats apart.
const LENGTHS: [usize; 15] = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 131];

/// Values that break careless kernels.
const SPECIAL: [f32; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    88.9,
    -104.5,
    8388607.5,
    -4194304.5,
    16777216.0,
    1e10,
    3.0,
];

/// Distance of `got` from `want` in units of the last place of `want` as a float; 0 if both are NaN.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() && want.is_nan() || got == rounded && want.is_infinite() {
        return 0.0;
    }
    if got.is_infinite() && got == rounded {
        return 0.0;
    }
    if !got.is_finite() || !rounded.is_finite() {
        return f64::INFINITY;
    }
    let exponent = ((rounded.to_bits() >> 23) & 255).max(1) as i32;
    (f64::from(got) - want).abs() / 2f64.powi(exponent - 150)
}

/// The errors that operations are documented to keep, in ulp; the others round correctly.
const BOUNDS: [(UnaryOp, f64); 8] = [
    (UnaryOp::Exp, 1.1),
    (UnaryOp::Log, 0.9),
    (UnaryOp::Log1p, 2.4),
    (UnaryOp::Tanh, 1.4),
    (UnaryOp::Erf, 1.8),
    (UnaryOp::Sigmoid, 2.4),
    (UnaryOp::Sin, 2.4),
    (UnaryOp::Cos, 2.4),
];

fn bound(op: UnaryOp) -> f64 {
    BOUNDS.into_iter().find(|&(of, _)| of == op).map_or(0.501, |(_, bound)| bound)
}

#[test]
fn unary_operations_keep_their_error_over_all_floats() {
    let sweep = (0..=u32::MAX).step_by(30_011).map(f32::from_bits);
    let usual = (-40_000..40_000).map(|i| i as f32 / 2000.0);
    let source: Vec<f32> = SPECIAL.into_iter().chain(sweep).chain(usual).collect();
    let mut target = vec![0.0; source.len()];
    for op in UnaryOp::ALL {
        let wanted: Vec<f64> = source.iter().map(|&x| op.eval_f64(f64::from(x))).collect();
        for isa in Isa::available() {
            table(isa).unary(op, &mut target, &source);
            for ((&x, &got), &want) in source.iter().zip(&target).zip(&wanted) {
                let error = ulps(got, want);
                assert!(error <= bound(op), "{isa} {op:?} of {x:e}: {got:e} not {want:e}, {error} ulp");
            }
        }
    }
}

#[test]
fn signs_of_zero_are_kept() {
    for isa in Isa::available() {
        for op in [UnaryOp::Floor, UnaryOp::Ceil, UnaryOp::Round, UnaryOp::Sign, UnaryOp::Tanh, UnaryOp::Sqrt]
        {
            let mut values = [-0.0f32; 5];
            table(isa).unary_in_place(op, &mut values);
            assert!(values.iter().all(|x| *x == 0.0 && x.is_sign_negative()), "{isa} {op:?}: {values:?}");
        }
    }
}

#[test]
fn every_length_is_done_and_nothing_beyond() {
    let (mut sources, mut targets) = (Guarded::new(256), Guarded::new(256));
    for isa in Isa::available() {
        let table = table(isa);
        for length in LENGTHS {
            for op in UnaryOp::ALL {
                let source = sources.last(length, |i| small_value(i) + 1.5);
                let target = targets.last(length, |_| f32::NAN);
                table.unary(op, target, source);
                for (&x, &got) in source.iter().zip(target.iter()) {
                    assert!(ulps(got, op.eval_f64(f64::from(x))) <= bound(op), "{isa} {op:?} {length}");
                }
                let separate = target.to_vec();
                table.unary_in_place(op, source);
                assert!(same(source, &separate), "{isa} {op:?} {length} in place");
            }
        }
    }
}

/// Whether two slices hold the same values, NaN being equal to NaN.
fn same(left: &[f32], right: &[f32]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(a, b)| a == b || a.is_nan() && b.is_nan())
}

/// What a binary operation gives in single precision.
fn evaluated(op: BinaryOp, left: f32, right: f32) -> f32 {
    op.eval_f64(f64::from(left), f64::from(right)) as f32
}

/// Every pair of special values, repeated over a length.
fn pairs() -> (Vec<f32>, Vec<f32>) {
    SPECIAL.iter().flat_map(|&a| SPECIAL.iter().map(move |&b| (a, b))).unzip()
}

#[test]
fn binary_operations_are_the_scalar_ones() {
    let (left, right) = pairs();
    let mut target = vec![0.0; left.len()];
    for isa in Isa::available() {
        let table = table(isa);
        for op in BinaryOp::ALL {
            table.binary(op, &mut target, &left, &right);
            for ((&a, &b), &got) in left.iter().zip(&right).zip(&target) {
                assert!(same(&[got], &[evaluated(op, a, b)]), "{isa} {op:?} of {a:e}, {b:e}: {got:e}");
            }
        }
    }
}

#[test]
fn binary_forms_agree_at_every_length() {
    let (mut lefts, mut rights, mut targets) = (Guarded::new(256), Guarded::new(256), Guarded::new(256));
    for isa in Isa::available() {
        let table = table(isa);
        for length in LENGTHS {
            for op in BinaryOp::ALL {
                let left = lefts.last(length, |i| small_value(i) + 2.0);
                let right = rights.last(length, |i| small_value(i + 50) * 3.0);
                let target = targets.last(length, |_| f32::NAN);
                let check = |form: &str, got: &[f32], want: &dyn Fn(usize) -> f32| {
                    for (i, &got) in got.iter().enumerate() {
                        let want = want(i);
                        let close = same(&[got], &[want]) || ulps(got, f64::from(want)) <= 2.0;
                        assert!(close, "{isa} {op:?} {form} {i} of {length}: {got} not {want}");
                    }
                };
                table.binary(op, target, left, right);
                check("arrays", target, &|i| evaluated(op, left[i], right[i]));
                for scalar in [0.75, 2.0, 3.0] {
                    table.binary_scalar(op, target, left, scalar);
                    check("scalar right", target, &|i| evaluated(op, left[i], scalar));
                    table.scalar_binary(op, target, scalar, right);
                    check("scalar left", target, &|i| evaluated(op, scalar, right[i]));
                    target.copy_from_slice(left);
                    table.binary_scalar_in_place(op, target, scalar);
                    check("scalar right in place", target, &|i| evaluated(op, left[i], scalar));
                    target.copy_from_slice(right);
                    table.scalar_binary_in_place(op, target, scalar);
                    check("scalar left in place", target, &|i| evaluated(op, scalar, right[i]));
                }
                target.copy_from_slice(left);
                table.binary_in_place(op, target, right);
                check("left in place", target, &|i| evaluated(op, left[i], right[i]));
                target.copy_from_slice(right);
                table.binary_in_place_right(op, target, left);
                check("right in place", target, &|i| evaluated(op, left[i], right[i]));
            }
        }
    }
}

#[test]
fn comparisons_give_bytes() {
    let (left, right) = pairs();
    for isa in Isa::available() {
        let table = table(isa);
        for length in LENGTHS {
            let (left, right) = (&left[..length], &right[..length]);
            let mut target = vec![9; length];
            for op in BinaryOp::ALL {
                let truth = |a: f32, b: f32| u8::from(op.eval_f64(f64::from(a), f64::from(b)) != 0.0);
                table.compare(op, &mut target, left, right);
                assert!((0..length).all(|i| target[i] == truth(left[i], right[i])), "{isa} {op:?} {length}");
                table.compare_scalar(op, &mut target, left, 1.0);
                assert!((0..length).all(|i| target[i] == truth(left[i], 1.0)), "{isa} {op:?} {length}");
                table.scalar_compare(op, &mut target, 1.0, right);
                assert!((0..length).all(|i| target[i] == truth(1.0, right[i])), "{isa} {op:?} {length}");
            }
        }
    }
}

#[test]
fn multiply_add_and_select_follow_their_definition() {
    let (mut lefts, mut rights, mut targets, mut masks) =
        (Guarded::new(256), Guarded::new(256), Guarded::new(256), Guarded::new(256));
    for isa in Isa::available() {
        let table = table(isa);
        for length in LENGTHS {
            let left = &*lefts.last(length, small_value);
            let right = &*rights.last(length, |i| small_value(i + 9));
            let mask = &*masks.last(length, |i| (i % 3) as u8 * 127);
            let target = targets.last(length, |i| i as f32);
            table.multiply_add(target, left, right);
            assert!((0..length).all(|i| target[i] == i as f32 + left[i] * right[i]), "{isa} {length}");
            let target = targets.last(length, |i| i as f32);
            table.multiply_add_scalar(target, left, 0.5);
            assert!((0..length).all(|i| target[i] == i as f32 + left[i] * 0.5), "{isa} {length}");
            table.select(target, mask, left, right);
            let chosen = |i: usize| if mask[i] != 0 { left[i] } else { right[i] };
            assert!((0..length).all(|i| target[i] == chosen(i)), "{isa} {length}");
        }
    }
}

#[test]
fn reductions_combine_every_element() {
    let (mut lefts, mut rights) = (Guarded::new(2048), Guarded::new(2048));
    for isa in Isa::available() {
        let table = table(isa);
        for length in LENGTHS.into_iter().chain([300, 1025]) {
            let left = lefts.last(length, small_value);
            let right = &*rights.last(length, |i| small_value(i + 77));
            let sum: f32 = left.iter().sum();
            assert_eq!(table.reduce(BinaryOp::Add, left, 2.0), 2.0 + sum, "{isa} {length}");
            let largest = left.iter().copied().fold(-0.25, f32::max);
            assert_eq!(table.reduce(BinaryOp::Max, left, -0.25), largest, "{isa} {length}");
            let smallest = left.iter().copied().fold(0.25, f32::min);
            assert_eq!(table.reduce(BinaryOp::Min, left, 0.25), smallest, "{isa} {length}");
            let product: f32 = left.iter().zip(right).map(|(a, b)| a * b).sum();
            assert_eq!(table.sum_product(left, right), product, "{isa} {length}");
            let last = left.iter().fold(1.0, |a, b| a - b);
            assert_eq!(table.reduce(BinaryOp::Sub, left, 1.0), last, "{isa} {length}");
            for at in 0..length {
                let kept = std::mem::replace(&mut left[at], f32::NAN);
                assert!(table.reduce(BinaryOp::Max, left, 0.0).is_nan(), "{isa} {length} {at}");
                assert!(table.reduce(BinaryOp::Min, left, 0.0).is_nan(), "{isa} {length} {at}");
                left[at] = kept;
            }
            let factors = lefts.last(length, |i| [2.0, 0.5, -1.0, 1.0, 0.5, 2.0, 1.0][i % 7]);
            let product: f32 = factors.iter().product();
            assert_eq!(table.reduce(BinaryOp::Mul, factors, 3.0), 3.0 * product, "{isa} {length}");
        }
    }
}

#[test]
fn strided_moves_touch_only_their_elements() {
    let mut memory = Guarded::new(1024);
    for isa in Isa::available() {
        let table = table(isa);
        for length in LENGTHS.into_iter().filter(|&length| length > 0) {
            for stride in [-2isize, -1, 0, 1, 2, 3, 7] {
                let span = (length - 1) * stride.unsigned_abs() + 1;
                let first = if stride < 0 { span - 1 } else { 0 };
                let at = |i: usize| first.wrapping_add_signed(i as isize * stride);
                let source = memory.last(span, |i| i as f32);
                let mut target = vec![f32::NAN; length];
                // SAFETY: the stride stays in the span.
                unsafe { table.gather_strided(&mut target, &source[first], stride) };
                assert!((0..length).all(|i| target[i] == at(i) as f32), "{isa} {length} {stride}");
                let spread = memory.last(span, |_| -1.0);
                let address = spread.as_mut_ptr().wrapping_add(first);
                // SAFETY: the stride stays in the span.
                unsafe { table.scatter_strided(address, stride, &target) };
                let mut want = vec![-1.0; span];
                for (i, &value) in target.iter().enumerate() {
                    want[at(i)] = value;
                }
                assert_eq!(spread, want, "{isa} {length} {stride}");
            }
        }
    }
}

#[test]
fn half_precisions_round_to_even() {
    let values: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).chain(SPECIAL).collect();
    for isa in Isa::available() {
        let table = table(isa);
        for count in [0, 5, 16, values.len()] {
            let source = &values[..count];
            let (mut halves, mut brains) = (vec![f16::ZERO; count], vec![bf16::ZERO; count]);
            table.f32_to_f16(&mut halves, source);
            table.f32_to_bf16(&mut brains, source);
            let (mut from_halves, mut from_brains) = (vec![0.0; count], vec![0.0; count]);
            table.f16_to_f32(&mut from_halves, &halves);
            table.bf16_to_f32(&mut from_brains, &brains);
            for (i, &value) in source.iter().enumerate() {
                assert!(same(&[from_halves[i]], &[f16::from_f32(value).to_f32()]), "{isa} {value:e}");
                assert!(same(&[from_brains[i]], &[bf16::from_f32(value).to_f32()]), "{isa} {value:e}");
            }
        }
    }
}

#[test]
fn lengths_must_agree() {
    let refused =
        std::panic::catch_unwind(|| table(Isa::Generic).unary(UnaryOp::Neg, &mut [0.0; 3], &[0.0; 2]));
    assert!(refused.is_err());
}
