//! `train ...`: from text to weights.

mod base;
mod baseline;
mod ending;
mod finish;
mod observer;
mod pack;
mod pack_folder;

use crate::arguments::TrainCommand;
use crate::settings::Settings;
use crate::terminal::print;

pub(crate) use baseline::TrainBaselineArguments;

/// Runs one of the commands.
pub(crate) fn command(command: TrainCommand, settings: &Settings) -> anyhow::Result<()> {
    match command {
        TrainCommand::Pack(arguments) => pack::train(&arguments, settings),
        TrainCommand::Base(arguments) => base::train(&arguments, settings),
        TrainCommand::Baseline(arguments) => baseline::train(&arguments, settings),
        TrainCommand::Config => print(&modularbase_trainer::TrainConfig::default().to_toml()),
    }
}
