//! Choosing the next token from logits.
//!
//! The order is that of Hugging Face's generation: repetition penalty, temperature, top-k, top-p, min-p, then
//! a draw. Each filter works on what the one before it kept, renormalized.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 takes the likeliest token always (greedy).
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of likeliest tokens whose probability reaches `top_p` (Holtzman et al. 2019);
    /// 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than `min_p` times the likeliest (Nguyen et al. 2024); 0 keeps all.
    pub min_p: f32,
    /// Positive logits of recent tokens are divided by it and negative ones multiplied (Keskar et al. 2019,
    /// section 4.1); 1 changes nothing.
    pub repetition_penalty: f32,
    /// How many of the last tokens count as recent; 0 for all that are given.
    pub repetition_window: usize,
    /// The same seed gives the same draws on every machine.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// The likeliest token always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, ..Self::default() }
    }

    /// Whether no draw is made.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    fn check(&self) -> Result<(), SamplingError> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 100.0, "from 0 (greedy) to 100"),
            ("top-p", self.top_p, f32::MIN_POSITIVE, 1.0, "above 0 and at most 1"),
            ("min-p", self.min_p, 0.0, 1.0, "from 0 to 1"),
            ("repetition penalty", self.repetition_penalty, 0.01, 100.0, "from 0.01 to 100"),
        ];
        for (option, value, low, high, expected) in ranges {
            // A NaN is in no range.
            if !(low..=high).contains(&value) {
                return Err(SamplingError::Option { option, expected, found: value });
            }
        }
        Ok(())
    }
}

/// Why no token can be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    #[error("{option} should be {expected}, found {found}")]
    Option { option: &'static str, expected: &'static str, found: f32 },

    /// The model's output is broken: damaged weights, or a pack that computes nonsense.
    #[error("the logit of token {token} is {value}; the weights in use are damaged or a pack is faulty")]
    NotFinite { token: usize, value: f32 },

    #[error("there are no logits to choose from")]
    Empty,
}

/// Chooses tokens one after another; its random stream moves on with each draw.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    random: ChaCha8Rng,
    /// Logits under penalty and temperature with their tokens; kept for its memory.
    candidates: Vec<(f32, u32)>,
    /// For the penalty: the recent tokens, each once.
    recent: Vec<u32>,
}

impl Sampler {
    /// Errors: an option out of range.
    pub fn new(options: SamplingOptions) -> Result<Self, SamplingError> {
        options.check()?;
        let random = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { options, random, candidates: Vec::new(), recent: Vec::new() })
    }

    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// The next token for `logits` `[vocab]`; `history` holds the sequence so far, prompt included.
    ///
    /// Of equal logits the token with the lower id is taken first, so that greedy answers do
    /// not depend on the order of a search.
    ///
    /// Errors: a logit that is NaN or infinite; no logits.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SamplingError> {
        check_finite(logits)?;
        self.collect_recent(history, logits.len());
        if self.options.is_greedy() {
            return Ok(self.likeliest(logits));
        }
        self.fill_candidates(logits);
        self.keep_top_k();
        let total = self.keep_top_p();
        self.draw(total)
    }

    fn collect_recent(&mut self, history: &[u32], vocab: usize) {
        self.recent.clear();
        if self.options.repetition_penalty == 1.0 {
            return;
        }
        let window = match self.options.repetition_window {
            0 => history.len(),
            window => window.min(history.len()),
        };
        self.recent.extend_from_slice(&history[history.len() - window..]);
        self.recent.retain(|token| (*token as usize) < vocab);
        self.recent.sort_unstable();
        self.recent.dedup();
    }

    fn penalized(&self, logit: f32) -> f32 {
        let penalty = self.options.repetition_penalty;
        if logit > 0.0 { logit / penalty } else { logit * penalty }
    }

    fn likeliest(&self, logits: &[f32]) -> u32 {
        if self.recent.is_empty() {
            let largest = largest(logits);
            return logits.iter().position(|logit| *logit == largest).unwrap_or(0) as u32;
        }
        let mut best = (f32::NEG_INFINITY, 0);
        let mut recent = self.recent.iter().copied().peekable();
        for (token, logit) in logits.iter().enumerate() {
            let mut logit = *logit;
            if recent.next_if_eq(&(token as u32)).is_some() {
                logit = self.penalized(logit);
            }
            if logit > best.0 {
                best = (logit, token as u32);
            }
        }
        best.1
    }

    fn fill_candidates(&mut self, logits: &[f32]) {
        let scale = 1.0 / self.options.temperature;
        self.candidates.clear();
        self.candidates.extend(logits.iter().zip(0u32..).map(|(logit, token)| (*logit, token)));
        for index in 0..self.recent.len() {
            let token = self.recent[index] as usize;
            self.candidates[token].0 = self.penalized(self.candidates[token].0);
        }
        // Relative to the largest, so that a tiny temperature can't overflow.
        let largest = self.candidates.iter().map(|candidate| candidate.0).fold(f32::NEG_INFINITY, f32::max);
        // min-p before the softmax: p_i / p_max = exp(l_i - l_max). Top-k keeps the likeliest, so cutting the
        // tail first leaves the same tokens; top-p would measure another total, so then the cut waits.
        let threshold = if self.options.top_p < 1.0 { f32::NEG_INFINITY } else { self.options.min_p.ln() };
        self.candidates.retain_mut(|candidate| {
            candidate.0 = (candidate.0 - largest) * scale;
            candidate.0 >= threshold
        });
    }

    fn keep_top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier_first);
            self.candidates.truncate(k);
            // The draw must not depend on how the selection moved things about.
            self.candidates.sort_unstable_by(likelier_first);
        }
    }

    /// Turns logits into unnormalized probabilities, applies top-p and min-p, and returns what is left of the
    /// total. Sorts only as far down as the nucleus reaches.
    fn keep_top_p(&mut self) -> f32 {
        for candidate in &mut self.candidates {
            candidate.0 = candidate.0.exp();
        }
        let all: f32 = self.candidates.iter().map(|candidate| candidate.0).sum();
        if self.options.top_p >= 1.0 {
            return all;
        }
        let wanted = all * self.options.top_p;
        let (mut sorted, mut reached, mut block) = (0, 0.0, 64);
        let mut kept = 0;
        while kept < self.candidates.len() && (reached < wanted || kept == 0) {
            if kept == sorted {
                let rest = &mut self.candidates[sorted..];
                let next = block.min(rest.len());
                if next < rest.len() {
                    rest.select_nth_unstable_by(next - 1, likelier_first);
                }
                rest[..next].sort_unstable_by(likelier_first);
                sorted += next;
                block *= 4;
            }
            reached += self.candidates[kept].0;
            kept += 1;
        }
        self.candidates.truncate(kept);
        // The likeliest has probability exp(0) = 1 before normalization.
        let least = self.options.min_p;
        self.candidates.retain(|candidate| candidate.0 >= least);
        self.candidates.iter().map(|candidate| candidate.0).sum()
    }

    fn draw(&mut self, total: f32) -> Result<u32, SamplingError> {
        // 24 bits fill an f32's mantissa: uniform in [0, 1).
        let uniform = (self.random.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        let mut left = uniform * total;
        for (probability, token) in &self.candidates {
            if left < *probability {
                return Ok(*token);
            }
            left -= probability;
        }
        // Rounding can leave a sliver behind the last one.
        self.candidates.last().map(|candidate| candidate.1).ok_or(SamplingError::Empty)
    }
}

/// In lanes that do not wait for each other.
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 32];
    let (chunks, rest) = values.as_chunks::<32>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

fn check_finite(logits: &[f32]) -> Result<(), SamplingError> {
    if logits.is_empty() {
        return Err(SamplingError::Empty);
    }
    // All bits of the exponent set: NaN or infinite. One pass without branches.
    const EXPONENT: u32 = 0x7f80_0000;
    let any_bad = logits.iter().fold(false, |bad, logit| bad | (logit.to_bits() & EXPONENT == EXPONENT));
    if !any_bad {
        return Ok(());
    }
    let bad = logits.iter().enumerate().find(|(_, logit)| !logit.is_finite());
    bad.map_or(Ok(()), |(token, value)| Err(SamplingError::NotFinite { token, value: *value }))
}

/// A total order in which the token's id breaks ties, so that a partial selection keeps the same set whatever
/// the order was before.
fn likelier_first(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
