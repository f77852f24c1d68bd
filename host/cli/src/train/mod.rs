//! `train ...`: from text to weights.

mod base;
mod baseline;
mod ending;
mod finish;
mod observer;
mod pack;
mod pack_folder;
mod router;
mod router_crowd;
mod router_means;
mod router_measured;
mod router_prompts;
mod router_report;

use std::time::Instant;

use crate::arguments::TrainCommand;
use crate::settings::Settings;
use crate::terminal::print;

pub(crate) use baseline::TrainBaselineArguments;
pub(crate) use router::TrainRouterArguments;

/// Runs one of the commands.
pub(crate) fn command(command: TrainCommand, settings: &Settings, started: Instant) -> anyhow::Result<()> {
    match command {
        TrainCommand::Pack(arguments) => pack::train(&arguments, settings),
        TrainCommand::Base(arguments) => base::train(&arguments, settings),
        TrainCommand::Baseline(arguments) => baseline::train(&arguments, settings),
        TrainCommand::Router(arguments) => router::train(&arguments, settings, started),
        TrainCommand::Config => print(&modularbase_trainer::TrainConfig::commented_defaults()),
    }
}
