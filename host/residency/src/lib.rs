//! Who holds device memory.
//!
//! Every allocation on a device has an owner and is reserved before it is made: [`ByteLedger::reserve`] gives a
//! [`Reservation`], and dropping that gives the bytes back. The ledger never promises more than its budget.
//!
//! *Deliberately not here*: models, packs' files, requests.

#![forbid(unsafe_code)]

mod byte_ledger;

pub use byte_ledger::{BudgetExceeded, ByteLedger, Owner, Reservation};
