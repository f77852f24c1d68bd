//! A message as the router reads it: what lies in front of the slot, as a whole and in parts.

use std::ops::Range;

use modularbase_core::{Activations, BaseCore, Tokenizer};
use router::cut;

use crate::EngineError;

/// Tokens that are read at once.
const WINDOW: usize = 512;

/// Windows of a long message that are read, spread evenly over it.
const WINDOWS: usize = 4;

/// Characters of a part that are shown.
const SHOWN: usize = 40;

/// What a router makes a prompt's feature of: the last tokens of the text, what they are in front of the slot, and their
/// embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRows {
    /// Tokens.
    pub ids: Vec<u32>,
    /// `h_s`, `[tokens, hidden]` row by row.
    pub hidden: Vec<f32>,
    /// The tokens' embeddings, `[tokens, hidden]` row by row.
    pub embeddings: Vec<f32>,
}

impl PromptRows {
    /// Reads the end of a text by itself, without a chat template.
    ///
    /// # Errors
    /// No text, text that the tokenizer can't handle, a failing device.
    pub fn of_text(core: &BaseCore, tokenizer: &Tokenizer, text: &str) -> Result<Self, EngineError> {
        Self::of_tokens(core, &tokenizer.encode_prompt(text, false)?)
    }

    pub(crate) fn of_tokens(core: &BaseCore, ids: &[u32]) -> Result<Self, EngineError> {
        if ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let ids = &ids[ids.len().saturating_sub(WINDOW.min(core.shape().max_position))..];
        let hidden = core.hidden_before_slot(ids)?.to_vec()?;
        let embeddings = core.embeddings(ids)?.to_vec()?;
        Ok(Self { ids: ids.to_vec(), hidden, embeddings })
    }

    /// Tokens that are read already, with their hidden states `[tokens, hidden]`; special tokens stand for no text and are
    /// left out. `None`: nothing is left.
    pub(crate) fn of_known(
        core: &BaseCore,
        tokenizer: &Tokenizer,
        ids: &[u32],
        hidden: &Activations,
    ) -> Result<Option<Self>, EngineError> {
        let rows = hidden.to_vec()?;
        let said =
            ids.iter().zip(rows.chunks_exact(hidden.width())).filter(|(id, _)| !tokenizer.is_special(**id));
        let (ids, hidden): (Vec<u32>, Vec<&[f32]>) = said.map(|(id, row)| (*id, row)).unzip();
        if ids.is_empty() {
            return Ok(None);
        }
        let embeddings = core.embeddings(&ids)?.to_vec()?;
        Ok(Some(Self { ids, hidden: hidden.concat(), embeddings }))
    }

    /// The ids, hidden states and embeddings of some of its tokens.
    pub(crate) fn part(&self, tokens: Range<usize>) -> (&[u32], &[f32], &[f32]) {
        let width = self.hidden.len() / self.ids.len();
        let rows = tokens.start * width..tokens.end * width;
        (&self.ids[tokens], &self.hidden[rows.clone()], &self.embeddings[rows])
    }
}

/// The windows of a message of so many tokens that are read, in their order: all of it where it is short enough, else
/// evenly spread ones, of which the last ends with the message.
pub(crate) fn windows(tokens: usize) -> Vec<Range<usize>> {
    let count = tokens.div_ceil(WINDOW).min(WINDOWS);
    let window = |index: usize| match count {
        1 => 0..tokens,
        _ if tokens <= WINDOW * WINDOWS => index * tokens / count..(index + 1) * tokens / count,
        _ => {
            let first = index * (tokens - WINDOW) / (count - 1);
            first..first + WINDOW
        }
    };
    (0..count).map(window).collect()
}

/// The parts of a window of a message, about `target` tokens each, and how each begins.
pub(crate) fn parts(tokenizer: &Tokenizer, ids: &[u32], target: usize) -> Vec<(Range<usize>, String)> {
    let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(ids.len()));
    for id in ids {
        tokenizer.append_token_bytes(*id, &mut text);
        ends.push(text.len());
    }
    let begin = |part: &Range<usize>| {
        let first = if part.start == 0 { 0 } else { ends[part.start - 1] };
        let text = String::from_utf8_lossy(&text[first..ends[part.end - 1]]);
        let words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1);
        words.collect::<String>().chars().take(SHOWN).collect()
    };
    cut(&text, &ends, target).into_iter().map(|part| (part.clone(), begin(&part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_whole_and_of_a_long_one_windows_from_end_to_end() {
        for tokens in [1, 512] {
            assert_eq!(windows(tokens), std::slice::from_ref(&(0..tokens)));
        }
        assert_eq!(windows(600), [0..300, 300..600]);
        assert_eq!(windows(2048), [0..512, 512..1024, 1024..1536, 1536..2048]);
        assert_eq!(windows(8192), [0..512, 2560..3072, 5120..5632, 7680..8192]);
        assert!(windows(0).is_empty());
    }
}
