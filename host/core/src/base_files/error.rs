//! What can be wrong with a base's files, in words that name the file, the place, what was expected and
//! what was found.

use std::path::{Path, PathBuf};

/// Why a base can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BaseFileError {
    /// The operating system refused.
    #[error("can't {doing} {}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },

    /// The path holds neither a GGUF file nor a Hugging Face folder.
    #[error("{} is no base: {why}. Give a .gguf file, or a folder with config.json, tokenizer.json and \
             model.safetensors", path.display())]
    NotABase { path: PathBuf, why: String },

    /// The bytes break the format's rules: a truncated or damaged file.
    #[error("{} is damaged: {what} (at byte {offset}). Fetch it again", path.display())]
    Damaged { path: PathBuf, offset: u64, what: String },

    /// A value in GGUF metadata or config.json is absent, of another type or out of range.
    #[error("{}: '{key}' should be {expected}, found {found}", path.display())]
    Field { path: PathBuf, key: String, expected: String, found: String },

    /// The file is sound, but asks for something this build does not know.
    #[error("{}: {what} {found} is not supported (supported: {supported})", path.display())]
    Unsupported { path: PathBuf, what: &'static str, found: String, supported: &'static str },

    /// A JSON file does not parse.
    #[error("{}: not the JSON that was expected: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },

    /// The base's shape needs a tensor that the files do not hold.
    #[error("{}: tensor '{stored_name}' is missing ({name}, expected shape {expected:?})", path.display())]
    MissingTensor { path: PathBuf, name: String, stored_name: String, expected: Vec<usize> },

    /// A tensor's shape contradicts the base's shape.
    #[error("{}: tensor '{stored_name}' ({name}) should have shape {expected:?}, found {found:?}", path.display())]
    TensorShape { path: PathBuf, name: String, stored_name: String, expected: Vec<usize>, found: Vec<usize> },

    /// A tensor's bytes do not lie within the file, or overlap another tensor's.
    #[error("{}: tensor '{stored_name}' claims bytes {start}..{end}, {why}", path.display())]
    TensorBounds { path: PathBuf, stored_name: String, start: u64, end: u64, why: String },

    /// A caller asked for a tensor that this base does not have.
    #[error("this base has no tensor '{name}'")]
    UnknownTensor { name: String },

    /// candle could not dequantize a tensor.
    #[error("tensor '{name}' can't be dequantized: {reason}")]
    Dequantize { name: String, reason: String },
}

impl BaseFileError {
    pub(crate) fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), doing, source }
    }

    pub(crate) fn field(
        path: &Path,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Field {
            path: path.to_path_buf(),
            key: key.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    pub(crate) fn unsupported(
        path: &Path,
        what: &'static str,
        found: impl ToString,
        supported: &'static str,
    ) -> Self {
        Self::Unsupported { path: path.to_path_buf(), what, found: found.to_string(), supported }
    }
}
