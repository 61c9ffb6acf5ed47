//! Operations as WGSL text, and the helper functions they need.

use crate::expr::{BinaryOp, Comparison, OnIntegers, UnaryOp};
use crate::tensor::DType;

/// A function of `shaders/`.
pub(super) struct Helper {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    /// Other helpers it calls.
    pub(super) needs: &'static [&'static str],
}

macro_rules! helpers {
    ($($name:literal needs $needs:expr;)*) => {
        [$(Helper {
            name: $name,
            text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            needs: &$needs,
        }),*]
    };
}

/// Every helper, each behind those it needs.
pub(super) const HELPERS: [Helper; 29] = helpers! {
    "infinity_f32" needs [];
    "nan_f32" needs [];
    "is_nan_f32" needs [];
    "is_inf_f32" needs [];
    "erf_f32" needs [];
    "tanh_f32" needs [];
    "sigmoid_f32" needs [];
    "log1p_f32" needs [];
    "asinh_f32" needs ["log1p_f32"];
    "acosh_f32" needs ["log1p_f32", "nan_f32"];
    "atanh_f32" needs ["log1p_f32", "nan_f32", "infinity_f32"];
    "asin_f32" needs ["nan_f32"];
    "acos_f32" needs ["asin_f32"];
    "atan_f32" needs [];
    "pow_f32" needs ["nan_f32", "infinity_f32"];
    "rem_f32" needs ["is_inf_f32"];
    "mod_f32" needs ["is_inf_f32", "rem_f32"];
    "div_i32" needs [];
    "rem_i32" needs [];
    "floor_div_i32" needs ["div_i32", "rem_i32"];
    "mod_i32" needs ["rem_i32"];
    "pow_i32" needs [];
    "shl_i32" needs [];
    "shr_i32" needs [];
    "div_u32" needs [];
    "rem_u32" needs [];
    "pow_u32" needs [];
    "shl_u32" needs [];
    "shr_u32" needs [];
};

/// How strongly the outermost operation of a text binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// `a || b`
    Or,
    /// `a && b`
    And,
    /// `a < b`
    Compare,
    /// `a >> b`, `a & b`: always in parentheses inside another operation.
    Bits,
    /// `a + b`
    Sum,
    /// `a * b`
    Product,
    /// `-a`
    Unary,
    /// A name, call, literal or element.
    Primary,
}

/// A piece of an expression.
#[derive(Clone, Debug)]
pub(super) struct Fragment {
    pub(super) text: String,
    pub(super) level: Level,
}

impl Fragment {
    pub(super) fn new(text: impl Into<String>, level: Level) -> Fragment {
        Fragment { text: text.into(), level }
    }

    pub(super) fn primary(text: impl Into<String>) -> Fragment {
        Fragment::new(text, Level::Primary)
    }

    /// The text as an operand of something that binds as strongly as `level`.
    pub(super) fn at(&self, level: Level) -> String {
        if self.level >= level { self.text.clone() } else { format!("({})", self.text) }
    }

    /// The text as an argument of a call. Comparisons are enclosed, as `f(a < b, c > d)` may read as a template.
    pub(super) fn argument(&self) -> String {
        if self.level == Level::Bits { self.text.clone() } else { self.at(Level::Sum) }
    }
}

/// The WGSL type values of `dtype` have in expressions; `None` for types devices do not have.
pub(super) fn value_type(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::F16 => Some("f16"),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 => Some("i32"),
        DType::U32 => Some("u32"),
        DType::Bool => Some("bool"),
        DType::F64 | DType::BF16 | DType::U64 => None,
    }
}

/// Writes operations on values of one type, scalars or `vec4`s of it, and notes what they need.
pub(super) struct OpWriter<'h> {
    /// Names of helpers used.
    pub(super) helpers: &'h mut std::collections::BTreeSet<&'static str>,
}

fn call(name: &str, arguments: &[&Fragment]) -> Fragment {
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.argument()).collect();
    Fragment::primary(format!("{name}({})", arguments.join(", ")))
}

fn infix(a: &Fragment, symbol: &str, b: &Fragment, level: Level) -> Fragment {
    let (left, right) = match level {
        Level::Sum => (Level::Sum, Level::Product),
        Level::Product => (Level::Product, Level::Unary),
        Level::Compare => (Level::Sum, Level::Sum),
        Level::And => (if a.level == Level::And { Level::And } else { Level::Compare }, Level::Compare),
        Level::Or => (if a.level == Level::And { Level::Compare } else { Level::Or }, Level::Compare),
        Level::Bits | Level::Unary | Level::Primary => (Level::Unary, Level::Unary),
    };
    Fragment::new(format!("{} {symbol} {}", a.at(left), b.at(right)), level)
}

/// How WGSL says an operation on floats.
enum FloatForm {
    Negation,
    /// A function of WGSL that is exact on each float type.
    Exact(&'static str),
    /// A function of WGSL.
    Builtin(&'static str),
    /// A function of `shaders/` on f32.
    Helper(&'static str),
    /// A function of `shaders/` from f32 to bool.
    Test(&'static str),
}

/// `None` for what has no meaning on floats.
fn float_form(op: UnaryOp) -> Option<FloatForm> {
    use FloatForm::{Builtin, Exact, Helper, Negation, Test};
    Some(match op {
        UnaryOp::Neg => Negation,
        UnaryOp::Abs => Exact("abs"),
        UnaryOp::Sign => Exact("sign"),
        UnaryOp::Floor => Exact("floor"),
        UnaryOp::Ceil => Exact("ceil"),
        UnaryOp::Round => Exact("round"),
        UnaryOp::Sqrt => Builtin("sqrt"),
        UnaryOp::Exp => Builtin("exp"),
        UnaryOp::Log => Builtin("log"),
        UnaryOp::Log1p => Helper("log1p_f32"),
        UnaryOp::Sin => Builtin("sin"),
        UnaryOp::Cos => Builtin("cos"),
        UnaryOp::Tan => Builtin("tan"),
        UnaryOp::Sinh => Builtin("sinh"),
        UnaryOp::Cosh => Builtin("cosh"),
        UnaryOp::Asin => Helper("asin_f32"),
        UnaryOp::Acos => Helper("acos_f32"),
        UnaryOp::Atan => Helper("atan_f32"),
        UnaryOp::Tanh => Helper("tanh_f32"),
        UnaryOp::Asinh => Helper("asinh_f32"),
        UnaryOp::Acosh => Helper("acosh_f32"),
        UnaryOp::Atanh => Helper("atanh_f32"),
        UnaryOp::Erf => Helper("erf_f32"),
        UnaryOp::Sigmoid => Helper("sigmoid_f32"),
        UnaryOp::IsNan => Test("is_nan_f32"),
        UnaryOp::IsInf => Test("is_inf_f32"),
        UnaryOp::Not => return None,
    })
}

/// Whether the text of the operation on `vec4`s is that on scalars.
pub(super) fn is_wide_unary(op: UnaryOp, dtype: DType) -> bool {
    if dtype.is_float() {
        return match float_form(op) {
            Some(FloatForm::Negation | FloatForm::Exact(_)) => true,
            Some(FloatForm::Builtin(_)) => dtype == DType::F32,
            Some(FloatForm::Helper(_) | FloatForm::Test(_)) | None => false,
        };
    }
    match op.on_integers() {
        Some(OnIntegers::Neg | OnIntegers::Abs | OnIntegers::Sign) => {
            matches!(dtype, DType::I32 | DType::I64)
        }
        Some(OnIntegers::Same) => true,
        Some(OnIntegers::Not) => matches!(dtype, DType::Bool | DType::I32 | DType::I64 | DType::U32),
        Some(OnIntegers::False) | None => false,
    }
}

impl OpWriter<'_> {
    fn helper(&mut self, name: &'static str, arguments: &[&Fragment]) -> Fragment {
        self.helpers.insert(name);
        call(name, arguments)
    }

    /// A helper on f32, through a conversion for f16.
    fn float_helper(&mut self, name: &'static str, dtype: DType, arguments: &[&Fragment]) -> Fragment {
        if dtype != DType::F16 {
            return self.helper(name, arguments);
        }
        let wide: Vec<Fragment> = arguments.iter().map(|a| call("f32", &[a])).collect();
        let wide: Vec<&Fragment> = wide.iter().collect();
        let value = self.helper(name, &wide);
        call("f16", &[&value])
    }

    /// A literal of `dtype`.
    pub(super) fn literal(&mut self, value: f64, dtype: DType) -> Fragment {
        if value.is_nan() || value.is_infinite() {
            let name = if value.is_nan() { "nan_f32" } else { "infinity_f32" };
            let value_of = self.float_helper(name, DType::F32, &[]);
            let value_of = if dtype == DType::F16 { call("f16", &[&value_of]) } else { value_of };
            return if value < 0.0 { negated(&value_of) } else { value_of };
        }
        let text = match dtype {
            DType::F16 => format!("{:?}h", value as f32),
            DType::F32
            | DType::F64
            | DType::BF16
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool => format!("{:?}", value as f32),
        };
        signed(text)
    }

    /// A literal of an integer type or bool; what i32 cannot hold saturates.
    pub(super) fn integer(value: i64, dtype: DType) -> Fragment {
        match dtype {
            DType::Bool => Fragment::primary(if value != 0 { "true" } else { "false" }),
            DType::U32 => Fragment::primary(format!("{}u", value as u32)),
            DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U64
            | DType::F16
            | DType::BF16
            | DType::F32
            | DType::F64 => {
                let value = value.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                signed(value.to_string())
            }
        }
    }

    /// `value` cut to the width of a small integer type.
    fn wrapped(value: Fragment, dtype: DType) -> Fragment {
        let shifts = |bits: u32| {
            Fragment::new(format!("({} << {bits}u) >> {bits}u", value.at(Level::Unary)), Level::Bits)
        };
        match dtype {
            DType::I8 => shifts(24),
            DType::I16 => shifts(16),
            DType::U8 => Fragment::new(format!("{} & 255", value.at(Level::Unary)), Level::Bits),
            DType::U16 => Fragment::new(format!("{} & 65535", value.at(Level::Unary)), Level::Bits),
            DType::I32
            | DType::I64
            | DType::U32
            | DType::U64
            | DType::Bool
            | DType::F16
            | DType::BF16
            | DType::F32
            | DType::F64 => value,
        }
    }

    /// One operand; `None` where the operation has no meaning on the type.
    pub(super) fn unary(&mut self, op: UnaryOp, dtype: DType, x: &Fragment) -> Option<Fragment> {
        if dtype == DType::Bool {
            return (op == UnaryOp::Not)
                .then(|| Fragment::new(format!("!{}", x.at(Level::Unary)), Level::Unary));
        }
        if !dtype.is_float() {
            return self.integer_unary(op, dtype, x);
        }
        Some(match float_form(op)? {
            FloatForm::Negation => negated(x),
            FloatForm::Exact(name) => call(name, &[x]),
            // In f32 for f16 too, as the nest's meaning is the exact value rounded.
            FloatForm::Builtin(name) if dtype == DType::F16 => {
                call("f16", &[&call(name, &[&call("f32", &[x])])])
            }
            FloatForm::Builtin(name) => call(name, &[x]),
            FloatForm::Helper(name) => self.float_helper(name, dtype, &[x]),
            FloatForm::Test(name) => {
                let x = if dtype == DType::F16 { call("f32", &[x]) } else { x.clone() };
                self.helper(name, &[&x])
            }
        })
    }

    fn integer_unary(&mut self, op: UnaryOp, dtype: DType, x: &Fragment) -> Option<Fragment> {
        let unsigned = dtype == DType::U32;
        let zero = Self::integer(0, dtype);
        Some(match op.on_integers()? {
            OnIntegers::Neg if unsigned => infix(&zero, "-", x, Level::Sum),
            OnIntegers::Neg => Self::wrapped(negated(x), dtype),
            OnIntegers::Abs if unsigned => x.clone(),
            OnIntegers::Abs => Self::wrapped(call("abs", &[x]), dtype),
            OnIntegers::Sign if unsigned => call("min", &[x, &Self::integer(1, dtype)]),
            OnIntegers::Sign => call("sign", &[x]),
            OnIntegers::Same => x.clone(),
            OnIntegers::Not => {
                Self::wrapped(Fragment::new(format!("~{}", x.at(Level::Unary)), Level::Unary), dtype)
            }
            OnIntegers::False => Fragment::primary("false"),
        })
    }

    /// Two operands of `dtype`; `None` where the operation has no meaning on it.
    pub(super) fn binary(
        &mut self,
        op: BinaryOp,
        dtype: DType,
        a: &Fragment,
        b: &Fragment,
    ) -> Option<Fragment> {
        if dtype == DType::Bool {
            return bool_binary(op, a, b);
        }
        if let Some(symbol) = comparison(op) {
            return Some(infix(a, symbol, b, Level::Compare));
        }
        if dtype.is_float() {
            self.float_binary(op, dtype, a, b)
        } else {
            self.integer_binary(op, dtype, a, b)
        }
    }

    fn float_binary(&mut self, op: BinaryOp, dtype: DType, a: &Fragment, b: &Fragment) -> Option<Fragment> {
        Some(match op {
            BinaryOp::Add => infix(a, "+", b, Level::Sum),
            BinaryOp::Sub => infix(a, "-", b, Level::Sum),
            BinaryOp::Mul => infix(a, "*", b, Level::Product),
            BinaryOp::Div => infix(a, "/", b, Level::Product),
            BinaryOp::FloorDiv => call("floor", &[&infix(a, "/", b, Level::Product)]),
            BinaryOp::Mod => self.float_helper("mod_f32", dtype, &[a, b]),
            BinaryOp::Rem => self.float_helper("rem_f32", dtype, &[a, b]),
            BinaryOp::Min => call("min", &[a, b]),
            BinaryOp::Max => call("max", &[a, b]),
            BinaryOp::Pow => self.float_helper("pow_f32", dtype, &[a, b]),
            BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::Xor
            | BinaryOp::Shl
            | BinaryOp::Shr
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge
            | BinaryOp::Eq
            | BinaryOp::Ne => return None,
        })
    }

    fn integer_binary(&mut self, op: BinaryOp, dtype: DType, a: &Fragment, b: &Fragment) -> Option<Fragment> {
        let unsigned = dtype == DType::U32;
        let mut helper = |signed, other| self.helper(if unsigned { other } else { signed }, &[a, b]);
        let value = match op {
            BinaryOp::Add => infix(a, "+", b, Level::Sum),
            BinaryOp::Sub => infix(a, "-", b, Level::Sum),
            BinaryOp::Mul => infix(a, "*", b, Level::Product),
            BinaryOp::Div => helper("div_i32", "div_u32"),
            BinaryOp::FloorDiv => helper("floor_div_i32", "div_u32"),
            BinaryOp::Mod => helper("mod_i32", "rem_u32"),
            BinaryOp::Rem => helper("rem_i32", "rem_u32"),
            BinaryOp::Min => call("min", &[a, b]),
            BinaryOp::Max => call("max", &[a, b]),
            BinaryOp::Pow => helper("pow_i32", "pow_u32"),
            BinaryOp::And => infix(a, "&", b, Level::Bits),
            BinaryOp::Or => infix(a, "|", b, Level::Bits),
            BinaryOp::Xor => infix(a, "^", b, Level::Bits),
            BinaryOp::Shl => helper("shl_i32", "shl_u32"),
            BinaryOp::Shr => helper("shr_i32", "shr_u32"),
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => {
                return None;
            }
        };
        Some(match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => Self::wrapped(value, dtype),
            BinaryOp::FloorDiv | BinaryOp::Pow | BinaryOp::Shl => Self::wrapped(value, dtype),
            BinaryOp::Mod
            | BinaryOp::Rem
            | BinaryOp::Min
            | BinaryOp::Max
            | BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::Xor
            | BinaryOp::Shr
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge
            | BinaryOp::Eq
            | BinaryOp::Ne => value,
        })
    }

    /// Index division by a positive constant, rounded down. `negative`: the dividend may be negative.
    pub(super) fn divide_index(&mut self, a: &Fragment, divisor: i64, negative: bool) -> Fragment {
        if divisor.count_ones() == 1 {
            let shift = divisor.trailing_zeros();
            return Fragment::new(format!("{} >> {shift}u", a.at(Level::Unary)), Level::Bits);
        }
        let divisor = Self::integer(divisor, DType::I64);
        if negative {
            self.helper("floor_div_i32", &[a, &divisor])
        } else {
            infix(a, "/", &divisor, Level::Product)
        }
    }

    /// The rest of that division, never negative.
    pub(super) fn index_rest(&mut self, a: &Fragment, divisor: i64, negative: bool) -> Fragment {
        if divisor.count_ones() == 1 {
            return Fragment::new(format!("{} & {}", a.at(Level::Unary), divisor - 1), Level::Bits);
        }
        let divisor = Self::integer(divisor, DType::I64);
        if negative {
            self.helper("mod_i32", &[a, &divisor])
        } else {
            infix(a, "%", &divisor, Level::Product)
        }
    }

    /// Conversion, for scalars.
    pub(super) fn cast(from: DType, to: DType, x: &Fragment) -> Option<Fragment> {
        let (source, target) = (value_type(from)?, value_type(to)?);
        if to == DType::Bool {
            let zero = if from.is_float() {
                "0.0"
            } else if from == DType::U32 {
                "0u"
            } else {
                "0"
            };
            return Some(infix(x, "!=", &Fragment::primary(zero), Level::Compare));
        }
        let converted = if source == target { x.clone() } else { call(target, &[x]) };
        let narrow = |low: i64, high: i64| {
            if from.is_float() {
                Fragment::primary(format!("clamp({}, {low}, {high})", converted.argument()))
            } else {
                Self::wrapped(converted.clone(), to)
            }
        };
        let contained = match (from.integer_range(), to.integer_range()) {
            (Some(from), Some(to)) => to.0 <= from.0 && from.1 <= to.1,
            (None, _) | (_, None) => from == DType::Bool,
        };
        Some(match to {
            DType::I8 | DType::I16 | DType::U8 | DType::U16 if contained => converted,
            DType::I8 => narrow(-128, 127),
            DType::I16 => narrow(-32768, 32767),
            DType::U8 => narrow(0, 255),
            DType::U16 => narrow(0, 65535),
            DType::I32
            | DType::I64
            | DType::U32
            | DType::U64
            | DType::Bool
            | DType::F16
            | DType::BF16
            | DType::F32
            | DType::F64 => converted,
        })
    }
}

fn negated(x: &Fragment) -> Fragment {
    // `--x` is a token of its own.
    let operand = if x.text.starts_with('-') { format!("({})", x.text) } else { x.at(Level::Unary) };
    Fragment::new(format!("-{operand}"), Level::Unary)
}

fn signed(text: String) -> Fragment {
    let level = if text.starts_with('-') { Level::Unary } else { Level::Primary };
    Fragment::new(text, level)
}

/// The symbol of a comparison.
fn comparison(op: BinaryOp) -> Option<&'static str> {
    op.comparison().map(|comparison| match comparison {
        Comparison::Lt => "<",
        Comparison::Le => "<=",
        Comparison::Gt => ">",
        Comparison::Ge => ">=",
        Comparison::Eq => "==",
        Comparison::Ne => "!=",
    })
}

fn bool_binary(op: BinaryOp, a: &Fragment, b: &Fragment) -> Option<Fragment> {
    let not = |x: &Fragment| Fragment::new(format!("!{}", x.at(Level::Unary)), Level::Unary);
    Some(match op {
        BinaryOp::And | BinaryOp::Min | BinaryOp::Mul => infix(a, "&&", b, Level::And),
        BinaryOp::Or | BinaryOp::Max | BinaryOp::Add => infix(a, "||", b, Level::Or),
        BinaryOp::Eq => infix(a, "==", b, Level::Compare),
        BinaryOp::Ne | BinaryOp::Xor | BinaryOp::Sub => infix(a, "!=", b, Level::Compare),
        BinaryOp::Lt => infix(&not(a), "&&", b, Level::And),
        BinaryOp::Gt => infix(a, "&&", &not(b), Level::And),
        BinaryOp::Le => infix(&not(a), "||", b, Level::Or),
        BinaryOp::Ge => infix(a, "||", &not(b), Level::Or),
        BinaryOp::Div
        | BinaryOp::FloorDiv
        | BinaryOp::Mod
        | BinaryOp::Rem
        | BinaryOp::Pow
        | BinaryOp::Shl
        | BinaryOp::Shr => return None,
    })
}
