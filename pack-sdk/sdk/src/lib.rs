//! What a pack author depends on.
//!
//! A pack says once, at load, what network it is; the host runs it. The default expert, the base's own layers of the
//! slot, is one line:
//!
//! ```
//! pack_sdk::export_pack!(pack_sdk::LlamaExpert);
//! ```
//!
//! Anything else is a function from the configuration to a graph:
//!
//! ```
//! use pack_sdk::{Config, Error, Graph, GraphBuilder, NoSettings};
//!
//! fn build(config: &Config<NoSettings>) -> Result<Graph, Error> {
//!     let mut graph = GraphBuilder::new();
//!     let hidden = graph.hidden_input(config.base.hidden_size);
//!     let scaled = graph.scale(hidden, 1.01);
//!     Ok(graph.finish(&[scaled]))
//! }
//! pack_sdk::export_pack!(build);
//! ```
//!
//! A pack is a `cdylib` crate with a `pack.toml` beside its `Cargo.toml`, built for unwinding (`panic = "unwind"`,
//! cargo's default). It may put `#![forbid(unsafe_code)]` at its root: what [`export_pack!`] expands to comes from
//! this crate and is exempt.
//!
//! *Deliberately not here*: tensors, devices, thread pools, global state. A pack that starts a thread keeps its
//! library mapped, and the host then refuses to replace it.

mod base_shape;
mod blocks;
mod boundary;
mod config;
mod error;
mod graph_builder;
mod host;

pub mod base_graphs;
pub mod base_weights;

pub use base_shape::{BaseShape, SlotRange};
pub use blocks::{BlockStart, LlamaBlock, LlamaExpert, MoeFfn, SideNetwork};
pub use boundary::{BuildGraph, FromConfig, FromHostAndConfig, WholePack};
pub use config::{Config, NoSettings, config_json};
pub use error::Error;
pub use graph_builder::{GraphBuilder, RopeSettings, Value};
pub use host::Host;
pub use pack_abi::{ErrorCode, Graph, Init, LogLevel};

/// What [`export_pack!`] expands to needs these names; not for direct use.
#[doc(hidden)]
pub mod export {
    pub use crate::boundary::{build, info};
    pub use abi_stable;
    pub use pack_abi;
}
