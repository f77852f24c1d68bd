//! A second stage for ambiguous prompts: how well the packs themselves predict the prompt (Gururangan et al. 2022, "DEMix
//! layers", section 4.2, where the likelihoods of the experts give the prior of each).

use serde::Serialize;

use crate::routing::scored;
use crate::{PackScore, RoutingPolicy};

/// Packs of a prompt that are run, at most.
const MOST_CANDIDATES: usize = 3;

/// What the packs' own predictions of a prompt said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Posterior {
    /// They were not asked, for this reason.
    Skipped {
        /// In words.
        skipped: String,
    },
    /// They were run.
    Ran {
        /// Milliseconds that it took.
        ms: f64,
        /// The likeliest first, by their detectors.
        packs: Vec<PackEvidence>,
    },
}

/// What one pack's predictions say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackEvidence {
    /// Its name.
    pub pack: String,
    /// How much better than the general pack it predicts the prompt, nats a token.
    pub gain: f64,
    /// Its probability by its detector alone.
    pub before: f64,
}

/// The packs of a prompt that the second stage is for, the likeliest first; none where the choice is plain: the likeliest
/// pack's probability lies outside the policy's band, and no other reaches it.
pub fn ambiguous(logits: &[(String, f64)], policy: &RoutingPolicy) -> Vec<PackScore> {
    let [low, high] = policy.ambiguous;
    let mut scores = scored(logits.to_vec(), policy);
    let reach = scores.iter().filter(|score| score.probability >= low).count();
    let is_plain = scores.first().is_none_or(|best| best.probability > high) && reach < 2;
    if is_plain || reach == 0 {
        return Vec::new();
    }
    scores.truncate(reach.min(MOST_CANDIDATES));
    scores
}

/// The logits with the evidence of the packs that were run: `a logit + b gain + c` by the policy's coefficients.
pub fn with_evidence(
    logits: &[(String, f64)],
    said: &Posterior,
    policy: &RoutingPolicy,
) -> Vec<(String, f64)> {
    let [a, b, c] = policy.posterior;
    let packs = match said {
        Posterior::Ran { packs, .. } => packs.as_slice(),
        Posterior::Skipped { .. } => &[],
    };
    let combined = |(name, logit): &(String, f64)| {
        let evidence = packs.iter().find(|evidence| evidence.pack == *name);
        (name.clone(), evidence.map_or(*logit, |evidence| a * logit + b * evidence.gain + c))
    };
    logits.iter().map(combined).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(of: &[(&str, f64)]) -> Vec<(String, f64)> {
        of.iter().map(|(name, logit)| ((*name).to_owned(), *logit)).collect()
    }

    fn candidates(of: &[(&str, f64)]) -> Vec<String> {
        let policy = RoutingPolicy { ambiguous: [0.2, 0.9], ..RoutingPolicy::default() };
        ambiguous(&logits(of), &policy).into_iter().map(|score| score.pack).collect()
    }

    #[test]
    fn a_prompt_is_ambiguous_within_the_band_and_between_packs_that_reach_it() {
        // 0.95, 0.88, 0.5, 0.27, 0.12.
        assert_eq!(candidates(&[("law", 3.0), ("code", -3.0)]), [] as [&str; 0], "plainly law");
        assert_eq!(candidates(&[("law", -2.0)]), [] as [&str; 0], "plainly none");
        assert_eq!(candidates(&[("law", 0.0), ("code", -3.0)]), ["law"]);
        assert_eq!(candidates(&[("law", 3.0), ("code", -1.0)]), ["law", "code"], "two that are near");
        let many = [("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)];
        assert_eq!(candidates(&many), ["d", "c", "b"], "three at most");
        assert_eq!(candidates(&[]), [] as [&str; 0]);
    }

    #[test]
    fn evidence_moves_the_packs_that_were_run_and_no_other() {
        let policy = RoutingPolicy { posterior: [0.5, 2.0, -1.0], ..RoutingPolicy::default() };
        let before = logits(&[("law", 2.0), ("code", 1.0)]);
        let packs = vec![PackEvidence { pack: "law".to_owned(), gain: 0.75, before: 0.88 }];
        let moved = with_evidence(&before, &Posterior::Ran { ms: 1.0, packs }, &policy);
        assert_eq!(moved, logits(&[("law", 1.5), ("code", 1.0)]));
        let skipped = Posterior::Skipped { skipped: "no time".to_owned() };
        assert_eq!(with_evidence(&before, &skipped, &policy), before);
    }
}
