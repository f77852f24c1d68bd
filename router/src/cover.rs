//! From the parts of a long message to a mixture that covers all of them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::routing::{scored, weighted};
use crate::{PackScore, Routing, RoutingPolicy, route};

/// A part of a long message, as the detectors see it.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentLogits {
    /// Its first token, counted from the message's beginning.
    pub first: usize,
    /// Its tokens.
    pub tokens: usize,
    /// How it begins, for people.
    pub begins: String,
    /// The detectors' logits, `(name, log-odds)`.
    pub logits: Vec<(String, f64)>,
}

/// A part of a long message, and what it wants.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    /// Its first token, counted from the message's beginning.
    pub first: usize,
    /// Its tokens.
    pub tokens: usize,
    /// How it begins.
    pub begins: String,
    /// The pack that it wants; `None`: none.
    pub pack: Option<String>,
    /// The likeliest packs, the likeliest first.
    pub scores: Vec<PackScore>,
}

/// Scores of a segment that are told.
const TOLD: usize = 3;

/// As [`route`], for a message whose parts were looked at too: where several packs have a share of its tokens, the mixture
/// covers all of them, by their shares. Where they have not, the message as a whole decides.
pub fn cover(
    logits: Vec<(String, f64)>,
    segments: Vec<SegmentLogits>,
    general: Option<&str>,
    policy: &RoutingPolicy,
) -> Routing {
    let mut routing = route(logits, general, policy);
    let mut wanted: BTreeMap<String, f64> = BTreeMap::new();
    let mut all = 0.0;
    for SegmentLogits { first, tokens, begins, logits } in segments {
        let mut scores = scored(logits, policy);
        let sum: f64 = scores.iter().map(|score| score.probability).sum();
        for score in &scores {
            *wanted.entry(score.pack.clone()).or_default() +=
                tokens as f64 * score.probability / sum.max(1.0);
        }
        all += tokens as f64;
        let pack = scores.first().filter(|best| best.probability >= policy.threshold);
        let pack = pack.map(|best| best.pack.clone());
        scores.truncate(TOLD);
        routing.segments.push(Segment { first, tokens, begins, pack, scores });
    }
    let mut shares: Vec<(String, f64)> =
        wanted.into_iter().map(|(pack, tokens)| (pack, tokens / all)).collect();
    shares.retain(|(_, share)| *share >= policy.segment_share);
    shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    shares.truncate(policy.segment_top_k);
    if shares.len() < 2 {
        return routing;
    }
    routing.reason = {
        let parts: Vec<String> =
            shares.iter().map(|(pack, share)| format!("{pack} {:.0} %", 100.0 * share)).collect();
        format!("its parts want several packs: {}", parts.join(", "))
    };
    routing.mixture = weighted(&shares, 0.0, general, policy);
    routing.out_of_domain = false;
    routing.with_nearest(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(of: &[(&str, f64)]) -> Vec<(String, f64)> {
        of.iter().map(|(name, logit)| ((*name).to_owned(), *logit)).collect()
    }

    /// Parts of equal length that each want one pack for sure, `none` none.
    fn covered(whole: &[(&str, f64)], parts: &[&str], policy: &RoutingPolicy) -> Routing {
        let all = ["code", "law", "math"];
        let segment = |(at, wanted): (usize, &&str)| SegmentLogits {
            first: 10 * at,
            tokens: 10,
            begins: format!("part {at}"),
            logits: all.map(|pack| (pack.to_owned(), if pack == *wanted { 8.0 } else { -8.0 })).to_vec(),
        };
        let segments = parts.iter().enumerate().map(segment).collect();
        cover(logits(whole), segments, Some("general"), policy)
    }

    fn names(routing: &Routing) -> Vec<&str> {
        routing.mixture.iter().map(|share| share.pack.as_str()).collect()
    }

    #[test]
    fn every_pack_with_a_share_of_the_tokens_is_used_by_its_share() {
        let whole = [("law", 3.0), ("code", -2.0), ("math", -3.0)];
        let policy = RoutingPolicy { segment_share: 0.2, sharpness: 1.0, ..RoutingPolicy::default() };
        let routing = covered(&whole, &["law", "law", "code", "law", "math", "code"], &policy);
        assert_eq!(names(&routing), ["law", "code"], "math has a sixth");
        assert!((routing.mixture[0].weight - 0.6).abs() < 0.01, "{:?}", routing.mixture);
        assert!(routing.reason.contains("law 50 %, code 33 %"), "{}", routing.reason);
        assert_eq!(routing.segments.len(), 6);
        assert_eq!((routing.segments[2].first, routing.segments[2].pack.as_deref()), (20, Some("code")));
        let many = RoutingPolicy { segment_share: 0.1, top_k: 1, ..policy.clone() };
        let parts = ["law", "law", "code", "law", "math", "code"];
        assert_eq!(names(&covered(&whole, &parts, &many)), ["law", "code", "math"], "beyond top_k");
        let few = RoutingPolicy { segment_top_k: 2, ..many };
        assert_eq!(names(&covered(&whole, &parts, &few)), ["law", "code"]);
    }

    #[test]
    fn where_one_pack_or_none_has_a_share_the_message_as_a_whole_decides() {
        let policy = RoutingPolicy { segment_share: 0.2, ..RoutingPolicy::default() };
        let plain = route(logits(&[("law", 3.0)]), Some("general"), &policy);
        let parts = ["law", "law", "law", "none", "law", "code", "law"];
        let routing = covered(&[("law", 3.0)], &parts, &policy);
        assert_eq!((&routing.mixture, &routing.reason), (&plain.mixture, &plain.reason));
        assert!(covered(&[("law", -3.0)], &["none"; 4], &policy).out_of_domain);
        assert!(covered(&[("law", -3.0)], &["none", "none", "law"], &policy).out_of_domain);
    }
}
