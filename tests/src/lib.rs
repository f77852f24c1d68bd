//! Whole-system tests over real packs and a real base: the hosts they run on.
//!
//! For tests only, so it panics where something is wrong.

#![forbid(unsafe_code)]

mod folders;
mod process;
mod requests;

pub use folders::{Base, Folders, probe_program};
pub use process::ProcessResources;
pub use requests::{answer, first_logits, same_bits, wait_for, wait_for_state};
