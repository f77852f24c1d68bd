//! What a recipe came to, kept beside its files.

use std::collections::BTreeMap;
use std::path::Path;

use manifests::{DataOrigin, DataRecipe, Sha256};

/// The report's name in the folder of the result.
pub const REPORT_FILE: &str = "report.json";

/// Changes when the same recipe would give other documents.
const VERSION: u32 = 1;

/// What a recipe came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecipeReport {
    /// Name of the recipe.
    pub recipe: String,
    /// Digest of the recipe's content and of the way in which it was read.
    pub digest: Sha256,
    /// The files, in the order train, val, test.
    pub files: Vec<ReportedFile>,
    /// The sources in the order of their names.
    pub sources: BTreeMap<String, ReportedSource>,
    /// Documents that the split took out of one part because a later one holds nearly the same.
    pub taken_out_by_split: u64,
}

/// A file of documents.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReportedFile {
    /// Its name in the folder.
    pub name: String,
    /// Documents in it.
    pub documents: u64,
    /// Bytes of text in it.
    pub text_bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// Bytes of the file.
    pub size: u64,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReportedSource {
    /// What its documents name as their source.
    pub title: String,
    /// Licence of its text.
    pub license: String,
    /// Where it came from, in words.
    pub origin: String,
    /// SHA-256 of the package, as the recipe says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Files in the package.
    pub files: u64,
    /// Files that the recipe's globs take.
    pub matching: u64,
    /// Of these, files that are no UTF-8 or no markup.
    pub unreadable: u64,
    /// Documents that were kept.
    pub documents: u64,
    /// Bytes of text in these.
    pub text_bytes: u64,
    /// Documents that were left out, by reason.
    pub left_out: BTreeMap<String, u64>,
}

impl RecipeReport {
    /// The report of an earlier making in `folder`, if it is one of this very recipe and every file is there as it was
    /// written. `None` also where the recipe reads a local path without a digest: nobody knows whether that changed.
    pub(crate) fn still_true(folder: &Path, recipe: &DataRecipe) -> Option<Self> {
        let is_pinned = |from: &DataOrigin, sha256: Option<Sha256>| {
            sha256.is_some() || !matches!(from, DataOrigin::Path(_))
        };
        if !recipe.source.values().all(|source| is_pinned(&source.from, source.sha256)) {
            return None;
        }
        let report: Self = serde_json::from_slice(&std::fs::read(folder.join(REPORT_FILE)).ok()?).ok()?;
        let is_whole = |file: &ReportedFile| {
            let found = Sha256::of_file(&folder.join(&file.name)).ok();
            found == Some((file.sha256, file.size))
        };
        let is_same = Some(report.digest) == digest_of(recipe) && report.files.iter().all(is_whole);
        is_same.then_some(report)
    }
}

/// The digest of what a recipe says; `None` for one that can't be written down.
pub(crate) fn digest_of(recipe: &DataRecipe) -> Option<Sha256> {
    let text = recipe.to_toml().ok()?;
    Some(Sha256::of_bytes(format!("version {VERSION}\n{text}").as_bytes()))
}
