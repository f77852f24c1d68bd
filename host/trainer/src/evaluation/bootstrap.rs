//! Confidence intervals by the bootstrap over documents (Efron 1979): percentiles of the statistic over corpora that
//! are drawn, document by document and with replacement, from the one at hand.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;

use super::DocumentScore;

/// A figure with the interval that holds 95 % of the resamples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Estimate {
    /// Over the documents themselves.
    pub value: f64,
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

impl Estimate {
    /// A value with the interval of its resamples.
    pub fn new(value: f64, mut resampled: Vec<f64>) -> Self {
        resampled.sort_by(f64::total_cmp);
        let low = percentile(&resampled, 0.025).unwrap_or(value);
        let high = percentile(&resampled, 0.975).unwrap_or(value);
        Self { value, low, high }
    }
}

/// Losses of every column over the same resampled corpora, so that differences between columns are paired.
#[derive(Debug, Clone, Default)]
pub struct Resamples {
    /// Nats a token: a list a column, one value a resample.
    pub nats_per_token: Vec<Vec<f64>>,
    /// Bits a byte, in the same order.
    pub bits_per_byte: Vec<Vec<f64>>,
}

impl Resamples {
    /// `count` resamples of the documents, which follow from `seed` alone.
    pub fn draw(documents: &[&DocumentScore], columns: usize, count: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut resamples = Self {
            nats_per_token: vec![Vec::with_capacity(count); columns],
            bits_per_byte: vec![Vec::with_capacity(count); columns],
        };
        if documents.is_empty() {
            return resamples;
        }
        let mut nats = vec![0.0; columns];
        for _ in 0..count {
            let (mut tokens, mut bytes) = (0, 0.0);
            nats.fill(0.0);
            for _ in 0..documents.len() {
                // The upper half of a product is uniform to one part in 2^64 over the number of documents.
                let drawn = (u128::from(random.next_u64()) * documents.len() as u128) >> 64;
                let document = documents[drawn as usize];
                tokens += document.tokens;
                bytes += document.bytes;
                nats.iter_mut().zip(&document.nats).for_each(|(sum, nats)| *sum += nats);
            }
            for (column, nats) in nats.iter().enumerate() {
                resamples.nats_per_token[column].push(per(*nats, tokens as f64));
                resamples.bits_per_byte[column].push(per(nats / std::f64::consts::LN_2, bytes));
            }
        }
        resamples
    }
}

/// A ratio that is 0 where there is nothing to share by.
pub(super) fn per(sum: f64, of: f64) -> f64 {
    if of > 0.0 { sum / of } else { 0.0 }
}

/// The value below which that share of the ascending values lies, between neighbours on a straight line.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(tokens: u64, nats: &[f64]) -> DocumentScore {
        DocumentScore {
            id: String::new(),
            source: String::new(),
            tokens,
            bytes: 2.0 * tokens as f64,
            nats: nats.to_vec(),
        }
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.025), Some(2.5));
        assert_eq!(percentile(&values, 0.975), Some(97.5));
        assert_eq!(percentile(&[3.0], 0.975), Some(3.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    /// The mean of n equal draws of 0 and 1 has the deviation 0.5 / sqrt(n), and its 95 % interval is the normal one.
    #[test]
    fn the_interval_of_a_known_mean_is_as_wide_as_theory_says() {
        let documents: Vec<_> =
            (0..400).map(|index| document(1, &[f64::from(u8::from(index % 2 == 0))])).collect();
        let documents: Vec<_> = documents.iter().collect();
        let resamples = Resamples::draw(&documents, 1, 4000, 7);
        let estimate = Estimate::new(0.5, resamples.nats_per_token[0].clone());
        let half = 1.959_964 * 0.5 / 400.0_f64.sqrt();
        assert!((estimate.low - (0.5 - half)).abs() < 0.004, "{estimate:?}, expected 0.5 +- {half}");
        assert!((estimate.high - (0.5 + half)).abs() < 0.004, "{estimate:?}, expected 0.5 +- {half}");
    }

    #[test]
    fn gains_are_paired_so_a_constant_gain_has_no_width() {
        let documents: Vec<_> = (1..50)
            .map(|index| {
                document(
                    index,
                    &[3.0 * index as f64 + index as f64 % 7.0, 2.0 * index as f64 + index as f64 % 7.0],
                )
            })
            .collect();
        let documents: Vec<_> = documents.iter().collect();
        let resamples = Resamples::draw(&documents, 2, 200, 1);
        let losses = &resamples.nats_per_token;
        let gains = losses[0].iter().zip(&losses[1]).map(|(base, other)| base - other).collect();
        let gain = Estimate::new(1.0, gains);
        assert!((gain.low - 1.0).abs() < 1e-12 && (gain.high - 1.0).abs() < 1e-12, "{gain:?}");
        let spread = Estimate::new(3.0, losses[0].clone());
        assert!(spread.high - spread.low > 0.01, "the losses themselves do differ: {spread:?}");
    }

    #[test]
    fn resamples_follow_from_the_seed_alone() {
        let documents: Vec<_> = (1..9).map(|index| document(index, &[index as f64 * 1.5])).collect();
        let documents: Vec<_> = documents.iter().collect();
        let draw = |seed| Resamples::draw(&documents, 1, 50, seed).bits_per_byte;
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
