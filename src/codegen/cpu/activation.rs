//! Activations in blocks: products of a value and a gate of it become one operation.

use crate::expr::{BinaryOp, UnaryOp};
use paisley_kernels::Activation;
use paisley_kernels::program as cpu;

/// Replaces what computes an activation, in the blocks of a program, by the operation for it.
pub(super) fn recognise(code: &mut cpu::Code) {
    let mut nodes: Vec<&mut cpu::Node> = code.body.iter_mut().collect();
    while let Some(node) = nodes.pop() {
        match node {
            cpu::Node::Loop(of) => nodes.extend(&mut of.body),
            cpu::Node::Call(cpu::Call::Block(block)) => recognise_in(block),
            cpu::Node::Call(cpu::Call::Tile(_) | cpu::Call::Window(_) | cpu::Call::Transform(_)) => {}
        }
    }
}

fn recognise_in(block: &mut cpu::Block) {
    let is_float = |register: &cpu::Register| block.registers[register.index()] == cpu::ElementType::F32;
    let mut changed = false;
    // What is used last stands for the most.
    for at in (0..block.ops.len()).rev() {
        let Some(to) = block.ops[at].result().filter(is_float) else { continue };
        if let Some((activation, x)) = (Values { ops: &block.ops[..=at] }).activation(to) {
            block.ops[at] = cpu::BlockOp::Activate { to, activation, x };
            changed = true;
        }
    }
    if changed {
        remove_unused(block);
    }
}

/// Removes operations whose result nothing uses, but for those that may end the run.
fn remove_unused(block: &mut cpu::Block) {
    let mut used = vec![false; block.registers.len()];
    let mut kept = vec![];
    for op in std::mem::take(&mut block.ops).into_iter().rev() {
        let unused = op.result().is_some_and(|to| !used[to.index()]);
        if unused && !matches!(op, cpu::BlockOp::Gather { .. }) {
            continue;
        }
        op.operands().for_each(|operand| used[operand.index()] = true);
        kept.push(op);
    }
    kept.reverse();
    block.ops = kept;
}

/// A gate times `scale`, over `x`.
#[derive(Clone, Copy)]
struct Gate {
    activation: Activation,
    x: cpu::Register,
    scale: f64,
}

/// `factor * x + addend`.
#[derive(Clone, Copy)]
struct Linear {
    factor: f64,
    x: cpu::Register,
    addend: f64,
}

/// What the registers of a straight-line program hold.
struct Values<'a> {
    ops: &'a [cpu::BlockOp],
}

impl Values<'_> {
    fn set_by(&self, register: cpu::Register) -> Option<&cpu::BlockOp> {
        self.ops.iter().find(|op| op.result() == Some(register))
    }

    fn constant(&self, register: cpu::Register) -> Option<f64> {
        match self.set_by(register) {
            Some(cpu::BlockOp::Constant { value: cpu::Literal::Float(value), .. }) => Some(*value),
            _other => None,
        }
    }

    /// The activation that `register` is of another register: a product of that, a gate of it and constants.
    fn activation(&self, register: cpu::Register) -> Option<(Activation, cpu::Register)> {
        let is_product = matches!(
            self.set_by(register),
            Some(cpu::BlockOp::Binary { op: BinaryOp::Mul | BinaryOp::Div, .. })
        );
        let results = is_product.then(|| self.ops.iter().filter_map(cpu::BlockOp::result));
        results.into_iter().flatten().flat_map(|result| Some((result, self.gate(result)?))).find_map(
            |(result, gate)| {
                let mut left = vec![gate.x, result];
                let scale = self.product(register, &mut left)?;
                (left.is_empty() && near(scale * gate.scale, 1.0)).then_some((gate.activation, gate.x))
            },
        )
    }

    /// The constant by which `register` is a multiple of those of `factors` that are taken out of it, each once; `None` where it has
    /// another factor.
    fn product(&self, register: cpu::Register, factors: &mut Vec<cpu::Register>) -> Option<f64> {
        if let Some(at) = factors.iter().position(|factor| *factor == register) {
            factors.swap_remove(at);
            return Some(1.0);
        }
        if let Some(value) = self.constant(register) {
            return Some(value);
        }
        match self.set_by(register)? {
            cpu::BlockOp::Binary { op: BinaryOp::Mul, a, b, .. } => {
                Some(self.product(*a, factors)? * self.product(*b, factors)?)
            }
            cpu::BlockOp::Binary { op: BinaryOp::Div, a, b, .. } => {
                Some(self.product(*a, factors)? / self.constant(*b)?)
            }
            _other => None,
        }
    }

    /// The gate that `register` is a multiple of.
    fn gate(&self, register: cpu::Register) -> Option<Gate> {
        if let Some(cpu::BlockOp::Unary { op: UnaryOp::Sigmoid, x, .. }) = self.set_by(register) {
            return Some(Gate { activation: Activation::Silu, x: *x, scale: 1.0 });
        }
        if let Some((inner, high)) = self.clamped(register) {
            let hard =
                |line: &Linear| near(6.0 * line.factor, high) && near(2.0 * line.addend, high) && high > 0.0;
            let line = self.linear(inner).into_iter().find(hard)?;
            return Some(Gate { activation: Activation::HardSwish, x: line.x, scale: high });
        }
        // (1 + erf(x / sqrt(2))) / 2, twice.
        self.linear(register).into_iter().find_map(|line| {
            let Some(cpu::BlockOp::Unary { op: UnaryOp::Erf, x, .. }) = self.set_by(line.x) else {
                return None;
            };
            let scaled = |of: &Linear| near(of.factor, std::f64::consts::FRAC_1_SQRT_2) && of.addend == 0.0;
            let argument = self.linear(*x).into_iter().find(scaled)?;
            let fits = near(line.factor, line.addend) && line.factor > 0.0;
            let scale = 2.0 * line.factor;
            fits.then_some(Gate { activation: Activation::Gelu, x: argument.x, scale })
        })
    }

    /// What is clamped to 0 and an upper limit, and that limit.
    fn clamped(&self, register: cpu::Register) -> Option<(cpu::Register, f64)> {
        let (mut at, mut low, mut high) = (register, None, None);
        while let Some(cpu::BlockOp::Binary { op: op @ (BinaryOp::Max | BinaryOp::Min), a, b, .. }) =
            self.set_by(at)
        {
            let (x, limit) =
                self.constant(*b).map(|limit| (*a, limit)).or(self.constant(*a).map(|limit| (*b, limit)))?;
            let known = if *op == BinaryOp::Max { &mut low } else { &mut high };
            if known.replace(limit).is_some() {
                return None;
            }
            at = x;
        }
        (low == Some(0.0)).then_some((at, high?))
    }

    /// The lines that `register` is on: over itself, over what that is a line over, and so on.
    fn linear(&self, register: cpu::Register) -> Vec<Linear> {
        let mut lines = vec![Linear { factor: 1.0, x: register, addend: 0.0 }];
        let mut line = lines[0];
        while let Some((factor, x, addend)) = self.line(line.x) {
            line = Linear { factor: line.factor * factor, x, addend: line.factor * addend + line.addend };
            lines.push(line);
        }
        lines
    }

    /// One operation as `factor * x + addend`.
    fn line(&self, register: cpu::Register) -> Option<(f64, cpu::Register, f64)> {
        let with_constant = |a: cpu::Register, b: cpu::Register| {
            self.constant(b).map(|value| (a, value)).or(self.constant(a).map(|value| (b, value)))
        };
        match self.set_by(register)? {
            cpu::BlockOp::Binary { op: BinaryOp::Add, a, b, .. } => {
                with_constant(*a, *b).map(|(x, value)| (1.0, x, value))
            }
            cpu::BlockOp::Binary { op: BinaryOp::Mul, a, b, .. } => {
                with_constant(*a, *b).map(|(x, value)| (value, x, 0.0))
            }
            cpu::BlockOp::Binary { op: BinaryOp::Div, a, b, .. } => {
                self.constant(*b).map(|value| (1.0 / value, *a, 0.0))
            }
            cpu::BlockOp::MultiplyAdd { a, b, c, .. } => {
                let (x, factor) = with_constant(*a, *b)?;
                Some((factor, x, self.constant(*c)?))
            }
            _other => None,
        }
    }
}

/// Whether two constants are the same but for rounding to single precision.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}
