//! Events of the operating system below a directory, gathered for a moment, as paths to look at.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode,
    event::{AccessKind, AccessMode},
};
use notify_debouncer_full::{
    DebounceEventResult, Debouncer, FileIdCache, file_id::FileId, new_debouncer_opt,
};

use crate::stamp::Stamp;

/// How long the library's threads may take to end.
const END_GRACE: Duration = Duration::from_secs(2);

/// What the one who watches is told.
#[derive(Debug)]
pub(crate) enum Signal {
    /// Something happened to these.
    Paths(BTreeSet<PathBuf>),
    /// Events were lost.
    Anything,
    /// The system does not watch everything that it should.
    Failed(notify::Error),
    /// The one who is told has looked at an entry itself, and saw this.
    Saw(OsString, Option<Stamp>),
    /// Nobody wants to know any more.
    Stop,
}

/// The system's events; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct FileEvents {
    debouncer: Option<Debouncer<RecommendedWatcher, NoFileIds>>,
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
        debounce: Duration,
        signals: mpsc::Sender<Signal>,
    ) -> notify::Result<(Self, Option<notify::Error>)> {
        let (alive, ended) = mpsc::channel();
        let mut debouncer = new_debouncer_opt(
            debounce,
            Some(debounce / 2),
            move |result| send(&signals, result),
            NoFileIds { _alive: alive },
            // A link may lead to anywhere, and all below it would be watched.
            notify::Config::default().with_follow_symlinks(false),
        )?;
        let refused = debouncer.watch(dir, RecursiveMode::Recursive).err();
        Ok((Self { debouncer: Some(debouncer), ended }, refused))
    }

    /// Asks for events of one more folder, without those below it.
    pub(crate) fn follow(&mut self, folder: &Path) {
        if let Some(debouncer) = &mut self.debouncer {
            // Without them, the next look at everything finds what changed.
            let _ = debouncer.watch(folder, RecursiveMode::NonRecursive);
        }
    }

    /// Asks for no more events of such a folder.
    pub(crate) fn leave(&mut self, folder: &Path) {
        if let Some(debouncer) = &mut self.debouncer {
            // It may be gone already, and its events with it.
            let _ = debouncer.unwatch(folder);
        }
    }
}

impl Drop for FileEvents {
    fn drop(&mut self) {
        if let Some(debouncer) = self.debouncer.take() {
            debouncer.stop();
        }
        // The watcher's own thread is not joined by the library; the last thing it drops is what holds the sender.
        let _ = self.ended.recv_timeout(END_GRACE);
    }
}

fn send(signals: &mpsc::Sender<Signal>, result: DebounceEventResult) {
    let signal = match result {
        Ok(events) if events.iter().any(|event| event.need_rescan()) => Signal::Anything,
        Ok(events) => {
            let changes = events.into_iter().filter(|event| is_change(event.kind));
            let paths: BTreeSet<PathBuf> = changes.flat_map(|event| event.event.paths).collect();
            if paths.is_empty() {
                return;
            }
            Signal::Paths(paths)
        }
        Err(errors) => match errors.into_iter().next() {
            Some(error) => Signal::Failed(error),
            None => return,
        },
    };
    // Nobody listens any more when this fails.
    let _ = signals.send(signal);
}

/// Reading is no change, least of all our own.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Renames need not be followed by file ids: every event leads to a look.
#[derive(Debug)]
struct NoFileIds {
    _alive: mpsc::Sender<()>,
}

impl FileIdCache for NoFileIds {
    fn cached_file_id(&self, _: &Path) -> Option<impl AsRef<FileId>> {
        Option::<&FileId>::None
    }

    fn add_path(&mut self, _: &Path, _: RecursiveMode) {}

    fn remove_path(&mut self, _: &Path) {}
}
