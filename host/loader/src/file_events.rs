//! Events of the operating system below a directory, gathered until they are asked for, as paths to look at.
//!
//! Only what may be a change is kept: looking through ten thousand folders gives as many events of them being opened,
//! and more. For the same reason no library gathers them, which would keep them all, with their order and time.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

use crate::stamp::Stamp;

/// How long the library's thread may take to end.
const END_GRACE: Duration = Duration::from_secs(2);

/// What the one who watches is told.
#[derive(Debug)]
pub(crate) enum Signal {
    /// Something happened, for the first time since [`FileEvents::take`].
    Events,
    /// The one who is told has looked at an entry itself, and saw this.
    Saw(OsString, Option<Stamp>),
    /// Nobody wants to know any more.
    Stop,
}

/// What has happened since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    /// Something happened to these.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// Events were lost.
    pub(crate) lost: bool,
    /// The system does not watch everything that it should.
    pub(crate) failure: Option<notify::Error>,
}

impl Happened {
    fn is_nothing(&self) -> bool {
        self.paths.is_empty() && !self.lost && self.failure.is_none()
    }

    fn add(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.lost = true,
            Ok(event) if is_change(event.kind) => self.paths.extend(event.paths),
            Ok(_) => {}
            Err(error) => self.failure = Some(error),
        }
    }
}

/// The system's events; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct FileEvents {
    watcher: Option<RecommendedWatcher>,
    happened: Arc<Mutex<Happened>>,
    ended: mpsc::Receiver<()>,
}

impl FileEvents {
    /// Asks for events of the directory and all in it. Where the system refuses a part, that is given beside: it has a
    /// limit on watches.
    ///
    /// # Errors
    /// The system gives no events at all.
    pub(crate) fn of(
        dir: &Path,
        signals: mpsc::Sender<Signal>,
    ) -> notify::Result<(Self, Option<notify::Error>)> {
        let (alive, ended) = mpsc::channel::<()>();
        let happened = Arc::new(Mutex::new(Happened::default()));
        let gathered = Arc::clone(&happened);
        let gather = move |event| {
            // Goes with the library's thread.
            let _alive = &alive;
            let mut happened = gathered.lock().unwrap_or_else(PoisonError::into_inner);
            let was_nothing = happened.is_nothing();
            happened.add(event);
            if was_nothing && !happened.is_nothing() {
                // Nobody listens any more when this fails.
                let _ = signals.send(Signal::Events);
            }
        };
        // A link may lead to anywhere, and all below it would be watched.
        let config = notify::Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(gather, config)?;
        let refused = watcher.watch(dir, RecursiveMode::Recursive).err();
        Ok((Self { watcher: Some(watcher), happened, ended }, refused))
    }

    /// What has happened since this was last called.
    pub(crate) fn take(&self) -> Happened {
        std::mem::take(&mut *self.happened.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for events of one more folder, without those below it.
    pub(crate) fn follow(&mut self, folder: &Path) {
        if let Some(watcher) = &mut self.watcher {
            // Without them, the next look at everything finds what changed.
            let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
        }
    }

    /// Asks for no more events of such a folder.
    pub(crate) fn leave(&mut self, folder: &Path) {
        if let Some(watcher) = &mut self.watcher {
            // It may be gone already, and its events with it.
            let _ = watcher.unwatch(folder);
        }
    }
}

impl Drop for FileEvents {
    fn drop(&mut self) {
        drop(self.watcher.take());
        // The library does not join its thread; the last thing that one drops is what holds the sender.
        let _ = self.ended.recv_timeout(END_GRACE);
    }
}

/// Reading is no change, least of all our own.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// Nothing is measured by it.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn reading_is_no_event_and_changes_are_gathered_until_they_are_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().canonicalize().unwrap();
        let [read, one, two, three] = ["read", "one", "two", "three"].map(|name| dir.join(name));
        fs::write(&read, "1").unwrap();
        let (signals, received) = mpsc::channel();
        let (events, refused) = FileEvents::of(&dir, signals).unwrap();
        assert!(refused.is_none(), "{refused:?}");
        fs::read(&read).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::write(&one, "1").unwrap();
        assert!(matches!(received.recv_timeout(PATIENCE), Ok(Signal::Events)));

        // They come in order, so what was read would be among them by then.
        fs::write(&two, "1").unwrap();
        while !events.happened.lock().unwrap().paths.contains(&two) {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(received.try_recv().is_err(), "told twice of what was not asked for yet");
        let happened = events.take();
        assert_eq!(happened.paths, BTreeSet::from([one, two.clone()]));
        assert!(!happened.lost && happened.failure.is_none());

        fs::write(&three, "1").unwrap();
        while !events.happened.lock().unwrap().paths.contains(&three) {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(received.recv_timeout(PATIENCE), Ok(Signal::Events)));
    }
}
