//! A serving host: the base, the packs of a folder, and the answers they give.
//!
//! [`Host`] owns the base core, the byte ledger and the catalogue of packs. A [`Session`] is one conversation or text
//! on it. *Deliberately not here*: terminals, HTTP, how weights are laid out.

#![forbid(unsafe_code)]

mod answer;
mod error;
mod host;
mod options;
mod pack_catalog;
mod pack_checks;
mod scoring;
mod session;

pub use answer::{Answer, AnswerLimits, FinishReason, MixturePart, Timings};
pub use error::EngineError;
pub use host::{Host, MemoryReport, PackMemory, derived_slot};
pub use options::{HostOptions, cpu_or_gpu};
pub use pack_catalog::{PackEntry, PackState, scan};
pub use pack_checks::effect_on_hidden_states;
pub use scoring::{Score, score};
pub use session::{Session, mixture_parts};
