//! Attention of many tokens: chunks of keys and values, widened to f32 once for all the queries of a tile.
//!
//! The order of summation is that of [`crate::attention_chunk`].

use crate::attention::KvElement;
use crate::attention_chunk::{CHUNK, Partial, join, join_values, soften};
use crate::simd::{Kernel, LANES, Simd, unroll};

/// Keys or values beside each other in a product kernel.
const KEYS: usize = 64;
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
        2 * queries * width + 2 * CHUNK * width + QUERIES * CHUNK
    }
}

/// A tile of query rows against the keys `first..last`.
///
/// Query vector `row * heads + h` is head `h` of the group in query row `row`.
///
/// Conditions: `q` points to the first row's first head of the group and is valid for `rows` rows `q_stride` apart;
/// `keys` and `values` point to token 0's row of the KV head and are valid for `last` rows `stride` apart; `to` has room for
/// `rows * heads` vectors, `workspace` for `sizes.values()`; `first` is a
/// multiple of [`CHUNK`].
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
    /// `[CHUNK / 64][width][64]`
    keys: *mut f32,
    /// `[CHUNK][width]`
    values: *mut f32,
    /// `[6][CHUNK]`, of the block in work
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
        // below `room`, keys below CHUNK, tokens below `last`.
        unsafe {
            let q = self.workspace;
            let sums = q.add(room * width);
            let keys = sums.add(room * width);
            let values = keys.add(CHUNK * width);
            let buffers = Buffers { q, sums, keys, values, scores: values.add(CHUNK * width) };
            self.load_queries(buffers);
            let mut chunk = self.first;
            while chunk < self.last {
                self.load_keys::<S>(buffers, chunk);
                self.load_values::<S>(buffers, chunk);
                for block in 0..blocks {
                    self.block::<S>(buffers, block, queries, chunk);
                }
                chunk += CHUNK;
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
    /// How many of the chunk's keys a query sees.
    #[inline(always)]
    fn seen(&self, query: usize, chunk: usize) -> usize {
        let row = if self.causal { query / self.heads } else { 0 };
        (self.visible + row).min(self.last).saturating_sub(chunk).min(CHUNK)
    }

    /// Six queries, or what is left of `queries`, against a chunk.
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, buffers: Buffers, block: usize, queries: usize, chunk: usize) {
        // The last query sees the most; those that are not there do as it does.
        let seen: [usize; QUERIES] =
            std::array::from_fn(|i| self.seen((block * QUERIES + i).min(queries - 1), chunk));
        let most = seen[QUERIES - 1];
        // SAFETY: queries below self.rows * self.heads, halves below CHUNK / 64, columns below the width.
        unsafe {
            for half in 0..most.div_ceil(KEYS) {
                self.scores::<S>(buffers, block, half);
            }
            let mut factors = [None; QUERIES];
            for i in 0..QUERIES.min(queries - block * QUERIES) {
                if seen[i] == 0 {
                    continue;
                }
                let query = block * QUERIES + i;
                let mut weight = soften::<S>(buffers.scores.add(i * CHUNK), seen[i]);
                factors[i] = Some((0.0, 1.0));
                if chunk > self.first {
                    let joined = join::<S>(self.to.weight(query), weight);
                    weight = (joined.top, joined.sum);
                    factors[i] = Some((joined.old_factor, joined.new_factor));
                }
                self.to.set_weight(query, weight.0, weight.1);
            }
            if most > 0 {
                for wide in 0..self.sizes.width / KEYS {
                    self.weigh::<S>(buffers, block, wide, &seen, chunk == self.first, &factors);
                }
            }
        }
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

    /// Widens and turns a chunk of keys. Vectors of keys that reach beyond the last token repeat it.
    #[inline(always)]
    unsafe fn load_keys<S: Simd>(&self, buffers: Buffers, chunk: usize) {
        let tokens = (self.last - chunk).min(CHUNK);
        for part in 0..tokens.div_ceil(LANES) {
            // SAFETY: only tokens below `last` and values inside of the head are read; d + 16 <= width.
            unsafe {
                let mut rows = [self.keys; LANES];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = self.keys.add((chunk + (part * LANES + i).min(tokens - 1)) * self.stride);
                }
                let to = buffers.keys.add(part / WIDE * KEYS * self.sizes.width + part % WIDE * LANES);
                let mut d = 0;
                while d < self.head_dim {
                    let columns = if d + LANES <= self.head_dim {
                        E::load_columns::<S>(&rows, d)
                    } else {
                        let mut values = [S::splat(0.0); LANES];
                        for (value, row) in values.iter_mut().zip(rows) {
                            *value = E::load_first::<S>(row.add(d), self.head_dim - d);
                        }
                        S::transpose(values)
                    };
                    for (i, column) in columns.into_iter().enumerate() {
                        S::store(to.add((d + i) * KEYS), column);
                    }
                    d += LANES;
                }
            }
        }
    }

    /// Widens a chunk of values, with zeros beyond the head's width.
    #[inline(always)]
    unsafe fn load_values<S: Simd>(&self, buffers: Buffers, chunk: usize) {
        for i in 0..(self.last - chunk).min(CHUNK) {
            let mut d = 0;
            while d < self.sizes.width {
                // SAFETY: tokens stay below `last`, values inside of the head; i < CHUNK, d + 16 <= width.
                unsafe {
                    let value = if d < self.head_dim {
                        let p = self.values.add((chunk + i) * self.stride + d);
                        E::load_first::<S>(p, self.head_dim - d)
                    } else {
                        S::splat(0.0)
                    };
                    S::store(buffers.values.add(i * self.sizes.width + d), value);
                }
                d += LANES;
            }
        }
    }

    /// Six queries times half a chunk of keys.
    #[inline(always)]
    unsafe fn scores<S: Simd>(&self, buffers: Buffers, block: usize, half: usize) {
        let width = self.sizes.width;
        // SAFETY: block is below the number of blocks, d below the width.
        unsafe {
            let q = buffers.q.add(block * width * QUERIES);
            let turned = buffers.keys.add(half * KEYS * width);
            let mut sums = [[S::splat(0.0); WIDE]; QUERIES];
            for d in 0..self.head_dim {
                let mut keys = [S::splat(0.0); WIDE];
                unroll!(i in 0 1 2 3, {
                    keys[i] = S::load(turned.add(d * KEYS + i * LANES));
                });
                unroll!(query in 0 1 2 3 4 5, {
                    let x = S::splat(q.add(d * QUERIES + query).read());
                    unroll!(i in 0 1 2 3, {
                        sums[query][i] = S::fma(x, keys[i], sums[query][i]);
                    });
                });
            }
            let to = buffers.scores.add(half * KEYS);
            unroll!(query in 0 1 2 3 4 5, {
                unroll!(i in 0 1 2 3, {
                    S::store(to.add(query * CHUNK + i * LANES), sums[query][i]);
                });
            });
        }
    }

    /// Joins 64 columns of the chunk's weighted values to six queries' sums, which the first chunk begins. Queries
    /// without factors keep theirs.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(
        &self,
        buffers: Buffers,
        block: usize,
        wide: usize,
        seen: &[usize; QUERIES],
        begins: bool,
        factors: &[Option<(f32, f32)>; QUERIES],
    ) {
        let width = self.sizes.width;
        // SAFETY: block is below the number of blocks, wide below width / 64, keys at most CHUNK.
        unsafe {
            let to = buffers.sums.add(block * QUERIES * width + wide * KEYS);
            let weights = buffers.scores;
            let from = buffers.values.add(wide * KEYS);
            let mut sums = [[S::splat(0.0); WIDE]; QUERIES];
            for key in 0..seen[0] {
                let mut values = [S::splat(0.0); WIDE];
                unroll!(i in 0 1 2 3, {
                    values[i] = S::load(from.add(key * width + i * LANES));
                });
                unroll!(query in 0 1 2 3 4 5, {
                    let p = S::splat(weights.add(query * CHUNK + key).read());
                    unroll!(i in 0 1 2 3, {
                        sums[query][i] = S::fma(p, values[i], sums[query][i]);
                    });
                });
            }
            // Keys that only later rows see. A weight of 0 would not do: 0 times infinity is no number.
            unroll!(query in 1 2 3 4 5, {
                for key in seen[0]..seen[query] {
                    let p = S::splat(weights.add(query * CHUNK + key).read());
                    unroll!(i in 0 1 2 3, {
                        let value = S::load(from.add(key * width + i * LANES));
                        sums[query][i] = S::fma(p, value, sums[query][i]);
                    });
                }
            });
            unroll!(query in 0 1 2 3 4 5, {
                if let Some((old_factor, new_factor)) = factors[query] {
                    unroll!(i in 0 1 2 3, {
                        let to = to.add(query * width + i * LANES);
                        let sum = if begins {
                            sums[query][i]
                        } else {
                            join_values::<S>(S::load(to), old_factor, sums[query][i], new_factor)
                        };
                        S::store(to, sum);
                    });
                }
            });
        }
    }
}
