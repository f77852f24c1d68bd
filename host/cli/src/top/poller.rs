//! The thread that talks to the host, so that a host that is slow to answer never makes the keys slow.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use modularbase_control::{Client, ClientError};
use modularbase_manager::HostStatus;

use super::rates::Rates;
use super::view::View;
use crate::packs::outcome_text;

/// Between two looks at the host.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the user wants of the host.
pub(super) enum Wish {
    Keep { name: String, keep: bool },
    Evict { name: String },
}

enum News {
    Status(Box<HostStatus>, Rates),
    /// What became of a wish, for the message line.
    Said(String),
    Gone(ClientError),
}

pub(super) struct Poller {
    wishes: Sender<Wish>,
    news: Receiver<News>,
}

impl Poller {
    /// Starts to look. The thread ends with the host or after the poller is dropped.
    pub(super) fn start(mut client: Client) -> Self {
        let (wishes, wished) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        std::thread::spawn(move || {
            if let Err(error) = look(&mut client, &wished, &tell) {
                // Nobody listens any more: the user has quit.
                tell.send(News::Gone(error)).ok();
            }
        });
        Self { wishes, news }
    }

    /// Passes a wish on; what becomes of it is among the news.
    pub(super) fn wish(&self, wish: Wish) {
        // A thread that has ended has said why.
        self.wishes.send(wish).ok();
    }

    /// Shows the view what is new.
    ///
    /// # Errors
    /// The host is gone.
    pub(super) fn news(&self, view: &mut View) -> Result<(), ClientError> {
        loop {
            match self.news.try_recv() {
                Ok(News::Status(status, rates)) => view.take(*status, rates),
                Ok(News::Said(words)) => view.say(words),
                Ok(News::Gone(error)) => return Err(error),
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => return Err(ClientError::Closed),
            }
        }
    }
}

/// Looks at the host until it is gone or nobody wants to know.
fn look(client: &mut Client, wished: &Receiver<Wish>, tell: &Sender<News>) -> Result<(), ClientError> {
    let mut rates = Rates::default();
    loop {
        let status = client.status()?;
        rates.add(&status);
        if tell.send(News::Status(Box::new(status), rates.clone())).is_err() {
            return Ok(());
        }
        match wished.recv_timeout(INTERVAL) {
            Ok(wish) => {
                let said = match fulfil(client, &wish) {
                    Err(ClientError::Refused(why)) => why,
                    other => other?,
                };
                if tell.send(News::Said(said)).is_err() {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn fulfil(client: &mut Client, wish: &Wish) -> Result<String, ClientError> {
    match wish {
        Wish::Keep { name, keep: true } => {
            client.pin(name, true)?;
            Ok(format!("`{name}` is kept on the device"))
        }
        Wish::Keep { name, keep: false } => {
            client.pin(name, false)?;
            Ok(format!("`{name}` is no longer kept on the device"))
        }
        Wish::Evict { name } => Ok(format!("`{name}` {}", outcome_text(&client.evict(name)?))),
    }
}
