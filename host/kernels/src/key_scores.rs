//! Scores of query heads against rows of keys, without any attention: how cold blocks are looked for.

use std::mem::MaybeUninit;

use crate::attention::KvElement;
use crate::error::{KernelError, check_length, checked_mul};
use crate::linear::SharedPointer;
use crate::simd::{Kernel, LANES, Simd, launch, unroll4};
use crate::thread_pool::ThreadPool;

/// Queries that are multiplied with a column of keys at once.
const QUERIES: usize = 4;
/// Values of a head at most: those of sixteen keys lie side by side on the stack.
const WIDEST: usize = 512;

/// `out[t * heads + h][n] = q[t, h] . keys[n, h / (heads / kv_heads)]` for `q` `[m, heads * head_dim]` and `keys`, bits
/// of IEEE half floats, `[n, kv_heads * head_dim]`. Each score is one sum from the first channel on, whatever is
/// computed beside it.
///
/// # Errors
/// When heads cannot be grouped, heads are wider than 512 values, or a length does not fit.
pub fn key_scores(
    pool: &ThreadPool,
    q: &[f32],
    keys: &[u16],
    (heads, kv_heads, head_dim): (usize, usize, usize),
    out: &mut [f32],
) -> Result<(), KernelError> {
    if heads == 0 || kv_heads == 0 || head_dim == 0 || !heads.is_multiple_of(kv_heads) {
        let what = "query heads must be a multiple of the KV heads";
        return Err(KernelError::Attention { what, expected: kv_heads, found: heads });
    }
    if head_dim > WIDEST {
        let what = "values of a head, at most";
        return Err(KernelError::Attention { what, expected: WIDEST, found: head_dim });
    }
    let stride = checked_mul(kv_heads, head_dim)?;
    let (m, count) = (q.len() / (heads * head_dim), keys.len() / stride);
    check_length("score queries", checked_mul(m, heads * head_dim)?, q.len())?;
    check_length("score keys", checked_mul(count, stride)?, keys.len())?;
    check_length("scores", checked_mul(checked_mul(m, heads)?, count)?, out.len())?;
    let level = pool.level();
    let out = SharedPointer(out.as_mut_ptr());
    let tiles = count.div_ceil(LANES);
    pool.run_ranges(tiles, (64 / m.max(1)).max(1), &|range| {
        for tile in range {
            let first = tile * LANES;
            let (keys, q) = (keys[first * stride..].as_ptr(), q.as_ptr());
            let tokens = LANES.min(count - first);
            // SAFETY: the tile's keys are there, its columns of the scores are its own; the level is one the
            // processor has.
            unsafe {
                let out = out.get().add(first);
                launch(
                    level,
                    Tile { q, rows: m, heads, kv_heads, head_dim, keys, tokens, out, out_stride: count },
                );
            }
        }
    });
    Ok(())
}

/// Up to sixteen keys against all queries.
///
/// Conditions: `q` holds `rows * heads * head_dim` values, `keys` `0 < tokens <= 16` rows of `kv_heads * head_dim`; `out`
/// is valid for `tokens` values at each of `rows * heads` multiples of `out_stride`; `head_dim` is at most [`WIDEST`].
struct Tile {
    q: *const f32,
    rows: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    keys: *const u16,
    tokens: usize,
    out: *mut f32,
    out_stride: usize,
}

impl Kernel for Tile {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { rows, heads, kv_heads, head_dim, tokens, .. } = self;
        let group = heads / kv_heads;
        let mut columns = MaybeUninit::<[f32; WIDEST * LANES]>::uninit();
        let columns = columns.as_mut_ptr().cast::<f32>();
        for kv_head in 0..kv_heads {
            // SAFETY: rows below `tokens`, values inside of a head; columns are below WIDEST and were written before they
            // are read; queries are those named.
            unsafe {
                self.load_columns::<S>(kv_head, columns);
                for row in 0..rows {
                    let mut head = 0;
                    while head < group {
                        let together = QUERIES.min(group - head);
                        let query = row * heads + kv_head * group + head;
                        let mut q = [self.q; QUERIES];
                        for (i, q) in q.iter_mut().enumerate() {
                            *q = self.q.add((query + i.min(together - 1)) * head_dim);
                        }
                        let mut sums = [S::splat(0.0); QUERIES];
                        for d in 0..head_dim {
                            let column = S::load(columns.add(d * LANES));
                            unroll4!(i < QUERIES, {
                                sums[i] = S::fma(S::splat(q[i].add(d).read()), column, sums[i]);
                            });
                        }
                        for (i, sum) in sums.into_iter().enumerate().take(together) {
                            S::store_first(self.out.add((query + i) * self.out_stride), sum, tokens);
                        }
                        head += together;
                    }
                }
            }
        }
    }
}

impl Tile {
    /// Widens the keys of a head and turns them: sixteen keys of a channel side by side, the last one repeated where
    /// there are fewer. Conditions: see [`Simd`] and the type; `to` has room for `head_dim * 16` values.
    #[inline(always)]
    unsafe fn load_columns<S: Simd>(&self, kv_head: usize, to: *mut f32) {
        // SAFETY: rows below `tokens`, values inside of the head.
        unsafe {
            let mut rows = [self.keys; LANES];
            for (i, row) in rows.iter_mut().enumerate() {
                let token = i.min(self.tokens - 1);
                *row = self.keys.add((token * self.kv_heads + kv_head) * self.head_dim);
            }
            let mut d = 0;
            while d < self.head_dim {
                let n = (self.head_dim - d).min(LANES);
                let columns = if n == LANES {
                    <u16 as KvElement>::load_columns::<S>(&rows, d)
                } else {
                    let mut values = [S::splat(0.0); LANES];
                    for (value, row) in values.iter_mut().zip(rows) {
                        *value = <u16 as KvElement>::load_first::<S>(row.add(d), n);
                    }
                    S::transpose(values)
                };
                for (i, column) in columns.into_iter().enumerate().take(n) {
                    S::store(to.add((d + i) * LANES), column);
                }
                d += LANES;
            }
        }
    }
}
