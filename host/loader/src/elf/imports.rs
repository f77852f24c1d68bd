//! What imported functions give away.

use super::Finding;

/// Functions that a pack has no need of, and what they are for. Rust's standard library alone imports none of the
/// refused ones; what a pack merely links and never calls is left out by the linker.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "start other processes",
        &[
            "fork",
            "vfork",
            "clone",
            "clone3",
            "execl",
            "execle",
            "execlp",
            "execv",
            "execve",
            "execveat",
            "execvp",
            "execvpe",
            "fexecve",
            "posix_spawn",
            "posix_spawnp",
            "system",
            "popen",
        ],
    ),
    ("load other libraries", &["dlopen", "dlmopen"]),
    (
        "use the network",
        &["socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "getaddrinfo"],
    ),
    ("watch or change other processes", &["ptrace", "process_vm_readv", "process_vm_writev"]),
    ("catch the host's signals", &["signal", "sigaction", "bsd_signal", "sigset", "signalfd"]),
    (
        "leave code behind that runs when the host ends",
        &["atexit", "on_exit", "__cxa_atexit", "pthread_atfork"],
    ),
    ("change who the host is", &["setuid", "setgid", "setreuid", "setresuid", "chroot", "mount", "umount2"]),
];

/// Functions that deserve a look; what they do is seen when the pack is probed.
const NOTED: &[(&str, &[&str])] = &[
    ("start threads", &["pthread_create"]),
    ("look up functions by name", &["dlsym", "dlvsym"]),
    ("send signals", &["kill", "raise", "pthread_kill"]),
    ("change or delete files", &["unlink", "unlinkat", "rename", "renameat", "rmdir", "chmod"]),
    ("change the environment", &["setenv", "unsetenv", "putenv"]),
];

/// The finding for an imported function, if it is on a list. Version suffixes (`@GLIBC_2.34`) are not part of the name.
pub(super) fn judge(symbol: &str) -> Option<Finding> {
    let find = |table: &[(&str, &[&str])], refuse| {
        let (does, _) = table.iter().find(|(_, symbols)| symbols.contains(&symbol))?;
        Some(Finding::Import { symbol: symbol.to_owned(), does: (*does).to_owned(), refuse })
    };
    find(REFUSED, true).or_else(|| find(NOTED, false))
}
