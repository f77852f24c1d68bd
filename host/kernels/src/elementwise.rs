//! Element by element operations, softmax, and argmax.
//!
//! Short slices are done on the calling thread; longer ones are split among the pool's workers.

use crate::error::{KernelError, check_length, checked_mul};
use crate::exp::exp;
use crate::linear::SharedPointer;
use crate::simd::{Kernel, LANES, Simd, launch};
use crate::thread_pool::ThreadPool;

/// Values a worker should have at least, so that waking it pays.
pub(crate) const GRAIN: usize = 16 * 1024;

/// One lane-wise operation on up to two inputs and the output's old value.
trait Operation: Copy + Sync {
    /// Conditions: see [`Simd`].
    unsafe fn apply<S: Simd>(self, a: S::F, b: S::F, old: S::F) -> S::F;
}

/// Conditions: `a`, `b` and `out` hold `len` values; `out` may be the same as `a` or `b`.
struct Elements<O> {
    operation: O,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
    len: usize,
}

impl<O: Operation> Kernel for Elements<O> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.len / LANES * LANES;
        let rest = self.len - whole;
        // SAFETY: i + LANES <= len in the loop, and the rest touches only the last `rest` values.
        unsafe {
            let mut i = 0;
            while i < whole {
                let out = self.out.add(i);
                let value =
                    self.operation.apply::<S>(S::load(self.a.add(i)), S::load(self.b.add(i)), S::load(out));
                S::store(out, value);
                i += LANES;
            }
            if rest > 0 {
                let out = self.out.add(i);
                let a = S::load_first(self.a.add(i), rest);
                let b = S::load_first(self.b.add(i), rest);
                let value = self.operation.apply::<S>(a, b, S::load_first(out, rest));
                S::store_first(out, value, rest);
            }
        }
    }
}

fn elements<O: Operation>(
    pool: &ThreadPool,
    operation: O,
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    check_length("elementwise output", a.len(), out.len())?;
    check_length("elementwise second input", a.len(), b.len())?;
    let level = pool.level();
    let len = out.len();
    let out = SharedPointer(out.as_mut_ptr());
    pool.run_ranges(len, GRAIN, &|range| {
        let (a, b) = (a[range.clone()].as_ptr(), b[range.clone()].as_ptr());
        // SAFETY: all slices have the same length, ranges are disjoint, and the level is one the processor has.
        unsafe {
            let out = out.get().add(range.start);
            launch(level, Elements { operation, a, b, out, len: range.len() });
        }
    });
    Ok(())
}

/// Defines operations: the lane-wise formula, in terms of `$a`, `$b` and the output's old value.
macro_rules! operation {
    ($name:ident { $($field:ident: $type:ty),* }, |$this:ident, $a:ident, $b:ident, $old:ident| $body:expr) => {
        #[derive(Clone, Copy)]
        struct $name { $($field: $type),* }

        impl Operation for $name {
            #[inline(always)]
            unsafe fn apply<S: Simd>(self, $a: S::F, $b: S::F, $old: S::F) -> S::F {
                let _ = ($b, $old);
                let $this = self;
                let _ = $this;
                // SAFETY: passed on; no memory is touched.
                unsafe { $body }
            }
        }
    };
}

operation!(Silu {}, |op, a, b, old| S::div(a, S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), a)))));
operation!(SiluMul {}, |op, a, b, old| S::mul(
    S::div(a, S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), a)))),
    b
));
operation!(Gelu {}, |op, a, b, old| gelu_tanh::<S>(a));
operation!(GeluErf {}, |op, a, b, old| gelu_erf_lanes::<S>(a));
operation!(Add {}, |op, a, b, old| S::add(a, b));
operation!(Mul {}, |op, a, b, old| S::mul(a, b));
operation!(Scale { factor: f32 }, |op, a, b, old| S::mul(a, S::splat(op.factor)));
operation!(Axpy { factor: f32 }, |op, a, b, old| S::fma(S::splat(op.factor), a, old));
operation!(AddTo {}, |op, a, b, old| S::add(old, a));

/// `x * (1 + tanh(u)) / 2` with `u = sqrt(2 / pi) * (x + 0.044715 x^3)`, which equals `x / (1 + exp(-2 u))`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn gelu_tanh<S: Simd>(x: S::F) -> S::F {
    // SAFETY: passed on; no memory is touched.
    unsafe {
        let cubic = S::mul(S::mul(x, x), S::splat(0.044_715));
        let inner = S::mul(x, S::add(S::splat(1.0), cubic));
        let minus_twice = S::mul(inner, S::splat(-2.0 * 0.797_884_6));
        S::div(x, S::add(S::splat(1.0), exp::<S>(minus_twice)))
    }
}

/// `x * (1 + erf(x / sqrt(2))) / 2`, erf by formula 7.1.26 of Abramowitz and Stegun (absolute error 1.5e-7).
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn gelu_erf_lanes<S: Simd>(x: S::F) -> S::F {
    // SAFETY: passed on; no memory is touched.
    unsafe {
        let z = S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let magnitude = S::max(S::sub(S::splat(0.0), z), z);
        let t = S::div(S::splat(1.0), S::fma(S::splat(0.327_591_1), magnitude, S::splat(1.0)));
        let mut p = S::splat(1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = S::fma(p, t, S::splat(coefficient));
        }
        let tail = S::mul(S::mul(p, t), exp::<S>(S::sub(S::splat(0.0), S::mul(z, z))));
        let erf = S::sub(S::splat(1.0), tail);
        let signed = S::if_less(z, S::splat(0.0), S::sub(S::splat(0.0), erf), erf);
        S::mul(S::mul(x, S::splat(0.5)), S::add(S::splat(1.0), signed))
    }
}

/// `out = x / (1 + e^-x)`.
///
/// # Errors
/// When the lengths differ (so all functions of this file).
pub fn silu(pool: &ThreadPool, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, Silu {}, x, x, out)
}

/// `out = silu(gate) * up`.
pub fn silu_mul(pool: &ThreadPool, gate: &[f32], up: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, SiluMul {}, gate, up, out)
}

/// The tanh form of GELU, as ggml's `gelu`: `out = x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2`.
pub fn gelu(pool: &ThreadPool, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, Gelu {}, x, x, out)
}

/// The exact form of GELU: `out = x * (1 + erf(x / sqrt(2))) / 2`, erf to an absolute error of 2e-7.
pub fn gelu_erf(pool: &ThreadPool, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, GeluErf {}, x, x, out)
}

/// `out = a + b`.
pub fn add(pool: &ThreadPool, a: &[f32], b: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, Add {}, a, b, out)
}

/// `out += x`.
pub fn add_to(pool: &ThreadPool, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, AddTo {}, x, x, out)
}

/// `out = a * b`.
pub fn mul(pool: &ThreadPool, a: &[f32], b: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, Mul {}, a, b, out)
}

/// `out = factor * x`.
pub fn scale(pool: &ThreadPool, factor: f32, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, Scale { factor }, x, x, out)
}

/// `out += factor * x`.
pub fn axpy(pool: &ThreadPool, factor: f32, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    elements(pool, Axpy { factor }, x, x, out)
}

/// Conditions: `x` holds `len` values.
struct SoftmaxRow {
    x: *mut f32,
    len: usize,
}

impl Kernel for SoftmaxRow {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, len } = self;
        let (whole, rest) = (len / LANES * LANES, len % LANES);
        // SAFETY: i + LANES <= len in the loops, and the rest touches only the last `rest` values.
        unsafe {
            let mut top = f32::NEG_INFINITY;
            let mut lanes = S::splat(top);
            let mut i = 0;
            while i < whole {
                lanes = S::max(lanes, S::load(x.add(i)));
                i += LANES;
            }
            top = top.max(S::max_lane(lanes));
            for i in whole..len {
                top = top.max(x.add(i).read());
            }
            let top = S::splat(top);
            let mut lanes = S::splat(0.0);
            let mut i = 0;
            while i < whole {
                let value = exp::<S>(S::sub(S::load(x.add(i)), top));
                S::store(x.add(i), value);
                lanes = S::add(lanes, value);
                i += LANES;
            }
            let mut sum = S::sum(lanes);
            if rest > 0 {
                let value = exp::<S>(S::sub(S::load_first(x.add(whole), rest), top));
                S::store_first(x.add(whole), value, rest);
                for i in whole..len {
                    sum += x.add(i).read();
                }
            }
            let inverse = 1.0 / sum;
            launch_scale::<S>(x, len, inverse);
        }
    }
}

/// Conditions: as [`SoftmaxRow`].
#[inline(always)]
unsafe fn launch_scale<S: Simd>(x: *mut f32, len: usize, factor: f32) {
    // SAFETY: passed on.
    unsafe { Elements { operation: Scale { factor }, a: x, b: x, out: x, len }.run::<S>() }
}

/// Softmax over each row of `x` (`[rows, cols]`), in place, with the row's maximum taken off first.
pub fn softmax_rows(pool: &ThreadPool, x: &mut [f32], rows: usize, cols: usize) -> Result<(), KernelError> {
    check_length("softmax input", checked_mul(rows, cols)?, x.len())?;
    let level = pool.level();
    let x = SharedPointer(x.as_mut_ptr());
    pool.run_ranges(rows, GRAIN.div_ceil(cols.max(1)), &|range| {
        for row in range {
            // SAFETY: rows are disjoint and inside of x; the level is one the processor has.
            unsafe { launch(level, SoftmaxRow { x: x.get().add(row * cols), len: cols }) };
        }
    });
    Ok(())
}

/// The index of the largest value, the first of equals; NaN is never the largest. `None` for an empty slice.
pub fn argmax(x: &[f32]) -> Option<usize> {
    let mut best = (!x.is_empty()).then_some(0)?;
    // Chunk maxima first: comparing whole chunks is vectorised, and an index is sought only in the winning one.
    let mut top = f32::NEG_INFINITY;
    for (chunk_index, chunk) in x.chunks(256).enumerate() {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (whole, rest) = chunk.as_chunks::<LANES>();
        for values in whole {
            for (lane, value) in lanes.iter_mut().zip(values) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m });
        if largest > top
            && let Some(at) = chunk.iter().position(|v| *v == largest)
        {
            top = largest;
            best = chunk_index * 256 + at;
        }
    }
    Some(best)
}
