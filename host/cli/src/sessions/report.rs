//! Sessions as tables for people.

use modularbase_context::{SessionDetails, SessionState, SessionSummary};

use crate::terminal::{bytes_text, table};
use crate::times::{age, utc};

/// All sessions.
pub(super) fn list_table(sessions: &[SessionSummary], now_ms: u64) -> String {
    let mut rows = vec![["NAME", "TOKENS", "DISK", "SHARED", "SAVED", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(sessions.iter().map(|session| {
        vec![
            session.name.clone(),
            session.tokens.to_string(),
            bytes_text(session.bytes),
            bytes_text(session.shared_bytes),
            if session.saved == 0 { "-".to_owned() } else { age(session.saved * 1000, now_ms) },
            state_text(&session.state),
        ]
    }));
    table(&rows)
}

/// One session: what it is, then its cold blocks by stream.
pub(super) fn details_table(details: &SessionDetails, verified: bool) -> String {
    let SessionDetails { summary, hot_bytes, streams, damage, .. } = details;
    let mut rows = Vec::new();
    let mut add = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    add("name", summary.name.clone());
    add("state", state_text(&summary.state));
    add("tokens", summary.tokens.to_string());
    if summary.saved > 0 {
        add("saved", utc(summary.saved * 1000));
    }
    if let Some(options) = &summary.options {
        add("base", summary.base.clone());
        add("context", options.to_string());
    }
    add("hot", bytes_text(*hot_bytes));
    add("disk", format!("{}, {} of it shared", bytes_text(summary.bytes), bytes_text(summary.shared_bytes)));
    for fault in damage {
        add("damage", fault.clone());
    }
    if verified && damage.is_empty() {
        add("checked", "every byte is as it was written".to_owned());
    }
    let mut text = table(&rows);
    if !streams.is_empty() {
        let mut rows = vec![["STREAM", "LAYERS", "BLOCKS", "BITS", "DISK"].map(str::to_owned).to_vec()];
        rows.extend(streams.iter().map(|stream| {
            vec![
                stream.stream.clone(),
                stream.layers.to_string(),
                stream.whole_blocks.to_string(),
                if stream.bits == 0 { "plain".to_owned() } else { stream.bits.to_string() },
                bytes_text(stream.bytes),
            ]
        }));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

fn state_text(state: &SessionState) -> String {
    match state {
        SessionState::Ready => "ready".to_owned(),
        SessionState::TextOnly => "text only: it is read again when the session goes on".to_owned(),
        SessionState::InUse(process) => format!("in use by process {process}"),
        SessionState::Unreadable(reason) => format!("unreadable: {reason}"),
    }
}
