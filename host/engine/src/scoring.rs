//! How well the model predicts a text.

use modularbase_core::{Advance, CoreError, LogitRows, Mixture, Sequence};

use crate::{EngineError, Host, working_memory::Work};

/// Rows of logits that are held at once; a row is the size of the vocabulary.
pub(crate) const LOGIT_ROWS: usize = 128;

/// The loss over a text.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Score {
    /// Tokens predicted: all but the first of each window.
    pub tokens: usize,
    /// Mean of `-ln p(token | window so far)`, nats a token.
    pub mean_nll: f64,
}

/// Scores tokens in windows of `context` that do not overlap; each window starts without any past. A last window of a
/// single token predicts nothing. `progress(done, total)` counts tokens.
///
/// # Errors
/// Fewer than two tokens, a window longer than the base's context, or a failing device.
pub fn score(
    host: &Host,
    mixture: &Mixture,
    tokens: &[u32],
    context: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Score, EngineError> {
    let limit = host.core().shape().max_position;
    if context > limit {
        return Err(CoreError::ContextLength { tokens: context, limit }.into());
    }
    if tokens.len() < 2 || context < 2 {
        let text = format!(
            "scoring needs at least 2 tokens and windows of 2, found {} in windows of {context}",
            tokens.len()
        );
        return Err(EngineError::Option(text));
    }
    let mut sum = 0.0;
    let mut predicted = 0;
    let context = context.min(tokens.len());
    let _memory = host.reserve_kv(mixture, context)?;
    let work = Work { rows: LOGIT_ROWS, context, logit_rows: LOGIT_ROWS, window: None };
    let _working = host.begin_work(mixture, work)?;
    for (index, window) in tokens.chunks(context).enumerate() {
        progress(index * context, tokens.len());
        if window.len() < 2 {
            continue;
        }
        let mut sequence = Sequence::new(host.core(), mixture.clone());
        let inputs = &window[..window.len() - 1];
        for (piece, next) in inputs.chunks(LOGIT_ROWS).zip(window[1..].chunks(LOGIT_ROWS)) {
            let step = Advance { sequence: &mut sequence, tokens: piece, logits: LogitRows::All };
            let running = host.begin_step();
            let logits = host.core().advance(&mut [step])?.into_iter().flatten().next();
            drop(running);
            let logits = logits.map(|logits| logits.to_vec()).transpose()?.unwrap_or_default();
            let rows = logits.chunks_exact(host.core().shape().vocab_size);
            sum += rows.zip(next).map(|(row, &next)| loss(row, next)).sum::<f64>();
        }
        predicted += window.len() - 1;
    }
    progress(tokens.len(), tokens.len());
    Ok(Score { tokens: predicted, mean_nll: sum / predicted as f64 })
}

/// `ln sum exp(logits) - logits[token]`, nats.
pub(crate) fn loss(logits: &[f32], token: u32) -> f64 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
    f64::from(best) + sum.ln() - f64::from(logits[token as usize])
}
