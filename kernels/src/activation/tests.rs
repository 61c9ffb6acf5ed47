use super::Activation;
use crate::guard::{Guarded, small_value};
use crate::isa::Isa;
use crate::table;

#[test]
fn gates_keep_their_error_over_all_floats() {
    let sweep = (0..=u32::MAX).step_by(30_011).map(f32::from_bits);
    let usual = (-40_000..40_000).map(|i| i as f32 / 2000.0);
    let special = [0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, -88.5, -100.0];
    let source: Vec<f32> = special.into_iter().chain(sweep).chain(usual).collect();
    let mut target = vec![0.0; source.len()];
    for activation in Activation::ALL {
        for isa in Isa::available() {
            table(isa).activate(activation, &mut target, &source);
            for (&x, &got) in source.iter().zip(&target) {
                let want = activation.eval_f64(f64::from(x));
                let error = (f64::from(got) - want).abs();
                // Denormal products may be 0 or less exact.
                let fits = error <= f64::from(x.abs()) / 2f64.powi(21) + 1e-36;
                let same = f64::from(got) == want || (got.is_nan() && want.is_nan());
                assert!(fits || same, "{isa} {activation:?} of {x:e}: {got:e} not {want:e}");
            }
        }
    }
}

#[test]
fn large_magnitudes_are_all_or_nothing() {
    let source: Vec<f32> = (0..200).map(|i| 100.0 * 1.5f32.powi(i)).filter(|x| x.is_finite()).collect();
    let negative: Vec<f32> = source.iter().map(|x| -x).collect();
    let mut target = vec![0.0; source.len()];
    for activation in Activation::ALL {
        for isa in Isa::available() {
            table(isa).activate(activation, &mut target, &source);
            assert_eq!(target, source, "{isa} {activation:?}");
            table(isa).activate(activation, &mut target, &negative);
            assert!(target.iter().all(|y| *y == 0.0), "{isa} {activation:?}: {target:?}");
        }
    }
}

#[test]
fn every_length_is_done_and_nothing_beyond() {
    let (mut sources, mut targets) = (Guarded::new(1024), Guarded::new(1024));
    for isa in Isa::available() {
        for (rows, cols, between) in (1..70).map(|cols| (1 + cols % 4, cols, cols % 3)) {
            let (pitch, length) = (cols + between, rows * (cols + between) - between);
            for activation in Activation::ALL {
                let source = sources.last(length, small_value);
                let target = targets.last(length, |_| 77.5);
                let (to, from) = ((target.as_mut_ptr(), pitch as isize), (source.as_ptr(), pitch as isize));
                // SAFETY: the table is of an available instruction set; the slices have the rows.
                unsafe { (table(isa).raw.activate)(activation, to, from, (rows, cols)) };
                for (at, (&x, &got)) in source.iter().zip(target.iter()).enumerate() {
                    let want =
                        if at % pitch < cols { activation.eval_f64(f64::from(x)) as f32 } else { 77.5 };
                    assert!((got - want).abs() < 1e-5, "{isa} {activation:?} {rows} x {cols} at {at}");
                }
            }
        }
    }
}
