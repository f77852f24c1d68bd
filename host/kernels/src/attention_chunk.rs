//! The order in which attention adds up, which is one for all kernels: a query row's result has the same bits alone
//! and in a prefill of any length, whatever is computed beside it.
//!
//! Keys fall into chunks of [`CHUNK`] tokens that begin at multiples of it. In a chunk:
//!
//! 1. A key's score is the sum of `(q[d] * scale) * k[d]` over d from 0 on, each step one multiply-add.
//! 2. [`soften`] takes the maximum, the weights e^(score - maximum) and their sum over the keys that the row sees,
//!    sixteen neighbours at a time.
//! 3. Each element of the weighted sum of values goes over those keys in their order, each step one multiply-add.
//!
//! Chunks are then [`join`]ed one after another from the first on (Milakov and Gimelshein 2018), and the weighted sum is
//! divided by the sum of weights. Keys that the row does not see take no part.

use crate::exp::exp_not_positive;
use crate::simd::{Kernel, LANES, Simd};

/// Tokens of a chunk.
pub(crate) const CHUNK: usize = 128;

/// Unfinished results of some query vectors: for each its weighted sum of values, the maximum that its weights are
/// relative to, and their sum.
#[derive(Clone, Copy)]
pub(crate) struct Partial {
    pub start: *mut f32,
    pub head_dim: usize,
}

impl Partial {
    /// f32 values for each query vector.
    pub fn values(head_dim: usize) -> usize {
        head_dim + 2
    }

    /// Where a query's weighted sum lies.
    #[inline(always)]
    pub fn vector(self, query: usize) -> *mut f32 {
        self.start.wrapping_add(query * Self::values(self.head_dim))
    }

    /// Conditions: the query is one that there is room for.
    #[inline(always)]
    pub unsafe fn set_weight(self, query: usize, top: f32, sum: f32) {
        // SAFETY: the two values after the vector.
        unsafe { self.vector(query).add(self.head_dim).cast::<[f32; 2]>().write_unaligned([top, sum]) };
    }

    /// Conditions: as for `set_weight`, which was called before.
    #[inline(always)]
    pub unsafe fn weight(self, query: usize) -> (f32, f32) {
        // SAFETY: the two values after the vector.
        let [top, sum] = unsafe { self.vector(query).add(self.head_dim).cast::<[f32; 2]>().read_unaligned() };
        (top, sum)
    }
}

/// Turns a chunk's scores into weights; gives their maximum before and their sum after.
///
/// Conditions: `scores` is valid for `seen` values rounded up to sixteen, `seen` is not 0. Values after the first
/// `seen` may be anything and become 0. See also [`Simd`].
#[inline(always)]
pub(crate) unsafe fn soften<S: Simd>(scores: *mut f32, seen: usize) -> (f32, f32) {
    let whole = seen / LANES * LANES;
    // SAFETY: whole < seen where something is left, so that sixteen values from there on exist.
    unsafe {
        let mut tops = S::splat(f32::NEG_INFINITY);
        let mut i = 0;
        while i < whole {
            tops = S::max(tops, S::load(scores.add(i)));
            i += LANES;
        }
        if whole < seen {
            let none = S::splat(f32::NEG_INFINITY);
            let here = S::splat((seen - whole) as f32);
            let last = S::if_less(S::lane_numbers(), here, S::load(scores.add(whole)), none);
            S::store(scores.add(whole), last);
            tops = S::max(tops, last);
        }
        let top = S::max_lane(tops);
        let mut sums = S::splat(0.0);
        let mut i = 0;
        while i < seen {
            let p = exp_not_positive::<S>(S::sub(S::load(scores.add(i)), S::splat(top)));
            S::store(scores.add(i), p);
            sums = S::add(sums, p);
            i += LANES;
        }
        (top, S::sum(sums))
    }
}

/// What brings a chunk to the chunks before it: both weighted sums are multiplied by their factor and added.
#[derive(Clone, Copy)]
pub(crate) struct Joined {
    /// Maximum of both.
    pub top: f32,
    /// Sum of the weights relative to that.
    pub sum: f32,
    pub old_factor: f32,
    pub new_factor: f32,
}

/// Joins (maximum, sum of weights) of the chunks so far and of the next one. Conditions: see [`Simd`].
#[inline(always)]
pub(crate) unsafe fn join<S: Simd>(old: (f32, f32), new: (f32, f32)) -> Joined {
    let grows = new.0 > old.0;
    let below = if grows { old.0 - new.0 } else { new.0 - old.0 };
    // SAFETY: passed on; no memory is touched.
    let factor = unsafe { S::max_lane(exp_not_positive::<S>(S::splat(below))) };
    let (top, old_factor, new_factor) = if grows { (new.0, factor, 1.0) } else { (old.0, 1.0, factor) };
    Joined { top, sum: old.1 * old_factor + new.1 * new_factor, old_factor, new_factor }
}

/// The step of [`join`] for sixteen values of the weighted sums. Conditions: see [`Simd`].
#[inline(always)]
pub(crate) unsafe fn join_values<S: Simd>(old: S::F, old_factor: f32, new: S::F, new_factor: f32) -> S::F {
    // SAFETY: passed on; no memory is touched.
    unsafe { S::fma(S::splat(new_factor), new, S::mul(old, S::splat(old_factor))) }
}

/// Joins the partial results of query `query`, chunk by chunk, and writes the finished vector.
///
/// Conditions: `first` and the `parts - 1` that follow it, each `stride` values after the one before, hold this query's
/// results of its chunks; no other thread uses those; `out` is valid for a head's values.
pub(crate) struct Finish {
    pub first: Partial,
    pub stride: usize,
    pub parts: usize,
    pub query: usize,
    pub out: *mut f32,
}

impl Kernel for Finish {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { first, stride, parts, query, out } = self;
        let head_dim = first.head_dim;
        let part = |index: usize| Partial { start: first.start.wrapping_add(index * stride), head_dim };
        // SAFETY: the parts are there, see the type's conditions; i + n <= head_dim.
        unsafe {
            let mut weight = first.weight(query);
            for index in 1..parts {
                let joined = join::<S>(weight, part(index).weight(query));
                weight = (joined.top, joined.sum);
                // Kept in place of the maximum and sum, for the loop below.
                part(index).set_weight(query, joined.old_factor, joined.new_factor);
            }
            for i in (0..head_dim).step_by(LANES) {
                let n = (head_dim - i).min(LANES);
                let mut value = S::load_first(first.vector(query).add(i), n);
                for index in 1..parts {
                    let (old_factor, new_factor) = part(index).weight(query);
                    let new = S::load_first(part(index).vector(query).add(i), n);
                    value = join_values::<S>(value, old_factor, new, new_factor);
                }
                S::store_first(out.add(i), S::div(value, S::splat(weight.1)), n);
            }
        }
    }
}
