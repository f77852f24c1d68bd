//! A serving host: the base, the packs of a folder, and the answers they give.
//!
//! [`Host`] owns the base core, the byte ledger and the pack manager. A [`Turn`] holds the packs of one request; a
//! [`Session`] is one conversation or text. *Deliberately not here*: terminals, HTTP, how weights are laid out.

#![forbid(unsafe_code)]

mod answer;
mod context_report;
mod error;
mod host;
mod memory_report;
mod options;
mod pack_checks;
mod parked_caches;
mod placement;
mod routing;
mod scoring;
mod session;
mod step_watch;
mod turn;
mod working_memory;

pub use answer::{Answer, AnswerLimits, FinishReason, MixturePart, Timings};
pub use context_report::ContextReport;
pub use error::EngineError;
pub use host::{Host, derived_slot};
pub use memory_report::{MemoryReport, PackMemory};
pub use options::{HostOptions, cpu_or_gpu};
pub use pack_checks::effect_on_hidden_states;
pub use routing::intent_feature;
pub use scoring::{Score, score};
pub use session::{Session, mixture_parts};
pub use turn::{OmittedPack, Turn};
