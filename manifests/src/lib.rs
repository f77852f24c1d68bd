//! Typed manifests for bases, packs, data recipes and the host's configuration.
//!
//! Every kind is TOML, refuses unknown fields, names its `schema_version`, and is checked for meaning: what [`read`]
//! functions return holds. A refusal says file, line, column, reason and help ([`Refusal`]). This crate knows no
//! network, no model and no library; it names files, and others open them.
//!
//! [`read`]: PackManifest::read
#![forbid(unsafe_code)]

mod atomic_file;
mod base_manifest;
mod builtin_bases;
mod builtin_recipes;
mod byte_size;
mod config_table;
mod context_config;
mod data_recipe;
mod data_source;
mod device;
mod document;
mod dtype;
mod error;
pub mod folders;
mod host_config;
mod json_schema;
mod mixture;
mod names;
mod operator_wishes;
mod pack_manifest;
mod pack_source;
mod packs_config;
mod public_key;
mod routing_config;
mod sampling;
mod sha256;
mod slot;
mod string_type;
mod trust_config;
mod versions;

pub use atomic_file::{replace_atomically, write_atomically};
pub use base_manifest::{BaseFile, BaseIdentity, BaseManifest, BaseSources, HuggingFaceSource, PypiSource};
pub use builtin_bases::{BUILTIN_BASES, builtin_base};
pub use builtin_recipes::{BUILTIN_RECIPES, builtin_recipe};
pub use byte_size::ByteSize;
pub use context_config::{ContextConfig, ContextSettings};
pub use data_recipe::{CleanRules, DataRecipe, RecipeIdentity, RecipeSplit};
pub use data_source::{DataOrigin, DataSource, Extraction, Grouping, RecordFields};
pub use device::DeviceChoice;
pub use document::{MAX_MANIFEST_BYTES, Problem, SCHEMA_VERSION};
pub use dtype::Dtype;
pub use error::{ManifestError, Refusal};
pub use host_config::{DEFAULT_BASE, HostConfig, HostSettings};
pub use json_schema::{
    base_schema, data_recipe_schema, host_schema, pack_schema, pack_source_schema, schema_files,
};
pub use mixture::MixtureChoice;
pub use names::{FileName, PackId, PackName, RelativePath, TargetTriple};
pub use operator_wishes::OperatorWishes;
pub use pack_manifest::{
    AbiRequirement, BaseFingerprint, BaseRequirement, FileRecord, Fusion, MAX_DECLARED_BYTES,
    MemoryDeclaration, PACK_MANIFEST_FILE, PackIdentity, PackKind, PackManifest, Signer, WeightsRecord,
};
pub use pack_source::{PackSource, SourceAbi, SourceFile, SourceWeights};
pub use packs_config::{DeltaWeights, PacksConfig, PacksSettings};
pub use public_key::PublicKey;
pub use routing_config::{MixtureStrategy, RoutingConfig};
pub use sampling::{Sampling, SamplingSettings};
pub use semver::Version;
pub use sha256::Sha256;
pub use slot::{EmptySlot, Slot};
pub use string_type::ValueError;
pub use trust_config::{TrustConfig, TrustMode, TrustSettings};
pub use versions::VersionRange;
