//! `base list|show|fetch`.

mod base_store;
mod fetch;
pub(crate) mod hub;
mod pip;
mod show;
mod staged_file;
mod verified_stamp;
mod wheel;

pub(crate) use base_store::ChosenBase;

use serde_json::json;

use crate::arguments::BaseCommand;
use crate::settings::Settings;
use crate::terminal::{print, print_json, print_line, table};
use fetch::Fetched;
use verified_stamp::Verdict;

/// Runs one of the commands.
pub(crate) fn command(command: BaseCommand, settings: &Settings) -> anyhow::Result<()> {
    let chosen = |base: Option<String>| ChosenBase::find(base.as_deref().unwrap_or(&settings.host.base));
    match command {
        BaseCommand::List => list(settings),
        BaseCommand::Show { base } => show::show(&chosen(base)?, settings),
        BaseCommand::Fetch { base, from, verify } => {
            let base = chosen(base)?;
            let fetched = fetch::fetch(&base, from.as_deref(), verify)?;
            if settings.json {
                return print_json(&json!({ "base": base.name, "path": base.path, "result": fetched }));
            }
            let how = match fetched {
                Fetched::AlreadyThere => "is there already and whole",
                Fetched::Fetched => "was fetched and verified",
            };
            print_line(&format!("{} {how}: {}", base.name, base.path.display()))
        }
    }
}

fn list(settings: &Settings) -> anyhow::Result<()> {
    let mut rows = vec![vec!["NAME".to_owned(), "PATH".to_owned(), "STATE".to_owned()]];
    let mut values = Vec::new();
    for base in ChosenBase::all_known()? {
        let (state, reason) = match base.judge(false)? {
            Verdict::Sound => ("ready", None),
            Verdict::Missing => ("not fetched", None),
            Verdict::Damaged(why) => ("damaged", Some(why)),
        };
        let description = base.manifest.as_ref().map(|manifest| manifest.base.description.clone());
        values.push(json!({
            "name": base.name,
            "state": state.replace(' ', "_"),
            "reason": reason,
            "path": base.path,
            "description": description,
            "is_default": base.name == settings.host.base,
        }));
        let mark = if base.name == settings.host.base { " (default)" } else { "" };
        let state = reason.map_or(state.to_owned(), |why| format!("{state}: {why}"));
        rows.push(vec![format!("{}{mark}", base.name), base.path.display().to_string(), state]);
    }
    if settings.json { print_json(&values) } else { print(&table(&rows)) }
}
