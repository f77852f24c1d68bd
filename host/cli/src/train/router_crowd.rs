//! How the router stands a crowd: many more keys beside the real ones, made of slices of the training prompts.

use std::time::Instant;

use modularbase_engine::PromptRows;
use modularbase_trainer::routing::LabelledFeature;
use router::{Detector, RouterWeights, logits, route};
use serde_json::{Value, json};

use super::router_measured::{HeldPrompt, Measured, Share};

/// Prompts of a slice.
const SLICE: usize = 24;

/// Every so-many-th prompt of the others is looked at for a slice's threshold.
const EVERY: usize = 7;

/// Detectors of `count` slices, in closed form: the direction from the mean prompt to the slice's own, and the smallest
/// threshold that keeps out the prompts of others. They have as many units as `like`, so that they cost as much.
pub(super) fn crowd(count: usize, prompts: &[LabelledFeature], like: &Detector) -> Vec<(String, Detector)> {
    // Slices of what is general, code or shell: where real packs are hardest to tell from others.
    let eligible = |prompt: &&LabelledFeature| {
        prompt.packs.is_empty() || prompt.packs == ["code"] || prompt.packs == ["shell"]
    };
    let pool: Vec<&LabelledFeature> = prompts.iter().filter(eligible).collect();
    if pool.len() < 2 * SLICE {
        return Vec::new();
    }
    let step = ((pool.len() - SLICE) / count.max(1)).max(1);
    let starts = (0..pool.len() - SLICE).step_by(step).take(count);
    starts.enumerate().map(|(at, start)| (format!("slice-{at}"), detector(&pool, start, like))).collect()
}

fn detector(pool: &[&LabelledFeature], start: usize, like: &Detector) -> Detector {
    let (units, inputs) = (like.units(), like.inputs());
    let own = &pool[start..start + SLICE];
    let mut direction = vec![0.0_f32; inputs];
    for prompt in own {
        direction.iter_mut().zip(prompt.feature.values()).for_each(|(sum, value)| *sum += value);
    }
    let length = direction.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    direction.iter_mut().for_each(|value| *value /= length);
    let along = |prompt: &LabelledFeature| -> f32 {
        direction.iter().zip(prompt.feature.values()).map(|(weight, value)| weight * value).sum()
    };
    let others = pool[..start].iter().chain(&pool[start + SLICE..]).step_by(EVERY);
    let threshold = others.map(|prompt| along(prompt)).fold(0.0_f32, f32::max);
    direction.resize(units * inputs, 0.0);
    let mut bias = vec![0.0; units];
    bias[0] = -threshold;
    Detector::new(&direction, bias, vec![1.0; units], -0.5)
}

/// What the real packs are worth beside the crowd, and what a prompt costs there.
pub(super) struct Crowded {
    /// Keys in all.
    keys: usize,
    /// Prompts of the real packs, alone and beside the crowd.
    alone: Share,
    beside: Share,
    /// Milliseconds from a prompt's hidden states to the mixture: the median, and what 95 of 100 prompts stay under.
    median: f64,
    most: f64,
    threads: usize,
    /// Bytes of the largest detector in memory.
    bytes: usize,
}

impl Crowded {
    /// Measures the real packs' prompts beside the crowd. `timed` are prompts as the base reads them.
    pub(super) fn of(
        real: &[(&str, &Detector)],
        crowd: &[(String, Detector)],
        held: &[HeldPrompt],
        router: &RouterWeights,
        timed: &[PromptRows],
        threads: usize,
    ) -> Self {
        let others = crowd.iter().map(|(name, detector)| (name.as_str(), detector));
        let all: Vec<(&str, &Detector)> = real.iter().copied().chain(others).collect();
        let policy = &router.facts.policy;
        let wanting: Vec<HeldPrompt> =
            held.iter().filter(|prompt| !prompt.labelled.packs.is_empty()).cloned().collect();
        let share = |detectors: &[(&str, &Detector)]| Measured::of(detectors, &wanting, policy).all();
        let detectors: Vec<&Detector> = all.iter().map(|(_, detector)| *detector).collect();
        let mut times: Vec<f64> = timed
            .iter()
            .map(|rows| {
                let started = Instant::now();
                let feature = router.feature(&rows.ids, &rows.hidden, &rows.embeddings);
                let scores = feature.map(|feature| logits(&detectors, &feature, threads)).unwrap_or_default();
                let scores = all.iter().zip(scores);
                let scores = scores.filter_map(|((name, _), score)| Some(((*name).to_owned(), score?)));
                std::hint::black_box(route(scores.collect(), None, policy));
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
        Self {
            keys: all.len(),
            alone: share(real),
            beside: share(&all),
            median: at(0.5),
            most: at(0.95),
            threads,
            bytes: detectors.iter().map(|detector| detector.bytes()).max().unwrap_or(0),
        }
    }

    /// As lines of a table.
    pub(super) fn lines(&self) -> Vec<Vec<String>> {
        let line = |what: &str, found: String| vec![what.to_owned(), found];
        vec![
            line("keys", self.keys.to_string()),
            line("prompts of the real packs", self.alone.prompts.to_string()),
            line("right without the crowd", format!("{:.1} %", self.alone.percent())),
            line("right beside it", format!("{:.1} %", self.beside.percent())),
            line("threads", self.threads.to_string()),
            line("a prompt over the prefill, median", format!("{:.2} ms", self.median)),
            line("95 of 100 prompts under", format!("{:.2} ms", self.most)),
            line("memory a key", format!("{} bytes", self.bytes)),
        ]
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        json!({
            "keys": self.keys, "prompts": self.alone.prompts, "alone": self.alone.percent(),
            "beside": self.beside.percent(), "threads": self.threads, "median_ms": self.median,
            "ms_of_95_percent": self.most, "bytes_a_key": self.bytes,
        })
    }
}
