//! Random programs, which must run as the naive interpreter says.

use super::*;
use crate::activation::Activation;

/// A loop nest around one block, with accesses over everything and buffers just large enough. The parallel loops step over
/// parts of the output that the rest of a step fills.
fn program(random: &mut Random) -> Code {
    let mut code = Code::new("random");
    let dtype = random.pick(&[
        ElementType::F32,
        ElementType::F32,
        ElementType::F32,
        ElementType::F64,
        ElementType::I8,
        ElementType::I64,
        ElementType::U8,
        ElementType::Bool,
    ]);
    let loops: Vec<(CounterId, usize)> = (0..random.below(4))
        .map(|at| (code.counter(format!("c{at}")), 1 + random.below(4) as usize))
        .collect();
    let dims: Vec<usize> =
        (0..1 + random.below(3)).map(|_| random.pick(&[1, 2, 3, 5, 16, 17, 63, 64, 70, 130])).collect();
    let bounded = |random: &mut Random, max: usize| {
        if loops.is_empty() || random.chance(2) {
            return Trip::Constant(max);
        }
        let (counter, _) = random.pick(&loops);
        let factor = random.below(9) as i64 - 4;
        let divisor = 1 + random.below(3) as i64;
        let value = affine(random.below(40) as i64 - 3, &[(counter, factor)]);
        Trip::Bounded { max, bounds: vec![Bound { value, divisor }] }
    };
    let trips: Vec<Trip> = dims.iter().map(|max| bounded(random, *max)).collect();

    // A row-major output over loops and dimensions; some strides are dropped where a store combines.
    let combine =
        random.pick(&[Combine::Replace, Combine::Replace, Combine::Add, Combine::Min, Combine::Max]);
    let mut extents: Vec<usize> = loops.iter().map(|(_, trip)| *trip).chain(dims.iter().copied()).collect();
    let depth = loops.len();
    for extent in &mut extents[depth..] {
        if combine != Combine::Replace && random.chance(2) {
            *extent = 1; // reduced over
        }
    }
    let row_major = |extents: &[usize]| -> Vec<i64> {
        (0..extents.len()).map(|at| extents[at + 1..].iter().product::<usize>() as i64).collect()
    };
    let mut strides = row_major(&extents);
    for at in depth..extents.len() {
        if extents[at] == 1 {
            strides[at] = 0;
        }
    }
    let offset = |strides: &[i64], constant: i64| {
        let terms = loops.iter().zip(strides).map(|((counter, _), stride)| (*counter, *stride));
        affine(constant, &terms.filter(|(_, stride)| *stride != 0).collect::<Vec<_>>())
    };
    let y = output(&mut code, 0, dtype, extents.iter().product());
    let to = code.access(y, offset(&strides, 0));

    let mut block = Block::new("block", trips);
    let mut values = Vec::new();
    for index in 1..2 + random.below(3) as usize {
        // Any strides at all, and the buffer around them.
        let steps: Vec<i64> =
            (0..depth + dims.len()).map(|_| random.pick(&[0, 1, 1, 2, -1, 3, 17, 64])).collect();
        let ends = loops.iter().map(|(_, trip)| *trip).chain(dims.iter().copied());
        let reach: Vec<i64> = steps.iter().zip(ends).map(|(step, end)| step * (end as i64 - 1)).collect();
        let low: i64 = reach.iter().filter(|end| **end < 0).sum();
        let high: i64 = reach.iter().filter(|end| **end > 0).sum();
        let (constant, length, guard) = if random.chance(3) {
            // A guard on the very offset, which then need not fit.
            let length = 1 + random.below((high - low + 1) as u64) as i64;
            let constant = random.below((high - low + 3) as u64) as i64 - high - 1;
            let value = offset(&steps, constant);
            (constant, length, vec![Condition { value, strides: steps[depth..].to_vec(), limit: length }])
        } else {
            (-low, high - low + 1, vec![])
        };
        let x = input(&mut code, index, dtype, length as usize);
        let from = code.access(x, offset(&steps, constant));
        values.push(block.load(&code, from, &steps[depth..], guard));
    }
    if random.chance(4) {
        let steps: Vec<i64> = dims.iter().map(|_| random.below(5) as i64 - 2).collect();
        let index = block.index(offset(&vec![1; depth], -3), &steps);
        values.push(block.cast(index, dtype));
    }
    values.push(block.constant(dtype, Literal::Int(2)));
    for _ in 0..random.below(5) {
        let (a, b, c) = (random.pick(&values), random.pick(&values), random.pick(&values));
        values.push(match random.below(5) {
            0 => block.binary(random.pick(&[BinaryOp::Add, BinaryOp::Sub, BinaryOp::Max]), a, b),
            1 => block.unary(random.pick(&[UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign]), a),
            2 => {
                let condition = block.binary(random.pick(&[BinaryOp::Lt, BinaryOp::Ne]), a, b);
                let to = block.register(dtype);
                block.ops.push(BlockOp::Select { to, condition, then: b, otherwise: c });
                to
            }
            3 if dtype == ElementType::F32 => {
                let (to, activation) = (block.register(dtype), random.pick(&Activation::ALL));
                block.ops.push(BlockOp::Activate { to, activation, x: a });
                to
            }
            _ => {
                let half = block.constant(dtype, Literal::Float(0.25));
                let to = block.register(dtype);
                block.ops.push(BlockOp::MultiplyAdd { to, a, b: half, c });
                to
            }
        });
    }
    let value = values[values.len() - 1];
    let mask = random.chance(4).then(|| block.binary(BinaryOp::Ge, value, values[0]));
    let limit = 1 + random.below(30) as i64;
    let guard = random.chance(4).then(|| Condition {
        value: offset(&vec![1; depth], -1),
        strides: dims.iter().map(|_| random.pick(&[-1, 1, 2, 0])).collect(),
        limit,
    });
    let strides = strides[depth..].to_vec();
    let guard = guard.into_iter().collect();
    block.ops.push(BlockOp::Store { access: to, strides, value, combine, guard, mask });

    let shared = random.below(loops.len() as u64 + 1) as usize;
    let mut node = block.node();
    for (at, (counter, trip)) in loops.iter().enumerate().rev() {
        let trip = Trip::Constant(*trip);
        node = Node::Loop(Loop { counter: *counter, trip, parallel: at < shared, body: vec![node] });
    }
    code.body.push(node);
    code
}

#[test]
fn random_programs() {
    let mut random = Random(0x5eed);
    for case in 0..2000 {
        let code = program(&mut random);
        let contents = contents(&code, case + 1);
        let isa = random.pick(&Isa::available());
        let threads = random.pick(&[1, 1, 2, 5]);
        compare(&code, &contents, 1e-4, &[isa], &[threads]);
    }
}
