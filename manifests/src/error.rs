//! What is wrong with a manifest, and where: file, line, column, reason, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file could not be read at all.
    #[error("{path}: can't read the manifest: {source}", path = path.display())]
    Read {
        /// The manifest's path as it was given.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("{path}: can't be written: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file was read and its content is wrong.
    #[error(transparent)]
    Invalid(Box<Refusal>),
}

/// One fault in a manifest's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The manifest's path; `None` for a text that came from no file.
    pub path: Option<PathBuf>,
    /// Line of the fault, from 1.
    pub line: usize,
    /// Column of the fault in characters, from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}:{}:{}: {}", path.display(), self.line, self.column, self.message)?,
            None => write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?,
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

impl ManifestError {
    /// A fault at the byte `offset` of `text`.
    pub(crate) fn at(text: &str, offset: usize, message: impl Into<String>, help: Option<String>) -> Self {
        let (line, column) = line_and_column(text, offset);
        Self::Invalid(Box::new(Refusal { path: None, line, column, message: message.into(), help }))
    }

    /// The same error, said of a file.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        if let Self::Invalid(refusal) = &mut self {
            refusal.path = Some(file.to_path_buf());
        }
        self
    }

    /// The fault's place and reason; `None` when the file could not be read or written.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Read { .. } | Self::Write { .. } => None,
            Self::Invalid(refusal) => Some(refusal),
        }
    }
}

/// Line and column (characters, both from 1) of a byte offset; an offset past the end counts as the end.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_not_bytes() {
        let text = "a = 1\nname = \"äö\" x";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, text.len() - 1), (2, 13));
        assert_eq!(line_and_column(text, 10_000), (2, 14));
    }
}
