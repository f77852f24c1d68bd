//! What columns write: greedy continuations of documents' beginnings.

use candle_core::Tensor;
use modularbase_corpus::TokenizedCorpus;
use serde::Serialize;

use super::Evaluator;
use crate::{Batch, TrainError};

/// How samples are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleOptions {
    /// Documents that are continued.
    pub documents: usize,
    /// Tokens of each that are read, the end of text in front left out.
    pub prompt: usize,
    /// Tokens that are written.
    pub tokens: usize,
}

/// A beginning and what columns make of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The document's id.
    pub document: String,
    /// Its beginning.
    pub prompt: String,
    /// How the document itself goes on.
    pub original: String,
    /// How each column does.
    pub continuations: Vec<Continuation>,
}

/// What one column wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Continuation {
    /// The column's name.
    pub column: String,
    /// Its text; it ends early where the column ended it.
    pub text: String,
}

impl Evaluator {
    /// Lets `columns` continue the first documents that are long enough, always with the most likely token. `decode`
    /// turns ids into text.
    ///
    /// # Errors
    /// The device fails.
    pub fn samples(
        &self,
        corpus: &TokenizedCorpus,
        columns: &[usize],
        options: SampleOptions,
        decode: &dyn Fn(&[u32]) -> String,
    ) -> Result<Vec<Sample>, TrainError> {
        let SampleOptions { documents, prompt, tokens } = options;
        let long: Vec<_> =
            corpus.documents().filter(|document| document.ids.len() > prompt).take(documents).collect();
        if long.is_empty() || tokens == 0 {
            return Ok(Vec::new());
        }
        let prompts: Vec<Vec<u32>> =
            long.iter().map(|document| [&[corpus.end_of_text()], &document.ids[..prompt]].concat()).collect();
        let mut samples: Vec<Sample> = long
            .iter()
            .map(|document| {
                let (read, rest) = document.ids.split_at(prompt);
                Sample {
                    document: document.id.to_owned(),
                    prompt: beginning(read, decode),
                    original: continuation(read, &rest[..rest.len().min(tokens)], decode),
                    continuations: Vec::new(),
                }
            })
            .collect();
        for &column in columns {
            let Some(name) = self.columns().nth(column).map(str::to_owned) else { continue };
            let written = self.continued(column, prompts.clone(), tokens)?;
            for ((sample, document), mut ids) in samples.iter_mut().zip(&long).zip(written) {
                if let Some(end) = ids.iter().position(|id| *id == corpus.end_of_text()) {
                    ids.truncate(end);
                }
                let text = continuation(&document.ids[..prompt], &ids, decode);
                sample.continuations.push(Continuation { column: name.clone(), text });
            }
        }
        Ok(samples)
    }

    /// The tokens that a column adds to texts of one length.
    fn continued(
        &self,
        column: usize,
        mut texts: Vec<Vec<u32>>,
        tokens: usize,
    ) -> Result<Vec<Vec<u32>>, TrainError> {
        let device = &self.base().compute().device;
        let before = texts.first().map_or(0, Vec::len);
        for _ in 0..tokens {
            let batch = Batch { sequences: texts.len(), length: texts[0].len() };
            let ids = Tensor::from_vec(texts.concat(), batch.rows(), device)?;
            let last: Vec<u32> =
                (1..=batch.sequences).map(|sequence| (sequence * batch.length - 1) as u32).collect();
            let last = Tensor::from_vec(last, batch.sequences, device)?;
            let mut next = Vec::new();
            self.each_column(&ids, batch, Some(&[column]), |_, normed, head| {
                let logits = normed.index_select(&last, 0)?.matmul(&head.to_dtype(normed.dtype())?.t()?)?;
                next = logits.argmax(1)?.to_vec1::<u32>()?;
                Ok(())
            })?;
            texts.iter_mut().zip(next).for_each(|(text, id)| text.push(id));
        }
        Ok(texts.into_iter().map(|text| text[before..].to_vec()).collect())
    }
}

/// The text of what was read, without the part of a character that a cut between two tokens may leave.
fn beginning(read: &[u32], decode: &dyn Fn(&[u32]) -> String) -> String {
    decode(read).trim_end_matches('\u{fffd}').to_owned()
}

/// The text of what follows it.
fn continuation(read: &[u32], ids: &[u32], decode: &dyn Fn(&[u32]) -> String) -> String {
    let whole = decode(&[read, ids].concat());
    whole.strip_prefix(&beginning(read, decode)).unwrap_or(&whole).to_owned()
}
