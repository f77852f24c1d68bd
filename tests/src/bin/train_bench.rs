//! `train_bench`: what a step of training a pack costs on the CPU, as one JSON object on stdout. `cargo xtask bench train`
//! runs it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use system_tests::train_bench::{Settings, run};

fn main() -> ExitCode {
    println!("{:#}", run(&Settings::parse()));
    ExitCode::SUCCESS
}
