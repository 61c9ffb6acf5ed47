//! The text form of programs, for people.

use std::fmt::{self, Display, Formatter, Write};

use super::affine::{Affine, Condition};
use super::code::{
    AccessId, Accumulate, Block, BlockOp, BufferId, Call, Code, Combine, CounterId, Finish, Literal, Loop,
    Node, Place, Register, Scaled, Terms, Tile, Transform, Trip, Window, WindowKind,
};
use crate::scalar::BinaryOp;
use crate::tile::dots::DOT_TERMS;

/// The names of the dimensions of blocks, and of the rows, blocks of columns and columns of tiles.
const DIMS: [&str; 3] = ["d0", "d1", "d2"];
const TILE_DIMS: [&str; 4] = ["line", "row", "block", "col"];
/// The names of an output row, a window's row, a result and a window's column.
const WINDOW_DIMS: [&str; 4] = ["out", "row", "at", "col"];
/// The names of a tile, its row, its column and a channel of a transform.
const TRANSFORM_DIMS: [&str; 4] = ["tile", "row", "col", "lane"];

impl Display for Code {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "program {}", self.name)?;
        for buffer in &self.buffers {
            let place = match buffer.place {
                Place::External { index, writable: true } => format!("inout {index}"),
                Place::External { index, writable: false } => format!("in {index}"),
                Place::Shared => "shared".into(),
                Place::Scratch => "scratch".into(),
            };
            writeln!(f, "  {place} {}: {}[{}]", buffer.name, buffer.dtype.name(), buffer.length)?;
        }
        for (at, node) in self.body.iter().enumerate() {
            writeln!(f, "phase {at}")?;
            Printer { code: self }.node(f, node, 1)?;
        }
        Ok(())
    }
}

struct Printer<'a> {
    code: &'a Code,
}

/// Stands for the name of what is not declared; code is printed before it is verified, too.
const UNDECLARED: &str = "?";

impl Printer<'_> {
    fn counter(&self, id: CounterId) -> &str {
        self.code.counters.get(id.index()).map_or(UNDECLARED, String::as_str)
    }

    fn buffer(&self, id: BufferId) -> &str {
        self.code.buffers.get(id.index()).map_or(UNDECLARED, |buffer| &buffer.name)
    }

    fn node(&self, f: &mut Formatter<'_>, node: &Node, depth: usize) -> fmt::Result {
        match node {
            Node::Loop(Loop { counter, trip, parallel, body }) => {
                indent(f, depth)?;
                if *parallel {
                    f.write_str("parallel ")?;
                }
                writeln!(f, "for {} in {}", self.counter(*counter), self.trip(trip))?;
                body.iter().try_for_each(|node| self.node(f, node, depth + 1))
            }
            Node::Call(Call::Tile(tile)) => {
                indent(f, depth)?;
                self.tile(f, tile)
            }
            Node::Call(Call::Window(window)) => {
                indent(f, depth)?;
                self.window(f, window)
            }
            Node::Call(Call::Transform(transform)) => {
                indent(f, depth)?;
                self.transform(f, transform)
            }
            Node::Call(Call::Block(block)) => self.block(f, block, depth),
        }
    }

    fn tile(&self, f: &mut Formatter<'_>, tile: &Tile) -> fmt::Result {
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
        let assign = self.accumulation(accumulate);
        let levels: Vec<String> = match depths.len() {
            1 => vec!["depth".into()],
            levels => (0..levels).map(|level| format!("depth{level}")).collect(),
        };
        let view = |access: AccessId, own: [i64; 4], strides: &mut dyn Iterator<Item = i64>| {
            let names = TILE_DIMS.into_iter().chain(levels.iter().map(String::as_str));
            self.access(access, own.into_iter().chain(strides).zip(names))
        };
        let columns =
            if *blocks == 1 { self.trip(cols) } else { format!("({blocks} x {})", self.trip(cols)) };
        let counts: Vec<String> = depths.iter().map(|level| self.trip(&level.trip)).collect();
        write!(
            f,
            "tile {}{} x {columns} x {}: {} {assign} ",
            if *lines == Trip::Constant(1) { String::new() } else { format!("{} x ", self.trip(lines)) },
            self.trip(rows),
            if counts.len() == 1 { counts[0].clone() } else { format!("({})", counts.join(" x ")) },
            view(*c, [*c_line_stride, *c_row_stride, *c_block_stride, 1], &mut std::iter::empty()),
        )?;
        let own = [*a_line_stride, *a_row_stride, 0, *a_col_stride];
        let a = view(*a, own, &mut depths.iter().map(|level| level.a_stride));
        match terms {
            Terms::Products { b, b_block_stride } => {
                let own = [0, 0, *b_block_stride, 1];
                write!(f, "{a} * {}", view(*b, own, &mut depths.iter().map(|level| level.b_stride)))?;
            }
            Terms::Dots { b, b_block_stride } => {
                let own = [0, 0, *b_block_stride, DOT_TERMS as i64];
                write!(f, "dots {a} * {}", view(*b, own, &mut depths.iter().map(|level| level.b_stride)))?;
            }
            Terms::Sum { divisor } => write!(f, "sum {a} / {}", literal(*divisor))?,
            Terms::Largest => write!(f, "max {a}")?,
        }
        if let Some(Scaled { start, scale, scale_block_stride, zero, low, high }) = scaled {
            let mut none = std::iter::empty();
            if let Some((start, block)) = start {
                write!(f, " from {}", view(*start, [0, 0, *block, 1], &mut none))?;
            }
            let own = scale_block_stride.map_or([0; 4], |block| [0, 0, block, 1]);
            write!(f, " scaled by {}", view(*scale, own, &mut none))?;
            write!(f, " plus {} within {} to {}", literal(*zero), literal(*low), literal(*high))?;
        }
        let dims: Vec<&str> =
            TILE_DIMS.into_iter().take(2).chain(levels.iter().map(String::as_str)).collect();
        self.guard(f, guard, None, &dims)?;
        self.finish(f, finish.as_ref(), TILE_DIMS)?;
        f.write_char('\n')
    }

    /// What becomes of sums in these dimensions.
    fn finish(&self, f: &mut Formatter<'_>, finish: Option<&Finish>, dims: [&str; 4]) -> fmt::Result {
        let Some(Finish { start, addend, low, high, activation }) = finish else { return Ok(()) };
        let view = |access: AccessId, strides: [i64; 4]| self.access(access, strides.into_iter().zip(dims));
        if let Some((access, block)) = start {
            write!(f, " from {}", view(*access, [0, 0, *block, 1]))?;
        }
        if let Some((access, [line, row, block])) = addend {
            write!(f, " plus {}", view(*access, [*line, *row, *block, 1]))?;
        }
        write!(f, " within {} to {}", literal(*low), literal(*high))?;
        activation.iter().try_for_each(|activation| write!(f, " then {}", activation.name()))
    }

    fn window(&self, f: &mut Formatter<'_>, window: &Window) -> fmt::Result {
        let Window {
            kind,
            x,
            x_row_stride,
            x_output_stride,
            stride,
            dilation,
            rows,
            cols,
            y,
            y_output_stride,
            outputs,
            count,
        } = window;
        let view =
            |access: AccessId, strides: [i64; 4]| self.access(access, strides.into_iter().zip(WINDOW_DIMS));
        let trips = [outputs, count, rows].map(|trip| self.trip(trip));
        let x = view(*x, [*x_output_stride, *x_row_stride, *stride as i64, *dilation as i64]);
        let y = view(*y, [*y_output_stride, 0, 1, 0]);
        write!(f, "window {} x {} of {} x {cols}: {y} = ", trips[0], trips[1], trips[2])?;
        match kind {
            WindowKind::Depthwise { weights, start, start_per_result, start_output_stride } => {
                let start = view(*start, [*start_output_stride, 0, i64::from(*start_per_result), 0]);
                let weights = view(*weights, [0, *cols as i64, 0, 1]);
                writeln!(f, "{start} + sum {weights} * {x}")
            }
            WindowKind::Max => writeln!(f, "max {x}"),
            WindowKind::Sum => writeln!(f, "sum {x}"),
        }
    }

    fn transform(&self, f: &mut Formatter<'_>, transform: &Transform) -> fmt::Result {
        let Transform {
            matrix,
            sides,
            x,
            x_row_stride,
            x_col_stride,
            x_tile_stride,
            y,
            y_row_stride,
            y_col_stride,
            y_tile_stride,
            tiles,
            lanes,
            guard,
            accumulate,
            finish,
        } = transform;
        let view = |access: AccessId, strides: [i64; 4]| {
            self.access(access, strides.into_iter().zip(TRANSFORM_DIMS))
        };
        write!(
            f,
            "transform {} x {lanes}: {} {} {}{}({})",
            self.trip(tiles),
            view(*y, [*y_tile_stride, *y_row_stride, *y_col_stride, 1]),
            self.accumulation(accumulate),
            matrix.name(),
            sides.suffix(),
            view(*x, [*x_tile_stride, *x_row_stride, *x_col_stride, 1]),
        )?;
        self.guard(f, guard, None, &TRANSFORM_DIMS)?;
        self.finish(f, finish.as_ref(), TRANSFORM_DIMS)?;
        f.write_char('\n')
    }

    fn accumulation(&self, accumulate: &Accumulate) -> String {
        match accumulate {
            Accumulate::Never => "=".into(),
            Accumulate::Always => "+=".into(),
            Accumulate::UnlessZero(form) => format!("(+)= [adds unless {} = 0]", self.affine(form)),
        }
    }

    fn block(&self, f: &mut Formatter<'_>, block: &Block, depth: usize) -> fmt::Result {
        indent(f, depth)?;
        write!(f, "block {} over", block.name)?;
        for (at, trip) in block.dims.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {} in {}", DIMS.get(at).unwrap_or(&UNDECLARED), self.trip(trip))?;
        }
        f.write_char('\n')?;
        for op in &block.ops {
            indent(f, depth + 1)?;
            self.op(f, block, op)?;
            f.write_char('\n')?;
        }
        Ok(())
    }

    fn op(&self, f: &mut Formatter<'_>, block: &Block, op: &BlockOp) -> fmt::Result {
        if let Some(to) = op.result() {
            let dtype = block.registers.get(to.index()).map_or(UNDECLARED, |dtype| dtype.name());
            write!(f, "{to}: {dtype} = ")?;
        }
        match op {
            BlockOp::Load { to: _, access, strides, guard } => {
                f.write_str(&self.view(*access, strides))?;
                self.guard(f, guard, None, &DIMS)
            }
            BlockOp::Constant { to: _, value } => f.write_str(&literal(*value)),
            BlockOp::Index { to: _, value, strides } => {
                f.write_str(&self.form(value, strides.iter().copied().zip(DIMS)))
            }
            BlockOp::Unary { to: _, op, x } => write!(f, "{}({x})", op.name()),
            BlockOp::Activate { to: _, activation, x } => write!(f, "{}({x})", activation.name()),
            BlockOp::Binary { to: _, op, a, b } => write!(f, "{}({a}, {b})", op.name()),
            BlockOp::MultiplyAdd { to: _, a, b, c } => write!(f, "{a} * {b} + {c}"),
            BlockOp::Select { to: _, condition, then, otherwise } => {
                write!(f, "if {condition} then {then} else {otherwise}")
            }
            BlockOp::Cast { to: _, x } => write!(f, "cast({x})"),
            BlockOp::Gather { to: _, buffer, index, mask } => {
                write!(f, "{}[{index}]", self.buffer(*buffer))?;
                self.guard(f, &[], *mask, &DIMS)
            }
            BlockOp::Store { access, strides, value, combine, guard, mask } => {
                write!(f, "{} {} {value}", self.view(*access, strides), assignment(*combine))?;
                self.guard(f, guard, *mask, &DIMS)
            }
            BlockOp::Scatter { buffer, index, value, combine, mask } => {
                write!(f, "{}[{index}] {} {value}", self.buffer(*buffer), assignment(*combine))?;
                self.guard(f, &[], *mask, &DIMS)
            }
        }
    }

    /// What must hold: conditions over these dimensions, and a mask.
    fn guard(
        &self,
        f: &mut Formatter<'_>,
        guard: &[Condition],
        mask: Option<Register>,
        dims: &[&str],
    ) -> fmt::Result {
        let conditions = guard.iter().map(|condition| {
            let Condition { value, strides, limit } = condition;
            format!("0 <= {} < {limit}", self.form(value, strides.iter().copied().zip(dims.iter().copied())))
        });
        let all: Vec<String> = conditions.chain(mask.map(|mask| mask.to_string())).collect();
        if all.is_empty() { Ok(()) } else { write!(f, " where {}", all.join(" and ")) }
    }

    fn view(&self, access: AccessId, strides: &[i64]) -> String {
        self.access(access, strides.iter().copied().zip(DIMS))
    }

    fn access<'n>(&self, id: AccessId, dims: impl Iterator<Item = (i64, &'n str)>) -> String {
        match self.code.accesses.get(id.index()) {
            Some(access) => format!("{}[{}]", self.buffer(access.buffer), self.form(&access.offset, dims)),
            None => format!("{UNDECLARED}[{id}]"),
        }
    }

    fn trip(&self, trip: &Trip) -> String {
        match trip {
            Trip::Constant(count) => count.to_string(),
            Trip::Bounded { max, bounds } => {
                let mut text = format!("min({max}");
                for bound in bounds {
                    let value = self.affine(&bound.value);
                    text += &match bound.divisor {
                        1 => format!(", {value}"),
                        divisor => format!(", ceil(({value}) / {divisor})"),
                    };
                }
                text + ")"
            }
        }
    }

    fn affine(&self, form: &Affine) -> String {
        self.form(form, std::iter::empty())
    }

    fn form<'n>(&self, form: &Affine, dims: impl Iterator<Item = (i64, &'n str)>) -> String {
        let leads = form.constant > 0 && form.terms.first().is_some_and(|(_, factor)| *factor < 0);
        let mut text = if leads { form.constant.to_string() } else { String::new() };
        let mut term = |factor: i64, name: &str| {
            if factor != 0 {
                text += sign(&text, factor < 0);
                match factor.unsigned_abs() {
                    1 => text += name,
                    factor => text += &format!("{factor} {name}"),
                }
            }
        };
        form.terms.iter().for_each(|(counter, factor)| term(*factor, self.counter(*counter)));
        dims.for_each(|(factor, name)| term(factor, name));
        if !leads && (form.constant != 0 || text.is_empty()) {
            text += sign(&text, form.constant < 0);
            text += &form.constant.unsigned_abs().to_string();
        }
        text
    }
}

/// What goes between a text and its next term.
fn sign(text: &str, negative: bool) -> &'static str {
    match (text.is_empty(), negative) {
        (true, false) => "",
        (true, true) => "-",
        (false, false) => " + ",
        (false, true) => " - ",
    }
}

fn literal(value: Literal) -> String {
    match value {
        Literal::Float(value) => format!("{value:?}"),
        Literal::Int(value) => value.to_string(),
    }
}

fn assignment(combine: Combine) -> String {
    match combine {
        Combine::Replace => "=".into(),
        Combine::Add => "+=".into(),
        Combine::Mul => "*=".into(),
        Combine::Min => format!("={}", BinaryOp::Min.name()),
        Combine::Max => format!("={}", BinaryOp::Max.name()),
    }
}

fn indent(f: &mut Formatter<'_>, depth: usize) -> fmt::Result {
    (0..depth).try_for_each(|_| f.write_str("  "))
}
