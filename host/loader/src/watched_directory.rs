//! The packs directory while the host runs: which of its entries have changed.
//!
//! An event of the operating system means only "look again": events come while a file is still being written, they are
//! merged and lost when the queue overflows, and some changes give none (what is behind a link's link). So every event
//! leads to a look at the file system, every few seconds everything is looked at without any event, and only entries
//! whose stamp has changed are reported.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    file_events::{FileEvents, Happened, Signal},
    packs_directory::{look, names_in},
    stamp::{Stamp, Stamped},
};

/// A scan takes at most this part of the time: the pause after it lasts that many times as long.
const PAUSE_PER_SCAN: u32 = 50;
/// The same while events are being lost.
const PAUSE_IN_STORMS: u32 = 4;
/// How soon a directory that is not there is looked for again.
const MISSING_DIRECTORY_PAUSE: Duration = Duration::from_millis(250);
/// How soon an entry that has changed this very moment is looked at again.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(20);
/// An entry that goes on changing is reported that often.
const UNSETTLED_REPORT: Duration = Duration::from_millis(250);

/// What may have changed in the packs directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These top-level entries appeared, changed or went.
    Entries(BTreeSet<OsString>),
    /// Anything: watching has begun, or the directory itself appeared, was replaced or went.
    All,
}

/// How a directory is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// How long events are gathered before they are looked into.
    pub debounce: Duration,
    /// How long after a look at everything the next one comes; longer where a look takes long.
    pub rescan: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(50), rescan: Duration::from_secs(5) }
    }
}

/// A directory that is watched until this is dropped. Dropping it waits for its threads to end, so it must not be
/// dropped by its own callback.
#[derive(Debug)]
pub struct WatchedDirectory {
    signals: mpsc::Sender<Signal>,
    worker: Option<JoinHandle<()>>,
}

impl WatchedDirectory {
    /// Begins to watch `dir`, which need not exist yet. `on_change` is called on a thread of its own: with
    /// [`Change::All`] as soon as changes are noticed, then for each change within the debounce time and half of it. An
    /// entry that is being written is reported when it rests for a moment, and now and then before.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        dir: &Path,
        options: WatchOptions,
        on_change: impl FnMut(Change) + Send + 'static,
    ) -> io::Result<Self> {
        let (signals, received) = mpsc::channel();
        let mut watch = Watch {
            dir: std::path::absolute(dir)?,
            options,
            on_change,
            signals: signals.clone(),
            directory: None,
            events_failed: false,
            seen: HashMap::new(),
            unsettled: BTreeMap::new(),
            events_due: None,
            last_rescan: (Instant::now(), Duration::ZERO),
            next_rescan: Instant::now(),
        };
        let worker =
            thread::Builder::new().name("packs-watch".to_owned()).spawn(move || watch.run(&received))?;
        Ok(Self { signals, worker: Some(worker) })
    }
}

/// Tells a [`WatchedDirectory`] what its reader saw.
#[derive(Debug, Clone)]
pub struct WatchFeedback {
    signals: mpsc::Sender<Signal>,
}

impl WatchedDirectory {
    /// For a reader that looks at entries itself.
    pub fn feedback(&self) -> WatchFeedback {
        WatchFeedback { signals: self.signals.clone() }
    }
}

impl WatchFeedback {
    /// What the reader saw of an entry (`None`: nothing), which may be newer or older than what it was told. From here
    /// on it is told when that is not so any more. Without it, a change that came between two looks of the directory
    /// and was taken back again would be seen by the reader alone.
    pub fn saw(&self, entry: OsString, stamp: Option<Stamp>) {
        // Nobody watches any more if this fails.
        let _ = self.signals.send(Signal::Saw(entry, stamp));
    }
}

impl Drop for WatchedDirectory {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

struct Watch<F> {
    dir: PathBuf,
    options: WatchOptions,
    on_change: F,
    signals: mpsc::Sender<Signal>,
    /// `None`: it does not exist.
    directory: Option<Directory>,
    /// Told once.
    events_failed: bool,
    /// Candidates as they were last reported.
    seen: HashMap<OsString, Box<Stamped>>,
    /// Entries that changed a moment ago, and since when they have not been reported.
    unsettled: BTreeMap<OsString, Instant>,
    /// When the events that are gathered now are looked into.
    events_due: Option<Instant>,
    /// When the last look at everything ended, and how long it took.
    last_rescan: (Instant, Duration),
    next_rescan: Instant,
}

/// The directory that is there now.
struct Directory {
    real: PathBuf,
    identity: (u64, u64),
    /// `None`: the system gives no events.
    events: Option<FileEvents>,
    /// Where links among its entries lead, and the names of those links.
    links: HashMap<PathBuf, BTreeSet<OsString>>,
}

impl<F: FnMut(Change)> Watch<F> {
    fn run(&mut self, received: &mpsc::Receiver<Signal>) {
        self.rescan();
        loop {
            let now = Instant::now();
            let mut deadline = self.next_rescan;
            if !self.unsettled.is_empty() {
                deadline = deadline.min(now + UNSETTLED_PAUSE);
            }
            deadline = self.events_due.map_or(deadline, |due| deadline.min(due));
            match received.recv_timeout(deadline.saturating_duration_since(now)) {
                Ok(Signal::Events) => {
                    self.events_due.get_or_insert_with(|| Instant::now() + self.options.debounce);
                }
                Ok(Signal::Saw(name, stamp)) => self.correct(name, stamp),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= self.next_rescan => self.rescan(),
                Err(RecvTimeoutError::Timeout)
                    if self.events_due.is_some_and(|due| Instant::now() >= due) =>
                {
                    self.look_into_events();
                }
                Err(RecvTimeoutError::Timeout) => {
                    let names = self.unsettled.keys().cloned().collect();
                    self.look_at(names);
                }
            }
        }
    }

    /// Looks at what the gathered events are about.
    fn look_into_events(&mut self) {
        self.events_due = None;
        let events = self.directory.as_ref().and_then(|directory| directory.events.as_ref());
        let Happened { paths, lost, failure } = events.map(FileEvents::take).unwrap_or_default();
        if let Some(error) = &failure {
            self.tell_of_failure(error);
        }
        if lost || failure.is_some() {
            self.rescan_soon();
        }
        if !paths.is_empty() {
            self.look_behind(&paths);
        }
    }

    /// Looks at the entries that hold these paths.
    fn look_behind(&mut self, paths: &BTreeSet<PathBuf>) {
        let Some(directory) = &self.directory else { return self.rescan() };
        let mut names = BTreeSet::new();
        for path in paths {
            match path.strip_prefix(&directory.real).map(|inside| inside.components().next()) {
                Ok(Some(name)) => drop(names.insert(name.as_os_str().to_owned())),
                // The directory itself was moved, deleted or given to somebody else.
                Ok(None) => return self.rescan(),
                Err(_) => {}
            }
            let linked = path.ancestors().take(2).filter_map(|target| directory.links.get(target));
            names.extend(linked.flatten().cloned());
        }
        self.look_at(names);
    }

    /// Takes what the reader saw for what was reported, and looks whether it is still so.
    fn correct(&mut self, name: OsString, stamp: Option<Stamp>) {
        if self.seen.get(&name).map(|seen| seen.stamp) == stamp {
            return;
        }
        match stamp {
            Some(stamp) => drop(self.seen.insert(name.clone(), Box::new(Stamped::unlisted(stamp)))),
            None => drop(self.seen.remove(&name)),
        }
        self.look_at(BTreeSet::from([name]));
    }

    /// Looks at everything as soon as that leaves most of the time to others: events are lost in storms.
    fn rescan_soon(&mut self) {
        let (ended, took) = self.last_rescan;
        self.next_rescan = self.next_rescan.min(ended + took * PAUSE_IN_STORMS);
    }

    /// Looks at everything, and whether the directory is still the same.
    fn rescan(&mut self) {
        let start = Instant::now();
        if self.find_directory() {
            self.look_at_all();
            (self.on_change)(Change::All);
        } else {
            let changed = self.look_at_all();
            self.report(changed);
        }
        let pause = match self.directory {
            Some(_) => self.options.rescan.max(start.elapsed() * PAUSE_PER_SCAN),
            None => self.options.rescan.min(MISSING_DIRECTORY_PAUSE),
        };
        let now = Instant::now();
        self.last_rescan = (now, now - start);
        self.next_rescan = now + pause;
    }

    /// Whether the directory appeared, was replaced or went. A new one is watched from here on.
    fn find_directory(&mut self) -> bool {
        let found = self.dir.canonicalize().ok().and_then(|real| {
            let metadata = real.metadata().ok()?;
            metadata.is_dir().then(|| (real, (metadata.dev(), metadata.ino())))
        });
        let before = self.directory.as_ref().map(|directory| (&directory.real, directory.identity));
        if before == found.as_ref().map(|(real, identity)| (real, *identity)) {
            return false;
        }
        self.directory = None; // its threads end before new ones start
        self.seen.clear();
        self.unsettled.clear();
        if let Some((real, identity)) = found {
            let events = match FileEvents::of(&real, self.signals.clone()) {
                Ok((events, None)) => Some(events),
                Ok((events, Some(error))) => {
                    self.tell_of_failure(&error);
                    Some(events)
                }
                Err(error) => {
                    self.tell_of_failure(&error);
                    None
                }
            };
            self.directory = Some(Directory { real, identity, events, links: HashMap::new() });
        }
        true
    }

    fn look_at_all(&mut self) -> BTreeSet<OsString> {
        let Some(directory) = &self.directory else { return BTreeSet::new() };
        // A directory that can't be listed is looked at again at the next rescan; until then nothing has changed.
        let Ok(names) = names_in(&directory.real) else { return BTreeSet::new() };
        let mut names: BTreeSet<OsString> = names.into_iter().collect();
        let gone: Vec<_> = self.seen.keys().filter(|name| !names.contains(*name)).cloned().collect();
        names.extend(gone);
        self.changed_among(names)
    }

    fn look_at(&mut self, names: BTreeSet<OsString>) {
        let changed = self.changed_among(names);
        self.report(changed);
    }

    fn report(&mut self, changed: BTreeSet<OsString>) {
        if !changed.is_empty() {
            (self.on_change)(Change::Entries(changed));
        }
    }

    /// Those of the names whose entries changed since they were reported, and rest.
    fn changed_among(&mut self, names: BTreeSet<OsString>) -> BTreeSet<OsString> {
        let Some(directory) = &mut self.directory else { return names };
        let mut changed = BTreeSet::new();
        for name in names {
            let before = self.seen.get(&name).map(|stamped| &**stamped);
            let found = look(&self.dir, &directory.real, &name, before);
            if let Some((candidate, _)) = &found
                && !candidate.stamp.is_settled(SystemTime::now())
            {
                let since = self.unsettled.entry(name.clone()).or_insert_with(Instant::now);
                if since.elapsed() >= UNSETTLED_REPORT {
                    *since = Instant::now();
                    changed.insert(name);
                }
                continue;
            }
            self.unsettled.remove(&name);
            let stamps = (before.map(|before| before.stamp), found.as_ref().map(|(found, _)| found.stamp));
            if stamps.0 == stamps.1 && before.is_none_or(Stamped::is_listed) {
                continue;
            }
            match found {
                Some((candidate, stamped)) => {
                    directory.follow(&name, Some(&candidate.canonical));
                    self.seen.insert(name.clone(), Box::new(stamped));
                }
                None => {
                    directory.follow(&name, None);
                    self.seen.remove(&name);
                }
            }
            if stamps.0 != stamps.1 {
                changed.insert(name);
            }
        }
        changed
    }

    fn tell_of_failure(&mut self, error: &notify::Error) {
        if !self.events_failed {
            let every = self.options.rescan;
            tracing::warn!(
                directory = %self.dir.display(), %error,
                "the system does not tell of all changes in the packs directory; it is looked through every {every:?}",
            );
        }
        self.events_failed = true;
    }
}

impl Directory {
    /// Asks for events of what an entry leads to, and no more of what it led to before.
    fn follow(&mut self, name: &OsString, target: Option<&Path>) {
        let link_to = target.filter(|target| **target != self.real.join(name));
        let mut left = Vec::new();
        self.links.retain(|other, names| {
            if Some(other.as_path()) != link_to && names.remove(name) && names.is_empty() {
                left.push(other.clone());
            }
            !names.is_empty()
        });
        // Within the directory there are events already.
        let is_outside = |target: &Path| !target.starts_with(&self.real);
        if let Some(events) = &mut self.events {
            left.iter().filter(|target| is_outside(target)).for_each(|target| events.leave(target));
            // Also when it is followed already: another folder may have taken the place of the one that is watched.
            link_to.into_iter().filter(|target| is_outside(target)).for_each(|target| events.follow(target));
        }
        if let Some(target) = link_to {
            self.links.entry(target.to_owned()).or_default().insert(name.clone());
        }
    }
}
