//! The stable ABI between the host and a pack.
//!
//! A pack describes a graph once, at load; the host copies it and runs it. Nothing of the pack's code runs in a
//! forward pass. Only plain `#[repr(C)]` data crosses the border: no trait objects (a panic that leaves a
//! `sabi_trait` method ends the process), no closures, no allocations that outlive the library.
//!
//! The crate's **major version is the ABI**. Within a major version
//! - a struct here never changes ([`Node`], [`Graph`], [`Attr`], [`PackInfo`], [`PackError`]); what is new is said
//!   by a new attribute or a new operator of a later opset,
//! - [`PackModule`] and [`HostApi`] may grow at their end, and a field added there reads as `None` on an older peer,
//! - enums are open: a transparent `u32` with named constants, so an unknown value is data to be refused with a
//!   reason, never undefined behaviour.
//!
//! *Deliberately not here*: tensors, devices, threads, callbacks into a running model.

// Both come from abi_stable 0.11.3: what its derive expands to, and the names it asks for.
#![allow(non_local_definitions, non_camel_case_types)]

mod graph;
mod init;
mod module;
mod note;

pub use graph::{Attr, AttrKind, AttrValue, Graph, Node, OPSET, OpKind};
pub use init::Init;
pub use module::{
    AbiResult, ErrorCode, HostApi, HostApi_Ref, LogLevel, PackError, PackInfo, PackModule, PackModule_Ref,
};
pub use note::{AbiNote, NOTE_NAME, NOTE_SECTION, NOTE_TYPE, fixed_bytes};

/// Target triple this crate was compiled for, written into every pack's [`AbiNote`].
pub const TARGET: &str = env!("PACK_ABI_TARGET");

/// Compiler this crate was built with, as `rustc --version` prints it.
pub const RUSTC: &str = env!("PACK_ABI_RUSTC");
