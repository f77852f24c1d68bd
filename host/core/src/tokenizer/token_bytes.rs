//! The bytes that a token stands for.
//!
//! Generated text is put together from bytes, not from strings: one character may be spread over several
//! tokens, and what a token means never depends on its neighbours.

use tokenizers::DecoderWrapper;

/// How a vocabulary writes bytes as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenSpelling {
    /// GPT-2: each byte is one printable character.
    ByteLevel,
    /// SentencePiece: `▁` is a space, `<0x0A>` a byte.
    SentencePiece,
    /// The text itself.
    Plain,
}

impl TokenSpelling {
    /// The spelling that a `tokenizer.json` implies by its decoder.
    pub(super) fn of_decoder(decoder: Option<&DecoderWrapper>) -> Self {
        match decoder {
            Some(DecoderWrapper::ByteLevel(_)) => Self::ByteLevel,
            Some(
                DecoderWrapper::ByteFallback(_) | DecoderWrapper::Metaspace(_) | DecoderWrapper::Replace(_),
            ) => Self::SentencePiece,
            Some(DecoderWrapper::Sequence(sequence)) => sequence
                .get_decoders()
                .iter()
                .map(|decoder| Self::of_decoder(Some(decoder)))
                .find(|spelling| *spelling != Self::Plain)
                .unwrap_or(Self::Plain),
            _ => Self::Plain,
        }
    }

    /// Appends the bytes of a token that is spelled `text`.
    pub(super) fn append(self, text: &str, out: &mut Vec<u8>) {
        match self {
            Self::Plain => out.extend_from_slice(text.as_bytes()),
            Self::ByteLevel => {
                for character in text.chars() {
                    match byte_of(character) {
                        Some(byte) => out.push(byte),
                        // Not of the byte alphabet: an added token that stands for itself.
                        None => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
            Self::SentencePiece => match escaped_byte(text) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(text.replace('▁', " ").as_bytes()),
            },
        }
    }
}

/// Inverse of GPT-2's `bytes_to_unicode`: printable Latin-1 bytes stand for themselves, the other 68 are
/// numbered upwards from U+0100 in order.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        // 0x00..=0x20
        0x100..=0x120 => Some((code - 0x100) as u8),
        // 0x7f..=0xa0
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

fn escaped_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character_of_the_byte_alphabet() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.into_iter().filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('日'), None);
    }

    #[test]
    fn sentence_piece_bytes_and_spaces_are_spelled_out() {
        let mut out = Vec::new();
        for token in ["▁the", "<0xE6>", "<0xZZ>", "<0x", "é"] {
            TokenSpelling::SentencePiece.append(token, &mut out);
        }
        assert_eq!(out, b" the\xe6<0xZZ><0x\xc3\xa9");
    }
}
