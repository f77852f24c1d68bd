//! `pack_bench`: what packs cost, as one JSON object on stdout. `cargo xtask bench packs` runs it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use system_tests::pack_bench::{Settings, run};

fn main() -> ExitCode {
    let figures = run(&Settings::parse());
    println!("{figures:#}");
    ExitCode::SUCCESS
}
