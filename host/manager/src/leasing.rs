//! From a name to a pack on the device that a request holds.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use manifests::PackKind;
use modularbase_loader::{
    Generation, LoadFailure, LoadStage, QuarantineReason, Unload, candidate, load_and_place,
};
use modularbase_residency::{BudgetExceeded, Lease, LeaseError, Pass, Room, Wait};

use crate::{
    LeaseFailure, PackManager, PlaceError, PlacePacks,
    arrivals::Message,
    catalogue::{Catalogue, Route},
    manager::Shared,
    thread_priority::yield_to_steps,
};

/// A request's hold on a pack: neither it nor what it depends on is evicted before this is dropped.
pub struct PackLease<R: Send + Sync + 'static> {
    name: String,
    lease: Lease<Generation, R>,
    _dependencies: Vec<Lease<Generation, R>>,
}

impl<R: Send + Sync + 'static> PackLease<R> {
    /// The name it was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The generation that the name meant when it was leased.
    pub fn generation(&self) -> Generation {
        *self.lease.key()
    }

    /// The pack on the device.
    pub fn resident(&self) -> &R {
        &self.lease
    }
}

/// What a request holds while it leases a pack.
#[derive(Debug, Clone, Copy)]
enum Holds {
    Nothing,
    Others,
    Pass,
}

impl Holds {
    /// How a pack with dependencies, or without, waits for memory.
    fn wait(self, dependencies: bool) -> Wait {
        match self {
            Self::Nothing if !dependencies => Wait::InQueue,
            Self::Nothing | Self::Others => Wait::No,
            Self::Pass => Wait::Ahead,
        }
    }
}

/// Why a pack was not leased.
struct Refusal {
    failure: LeaseFailure,
    /// It was for want of memory that others hold, and they were not waited for.
    did_not_wait: bool,
}

impl From<LeaseFailure> for Refusal {
    fn from(failure: LeaseFailure) -> Self {
        Self { failure, did_not_wait: false }
    }
}

fn failures<T>(leases: Vec<Result<T, Refusal>>) -> Vec<Result<T, LeaseFailure>> {
    leases.into_iter().map(|lease| lease.map_err(|refusal| refusal.failure)).collect()
}

/// Why a load ended without a pack on the device.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LoadRefusal {
    #[error(transparent)]
    NoRoom(BudgetExceeded),
    #[error("its folder holds another generation by now")]
    Superseded,
    /// Through no fault of the pack.
    #[error("{0}")]
    NotNow(String),
    #[error("{reason}")]
    Bad {
        reason: QuarantineReason,
        /// The same files may load another time.
        try_again: bool,
    },
}

impl<P: PlacePacks> PackManager<P> {
    /// Leases the packs of a request that holds none yet, each with what it depends on. They load beside each other.
    ///
    /// A pack that is just arriving, being loaded by another request or waiting for memory is waited for up to `until`.
    pub fn lease(&self, names: &[&str], until: Instant) -> Vec<Result<PackLease<P::Resident>, LeaseFailure>> {
        let holds = if names.len() == 1 { Holds::Nothing } else { Holds::Others };
        let tried = self.lease_each(names, holds, until);
        let did_not_wait =
            |lease: &Result<_, Refusal>| lease.as_ref().is_err_and(|refusal| refusal.did_not_wait);
        if tried.iter().any(did_not_wait) {
            // Others may wait for what it got.
            drop(tried);
            return match self.pass(until) {
                Some(pass) => self.lease_with(&pass, names, until),
                None => failures(self.lease_each(names, Holds::Others, until)),
            };
        }
        failures(tried)
    }

    /// The right to wait for memory while holding some, for a request that holds nothing yet. `None`: its turn did not come
    /// before `until`.
    pub fn pass(&self, until: Instant) -> Option<Pass> {
        self.shared.residency.pass(until)
    }

    /// As [`PackManager::lease`], for a request that holds the pass.
    pub fn lease_with(
        &self,
        _pass: &Pass,
        names: &[&str],
        until: Instant,
    ) -> Vec<Result<PackLease<P::Resident>, LeaseFailure>> {
        failures(self.lease_each(names, Holds::Pass, until))
    }

    fn lease_each(
        &self,
        names: &[&str],
        holds: Holds,
        until: Instant,
    ) -> Vec<Result<PackLease<P::Resident>, Refusal>> {
        let one = |name: &str| self.shared.lease(name, holds, until);
        match names {
            [name] => vec![one(name)],
            names => thread::scope(|scope| {
                let running: Vec<_> = names.iter().map(|name| scope.spawn(|| one(name))).collect();
                let joined = running.into_iter().zip(names).map(|(running, name)| {
                    running.join().unwrap_or_else(|_| {
                        let reason = "the thread that leased it panicked".to_owned();
                        Err(LeaseFailure::NotReady { name: (*name).to_owned(), reason }.into())
                    })
                });
                joined.collect()
            }),
        }
    }

    /// Counts packs that a request had to go without.
    pub fn count_omitted(&self, packs: u64) {
        self.shared.omitted.fetch_add(packs, Ordering::Relaxed);
    }
}

impl<P: PlacePacks> Shared<P> {
    fn lease(&self, name: &str, holds: Holds, until: Instant) -> Result<PackLease<P::Resident>, Refusal> {
        loop {
            let generation = self.routed(name, until)?;
            if self.is_router(generation) {
                let reason = "it chooses mixtures and can't be part of one".to_owned();
                return Err(LeaseFailure::NotRoutable { name: name.to_owned(), reason }.into());
            }
            let wanted = self.catalogue().dependencies(generation);
            let wait = holds.wait(!wanted.is_empty());
            let leases: Result<Vec<_>, _> = wanted
                .into_iter()
                .chain([generation])
                .map(|wanted| self.lease_generation(wanted, wait, until))
                .collect();
            let refusal = match leases {
                Ok(mut leases) => {
                    // The last one is the pack itself.
                    let Some(lease) = leases.pop() else { continue };
                    return Ok(PackLease { name: name.to_owned(), lease, _dependencies: leases });
                }
                Err(refusal) => refusal,
            };
            let name = name.to_owned();
            let not_ready = |reason: String| LeaseFailure::NotReady { name: name.clone(), reason };
            let tries = wait == Wait::No;
            match refusal {
                LeaseError::Load { error, .. } => match &*error {
                    LoadRefusal::NoRoom(source) => {
                        let did_not_wait = tries && source.needed <= source.budget;
                        let source = Box::new(source.clone());
                        return Err(Refusal { failure: LeaseFailure::NoRoom { name, source }, did_not_wait });
                    }
                    LoadRefusal::NotNow(reason) => return Err(not_ready(reason.clone()).into()),
                    LoadRefusal::Bad { reason, .. } => {
                        return Err(LeaseFailure::Quarantined { name, reason: reason.to_string() }.into());
                    }
                    LoadRefusal::Superseded => {}
                },
                LeaseError::Retired { .. } => {}
                error @ LeaseError::TimedOut { .. } => {
                    let failure = not_ready(error.to_string());
                    return Err(Refusal { failure, did_not_wait: tries && Instant::now() < until });
                }
                error @ (LeaseError::LoadPanicked { .. } | LeaseError::LoadElsewhere { .. }) => {
                    return Err(not_ready(error.to_string()).into());
                }
            }
            // The name means another generation by now, or will in a moment.
            if Instant::now() >= until {
                return Err(not_ready("its files are being replaced".to_owned()).into());
            }
            if let Some(entry) = self.superseded(generation) {
                self.tell(Message::LookAt(entry));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether a generation is a router pack, which has no graph to be loaded.
    fn is_router(&self, generation: Generation) -> bool {
        let catalogue = self.catalogue();
        catalogue.records.get(&generation).is_some_and(|record| record.summary.kind == PackKind::Router)
    }

    /// The generation that a name means. A pack that is just arriving is waited for.
    fn routed(&self, name: &str, until: Instant) -> Result<Generation, LeaseFailure> {
        let mut catalogue = self.catalogue();
        loop {
            let name = || name.to_owned();
            let waiting_for = match catalogue.route(&name()) {
                Route::Ready(generation) => return Ok(generation),
                Route::Quarantined(reason) => {
                    return Err(LeaseFailure::Quarantined { name: name(), reason });
                }
                Route::NotRoutable(reason) => {
                    return Err(LeaseFailure::NotRoutable { name: name(), reason });
                }
                // The watcher tells of an entry some milliseconds after it came.
                Route::Unknown => match self.just_appeared(&name(), &catalogue) {
                    Some(entry) => {
                        self.tell(Message::LookAt(entry));
                        "it has just appeared".to_owned()
                    }
                    None => {
                        let registered = catalogue.names().map(|(name, _)| name.to_owned()).collect();
                        return Err(LeaseFailure::Unknown { name: name(), registered });
                    }
                },
                Route::Arriving(reason) => reason,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LeaseFailure::NotReady { name: name(), reason: waiting_for });
            }
            catalogue =
                self.routes_changed.wait_timeout(catalogue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The entry that a pack of this name would usually lie in, if it is there and nothing is known of it yet.
    fn just_appeared(&self, name: &str, catalogue: &Catalogue) -> Option<OsString> {
        let folder = self.options.packs_dir.as_deref().filter(|_| self.options.watch)?;
        let entries = [OsString::from(name), format!("{name}.mbpack").into()];
        entries.into_iter().find(|entry| {
            !catalogue.slots.contains_key(entry.as_os_str())
                && matches!(candidate(folder, entry), Ok(Some(_)))
        })
    }

    fn lease_generation(
        &self,
        generation: Generation,
        wait: Wait,
        until: Instant,
    ) -> Result<Lease<Generation, P::Resident>, LeaseError<LoadRefusal>> {
        loop {
            self.wait_for_hold(generation, until)?;
            let leased =
                self.residency.lease_as(&generation, wait, until, |room| self.load(generation, room));
            match &leased {
                Err(LeaseError::Load { error, .. }) if matches!(**error, LoadRefusal::NotNow(_)) => {}
                _ => return leased,
            }
        }
    }

    /// Waits until the next load of a generation may be tried; an error at once if that will not be before `until`.
    fn wait_for_hold(&self, generation: Generation, until: Instant) -> Result<(), LeaseError<LoadRefusal>> {
        let mut catalogue = self.catalogue();
        loop {
            let hold = catalogue.records.get(&generation).and_then(|record| record.hold.as_deref());
            let Some(hold) = hold.filter(|hold| hold.until > Instant::now()) else { return Ok(()) };
            if hold.until >= until {
                let error = LoadRefusal::NotNow(hold.reason.clone()).into();
                return Err(LeaseError::Load { key: generation.to_string(), error });
            }
            let left = hold.until.saturating_duration_since(Instant::now());
            catalogue =
                self.routes_changed.wait_timeout(catalogue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Loads on a thread of its own, which gives way to decode steps; the caller waits for it.
    pub(crate) fn load(
        &self,
        generation: Generation,
        room: &Room<'_>,
    ) -> Result<(P::Resident, u64), LoadRefusal> {
        let panicked = || {
            let reason = "the load panicked".to_owned();
            LoadRefusal::Bad {
                reason: QuarantineReason { stage: LoadStage::Library, reason },
                try_again: false,
            }
        };
        let loaded = thread::scope(|scope| {
            let thread = thread::Builder::new().name("pack-load".to_owned());
            let running = thread.spawn_scoped(scope, || {
                yield_to_steps();
                self.load_here(generation, room)
            });
            match running {
                Ok(running) => running.join().unwrap_or_else(|_| Err(panicked())),
                Err(error) => {
                    Err(LoadRefusal::NotNow(format!("no thread could be started for its load: {error}")))
                }
            }
        });
        match &loaded {
            Ok(_) => self.catalogue().loaded(generation),
            Err(LoadRefusal::Bad { reason, try_again }) => {
                self.quarantine_loaded(generation, reason, *try_again);
            }
            Err(LoadRefusal::NotNow(reason)) => self.hold(generation, reason),
            Err(LoadRefusal::NoRoom(_) | LoadRefusal::Superseded) => {}
        }
        loaded
    }

    fn load_here(&self, generation: Generation, room: &Room<'_>) -> Result<(P::Resident, u64), LoadRefusal> {
        let Some((name, folder)) = self
            .catalogue()
            .records
            .get(&generation)
            .map(|record| (record.summary.name.to_string(), record.folder.clone()))
        else {
            return Err(LoadRefusal::Superseded);
        };
        let span = tracing::info_span!(
            "load",
            pack = name,
            %generation,
            inspect_ms = tracing::field::Empty,
            cache_ms = tracing::field::Empty,
            build_ms = tracing::field::Empty,
            place_ms = tracing::field::Empty,
            bytes = tracing::field::Empty
        );
        let _entered = span.enter();
        let loaded = load_and_place(&folder, generation, &self.context, |pack| {
            let started = Instant::now();
            (self.placer.place(pack, room), started.elapsed())
        });
        let (pack, (placed, placing)) = loaded.map_err(|error| match *error.failure {
            // The files are not those that were admitted: they are looked at again.
            LoadFailure::Superseded { .. } | LoadFailure::Folder(_) => LoadRefusal::Superseded,
            _ if error.failure.is_the_hosts() => LoadRefusal::NotNow(error.failure.to_string()),
            _ => {
                LoadRefusal::Bad { reason: error.quarantine_reason(), try_again: !error.failure.is_lasting() }
            }
        })?;
        let placed = placed.map_err(|error| match error {
            PlaceError::NoRoom(error) => LoadRefusal::NoRoom(error),
            PlaceError::Bad(reason) => LoadRefusal::Bad { reason, try_again: false },
        })?;
        let stages = [
            ("inspect", pack.timings.inspect),
            ("cache", pack.timings.cache),
            ("build", pack.timings.build),
            ("place", placing),
        ];
        let load_ms: BTreeMap<String, f64> =
            stages.iter().map(|(stage, took)| ((*stage).to_owned(), millis(*took))).collect();
        for (stage, took) in stages {
            span.record(format!("{stage}_ms").as_str(), millis(took));
        }
        span.record("bytes", placed.bytes);
        if let Some(record) = self.catalogue().records.get_mut(&generation) {
            let loads = record.loads.get_or_insert_default();
            loads.count += 1;
            loads.took_ms = load_ms;
            loads.library_pinned = pack.unload == Unload::Pinned;
            loads.warnings = pack.warnings.iter().map(ToString::to_string).collect();
        }
        Ok((placed.resident, placed.bytes))
    }

    /// Keeps out a pack whose load failed, for good or for a while.
    fn quarantine_loaded(&self, generation: Generation, reason: &QuarantineReason, try_again: bool) {
        self.context.index().forget(generation);
        self.change(|catalogue, actions| {
            let entry = catalogue.records.get(&generation).and_then(|record| record.slot.clone());
            if let Some(entry) = entry {
                let words = reason.to_string();
                catalogue.quarantine(&entry, None, Some(generation), words, &|_| false, actions);
                if try_again {
                    catalogue.try_again(&entry);
                }
            }
        });
        if try_again {
            self.tell(Message::WakeUps);
        }
    }

    /// Lets the next load of a pack wait, whose load failed for no fault of its own. One that is kept on the device is
    /// loaded again without being asked for.
    fn hold(&self, generation: Generation, reason: &str) {
        tracing::warn!(%generation, reason, "a pack can't be loaded now");
        let reason = format!("its last load failed: {reason}; it is tried again by itself");
        let mut catalogue = self.catalogue();
        let Some(until) = catalogue.hold(generation, reason) else { return };
        let Some(record) = catalogue.records.get(&generation) else { return };
        let entry = record.slot.clone();
        if let Some(entry) = entry.filter(|_| self.wishes().keep.contains(record.summary.name.as_str())) {
            catalogue.wake_ups.set(&entry, until);
            drop(catalogue);
            self.tell(Message::WakeUps);
        }
    }

    /// The entry of a generation that its folder no longer holds, to be looked at again.
    fn superseded(&self, generation: Generation) -> Option<OsString> {
        self.catalogue().records.get(&generation)?.slot.as_deref().map(OsString::from)
    }

    /// Loads a generation into free memory, evicting nothing.
    pub(crate) fn prefetch(self: &Arc<Self>, generation: Generation) {
        if self.is_router(generation) {
            return;
        }
        let hold = self.catalogue().records.get(&generation).and_then(|record| record.hold.clone());
        if hold.is_some_and(|hold| hold.until > Instant::now()) {
            return;
        }
        let outcome = self.residency.prefetch(&generation, |room| self.load(generation, room));
        match outcome {
            Ok(loaded) => tracing::debug!(%generation, loaded, "prefetch"),
            Err(error) => tracing::debug!(%generation, ?error, "not prefetched"),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
