//! A learned detector: whether a prompt is one that a pack wants.
//!
//! Each pack ships its own, so a pack that joins or leaves changes nothing for any other: the logit of one detector
//! depends on the prompt alone.

use crate::KeyError;
use crate::routing_key::LARGEST_VALUE;

/// Units that a detector may have.
pub(crate) const MAX_UNITS: usize = 256;

/// A perceptron with one hidden layer: `w2 relu(W1 x + b1) + b2`, the log-odds that a prompt belongs to the pack.
///
/// `x` is the prompt's intent feature, `[2 * hidden]`: the mean of `h_s` and the mean of the token embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// `W1`, `[units, inputs]`, row by row.
    pub hidden: Vec<f32>,
    /// `b1`, `[units]`.
    pub hidden_bias: Vec<f32>,
    /// `w2`, `[units]`.
    pub output: Vec<f32>,
    /// `b2`.
    pub output_bias: f32,
}

impl Detector {
    /// Width of the features that it takes.
    pub fn inputs(&self) -> usize {
        self.hidden.len() / self.hidden_bias.len().max(1)
    }

    /// Width of its hidden layer.
    pub fn units(&self) -> usize {
        self.hidden_bias.len()
    }

    /// The log-odds for a feature `[inputs]`; `None` for a feature of another width.
    pub fn logit(&self, feature: &[f32]) -> Option<f64> {
        if feature.len() != self.inputs() {
            return None;
        }
        let units = self.hidden.chunks_exact(self.inputs()).zip(&self.hidden_bias).zip(&self.output);
        let sum: f64 = units
            .map(|((row, bias), weight)| {
                let dot: f32 = row.iter().zip(feature).map(|(a, b)| a * b).sum();
                f64::from((dot + bias).max(0.0) * weight)
            })
            .sum();
        Some(sum + f64::from(self.output_bias))
    }

    /// Checks shapes and values.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, width: usize) -> Result<(), KeyError> {
        let units = self.units();
        if units == 0
            || units > MAX_UNITS
            || self.output.len() != units
            || self.hidden.len() != units * 2 * width
        {
            return Err(KeyError::Tensor {
                name: "detector.hidden",
                expected: format!("[1 to {MAX_UNITS}, {}]", 2 * width).into(),
                found: format!("{} values for {units} units", self.hidden.len()).into(),
            });
        }
        let parts = [
            ("detector.hidden", self.hidden.as_slice()),
            ("detector.hidden_bias", self.hidden_bias.as_slice()),
            ("detector.output", self.output.as_slice()),
            ("detector.output_bias", std::slice::from_ref(&self.output_bias)),
        ];
        for (name, values) in parts {
            if let Some(index) = values.iter().position(|value| value.is_nan() || value.abs() > LARGEST_VALUE)
            {
                return Err(KeyError::Value { name, index, value: values[index].to_string().into() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector() -> Detector {
        Detector {
            hidden: vec![1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0],
            hidden_bias: vec![0.0, 0.5],
            output: vec![2.0, -3.0],
            output_bias: -1.0,
        }
    }

    #[test]
    fn the_logit_is_that_of_the_perceptron() {
        assert_eq!(detector().logit(&[2.0, 0.25, 9.0, 9.0]), Some(2.0 * 2.0 - 3.0 * 0.25 - 1.0));
        assert_eq!(detector().logit(&[-2.0, 5.0, 0.0, 0.0]), Some(-1.0), "both units are off");
        assert_eq!(detector().logit(&[1.0]), None);
    }

    #[test]
    fn wrong_shapes_and_values_that_no_training_leads_to_are_refused() {
        assert!(detector().check(2).is_ok());
        assert!(matches!(detector().check(3), Err(KeyError::Tensor { .. })));
        for value in [f32::NAN, f32::INFINITY, 1e9] {
            let broken = Detector { output_bias: value, ..detector() };
            assert!(matches!(broken.check(2), Err(KeyError::Value { .. })), "{value}");
            let mut broken = detector();
            broken.hidden[3] = value;
            assert!(matches!(broken.check(2), Err(KeyError::Value { .. })), "{value}");
        }
    }
}
