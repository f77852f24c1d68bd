//! Why there is no manager, or no lease.

use std::io;

use modularbase_loader::ScanError;
use modularbase_residency::BudgetExceeded;

/// A manager that can't start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The packs directory can't be read.
    #[error(transparent)]
    Read(#[from] ScanError),
    /// No thread could be started.
    #[error("can't start a thread of the pack manager: {0}")]
    Thread(io::Error),
}

/// A pack that a request can't have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseFailure {
    /// A name that no pack has.
    #[error("no pack named `{name}` is registered (registered: {})", list(.registered))]
    Unknown {
        /// As asked for.
        name: String,
        /// What there is.
        registered: Vec<String>,
    },
    /// It is kept out.
    #[error("pack `{name}` is quarantined: {reason}")]
    Quarantined {
        /// As asked for.
        name: String,
        /// Why, in words.
        reason: String,
    },
    /// Its dependencies are not met.
    #[error("pack `{name}` can't be used: {reason}")]
    NotRoutable {
        /// As asked for.
        name: String,
        /// Which one, in words.
        reason: String,
    },
    /// Not enough memory within the time that a request waits.
    #[error("pack `{name}` can't be loaded now: {source}")]
    NoRoom {
        /// As asked for.
        name: String,
        /// Who holds the memory.
        source: Box<BudgetExceeded>,
    },
    /// It was not ready within the time that a request waits.
    #[error("pack `{name}` was not ready in time: {reason}; ask again, or raise packs.admission_wait_ms")]
    NotReady {
        /// As asked for.
        name: String,
        /// What was waited for.
        reason: String,
    },
}

impl LeaseFailure {
    /// Whether the request can go on without the pack: nothing is wrong with it but the moment.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::NoRoom { .. } | Self::NotReady { .. })
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names if names.len() > 20 => format!("{} and {} more", names[..20].join(", "), names.len() - 20),
        names => names.join(", "),
    }
}
