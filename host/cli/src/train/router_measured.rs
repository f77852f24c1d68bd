//! What detectors are worth on prompts that they were not trained on: right choices, and how true their probabilities are.

use modularbase_trainer::routing::LabelledFeature;
use router::{Detector, Routing, RoutingPolicy, route};

/// Bins of the calibration errors.
const BINS: usize = 10;

/// The share of prompts that want no pack which a threshold may give one, where there is such a threshold.
const MOST_TAKEN: f64 = 0.03;

/// Prompts of fewer words are short.
const SHORT_WORDS: usize = 12;

/// A prompt that was not trained on.
#[derive(Debug, Clone)]
pub(super) struct HeldPrompt {
    /// What the router sees, and the packs that the prompt wants.
    pub(super) labelled: LabelledFeature,
    /// Its words.
    pub(super) words: usize,
}

/// Prompts of one kind, and for how many of them the choice was right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) prompts: usize,
    pub(super) right: usize,
}

impl Share {
    fn count(&mut self, right: bool) {
        self.prompts += 1;
        self.right += usize::from(right);
    }

    fn and(self, other: Self) -> Self {
        Self { prompts: self.prompts + other.prompts, right: self.right + other.right }
    }

    /// Percent of right choices.
    pub(super) fn percent(self) -> f64 {
        100.0 * self.right as f64 / self.prompts.max(1) as f64
    }

    /// The interval of 95 % of it, in percent (Wilson 1927).
    pub(super) fn interval(self) -> (f64, f64) {
        let (n, p, z) = (self.prompts.max(1) as f64, self.percent() / 100.0, 1.96);
        let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        (100.0 * (middle - half).max(0.0), 100.0 * (middle + half).min(1.0))
    }
}

/// How often the likeliest choice was the right one, and how true the probabilities were.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    /// For each pack by name, and last for no pack.
    pub(super) by_pack: Vec<(String, Share)>,
    /// For prompts of fewer than 12 words, and for longer ones.
    pub(super) by_length: [Share; 2],
    /// Expected calibration error (Guo et al. 2017) over every pair of a prompt and a pack.
    pub(super) pairs_error: f64,
    /// The same over each prompt's likeliest pack alone.
    pub(super) likeliest_error: f64,
}

impl Measured {
    /// Measures detectors by name.
    pub(super) fn of(detectors: &[(&str, &Detector)], held: &[HeldPrompt], policy: &RoutingPolicy) -> Self {
        let mut names: Vec<&str> = detectors.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let mut by_pack: Vec<_> = names.iter().map(|name| ((*name).to_owned(), Share::default())).collect();
        by_pack.push(("no pack".to_owned(), Share::default()));
        let mut by_length = [Share::default(); 2];
        let (mut pairs, mut likeliest) = (Calibration::default(), Calibration::default());
        for HeldPrompt { labelled, words } in held {
            let routing = routed(detectors, labelled, policy);
            for (rank, score) in routing.scores.iter().enumerate() {
                let wanted = labelled.packs.contains(&score.pack);
                pairs.count(score.probability, wanted);
                if rank == 0 {
                    likeliest.count(score.probability, wanted);
                }
            }
            let right = match routing.mixture.first() {
                Some(share) => labelled.packs.contains(&share.pack),
                None => labelled.packs.is_empty(),
            };
            let place = labelled.packs.first().and_then(|pack| names.iter().position(|name| name == pack));
            by_pack[place.unwrap_or(names.len())].1.count(right);
            by_length[usize::from(*words >= SHORT_WORDS)].count(right);
        }
        Self { by_pack, by_length, pairs_error: pairs.error(), likeliest_error: likeliest.error() }
    }

    /// All prompts.
    pub(super) fn all(&self) -> Share {
        self.by_pack.iter().fold(Share::default(), |sum, (_, share)| sum.and(*share))
    }

    /// Prompts that want no pack.
    pub(super) fn none(&self) -> Share {
        self.by_pack.last().map_or(Share::default(), |(_, share)| *share)
    }

    /// Prompts of one pack, and all others.
    pub(super) fn own_and_others(&self, pack: &str) -> (Share, Share) {
        self.by_pack.iter().fold(Default::default(), |(own, others): (Share, Share), (name, share)| {
            if name == pack { (own.and(*share), others) } else { (own, others.and(*share)) }
        })
    }
}

/// The choice for a prompt where there is no general pack.
pub(super) fn routed(
    detectors: &[(&str, &Detector)],
    prompt: &LabelledFeature,
    policy: &RoutingPolicy,
) -> Routing {
    let logits = detectors
        .iter()
        .filter_map(|(name, detector)| Some(((*name).to_owned(), detector.logit(&prompt.feature)?)));
    route(logits.collect(), None, policy)
}

/// Sums of what was said and of what was so, by how much was said.
#[derive(Default)]
struct Calibration {
    bins: [(usize, f64, f64); BINS],
}

impl Calibration {
    fn count(&mut self, probability: f64, wanted: bool) {
        let bin = &mut self.bins[((probability * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + probability, bin.2 + f64::from(u8::from(wanted)));
    }

    fn error(&self) -> f64 {
        let all = self.bins.iter().map(|(count, ..)| count).sum::<usize>().max(1) as f64;
        self.bins.iter().map(|(_, said, so)| (said - so).abs()).sum::<f64>() / all
    }
}

/// A policy with the temperature by which these detectors' probabilities are the likeliest, and the threshold with which
/// most choices are right among those that give a pack to few prompts that want none.
pub(super) fn calibrated(
    detectors: &[(&str, &Detector)],
    held: &[HeldPrompt],
    policy: RoutingPolicy,
) -> RoutingPolicy {
    if held.is_empty() {
        return policy;
    }
    let loss = |temperature: f64| -> f64 {
        let mut sum = 0.0;
        for HeldPrompt { labelled, .. } in held {
            for (name, detector) in detectors {
                let Some(logit) = detector.logit(&labelled.feature) else { continue };
                let wanted = labelled.packs.iter().any(|pack| pack == name);
                let against = if wanted { -logit } else { logit };
                sum += (against / temperature).exp().ln_1p();
            }
        }
        sum
    };
    let steps = (4..=40).map(|step| f64::from(step) / 20.0);
    let temperature = steps.map(|step| (loss(step), step)).min_by(|a, b| a.0.total_cmp(&b.0));
    let policy = RoutingPolicy { temperature: temperature.map_or(1.0, |(_, step)| step), ..policy };
    // In steps of a hundredth, from the middle outwards: of equal ones the least surprising.
    let steps = (0..=30).flat_map(|step| [50 + step, 50 - step]);
    let tried = steps.map(|hundredths| {
        let tried = RoutingPolicy { threshold: f64::from(hundredths) / 100.0, ..policy.clone() };
        let measured = Measured::of(detectors, held, &tried);
        let taken = 1.0 - measured.none().percent() / 100.0;
        ((taken <= MOST_TAKEN, measured.all().right), tried)
    });
    let best = tried.reduce(|best, tried| if tried.0 > best.0 { tried } else { best });
    best.map_or(policy, |(_, tried)| tried)
}

#[cfg(test)]
mod tests {
    use router::IntentFeature;

    use super::*;

    #[test]
    fn probabilities_that_come_true_have_no_calibration_error_and_others_theirs() {
        let mut true_ones = Calibration::default();
        for at in 0..10 {
            true_ones.count(0.7, at < 7);
            true_ones.count(0.25, at % 4 == 0 && at < 8 || at == 9);
        }
        // 0.25 was said ten times and came true three times.
        assert!((true_ones.error() - 0.5 / 20.0).abs() < 1e-9, "{}", true_ones.error());
        let mut wrong = Calibration::default();
        wrong.count(1.0, false);
        assert!((wrong.error() - 1.0).abs() < 1e-9);
        assert_eq!(Calibration::default().error().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn choices_are_counted_by_pack_and_by_length_and_a_prompt_without_pack_must_get_none() {
        // One value each: the detector wants what is above 1.
        let law = Detector::new(&[1.0], vec![0.0], vec![4.0], -4.0);
        let prompt = |value: f32, packs: &[&str], words| HeldPrompt {
            labelled: LabelledFeature {
                feature: IntentFeature::from_values([value]),
                packs: packs.iter().map(|pack| (*pack).to_owned()).collect(),
                weight: 1.0,
            },
            words,
        };
        let held = [
            prompt(3.0, &["law"], 3),
            prompt(0.5, &["law"], 40),
            prompt(0.0, &[], 4),
            prompt(2.0, &[], 12),
            prompt(0.2, &[], 2),
        ];
        let measured = Measured::of(&[("law", &law)], &held, &RoutingPolicy::default());
        let share = |prompts, right| Share { prompts, right };
        assert_eq!(measured.by_pack[0], ("law".to_owned(), share(2, 1)));
        assert_eq!((measured.none(), measured.all()), (share(3, 2), share(5, 3)));
        assert_eq!(measured.by_length, [share(3, 3), share(2, 0)]);
        assert_eq!(measured.own_and_others("law"), (share(2, 1), share(3, 2)));
        assert!((measured.pairs_error - measured.likeliest_error).abs() < 1e-12, "there is one pack");
    }

    #[test]
    fn the_interval_is_wilsons() {
        let (low, high) = Share { prompts: 540, right: 508 }.interval();
        assert!((low - 91.8).abs() < 0.05 && (high - 95.8).abs() < 0.05, "{low} {high}");
    }
}
