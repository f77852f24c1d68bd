//! Which threads of this process are a pack's.
//!
//! A pack's code starts on a thread made for it. Threads inherit the signal mask of the one that starts them, so that
//! thread blocks one real-time signal which nothing uses, and whoever blocks exactly its set came from it. The count of
//! all threads would not tell: the host starts threads of its own at any time.

use std::{collections::BTreeSet, fs, io, thread, time::Duration};

/// How long a thread may be undecided: starting, or ended and still listed.
const PATIENCE: Duration = Duration::from_millis(100);

/// The mark of a pack's thread: its own id and its set of blocked signals, as `/proc` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ThreadMark {
    own_id: String,
    blocked: String,
}

/// Marks the calling thread.
pub(super) fn mark_this_thread() -> io::Result<ThreadMark> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set, `sigaddset` and `pthread_sigmask` then read it; the signal number is a
    // valid one, and no old mask is asked for.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGRTMAX() - 5);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut())
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: asks the kernel for a number.
    let own_id = unsafe { libc::gettid() }.to_string();
    let blocked =
        blocked_signals("thread-self").ok_or_else(|| io::Error::other("/proc shows no signal mask"))?;
    Ok(ThreadMark { own_id, blocked })
}

/// Ids of this process's threads.
pub(super) fn thread_ids() -> io::Result<BTreeSet<String>> {
    fs::read_dir("/proc/self/task")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// How many threads with that mark are alive which were not there `before`. The marked thread itself has been joined.
///
/// A thread that is just starting blocks all signals until it has set its own mask, and one that has just been joined is
/// still listed for a moment: both are looked at again.
pub(super) fn threads_left(before: &BTreeSet<String>, mark: &ThreadMark) -> io::Result<usize> {
    let mut waited = Duration::ZERO;
    loop {
        let masks = thread_ids()?
            .difference(before)
            .filter(|id| **id != mark.own_id)
            .filter_map(|id| blocked_signals(&format!("self/task/{id}")))
            .collect::<Vec<_>>();
        let left = masks.iter().filter(|mask| **mask == mark.blocked).count();
        let undecided = left > 0 || masks.iter().any(|mask| blocks_all(mask));
        if !undecided || waited >= PATIENCE {
            return Ok(left);
        }
        const PAUSE: Duration = Duration::from_millis(2);
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// Whether a set holds all signals that can be blocked, but for the few that the C library keeps.
fn blocks_all(mask: &str) -> bool {
    u64::from_str_radix(mask, 16).is_ok_and(|mask| mask.count_ones() >= 58)
}

/// The hexadecimal set of blocked signals; `None` for a thread that has ended.
fn blocked_signals(task: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{task}/status")).ok()?;
    let set = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    Some(set.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn only_the_marked_threads_descendants_count() {
        let before = thread_ids().unwrap();
        let (stop_ours, ours) = mpsc::channel::<()>();
        let host_thread = thread::spawn(move || ours.recv());
        let (stop_theirs, theirs) = mpsc::channel::<()>();
        let (mark, child) = thread::spawn(move || {
            let mark = mark_this_thread().unwrap();
            (mark, thread::spawn(move || theirs.recv()))
        })
        .join()
        .unwrap();
        assert_eq!(threads_left(&before, &mark).unwrap(), 1);
        drop(stop_theirs);
        child.join().unwrap().unwrap_err();
        assert_eq!(threads_left(&before, &mark).unwrap(), 0);
        drop(stop_ours);
        host_thread.join().unwrap().unwrap_err();
    }
}
