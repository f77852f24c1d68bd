//! How long things took.

use serde::Serialize;

/// Samples of one kind, milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

/// What is told of them, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many there were.
    pub samples: usize,
    /// Half took no longer.
    pub p50: f64,
    /// One in a hundred took longer.
    pub p99: f64,
    /// The longest.
    pub longest: f64,
}

impl Samples {
    pub(crate) fn quantiles(mut self) -> Quantiles {
        self.0.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| {
            let index = (self.0.len() as f64 * part).ceil() as usize;
            self.0.get(index.saturating_sub(1)).copied().unwrap_or_default()
        };
        Quantiles { samples: self.0.len(), p50: at(0.5), p99: at(0.99), longest: at(1.0) }
    }
}
