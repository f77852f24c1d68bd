//! The memory that steps work in: set aside before they run, and as large as it really is when none runs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use modularbase_core::{BaseCore, CHUNK_ROWS, Mixture, StepSize, WindowShape};
use modularbase_residency::{BudgetExceeded, Reservation};

/// What the executor keeps from call to call, shared by all steps.
pub(crate) struct WorkingMemory {
    shared: Mutex<Shared>,
}

struct Shared {
    kept: Reservation,
    in_flight: usize,
}

/// The largest steps of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// New tokens that are run at once, at most.
    pub(crate) rows: usize,
    /// Tokens of the text in the end.
    pub(crate) context: usize,
    /// Rows of logits that a step returns.
    pub(crate) logit_rows: usize,
    /// The window that the text stays in.
    pub(crate) window: Option<WindowShape>,
}

/// Memory for the steps of one request, until it is dropped.
pub(crate) struct Working<'a> {
    memory: &'a WorkingMemory,
    core: &'a BaseCore,
    _passing: Reservation,
}

impl WorkingMemory {
    /// `kept` holds nothing yet.
    pub(crate) fn new(kept: Reservation) -> Self {
        Self { shared: Mutex::new(Shared { kept, in_flight: 0 }) }
    }

    /// Sets aside what the steps of a request need. `reserve` gives bytes of the ledger, after a wait perhaps.
    ///
    /// # Errors
    /// Not enough memory.
    pub(crate) fn begin<'a>(
        &'a self,
        core: &'a BaseCore,
        mixture: &Mixture,
        work: Work,
        reserve: impl Fn(u64) -> Result<Reservation, BudgetExceeded>,
    ) -> Result<Working<'a>, BudgetExceeded> {
        let step = StepSize {
            rows: work.rows.min(CHUNK_ROWS),
            sequences: 1,
            mixture_parts: mixture.parts().len(),
            context: work.context,
            logit_rows: work.logit_rows,
            window: work.window,
        };
        let experts = mixture.parts().iter().map(|(expert, _)| &**expert);
        let (kept, passing) = core.scratch_parts(experts, &step);
        let passing = reserve(passing as u64)?;
        let mut more = reserve(0)?;
        loop {
            let mut shared = self.lock();
            let missing = (kept as u64).saturating_sub(shared.kept.bytes());
            if let Some(missing) = more.split(missing) {
                // One ledger and one owner: it can't be refused.
                let _ = shared.kept.join(missing);
                shared.in_flight += 1;
                return Ok(Working { memory: self, core, _passing: passing });
            }
            // Not under the lock: those who come to their end, and give bytes back, need it.
            drop(shared);
            let missing = reserve(missing - more.bytes())?;
            let _ = more.join(missing);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut shared = self.memory.lock();
        shared.in_flight -= 1;
        if shared.in_flight == 0 {
            // What was set aside is an upper bound: what is held is less or as much, so this can't fail.
            let _ = shared.kept.resize(self.core.workspace_bytes() as u64);
        }
    }
}
