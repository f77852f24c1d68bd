//! Windows of documents for evaluation: every token is scored exactly once.

use crate::packed_rows::LossOn;
use crate::tokenized_corpus::TokenizedCorpus;

/// A stretch of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Index of the document in the corpus: what a bootstrap draws.
    pub document: usize,
    /// The id before the first target (the end of text before the first window of a document), then the targets:
    /// 2 to `length + 1` ids.
    pub ids: Vec<u32>,
    /// For each target whether it counts.
    pub counts: Vec<bool>,
}

impl Window {
    /// What the model reads: all ids but the last.
    pub fn inputs(&self) -> &[u32] {
        &self.ids[..self.ids.len() - 1]
    }

    /// What it is to predict: all ids but the first.
    pub fn targets(&self) -> &[u32] {
        &self.ids[1..]
    }
}

/// The documents of `corpus` in order, each in consecutive windows of at most `length` targets. A document's first
/// token is predicted from an end of text, the first of a later window from the token before it alone. `loss_on`
/// says what counts; windows without anything that counts are left out.
///
/// # Panics
/// `length` is 0.
pub fn windows(
    corpus: &TokenizedCorpus,
    length: usize,
    loss_on: LossOn,
) -> impl Iterator<Item = Window> + '_ {
    assert!(length > 0, "a window holds at least one target");
    corpus.documents().enumerate().flat_map(move |(index, document)| {
        (0..document.ids.len()).step_by(length).filter_map(move |start| {
            let end = document.ids.len().min(start + length);
            let counts: Vec<bool> = (start..end).map(|at| loss_on.counts(&document, at)).collect();
            if !counts.contains(&true) {
                return None;
            }
            let before = start.checked_sub(1).map_or(corpus.end_of_text(), |at| document.ids[at]);
            let ids = std::iter::once(before).chain(document.ids[start..end].iter().copied()).collect();
            Some(Window { document: index, ids, counts })
        })
    })
}
