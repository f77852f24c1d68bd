//! A program that is nothing but a probe: for tests and tools that link no host.

use std::process::ExitCode;

fn main() -> ExitCode {
    modularbase_loader::probe_child_main(std::env::args_os().skip(1)).unwrap_or_else(|| {
        eprintln!("this program is started by the loader, with `{}`", modularbase_loader::PROBE_ARGUMENT);
        ExitCode::from(2)
    })
}
