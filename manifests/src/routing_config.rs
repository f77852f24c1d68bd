//! `[routing]` of the host's configuration: how the router's scores become a mixture.

use std::collections::BTreeMap;

use crate::document::Problem;
use crate::names::PackName;

/// How the shares of packs beside each other follow from their probabilities.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum MixtureStrategy {
    /// By their probabilities.
    #[default]
    Weighted,
    /// The likeliest has a fixed share, and the others divide what is left by their probabilities.
    MainWithAssistants,
}

/// `[routing]` as written; what is left out the router pack says.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutingConfig {
    /// Packs beside each other, at most, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Packs of a lower probability are not used, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// A pack less likely than this share of the likeliest is not used beside it, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<f64>,
    /// From this probability on a pack answers without the general pack, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sure: Option<f64>,
    /// How the shares of packs beside each other follow from their probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<MixtureStrategy>,
    /// Probabilities are raised to this before they become shares, from 0 (all alike) to 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharpness: Option<f64>,
    /// The share of all packs but the likeliest together, from 0 to 1, where these assist it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assistants: Option<f64>,
    /// Log-odds are divided by it, above 0: above 1 probabilities are less extreme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The general pack's share is never smaller, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_general: Option<f64>,
    /// Added to packs' log-odds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub priors: BTreeMap<PackName, f64>,
    /// The largest weight that a pack may get, from 0 to 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caps: BTreeMap<PackName, f64>,
    /// A pack that would take a larger share of general prompts is not routed to, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_of_general: Option<f64>,
    /// Packs that were nearly chosen, so far below the threshold at most or without a place beside others, are brought to
    /// the device while memory is free, from 0 (none) to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<f64>,
    /// A message of more than twice as many tokens is looked at in parts of about so many, from 8; 0: as a whole alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_tokens: Option<u32>,
    /// Packs that want this share of a long message's tokens, by its parts, are used for it, above 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_share: Option<f64>,
    /// Packs beside each other for the parts of a long message, at most, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_top_k: Option<u32>,
    /// Milliseconds that the packs' own predictions of an ambiguous prompt may take; 0: they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posterior_ms: Option<u64>,
    /// A prompt whose likeliest pack lies within these probabilities, or that has two packs from the lower one on, is
    /// ambiguous: from 0 to 1, the lower first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambiguous: Option<[f64; 2]>,
    /// Tokens of an answer after which the packs are looked at again, from 8; 0, the default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_every: Option<u32>,
    /// How much likelier another choice must be than the present packs for a change within an answer, from 0 to 1; default
    /// 0.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_margin: Option<f64>,
}

impl RoutingConfig {
    /// What this level says, else what `lower` says; tables are joined.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        let joined = |mut below: BTreeMap<PackName, f64>, above: BTreeMap<PackName, f64>| {
            below.extend(above);
            below
        };
        Self {
            top_k: self.top_k.or(lower.top_k),
            threshold: self.threshold.or(lower.threshold),
            beside: self.beside.or(lower.beside),
            sure: self.sure.or(lower.sure),
            strategy: self.strategy.or(lower.strategy),
            sharpness: self.sharpness.or(lower.sharpness),
            assistants: self.assistants.or(lower.assistants),
            temperature: self.temperature.or(lower.temperature),
            least_general: self.least_general.or(lower.least_general),
            priors: joined(lower.priors, self.priors),
            caps: joined(lower.caps, self.caps),
            most_of_general: self.most_of_general.or(lower.most_of_general),
            prefetch: self.prefetch.or(lower.prefetch),
            segment_tokens: self.segment_tokens.or(lower.segment_tokens),
            segment_share: self.segment_share.or(lower.segment_share),
            segment_top_k: self.segment_top_k.or(lower.segment_top_k),
            posterior_ms: self.posterior_ms.or(lower.posterior_ms),
            ambiguous: self.ambiguous.or(lower.ambiguous),
            again_every: self.again_every.or(lower.again_every),
            again_margin: self.again_margin.or(lower.again_margin),
        }
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |path: &[&str], message: String| problems.push(Problem::new(path, message));
        let shares = [
            ("threshold", self.threshold),
            ("beside", self.beside),
            ("sure", self.sure),
            ("least_general", self.least_general),
            ("most_of_general", self.most_of_general),
            ("prefetch", self.prefetch),
            ("assistants", self.assistants),
            ("again_margin", self.again_margin),
        ];
        for (name, share) in shares {
            if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                add(&["routing", name], format!("{name} must be from 0 to 1, found {share}"));
            }
        }
        for (pack, cap) in self.caps.iter().filter(|(_, cap)| !(0.0..=1.0).contains(*cap)) {
            add(&["routing", "caps", pack.as_str()], format!("a cap must be from 0 to 1, found {cap}"));
        }
        for (pack, prior) in self.priors.iter().filter(|(_, prior)| !prior.is_finite()) {
            add(&["routing", "priors", pack.as_str()], format!("a prior must be finite, found {prior}"));
        }
        for (name, count) in [("top_k", self.top_k), ("segment_top_k", self.segment_top_k)] {
            if count == Some(0) {
                add(&["routing", name], format!("{name} must be at least 1, found 0"));
            }
        }
        for (name, tokens) in [("segment_tokens", self.segment_tokens), ("again_every", self.again_every)] {
            if let Some(tokens) = tokens.filter(|tokens| (1..8).contains(tokens)) {
                add(&["routing", name], format!("{name} must be at least 8, or 0 for never, found {tokens}"));
            }
        }
        if let Some(found) = self.sharpness.filter(|sharpness| !(0.0..=16.0).contains(sharpness)) {
            add(&["routing", "sharpness"], format!("sharpness must be from 0 to 16, found {found}"));
        }
        if let Some([low, high]) = self.ambiguous
            && !(0.0 <= low && low <= high && high <= 1.0)
        {
            let message = format!("ambiguous must be from 0 to 1, the lower first, found {low} and {high}");
            add(&["routing", "ambiguous"], message);
        }
        if let Some(share) = self.segment_share.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            let message = format!("segment_share must be above 0, at most 1, found {share}");
            add(&["routing", "segment_share"], message);
        }
        let is_sound = |temperature: f64| temperature.is_finite() && temperature > 0.0;
        if let Some(found) = self.temperature.filter(|temperature| !is_sound(*temperature)) {
            add(&["routing", "temperature"], format!("temperature must be above 0, found {found}"));
        }
        problems
    }
}
