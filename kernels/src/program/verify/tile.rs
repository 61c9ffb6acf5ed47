//! What is proved of a tile.

use super::super::affine::Condition;
use super::super::code::{AccessId, Depth, ElementType, Scaled, Terms, Tile, Trip};
use super::super::tile::tile_fits;
use super::{Check, Problem, Verifier, expect_type, of_terms};
use crate::tile::DEPTHS;
use crate::tile::dots::DOT_TERMS;

impl Verifier<'_> {
    pub(super) fn tile(&mut self, tile: &Tile) -> Check {
        let Tile {
            a,
            a_line_stride,
            a_row_stride,
            a_col_stride,
            terms,
            c,
            c_line_stride,
            c_row_stride,
            c_block_stride,
            lines,
            rows,
            blocks,
            cols,
            depths,
            guard,
            accumulate,
            finish,
            scaled,
        } = tile;
        if !tile_fits(self.table, tile) || depths.len() > DEPTHS {
            let isa = self.table.isa;
            let (rows, cols, levels) = (rows.max(), blocks * cols.max(), depths.len());
            return Err(Problem::TileSize { isa, rows, cols, levels });
        }
        let buffer = |id: &AccessId| self.code.accesses.get(id.index()).map(|access| access.buffer);
        let start = finish.as_ref().and_then(|finish| finish.start);
        let addend = finish.as_ref().and_then(|finish| finish.addend);
        if tile.accesses().filter(|id| buffer(id) == buffer(c)).count() > 1 {
            return Err(Problem::TileOverlap);
        }
        let guard = of_terms(guard, depths, *a_col_stride == 1)?;
        let blocks_trip = Trip::Constant(*blocks);
        let first = self.dims(
            [lines, rows, &blocks_trip, cols].into_iter().chain(depths.iter().map(|level| &level.trip)),
        )?;
        let outer = [
            (*c_line_stride, lines.max(), first),
            (*c_row_stride, rows.max(), first + 1),
            (*c_block_stride, *blocks, first + 2),
        ];
        if !self.are_apart(first + 3, outer) {
            return Err(Problem::TileOverlap);
        }
        self.accumulation(accumulate)?;
        let levels = |stride: fn(&Depth) -> i64| depths.iter().map(stride);
        // An element of several neighbours goes over a dimension more.
        let neighbours = if matches!(terms, Terms::Dots { .. }) { DOT_TERMS } else { 1 };
        self.dims([&Trip::Constant(neighbours)])?;
        let strides_of = |own: [i64; 4], levels: &mut dyn Iterator<Item = i64>| -> Vec<i64> {
            own.into_iter().chain(levels).chain([1]).collect()
        };
        let a_strides = strides_of(
            [*a_line_stride, *a_row_stride, 0, *a_col_stride],
            &mut levels(|level| level.a_stride),
        );
        if let Terms::Dots { b, b_block_stride } = terms {
            let own = [0, 0, *b_block_stride, DOT_TERMS as i64];
            let b_strides = strides_of(own, &mut levels(|level| level.b_stride));
            let c_strides = [*c_line_stride, *c_row_stride, *c_block_stride, 1];
            let a = self.access(*a, first, &a_strides, &guard, false)?;
            if a != ElementType::U8 {
                expect_type(0, a, ElementType::I8)?;
            }
            expect_type(0, self.access(*b, first, &b_strides, &[], false)?, ElementType::I8)?;
            let c = self.access(*c, first, &c_strides, &[], true)?;
            return match scaled {
                Some(scaled) => self.scaled(scaled, first, ElementType::I32, c),
                None => expect_type(0, c, ElementType::I32),
            };
        }
        let of_a = self.access(*a, first, &a_strides, &guard, false)?;
        if *terms == Terms::Largest && matches!(of_a, ElementType::U8 | ElementType::I8) && finish.is_none() {
            let c_strides = [*c_line_stride, *c_row_stride, *c_block_stride, 1];
            return expect_type(0, self.access(*c, first, &c_strides, &[], true)?, of_a);
        }
        expect_type(0, of_a, ElementType::F32)?;
        if let Some(scaled) = scaled {
            let c_strides = [*c_line_stride, *c_row_stride, *c_block_stride, 1];
            let c = self.access(*c, first, &c_strides, &[], true)?;
            self.scaled(scaled, first, ElementType::F32, c)?;
        }
        if let Terms::Products { b, b_block_stride } = terms {
            let strides = strides_of([0, 0, *b_block_stride, 1], &mut levels(|level| level.b_stride));
            let b = self.access(*b, first, &strides, &[], false)?;
            let converted = *a_col_stride == 0 && matches!(b, ElementType::F16 | ElementType::BF16);
            expect_type(0, if converted { ElementType::F32 } else { b }, ElementType::F32)?;
        }
        let operand = |access, strides: &[i64], guard: &[Condition], stores| {
            expect_type(0, self.access(access, first, strides, guard, stores)?, ElementType::F32)
        };
        if scaled.is_none() {
            operand(*c, &[*c_line_stride, *c_row_stride, *c_block_stride, 1], &[], true)?;
        }
        start.iter().try_for_each(|(access, block)| operand(*access, &[0, 0, *block, 1], &[], false))?;
        addend.iter().try_for_each(|(access, [line, row, block])| {
            operand(*access, &[*line, *row, *block, 1], &[], false)
        })
    }

    /// Sums of type `sums` that become bytes, the elements of `c`.
    fn scaled(&mut self, scaled: &Scaled, first: usize, sums: ElementType, c: ElementType) -> Check {
        let Scaled { start, scale, scale_block_stride, .. } = scaled;
        if c != ElementType::U8 {
            expect_type(0, c, ElementType::I8)?;
        }
        if let Some((start, block)) = start {
            expect_type(0, self.access(*start, first, &[0, 0, *block, 1], &[], false)?, sums)?;
        }
        let own = scale_block_stride.map_or([0; 4], |block| [0, 0, block, 1]);
        expect_type(0, self.access(*scale, first, &own, &[], false)?, ElementType::F32)
    }
}
