//! From a change in the folder to a registered or quarantined pack.
//!
//! One thread, the registrar, takes note of what changed; a few workers look at what it found, since a probe may take
//! its whole time limit and other packs must not wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use modularbase_loader::{
    AdmissionStage, Admitted, Candidate, CandidateKind, Change, Examined, Generation, Known, LoadFailure,
    Outcome, WatchFeedback, WatchOptions, WatchedDirectory, admit_complete, admit_unpacked, candidate,
    examine, scan, sweep_staging, sweep_unpacked, unpack, unpacked_to,
};

use crate::{
    ManagerError, PackState, PlacePacks, leasing::millis, manager::Shared, thread_priority::yield_to_steps,
    work_queue::WorkQueue,
};

/// Threads that look at packs. They mostly wait for a probe's child.
const WORKERS: usize = 4;
/// Entries that are taken note of at once.
const PORTION: usize = 256;
/// How often an unfinished pack is looked at although nothing told of a change.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

pub(crate) enum Message {
    Change(Change),
    /// A worker is done with an entry.
    Looked(Visit),
    /// Look at an entry although its files did not change.
    LookAt(OsString),
    /// Bring a pack to the device if there is room.
    Prefetch(Generation),
    /// A generation has left for good.
    Gone(Generation),
    /// The next wake-up may come earlier than it did.
    WakeUps,
    Stop,
}

/// One entry as it came into the folder: one that goes and comes back is another visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) entry: OsString,
    pub(crate) number: u64,
}

enum Job {
    Look(Visit),
    Prefetch(Generation),
}

/// The threads behind the folder.
pub(crate) struct Arrivals {
    messages: mpsc::Sender<Message>,
    // In this order: no more changes, then no more work for the workers, which end with the registrar.
    watcher: Option<WatchedDirectory>,
    registrar: Option<JoinHandle<()>>,
}

impl Arrivals {
    pub(crate) fn start<P: PlacePacks>(shared: Arc<Shared<P>>) -> Result<Self, ManagerError> {
        let (messages, inbox) = mpsc::channel();
        // Set once: there is one registrar.
        let _ = shared.registrar.set(messages.clone());
        let workers = WorkQueue::start(WORKERS, "pack-admission", {
            let (shared, messages) = (Arc::clone(&shared), messages.clone());
            move |job| match job {
                Job::Look(visit) => {
                    shared.look(&visit);
                    // The registrar is gone only when the workers are to go too.
                    let _ = messages.send(Message::Looked(visit));
                }
                Job::Prefetch(generation) => shared.prefetch(generation),
            }
        })
        .map_err(ManagerError::Thread)?;
        let mut registrar = Registrar {
            shared: Arc::clone(&shared),
            workers,
            feedback: None,
            looks: 0,
            gone: BTreeSet::new(),
            sweep_is_due: true,
        };
        shared.clear_leftovers();
        registrar.look_over_all()?;
        let watcher = match (&shared.options.packs_dir, shared.options.watch) {
            (Some(folder), true) => {
                let options = WatchOptions { rescan: shared.options.rescan, ..WatchOptions::default() };
                let messages = messages.clone();
                let tell = move |change| {
                    let _ = messages.send(Message::Change(change));
                };
                Some(WatchedDirectory::start(folder, options, tell).map_err(ManagerError::Thread)?)
            }
            _ => None,
        };
        registrar.feedback = watcher.as_ref().map(WatchedDirectory::feedback);
        let registrar = thread::Builder::new()
            .name("pack-registrar".to_owned())
            .spawn(move || registrar.run(&inbox))
            .map_err(ManagerError::Thread)?;
        Ok(Self { messages, watcher, registrar: Some(registrar) })
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        drop(self.watcher.take());
        let _ = self.messages.send(Message::Stop);
        if let Some(registrar) = self.registrar.take() {
            // A panic of it was printed when it happened.
            let _ = registrar.join();
        }
    }
}

struct Registrar<P: PlacePacks> {
    shared: Arc<Shared<P>>,
    workers: WorkQueue<Job>,
    /// Tells the watcher what this thread saw.
    feedback: Option<WatchFeedback>,
    /// Looks that workers have been asked for and are not done with.
    looks: usize,
    /// Generations whose copies are to go.
    gone: BTreeSet<Generation>,
    /// What archives were unpacked to may be of no more use.
    sweep_is_due: bool,
}

impl<P: PlacePacks> Registrar<P> {
    fn run(mut self, inbox: &mpsc::Receiver<Message>) {
        yield_to_steps();
        loop {
            let due = self.shared.catalogue().wake_ups.take_due(Instant::now());
            due.into_iter().for_each(|entry| self.force(entry));
            let next = self.shared.catalogue().wake_ups.next();
            let sleep = next.map_or(LONGEST_SLEEP, |next| next.saturating_duration_since(Instant::now()));
            let message = match inbox.recv_timeout(sleep) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match message {
                Message::Stop => return,
                Message::Change(Change::Entries(entries)) => {
                    entries.into_iter().for_each(|entry| self.notice(entry));
                }
                Message::Change(Change::All) => {
                    if let Err(error) = self.look_over_all() {
                        tracing::warn!(%error, "the packs directory is not looked over");
                    }
                }
                Message::LookAt(entry) => self.force(entry),
                Message::WakeUps => {}
                Message::Prefetch(generation) => self.workers.push(Job::Prefetch(generation)),
                Message::Gone(generation) => {
                    self.gone.insert(generation);
                    self.sweep_is_due = true;
                }
                Message::Looked(visit) => {
                    self.looks -= 1;
                    self.looked(visit);
                }
            }
            self.clean_up();
        }
    }

    /// Looks at every entry of the folder, and notices which ones are gone.
    fn look_over_all(&mut self) -> Result<(), ManagerError> {
        let Some(folder) = &self.shared.options.packs_dir else { return Ok(()) };
        let mut found = match scan(folder) {
            Ok(found) => Some(found),
            // A folder that does not exist yet is one without packs.
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let mut missing: BTreeSet<Arc<OsStr>> = self.shared.catalogue().slots.keys().cloned().collect();
        let mut looks = Vec::new();
        // In portions: neither are what was found of ten thousand packs and its events in memory at once, nor is the
        // catalogue locked for all that time.
        let mut portion = || found.iter_mut().flatten().take(PORTION).collect::<Vec<_>>();
        let portions = std::iter::from_fn(|| Some(portion()).filter(|portion| !portion.is_empty()));
        portions.for_each(|portion| {
            self.shared.change(|catalogue, actions| {
                for candidate in portion {
                    let Some(entry) = candidate.path.file_name().map(OsString::from) else { continue };
                    self.tell_watcher(&entry, Some(&candidate));
                    missing.remove(&*entry);
                    if catalogue.noticed(&entry, Some(candidate), actions) {
                        looks.push(entry);
                    }
                }
            });
        });
        self.shared.change(|catalogue, actions| {
            for entry in &missing {
                self.tell_watcher(entry, None);
                catalogue.noticed(entry, None, actions);
            }
        });
        drop(found);
        for entry in looks {
            self.dispatch(&entry);
        }
        self.sweep_is_due = true;
        Ok(())
    }

    fn notice(&mut self, entry: OsString) {
        let Some(folder) = &self.shared.options.packs_dir else { return };
        // What can't be looked at is not there.
        let found = candidate(folder, &entry).ok().flatten();
        self.sweep_is_due |= found.is_none();
        self.tell_watcher(&entry, found.as_ref());
        if self.shared.change(|catalogue, actions| catalogue.noticed(&entry, found, actions)) {
            self.dispatch(&entry);
        }
    }

    fn tell_watcher(&self, entry: &OsStr, found: Option<&Candidate>) {
        if let Some(feedback) = &self.feedback {
            feedback.saw(entry.to_owned(), found.map(|found| found.stamp));
        }
    }

    fn force(&mut self, entry: OsString) {
        self.shared.catalogue().look_again(&entry);
        self.notice(entry);
    }

    /// A pack whose look is known from earlier is registered at once; others go to the workers.
    fn dispatch(&mut self, entry: &OsString) {
        let visit = self.shared.catalogue().visit(entry);
        let Some(visit) = visit else { return };
        if self.shared.recall(entry) {
            self.looked(visit);
        } else {
            self.look(visit);
        }
    }

    fn look(&mut self, visit: Visit) {
        self.looks += 1;
        self.workers.push(Job::Look(visit));
    }

    fn looked(&mut self, visit: Visit) {
        if !self.shared.catalogue().is_current(&visit) {
            return;
        }
        if self.shared.catalogue().looked(&visit.entry) {
            self.look(visit);
            return;
        }
        self.shared.routes_changed.notify_all();
        let kept = {
            let catalogue = self.shared.catalogue();
            let slot = catalogue.slots.get(visit.entry.as_os_str());
            slot.and_then(|slot| slot.generation.filter(|_| self.shared.wishes().keep.contains(&slot.name)))
        };
        if let Some(generation) = kept {
            self.workers.push(Job::Prefetch(generation));
        }
    }

    /// Removes what is of no more use. Not while anything is looked at: it may be something gone that has come back, what
    /// is being unpacked belongs to nobody yet, and only this thread starts another look.
    fn clean_up(&mut self) {
        if self.looks > 0 {
            return;
        }
        for generation in std::mem::take(&mut self.gone) {
            if self.shared.catalogue().records.contains_key(&generation) {
                continue;
            }
            if let Err(error) = self.shared.context.cache.remove(generation) {
                tracing::warn!(%generation, %error, "copies of a pack's files stay behind");
            }
        }
        if std::mem::take(&mut self.sweep_is_due) {
            self.sweep();
        }
    }

    /// Removes what archives that are gone were unpacked to, and copies beyond the limit.
    fn sweep(&self) {
        let catalogue = || self.shared.catalogue();
        let cache = &self.shared.context.cache;
        let unpacked = catalogue().unpacked_folders();
        if let Err(error) = sweep_unpacked(cache, &unpacked) {
            tracing::warn!(%error, "what archives were unpacked to stays behind");
        }
        let is_registered = |generation: &Generation| catalogue().records.contains_key(generation);
        if let Err(error) = cache.trim(self.shared.options.cache_limit, is_registered) {
            tracing::warn!(%error, "copies of packs' files beyond the limit stay");
        }
    }
}

/// What came of looking at an entry.
enum Look {
    Admitted(Box<Admitted>),
    /// Its files are not what the manifest says, and may still be arriving: what is waited for, and what to say when
    /// nothing more comes.
    Unfinished {
        waiting: String,
        at_the_end: String,
    },
    /// Nothing is known against it, but it can't be taken now.
    Postponed {
        name: Option<String>,
        reason: String,
    },
    Refused {
        /// Its manifest's, where that could be read.
        name: Option<String>,
        generation: Option<Generation>,
        reason: String,
        /// The same files may pass another time.
        try_again: bool,
    },
    /// It went away meanwhile.
    Gone,
}

impl Look {
    fn unsound(reason: String) -> Self {
        Self::Unfinished { waiting: reason.clone(), at_the_end: reason }
    }

    fn incomplete(waiting: String) -> Self {
        let at_the_end = format!("{waiting}, and nothing more came: copy it again");
        Self::Unfinished { waiting, at_the_end }
    }
}

impl<P: PlacePacks> Shared<P> {
    /// Tells the registrar, unless it has ended.
    pub(crate) fn tell(&self, message: Message) {
        if let Some(registrar) = self.registrar.get() {
            let _ = registrar.send(message);
        }
    }

    /// Removes what a host or an installation that was killed has left half-done.
    fn clear_leftovers(&self) {
        if let Err(error) = self.context.cache.sweep_temporary() {
            tracing::warn!(%error, "half-written copies of an earlier host stay behind");
        }
        let Some(folder) = self.options.packs_dir.as_deref().filter(|folder| folder.exists()) else { return };
        if let Err(error) = sweep_staging(folder) {
            tracing::warn!(%error, "half-done installations stay behind");
        }
    }

    /// Registers or refuses an entry by what is known of its files from earlier. False: nothing is.
    fn recall(&self, entry: &OsString) -> bool {
        let known = {
            let catalogue = self.catalogue();
            let Some(slot) = catalogue.slots.get(entry.as_os_str()) else { return true };
            let known = slot.stamp.and_then(|stamp| self.context.index().known(&slot.canonical, &stamp));
            known.map(|known| (slot.canonical.to_path_buf(), known))
        };
        let Some((path, Known { generation, summary, outcome, archive, .. })) = known else { return false };
        let folder = archive.map_or(path, |hash| unpacked_to(&self.context.cache, &hash));
        // What an archive was unpacked to may have been removed since.
        if outcome == Outcome::Admitted && archive.is_some() && !folder.is_dir() {
            return false;
        }
        self.change(|catalogue, actions| match outcome {
            Outcome::Admitted => {
                let admitted =
                    Admitted { generation, summary, folder, timings: Default::default(), was_probed: false };
                catalogue.register(entry, admitted, BTreeMap::new(), actions);
            }
            Outcome::Refused(reason) => {
                let (name, reason) = (summary.name.as_str(), reason.to_string());
                catalogue.quarantine(entry, Some(name), Some(generation), reason, &|_| false, actions);
            }
        });
        true
    }

    /// Looks at an entry's files, from their hashes to the probe.
    fn look(&self, visit: &Visit) {
        let Some((path, kind)) = self.catalogue().visited(visit).map(|slot| (slot.path(), slot.kind)) else {
            return;
        };
        let mut took_ms = BTreeMap::new();
        let look = self.examined(visit, path, kind, &mut took_ms);
        self.conclude(visit, look, took_ms);
    }

    fn examined(
        &self,
        visit: &Visit,
        path: PathBuf,
        kind: CandidateKind,
        took_ms: &mut BTreeMap<String, f64>,
    ) -> Look {
        let began = Instant::now();
        let unpacked = match kind {
            CandidateKind::Folder => None,
            CandidateKind::Archive => match unpack(&path, &self.context.cache) {
                Ok(unpacked) => Some(unpacked),
                Err(error) if !path.exists() => {
                    tracing::debug!(%error, "an archive went away while it was read");
                    return Look::Gone;
                }
                Err(error) if error.is_incomplete() => return Look::unsound(error.to_string()),
                Err(error) if error.is_the_hosts() => {
                    return Look::Postponed { name: None, reason: error.to_string() };
                }
                Err(error) => {
                    let reason = error.to_string();
                    return Look::Refused { name: None, generation: None, reason, try_again: false };
                }
            },
        };
        let pack = match examine(unpacked.as_ref().map_or(&path, |unpacked| &unpacked.folder)) {
            Examined::Complete(pack) => pack,
            _ if !path.exists() => return Look::Gone,
            Examined::Incomplete { reason } => return Look::incomplete(reason),
            Examined::Unsound(error) => return Look::unsound(error.to_string()),
        };
        let mut on_stage = |stage: AdmissionStage, took: Duration| {
            let (word, state) = match stage {
                AdmissionStage::Verified => ("verify", Some(PackState::Verified)),
                AdmissionStage::Inspected => ("inspect", None),
                AdmissionStage::Cached => ("cache", None),
                AdmissionStage::Probed => ("probe", Some(PackState::Probed)),
            };
            took_ms.insert(word.to_owned(), millis(took));
            let Some(state) = state else { return };
            let took_ms = took_ms.clone();
            self.change(|catalogue, actions| {
                if catalogue.is_current(visit) {
                    catalogue.passed(&visit.entry, state, took_ms, actions);
                }
            });
        };
        let admitted = match &unpacked {
            Some(unpacked) => admit_unpacked(began, unpacked, &pack, &self.context, &mut on_stage),
            None => admit_complete(began, &pack, &self.context, &mut on_stage),
        };
        match admitted {
            Ok(admitted) => Look::Admitted(Box::new(admitted)),
            Err(_) if !path.exists() => Look::Gone,
            Err(error) if matches!(*error.failure, LoadFailure::Folder(_)) => {
                Look::unsound(error.failure.to_string())
            }
            Err(error) if error.failure.is_the_hosts() => {
                Look::Postponed { name: Some(error.pack), reason: error.failure.to_string() }
            }
            Err(error) => Look::Refused {
                reason: error.failure.to_string(),
                try_again: !error.failure.is_lasting(),
                name: Some(error.pack),
                generation: error.generation,
            },
        }
    }

    fn conclude(&self, visit: &Visit, look: Look, took_ms: BTreeMap<String, f64>) {
        let resident = |generation: Generation| self.residency.residence(&generation).is_some();
        let (entry, settle) = (&visit.entry, self.options.settle);
        self.change(|catalogue, actions| match look {
            Look::Admitted(admitted) if !catalogue.is_current(visit) => {
                self.tell(Message::Gone(admitted.generation));
            }
            // What lies there now is looked at for itself.
            _ if !catalogue.is_current(visit) => {}
            // Should it be there again, the same as before, no change will be told of.
            Look::Gone => catalogue.try_again(entry),
            Look::Admitted(admitted) => catalogue.register(entry, *admitted, took_ms, actions),
            Look::Unfinished { at_the_end, .. } if catalogue.is_quiet(entry, settle) => {
                catalogue.quarantine(entry, None, None, at_the_end, &resident, actions);
            }
            Look::Unfinished { waiting, .. } => catalogue.incomplete(entry, waiting, settle),
            Look::Postponed { name, reason } => catalogue.postpone(entry, name.as_deref(), reason, actions),
            Look::Refused { name, generation, reason, try_again } => {
                catalogue.quarantine(entry, name.as_deref(), generation, reason, &resident, actions);
                if try_again {
                    catalogue.try_again(entry);
                }
            }
        });
    }
}
