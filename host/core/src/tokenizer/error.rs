//! What can be wrong with a tokenizer, in words that name the file.

use std::path::{Path, PathBuf};

use crate::base_files::BaseFileError;

/// Why a base's tokenizer or chat template can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file it comes from can't be read or lacks a field.
    #[error(transparent)]
    File(#[from] BaseFileError),

    /// The vocabulary or its rules are not sound.
    #[error("{}: the tokenizer is not sound: {why}", path.display())]
    Invalid { path: PathBuf, why: String },

    /// A kind of tokenizer that is not known here.
    #[error("{}: the tokenizer {what} '{found}' is not supported (supported: {supported})", path.display())]
    Unsupported { path: PathBuf, what: &'static str, found: String, supported: &'static str },

    /// The tokenizer names tokens for which the base has no embedding.
    #[error(
        "{}: the tokenizer has the token id {largest}, but the base's vocabulary has {vocab_size} rows; \
         config and tokenizer are not of one base",
        path.display()
    )]
    LargerThanVocabulary { path: PathBuf, largest: u32, vocab_size: usize },

    /// The text can't be encoded.
    #[error("the text can't be encoded: {why}")]
    Encode { why: String },

    /// The chat template does not compile or refuses the messages.
    #[error("the base's chat template failed: {why}. Use the prompt without a template (--raw)")]
    ChatTemplate { why: String },
}

impl TokenizerError {
    pub(super) fn invalid(path: &Path, why: impl ToString) -> Self {
        Self::Invalid { path: path.to_path_buf(), why: why.to_string() }
    }
}
