//! Operators that move elements without computing: which element goes where is known when they are compiled.

use super::map::Literal;
use super::{Attributes, Fact, OpDef, OpError, checked_axis, exactly, same_dtype};
use crate::tensor::{broadcast_shapes, elements};

/// The same elements in the same row-major order under another shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The shape of the output.
    pub shape: Vec<usize>,
}

impl OpDef for View {
    fn name(&self) -> &'static str {
        "view"
    }

    fn attributes(&self) -> String {
        String::new()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        if elements(&self.shape) != elements(&x.shape) {
            return Err(OpError::shape(format!(
                "{x} has not as many elements as the shape {:?}",
                self.shape
            )));
        }
        Ok(vec![Fact::new(x.dtype, &self.shape)])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// `y[i0, i1, ..] = x[j0, j1, ..]` where `j[perm[a]] = i[a]`: axis `a` of the output is axis `perm[a]` of the input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transpose {
    /// A permutation of the axes.
    pub perm: Vec<usize>,
}

impl OpDef for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn attributes(&self) -> String {
        format!("perm {:?}", self.perm)
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.rank()) {
            return Err(OpError::shape(format!("{:?} is no permutation of the axes of {x}", self.perm)));
        }
        Ok(vec![Fact { dtype: x.dtype, shape: self.perm.iter().map(|&axis| x.shape[axis]).collect() }])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// The part of one axis a [`Slice`] takes: elements `start`, `start + step`, ..., `size` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SliceAxis {
    /// The first element.
    pub start: usize,
    /// The distance to the next one, which may be negative but not 0.
    pub step: i64,
    /// How many.
    pub size: usize,
}

impl SliceAxis {
    /// The whole of an axis.
    pub fn all(size: usize) -> SliceAxis {
        SliceAxis { start: 0, step: 1, size }
    }

    /// Whether every element lies in an axis of `extent` elements.
    fn fits(self, extent: usize) -> bool {
        let last = |size: usize| {
            let distance = i64::try_from(size - 1).ok()?.checked_mul(self.step)?;
            i64::try_from(self.start).ok()?.checked_add(distance)
        };
        self.step != 0
            && (self.size == 0
                || (self.start < extent
                    && last(self.size)
                        .is_some_and(|last| usize::try_from(last).is_ok_and(|last| last < extent))))
    }
}

/// `y[i0, ..] = x[start0 + i0 * step0, ..]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// One an axis.
    pub axes: Vec<SliceAxis>,
}

impl OpDef for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn attributes(&self) -> String {
        let starts: Vec<usize> = self.axes.iter().map(|axis| axis.start).collect();
        let steps: Vec<i64> = self.axes.iter().map(|axis| axis.step).collect();
        let ones = vec![1; steps.len()];
        Attributes::default().always("starts", starts).unless(ones, "steps", steps).finish()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        let fits = self.axes.len() == x.rank()
            && self.axes.iter().zip(&x.shape).all(|(axis, &extent)| axis.fits(extent));
        if !fits {
            return Err(OpError::shape(format!("the slice {:?} does not lie in {x}", self.axes)));
        }
        Ok(vec![Fact { dtype: x.dtype, shape: self.axes.iter().map(|axis| axis.size).collect() }])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// `x` repeated along new leading axes and axes of extent 1 until it has `shape`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broadcast {
    /// The shape of the output.
    pub shape: Vec<usize>,
}

impl OpDef for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn attributes(&self) -> String {
        String::new()
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        if broadcast_shapes(&x.shape, &self.shape).as_ref() != Some(&self.shape) {
            return Err(OpError::shape(format!("{x} does not broadcast to {:?}", self.shape)));
        }
        Ok(vec![Fact::new(x.dtype, &self.shape)])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// What a [`Pad`] puts around its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PadMode {
    /// A value of the input's type.
    Constant(Literal),
    /// The nearest element.
    Edge,
    /// The elements mirrored at the first and last one, which is not repeated.
    Reflect,
    /// The elements from the other end.
    Wrap,
}

/// `y[i..] = x[i - before..]` where that exists, else what the mode says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pad {
    /// Elements before and after each axis.
    pub pads: Vec<(usize, usize)>,
    /// What they are. `Reflect` takes fewer elements than the axis has, `Wrap` at most as many; neither they nor `Edge`
    /// pad an empty axis.
    pub mode: PadMode,
}

impl OpDef for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn attributes(&self) -> String {
        let attributes = Attributes::default().always("pads", &self.pads);
        match self.mode {
            PadMode::Constant(value) => format!("{}, value {value}", attributes.finish()),
            PadMode::Edge => attributes.flag("edge", true).finish(),
            PadMode::Reflect => attributes.flag("reflect", true).finish(),
            PadMode::Wrap => attributes.flag("wrap", true).finish(),
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly(inputs, "1")?;
        if self.pads.len() != x.rank() {
            return Err(OpError::shape(format!("the pads {:?} are not one an axis of {x}", self.pads)));
        }
        if let PadMode::Constant(value) = self.mode {
            same_dtype(0, x, value.dtype())?;
        }
        let mut shape = Vec::with_capacity(x.rank());
        for (&(before, after), &extent) in self.pads.iter().zip(&x.shape) {
            let most = match self.mode {
                PadMode::Constant(_) => usize::MAX,
                PadMode::Edge if extent > 0 => usize::MAX,
                PadMode::Edge => 0,
                PadMode::Reflect => extent.saturating_sub(1),
                PadMode::Wrap => extent,
            };
            let padded = before.checked_add(after).and_then(|pads| pads.checked_add(extent));
            match padded {
                Some(padded) if before.max(after) <= most => shape.push(padded),
                Some(_) | None => {
                    return Err(OpError::shape(format!(
                        "an axis of {extent} elements cannot be padded by ({before}, {after})"
                    )));
                }
            }
        }
        Ok(vec![Fact { dtype: x.dtype, shape }])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// The inputs one after the other along `axis`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Concat {
    /// The axis whose extents add up; the others agree.
    pub axis: usize,
}

impl OpDef for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn attributes(&self) -> String {
        format!("axis {}", self.axis)
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let (first, rest) = inputs.split_first().ok_or(OpError::Arity { wanted: "one or more", given: 0 })?;
        checked_axis(self.axis, first)?;
        let mut result = (*first).clone();
        for (i, input) in rest.iter().enumerate() {
            same_dtype(i + 1, input, first.dtype)?;
            let agrees = input.rank() == first.rank()
                && (0..first.rank()).all(|axis| axis == self.axis || input.shape[axis] == first.shape[axis]);
            let sum = agrees.then(|| result.shape[self.axis].checked_add(input.shape[self.axis])).flatten();
            result.shape[self.axis] = sum.ok_or_else(|| {
                OpError::shape(format!("{input} does not continue {first} along axis {}", self.axis))
            })?;
        }
        Ok(vec![result])
    }

    fn flop(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn slices_lie_within() {
        assert!(SliceAxis { start: 4, step: -2, size: 3 }.fits(5));
        assert!(!SliceAxis { start: 4, step: -2, size: 4 }.fits(5));
        assert!(!SliceAxis { start: 0, step: i64::MAX, size: 3 }.fits(5));
        assert!(SliceAxis { start: 9, step: 1, size: 0 }.fits(5));
        assert!(!SliceAxis { start: 0, step: 0, size: 1 }.fits(5));
    }

    #[test]
    fn reflection_needs_enough_elements() {
        let x = Fact::new(DType::F32, &[3]);
        let pad = |before, mode| Pad { pads: vec![(before, 0)], mode }.infer(&[&x]);
        assert_eq!(pad(2, PadMode::Reflect), Ok(vec![Fact::new(DType::F32, &[5])]));
        assert!(pad(3, PadMode::Reflect).is_err());
        assert!(pad(3, PadMode::Wrap).is_ok());
        assert!(pad(4, PadMode::Wrap).is_err());
        assert!(pad(1, PadMode::Constant(Literal::zero(DType::F16))).is_err());
        assert!(pad(usize::MAX, PadMode::Edge).is_err());
    }

    #[test]
    fn permutations_and_concatenations_are_checked() {
        let x = Fact::new(DType::F32, &[2, 3]);
        let transpose = |perm: &[usize]| Transpose { perm: perm.to_vec() }.infer(&[&x]);
        assert_eq!(transpose(&[1, 0]), Ok(vec![Fact::new(DType::F32, &[3, 2])]));
        assert!(transpose(&[0, 0]).is_err());
        assert!(transpose(&[0]).is_err());
        let concat = |axis: usize| Concat { axis }.infer(&[&x, &Fact::new(DType::F32, &[2, 5])]);
        assert_eq!(concat(1), Ok(vec![Fact::new(DType::F32, &[2, 8])]));
        assert!(concat(0).is_err());
        assert!(concat(2).is_err());
    }
}
