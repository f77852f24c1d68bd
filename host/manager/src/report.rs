//! What an operator is shown of packs, memory and events. These types travel over the control socket.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use manifests::PackKind;
use serde::{Deserialize, Serialize, Serializer};

use crate::PackState;

/// One pack of the folder, or one that is still on the device although its files are gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackReport {
    /// Its manifest's name; the file's or folder's own where there is no sound manifest yet.
    pub name: String,
    /// The folder or archive.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Its manifest's id.
    pub id: Option<String>,
    /// Its manifest's version.
    pub version: Option<String>,
    /// What it does.
    pub kind: Option<PackKind>,
    /// Its identity, 64 hex digits, once its files are complete.
    pub generation: Option<String>,
    /// How far it has come.
    pub state: PackState,
    /// When it came there, milliseconds since 1970.
    pub since_ms: u64,
    /// Why it is there: what is waited for, what failed, who evicted it.
    pub reason: Option<String>,
    /// Whether requests for its name get this generation.
    pub routable: bool,
    /// Why they do not, where that is not clear from the state: a dependency that is missing.
    pub not_routable: Option<String>,
    /// Whether an operator or the configuration keeps it on the device.
    pub keep: bool,
    /// Packs of higher priority are evicted later; 0 where nothing is said.
    pub priority: i32,
    /// Requests that use it now.
    pub leases: usize,
    /// Bytes of device memory that it holds now.
    pub resident_bytes: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Whether the dynamic linker keeps its library mapped.
    pub library_pinned: bool,
    /// Who signed it, and whether that key is known: words for people.
    pub signer: Option<String>,
    /// When a request last used it, milliseconds since 1970.
    pub last_used_ms: Option<u64>,
    /// How often it was loaded.
    pub loads: u64,
    /// Where its last load spent the time, milliseconds by stage.
    pub load_ms: BTreeMap<String, f64>,
    /// What its inspection or its build warned of.
    pub warnings: Vec<String>,
}

/// A file's name need not be UTF-8; one such file must not keep the whole report from an operator.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn as_text_if_any<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.display().to_string()).serialize(serializer)
}

/// A change of a pack's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackEvent {
    /// Rises by one with each event of this host.
    pub sequence: u64,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// The pack's name.
    pub pack: String,
    /// Its identity, 64 hex digits, where that is known.
    pub generation: Option<String>,
    /// Where it came to.
    pub state: PackState,
    /// Why.
    pub reason: Option<String>,
    /// How long the stages took that led here, milliseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub took_ms: BTreeMap<String, f64>,
}

/// What a host is doing: the figures of `modularbase top`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Process id.
    pub pid: u32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Name of the base.
    pub base: String,
    /// Name of the device.
    pub device: String,
    /// The watched folder.
    #[serde(serialize_with = "as_text_if_any")]
    pub packs_dir: Option<PathBuf>,
    /// Device memory for everything, bytes.
    pub budget_bytes: u64,
    /// Bytes held by each owner: `base`, `kv`, `plan`, `scratch` and `pack NAME`.
    pub held_bytes: BTreeMap<String, u64>,
    /// Counts since the start.
    pub totals: Totals,
    /// `None` while all is well; else what does not make progress.
    pub unhealthy: Option<String>,
    /// Every pack.
    pub packs: Vec<PackReport>,
}

/// Counts since a host started. Rates are differences of two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Answers begun.
    pub requests: u64,
    /// Tokens of answers.
    pub tokens: u64,
    /// Packs brought to the device.
    pub loads: u64,
    /// Packs taken from the device.
    pub evictions: u64,
    /// Times a request found its pack on the device already.
    pub hits: u64,
    /// Packs that a request had to go without, for want of memory.
    pub omitted: u64,
    /// Packs put into quarantine.
    pub quarantines: u64,
}

/// What became of a wish to take a pack from the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum EvictOutcome {
    /// It is gone.
    Evicted {
        /// Bytes that came back.
        bytes: u64,
    },
    /// Requests use it; it stays.
    InUse {
        /// How many.
        leases: usize,
    },
    /// It was not on the device.
    NotResident,
}
