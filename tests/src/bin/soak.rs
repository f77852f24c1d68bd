//! `soak`: a host under requests for minutes, with many more packs than fit and files that change underneath. Exit code 0:
//! every answer was right and everything came back; 1: it did not.

#![forbid(unsafe_code)]

use std::{alloc::System, process::ExitCode};

use cap::Cap;
use clap::Parser;
use system_tests::soak::{Settings, run};

/// Tells what is allocated: resident memory alone can't tell what is kept from what the allocator holds back.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn main() -> ExitCode {
    let settings = Settings::parse();
    let report = run(&settings, &|| ALLOCATOR.allocated());
    eprintln!("{}", report.text());
    if let Some(path) = &settings.json {
        let json = serde_json::to_vec_pretty(&report).expect("a report is JSON");
        if let Err(error) = std::fs::write(path, json) {
            eprintln!("error: can't write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{}", report.line());
    if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
