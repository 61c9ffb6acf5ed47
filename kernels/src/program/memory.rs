//! Memory that programs run on.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use memmap2::MmapMut;

/// Bytes aligned to 64 that never move: an arena, a packed constant, a thread's scratch. Zero at first.
pub struct AlignedBytes {
    start: NonNull<u8>,
    length: usize,
    memory: Memory,
}

/// What holds the bytes.
enum Memory {
    /// Nothing: there are none.
    Nothing,
    /// An allocation, with so many bytes before them.
    Heap { skipped: usize },
    /// A mapping, until it is dropped.
    Mapped(#[expect(dead_code, reason = "unmaps when it is dropped")] MmapMut),
}

/// Bytes of a huge page, as most systems have them. Memory of that size is mapped by itself and may lie in such pages, which the system
/// makes ready at once, and which take few entries of a core's table of addresses.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Huge pages as far as the system has them at hand. Where the host of a virtual machine must find the memory first, each may take longer
/// than all its small pages.
#[cfg(target_os = "linux")]
mod huge_pages {
    use super::HUGE_PAGE_BYTES;
    use memmap2::{Advice, MmapMut};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// Longer than it takes to clear a page that is at hand, or to take small pages instead.
    const SLOW: Duration = Duration::from_millis(1);
    /// Slow pages of this process from which on it takes small ones.
    const PATIENCE: usize = 3;
    static SLOW_PAGES: AtomicUsize = AtomicUsize::new(0);

    /// Lets memory lie in huge pages, which are taken at once.
    pub(super) fn take(map: &mut MmapMut) {
        // A wish: without huge pages the memory is as good, but slower.
        if SLOW_PAGES.load(Ordering::Relaxed) >= PATIENCE || map.advise(Advice::HugePage).is_err() {
            return;
        }
        for at in (0..map.len()).step_by(HUGE_PAGE_BYTES) {
            let start = Instant::now();
            map[at] = 0;
            let slow = start.elapsed() > SLOW;
            if slow && SLOW_PAGES.fetch_add(1, Ordering::Relaxed) + 1 >= PATIENCE {
                let _ = map.advise(Advice::NoHugePage);
                return;
            }
        }
    }
}

/// The alignment of [`AlignedBytes`]: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

// SAFETY: it owns its bytes, as a boxed slice does.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared references only give shared access to the bytes.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// That many bytes, all zero. Aborts where memory is exhausted, as collections do.
    ///
    /// A large piece takes memory only as far as it is touched or lies in huge pages, and whoever touches it first waits for the system.
    pub fn zeroed(length: usize) -> AlignedBytes {
        if length == 0 {
            let start = NonNull::<Line>::dangling().cast();
            return AlignedBytes { start, length, memory: Memory::Nothing };
        }
        if let Some(bytes) = AlignedBytes::mapped(length) {
            return bytes;
        }
        let layout = AlignedBytes::layout(length);
        // SAFETY: the layout's size is not 0.
        let block = unsafe { alloc_zeroed(layout) };
        let block = NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout));
        let skipped = block.as_ptr().addr().next_multiple_of(ALIGNMENT) - block.as_ptr().addr();
        // SAFETY: fewer than ALIGNMENT bytes are skipped, and the allocation is longer than `length` by as many.
        let start = unsafe { block.add(skipped) };
        AlignedBytes { start, length, memory: Memory::Heap { skipped } }
    }

    /// Bytes in a mapping of their own, where they are enough and the system grants it.
    fn mapped(length: usize) -> Option<AlignedBytes> {
        if length < HUGE_PAGE_BYTES {
            return None;
        }
        let mut map = MmapMut::map_anon(length).ok()?;
        #[cfg(target_os = "linux")]
        huge_pages::take(&mut map);
        let start = NonNull::new(map.as_mut_ptr())?;
        Some(AlignedBytes { start, length, memory: Memory::Mapped(map) })
    }

    /// A copy of the given bytes.
    pub fn copy_of(bytes: &[u8]) -> AlignedBytes {
        let mut copy = AlignedBytes::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }

    /// The address of the first byte, without a reference to the bytes.
    pub(super) fn start(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// An alignment that every allocator grants is asked for, and room for the rest: memory of a stricter one is not got as
    /// zeros from the system but cleared byte by byte.
    fn layout(length: usize) -> Layout {
        length
            .checked_add(ALIGNMENT)
            .and_then(|size| Layout::from_size_align(size, 1).ok())
            .expect("an allocation should be smaller than half the address space")
    }
}

/// Something with the alignment of [`ALIGNMENT`], for a pointer to nothing.
#[repr(align(64))]
struct Line;

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        match self.memory {
            // SAFETY: `zeroed` allocated it with this layout, that many bytes before `start`, and it was not given away.
            Memory::Heap { skipped } => unsafe {
                dealloc(self.start.as_ptr().sub(skipped), AlignedBytes::layout(self.length));
            },
            Memory::Nothing | Memory::Mapped(_) => {}
        }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `length` bytes, all initialised, while `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_zero_and_kept() {
        for length in [0, 1, 63, 4096, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + 1] {
            let mut bytes = AlignedBytes::zeroed(length);
            assert_eq!(bytes.as_ptr() as usize % ALIGNMENT, 0);
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
            assert_eq!(&*AlignedBytes::copy_of(&bytes), &vec![7; length][..]);
        }
    }
}
