//! A pack's manifest as its author writes it: names of files without sizes and hashes, which the pack builder adds.

use std::collections::BTreeMap;
use std::path::Path;

use crate::document::{self, Document, Problem, SCHEMA_VERSION};
use crate::dtype::Dtype;
use crate::error::ManifestError;
use crate::names::{FileName, PackId, TargetTriple};
use crate::pack_manifest::{
    AbiRequirement, BaseRequirement, FileRecord, Fusion, MemoryDeclaration, PackIdentity, PackManifest,
    Signer, WeightsRecord, delta_problems, figure_problems, file_problems, identity_problems,
    memory_problems, mixing_problems, part_problems, requirement_problems,
};
use crate::sha256::Sha256;
use crate::versions::{VersionRange, version};

/// A pack as it lies in its crate; see [`PackManifest`] for the fields.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackSource {
    /// Version of this format.
    pub schema_version: u32,
    /// What the pack is.
    pub pack: PackIdentity,
    /// The border it is built for.
    pub abi: SourceAbi,
    /// The base it works in.
    pub base: BaseRequirement,
    /// The dynamic library, `lib<crate>.so`; a router pack has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<SourceFile>,
    /// Its weights; absent when the base's own are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<SourceWeights>,
    /// The memory it declares; absent: the pack builder asks the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryDeclaration>,
    /// Statistics by which the router scores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<SourceFile>,
    /// How it is mixed with others.
    #[serde(default)]
    pub fusion: Fusion,
    /// Packs that it needs beside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<PackId, VersionRange>,
    /// Where its training data comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_card: Option<SourceFile>,
    /// Figures of its evaluation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evaluation: BTreeMap<String, BTreeMap<String, f64>>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
    /// The pack's own settings.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: toml::Table,
}

/// `[abi]` of a source manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceAbi {
    /// Version of `pack-abi`.
    #[serde(with = "version")]
    #[schemars(with = "String")]
    pub version: semver::Version,
    /// Version of the operations its graph uses, from 1.
    pub opset: u32,
    /// The target; absent: the one it is built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetTriple>,
}

/// A file by its name alone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its name.
    pub file: FileName,
}

/// A weights file by its name and format.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceWeights {
    /// Its name.
    pub file: FileName,
    /// How the numbers are stored in it.
    pub dtype: Dtype,
}

impl PackSource {
    /// Reads and checks a source manifest.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        document::read(path)
    }

    /// Parses and checks a source manifest's text.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        document::parse(text)
    }

    /// The names of the files that the pack consists of, the library first, the signature left out.
    pub fn files(&self) -> Vec<&FileName> {
        let weights = self.weights.as_ref().map(|weights| &weights.file);
        let others =
            [weights, self.routing_key.as_ref().map(|f| &f.file), self.data_card.as_ref().map(|f| &f.file)];
        let library = self.library.as_ref().map(|library| &library.file);
        std::iter::once(library).chain(others).flatten().collect()
    }

    /// The finished manifest. `digest` gives a file's hash and size in bytes, `memory` stands in where the author
    /// declared none.
    pub fn complete<E>(
        &self,
        memory: MemoryDeclaration,
        mut digest: impl FnMut(&FileName) -> Result<(Sha256, u64), E>,
    ) -> Result<PackManifest, E> {
        let mut record = |source: &SourceFile| {
            digest(&source.file).map(|(sha256, size)| FileRecord { file: source.file.clone(), sha256, size })
        };
        let library = self.library.as_ref().map(&mut record).transpose()?;
        let weights = match &self.weights {
            None => None,
            Some(weights) => {
                let FileRecord { file, sha256, size } = record(&SourceFile { file: weights.file.clone() })?;
                Some(WeightsRecord { file, sha256, size, dtype: weights.dtype })
            }
        };
        Ok(PackManifest {
            schema_version: SCHEMA_VERSION,
            pack: self.pack.clone(),
            abi: AbiRequirement {
                version: self.abi.version.clone(),
                opset: self.abi.opset,
                target: self.abi.target.clone().unwrap_or_else(TargetTriple::current),
            },
            base: self.base.clone(),
            library,
            weights,
            memory: self.memory.clone().unwrap_or(memory),
            routing_key: self.routing_key.as_ref().map(&mut record).transpose()?,
            fusion: self.fusion.clone(),
            dependencies: self.dependencies.clone(),
            data_card: self.data_card.as_ref().map(&mut record).transpose()?,
            evaluation: self.evaluation.clone(),
            signer: self.signer.clone(),
            config: self.config.clone(),
        })
    }
}

impl Document for PackSource {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = identity_problems(&self.pack);
        problems.extend(requirement_problems(&self.abi.opset, &self.base));
        problems.extend(file_problems(&[
            ("library", self.library.as_ref().map(|library| (&library.file, None))),
            ("weights", self.weights.as_ref().map(|weights| (&weights.file, None))),
            ("routing_key", self.routing_key.as_ref().map(|key| (&key.file, None))),
            ("data_card", self.data_card.as_ref().map(|card| (&card.file, None))),
            ("signer", self.signer.as_ref().map(|signer| (&signer.signature, None))),
        ]));
        problems.extend(part_problems(self.pack.kind, self.library.is_some(), self.weights.is_some()));
        problems.extend(delta_problems(self.weights.as_ref().map(|weights| weights.dtype), &self.base));
        if let Some(memory) = &self.memory {
            problems.extend(memory_problems(memory, self.weights.is_some()));
        }
        problems.extend(mixing_problems(&self.pack.id, &self.fusion, &self.dependencies));
        problems.extend(figure_problems(&self.evaluation, self.signer.as_ref(), &self.config));
        problems
    }
}
