//! Memory for tests that ends where the next access faults.

use std::marker::PhantomData;
use std::ptr;

/// Values whose last one is followed by a page that can be neither read nor written.
pub(crate) struct Guarded<T> {
    mapping: *mut libc::c_void,
    bytes: usize,
    capacity: usize,
    end: *mut T,
    values: PhantomData<T>,
}

impl<T: Copy> Guarded<T> {
    /// Room for `capacity` values, all zero bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        let page = 1 << 16;
        let inside = (capacity * size_of::<T>()).div_ceil(page) * page;
        let bytes = inside + page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh private mapping, whose last page is then made inaccessible.
        let mapping = unsafe {
            let mapping =
                libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapping.byte_add(inside), page, libc::PROT_NONE), 0);
            mapping
        };
        let end = mapping.wrapping_byte_add(inside).cast();
        Guarded { mapping, bytes, capacity, end, values: PhantomData }
    }

    /// The last `count` values before the guard, filled with `fill(index)`.
    pub(crate) fn last(&mut self, count: usize, fill: impl FnMut(usize) -> T) -> &mut [T] {
        assert!(count <= self.capacity);
        // SAFETY: `count` initialised values lie before the end, and `self` is borrowed for as long as the slice.
        let values = unsafe { std::slice::from_raw_parts_mut(self.end.sub(count), count) };
        for (value, filled) in values.iter_mut().zip((0..count).map(fill)) {
            *value = filled;
        }
        values
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.mapping, self.bytes) };
    }
}

/// Reproducible values in -1..1 with few bits, so that sums of products are exact in single precision.
pub(crate) fn small_value(index: usize) -> f32 {
    let mixed = (index as u32).wrapping_mul(0x9e37_79b9) >> 27;
    mixed as f32 / 16.0 - 1.0
}
