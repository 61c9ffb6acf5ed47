//! Convolution of one to three (or more) spatial dimensions.

pub(super) mod direct;
pub(super) mod im2col;
pub(super) mod spatial_pack;
mod windows;
pub(super) mod winograd;

use super::{Attributes, Fact, OpDef, OpError, dtype_of_products, product, same_dtype, window_extent};
use crate::tensor::DType;
use std::fmt;
use std::str::FromStr;

/// `y[n, k, p..] = bias[k] + sum over c, r.. of x[n, c, p * stride + r * dilation - pad..] * w[k, c, r..]`, where `c` runs
/// over the channels of `k`'s group and what lies in the padding is `edge`. Sums of products of bytes, u8 or i8, are i32; beside an `x` of f32,
/// `w` may be of f16 or bf16, but not for Winograd's algorithm.
///
/// Inputs: `x[N, C, spatial..]`, `w[K, C / groups, kernel..]`, optionally `bias[K]`; output `y[N, K, spatial..]`.
/// `C` and `K` are multiples of `groups`; the output channels of group `g` are `g * K / groups ..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// One a spatial dimension, positive.
    pub strides: Vec<usize>,
    /// One a spatial dimension, positive.
    pub dilations: Vec<usize>,
    /// Elements before and after each spatial dimension.
    pub pads: Vec<(usize, usize)>,
    /// The number of groups, positive.
    pub groups: usize,
    /// What these elements are; 0 but for integers that stand for other numbers.
    pub edge: i64,
    /// How it is computed, where that was chosen.
    pub algorithm: Option<ConvAlgorithm>,
}

/// How a convolution is computed. All give the same result, with different rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvAlgorithm {
    /// As it is defined.
    Direct,
    /// The windows are copied to the columns of a matrix, which is multiplied with the weights.
    Im2col,
    /// As [`Im2col`](Self::Im2col) without the matrix: the definition on rows, whose schedule copies the columns of a few places at a
    /// time to where the product reads them.
    ImplicitGemm,
    /// The input is packed to tiles of places, each of which is a convolution without padding. In groups: GSPC.
    SpatialPack,
    /// Winograd's F(2x2, 3x3): 16 products for 4 results of a channel, where the definition has 36. Of windows of 3 along one
    /// dimension F(2, 3): 4 for 2, where it has 6.
    Winograd2,
    /// Winograd's F(4x4, 3x3): 36 products for 16 results of a channel, where the definition has 144. Of windows of 3 along one
    /// dimension F(4, 3): 6 for 4, where it has 12.
    Winograd4,
}

impl ConvAlgorithm {
    /// Every algorithm.
    pub const ALL: [ConvAlgorithm; 6] = [
        ConvAlgorithm::Direct,
        ConvAlgorithm::Im2col,
        ConvAlgorithm::ImplicitGemm,
        ConvAlgorithm::SpatialPack,
        ConvAlgorithm::Winograd2,
        ConvAlgorithm::Winograd4,
    ];

    /// The name that people use.
    pub fn name(self) -> &'static str {
        match self {
            ConvAlgorithm::Direct => "direct",
            ConvAlgorithm::Im2col => "im2col",
            ConvAlgorithm::ImplicitGemm => "implicit_gemm",
            ConvAlgorithm::SpatialPack => "spatial_pack",
            ConvAlgorithm::Winograd2 => "winograd2",
            ConvAlgorithm::Winograd4 => "winograd4",
        }
    }

    /// Results along a dimension that are computed at once, where it computes tiles of them.
    pub fn tile(self) -> Option<usize> {
        match self {
            ConvAlgorithm::Direct
            | ConvAlgorithm::Im2col
            | ConvAlgorithm::ImplicitGemm
            | ConvAlgorithm::SpatialPack => None,
            ConvAlgorithm::Winograd2 => Some(2),
            ConvAlgorithm::Winograd4 => Some(4),
        }
    }

    /// The largest error of a result in f32, as a part of the sum of the magnitudes of its terms, for sums of up to some
    /// thousands of terms that do not conspire. Winograd's transforms magnify rounding: by the largest sums of magnitudes in the
    /// rows of their matrices.
    pub fn error_bound(self) -> f64 {
        let units = match self {
            ConvAlgorithm::Direct
            | ConvAlgorithm::Im2col
            | ConvAlgorithm::ImplicitGemm
            | ConvAlgorithm::SpatialPack
            | ConvAlgorithm::Winograd2 => 8.0,
            ConvAlgorithm::Winograd4 => 64.0,
        };
        units * f64::from(f32::EPSILON) / 2.0
    }

    /// Whether it can compute `conv` of operands `x` and `w`.
    pub fn applies(self, conv: &Conv, x: &Fact, w: &Fact) -> bool {
        match self {
            ConvAlgorithm::Direct | ConvAlgorithm::Im2col => true,
            // A single output channel leaves nothing to compute at once.
            ConvAlgorithm::ImplicitGemm | ConvAlgorithm::SpatialPack => w.shape[0] > conv.groups,
            ConvAlgorithm::Winograd2 | ConvAlgorithm::Winograd4 => {
                [x, w].iter().all(|of| of.dtype == DType::F32)
                    && matches!(w.shape[2..], [3] | [3, 3] | [1, 3] | [3, 1])
                    && conv.strides.iter().chain(&conv.dilations).all(|&step| step == 1)
                    && conv.groups == 1
            }
        }
    }
}

impl fmt::Display for ConvAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no algorithm of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is no algorithm for convolutions; there are {}", ConvAlgorithm::ALL.map(ConvAlgorithm::name).join(", "))]
pub struct NoAlgorithm {
    name: String,
}

impl FromStr for ConvAlgorithm {
    type Err = NoAlgorithm;

    fn from_str(name: &str) -> Result<ConvAlgorithm, NoAlgorithm> {
        let named = ConvAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        named.ok_or_else(|| NoAlgorithm { name: name.to_string() })
    }
}

impl OpDef for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn attributes(&self) -> String {
        let rank = self.strides.len();
        let attributes = Attributes::default()
            .unless(vec![1; rank], "strides", self.strides.clone())
            .unless(vec![1; rank], "dilations", self.dilations.clone())
            .unless(vec![(0, 0); rank], "pads", self.pads.clone())
            .unless(1, "groups", self.groups)
            .unless(0, "edge", self.edge);
        match self.algorithm {
            Some(algorithm) => attributes.always("algorithm", format_args!("{algorithm}")).finish(),
            None => attributes.finish(),
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let (x, w, bias) = match *inputs {
            [x, w] => (x, w, None),
            [x, w, bias] => (x, w, Some(bias)),
            _ => return Err(OpError::Arity { wanted: "2 or 3", given: inputs.len() }),
        };
        let dtype = dtype_of_products(x, w)?;
        let ([batch, channels, spatial @ ..], [filters, depth, kernel @ ..]) = (&x.shape[..], &w.shape[..])
        else {
            return Err(OpError::shape(format!("no convolution of {x} with {w}")));
        };
        let rank = spatial.len();
        if [kernel.len(), self.strides.len(), self.dilations.len(), self.pads.len()] != [rank; 4] {
            return Err(OpError::shape(format!(
                "kernel {kernel:?}, strides {:?}, dilations {:?} and pads {:?} do not fit the {rank} spatial dimensions \
                 of {x}",
                self.strides, self.dilations, self.pads
            )));
        }
        if self.groups == 0
            || !filters.is_multiple_of(self.groups)
            || depth.checked_mul(self.groups) != Some(*channels)
        {
            return Err(OpError::shape(format!(
                "{} groups do not divide the {channels} channels of {x} and the {filters} filters of {w}",
                self.groups
            )));
        }
        if let Some(bias) = bias {
            same_dtype(2, bias, dtype)?;
            if bias.shape != [*filters] {
                return Err(OpError::shape(format!("the bias is {bias}, but there are {filters} filters")));
            }
        }
        let mut shape = vec![*batch, *filters];
        for axis in 0..rank {
            shape.push(window_extent(
                spatial[axis],
                kernel[axis],
                self.strides[axis],
                self.dilations[axis],
                self.pads[axis],
            )?);
        }
        Ok(vec![Fact { dtype, shape }])
    }

    fn flop(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let products = product(&outputs[0].shape).saturating_mul(product(&inputs[1].shape[1..]));
        let biases = if inputs.len() > 2 { product(&outputs[0].shape) } else { 0 };
        products.saturating_mul(2).saturating_add(biases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(stride: usize, pad: usize, groups: usize) -> Conv {
        Conv {
            strides: vec![stride; 2],
            dilations: vec![1; 2],
            pads: vec![(pad, pad); 2],
            groups,
            edge: 0,
            algorithm: None,
        }
    }

    #[test]
    fn shapes_follow_the_attributes() {
        let fact = |shape: &[usize]| Fact::new(DType::F32, shape);
        let (x, w, y) = (fact(&[1, 64, 56, 56]), fact(&[128, 8, 3, 3]), fact(&[1, 128, 28, 28]));
        assert_eq!(conv(2, 1, 8).infer(&[&x, &w]), Ok(vec![y.clone()]));
        assert_eq!(conv(2, 1, 8).flop(&[&x, &w], &[&y]), 128 * 28 * 28 * 72 * 2);
        assert_eq!(conv(2, 1, 8).attributes(), "strides [2, 2], pads [(1, 1), (1, 1)], groups 8");
        assert!(conv(2, 1, 4).infer(&[&x, &w]).is_err());
        assert!(conv(0, 1, 8).infer(&[&x, &w]).is_err());
        assert!(conv(1, 1, 0).infer(&[&x, &w]).is_err());
        assert!(conv(1, 1, 8).infer(&[&x, &w, &fact(&[64])]).is_err());
        assert!(conv(1, 0, 8).infer(&[&fact(&[1, 64, 2, 2]), &w]).is_err());
    }
}
