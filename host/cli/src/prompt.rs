//! Where a prompt comes from.

use std::io::{IsTerminal, Read};

use anyhow::Context;

use crate::failure::Failure;

/// More than any context holds, bytes: a prompt on stdin that never ends is refused instead of filling the memory.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// The prompt of the command line, or stdin's for `-` or none; one newline at its end is not part of it.
///
/// # Errors
/// No prompt, an empty one, or one that is no UTF-8.
pub(crate) fn read(said: Option<&str>) -> anyhow::Result<String> {
    let prompt = match said {
        Some("-") => from_stdin()?,
        None if !std::io::stdin().is_terminal() => from_stdin()?,
        None => {
            let failure = Failure::usage("there is no prompt");
            return Err(failure
                .help("say `modularbase run \"What is gravity?\"`, or `modularbase chat`")
                .into());
        }
        Some(prompt) => prompt.to_owned(),
    };
    if prompt.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty").help("say what to answer").into());
    }
    Ok(prompt)
}

fn from_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes).context("can't read stdin")?;
    if bytes.len() as u64 > MAX_PROMPT_BYTES {
        return Err(Failure::usage(format!("the prompt is longer than {MAX_PROMPT_BYTES} bytes")).into());
    }
    let mut text = utf8(bytes, "stdin")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Bytes as text. Error: the first byte that is no UTF-8, named with its place in `what`.
pub(crate) fn utf8(bytes: Vec<u8>, what: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Failure::usage(format!("{what} is not UTF-8: invalid byte at offset {place}"))
            .help("convert it, for example with `iconv -t UTF-8`")
            .into()
    })
}
