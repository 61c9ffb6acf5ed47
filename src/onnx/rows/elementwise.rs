//! Operators that are maps.

use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::Scalar;
use crate::tensor::{DType, Tensor};

macro_rules! unary {
    ($op:ident) => {
        |call| {
            call.takes_inputs(1)?;
            let x = call.input(0)?;
            Ok(vec![call.unary(UnaryOp::$op, x)?])
        }
    };
}

macro_rules! binary {
    ($op:ident) => {
        |call| {
            call.takes_inputs(2)?;
            let (a, b) = (call.input(0)?, call.input(1)?);
            Ok(vec![call.binary(BinaryOp::$op, a, b)?])
        }
    };
}

pub(super) const ROWS: &[Row] = &[
    row("Abs", &[], unary!(Abs)),
    row("Acos", &[], unary!(Acos)),
    row("Acosh", &[], unary!(Acosh)),
    row("Asin", &[], unary!(Asin)),
    row("Asinh", &[], unary!(Asinh)),
    row("Atan", &[], unary!(Atan)),
    row("Atanh", &[], unary!(Atanh)),
    row("Ceil", &[], unary!(Ceil)),
    row("Cos", &[], unary!(Cos)),
    row("Cosh", &[], unary!(Cosh)),
    row("Erf", &[], unary!(Erf)),
    row("Exp", &[], unary!(Exp)),
    row("Floor", &[], unary!(Floor)),
    row("IsNaN", &[], unary!(IsNan)),
    row("Log", &[], unary!(Log)),
    row("Neg", &[], unary!(Neg)),
    row("Not", &[], unary!(Not)),
    row("BitwiseNot", &[], unary!(Not)),
    row("Round", &[], unary!(Round)),
    row("Sigmoid", &[], unary!(Sigmoid)),
    row("Sign", &[], unary!(Sign)),
    row("Sin", &[], unary!(Sin)),
    row("Sinh", &[], unary!(Sinh)),
    row("Sqrt", &[], unary!(Sqrt)),
    row("Tan", &[], unary!(Tan)),
    row("Tanh", &[], unary!(Tanh)),
    row("Add", &[], binary!(Add)),
    row("Sub", &[], binary!(Sub)),
    row("Mul", &[], binary!(Mul)),
    row("Div", &[], binary!(Div)),
    row("And", &[], binary!(And)),
    row("Or", &[], binary!(Or)),
    row("Xor", &[], binary!(Xor)),
    row("BitwiseAnd", &[], binary!(And)),
    row("BitwiseOr", &[], binary!(Or)),
    row("BitwiseXor", &[], binary!(Xor)),
    row("Equal", &[], binary!(Eq)),
    row("Greater", &[], binary!(Gt)),
    row("GreaterOrEqual", &[], binary!(Ge)),
    row("Less", &[], binary!(Lt)),
    row("LessOrEqual", &[], binary!(Le)),
    row("BitShift", &["direction"], bit_shift),
    row("Mod", &["fmod"], modulus),
    row("Pow", &[], power),
    row("Max", &[], |call| fold_inputs(call, BinaryOp::Max)),
    row("Min", &[], |call| fold_inputs(call, BinaryOp::Min)),
    row("Sum", &[], |call| fold_inputs(call, BinaryOp::Add)),
    row("Mean", &[], mean),
    row("Where", &[], where_),
    row("Cast", &["to", "saturate", "round_mode"], cast),
    row("CastLike", &["saturate", "round_mode"], cast_like),
    row("Identity", &[], |call| Ok(vec![call.input(0)?])),
    row("Dropout", &["seed", "ratio"], dropout),
    row("IsInf", &["detect_negative", "detect_positive"], is_inf),
    row("Reciprocal", &[], |call| activation(call, |x| x.constant(1.0).over(x.x()))),
    row("Relu", &[], |call| activation(call, |x| x.x().max(x.constant(0.0)))),
    row("LeakyRelu", &["alpha"], |call| {
        let alpha = call.float("alpha", 0.01)?;
        activation(call, |x| x.positive().select(x.x(), x.constant(alpha).times(x.x())))
    }),
    row("ThresholdedRelu", &["alpha"], |call| {
        let alpha = call.float("alpha", 1.0)?;
        activation(call, |x| x.x().binary(BinaryOp::Gt, x.constant(alpha)).select(x.x(), x.constant(0.0)))
    }),
    row("Elu", &["alpha"], |call| {
        let alpha = call.float("alpha", 1.0)?;
        activation(call, |x| x.positive().select(x.x(), x.constant(alpha).times(x.exp_minus_1(x.x()))))
    }),
    row("Celu", &["alpha"], |call| {
        let alpha = call.float("alpha", 1.0)?;
        activation(call, |x| {
            let scaled = x.exp_minus_1(x.x().over(x.constant(alpha)));
            x.positive().select(x.x(), x.constant(alpha).times(scaled))
        })
    }),
    row("Selu", &["alpha", "gamma"], |call| {
        let (alpha, gamma) = (call.float("alpha", 1.673_263_2)?, call.float("gamma", 1.050_701)?);
        activation(call, |x| {
            let negative = x.constant(alpha).times(x.exp_minus_1(x.x()));
            x.constant(gamma).times(x.positive().select(x.x(), negative))
        })
    }),
    row("Gelu", &["approximate"], gelu),
    row("Gelu", &[], gelu).domain("com.microsoft"),
    row("QuickGelu", &["alpha"], |call| {
        let alpha = call.float("alpha", 1.702)?;
        activation(call, |x| x.x().times(x.constant(alpha).times(x.x()).unary(UnaryOp::Sigmoid)))
    })
    .domain("com.microsoft"),
    row("Swish", &["alpha"], |call| {
        let alpha = call.float("alpha", 1.0)?;
        activation(call, |x| x.x().times(x.constant(alpha).times(x.x()).unary(UnaryOp::Sigmoid)))
    }),
    row("HardSigmoid", &["alpha", "beta"], |call| {
        let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
        activation(call, |x| x.hard_sigmoid(alpha, beta))
    }),
    row("HardSwish", &[], |call| activation(call, |x| x.x().times(x.hard_sigmoid(1.0 / 6.0, 0.5)))),
    row("Softplus", &[], |call| activation(call, |x| x.softplus())),
    row("Mish", &[], |call| activation(call, |x| x.x().times(x.softplus().unary(UnaryOp::Tanh)))),
    row("Softsign", &[], |call| {
        activation(call, |x| x.x().over(x.constant(1.0).plus(x.x().unary(UnaryOp::Abs))))
    }),
    row("Shrink", &["bias", "lambd"], |call| {
        let (bias, lambda) = (call.float("bias", 0.0)?, call.float("lambd", 0.5)?);
        activation(call, |x| {
            let above = x.x().binary(BinaryOp::Gt, x.constant(lambda));
            let below = x.x().binary(BinaryOp::Lt, x.constant(-lambda));
            let shrunk = below.select(x.x().plus(x.constant(bias)), x.constant(0.0));
            above.select(x.x().binary(BinaryOp::Sub, x.constant(bias)), shrunk)
        })
    }),
    row("Clip", &["min", "max"], clip_attributes).until(10),
    row("Clip", &[], clip_inputs).since(11),
    row("PRelu", &[], prelu),
];

/// The operand of an activation, with the constants of its type.
struct Operand(DType);

impl Operand {
    fn x(&self) -> Scalar {
        Scalar::Input(0)
    }

    /// An attribute's value; attributes are f32.
    fn constant(&self, value: f32) -> Scalar {
        Scalar::constant(f64::from(value), self.0)
    }

    fn positive(&self) -> Scalar {
        self.x().binary(BinaryOp::Gt, self.constant(0.0))
    }

    fn exp_minus_1(&self, x: Scalar) -> Scalar {
        x.unary(UnaryOp::Exp).binary(BinaryOp::Sub, self.constant(1.0))
    }

    fn hard_sigmoid(&self, alpha: f32, beta: f32) -> Scalar {
        let line = self.constant(alpha).times(self.x()).plus(self.constant(beta));
        line.max(self.constant(0.0)).min(self.constant(1.0))
    }

    /// `log(1 + e^x)` without overflow: `max(x, 0) + log(1 + e^-|x|)`.
    fn softplus(&self) -> Scalar {
        let small = self.x().unary(UnaryOp::Abs).unary(UnaryOp::Neg).unary(UnaryOp::Exp);
        self.x().max(self.constant(0.0)).plus(small.unary(UnaryOp::Log1p))
    }
}

fn activation(call: &mut Call<'_>, scalar: impl FnOnce(&Operand) -> Scalar) -> Values {
    call.takes_inputs(1)?;
    let x = call.input(0)?;
    let operand = Operand(call.dtype(x));
    Ok(vec![call.map_scalar(&[x], &scalar(&operand))?])
}

fn bit_shift(call: &mut Call<'_>) -> Values {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let op = match &*call.string("direction", "")? {
        "LEFT" => BinaryOp::Shl,
        "RIGHT" => BinaryOp::Shr,
        other => return Err(call.bad_attribute("direction", other)),
    };
    Ok(vec![call.binary(op, a, b)?])
}

fn modulus(call: &mut Call<'_>) -> Values {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let op = if call.flag("fmod", false)? { BinaryOp::Rem } else { BinaryOp::Mod };
    Ok(vec![call.binary(op, a, b)?])
}

/// The exponent may have another type than the base, which is that of the result. Small powers are products and roots.
fn power(call: &mut Call<'_>) -> Values {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let dtype = call.dtype(a);
    let known = call.known(1, "exponent").ok().flatten().filter(|exponent| exponent.len() == 1);
    let exponent = known.filter(|exponent| exponent.shape().len() <= call.rank(a)).map(|e| e.get_f64(0));
    let result = match exponent {
        Some(1.0) => a,
        Some(2.0) => call.map(&[a], |x| x[0].clone().times(x[0].clone()))?,
        Some(3.0) => call.map(&[a], |x| x[0].clone().times(x[0].clone()).times(x[0].clone()))?,
        Some(0.5) if dtype.is_float() => call.unary(UnaryOp::Sqrt, a)?,
        Some(-1.0) if dtype.is_float() => {
            call.map(&[a], |x| Scalar::constant(1.0, dtype).over(x[0].clone()))?
        }
        Some(_) | None if dtype.is_float() || !call.dtype(b).is_float() => {
            let b = call.cast(b, dtype)?;
            call.binary(BinaryOp::Pow, a, b)?
        }
        Some(_) | None => {
            let exponent = call.dtype(b);
            let a = call.cast(a, exponent)?;
            let power = call.binary(BinaryOp::Pow, a, b)?;
            call.cast(power, dtype)?
        }
    };
    Ok(vec![result])
}

/// Two inputs at a time: a map of all of them would need as many bindings on a device.
fn fold_inputs(call: &mut Call<'_>, op: BinaryOp) -> Values {
    let inputs = call.all_inputs()?;
    let (&first, rest) = inputs.split_first().ok_or_else(|| Refusal::invalid("it has no input"))?;
    let result = rest.iter().try_fold(first, |sum, &input| call.binary(op, sum, input))?;
    Ok(vec![result])
}

fn mean(call: &mut Call<'_>) -> Values {
    let count = call.input_count();
    let sum = fold_inputs(call, BinaryOp::Add)?[0];
    let dtype = call.dtype(sum);
    Ok(vec![call.map(&[sum], |x| x[0].clone().over(Scalar::constant(count as f64, dtype)))?])
}

fn where_(call: &mut Call<'_>) -> Values {
    let inputs = [call.input(0)?, call.input(1)?, call.input(2)?];
    Ok(vec![call.map(&inputs, |x| x[0].clone().select(x[1].clone(), x[2].clone()))?])
}

fn cast(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let dtype = call.dtype_attribute("to")?.ok_or_else(|| Refusal::invalid("attribute to is missing"))?;
    Ok(vec![call.cast(x, dtype)?])
}

fn cast_like(call: &mut Call<'_>) -> Values {
    let (x, like) = (call.input(0)?, call.input(1)?);
    let dtype = call.dtype(like);
    Ok(vec![call.cast(x, dtype)?])
}

/// At inference, and in training with the ratio 0, the identity; the mask lets everything through.
fn dropout(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let nonzero = |tensor: Tensor| tensor.to_f64_vec().iter().any(|&value| value != 0.0);
    if call.known(2, "training mode")?.is_some_and(nonzero) && call.known(1, "ratio")?.is_none_or(nonzero) {
        return Err(Refusal::unsupported("training with a ratio that is not 0: its result is random"));
    }
    let mut results = vec![x];
    if call.output_count() > 1 {
        let shape = call.shape(x);
        let all = call.generate(DType::Bool, &[], |_| 1.0)?;
        results.push(call.broadcast(all, shape)?);
    }
    Ok(results)
}

fn is_inf(call: &mut Call<'_>) -> Values {
    let x = call.input(0)?;
    let (negative, positive) = (call.flag("detect_negative", true)?, call.flag("detect_positive", true)?);
    let dtype = call.dtype(x);
    let infinite =
        |sign: f64, x: &Scalar| x.clone().binary(BinaryOp::Eq, Scalar::constant(sign * f64::INFINITY, dtype));
    let result = call.map(&[x], |x| match (negative, positive) {
        (true, true) => x[0].clone().unary(UnaryOp::IsInf),
        (true, false) => infinite(-1.0, &x[0]),
        (false, true) => infinite(1.0, &x[0]),
        // False, but of the shape of x.
        (false, false) => {
            x[0].clone().unary(UnaryOp::IsInf).binary(BinaryOp::And, Scalar::constant(0.0, DType::Bool))
        }
    })?;
    Ok(vec![result])
}

/// `x * (1 + erf(x / sqrt(2))) / 2`, or its approximation by tanh.
fn gelu(call: &mut Call<'_>) -> Values {
    let approximate = call.string("approximate", "none")?;
    let half = |dtype| Scalar::constant(0.5, dtype);
    match &*approximate {
        "none" => activation(call, |x| {
            let root = Scalar::constant(std::f64::consts::FRAC_1_SQRT_2, x.0);
            let erf = x.x().times(root).unary(UnaryOp::Erf);
            half(x.0).times(x.x()).times(x.constant(1.0).plus(erf))
        }),
        "tanh" => activation(call, |x| {
            let cube = x.x().times(x.x()).times(x.x());
            let inner = x.x().plus(x.constant(0.044_715).times(cube));
            let scale = Scalar::constant((2.0 / std::f64::consts::PI).sqrt(), x.0);
            let tanh = scale.times(inner).unary(UnaryOp::Tanh);
            half(x.0).times(x.x()).times(x.constant(1.0).plus(tanh))
        }),
        other => Err(call.bad_attribute("approximate", other)),
    }
}

fn clip_attributes(call: &mut Call<'_>) -> Values {
    let (low, high) = (call.float("min", f32::MIN)?, call.float("max", f32::MAX)?);
    let (has_low, has_high) = (call.has_attribute("min"), call.has_attribute("max"));
    activation(call, |x| {
        let low = if has_low { x.x().max(x.constant(low)) } else { x.x() };
        if has_high { low.min(x.constant(high)) } else { low }
    })
}

fn clip_inputs(call: &mut Call<'_>) -> Values {
    let mut inputs = vec![call.input(0)?];
    let mut scalar = Scalar::Input(0);
    for (i, op) in [(1, BinaryOp::Max), (2, BinaryOp::Min)] {
        if let Some(limit) = call.optional(i) {
            if call.rank(limit) > 0 && call.shape(limit) != [1] {
                return Err(Refusal::invalid(format!("limit {} is not a scalar", call.fact(limit))));
            }
            scalar = scalar.binary(op, Scalar::Input(inputs.len()));
            inputs.push(limit);
        }
    }
    match inputs[..] {
        [x] => Ok(vec![x]),
        _ => Ok(vec![call.map_scalar(&inputs, &scalar)?]),
    }
}

/// The slope broadcasts to `x`; older exporters give one value a channel as a vector.
fn prelu(call: &mut Call<'_>) -> Values {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    let slope = channel_vector(call, x, slope)?;
    let zero = Scalar::constant(0.0, call.dtype(x));
    let result = call.map(&[x, slope], |x| {
        let negative = x[1].clone().times(x[0].clone());
        x[0].clone().binary(BinaryOp::Lt, zero).select(negative, x[0].clone())
    })?;
    Ok(vec![result])
}

fn channel_vector(call: &mut Call<'_>, x: ValueId, slope: ValueId) -> Result<ValueId, Refusal> {
    let (x, of_slope) = (call.fact(x), call.fact(slope));
    let broadcasts = |last: &usize| *last == of_slope.shape[0] || of_slope.shape[0] == 1;
    let by_channel = of_slope.rank() == 1 && x.rank() > 2 && !x.shape.last().is_some_and(broadcasts);
    if by_channel { call.per_channel(slope, x.rank()) } else { Ok(slope) }
}
