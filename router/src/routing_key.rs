//! What a pack ships so that it can be scored.

use std::collections::BTreeMap;

use manifests::{Sha256, Slot};
use serde::{Deserialize, Serialize};

use crate::{Detector, Scatter};

/// A key's file is never larger, bytes.
pub const MAX_KEY_BYTES: usize = 1 << 20;

/// Values beyond this size are no hidden states of a sound base.
pub(crate) const LARGEST_VALUE: f32 = 1e6;

/// Statistics of the hidden states that a pack's own text leads to.
///
/// The feature of a prompt is the mean of `h_s` (the hidden state in front of the slot) over all of its tokens but the
/// first, whose hidden state depends on little but its place.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingKey {
    /// What it is of.
    pub facts: KeyFacts,
    /// The mean feature, `[hidden]`.
    pub mean: Vec<f32>,
    /// How features lie around it.
    pub scatter: Scatter,
    /// What was learned of prompts that want the pack; packs without one are asked for by name.
    pub detector: Option<Detector>,
}

/// What a routing key is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFacts {
    /// Version of the format: 1.
    pub version: u32,
    /// Fingerprint of the base whose hidden states they are.
    pub base: Sha256,
    /// The slot that they stand in front of.
    pub slot: Slot,
    /// Prompts that went in.
    pub prompts: u64,
    /// The same by form and length in tokens, such as `raw 8-15`.
    pub counts: BTreeMap<String, u64>,
    /// The router whose features the detector was trained on; see [`RouterWeights::projection`].
    ///
    /// [`RouterWeights::projection`]: crate::RouterWeights::projection
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Sha256>,
    /// What was seen on text that was not used for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<HeldOutCheck>,
}

/// How well a key tells held-out text of its domain from general text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutCheck {
    /// Prompts of each of the two kinds, at each length.
    pub prompts: u64,
    /// Share that falls on the right side, by the prompts' length in tokens: mean of both kinds, 0.5 is chance.
    pub right: BTreeMap<u32, f64>,
}

/// Why a routing key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// More bytes than any real one has.
    #[error("the routing key has {found} bytes, at most {MAX_KEY_BYTES} are read: make it anew")]
    TooLarge {
        /// Bytes.
        found: usize,
    },
    /// No sound safetensors file.
    #[error("the routing key is no sound safetensors file: {0}")]
    Format(Box<str>),
    /// Metadata that are missing or say something else.
    #[error("the routing key's metadata: {0}")]
    Facts(Box<str>),
    /// A tensor that is missing or of another shape or type.
    #[error("the routing key's tensor `{name}`: expected {expected}, found {found}")]
    Tensor {
        /// Which one.
        name: &'static str,
        /// Shape and type.
        expected: Box<str>,
        /// Shape and type, or nothing.
        found: Box<str>,
    },
    /// A value that is not finite or far too large.
    #[error(
        "the routing key's tensor `{name}` holds {value} at {index}, which no sound base leads to: make it anew"
    )]
    Value {
        /// Which tensor.
        name: &'static str,
        /// Where.
        index: usize,
        /// What, as text.
        value: Box<str>,
    },
    /// A detector that wants everything.
    #[error("the routing key's detector: {0}: train it anew, with prompts that don't want the pack")]
    Greedy(Box<str>),
    /// Keys that can't be compared with each other.
    #[error("routing keys of different bases, slots or widths can't be compared: {0}")]
    Mismatch(Box<str>),
}

impl RoutingKey {
    /// Width of the hidden state.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Checks everything that a file or a maker may get wrong.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), KeyError> {
        if self.facts.version != 1 {
            let found = self.facts.version;
            return Err(KeyError::Facts(
                format!("expected version 1, found {found}: it needs a newer host").into(),
            ));
        }
        if self.facts.prompts == 0 || self.width() == 0 {
            return Err(KeyError::Facts("it was made of no prompt".into()));
        }
        if self.scatter.width() != self.width() {
            let (expected, found) = (self.width(), self.scatter.width());
            return Err(KeyError::Tensor {
                name: "diagonal",
                expected: format!("[{expected}]").into(),
                found: format!("[{found}]").into(),
            });
        }
        let largest = LARGEST_VALUE * LARGEST_VALUE;
        let parts = [
            ("mean", self.mean.as_slice(), LARGEST_VALUE),
            ("factors", self.scatter.factors(), LARGEST_VALUE),
            ("diagonal", self.scatter.diagonal(), largest),
        ];
        for (name, values, limit) in parts {
            if let Some(index) = values.iter().position(|value| value.is_nan() || value.abs() > limit) {
                return Err(KeyError::Value { name, index, value: values[index].to_string().into() });
            }
        }
        match (&self.detector, self.facts.router) {
            (Some(_), None) => Err(KeyError::Facts("it has a detector, but names no router".into())),
            (Some(detector), Some(_)) => detector.check(4 * self.width()),
            (None, _) => Ok(()),
        }
    }
}
