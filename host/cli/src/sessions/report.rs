//! Sessions as tables for people.

use std::collections::BTreeSet;

use modularbase_context::{SessionDetails, SessionState, SessionSummary};
use modularbase_core::ChatMessage;

use crate::kept_conversation::Note;
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
    if let Ok(note) = serde_json::from_str::<Note>(&details.note) {
        if let Some(document) = &note.document {
            add("document", format!("{}, {}", document.file, bytes_text(document.bytes as u64)));
        }
        let said: Vec<&ChatMessage> =
            note.messages.iter().filter(|message| message.role != "system").collect();
        add("messages", said.len().to_string());
        if let Some(last) = said.last() {
            add("last", format!("{}: {}", last.role, beginning(&last.content)));
        }
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
                bits_text(&stream.bits),
                bytes_text(stream.bytes),
            ]
        }));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

/// Bits of a stream's blocks: several where attention decides how much is kept of each.
fn bits_text(bits: &BTreeSet<usize>) -> String {
    let text = |&bits: &usize| if bits == 0 { "plain".to_owned() } else { bits.to_string() };
    bits.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The first words of a message, on one line.
fn beginning(text: &str) -> String {
    const LONGEST: usize = 72;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None => line,
    }
}

fn state_text(state: &SessionState) -> String {
    match state {
        SessionState::Ready => "ready".to_owned(),
        SessionState::TextOnly => "text only: it is read again when the session goes on".to_owned(),
        SessionState::InUse(process) => format!("in use by process {process}"),
        SessionState::Unreadable(reason) => format!("unreadable: {reason}"),
    }
}
