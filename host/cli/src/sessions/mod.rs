//! `sessions list|show|rm|gc`: kept conversations and their disk space.

mod report;

use manifests::ByteSize;
use modularbase_context::{ContextError, Sessions};
use serde_json::json;

use crate::arguments::SessionsCommand;
use crate::failure::Failure;
use crate::settings::{Settings, sessions_folder};
use crate::terminal::{bytes_text, notice, print, print_json, print_line};
use crate::times::now_ms;
use report::{details_table, list_table};

/// Runs one of the commands.
pub(crate) fn command(command: SessionsCommand, settings: &Settings) -> anyhow::Result<()> {
    let sessions = Sessions::new(&sessions_folder()?);
    match command {
        SessionsCommand::List => list(&sessions, settings),
        SessionsCommand::Show { name, verify } => show(&sessions, &name, verify, settings),
        SessionsCommand::Rm { names } => remove(&sessions, &names, settings),
        SessionsCommand::Gc { limit } => collect(&sessions, limit, settings),
    }
}

fn list(sessions: &Sessions, settings: &Settings) -> anyhow::Result<()> {
    let found = sessions.list()?;
    if settings.json {
        return print_json(&found);
    }
    if found.is_empty() {
        notice(&format!("no sessions in {}", sessions_folder()?.display()));
        return Ok(());
    }
    print(&list_table(&found, now_ms()))
}

fn show(sessions: &Sessions, name: &str, verify: bool, settings: &Settings) -> anyhow::Result<()> {
    let details = sessions.show(name, verify).map_err(explain)?;
    if settings.json { print_json(&details) } else { print(&details_table(&details, verify)) }
}

/// One after the other, so that a later one which can't be removed doesn't keep those before it.
fn remove(sessions: &Sessions, names: &[String], settings: &Settings) -> anyhow::Result<()> {
    for name in names {
        sessions.remove(name).map_err(explain)?;
        if !settings.json {
            print_line(&format!("`{name}` is removed"))?;
        }
    }
    if settings.json { print_json(&json!({ "removed": names })) } else { Ok(()) }
}

fn collect(sessions: &Sessions, limit: ByteSize, settings: &Settings) -> anyhow::Result<()> {
    let collected = sessions.collect(limit.bytes())?;
    if settings.json {
        return print_json(&collected);
    }
    let freed = collected.before_bytes.saturating_sub(collected.used_bytes);
    let (freed, used) = (bytes_text(freed), bytes_text(collected.used_bytes));
    print_line(&format!("{freed} are free again, sessions take {used}"))?;
    for name in &collected.compacted {
        print_line(&format!("`{name}`: blocks that no text asks for are gone"))?;
    }
    for name in &collected.given_up {
        print_line(&format!("`{name}`: its KV is given up; its text is read again when it goes on"))?;
    }
    if collected.used_bytes > limit.bytes() {
        notice(&format!("more than {limit}: what is left are texts and sessions in use"));
    }
    Ok(())
}

/// What the user got wrong, with the way out.
fn explain(error: ContextError) -> anyhow::Error {
    let help = match &error {
        ContextError::Name { .. } | ContextError::NoSession { .. } => "see `modularbase sessions list`",
        ContextError::InUse { .. } => "end that program first",
        _ => return error.into(),
    };
    Failure::usage(error.to_string()).help(help).into()
}
