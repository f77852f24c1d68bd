//! Attention of one token: every key and value is read once, straight from the cache.

use crate::aligned::LINE;
use crate::attention::KvElement;
use crate::attention_chunk::{CHUNK, Partial, soften};
use crate::simd::{Kernel, LANES, Simd, unroll, unroll4};

/// Query heads that one pass serves; larger groups read the keys and values again.
const TOGETHER: usize = 4;

/// How many tokens ahead keys are fetched.
const AHEAD: usize = 16;

/// f32 values of working memory for one unit: the scores of heads taken together, and their queries.
pub(crate) fn decode_workspace(head_dim: usize) -> usize {
    TOGETHER * (CHUNK + head_dim)
}

/// One chunk of keys and values of some KV heads against the query heads that share them.
///
/// Query head `kv * group + h` reads KV head `kv`.
///
/// Conditions: `q` holds `kv_heads * group * head_dim` values; `keys` and `values` point to the first token's row of the
/// first KV head and are valid for all `kv_heads` in `tokens` rows `stride` apart; `0 < tokens <= CHUNK`;
/// `head_dim` is a multiple of 16; `to` has room for `kv_heads * group` vectors and `workspace` for
/// `decode_workspace` values.
pub(crate) struct DecodeChunk<E> {
    pub q: *const f32,
    pub kv_heads: usize,
    pub group: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub keys: *const E,
    pub values: *const E,
    pub stride: usize,
    pub tokens: usize,
    /// Whether this worker did not just finish the chunk before, and so fetched nothing of this one yet.
    pub cold: bool,
    pub to: Partial,
    pub workspace: *mut f32,
}

impl<E: KvElement> Kernel for DecodeChunk<E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut head = 0;
        while head < self.kv_heads * self.group {
            let left = self.group - head % self.group;
            // SAFETY: the heads named exist and share a KV head; see the type's conditions.
            unsafe {
                match left {
                    1 => self.heads_together::<S, 1>(head),
                    2 => self.heads_together::<S, 2>(head),
                    3 => self.heads_together::<S, 3>(head),
                    _ => self.heads_together::<S, TOGETHER>(head),
                }
            }
            head += left.min(TOGETHER);
        }
    }
}

impl<E: KvElement> DecodeChunk<E> {
    /// Heads `first..first + G`. Conditions: see [`Simd`] and the type.
    #[inline(always)]
    unsafe fn heads_together<S: Simd, const G: usize>(&self, first: usize) {
        let vectors = self.head_dim / LANES;
        // SAFETY: each head has CHUNK scores; vectors inside of a head.
        unsafe {
            self.scores::<S, G>(first);
            unroll4!(h < G, {
                let (top, sum) = soften::<S>(self.workspace.add(h * CHUNK), self.tokens);
                self.to.set_weight(first + h, top, sum);
            });
            let mut v = 0;
            while v + 4 <= vectors {
                self.weigh::<S, G, 4>(first, v);
                v += 4;
            }
            while v < vectors {
                self.weigh::<S, G, 1>(first, v);
                v += 1;
            }
        }
    }

    /// Writes the scores of all tokens, and something up to the next multiple of sixteen. Conditions: see [`Simd`] and
    /// the type.
    #[inline(always)]
    unsafe fn scores<S: Simd, const G: usize>(&self, first: usize) {
        // SAFETY: tokens stay below self.tokens for keys, and below the padded number, at most CHUNK, for scores;
        // heads below self.heads; vectors inside of a head. Prefetches may point anywhere.
        unsafe {
            let keys = self.keys.add(first / self.group * self.head_dim);
            let q = self.workspace.add(TOGETHER * CHUNK);
            let mut i = 0;
            while i < G * self.head_dim {
                let scaled = S::mul(S::load(self.q.add(first * self.head_dim + i)), S::splat(self.scale));
                S::store(q.add(i), scaled);
                i += LANES;
            }
            // Reading ahead is spread over all the work on a chunk: each row fetches its like in the chunk to come. What
            // nobody fetched, the first head to come fetches for all.
            let head_bytes = self.head_dim * size_of::<E>();
            let fetched = if self.cold && first == 0 { self.kv_heads * head_bytes } else { 0 };
            let to_come = if first.is_multiple_of(self.group) { head_bytes } else { 0 };
            let mut token = 0;
            while token < self.tokens {
                let last = (self.tokens - token).min(LANES) - 1;
                let mut rows = [keys; LANES];
                for (j, key) in rows.iter_mut().enumerate() {
                    // Lanes without a token repeat the last one.
                    let row = (token + j.min(last)) * self.stride;
                    *key = keys.add(row);
                    let mut byte = 0;
                    while byte < fetched {
                        S::prefetch(key.wrapping_add(AHEAD * self.stride).cast::<u8>().wrapping_add(byte));
                        S::prefetch(self.values.wrapping_add(row).cast::<u8>().wrapping_add(byte));
                        byte += LINE;
                    }
                    let mut byte = 0;
                    while byte < to_come {
                        S::prefetch_second(
                            key.wrapping_add(CHUNK * self.stride).cast::<u8>().wrapping_add(byte),
                        );
                        byte += LINE;
                    }
                }
                let mut sums = [S::splat(0.0); G];
                let mut d = 0;
                while d < self.head_dim {
                    let columns = E::load_columns::<S>(&rows, d);
                    unroll!(i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15, {
                        unroll4!(h < G, {
                            let x = S::splat(q.add(h * self.head_dim + d + i).read());
                            sums[h] = S::fma(x, columns[i], sums[h]);
                        });
                    });
                    d += LANES;
                }
                unroll4!(h < G, {
                    S::store(self.workspace.add(h * CHUNK + token), sums[h]);
                });
                token += LANES;
            }
        }
    }

    /// The weighted sum of values, for `V` vectors of the head from vector `v`. Conditions: see [`Simd`].
    #[inline(always)]
    unsafe fn weigh<S: Simd, const G: usize, const V: usize>(&self, first: usize, v: usize) {
        // SAFETY: tokens stay below self.tokens, vectors inside of a head.
        unsafe {
            let values = self.values.add(first / self.group * self.head_dim + v * LANES);
            let to_come = if first.is_multiple_of(self.group) { V * LANES * size_of::<E>() } else { 0 };
            let mut sums = [[S::splat(0.0); V]; G];
            let mut token = 0;
            while token < self.tokens {
                let row = values.add(token * self.stride);
                let mut byte = 0;
                while byte < to_come {
                    S::prefetch_second(row.wrapping_add(CHUNK * self.stride).cast::<u8>().wrapping_add(byte));
                    byte += LINE;
                }
                unroll4!(i < V, {
                    let value = E::load::<S>(row.add(i * LANES));
                    unroll4!(h < G, {
                        let p = S::splat(self.workspace.add(h * CHUNK + token).read());
                        sums[h][i] = S::fma(p, value, sums[h][i]);
                    });
                });
                token += 1;
            }
            unroll4!(h < G, {
                unroll4!(i < V, {
                    S::store(self.to.vector(first + h).add((v + i) * LANES), sums[h][i]);
                });
            });
        }
    }
}
