//! The other end of a control socket.

use std::{io::ErrorKind, path::Path, time::Duration};

use modularbase_manager::{EvictOutcome, HostStatus, PackEvent, PackReport};
use serde::de::DeserializeOwned;

use crate::{
    ClientError, Request,
    lines::{LineError, Lines, is_timeout, write_line},
    protocol::parse_reply,
    server::SIGN_OF_LIFE,
    socket_file::connect,
};

/// How long a host may take to answer: the longest that it does by itself is a pass over a large folder.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a running host.
pub struct Client {
    lines: Lines,
}

impl Client {
    /// Connects to a host's socket.
    ///
    /// # Errors
    /// Nobody serves there, or not for this user.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream =
            connect(path).map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        Ok(Self { lines: Lines::new(stream, usize::MAX) })
    }

    /// What the host is doing, with every pack.
    ///
    /// # Errors
    /// The connection fails; so with every other call.
    pub fn status(&mut self) -> Result<HostStatus, ClientError> {
        self.call(&Request::Status)
    }

    /// Every pack.
    pub fn packs(&mut self) -> Result<Vec<PackReport>, ClientError> {
        self.call(&Request::Packs)
    }

    /// The kept events after a sequence number, oldest first.
    pub fn events(&mut self, after: u64) -> Result<Vec<PackEvent>, ClientError> {
        self.call(&Request::Events { after, follow: false })
    }

    /// The kept events after a sequence number and all that will come.
    pub fn follow(mut self, after: u64) -> Result<Followed, ClientError> {
        self.say(&Request::Events { after, follow: true })?;
        Ok(Followed { client: self })
    }

    /// Keeps a pack on the device, or no longer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] also where there is no such pack; so with the calls below.
    pub fn pin(&mut self, pack: &str, keep: bool) -> Result<(), ClientError> {
        self.call(&Request::Pin { pack: pack.to_owned(), keep }).map(|_: bool| ())
    }

    /// Packs of higher priority are evicted later.
    pub fn set_priority(&mut self, pack: &str, priority: i32) -> Result<(), ClientError> {
        self.call(&Request::Priority { pack: pack.to_owned(), priority }).map(|_: bool| ())
    }

    /// Takes a pack from the device.
    pub fn evict(&mut self, pack: &str) -> Result<EvictOutcome, ClientError> {
        self.call(&Request::Evict { pack: pack.to_owned() })
    }

    /// Lets a quarantined pack try again.
    pub fn clear_quarantine(&mut self, pack: &str) -> Result<(), ClientError> {
        self.call(&Request::Clear { pack: pack.to_owned() }).map(|_: bool| ())
    }

    /// Looks at the folder of packs again.
    pub fn rescan(&mut self) -> Result<(), ClientError> {
        self.call(&Request::Rescan).map(|_: bool| ())
    }

    fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        self.say(request)?;
        self.hear(PATIENCE)?.ok_or(ClientError::Closed)
    }

    fn say(&mut self, request: &Request) -> Result<(), ClientError> {
        match write_line(self.lines.stream(), request.to_line(), PATIENCE) {
            Ok(()) => Ok(()),
            // A host that turns a client away says why before it closes.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            Err(error) if is_timeout(&error) => Err(ClientError::TimedOut { seconds: PATIENCE.as_secs() }),
            Err(error) => Err(ClientError::Broken(error)),
        }
    }

    /// The next reply; `None` when the host has closed.
    fn hear<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<Option<T>, ClientError> {
        let line = match self.lines.next(patience, patience) {
            Ok(Some(line)) => line,
            Ok(None) | Err(LineError::Cut) => return Ok(None),
            Err(LineError::TimedOut { .. }) => {
                return Err(ClientError::TimedOut { seconds: patience.as_secs() });
            }
            Err(LineError::Io(error))
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                return Ok(None);
            }
            Err(LineError::Io(error)) => return Err(ClientError::Broken(error)),
            Err(LineError::TooLong) => return Err(ClientError::Unreadable("it is too long".to_owned())),
        };
        parse_reply(&line).map_err(ClientError::Unreadable)?.map(Some).map_err(ClientError::Refused)
    }
}

/// Events as they come.
pub struct Followed {
    client: Client,
}

impl Followed {
    /// The next events, oldest first: none as a sign of life, every few seconds and at the very first. `None` when
    /// the host has ended.
    ///
    /// # Errors
    /// The connection fails, or the host gives no sign of life.
    pub fn next_events(&mut self) -> Result<Option<Vec<PackEvent>>, ClientError> {
        self.client.hear(SIGN_OF_LIFE * 4)
    }
}
