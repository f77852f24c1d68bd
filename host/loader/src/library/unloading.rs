//! Whether a library is really gone.

use std::{ffi::CString, fs, io, os::unix::ffi::OsStrExt, path::Path};

use serde::{Deserialize, Serialize};

/// What became of a library after it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unload {
    /// Nothing of it is mapped any more.
    Unloaded,
    /// It is still mapped: a thread of it lives, or a thread-local destructor of it waits for a thread to end. Its memory
    /// stays, and no other version of the pack may load beside it.
    Pinned,
}

/// Whether the dynamic loader still holds the library at `path`.
pub fn is_mapped(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false; // no path at all, so nothing was opened from it
    };
    // Twice: a destructor may have run since the library was closed, and it is the first look's own `dlclose` that
    // sweeps the library then.
    held_by_loader(&path) && held_by_loader(&path)
}

fn held_by_loader(path: &CString) -> bool {
    // SAFETY: `path` is a valid C string for the call. RTLD_NOLOAD runs no code of the library: it only asks whether it
    // is loaded, and takes a count that the next line gives back.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
    if handle.is_null() {
        return false;
    }
    // SAFETY: `handle` came from the `dlopen` above and is closed once. A library that is swept now was closed by its
    // owner before, who let go of everything it gave out.
    unsafe { libc::dlclose(handle) };
    true
}

/// How many regions of this process are mapped from the file at `path`.
///
/// # Errors
/// `/proc/self/maps` can't be read.
pub fn mapped_regions(path: &Path) -> io::Result<usize> {
    let path = path.canonicalize()?;
    let maps = fs::read("/proc/self/maps")?;
    let name = path.as_os_str().as_bytes();
    Ok(maps.split(|&byte| byte == b'\n').filter(|line| line.ends_with(name)).count())
}
