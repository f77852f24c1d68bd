//! Memory whose start lies on a cache line, and whose size is known to the byte.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Cache line, and the width of an AVX-512 register, in bytes.
pub(crate) const LINE: usize = 64;

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
        let layout = Layout::from_size_align(len, LINE).ok()?;
        if len == 0 {
            return Some(Self { start: NonNull::<u128>::dangling().cast(), len });
        }
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
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
            && let Ok(layout) = Layout::from_size_align(self.len, LINE)
        {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}
