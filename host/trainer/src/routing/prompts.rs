//! Prompts as users might write them, cut from documents.

use std::fmt;

use modularbase_core::{ChatMessage, Tokenizer};
use modularbase_corpus::{TokenizedCorpus, TokenizedDocument, shuffled};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::TrainError;

/// How a prompt is put to the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PromptForm {
    /// As it is, to be continued.
    Raw,
    /// As a user's message, by the base's chat template, up to where the answer begins.
    Chat,
}

/// A prompt as the base reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// How it is put.
    pub form: PromptForm,
    /// Tokens of the text itself.
    pub length: usize,
    /// Everything that the base reads, at least two ids.
    pub ids: Vec<u32>,
}

/// Which prompts are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptOptions {
    /// Prompts of each form.
    pub each_form: usize,
    /// The fewest and the most tokens of the text; lengths between them are equally likely on a logarithmic scale.
    pub lengths: (usize, usize),
    /// What all choices follow from.
    pub seed: u64,
}

impl fmt::Display for PromptForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Chat => "chat",
        })
    }
}

impl PromptForm {
    /// What the base reads of a text in this form.
    fn ids(self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, TrainError> {
        match self {
            Self::Raw => Ok(tokenizer.encode_prompt(text, false)?),
            Self::Chat => {
                let rendered = tokenizer.render_chat(&[ChatMessage::new("user", text)], true)?;
                Ok(tokenizer.encode(&rendered.text, true)?)
            }
        }
    }
}

/// Prompts from documents of all these corpora; a base without a chat template gets raw ones alone. Every document has
/// its turn before one has its second.
///
/// # Errors
/// No document is as long as the shortest prompt, or the tokenizer fails.
pub fn prompts(
    corpora: &[&TokenizedCorpus],
    tokenizer: &Tokenizer,
    options: PromptOptions,
) -> Result<Vec<Prompt>, TrainError> {
    let (shortest, longest) = (options.lengths.0.max(2), options.lengths.1.max(options.lengths.0.max(2)));
    let documents: Vec<TokenizedDocument<'_>> = corpora
        .iter()
        .flat_map(|corpus| corpus.documents())
        .filter(|document| document.ids.len() >= shortest)
        .collect();
    if documents.is_empty() {
        return Err(TrainError::evaluation(format!(
            "no document has {shortest} tokens: routing keys are made of prompts of at least as many"
        )));
    }
    let forms = [PromptForm::Raw, PromptForm::Chat];
    let forms = if tokenizer.has_chat_template() { &forms[..] } else { &forms[..1] };
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    // In [0, 1).
    let mut uniform = || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut order = Vec::new();
    let mut prompts = Vec::with_capacity(forms.len() * options.each_form);
    let (mut turn, mut round) = (0, 0);
    // Texts of which nothing is left are rare; a corpus of nothing else must not hold this up for ever.
    let most_turns = 4 * forms.len() * options.each_form;
    while prompts.len() < forms.len() * options.each_form && turn < most_turns {
        let form = forms[prompts.len() % forms.len()];
        let place = turn % documents.len();
        if place == 0 {
            order = shuffled(documents.len(), options.seed, round);
            round += 1;
        }
        turn += 1;
        let ids = documents[order[place]].ids;
        let ratio = longest as f64 / shortest as f64;
        let length = (shortest as f64 * ratio.powf(uniform())).round() as usize;
        let length = length.min(ids.len());
        let start = (uniform() * (ids.len() - length + 1) as f64) as usize;
        let text = tokenizer.decode(&ids[start..start + length]);
        // A cut may have gone through a character.
        let text = text.trim_matches('\u{fffd}').trim();
        let ids = form.ids(text, tokenizer)?;
        if !text.is_empty() && ids.len() >= 2 {
            prompts.push(Prompt { form, length, ids });
        }
    }
    Ok(prompts)
}
