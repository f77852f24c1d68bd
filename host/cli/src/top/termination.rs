//! SIGTERM and SIGHUP while `top` has the terminal, which has to be given back first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::low_level::emulate_default_handler;

/// From here on these signals are only noted, until [`Termination::end`].
pub(super) struct Termination {
    /// The last one; 0 for none.
    told: Arc<AtomicUsize>,
}

impl Termination {
    pub(super) fn watch() -> anyhow::Result<Self> {
        let told = Arc::new(AtomicUsize::new(0));
        for signal in [SIGTERM, SIGHUP] {
            signal_hook::flag::register_usize(signal, Arc::clone(&told), signal as usize)
                .context("can't install a handler for signals")?;
        }
        Ok(Self { told })
    }

    /// Whether one of them came.
    pub(super) fn came(&self) -> bool {
        self.told.load(Ordering::SeqCst) != 0
    }

    /// Ends the program as the signal that came would have; returns if none did.
    pub(super) fn end(&self) -> io::Result<()> {
        match self.told.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => emulate_default_handler(signal as i32),
        }
    }
}
