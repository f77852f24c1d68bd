//! Cold context: the KV of long texts in quantized blocks, in memory under a limit and on disk behind it.
//!
//! # What is kept
//! A text is cut into blocks of `block_tokens` tokens. Of each *stream*, one plan's KV, and each of its
//! layers, a whole block is encoded by [`encode_block`] and given to a [`ColdStore`] with a [`BlockSummary`]
//! of its keys. Plain bytes, such as hidden states, can be kept so too.
//!
//! # Where
//! Decoded blocks are in memory up to `ram_bytes`, the least recently used given up first; all blocks are in
//! a file that is only ever added to, by a thread of its own, each with checksums of its head and its
//! content.
//!
//! # Which
//! A block's key is its stream, its layer, and the hash over base, options and all tokens up to its end. Only
//! blocks whose hash is that of the text are ever found, so a text that was cut and went on with other tokens
//! never meets blocks of its past. A block whose bytes are not those that were written is refused, and all
//! after it: no text comes from damaged KV.
//!
//! # Sessions
//! A [`Session`] is a store in a folder of its own, with what its owner saves at each turn's end: tokens, a
//! note, and the hot window to the bit. [`Sessions`] is the folder of them all. Texts are the truth and KV is
//! what can be computed from them again: a session opens with the KV that is sound, and says what it had to
//! give up.
//!
//! This crate knows neither models nor devices, and starts two threads for each store: one writes, one reads
//! ahead.

#![forbid(unsafe_code)]

mod block_codec;
mod block_file;
mod block_index;
mod block_record;
mod block_summary;
mod cold_store;
mod collection;
mod compaction;
mod disk_budget;
mod error;
mod file_lock;
mod found_blocks;
mod inspection;
mod kv_shape;
mod mapped_values;
mod options;
mod prefetch;
mod ram_tier;
mod saved_turn;
mod session;
mod session_folder;
mod sessions;
mod shared_prefix;
mod token_chain;
mod write_behind;

pub use block_codec::{CodecError, decode_block, encode_block, encoded_bytes};
pub use block_index::BlockId;
pub use block_summary::BlockSummary;
pub use cold_store::{ColdStats, ColdStore};
pub use collection::Collected;
pub use error::{ContextError, DifferentSettings};
pub use inspection::{SessionDetails, SessionState, SessionSummary, StreamSummary};
pub use kv_shape::{KvBits, KvShape};
pub use mapped_values::MappedValues;
pub use options::{ContextOptions, Levels};
pub use ram_tier::DecodedBlock;
pub use saved_turn::SavedTurn;
pub use session::Session;
pub use sessions::{SessionSettings, Sessions};
