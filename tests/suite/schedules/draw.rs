//! Random steps whose arguments are taken from the nest at hand, so that many of them apply.

use super::problems::shuffle;
use paisley::base::Random;
use paisley::loopir::{Axis, LoopKind, Nest, Role, Scope, Stmt};
use paisley::schedule::{INSTRUCTIONS, Step, Tail};
use paisley::tensor::DType;

/// What a schedule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Cpu,
    Gpu,
}

/// A step that may or may not apply to `nest`.
pub(super) fn step(nest: &Nest, side: Side, rng: &mut Random) -> Step {
    let names = Names::of(nest);
    let mut splits = 0;
    loop {
        let drawn = match rng.below(17) {
            0..=2 => names.any_loop(rng).map(|of| split(nest, of, rng)),
            3 => names.nested(rng, 2).map(|pair| Step::Fuse {
                name: format!("{}{}", pair[0].replace('.', ""), pair[1].replace('.', "")),
                outer: pair[0].clone(),
                inner: pair[1].clone(),
            }),
            13 => names.nested(rng, 2).map(|pair| Step::Swizzle {
                name: format!("{}{}", pair[0].replace('.', ""), pair[1].replace('.', "")),
                outer: pair[0].clone(),
                inner: pair[1].clone(),
                height: 1 + rng.below(4),
            }),
            4 => {
                let count = 2 + rng.below(3);
                names.nested(rng, count).map(|mut order| {
                    shuffle(rng, &mut order);
                    Step::Reorder { order }
                })
            }
            5..=6 => names.any_loop(rng).map(|of| Step::Bind { of, kind: kind(side, rng) }),
            7 => names.any_block(rng).map(|block| Step::Inline { block }),
            8 => {
                names.any_block(rng).zip(names.any_loop(rng)).map(|(block, at)| Step::ComputeAt { block, at })
            }
            9 => stage_in(nest, &names, rng),
            10 => names.any_buffer(rng).map(|buffer| Step::StageOut {
                buffer,
                at: if rng.below(4) == 0 { None } else { names.any_loop(rng) },
                scope: *rng.pick(&[Scope::Register, Scope::Register, Scope::Workgroup]),
            }),
            11 => names
                .any_buffer(rng)
                .zip(names.any_loop(rng))
                .map(|(buffer, over)| Step::SplitReduction { buffer, over }),
            12 => {
                let constants: Vec<String> =
                    nest.params_of(Role::Constant).map(|id| nest.pool.buffers[id].name.clone()).collect();
                (!constants.is_empty()).then(|| {
                    let buffer = rng.pick(&constants).clone();
                    let mut by = loops_of_reads(nest, &buffer, rng);
                    shuffle(rng, &mut by);
                    let dtype = (rng.below(2) == 0).then_some(DType::F32);
                    Step::Relayout { buffer, by, dtype }
                })
            }
            15 => names.any_block(rng).map(|block| Step::Keep { block }),
            14 => names.any_buffer(rng).map(|buffer| Step::Prepare { buffer }),
            _replace => names
                .any_loop(rng)
                .map(|of| Step::Replace { of, instruction: rng.pick(INSTRUCTIONS).name.to_string() }),
        };
        splits += 1;
        match drawn {
            Some(step) => return step,
            // A nest without loops takes almost nothing.
            None if splits > 50 => return Step::Reorder { order: vec![] },
            None => {}
        }
    }
}

fn split(nest: &Nest, of: String, rng: &mut Random) -> Step {
    let extent = nest.loops_named(&of).first().map_or(1, |&var| nest.pool.vars[var].extent);
    let factors = (0..1 + rng.below(2)).map(|_| *rng.pick(&[2, 3, 4, 5, 8, extent.clamp(1, 16)])).collect();
    Step::Split { of, factors, tail: *rng.pick(&[Tail::Guard, Tail::Peel]) }
}

fn kind(side: Side, rng: &mut Random) -> LoopKind {
    let axis = *rng.pick(&[Axis::X, Axis::Y, Axis::Z]);
    match (side, rng.below(5)) {
        (_, 0) => LoopKind::Vector,
        (_, 1) => LoopKind::Unroll,
        (Side::Cpu, _) => LoopKind::Parallel,
        (Side::Gpu, 2) => LoopKind::Workgroup(axis),
        (Side::Gpu, _) => LoopKind::Invocation(axis),
    }
}

fn stage_in(nest: &Nest, names: &Names, rng: &mut Random) -> Option<Step> {
    let buffer = names.any_buffer(rng)?;
    let mut by = loops_of_reads(nest, &buffer, rng);
    let at = if by.is_empty() || rng.below(3) == 0 { None } else { Some(by.remove(rng.below(by.len()))) };
    if rng.below(3) == 0 {
        by.clear();
    }
    shuffle(rng, &mut by);
    let scope = *rng.pick(&[Scope::Register, Scope::Workgroup, Scope::Global]);
    let (pad, vector) = (rng.below(2), *rng.pick(&[1, 1, 2, 4]));
    Some(Step::StageIn { buffer, at, scope, by, pad, vector })
}

/// The loops around one of the blocks that read the buffer, as far as the read needs them and sometimes further.
fn loops_of_reads(nest: &Nest, buffer: &str, rng: &mut Random) -> Vec<String> {
    let Some(id) = nest.buffer_named(buffer) else { return vec![] };
    let mut readers = vec![];
    nest.visit_stores(&mut |store| {
        let mut roots = vec![store.value];
        roots.extend(store.condition);
        let reads = roots
            .iter()
            .flat_map(|&root| nest.pool.loads_of(root))
            .any(|of| matches!(nest.pool.get(of), paisley::expr::Expr::Load(read, _) if *read == id));
        if reads {
            readers.push((store.block.clone(), store.value));
        }
    });
    if readers.is_empty() {
        return vec![];
    }
    let (block, value) = rng.pick(&readers).clone();
    let around = nest.loops_around(&block);
    let all = rng.below(4) == 0;
    let needed = around.into_iter().filter(|&var| all || reads_at(nest, value, id, var));
    needed.map(|var| nest.pool.vars[var].name.clone()).collect()
}

/// Whether a read of the buffer under `root` has an index with the variable.
fn reads_at(
    nest: &Nest,
    root: paisley::expr::ExprId,
    buffer: paisley::loopir::BufferId,
    var: paisley::loopir::VarId,
) -> bool {
    nest.pool.loads_of(root).into_iter().any(|load| match nest.pool.get(load) {
        paisley::expr::Expr::Load(of, index) => {
            *of == buffer && index.iter().any(|&index| nest.pool.uses_var(index, var))
        }
        _other => false,
    })
}

/// The names a nest has.
struct Names {
    loops: Vec<String>,
    /// Loops directly nested, outermost first.
    chains: Vec<Vec<String>>,
    blocks: Vec<String>,
    buffers: Vec<String>,
}

impl Names {
    fn of(nest: &Nest) -> Names {
        let mut names = Names { loops: vec![], chains: vec![], blocks: vec![], buffers: vec![] };
        names.walk(nest, &nest.body, &mut vec![]);
        nest.visit_stores(&mut |store| names.blocks.push(store.block.clone()));
        names.buffers = nest.pool.buffers.iter().map(|buffer| buffer.name.clone()).collect();
        names
    }

    fn walk(&mut self, nest: &Nest, stmts: &[Stmt], chain: &mut Vec<String>) {
        for stmt in stmts {
            if let Stmt::Loop(of) = stmt {
                let name = nest.pool.vars[of.var].name.clone();
                self.loops.push(name.clone());
                if stmts.len() > 1 {
                    chain.clear();
                }
                chain.push(name);
                if chain.len() > 1 {
                    self.chains.push(chain.clone());
                }
                self.walk(nest, &of.body, &mut chain.clone());
            }
        }
    }

    fn any(list: &[String], rng: &mut Random) -> Option<String> {
        (!list.is_empty()).then(|| rng.pick(list).clone())
    }

    fn any_loop(&self, rng: &mut Random) -> Option<String> {
        Self::any(&self.loops, rng)
    }

    fn any_block(&self, rng: &mut Random) -> Option<String> {
        Self::any(&self.blocks, rng)
    }

    fn any_buffer(&self, rng: &mut Random) -> Option<String> {
        Self::any(&self.buffers, rng)
    }

    /// At most `count` loops, each directly in the one before.
    fn nested(&self, rng: &mut Random, count: usize) -> Option<Vec<String>> {
        if self.chains.is_empty() {
            return None;
        }
        let chain = rng.pick(&self.chains);
        let count = count.min(chain.len());
        let start = rng.below(chain.len() - count + 1);
        Some(chain[start..start + count].to_vec())
    }
}
