//! Every operator on a CUDA device against the CPU's results in f32, and what forward and backward cost there.
//!
//! `cargo run --release --features modularbase/cuda -p modularbase -p modularbase-gradients --example
//! gradients_on_device`, with the argument `cpu` for a small run on the CPU that tries the example itself. Ends with an
//! error if an operator disagrees.

mod agreement;
mod numbers;
mod stack;
mod timing;

use std::process::ExitCode;

use candle_core::{Device, Result};

fn main() -> ExitCode {
    let on_cpu = std::env::args().nth(1).is_some_and(|argument| argument == "cpu");
    match run(on_cpu) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("some operators disagree: see the table");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(on_cpu: bool) -> Result<bool> {
    let device = if on_cpu { Device::Cpu } else { Device::new_cuda(0)? };
    modularbase_gradients::prepare_device(&device)?;
    let agreed = agreement::table(&device)?;
    timing::operators(&device, on_cpu)?;
    timing::losses(&device, on_cpu)?;
    timing::stacks(&device, on_cpu)?;
    Ok(agreed)
}
