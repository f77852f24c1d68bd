//! From scores to the packs of a turn.

use serde::Serialize;

/// How scores become a mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

impl Default for RoutingPolicy {
    fn default() -> Self {
        Self { threshold: 0.5, top_k: 2, beside: 0.6, sure: 0.8 }
    }
}

/// What the router says of one pack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackScore {
    /// Its name.
    pub pack: String,
    /// The log-odds of its detector.
    pub score: f64,
    /// The same as a probability: that it is wanted, whatever is said of others.
    pub probability: f64,
}

/// The packs chosen for a prompt, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Routing {
    /// Packs with weights `> 0` that sum to 1; empty where the base answers alone.
    pub mixture: Vec<MixtureShare>,
    /// Every pack that has a detector, the likeliest first.
    pub scores: Vec<PackScore>,
    /// Whether no pack is wanted: the general pack answers.
    pub out_of_domain: bool,
    /// The choice in words.
    pub reason: String,
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
pub fn route(logits: Vec<(String, f64)>, general: Option<&str>, policy: RoutingPolicy) -> Routing {
    let mut scores: Vec<PackScore> = logits
        .into_iter()
        .map(|(pack, score)| PackScore { pack, score, probability: 1.0 / (1.0 + (-score).exp()) })
        .collect();
    // Of equal scores the name decides, so that the choice never depends on the order of registration.
    scores.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.pack.cmp(&b.pack)));
    let general_share = |weight| general.map(|name| MixtureShare { pack: name.to_owned(), weight });
    let Some(best) = scores.first().filter(|best| best.probability >= policy.threshold).cloned() else {
        let reason = match scores.first() {
            Some(best) => format!(
                "no pack reaches {:.2}; the nearest is {} with {:.2}",
                policy.threshold, best.pack, best.probability
            ),
            None => "no pack has a detector for this base".to_owned(),
        };
        return Routing {
            mixture: general_share(1.0).into_iter().collect(),
            scores,
            out_of_domain: true,
            reason,
        };
    };
    let chosen: Vec<&PackScore> = scores
        .iter()
        .take(policy.top_k.max(1))
        .filter(|score| score.probability >= policy.threshold.max(policy.beside * best.probability))
        .collect();
    let sum: f64 = chosen.iter().map(|score| score.probability).sum();
    let rest = if best.probability < policy.sure && general.is_some() { 1.0 - best.probability } else { 0.0 };
    let share = |score: &&PackScore| MixtureShare {
        pack: score.pack.clone(),
        weight: (1.0 - rest) * score.probability / sum,
    };
    let mut mixture: Vec<MixtureShare> = chosen.iter().map(share).collect();
    if rest > 0.0 {
        mixture.extend(general_share(rest));
    }
    let reason = match chosen.len() {
        1 => format!("{} is wanted with {:.2}", best.pack, best.probability),
        _ => "several packs are wanted at once".to_owned(),
    };
    Routing { mixture, scores, out_of_domain: false, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(logits: &[(&str, f64)]) -> Routing {
        let logits = logits.iter().map(|(name, logit)| (name.to_string(), *logit)).collect();
        route(logits, Some("general"), RoutingPolicy::default())
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
        assert!(route(Vec::new(), None, RoutingPolicy::default()).mixture.is_empty());
    }

    #[test]
    fn two_packs_that_are_both_wanted_share_the_turn() {
        let routing = routed(&[("german", 3.0), ("law", 2.0), ("code", 1.9)]);
        assert_eq!(routing.mixture.len(), 2);
        assert_eq!(routing.mixture[0].pack, "german");
        assert!(routing.mixture[0].weight > routing.mixture[1].weight);
    }

    #[test]
    fn a_pack_that_leaves_changes_no_other_score_and_the_order_of_registration_none() {
        let with = routed(&[("law", 1.0), ("code", 1.0), ("math", 2.0)]);
        let without = routed(&[("code", 1.0), ("law", 1.0)]);
        assert_eq!(with.scores[1..], without.scores[..], "to the bit");
        assert_eq!(without.scores[0].pack, "code", "of equal ones the name decides");
    }
}
