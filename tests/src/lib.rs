//! Whole-system tests over real packs and a real base: the hosts they run on.
//!
//! For tests only, so it panics where something is wrong.

#![forbid(unsafe_code)]

mod folders;
mod many_packs;
pub mod pack_bench;
mod process_state;
mod requests;
mod seed;
pub mod soak;
pub mod train_bench;

pub use folders::{Base, Folders, host_options, passkey_base, probe_program, small_base};
pub use many_packs::{Restart, lay_out_many, measure_restart};
pub use process_state::{ProcessState, machine_is_busy, resident_bytes};
pub use requests::{answer, first_logits, same_bits, wait_for, wait_for_state};
pub use seed::seed;
