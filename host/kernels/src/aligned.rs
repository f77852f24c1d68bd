//! Memory whose start lies on a cache line, and whose size is known to the byte.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Cache line, and the width of an AVX-512 register, in bytes.
pub(crate) const LINE: usize = 64;

/// From this size on memory is aligned to, and asked to be made of, pages of this size: walking page tables of 4 KiB
/// pages takes up to a fifth of the speed at which one row's products read weights.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed bytes on a 64-byte boundary.
pub(crate) struct AlignedBytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is owned by this value alone, like a Vec<u8>.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `None` if `len` exceeds the address space.
    pub fn zeroed(len: usize) -> Option<Self> {
        let layout = layout(len)?;
        if len == 0 {
            return Some(Self::default());
        }
        let huge = len >= HUGE_PAGE;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { if huge { alloc(layout) } else { alloc_zeroed(layout) } };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        if huge {
            prefer_huge_pages(start, len);
            // SAFETY: the allocation has `len` bytes. They are cleared only now, so that they come in huge pages.
            unsafe { start.write_bytes(0, len) };
        }
        Some(Self { start, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid and initialised for `len` bytes while `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Default for AlignedBytes {
    fn default() -> Self {
        Self { start: NonNull::<u128>::dangling().cast(), len: 0 }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.len > 0
            && let Some(layout) = layout(self.len)
        {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len, if len >= HUGE_PAGE { HUGE_PAGE } else { LINE }).ok()
}

/// Only whole huge pages inside of the allocation are named. Advice: where it fails, things are merely slower.
fn prefer_huge_pages(start: NonNull<u8>, len: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range lies inside of a live allocation, starts on a page boundary, and the advice does not change its
    // contents.
    unsafe {
        libc::madvise(start.as_ptr().cast(), len / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len);
}
