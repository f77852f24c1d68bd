//! From bytes to a checked manifest: size limit, UTF-8, TOML, `schema_version`, types, then meaning.
//!
//! Faults of meaning are found on the typed value, by a path of keys (`["base", "slot"]`); the path is then looked
//! up in the text again to say line and column. So the same checks serve a manifest made in memory.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::ManifestError;

/// The only `schema_version` this build reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Manifests are a few kB; anything larger than this (bytes) is no manifest and is not read into memory.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A fault of meaning, named by the keys that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Keys from the top of the document to the value.
    pub path: Vec<String>,
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    pub(crate) fn new(path: &[&str], message: impl Into<String>) -> Self {
        Self { path: path.iter().map(ToString::to_string).collect(), message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A kind of manifest: typed by serde, checked for meaning by `problems`.
pub(crate) trait Document: DeserializeOwned {
    /// Every fault of meaning, the first one first; empty when the manifest holds.
    fn problems(&self) -> Vec<Problem>;
}

/// Reads, parses and checks a manifest file.
pub(crate) fn read<T: Document>(path: &Path) -> Result<T, ManifestError> {
    let read_error = |source| ManifestError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(read_error)?;
    file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(read_error)?;
    parse_bytes(&bytes).map_err(|error| error.in_file(path))
}

/// Parses and checks a manifest given as bytes.
pub(crate) fn parse_bytes<T: Document>(bytes: &[u8]) -> Result<T, ManifestError> {
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        let message = format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes");
        let help = "a manifest is a short TOML text; large data belongs into files of its own".to_string();
        return Err(ManifestError::at("", 0, message, Some(help)));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let message = format!("the manifest is not UTF-8: invalid byte at offset {}", valid.len());
            let help = "save the file as UTF-8".to_string();
            Err(ManifestError::at(&valid, valid.len(), message, Some(help)))
        }
    }
}

/// Parses and checks a manifest given as text.
pub(crate) fn parse<T: Document>(text: &str) -> Result<T, ManifestError> {
    let document = DeTable::parse(text).map_err(|error| from_toml(text, &error))?;
    check_schema_version(text, document.get_ref())?;
    let manifest: T = toml::from_str(text).map_err(|error| from_toml(text, &error))?;
    match manifest.problems().into_iter().next() {
        None => Ok(manifest),
        Some(problem) => {
            let span = locate(document.get_ref(), &problem.path);
            Err(ManifestError::at(text, span.start, problem.message, problem.help))
        }
    }
}

/// The version decides how everything else is read, so it is judged before the rest is even typed.
fn check_schema_version(text: &str, document: &DeTable<'_>) -> Result<(), ManifestError> {
    let help = || Some(format!("this build reads schema_version = {SCHEMA_VERSION}"));
    let Some(value) = document.get("schema_version") else {
        return Err(ManifestError::at(text, 0, "missing field `schema_version`", help()));
    };
    let found = match value.get_ref() {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    };
    if found == Some(i64::from(SCHEMA_VERSION)) {
        return Ok(());
    }
    let message = match found {
        Some(version) => {
            format!("schema_version {version} is not supported; supported is {SCHEMA_VERSION}")
        }
        None => format!("schema_version must be the integer {SCHEMA_VERSION}"),
    };
    Err(ManifestError::at(text, value.span().start, message, help()))
}

/// toml's own messages; a second line in one of them is advice.
fn from_toml(text: &str, error: &toml::de::Error) -> ManifestError {
    let offset = error.span().map_or(0, |span| span.start);
    let (message, help) = match error.message().split_once('\n') {
        Some((message, help)) => (message, Some(help.replace('\n', ", "))),
        None => (error.message(), None),
    };
    ManifestError::at(text, offset, message, help)
}

/// Where the value at `path` stands; the nearest enclosing table when a key is absent.
fn locate(document: &DeTable<'_>, path: &[String]) -> Range<usize> {
    let mut span = 0..0;
    let mut table: &DeTable<'_> = document;
    for key in path {
        let Some((_, value)) = table.get_key_value(key.as_str()) else { return span };
        span = Spanned::span(value);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return span,
        }
    }
    span
}

/// `message` and `help` in the one string that serde's errors can carry.
pub(crate) fn with_help(message: impl std::fmt::Display, help: &str) -> Cow<'static, str> {
    Cow::Owned(format!("{message}\n{help}"))
}
