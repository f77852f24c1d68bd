//! What the host offers while `build` runs.

use std::num::NonZeroUsize;

use abi_stable::std_types::RStr;
use pack_abi::{HostApi_Ref, LogLevel};

/// The host, for the time of one `build`.
#[derive(Clone, Copy)]
pub struct Host<'build> {
    api: HostApi_Ref,
    // Ties the handle to the call: a pack can't keep it.
    call: std::marker::PhantomData<&'build ()>,
}

impl Host<'_> {
    pub(crate) fn new(api: HostApi_Ref) -> Self {
        Self { api, call: std::marker::PhantomData }
    }

    /// Writes a line to the host's log, attributed to this pack. Use it where you would use `println!`: the probe that
    /// first builds a pack reads its own results from standard output.
    pub fn log(&self, level: LogLevel, message: &str) {
        (self.api.log())(level, RStr::from_str(message));
    }

    /// [`Host::log`] at `INFO`.
    pub fn info(&self, message: &str) {
        self.log(LogLevel::INFO, message);
    }

    /// [`Host::log`] at `WARN`.
    pub fn warn(&self, message: &str) {
        self.log(LogLevel::WARN, message);
    }

    /// Address of a host extension by id and revision (`"org.modularbase.custom-op/1"`), if the host has it.
    pub fn extension(&self, id: &str) -> Option<NonZeroUsize> {
        NonZeroUsize::new((self.api.extension())(RStr::from_str(id)))
    }
}
