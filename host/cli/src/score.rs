//! `score`: how well the model predicts a text.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use modularbase_engine::mixture_parts;
use serde_json::json;

use crate::arguments::ScoreArguments;
use crate::documents::Documents;
use crate::failure::Failure;
use crate::model::{self, Model, explain};
use crate::prompt::utf8;
use crate::settings::Settings;
use crate::terminal::{print_json, print_line, step_bar};

/// Prints the mean loss of a text in nats a token.
pub(crate) fn score(arguments: &ScoreArguments, settings: &Settings, started: Instant) -> anyhow::Result<()> {
    let input = Input::open(arguments)?;
    let model = model::load(settings, started)?;
    let context = arguments.context as usize;
    let wanted = arguments.max_tokens.map(|scored| tokens_to_read(scored as usize, context));
    let mut tokens = input.tokens(&model, wanted)?;
    tokens.truncate(wanted.unwrap_or(usize::MAX));
    let turn = model.turn(settings)?;
    let bar = step_bar("Scoring", tokens.len() as u64);
    let score =
        modularbase_engine::score(&model.host, turn.mixture(), &tokens, context, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        });
    bar.finish_and_clear();
    let score = score.map_err(explain)?;
    if settings.json {
        return print_json(&json!({
            "tokens": score.tokens,
            "mean_nll": score.mean_nll,
            "context": context,
            "mixture": mixture_parts(turn.mixture()),
        }));
    }
    let perplexity = score.mean_nll.exp();
    print_line(&format!(
        "{:.4} nats a token over {} tokens (perplexity {perplexity:.2})",
        score.mean_nll, score.tokens
    ))
}

/// What is scored.
enum Input {
    Text(String),
    Documents(Documents),
}

impl Input {
    /// Opens the file before anything slow is done, so that a wrong name is told at once.
    fn open(arguments: &ScoreArguments) -> anyhow::Result<Self> {
        match (&arguments.text, &arguments.jsonl) {
            (Some(path), _) => Ok(Self::Text(read_text(path)?)),
            (None, Some(path)) => Ok(Self::Documents(Documents::open(path)?)),
            (None, None) => Err(Failure::usage("say --text FILE or --jsonl FILE").into()),
        }
    }

    /// Its tokens, at least `wanted` of them if there are so many. Documents are joined by the end-of-text token.
    fn tokens(self, model: &Model, wanted: Option<usize>) -> anyhow::Result<Vec<u32>> {
        let tokenizer = model.host.tokenizer();
        let encode = |text: &str| tokenizer.encode(text, true).map_err(|error| explain(error.into()));
        let documents = match self {
            Self::Text(text) => return encode(&text),
            Self::Documents(documents) => documents,
        };
        let end =
            tokenizer.document_end().context("this base has no end-of-text token to join documents by")?;
        let mut tokens = Vec::new();
        for document in documents {
            let document = document?;
            if !tokens.is_empty() {
                tokens.push(end);
            }
            tokens.extend(encode(&document)?);
            if wanted.is_some_and(|wanted| tokens.len() >= wanted) {
                break;
            }
        }
        Ok(tokens)
    }
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).map_err(|error| {
        anyhow::Error::new(error).context(Failure::usage(format!("can't read {}", path.display())))
    })?;
    utf8(bytes, &path.display().to_string())
}

/// How many tokens windows of `context` must hold so that `scored` are predicted: each window's first is not.
fn tokens_to_read(scored: usize, context: usize) -> usize {
    let (windows, rest) = (scored / (context - 1), scored % (context - 1));
    windows * context + if rest > 0 { rest + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_counts_predicted_tokens() {
        let predicted = |tokens: usize, context: usize| {
            (0..tokens).collect::<Vec<_>>().chunks(context).map(|window| window.len() - 1).sum::<usize>()
        };
        for (scored, context) in [(1, 512), (511, 512), (512, 512), (1000, 7), (5, 2)] {
            assert_eq!(predicted(tokens_to_read(scored, context), context), scored, "{scored} {context}");
        }
    }
}
