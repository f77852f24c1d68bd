//! `packs events`: what happened to packs on a running host, and what happens.

use anyhow::Context;
use modularbase_manager::PackEvent;

use super::report_table::{one_line, short, stages};
use crate::arguments::HostChoice;
use crate::failure::{Exit, Failure};
use crate::host_choice::{explain, require};
use crate::settings::Settings;
use crate::terminal::{notice, print};
use crate::times::utc;

/// Prints events, one a line; with `follow` until the host ends.
pub(crate) fn events(
    follow: bool,
    after: u64,
    choice: &HostChoice,
    settings: &Settings,
) -> anyhow::Result<()> {
    let mut host = require(choice, settings)?;
    if !follow {
        let events = host.client.events(after).map_err(explain)?;
        if events.is_empty() && !settings.json {
            notice("nothing happened");
        }
        return print_all(&events, settings.json);
    }
    let mut followed = host.client.follow(after).map_err(explain)?;
    while let Some(events) = followed.next_events().map_err(explain)? {
        print_all(&events, settings.json)?;
    }
    Err(Failure::new(Exit::Failed, format!("the host with process id {} has ended", host.pid)).into())
}

fn print_all(events: &[PackEvent], json: bool) -> anyhow::Result<()> {
    let mut text = String::new();
    let width = events.iter().map(|event| event.pack.chars().count()).max().unwrap_or(0);
    for event in events {
        if json {
            text.push_str(&serde_json::to_string(event).context("the event can't be written as JSON")?);
        } else {
            text.push_str(&line(event, width));
        }
        text.push('\n');
    }
    print(&text)
}

/// `TIME  NUMBER  PACK  GENERATION  STATE  REASON  (STAGES)`, with `width` columns for the pack's name.
fn line(event: &PackEvent, width: usize) -> String {
    let generation = event.generation.as_deref().map_or("-", short);
    let mut line = format!(
        "{}  {:>4}  {:width$}  {generation:12}  {:11}",
        utc(event.at_ms),
        event.sequence,
        event.pack,
        event.state
    );
    if let Some(reason) = &event.reason {
        line.push_str(&format!("  {}", one_line(reason)));
    }
    if !event.took_ms.is_empty() {
        line.push_str(&format!("  ({})", stages(&event.took_ms)));
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use modularbase_manager::PackState;

    #[test]
    fn an_event_is_one_line_with_its_reason_and_its_stages() {
        let mut event = PackEvent {
            sequence: 12,
            at_ms: 1_709_164_800_005,
            pack: "law".to_owned(),
            generation: None,
            state: PackState::Quarantined,
            reason: Some("broken:\n  the hash".to_owned()),
            took_ms: [("hash".to_owned(), 3.21)].into(),
        };
        assert_eq!(
            line(&event, 4),
            "2024-02-29 00:00:00.005Z    12  law   -             quarantined  broken: the hash  (hash 3.2 ms)"
        );
        event.reason = None;
        event.took_ms.clear();
        event.state = PackState::Seen;
        assert!(line(&event, 0).ends_with("  seen"));
    }
}
