//! The scalar operations every part of Paisley speaks of, with their meaning: expressions name them, the interpreter
//! evaluates them, the vector kernels and the shader writer implement them.

/// What an operation of one operand does to integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIntegers {
    /// `-x`, wrapping.
    Neg,
    /// `|x|`, wrapping.
    Abs,
    /// -1, 0 or 1.
    Sign,
    /// `x` itself.
    Same,
    /// Bitwise not; logical not of a bool.
    Not,
    /// The bool `false`.
    False,
}

/// Declares [`UnaryOp`]: a row an operation, with its documentation, its name in text forms, the floating-point operations it
/// counts as, what it does to integers (`None` where it has no meaning), and its value on floats.
macro_rules! unary_ops {
    ($($(#[$doc:meta])* $op:ident $name:literal, $flop:literal flop, $integers:expr, |$x:ident| $value:expr;)*) => {
        /// An operation of one operand.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum UnaryOp {
            $($(#[$doc])* $op,)*
        }

        impl UnaryOp {
            /// Every operation, in the order of the declaration.
            pub const ALL: [UnaryOp; [$($name),*].len()] = [$(UnaryOp::$op),*];

            /// The name in text forms: `neg`, `exp` ...
            pub fn name(self) -> &'static str {
                match self {
                    $(UnaryOp::$op => $name,)*
                }
            }

            /// The floating-point operations it counts as where work is estimated.
            pub fn flop(self) -> u64 {
                match self {
                    $(UnaryOp::$op => $flop,)*
                }
            }

            /// What it does to integers and bools; `None` where it has no meaning on them.
            pub fn on_integers(self) -> Option<OnIntegers> {
                use OnIntegers::{Abs, False, Neg, Not, Same, Sign};
                match self {
                    $(UnaryOp::$op => $integers,)*
                }
            }

            /// The meaning on floats; a bool result is 0.0 or 1.0.
            pub fn eval_f64(self, x: f64) -> f64 {
                match self {
                    $(UnaryOp::$op => {
                        let $x = x;
                        $value
                    })*
                }
            }
        }
    };
}

unary_ops! {
    /// `-x`; wraps for integers.
    Neg "neg", 1 flop, Some(Neg), |x| -x;
    /// `|x|`.
    Abs "abs", 1 flop, Some(Abs), |x| x.abs();
    /// -1, 0 or 1 by the sign; NaN stays.
    Sign "sign", 1 flop, Some(Sign), |x| if x == 0.0 || x.is_nan() { x } else { x.signum() };
    /// Largest integer that is at most `x`.
    Floor "floor", 1 flop, Some(Same), |x| x.floor();
    /// Smallest integer that is at least `x`.
    Ceil "ceil", 1 flop, Some(Same), |x| x.ceil();
    /// Nearest integer, ties to even.
    Round "round", 1 flop, Some(Same), |x| x.round_ties_even();
    /// Square root.
    Sqrt "sqrt", 4 flop, None, |x| x.sqrt();
    /// `e^x`.
    Exp "exp", 16 flop, None, |x| x.exp();
    /// Natural logarithm.
    Log "log", 16 flop, None, |x| x.ln();
    /// `log(1 + x)`, precise near 0.
    Log1p "log1p", 16 flop, None, |x| x.ln_1p();
    /// Sine.
    Sin "sin", 16 flop, None, |x| x.sin();
    /// Cosine.
    Cos "cos", 16 flop, None, |x| x.cos();
    /// Tangent.
    Tan "tan", 16 flop, None, |x| x.tan();
    /// Inverse sine.
    Asin "asin", 16 flop, None, |x| x.asin();
    /// Inverse cosine.
    Acos "acos", 16 flop, None, |x| x.acos();
    /// Inverse tangent.
    Atan "atan", 16 flop, None, |x| x.atan();
    /// Hyperbolic sine.
    Sinh "sinh", 16 flop, None, |x| x.sinh();
    /// Hyperbolic cosine.
    Cosh "cosh", 16 flop, None, |x| x.cosh();
    /// Hyperbolic tangent.
    Tanh "tanh", 16 flop, None, |x| x.tanh();
    /// Inverse hyperbolic sine.
    Asinh "asinh", 16 flop, None, |x| x.asinh();
    /// Inverse hyperbolic cosine.
    Acosh "acosh", 16 flop, None, |x| x.acosh();
    /// Inverse hyperbolic tangent.
    Atanh "atanh", 16 flop, None, |x| x.atanh();
    /// Error function.
    Erf "erf", 16 flop, None, |x| erf(x);
    /// `1 / (1 + e^-x)`.
    Sigmoid "sigmoid", 16 flop, None, |x| 1.0 / (1.0 + (-x).exp());
    /// Logical not of a bool, bitwise not of an integer.
    Not "not", 1 flop, Some(Not), |x| truth(x == 0.0);
    /// Whether `x` is NaN; a bool.
    IsNan "is_nan", 1 flop, Some(False), |x| truth(x.is_nan());
    /// Whether `x` is infinite; a bool.
    IsInf "is_inf", 1 flop, Some(False), |x| truth(x.is_infinite());
}

/// What an operation of two operands does, and so which types it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryKind {
    /// A number from numbers.
    Arithmetic,
    /// A quotient or rest of numbers, which jumps where the quotient passes an integer.
    Rounding,
    /// One of the operands.
    Choice,
    /// Of bools, or of the bits of integers.
    Logic,
    /// Of the bits of integers.
    Shift,
    /// A bool from any type.
    Comparison(Comparison),
}

/// A comparison of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a >= b`.
    Ge,
    /// `a == b`.
    Eq,
    /// `a != b`.
    Ne,
}

/// Declares [`BinaryOp`]: a row an operation, with its documentation, its name in text forms, its symbol there with how strongly
/// it binds, the floating-point operations it counts as, its kind, its value on floats, and its value on integers.
macro_rules! binary_ops {
    ($($(#[$doc:meta])* $op:ident $name:literal $infix:expr, $flop:literal flop, $kind:expr,
        |$x:ident, $y:ident| $float:expr, |$a:ident, $b:ident| $integer:expr;)*) => {
        /// An operation of two operands of one type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum BinaryOp {
            $($(#[$doc])* $op,)*
        }

        impl BinaryOp {
            /// Every operation, in the order of the declaration.
            pub const ALL: [BinaryOp; [$($name),*].len()] = [$(BinaryOp::$op),*];

            /// The name in text forms; infix operations print as their symbol instead.
            pub fn name(self) -> &'static str {
                match self {
                    $(BinaryOp::$op => $name,)*
                }
            }

            /// The symbol of an infix operation in text forms, and how strongly it binds; the others print as calls.
            pub fn infix(self) -> Option<(&'static str, u8)> {
                match self {
                    $(BinaryOp::$op => $infix,)*
                }
            }

            /// The floating-point operations it counts as where work is estimated.
            pub fn flop(self) -> u64 {
                match self {
                    $(BinaryOp::$op => $flop,)*
                }
            }

            /// What it does.
            pub fn kind(self) -> BinaryKind {
                use BinaryKind::{Arithmetic, Choice, Comparison as Compare, Logic, Rounding, Shift};
                use Comparison::{Eq, Ge, Gt, Le, Lt, Ne};
                match self {
                    $(BinaryOp::$op => $kind,)*
                }
            }

            /// The meaning on floats; a bool result is 0.0 or 1.0. Bitwise operations treat their operands as bools.
            pub fn eval_f64(self, a: f64, b: f64) -> f64 {
                match self {
                    $(BinaryOp::$op => {
                        let ($x, $y) = (a, b);
                        $float
                    })*
                }
            }

            /// The meaning on signed integers before they wrap to their width; a bool result is 0 or 1.
            pub fn eval_i64(self, a: i64, b: i64) -> i64 {
                match self {
                    $(BinaryOp::$op => {
                        let ($a, $b) = (a, b);
                        $integer
                    })*
                }
            }
        }
    };
}

binary_ops! {
    /// `a + b`; wraps for integers.
    Add "add" Some(("+", 4)), 1 flop, Arithmetic, |a, b| a + b, |a, b| a.wrapping_add(b);
    /// `a - b`; wraps for integers.
    Sub "sub" Some(("-", 4)), 1 flop, Arithmetic, |a, b| a - b, |a, b| a.wrapping_sub(b);
    /// `a * b`; wraps for integers.
    Mul "mul" Some(("*", 5)), 1 flop, Arithmetic, |a, b| a * b, |a, b| a.wrapping_mul(b);
    /// `a / b`; truncates for integers, where division by 0 gives 0.
    Div "div" Some(("/", 5)), 4 flop, Arithmetic, |a, b| a / b, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) };
    /// `floor(a / b)`; 0 for integer division by 0.
    FloorDiv "floor_div" Some(("//", 5)), 4 flop, Rounding, |a, b| (a / b).floor(), |a, b| floor_quotient(a, b);
    /// `a - b * floor(a / b)`: the sign of `b`; 0 for integer `b = 0`.
    Mod "mod" Some(("%", 5)), 4 flop, Rounding, |a, b| floor_rest_of_floats(a, b), |a, b| floor_rest(a, b);
    /// `a - b * trunc(a / b)`: the sign of `a`; 0 for integer `b = 0`.
    Rem "rem" None, 4 flop, Rounding, |a, b| a % b, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) };
    /// The smaller; NaN if one is NaN.
    Min "min" None, 1 flop, Choice, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }, |a, b| a.min(b);
    /// The larger; NaN if one is NaN.
    Max "max" None, 1 flop, Choice, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }, |a, b| a.max(b);
    /// `a^b`; for integers by repeated multiplication with wrapping, negative exponents give the truncated quotient.
    Pow "pow" None, 16 flop, Arithmetic, |a, b| a.powf(b), |a, b| integer_power(a, b);
    /// Logical and of bools, bitwise and of integers.
    And "and" Some(("and", 2)), 1 flop, Logic, |a, b| truth(a != 0.0 && b != 0.0), |a, b| a & b;
    /// Logical or of bools, bitwise or of integers.
    Or "or" Some(("or", 1)), 1 flop, Logic, |a, b| truth(a != 0.0 || b != 0.0), |a, b| a | b;
    /// Logical xor of bools, bitwise xor of integers.
    Xor "xor" None, 1 flop, Logic, |a, b| truth((a != 0.0) != (b != 0.0)), |a, b| a ^ b;
    /// Shift to the left; 0 when `b` is negative or at least the width.
    Shl "shl" None, 1 flop, Shift, |_a, _b| f64::NAN, |a, b| shifted_left(a, b);
    /// Shift to the right, keeping the sign of signed types; 0 (or -1) when `b` is negative or at least the width.
    Shr "shr" None, 1 flop, Shift, |_a, _b| f64::NAN, |a, b| a >> if (0..64).contains(&b) { b } else { 63 };
    /// `a < b`; a bool.
    Lt "lt" Some(("<", 3)), 1 flop, Compare(Lt), |a, b| truth(a < b), |a, b| i64::from(a < b);
    /// `a <= b`; a bool.
    Le "le" Some(("<=", 3)), 1 flop, Compare(Le), |a, b| truth(a <= b), |a, b| i64::from(a <= b);
    /// `a > b`; a bool.
    Gt "gt" Some((">", 3)), 1 flop, Compare(Gt), |a, b| truth(a > b), |a, b| i64::from(a > b);
    /// `a >= b`; a bool.
    Ge "ge" Some((">=", 3)), 1 flop, Compare(Ge), |a, b| truth(a >= b), |a, b| i64::from(a >= b);
    /// `a == b`; a bool.
    Eq "eq" Some(("==", 3)), 1 flop, Compare(Eq), |a, b| truth(a == b), |a, b| i64::from(a == b);
    /// `a != b`; a bool.
    Ne "ne" Some(("!=", 3)), 1 flop, Compare(Ne), |a, b| truth(a != b), |a, b| i64::from(a != b);
}

impl UnaryOp {
    /// Whether the result is a bool whatever the operand's type.
    pub fn is_test(self) -> bool {
        self.on_integers() == Some(OnIntegers::False)
    }

    /// Whether the result on floats jumps somewhere, so that a last digit of the operand may decide it: what only picks or
    /// tests integers does.
    pub fn jumps(self) -> bool {
        match self.on_integers() {
            Some(OnIntegers::Sign | OnIntegers::Same | OnIntegers::Not | OnIntegers::False) => true,
            Some(OnIntegers::Neg | OnIntegers::Abs) | None => false,
        }
    }

    /// The meaning on integers before they wrap to their width; `None` where the operation has none. `Not` is bitwise.
    pub fn eval_i64(self, x: i64) -> Option<i64> {
        self.on_integers().map(|meaning| match meaning {
            OnIntegers::Neg => x.wrapping_neg(),
            OnIntegers::Abs => x.wrapping_abs(),
            OnIntegers::Sign => x.signum(),
            OnIntegers::Same => x,
            OnIntegers::Not => !x,
            OnIntegers::False => 0,
        })
    }
}

impl BinaryOp {
    /// The comparison it is; `None` for the others.
    pub fn comparison(self) -> Option<Comparison> {
        if let BinaryKind::Comparison(comparison) = self.kind() { Some(comparison) } else { None }
    }

    /// Whether the result is a bool whatever the operands' type.
    pub fn is_comparison(self) -> bool {
        self.comparison().is_some()
    }

    /// Whether the result on floats jumps somewhere, so that a last digit of an operand may decide it.
    pub fn jumps(self) -> bool {
        match self.kind() {
            BinaryKind::Rounding | BinaryKind::Logic | BinaryKind::Comparison(_) => true,
            BinaryKind::Arithmetic | BinaryKind::Choice | BinaryKind::Shift => false,
        }
    }
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn floor_quotient(a: i64, b: i64) -> i64 {
    if b == 0 { 0 } else { a.wrapping_div(b) - i64::from(a.wrapping_rem(b) != 0 && (a < 0) != (b < 0)) }
}

fn floor_rest(a: i64, b: i64) -> i64 {
    let rest = if b == 0 { 0 } else { a.wrapping_rem(b) };
    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
}

fn floor_rest_of_floats(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

fn shifted_left(a: i64, b: i64) -> i64 {
    u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0)
}

fn integer_power(base: i64, exponent: i64) -> i64 {
    match u64::try_from(exponent) {
        Ok(mut exponent) => {
            let (mut result, mut square) = (1i64, base);
            while exponent > 0 {
                if exponent & 1 == 1 {
                    result = result.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                exponent >>= 1;
            }
            result
        }
        Err(_) => match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        },
    }
}

/// The error function, to double precision: its Maclaurin series near 0, the continued fraction of `erfc` beyond
/// (Abramowitz and Stegun 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    if magnitude.is_nan() {
        x
    } else if magnitude > 6.0 {
        1.0_f64.copysign(x)
    } else if magnitude < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    } else {
        let fraction = (1..=60).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (magnitude + tail));
        let complement =
            (-magnitude * magnitude).exp() / (std::f64::consts::PI.sqrt() * (magnitude + fraction));
        (1.0 - complement).copysign(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_tables() {
        for (x, want) in [
            (0.0, 0.0),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.0, 0.9953222650189527),
            (3.0, 0.9999779095030014),
            (-2.6, -0.9997639655834707),
        ] {
            assert!((erf(x) - want).abs() < 1e-15, "{x}: {} {want}", erf(x));
        }
    }

    #[test]
    fn integer_division_rounds_as_named() {
        assert_eq!(BinaryOp::Div.eval_i64(-7, 2), -3);
        assert_eq!(BinaryOp::FloorDiv.eval_i64(-7, 2), -4);
        assert_eq!(BinaryOp::Mod.eval_i64(-7, 3), 2);
        assert_eq!(BinaryOp::Rem.eval_i64(-7, 3), -1);
        assert_eq!(BinaryOp::Div.eval_i64(i64::MIN, -1), i64::MIN);
        assert_eq!(BinaryOp::Mod.eval_i64(1, 0), 0);
        assert_eq!(BinaryOp::Pow.eval_i64(-2, 5), -32);
        assert_eq!(BinaryOp::Pow.eval_i64(2, -1), 0);
    }

    #[test]
    fn places_out_of_range_shift_everything_out() {
        for places in [-1, 64, i64::MIN] {
            assert_eq!(BinaryOp::Shl.eval_i64(-8, places), 0);
            assert_eq!(BinaryOp::Shr.eval_i64(-8, places), -1);
            assert_eq!(BinaryOp::Shr.eval_i64(8, places), 0);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> =
            UnaryOp::ALL.map(UnaryOp::name).into_iter().chain(BinaryOp::ALL.map(BinaryOp::name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), UnaryOp::ALL.len() + BinaryOp::ALL.len());
    }
}
