//! Generated tokens as text, piece by piece.
//!
//! A piece is given out as soon as it is certain: bytes that may become a character and text that may become
//! a stop string are held back until the next token decides.

use crate::tokenizer::Tokenizer;

/// What one token adds to the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextPiece {
    /// Text that is certain now; may be empty.
    pub text: String,
    /// The stop string that ends the answer; the text goes up to it and not beyond.
    pub stop: Option<String>,
}

/// Turns one answer's tokens into text.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    stops: Vec<String>,
    /// Bytes that are not a whole character yet; at most three after each step.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl TextStream {
    /// `stops`: texts that end the answer; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|stop: &String| !stop.is_empty()).collect();
        Self { stops, ..Self::default() }
    }

    /// Adds a token; special tokens add nothing. After a stop string nothing more comes out.
    pub fn push(&mut self, token: u32, tokenizer: &Tokenizer) -> TextPiece {
        if self.stopped {
            return TextPiece::default();
        }
        tokenizer.append_token_bytes(token, &mut self.bytes);
        self.take_characters(false);
        self.give_out(false)
    }

    /// What is still held back, at the end of the answer. A broken character becomes U+FFFD.
    pub fn finish(&mut self) -> TextPiece {
        if self.stopped {
            return TextPiece::default();
        }
        self.take_characters(true);
        self.give_out(true)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Moves whole characters from `bytes` to `held`, and U+FFFD for each sequence that can become none.
    fn take_characters(&mut self, last: bool) {
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    // Always valid: the error says how far.
                    self.held.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = match error.error_len() {
                        Some(length) => &broken[length..],
                        None if last => &[],
                        None => {
                            rest = broken;
                            break;
                        }
                    };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        let kept = rest.len();
        let start = self.bytes.len() - kept;
        self.bytes.drain(..start);
    }

    fn give_out(&mut self, last: bool) -> TextPiece {
        let first_stop = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, stop)))
            .min_by_key(|(at, stop)| (*at, std::cmp::Reverse(stop.len())));
        if let Some((at, stop)) = first_stop {
            let stop = stop.clone();
            self.held.truncate(at);
            self.stopped = true;
            self.bytes.clear();
            return TextPiece { text: std::mem::take(&mut self.held), stop: Some(stop) };
        }
        let certain = if last { self.held.len() } else { self.held.len() - self.possible_stop() };
        let after = self.held.split_off(certain);
        TextPiece { text: std::mem::replace(&mut self.held, after), stop: None }
    }

    /// Bytes at the end of `held` that are the beginning of a stop string.
    fn possible_stop(&self) -> usize {
        let beginning = |stop: &String| {
            stop.char_indices()
                .map(|(at, _)| at)
                .rev()
                .find(|length| self.held.ends_with(&stop[..*length]))
                .unwrap_or(0)
        };
        self.stops.iter().map(beginning).max().unwrap_or(0)
    }
}
