//! Operations over contiguous f32 slices: the vector instructions of CPU programs.
//!
//! All are methods of [`KernelTable`]. Every operation is total: it computes what [`crate::scalar`] defines, in single
//! precision for the basic and the common elementary functions (errors stated below), through double precision for the
//! others. Bool results of operations that write f32 are 0 and 1.
//!
//! Largest errors in units in the last place: `exp` 1.1, `log` 0.9, `tanh` 1.4, `erf` 1.8, `sigmoid`, `sin` and `cos`
//! 2.4, `pow` by the scalars 2 and 3 1.1. Infinities, NaN, zeros and denormals give what the function tends to.

pub(crate) mod body;
pub(crate) mod math;

#[cfg(all(test, unix))]
mod tests;

use half::{bf16, f16};

use crate::activation::Activation;
use crate::scalar::{BinaryOp, UnaryOp};
use crate::table::KernelTable;
use body::Form;

/// Panics if an operand's length is not that of the target.
fn check_lengths<const N: usize>(target: usize, operands: [usize; N]) {
    assert!(operands == [target; N], "operands of lengths {operands:?} for a target of length {target}");
}

/// Vector operations. Each panics if the lengths of its slices differ.
impl KernelTable {
    /// `target[i] = op(source[i])`.
    pub fn unary(&self, op: UnaryOp, target: &mut [f32], source: &[f32]) {
        check_lengths(target.len(), [source.len()]);
        // SAFETY: the table's instruction set is present; the slices have `target.len()` elements and do not overlap.
        unsafe { (self.raw.unary)(op, target.as_mut_ptr(), source.as_ptr(), target.len()) }
    }

    /// `target[i] = op(target[i])`.
    pub fn unary_in_place(&self, op: UnaryOp, target: &mut [f32]) {
        let address = target.as_mut_ptr();
        // SAFETY: as for `unary`; the source is the very target, which the kernels allow.
        unsafe { (self.raw.unary)(op, address, address, target.len()) }
    }

    /// `target[i] = activation(source[i])`.
    pub fn activate(&self, activation: Activation, target: &mut [f32], source: &[f32]) {
        check_lengths(target.len(), [source.len()]);
        let extents = (1, target.len());
        // SAFETY: the table's instruction set is present; the slices have `target.len()` elements and do not overlap.
        unsafe {
            (self.raw.activate)(activation, (target.as_mut_ptr(), 0), (source.as_ptr(), 0), extents);
        }
    }

    /// `target[i] = op(left[i], right[i])`.
    pub fn binary(&self, op: BinaryOp, target: &mut [f32], left: &[f32], right: &[f32]) {
        check_lengths(target.len(), [left.len(), right.len()]);
        let (left, right) = (left.as_ptr(), right.as_ptr());
        // SAFETY: the table's instruction set is present; the slices have `target.len()` elements and do not overlap.
        unsafe { (self.raw.binary)(op, Form::Arrays, target.as_mut_ptr(), left, right, target.len()) }
    }

    /// `target[i] = op(left[i], right)`.
    pub fn binary_scalar(&self, op: BinaryOp, target: &mut [f32], left: &[f32], right: f32) {
        check_lengths(target.len(), [left.len()]);
        let left = left.as_ptr();
        // SAFETY: as for `binary`; the scalar is one element.
        unsafe { (self.raw.binary)(op, Form::ScalarRight, target.as_mut_ptr(), left, &right, target.len()) }
    }

    /// `target[i] = op(left, right[i])`.
    pub fn scalar_binary(&self, op: BinaryOp, target: &mut [f32], left: f32, right: &[f32]) {
        check_lengths(target.len(), [right.len()]);
        let right = right.as_ptr();
        // SAFETY: as for `binary`; the scalar is one element.
        unsafe { (self.raw.binary)(op, Form::ScalarLeft, target.as_mut_ptr(), &left, right, target.len()) }
    }

    /// `target[i] = op(target[i], right[i])`.
    pub fn binary_in_place(&self, op: BinaryOp, target: &mut [f32], right: &[f32]) {
        check_lengths(target.len(), [right.len()]);
        let address = target.as_mut_ptr();
        // SAFETY: as for `binary`; the left operand is the very target, which the kernels allow.
        unsafe { (self.raw.binary)(op, Form::Arrays, address, address, right.as_ptr(), target.len()) }
    }

    /// `target[i] = op(left[i], target[i])`.
    pub fn binary_in_place_right(&self, op: BinaryOp, target: &mut [f32], left: &[f32]) {
        check_lengths(target.len(), [left.len()]);
        let address = target.as_mut_ptr();
        // SAFETY: as for `binary`; the right operand is the very target, which the kernels allow.
        unsafe { (self.raw.binary)(op, Form::Arrays, address, left.as_ptr(), address, target.len()) }
    }

    /// `target[i] = op(target[i], right)`.
    pub fn binary_scalar_in_place(&self, op: BinaryOp, target: &mut [f32], right: f32) {
        let address = target.as_mut_ptr();
        // SAFETY: as for `binary_in_place`; the scalar is one element.
        unsafe { (self.raw.binary)(op, Form::ScalarRight, address, address, &right, target.len()) }
    }

    /// `target[i] = op(left, target[i])`.
    pub fn scalar_binary_in_place(&self, op: BinaryOp, target: &mut [f32], left: f32) {
        let address = target.as_mut_ptr();
        // SAFETY: as for `binary_in_place_right`; the scalar is one element.
        unsafe { (self.raw.binary)(op, Form::ScalarLeft, address, &left, address, target.len()) }
    }

    /// `target[i] = 1` where `op(left[i], right[i])` is not zero, else 0.
    pub fn compare(&self, op: BinaryOp, target: &mut [u8], left: &[f32], right: &[f32]) {
        check_lengths(target.len(), [left.len(), right.len()]);
        let (left, right) = (left.as_ptr(), right.as_ptr());
        // SAFETY: the table's instruction set is present; the slices have `target.len()` elements and do not overlap.
        unsafe { (self.raw.compare)(op, Form::Arrays, target.as_mut_ptr(), left, right, target.len()) }
    }

    /// `target[i] = 1` where `op(left[i], right)` is not zero, else 0.
    pub fn compare_scalar(&self, op: BinaryOp, target: &mut [u8], left: &[f32], right: f32) {
        check_lengths(target.len(), [left.len()]);
        let left = left.as_ptr();
        // SAFETY: as for `compare`; the scalar is one element.
        unsafe { (self.raw.compare)(op, Form::ScalarRight, target.as_mut_ptr(), left, &right, target.len()) }
    }

    /// `target[i] = 1` where `op(left, right[i])` is not zero, else 0.
    pub fn scalar_compare(&self, op: BinaryOp, target: &mut [u8], left: f32, right: &[f32]) {
        check_lengths(target.len(), [right.len()]);
        let right = right.as_ptr();
        // SAFETY: as for `compare`; the scalar is one element.
        unsafe { (self.raw.compare)(op, Form::ScalarLeft, target.as_mut_ptr(), &left, right, target.len()) }
    }

    /// `target[i] += left[i] * right[i]`.
    pub fn multiply_add(&self, target: &mut [f32], left: &[f32], right: &[f32]) {
        check_lengths(target.len(), [left.len(), right.len()]);
        let (left, right) = (left.as_ptr(), right.as_ptr());
        // SAFETY: the table's instruction set is present; the slices have `target.len()` elements and do not overlap.
        unsafe { (self.raw.multiply_add)(Form::Arrays, target.as_mut_ptr(), left, right, target.len()) }
    }

    /// `target[i] += left[i] * right`.
    pub fn multiply_add_scalar(&self, target: &mut [f32], left: &[f32], right: f32) {
        check_lengths(target.len(), [left.len()]);
        let left = left.as_ptr();
        // SAFETY: as for `multiply_add`; the scalar is one element.
        unsafe { (self.raw.multiply_add)(Form::ScalarRight, target.as_mut_ptr(), left, &right, target.len()) }
    }

    /// `target[i] = if mask[i] != 0 { yes[i] } else { no[i] }`.
    pub fn select(&self, target: &mut [f32], mask: &[u8], yes: &[f32], no: &[f32]) {
        check_lengths(target.len(), [mask.len(), yes.len(), no.len()]);
        let (mask, yes, no) = (mask.as_ptr(), yes.as_ptr(), no.as_ptr());
        // SAFETY: the table's instruction set is present; the slices have `target.len()` elements and do not overlap.
        unsafe { (self.raw.select)(target.as_mut_ptr(), mask, yes, no, target.len()) }
    }

    /// `start` combined with every element of `source`: in any grouping for `Add`, `Mul`, `Min` and `Max`, from the left
    /// for the others.
    pub fn reduce(&self, op: BinaryOp, source: &[f32], start: f32) -> f32 {
        // SAFETY: the table's instruction set is present; the slice has the elements.
        unsafe { (self.raw.reduce)(op, source.as_ptr(), source.len(), start) }
    }

    /// The sum of `left[i] * right[i]`, in any grouping.
    pub fn sum_product(&self, left: &[f32], right: &[f32]) -> f32 {
        check_lengths(left.len(), [right.len()]);
        // SAFETY: the table's instruction set is present; both slices have `left.len()` elements.
        unsafe { (self.raw.sum_product)(left.as_ptr(), right.as_ptr(), left.len()) }
    }

    /// `target[i] = source[i * stride]`.
    ///
    /// # Safety
    /// Every `source[i * stride]` with `i < target.len()` is valid for reads and lies outside `target`.
    pub unsafe fn gather_strided(&self, target: &mut [f32], source: *const f32, stride: isize) {
        // SAFETY: the table's instruction set is present; the caller grants the source.
        unsafe { (self.raw.gather_strided)(target.as_mut_ptr(), source, stride, target.len()) }
    }

    /// `target[i * stride] = source[i]`, in increasing order of `i`.
    ///
    /// # Safety
    /// Every `target[i * stride]` with `i < source.len()` is valid for writes and lies outside `source`.
    pub unsafe fn scatter_strided(&self, target: *mut f32, stride: isize, source: &[f32]) {
        // SAFETY: the table's instruction set is present; the caller grants the target.
        unsafe { (self.raw.scatter_strided)(target, stride, source.as_ptr(), source.len()) }
    }

    /// Widens half precision.
    pub fn f16_to_f32(&self, target: &mut [f32], source: &[f16]) {
        check_lengths(target.len(), [source.len()]);
        // SAFETY: the table's instruction set is present; the slices have `target.len()` elements and do not overlap.
        unsafe { (self.raw.f16_to_f32)(target.as_mut_ptr(), source.as_ptr(), target.len()) }
    }

    /// Rounds to half precision, ties to even; overflows to infinity.
    pub fn f32_to_f16(&self, target: &mut [f16], source: &[f32]) {
        check_lengths(target.len(), [source.len()]);
        // SAFETY: as for `f16_to_f32`.
        unsafe { (self.raw.f32_to_f16)(target.as_mut_ptr(), source.as_ptr(), target.len()) }
    }

    /// Widens bfloat16.
    pub fn bf16_to_f32(&self, target: &mut [f32], source: &[bf16]) {
        check_lengths(target.len(), [source.len()]);
        // SAFETY: as for `f16_to_f32`.
        unsafe { (self.raw.bf16_to_f32)(target.as_mut_ptr(), source.as_ptr(), target.len()) }
    }

    /// Rounds to bfloat16, ties to even.
    pub fn f32_to_bf16(&self, target: &mut [bf16], source: &[f32]) {
        check_lengths(target.len(), [source.len()]);
        // SAFETY: as for `f16_to_f32`.
        unsafe { (self.raw.f32_to_bf16)(target.as_mut_ptr(), source.as_ptr(), target.len()) }
    }
}
