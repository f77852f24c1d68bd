//! Activation rows, rearranged once for all the matrices that read them.
//!
//! Rows are grouped into panels of as many rows as a kernel keeps in registers, so that everything a kernel step
//! needs lies at constant offsets from one pointer. For quantized weights each row is rounded to int8 in blocks of
//! 32 with an f32 scale of its own (largest magnitude to 127, to nearest even). What a row becomes does not depend
//! on the rows beside it.

use crate::quantize::BLOCK;
use crate::simd::{Kernel, LANES, Simd};

/// Bytes of one row's share of a block: 32 int8, and [`Meta`].
pub(crate) const ROW_BLOCK: usize = BLOCK + size_of::<Meta>();

/// What kernels need of a block besides its int8 numbers `q`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Meta {
    /// `x = scale * q`.
    pub scale: f32,
    /// `scale * sum(q)`, to be multiplied by a weight block's minimum.
    pub sum: f32,
    /// `-8 * sum(q)`: what weights stored with 8 added start from.
    pub minus_eight_sums: i32,
    pub unused: i32,
}

/// How `m` rows are cut into panels of nearly equal height.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels {
    pub rows: usize,
    pub count: usize,
}

impl Panels {
    /// Panels of at most `highest` rows.
    pub fn new(rows: usize, highest: usize) -> Self {
        Self { rows, count: rows.div_ceil(highest) }
    }

    /// First row and height of a panel.
    pub fn panel(self, index: usize) -> (usize, usize) {
        let range = crate::thread_pool::split_range(self.rows, self.count, index);
        (range.start, range.len())
    }
}

/// Quantizes one panel: `rows` rows of `x` (`[rows, cols]`) into `[cols / 32][rows x 32 int8, rows x Meta]`.
///
/// Conditions: `x` has `rows * cols` values, `out` has room for `rows * cols / 32 * ROW_BLOCK` bytes, four-byte aligned.
pub(crate) struct QuantizePanel {
    pub x: *const f32,
    pub rows: usize,
    pub cols: usize,
    pub out: *mut u8,
}

impl Kernel for QuantizePanel {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, rows, cols, out } = self;
        for row in 0..rows {
            for block in 0..cols / BLOCK {
                // SAFETY: row < rows and block < cols / 32 keep every access inside of the two buffers that the
                // type's conditions describe; Meta's offset is a multiple of four.
                unsafe {
                    let x = x.add(row * cols + block * BLOCK);
                    let out = out.add(block * rows * ROW_BLOCK);
                    let numbers = out.add(row * BLOCK).cast::<i8>();
                    let meta = out.add(rows * BLOCK + row * size_of::<Meta>()).cast::<Meta>();
                    let (low, high) = (S::load(x), S::load(x.add(LANES)));
                    let largest = S::max_magnitude(low, high);
                    // Below this the inverse would overflow; such activations are zero for all purposes.
                    let tiny = largest < 1e-30;
                    let inverse = S::splat(if tiny { 0.0 } else { 127.0 / largest });
                    let scale = if tiny { 0.0 } else { largest / 127.0 };
                    let sum = S::store_i8(numbers, S::mul(low, inverse))
                        .wrapping_add(S::store_i8(numbers.add(LANES), S::mul(high, inverse)));
                    meta.write(Meta {
                        scale,
                        sum: scale * sum as f32,
                        minus_eight_sums: sum.wrapping_mul(-8),
                        unused: 0,
                    });
                }
            }
        }
    }
}

/// Copies one panel of f32 rows column by column: `[rows, cols]` to `[cols][rows]`.
///
/// Conditions: both buffers hold `rows * cols` values.
pub(crate) unsafe fn interleave_panel(x: *const f32, rows: usize, cols: usize, out: *mut f32) {
    for k in 0..cols {
        for row in 0..rows {
            // SAFETY: row < rows and k < cols.
            unsafe { out.add(k * rows + row).write(x.add(row * cols + k).read()) };
        }
    }
}
