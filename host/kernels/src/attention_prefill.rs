//! Attention of many tokens: tiles of 64 keys and values, widened to f32 once for all the queries of a tile.
//!
//! Tiles lie at multiples of 64 tokens from the cache's start, and each query keeps its own running maximum and sum
//! (Milakov and Gimelshein 2018; Dao et al. 2022), so a query's result does not depend on the queries beside it.

use crate::attention::{KvElement, Partial};
use crate::exp::exp_not_positive;
use crate::simd::{Kernel, LANES, Simd, unroll};

/// Keys in a tile.
pub(crate) const KEYS: usize = 64;
/// Query vectors that a product kernel keeps in registers.
const QUERIES: usize = 6;
/// Vectors of sixteen lanes beside each other in a product kernel.
const WIDE: usize = KEYS / LANES;

/// Sizes of one unit's working memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefillSizes {
    /// Query vectors, a multiple of [`QUERIES`].
    pub queries: usize,
    /// Head width, a multiple of [`KEYS`].
    pub width: usize,
}

impl PrefillSizes {
    /// For at most `queries` query vectors of `head_dim` values.
    pub fn new(queries: usize, head_dim: usize) -> Self {
        Self { queries: queries.next_multiple_of(QUERIES), width: head_dim.next_multiple_of(KEYS) }
    }

    /// f32 values of working memory.
    pub fn values(self) -> usize {
        let Self { queries, width } = self;
        2 * queries * width + 2 * KEYS * width + queries * KEYS
    }
}

/// A tile of query rows against the keys `first..last`.
///
/// Query vector `row * heads + h` is head `h` of the group in query row `row`.
///
/// Conditions: `q` points to the first row's first head of the group and is valid for `rows` rows `q_stride` apart;
/// `keys` and `values` point to token 0's row of the KV head and are valid for `last` rows `stride` apart; `to` has room for
/// `rows * heads` vectors, `workspace` for `sizes.values()`; `first` is a multiple of 64.
pub(crate) struct PrefillTile<E> {
    pub q: *const f32,
    pub q_stride: usize,
    pub rows: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub keys: *const E,
    pub values: *const E,
    pub stride: usize,
    pub first: usize,
    pub last: usize,
    /// Keys that the first row sees; each further row sees one more if causal.
    pub visible: usize,
    pub causal: bool,
    pub to: Partial,
    pub sizes: PrefillSizes,
    pub workspace: *mut f32,
}

/// The parts of the working memory.
#[derive(Clone, Copy)]
struct Buffers {
    /// `[queries / 6][width][6]`
    q: *mut f32,
    /// `[queries][width]`
    sums: *mut f32,
    /// `[width][64]`
    keys: *mut f32,
    /// `[64][width]`
    values: *mut f32,
    /// `[queries][64]`
    scores: *mut f32,
}

impl<E: KvElement> Kernel for PrefillTile<E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let PrefillSizes { queries: room, width } = self.sizes;
        let queries = self.rows * self.heads;
        let blocks = queries.div_ceil(QUERIES);
        // SAFETY: the buffers follow each other inside of the workspace, see `PrefillSizes::values`; query blocks stay
        // below `room`, keys below 64, tokens below `last`.
        unsafe {
            let q = self.workspace;
            let sums = q.add(room * width);
            let keys = sums.add(room * width);
            let values = keys.add(KEYS * width);
            let buffers = Buffers { q, sums, keys, values, scores: values.add(KEYS * width) };
            self.load_queries(buffers);
            for query in 0..blocks * QUERIES {
                for i in 0..width / LANES {
                    S::store(buffers.sums.add(query * width + i * LANES), S::splat(0.0));
                }
            }
            for query in 0..queries {
                self.to.set_weight(query, f32::NEG_INFINITY, 0.0);
            }
            let mut tile = self.first;
            while tile < self.last {
                self.load_keys::<S>(buffers, tile);
                self.load_values::<S>(buffers, tile);
                for block in 0..blocks {
                    // The last query of a block sees the most.
                    let seen = self.seen((block * QUERIES + QUERIES - 1).min(queries - 1), tile);
                    if seen == 0 {
                        continue;
                    }
                    self.scores::<S>(buffers, block);
                    let mut factors = [1.0; QUERIES];
                    for (i, factor) in factors.iter_mut().enumerate() {
                        let query = block * QUERIES + i;
                        if query < queries {
                            *factor = self.soften::<S>(buffers, query, self.seen(query, tile));
                        }
                    }
                    for wide in 0..width / KEYS {
                        self.weigh::<S>(buffers, block, wide, seen, &factors);
                    }
                }
                tile += KEYS;
            }
            for query in 0..queries {
                for i in (0..self.head_dim).step_by(LANES) {
                    let n = (self.head_dim - i).min(LANES);
                    S::store_first(
                        self.to.vector(query).add(i),
                        S::load(buffers.sums.add(query * width + i)),
                        n,
                    );
                }
            }
        }
    }
}

impl<E: KvElement> PrefillTile<E> {
    /// How many of the tile's keys a query sees.
    #[inline(always)]
    fn seen(&self, query: usize, tile: usize) -> usize {
        let row = if self.causal { query / self.heads } else { 0 };
        (self.visible + row).min(self.last).saturating_sub(tile).min(KEYS)
    }

    /// Scales the queries and puts six of them side by side, with zeros for those that are not there.
    #[inline(always)]
    unsafe fn load_queries(&self, buffers: Buffers) {
        let width = self.sizes.width;
        let queries = self.rows * self.heads;
        for query in 0..queries.next_multiple_of(QUERIES) {
            let (row, head) = (query / self.heads, query % self.heads);
            // SAFETY: query < room, d < width; q is read only where row < rows and d < head_dim.
            unsafe {
                let to = buffers.q.add(query / QUERIES * width * QUERIES + query % QUERIES);
                for d in 0..width {
                    let value = if query < queries && d < self.head_dim {
                        self.q.add(row * self.q_stride + head * self.head_dim + d).read() * self.scale
                    } else {
                        0.0
                    };
                    to.add(d * QUERIES).write(value);
                }
            }
        }
    }

    /// Widens and turns a tile of keys, with zeros beyond the last token and the head's width.
    #[inline(always)]
    unsafe fn load_keys<S: Simd>(&self, buffers: Buffers, tile: usize) {
        for part in 0..WIDE {
            let mut d = 0;
            while d < self.sizes.width {
                // SAFETY: only tokens below `last` and values inside of the head are read; d + 16 <= width.
                unsafe {
                    let mut rows = [S::splat(0.0); LANES];
                    for (i, row) in rows.iter_mut().enumerate() {
                        let token = tile + part * LANES + i;
                        if token < self.last && d < self.head_dim {
                            let p = self.keys.add(token * self.stride + d);
                            *row = E::load_first::<S>(p, self.head_dim - d);
                        }
                    }
                    let columns = S::transpose(rows);
                    for (i, column) in columns.into_iter().enumerate() {
                        S::store(buffers.keys.add((d + i) * KEYS + part * LANES), column);
                    }
                }
                d += LANES;
            }
        }
    }

    /// Widens a tile of values, with zeros beyond the last token and the head's width.
    #[inline(always)]
    unsafe fn load_values<S: Simd>(&self, buffers: Buffers, tile: usize) {
        for i in 0..KEYS {
            let token = tile + i;
            let mut d = 0;
            while d < self.sizes.width {
                // SAFETY: only tokens below `last` and values inside of the head are read; i < 64, d + 16 <= width.
                unsafe {
                    let value = if token < self.last && d < self.head_dim {
                        E::load_first::<S>(self.values.add(token * self.stride + d), self.head_dim - d)
                    } else {
                        S::splat(0.0)
                    };
                    S::store(buffers.values.add(i * self.sizes.width + d), value);
                }
                d += LANES;
            }
        }
    }

    /// Six queries times 64 keys.
    #[inline(always)]
    unsafe fn scores<S: Simd>(&self, buffers: Buffers, block: usize) {
        let width = self.sizes.width;
        // SAFETY: block is below the number of blocks, d below the width.
        unsafe {
            let q = buffers.q.add(block * width * QUERIES);
            let mut sums = [[S::splat(0.0); WIDE]; QUERIES];
            for d in 0..self.head_dim {
                let mut keys = [S::splat(0.0); WIDE];
                unroll!(i in 0 1 2 3, {
                    keys[i] = S::load(buffers.keys.add(d * KEYS + i * LANES));
                });
                unroll!(query in 0 1 2 3 4 5, {
                    let x = S::splat(q.add(d * QUERIES + query).read());
                    unroll!(i in 0 1 2 3, {
                        sums[query][i] = S::fma(x, keys[i], sums[query][i]);
                    });
                });
            }
            let to = buffers.scores.add(block * QUERIES * KEYS);
            unroll!(query in 0 1 2 3 4 5, {
                unroll!(i in 0 1 2 3, {
                    S::store(to.add(query * KEYS + i * LANES), sums[query][i]);
                });
            });
        }
    }

    /// Turns a query's scores into weights and moves its running maximum and sum on; gives the factor by which what
    /// was summed before must shrink.
    #[inline(always)]
    unsafe fn soften<S: Simd>(&self, buffers: Buffers, query: usize, seen: usize) -> f32 {
        // SAFETY: query < room; the four vectors of its scores are inside of the buffer.
        unsafe {
            let scores = buffers.scores.add(query * KEYS);
            let mut values = [S::splat(0.0); WIDE];
            let mut tops = S::splat(f32::NEG_INFINITY);
            for (i, value) in values.iter_mut().enumerate() {
                *value = S::load(scores.add(i * LANES));
                if seen < (i + 1) * LANES {
                    let here = S::splat(seen as f32 - (i * LANES) as f32);
                    *value = S::if_less(S::lane_numbers(), here, *value, S::splat(f32::NEG_INFINITY));
                }
                tops = S::max(tops, *value);
            }
            if seen == 0 {
                for i in 0..WIDE {
                    S::store(scores.add(i * LANES), S::splat(0.0));
                }
                return 1.0;
            }
            let (old_top, old_sum) = self.to.weight(query);
            let top = old_top.max(S::max_lane(tops));
            let mut sums = S::splat(0.0);
            for (i, value) in values.iter().enumerate() {
                let p = exp_not_positive::<S>(S::sub(*value, S::splat(top)));
                S::store(scores.add(i * LANES), p);
                sums = S::add(sums, p);
            }
            let factor = S::max_lane(exp_not_positive::<S>(S::splat(old_top - top)));
            self.to.set_weight(query, top, old_sum * factor + S::sum(sums));
            factor
        }
    }

    /// Adds 64 columns of the weighted values to six queries' sums.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(
        &self,
        buffers: Buffers,
        block: usize,
        wide: usize,
        keys: usize,
        factors: &[f32; QUERIES],
    ) {
        let width = self.sizes.width;
        // SAFETY: block is below the number of blocks, wide below width / 64, keys at most 64.
        unsafe {
            let to = buffers.sums.add(block * QUERIES * width + wide * KEYS);
            let weights = buffers.scores.add(block * QUERIES * KEYS);
            let mut sums = [[S::splat(0.0); WIDE]; QUERIES];
            unroll!(query in 0 1 2 3 4 5, {
                unroll!(i in 0 1 2 3, {
                    sums[query][i] =
                        S::mul(S::load(to.add(query * width + i * LANES)), S::splat(factors[query]));
                });
            });
            for key in 0..keys {
                let mut values = [S::splat(0.0); WIDE];
                unroll!(i in 0 1 2 3, {
                    values[i] = S::load(buffers.values.add(key * width + wide * KEYS + i * LANES));
                });
                unroll!(query in 0 1 2 3 4 5, {
                    let p = S::splat(weights.add(query * KEYS + key).read());
                    unroll!(i in 0 1 2 3, {
                        sums[query][i] = S::fma(p, values[i], sums[query][i]);
                    });
                });
            }
            unroll!(query in 0 1 2 3 4 5, {
                unroll!(i in 0 1 2 3, {
                    S::store(to.add(query * width + i * LANES), sums[query][i]);
                });
            });
        }
    }
}
