//! The one object that an answer prints with `--json`.

use modularbase_engine::{
    Answer, ContextReport, FinishReason, MemoryReport, MixtureChange, MixturePart, OmittedPack, Timings,
};
use serde::Serialize;

/// An answer with everything about it.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerJson {
    text: String,
    token_ids: Vec<u32>,
    prompt_tokens: usize,
    /// Of these, tokens that were in the caches already.
    reused_tokens: usize,
    finish_reason: FinishReason,
    mixture: Vec<MixturePart>,
    /// Where another mixture went on within the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mixture_changes: Vec<MixtureChange>,
    /// Packs that were asked for and could not be had for the moment.
    omitted: Vec<OmittedPack>,
    /// Where its tokens are, where texts stay in a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextReport>,
    timings: Timings,
    memory: MemoryReport,
}

impl AnswerJson {
    pub(crate) fn new(answer: Answer, load_ms: f64, memory: MemoryReport) -> Self {
        Self {
            text: answer.text,
            token_ids: answer.token_ids,
            prompt_tokens: answer.prompt_tokens,
            reused_tokens: answer.reused_tokens,
            finish_reason: answer.finish_reason,
            mixture: answer.mixture,
            mixture_changes: answer.changes,
            omitted: answer.omitted,
            context: answer.context,
            timings: Timings { load_ms, ..answer.timings },
            memory,
        }
    }
}
