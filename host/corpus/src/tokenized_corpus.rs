//! A corpus as token ids, in memory.

use std::path::Path;

use crate::encoder::Encoder;
use crate::encoding::encode_all;
use crate::error::CorpusError;
use crate::progress::Progress;
use crate::token_file::{TableBuilder, TokenTable};
use crate::{Document, EncodedConversation};

/// Documents as token ids. Four bytes a token in memory, and one bit more where it holds conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedCorpus {
    pub(crate) end_of_text: u32,
    pub(crate) ids: Vec<u32>,
    /// One bit a token, the lowest bit first; empty when no document is a conversation.
    pub(crate) answers: Vec<u8>,
    pub(crate) table: TokenTable,
    /// Where each document's ids begin, and the end of the last.
    pub(crate) starts: Vec<u64>,
}

/// One document of a [`TokenizedCorpus`].
#[derive(Debug, Clone, Copy)]
pub struct TokenizedDocument<'a> {
    /// As in [`Document`].
    pub id: &'a str,
    /// As in [`Document`].
    pub group: Option<&'a str>,
    /// As in [`Document`].
    pub source: Option<&'a str>,
    /// As in [`Document`].
    pub license: Option<&'a str>,
    /// Whether it is a conversation: only then are there answers.
    pub is_conversation: bool,
    /// Its ids, without the one that ends it; at least one.
    pub ids: &'a [u32],
    /// UTF-8 bytes of its text, for losses in bits a byte.
    pub text_bytes: u64,
    answers: &'a [u8],
    start: u64,
}

impl TokenizedDocument<'_> {
    /// Whether the id at `index` belongs to an answer.
    pub fn is_answer(&self, index: usize) -> bool {
        let at = self.start as usize + index;
        self.is_conversation && self.answers.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    }
}

impl TokenizedCorpus {
    /// Encodes `documents`. Documents that say nothing are left out.
    ///
    /// # Errors
    /// Those of `documents`, of the encoder, and [`CorpusError::Cancelled`].
    pub fn encode(
        documents: impl IntoIterator<Item = Result<Document, CorpusError>>,
        encoder: &dyn Encoder,
        progress: &dyn Progress,
    ) -> Result<Self, CorpusError> {
        let mut corpus = Self {
            end_of_text: encoder.end_of_text(),
            ids: Vec::new(),
            answers: Vec::new(),
            table: TokenTable::default(),
            starts: Vec::new(),
        };
        let mut table = TableBuilder::default();
        encode_all(documents, encoder, progress, |document, encoded| {
            let EncodedConversation { ids, is_answer } = encoded;
            let before = corpus.ids.len();
            if is_answer.contains(&true) {
                corpus.answers.resize((before + ids.len()).div_ceil(8), 0);
                for at in is_answer.iter().zip(before..).filter_map(|(is, at)| is.then_some(at)) {
                    corpus.answers[at / 8] |= 1 << (at % 8);
                }
            }
            corpus.ids.extend_from_slice(&ids);
            table.push(document, ids.len() as u64);
            Ok(())
        })?;
        if !corpus.answers.is_empty() {
            corpus.answers.resize(corpus.ids.len().div_ceil(8), 0);
        }
        corpus.table = table.table;
        corpus.starts = corpus.table.starts();
        Ok(corpus)
    }

    /// Encodes the text at `path` without keeping anything on disk; see [`crate::TokenCache`] for what does.
    ///
    /// # Errors
    /// Those of reading and of [`TokenizedCorpus::encode`].
    pub fn of_path(path: &Path, encoder: &dyn Encoder) -> Result<Self, CorpusError> {
        Self::encode(crate::read_documents(path, None)?, encoder, &())
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.table.documents.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all documents, without those that end them.
    pub fn tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    /// UTF-8 bytes of all texts.
    pub fn text_bytes(&self) -> u64 {
        self.table.documents.iter().map(|document| document.text_bytes).sum()
    }

    /// The id that ends a document.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// The document at `index`; `None` past the end.
    pub fn document(&self, index: usize) -> Option<TokenizedDocument<'_>> {
        let entry = self.table.documents.get(index)?;
        let (start, end) = (*self.starts.get(index)?, *self.starts.get(index + 1)?);
        Some(TokenizedDocument {
            id: &entry.id,
            group: entry.group.as_deref(),
            source: self.table.label(entry.source),
            license: self.table.label(entry.license),
            is_conversation: entry.is_conversation,
            ids: self.ids.get(start as usize..end as usize)?,
            text_bytes: entry.text_bytes,
            answers: &self.answers,
            start,
        })
    }

    /// Every document in order.
    pub fn documents(&self) -> impl Iterator<Item = TokenizedDocument<'_>> {
        (0..self.len()).filter_map(|index| self.document(index))
    }

    /// The documents that `keep` wants, as a corpus of their own.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&TokenizedDocument<'_>) -> bool) -> Self {
        let mut kept = Self {
            end_of_text: self.end_of_text,
            ids: Vec::new(),
            answers: Vec::new(),
            table: TokenTable { labels: self.table.labels.clone(), documents: Vec::new() },
            starts: Vec::new(),
        };
        for (document, entry) in self.documents().zip(&self.table.documents) {
            if !keep(&document) {
                continue;
            }
            let before = kept.ids.len();
            kept.ids.extend_from_slice(document.ids);
            if !self.answers.is_empty() {
                kept.answers.resize(kept.ids.len().div_ceil(8), 0);
                for index in (0..document.ids.len()).filter(|index| document.is_answer(*index)) {
                    kept.answers[(before + index) / 8] |= 1 << ((before + index) % 8);
                }
            }
            kept.table.documents.push(entry.clone());
        }
        kept.starts = kept.table.starts();
        kept
    }
}
