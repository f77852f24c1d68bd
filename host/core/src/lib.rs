//! The model: base files, weights, plans, KV caches, the slot, sampling.
//!
//! A [`BaseCore`] holds the layers on both sides of the slot; an [`Expert`] is a pack's network for the slot; a
//! [`Sequence`] is the state of one text, moved forward by [`BaseCore::advance`].
//!
//! *Deliberately not here*: pack files and libraries, budgets, requests.

#![forbid(unsafe_code)]

mod activations;
mod backend;
mod base_core;
pub mod base_files;
mod chat_template;
mod cpu;
mod device;
mod error;
mod kv_cache;
mod mixture;
mod sampling;
mod sequence;
mod text_stream;
mod tokenizer;
mod weight;

pub use activations::Activations;
pub use backend::{Backend, Plan, PlanInput, SequenceRows, WeightDtype, WeightLookup};
pub use base_core::{BaseCore, PackWeights};
pub use base_files::{BaseFile, BaseFileError, StoredDtype};
pub use chat_template::{ChatMessage, ChatTemplate};
pub use cpu::CpuBackend;
pub use device::TensorBackend;
pub use error::CoreError;
pub use kv_cache::{KvCache, KvDtype};
pub use mixture::{Expert, Mixture};
pub use sampling::{Sampler, SamplingError, SamplingOptions};
pub use sequence::{Advance, LogitRows, Sequence};
pub use text_stream::{TextPiece, TextStream};
pub use tokenizer::{RenderedChat, Tokenizer, TokenizerError};
pub use weight::{StoredTensor, Weight};
