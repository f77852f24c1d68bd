//! What all packs' detectors share: how a prompt becomes a feature. It is made once on a base, and is a pack of its own.

use manifests::{Sha256, Slot};
use serde::{Deserialize, Serialize};

use crate::{IntentFeature, RoutingPolicy};

/// A router's file is never larger, bytes.
pub const MAX_ROUTER_BYTES: usize = 64 << 20;

/// A token that makes up this share of all counts half (Arora, Liang and Ma 2017, "A simple but tough-to-beat baseline
/// for sentence embeddings", eq. 3).
const HALF: f64 = 1e-3;

/// What a router has learned of a base's prompts without any label, and the policy that was measured with it.
///
/// The feature of a prompt is four means, `[4 * hidden]`: of `h_s`, of `h_s` by token weights, of the embeddings, of the
/// embeddings by token weights, each less [`RouterWeights::mean`] and over [`RouterWeights::deviation`]. Means of `h_s`
/// leave out the first token, whose hidden state depends on little but its place.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterWeights {
    /// What it is of.
    pub facts: RouterFacts,
    /// How much each token of the vocabulary counts, in (0, 1], `[vocab]`.
    pub token_weights: Vec<f32>,
    /// The mean of the four means over many prompts, `[4 * hidden]`.
    pub mean: Vec<f32>,
    /// Their standard deviation, above 0, `[4 * hidden]`.
    pub deviation: Vec<f32>,
    /// Features of general prompts, by which it is told what a detector would take from the general pack.
    pub(crate) general: Vec<IntentFeature>,
}

/// What a router's weights are of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterFacts {
    /// Version of the format: 1.
    pub version: u32,
    /// Fingerprint of the base.
    pub base: Sha256,
    /// The slot that the hidden states stand in front of.
    pub slot: Slot,
    /// Prompts that it was made from.
    pub prompts: u64,
    /// How scores become a mixture, where the host's configuration says nothing else.
    pub policy: RoutingPolicy,
}

/// Why a router's weights can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// More bytes than any real one has.
    #[error("the router's weights have {found} bytes, at most {MAX_ROUTER_BYTES} are read: train it anew")]
    TooLarge {
        /// Bytes.
        found: usize,
    },
    /// No sound safetensors file.
    #[error("the router's weights are no sound safetensors file: {0}")]
    Format(Box<str>),
    /// Metadata that are missing or say something else.
    #[error("the router's metadata: {0}")]
    Facts(Box<str>),
    /// A tensor that is missing or of another shape or type.
    #[error("the router's tensor `{name}`: expected {expected}, found {found}")]
    Tensor {
        /// Which one.
        name: &'static str,
        /// Shape and type.
        expected: Box<str>,
        /// Shape and type, or nothing.
        found: Box<str>,
    },
    /// A value that is not finite or has the wrong sign.
    #[error("the router's tensor `{name}` holds {value} at {index}: train it anew")]
    Value {
        /// Which tensor.
        name: &'static str,
        /// Where.
        index: usize,
        /// What, as text.
        value: Box<str>,
    },
}

impl RouterWeights {
    /// Weights that keep no general prompts yet.
    pub fn new(facts: RouterFacts, token_weights: Vec<f32>, mean: Vec<f32>, deviation: Vec<f32>) -> Self {
        Self { facts, token_weights, mean, deviation, general: Vec::new() }
    }

    /// Width of the hidden state.
    pub fn width(&self) -> usize {
        self.mean.len() / 4
    }

    /// Features of general prompts.
    pub fn general(&self) -> &[IntentFeature] {
        &self.general
    }

    /// Sets the features of general prompts; those of another width are left out.
    pub fn set_general(&mut self, features: Vec<IntentFeature>) {
        let width = self.mean.len();
        self.general = features.into_iter().filter(|feature| feature.width() == width).collect();
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let floats = self.token_weights.len() + self.mean.len() + self.deviation.len();
        floats * size_of::<f32>() + self.general.len() * self.mean.len() * size_of::<i16>()
    }

    /// The hash over all that a feature depends on, base and slot included: detectors are trained on one projection and
    /// mean nothing on another.
    pub fn projection(&self) -> Sha256 {
        let mut bytes = format!("{} {:?}\0", self.facts.base, self.facts.slot).into_bytes();
        for part in [&self.token_weights, &self.mean, &self.deviation] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
        }
        Sha256::of_bytes(&bytes)
    }

    /// How much each of `vocab` tokens counts, by how often each was seen: `a / (a + p)`. Token ids beyond are left out.
    pub fn weights_of_tokens(vocab: usize, seen: impl IntoIterator<Item = u32>) -> Vec<f32> {
        let mut counts = vec![1_u64; vocab];
        for id in seen {
            if let Some(count) = counts.get_mut(id as usize) {
                *count += 1;
            }
        }
        let all = counts.iter().sum::<u64>() as f64;
        // Through 16 bits, so that what is written is what was meant.
        let weight = |count: &u64| half::f16::from_f64(HALF / (HALF + *count as f64 / all)).to_f32();
        counts.iter().map(weight).collect()
    }

    /// The four means of a prompt, `[4 * hidden]`: of its tokens `ids`, their hidden states and their embeddings, both
    /// `[tokens, hidden]` row by row. `None`: no token, or rows of other sizes.
    pub fn means(token_weights: &[f32], ids: &[u32], hidden: &[f32], embeddings: &[f32]) -> Option<Vec<f32>> {
        if ids.is_empty() || hidden.len() != embeddings.len() || !hidden.len().is_multiple_of(ids.len()) {
            return None;
        }
        let width = hidden.len() / ids.len();
        let weights: Vec<f32> =
            ids.iter().map(|id| token_weights.get(*id as usize).copied().unwrap_or(1.0)).collect();
        let alike = vec![1.0; ids.len()];
        let first = usize::from(ids.len() > 1);
        let mut means = Vec::with_capacity(4 * width);
        for (rows, weights, first) in [
            (hidden, &alike, first),
            (hidden, &weights, first),
            (embeddings, &alike, 0),
            (embeddings, &weights, 0),
        ] {
            let sum: f32 = weights[first..].iter().sum();
            let start = means.len();
            means.resize(start + width, 0.0);
            let mean = &mut means[start..];
            for (row, weight) in rows.chunks_exact(width).zip(weights).skip(first) {
                mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value * (weight / sum));
            }
        }
        Some(means)
    }

    /// The feature of a prompt; see [`RouterWeights::means`].
    pub fn feature(&self, ids: &[u32], hidden: &[f32], embeddings: &[f32]) -> Option<IntentFeature> {
        let means = Self::means(&self.token_weights, ids, hidden, embeddings)?;
        (means.len() == self.mean.len() && means.iter().all(|value| value.is_finite()))
            .then(|| self.standardized(&means))
    }

    /// Means as deviations from the usual.
    pub fn standardized(&self, means: &[f32]) -> IntentFeature {
        let values = means.iter().zip(&self.mean).zip(&self.deviation);
        IntentFeature::from_values(values.map(|((value, mean), deviation)| (value - mean) / deviation))
    }

    /// Checks everything that a file or a maker may get wrong.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), RouterError> {
        if self.facts.version != 1 {
            let found = self.facts.version;
            return Err(RouterError::Facts(
                format!("expected version 1, found {found}: it needs a newer host").into(),
            ));
        }
        if let Some(problem) = self.facts.policy.problem() {
            return Err(RouterError::Facts(problem.into()));
        }
        let width = self.mean.len();
        if width == 0 || !width.is_multiple_of(4) || self.deviation.len() != width {
            return Err(RouterError::Tensor {
                name: "deviation",
                expected: format!("F32 [{width}], four times the hidden size").into(),
                found: format!("[{}]", self.deviation.len()).into(),
            });
        }
        let parts = [
            ("token_weights", &self.token_weights, true),
            ("mean", &self.mean, false),
            ("deviation", &self.deviation, true),
        ];
        for (name, values, above) in parts {
            let wrong = |value: &f32| !value.is_finite() || (above && *value <= 0.0);
            if let Some(index) = values.iter().position(wrong) {
                return Err(RouterError::Value { name, index, value: values[index].to_string().into() });
            }
        }
        Ok(())
    }
}
