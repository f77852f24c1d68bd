//! The manager as a whole: what it is made of, how it starts and ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use modularbase_loader::{Change, Generation, LoadContext};
use modularbase_residency::{ByteLedger, EventKind, Eviction, EvictionReason, Residency, ResidencyEvent};

use crate::{
    ManagerError, ManagerOptions, PackState, PlacePacks,
    arrivals::{Arrivals, Message},
    catalogue::{Action, Catalogue},
    event_log::EventLog,
};

/// The packs of a folder: registered as they arrive, on the device while requests lease them, gone when they are taken
/// out. Dropping it stops its threads.
pub struct PackManager<P: PlacePacks> {
    /// Stopped first: it uses all the rest.
    _arrivals: Arrivals,
    pub(crate) shared: Arc<Shared<P>>,
}

/// What the threads of a manager share.
pub(crate) struct Shared<P: PlacePacks> {
    pub(crate) options: ManagerOptions,
    pub(crate) placer: P,
    pub(crate) context: LoadContext,
    /// The registrar's inbox.
    pub(crate) registrar: OnceLock<mpsc::Sender<Message>>,
    pub(crate) residency: Residency<Generation, P::Resident>,
    catalogue: Mutex<Catalogue>,
    /// Whenever a name may lead elsewhere than before.
    pub(crate) routes_changed: Condvar,
    pub(crate) events: EventLog,
    pub(crate) wishes: Mutex<Wishes>,
    pub(crate) omitted: AtomicU64,
    pub(crate) quarantines: AtomicU64,
}

/// What operators want of packs, by name.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) keep: BTreeSet<String>,
    pub(crate) priorities: BTreeMap<String, i32>,
}

impl<P: PlacePacks> PackManager<P> {
    /// Starts to look after the packs of a folder. Packs that are known from earlier are registered when this returns;
    /// others follow as they are looked at.
    ///
    /// # Errors
    /// The folder exists and can't be read, or no thread can be started. A bad pack is no error: it is quarantined.
    pub fn start(
        options: ManagerOptions,
        context: LoadContext,
        ledger: ByteLedger,
        placer: P,
    ) -> Result<Self, ManagerError> {
        let wishes =
            Wishes { keep: options.keep.iter().cloned().collect(), priorities: options.priorities.clone() };
        let shared = Arc::new_cyclic(|weak: &std::sync::Weak<Shared<P>>| {
            let weak = weak.clone();
            let observer = move |event: ResidencyEvent<Generation>| {
                if let Some(shared) = weak.upgrade() {
                    shared.on_residency(event);
                }
            };
            Shared {
                residency: Residency::new(ledger, Arc::new(observer)),
                options,
                placer,
                context,
                registrar: OnceLock::new(),
                catalogue: Mutex::default(),
                routes_changed: Condvar::new(),
                events: EventLog::new(),
                wishes: Mutex::new(wishes),
                omitted: AtomicU64::new(0),
                quarantines: AtomicU64::new(0),
            }
        });
        let arrivals = Arrivals::start(Arc::clone(&shared))?;
        Ok(Self { _arrivals: arrivals, shared })
    }

    /// What is on the device.
    pub fn residency(&self) -> &Residency<Generation, P::Resident> {
        &self.shared.residency
    }

    /// What loading a pack needs to know.
    pub fn load_context(&self) -> &LoadContext {
        &self.shared.context
    }

    /// The folder of packs.
    pub fn packs_dir(&self) -> Option<&std::path::Path> {
        self.shared.options.packs_dir.as_deref()
    }

    /// Looks over the whole folder soon.
    pub fn rescan(&self) {
        self.shared.tell(Message::Change(Change::All));
    }
}

impl<P: PlacePacks> Drop for PackManager<P> {
    fn drop(&mut self) {
        // A probe that runs now is of no more use; its worker would be waited for.
        self.shared.context.prober.cancel();
    }
}

impl<P: PlacePacks> Shared<P> {
    /// Every change leaves it whole, so a panic while it was held broke nothing.
    pub(crate) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the catalogue, then does what follows from it, without its lock: the residency calls back.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Catalogue, &mut Vec<Action>) -> T) -> T {
        let mut actions = Vec::new();
        let result = {
            let mut catalogue = self.catalogue();
            let result = change(&mut catalogue, &mut actions);
            // Under the lock, so that the log has the order in which things happened.
            for action in &actions {
                if let Action::Event(event) = action {
                    self.events.push(event.clone());
                }
            }
            result
        };
        self.routes_changed.notify_all();
        for action in actions {
            self.act(action);
        }
        result
    }

    fn act(&self, action: Action) {
        match action {
            Action::Event(event) => {
                let generation = event.generation.as_deref().and_then(|hex| hex.get(..12)).unwrap_or("-");
                let (pack, state, reason) =
                    (&event.pack, event.state, event.reason.as_deref().unwrap_or_default());
                if state == PackState::Quarantined {
                    self.quarantines.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(pack, generation, %state, reason);
                } else {
                    tracing::info!(pack, generation, %state, reason, took_ms = ?event.took_ms);
                }
            }
            Action::Retire(generation) => {
                // Where it was on the device, or on its way there, the residency tells when it is gone.
                if self.residency.retire(&generation) == Eviction::NotResident {
                    self.gone_from_device(generation);
                }
            }
            Action::Offer(generation, name) => {
                self.residency.revive(&generation);
                self.apply_wishes(generation, &name);
            }
        }
    }

    /// Tells the residency what operators want of a generation.
    pub(crate) fn apply_wishes(&self, generation: Generation, name: &str) {
        let (keep, priority) = {
            let wishes = self.wishes();
            (wishes.keep.contains(name), wishes.priorities.get(name).copied().unwrap_or(0))
        };
        self.residency.set_priority(&generation, priority);
        if keep {
            self.residency.pin(&generation);
        } else {
            self.residency.unpin(&generation);
        }
    }

    fn on_residency(&self, event: ResidencyEvent<Generation>) {
        let generation = event.key;
        let (state, reason) = match event.kind {
            EventKind::Loading => (PackState::Loading, None),
            EventKind::Resident { .. } => (PackState::Resident, None),
            EventKind::Draining { leases } => {
                (PackState::Draining, Some(format!("{leases} request(s) still use it")))
            }
            EventKind::LoadFailed => {
                self.gone_from_device(generation);
                let catalogue = self.catalogue();
                let hold = catalogue.records.get(&generation).and_then(|record| record.hold.as_deref());
                (PackState::Registered, hold.map(|hold| hold.reason.clone()))
            }
            EventKind::Evicted { why, .. } => return self.on_evicted(generation, why),
            // Leases are counted in reports; as events they would drown all others.
            EventKind::Leased | EventKind::Idle => {
                if let Some(record) = self.catalogue().records.get_mut(&generation) {
                    record.last_used_ms = Some(crate::event_log::now_ms());
                }
                return;
            }
        };
        self.change(|catalogue, actions| catalogue.on_device(generation, state, reason, actions));
    }

    fn on_evicted(&self, generation: Generation, why: EvictionReason) {
        self.placer.evicted(generation);
        let words = match why {
            EvictionReason::Budget => "its bytes were needed",
            EvictionReason::Asked => "an operator asked for it",
            EvictionReason::Retired => "its files were replaced or removed",
            EvictionReason::BudgetShrunk => "the budget was lowered",
        };
        self.change(|catalogue, actions| {
            let pinned = catalogue.records.get(&generation).is_some_and(|record| record.library_is_pinned());
            let (state, reason) = if pinned {
                (PackState::Pinned, format!("{words}; its library is pinned in memory by the dynamic linker"))
            } else {
                (PackState::Evicted, words.to_owned())
            };
            catalogue.on_device(generation, state, Some(reason), actions);
            catalogue.drop_if_superseded(generation, actions);
        });
        if why == EvictionReason::Retired {
            self.gone_from_device(generation);
        }
    }

    /// A generation that nobody can ask for and that holds nothing leaves no trace.
    fn gone_from_device(&self, generation: Generation) {
        if self.catalogue().forget(generation) {
            self.residency.forget(&generation);
            self.tell(Message::Gone(generation));
        }
    }
}
