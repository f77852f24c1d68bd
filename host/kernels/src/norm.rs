//! RMS norm and layer norm over rows.

use crate::elementwise::GRAIN;
use crate::error::{KernelError, check_length, checked_mul};
use crate::linear::SharedPointer;
use crate::simd::{Kernel, LANES, Simd, launch};
use crate::thread_pool::ThreadPool;

/// One row: `out = (x - mean) / sqrt(variance + eps) * weight + bias`, with a mean of zero for RMS norm.
///
/// Conditions: `x`, `weight`, `out` and, unless null, `bias` hold `len` values.
struct NormRow {
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    out: *mut f32,
    len: usize,
    eps: f32,
    centred: bool,
}

impl Kernel for NormRow {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, weight, bias, out, len, eps, centred } = self;
        let (whole, rest) = (len / LANES * LANES, len % LANES);
        // SAFETY: every access is at i with i + LANES <= len, or at the last `rest` values.
        unsafe {
            let mean = if centred { sum::<S>(x, len) / len as f32 } else { 0.0 };
            let mut squares = S::splat(0.0);
            let mut i = 0;
            while i < whole {
                let v = S::sub(S::load(x.add(i)), S::splat(mean));
                squares = S::fma(v, v, squares);
                i += LANES;
            }
            let mut total = S::sum(squares);
            for i in whole..len {
                let v = x.add(i).read() - mean;
                total += v * v;
            }
            let mean = S::splat(mean);
            let factor = S::splat(1.0 / (total / len as f32 + eps).sqrt());
            let mut i = 0;
            while i < whole {
                let v = S::mul(S::mul(S::sub(S::load(x.add(i)), mean), factor), S::load(weight.add(i)));
                let v = if bias.is_null() { v } else { S::add(v, S::load(bias.add(i))) };
                S::store(out.add(i), v);
                i += LANES;
            }
            if rest > 0 {
                let v = S::sub(S::load_first(x.add(i), rest), mean);
                let v = S::mul(S::mul(v, factor), S::load_first(weight.add(i), rest));
                let v = if bias.is_null() { v } else { S::add(v, S::load_first(bias.add(i), rest)) };
                S::store_first(out.add(i), v, rest);
            }
        }
    }
}

/// # Safety
/// As for [`Simd`]; `x` holds `len` values.
#[inline(always)]
unsafe fn sum<S: Simd>(x: *const f32, len: usize) -> f32 {
    let whole = len / LANES * LANES;
    // SAFETY: i + LANES <= len, then i < len.
    unsafe {
        let mut lanes = S::splat(0.0);
        let mut i = 0;
        while i < whole {
            lanes = S::add(lanes, S::load(x.add(i)));
            i += LANES;
        }
        let mut sum = S::sum(lanes);
        for i in whole..len {
            sum += x.add(i).read();
        }
        sum
    }
}

/// `out = x / sqrt(mean(x^2) + eps) * weight` for each of the `m` rows of `x` (`[m, weight.len()]`).
///
/// # Errors
/// When a length does not fit.
pub fn rms_norm(
    pool: &ThreadPool,
    x: &[f32],
    m: usize,
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    norm(pool, x, m, weight, None, eps, out, false)
}

/// `out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias` for each of the `m` rows of `x`
/// (`[m, weight.len()]`); the variance is that of the row itself (divided by its length).
///
/// # Errors
/// When a length does not fit.
pub fn layer_norm(
    pool: &ThreadPool,
    x: &[f32],
    m: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    norm(pool, x, m, weight, bias, eps, out, true)
}

#[allow(clippy::too_many_arguments)]
fn norm(
    pool: &ThreadPool,
    x: &[f32],
    m: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
    centred: bool,
) -> Result<(), KernelError> {
    let len = weight.len();
    let values = checked_mul(m, len)?;
    check_length("norm input", values, x.len())?;
    check_length("norm output", values, out.len())?;
    if let Some(bias) = bias {
        check_length("norm bias", len, bias.len())?;
    }
    let level = pool.level();
    let out = SharedPointer(out.as_mut_ptr());
    pool.run_ranges(m, GRAIN.div_ceil(len.max(1)), &|range| {
        for row in range {
            let x = x[row * len..][..len].as_ptr();
            let bias = bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
            // SAFETY: all lengths were checked above, rows are disjoint, and the level is one the processor has.
            unsafe {
                let out = out.get().add(row * len);
                launch(level, NormRow { x, weight: weight.as_ptr(), bias, out, len, eps, centred });
            }
        }
    });
    Ok(())
}
