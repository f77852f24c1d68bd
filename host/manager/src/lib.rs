//! The pack manager: from a watched folder to packs on the device that requests lease, and back.
//!
//! [`PackManager`] registers what arrives in the folder (see `arrivals`), brings packs to the device when requests
//! [lease](PackManager::lease) them, and tells operators what it does. What a name means is decided in `catalogue`
//! alone; what is on the device, by `modularbase-residency` alone.
//!
//! *Deliberately not here*: the model, requests, sockets, terminals.

#![forbid(unsafe_code)]

mod arrivals;
mod catalogue;
mod error;
mod event_log;
mod leasing;
mod manager;
mod operating;
mod options;
mod pack_state;
mod placing;
mod report;
mod thread_priority;
mod wake_ups;
mod work_queue;

pub use error::{LeaseFailure, ManagerError};
pub use leasing::PackLease;
pub use manager::PackManager;
pub use operating::RegisteredPack;
pub use options::ManagerOptions;
pub use pack_state::PackState;
pub use placing::{PlaceError, PlacePacks, Placed};
pub use report::{EvictOutcome, HostStatus, PackEvent, PackReport, Totals};
