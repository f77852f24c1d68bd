//! What holds after every single step.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use modularbase_engine::Host;
use modularbase_manager::{PackEvent, PackReport, PackState};
use modularbase_residency::Owner;

use crate::{account::account, clients::Running, folder_model::FolderModel, shelf::NAMES};

/// How long what threads are doing may take. Nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is remembered of a host from step to step.
pub struct Invariants {
    last_event: u64,
    /// After the budget was made smaller than what is held: what was held then, and less with time.
    ceiling: u64,
    of_names: BTreeMap<String, PackState>,
    of_generations: BTreeMap<String, OnDevice>,
    /// Names that had folder and archive at once: their events can't be told apart.
    ambiguous: BTreeSet<String>,
    /// Generations that an operator keeps on the device and that were there.
    kept: BTreeMap<usize, String>,
}

/// What the events say of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDevice {
    Off,
    Loading,
    On,
    Draining,
    /// Registered anew while it was loading, or its load failed.
    Either,
}

impl Invariants {
    pub fn new() -> Self {
        Self {
            last_event: 0,
            ceiling: 0,
            of_names: BTreeMap::new(),
            of_generations: BTreeMap::new(),
            ambiguous: BTreeSet::new(),
            kept: BTreeMap::new(),
        }
    }

    /// The budget was just changed.
    pub fn budget_changed(&mut self, host: &Host) {
        self.ceiling = sum(host);
    }

    /// Checks everything.
    pub fn check(&mut self, host: &Host, model: &FolderModel<'_>, running: &[Running]) -> Result<(), String> {
        self.budget(host)?;
        self.leased_bytes(host, running)?;
        self.events(host, model)?;
        let mut wrong = None;
        // Threads of the host load and evict meanwhile; what they are doing ends.
        wait_until(|| {
            wrong = self.reports(host, model).err();
            wrong.is_none()
        });
        wrong.map_or(Ok(()), Err)
    }

    fn budget(&mut self, host: &Host) -> Result<(), String> {
        let (held, budget) = (sum(host), host.ledger().budget());
        if held > budget.max(self.ceiling) {
            let holders = host.ledger().holders();
            return Err(format!("{held} bytes are held, the budget is {budget}: {holders:?}"));
        }
        self.ceiling = self.ceiling.min(held);
        Ok(())
    }

    fn leased_bytes(&self, host: &Host, running: &[Running]) -> Result<(), String> {
        let generations = running.iter().flat_map(Running::generations);
        for generation in generations {
            if host.ledger().held_by(&Owner::Pack(generation.to_owned())) == 0 {
                return Err(format!("a request uses {generation}, which holds no bytes"));
            }
        }
        Ok(())
    }

    /// Reports and ledger, of one moment.
    fn reports(&mut self, host: &Host, model: &FolderModel<'_>) -> Result<(), String> {
        let before = packs(host);
        let reports = host.manager().reports();
        if before != packs(host) {
            return Err("the ledger never rests".to_owned());
        }
        let mut resident = BTreeMap::new();
        let mut routable = BTreeSet::new();
        for report in &reports {
            if report.state == PackState::Quarantined && report.reason.as_ref().is_none_or(String::is_empty) {
                return Err(format!("quarantined without a reason{}", account(host, &report.name)));
            }
            if report.routable && !routable.insert(report.name.as_str()) {
                let name = &report.name;
                return Err(format!("`{name}` leads to two generations{}", account(host, name)));
            }
            let Some(generation) = &report.generation else { continue };
            if report.resident_bytes > 0
                && resident.insert(generation.clone(), report.resident_bytes).is_some()
            {
                let account = account(host, &report.name);
                return Err(format!("{generation} is reported twice{account}"));
            }
        }
        if resident != before {
            let accounts: String = NAMES.iter().map(|name| account(host, name)).collect();
            return Err(format!("reports say {resident:?}, the ledger {before:?}{accounts}"));
        }
        self.kept_stay(&reports, model)
    }

    fn kept_stay(&mut self, reports: &[PackReport], model: &FolderModel<'_>) -> Result<(), String> {
        for (index, name) in NAMES.iter().enumerate() {
            let now = reports.iter().find(|report| report.name == *name && report.routable);
            let now = now.filter(|report| report.keep && !model.of(index).changed);
            let resident = now.filter(|report| report.resident_bytes > 0);
            if let Some(before) = self.kept.get(&index)
                && let Some(now) = now
                && now.generation.as_ref() == Some(before)
                && resident.is_none()
            {
                return Err(format!("`{name}` is kept on the device, and is gone: {now:?}"));
            }
            match resident.and_then(|report| report.generation.clone()) {
                Some(generation) => drop(self.kept.insert(index, generation)),
                None => drop(self.kept.remove(&index)),
            }
        }
        Ok(())
    }

    /// Every event follows from those before.
    pub fn events(&mut self, host: &Host, model: &FolderModel<'_>) -> Result<(), String> {
        let two = (0..NAMES.len()).filter(|name| model.of(*name).had_two);
        self.ambiguous.extend(two.map(|name| NAMES[name].to_owned()));
        let new = host.manager().events_after(self.last_event, Duration::ZERO);
        for event in new {
            if event.sequence != self.last_event + 1 {
                return Err(format!("event {} follows {}", event.sequence, self.last_event));
            }
            self.last_event = event.sequence;
            if event.state == PackState::Quarantined && event.reason.as_ref().is_none_or(String::is_empty) {
                return Err(format!("quarantined without a reason: {event:?}"));
            }
            self.follows(&event).map_err(|before| {
                let account = account(host, &event.pack);
                format!(
                    "event {} of `{}`: from {before} to {}{account}",
                    event.sequence, event.pack, event.state
                )
            })?;
        }
        Ok(())
    }

    fn follows(&mut self, event: &PackEvent) -> Result<(), String> {
        use PackState::*;
        match event.state {
            Loading | Resident | Draining | Evicted | Pinned | Leased => self.follows_on_device(event),
            Seen | Verified | Probed | Registered | Quarantined => {
                if event.state == Registered && self.load_has_failed(event) {
                    return Ok(());
                }
                let before = self.of_names.insert(event.pack.clone(), event.state);
                if self.ambiguous.contains(&event.pack) {
                    return Ok(());
                }
                let may = match event.state {
                    Verified => before.is_some(),
                    Probed => before == Some(Verified),
                    Registered | Quarantined => {
                        before.is_some() && (event.state, before) != (Registered, Some(Verified))
                    }
                    _ => true,
                };
                if may {
                    Ok(())
                } else {
                    Err(before.map_or("nowhere".to_owned(), |before| before.to_string()))
                }
            }
        }
    }

    /// A load that fails leads back to `registered`; so does a pack that comes back while it is loaded.
    fn load_has_failed(&mut self, event: &PackEvent) -> bool {
        let state = event.generation.as_ref().and_then(|generation| self.of_generations.get_mut(generation));
        let Some(state) = state.filter(|state| matches!(state, OnDevice::Loading | OnDevice::Either)) else {
            return false;
        };
        *state = OnDevice::Either;
        true
    }

    fn follows_on_device(&mut self, event: &PackEvent) -> Result<(), String> {
        use OnDevice::*;
        let Some(generation) = &event.generation else { return Err("no generation".to_owned()) };
        let state = self.of_generations.entry(generation.clone()).or_insert(Off);
        let (may, now) = match event.state {
            PackState::Loading => (matches!(*state, Off | Either), Loading),
            PackState::Resident => (matches!(*state, Loading | Either), On),
            PackState::Draining => (matches!(*state, On | Draining | Either), Draining),
            _ => (matches!(*state, On | Draining | Either), Off),
        };
        let before = std::mem::replace(state, now);
        if may { Ok(()) } else { Err(format!("{before:?}")) }
    }
}

/// Bytes that anybody holds.
pub fn sum(host: &Host) -> u64 {
    host.ledger().holders().iter().map(|(_, bytes)| bytes).sum()
}

/// Bytes of packs by generation.
fn packs(host: &Host) -> BTreeMap<String, u64> {
    let holders = host.ledger().holders().into_iter();
    holders
        .filter_map(|(owner, bytes)| match owner {
            Owner::Pack(generation) => Some((generation, bytes)),
            _ => None,
        })
        .collect()
}

/// Waits until something holds; false: it never did.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
