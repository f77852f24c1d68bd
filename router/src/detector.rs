//! A learned detector: whether a prompt is one that a pack wants.
//!
//! Each pack ships its own, so a pack that joins or leaves changes nothing for any other: the logit of one detector
//! depends on the prompt alone.

use std::thread;

use modularbase_kernels::whole_dots;

use crate::intent_feature::{IntentFeature, STEPS};
use crate::{KeyError, RouterWeights};

/// Units that a detector may have.
pub(crate) const MAX_UNITS: usize = 64;

/// No detector is surer than this: a huge logit is worth no more than a sound one.
pub const MAX_LOGIT: f64 = 12.0;

/// Biases and output weights beyond this are of no training.
const LARGEST_WEIGHT: f32 = 100.0;

/// Fewer detectors than this are scored on one thread: starting another takes as long.
const WORTH_A_THREAD: usize = 200;

/// A perceptron with one hidden layer: `w2 relu(W1 x + b1) + b2`, the log-odds that a prompt belongs to the pack, where
/// `x` is the prompt's [`IntentFeature`] `[inputs]`.
///
/// `W1` is held in 8 bits with a scale a unit. Its products with features are sums of whole numbers: a logit is the same
/// to the bit on every machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    hidden: Vec<i8>,
    scales: Vec<f32>,
    hidden_bias: Vec<f32>,
    output: Vec<f32>,
    output_bias: f32,
}

impl Detector {
    /// From weights in full precision: `hidden` `[units, inputs]` row by row, `hidden_bias` and `output` `[units]`.
    pub fn new(hidden: &[f32], hidden_bias: Vec<f32>, output: Vec<f32>, output_bias: f32) -> Self {
        let inputs = (hidden.len() / hidden_bias.len().max(1)).max(1);
        let (mut codes, mut scales) =
            (Vec::with_capacity(hidden.len()), Vec::with_capacity(hidden_bias.len()));
        for row in hidden.chunks(inputs) {
            let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            codes.extend(row.iter().map(|value| (value / scale).round() as i8));
            scales.push(scale);
        }
        Self { hidden: codes, scales, hidden_bias, output, output_bias }
    }

    /// From what a file holds; see [`Detector::check`].
    pub(crate) fn from_parts(
        hidden: Vec<i8>,
        scales: Vec<f32>,
        hidden_bias: Vec<f32>,
        output: Vec<f32>,
        output_bias: f32,
    ) -> Self {
        Self { hidden, scales, hidden_bias, output, output_bias }
    }

    /// Width of the features that it takes.
    pub fn inputs(&self) -> usize {
        self.hidden.len() / self.hidden_bias.len().max(1)
    }

    /// Width of its hidden layer.
    pub fn units(&self) -> usize {
        self.hidden_bias.len()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.hidden.len() + 3 * size_of::<f32>() * self.units() + size_of::<f32>()
    }

    /// The layers in full precision: `W1` `[units, inputs]` row by row, `b1` and `w2` `[units]`, `b2`.
    pub fn layers(&self) -> (Vec<f32>, &[f32], &[f32], f32) {
        let rows = self.hidden.chunks_exact(self.inputs().max(1)).zip(&self.scales);
        let hidden = rows.flat_map(|(row, scale)| row.iter().map(move |code| f32::from(*code) * scale));
        (hidden.collect(), &self.hidden_bias, &self.output, self.output_bias)
    }

    pub(crate) fn codes(&self) -> &[i8] {
        &self.hidden
    }

    /// `scales`, `hidden_bias` and `output`, `[units]` each.
    pub(crate) fn vectors(&self) -> [&[f32]; 3] {
        [&self.scales, &self.hidden_bias, &self.output]
    }

    pub(crate) fn output_bias(&self) -> f32 {
        self.output_bias
    }

    /// The log-odds for a feature `[inputs]`, within [`MAX_LOGIT`]; `None` for a feature of another width.
    pub fn logit(&self, feature: &IntentFeature) -> Option<f64> {
        self.logit_before(&[], feature)
    }

    /// As [`Detector::logit`], where `next` are the codes of the detector that is asked next.
    fn logit_before(&self, next: &[i8], feature: &IntentFeature) -> Option<f64> {
        if feature.width() != self.inputs() {
            return None;
        }
        // 127 * 6 * 256 a product: far from 32 bits for the width of any base that a key has room for.
        let mut dots = [0; MAX_UNITS];
        let dots = dots.get_mut(..self.units())?;
        whole_dots(&self.hidden, feature.steps(), next, dots);
        let units = dots.iter().zip(&self.scales).zip(&self.hidden_bias).zip(&self.output);
        let sum: f64 = units
            .map(|(((dot, scale), bias), weight)| {
                f64::from((*dot as f32 / STEPS * scale + bias).max(0.0) * weight)
            })
            .sum();
        Some((sum + f64::from(self.output_bias)).clamp(-MAX_LOGIT, MAX_LOGIT))
    }

    /// Checks shapes and values: no training leads to more units, to huge or missing numbers, or to a detector that wants
    /// the most usual prompt of all.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, inputs: usize) -> Result<(), KeyError> {
        let units = self.units();
        let is_shaped = self.output.len() == units
            && self.scales.len() == units
            && (1..=MAX_UNITS).contains(&units)
            && self.hidden.len() == units * inputs;
        if !is_shaped {
            return Err(KeyError::Tensor {
                name: "detector.hidden",
                expected: format!("[1 to {MAX_UNITS}, {inputs}]").into(),
                found: format!("{} values for {units} units", self.hidden.len()).into(),
            });
        }
        let parts = [
            ("detector.scales", self.scales.as_slice()),
            ("detector.hidden_bias", self.hidden_bias.as_slice()),
            ("detector.output", self.output.as_slice()),
            ("detector.output_bias", std::slice::from_ref(&self.output_bias)),
        ];
        for (name, values) in parts {
            let wrong = |value: &f32| value.is_nan() || value.abs() > LARGEST_WEIGHT;
            if let Some(index) = values.iter().position(wrong) {
                return Err(KeyError::Value { name, index, value: values[index].to_string().into() });
            }
        }
        match self.logit(&IntentFeature::from_values(vec![0.0; inputs])) {
            Some(logit) if logit < 0.0 => Ok(()),
            logit => Err(KeyError::Greedy(
                format!(
                    "of the most usual prompt it says {:+.2}, which must be below 0",
                    logit.unwrap_or(0.0)
                )
                .into(),
            )),
        }
    }

    /// The share of a router's general prompts that it would take from the general pack.
    pub fn share_of_general(&self, router: &RouterWeights) -> f64 {
        let general = router.general();
        let taken = general.iter().filter(|feature| self.logit(feature).is_some_and(|logit| logit > 0.0));
        taken.count() as f64 / general.len().max(1) as f64
    }
}

/// The logits of many detectors for one feature, in their order; `None` where the widths differ. They are scored on up to
/// `threads` threads.
pub fn logits<D: AsRef<Detector> + Sync>(
    detectors: &[D],
    feature: &IntentFeature,
    threads: usize,
) -> Vec<Option<f64>> {
    let score = |part: &[D]| {
        let next = part.iter().skip(1).map(|detector| detector.as_ref().codes()).chain([&[] as &[i8]]);
        part.iter().zip(next).map(|(detector, next)| detector.as_ref().logit_before(next, feature)).collect()
    };
    let threads = threads.min(detectors.len() / WORTH_A_THREAD);
    if threads < 2 {
        return score(detectors);
    }
    let mut parts = detectors.chunks(detectors.len().div_ceil(threads));
    let first = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = parts.map(|part| (part, scope.spawn(move || score(part)))).collect();
        let mut all: Vec<Option<f64>> = score(first);
        for (part, other) in others {
            all.extend(other.join().unwrap_or_else(|_| vec![None; part.len()]));
        }
        all
    })
}

impl AsRef<Detector> for Detector {
    fn as_ref(&self) -> &Detector {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector() -> Detector {
        let hidden = [1.27, 0.0, 0.0, 0.0, 0.0, -1.27, 0.0, 0.0];
        Detector::new(&hidden, vec![0.0, 0.5], vec![2.0, -3.0], -1.0)
    }

    fn feature(values: &[f32]) -> IntentFeature {
        IntentFeature::from_values(values.iter().copied())
    }

    #[test]
    fn the_logit_is_that_of_the_perceptron() {
        let near = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 1e-5, "{found:?} {expected}");
        };
        near(detector().logit(&feature(&[2.0, 0.25, 5.0, 5.0])), 2.0 * 2.54 - 3.0 * (0.5 - 0.3175) - 1.0);
        near(detector().logit(&feature(&[-2.0, 5.0, 0.0, 0.0])), -1.0);
        assert_eq!(detector().logit(&feature(&[1.0])), None);
    }

    #[test]
    fn no_detector_is_surer_than_the_surest() {
        let sure = Detector::new(&[100.0, 100.0], vec![0.0], vec![100.0], -1.0);
        assert_eq!(sure.logit(&feature(&[6.0, 6.0])), Some(MAX_LOGIT));
    }

    #[test]
    fn wrong_shapes_and_values_that_no_training_leads_to_are_refused() {
        detector().check(4).unwrap();
        let said = |change: fn(&mut Detector)| {
            let mut changed = detector();
            change(&mut changed);
            changed.check(4).unwrap_err().to_string()
        };
        assert!(said(|detector| detector.output.push(1.0)).contains("[1 to 64, 4]"));
        assert!(said(|detector| detector.scales[1] = f32::NAN).contains("`detector.scales` holds NaN at 1"));
        assert!(said(|detector| detector.output[1] = 1e9).contains("`detector.output`"));
        assert!(said(|detector| detector.output_bias = f32::NEG_INFINITY).contains("detector.output_bias"));
        assert!(said(|detector| detector.output_bias = 3.0).contains("most usual prompt"));
        assert!(said(|detector| detector.hidden_bias[0] = 50.0).contains("most usual prompt"));
    }

    #[test]
    fn many_detectors_are_scored_on_several_threads_as_one_by_one() {
        let many: Vec<Detector> = (0..1001)
            .map(|at| Detector::new(&[at as f32 / 1e3, -0.3, 0.2, 0.1], vec![0.1], vec![1.0], -0.5))
            .collect();
        let feature = feature(&[1.5, -0.25, 3.0, 0.75]);
        let alone: Vec<Option<f64>> = many.iter().map(|detector| detector.logit(&feature)).collect();
        for threads in [1, 2, 3] {
            assert_eq!(logits(&many, &feature, threads), alone, "{threads}");
        }
    }
}
