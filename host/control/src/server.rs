//! The server: one thread that accepts, one for each client, all gone when it is dropped.

use std::{
    collections::HashMap,
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::{
    ControlError, MAX_REQUEST_BYTES, Operate, Request,
    lines::{LineError, Lines, write_line},
    protocol::reply_line,
    socket_file::SocketFile,
    socket_path::user,
};

/// Clients at once; one more is told so and turned away.
pub const MAX_CLIENTS: usize = 16;

/// A client that asks nothing for so long makes room for others.
const IDLE: Duration = Duration::from_secs(60);
/// From a request's first byte to its last.
const WHOLE_REQUEST: Duration = Duration::from_secs(5);
/// In which a client must have taken a reply.
const WHOLE_REPLY: Duration = Duration::from_secs(30);
/// How long one wait for events is: as late as this, a follower notices that the server stops.
const FOLLOW_STEP: Duration = Duration::from_millis(100);
/// A follower hears at least so often.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A control socket that is served until this is dropped.
#[derive(Debug)]
pub struct ControlServer {
    shared: Arc<Shared>,
    /// What is written here wakes the thread that accepts.
    wake: UnixStream,
    accepting: Option<JoinHandle<()>>,
    path: std::path::PathBuf,
}

impl ControlServer {
    /// Serves `operate` at `path`, whose folder exists. The socket is this user's alone (0600).
    ///
    /// # Errors
    /// The path is served by another process, or the socket can't be made.
    pub fn start(path: &Path, operate: Arc<dyn Operate>) -> Result<Self, ControlError> {
        let socket = SocketFile::listen(path)?;
        let bind_error = |source| ControlError::Bind { path: path.to_owned(), source };
        // A client that is gone before it is accepted must not hold the thread up.
        socket.listener().set_nonblocking(true).map_err(bind_error)?;
        let (wake, woken) = UnixStream::pair().map_err(bind_error)?;
        let shared = Arc::new(Shared::default());
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("control".to_owned())
                .spawn(move || accept(&socket, &woken, &shared, &operate))
                .map_err(ControlError::Thread)?
        };
        tracing::debug!(path = %path.display(), "control socket");
        Ok(Self { shared, wake, accepting: Some(accepting), path: path.to_owned() })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Clients that are connected now.
    pub fn clients(&self) -> usize {
        self.shared.clients().len()
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Its other end is polled.
        self.wake.shutdown(Shutdown::Both).ok();
        // Whoever reads or writes a client's socket does not wait any longer.
        for stream in self.shared.clients().values() {
            stream.shutdown(Shutdown::Both).ok();
        }
        if let Some(thread) = self.accepting.take() {
            // A thread that panicked has said so.
            thread.join().ok();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    /// The sockets of connected clients, by number.
    clients: Mutex<HashMap<u64, UnixStream>>,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, UnixStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// A client's place among the clients.
struct Seat {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.clients().remove(&self.number);
    }
}

/// Takes clients until the server stops, then waits for their threads; the socket's name goes with it.
fn accept(socket: &SocketFile, woken: &UnixStream, shared: &Arc<Shared>, operate: &Arc<dyn Operate>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let stream = loop {
            let mut wanted =
                [PollFd::new(socket.listener(), PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            // Interrupted or not: what is true is asked below.
            poll(&mut wanted, None).ok();
            if shared.is_stopping() {
                break None;
            }
            match socket.listener().accept() {
                Ok((stream, _)) => break Some(stream),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // Such as too many open files: they may be fewer soon.
                    tracing::warn!(path = %socket.path().display(), %error, "a client can't be accepted");
                    let mut wanted = [PollFd::new(woken, PollFlags::IN)];
                    poll(&mut wanted, Some(&timespec(Duration::from_millis(100)))).ok();
                }
            }
        };
        let Some(stream) = stream else { break };
        threads.retain(|thread| !thread.is_finished());
        match admit(stream, number, shared, operate) {
            Ok(thread) => threads.push(thread),
            Err(reason) => tracing::debug!(reason, "a client was turned away"),
        }
    }
    for thread in threads {
        thread.join().ok();
    }
}

/// Starts a client's thread, or tells the client why not.
fn admit(
    stream: UnixStream,
    number: u64,
    shared: &Arc<Shared>,
    operate: &Arc<dyn Operate>,
) -> Result<JoinHandle<()>, String> {
    let turned_away = |stream: &UnixStream, reason: String| {
        // Its buffer is empty yet, so this does not wait.
        reply(stream, &Err::<bool, _>(reason.clone())).ok();
        reason
    };
    // The socket's permissions say it already; this holds also where somebody changed them.
    let peer = rustix::net::sockopt::socket_peercred(&stream).map(|peer| peer.uid.as_raw());
    if !peer.is_ok_and(|uid| uid == user() || uid == 0) {
        return Err(turned_away(&stream, format!("only user {}, who runs the host, may operate it", user())));
    }
    // Where the listening socket does not wait, one that it accepts may not either.
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.try_clone());
    let other_end =
        prepared.map_err(|error| turned_away(&stream, format!("the client can't be served: {error}")))?;
    let seat = {
        let mut clients = shared.clients();
        if clients.len() >= MAX_CLIENTS {
            drop(clients);
            return Err(turned_away(
                &stream,
                format!("the host serves {MAX_CLIENTS} clients already; try again"),
            ));
        }
        // Looked at under the lock: whoever stops the server closes those who sit here.
        if shared.is_stopping() {
            return Err("the server stops".to_owned());
        }
        clients.insert(number, other_end);
        Seat { shared: Arc::clone(shared), number }
    };
    let operate = Arc::clone(operate);
    std::thread::Builder::new()
        .name(format!("control {number}"))
        .spawn(move || converse(stream, &seat, &*operate))
        .map_err(|error| format!("no thread for the client: {error}"))
}

/// Answers one client until it leaves, is silent for too long or says what is no line.
fn converse(stream: UnixStream, seat: &Seat, operate: &dyn Operate) {
    let mut lines = Lines::new(stream, MAX_REQUEST_BYTES);
    loop {
        let line = match lines.next(IDLE, WHOLE_REQUEST) {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(error) => {
                if let Some(reason) = complaint(&error) {
                    reply(lines.stream(), &Err::<bool, _>(reason)).ok();
                }
                return;
            }
        };
        let answered = match Request::parse(&line) {
            // What follows is in step again: a line's end is a line's end.
            Err(error) => reply(lines.stream(), &Err::<bool, _>(error.to_string())),
            Ok(Request::Events { after, follow: true }) => {
                follow(lines.stream(), after, &seat.shared, operate).ok();
                return;
            }
            Ok(request) => answer(lines.stream(), request, operate),
        };
        if answered.is_err() {
            return;
        }
    }
}

/// What to say to a client whose line can't be read; nothing where it has left or is just idle.
fn complaint(error: &LineError) -> Option<String> {
    match error {
        LineError::TooLong => {
            Some(format!("expected a line of at most {MAX_REQUEST_BYTES} bytes, found a longer one"))
        }
        LineError::TimedOut { received } if *received > 0 => Some(format!(
            "expected a whole line within {} s, found {received} bytes without an end",
            WHOLE_REQUEST.as_secs()
        )),
        LineError::TimedOut { .. } | LineError::Cut | LineError::Io(_) => None,
    }
}

fn answer(stream: &UnixStream, request: Request, operate: &dyn Operate) -> std::io::Result<()> {
    let done = |result: Result<(), String>| result.map(|()| true);
    match request {
        Request::Status => reply(stream, &Ok(operate.status())),
        Request::Packs => reply(stream, &Ok(operate.status().packs)),
        Request::Events { after, .. } => reply(stream, &Ok(operate.events_after(after, Duration::ZERO))),
        Request::Pin { pack, keep } => reply(stream, &done(operate.keep(&pack, keep))),
        Request::Priority { pack, priority } => reply(stream, &done(operate.set_priority(&pack, priority))),
        Request::Evict { pack } => reply(stream, &operate.evict(&pack)),
        Request::Clear { pack } => reply(stream, &done(operate.clear_quarantine(&pack))),
        Request::Rescan => {
            operate.rescan();
            reply(stream, &Ok(true))
        }
    }
}

/// Tells events as they come, until the client leaves or the server stops.
fn follow(
    stream: &UnixStream,
    mut after: u64,
    shared: &Shared,
    operate: &dyn Operate,
) -> std::io::Result<()> {
    let mut said: Option<Instant> = None;
    while !shared.is_stopping() {
        let begun = Instant::now();
        let wait = if said.is_some() { FOLLOW_STEP } else { Duration::ZERO };
        let events = operate.events_after(after, wait);
        if let Some(last) = events.last() {
            after = last.sequence;
        }
        // The first line comes at once, so that a client knows that it is heard.
        if !events.is_empty() || said.is_none_or(|said| said.elapsed() >= SIGN_OF_LIFE) {
            reply(stream, &Ok(events))?;
            said = Some(Instant::now());
        } else {
            // One that has closed both ways listens no more. One that closed its own way only, as a script's pipe
            // does, still listens.
            let mut wanted = [PollFd::new(stream, PollFlags::empty())];
            let rest = wait.saturating_sub(begun.elapsed());
            poll(&mut wanted, Some(&timespec(rest)))?;
            if wanted[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn reply<T: Serialize>(stream: &UnixStream, reply: &Result<T, String>) -> std::io::Result<()> {
    write_line(stream, reply_line(reply), WHOLE_REPLY)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
