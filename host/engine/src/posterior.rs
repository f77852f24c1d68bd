//! The packs' own predictions of an ambiguous prompt, within a time limit and without loading any.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modularbase_core::{Activations, Mixture};
use modularbase_manager::PackState;
use router::{PackEvidence, PackScore, Posterior};

use crate::message::PromptRows;
use crate::{EngineError, Host, KnownText};

impl Host {
    /// Runs the candidates and the general layers on a prompt that was read, and gives each one's gain over the general
    /// layers. It is given up where a candidate is not on the device, time runs out, or there is no memory for it.
    ///
    /// # Errors
    /// A failing device.
    pub(crate) fn posterior(
        &self,
        rows: &PromptRows,
        candidates: &[PackScore],
        limit: Duration,
    ) -> Result<Posterior, EngineError> {
        match self.run_candidates(rows, candidates, limit) {
            Err(EngineError::Budget(error)) => Ok(Posterior::Skipped { skipped: error.to_string() }),
            said => said,
        }
    }

    fn run_candidates(
        &self,
        rows: &PromptRows,
        candidates: &[PackScore],
        limit: Duration,
    ) -> Result<Posterior, EngineError> {
        let skipped = |skipped: String| Ok(Posterior::Skipped { skipped });
        if rows.ids.len() < 2 {
            return skipped("the prompt has one token".to_owned());
        }
        let started = Instant::now();
        let reports = self.manager().reports();
        let is_there = |name: &str| {
            let there = [PackState::Resident, PackState::Leased];
            reports.iter().any(|report| report.name == name && there.contains(&report.state))
        };
        if let Some(away) = candidates.iter().find(|candidate| !is_there(&candidate.pack)) {
            return skipped(format!("{} is not on the device", away.pack));
        }
        let width = self.core().shape().hidden_size;
        let hidden = Activations::from_host(rows.ids.len(), width, rows.hidden.clone())?;
        let mut text = KnownText::of(self, &rows.ids, hidden)?;
        let general = text.loss(&Mixture::single(self.base_alone()), 1)?;
        let mut packs = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            // Each takes about as long as the ones before.
            let passed = started.elapsed();
            if passed + passed / (packs.len() + 1) as u32 > limit {
                let limit = limit.as_millis();
                return skipped(format!("it would have taken longer than {limit} ms"));
            }
            let lease = self.manager().lease(&[&candidate.pack], Instant::now()).pop();
            let Some(Ok(lease)) = lease else {
                return skipped(format!("{} is leaving the device", candidate.pack));
            };
            let loss = text.loss(&Mixture::single(Arc::clone(lease.resident())), 1)?;
            packs.push(PackEvidence {
                pack: candidate.pack.clone(),
                gain: general - loss,
                before: candidate.probability,
            });
        }
        Ok(Posterior::Ran { ms: started.elapsed().as_secs_f64() * 1e3, packs })
    }
}
