//! The first contact with a library, in a child process: whatever it does there, the host goes on.
//!
//! This guards against faults, not against malice: a library that means harm has the rights of the user who runs it.

mod child;
mod limits;
mod prober;
mod report;

pub use child::{PROBE_ARGUMENT, probe_child_main};
pub use limits::ProbeLimits;
pub use prober::{ProbeError, Prober};
pub use report::{CycleReport, ProbeReport};
