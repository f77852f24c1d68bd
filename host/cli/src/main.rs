//! The `modularbase` command: a thin edge over the engine.

#![forbid(unsafe_code)]

mod answer_json;
mod answer_stream;
mod arguments;
mod base;
mod bench;
mod bench_context;
mod bench_long_text;
mod bench_routing;
mod chat;
mod data;
mod documents;
mod eval;
mod failure;
mod host_choice;
mod interrupt;
mod kept_conversation;
mod model;
mod packs;
mod prompt;
mod route;
mod routing_key;
mod run;
mod score;
mod served_host;
mod sessions;
mod settings;
mod terminal;
mod times;
mod top;
mod train;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, Command};
use settings::Settings;

fn main() -> ExitCode {
    let started = Instant::now();
    // This very program is also the child in which packs are probed; nothing else may run in that one.
    if let Some(code) = modularbase_loader::probe_child_main(std::env::args_os().skip(1)) {
        return code;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed stdout or stderr leaves nobody to tell.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log_to_stderr(arguments.global.verbose);
    match run(arguments, started) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(arguments: Arguments, started: Instant) -> anyhow::Result<ExitCode> {
    // `chat` does it itself: the line editor replaces whatever handler is there when it is made.
    if !matches!(arguments.command, Command::Chat(_)) {
        interrupt::install()?;
    }
    let settings = Settings::resolve(&arguments.global)?;
    match arguments.command {
        Command::Run(arguments) => run::run(&arguments, &settings, started)?,
        Command::Chat(arguments) => chat::chat(&arguments, &settings, started)?,
        Command::Base(command) => base::command(command, &settings)?,
        Command::Data(command) => data::command(command, &settings)?,
        Command::Packs(command) => return packs::command(command, &settings),
        Command::Sessions(command) => sessions::command(command, &settings)?,
        Command::Top(arguments) => top::top(&arguments, &settings)?,
        Command::Route(arguments) => route::route(&arguments, &settings, started)?,
        Command::Score(arguments) => score::score(&arguments, &settings, started)?,
        Command::Train(command) => train::command(command, &settings, started)?,
        Command::RoutingKey(arguments) => routing_key::routing_key(&arguments, &settings)?,
        Command::Eval(arguments) => eval::eval(&arguments, &settings)?,
        Command::Bench(arguments) => bench::bench(&arguments.what, &settings, started)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Errors of the log are shown always; `-v` shows what happens, `-vv` more; `RUST_LOG` stands above both.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).compact().init();
}
