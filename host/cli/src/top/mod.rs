//! `top`: a running host live in the terminal, or once as text.

mod budget_bar;
mod picture;
mod poller;
mod rates;
mod screen;
mod termination;
mod view;

use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::arguments::{HostChoice, TopArguments};
use crate::failure::{Exit, Failure};
use crate::host_choice::{Operated, explain, require};
use crate::interrupt::{self, Meaning, Scope};
use crate::settings::Settings;
use crate::terminal::{is_interactive, print, print_json, stdout_width};

use poller::{Poller, Wish};
use rates::Rates;
use screen::Screen;
use termination::Termination;
use view::View;

/// How long the loop waits for a key before it looks whether there is news.
const KEY_WAIT: Duration = Duration::from_millis(50);
/// Between the two looks from which `--once` tells rates.
const ONCE_APART: Duration = Duration::from_millis(500);
/// The width of `--once` where no terminal says one, columns.
const ONCE_WIDTH: usize = 100;

/// Shows the host until `q`, Ctrl-C or its end.
pub(crate) fn top(arguments: &TopArguments, settings: &Settings) -> anyhow::Result<()> {
    let choice = HostChoice { host: arguments.host, offline: false };
    let host = require(&choice, settings)?;
    if arguments.once {
        return once(host, settings);
    }
    if !is_interactive() {
        let failure = Failure::usage("`top` needs a terminal");
        return Err(failure.help("`modularbase top --once` prints one picture as text").into());
    }
    live(host)
}

fn once(mut host: Operated, settings: &Settings) -> anyhow::Result<()> {
    let mut rates = Rates::default();
    rates.add(&host.client.status().map_err(explain)?);
    std::thread::sleep(ONCE_APART);
    let status = host.client.status().map_err(explain)?;
    rates.add(&status);
    if settings.json {
        return print_json(&status);
    }
    let mut view = View::new(false);
    view.take(status, rates);
    let width = stdout_width().unwrap_or(ONCE_WIDTH).clamp(picture::MIN_WIDTH, 400);
    print(&picture::as_text(&view, width as u16))
}

fn live(host: Operated) -> anyhow::Result<()> {
    // As a key, Ctrl-C is read below. As a signal it must not end the program before the terminal is as it was.
    let _scope = Scope::enter(Meaning::Cancel);
    let termination = Termination::watch()?;
    let pid = host.pid;
    let poller = Poller::start(host.client);
    let mut view = View::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let mut screen = Screen::open()?;
    let ended = loop {
        if termination.came() {
            break None;
        }
        if interrupt::is_cancelled() {
            break Some(Failure::interrupted());
        }
        if let Err(error) = poller.news(&mut view) {
            let message = format!("the host with process id {pid} is gone: {error}");
            break Some(Failure::new(Exit::Failed, message));
        }
        screen.draw(&mut view)?;
        if !event::poll(KEY_WAIT)? {
            continue;
        }
        // Whatever else comes, such as a new size, is drawn the next time round.
        let Event::Key(key) = event::read()? else { continue };
        match pressed(key, &mut view) {
            Pressed::Nothing => {}
            Pressed::Wish(wish) => poller.wish(wish),
            Pressed::Quit => break None,
            Pressed::Interrupt => break Some(Failure::interrupted()),
        }
    };
    drop(screen);
    termination.end()?;
    ended.map_or(Ok(()), |failure| Err(failure.into()))
}

/// What a key asks for.
enum Pressed {
    Nothing,
    Wish(Wish),
    Quit,
    Interrupt,
}

fn pressed(key: KeyEvent, view: &mut View) -> Pressed {
    if key.kind == KeyEventKind::Release {
        return Pressed::Nothing;
    }
    let selected = || view.selected_pack().map(|pack| (pack.name.clone(), pack.keep));
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Pressed::Interrupt,
        KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
        KeyCode::Char('p') => {
            if let Some((name, keep)) = selected() {
                return Pressed::Wish(Wish::Keep { name, keep: !keep });
            }
        }
        KeyCode::Char('e') => {
            if let Some((name, _)) = selected() {
                return Pressed::Wish(Wish::Evict { name });
            }
        }
        KeyCode::Char('s') => view.next_order(),
        KeyCode::Up | KeyCode::Char('k') => view.select_by(-1),
        KeyCode::Down | KeyCode::Char('j') => view.select_by(1),
        KeyCode::PageUp => view.select_by(-10),
        KeyCode::PageDown => view.select_by(10),
        KeyCode::Home => view.select_by(isize::MIN),
        KeyCode::End => view.select_by(isize::MAX),
        _ => {}
    }
    Pressed::Nothing
}
