//! What the algorithms that sum over channels and windows share.

use crate::expr::{ExprId, ExprPool};
use crate::loopir::Combiner;
use crate::ops::define::{DefineError, accumulator};
use crate::ops::nests::window::{Window, kernel_names, output_names};
use crate::ops::{Conv, Definer};
use crate::tensor::DType;

/// The extents of a convolution and the names of its loops.
pub(super) struct Windows {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Input channels of a group.
    pub(super) channels: usize,
    /// Output channels of a group.
    pub(super) filters: usize,
    /// What lies in the padding.
    pub(super) edge: i64,
    /// One a spatial dimension.
    pub(super) windows: Vec<Window>,
    /// Output positions, one a spatial dimension.
    pub(super) places: Vec<usize>,
    /// The names of the loops over output positions.
    pub(super) place_names: Vec<String>,
    /// The names of the loops over a window.
    pub(super) tap_names: Vec<String>,
}

/// Where a product of the sum stands: the loops around it.
pub(super) struct Product<'a> {
    pub(super) n: ExprId,
    /// The group.
    pub(super) g: ExprId,
    /// The type of the sum.
    pub(super) dtype: DType,
    /// The loops over places, as they were given.
    pub(super) places: &'a [ExprId],
    /// The channel within the group.
    pub(super) c: ExprId,
    /// The place in the window, one a spatial dimension.
    pub(super) taps: &'a [ExprId],
}

impl Windows {
    /// Those of `conv`, from whose node `at` is seen.
    pub(super) fn of(conv: &Conv, at: &Definer<'_>) -> Windows {
        let (x, w, y) = (at.input(0), at.input(1), at.output(0));
        let rank = y.rank() - 2;
        let window = |axis: usize| Window {
            extent: x.shape[2 + axis],
            kernel: w.shape[2 + axis],
            stride: conv.strides[axis],
            dilation: conv.dilations[axis],
            before: conv.pads[axis].0,
        };
        Windows {
            batch: y.shape[0],
            groups: conv.groups,
            channels: w.shape[1],
            filters: y.shape[1] / conv.groups,
            edge: conv.edge,
            windows: (0..rank).map(window).collect(),
            places: y.shape[2..].to_vec(),
            place_names: output_names(rank),
            tap_names: kernel_names(rank),
        }
    }

    /// The loops over the window.
    pub(super) fn taps(&self) -> Vec<(&str, usize)> {
        let extents = self.windows.iter().map(|window| window.kernel);
        self.tap_names.iter().map(String::as_str).zip(extents).collect()
    }

    /// The loops over output positions.
    pub(super) fn places(&self) -> Vec<(&str, usize)> {
        self.place_names.iter().map(String::as_str).zip(self.places.iter().copied()).collect()
    }

    /// Channel `c` of group `g` among all input channels.
    pub(super) fn channel(&self, pool: &mut ExprPool, g: ExprId, c: ExprId) -> ExprId {
        let first = pool.mul_int(g, self.channels as i64);
        pool.add(first, c)
    }

    /// Where the elements `taps` of the windows at `places` lie in the input.
    pub(super) fn positions(&self, pool: &mut ExprPool, places: &[ExprId], taps: &[ExprId]) -> Vec<ExprId> {
        let position = |((window, &p), &r): ((&Window, &ExprId), &ExprId)| window.position(pool, p, r);
        self.windows.iter().zip(places).zip(taps).map(position).collect()
    }

    /// The input at `positions` of a channel as a `dtype`, with its padding.
    ///
    /// # Errors
    /// As [`Definer::read`].
    pub(super) fn input(
        &self,
        at: &mut Definer<'_>,
        n: ExprId,
        channel: ExprId,
        positions: &[ExprId],
        dtype: DType,
    ) -> Result<ExprId, DefineError> {
        let mut inside = at.pool().truth();
        for (window, &position) in self.windows.iter().zip(positions) {
            let fits = window.inside(at.pool(), position);
            inside = at.pool().and(inside, fits);
        }
        let value = at.read(0, &[&[n, channel], positions].concat())?;
        let of_input = at.input(0).dtype;
        let pool = at.pool();
        let mut value = pool.guard(inside, value);
        if self.edge != 0 {
            let edge = pool.constant(self.edge as f64, of_input);
            value = pool.select(inside, value, edge);
        }
        Ok(pool.cast(dtype, value))
    }

    /// Adds the loops over results, those over `places` innermost, and the sum over channels and windows of `input` times the weight.
    /// `position` says which result it is at given places, and under which condition there is one.
    ///
    /// # Errors
    /// As [`Definer::read`] and [`Definer::emit`].
    pub(super) fn sum(
        &self,
        at: &mut Definer<'_>,
        places: &[(&str, usize)],
        input: impl FnOnce(&mut Definer<'_>, &Product<'_>) -> Result<ExprId, DefineError>,
        position: impl FnOnce(&mut ExprPool, &[ExprId]) -> (Vec<ExprId>, Option<ExprId>),
    ) -> Result<(), DefineError> {
        let dtype = accumulator(at.output(0).dtype);
        let outer = [("n", self.batch), ("g", self.groups), ("k", self.filters)];
        let (outer, opened) = at.open(&[&outer, places].concat());
        let [n, g, k] = [outer[0], outer[1], outer[2]];
        let places = &outer[3..];
        let first_filter = at.pool().mul_int(g, self.filters as i64);
        let filter = at.pool().add(first_filter, k);
        let reduced = [&[("c", self.channels)], self.taps().as_slice()].concat();
        let sum = at.accumulate("acc", dtype, Combiner::Add, &reduced, |at, inner| {
            let product = Product { n, g, dtype, places, c: inner[0], taps: &inner[1..] };
            let value = input(at, &product)?;
            let value = at.pool().cast(dtype, value);
            let weight = at.read_as(1, &[&[filter], inner].concat(), dtype)?;
            Ok(at.pool().mul(value, weight))
        })?;
        let value = if at.has_input(2) {
            let bias = at.read_as(2, &[filter], dtype)?;
            at.pool().add(sum, bias)
        } else {
            sum
        };
        let (position, condition) = position(at.pool(), places);
        at.emit_where(0, &[&[n, filter], position.as_slice()].concat(), value, condition)?;
        at.close(opened);
        Ok(())
    }
}
