//! Conversion of slices between f32 and f16.

use crate::elementwise::GRAIN;
use crate::error::{KernelError, check_length};
use crate::linear::SharedPointer;
use crate::simd::{Kernel, LANES, Simd, launch};
use crate::thread_pool::ThreadPool;

/// Conditions: both sides hold `len` values.
struct ToF16 {
    x: *const f32,
    out: *mut u16,
    len: usize,
}

impl Kernel for ToF16 {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.len / LANES * LANES;
        // SAFETY: i + LANES <= len in the loop; the rest goes through a buffer of its own.
        unsafe {
            let mut i = 0;
            while i < whole {
                S::store_f16(self.out.add(i), S::load(self.x.add(i)));
                i += LANES;
            }
            let rest = self.len - whole;
            if rest > 0 {
                let mut lanes = [0u16; LANES];
                S::store_f16(lanes.as_mut_ptr(), S::load_first(self.x.add(i), rest));
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), self.out.add(i), rest);
            }
        }
    }
}

/// Conditions: both sides hold `len` values.
struct FromF16 {
    x: *const u16,
    out: *mut f32,
    len: usize,
}

impl Kernel for FromF16 {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.len / LANES * LANES;
        // SAFETY: i + LANES <= len in the loop; the rest goes through a buffer of its own.
        unsafe {
            let mut i = 0;
            while i < whole {
                S::store(self.out.add(i), S::load_f16(self.x.add(i)));
                i += LANES;
            }
            let rest = self.len - whole;
            if rest > 0 {
                let mut lanes = [0u16; LANES];
                std::ptr::copy_nonoverlapping(self.x.add(i), lanes.as_mut_ptr(), rest);
                S::store_first(self.out.add(i), S::load_f16(lanes.as_ptr()), rest);
            }
        }
    }
}

/// Rounds to f16 bits, to nearest even; beyond 65,504 becomes infinite.
///
/// # Errors
/// When the lengths differ.
pub fn f32_to_f16(pool: &ThreadPool, x: &[f32], out: &mut [u16]) -> Result<(), KernelError> {
    check_length("f16 output", x.len(), out.len())?;
    let level = pool.level();
    let out = SharedPointer(out.as_mut_ptr());
    pool.run_ranges(x.len(), GRAIN, &|range| {
        let part = &x[range.clone()];
        // SAFETY: ranges are disjoint and inside of both slices; the level is one the processor has.
        unsafe {
            launch(level, ToF16 { x: part.as_ptr(), out: out.get().add(range.start), len: part.len() })
        };
    });
    Ok(())
}

/// Widens f16 bits.
///
/// # Errors
/// When the lengths differ.
pub fn f16_to_f32(pool: &ThreadPool, x: &[u16], out: &mut [f32]) -> Result<(), KernelError> {
    check_length("f32 output", x.len(), out.len())?;
    let level = pool.level();
    let out = SharedPointer(out.as_mut_ptr());
    pool.run_ranges(x.len(), GRAIN, &|range| {
        let part = &x[range.clone()];
        // SAFETY: ranges are disjoint and inside of both slices; the level is one the processor has.
        unsafe {
            launch(level, FromF16 { x: part.as_ptr(), out: out.get().add(range.start), len: part.len() })
        };
    });
    Ok(())
}
