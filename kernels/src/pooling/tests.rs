use super::PoolArgs;
use crate::activation::Activation;
use crate::guard::{Guarded, small_value};
use crate::isa::Isa;
use crate::table;
use crate::tile::lanes::{Edge, Windows};
use crate::tile::{Depth, Finish};
use crate::window::Pool;

/// Windows over an image of vectors: extents, windows, strides, dilations and padding before, each down and across.
#[derive(Clone, Copy, Debug)]
struct Problem {
    image: [usize; 2],
    window: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    before: [usize; 2],
    results: [usize; 2],
}

impl Problem {
    fn args(&self, lanes: usize, pool: Pool, x: &[f32], y: &mut [f32]) -> PoolArgs {
        let [width, lanes] = [self.image[1], lanes].map(|count| count as isize);
        let along = [width * lanes, lanes];
        let [stride, dilation, before] =
            [self.stride, self.dilation, self.before].map(|of| of.map(|at| at as isize));
        let depth = |axis: usize| Depth { count: self.window[axis], a: dilation[axis] * along[axis], b: 0 };
        let edge = |axis: usize| {
            let [line, row] = [0, 1].map(|moving| if moving == axis { stride[axis] as i64 } else { 0 });
            let (start, step) = (-before[axis] as i64, dilation[axis] as i64);
            Edge { start, line, row, step, limit: self.image[axis] as i64 }
        };
        let windows = Windows {
            lines: self.results[0],
            rows: self.results[1],
            depths: [depth(0), depth(1)],
            edges: [edge(0), edge(1)],
            a: x.as_ptr().wrapping_offset(-(before[0] * along[0] + before[1] * along[1])),
            a_line: stride[0] * along[0],
            a_row: stride[1] * along[1],
            c: y.as_mut_ptr(),
            c_line: self.results[1] as isize * lanes,
            c_row: lanes,
            accumulate: false,
            finish: Finish::NONE,
            addend_line: 0,
        };
        PoolArgs { pool, windows, divisor: 1.0 }
    }

    /// The places in the image that the window of a result has.
    fn places(self, result: usize) -> impl Iterator<Item = usize> {
        let at = [result / self.results[1], result % self.results[1]];
        (0..self.window[0] * self.window[1]).filter_map(move |term| {
            let term = [term / self.window[1], term % self.window[1]];
            let [row, column] = [0, 1].map(|axis| {
                (at[axis] * self.stride[axis] + term[axis] * self.dilation[axis])
                    .wrapping_sub(self.before[axis])
            });
            (row < self.image[0] && column < self.image[1]).then(|| row * self.image[1] + column)
        })
    }

    fn image_len(&self) -> usize {
        self.image[0] * self.image[1]
    }

    fn results_len(&self) -> usize {
        self.results[0] * self.results[1]
    }
}

fn problems() -> Vec<Problem> {
    let mut problems = Vec::new();
    for window in [[1, 1], [2, 2], [3, 3], [1, 3], [5, 5], [3, 2], [1, 40]] {
        for stride in [[1, 1], [2, 2], [3, 3], [1, 2]] {
            for dilation in [[1, 1], [2, 2], [1, 2]] {
                for before in [[0, 0], [1, 1], [4, 2]] {
                    for (image, results) in
                        [([7, 9], [5, 8]), ([3, 2], [4, 7]), ([1, 40], [1, 1]), ([14, 14], [14, 14])]
                    {
                        problems.push(Problem { image, window, stride, dilation, before, results });
                    }
                }
            }
        }
    }
    problems
}

fn combined(pool: Pool, from: f32, terms: impl Iterator<Item = f32>) -> f32 {
    match pool {
        Pool::Max => terms.fold(from, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }),
        Pool::Sum => terms.fold(from, |a, b| a + b),
    }
}

fn identity(pool: Pool) -> f32 {
    match pool {
        Pool::Max => f32::NEG_INFINITY,
        Pool::Sum => 0.0,
    }
}

#[test]
fn the_largest_of_bytes_is_that_of_integers() {
    let room = 1 << 14;
    let (mut inputs, mut results) = (Guarded::new(room), Guarded::new(room));
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for (signed, accumulate) in [(false, false), (true, false), (false, true), (true, true)] {
            for problem in problems() {
                let value = |i: usize| (i * 89 % 251) as u8;
                let x: &[u8] = &*inputs.last(problem.image_len() * lanes, value);
                let y: &mut [u8] = results.last(problem.results_len() * lanes, |_| 100);
                let mut args = problem.args(lanes, Pool::Max, &[], &mut []);
                let [down, across] = problem.before.map(|before| before as isize);
                args.windows.a = x
                    .as_ptr()
                    .wrapping_offset(
                        -(down * args.windows.a_line / problem.stride[0] as isize + across * lanes as isize),
                    )
                    .cast();
                args.windows.c = y.as_mut_ptr().cast();
                args.windows.accumulate = accumulate;
                // SAFETY: the slices span what the arguments name.
                unsafe { table(isa).pool_bytes(signed, &args.windows) };
                for (at, &got) in y.iter().enumerate() {
                    let terms = problem.places(at / lanes).map(|place| x[place * lanes + at % lanes]);
                    let terms = terms.chain(accumulate.then_some(100));
                    let want = if signed {
                        terms.map(u8::cast_signed).max().unwrap_or(i8::MIN).cast_unsigned()
                    } else {
                        terms.max().unwrap_or(0)
                    };
                    assert_eq!(got, want, "{isa} {problem:?} at {at}");
                }
            }
        }
    }
}

#[test]
fn windows_are_shorter_at_an_edge() {
    let room = 1 << 14;
    let (mut inputs, mut results) = (Guarded::new(room), Guarded::new(room));
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for problem in problems() {
            let x = &*inputs.last(problem.image_len() * lanes, |i| small_value(i) - 0.5);
            for (pool, accumulate) in [Pool::Max, Pool::Sum].into_iter().flat_map(|p| [(p, false), (p, true)])
            {
                let y = results.last(problem.results_len() * lanes, |_| 0.25);
                let mut args = problem.args(lanes, pool, x, y);
                args.windows.accumulate = accumulate;
                // SAFETY: the slices span what the arguments name.
                unsafe { table(isa).pool_lanes(&args) };
                for (at, &got) in y.iter().enumerate() {
                    let (result, lane) = (at / lanes, at % lanes);
                    let from = if accumulate { 0.25 } else { identity(pool) };
                    let want =
                        combined(pool, from, problem.places(result).map(|place| x[place * lanes + lane]));
                    assert_eq!(got, want, "{isa} {pool:?} {result}, {lane} of {problem:?}");
                }
            }
        }
    }
}

#[test]
fn the_largest_keeps_nan() {
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for (window, stride) in [([2, 2], [2, 2]), ([3, 3], [1, 1]), ([3, 3], [2, 2]), ([5, 4], [3, 1])] {
            let [image, results, before] = [[6, 7], [4, 5], [1, 1]];
            let problem = Problem { image, window, stride, dilation: [1, 1], before, results };
            for at in 0..problem.image_len() * lanes {
                let mut x = vec![1.0; problem.image_len() * lanes];
                x[at] = f32::NAN;
                let mut y = vec![0.0; problem.results_len() * lanes];
                // SAFETY: the slices span what the arguments name.
                unsafe { table(isa).pool_lanes(&problem.args(lanes, Pool::Max, &x, &mut y)) };
                for (result, got) in y.iter().enumerate() {
                    let poisoned =
                        problem.places(result / lanes).any(|place| place * lanes + result % lanes == at);
                    assert_eq!(got.is_nan(), poisoned, "{isa} {at} {result} of {problem:?}");
                }
            }
        }
    }
}

#[test]
fn results_are_finished() {
    for isa in Isa::available() {
        let lanes = table(isa).lanes;
        for pool in [Pool::Max, Pool::Sum] {
            let [image, results, before] = [[6, 7], [3, 4], [1, 1]];
            let problem =
                Problem { image, window: [3, 3], stride: [2, 2], dilation: [1, 1], before, results };
            let values = |seed: usize, count: usize| -> Vec<f32> {
                (0..count).map(|i| small_value(i + seed)).collect()
            };
            let x = values(0, problem.image_len() * lanes);
            let (start, mut addend) = (values(7, lanes), values(31, problem.results_len() * lanes));
            addend[5] = f32::NAN;
            for activation in [None, Some(Activation::HardSwish)] {
                let mut y = vec![0.0; problem.results_len() * lanes];
                let PoolArgs { windows, .. } = problem.args(lanes, pool, &x, &mut y);
                let (low, high) = (-0.5, 0.75);
                let finish = Finish {
                    start: start.as_ptr(),
                    start_vector: lanes as isize,
                    addend: addend.as_ptr(),
                    addend_row: lanes as isize,
                    addend_vector: lanes as isize,
                    low,
                    high,
                    activation,
                };
                let windows = Windows { finish, addend_line: windows.c_line, ..windows };
                let args = PoolArgs { pool, windows, divisor: 4.0 };
                // SAFETY: the slices span what the arguments name.
                unsafe { table(isa).pool_lanes(&args) };
                for (at, &got) in y.iter().enumerate() {
                    let (result, lane) = (at / lanes, at % lanes);
                    let terms = problem.places(result).map(|place| x[place * lanes + lane]);
                    let total = combined(pool, identity(pool), terms) / 4.0 + start[lane] + addend[at];
                    if at == 5 {
                        assert!(got.is_nan(), "{isa} {pool:?}");
                        continue;
                    }
                    let total = f64::from(total.clamp(low, high));
                    let want = activation.map_or(total, |activation| activation.eval_f64(total));
                    assert!(
                        (f64::from(got) - want).abs() < 1e-6,
                        "{isa} {pool:?} {result}, {lane}: {got} {want}"
                    );
                }
            }
        }
    }
}
