//! The inner loops of matrix products: one or a few weight tiles against one panel of activation rows.
//!
//! Every output is summed over the columns in ascending order in one accumulator, whatever the number of rows, so
//! a row's result does not depend on the batch that it is in.

use std::marker::PhantomData;

use crate::activations::{Meta, ROW_BLOCK};
use crate::packed_matrix::TileLayout;
use crate::quantize::BLOCK;
use crate::simd::{Kernel, LANES, Simd, unroll, unroll4};

/// Where a kernel's sixteen-column results go.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    /// The panel's first row, the tile's first column.
    pub out: *mut f32,
    /// Values from one row to the next.
    pub stride: usize,
    /// The tile's first value of the bias, or null.
    pub bias: *const f32,
    /// Columns from the tile's first to the matrix's last; more than sixteen if other tiles follow.
    pub columns: usize,
    /// Add to what is there.
    pub accumulate: bool,
}

impl Destination {
    /// Stores one row's results for one tile. Conditions: see [`Simd`]; the pointers are valid for the columns.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(&self, row: usize, tile: usize, value: S::F) {
        let first = tile * LANES;
        let columns = self.columns - first;
        // SAFETY: the caller vouches for `out` and `bias` up to `columns`, and only those are touched.
        unsafe {
            let out = self.out.add(row * self.stride + first);
            let mut value = value;
            if !self.bias.is_null() {
                value = S::add(value, S::load_first(self.bias.add(first), columns.min(LANES)));
            }
            if self.accumulate {
                value = S::add(S::load_first(out, columns.min(LANES)), value);
            }
            if columns >= LANES { S::store(out, value) } else { S::store_first(out, value, columns) }
        }
    }
}

/// What differs between the quantized formats.
pub(crate) trait BlockKind {
    /// Two numbers to a byte.
    const NIBBLES: bool;
    /// The block has minima.
    const MINIMA: bool;
}

pub(crate) struct KindQ4_0;
pub(crate) struct KindQ4_1;
pub(crate) struct KindQ8_0;

impl BlockKind for KindQ4_0 {
    const NIBBLES: bool = true;
    const MINIMA: bool = false;
}

impl BlockKind for KindQ4_1 {
    const NIBBLES: bool = true;
    const MINIMA: bool = true;
}

impl BlockKind for KindQ8_0 {
    const NIBBLES: bool = false;
    const MINIMA: bool = false;
}

/// One quantized tile against a panel of `R` rows.
///
/// Conditions: `tile` points to a whole tile of `layout` with `blocks` blocks, `panel` to a panel of `R` rows as
/// [`crate::activations::QuantizePanel`] writes it, and `to` is valid for `R` rows.
pub(crate) struct QuantizedTile<K: BlockKind, const R: usize> {
    pub tile: *const u8,
    pub layout: TileLayout,
    pub blocks: usize,
    pub panel: *const u8,
    pub to: Destination,
    pub kind: PhantomData<K>,
}

/// How far ahead of a single row's reading weights are fetched, in bytes.
const AHEAD: usize = 2048;

impl<K: BlockKind, const R: usize> Kernel for QuantizedTile<K, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tile, layout, blocks, mut panel, to, .. } = self;
        // SAFETY: blocks stay below the tile's number of blocks, rows below R; see the type's conditions. Prefetches
        // may point anywhere.
        unsafe {
            let mut sums = [S::splat(0.0); R];
            let mut scales = tile;
            let mut numbers = tile.add(layout.quants);
            for _ in 0..blocks {
                let weight_scale = S::load_f16(scales.cast());
                let weights: [S::B; 8] = if K::NIBBLES {
                    let b0 = S::load_bytes(numbers);
                    let b1 = S::load_bytes(numbers.add(64));
                    let b2 = S::load_bytes(numbers.add(128));
                    let b3 = S::load_bytes(numbers.add(192));
                    [
                        S::low_nibbles(b0),
                        S::low_nibbles(b1),
                        S::low_nibbles(b2),
                        S::low_nibbles(b3),
                        S::high_nibbles(b0),
                        S::high_nibbles(b1),
                        S::high_nibbles(b2),
                        S::high_nibbles(b3),
                    ]
                } else {
                    [
                        S::load_bytes(numbers),
                        S::load_bytes(numbers.add(64)),
                        S::load_bytes(numbers.add(128)),
                        S::load_bytes(numbers.add(192)),
                        S::load_bytes(numbers.add(256)),
                        S::load_bytes(numbers.add(320)),
                        S::load_bytes(numbers.add(384)),
                        S::load_bytes(numbers.add(448)),
                    ]
                };
                if R == 1 {
                    let mut line = 0;
                    while line < layout.block {
                        S::prefetch(numbers.wrapping_add(AHEAD + line));
                        line += 64;
                    }
                }
                unroll!(row < R, {
                    let a = panel.add(row * BLOCK).cast::<i8>();
                    let meta = panel.add(R * BLOCK + row * size_of::<Meta>()).cast::<Meta>();
                    let eights = &raw const (*meta).minus_eight_sums;
                    let dot = if K::NIBBLES {
                        let start = if K::MINIMA { S::zero_i32() } else { S::splat_i32(eights) };
                        let mut dot = S::begin_nibbles(start);
                        let mut group = 0;
                        while group < 8 {
                            dot = S::dot_nibbles(dot, weights[group], a.add(4 * group));
                            group += 1;
                        }
                        S::end_nibbles(dot, start)
                    } else {
                        let mut dot = S::start_bytes(eights);
                        let mut group = 0;
                        while group < 8 {
                            dot = S::dot_bytes(dot, weights[group], a.add(4 * group));
                            group += 1;
                        }
                        dot
                    };
                    let scale = S::mul(weight_scale, S::splat((*meta).scale));
                    sums[row] = S::fma(S::to_f32(dot), scale, sums[row]);
                    if K::MINIMA {
                        let min = S::load_f16(scales.cast::<u16>().add(LANES));
                        sums[row] = S::fma(min, S::splat((*meta).sum), sums[row]);
                    }
                });
                panel = panel.add(R * ROW_BLOCK);
                scales = scales.add(layout.block);
                numbers = numbers.add(layout.block);
            }
            // A copy, so that the sums themselves are never indexed by a variable and stay in registers.
            let finished = sums;
            let mut row = 0;
            while row < R {
                to.store::<S>(row, 0, finished[row]);
                row += 1;
            }
        }
    }
}

/// A float format that a tile can be read from.
pub(crate) trait FloatKind {
    /// Bytes of one value.
    const BYTES: usize;
    /// Sixteen values. Conditions: see [`Simd`].
    unsafe fn load<S: Simd>(p: *const u8) -> S::F;
}

pub(crate) struct KindF32;
pub(crate) struct KindF16;
pub(crate) struct KindBF16;

impl FloatKind for KindF32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load(p.cast()) }
    }
}

impl FloatKind for KindF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load_f16(p.cast()) }
    }
}

impl FloatKind for KindBF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load_bf16(p.cast()) }
    }
}

/// `T` float tiles against a panel of `R` rows.
///
/// Conditions: `tiles` points to `T` whole tiles of `cols` columns one after the other, `panel` to `cols * R` values
/// as [`crate::activations::interleave_panel`] writes them, and `to` is valid for `R` rows and `T` tiles.
pub(crate) struct FloatTiles<K: FloatKind, const R: usize, const T: usize> {
    pub tiles: *const u8,
    pub cols: usize,
    pub panel: *const f32,
    pub to: Destination,
    pub kind: PhantomData<K>,
}

impl<K: FloatKind, const R: usize, const T: usize> Kernel for FloatTiles<K, R, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tiles, cols, panel, to, .. } = self;
        let tile_bytes = cols * LANES * K::BYTES;
        // SAFETY: k < cols, row < R, tile < T; see the type's conditions. Prefetches may point anywhere.
        unsafe {
            let mut sums = [[S::splat(0.0); T]; R];
            for k in 0..cols {
                let mut weights = [S::splat(0.0); T];
                unroll4!(t < T, {
                    let p = tiles.add(t * tile_bytes + k * LANES * K::BYTES);
                    weights[t] = K::load::<S>(p);
                    if R == 1 {
                        S::prefetch(p.wrapping_add(AHEAD));
                    }
                });
                unroll!(row < R, {
                    let x = S::splat(panel.add(k * R + row).read());
                    unroll4!(t < T, {
                        sums[row][t] = S::fma(x, weights[t], sums[row][t]);
                    });
                });
            }
            // A copy, so that the sums themselves are never indexed by a variable and stay in registers.
            let finished = sums;
            let mut row = 0;
            while row < R {
                unroll4!(t < T, {
                    to.store::<S>(row, t, finished[row][t]);
                });
                row += 1;
            }
        }
    }
}
