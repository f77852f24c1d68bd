//! RoPE scaling as one factor for each frequency.
//!
//! A scaled base differs from a plain one only in its inverse frequencies `theta^(-2i/d)`, so every kind of
//! scaling that does not depend on the sequence's length is a list of `d/2` factors.

use std::f64::consts::TAU;

/// Llama-3 scaling as in its config's `rope_scaling`: low frequencies are slowed by `factor`, high ones are
/// kept, and those between are blended (Llama 3.1 reference code, `apply_scaling`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    /// The context that the unscaled base was trained for, in tokens.
    pub original_max_position: f64,
}

impl Llama3Scaling {
    /// `[head_dim / 2]` factors for the inverse frequencies `theta^(-2i / head_dim)`.
    pub(crate) fn factors(&self, theta: f64, head_dim: usize) -> Vec<f32> {
        let long = self.original_max_position / self.low_freq_factor;
        let short = self.original_max_position / self.high_freq_factor;
        (0..head_dim / 2)
            .map(|i| {
                let inverse_frequency = theta.powf(-2.0 * i as f64 / head_dim as f64);
                let wavelength = TAU / inverse_frequency;
                let scale = if wavelength < short {
                    1.0
                } else if wavelength > long {
                    1.0 / self.factor
                } else {
                    let smooth = (self.original_max_position / wavelength - self.low_freq_factor)
                        / (self.high_freq_factor - self.low_freq_factor);
                    (1.0 - smooth) / self.factor + smooth
                };
                scale as f32
            })
            .collect()
    }
}

/// Linear scaling: every position is divided by `factor`.
pub(crate) fn linear_factors(factor: f64, head_dim: usize) -> Vec<f32> {
    vec![(1.0 / factor) as f32; head_dim / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_frequencies_and_slows_low_ones() {
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192.0,
        };
        let factors = scaling.factors(500_000.0, 128);
        assert_eq!(factors.len(), 64);
        assert_eq!(factors[0], 1.0);
        assert_eq!(factors[63], 0.125);
        assert!(factors.windows(2).all(|pair| pair[1] <= pair[0]), "{factors:?}");
        assert!(factors.iter().any(|factor| *factor > 0.125 && *factor < 1.0));
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        assert_eq!(linear_factors(4.0, 6), [0.25; 3]);
    }
}
