//! Reads at positions that are data. An index `i < 0` means `i + extent`; an index outside `-extent..extent` reads some
//! element of the axis, never memory outside the tensor.

use super::{Attributes, Fact, OpDef, OpError, checked_axis, exactly, index};

/// `y[a.., i.., b..] = x[a.., indices[i..], b..]`, the index at `axis` of `x`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// The axis of `x` the indices select from.
    pub axis: usize,
}

impl OpDef for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn attributes(&self) -> String {
        format!("axis {}", self.axis)
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices] = exactly(inputs, "2")?;
        index(1, indices)?;
        checked_axis(self.axis, x)?;
        let shape = [&x.shape[..self.axis], &indices.shape, &x.shape[self.axis + 1..]].concat();
        reads_something(x, &[x.shape[self.axis]], &shape)?;
        Ok(vec![Fact { dtype: x.dtype, shape }])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// `y[i.., j, k..] = x[i.., indices[i.., j, k..], k..]`, the index at `axis`. `x` and `indices` have one rank, and
/// `indices` is nowhere wider than `x` but along `axis`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatherElements {
    /// The axis of `x` the indices select from.
    pub axis: usize,
}

impl OpDef for GatherElements {
    fn name(&self) -> &'static str {
        "gather_elements"
    }

    fn attributes(&self) -> String {
        format!("axis {}", self.axis)
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices] = exactly(inputs, "2")?;
        index(1, indices)?;
        checked_axis(self.axis, x)?;
        along_axis(x, indices, self.axis)?;
        reads_something(x, &[x.shape[self.axis]], &indices.shape)?;
        Ok(vec![Fact::new(x.dtype, &indices.shape)])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// `y[b.., i.., s..] = x[b.., indices[b.., i.., 0], indices[b.., i.., 1], .., s..]`: the last axis of `indices` holds
/// positions along the axes of `x` that follow the `batch_dims` leading ones, which both share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatherNd {
    /// Leading axes that `x` and `indices` share.
    pub batch_dims: usize,
}

impl OpDef for GatherNd {
    fn name(&self) -> &'static str {
        "gather_nd"
    }

    fn attributes(&self) -> String {
        Attributes::default().unless(0, "batch_dims", self.batch_dims).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices] = exactly(inputs, "2")?;
        index(1, indices)?;
        let misfit = || {
            OpError::shape(format!("{indices} are no positions in {x} behind {} batch axes", self.batch_dims))
        };
        let (&depth, outer) = indices.shape.split_last().ok_or_else(misfit)?;
        let batch = self.batch_dims;
        if outer.len() < batch
            || x.rank() < batch
            || x.shape[..batch] != outer[..batch]
            || depth > x.rank() - batch
        {
            return Err(misfit());
        }
        let shape = [outer, &x.shape[batch + depth..]].concat();
        reads_something(x, &x.shape[batch..batch + depth], &shape)?;
        Ok(vec![Fact { dtype: x.dtype, shape }])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// Refuses `indices` that do not lie beside `x` along `axis`.
pub(super) fn along_axis(x: &Fact, indices: &Fact, axis: usize) -> Result<(), OpError> {
    let fits =
        indices.rank() == x.rank() && (0..x.rank()).all(|i| i == axis || indices.shape[i] <= x.shape[i]);
    if fits {
        Ok(())
    } else {
        Err(OpError::shape(format!("indices {indices} do not fit {x} along axis {axis}")))
    }
}

/// Refuses to read elements of an axis that has none.
fn reads_something(x: &Fact, axes: &[usize], output: &[usize]) -> Result<(), OpError> {
    if axes.contains(&0) && !output.contains(&0) {
        return Err(OpError::shape(format!("{x} has no element to select")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn shapes_join_data_and_indices() {
        let x = Fact::new(DType::F32, &[5, 6, 7]);
        let indices = |shape: &[usize]| Fact::new(DType::I64, shape);
        let y = |shape: &[usize]| Ok(vec![Fact::new(DType::F32, shape)]);
        assert_eq!(Gather { axis: 1 }.infer(&[&x, &indices(&[2, 3])]), y(&[5, 2, 3, 7]));
        assert_eq!(Gather { axis: 1 }.infer(&[&x, &indices(&[])]), y(&[5, 7]));
        assert!(Gather { axis: 3 }.infer(&[&x, &indices(&[])]).is_err());
        assert!(Gather { axis: 0 }.infer(&[&x, &x]).is_err());
        assert_eq!(GatherElements { axis: 1 }.infer(&[&x, &indices(&[5, 9, 1])]), y(&[5, 9, 1]));
        assert!(GatherElements { axis: 1 }.infer(&[&x, &indices(&[6, 1, 1])]).is_err());
        assert_eq!(GatherNd { batch_dims: 1 }.infer(&[&x, &indices(&[5, 4, 2])]), y(&[5, 4]));
        assert_eq!(GatherNd { batch_dims: 0 }.infer(&[&x, &indices(&[4, 1])]), y(&[4, 6, 7]));
        assert!(GatherNd { batch_dims: 0 }.infer(&[&x, &indices(&[4, 4])]).is_err());
        let empty = Fact::new(DType::F32, &[0, 6]);
        assert!(Gather { axis: 0 }.infer(&[&empty, &indices(&[2])]).is_err());
    }
}
