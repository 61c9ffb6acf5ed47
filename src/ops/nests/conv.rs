//! Convolutions; the algorithms are beside the operator.

use crate::ops::conv::direct;
use crate::ops::define::{AnchorForm, DefineError};
use crate::ops::{Conv, Definer};

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
        direct::define(self, at)
    }
}
