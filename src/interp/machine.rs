//! Runs programs.

use super::code::{Instr, Op, compute, load, store};
use super::compile::{Code, Iterations, LoopNode, Node, Program, Slot};
use super::shadow::{Clock, Conflict, Shadow};
use super::{InterpError, Options, is_given};
use crate::loopir::Role;
use crate::tensor::Tensor;

type Outcome<T> = Result<T, Box<InterpError>>;

/// Runs `program` on inputs and constants.
pub(super) fn run(program: &Program, params: &[Tensor], options: Options) -> Outcome<Vec<Tensor>> {
    let mut machine = Machine::new(program, params, options)?;
    if options == Options::FAST {
        machine.nodes::<false>(&program.preparation)?;
        machine.nodes::<false>(&program.body)?;
    } else {
        machine.nodes::<true>(&program.preparation)?;
        machine.nodes::<true>(&program.body)?;
    }
    machine.outputs()
}

struct Machine<'a> {
    program: &'a Program,
    registers: Vec<u64>,
    memory: Vec<Vec<u8>>,
    shadows: Vec<Shadow>,
    clock: Clock,
    /// The names of the parallel loops that run, for messages.
    forks: Vec<&'a str>,
}

impl<'a> Machine<'a> {
    fn new(program: &'a Program, params: &[Tensor], options: Options) -> Outcome<Machine<'a>> {
        let mut registers = vec![0; program.registers];
        for &(register, bits) in &program.constants {
            registers[register as usize] = bits;
        }
        let mut memory = vec![];
        let mut shadows = vec![];
        for slot in &program.slots {
            let len = slot.len.saturating_mul(slot.instances);
            if is_given(slot.role) {
                memory.push(vec![]);
                shadows.push(Shadow::default());
            } else {
                memory.push(zeros(slot, len)?);
                shadows.push(Shadow::new(len, options.check_uninitialised, options.check_races));
            }
        }
        let given: Vec<usize> = program
            .params
            .iter()
            .map(|id| id.index())
            .filter(|&place| is_given(program.slots[place].role))
            .collect();
        if given.len() != params.len() {
            return Err(Box::new(InterpError::ParamCount { expected: given.len(), given: params.len() }));
        }
        for (place, tensor) in given.into_iter().zip(params) {
            let slot = &program.slots[place];
            if slot.dtype != tensor.dtype() || slot.shape != tensor.shape() {
                return Err(Box::new(InterpError::Param {
                    buffer: slot.name.clone(),
                    expected: (slot.dtype, slot.shape.clone()),
                    given: (tensor.dtype(), tensor.shape().to_vec()),
                }));
            }
            memory[place] = tensor.bytes().to_vec();
        }
        Ok(Machine { program, registers, memory, shadows, clock: Clock::new(), forks: vec![] })
    }

    fn nodes<const CHECKED: bool>(&mut self, nodes: &'a [Node]) -> Outcome<()> {
        for node in nodes {
            match node {
                Node::Code(code) => self.code::<CHECKED>(code)?,
                Node::Barrier => self.clock.barrier(),
                Node::Loop(inner) => match inner.iterations {
                    Iterations::Ordered => {
                        for i in 0..inner.extent {
                            self.iteration::<CHECKED>(inner, i)?;
                        }
                    }
                    Iterations::Parallel => {
                        self.clock.enter_parallel();
                        self.forks.push(&inner.name);
                        for i in 0..inner.extent {
                            self.clock.iterate_parallel();
                            self.iteration::<CHECKED>(inner, i)?;
                        }
                        self.clock.leave_parallel();
                        self.forks.pop();
                    }
                    Iterations::Lanes(axis) => {
                        for i in 0..inner.extent {
                            self.clock.set_lane(axis, Some(i));
                            self.iteration::<CHECKED>(inner, i)?;
                        }
                        self.clock.set_lane(axis, None);
                    }
                },
            }
        }
        Ok(())
    }

    #[inline]
    fn iteration<const CHECKED: bool>(&mut self, inner: &'a LoopNode, i: u64) -> Outcome<()> {
        self.registers[inner.register as usize] = i;
        self.code::<CHECKED>(&inner.code)?;
        self.nodes::<CHECKED>(&inner.body)
    }

    #[inline]
    fn code<const CHECKED: bool>(&mut self, code: &Code) -> Outcome<()> {
        let registers = self.registers.as_mut_slice();
        let mut instrs = code.instrs.iter();
        while let Some(&Instr { op, target, a, b }) = instrs.next() {
            let (left, target, slot) = (registers[a as usize], target as usize, b as usize);
            match op {
                Op::Check => {
                    if left >= self.program.sites[slot].extent as u64 {
                        return Err(self.out_of_bounds(slot, left as i64, code.block));
                    }
                }
                Op::Load(dtype) => {
                    let i = left as usize;
                    if CHECKED && let Some(conflict) = self.shadows[slot].read(i, &self.clock, code.block) {
                        return Err(self.conflict(conflict, slot, i, code.block));
                    }
                    registers[target] = load(dtype, &self.memory[slot], i);
                }
                Op::Store(dtype) => {
                    let i = left as usize;
                    if CHECKED && let Some(conflict) = self.shadows[slot].write(i, &self.clock, code.block) {
                        return Err(self.conflict(conflict, slot, i, code.block));
                    }
                    store(dtype, &mut self.memory[slot], i, registers[target]);
                }
                Op::Reset => {
                    if CHECKED {
                        self.shadows[slot].reset(left as usize, self.program.slots[slot].len);
                    }
                }
                Op::SkipIfZero => {
                    if left == 0 {
                        instrs = instrs.as_slice()[b as usize..].iter();
                    }
                }
                Op::Add => registers[target] = left.wrapping_add(registers[slot]),
                Op::Mul => registers[target] = left.wrapping_mul(registers[slot]),
                Op::FloatAdd => {
                    let sum = f64::from_bits(left) + f64::from_bits(registers[slot]);
                    registers[target] = sum.to_bits();
                }
                Op::FloatMul => {
                    let product = f64::from_bits(left) * f64::from_bits(registers[slot]);
                    registers[target] = product.to_bits();
                }
                Op::Move => registers[target] = left,
                Op::Less => registers[target] = u64::from((left as i64) < registers[slot] as i64),
                Op::AtLeast => registers[target] = u64::from(left as i64 >= registers[slot] as i64),
                Op::And => registers[target] = left & registers[slot],
                Op::Int(_)
                | Op::Unsigned(_)
                | Op::Float(_)
                | Op::FloatTest(_)
                | Op::IntUnary(_)
                | Op::FloatUnary(_)
                | Op::FloatUnaryTest(_)
                | Op::Not
                | Op::Wrap(_)
                | Op::Round(_)
                | Op::Truncate(_)
                | Op::ToFloat
                | Op::UnsignedToFloat
                | Op::IsTrue
                | Op::FloatIsTrue => registers[target] = compute(op, left, registers[slot]),
            }
        }
        Ok(())
    }

    #[cold]
    fn out_of_bounds(&self, site: usize, index: i64, block: usize) -> Box<InterpError> {
        let site = &self.program.sites[site];
        Box::new(InterpError::OutOfBounds {
            block: self.program.blocks[block].clone(),
            buffer: self.program.slots[site.slot as usize].name.clone(),
            axis: site.axis,
            index,
            extent: site.extent,
        })
    }

    #[cold]
    fn conflict(&self, conflict: Conflict, slot: usize, i: usize, block: usize) -> Box<InterpError> {
        let slot = &self.program.slots[slot];
        let buffer = slot.name.clone();
        let index = unravel(slot, i);
        let second = self.program.blocks[block].clone();
        Box::new(match conflict {
            Conflict::Uninitialised => InterpError::Uninitialised { block: second, buffer, index },
            Conflict::Race(stamp, fork) => InterpError::Race {
                first: self.program.blocks[stamp.block as usize].clone(),
                second,
                buffer,
                index,
                between: match fork.and_then(|depth| self.forks.get(depth)) {
                    Some(name) => format!("iterations of the loop `{name}`"),
                    None => "invocations without a barrier between".to_string(),
                },
            },
        })
    }

    fn outputs(mut self) -> Outcome<Vec<Tensor>> {
        let mut outputs = vec![];
        for param in &self.program.params {
            let slot = &self.program.slots[param.index()];
            if slot.role == Role::Output {
                if let Some(hole) = self.shadows[param.index()].hole() {
                    let (buffer, index) = (slot.name.clone(), unravel(slot, hole));
                    return Err(Box::new(InterpError::NotWritten { buffer, index }));
                }
                let bytes = std::mem::take(&mut self.memory[param.index()]);
                let tensor = Tensor::new(slot.dtype, slot.shape.clone(), bytes.into());
                outputs.push(tensor.expect("the memory of an output should have its size"));
            }
        }
        Ok(outputs)
    }
}

fn zeros(slot: &Slot, len: usize) -> Outcome<Vec<u8>> {
    let size = len.saturating_mul(slot.dtype.size_bytes());
    let mut bytes = vec![];
    if bytes.try_reserve_exact(size).is_err() {
        return Err(Box::new(InterpError::OutOfMemory { buffer: slot.name.clone(), bytes: size }));
    }
    bytes.resize(size, 0);
    Ok(bytes)
}

/// The index of an element of a slot, whichever the instance.
fn unravel(slot: &Slot, i: usize) -> Vec<usize> {
    let mut rest = i % slot.len.max(1);
    let strides = crate::tensor::row_major_strides(&slot.shape);
    strides
        .into_iter()
        .map(|stride| {
            let index = rest / stride.max(1);
            rest %= stride.max(1);
            index
        })
        .collect()
}
