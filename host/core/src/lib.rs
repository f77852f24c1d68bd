//! The model: base files, weights, plans, KV caches, the slot, sampling.
//!
//! A [`BaseCore`] holds the layers on both sides of the slot; an [`Expert`] is a pack's network for the slot; a
//! [`Sequence`] is the state of one text, moved forward by [`BaseCore::advance`].
//!
//! *Deliberately not here*: pack files and libraries, budgets, requests.

#![forbid(unsafe_code)]

mod activations;
mod advance;
mod backend;
mod base_core;
pub mod base_files;
mod behind_slot;
mod chat_template;
mod context;
mod cpu;
mod delta_weight;
mod device;
mod device_rows;
mod error;
mod hidden_states;
mod kv_cache;
mod kv_rows;
mod mixture;
mod sampling;
mod scratch_need;
mod sequence;
mod text_stream;
mod tokenizer;
mod weight;
mod workspace;

pub use activations::Activations;
pub use advance::{Advance, CHUNK_ROWS, LogitRows};
pub use backend::{Backend, Plan, PlanInput, SequenceRows, WeightDtype, WeightLookup};
pub use base_core::{BaseCore, PackTensor, PackTensorKind, PackWeights};
pub use base_files::{BaseFile, BaseFileError, NoValues, StoredDtype};
pub use behind_slot::BehindCaches;
pub use chat_template::{ChatMessage, ChatTemplate};
pub use context::{Context, ContextTokens, KeptPart, RestoredCaches, WINDOW_VERSION, WindowShape};
pub use cpu::CpuBackend;
pub use delta_weight::{DeltaTensor, SumDtype};
pub use device::TensorBackend;
pub use error::CoreError;
pub use kv_cache::{KvCache, KvDtype};
pub use mixture::{Expert, Mixture, MixtureKey};
pub use sampling::{Sampler, SamplingError, SamplingOptions};
pub use scratch_need::{ScratchNeed, StepSize};
pub use sequence::Sequence;
pub use text_stream::{TextPiece, TextStream};
pub use tokenizer::{RenderedChat, Tokenizer, TokenizerError};
pub use weight::{StoredTensor, Weight};
