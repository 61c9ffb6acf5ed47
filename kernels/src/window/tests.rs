use super::{DepthwiseArgs, Pool, WindowArgs};
use crate::guard::{Guarded, small_value};
use crate::isa::Isa;
use crate::table;

/// A window problem; `gap` widens the row pitches of input and output beyond what is needed.
#[derive(Clone, Copy, Debug)]
struct Problem {
    window: (usize, usize),
    stride: usize,
    dilation: (usize, usize),
    outputs: usize,
    count: usize,
    gap: usize,
}

impl Problem {
    fn pitch(&self) -> usize {
        (self.count - 1) * self.stride + (self.window.1 - 1) * self.dilation.1 + 1 + self.gap
    }

    /// Elements from the first to the last one read.
    fn input(&self) -> usize {
        let rows = (self.outputs - 1) * self.stride + (self.window.0 - 1) * self.dilation.0;
        rows * self.pitch() + self.pitch() - self.gap
    }

    fn y_pitch(&self) -> usize {
        self.count + self.gap
    }

    fn output(&self) -> usize {
        self.outputs * self.y_pitch() - self.gap
    }

    fn args(&self, x: &[f32], y: &mut [f32]) -> WindowArgs {
        WindowArgs {
            x: x.as_ptr(),
            x_row: (self.dilation.0 * self.pitch()) as isize,
            x_output: (self.stride * self.pitch()) as isize,
            window_rows: self.window.0,
            window_cols: self.window.1,
            stride: self.stride,
            dilation: self.dilation.1,
            y: y.as_mut_ptr(),
            y_output: self.y_pitch() as isize,
            outputs: self.outputs,
            count: self.count,
        }
    }

    /// The elements of the window of output `q` of row `o`, in order.
    fn elements<'a>(&self, x: &'a [f32], o: usize, q: usize) -> impl Iterator<Item = f32> + use<'a> {
        let problem = *self;
        (0..problem.window.0).flat_map(move |r| {
            (0..problem.window.1).map(move |s| {
                let row = o * problem.stride + r * problem.dilation.0;
                x[row * problem.pitch() + q * problem.stride + s * problem.dilation.1]
            })
        })
    }
}

fn problems() -> Vec<Problem> {
    let mut problems = Vec::new();
    let windows = [(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (1, 5), (3, 2), (6, 1)];
    for window in windows {
        for stride in [1, 2, 3] {
            for dilation in [(1, 1), (2, 2), (2, 1), (1, 3)] {
                for (outputs, count) in [(1, 1), (4, 3), (5, 8), (7, 7), (9, 16), (2, 17), (6, 37)] {
                    for gap in [0, 5] {
                        problems.push(Problem { window, stride, dilation, outputs, count, gap });
                    }
                }
            }
        }
    }
    problems
}

#[test]
fn depthwise_sums_every_window() {
    let room = 1 << 16;
    let (mut inputs, mut results, mut weight_memory, mut inits) =
        (Guarded::new(room), Guarded::new(room), Guarded::new(64), Guarded::new(room));
    for isa in Isa::available() {
        for problem in problems() {
            let x = &*inputs.last(problem.input(), small_value);
            let weights = &*weight_memory.last(problem.window.0 * problem.window.1, |i| small_value(i + 5));
            let init = &*inits.last(problem.output(), |i| small_value(i + 3));
            for own_start in [false, true] {
                let y = results.last(problem.output(), |_| 77.5);
                let args = DepthwiseArgs {
                    window: problem.args(x, y),
                    weights: weights.as_ptr(),
                    init: init.as_ptr(),
                    init_step: usize::from(own_start),
                    init_output: if own_start { problem.y_pitch() as isize } else { 0 },
                };
                // SAFETY: the slices span what the arguments name.
                unsafe { table(isa).depthwise_row(&args) };
                for (at, &got) in y.iter().enumerate() {
                    let (o, q) = (at / problem.y_pitch(), at % problem.y_pitch());
                    let mut want = 77.5;
                    if q < problem.count {
                        let sum: f32 = problem.elements(x, o, q).zip(weights).map(|(x, w)| x * w).sum();
                        want = sum + init[if own_start { at } else { 0 }];
                    }
                    assert_eq!(got, want, "{isa} {o}, {q} of {problem:?}");
                }
            }
        }
    }
}

#[test]
fn depthwise_adds_to_its_own_result() {
    let problem = Problem { window: (3, 3), stride: 1, dilation: (1, 1), outputs: 5, count: 19, gap: 1 };
    let x: Vec<f32> = (0..problem.input()).map(small_value).collect();
    for isa in Isa::available() {
        let mut y = vec![2.0; problem.output()];
        let window = problem.args(&x, &mut y);
        let args = DepthwiseArgs {
            window,
            weights: [1.0; 9].as_ptr(),
            init: window.y,
            init_step: 1,
            init_output: window.y_output,
        };
        // SAFETY: the slices span what the arguments name, and the starts are the results.
        unsafe { table(isa).depthwise_row(&args) };
        for o in 0..problem.outputs {
            for q in 0..problem.count {
                let want = 2.0 + problem.elements(&x, o, q).sum::<f32>();
                assert_eq!(y[o * problem.y_pitch() + q], want, "{isa} {o}, {q}");
            }
        }
    }
}

#[test]
fn pooling_combines_every_window() {
    let room = 1 << 16;
    let (mut inputs, mut results) = (Guarded::new(room), Guarded::new(room));
    for isa in Isa::available() {
        for problem in problems() {
            let x = &*inputs.last(problem.input(), |i| small_value(i) - 0.5);
            for (pool, accumulate) in [Pool::Max, Pool::Sum].into_iter().flat_map(|p| [(p, false), (p, true)])
            {
                let start = if accumulate { 0.25 } else { 77.5 };
                let y = results.last(problem.output(), |_| start);
                // SAFETY: the slices span what the arguments name.
                unsafe { table(isa).pool_row(pool, accumulate, &problem.args(x, y)) };
                for (at, &got) in y.iter().enumerate() {
                    let (o, q) = (at / problem.y_pitch(), at % problem.y_pitch());
                    let want = match pool {
                        _ if q >= problem.count => start,
                        Pool::Max if accumulate => problem.elements(x, o, q).fold(start, f32::max),
                        Pool::Max => problem.elements(x, o, q).fold(f32::NEG_INFINITY, f32::max),
                        Pool::Sum if accumulate => problem.elements(x, o, q).fold(start, |a, b| a + b),
                        Pool::Sum => problem.elements(x, o, q).sum(),
                    };
                    assert_eq!(got, want, "{isa} {pool:?} {o}, {q} of {problem:?}");
                }
            }
        }
    }
}

#[test]
fn pooling_keeps_nan() {
    let problem = Problem { window: (3, 3), stride: 2, dilation: (1, 1), outputs: 3, count: 9, gap: 0 };
    for isa in Isa::available() {
        for at in 0..problem.input() {
            let mut x = vec![1.0; problem.input()];
            x[at] = f32::NAN;
            let mut y = vec![0.0; problem.output()];
            // SAFETY: the slices span what the arguments name.
            unsafe { table(isa).pool_row(Pool::Max, false, &problem.args(&x, &mut y)) };
            for o in 0..problem.outputs {
                for q in 0..problem.count {
                    let poisoned = problem.elements(&x, o, q).any(f32::is_nan);
                    assert_eq!(y[o * problem.y_pitch() + q].is_nan(), poisoned, "{isa} {at} {o}, {q}");
                }
            }
        }
    }
}
