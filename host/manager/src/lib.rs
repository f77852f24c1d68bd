//! The pack manager: from a watched folder to packs on the device that requests lease, and back.
//!
//! *Deliberately not here*: the model, requests, sockets, terminals.

#![forbid(unsafe_code)]

mod pack_state;
mod report;

pub use pack_state::PackState;
pub use report::{EvictOutcome, HostStatus, PackEvent, PackReport, Totals};
