//! What can be wrong with training text, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why text could not be read, encoded, split or packed.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A file or folder could not be read.
    #[error("{path}: can't be read: {source}", path = path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file could not be written; nothing of it was left.
    #[error("{path}: can't be written: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A path that leads to no text.
    #[error(
        "{path}: no file of text; expected .jsonl, .jsonl.zst, .jsonl.gz or .txt, or a folder that holds some",
        path = path.display()
    )]
    NoFiles {
        /// The file or folder.
        path: PathBuf,
    },
    /// Files without a single document.
    #[error("{path}: holds no document; at least one is needed", path = path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// A compressed file that can't be decompressed to its end.
    #[error(
        "{path}: the compressed data is damaged after line {line}: {why}; fetch or make the file again",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The last whole line, from 1; 0 when there was none.
        line: u64,
        /// What the decompressor said.
        why: String,
    },
    /// Bytes that are not UTF-8.
    #[error("{path}:{line}: byte {byte} of the line is not UTF-8; save the file as UTF-8", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Where in the line, in bytes from 1.
        byte: usize,
    },
    /// A line that is no JSON object.
    #[error("{path}:{line}: expected one JSON object a line: {why}", path = path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What the parser said.
        why: String,
    },
    /// A record without the fields of its format.
    #[error("{path}:{line}: {fault}", path = path.display())]
    WrongFields {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The fault; boxed, since errors are to stay small.
        fault: Box<FieldFault>,
    },
    /// A document beyond the limit of the reader.
    #[error(
        "{path}:{line}: the document is longer than the limit of {limit} bytes; \
         split it into documents, or raise the limit",
        path = path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The tokenizer refused a document.
    #[error("the document `{document}` can't be encoded: {source}")]
    Encode {
        /// Its id.
        document: String,
        /// What the tokenizer said.
        source: crate::EncodeError,
    },
    /// Fewer tokens than one row.
    #[error(
        "{documents} documents with {found} tokens are less than one row of {needed}; \
         add text or choose a shorter length"
    )]
    TooFewTokens {
        /// How many documents there are.
        documents: usize,
        /// Tokens with the ends of the documents.
        found: u64,
        /// Tokens of a row.
        needed: u64,
    },
    /// Answers alone were to count, and no token is one.
    #[error("no token counts for the loss: only answers do, and no document holds one")]
    NothingCounts,
    /// Shares that are no shares.
    #[error("the shares {shares} can't be used: {why}")]
    Shares {
        /// As they were given.
        shares: String,
        /// What is wrong with them.
        why: &'static str,
    },
    /// A part of a split that would get nothing.
    #[error(
        "the part `{part}` would be empty: {groups} groups of documents are too few for its share of {share}; \
         give it more, or another seed"
    )]
    EmptyPart {
        /// The part's name.
        part: String,
        /// Groups (or documents without one) in all.
        groups: usize,
        /// Its share of the documents.
        share: f64,
    },
    /// Whoever watches the work wanted it to end.
    #[error("interrupted")]
    Cancelled,
}

/// What is wrong with the fields of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The fault in words.
    pub why: String,
    /// The fields that would do.
    pub expected: String,
    /// The fields that are there.
    pub found: Vec<String>,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More names than this help nobody.
        const SHOWN: usize = 12;
        write!(f, "{}; expected {}; found ", self.why, self.expected)?;
        if self.found.is_empty() {
            return f.write_str("no field");
        }
        for (index, name) in self.found.iter().take(SHOWN).enumerate() {
            let short: String = name.chars().take(40).flat_map(char::escape_debug).collect();
            write!(f, "{}`{short}`", if index == 0 { "" } else { ", " })?;
        }
        match self.found.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

impl CorpusError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_no_burden_to_a_result() {
        assert!(size_of::<CorpusError>() <= 96, "{} bytes", size_of::<CorpusError>());
    }
}
