//! A serving host: the base, the packs of a folder, and the answers they give.
//!
//! [`Host`] owns the base core, the byte ledger and the pack manager. A [`Turn`] holds the packs of one request; a
//! [`Session`] is one conversation or text. *Deliberately not here*: terminals, HTTP, how weights are laid out.

#![forbid(unsafe_code)]

mod again;
mod answer;
mod chosen;
mod context_report;
mod error;
mod host;
mod kept_text;
mod known_text;
mod memory_report;
mod message;
mod options;
mod output_attention;
mod pack_checks;
mod parked_caches;
mod placement;
mod posterior;
mod routing;
mod scoring;
mod session;
mod step_watch;
mod turn;
mod working_memory;

pub use again::Again;
pub use answer::{Answer, AnswerLimits, FinishReason, MixtureChange, MixturePart, Timings};
pub use chosen::Chosen;
pub use context_report::ContextReport;
pub use error::EngineError;
pub use host::{Host, derived_slot};
pub use known_text::KnownText;
pub use memory_report::{MemoryReport, PackMemory};
pub use message::PromptRows;
pub use options::{HostOptions, cpu_or_gpu};
pub use pack_checks::effect_on_hidden_states;
pub use routing::{policy, usable_detector};
pub use scoring::{Score, score};
pub use session::{Session, mixture_parts};
pub use turn::{OmittedPack, Turn};
