//! `[trust]` of the host's configuration: whose packs are let in.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::document::Problem;
use crate::public_key::PublicKey;
use crate::string_type::{ValueError, quoted};

/// What a pack must show before it is let in.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TrustMode {
    /// Nothing; but a signature that is there must verify.
    #[default]
    AllowUnsigned,
    /// A signature that verifies, by whatever key.
    RequireSigned,
    /// A signature by a key that this host knows.
    RequireKnownSigner,
}

impl TrustMode {
    /// Every mode, the most lenient first.
    pub const ALL: [Self; 3] = [Self::AllowUnsigned, Self::RequireSigned, Self::RequireKnownSigner];

    /// The name in configurations and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowUnsigned => "allow-unsigned",
            Self::RequireSigned => "require-signed",
            Self::RequireKnownSigner => "require-known-signer",
        }
    }
}

impl fmt::Display for TrustMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TrustMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            ValueError::new(format!("unknown trust policy {}", quoted(text)), format!("one of {names}"))
        })
    }
}

/// `[trust]` as written.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// What a pack must show; default `allow-unsigned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<TrustMode>,
    /// Public keys that this host knows, by the names that manifests call them (`key_id`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, PublicKey>,
}

/// `[trust]` with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustSettings {
    /// See [`TrustConfig::policy`].
    pub policy: TrustMode,
    /// See [`TrustConfig::keys`].
    pub keys: BTreeMap<String, PublicKey>,
}

impl TrustConfig {
    /// What this level says, else what `lower` says; of two keys with one name this level's counts.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        let mut keys = lower.keys;
        keys.extend(self.keys);
        Self { policy: self.policy.or(lower.policy), keys }
    }

    /// With the built-in values where nothing was said.
    pub fn settings(self) -> TrustSettings {
        TrustSettings { policy: self.policy.unwrap_or_default(), keys: self.keys }
    }

    /// Faults of meaning.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seen: BTreeMap<&PublicKey, &str> = BTreeMap::new();
        for (name, key) in &self.keys {
            let path = ["trust", "keys", name.as_str()];
            if name.trim().is_empty() || name.len() > 128 {
                let message = format!("the name {} of a key must have 1 to 128 bytes", quoted(name));
                problems.push(Problem::new(&path, message).help("name it as the signer's manifests do"));
            }
            if let Some(other) = seen.insert(key, name) {
                let message = format!("{} and {} are the same key", quoted(other), quoted(name));
                problems.push(Problem::new(&path, message).help("keep one of the two names"));
            }
        }
        problems
    }
}
