//! The texts that routing is measured on.

use std::path::Path;

use crate::documents::Documents;
use crate::failure::Failure;
use crate::model::{Model, explain};

/// Characters of a document that are read.
const LONGEST: usize = 8192;

/// The first `count` windows of `length` tokens of a file; documents that are shorter are joined with those that follow.
pub(super) fn windows(
    model: &Model,
    file: &Path,
    length: usize,
    count: usize,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let mut windows = Vec::new();
    let mut text = String::new();
    for document in Documents::open(file)? {
        // More than a window of any language.
        text.extend(document?.chars().take(LONGEST));
        text.push_str("\n\n");
        let ids =
            model.host.tokenizer().encode_prompt(&text, false).map_err(|error| explain(error.into()))?;
        if ids.len() >= length {
            windows.push(ids[..length].to_vec());
            text.clear();
        }
        if windows.len() == count {
            break;
        }
    }
    if windows.is_empty() {
        let message = format!("{} has no {length} tokens: take shorter prompts", file.display());
        return Err(Failure::usage(message).into());
    }
    Ok(windows)
}

/// Two texts of one length that take turns of so many tokens.
pub(super) fn in_turn(one: &[u32], other: &[u32], turn: usize) -> Vec<u32> {
    let pairs = one.iter().zip(other).enumerate();
    pairs.map(|(at, (a, b))| if (at / turn).is_multiple_of(2) { *a } else { *b }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_take_turns() {
        assert_eq!(in_turn(&[1, 2, 3, 4, 5], &[6, 7, 8, 9, 0], 2), [1, 2, 8, 9, 5]);
    }
}
