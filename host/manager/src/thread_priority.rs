//! Background threads give way to decode steps.

use rustix::{process::setpriority_process, thread::gettid};

/// Against a busy thread of usual priority, a thread of this one gets about a tenth of a core (`nice(1)`): a load
/// goes on beside a step without taking it one.
const NICE: i32 = 10;

/// Lowers the scheduling priority of the calling thread, for good. On Linux `setpriority` with a thread's id concerns
/// that thread alone.
pub(crate) fn yield_to_steps() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "a background thread keeps the usual priority");
    }
}
