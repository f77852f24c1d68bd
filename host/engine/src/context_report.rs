//! Which tokens of a text are hot and which cold, and what they take.

use modularbase_context::ContextOptions;
use modularbase_core::{BaseCore, Context, ContextTokens, Sequence, WindowShape};
use serde::Serialize;

use crate::EngineError;

/// Where the tokens of a text in a window are, and what they take.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ContextReport {
    /// Tokens of the text.
    pub tokens: usize,
    /// At full precision, the sinks included.
    pub hot_tokens: usize,
    /// In quantized blocks.
    pub cold_tokens: usize,
    /// Of these, attended to in the last step, by the first layer.
    pub retrieved_tokens: usize,
    /// Cold blocks, each layer's counted.
    pub cold_blocks: usize,
    /// Of these, kept whole for the attention that they got.
    pub critical_blocks: usize,
    /// Of these, means alone, for want of attention.
    pub redundant_blocks: usize,
    /// Bytes of the caches, as the answer ended.
    pub hot_bytes: u64,
    /// Bytes in memory of decoded cold blocks, of those that wait to be written, and of what is known of all.
    pub ram_bytes: u64,
    /// Bytes of all cold blocks, as they are stored.
    pub disk_bytes: u64,
    /// Share of the cold blocks asked for that were decoded in memory; `None` where none was asked for.
    pub hit_rate: Option<f64>,
}

impl ContextReport {
    /// Of an attached sequence; `None` where it has no window.
    pub(crate) fn of(sequence: &Sequence) -> Option<Self> {
        let ContextTokens { tokens, hot, cold, retrieved, store } = sequence.context_tokens()?;
        let asked = store.hits + store.misses;
        Some(Self {
            tokens,
            hot_tokens: hot,
            cold_tokens: cold,
            retrieved_tokens: retrieved,
            cold_blocks: store.blocks,
            critical_blocks: store.critical_blocks,
            redundant_blocks: store.redundant_blocks,
            hot_bytes: sequence.bytes() as u64,
            ram_bytes: store.memory_bytes(),
            disk_bytes: store.stored_bytes,
            hit_rate: (asked > 0).then(|| store.hits as f64 / asked as f64),
        })
    }
}

/// Refuses a window that this base can't keep its texts in.
pub(crate) fn check(options: &ContextOptions, core: &BaseCore) -> Result<(), EngineError> {
    let checked = WindowShape::new(options, core.shape().max_position);
    let refused = |reason: String| Err(EngineError::Option(format!("[context]: {reason}")));
    match (checked, options.check()) {
        (Err(error), _) => refused(error.to_string()),
        (_, Err(error)) => refused(error.to_string()),
        _ => Ok(()),
    }
}

/// Bytes of memory that the cold blocks of a text of `tokens` tokens may take.
pub(crate) fn cold_bytes(context: &Context, options: &ContextOptions, tokens: usize) -> u64 {
    if tokens > context.shape.whole() { options.memory_bytes() } else { 0 }
}
