//! Attention of one token: every key and value is read once, straight from the cache.

use crate::aligned::LINE;
use crate::attention::{KvElement, Partial};
use crate::exp::exp_not_positive;
use crate::simd::{Kernel, LANES, Simd, unroll4};

/// Tokens of the cache that one unit of work covers. Fixed, so that the order of summation is too.
pub(crate) const DECODE_CHUNK: usize = 128;

/// Query heads that one pass serves; larger groups read the keys and values again.
const TOGETHER: usize = 4;

/// How many tokens ahead keys are fetched.
const AHEAD: usize = 16;

/// Bytes of working memory for one unit.
pub(crate) const DECODE_WORKSPACE: usize = TOGETHER * DECODE_CHUNK * size_of::<f32>();

/// One chunk of keys and values of some KV heads against the query heads that share them.
///
/// Query head `kv * group + h` reads KV head `kv`.
///
/// Conditions: `q` holds `kv_heads * group * head_dim` values; `keys` and `values` point to the first token's row of the
/// first KV head and are valid for all `kv_heads` in `tokens` rows `stride` apart; `0 < tokens <= DECODE_CHUNK`;
/// `head_dim` is a multiple of 16; `to` has room for `kv_heads * group` vectors and `workspace` for
/// `DECODE_WORKSPACE` bytes.
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
        let padded = self.tokens.next_multiple_of(LANES);
        // SAFETY: scores are read up to the padded number of tokens, at most DECODE_CHUNK; vectors inside of a head.
        unsafe {
            let tops =
                if vectors == 4 { self.scores::<S, G, 4>(first) } else { self.scores::<S, G, 0>(first) };
            unroll4!(h < G, {
                let scores = self.workspace.add(h * DECODE_CHUNK);
                let top = S::max_lane(tops[h]);
                let mut sums = S::splat(0.0);
                let mut token = 0;
                while token < padded {
                    let p = exp_not_positive::<S>(S::sub(S::load(scores.add(token)), S::splat(top)));
                    S::store(scores.add(token), p);
                    sums = S::add(sums, p);
                    token += LANES;
                }
                self.to.set_weight(first + h, top, S::sum(sums));
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

    /// Writes the scores of all tokens, minus infinity up to the next multiple of sixteen, and gives their maxima.
    /// `V` is the number of vectors of a head, or 0 for any. Conditions: see [`Simd`] and the type.
    #[inline(always)]
    unsafe fn scores<S: Simd, const G: usize, const V: usize>(&self, first: usize) -> [S::F; G] {
        // SAFETY: tokens stay below self.tokens for keys, and below the padded number, at most DECODE_CHUNK, for
        // scores; heads below self.heads; vectors inside of a head. Prefetches may point anywhere.
        unsafe {
            let q = self.q.add(first * self.head_dim);
            let keys = self.keys.add(first / self.group * self.head_dim);
            // Reading ahead is spread over all the work on a chunk: each row fetches its like in the chunk to come. What
            // nobody fetched, the first head to come fetches for all.
            let head_bytes = self.head_dim * size_of::<E>();
            let fetched = if self.cold && first == 0 { self.kv_heads * head_bytes } else { 0 };
            let to_come = if first.is_multiple_of(self.group) { head_bytes } else { 0 };
            let mut known = [[S::splat(0.0); V]; G];
            unroll4!(h < G, {
                unroll4!(v < V, {
                    known[h][v] = S::load(q.add(h * self.head_dim + v * LANES));
                });
            });
            let mut tops = [S::splat(f32::NEG_INFINITY); G];
            let mut products = [[S::splat(0.0); LANES]; G];
            let mut token = 0;
            while token < self.tokens {
                let here = (self.tokens - token).min(LANES);
                let mut j = 0;
                while j < here {
                    let row = (token + j) * self.stride;
                    let key = keys.add(row);
                    let mut byte = 0;
                    while byte < fetched {
                        S::prefetch(key.wrapping_add(AHEAD * self.stride).cast::<u8>().wrapping_add(byte));
                        S::prefetch(self.values.wrapping_add(row).cast::<u8>().wrapping_add(byte));
                        byte += LINE;
                    }
                    let mut byte = 0;
                    while byte < to_come {
                        S::prefetch_second(
                            key.wrapping_add(DECODE_CHUNK * self.stride).cast::<u8>().wrapping_add(byte),
                        );
                        byte += LINE;
                    }
                    let mut sums = [S::splat(0.0); G];
                    unroll4!(v < V, {
                        let k = E::load::<S>(key.add(v * LANES));
                        unroll4!(h < G, {
                            sums[h] = S::fma(known[h][v], k, sums[h]);
                        });
                    });
                    if V == 0 {
                        let mut d = 0;
                        while d < self.head_dim {
                            let k = E::load::<S>(key.add(d));
                            unroll4!(h < G, {
                                sums[h] = S::fma(S::load(q.add(h * self.head_dim + d)), k, sums[h]);
                            });
                            d += LANES;
                        }
                    }
                    unroll4!(h < G, {
                        products[h][j] = sums[h];
                    });
                    j += 1;
                }
                unroll4!(h < G, {
                    let mut dots = S::mul(S::sum_rows(&products[h]), S::splat(self.scale));
                    if here < LANES {
                        let none = S::splat(f32::NEG_INFINITY);
                        dots = S::if_less(S::lane_numbers(), S::splat(here as f32), dots, none);
                    }
                    S::store(self.workspace.add(h * DECODE_CHUNK + token), dots);
                    tops[h] = S::max(tops[h], dots);
                });
                token += LANES;
            }
            tops
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
                    S::prefetch_second(
                        row.wrapping_add(DECODE_CHUNK * self.stride).cast::<u8>().wrapping_add(byte),
                    );
                    byte += LINE;
                }
                unroll4!(i < V, {
                    let value = E::load::<S>(row.add(i * LANES));
                    unroll4!(h < G, {
                        let p = S::splat(self.workspace.add(h * DECODE_CHUNK + token).read());
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
