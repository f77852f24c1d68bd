//! One group's best scale for given levels.
//!
//! All is done on a group divided by its largest value and on levels divided by the largest level, so that no square
//! leaves the range of f32 whatever the tensor's size.

use half::f16;

use crate::{GROUP, Levels};

/// Where the largest level lies in the starts of the search, in root mean squares of the group: below and above 0.80,
/// 1.51 and 2.15, which are best for normally distributed values with 1, 2 and 3 bits.
const STARTS: [f32; 6] = [0.8, 1.2, 1.6, 2.1, 2.7, 3.5];

/// Rounds of codes and scale from a start. After two a group rarely changes.
const ROUNDS: usize = 2;

/// Lanes of a sum, so that the loop is vector code.
const LANES: usize = 16;

/// Levels in the form the search needs, `N` of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid<const N: usize> {
    /// Relative to the largest.
    levels: [f32; N],
    /// Between neighbours; the last place is unused.
    bounds: [f32; N],
    /// The size of the largest.
    largest: f32,
}

/// What a group is coded as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coded {
    pub(crate) scale: f16,
    pub(crate) codes: [u8; GROUP],
}

impl Coded {
    /// A group that adds nothing. With code 0 it adds minus zero, which leaves even the sign of a zero.
    const NOTHING: Self = Self { scale: f16::ZERO, codes: [0; GROUP] };
}

impl<const N: usize> Grid<N> {
    pub(crate) fn new(levels: &Levels) -> Self {
        let largest = levels.largest();
        let mut grid = Self { levels: [0.0; N], bounds: [0.0; N], largest };
        for (place, level) in grid.levels.iter_mut().zip(levels.as_slice()) {
            *place = level / largest;
        }
        for place in 0..N - 1 {
            grid.bounds[place] = (grid.levels[place] + grid.levels[place + 1]) / 2.0;
        }
        grid
    }

    /// Codes a group of finite values.
    pub(crate) fn code(&self, group: &[f32; GROUP]) -> Coded {
        let size = group.iter().fold(0.0f32, |size, value| size.max(value.abs()));
        if size == 0.0 {
            return Coded::NOTHING;
        }
        let unit = group.map(|value| value / size);
        let rms = (unit.iter().map(|value| value * value).sum::<f32>() / GROUP as f32).sqrt();
        let mut best = (0.0, 0.0);
        for start in STARTS {
            let mut scale = start * rms;
            for _ in 0..ROUNDS {
                let (product, square) = self.correlate(&unit, scale);
                // The least squares scale of these codes is product / square and lessens the error by this much.
                let gain = product * product / square;
                scale = product / square;
                // Not so either where the quotient is no number.
                if !(scale > 0.0 && gain > best.1) {
                    break;
                }
                best = (scale, gain);
            }
        }
        let per_unit = f64::from(size) / f64::from(self.largest);
        let scale = f16::from_f64((f64::from(best.0) * per_unit).min(f64::from(f16::MAX)));
        if scale <= f16::ZERO {
            return Coded::NOTHING;
        }
        let rounded = (scale.to_f64() / per_unit) as f32;
        Coded { scale, codes: self.codes(&unit, rounded) }
    }

    /// With each value's nearest level at that scale: the sums of value times level and of level squared.
    fn correlate(&self, unit: &[f32; GROUP], scale: f32) -> (f32, f32) {
        let bounds = self.bounds.map(|bound| bound * scale);
        let (mut products, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
        for part in unit.chunks_exact(LANES) {
            for lane in 0..LANES {
                let value = part[lane];
                let mut level = self.levels[0];
                for place in 1..N {
                    level = if value > bounds[place - 1] { self.levels[place] } else { level };
                }
                products[lane] += value * level;
                squares[lane] += level * level;
            }
        }
        (products.iter().sum(), squares.iter().sum())
    }

    fn codes(&self, unit: &[f32; GROUP], scale: f32) -> [u8; GROUP] {
        let bounds = self.bounds.map(|bound| bound * scale);
        unit.map(|value| bounds[..N - 1].iter().map(|bound| u8::from(value > *bound)).sum())
    }
}
