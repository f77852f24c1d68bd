//! Attention of one token: every key and value is read once, straight from the cache.

use crate::attention::{KvElement, Partial};
use crate::exp::exp;
use crate::simd::{Kernel, LANES, Simd, unroll4};

/// Tokens of the cache that one unit of work covers. Fixed, so that the order of summation is too.
pub(crate) const DECODE_CHUNK: usize = 256;

/// Query heads that one pass serves; larger groups read the keys and values again.
const TOGETHER: usize = 4;

/// Bytes of working memory for one unit.
pub(crate) const DECODE_WORKSPACE: usize = TOGETHER * DECODE_CHUNK * size_of::<f32>();

/// One chunk of keys and values against the query heads that share them.
///
/// Conditions: `q` holds `heads * head_dim` values; `keys` and `values` point to the first token's row of this KV head
/// and are valid for `tokens` rows `stride` apart; `0 < tokens <= DECODE_CHUNK`; `head_dim` is a multiple of 16;
/// `to` has room for `heads` vectors and `workspace` for `DECODE_WORKSPACE` bytes.
pub(crate) struct DecodeChunk<E> {
    pub q: *const f32,
    pub heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub keys: *const E,
    pub values: *const E,
    pub stride: usize,
    pub tokens: usize,
    pub to: Partial,
    pub workspace: *mut f32,
}

impl<E: KvElement> Kernel for DecodeChunk<E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut head = 0;
        while head < self.heads {
            let left = self.heads - head;
            // SAFETY: the heads named exist; see the type's conditions.
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
        let scores = |h: usize, token: usize| self.workspace.wrapping_add(h * DECODE_CHUNK + token);
        // SAFETY: tokens stay below self.tokens for keys and values and below the padded number, at most
        // DECODE_CHUNK, for scores; heads below self.heads; vectors inside of a head.
        unsafe {
            let q = self.q.add(first * self.head_dim);
            let mut tops = [S::splat(f32::NEG_INFINITY); G];
            let mut token = 0;
            while token < self.tokens {
                let here = (self.tokens - token).min(LANES);
                let mut products = [[S::splat(0.0); LANES]; G];
                let mut j = 0;
                while j < here {
                    let key = self.keys.add((token + j) * self.stride);
                    let mut sums = [S::splat(0.0); G];
                    let mut v = 0;
                    while v < vectors {
                        let k = E::load::<S>(key.add(v * LANES));
                        unroll4!(h < G, {
                            sums[h] = S::fma(S::load(q.add(h * self.head_dim + v * LANES)), k, sums[h]);
                        });
                        v += 1;
                    }
                    unroll4!(h < G, {
                        products[h][j] = sums[h];
                    });
                    j += 1;
                }
                unroll4!(h < G, {
                    let mut dots = S::mul(S::sum_rows(products[h]), S::splat(self.scale));
                    if here < LANES {
                        dots = S::if_less(
                            S::lane_numbers(),
                            S::splat(here as f32),
                            dots,
                            S::splat(f32::NEG_INFINITY),
                        );
                    }
                    S::store(scores(h, token), dots);
                    tops[h] = S::max(tops[h], dots);
                });
                token += LANES;
            }
            unroll4!(h < G, {
                let top = S::max_lane(tops[h]);
                let mut sums = S::splat(0.0);
                let mut token = 0;
                while token < padded {
                    let p = exp::<S>(S::sub(S::load(scores(h, token)), S::splat(top)));
                    S::store(scores(h, token), p);
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

    /// The weighted sum of values, for `V` vectors of the head from vector `v`. Conditions: see [`Simd`].
    #[inline(always)]
    unsafe fn weigh<S: Simd, const G: usize, const V: usize>(&self, first: usize, v: usize) {
        // SAFETY: tokens stay below self.tokens, vectors inside of a head.
        unsafe {
            let mut sums = [[S::splat(0.0); V]; G];
            let mut token = 0;
            while token < self.tokens {
                let row = self.values.add(token * self.stride + v * LANES);
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
