//! Matrix products.

use super::{Attributes, Fact, OpDef, OpError, dtype_of_products, exactly, product};
use crate::tensor::broadcast_shapes;

/// `y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j]`; the leading dimensions broadcast by the rule of NumPy. Sums of products
/// of bytes, u8 or i8, are i32; beside an `a` of f32, `b` may be of f16 or bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MatMul {
    /// `a` is stored as `[.., k, i]`.
    pub transpose_a: bool,
    /// `b` is stored as `[.., j, k]`.
    pub transpose_b: bool,
}

impl OpDef for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn attributes(&self) -> String {
        Attributes::default()
            .flag("transpose_a", self.transpose_a)
            .flag("transpose_b", self.transpose_b)
            .finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [a, b] = exactly(inputs, "2")?;
        let dtype = dtype_of_products(a, b)?;
        let misfit = || OpError::shape(format!("no matrix product of {a} and {b}"));
        let ([batch_a @ .., rows_a, columns_a], [batch_b @ .., rows_b, columns_b]) =
            (&a.shape[..], &b.shape[..])
        else {
            return Err(misfit());
        };
        let (m, k_a) = if self.transpose_a { (columns_a, rows_a) } else { (rows_a, columns_a) };
        let (k_b, n) = if self.transpose_b { (columns_b, rows_b) } else { (rows_b, columns_b) };
        if k_a != k_b {
            return Err(misfit());
        }
        let mut shape = broadcast_shapes(batch_a, batch_b).ok_or_else(misfit)?;
        shape.extend([m, n]);
        Ok(vec![Fact { dtype, shape }])
    }

    fn flop(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let shape = &inputs[0].shape;
        let depth = shape[shape.len() - if self.transpose_a { 2 } else { 1 }];
        product(&outputs[0].shape).saturating_mul(2 * depth as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn batches_broadcast_and_depths_agree() {
        let fact = |shape: &[usize]| Fact::new(DType::F32, shape);
        let plain = MatMul::default();
        let (a, b) = (fact(&[5, 1, 2, 3]), fact(&[4, 3, 6]));
        let y = fact(&[5, 4, 2, 6]);
        assert_eq!(plain.infer(&[&a, &b]), Ok(vec![y.clone()]));
        assert_eq!(plain.flop(&[&a, &b], &[&y]), 5 * 4 * 2 * 6 * 3 * 2);
        assert!(plain.infer(&[&fact(&[2, 3]), &fact(&[4, 3])]).is_err());
        assert!(plain.infer(&[&fact(&[3]), &fact(&[3, 2])]).is_err());
        let transposed = MatMul { transpose_a: true, transpose_b: true };
        assert_eq!(transposed.infer(&[&fact(&[3, 2]), &fact(&[4, 3])]), Ok(vec![fact(&[2, 4])]));
    }
}
