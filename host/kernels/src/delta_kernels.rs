//! The inner loop of products with deltas.

use std::marker::PhantomData;

use modularbase_deltas::DeltaFormat;

use crate::activations::{Meta, ROW_BLOCK};
use crate::aligned::LINE;
use crate::delta_matrix::{SCALES, Table, block_bytes, lines, masks};
use crate::linear_kernels::Destination;
use crate::quantize::BLOCK;
use crate::simd::{Kernel, Simd, unroll};

/// How codes of 32 columns become bytes.
pub(crate) trait DeltaKind {
    const FORMAT: DeltaFormat;
    /// Eight groups of four columns, each byte a level with 128 added. Conditions: see [`Simd`]; `p` points to the lines
    /// of 32 columns.
    unsafe fn groups<S: Simd>(p: *const u8, tables: &[S::B; 4]) -> [S::B; 8];
}

pub(crate) struct KindDelta1;
pub(crate) struct KindDelta2;
pub(crate) struct KindDelta3;

impl DeltaKind for KindDelta1 {
    const FORMAT: DeltaFormat = DeltaFormat::Q1;

    #[inline(always)]
    unsafe fn groups<S: Simd>(p: *const u8, tables: &[S::B; 4]) -> [S::B; 8] {
        // SAFETY: passed on.
        unsafe {
            let line = S::load_bytes(p);
            let (low, high) = (S::low_nibbles(line), S::high_nibbles(line));
            [
                S::look_up(tables[0], low),
                S::look_up(tables[1], low),
                S::look_up(tables[2], low),
                S::look_up(tables[3], low),
                S::look_up(tables[0], high),
                S::look_up(tables[1], high),
                S::look_up(tables[2], high),
                S::look_up(tables[3], high),
            ]
        }
    }
}

impl DeltaKind for KindDelta2 {
    const FORMAT: DeltaFormat = DeltaFormat::Q2;

    #[inline(always)]
    unsafe fn groups<S: Simd>(p: *const u8, tables: &[S::B; 4]) -> [S::B; 8] {
        // SAFETY: passed on; there are two lines.
        unsafe {
            let (a, b) = (S::load_bytes(p), S::load_bytes(p.add(LINE)));
            let (a_low, a_high) = (S::low_nibbles(a), S::high_nibbles(a));
            let (b_low, b_high) = (S::low_nibbles(b), S::high_nibbles(b));
            [
                S::look_up(tables[0], a_low),
                S::look_up(tables[1], a_low),
                S::look_up(tables[0], a_high),
                S::look_up(tables[1], a_high),
                S::look_up(tables[0], b_low),
                S::look_up(tables[1], b_low),
                S::look_up(tables[0], b_high),
                S::look_up(tables[1], b_high),
            ]
        }
    }
}

impl DeltaKind for KindDelta3 {
    const FORMAT: DeltaFormat = DeltaFormat::Q3;

    #[inline(always)]
    unsafe fn groups<S: Simd>(p: *const u8, tables: &[S::B; 4]) -> [S::B; 8] {
        // SAFETY: passed on; there are three lines.
        unsafe {
            let (a, b) = (S::load_bytes(p), S::load_bytes(p.add(LINE)));
            let high = S::load_bytes(p.add(2 * LINE));
            let halves = |line| [S::low_nibbles(line), S::high_nibbles(line)];
            let (a, b, high) = (halves(a), halves(b), halves(high));
            macro_rules! group {
                ($g:literal, $line:ident) => {{
                    let (low_mask, high_mask) = const { masks($g) };
                    let half = const { $g / 2 % 2 };
                    let index =
                        S::or_bytes(S::and_byte($line[half], low_mask), S::and_byte(high[half], high_mask));
                    S::look_up(tables[const { $g % 2 + 2 * ($g / 4) }], index)
                }};
            }
            [
                group!(0, a),
                group!(1, a),
                group!(2, a),
                group!(3, a),
                group!(4, b),
                group!(5, b),
                group!(6, b),
                group!(7, b),
            ]
        }
    }
}

/// One tile of deltas against a panel of `R` rows.
///
/// Conditions: `tile` points to a whole tile with `blocks` blocks of 64 columns, `panel` to a panel of `R` rows as
/// [`crate::activations::QuantizePanel`] writes it, and `to` is valid for `R` rows.
pub(crate) struct DeltaTile<'a, K: DeltaKind, const R: usize> {
    pub tile: *const u8,
    pub blocks: usize,
    pub tables: &'a [Table; 4],
    pub step: f32,
    pub panel: *const u8,
    pub to: Destination,
    pub kind: PhantomData<K>,
}

/// How far ahead of a single row's reading deltas are fetched, in bytes.
const AHEAD: usize = 1024;

impl<K: DeltaKind, const R: usize> Kernel for DeltaTile<'_, K, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { mut tile, blocks, tables, step, mut panel, to, .. } = self;
        let half_bytes = const { lines(K::FORMAT) * LINE };
        // SAFETY: blocks stay below the tile's number of blocks, rows below R; see the type's conditions. Prefetches
        // may point anywhere.
        unsafe {
            let tables = [
                S::load_bytes(tables[0].as_ptr()),
                S::load_bytes(tables[1].as_ptr()),
                S::load_bytes(tables[2].as_ptr()),
                S::load_bytes(tables[3].as_ptr()),
            ];
            let step = S::splat(step);
            let mut sums = [S::splat(0.0); R];
            for _ in 0..blocks {
                let delta_scale = S::mul(S::load_f16(tile.cast()), step);
                if R == 1 {
                    let mut line = 0;
                    while line < const { block_bytes(K::FORMAT) } {
                        S::prefetch(tile.wrapping_add(AHEAD + line));
                        line += LINE;
                    }
                }
                let mut half = 0;
                while half < 2 {
                    let weights = K::groups::<S>(tile.add(SCALES + half * half_bytes), &tables);
                    unroll!(row < R, {
                        let a = panel.add(row * BLOCK).cast::<i8>();
                        let meta = panel.add(R * BLOCK + row * size_of::<Meta>()).cast::<Meta>();
                        let mut dot = S::start_bytes(&raw const (*meta).minus_eight_sums);
                        let mut group = 0;
                        while group < 8 {
                            dot = S::dot_bytes(dot, weights[group], a.add(4 * group));
                            group += 1;
                        }
                        let scale = S::mul(delta_scale, S::splat((*meta).scale));
                        sums[row] = S::fma(S::to_f32(dot), scale, sums[row]);
                    });
                    panel = panel.add(R * ROW_BLOCK);
                    half += 1;
                }
                tile = tile.add(const { block_bytes(K::FORMAT) });
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
