//! Parameters whose channels lie in blocks.
//!
//! A nest is defined over row-major tensors; where a tensor lies otherwise, this rewrites every access of it and cuts the loops
//! over its channels, so that addresses stay affine and a block is the innermost loop:
//!
//! ```text
//! for i0 in 64, i1 in 49: store: y[i0, i1] = max(x[i0, i1], 0.0)
//! ->
//! for i0.0 in 4, i1 in 49, i0.1 in 16: store: y[i0.0, i1, i0.1] = max(x[i0.0, i1, i0.1], 0.0)
//! ```

use crate::expr::{BinaryOp, BufferId, Expr, ExprId, ExprPool, Role, Scope, VarId};
use crate::loopir::{Combiner, Nest, Stmt, walk};
use crate::schedule::{Step, Tail};
use crate::tensor::MemoryLayout;
use std::collections::{BTreeMap, HashMap};

/// Lays the parameters of `nest` out; `layouts` has one for each, in order, and those it does not name lie in rows.
pub(super) fn lay_out(nest: &mut Nest, layouts: &[MemoryLayout]) {
    let mut parts: Vec<(BufferId, usize)> = nest
        .params
        .iter()
        .zip(layouts)
        .filter_map(|(&param, &layout)| match layout {
            MemoryLayout::ChannelBlocks(block) => Some((param, block)),
            MemoryLayout::Rows => None,
        })
        .collect();
    // What is computed in between for all of these images and channels lies like them.
    let extents = |id: BufferId| nest.pool.buffers[id].shape.get(..2).map(<[usize]>::to_vec);
    let images: Vec<_> = parts.iter().map(|&(param, block)| (extents(param), block)).collect();
    for (id, buffer) in nest.pool.buffers.iter_with_ids() {
        let between = buffer.role == Role::Local && buffer.scope == Scope::Global && buffer.shape.len() > 2;
        let like = images.iter().find(|(image, _)| between && *image == extents(id));
        parts.extend(like.map(|&(_, block)| (id, block)));
    }
    let blocked: Vec<BufferId> = parts.iter().map(|&(part, _)| part).collect();
    let mut channels = BTreeMap::<usize, Vec<ExprId>>::new();
    for (accessed, &(_, block)) in access_in_blocks(nest, &parts).into_iter().zip(&parts) {
        channels.entry(block).or_default().extend(accessed);
    }
    for (block, channels) in channels {
        for (name, extent) in loops_over_channels(nest, &channels, block) {
            let split = Step::Split { of: name.clone(), factors: vec![block], tail: Tail::Guard };
            // A loop that cannot be cut keeps its addresses, which are right and slow.
            if split.apply(nest).is_ok() {
                if !extent.is_multiple_of(block) {
                    fill_blocks(nest, &name, &blocked);
                }
                sink(nest, &format!("{name}.1"));
            }
        }
    }
}

/// Lets the loops `name.0` and `name.1` run over whole blocks: the channels that the last block has too many read 0 from what lies
/// in rows, and are 0 in what lies in blocks, or anything where those are integers. A sum over channels leaves them out.
fn fill_blocks(nest: &mut Nest, name: &str, blocked: &[BufferId]) {
    let lane = format!("{name}.1");
    let lanes: Vec<VarId> = nest.pool.vars.ids().filter(|&var| nest.pool.vars[var].name == lane).collect();
    // Buffers of each iteration's own: what they hold beyond the last channel is not seen in another.
    let mut own = vec![];
    nest.visit_loops(&mut |of, around| {
        if around.iter().chain([&of]).any(|of| lanes.contains(&of.var)) {
            own.extend(
                of.body.iter().filter_map(|stmt| if let Stmt::Alloc(id) = stmt { Some(*id) } else { None }),
            );
        }
    });
    let Nest { pool, body, .. } = nest;
    let mut zeros = Zeros::default();
    walk::change_stores(body, &mut |store| {
        let conjuncts = store.condition.map(|condition| pool.conjuncts(condition)).unwrap_or_default();
        let on_lane = |expr: &ExprId| lanes.iter().any(|&var| pool.uses_var(*expr, var));
        let (tail, others): (Vec<ExprId>, Vec<ExprId>) = conjuncts.into_iter().partition(&on_lane);
        let &[inside] = tail.as_slice() else { return };
        if pool.buffers[store.buffer].role == Role::Output && !blocked.contains(&store.buffer) {
            return;
        }
        let beyond = Beyond { inside, blocked };
        let own_target = own.contains(&store.buffer) || store.index.iter().any(on_lane);
        let sums = store.combine == Some(Combiner::Add) && !own_target;
        if sums && zeros.of(pool, store.value, &beyond) == Some(0.0) {
            zeros.note(store.buffer, true);
            return;
        }
        let moving = pool.vars_of(inside);
        store.value = pool.rewrite(store.value, &mut |pool, id| {
            let Expr::Load(of, _) = *pool.get(id) else { return None };
            let in_rows = !own.contains(&of) && !blocked.contains(&of);
            let goes_beyond = in_rows && moving.iter().any(|&var| pool.uses_var(id, var));
            goes_beyond.then(|| pool.guard(inside, id))
        });
        store.condition = (!others.is_empty()).then(|| pool.conjunction(&others));
        let zero = zeros.of(pool, store.value, &beyond) == Some(0.0);
        zeros.note(store.buffer, zero);
        let adds_zero = zero && store.combine.is_none_or(|combine| combine == Combiner::Add);
        let integers = blocked.contains(&store.buffer) && !pool.buffers[store.buffer].dtype.is_float();
        let anything = store.combine.is_none() && integers;
        if !(adds_zero || anything || own.contains(&store.buffer)) {
            store.value = pool.guard(inside, store.value);
        }
    });
}

/// Where an iteration is beyond the last channel.
struct Beyond<'a> {
    /// The condition that does not hold there.
    inside: ExprId,
    /// The parameters that lie in blocks, and are 0 there if they are floats.
    blocked: &'a [BufferId],
}

/// Values beyond the last channel, where what is multiplied by 0 is finite.
#[derive(Default)]
struct Zeros {
    /// Whether all that was written to a local buffer so far is 0.
    locals: HashMap<BufferId, bool>,
}

impl Zeros {
    fn note(&mut self, buffer: BufferId, zero: bool) {
        *self.locals.entry(buffer).or_insert(true) &= zero;
    }

    /// The value of an expression; `None` where it is not known.
    fn of(&self, pool: &ExprPool, id: ExprId, beyond: &Beyond<'_>) -> Option<f64> {
        let value = |id| self.of(pool, id, beyond);
        let is_zero = |id| value(id) == Some(0.0);
        match *pool.get(id) {
            Expr::Float(bits, _) => Some(f64::from_bits(bits)),
            Expr::Int(value, _) => Some(value as f64),
            Expr::Load(buffer, _) => {
                let in_blocks = beyond.blocked.contains(&buffer) && pool.buffers[buffer].dtype.is_float();
                let zero = in_blocks || self.locals.get(&buffer) == Some(&true);
                zero.then_some(0.0)
            }
            Expr::Unary(op, a) if pool.dtype(id).is_float() => Some(op.eval_f64(value(a)?)),
            Expr::Binary(BinaryOp::Mul, a, b) if is_zero(a) || is_zero(b) => Some(0.0),
            Expr::Binary(op, a, b) if pool.dtype(id).is_float() => Some(op.eval_f64(value(a)?, value(b)?)),
            Expr::Guard(condition, _) if pool.conjuncts(condition).contains(&beyond.inside) => Some(0.0),
            Expr::Guard(_, a) => value(a).filter(|&a| a == 0.0),
            Expr::Select(_, a, b) => value(a).filter(|&a| value(b) == Some(a)),
            Expr::Cast(to, a) if to.is_float() && pool.dtype(a).is_float() => value(a),
            Expr::Cast(_, a) => value(a).filter(|&a| a == 0.0),
            Expr::Var(_) | Expr::Unary(..) | Expr::Binary(..) => None,
        }
    }
}

/// Gives every access of each parameter, in blocks of that many channels, the index that its element has there; the channels at
/// which each is accessed.
fn access_in_blocks(nest: &mut Nest, params: &[(BufferId, usize)]) -> Vec<Vec<ExprId>> {
    let mut channels = vec![vec![]; params.len()];
    if params.is_empty() {
        return channels;
    }
    let Nest { pool, body, .. } = nest;
    for &(param, block) in params {
        let layout = MemoryLayout::ChannelBlocks(block);
        pool.buffers[param].shape = layout.storage_shape(&pool.buffers[param].shape);
    }
    let places: HashMap<BufferId, usize> =
        params.iter().enumerate().map(|(place, &(param, _))| (param, place)).collect();
    let mut in_blocks = |pool: &mut ExprPool, place: usize, index: &[ExprId]| -> Vec<ExprId> {
        let block = params[place].1 as i64;
        let mut index = index.to_vec();
        let channel = index[1];
        channels[place].push(channel);
        let (first, rest) = (pool.div_int(channel, block), pool.mod_int(channel, block));
        index[1] = pool.simplify(first);
        index.push(pool.simplify(rest));
        index
    };
    walk::change_stores(body, &mut |store| {
        if let Some(&place) = places.get(&store.buffer) {
            store.index = in_blocks(pool, place, &store.index);
        }
        store.change_exprs(&mut |root| {
            pool.rewrite(root, &mut |pool, id| {
                let Expr::Load(of, index) = pool.get(id).clone() else { return None };
                places.get(&of).map(|&place| {
                    let index = in_blocks(pool, place, &index);
                    pool.load(of, &index)
                })
            })
        });
    });
    channels
}

/// The loops over the channels of a block, of which some access has one of `channels` as its channel, with their extents.
fn loops_over_channels(nest: &mut Nest, channels: &[ExprId], block: usize) -> Vec<(String, usize)> {
    let mut names = vec![];
    for &channel in channels {
        let form = nest.pool.affine(channel);
        let Some(terms) = form.variables(&nest.pool) else { continue };
        let moving: Vec<_> = terms.into_iter().filter(|(_, step)| step % block as i64 != 0).collect();
        if let [(var, 1)] = moving[..]
            && form.constant % block as i64 == 0
        {
            let variable = &nest.pool.vars[var];
            let found = (variable.name.clone(), variable.extent);
            if !names.contains(&found) {
                names.push(found);
            }
        }
    }
    names
}

/// Moves the loops of that name into the loops directly nested in them.
fn sink(nest: &mut Nest, name: &str) {
    for var in nest.loops_named(name) {
        let Some(mut at) = nest.loop_of(var) else { continue };
        let mut order = vec![];
        while let [Stmt::Loop(inner)] = at.body.as_slice() {
            order.push(nest.pool.vars[inner.var].name.clone());
            at = inner;
        }
        if !order.is_empty() {
            order.push(name.to_string());
            // Where the order matters the loop stays where it is.
            let _stays = Step::Reorder { order }.apply(nest);
        }
    }
}
