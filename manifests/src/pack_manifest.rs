//! A pack's manifest, `pack.toml`: what the pack is, what it needs, which files it consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::document::{self, Document, Problem};
use crate::dtype::Dtype;
use crate::error::ManifestError;
use crate::names::{FileName, PackId, PackName, TargetTriple};
use crate::public_key::PublicKey;
use crate::sha256::Sha256;
use crate::slot::Slot;
use crate::string_type::{ValueError, as_string, quoted};
use crate::versions::{VersionRange, version};

/// The manifest's file name in a pack's folder.
pub const PACK_MANIFEST_FILE: &str = "pack.toml";

/// Declared bytes above this are a mistake in the manifest, not a pack (64 TiB).
pub const MAX_DECLARED_BYTES: u64 = 1 << 46;

/// A pack as it lies in a packs folder: every file with its size and hash.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackManifest {
    /// Version of this format.
    pub schema_version: u32,
    /// What the pack is.
    pub pack: PackIdentity,
    /// The border it was built for.
    pub abi: AbiRequirement,
    /// The base it works in.
    pub base: BaseRequirement,
    /// The dynamic library that describes its graph; a router pack has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<FileRecord>,
    /// Its weights; absent when the base's own are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsRecord>,
    /// The memory it declares.
    pub memory: MemoryDeclaration,
    /// Statistics by which the router scores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<FileRecord>,
    /// How it is mixed with others.
    #[serde(default)]
    pub fusion: Fusion,
    /// Packs that it needs beside it: id and range of versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<PackId, VersionRange>,
    /// Where its training data comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_card: Option<FileRecord>,
    /// Figures of its evaluation: domain -> measure -> value, such as `base_nll` in nats a token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evaluation: BTreeMap<String, BTreeMap<String, f64>>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
    /// The pack's own settings, passed to its `build` as JSON.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: toml::Table,
}

/// `[pack]`: what the pack is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackIdentity {
    /// Its identity across versions.
    pub id: PackId,
    /// The short name for mixtures.
    pub name: PackName,
    /// Its version.
    #[serde(with = "version")]
    #[schemars(with = "String")]
    pub version: semver::Version,
    /// What it does.
    pub kind: PackKind,
    /// One sentence for people.
    pub description: String,
    /// SPDX expression of its licence.
    pub license: String,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
}

/// What a pack does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PackKind {
    /// Stands for the base's own layers.
    General,
    /// A network of its own for the slot.
    Expert,
    /// Chooses mixtures: weights alone, without a library.
    Router,
}

impl fmt::Display for PackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::General => "general",
            Self::Expert => "expert",
            Self::Router => "router",
        })
    }
}

/// `[abi]`: the border that the library was built for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbiRequirement {
    /// Version of `pack-abi`; its major is the ABI.
    #[serde(with = "version")]
    #[schemars(with = "String")]
    pub version: semver::Version,
    /// Version of the operations its graph uses, from 1.
    pub opset: u32,
    /// The target that the library was compiled for.
    pub target: TargetTriple,
}

/// `[base]`: the base that the pack works in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseRequirement {
    /// The one base it fits, or any.
    pub fingerprint: BaseFingerprint,
    /// Width of the hidden state `[tokens, hidden]`; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<u32>,
    /// The slot it stands in; absent: the base's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Versions of the base it fits; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionRange>,
}

/// The base that a pack was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BaseFingerprint {
    /// Any base of fitting shape.
    Any,
    /// The base with this fingerprint.
    Exact(Sha256),
}

as_string!(
    BaseFingerprint,
    "`sha256:` and 64 hexadecimal digits, or `any`.",
    "^(any|(sha256:)?[0-9a-fA-F]{64})$"
);

impl FromStr for BaseFingerprint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        text.parse().map(Self::Exact).map_err(|error: ValueError| ValueError {
            help: "write `any`, or the fingerprint that `modularbase base show` prints".into(),
            ..error
        })
    }
}

impl fmt::Display for BaseFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exact(digest) => f.write_str(&digest.prefixed()),
        }
    }
}

/// A file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its name.
    pub file: FileName,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Its size in bytes, at least 1.
    pub size: u64,
}

/// `[weights]`: a safetensors file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightsRecord {
    /// Its name.
    pub file: FileName,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Its size in bytes, at least 1.
    pub size: u64,
    /// How the numbers are stored in it.
    pub dtype: Dtype,
}

/// `[memory]`: what the pack takes of the budget.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct MemoryDeclaration {
    /// Bytes of device memory that its weights own once loaded, by the host's dtype; 0 where they are the base's.
    pub resident_bytes: BTreeMap<Dtype, u64>,
}

/// `[fusion]`: how the pack is mixed with others.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fusion {
    /// Its weight where a mixture names it without one; finite, at least 0.
    pub default_weight: f64,
}

impl Default for Fusion {
    fn default() -> Self {
        Self { default_weight: 1.0 }
    }
}

/// `[signer]`: who vouches for the pack.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// Name of the key in the host's trust store.
    pub key_id: String,
    /// The key itself, so that the signature can be checked where the signer is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// The file beside the manifest that holds the minisign signature over the manifest's bytes.
    pub signature: FileName,
}

impl PackManifest {
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

    /// Every fault of meaning; empty when the manifest holds. What `read` and `parse` return has none.
    pub fn problems(&self) -> Vec<Problem> {
        Document::problems(self)
    }

    /// The manifest as TOML in a fixed order: what is parsed from it equals this manifest.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// The `[config]` table as JSON; dates become strings.
    pub fn config_json(&self) -> serde_json::Value {
        crate::config_table::to_json(&self.config)
    }

    /// Every file that the manifest names, with size and hash (the signature has neither).
    pub fn files(&self) -> Vec<FileRecord> {
        let weights = self.weights.as_ref().map(|weights| FileRecord {
            file: weights.file.clone(),
            sha256: weights.sha256,
            size: weights.size,
        });
        [self.library.clone(), weights, self.routing_key.clone(), self.data_card.clone()]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Document for PackManifest {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = identity_problems(&self.pack);
        problems.extend(requirement_problems(&self.abi.opset, &self.base));
        let files = [
            ("library", self.library.as_ref().map(|library| (&library.file, Some(library.size)))),
            ("weights", self.weights.as_ref().map(|weights| (&weights.file, Some(weights.size)))),
            ("routing_key", self.routing_key.as_ref().map(|key| (&key.file, Some(key.size)))),
            ("data_card", self.data_card.as_ref().map(|card| (&card.file, Some(card.size)))),
            ("signer", self.signer.as_ref().map(|signer| (&signer.signature, None))),
        ];
        problems.extend(file_problems(&files));
        problems.extend(part_problems(self.pack.kind, self.library.is_some(), self.weights.is_some()));
        problems.extend(delta_problems(self.weights.as_ref().map(|weights| weights.dtype), &self.base));
        problems.extend(memory_problems(&self.memory, self.weights.is_some()));
        problems.extend(mixing_problems(&self.pack.id, &self.fusion, &self.dependencies));
        problems.extend(figure_problems(&self.evaluation, self.signer.as_ref(), &self.config));
        problems
    }
}

pub(crate) fn identity_problems(pack: &PackIdentity) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, text) in [("description", &pack.description), ("license", &pack.license)] {
        if text.trim().is_empty() {
            problems.push(Problem::new(&["pack", key], format!("{key} is empty")));
        }
    }
    let mut seen = BTreeSet::new();
    for keyword in &pack.keywords {
        if keyword.trim().is_empty() || keyword.len() > 64 {
            let message = format!("keyword {} must have 1 to 64 bytes", quoted(keyword));
            problems.push(Problem::new(&["pack", "keywords"], message));
        } else if !seen.insert(keyword) {
            let message = format!("keyword {} is named twice", quoted(keyword));
            problems.push(Problem::new(&["pack", "keywords"], message));
        }
    }
    problems
}

pub(crate) fn requirement_problems(opset: &u32, base: &BaseRequirement) -> Vec<Problem> {
    let mut problems = Vec::new();
    if *opset == 0 {
        problems.push(Problem::new(&["abi", "opset"], "opset must be at least 1, found 0"));
    }
    if base.hidden_size == Some(0) {
        let problem = Problem::new(&["base", "hidden_size"], "hidden_size must be at least 1, found 0");
        problems.push(problem.help("leave it out to fit any width"));
    }
    problems
}

/// A table that names a file, the file's name and its size in bytes; `None` where the manifest leaves it out.
pub(crate) type NamedFile<'a> = (&'a str, Option<(&'a FileName, Option<u64>)>);

/// Faults of the files that a manifest names.
pub(crate) fn file_problems(files: &[NamedFile<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (table, entry) in files {
        let Some((file, size)) = entry else { continue };
        let key = if *table == "signer" { "signature" } else { "file" };
        if file.as_str() == PACK_MANIFEST_FILE {
            let message =
                format!("`{PACK_MANIFEST_FILE}` is the manifest itself and can't be one of its files");
            problems.push(Problem::new(&[table, key], message));
        } else if let Some(other) = seen.insert(file.as_str(), table) {
            let message = format!("`{file}` is named by [{other}] already");
            problems.push(Problem::new(&[table, key], message).help("give each file a name of its own"));
        }
        if *size == Some(0) {
            let problem =
                Problem::new(&[table, "size"], format!("size of `{file}` must be at least 1 byte, found 0"));
            problems.push(problem.help("`cargo xtask pack build` fills in sizes and hashes"));
        } else if size.is_some_and(|size| size > MAX_DECLARED_BYTES) {
            let message = format!("size of `{file}` is larger than {MAX_DECLARED_BYTES} bytes");
            problems.push(Problem::new(&[table, "size"], message));
        }
    }
    problems
}

/// What a pack of a kind must and must not consist of.
pub(crate) fn part_problems(kind: PackKind, library: bool, weights: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    match (kind, library) {
        (PackKind::Router, true) => {
            let problem =
                Problem::new(&["library"], "a router pack is weights alone, but it names a library");
            problems.push(problem.help("remove [library]"));
        }
        (PackKind::General | PackKind::Expert, false) => {
            let problem = Problem::new(&["library"], format!("a pack of kind `{kind}` needs a library"));
            problems
                .push(problem.help("name the file that cargo builds: [library] file = \"lib<crate>.so\""));
        }
        _ => {}
    }
    if kind == PackKind::Router && !weights {
        let problem = Problem::new(&["weights"], "a router pack is weights alone, but it names none");
        problems.push(problem.help("`modularbase train router` makes them"));
    }
    problems
}

/// Deltas belong to one base: added to another one's weights they are noise.
pub(crate) fn delta_problems(weights: Option<Dtype>, base: &BaseRequirement) -> Vec<Problem> {
    let (Some(dtype), BaseFingerprint::Any) = (weights.filter(|dtype| dtype.is_delta()), base.fingerprint)
    else {
        return Vec::new();
    };
    let message = format!("weights stored as {dtype} belong to one base, but the pack claims to fit any");
    let problem = Problem::new(&["base", "fingerprint"], message);
    vec![problem.help("write the fingerprint that `modularbase base show` prints")]
}

pub(crate) fn memory_problems(memory: &MemoryDeclaration, has_weights: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let path = ["memory", "resident_bytes"];
    for (dtype, bytes) in &memory.resident_bytes {
        if *bytes > MAX_DECLARED_BYTES {
            let message = format!("{bytes} resident bytes for {dtype} are more than {MAX_DECLARED_BYTES}");
            problems.push(Problem::new(&[path[0], path[1], dtype.name()], message));
        } else if *bytes == 0 && has_weights {
            let message =
                format!("0 resident bytes declared for {dtype}, but the pack has weights of its own");
            let problem = Problem::new(&[path[0], path[1], dtype.name()], message);
            problems.push(problem.help("`modularbase packs verify` measures what to declare"));
        }
    }
    if memory.resident_bytes.is_empty() {
        let problem = Problem::new(&path, "resident_bytes names no dtype");
        problems.push(
            problem.help("declare device bytes by dtype, such as `q8_0 = 22560768`; 0 without own weights"),
        );
    }
    problems
}

pub(crate) fn mixing_problems(
    id: &PackId,
    fusion: &Fusion,
    dependencies: &BTreeMap<PackId, VersionRange>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let weight = fusion.default_weight;
    if !weight.is_finite() || weight < 0.0 {
        let message = format!("default_weight must be finite and not negative, found {weight}");
        problems.push(Problem::new(&["fusion", "default_weight"], message));
    }
    if dependencies.contains_key(id) {
        let message = format!("the pack depends on itself (`{id}`)");
        problems.push(Problem::new(&["dependencies", id.as_str()], message).help("remove the line"));
    }
    problems
}

pub(crate) fn figure_problems(
    evaluation: &BTreeMap<String, BTreeMap<String, f64>>,
    signer: Option<&Signer>,
    config: &toml::Table,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (domain, figures) in evaluation {
        for (measure, value) in figures.iter().filter(|(_, value)| !value.is_finite()) {
            let message = format!("figure `{measure}` must be finite, found {value}");
            problems.push(Problem::new(&["evaluation", domain, measure], message));
        }
    }
    if let Some(signer) = signer {
        let key_id = &signer.key_id;
        if key_id.trim().is_empty() {
            problems.push(Problem::new(&["signer", "key_id"], "key_id is empty"));
        } else if key_id.len() > 128 || key_id.chars().any(char::is_control) {
            // It is shown to people, on terminals too.
            let message = format!("key_id {} must have at most 128 bytes, all printable", quoted(key_id));
            problems.push(Problem::new(&["signer", "key_id"], message));
        }
    }
    if let Some(key) = crate::config_table::first_non_finite(config) {
        let mut path = vec!["config"];
        path.extend(key.iter().map(String::as_str));
        let message = "numbers in [config] must be finite: they are passed on as JSON";
        problems.push(Problem::new(&path, message));
    }
    problems
}
