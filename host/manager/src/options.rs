//! What a pack manager is started with.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Settings of a [`crate::PackManager`].
#[derive(Debug, Clone)]
pub struct ManagerOptions {
    /// The folder of packs; `None` or one that does not exist (yet): no packs.
    pub packs_dir: Option<PathBuf>,
    /// Whether the folder is watched; otherwise it is read once, at the start.
    pub watch: bool,
    /// The folder is looked over at least this often.
    pub rescan: Duration,
    /// Files that are not what their manifest says and did not change for so long are no longer waited for.
    pub settle: Duration,
    /// Names of packs that are kept on the device.
    pub keep: Vec<String>,
    /// Priorities by name; packs of higher priority are evicted later. 0 where nothing is said.
    pub priorities: BTreeMap<String, i32>,
    /// Bytes that copies of packs' files may take on disk.
    pub cache_limit: u64,
}
