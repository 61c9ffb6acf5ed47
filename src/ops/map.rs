//! Elementwise operators: one scalar expression over the elements of the inputs.

use super::{Fact, OpDef, OpError, product};
use crate::expr::{BinaryKind, BinaryOp, UnaryOp};
use crate::tensor::{DType, broadcast_shapes};
use std::fmt;

/// A constant of a scalar expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Literal {
    /// A float constant as the bits of an f64.
    Float(u64, DType),
    /// An integer or bool constant; a bool is 0 or 1.
    Int(i64, DType),
}

impl Literal {
    /// The constant of type `dtype` nearest to `value`; integers truncate.
    pub fn new(value: f64, dtype: DType) -> Literal {
        if dtype.is_float() {
            Literal::Float(value.to_bits(), dtype)
        } else {
            Literal::Int(value as i64, dtype)
        }
    }

    /// The constant zero.
    pub fn zero(dtype: DType) -> Literal {
        Literal::new(0.0, dtype)
    }

    /// The element type.
    pub fn dtype(self) -> DType {
        match self {
            Literal::Float(_, dtype) | Literal::Int(_, dtype) => dtype,
        }
    }

    /// The value as f64.
    pub fn as_f64(self) -> f64 {
        match self {
            Literal::Float(bits, _) => f64::from_bits(bits),
            Literal::Int(value, _) => value as f64,
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Literal::Float(bits, _) => write!(f, "{:?}", f64::from_bits(bits)),
            Literal::Int(value, DType::Bool) => write!(f, "{}", value != 0),
            Literal::Int(value, _) => write!(f, "{value}"),
        }
    }
}

/// A scalar expression over one element of each input. Types are strict: operands of a [`BinaryOp`] have one type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// The element of that input.
    Input(usize),
    /// A constant.
    Constant(Literal),
    /// An operation of one operand.
    Unary(UnaryOp, Box<Scalar>),
    /// An operation of two operands.
    Binary(BinaryOp, Box<Scalar>, Box<Scalar>),
    /// `Select(c, a, b)` is `a` where `c` holds, else `b`.
    Select(Box<Scalar>, Box<Scalar>, Box<Scalar>),
    /// Conversion to a type, as [`crate::tensor::Tensor::cast`] says.
    Cast(DType, Box<Scalar>),
}

impl Scalar {
    /// A constant of that value and type.
    pub fn constant(value: f64, dtype: DType) -> Scalar {
        Scalar::Constant(Literal::new(value, dtype))
    }

    /// `op(self)`.
    pub fn unary(self, op: UnaryOp) -> Scalar {
        Scalar::Unary(op, Box::new(self))
    }

    /// `op(self, other)`.
    pub fn binary(self, op: BinaryOp, other: Scalar) -> Scalar {
        Scalar::Binary(op, Box::new(self), Box::new(other))
    }

    /// `self + other`.
    pub fn plus(self, other: Scalar) -> Scalar {
        self.binary(BinaryOp::Add, other)
    }

    /// `self * other`.
    pub fn times(self, other: Scalar) -> Scalar {
        self.binary(BinaryOp::Mul, other)
    }

    /// `self / other`.
    pub fn over(self, other: Scalar) -> Scalar {
        self.binary(BinaryOp::Div, other)
    }

    /// `yes` where `self` holds, else `no`.
    pub fn select(self, yes: Scalar, no: Scalar) -> Scalar {
        Scalar::Select(Box::new(self), Box::new(yes), Box::new(no))
    }

    /// `self` converted to `dtype`.
    pub fn cast(self, dtype: DType) -> Scalar {
        Scalar::Cast(dtype, Box::new(self))
    }

    /// The smaller of both.
    pub fn min(self, other: Scalar) -> Scalar {
        self.binary(BinaryOp::Min, other)
    }

    /// The larger of both.
    pub fn max(self, other: Scalar) -> Scalar {
        self.binary(BinaryOp::Max, other)
    }

    /// The expression with every `Input(i)` replaced by `replace(i)`.
    pub fn substitute(&self, replace: &mut dyn FnMut(usize) -> Scalar) -> Scalar {
        match self {
            Scalar::Input(i) => replace(*i),
            Scalar::Constant(literal) => Scalar::Constant(*literal),
            Scalar::Unary(op, a) => a.substitute(replace).unary(*op),
            Scalar::Binary(op, a, b) => {
                let a = a.substitute(replace);
                a.binary(*op, b.substitute(replace))
            }
            Scalar::Select(c, a, b) => {
                let (c, a) = (c.substitute(replace), a.substitute(replace));
                c.select(a, b.substitute(replace))
            }
            Scalar::Cast(dtype, a) => a.substitute(replace).cast(*dtype),
        }
    }

    /// The expression's type for inputs of the types `inputs`.
    ///
    /// # Errors
    /// When operands have different types, a condition is not a bool, or there is no such input.
    pub fn dtype(&self, inputs: &[DType]) -> Result<DType, OpError> {
        let mismatch = |op: &str, a: DType, b: DType| Err(OpError::shape(format!("`{op}` of {a} and {b}")));
        match self {
            Scalar::Input(i) => inputs
                .get(*i)
                .copied()
                .ok_or_else(|| OpError::shape(format!("the expression reads input {i}, which is not given"))),
            Scalar::Constant(literal) => Ok(literal.dtype()),
            Scalar::Unary(op, a) => {
                let a = a.dtype(inputs)?;
                Ok(if op.is_test() { DType::Bool } else { a })
            }
            Scalar::Binary(op, a, b) => match (a.dtype(inputs)?, b.dtype(inputs)?) {
                (a, b) if a != b => mismatch(op.name(), a, b),
                (a, _) => Ok(if op.is_comparison() { DType::Bool } else { a }),
            },
            Scalar::Select(c, a, b) => match (c.dtype(inputs)?, a.dtype(inputs)?, b.dtype(inputs)?) {
                (DType::Bool, a, b) if a == b => Ok(a),
                (DType::Bool, a, b) => mismatch("select", a, b),
                (c, _, _) => Err(OpError::shape(format!("the condition of a select is {c}"))),
            },
            Scalar::Cast(dtype, a) => a.dtype(inputs).map(|_| *dtype),
        }
    }

    /// Estimated cost of one evaluation in simple operations: a division or root counts 4, a transcendental function 16.
    pub fn cost(&self) -> u64 {
        match self {
            Scalar::Input(_) | Scalar::Constant(_) => 0,
            Scalar::Unary(op, a) => op.flop() + a.cost(),
            Scalar::Binary(op, a, b) => op.flop() + a.cost() + b.cost(),
            Scalar::Select(c, a, b) => 1 + c.cost() + a.cost() + b.cost(),
            Scalar::Cast(_, a) => 1 + a.cost(),
        }
    }

    /// How often the expression contains `Input(input)`.
    pub fn reads(&self, input: usize) -> u64 {
        match self {
            Scalar::Input(i) => u64::from(*i == input),
            Scalar::Constant(_) => 0,
            Scalar::Unary(_, a) | Scalar::Cast(_, a) => a.reads(input),
            Scalar::Binary(_, a, b) => a.reads(input) + b.reads(input),
            Scalar::Select(c, a, b) => c.reads(input) + a.reads(input) + b.reads(input),
        }
    }

    /// The number of operations and functions, conversions not counted.
    fn operations(&self) -> u64 {
        match self {
            Scalar::Input(_) | Scalar::Constant(_) => 0,
            Scalar::Unary(_, a) => 1 + a.operations(),
            Scalar::Binary(_, a, b) => 1 + a.operations() + b.operations(),
            Scalar::Select(c, a, b) => 1 + c.operations() + a.operations() + b.operations(),
            Scalar::Cast(_, a) => a.operations(),
        }
    }
}

/// Infix where the operation has a symbol, else as a call; every infix operation is in parentheses but the outermost.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Operand<'a>(&'a Scalar);
        impl fmt::Display for Operand<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Scalar::Binary(op, _, _) if symbol(*op).is_some() => write!(f, "({})", self.0),
                    Scalar::Input(_)
                    | Scalar::Constant(_)
                    | Scalar::Unary(..)
                    | Scalar::Binary(..)
                    | Scalar::Select(..)
                    | Scalar::Cast(..) => write!(f, "{}", self.0),
                }
            }
        }
        match self {
            Scalar::Input(i) => write!(f, "x{i}"),
            Scalar::Constant(literal) => write!(f, "{literal}"),
            Scalar::Unary(op, a) => write!(f, "{}({a})", op.name()),
            Scalar::Binary(op, a, b) => match symbol(*op) {
                Some(symbol) => write!(f, "{} {symbol} {}", Operand(a), Operand(b)),
                None => write!(f, "{}({a}, {b})", op.name()),
            },
            Scalar::Select(c, a, b) => write!(f, "select({c}, {a}, {b})"),
            Scalar::Cast(dtype, a) => write!(f, "{dtype}({a})"),
        }
    }
}

/// The symbol of plain arithmetic and of comparisons.
fn symbol(op: BinaryOp) -> Option<&'static str> {
    let plain = matches!(op.kind(), BinaryKind::Arithmetic | BinaryKind::Comparison(_));
    op.infix().filter(|_| plain).map(|(symbol, _)| symbol)
}

/// `y[i] = scalar(x0[i], x1[i], ...)`, the inputs broadcast to one shape by the rule of NumPy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    /// The expression of one output element.
    pub scalar: Scalar,
}

impl OpDef for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn attributes(&self) -> String {
        self.scalar.to_string()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let (first, rest) = inputs.split_first().ok_or(OpError::Arity { wanted: "one or more", given: 0 })?;
        let mut shape = first.shape.clone();
        for input in rest {
            shape = broadcast_shapes(&shape, &input.shape).ok_or_else(|| {
                OpError::shape(format!("{:?} does not broadcast with {shape:?}", input.shape))
            })?;
        }
        let dtypes: Vec<DType> = inputs.iter().map(|input| input.dtype).collect();
        Ok(vec![Fact { dtype: self.scalar.dtype(&dtypes)?, shape }])
    }

    fn flop(&self, _inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.scalar.operations().saturating_mul(product(&outputs[0].shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_infix_and_checks_types() {
        let relu6 =
            Scalar::Input(0).binary(BinaryOp::Add, Scalar::Input(1)).binary(BinaryOp::Mul, Scalar::Input(2));
        let relu6 = relu6.max(Scalar::constant(0.0, DType::F32)).min(Scalar::constant(6.0, DType::F32));
        assert_eq!(relu6.to_string(), "min(max((x0 + x1) * x2, 0.0), 6.0)");
        assert_eq!(relu6.dtype(&[DType::F32; 3]), Ok(DType::F32));
        assert!(relu6.dtype(&[DType::F32, DType::F16, DType::F32]).is_err());
        assert!(relu6.dtype(&[DType::F32; 2]).is_err());
        assert_eq!(relu6.cost(), 4);
    }

    #[test]
    fn shapes_broadcast() {
        let add = Map { scalar: Scalar::Input(0).binary(BinaryOp::Add, Scalar::Input(1)) };
        let (a, b) = (Fact::new(DType::F32, &[2, 1, 4]), Fact::new(DType::F32, &[3, 1]));
        assert_eq!(add.infer(&[&a, &b]), Ok(vec![Fact::new(DType::F32, &[2, 3, 4])]));
        assert!(add.infer(&[&a, &Fact::new(DType::F32, &[5, 3])]).is_err());
        assert!(add.infer(&[]).is_err());
    }
}
