//! Convolutions; the algorithms are beside the operator.

use crate::ops::conv::{direct, im2col, spatial_pack, winograd};
use crate::ops::define::{AnchorForm, Define, DefineError, Form};
use crate::ops::{Conv, ConvAlgorithm, Definer, OpDef};

impl Define for Conv {
    /// Its name, and the algorithm where that is not the definition.
    fn label(&self) -> String {
        match self.algorithm {
            None | Some(ConvAlgorithm::Direct) => OpDef::name(self).to_string(),
            Some(other) => format!("{}_{other}", OpDef::name(self)),
        }
    }

    fn form(&self) -> Form<'_> {
        Form::Anchor(self)
    }
}

impl AnchorForm for Conv {
    fn operand_names(&self) -> &'static [&'static str] {
        &["x", "w", "b"]
    }

    fn can_be_followed(&self) -> bool {
        true
    }

    fn may_collapse(&self) -> bool {
        false
    }

    fn define(&self, at: &mut Definer<'_>) -> Result<(), DefineError> {
        match self.algorithm {
            None | Some(ConvAlgorithm::Direct | ConvAlgorithm::ImplicitGemm) => direct::define(self, at),
            Some(ConvAlgorithm::Im2col) => im2col::define(self, at),
            Some(ConvAlgorithm::SpatialPack) => spatial_pack::define(self, at),
            Some(ConvAlgorithm::Winograd2) => winograd::define(self, &winograd::F2, at),
            Some(ConvAlgorithm::Winograd4) => winograd::define(self, &winograd::F4, at),
        }
    }
}
