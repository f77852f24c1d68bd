//! What a host keeps in memory of each registered pack: small, since there may be ten thousand.

use manifests::{PackId, PackKind, PackManifest, PackName, Version, VersionRange};
use serde::{Deserialize, Serialize};

/// A pack in a few hundred bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackSummary {
    /// Its identity across versions.
    pub id: PackId,
    /// The short name for mixtures.
    pub name: PackName,
    /// Its version.
    pub version: Version,
    /// What it does.
    pub kind: PackKind,
    /// Packs that it needs beside it.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub dependencies: Box<[(PackId, VersionRange)]>,
    /// Versions of the base it fits; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_range: Option<VersionRange>,
    /// Bytes of the files that its manifest names, and of the manifest.
    pub file_bytes: u64,
    /// Its weight where a mixture names it without one.
    pub default_weight: f64,
    /// What an operator should know of it.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub warnings: Box<[String]>,
    /// Who signed it, and whether that key is known: words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

impl PackSummary {
    /// Of a manifest of `manifest_bytes` bytes.
    pub fn new(
        manifest: &PackManifest,
        manifest_bytes: usize,
        warnings: Vec<String>,
        signer: Option<String>,
    ) -> Self {
        let files: u64 = manifest.files().iter().map(|record| record.size).sum();
        Self {
            id: manifest.pack.id.clone(),
            name: manifest.pack.name.clone(),
            version: manifest.pack.version.clone(),
            kind: manifest.pack.kind,
            dependencies: manifest
                .dependencies
                .iter()
                .map(|(id, range)| (id.clone(), range.clone()))
                .collect(),
            base_range: manifest.base.version.clone(),
            file_bytes: files + manifest_bytes as u64,
            default_weight: manifest.fusion.default_weight,
            warnings: warnings.into(),
            signer,
        }
    }
}
