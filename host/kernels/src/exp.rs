//! The exponential function on sixteen lanes.

use crate::simd::Simd;

/// Results for inputs below this are zero.
const LOWEST: f32 = -86.9;
/// Results for inputs above this are infinite: ln(f32::MAX).
const HIGHEST: f32 = 88.722_84;

/// e^x for x <= 0, NaN for NaN, otherwise as [`exp`]: what softmax needs, in fewer steps.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp_not_positive<S: Simd>(x: S::F) -> S::F {
    // SAFETY: passed on; no memory is touched.
    unsafe {
        let bounded = S::max(S::splat(LOWEST), x);
        let (n, p) = reduced::<S>(bounded);
        S::if_less(x, S::splat(LOWEST), S::splat(0.0), S::mul(p, S::exp2_whole(n)))
    }
}

/// The whole number `n` next to x / ln(2), and e^(x - n ln(2)).
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn reduced<S: Simd>(x: S::F) -> (S::F, S::F) {
    // SAFETY: passed on; no memory is touched.
    unsafe {
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // ln(2) in two parts: the first has few bits, so that its product with n is exact.
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::fma(p, r, S::splat(coefficient));
        }
        (n, S::fma(S::mul(r, r), p, S::add(r, S::splat(1.0))))
    }
}

/// e^x with a relative error below 3e-7 (tested over the whole range); zero below -86.9, infinite above ln(f32::MAX),
/// NaN for NaN. Range reduction to |r| <= ln(2)/2 and a polynomial of degree 7, coefficients of the Cephes library's
/// `expf` (S. L. Moshier).
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: passed on; no memory is touched.
    unsafe {
        let bounded = S::max(S::splat(LOWEST), S::min(S::splat(HIGHEST), x));
        let (n, p) = reduced::<S>(bounded);
        // 2^n in two steps, because n = 128 has no f32.
        let scaled = S::mul(S::mul(p, S::exp2_whole(S::sub(n, S::splat(1.0)))), S::splat(2.0));
        let low = S::if_less(x, S::splat(LOWEST), S::splat(0.0), scaled);
        S::if_less(S::splat(HIGHEST), x, S::splat(f32::INFINITY), low)
    }
}
