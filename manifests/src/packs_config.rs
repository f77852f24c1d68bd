//! `[packs]` of the host's configuration: which packs stay on the device, and how long what may take.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::byte_size::ByteSize;
use crate::document::Problem;
use crate::dtype::Dtype;
use crate::names::PackName;

/// The longest of the times below, in milliseconds: an hour. More is a mistake of units.
const MAX_MS: u64 = 3_600_000;

/// `[packs]` as written.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct PacksConfig {
    /// Packs that are loaded at once and never evicted; default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Vec<PackName>>,
    /// Packs of higher priority are evicted later; default 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub priorities: BTreeMap<PackName, i32>,
    /// How long a request waits for memory, or for a pack that is just arriving, in milliseconds; default 2000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission_wait_ms: Option<u64>,
    /// How often the folder of packs is looked through although nothing was told of it, in milliseconds from 1;
    /// default 2000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescan_ms: Option<u64>,
    /// How long the files of a pack must lie unchanged before it counts as broken for not being what its manifest says,
    /// in milliseconds from 1; default 2000. Until then it counts as being copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle_ms: Option<u64>,
    /// Bytes on disk for copies of packs' files; default 8GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_limit: Option<ByteSize>,
    /// How weights that are stored as deltas are held where `dtype` does not fix it; default q8_0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaWeights>,
}

/// How a matrix that a pack stores as a delta to the base's is held on the device.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub enum DeltaWeights {
    /// Base and delta added up, 8 bits a weight.
    #[default]
    #[serde(rename = "q8_0")]
    Q8_0,
    /// Base and delta added up, 16 bits a weight.
    #[serde(rename = "bf16")]
    Bf16,
    /// The delta as it is stored, beside the base's own matrix: least memory. Where the device has no kernel for that,
    /// as `q8_0`.
    #[serde(rename = "packed")]
    Packed,
}

impl DeltaWeights {
    /// The format that matrices stored as `delta` are then held in.
    pub const fn dtype(self, delta: Dtype) -> Dtype {
        match self {
            Self::Q8_0 => Dtype::Q8_0,
            Self::Bf16 => Dtype::Bf16,
            Self::Packed => delta,
        }
    }
}

/// `[packs]` with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacksSettings {
    /// See [`PacksConfig::keep`].
    pub keep: Vec<PackName>,
    /// See [`PacksConfig::priorities`].
    pub priorities: BTreeMap<PackName, i32>,
    /// See [`PacksConfig::admission_wait_ms`].
    pub admission_wait: Duration,
    /// See [`PacksConfig::rescan_ms`].
    pub rescan: Duration,
    /// See [`PacksConfig::settle_ms`].
    pub settle: Duration,
    /// See [`PacksConfig::cache_limit`].
    pub cache_limit: ByteSize,
    /// See [`PacksConfig::delta`].
    pub delta: DeltaWeights,
}

impl Default for PacksSettings {
    fn default() -> Self {
        PacksConfig::default().settings()
    }
}

impl PacksConfig {
    /// What this level says, else what `lower` says; priorities pack by pack.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        let mut priorities = lower.priorities;
        priorities.extend(self.priorities);
        Self {
            keep: self.keep.or(lower.keep),
            priorities,
            admission_wait_ms: self.admission_wait_ms.or(lower.admission_wait_ms),
            rescan_ms: self.rescan_ms.or(lower.rescan_ms),
            settle_ms: self.settle_ms.or(lower.settle_ms),
            cache_limit: self.cache_limit.or(lower.cache_limit),
            delta: self.delta.or(lower.delta),
        }
    }

    /// With the built-in values where nothing was said.
    pub fn settings(self) -> PacksSettings {
        let time = |said: Option<u64>| Duration::from_millis(said.unwrap_or(2000));
        PacksSettings {
            keep: self.keep.unwrap_or_default(),
            priorities: self.priorities,
            admission_wait: time(self.admission_wait_ms),
            rescan: time(self.rescan_ms),
            settle: time(self.settle_ms),
            cache_limit: self.cache_limit.unwrap_or(ByteSize::mib(8 << 10)),
            delta: self.delta.unwrap_or_default(),
        }
    }

    /// Faults of meaning.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let keep = self.keep.as_deref().unwrap_or_default();
        for (index, name) in keep.iter().enumerate() {
            if keep[..index].contains(name) {
                problems.push(Problem::new(&["packs", "keep"], format!("`{name}` is named twice")));
            }
        }
        // A request may refuse to wait; a scan without a pause would only burn a core.
        for (key, value, least) in [
            ("admission_wait_ms", self.admission_wait_ms, 0),
            ("rescan_ms", self.rescan_ms, 1),
            ("settle_ms", self.settle_ms, 1),
        ] {
            if let Some(value) = value.filter(|value| !(least..=MAX_MS).contains(value)) {
                let message = format!("{key} must be {least} to {MAX_MS} milliseconds, found {value}");
                problems.push(Problem::new(&["packs", key], message).help("leave it out for 2000"));
            }
        }
        if self.cache_limit.is_some_and(|limit| limit.bytes() == 0) {
            let problem =
                Problem::new(&["packs", "cache_limit"], "cache_limit must be at least 1 byte, found 0");
            problems.push(problem.help("a loaded pack runs from its copy; leave it out for 8GiB"));
        }
        problems
    }
}
