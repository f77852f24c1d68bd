//! How features lie around their mean: a covariance in a form that is small enough to ship.

use crate::matrices::{cholesky, dot, orthonormalize};

/// Rounds of subspace iteration; each one squares how far the kept directions stand out.
const ROUNDS: usize = 12;

/// A covariance `[width, width]` as `F^T F + diag(d)`: its strongest directions, and what is left of each feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Scatter {
    width: usize,
    /// `[rank, width]`.
    factors: Vec<f32>,
    /// `[width]`, none below zero.
    diagonal: Vec<f32>,
}

impl Scatter {
    /// A scatter from its parts: `factors` is `[rank, width]`, `diagonal` is `[width]`. `None` where their lengths
    /// don't fit, or a value is not finite, or of the diagonal below zero.
    pub fn new(factors: Vec<f32>, diagonal: Vec<f32>) -> Option<Self> {
        let width = diagonal.len();
        let sound = width > 0
            && factors.len().is_multiple_of(width)
            && factors.iter().all(|value| value.is_finite())
            && diagonal.iter().all(|value| value.is_finite() && *value >= 0.0);
        sound.then_some(Self { width, factors, diagonal })
    }

    /// The form of rank `rank` of a covariance, `[width, width]`, symmetric. The directions are found by randomized
    /// subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) from a fixed start. `None` for another
    /// number of values, or values that are not finite.
    pub fn fit(covariance: &[f64], width: usize, rank: usize) -> Option<Self> {
        if width == 0
            || covariance.len() != width * width
            || !covariance.iter().all(|value| value.is_finite())
        {
            return None;
        }
        let rank = rank.min(width);
        let mut basis = start(rank, width);
        orthonormalize(&mut basis, width);
        for _ in 0..ROUNDS {
            basis = times(&basis, covariance, width);
            orthonormalize(&mut basis, width);
        }
        // Rows that fell out of the span of the covariance say nothing.
        let mut basis: Vec<f64> =
            basis.chunks_exact(width).filter(|row| dot(row, row) > 0.5).flatten().copied().collect();
        let factors = loop {
            let rank = basis.len() / width;
            let image = times(&basis, covariance, width);
            let small: Vec<f64> = (0..rank * rank)
                .map(|at| dot(&basis[at / rank * width..][..width], &image[at % rank * width..][..width]))
                .collect();
            match cholesky(&small, rank) {
                // (L^T B)^T (L^T B) = B^T (L L^T) B, the covariance within the span.
                Some(lower) => {
                    let factor = |row: usize, column: usize| -> f64 {
                        (row..rank).map(|k| lower[k * rank + row] * basis[k * width + column]).sum()
                    };
                    break (0..rank * width).map(|at| factor(at / width, at % width)).collect::<Vec<f64>>();
                }
                // The weakest direction is no more than noise.
                None => basis.truncate((rank - 1) * width),
            }
        };
        let kept = |column: usize| -> f64 {
            factors.chunks_exact(width).map(|factor| factor[column] * factor[column]).sum()
        };
        let diagonal =
            (0..width).map(|at| (covariance[at * width + at] - kept(at)).max(0.0) as f32).collect();
        Self::new(factors.into_iter().map(|value| value as f32).collect(), diagonal)
    }

    /// Features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Directions that are kept.
    pub fn rank(&self) -> usize {
        self.factors.len() / self.width
    }

    /// `[rank, width]`.
    pub fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// `[width]`.
    pub fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    /// Adds the covariance, times `weight`, to `sum`, which is `[width, width]`.
    pub(crate) fn add_to(&self, sum: &mut [f64], weight: f64) {
        for factor in self.factors.chunks_exact(self.width) {
            for (row, &value) in factor.iter().enumerate() {
                let value = f64::from(value) * weight;
                let sum = &mut sum[row * self.width..(row + 1) * self.width];
                sum.iter_mut().zip(factor).for_each(|(sum, factor)| *sum += value * f64::from(*factor));
            }
        }
        for (at, value) in self.diagonal.iter().enumerate() {
            sum[at * self.width + at] += weight * f64::from(*value);
        }
    }
}

/// `rows matrix` for rows `[count, width]` and a symmetric matrix.
fn times(rows: &[f64], matrix: &[f64], width: usize) -> Vec<f64> {
    let mut product = vec![0.0; rows.len()];
    for (row, out) in rows.chunks_exact(width).zip(product.chunks_exact_mut(width)) {
        for (value, line) in row.iter().zip(matrix.chunks_exact(width)) {
            out.iter_mut().zip(line).for_each(|(out, entry)| *out += value * entry);
        }
    }
    product
}

/// Fixed values without a pattern, between -1 and 1 (a linear congruential generator, Knuth's constants).
fn start(rank: usize, width: usize) -> Vec<f64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..rank * width)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two strong directions and a little in every feature.
    fn covariance() -> Vec<f64> {
        let directions = [[3.0, 1.0, 0.0, -2.0], [0.5, 0.0, 2.0, 1.0]];
        (0..16)
            .map(|at| {
                let (row, column) = (at / 4, at % 4);
                let noise = if row == column { 0.1 } else { 0.0 };
                directions.iter().map(|d| d[row] * d[column]).sum::<f64>() + noise
            })
            .collect()
    }

    fn dense(scatter: &Scatter) -> Vec<f64> {
        let mut sum = vec![0.0; 16];
        scatter.add_to(&mut sum, 1.0);
        sum
    }

    #[test]
    fn the_strong_directions_and_every_variance_survive() {
        let scatter = Scatter::fit(&covariance(), 4, 2).unwrap();
        assert_eq!((scatter.rank(), scatter.width()), (2, 4));
        for (found, expected) in dense(&scatter).iter().zip(covariance()) {
            assert!((found - expected).abs() < 0.1, "{found} {expected}");
        }
        for at in 0..4 {
            assert!((dense(&scatter)[at * 5] - covariance()[at * 5]).abs() < 1e-6);
        }
    }

    #[test]
    fn at_full_rank_it_is_the_covariance() {
        let scatter = Scatter::fit(&covariance(), 4, 4).unwrap();
        for (found, expected) in dense(&scatter).iter().zip(covariance()) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_covariance_of_lower_rank_or_of_nothing_is_kept_as_it_is() {
        let one: Vec<f64> =
            (0..16).map(|at| [1.0, 2.0, 0.0, 1.0][at / 4] * [1.0, 2.0, 0.0, 1.0][at % 4]).collect();
        let scatter = Scatter::fit(&one, 4, 3).unwrap();
        for (found, expected) in dense(&scatter).iter().zip(&one) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        assert_eq!(dense(&Scatter::fit(&[0.0; 16], 4, 3).unwrap()), [0.0; 16]);
        assert!(Scatter::fit(&[f64::NAN; 16], 4, 3).is_none());
        assert!(Scatter::fit(&[0.0; 15], 4, 3).is_none());
    }
}
