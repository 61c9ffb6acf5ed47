//! Loops over bytes and i32: conversions, among them from and to f32, and arithmetic.

/// The bodies: plain loops over pieces, which the compiler makes vectors of the instruction set of.
pub(crate) mod body {
    use crate::program::ElementType;
    use crate::scalar::BinaryOp;
    use crate::simd::Vector;

    /// Elements that are read before the first of them is written.
    const PIECE: usize = 32;

    /// Loops over pieces of elements of `$from`, of which `$value` makes those of `$to`.
    macro_rules! pieces {
        ($from:ty => $to:ty, $target:ident, [$($source:ident as $element:ident),*], $count:ident, $value:expr) => {{
            let target = $target.cast::<$to>();
            let mut at = 0;
            while at + PIECE <= $count {
                let mut results = [0 as $to; PIECE];
                // SAFETY: the caller grants the elements.
                $(let $source = unsafe { $source.cast::<$from>().add(at).cast::<[$from; PIECE]>().read_unaligned() };)*
                for lane in 0..PIECE {
                    $(let $element = $source[lane];)*
                    results[lane] = $value;
                }
                // SAFETY: the caller grants the elements.
                unsafe { target.add(at).cast::<[$to; PIECE]>().write_unaligned(results) };
                at += PIECE;
            }
            for at in at..$count {
                // SAFETY: the caller grants the elements.
                unsafe {
                    $(let $element = $source.cast::<$from>().add(at).read_unaligned();)*
                    target.add(at).write_unaligned($value);
                }
            }
            true
        }};
    }

    /// `target[i] = source[i]` of type `to`, as `as` converts; whether it knows the types.
    ///
    /// # Safety
    /// The CPU has the instruction set of `V`, and both are valid for `count` elements and do not overlap.
    #[inline(always)]
    pub(crate) unsafe fn convert<V: Vector>(
        to: ElementType,
        from: ElementType,
        target: *mut u8,
        source: *const u8,
        count: usize,
    ) -> bool {
        use ElementType::{F32, I8, I32, U8};
        match (from, to) {
            (I32, F32) => pieces!(i32 => f32, target, [source as x], count, x as f32),
            (U8, F32) => pieces!(u8 => f32, target, [source as x], count, f32::from(x)),
            (I8, F32) => pieces!(i8 => f32, target, [source as x], count, f32::from(x)),
            (F32, I32) => pieces!(f32 => i32, target, [source as x], count, x as i32),
            // SAFETY: the caller grants the contract.
            (F32, U8) => unsafe { to_bytes::<V>(target, source.cast(), count, [0.0, 255.0]) },
            // SAFETY: as above.
            (F32, I8) => unsafe { to_bytes::<V>(target, source.cast(), count, [-128.0, 127.0]) },
            (U8, I32) => pieces!(u8 => i32, target, [source as x], count, i32::from(x)),
            (I8, I32) => pieces!(i8 => i32, target, [source as x], count, i32::from(x)),
            (I32, U8 | I8) => pieces!(i32 => u8, target, [source as x], count, x as u8),
            (_, _) => false,
        }
    }

    /// As [`convert`], within a range that is that of a type of bytes.
    ///
    /// # Safety
    /// As for [`convert`].
    #[inline(always)]
    unsafe fn to_bytes<V: Vector>(
        target: *mut u8,
        source: *const f32,
        count: usize,
        range: [f32; 2],
    ) -> bool {
        // SAFETY: the caller grants the instruction set.
        let (low, high) = unsafe { (V::splat(range[0]), V::splat(range[1])) };
        let mut at = 0;
        while at < count {
            let lanes = V::LANES.min(count - at);
            // SAFETY: the caller grants the elements below `count`.
            unsafe {
                let source = source.add(at);
                let values = if lanes == V::LANES { V::load(source) } else { V::load_first(source, lanes) };
                high.lesser_or(low.greater_or(values)).store_bytes(target.add(at), lanes);
            }
            at += lanes;
        }
        true
    }

    /// `target[i] = op(a[i], b[i])` of type `dtype`; whether it knows type and operation.
    ///
    /// # Safety
    /// The CPU has the instruction set of `V`, all are valid for `count` elements, and the target may be the very address of an
    /// operand and overlaps none otherwise.
    #[inline(always)]
    pub(crate) unsafe fn arithmetic<V: Vector>(
        op: BinaryOp,
        dtype: ElementType,
        target: *mut u8,
        a: *const u8,
        b: *const u8,
        count: usize,
    ) -> bool {
        macro_rules! of {
            ($own:ty, $value:expr) => {
                pieces!($own => $own, target, [a as x, b as y], count, { let f: fn($own, $own) -> $own = $value; f(x, y) })
            };
        }
        use ElementType::{I8, I32, U8};
        match (dtype, op) {
            (I32, BinaryOp::Add) => of!(i32, i32::wrapping_add),
            (I32, BinaryOp::Sub) => of!(i32, i32::wrapping_sub),
            (I32, BinaryOp::Mul) => of!(i32, i32::wrapping_mul),
            (I32, BinaryOp::Max) => of!(i32, i32::max),
            (I32, BinaryOp::Min) => of!(i32, i32::min),
            (U8, BinaryOp::Max) => of!(u8, u8::max),
            (U8, BinaryOp::Min) => of!(u8, u8::min),
            (I8, BinaryOp::Max) => of!(i8, i8::max),
            (I8, BinaryOp::Min) => of!(i8, i8::min),
            (_, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::isa::Isa;
    use crate::program::ElementType;
    use crate::scalar::BinaryOp;
    use crate::table;

    #[test]
    fn conversions_are_those_of_as() {
        let floats: Vec<f32> =
            (0..300).map(|i| (i as f32 - 100.0) * 1.7).chain([f32::NAN, f32::INFINITY, -1e9]).collect();
        let integers: Vec<i32> = (0..300).map(|i| i * i * 31 - 70).collect();
        for isa in Isa::available() {
            let convert = table(isa).raw.convert;
            for count in [0, 1, 31, 32, 33, 100, floats.len()] {
                for to in [ElementType::U8, ElementType::I8] {
                    let mut bytes = vec![7u8; floats.len()];
                    // SAFETY: the table is of an available instruction set; the elements are those of the vectors.
                    let known = unsafe {
                        convert(to, ElementType::F32, bytes.as_mut_ptr(), floats.as_ptr().cast(), count)
                    };
                    assert!(known);
                    let converted =
                        |x: f32| if to == ElementType::U8 { x as u8 } else { (x as i8).cast_unsigned() };
                    let want = |i: usize| if i < count { converted(floats[i]) } else { 7 };
                    assert!(bytes.iter().enumerate().all(|(i, &byte)| byte == want(i)), "{isa}");
                }
            }
            let mut results = vec![0f32; integers.len()];
            // SAFETY: as above.
            let known = unsafe {
                convert(
                    ElementType::F32,
                    ElementType::I32,
                    results.as_mut_ptr().cast(),
                    integers.as_ptr().cast(),
                    integers.len(),
                )
            };
            assert!(known);
            assert!(results.iter().zip(&integers).all(|(&float, &integer)| float == integer as f32));
        }
    }

    #[test]
    fn arithmetic_wraps_and_may_be_in_place() {
        for isa in Isa::available() {
            let mut values: Vec<i32> = (0..101).map(|i| (i32::MAX - 50).wrapping_add(i)).collect();
            let before = values.clone();
            let others: Vec<i32> = (0..101).map(|i| i * 3).collect();
            let target: *mut i32 = values.as_mut_ptr();
            // SAFETY: the table is of an available instruction set; the elements are those of the vectors.
            let known = unsafe {
                (table(isa).raw.arithmetic)(
                    BinaryOp::Add,
                    ElementType::I32,
                    target.cast(),
                    target.cast_const().cast(),
                    others.as_ptr().cast(),
                    101,
                )
            };
            assert!(known);
            for i in 0..101 {
                assert_eq!(values[i], before[i].wrapping_add(others[i]));
            }
        }
    }
}
