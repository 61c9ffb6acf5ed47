//! Arithmetic over rows of lanes whose operands have pitches of their own: what follows a tile or a window while it is in
//! the first-level cache, without copying the rows together first.

/// An operand: lane `(row, col)` is at `pointer + row * pitch + col`, or at `pointer + row * pitch` if it is `single`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) pointer: *const f32,
    /// Elements from row to row; 0 for the same row again and again.
    pub(crate) pitch: isize,
    /// One value for all columns of a row.
    pub(crate) single: bool,
}

/// The loops. Each is unsafe for the same reason: the caller grants the instruction set of `V`, operands valid for reads and
/// the target for writes of `rows x cols` lanes; the target may be the very lanes of an operand that is not `single`, and
/// overlaps no operand otherwise.
pub(crate) mod body {
    use super::Operand;
    use crate::scalar::BinaryOp;
    use crate::simd::Vector;
    use crate::vector::math;

    /// The value of each lane by an expression over vectors, one for each operand.
    macro_rules! planewise {
        ($vector:ty, $target:expr, $extents:expr, |$($name:ident = $operand:ident, $single:tt),*| $value:expr) => {{
            let ((target, target_pitch), (rows, cols)) = ($target, $extents);
            // SAFETY: `row < rows`, and `at + LANES <= cols` in the loop over columns and `at + rest == cols` behind it.
            unsafe {
                if cols == <$vector>::LANES {
                    for row in 0..rows as isize {
                        $(let $name = {
                            let from: *const f32 = $operand.pointer.offset(row * $operand.pitch);
                            if $single { <$vector>::splat(*from) } else { <$vector>::load(from) }
                        };)*
                        let target: *mut f32 = target.offset(row * target_pitch);
                        $value.store(target);
                    }
                } else {
                    for row in 0..rows as isize {
                        let target: *mut f32 = target.offset(row * target_pitch);
                        $(let $name = {
                            let from: *const f32 = $operand.pointer.offset(row * $operand.pitch);
                            (from, if $single { <$vector>::splat(*from) } else { <$vector>::splat(0.0) })
                        };)*
                        let mut at = 0;
                        while at + <$vector>::LANES <= cols {
                            $(let $name = if $single { $name.1 } else { <$vector>::load($name.0.add(at)) };)*
                            $value.store(target.add(at));
                            at += <$vector>::LANES;
                        }
                        if at < cols {
                            let rest = cols - at;
                            $(let $name =
                                if $single { $name.1 } else { <$vector>::load_first($name.0.add(at), rest) };)*
                            $value.store_first(target.add(at), rest);
                        }
                    }
                }
            }
        }};
    }

    /// `target = op(a, b)` for `Add`, `Sub`, `Mul`, `Div`, `Min` and `Max`; gives whether the operation is one of them.
    #[inline(always)]
    pub(crate) unsafe fn binary_rows<V: Vector>(
        op: BinaryOp,
        target: (*mut f32, isize),
        operands: [Operand; 2],
        extents: (usize, usize),
    ) -> bool {
        // SAFETY: the caller grants the contract.
        unsafe {
            match (operands[0].single, operands[1].single) {
                (false, false) => binary_form::<V, false, false>(op, target, operands, extents),
                (false, true) => binary_form::<V, false, true>(op, target, operands, extents),
                (true, false) => binary_form::<V, true, false>(op, target, operands, extents),
                (true, true) => false,
            }
        }
    }

    #[inline(always)]
    unsafe fn binary_form<V: Vector, const A: bool, const B: bool>(
        op: BinaryOp,
        target: (*mut f32, isize),
        [a, b]: [Operand; 2],
        extents: (usize, usize),
    ) -> bool {
        match op {
            BinaryOp::Add => planewise!(V, target, extents, |x = a, A, y = b, B| x.add(y)),
            BinaryOp::Sub => planewise!(V, target, extents, |x = a, A, y = b, B| x.sub(y)),
            BinaryOp::Mul => planewise!(V, target, extents, |x = a, A, y = b, B| x.mul(y)),
            BinaryOp::Div => planewise!(V, target, extents, |x = a, A, y = b, B| x.div(y)),
            BinaryOp::Min => planewise!(V, target, extents, |x = a, A, y = b, B| math::min(x, y)),
            BinaryOp::Max => planewise!(V, target, extents, |x = a, A, y = b, B| math::max(x, y)),
            BinaryOp::FloorDiv
            | BinaryOp::Mod
            | BinaryOp::Rem
            | BinaryOp::Pow
            | BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::Xor
            | BinaryOp::Shl
            | BinaryOp::Shr
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge
            | BinaryOp::Eq
            | BinaryOp::Ne => return false,
        }
        true
    }

    /// `target = a * b + c`, where `a` is not `single`.
    #[inline(always)]
    pub(crate) unsafe fn multiply_add_rows<V: Vector>(
        target: (*mut f32, isize),
        [a, b, c]: [Operand; 3],
        extents: (usize, usize),
    ) {
        match (b.single, c.single) {
            (false, false) => {
                planewise!(V, target, extents, |x = a, false, y = b, false, z = c, false| x.mul_add(y, z));
            }
            (false, true) => {
                planewise!(V, target, extents, |x = a, false, y = b, false, z = c, true| x.mul_add(y, z));
            }
            (true, false) => {
                planewise!(V, target, extents, |x = a, false, y = b, true, z = c, false| x.mul_add(y, z));
            }
            (true, true) => {
                planewise!(V, target, extents, |x = a, false, y = b, true, z = c, true| x.mul_add(y, z));
            }
        }
    }
}
