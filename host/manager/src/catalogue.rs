//! Which packs there are: what lies in the folder, which generations are registered, and which of them a name means.
//!
//! A *slot* is a top-level entry of the packs directory. A *record* is a generation that is registered, or was and is
//! still in use. A name leads to one record at a time; that it changes in one step is what makes a replacement atomic.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use manifests::{PackId, PackName};
use modularbase_loader::{Admitted, Candidate, CandidateKind, Generation, PackSummary, Stamp, is_unpacked};

use crate::{
    PackEvent, PackState,
    arrivals::Visit,
    event_log::now_ms,
    wake_ups::{WakeUps, pause_after},
};

/// A top-level entry of the packs directory.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Of all slots since the start: an entry that goes and comes back is another one.
    pub(crate) number: u64,
    packs_dir: Arc<Path>,
    entry: Arc<OsStr>,
    /// Where it lies, without symbolic links.
    pub(crate) canonical: Arc<Path>,
    pub(crate) kind: CandidateKind,
    /// As last looked at; `None`: to be looked at again, whatever `stat` says.
    pub(crate) stamp: Option<Stamp>,
    /// Its manifest's name, or the entry's own as long as that is not known.
    pub(crate) name: String,
    pub(crate) status: Status,
    /// A worker is looking at it.
    pub(crate) looking: bool,
    /// It changed while a worker was looking at it.
    pub(crate) again: bool,
    /// When it last changed.
    pub(crate) changed: Instant,
    /// Attempts in a row since then that failed and may have failed for no fault of its files.
    failures: u32,
    /// The registered generation that came from here.
    pub(crate) generation: Option<Generation>,
    /// Sound, but kept out by another pack of the folder.
    blocked: Option<Box<Admitted>>,
}

impl Slot {
    /// Where it lies; a link is not resolved.
    pub(crate) fn path(&self) -> PathBuf {
        self.packs_dir.join(&*self.entry)
    }
}

/// A state with its time and reason.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) state: PackState,
    pub(crate) since_ms: u64,
    pub(crate) reason: Option<String>,
}

impl Status {
    fn new(state: PackState, reason: Option<String>) -> Self {
        Self { state, since_ms: now_ms(), reason }
    }
}

/// A registered generation.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) summary: Arc<PackSummary>,
    /// The folder that it is loaded from; for an archive, where that was unpacked.
    pub(crate) folder: Arc<Path>,
    /// The entry it came from; `None` once that is gone or holds another generation.
    pub(crate) slot: Option<Arc<OsStr>>,
    pub(crate) status: Status,
    /// `None`: never loaded, as most packs of a large folder.
    pub(crate) loads: Option<Box<Loads>>,
    pub(crate) last_used_ms: Option<u64>,
    /// Set while its loads fail for no fault of its own.
    pub(crate) hold: Option<Box<Hold>>,
}

/// What is known of a generation's loads.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    pub(crate) count: u64,
    /// The last one's, by stage.
    pub(crate) took_ms: BTreeMap<String, f64>,
    pub(crate) library_pinned: bool,
    /// What the last one warned of, beside what the admission did.
    pub(crate) warnings: Vec<String>,
}

impl Record {
    pub(crate) fn library_is_pinned(&self) -> bool {
        self.loads.as_ref().is_some_and(|loads| loads.library_pinned)
    }

    /// What the last load took, by stage.
    pub(crate) fn load_ms(&self) -> BTreeMap<String, f64> {
        self.loads.as_ref().map(|loads| loads.took_ms.clone()).unwrap_or_default()
    }
}

/// Why a generation is not loaded just now, although nothing is known against it.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    /// When the next load may be tried.
    pub(crate) until: Instant,
    pub(crate) reason: String,
    /// Loads in a row that failed so.
    failures: u32,
}

/// What the catalogue wants done, outside its lock.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// No new leases of this generation; it leaves the device when the last one ends.
    Retire(Generation),
    /// It may be leased (again).
    Offer(Generation, String),
    /// For the log.
    Event(PackEvent),
}

/// Where a name leads.
#[derive(Debug, PartialEq)]
pub(crate) enum Route {
    /// To a registered generation.
    Ready(Generation),
    /// Perhaps to one that is just arriving.
    Arriving(String),
    /// To a pack that can't be used.
    Quarantined(String),
    /// To a pack whose dependencies are not met.
    NotRoutable(String),
    /// Nowhere.
    Unknown,
}

/// There may be ten thousand packs: what several of its parts say of one is shared, and what stands in a tree is boxed,
/// since one whose keys come in order is half empty.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) slots: BTreeMap<Arc<OsStr>, Box<Slot>>,
    pub(crate) records: BTreeMap<Generation, Box<Record>>,
    names: BTreeMap<PackName, Generation>,
    ids: BTreeMap<PackId, Generation>,
    /// Slots that there have been.
    visits: u64,
    /// Entries that may have something blocked: looked at instead of all when a pack goes.
    kept_out: BTreeSet<OsString>,
    /// Entries that are waited for, or that are tried again.
    pub(crate) wake_ups: WakeUps,
}

impl Catalogue {
    /// Takes note of what `stat` says of an entry. True: a worker should look at it.
    pub(crate) fn noticed(
        &mut self,
        entry: &OsStr,
        candidate: Option<Candidate>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(candidate) = candidate else {
            self.gone(entry, actions);
            return false;
        };
        let Some(slot) = self.slots.get_mut(entry) else {
            let stem = if candidate.kind == CandidateKind::Archive {
                candidate.path.file_stem()
            } else {
                candidate.path.file_name()
            };
            self.visits += 1;
            let name = stem.unwrap_or(entry).display().to_string();
            let entry: Arc<OsStr> = entry.into();
            let slot = Slot {
                number: self.visits,
                name,
                packs_dir: self.shared_folder_of(&candidate.path),
                entry: Arc::clone(&entry),
                canonical: candidate.canonical.into(),
                kind: candidate.kind,
                changed: Instant::now(),
                failures: 0,
                stamp: Some(candidate.stamp),
                status: Status::new(PackState::Seen, None),
                looking: true,
                again: false,
                generation: None,
                blocked: None,
            };
            actions.push(event(&slot.name, None, &slot.status, BTreeMap::new()));
            self.slots.insert(entry, Box::new(slot));
            return true;
        };
        if slot.stamp.as_ref() == Some(&candidate.stamp) {
            return false;
        }
        let forced = slot.stamp.is_none();
        slot.stamp = Some(candidate.stamp);
        // That was of the files before.
        slot.blocked = None;
        slot.kind = candidate.kind;
        slot.canonical = candidate.canonical.into();
        if !forced {
            slot.changed = Instant::now();
            slot.failures = 0;
        }
        if slot.looking {
            slot.again = true;
            return false;
        }
        slot.looking = true;
        self.wake_ups.cancel(entry);
        if !forced {
            let reason = slot.generation.map(|generation| {
                format!("its files changed; generation {generation} serves until the new ones are complete")
            });
            slot.status = Status::new(PackState::Seen, reason);
            actions.push(event(&slot.name, None, &slot.status, BTreeMap::new()));
        }
        true
    }

    /// The folder that a path lies in, which mostly is that of all others.
    fn shared_folder_of(&self, path: &Path) -> Arc<Path> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let known = self.slots.values().next().map(|slot| &slot.packs_dir);
        known.filter(|known| ***known == *folder).map_or_else(|| folder.into(), Arc::clone)
    }

    /// The visit that an entry is on now.
    pub(crate) fn visit(&self, entry: &OsStr) -> Option<Visit> {
        self.slots.get(entry).map(|slot| Visit { entry: entry.to_owned(), number: slot.number })
    }

    /// The slot of a visit, unless that is over.
    pub(crate) fn visited(&self, visit: &Visit) -> Option<&Slot> {
        self.slots.get(visit.entry.as_os_str()).map(|slot| &**slot).filter(|slot| slot.number == visit.number)
    }

    /// Whether a visit is not over.
    pub(crate) fn is_current(&self, visit: &Visit) -> bool {
        self.visited(visit).is_some()
    }

    /// Folders that archives were unpacked to and that registered packs are loaded from, now or when what keeps them
    /// out is gone.
    pub(crate) fn unpacked_folders(&self) -> BTreeSet<PathBuf> {
        let records = self.records.values().map(|record| &*record.folder);
        let blocked = self.slots.values().filter_map(|slot| Some(&*slot.blocked.as_ref()?.folder));
        records.chain(blocked).filter(|folder| is_unpacked(folder)).map(Path::to_owned).collect()
    }

    /// Makes the next look at an entry count whatever `stat` says.
    pub(crate) fn look_again(&mut self, entry: &OsStr) {
        if let Some(slot) = self.slots.get_mut(entry) {
            slot.stamp = None;
        }
    }

    /// A worker has passed a station.
    pub(crate) fn passed(
        &mut self,
        entry: &OsStr,
        state: PackState,
        took_ms: BTreeMap<String, f64>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(slot) = self.slots.get_mut(entry) {
            slot.status = Status::new(state, None);
            actions.push(event(&slot.name, None, &slot.status, took_ms));
        }
    }

    /// A worker is done with an entry. True: it changed meanwhile and needs another look.
    pub(crate) fn looked(&mut self, entry: &OsStr) -> bool {
        let Some(slot) = self.slots.get_mut(entry) else { return false };
        slot.looking = std::mem::take(&mut slot.again);
        slot.looking
    }

    /// An entry's files are not what their manifest says; they may still be arriving, and are looked at again when they
    /// have not changed for `settle`.
    pub(crate) fn incomplete(&mut self, entry: &OsStr, reason: String, settle: Duration) {
        if let Some(slot) = self.slots.get_mut(entry) {
            slot.blocked = None;
            // The same as before keeps its time.
            if slot.status.state != PackState::Seen || slot.status.reason.as_ref() != Some(&reason) {
                slot.status = Status::new(PackState::Seen, Some(reason));
            }
            self.wake_ups.set(entry, slot.changed + settle);
        }
    }

    /// Nothing is known against an entry, but this machine can't take it now; it is tried again by itself.
    pub(crate) fn postpone(
        &mut self,
        entry: &OsStr,
        name: Option<&str>,
        reason: String,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.slots.get_mut(entry) else { return };
        if let Some(name) = name {
            slot.name = name.to_owned();
        }
        slot.blocked = None;
        slot.status = Status::new(PackState::Seen, Some(format!("{reason}; it is tried again by itself")));
        actions.push(event(&slot.name, None, &slot.status, BTreeMap::new()));
        self.try_again(entry);
    }

    /// Lets an entry be looked at again although its files stay as they are, later with each failure in a row.
    pub(crate) fn try_again(&mut self, entry: &OsStr) {
        if let Some(slot) = self.slots.get_mut(entry) {
            slot.failures += 1;
            self.wake_ups.set(entry, Instant::now() + pause_after(slot.failures));
        }
    }

    /// A generation's load failed for no fault of its own; the next one waits. Gives until when.
    pub(crate) fn hold(&mut self, generation: Generation, reason: String) -> Option<Instant> {
        let record = self.records.get_mut(&generation)?;
        let failures = record.hold.as_ref().map_or(0, |hold| hold.failures) + 1;
        let until = Instant::now() + pause_after(failures);
        record.hold = Some(Box::new(Hold { until, reason, failures }));
        Some(until)
    }

    /// A generation was loaded: what had failed before is over.
    pub(crate) fn loaded(&mut self, generation: Generation) {
        let Some(record) = self.records.get_mut(&generation) else { return };
        record.hold = None;
        if let Some(slot) = record.slot.as_ref().and_then(|entry| self.slots.get_mut(entry)) {
            slot.failures = 0;
        }
    }

    /// Whether an entry's files have not changed for `settle`, by this host's clock or by the file system's.
    pub(crate) fn is_quiet(&self, entry: &OsStr, settle: Duration) -> bool {
        let Some(slot) = self.slots.get(entry).filter(|slot| !slot.again) else { return false };
        let by_files = |stamp: Stamp| SystemTime::now().duration_since(stamp.newest).ok();
        let quiet = slot.changed.elapsed().max(slot.stamp.and_then(by_files).unwrap_or_default());
        quiet >= settle
    }

    /// Keeps an entry out. Its old generation, where one is on the device, goes on serving.
    pub(crate) fn quarantine(
        &mut self,
        entry: &OsStr,
        name: Option<&str>,
        generation: Option<Generation>,
        reason: String,
        resident: &dyn Fn(Generation) -> bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.slots.get_mut(entry) else { return };
        if let Some(name) = name {
            slot.name = name.to_owned();
        }
        slot.blocked = None;
        slot.status = Status::new(PackState::Quarantined, Some(reason));
        actions.push(event(&slot.name, generation, &slot.status, BTreeMap::new()));
        let old = slot.generation;
        if let Some(old) = old
            && (generation == Some(old) || !resident(old))
        {
            self.withdraw(entry, old, actions);
        } else if let Some(record) = old.and_then(|old| self.records.get_mut(&old)) {
            record.status.reason = Some("its files were replaced by others that are quarantined".to_owned());
        }
    }

    /// Registers what was admitted: from here on its name means this generation. A pack that another one keeps out is
    /// quarantined until that one goes.
    pub(crate) fn register(
        &mut self,
        entry: &OsStr,
        admitted: Admitted,
        took_ms: BTreeMap<String, f64>,
        actions: &mut Vec<Action>,
    ) {
        if self.try_register(entry, admitted, took_ms, actions) {
            self.unblock(actions);
        }
    }

    fn try_register(
        &mut self,
        entry: &OsStr,
        admitted: Admitted,
        took_ms: BTreeMap<String, f64>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let obstacle = self.obstacle(entry, &admitted);
        let Some(slot) = self.slots.get_mut(entry) else { return false };
        let name = admitted.summary.name.clone();
        name.as_str().clone_into(&mut slot.name);
        let generation = admitted.generation;
        if let Some(reason) = obstacle {
            if slot.status.reason.as_ref() != Some(&reason) {
                slot.status = Status::new(PackState::Quarantined, Some(reason));
                actions.push(event(name.as_str(), Some(generation), &slot.status, BTreeMap::new()));
            }
            slot.blocked = Some(Box::new(admitted));
            self.kept_out.insert(entry.to_owned());
            if let Some(old) = slot.generation {
                self.withdraw(entry, old, actions);
            }
            return false;
        }
        slot.blocked = None;
        slot.status = Status::new(PackState::Registered, None);
        let old = slot.generation.replace(generation);
        if old != Some(generation) {
            actions.push(event(name.as_str(), Some(generation), &slot.status, took_ms));
        }
        self.names.insert(name.clone(), generation);
        self.ids.insert(admitted.summary.id.clone(), generation);
        let entry = Some(Arc::clone(&slot.entry));
        let folder = if *slot.canonical == *admitted.folder {
            Arc::clone(&slot.canonical)
        } else {
            admitted.folder.into()
        };
        match self.records.get_mut(&generation) {
            // The same bytes as before, or still draining from an earlier removal.
            Some(record) => {
                record.slot = entry;
                record.folder = folder;
                record.status.reason = record.hold.as_ref().map(|hold| hold.reason.clone());
            }
            None => {
                let record = Record {
                    folder,
                    slot: entry,
                    status: Status::new(PackState::Registered, None),
                    loads: None,
                    last_used_ms: None,
                    hold: None,
                    summary: admitted.summary,
                };
                self.records.insert(generation, Box::new(record));
            }
        }
        actions.push(Action::Offer(generation, name.to_string()));
        if let Some(old) = old.filter(|old| *old != generation) {
            self.retire(old, &format!("replaced by generation {generation}"), actions);
        }
        true
    }

    /// What another pack of the folder says against this one.
    fn obstacle(&self, entry: &OsStr, admitted: &Admitted) -> Option<String> {
        let summary = &admitted.summary;
        let elsewhere = |generation: &Generation| {
            let slot = self.records.get(generation)?.slot.as_deref()?;
            (slot != entry).then(|| self.slots.get(slot)).flatten()
        };
        if let Some(other) = self.names.get(summary.name.as_str()).and_then(elsewhere) {
            let other = other.path();
            let other = other.display();
            return Some(format!("the name `{}` is taken by `{other}`: remove one of the two", summary.name));
        }
        if let Some(other) = self.ids.get(&summary.id).and_then(elsewhere) {
            let other = other.path();
            let other = other.display();
            return Some(format!("the id `{}` is taken by `{other}`: remove one of the two", summary.id));
        }
        let mut trail = vec![summary.id.clone()];
        self.finds_itself(summary, &mut trail).then(|| {
            let trail: Vec<_> = trail.iter().map(PackId::as_str).collect();
            format!("its dependencies lead back to it: {}", trail.join(" -> "))
        })
    }

    /// Whether the dependencies of `summary`, as far as they are registered, lead back to the first of `trail`.
    fn finds_itself(&self, summary: &PackSummary, trail: &mut Vec<PackId>) -> bool {
        for (id, _) in &*summary.dependencies {
            let seen = trail.contains(id);
            trail.push(id.clone());
            if trail.first() == Some(id) {
                return true;
            }
            let next = self.ids.get(id).and_then(|generation| self.records.get(generation));
            if !seen && next.is_some_and(|record| self.finds_itself(&record.summary, trail)) {
                return true;
            }
            trail.pop();
        }
        false
    }

    /// Tries again what was kept out by a pack that may have gone.
    fn unblock(&mut self, actions: &mut Vec<Action>) {
        loop {
            self.kept_out
                .retain(|entry| self.slots.get(entry.as_os_str()).is_some_and(|slot| slot.blocked.is_some()));
            let free = self.kept_out.iter().find(|entry| {
                let blocked = self.slots.get(entry.as_os_str()).filter(|slot| !slot.looking);
                let admitted = blocked.and_then(|slot| slot.blocked.as_deref());
                admitted.is_some_and(|admitted| self.obstacle(entry, admitted).is_none())
            });
            let free = free.cloned();
            let Some(entry) = free else { return };
            let blocked = self.slots.get_mut(entry.as_os_str()).and_then(|slot| slot.blocked.take());
            match blocked {
                Some(admitted) => {
                    self.try_register(&entry, *admitted, BTreeMap::new(), actions);
                }
                None => return,
            }
        }
    }

    /// An entry is no longer in the folder.
    fn gone(&mut self, entry: &OsStr, actions: &mut Vec<Action>) {
        let Some(slot) = self.slots.remove(entry) else { return };
        self.wake_ups.cancel(entry);
        if let Some(generation) = slot.generation {
            self.retire(generation, "its files were removed", actions);
        }
        self.unblock(actions);
    }

    /// An entry no longer stands for the generation that came from it.
    fn withdraw(&mut self, entry: &OsStr, generation: Generation, actions: &mut Vec<Action>) {
        if let Some(slot) = self.slots.get_mut(entry) {
            slot.generation = None;
        }
        self.retire(generation, "its files changed", actions);
        self.unblock(actions);
    }

    /// No new requests get this generation.
    fn retire(&mut self, generation: Generation, why: &str, actions: &mut Vec<Action>) {
        if let Some(record) = self.records.get_mut(&generation) {
            let (name, id) = (record.summary.name.as_str(), &record.summary.id);
            if self.names.get(name) == Some(&generation) {
                self.names.remove(name);
            }
            if self.ids.get(id) == Some(&generation) {
                self.ids.remove(id);
            }
            record.slot = None;
            record.status.reason = Some(why.to_owned());
            actions.push(Action::Retire(generation));
        }
    }

    /// The device says what became of a generation.
    pub(crate) fn on_device(
        &mut self,
        generation: Generation,
        state: PackState,
        reason: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.records.get_mut(&generation) else { return };
        let kept = if record.slot.is_none() { record.status.reason.take() } else { None };
        record.status = Status::new(state, reason.or(kept));
        let took = if state == PackState::Resident { record.load_ms() } else { BTreeMap::new() };
        actions.push(event(record.summary.name.as_str(), Some(generation), &record.status, took));
    }

    /// Forgets a generation that no entry stands for and that is not on the device any more. True: it was forgotten.
    pub(crate) fn forget(&mut self, generation: Generation) -> bool {
        if self.records.get(&generation).is_some_and(|record| record.slot.is_none()) {
            self.records.remove(&generation);
            return true;
        }
        false
    }

    /// An evicted generation whose entry holds other files by now can't be loaded again: it goes with its name.
    pub(crate) fn drop_if_superseded(&mut self, generation: Generation, actions: &mut Vec<Action>) {
        let entry = self.records.get(&generation).and_then(|record| record.slot.clone());
        if let Some(entry) = entry
            && self.slots.get(&entry).is_some_and(|slot| slot.status.state == PackState::Quarantined)
        {
            self.withdraw(&entry, generation, actions);
        }
    }

    /// Where a name leads now.
    pub(crate) fn route(&self, name: &str) -> Route {
        if let Some(&generation) = self.names.get(name) {
            return match self.unmet(generation, &mut Vec::new()) {
                None => Route::Ready(generation),
                Some(reason) => Route::NotRoutable(reason),
            };
        }
        let of_name = self.slots.values().find(|slot| slot.name == name);
        match of_name {
            Some(slot) if slot.status.state == PackState::Quarantined => {
                Route::Quarantined(slot.status.reason.clone().unwrap_or_default())
            }
            Some(slot) => Route::Arriving(
                slot.status.reason.clone().unwrap_or_else(|| format!("it is {}", slot.status.state)),
            ),
            // A folder may be named otherwise than the pack in it.
            None if self.slots.values().any(|slot| slot.looking) => {
                Route::Arriving("packs of the folder are still being looked at".to_owned())
            }
            None => Route::Unknown,
        }
    }

    /// The dependency that keeps a generation from being used, in words.
    pub(crate) fn unmet(&self, generation: Generation, trail: &mut Vec<Generation>) -> Option<String> {
        let record = self.records.get(&generation)?;
        trail.push(generation);
        let unmet = record.summary.dependencies.iter().find_map(|(id, range)| {
            let needs = format!("it needs `{id}` {range}");
            let Some(&found) = self.ids.get(id) else {
                return Some(format!("{needs}, which is not registered: install it"));
            };
            let found_record = self.records.get(&found)?;
            if !range.matches(&found_record.summary.version) {
                return Some(format!("{needs}, found version {}", found_record.summary.version));
            }
            if trail.contains(&found) {
                return None;
            }
            self.unmet(found, trail).map(|reason| format!("{needs}, which can't be used: {reason}"))
        });
        trail.pop();
        unmet
    }

    /// The generations that a generation depends on, those it depends on first.
    pub(crate) fn dependencies(&self, generation: Generation) -> Vec<Generation> {
        let mut found = Vec::new();
        self.collect_dependencies(generation, &mut found);
        found
    }

    fn collect_dependencies(&self, generation: Generation, found: &mut Vec<Generation>) {
        let Some(record) = self.records.get(&generation) else { return };
        for (id, _) in &*record.summary.dependencies {
            if let Some(&dependency) = self.ids.get(id)
                && !found.contains(&dependency)
            {
                self.collect_dependencies(dependency, found);
                if !found.contains(&dependency) {
                    found.push(dependency);
                }
            }
        }
    }

    /// What a name means now, whether it can be used or not.
    pub(crate) fn generation(&self, name: &str) -> Option<Generation> {
        self.names.get(name).copied()
    }

    /// Names that lead to a generation, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, Generation)> {
        self.names.iter().map(|(name, generation)| (name.as_str(), *generation))
    }

    /// Whether a worker is looking at any entry.
    pub(crate) fn is_looking(&self) -> bool {
        self.slots.values().any(|slot| slot.looking)
    }
}

fn event(
    name: &str,
    generation: Option<Generation>,
    status: &Status,
    took_ms: BTreeMap<String, f64>,
) -> Action {
    Action::Event(PackEvent {
        sequence: 0,
        at_ms: status.since_ms,
        pack: name.to_owned(),
        generation: generation.map(Generation::to_hex),
        state: status.state,
        reason: status.reason.clone(),
        took_ms,
    })
}

#[cfg(test)]
mod tests;
