//! Rotary position embedding (Su et al. 2021, "RoFormer").

use std::ops::Range;

use crate::elementwise::GRAIN;
use crate::error::{KernelError, check_length, checked_mul};
use crate::linear::SharedPointer;
use crate::simd::{Kernel, LANES, Simd, launch};
use crate::thread_pool::ThreadPool;

/// Which values of a head form the pair that angle `i` turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeLayout {
    /// `i` and `i + head_dim / 2` (GPT-NeoX, Hugging Face).
    HalfSplit,
    /// `2 i` and `2 i + 1` (the paper, GGUF llama files).
    Interleaved,
}

/// Positions from here on are multiplied with their frequency in f64. Below, the product is taken in f32, as the reference
/// models take it, where it is off by 0.0003 rad at most; an f32 product of a position of 100,000 would be off by 0.004.
const EXACT_FROM: u32 = 1 << 13;

/// Cosines and sines of a step's positions, computed once and used by all layers.
#[derive(Debug, Clone, Default)]
pub struct RopeAngles {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeAngles {
    /// No angles yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Angles `positions[t] * inverse_frequencies[i]` (the product in f32, as the reference models take it, in f64 from
    /// position 8,192 on), replacing earlier ones; memory is reused. `inverse_frequencies` has `head_dim / 2` entries.
    pub fn set(&mut self, positions: &[u32], inverse_frequencies: &[f32]) {
        self.clear(positions.len(), inverse_frequencies.len());
        for &position in positions {
            for &frequency in inverse_frequencies {
                let angle = if position < EXACT_FROM {
                    f64::from(position as f32 * frequency)
                } else {
                    f64::from(position) * f64::from(frequency)
                };
                self.push(angle.sin_cos());
            }
        }
    }

    /// Angles of `count` positions, `step` apart, from `first` on; all products exact. To turn back is to turn by the
    /// negative position. Much cheaper than [`RopeAngles::set`].
    pub fn set_range(&mut self, first: i64, step: i64, count: usize, inverse_frequencies: &[f32]) {
        self.clear(count, inverse_frequencies.len());
        let turn = |position: i64| {
            let of = move |&frequency: &f32| (position as f64 * f64::from(frequency)).sin_cos();
            inverse_frequencies.iter().map(of).collect::<Vec<_>>()
        };
        let (mut angles, steps) = (turn(first), turn(step));
        for _ in 0..count {
            for (angle, &(step_sin, step_cos)) in angles.iter_mut().zip(&steps) {
                let (sin, cos) = *angle;
                self.push((sin, cos));
                *angle = (sin * step_cos + cos * step_sin, cos * step_cos - sin * step_sin);
            }
        }
    }

    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    fn clear(&mut self, positions: usize, half: usize) {
        self.half = half;
        for table in [&mut self.cos, &mut self.sin] {
            table.clear();
            // Exactly, so that the memory is what [`RopeAngles::bytes_for`] announces.
            table.reserve_exact(positions * half);
        }
    }

    fn push(&mut self, (sin, cos): (f64, f64)) {
        self.cos.push(cos as f32);
        self.sin.push(sin as f32);
    }

    /// Bytes on the heap for so many positions and inverse frequencies.
    pub fn bytes_for(positions: usize, inverse_frequencies: usize) -> usize {
        2 * size_of::<f32>() * positions * inverse_frequencies
    }

    /// Bytes held on the heap.
    pub fn bytes(&self) -> usize {
        (self.cos.capacity() + self.sin.capacity()) * size_of::<f32>()
    }
}

/// One head in halves. Conditions: `x` holds `2 * half` values, `cos` and `sin` hold `half`.
struct TurnHalves {
    x: *mut f32,
    cos: *const f32,
    sin: *const f32,
    half: usize,
}

impl Kernel for TurnHalves {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, cos, sin, half } = self;
        let mut i = 0;
        while i < half {
            let n = (half - i).min(LANES);
            // SAFETY: i + n <= half.
            unsafe {
                let (low, high) = (x.add(i), x.add(half + i));
                let (a, b) = (S::load_first(low, n), S::load_first(high, n));
                let (c, s) = (S::load_first(cos.add(i), n), S::load_first(sin.add(i), n));
                S::store_first(low, S::sub(S::mul(a, c), S::mul(b, s)), n);
                S::store_first(high, S::add(S::mul(b, c), S::mul(a, s)), n);
            }
            i += LANES;
        }
    }
}

/// Turns the pairs of every head of `x` (`[m, heads * head_dim]`) in place, row `t` by the angles of position `t`.
/// Values of a head beyond twice the number of inverse frequencies stay as they are.
///
/// # Errors
/// When `x` is not `m` rows of whole heads (`m` being the number of positions of `angles`), or the heads are narrower
/// than the angles.
pub fn rope(
    pool: &ThreadPool,
    x: &mut [f32],
    head_dim: usize,
    angles: &RopeAngles,
    layout: RopeLayout,
) -> Result<(), KernelError> {
    rope_rows(pool, x, head_dim, angles, 0..angles.positions(), layout)
}

/// As [`rope`], by the angles of some of the positions: row `t` by that of `rows.start + t`.
///
/// # Errors
/// As [`rope`], and when the angles have no such positions.
pub fn rope_rows(
    pool: &ThreadPool,
    x: &mut [f32],
    head_dim: usize,
    angles: &RopeAngles,
    rows: Range<usize>,
    layout: RopeLayout,
) -> Result<(), KernelError> {
    let half = angles.half;
    if half == 0 || rows.is_empty() {
        return check_length("rope input without positions", 0, x.len());
    }
    if rows.end > angles.positions() {
        let (expected, found) = (rows.end, angles.positions());
        return Err(KernelError::Length { what: "rope positions", expected, found });
    }
    let (first, m) = (rows.start, rows.len());
    if head_dim < 2 * half {
        return Err(KernelError::Length { what: "rope head", expected: 2 * half, found: head_dim });
    }
    let row = x.len() / m / head_dim * head_dim;
    check_length("rope input", checked_mul(m, row)?, x.len())?;
    let level = pool.level();
    let x = SharedPointer(x.as_mut_ptr());
    pool.run_ranges(m, GRAIN.div_ceil(row.max(1)), &|range| {
        for t in range {
            let cos = &angles.cos[(first + t) * half..][..half];
            let sin = &angles.sin[(first + t) * half..][..half];
            for head in (0..row).step_by(head_dim) {
                // SAFETY: rows are disjoint, and a head of head_dim >= 2 * half values starts here; the level is one
                // the processor has.
                unsafe {
                    let x = x.get().add(t * row + head);
                    match layout {
                        RopeLayout::HalfSplit => {
                            launch(level, TurnHalves { x, cos: cos.as_ptr(), sin: sin.as_ptr(), half });
                        }
                        RopeLayout::Interleaved => {
                            let pairs = std::slice::from_raw_parts_mut(x.cast::<[f32; 2]>(), half);
                            for ((pair, c), s) in pairs.iter_mut().zip(cos).zip(sin) {
                                *pair = [pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s];
                            }
                        }
                    }
                }
            }
        }
    });
    Ok(())
}
