//! What stays of a watched directory: nothing. Alone in its process, so that threads and descriptors are its own.

use std::{
    fs,
    sync::mpsc,
    time::{Duration, Instant},
};

use modularbase_loader::{Change, WatchOptions, WatchedDirectory};

#[test]
fn no_thread_and_no_descriptor_of_a_watched_directory_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let before = (threads(), descriptors());
    for _ in 0..20 {
        let (told, changes) = mpsc::channel();
        let watched = WatchedDirectory::start(folder.path(), WatchOptions::default(), move |change| {
            let _ = told.send(change);
        });
        let watched = watched.unwrap();
        assert_eq!(changes.recv_timeout(Duration::from_secs(20)), Ok(Change::All));
        // One that looks, and the library's.
        assert!(threads() >= before.0 + 2 && descriptors() > before.1, "nothing is watched");
        drop(watched);
        // The callback is gone with its thread.
        assert_eq!(changes.recv_timeout(Duration::ZERO), Err(mpsc::RecvTimeoutError::Disconnected));
        // A thread that has ended leaves the process's list a moment later.
        let patience = Instant::now() + Duration::from_secs(5);
        while threads() > before.0 && Instant::now() < patience {}
        assert_eq!((threads(), descriptors()), before);
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
