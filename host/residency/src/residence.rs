//! What is shown of what is on the device.

use std::time::Instant;

/// How far a generation has come on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResidenceState {
    /// On its way there.
    Loading,
    /// There, and nobody uses it.
    Idle,
    /// There, and in use.
    Leased,
    /// In use, and retired: it goes when its last lease ends.
    Draining,
    /// On its way out; its bytes are coming back, or just have.
    Evicting,
}

/// A generation on the device, or on its way there or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residence<K> {
    /// Its identity.
    pub key: K,
    /// How far it has come.
    pub state: ResidenceState,
    /// How many use it.
    pub leases: usize,
    /// Device memory it says it holds, bytes; 0 while it is loading.
    pub bytes: u64,
    /// Whether it is never evicted for the budget's sake.
    pub pinned: bool,
    /// Those of lower priority are evicted first.
    pub priority: i32,
    /// When a lease on it last began or ended; `None` when it was only prefetched.
    pub last_used: Option<Instant>,
    /// How often it was loaded, since it was last forgotten.
    pub loads: u64,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResidencyTotals {
    /// Leases on what was on the device already.
    pub hits: u64,
    /// Loads that ended well.
    pub loads: u64,
    /// Generations taken from the device, for whatever reason.
    pub evictions: u64,
}
