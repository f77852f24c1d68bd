//! The host's side of [`HostApi`]: what a pack may call while it builds.

use std::{cell::RefCell, panic::catch_unwind};

use abi_stable::{prefix_type::WithMetadata, std_types::RStr};
use pack_abi::{HostApi, HostApi_Ref, LogLevel};
use serde::{Deserialize, Serialize};

use crate::text::clipped;

/// A line that a pack wrote to the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Number of the level: 1 error, 2 warning, 3 information, 4 detail. Unknown numbers count as detail.
    pub level: u32,
    /// The text.
    pub text: String,
}

/// Bounds for what a pack can make the host keep.
const MAX_LINES: usize = 1_000;
const MAX_LINE_BYTES: usize = 4_096;

thread_local! {
    // A pack's code runs on a thread of its own, so its lines need no name.
    static LINES: RefCell<Vec<LogLine>> = const { RefCell::new(Vec::new()) };
}

/// The table handed to `build`.
pub(super) fn host_api() -> HostApi_Ref {
    struct Table;
    impl Table {
        const WITH_METADATA: &'static WithMetadata<HostApi> = &WithMetadata::new(HostApi { log, extension });
    }
    HostApi_Ref(Table::WITH_METADATA.static_as_prefix())
}

/// The lines written on this thread so far.
pub(super) fn take_lines() -> Vec<LogLine> {
    LINES.take()
}

extern "C" fn log(level: LogLevel, text: RStr<'_>) {
    // An unwind must not cross the border. A lost line is better than an abort.
    let _ = catch_unwind(|| {
        LINES.with_borrow_mut(|lines| {
            if lines.len() < MAX_LINES {
                let text = clipped(text.as_str(), MAX_LINE_BYTES).to_owned();
                lines.push(LogLine { level: level.0, text });
            }
        });
    });
}

/// This host has no extensions yet.
extern "C" fn extension(_id: RStr<'_>) -> usize {
    0
}
