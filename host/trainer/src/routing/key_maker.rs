//! From features to a key, and what it tells apart.

use std::collections::BTreeMap;

use manifests::{Sha256, Slot};
use modularbase_core::Tokenizer;
use modularbase_corpus::TokenizedCorpus;
use router::{Discriminant, HeldOutCheck, KeyError, KeyFacts, RoutingKey, Scatter};

use super::{Prompt, PromptOptions, features, prompts};
use crate::{TrainError, TrainingBase};

/// Lengths of prompts, in tokens.
const LENGTHS: (usize, usize) = (8, 128);

/// Lengths at which keys are checked.
const CHECKED: [usize; 3] = [16, 32, 128];

/// The most bytes of a key's factors.
const FACTOR_BYTES: usize = 180_000;

/// How a key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyOptions {
    /// Prompts of each form.
    pub each_form: usize,
    /// Directions of the scatter that are kept; fewer where the base is so wide that the key would be too large.
    pub rank: usize,
    /// What all choices follow from.
    pub seed: u64,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self { each_form: 1024, rank: 64, seed: 1 }
    }
}

/// The key of this text for a base with this fingerprint. `progress` is told how many of how many prompts are done.
///
/// # Errors
/// Too little text, a device that fails.
pub fn make_routing_key(
    base: &TrainingBase,
    fingerprint: Sha256,
    tokenizer: &Tokenizer,
    text: &[&TokenizedCorpus],
    options: KeyOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RoutingKey, TrainError> {
    let KeyOptions { each_form, rank, seed } = options;
    let prompts = prompts(text, tokenizer, PromptOptions { each_form, lengths: LENGTHS, seed })?;
    if prompts.len() < 2 {
        return Err(TrainError::evaluation("a routing key needs at least two prompts"));
    }
    let features = features(base, &prompts, progress)?;
    let width = base.shape().hidden_size;
    let (mean, covariance) = mean_and_covariance(&features, width);
    let rank = rank.min(FACTOR_BYTES / 2 / width.max(1));
    let scatter = Scatter::fit(&covariance, width, rank)
        .ok_or_else(|| TrainError::evaluation("the features' covariance is not finite"))?;
    let key = RoutingKey {
        facts: KeyFacts {
            version: 1,
            base: fingerprint,
            slot: slot_of(base)?,
            prompts: prompts.len() as u64,
            counts: counts(&prompts),
            router: None,
            check: None,
        },
        mean: mean.into_iter().map(|value| value as f32).collect(),
        scatter,
        detector: None,
    };
    key.check().map_err(refused)?;
    Ok(key)
}

/// How well `key` and the key of general text tell held-out text of both kinds apart, at those lengths of prompts that
/// both kinds have documents for.
///
/// # Errors
/// Too little text, keys of different bases, a device that fails.
pub fn held_out_check(
    base: &TrainingBase,
    tokenizer: &Tokenizer,
    key: &RoutingKey,
    general: &RoutingKey,
    texts: [&[&TokenizedCorpus]; 2],
    options: KeyOptions,
) -> Result<HeldOutCheck, TrainError> {
    let discriminant = Discriminant::new(&[key, general]).map_err(refused)?;
    let mut right = BTreeMap::new();
    let mut least = u64::MAX;
    // Where no document is as long, nothing is told of that length.
    let is_there = |length: usize| {
        texts.iter().all(|text| {
            text.iter().flat_map(|corpus| corpus.documents()).any(|document| document.ids.len() >= length)
        })
    };
    for length in CHECKED.into_iter().filter(|length| *length == CHECKED[0] || is_there(*length)) {
        let mut shares = 0.0;
        for (kind, text) in texts.iter().enumerate() {
            let cut =
                PromptOptions { each_form: options.each_form, lengths: (length, length), seed: options.seed };
            let prompts = prompts(text, tokenizer, cut)?;
            let features = features(base, &prompts, &mut |_, _| {})?;
            let hits = features
                .iter()
                .filter_map(|feature| discriminant.scores(feature))
                .filter(|scores| (scores[0] > scores[1]) == (kind == 0))
                .count();
            shares += hits as f64 / features.len().max(1) as f64 / texts.len() as f64;
            least = least.min(features.len() as u64);
        }
        right.insert(length as u32, shares);
    }
    Ok(HeldOutCheck { prompts: least, right })
}

fn slot_of(base: &TrainingBase) -> Result<Slot, TrainError> {
    let layer = |layer: usize| u32::try_from(layer).unwrap_or(u32::MAX);
    Slot::new(layer(base.slot().start), layer(base.slot().end))
        .map_err(|error| TrainError::evaluation(error.to_string()))
}

fn refused(error: KeyError) -> TrainError {
    TrainError::evaluation(error.to_string())
}

/// `raw 8-15` and so on: by form and by the power of two that the length lies in.
fn counts(prompts: &[Prompt]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for prompt in prompts {
        let low = 1_usize << prompt.length.max(1).ilog2();
        *counts.entry(format!("{} {low}-{}", prompt.form, 2 * low - 1)).or_default() += 1;
    }
    counts
}

/// The mean `[width]` and the covariance `[width, width]`.
fn mean_and_covariance(features: &[Vec<f32>], width: usize) -> (Vec<f64>, Vec<f64>) {
    let count = features.len() as f64;
    let mut mean = vec![0.0; width];
    for feature in features {
        mean.iter_mut().zip(feature).for_each(|(mean, value)| *mean += f64::from(*value) / count);
    }
    let mut covariance = vec![0.0; width * width];
    for feature in features {
        let centred: Vec<f64> =
            feature.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect();
        for (row, value) in centred.iter().enumerate() {
            let sums = &mut covariance[row * width..(row + 1) * width];
            sums.iter_mut().zip(&centred).for_each(|(sum, other)| *sum += value * other);
        }
    }
    let scale = 1.0 / (count - 1.0).max(1.0);
    covariance.iter_mut().for_each(|sum| *sum *= scale);
    (mean, covariance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_covariance_are_those_of_the_features() {
        let features = [vec![1.0, 2.0], vec![3.0, 6.0], vec![5.0, 4.0]];
        let (mean, covariance) = mean_and_covariance(&features, 2);
        assert!(
            mean.iter().zip([3.0, 4.0]).all(|(found, expected)| (found - expected).abs() < 1e-12),
            "{mean:?}"
        );
        for (found, expected) in covariance.iter().zip([4.0, 2.0, 2.0, 4.0]) {
            assert!((found - expected).abs() < 1e-12, "{covariance:?}");
        }
    }
}
