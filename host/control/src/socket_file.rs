//! A socket as a file: made private from its first moment, taken over from a dead host, reached by long paths too.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::ControlError;

/// A Unix socket's address holds no longer path, bytes.
const MAX_ADDRESS_BYTES: usize = 107;

/// Folders in which sockets are made have names that begin so.
const WORKSHOP: &str = ".bind-";

/// A listening socket with its name in a folder. The name goes with it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: what has this name later may be another's.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`, for this user alone (0600). The socket of a host that is dead is replaced.
    pub(crate) fn listen(path: &Path) -> Result<Self, ControlError> {
        let bind_error = |source| ControlError::Bind { path: path.to_owned(), source };
        let folder = folder_of(path).map_err(bind_error)?;
        let _lock = lock(folder).map_err(bind_error)?;
        sweep_workshops(folder);

        // The umask belongs to the whole process, so it can't make the socket private from the start. A folder that
        // nobody else may enter can: the socket is made in there, closed to others, and only then moved out.
        let workshop = Workshop::make(folder).map_err(bind_error)?;
        let made = workshop.0.join("s");
        let listener = with_address(&made, |address| UnixListener::bind(address)).map_err(bind_error)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600)).map_err(bind_error)?;
        let facts = fs::symlink_metadata(&made).map_err(bind_error)?;

        if !move_out(&made, path).map_err(bind_error)? {
            clear_way(path)?;
            if !move_out(&made, path).map_err(bind_error)? {
                return Err(bind_error(ErrorKind::AlreadyExists.into()));
            }
        }
        Ok(Self { listener, path: path.to_owned(), identity: (facts.dev(), facts.ino()) })
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Where the folder is gone, so is the name.
        let Ok(_lock) = folder_of(&self.path).and_then(lock) else { return };
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|facts| (facts.dev(), facts.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket can't be removed");
        }
    }
}

/// Connects to a socket.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    with_address(path, |address| UnixStream::connect(address))
}

/// Whether somebody serves a socket; the name of one that nobody serves is removed.
pub(crate) fn is_served(path: &Path) -> bool {
    if !is_dead(path) {
        return true;
    }
    // Seen dead without the lock, it may be another's by now.
    if let Ok(_lock) = folder_of(path).and_then(lock)
        && is_dead(path)
        && let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "the socket of a host that ended stays");
    }
    false
}

/// A socket that refuses is one whose process has ended: names are given to sockets that listen already.
fn is_dead(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
    is_socket && connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Removes a dead host's socket from `path`. The folder is locked.
fn clear_way(path: &Path) -> Result<(), ControlError> {
    let bind_error = |source| ControlError::Bind { path: path.to_owned(), source };
    let facts = fs::symlink_metadata(path).map_err(bind_error)?;
    if !facts.file_type().is_socket() {
        return Err(ControlError::NoSocket { path: path.to_owned() });
    }
    match connect(path) {
        Ok(other) => {
            let pid = rustix::net::sockopt::socket_peercred(&other)
                .map_or(0, |credentials| credentials.pid.as_raw_nonzero().get());
            Err(ControlError::AlreadyServed { path: path.to_owned(), pid })
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(bind_error)
        }
        Err(error) => Err(bind_error(error)),
    }
}

/// Gives the socket its name; `false` where that is taken.
fn move_out(made: &Path, path: &Path) -> io::Result<bool> {
    match renameat_with(CWD, made, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A folder that only this user may enter, removed with what is left in it.
struct Workshop(PathBuf);

impl Workshop {
    fn make(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{WORKSHOP}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What stays is swept by the next host.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Removes what a host that was killed left: whoever works in one holds the lock, which the caller does.
fn sweep_workshops(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORKSHOP) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Holds off others who make or remove sockets in the folder until the file is dropped.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    file.lock()?;
    Ok(file)
}

fn folder_of(path: &Path) -> io::Result<&Path> {
    let no_folder = || io::Error::new(ErrorKind::InvalidInput, "the path names no file in a folder");
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).ok_or_else(no_folder)
}

/// Does something with an address for `path`: the path itself, or a shorter way to it where that is too long.
fn with_address<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= MAX_ADDRESS_BYTES {
        return act(path);
    }
    let (folder, Some(name)) = (File::open(folder_of(path)?)?, path.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the path names no file"));
    };
    act(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}
