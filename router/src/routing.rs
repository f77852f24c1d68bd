//! From scores to the packs of a turn.

use serde::Serialize;

use crate::{Posterior, RoutingPolicy, Segment};

/// What the router says of one pack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackScore {
    /// Its name.
    pub pack: String,
    /// The log-odds of its detector.
    pub score: f64,
    /// The same as a probability by the policy: that it is wanted, whatever is said of others.
    pub probability: f64,
}

/// The packs chosen for a prompt, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Routing {
    /// Packs with weights `> 0` that sum to 1; empty where the base answers alone.
    pub mixture: Vec<MixtureShare>,
    /// Every pack that has a detector, the likeliest first.
    pub scores: Vec<PackScore>,
    /// Packs that were nearly chosen, the likeliest first: they may be wanted next.
    pub nearest: Vec<String>,
    /// Whether no pack is wanted: the general pack answers.
    pub out_of_domain: bool,
    /// The choice in words.
    pub reason: String,
    /// The parts of a long message, in their order; none of a short one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    /// What the packs' own predictions of an ambiguous prompt said; `None` of a plain one, and where they are not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posterior: Option<Posterior>,
}

/// A pack's share of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixtureShare {
    /// Its name.
    pub pack: String,
    /// Its weight, `> 0`.
    pub weight: f64,
}

/// Chooses a mixture by the logits of the packs' detectors, `(name, log-odds)`. `general` is the general pack's name,
/// `None` where there is none.
pub fn route(logits: Vec<(String, f64)>, general: Option<&str>, policy: &RoutingPolicy) -> Routing {
    let scores = scored(logits, policy);
    let Some(best) = scores.first().filter(|best| best.probability >= policy.threshold).cloned() else {
        let reason = match scores.first() {
            Some(best) => format!(
                "no pack reaches {:.2}; the nearest is {} with {:.2}",
                policy.threshold, best.pack, best.probability
            ),
            None => "no pack has a detector for this base and router".to_owned(),
        };
        return Routing::without_packs(general, scores, reason).with_nearest(policy);
    };
    let chosen: Vec<&PackScore> = scores
        .iter()
        .take(policy.top_k.max(1))
        .filter(|score| score.probability >= policy.threshold.max(policy.beside * best.probability))
        .collect();
    let unsure = if best.probability < policy.sure { 1.0 - best.probability } else { 0.0 };
    let shares: Vec<(String, f64)> =
        chosen.iter().map(|score| (score.pack.clone(), score.probability)).collect();
    let mixture = weighted(&shares, unsure, general, policy);
    let reason = match chosen.len() {
        1 => format!("{} is wanted with {:.2}", best.pack, best.probability),
        _ => "several packs are wanted at once".to_owned(),
    };
    Routing { mixture, out_of_domain: false, ..Routing::without_packs(None, scores, reason) }
        .with_nearest(policy)
}

/// What the detectors say as probabilities, the likeliest first.
pub(crate) fn scored(logits: Vec<(String, f64)>, policy: &RoutingPolicy) -> Vec<PackScore> {
    let mut scores: Vec<PackScore> = logits
        .into_iter()
        .map(|(pack, score)| PackScore { probability: policy.probability(&pack, score), score, pack })
        .collect();
    // Of equal scores the name decides, so that the choice never depends on the order of registration.
    scores.sort_by(|a, b| {
        b.probability
            .total_cmp(&a.probability)
            .then_with(|| b.score.total_cmp(&a.score))
            .then_with(|| a.pack.cmp(&b.pack))
    });
    scores
}

/// The weights of chosen packs, by their shares `> 0` in descending order, and of the general one, which gets at least
/// `unsure`; they sum to 1.
pub(crate) fn weighted(
    chosen: &[(String, f64)],
    unsure: f64,
    general: Option<&str>,
    policy: &RoutingPolicy,
) -> Vec<MixtureShare> {
    let shares = policy.shares(&chosen.iter().map(|(_, share)| *share).collect::<Vec<_>>());
    let rest = if general.is_some() { unsure.max(policy.least_general) } else { 0.0 };
    let mut mixture: Vec<MixtureShare> = chosen
        .iter()
        .zip(shares)
        .map(|((pack, _), share)| {
            let cap = policy.caps.get(pack).copied().unwrap_or(1.0);
            MixtureShare { pack: pack.clone(), weight: ((1.0 - rest) * share).min(cap) }
        })
        .filter(|share| share.weight > 0.0)
        .collect();
    let given: f64 = mixture.iter().map(|share| share.weight).sum();
    match general {
        Some(name) if 1.0 - given > 1e-9 => {
            mixture.push(MixtureShare { pack: name.to_owned(), weight: 1.0 - given });
        }
        // What a cap takes goes to nobody else where there is no general pack: the weights are scaled to 1.
        _ => mixture.iter_mut().for_each(|share| share.weight /= given),
    }
    mixture
}

impl Routing {
    /// The choice where no pack is wanted, or none can be known to be.
    pub fn without_packs(general: Option<&str>, scores: Vec<PackScore>, reason: String) -> Self {
        let general = general.map(|name| MixtureShare { pack: name.to_owned(), weight: 1.0 });
        let mixture = general.into_iter().collect();
        let (nearest, segments) = (Vec::new(), Vec::new());
        Self { mixture, scores, nearest, out_of_domain: true, reason, segments, posterior: None }
    }

    /// Whether this choice is worth a change from the packs that answer at the moment: it has others, and what it chose is
    /// likelier than they are by more than `margin`. Where no pack answers, that is as likely as the likeliest is not.
    pub fn beats(&self, present: &[&str], margin: f64) -> bool {
        let own: Vec<&str> = self.mixture.iter().map(|share| share.pack.as_str()).collect();
        let scored = |packs: &[&str]| -> Vec<&PackScore> {
            self.scores.iter().filter(|score| packs.contains(&score.pack.as_str())).collect()
        };
        let (own, present) = (scored(&own), scored(present));
        let least = self.scores.first().map_or(1.0, |best| 1.0 - best.probability);
        let worth = |packs: &[&PackScore]| packs.first().map_or(least, |best| best.probability);
        own != present && worth(&own) > worth(&present) + margin
    }

    /// Notes the packs that the mixture has not, though the policy nearly let them in.
    pub(crate) fn with_nearest(mut self, policy: &RoutingPolicy) -> Self {
        if policy.prefetch > 0.0 {
            let least = policy.threshold - policy.prefetch;
            let chosen = |pack: &str| self.mixture.iter().any(|share| share.pack == pack);
            let near = self.scores.iter().filter(|score| score.probability >= least && !chosen(&score.pack));
            self.nearest = near.map(|score| score.pack.clone()).collect();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(logits: &[(&str, f64)]) -> Routing {
        let logits = logits.iter().map(|(name, logit)| (name.to_string(), *logit)).collect();
        route(logits, Some("general"), &RoutingPolicy::default())
    }

    fn names(routing: &Routing) -> Vec<(&str, f64)> {
        routing.mixture.iter().map(|share| (share.pack.as_str(), share.weight)).collect()
    }

    #[test]
    fn a_sure_pack_answers_alone_and_an_unsure_one_beside_the_general_pack() {
        assert_eq!(names(&routed(&[("law", 4.0), ("code", -3.0)])), [("law", 1.0)]);
        let unsure = routed(&[("law", 0.4), ("code", -3.0)]);
        assert_eq!(unsure.mixture.len(), 2);
        assert_eq!(unsure.mixture[1].pack, "general");
        let sum: f64 = unsure.mixture.iter().map(|share| share.weight).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!((unsure.mixture[0].weight - unsure.scores[0].probability).abs() < 1e-12);
    }

    #[test]
    fn where_no_pack_is_wanted_the_general_one_answers_and_the_nearest_is_named() {
        let routing = routed(&[("law", -0.1), ("code", -3.0)]);
        assert!(routing.out_of_domain);
        assert_eq!(names(&routing), [("general", 1.0)]);
        assert!(routing.reason.contains("law"), "{}", routing.reason);
        assert!(route(Vec::new(), None, &RoutingPolicy::default()).mixture.is_empty());
    }

    #[test]
    fn two_packs_that_are_both_wanted_share_the_turn() {
        let routing = routed(&[("german", 3.0), ("law", 2.0), ("code", 1.9)]);
        assert_eq!(routing.mixture.len(), 2);
        assert_eq!(routing.mixture[0].pack, "german");
        assert!(routing.mixture[0].weight > routing.mixture[1].weight);
    }

    #[test]
    fn packs_that_were_nearly_chosen_are_named_the_likeliest_first() {
        // Probabilities 0.95, 0.88 and 0.87 above the threshold, 0.45 and 0.05 below it.
        let logits = [("german", 3.0), ("law", 2.0), ("code", 1.9), ("math", -0.2), ("shell", -3.0)];
        assert_eq!(routed(&logits).nearest, ["code", "math"], "one had no place, one is just below");
        let logits = || logits.map(|(name, logit)| (name.to_owned(), logit)).to_vec();
        let with = |prefetch: f64| {
            route(logits(), None, &RoutingPolicy { prefetch, ..RoutingPolicy::default() }).nearest
        };
        assert_eq!(with(0.0), [] as [&str; 0]);
        assert_eq!(with(0.02), ["code"]);
        assert_eq!(with(1.0), ["code", "math", "shell"]);
        assert_eq!(routed(&[("law", -0.1), ("code", -3.0)]).nearest, ["law"], "where none is chosen too");
    }

    #[test]
    fn a_choice_beats_the_present_packs_by_its_margin_alone() {
        let routing = routed(&[("law", 2.0), ("code", 0.5), ("math", -3.0)]);
        // Law has 0.88, code 0.62.
        assert!(routing.beats(&["math"], 0.5) && routing.beats(&["general"], 0.5));
        assert!(routing.beats(&["code"], 0.2) && !routing.beats(&["code"], 0.3));
        assert!(!routing.beats(&["law"], 0.0) && !routing.beats(&["general", "law"], 0.0), "it is there");
        let none = routed(&[("law", -1.0), ("code", -3.0)]);
        assert!(none.beats(&["code"], 0.5) && none.beats(&["law"], 0.4) && !none.beats(&["law"], 0.5));
        assert!(!none.beats(&["general"], 0.0) && !none.beats(&["base"], 0.0));
    }

    #[test]
    fn a_pack_that_leaves_changes_no_other_score_and_the_order_of_registration_none() {
        let with = routed(&[("law", 1.0), ("code", 1.0), ("math", 2.0)]);
        let without = routed(&[("code", 1.0), ("law", 1.0)]);
        assert_eq!(with.scores[1..], without.scores[..], "to the bit");
        assert_eq!(without.scores[0].pack, "code", "of equal ones the name decides");
    }

    #[test]
    fn priors_caps_temperature_and_the_least_general_share_are_kept_to() {
        let policy = RoutingPolicy {
            priors: [("law".to_owned(), 3.0)].into(),
            caps: [("law".to_owned(), 0.4)].into(),
            ..RoutingPolicy::default()
        };
        let logits = || vec![("law".to_owned(), 1.0), ("code".to_owned(), -3.0)];
        let capped = route(logits(), Some("general"), &policy);
        assert_eq!(names(&capped), [("law", 0.4), ("general", 0.6)]);
        assert_eq!(capped.scores[0].score, 1.0, "a prior moves the probability, not the score");
        assert_eq!(names(&route(logits(), None, &policy)), [("law", 1.0)]);
        let held = RoutingPolicy { least_general: 0.25, ..RoutingPolicy::default() };
        let beside = route(vec![("law".to_owned(), 5.0)], Some("general"), &held);
        assert!((beside.mixture[1].weight - 0.25).abs() < 1e-12, "{:?}", names(&beside));
        let cool = RoutingPolicy { temperature: 4.0, threshold: 0.6, ..RoutingPolicy::default() };
        assert!(route(logits(), Some("general"), &cool).out_of_domain);
        assert!(RoutingPolicy { temperature: f64::NAN, ..RoutingPolicy::default() }.problem().is_some());
        assert!(RoutingPolicy { top_k: 0, ..RoutingPolicy::default() }.problem().is_some());
        assert_eq!(policy.problem(), None);
    }
}
