//! Training text: recipes, readers, splits, near duplicates, packing, token caches.
//!
//! Text comes in as [`Document`]s ([`read_documents`]), becomes ids once ([`TokenCache`], through an [`Encoder`] that
//! the caller brings), and goes out as rows to train on ([`PackedRows`], [`MixedRows`]) or as windows to be scored
//! ([`windows`]). Every order here follows from a seed and an index alone, so a run goes on where it stopped.
//! This crate knows no model and no terminal.

#![forbid(unsafe_code)]

mod document;
mod document_files;
mod document_writer;
mod encoder;
mod encoding;
mod error;
mod lines;
mod mixed_rows;
mod near_duplicates;
mod needles;
mod packed_rows;
mod progress;
pub mod recipe;
mod record;
mod shuffle;
mod split;
mod token_cache;
mod token_file;
mod tokenized_corpus;
mod windows;

pub use document::{Body, Document, Format, Message};
pub use document_files::{Documents, MAX_DOCUMENT_BYTES, ReadOptions, read_documents, read_documents_with};
pub use document_writer::{DocumentWriter, write_documents};
pub use encoder::{EncodeError, EncodedConversation, Encoder};
pub use error::{CorpusError, FieldFault};
pub use mixed_rows::MixedRows;
pub use near_duplicates::{NearDuplicates, Signature};
pub use needles::{Needle, NeedleSource, with_needles};
pub use packed_rows::{LossOn, PackedRows, Row};
pub use progress::Progress;
pub use shuffle::shuffled;
pub use split::{Dropped, Fate, SplitOptions, SplitPlan, split};
pub use token_cache::TokenCache;
pub use tokenized_corpus::{TokenizedCorpus, TokenizedDocument};
pub use windows::{Window, windows};
