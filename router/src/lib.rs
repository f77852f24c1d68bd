//! Which packs answer, and with which weights.
//!
//! *Deliberately not here*: files, libraries, the model.

#![forbid(unsafe_code)]

mod selection;

pub use selection::{Candidate, Selection, SelectionError, select};
