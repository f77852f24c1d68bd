//! What an operator can do to a running host.

use std::time::Duration;

use modularbase_manager::{EvictOutcome, HostStatus, PackEvent};

/// A host that is operated from outside. Called from many threads at once, one for each client; a refusal is a
/// sentence for people.
pub trait Operate: Send + Sync + 'static {
    /// What the host is doing now, with every pack.
    fn status(&self) -> HostStatus;

    /// The events that came after `sequence`, oldest first; where there are none, waits for the first at most `wait`.
    /// Events that are no longer kept are left out: a gap in the sequence tells.
    fn events_after(&self, sequence: u64, wait: Duration) -> Vec<PackEvent>;

    /// Keeps a pack on the device once it is there, or no longer. Holds over a restart.
    ///
    /// # Errors
    /// There is no such pack, or the wish can't be written down.
    fn keep(&self, pack: &str, keep: bool) -> Result<(), String>;

    /// Packs of higher priority are evicted later; 0 is where nothing is said. Holds over a restart.
    ///
    /// # Errors
    /// There is no such pack, or the wish can't be written down.
    fn set_priority(&self, pack: &str, priority: i32) -> Result<(), String>;

    /// Takes a pack from the device, unless requests use it.
    ///
    /// # Errors
    /// There is no such pack, it is kept, or it is just being loaded.
    fn evict(&self, pack: &str) -> Result<EvictOutcome, String>;

    /// Lets a quarantined pack try again.
    ///
    /// # Errors
    /// There is no such pack, or it is not in quarantine.
    fn clear_quarantine(&self, pack: &str) -> Result<(), String>;

    /// Looks at the whole folder of packs again, soon.
    fn rescan(&self);
}
