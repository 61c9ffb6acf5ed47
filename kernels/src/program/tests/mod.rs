//! The executor against the naive interpreter, on programs written here and on random ones.

mod naive;
mod programs;
mod random;
mod tiles;
mod transforms;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::*;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::table::table;
use naive::{Number, interpret};

/// Runs code once by the executor, with the given contents of its buffers; gives what is in the external buffers after.
fn execute(
    code: &Code,
    isa: Isa,
    threads: usize,
    contents: &[Vec<Number>],
) -> Result<Vec<Vec<Number>>, RunError> {
    // SAFETY: the tests' parallel loops write apart.
    let program = Arc::new(unsafe { Program::new(code.clone(), table(isa)) }.unwrap());
    let mut bindings = vec![Binding { region: Region::Arena, offset_bytes: 0 }; program.bindings.len()];
    let (mut constants, mut written, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (buffer, contents) in code.buffers.iter().zip(contents) {
        let Place::External { index, writable } = buffer.place else { continue };
        let mut bytes = vec![0; buffer.length * buffer.dtype.size_bytes()];
        for (value, bytes) in contents.iter().zip(bytes.chunks_exact_mut(buffer.dtype.size_bytes())) {
            value.write(buffer.dtype, bytes);
        }
        if writable {
            bindings[index] = Binding { region: Region::Output(written.len()), offset_bytes: 0 };
            places.push(Some(written.len()));
            written.push(AlignedBytes::copy_of(&bytes));
        } else {
            bindings[index] = Binding { region: Region::Constant(constants.len()), offset_bytes: 0 };
            // Where any address will do, an odd one.
            let skipped = usize::from(program.alignment(index) == 1);
            let bytes = [&[0; 1][..skipped], &bytes].concat();
            constants.push(Bytes::from_owner(AlignedBytes::copy_of(&bytes)).slice(skipped..));
            places.push(None);
        }
    }
    let outputs = written.iter().map(|bytes| bytes.len()).collect();
    let extents = Extents { outputs, ..Extents::default() };
    let mut sequence = Sequence::new(vec![Step { program, bindings }], constants, extents).unwrap();
    let mut outputs: Vec<&mut [u8]> = written.iter_mut().map(|bytes| &mut bytes[..]).collect();
    sequence.run(pool(threads), Memory { inputs: &[], outputs: &mut outputs }, None)?;
    let external = code.buffers.iter().filter(|buffer| matches!(buffer.place, Place::External { .. }));
    Ok(external
        .zip(places)
        .map(|(buffer, place)| {
            let bytes = place.map_or(&[][..], |place| &written[place][..]);
            let elements = bytes.chunks_exact(buffer.dtype.size_bytes());
            elements.map(|bytes| Number::read(buffer.dtype, bytes)).collect()
        })
        .collect())
}

/// A pool of 1, 2 or 5 threads; starting threads for each program would take longer than running it.
fn pool(threads: usize) -> &'static Pool {
    static POOLS: OnceLock<[Pool; 3]> = OnceLock::new();
    let pools = POOLS.get_or_init(|| [1, 2, 5].map(|threads| Pool::new(threads).unwrap()));
    pools.iter().find(|pool| pool.threads() == threads).unwrap()
}

/// Deterministic contents for every buffer: small numbers of both signs.
fn contents(code: &Code, seed: u64) -> Vec<Vec<Number>> {
    let mut random = Random(seed);
    let mut value = |dtype: ElementType| match dtype {
        _ if dtype.is_float() => Number::Float(random.below(65) as f64 / 16.0 - 2.0).cast(dtype),
        ElementType::Bool => Number::Int(random.below(2) as i64),
        ElementType::U64 => Number::Int(random.below(11) as i64),
        _ => Number::Int(random.below(11) as i64 - 4).cast(dtype),
    };
    code.buffers.iter().map(|buffer| (0..buffer.length).map(|_| value(buffer.dtype)).collect()).collect()
}

/// Compares executor and interpreter on every instruction set and with several threads.
fn check(code: &Code) {
    check_with(code, &contents(code, 1), 1e-5);
}

fn check_with(code: &Code, contents: &[Vec<Number>], tolerance: f64) {
    compare(code, contents, tolerance, &Isa::available(), &[1, 2]);
}

fn compare(code: &Code, contents: &[Vec<Number>], tolerance: f64, isas: &[Isa], threads: &[usize]) {
    let mut wanted = contents.to_vec();
    let outcome = interpret(code, &mut wanted);
    for &isa in isas {
        for &threads in threads {
            let found = match (execute(code, isa, threads, contents), outcome) {
                (Ok(found), Ok(())) => found,
                (Err(RunError::Index { index, .. }), Err(_)) => {
                    assert_ne!(index, 0);
                    continue;
                }
                (found, wanted) => panic!("{code}\n{isa} {threads}: found {found:?}, wanted {wanted:?}"),
            };
            let external =
                code.buffers.iter().zip(&wanted).filter_map(|(buffer, wanted)| match buffer.place {
                    Place::External { writable, .. } => Some((buffer, writable.then_some(wanted))),
                    Place::Shared | Place::Scratch => None,
                });
            for ((buffer, wanted), found) in external.zip(&found) {
                for (at, (found, wanted)) in found.iter().zip(wanted.into_iter().flatten()).enumerate() {
                    let same = match (found, wanted) {
                        (Number::Float(a), Number::Float(b)) => {
                            a == b
                                || (a.is_nan() && b.is_nan())
                                || (a - b).abs() <= tolerance * (1.0 + b.abs())
                        }
                        (a, b) => a == b,
                    };
                    let name = &buffer.name;
                    assert!(
                        same,
                        "{code}\n{isa}, {threads} threads: {name}[{at}] is {found:?}, not {wanted:?}"
                    );
                }
            }
        }
    }
}

/// A small generator of random numbers (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn input(code: &mut Code, index: usize, dtype: ElementType, length: usize) -> BufferId {
    code.buffer(format!("x{index}"), dtype, length, Place::External { index, writable: false })
}

fn output(code: &mut Code, index: usize, dtype: ElementType, length: usize) -> BufferId {
    code.buffer(format!("y{index}"), dtype, length, Place::External { index, writable: true })
}

fn affine(constant: i64, terms: &[(CounterId, i64)]) -> Affine {
    Affine { constant, terms: terms.to_vec() }
}

fn serial(counter: CounterId, count: usize, body: Vec<Node>) -> Node {
    Node::Loop(Loop { counter, trip: Trip::Constant(count), parallel: false, body })
}

fn parallel(counter: CounterId, count: usize, body: Vec<Node>) -> Node {
    Node::Loop(Loop { counter, trip: Trip::Constant(count), parallel: true, body })
}

/// Shorthands for the operations of a block.
impl Block {
    fn load(&mut self, code: &Code, access: AccessId, strides: &[i64], guard: Vec<Condition>) -> Register {
        let dtype = code.buffers[code.accesses[access.index()].buffer.index()].dtype;
        let to = self.register(dtype);
        self.ops.push(BlockOp::Load { to, access, strides: strides.to_vec(), guard });
        to
    }

    fn constant(&mut self, dtype: ElementType, value: Literal) -> Register {
        let to = self.register(dtype);
        self.ops.push(BlockOp::Constant { to, value });
        to
    }

    fn unary(&mut self, op: UnaryOp, x: Register) -> Register {
        let dtype = if op.is_test() { ElementType::Bool } else { self.registers[x.index()] };
        let to = self.register(dtype);
        self.ops.push(BlockOp::Unary { to, op, x });
        to
    }

    fn binary(&mut self, op: BinaryOp, a: Register, b: Register) -> Register {
        let dtype = if op.is_comparison() { ElementType::Bool } else { self.registers[a.index()] };
        let to = self.register(dtype);
        self.ops.push(BlockOp::Binary { to, op, a, b });
        to
    }

    fn index(&mut self, value: Affine, strides: &[i64]) -> Register {
        let to = self.register(ElementType::I64);
        self.ops.push(BlockOp::Index { to, value, strides: strides.to_vec() });
        to
    }

    fn cast(&mut self, x: Register, dtype: ElementType) -> Register {
        let to = self.register(dtype);
        self.ops.push(BlockOp::Cast { to, x });
        to
    }

    fn store(&mut self, access: AccessId, strides: &[i64], value: Register, combine: Combine) {
        let strides = strides.to_vec();
        self.ops.push(BlockOp::Store { access, strides, value, combine, guard: Vec::new(), mask: None });
    }

    fn node(self) -> Node {
        Node::Call(Call::Block(self))
    }
}

use crate::scalar::{BinaryOp, UnaryOp};
