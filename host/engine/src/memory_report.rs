//! Who holds how much device memory.

use modularbase_residency::{ByteLedger, Owner};

/// Who holds how much device memory, bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MemoryReport {
    /// The limit for everything below.
    pub budget_bytes: u64,
    /// Weights of the base.
    pub base_bytes: u64,
    /// Caches of all sessions.
    pub kv_bytes: u64,
    /// Compiled plans, beside their weights.
    pub plan_bytes: u64,
    /// Working memory of the executor.
    pub scratch_bytes: u64,
    /// Packs on the device.
    pub packs: Vec<PackMemory>,
}

/// Device memory of one pack.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PackMemory {
    /// Its name.
    pub pack: String,
    /// Its own weights, bytes; those it shares with the base count there.
    pub resident_bytes: u64,
}

impl MemoryReport {
    pub(crate) fn of(ledger: &ByteLedger, packs: Vec<PackMemory>) -> Self {
        Self {
            budget_bytes: ledger.budget(),
            base_bytes: ledger.held_by(&Owner::Base),
            kv_bytes: ledger.held_by(&Owner::Kv),
            plan_bytes: ledger.held_by(&Owner::Plan),
            scratch_bytes: ledger.held_by(&Owner::Scratch),
            packs,
        }
    }
}
