//! Where a host's socket is, and which hosts run on a folder of packs.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use manifests::{Sha256, folders};

use crate::{ControlError, socket_file::is_served};

/// A host that serves a folder of packs now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunningHost {
    /// Its process id, as it knows it.
    pub pid: u32,
    /// Its control socket.
    pub socket: PathBuf,
}

/// Where this process serves its control socket for a folder of packs: in `$XDG_RUNTIME_DIR/modularbase`, else in
/// `run` of the cache folder. The folder is made, for this user alone (0700).
///
/// # Errors
/// Neither folder is known or can be made.
pub fn socket_path(packs_dir: &Path) -> Result<PathBuf, ControlError> {
    let mut failed = None;
    for folder in own_folders() {
        match socket_path_in(&folder, packs_dir) {
            Ok(path) => return Ok(path),
            // A session's folder goes when its user logs out; a host may outlive it.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or(ControlError::NoFolder))
}

/// The same in a folder of one's choice.
///
/// # Errors
/// The folder can't be made, or is another user's.
pub fn socket_path_in(folder: &Path, packs_dir: &Path) -> Result<PathBuf, ControlError> {
    make_private(folder)?;
    Ok(folder.join(format!("{}-{}.sock", key(packs_dir), std::process::id())))
}

/// The hosts that serve a folder of packs, by process id. Sockets of hosts that ended are cleared away.
pub fn running_hosts(packs_dir: &Path) -> Vec<RunningHost> {
    let mut folders = own_folders();
    // A host of a login session is found from where that session's variable is not set, as under cron.
    folders.push(PathBuf::from(format!("/run/user/{}/modularbase", user())));
    let mut hosts: Vec<_> = folders.iter().flat_map(|folder| running_hosts_in(folder, packs_dir)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// The same in a folder of one's choice.
pub fn running_hosts_in(folder: &Path, packs_dir: &Path) -> Vec<RunningHost> {
    let key = key(packs_dir);
    let mut hosts = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| {
            name.strip_prefix(key.as_str())?.strip_prefix('-')?.strip_suffix(".sock")?.parse().ok()
        });
        if let Some(pid) = pid
            && is_served(&entry.path())
        {
            hosts.push(RunningHost { pid, socket: entry.path() });
        }
    }
    hosts.sort();
    hosts
}

/// Folders in which this user's hosts may serve, the preferred one first.
fn own_folders() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = runtime.map(|folder| folder.join("modularbase"));
    let cache = folders::cache_folder().map(|folder| folder.join("run"));
    runtime.into_iter().chain(cache).collect()
}

/// Which folder of packs it is, whatever way leads there: 16 hexadecimal digits.
fn key(packs_dir: &Path) -> String {
    // A folder that is not there yet has no canonical name.
    let absolute = || std::path::absolute(packs_dir).unwrap_or_else(|_| packs_dir.to_owned());
    let canonical = packs_dir.canonicalize().unwrap_or_else(|_| absolute());
    let mut digits = Sha256::of_bytes(canonical.as_os_str().as_bytes()).to_string();
    digits.truncate(16);
    digits
}

/// Makes the folder, or takes it from others who may enter it.
fn make_private(folder: &Path) -> Result<(), ControlError> {
    let folder_error = |source| ControlError::Folder { path: folder.to_owned(), source };
    // Only this folder is closed to others; those above it are as they are, or as the user makes folders.
    let parent = folder.parent().unwrap_or(folder);
    let missing_runtime = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|path| parent == Path::new(&path));
    if !missing_runtime {
        fs::create_dir_all(parent).map_err(folder_error)?;
    }
    if let Err(error) = DirBuilder::new().mode(0o700).create(folder)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(folder_error(error));
    }
    let facts = fs::metadata(folder).map_err(folder_error)?;
    if facts.uid() != user() {
        return Err(ControlError::ForeignFolder {
            path: folder.to_owned(),
            owner: facts.uid(),
            user: user(),
        });
    }
    if facts.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(folder_error)?;
    }
    Ok(())
}

/// The id of the user whose rights this process has.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
