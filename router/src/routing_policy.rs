//! How scores become a mixture: what can be set, and what holds where nothing is said.

use std::collections::BTreeMap;

use manifests::MixtureStrategy;
use serde::{Deserialize, Serialize};

/// How scores become a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingPolicy {
    /// Packs of a lower probability are not used.
    pub threshold: f64,
    /// Packs beside each other, at most.
    pub top_k: usize,
    /// A pack less likely than this share of the likeliest is not used beside it.
    pub beside: f64,
    /// From this probability on a pack answers without the general pack; below it the general pack has the share that is
    /// missing to 1.
    pub sure: f64,
    /// How the shares of packs beside each other follow from their probabilities.
    pub strategy: MixtureStrategy,
    /// Probabilities are raised to this before they become shares: above 1 the likeliest gets more, 0 makes all alike.
    pub sharpness: f64,
    /// The share of all packs but the likeliest together, where these assist it.
    pub assistants: f64,
    /// Log-odds are divided by it: above 1 probabilities are less extreme.
    pub temperature: f64,
    /// The general pack's share is never smaller.
    pub least_general: f64,
    /// Added to packs' log-odds, by name.
    pub priors: BTreeMap<String, f64>,
    /// The largest weight that a pack may get, by name.
    pub caps: BTreeMap<String, f64>,
    /// A detector that takes a larger share of the router's general prompts is not used.
    pub most_of_general: f64,
    /// Packs that were nearly chosen, so far below the threshold at most or without a place beside others, are brought to
    /// the device: they may be wanted next. 0: none.
    pub prefetch: f64,
    /// A message of more than twice as many tokens is looked at in parts of about so many. 0: as a whole alone.
    pub segment_tokens: usize,
    /// Packs that want this share of a long message's tokens, by its parts, are used for it.
    pub segment_share: f64,
    /// Packs beside each other for the parts of a long message, at most.
    pub segment_top_k: usize,
    /// Milliseconds that the packs' own predictions of an ambiguous prompt may take. 0: they are not asked.
    pub posterior_ms: u64,
    /// A prompt whose likeliest pack lies within, or that has two packs from the lower one on, is ambiguous.
    pub ambiguous: [f64; 2],
    /// The log-odds of a pack that was asked: of its detector's, of its gain over the general pack in nats a token, and of
    /// neither, learned.
    pub posterior: [f64; 3],
}

impl Default for RoutingPolicy {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            top_k: 2,
            beside: 0.6,
            sure: 0.8,
            strategy: MixtureStrategy::Weighted,
            sharpness: 0.5,
            assistants: 0.3,
            temperature: 1.0,
            least_general: 0.0,
            priors: BTreeMap::new(),
            caps: BTreeMap::new(),
            most_of_general: 0.1,
            prefetch: 0.3,
            segment_tokens: 32,
            segment_share: 0.1,
            segment_top_k: 4,
            posterior_ms: 0,
            ambiguous: [0.2, 0.9],
            posterior: [1.0, 2.0, -0.2],
        }
    }
}

impl RoutingPolicy {
    /// The first value that makes no sense, in words.
    pub fn problem(&self) -> Option<String> {
        let shares = [
            ("threshold", self.threshold),
            ("beside", self.beside),
            ("sure", self.sure),
            ("least_general", self.least_general),
            ("most_of_general", self.most_of_general),
            ("prefetch", self.prefetch),
            ("assistants", self.assistants),
        ];
        let caps = self.caps.iter().map(|(name, cap)| (name.as_str(), *cap));
        let outside = shares.into_iter().chain(caps).find(|(_, share)| !(0.0..=1.0).contains(share));
        if let Some((name, share)) = outside {
            return Some(format!("{name} must be from 0 to 1, found {share}"));
        }
        for (name, count) in [("top_k", self.top_k), ("segment_top_k", self.segment_top_k)] {
            if count == 0 {
                return Some(format!("{name} must be at least 1, found 0"));
            }
        }
        if (1..8).contains(&self.segment_tokens) {
            let found = self.segment_tokens;
            return Some(format!("segment_tokens must be 0 or at least 8, found {found}"));
        }
        if !(self.segment_share > 0.0 && self.segment_share <= 1.0) {
            let found = self.segment_share;
            return Some(format!("segment_share must be above 0, at most 1, found {found}"));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Some(format!("temperature must be above 0, found {}", self.temperature));
        }
        if !(0.0..=16.0).contains(&self.sharpness) {
            return Some(format!("sharpness must be from 0 to 16, found {}", self.sharpness));
        }
        let [low, high] = self.ambiguous;
        if !(0.0 <= low && low <= high && high <= 1.0) {
            return Some(format!("ambiguous must be from 0 to 1, the lower first, found {low} and {high}"));
        }
        if self.posterior.iter().any(|value| !value.is_finite()) {
            return Some(format!("posterior must be finite, found {:?}", self.posterior));
        }
        let prior = self.priors.iter().find(|(_, prior)| !prior.is_finite());
        prior.map(|(name, prior)| format!("the prior of {name} must be finite, found {prior}"))
    }

    /// The probability that a pack is wanted, from its detector's log-odds.
    pub fn probability(&self, pack: &str, score: f64) -> f64 {
        let prior = self.priors.get(pack).copied().unwrap_or(0.0);
        1.0 / (1.0 + (-(score + prior) / self.temperature).exp())
    }

    /// Shares that sum to 1 for packs that are used beside each other, from their probabilities `> 0` in descending order.
    pub(crate) fn shares(&self, probabilities: &[f64]) -> Vec<f64> {
        let alone = probabilities.len() < 2;
        match self.strategy {
            MixtureStrategy::MainWithAssistants if !alone => {
                let others: f64 = probabilities[1..].iter().sum();
                let assistants = probabilities[1..].iter().map(|other| self.assistants * other / others);
                std::iter::once(1.0 - self.assistants).chain(assistants).collect()
            }
            _ => {
                let sharp: Vec<f64> =
                    probabilities.iter().map(|probability| probability.powf(self.sharpness)).collect();
                let sum: f64 = sharp.iter().sum();
                sharp.into_iter().map(|sharp| sharp / sum).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_probabilities_or_leave_the_others_what_assistants_get() {
        let near = |found: Vec<f64>, expected: &[f64]| {
            let same = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12);
            assert!(same && found.len() == expected.len(), "{found:?} {expected:?}");
        };
        let policy = RoutingPolicy { sharpness: 1.0, ..RoutingPolicy::default() };
        near(policy.shares(&[0.9, 0.6]), &[0.6, 0.4]);
        near(policy.shares(&[0.7]), &[1.0]);
        near(RoutingPolicy { sharpness: 2.0, ..policy.clone() }.shares(&[0.6, 0.3]), &[0.8, 0.2]);
        near(RoutingPolicy { sharpness: 0.0, ..policy.clone() }.shares(&[0.9, 0.1]), &[0.5, 0.5]);
        let strategy = MixtureStrategy::MainWithAssistants;
        let main = RoutingPolicy { strategy, assistants: 0.3, ..policy };
        near(main.shares(&[0.9, 0.4, 0.2]), &[0.7, 0.2, 0.1]);
        near(main.shares(&[0.7]), &[1.0]);
    }
}
