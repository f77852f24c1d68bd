//! `data list|show|fetch|stats|split`: text to train on.

mod fetch;
mod recipes;
mod split;
mod stats;

use crate::arguments::DataCommand;
use crate::settings::Settings;

/// Runs one of the commands.
pub(crate) fn command(command: DataCommand, settings: &Settings) -> anyhow::Result<()> {
    match command {
        DataCommand::List => recipes::list(settings),
        DataCommand::Show { recipe } => recipes::show(&recipe, settings),
        DataCommand::Fetch { recipe, out } => fetch::fetch(&recipe, out, settings),
        DataCommand::Stats { text } => stats::stats(&text, settings),
        DataCommand::Split(arguments) => split::split(&arguments, settings),
    }
}

/// What can be wrong with text, with the exit code of wrong input; Ctrl-C stays what it is.
fn explain(error: modularbase_corpus::CorpusError) -> anyhow::Error {
    use crate::failure::{Exit, Failure};
    use modularbase_corpus::CorpusError;
    let exit = match error {
        CorpusError::Cancelled => return Failure::interrupted().into(),
        CorpusError::Write { .. } => Exit::Failed,
        _ => Exit::Usage,
    };
    Failure::new(exit, error.to_string()).into()
}
