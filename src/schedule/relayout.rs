//! `relayout w by k.0 c r s k.1`: stores a constant in the order of the loops that read it, once, when the nest is compiled.
//!
//! ```text
//! for k.0 in 4, c in 8, k.1 in 16: .. w[16*k.0 + k.1, c] ..
//! ->
//! prepare: packed w_p: f32[4, 8, 16]; for ..: pack_w: w_p[k.0, c, k.1] = w[16*k.0 + k.1, c]
//! for k.0 in 4, c in 8, k.1 in 16: .. w_p[k.0, c, k.1] ..
//! ```
//!
//! For contiguous reads of weights; where a tail was guarded the copy is padded with zeros. What the preparation computes can be
//! stored in another order likewise. With `as f32` behind the loops, what is f16 or bf16 is stored in the type that its reads convert
//! it to. Refuses buffers that are not constants, and reads that differ, depend on a loop that is not listed or do not convert.

use super::Refusal;
use super::rewrite::buffer_named;
use super::stage_in::{capture_by_loops, nested, redirect_reads, refuse};
use crate::expr::{BufferId, ExprId, Role, Scope};
use crate::loopir::{Buffer, Nest, Stmt, Store, walk};
use crate::tensor::DType;

pub(super) fn apply(
    nest: &mut Nest,
    buffer: &str,
    by: &[String],
    dtype: Option<DType>,
) -> Result<(), Refusal> {
    let id = buffer_named(nest, buffer)?;
    let role = nest.pool.buffers[id].role;
    if !matches!(role, Role::Constant | Role::Packed) {
        return Err(refuse(nest, id, "is not a constant"));
    }
    let name = nest.fresh_buffer_name(&format!("{buffer}_p"));
    let mut body = nest.body.clone();
    let mut capture = capture_by_loops(nest, &body, id, by, &[], &name)?;
    let constant = |&read: &BufferId| matches!(nest.pool.buffers[read].role, Role::Constant | Role::Packed);
    if !nest.pool.buffers_read(capture.value).iter().all(constant) {
        return Err(refuse(nest, id, "is read where data decide"));
    }
    let shape = capture.vars.iter().map(|&var| nest.pool.vars[var].extent).collect();
    let stored = nest.pool.buffers[id].dtype;
    let dtype = dtype.unwrap_or(stored);
    if dtype != stored {
        if dtype != DType::F32 || !matches!(stored, DType::F16 | DType::BF16) {
            return Err(refuse(nest, id, format!("is not stored as {dtype}")));
        }
        for (read, _) in &mut capture.places {
            *read = nest.pool.cast(dtype, *read);
        }
        capture.value = nest.pool.cast(dtype, capture.value);
    }
    let block = nest.fresh_block_name(&format!("pack_{buffer}"));
    let packed = nest.pool.buffers.push(Buffer {
        name,
        dtype,
        shape,
        scope: Scope::Global,
        role: Role::Packed,
        row_padding: 0,
    });
    redirect_reads(&mut nest.pool, &mut body, packed, &capture.places);
    let index: Vec<ExprId> = capture.vars.iter().map(|&var| nest.pool.var(var)).collect();
    let store = Store { block, buffer: packed, index, value: capture.value, combine: None, condition: None };
    nest.preparation.push(Stmt::Alloc(packed));
    nest.preparation.push(nested(&capture.vars, store));
    nest.body = body;
    let mut still_read = false;
    walk::visit_stores(&nest.body, &mut |store| {
        still_read |= store.roots().any(|root| nest.pool.buffers_read(root).contains(&id));
    });
    if dtype != stored && still_read {
        return Err(refuse(nest, id, format!("is read where it is not converted to {dtype}")));
    }
    if role == Role::Packed && !still_read {
        nest.pool.buffers[id].role = Role::Local;
    }
    Ok(())
}
