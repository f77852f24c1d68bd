//! Lines over a socket, each with a limit on its length and a time by which it must be whole.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// Why there is no further line.
#[derive(Debug)]
pub(crate) enum LineError {
    /// It is longer than the limit.
    TooLong,
    /// Nothing came in time, or not the whole line.
    TimedOut {
        /// Bytes of the line that did come.
        received: usize,
    },
    /// The other end closed in the middle of a line.
    Cut,
    /// The connection broke.
    Io(io::Error),
}

/// Cuts what a socket gives into lines.
pub(crate) struct Lines {
    stream: UnixStream,
    /// What came and is not given out yet.
    buffer: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub(crate) fn new(stream: UnixStream, limit: usize) -> Self {
        Self { stream, buffer: Vec::new(), limit }
    }

    /// The socket, to write to.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The next line without its end; `None` when the other end has closed. It may begin within `idle` and must be
    /// whole within `whole` of its beginning.
    pub(crate) fn next(&mut self, idle: Duration, whole: Duration) -> Result<Option<Vec<u8>>, LineError> {
        let mut searched = 0;
        let mut deadline = Instant::now() + if self.buffer.is_empty() { idle } else { whole };
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + at;
                if end > self.limit {
                    return Err(LineError::TooLong);
                }
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > self.limit {
                return Err(LineError::TooLong);
            }
            let was_empty = searched == 0;
            match self.read_more(deadline) {
                Ok(0) if was_empty => return Ok(None),
                Ok(0) => return Err(LineError::Cut),
                Ok(_) if was_empty => deadline = Instant::now() + whole,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Err(LineError::TimedOut { received: searched }),
                Err(error) => return Err(LineError::Io(error)),
            }
        }
    }

    fn read_more(&mut self, deadline: Instant) -> io::Result<usize> {
        let mut piece = [0; 1 << 14];
        loop {
            self.stream.set_read_timeout(Some(left_until(deadline)?))?;
            match (&self.stream).read(&mut piece) {
                Ok(read) => {
                    self.buffer.extend_from_slice(&piece[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes a line and its end; all of it must be taken within `within`, so that one who reads a byte now and then holds
/// nothing for ever.
pub(crate) fn write_line(mut stream: &UnixStream, mut line: Vec<u8>, within: Duration) -> io::Result<()> {
    line.push(b'\n');
    let deadline = Instant::now() + within;
    let mut left = line.as_slice();
    while !left.is_empty() {
        stream.set_write_timeout(Some(left_until(deadline)?))?;
        match stream.write(left) {
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the operating system says when a socket's time limit passes.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn left_until(deadline: Instant) -> io::Result<Duration> {
    // A limit of zero would mean none.
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}
