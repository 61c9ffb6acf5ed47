//! Convolutions; the algorithms are beside the operator.

use crate::ops::conv::{direct, winograd};
use crate::ops::define::{AnchorForm, DefineError};
use crate::ops::{Conv, ConvAlgorithm, Definer};

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
            None | Some(ConvAlgorithm::Direct) => direct::define(self, at),
            Some(ConvAlgorithm::Winograd2) => winograd::define(self, &winograd::F2, at),
            Some(ConvAlgorithm::Winograd4) => winograd::define(self, &winograd::F4, at),
        }
    }
}
