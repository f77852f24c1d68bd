//! What an answer is made of.

use serde::Serialize;

use crate::{ContextReport, OmittedPack};

/// Where an answer ends at the latest.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerLimits {
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop text came.
    Stop,
    /// The longest allowed answer, or the end of the context.
    Length,
    /// The user stopped it.
    Cancelled,
}

/// One part of the mixture that answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixturePart {
    /// The pack's name; `base` for the base's own layers without any pack.
    pub pack: String,
    /// Its generation, 64 hex digits; `base` likewise.
    pub generation: String,
    /// Its share, the sum over all parts being 1.
    pub weight: f32,
}

/// A change of the mixture within an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixtureChange {
    /// The first token of the answer that it wrote, counted from 0.
    pub token: usize,
    /// What answered from there on.
    pub mixture: Vec<MixturePart>,
    /// Why, in words.
    pub reason: String,
}

/// Where an answer's time went, milliseconds and tokens a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Timings {
    /// From the start of the process to a base that can answer.
    pub load_ms: f64,
    /// From the prompt to the first token's logits.
    pub prefill_ms: f64,
    /// From there to the end.
    pub decode_ms: f64,
    /// New prompt tokens (those not in the cache already) by `prefill_ms`.
    pub prefill_tokens_per_s: f64,
    /// Tokens of the answer after the first by `decode_ms`.
    pub decode_tokens_per_s: f64,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Its tokens, an end token included.
    pub token_ids: Vec<u32>,
    /// Tokens of the prompt, the chat template's included.
    pub prompt_tokens: usize,
    /// Of these, tokens that were in the caches already.
    pub reused_tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What answered, up to the first change.
    pub mixture: Vec<MixturePart>,
    /// Where another mixture went on, in order.
    pub changes: Vec<MixtureChange>,
    /// Packs that were asked for and could not be had for the moment.
    pub omitted: Vec<OmittedPack>,
    /// Where its tokens are, where the session has a window.
    pub context: Option<ContextReport>,
    /// Where the time went; `load_ms` is left at 0 for the caller, who knows when it started.
    pub timings: Timings,
}
