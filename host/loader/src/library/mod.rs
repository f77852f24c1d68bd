//! A pack's library in this process: opened, checked, asked for its graph, closed again.
//!
//! The only module besides the weights' mapping that needs `unsafe`.

mod build_graph;
mod host_api;
mod layout;
mod pack_threads;
mod unloading;

pub use build_graph::{BuildRequest, BuiltPack, LibraryError, PackInfo, build_graph};
pub use host_api::LogLine;
pub use unloading::{Unload, is_mapped, mapped_regions};
