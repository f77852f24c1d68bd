//! Why a host can't be operated through a socket.

use std::{io, path::PathBuf};

/// Why there is no control socket for a host.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No folder of the user's own is known.
    #[error(
        "there is no folder for control sockets: XDG_RUNTIME_DIR, MODULARBASE_CACHE and HOME are unset; set one"
    )]
    NoFolder,
    /// The folder of sockets can't be made or read.
    #[error("{path}: can't use the folder for control sockets: {source}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others could reach into the folder of sockets.
    #[error("{path}: not used for control sockets, for it belongs to user {owner} and not to {user}", path = path.display())]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
        /// Its owner's id.
        owner: u32,
        /// The id of the user of this process.
        user: u32,
    },
    /// The socket can't be made.
    #[error("{path}: can't make the control socket: {source}", path = path.display())]
    Bind {
        /// Where it should be.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another host serves there.
    #[error("{path}: process {pid} serves there already; end it first", path = path.display())]
    AlreadyServed {
        /// The socket.
        path: PathBuf,
        /// The other's process id.
        pid: i32,
    },
    /// Something else has the name of the socket.
    #[error("{path}: expected a socket or nothing, found another kind of file; move it away", path = path.display())]
    NoSocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// A thread can't be started.
    #[error("can't start the thread of the control socket: {0}")]
    Thread(io::Error),
}

/// Why a running host did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves there, or not for this user.
    #[error("{path}: can't reach the host: {source}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the host broke: {0}")]
    Broken(io::Error),
    /// The host ended or closed the connection before it answered.
    #[error("the host closed the connection without an answer; it may have ended")]
    Closed,
    /// The host said nothing for too long.
    #[error("the host did not answer within {seconds} s")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// The host's words can't be read.
    #[error("can't read the host's answer ({0}); are both programs of the same version?")]
    Unreadable(String),
    /// The host understood and said no.
    #[error("{0}")]
    Refused(String),
}
