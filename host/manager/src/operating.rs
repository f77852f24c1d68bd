//! What operators see of packs, and what they may do with them.

use std::{collections::HashMap, ffi::OsString, path::PathBuf, sync::atomic::Ordering, time::Duration};

use manifests::PackKind;
use modularbase_loader::Generation;
use modularbase_residency::{Eviction, Residence, ResidenceState};

use crate::{
    EvictOutcome, PackEvent, PackManager, PackReport, PackState, PlacePacks, Totals,
    arrivals::Message,
    catalogue::{Catalogue, Record, Slot},
    manager::Shared,
};

/// A registered pack, as those need it who choose packs for a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredPack {
    /// Its name.
    pub name: String,
    /// What its name means now.
    pub generation: Generation,
    /// What it does.
    pub kind: PackKind,
    /// Its weight where a mixture names it without one.
    pub default_weight: f64,
    /// Where its files lie.
    pub folder: PathBuf,
}

impl<P: PlacePacks> PackManager<P> {
    /// Every pack that a request may name, in order of the names. Packs whose dependencies are not met are left out.
    pub fn registered(&self) -> Vec<RegisteredPack> {
        let catalogue = self.shared.catalogue();
        let routable = catalogue
            .names()
            .filter(|(_, generation)| catalogue.unmet(*generation, &mut Vec::new()).is_none());
        routable
            .filter_map(|(name, generation)| {
                let record = catalogue.records.get(&generation)?;
                Some(RegisteredPack {
                    name: name.to_owned(),
                    generation,
                    kind: record.summary.kind,
                    default_weight: record.summary.default_weight,
                    folder: record.folder.to_path_buf(),
                })
            })
            .collect()
    }

    /// Waits until no entry is being looked at, up to `wait`. True: none is.
    pub fn wait_until_looked(&self, wait: Duration) -> bool {
        let (catalogue, _) = self
            .shared
            .routes_changed
            .wait_timeout_while(self.shared.catalogue(), wait, |catalogue| catalogue.is_looking())
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        !catalogue.is_looking()
    }

    /// Every entry of the folder, in order of the entries' names, and every generation that still serves although its
    /// files are gone.
    pub fn reports(&self) -> Vec<PackReport> {
        let residences = self.shared.residences();
        let catalogue = self.shared.catalogue();
        let of_slots = catalogue.slots.values().map(|slot| {
            let record = slot.generation.and_then(|generation| catalogue.records.get(&generation));
            match (record, slot.generation) {
                // While its entry is looked at anew, the old generation has a line of its own.
                (Some(record), Some(generation)) if slot.status.state == PackState::Registered => {
                    self.shared.report(&catalogue, record, generation, Some(slot), &residences)
                }
                _ => self.shared.report_of_slot(slot),
            }
        });
        let elsewhere = |generation: Generation, record: &Record| {
            let slot = record.slot.as_ref().and_then(|entry| catalogue.slots.get(entry)).map(|slot| &**slot);
            let is_shown = slot.is_some_and(|slot| slot.status.state == PackState::Registered);
            (!is_shown).then(|| self.shared.report(&catalogue, record, generation, slot, &residences))
        };
        let mut reports: Vec<PackReport> = of_slots.collect();
        let others = catalogue.records.iter();
        let others = others.filter_map(|(generation, record)| elsewhere(*generation, record));
        let mut others: Vec<PackReport> = others.collect();
        others.sort_by(|a, b| (&a.name, &a.generation).cmp(&(&b.name, &b.generation)));
        reports.extend(others);
        reports
    }

    /// Events with a higher sequence number; where there are none, waits up to `wait` for one.
    pub fn events_after(&self, sequence: u64, wait: Duration) -> Vec<PackEvent> {
        self.shared.events.after(sequence, wait)
    }

    /// Counts since the start; `requests` and `tokens` are left at 0 for whoever answers.
    pub fn totals(&self) -> Totals {
        let residency = self.shared.residency.totals();
        Totals {
            loads: residency.loads,
            evictions: residency.evictions,
            hits: residency.hits,
            omitted: self.shared.omitted.load(Ordering::Relaxed),
            quarantines: self.shared.quarantines.load(Ordering::Relaxed),
            ..Totals::default()
        }
    }

    /// Keeps the packs of a name on the device, or no longer. One that is registered is loaded if there is room.
    pub fn keep(&self, name: &str, keep: bool) {
        {
            let mut wishes = self.shared.wishes();
            if keep {
                wishes.keep.insert(name.to_owned());
            } else {
                wishes.keep.remove(name);
            }
        }
        if let Some(generation) = self.shared.wish_changed(name).filter(|_| keep) {
            self.shared.tell(Message::Prefetch(generation));
        }
    }

    /// Brings packs to the device in the background, as far as memory is free: those that will probably be asked for
    /// next.
    pub fn prefetch(&self, names: &[&str]) {
        let generations: Vec<Generation> =
            names.iter().filter_map(|name| self.shared.generation_of(name)).collect();
        generations.into_iter().for_each(|generation| self.shared.tell(Message::Prefetch(generation)));
    }

    /// Packs of higher priority are evicted later.
    pub fn set_priority(&self, name: &str, priority: i32) {
        self.shared.wishes().priorities.insert(name.to_owned(), priority);
        self.shared.wish_changed(name);
    }

    /// Names that are kept, and the priorities of names that have one.
    pub fn wishes(&self) -> (Vec<String>, std::collections::BTreeMap<String, i32>) {
        let wishes = self.shared.wishes();
        (wishes.keep.iter().cloned().collect(), wishes.priorities.clone())
    }

    /// Takes a pack from the device, unless requests use it.
    ///
    /// # Errors
    /// No pack of this name is registered, or it is kept on the device.
    pub fn evict(&self, name: &str) -> Result<EvictOutcome, String> {
        let Some(generation) = self.shared.generation_of(name) else {
            return Err(self.shared.unknown(name));
        };
        match self.shared.residency.evict(&generation) {
            Eviction::Evicted { bytes } => Ok(EvictOutcome::Evicted { bytes }),
            Eviction::InUse { leases } => Ok(EvictOutcome::InUse { leases }),
            Eviction::NotResident => Ok(EvictOutcome::NotResident),
            Eviction::Loading => Err(format!("pack `{name}` is being loaded: ask again in a moment")),
            Eviction::Pinned => {
                Err(format!("pack `{name}` is kept on the device: `modularbase packs unpin {name}` first"))
            }
        }
    }

    /// Lets a quarantined pack be looked at again as if nothing were known of it.
    ///
    /// # Errors
    /// No pack of this name is quarantined.
    pub fn clear_quarantine(&self, name: &str) -> Result<(), String> {
        let entry = {
            let catalogue = self.shared.catalogue();
            let entry = catalogue
                .slots
                .iter()
                .find(|(_, slot)| slot.name == name && slot.status.state == PackState::Quarantined);
            entry.and_then(|(entry, slot)| {
                Some((OsString::from(&**entry), slot.canonical.clone(), slot.stamp?))
            })
        };
        let Some((entry, path, stamp)) = entry else {
            return Err(format!("no pack named `{name}` is quarantined"));
        };
        let index = self.shared.context.index();
        if let Some(generation) = index.known(&path, &stamp).map(|known| known.generation) {
            index.forget(generation);
        }
        index.forget_path(&path);
        self.shared.tell(Message::LookAt(entry));
        Ok(())
    }
}

impl<P: PlacePacks> Shared<P> {
    fn generation_of(&self, name: &str) -> Option<Generation> {
        self.catalogue().generation(name)
    }

    fn wish_changed(&self, name: &str) -> Option<Generation> {
        let generation = self.generation_of(name)?;
        self.apply_wishes(generation, name);
        Some(generation)
    }

    fn unknown(&self, name: &str) -> String {
        let registered: Vec<String> = self.catalogue().names().map(|(name, _)| name.to_owned()).collect();
        crate::LeaseFailure::Unknown { name: name.to_owned(), registered }.to_string()
    }

    fn residences(&self) -> HashMap<Generation, Residence<Generation>> {
        self.residency.snapshot().into_iter().map(|residence| (residence.key, residence)).collect()
    }

    /// An entry that serves nothing (yet).
    fn report_of_slot(&self, slot: &Slot) -> PackReport {
        let wishes = self.wishes();
        PackReport {
            name: slot.name.clone(),
            path: slot.path(),
            id: None,
            version: None,
            kind: None,
            generation: None,
            state: slot.status.state,
            since_ms: slot.status.since_ms,
            reason: slot.status.reason.clone(),
            routable: false,
            not_routable: None,
            keep: wishes.keep.contains(&slot.name),
            priority: wishes.priorities.get(&slot.name).copied().unwrap_or(0),
            leases: 0,
            resident_bytes: 0,
            file_bytes: slot.stamp.map_or(0, |stamp| stamp.bytes),
            library_pinned: false,
            signer: None,
            last_used_ms: None,
            loads: 0,
            load_ms: Default::default(),
            warnings: Vec::new(),
        }
    }

    fn report(
        &self,
        catalogue: &Catalogue,
        record: &Record,
        generation: Generation,
        slot: Option<&Slot>,
        residences: &HashMap<Generation, Residence<Generation>>,
    ) -> PackReport {
        let summary = &record.summary;
        let name = summary.name.to_string();
        let residence = residences.get(&generation);
        let loads = record.loads.as_deref();
        let of_loads = loads.iter().flat_map(|loads| &loads.warnings);
        let not_routable =
            record.slot.is_some().then(|| catalogue.unmet(generation, &mut Vec::new())).flatten();
        let (keep, priority) = {
            let wishes = self.wishes();
            (wishes.keep.contains(&name), wishes.priorities.get(&name).copied().unwrap_or(0))
        };
        PackReport {
            path: slot.map_or_else(|| record.folder.to_path_buf(), Slot::path),
            id: Some(summary.id.to_string()),
            version: Some(summary.version.to_string()),
            kind: Some(summary.kind),
            generation: Some(generation.to_hex()),
            state: state_of(record, residence),
            since_ms: record.status.since_ms,
            reason: record.status.reason.clone(),
            routable: record.slot.is_some() && not_routable.is_none(),
            not_routable,
            keep,
            priority,
            leases: residence.map_or(0, |residence| residence.leases),
            resident_bytes: residence.map_or(0, |residence| residence.bytes),
            file_bytes: summary.file_bytes,
            library_pinned: record.library_is_pinned(),
            signer: summary.signer.clone(),
            last_used_ms: record.last_used_ms,
            loads: loads.map_or(0, |loads| loads.count),
            load_ms: record.load_ms(),
            warnings: summary.warnings.iter().chain(of_loads).cloned().collect(),
            name,
        }
    }
}

/// The residency knows best whether requests use a pack now.
fn state_of(record: &Record, residence: Option<&Residence<Generation>>) -> PackState {
    match residence.map(|residence| residence.state) {
        Some(ResidenceState::Leased) => PackState::Leased,
        Some(ResidenceState::Idle) => PackState::Resident,
        Some(ResidenceState::Draining) => PackState::Draining,
        Some(ResidenceState::Loading) => PackState::Loading,
        Some(ResidenceState::Evicting) | None => record.status.state,
    }
}
