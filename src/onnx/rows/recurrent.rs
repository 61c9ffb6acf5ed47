//! Recurrent layers, unrolled over their steps.

use super::{Call, Refusal, Row, Values, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::graph::ValueId;
use crate::ops::{Broadcast, Concat, MatMul, Scalar};
use crate::tensor::{DType, Tensor};

const ATTRIBUTES: &[&str] =
    &["activation_alpha", "activation_beta", "activations", "direction", "hidden_size", "layout"];

pub(super) const ROWS: &[Row] = &[
    row("RNN", ATTRIBUTES, |call| recurrent(call, Cell::Rnn)),
    row(
        "GRU",
        &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "direction",
            "hidden_size",
            "layout",
            "linear_before_reset",
        ],
        |call| {
            let linear_before_reset = call.flag("linear_before_reset", false)?;
            recurrent(call, Cell::Gru { linear_before_reset })
        },
    ),
    row(
        "LSTM",
        &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "direction",
            "hidden_size",
            "input_forget",
            "layout",
        ],
        |call| {
            let input_forget = call.flag("input_forget", false)?;
            recurrent(call, Cell::Lstm { input_forget })
        },
    ),
];

/// The most steps that are unrolled.
const MOST_STEPS: usize = 1024;

#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Rnn,
    Gru { linear_before_reset: bool },
    Lstm { input_forget: bool },
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }

    fn activations(self) -> &'static [&'static str] {
        match self {
            Cell::Rnn => &["Tanh"],
            Cell::Gru { .. } => &["Sigmoid", "Tanh"],
            Cell::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

#[derive(Clone, Copy)]
enum Activation {
    Unary(UnaryOp),
    Relu,
}

impl Activation {
    fn named(name: &str) -> Result<Activation, Refusal> {
        match name.to_ascii_lowercase().as_str() {
            "sigmoid" => Ok(Activation::Unary(UnaryOp::Sigmoid)),
            "tanh" => Ok(Activation::Unary(UnaryOp::Tanh)),
            "relu" => Ok(Activation::Relu),
            _ => Err(Refusal::unsupported(format!("the activation {name}"))),
        }
    }

    fn of(self, x: Scalar, dtype: DType) -> Scalar {
        match self {
            Activation::Unary(op) => x.unary(op),
            Activation::Relu => x.max(Scalar::constant(0.0, dtype)),
        }
    }
}

/// The weights of one direction.
struct Direction {
    /// `[hidden, gates * hidden]` after the transpose flag.
    recurrence: ValueId,
    /// Bias of the recurrence, `[gates * hidden]`, where it is not part of the inputs' products.
    recurrence_bias: Option<ValueId>,
    /// Weights from the cell to the gates i, o, f, `[hidden]` each.
    peepholes: Option<[ValueId; 3]>,
    activations: Vec<Activation>,
}

struct State {
    hidden: ValueId,
    cell: Option<ValueId>,
}

fn recurrent(call: &mut Call<'_>, cell: Cell) -> Values {
    let batch_first = call.flag("layout", false)?;
    let mut x = call.input(0)?;
    if call.rank(x) != 3 {
        return Err(Refusal::invalid(format!("{} is not [steps, batch, features]", call.fact(x))));
    }
    if batch_first {
        x = call.transpose(x, vec![1, 0, 2])?;
    }
    let (w, r) = (call.input(1)?, call.input(2)?);
    let [steps, batch, features] = call.shape(x)[..] else {
        return Err(Refusal::invalid("the input's rank"));
    };
    let [directions, _, hidden] = call.shape(r)[..] else {
        return Err(Refusal::invalid(format!("the recurrence {}", call.fact(r))));
    };
    if steps.saturating_mul(directions) > MOST_STEPS {
        return Err(Refusal::unsupported(format!("a recurrence of {steps} steps")));
    }
    let reverse = match (&*call.string("direction", "forward")?, directions) {
        ("forward", 1) => vec![false],
        ("reverse", 1) => vec![true],
        ("bidirectional", 2) => vec![false, true],
        (direction, _) => return Err(call.bad_attribute("direction", direction)),
    };
    let names = match call.strings("activations")? {
        Some(names) => names,
        None => cell.activations().repeat(directions).into_iter().map(str::to_owned).collect(),
    };
    let per_direction = cell.activations().len();
    if names.len() != per_direction * directions {
        return Err(call.bad_attribute("activations", names));
    }
    let activations = names.iter().map(|name| Activation::named(name)).collect::<Result<Vec<_>, _>>()?;
    let flat = call.view(x, vec![steps * batch, features])?;
    let (mut outputs, mut last_hidden, mut last_cell) = (Vec::new(), Vec::new(), Vec::new());
    for (d, &reverse) in reverse.iter().enumerate() {
        let gates = cell.gates().saturating_mul(hidden);
        let part = |call: &mut Call<'_>, value: ValueId| -> Result<ValueId, Refusal> {
            let one = call.slice(value, 0, d, 1)?;
            let shape = call.shape(one)[1..].to_vec();
            call.view(one, shape)
        };
        let (input_weights, recurrence) = (part(call, w)?, part(call, r)?);
        let mut products =
            call.add(MatMul { transpose_a: false, transpose_b: true }, &[flat, input_weights])?;
        let mut recurrence_bias = None;
        if let Some(bias) = call.optional(3) {
            let bias = part(call, bias)?;
            let (own, of_recurrence) = (call.slice(bias, 0, 0, gates)?, call.slice(bias, 0, gates, gates)?);
            products = call.binary(BinaryOp::Add, products, own)?;
            match cell {
                // The reset gate scales the bias too.
                Cell::Gru { .. } => recurrence_bias = Some(of_recurrence),
                Cell::Rnn | Cell::Lstm { .. } => {
                    products = call.binary(BinaryOp::Add, products, of_recurrence)?
                }
            }
        }
        let peepholes = match call.optional(7) {
            None => None,
            Some(peepholes) => {
                let peepholes = part(call, peepholes)?;
                let each = |call: &mut Call<'_>, i: usize| call.slice(peepholes, 0, i * hidden, hidden);
                Some([each(call, 0)?, each(call, 1)?, each(call, 2)?])
            }
        };
        let direction = Direction {
            recurrence,
            recurrence_bias,
            peepholes,
            activations: activations[d * per_direction..][..per_direction].to_vec(),
        };
        let initial = |call: &mut Call<'_>, i: usize| -> Result<ValueId, Refusal> {
            match call.optional(i) {
                Some(value) => {
                    let value = if batch_first { call.transpose(value, vec![1, 0, 2])? } else { value };
                    part(call, value)
                }
                None => {
                    let zero = call.constant(Tensor::zeros(call.dtype(x), &[]));
                    call.add(Broadcast { shape: vec![batch, hidden] }, &[zero])
                }
            }
        };
        let mut state = State {
            hidden: initial(call, 5)?,
            cell: match cell {
                Cell::Lstm { .. } => Some(initial(call, 6)?),
                Cell::Rnn | Cell::Gru { .. } => None,
            },
        };
        let mut hiddens = vec![None; steps];
        for i in 0..steps {
            let step = if reverse { steps - 1 - i } else { i };
            let input = call.slice(products, 0, step * batch, batch)?;
            let next = advance(call, cell, &direction, &state, input, hidden)?;
            let (next, shown) = masked(call, step, state, next)?;
            hiddens[step] = Some(call.view(shown, vec![1, 1, batch, hidden])?);
            state = next;
        }
        let hiddens: Vec<ValueId> = hiddens.into_iter().flatten().collect();
        outputs.push(joined(call, 0, &hiddens)?);
        last_hidden.push(call.view(state.hidden, vec![1, batch, hidden])?);
        if let Some(cell) = state.cell {
            last_cell.push(call.view(cell, vec![1, batch, hidden])?);
        }
    }
    let mut results = vec![joined(call, 1, &outputs)?, joined(call, 0, &last_hidden)?];
    if !last_cell.is_empty() {
        results.push(joined(call, 0, &last_cell)?);
    }
    if batch_first {
        results[0] = call.transpose(results[0], vec![2, 0, 1, 3])?;
        for result in &mut results[1..] {
            *result = call.transpose(*result, vec![1, 0, 2])?;
        }
    }
    Ok(results)
}

fn joined(call: &mut Call<'_>, axis: usize, parts: &[ValueId]) -> Result<ValueId, Refusal> {
    match parts {
        [] => Err(Refusal::unsupported("a recurrence of no step")),
        [part] => Ok(*part),
        parts => call.add(Concat { axis }, parts),
    }
}

/// The state after a step whose gates' input products are `input[batch, gates * hidden]`.
fn advance(
    call: &mut Call<'_>,
    cell: Cell,
    direction: &Direction,
    state: &State,
    input: ValueId,
    hidden: usize,
) -> Result<State, Refusal> {
    let dtype = call.dtype(input);
    let transposed = MatMul { transpose_a: false, transpose_b: true };
    let activation = |i: usize, x: Scalar| direction.activations[i].of(x, dtype);
    let x = Scalar::Input;
    match cell {
        Cell::Rnn => {
            let product = call.add(transposed, &[state.hidden, direction.recurrence])?;
            let next = call.map_scalar(&[input, product], &activation(0, x(0).plus(x(1))))?;
            Ok(State { hidden: next, cell: None })
        }
        Cell::Gru { linear_before_reset } => {
            let part = |call: &mut Call<'_>, value: ValueId, axis: usize, from: usize, count: usize| {
                call.slice(value, axis, from * hidden, count * hidden)
            };
            let one = Scalar::constant(1.0, dtype);
            let zero = call.constant(Tensor::zeros(dtype, &[cell.gates() * hidden]));
            let bias = direction.recurrence_bias.unwrap_or(zero);
            let (r_gates, r_new) =
                (part(call, direction.recurrence, 0, 0, 2)?, part(call, direction.recurrence, 0, 2, 1)?);
            let (b_gates, b_new) = (part(call, bias, 0, 0, 2)?, part(call, bias, 0, 2, 1)?);
            let product = call.add(transposed, &[state.hidden, r_gates])?;
            let from_input = part(call, input, 1, 0, 2)?;
            let gates =
                call.map_scalar(&[from_input, product, b_gates], &activation(0, x(0).plus(x(1)).plus(x(2))))?;
            let (update, reset) = (part(call, gates, 1, 0, 1)?, part(call, gates, 1, 1, 1)?);
            let from_input = part(call, input, 1, 2, 1)?;
            let new = if linear_before_reset {
                let product = call.add(transposed, &[state.hidden, r_new])?;
                let scalar = activation(1, x(0).plus(x(1).times(x(2).plus(x(3)))));
                call.map_scalar(&[from_input, reset, product, b_new], &scalar)?
            } else {
                let kept = call.binary(BinaryOp::Mul, reset, state.hidden)?;
                let product = call.add(transposed, &[kept, r_new])?;
                call.map_scalar(&[from_input, product, b_new], &activation(1, x(0).plus(x(1)).plus(x(2))))?
            };
            let blend = one.binary(BinaryOp::Sub, x(0)).times(x(1)).plus(x(0).times(x(2)));
            Ok(State { hidden: call.map_scalar(&[update, new, state.hidden], &blend)?, cell: None })
        }
        Cell::Lstm { input_forget } => {
            let product = call.add(transposed, &[state.hidden, direction.recurrence])?;
            let sum = call.binary(BinaryOp::Add, input, product)?;
            let before = state.cell.unwrap_or(state.hidden);
            let gate = |call: &mut Call<'_>, i: usize| call.slice(sum, 1, i * hidden, hidden);
            let (i, o, f, c) = (gate(call, 0)?, gate(call, 1)?, gate(call, 2)?, gate(call, 3)?);
            // A gate, looking at a cell where there are peepholes.
            let open = |call: &mut Call<'_>, gate: ValueId, peephole: usize, cell: ValueId| match direction
                .peepholes
            {
                Some(weights) => call.map_scalar(
                    &[gate, weights[peephole], cell],
                    &activation(0, x(0).plus(x(1).times(x(2)))),
                ),
                None => call.map_scalar(&[gate], &activation(0, x(0))),
            };
            let i = open(call, i, 0, before)?;
            let f = if input_forget {
                call.map_scalar(&[i], &Scalar::constant(1.0, dtype).binary(BinaryOp::Sub, x(0)))?
            } else {
                open(call, f, 2, before)?
            };
            let next = x(0).times(x(1)).plus(x(2).times(activation(1, x(3))));
            let next = call.map_scalar(&[f, before, i, c], &next)?;
            let o = open(call, o, 1, next)?;
            let hidden = call.map_scalar(&[o, next], &x(0).times(activation(2, x(1))))?;
            Ok(State { hidden, cell: Some(next) })
        }
    }
}

/// The state after `step`, which sequences that have ended do not change, and what the layer shows: zeros for those.
fn masked(call: &mut Call<'_>, step: usize, old: State, new: State) -> Result<(State, ValueId), Refusal> {
    let Some(lengths) = call.optional(4) else {
        let shown = new.hidden;
        return Ok((new, shown));
    };
    let (dtype, of_lengths) = (call.dtype(new.hidden), call.dtype(lengths));
    let batch = call.shape(lengths).iter().product();
    let lengths = call.view(lengths, vec![batch, 1])?;
    let running = Scalar::constant(step as f64, of_lengths).binary(BinaryOp::Lt, Scalar::Input(0));
    let keep = |call: &mut Call<'_>, new: ValueId, old: ValueId| {
        call.map_scalar(&[lengths, new, old], &running.clone().select(Scalar::Input(1), Scalar::Input(2)))
    };
    let hidden = keep(call, new.hidden, old.hidden)?;
    let cell = match (new.cell, old.cell) {
        (Some(new), Some(old)) => Some(keep(call, new, old)?),
        (new, _) => new,
    };
    let zero = Scalar::constant(0.0, dtype);
    let shown = call.map_scalar(&[lengths, new.hidden], &running.clone().select(Scalar::Input(1), zero))?;
    Ok((State { hidden, cell }, shown))
}
