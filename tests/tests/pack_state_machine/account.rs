//! What a host tells of a pack, in lines, for people who look for a fault.

use std::{fmt::Write, time::Duration};

use modularbase_engine::Host;

/// Events that are told.
const EVENTS: usize = 30;

/// Reports and latest events of a name.
pub fn account(host: &Host, name: &str) -> String {
    let mut text = String::new();
    let short = |generation: &Option<String>| match generation {
        Some(hex) => hex[..8].to_owned(),
        None => "-".to_owned(),
    };
    for report in host.manager().reports().iter().filter(|report| report.name == name) {
        let entry = report.path.file_name().unwrap_or_default().display();
        let (generation, reason) = (short(&report.generation), report.reason.as_deref().unwrap_or_default());
        let routable = if report.routable { "routable" } else { "not routable" };
        let _ = write!(
            text,
            "\n  {entry}: {} {generation} {routable} {} leases {} bytes {reason}",
            report.state, report.leases, report.resident_bytes
        );
    }
    let events = host.manager().events_after(0, Duration::ZERO);
    let of_name: Vec<_> = events.iter().filter(|event| event.pack == name).collect();
    for event in &of_name[of_name.len().saturating_sub(EVENTS)..] {
        let (generation, reason) = (short(&event.generation), event.reason.as_deref().unwrap_or_default());
        let _ = write!(text, "\n  event {}: {} {generation} {reason}", event.sequence, event.state);
    }
    text
}
