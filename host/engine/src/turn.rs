//! The packs of one request, held until it ends.

use std::{sync::Arc, time::Instant};

use manifests::{MixtureChoice, PackKind};
use modularbase_core::{Expert, Mixture};
use modularbase_manager::{PackLease, RegisteredPack};
use modularbase_residency::Pass;
use router::{Candidate, Selection, select};
use serde::Serialize;

use crate::{EngineError, Host};

/// A mixture whose packs stay on the device, in the generations that they had when the turn began, until it is dropped.
pub struct Turn {
    mixture: Mixture,
    omitted: Vec<OmittedPack>,
    _leases: Vec<PackLease<Arc<Expert>>>,
}

/// A pack that a request had to go without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OmittedPack {
    /// Its name.
    pub pack: String,
    /// Why, in words.
    pub reason: String,
}

impl Turn {
    /// What answers.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// Packs that were asked for and could not be had for the moment. The weights of the others are scaled to 1; where
    /// none is left, the base's own layers answer.
    pub fn omitted(&self) -> &[OmittedPack] {
        &self.omitted
    }
}

impl Host {
    /// Leases the packs of a choice. Those that are not on the device are loaded; a pack for which there is no memory
    /// within the time that requests wait is left out.
    ///
    /// # Errors
    /// An unknown or quarantined pack, or one whose dependencies are not met.
    pub fn turn(&self, choice: &MixtureChoice) -> Result<Turn, EngineError> {
        self.turn_until(choice, Instant::now() + self.admission_wait())
    }

    /// As [`Host::turn`], with another time up to which packs wait for memory.
    pub(crate) fn turn_until(&self, choice: &MixtureChoice, until: Instant) -> Result<Turn, EngineError> {
        self.turn_with(None, choice, until)
    }

    /// Leases the packs of a choice, then does what takes more memory: `take` is given the turn and the instant up to which
    /// it may wait. It is called a second time where it was refused: others may wait for what the turn holds, so that is
    /// given back, and gone on when it is this request's turn to wait.
    ///
    /// # Errors
    /// As [`Host::turn`], and those of `take`.
    pub(crate) fn turn_taking<T>(
        &self,
        choice: &MixtureChoice,
        mut take: impl FnMut(&Turn, Instant) -> Result<T, EngineError>,
    ) -> Result<(Turn, T), EngineError> {
        let until = Instant::now() + self.admission_wait();
        let turn = self.turn_until(choice, until)?;
        match take(&turn, Instant::now()) {
            Err(EngineError::Budget(refused)) if refused.needed <= refused.budget => {
                drop(turn);
                let pass = self.manager().pass(until).ok_or(EngineError::Budget(refused))?;
                let turn = self.turn_with(Some(&pass), choice, until)?;
                let taken = take(&turn, until)?;
                Ok((turn, taken))
            }
            taken => Ok((turn, taken?)),
        }
    }

    fn turn_with(
        &self,
        pass: Option<&Pass>,
        choice: &MixtureChoice,
        until: Instant,
    ) -> Result<Turn, EngineError> {
        let Selection::Packs(wanted) = self.select(choice)? else {
            return Ok(self.base_alone_turn(Vec::new()));
        };
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let mut parts = Vec::with_capacity(names.len());
        let mut leases = Vec::with_capacity(names.len());
        let mut omitted = Vec::new();
        let leased = match pass {
            Some(pass) => self.manager().lease_with(pass, &names, until),
            None => self.manager().lease(&names, until),
        };
        for ((name, weight), lease) in wanted.iter().zip(leased) {
            match lease {
                Ok(lease) => {
                    parts.push((Arc::clone(lease.resident()), *weight as f32));
                    leases.push(lease);
                }
                Err(failure) if failure.is_for_now() => {
                    tracing::warn!(pack = name, %failure, "answering without it");
                    omitted.push(OmittedPack { pack: name.clone(), reason: failure.to_string() });
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        self.manager().count_omitted(omitted.len() as u64);
        if parts.is_empty() {
            return Ok(self.base_alone_turn(omitted));
        }
        Ok(Turn { mixture: Mixture::new(parts)?, omitted, _leases: leases })
    }

    fn base_alone_turn(&self, omitted: Vec<OmittedPack>) -> Turn {
        Turn { mixture: Mixture::single(self.base_alone()), omitted, _leases: Vec::new() }
    }

    /// Names and weights for a choice. A name that is not registered is left to the lease: it may be arriving.
    fn select(&self, choice: &MixtureChoice) -> Result<Selection, EngineError> {
        let named = choice.normalized();
        let registered = match choice {
            MixtureChoice::Auto => self.registered_when_looked(),
            _ => self.manager().registered(),
        };
        let named = named.iter().flatten().map(|(name, _)| Candidate { name: name.as_str(), general: false });
        let known = registered
            .iter()
            .map(|pack| Candidate { name: &pack.name, general: pack.kind == PackKind::General });
        Ok(select(choice, &named.chain(known).collect::<Vec<_>>())?)
    }

    /// The registered packs; while there is no general pack, those that are being looked at are waited for.
    pub(crate) fn registered_when_looked(&self) -> Vec<RegisteredPack> {
        let registered = self.manager().registered();
        if !registered.iter().any(|pack| pack.kind == PackKind::General)
            && self.manager().wait_until_looked(self.admission_wait())
        {
            return self.manager().registered();
        }
        registered
    }
}
