//! Who holds device memory, and what is on the device.
//!
//! Every allocation on a device has an owner and is reserved before it is made: [`ByteLedger::reserve`] gives
//! a [`Reservation`], and dropping that gives the bytes back. The ledger never promises more than its budget.
//!
//! [`Residency`] holds generations on the device as long as the budget allows: requests lease them, idle ones
//! are evicted in the order of their last use when others need the bytes, retired ones go when their last
//! lease ends. What it holds owns its reservations, so that the ledger is true by construction.
//!
//! *Deliberately not here*: models, packs' files, requests, threads of its own, and what a generation is: it
//! knows a key, a value that is dropped, and bytes.

#![forbid(unsafe_code)]

mod byte_ledger;
mod event;
mod eviction;
mod lease;
mod loading;
mod lru_order;
mod owner;
mod prefetch;
mod residence;
mod residency;
mod room;
mod state;
mod sync;
mod wait;
mod waiters;

pub use byte_ledger::{ByteLedger, Reservation};
pub use event::{EventKind, EvictionReason, Observer, ResidencyEvent};
pub use eviction::Eviction;
pub use lease::{Lease, LeaseError};
pub use owner::{BudgetExceeded, Owner};
pub use residence::{Residence, ResidenceState, ResidencyTotals};
pub use residency::Residency;
pub use room::Room;
pub use state::Key;
pub use wait::{Pass, Wait};
