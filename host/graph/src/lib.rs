//! The host's own form of a pack's graph.
//!
//! What a pack returns is copied here at once ([`Graph::from_abi`]): typed operators in an order that can be
//! executed, with nothing left of the pack's memory. [`infer_shapes`] then checks every edge. An executor that gets a
//! [`CheckedGraph`] needs to doubt nothing but the weights.
//!
//! *Deliberately not here*: tensors, devices, files.

#![forbid(unsafe_code)]

mod error;
mod import;
mod op;
mod shape;

pub use error::GraphError;
pub use op::{Graph, InputKind, Node, NodeId, Op, RopeLayout, RopeSpec, WeightSpec};
pub use pack_abi::Init;
pub use shape::{CheckedGraph, KvLayer, Shape, infer_shapes};

/// Highest operator set this host runs.
pub const OPSET: u32 = pack_abi::OPSET;
