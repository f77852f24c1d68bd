//! What a running host makes of a pack that was just put in, tried again or taken out: waited for, and told.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use modularbase_manager::{PackReport, PackState};
use serde_json::json;

use super::report_table::{one_line, short};
use crate::failure::{Exit, Failure};
use crate::host_choice::{Operated, explain};
use crate::settings::Settings;
use crate::terminal::{print_json, print_line};

/// How long a host may take to say its word.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const STEP: Duration = Duration::from_millis(50);
/// A host that looks anew at what it has refused before need not change its word: after this the old one counts.
const SAME_WORD: Duration = Duration::from_secs(3);

/// The pack that is waited for.
pub(crate) struct Expected {
    name: String,
    /// Where it lies.
    path: PathBuf,
    /// Its identity, where that is known.
    generation: Option<String>,
    /// The host's last event before anything was asked.
    after: u64,
}

/// A host's word.
pub(crate) enum Verdict {
    Registered(Box<PackReport>),
    Quarantined(String),
    /// None came in time; the pack is still on its way, in this state.
    Silent(Option<PackState>),
}

impl Expected {
    /// Whatever is asked of a host next shows in what it tells after this.
    pub(crate) fn after_now(host: &mut Operated) -> anyhow::Result<Self> {
        let events = host.client.events(0).map_err(explain)?;
        let after = events.last().map_or(0, |event| event.sequence);
        Ok(Self { name: String::new(), path: PathBuf::new(), generation: None, after })
    }

    /// The pack of this name that lies there.
    pub(crate) fn of(self, name: &str, path: PathBuf, generation: Option<String>) -> Self {
        Self { name: name.to_owned(), path, generation, ..self }
    }
}

/// Waits until the host has registered or refused the pack.
pub(crate) fn wait(host: &mut Operated, expected: &Expected) -> anyhow::Result<Verdict> {
    let begin = Instant::now();
    loop {
        // Events first: what they tell of has shown in the list by then.
        let events = host.client.events(expected.after).map_err(explain)?;
        let packs = host.client.packs().map_err(explain)?;
        let told = |state: PackState| {
            events.iter().rev().find(|event| event.pack == expected.name && event.state == state)
        };
        let of_name = || packs.iter().filter(|pack| pack.name == expected.name);
        // The identity is certain. Without one, an event since it was asked tells new from old.
        let registered = of_name().find(|pack| {
            has_settled(pack)
                && match (&expected.generation, &pack.generation) {
                    (Some(expected), Some(found)) => expected == found,
                    _ => told(PackState::Registered).is_some(),
                }
        });
        if let Some(pack) = registered {
            return Ok(Verdict::Registered(Box::new(pack.clone())));
        }
        let refused = packs.iter().find(|pack| {
            let is_it = pack.path == expected.path || pack.name == expected.name;
            is_it && pack.state == PackState::Quarantined
        });
        let waited = begin.elapsed();
        if let Some(pack) = refused
            && (told(PackState::Quarantined).is_some() || waited > SAME_WORD)
        {
            return Ok(Verdict::Quarantined(pack.reason.clone().unwrap_or_default()));
        }
        if waited > PATIENCE {
            return Ok(Verdict::Silent(of_name().next().map(|pack| pack.state)));
        }
        std::thread::sleep(STEP);
    }
}

/// Prints a host's word; a refusal is a bad pack.
pub(crate) fn print(
    verdict: Verdict,
    host: &Operated,
    expected: &Expected,
    what_happened: &str,
    settings: &Settings,
) -> anyhow::Result<()> {
    let name = &expected.name;
    match verdict {
        Verdict::Registered(pack) if settings.json => print_json(&pack),
        Verdict::Registered(pack) => {
            let generation = pack.generation.as_deref().map_or("-", short);
            let mut line = format!("`{name}` {what_happened} and is {} ({generation})", pack.state);
            if let Some(why) = &pack.not_routable {
                line.push_str(&format!("; requests do not get it yet: {why}"));
            }
            print_line(&line)
        }
        Verdict::Quarantined(reason) => {
            if settings.json {
                print_json(&json!({ "name": name, "state": PackState::Quarantined, "reason": reason }))?;
            }
            let message = format!("`{name}` {what_happened}, and the host refuses it: {}", one_line(&reason));
            let help = format!("`modularbase packs remove {name}` takes it out again");
            Err(Failure::new(Exit::BadPack, message).help(help).into())
        }
        Verdict::Silent(state) => {
            let seconds = PATIENCE.as_secs();
            let state = state.map_or("it has not seen it".to_owned(), |state| format!("it is {state}"));
            let message = format!(
                "`{name}` {what_happened}, but within {seconds} s the host with process id {} has not said whether it \
                 takes it: {state}",
                host.pid
            );
            Err(Failure::new(Exit::Failed, message)
                .help(format!("`modularbase packs show {name}` tells more"))
                .into())
        }
    }
}

/// Waits until nothing of a pack that lay at `path` is left on the host: `None` when it has gone, else what is left.
pub(crate) fn wait_until_gone(
    host: &mut Operated,
    name: &str,
    path: &Path,
) -> anyhow::Result<Option<PackReport>> {
    let begin = Instant::now();
    loop {
        let packs = host.client.packs().map_err(explain)?;
        let left = packs.into_iter().find(|pack| pack.name == name || pack.path == path);
        if left.is_none() || begin.elapsed() > PATIENCE {
            return Ok(left);
        }
        std::thread::sleep(STEP);
    }
}

/// Whether a pack is past everything that could keep it out.
fn has_settled(pack: &PackReport) -> bool {
    match pack.state {
        PackState::Registered
        | PackState::Loading
        | PackState::Resident
        | PackState::Leased
        | PackState::Evicted
        | PackState::Pinned => pack.routable || pack.not_routable.is_some(),
        PackState::Seen
        | PackState::Verified
        | PackState::Probed
        | PackState::Draining
        | PackState::Quarantined => false,
    }
}
