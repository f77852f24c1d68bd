//! Public keys of pack signers, as minisign writes them.

use std::fmt;
use std::str::FromStr;

use crate::string_type::{ValueError, as_string, quoted};

/// Bytes of a minisign public key: algorithm (2), key number (8), Ed25519 key (32).
const KEY_BYTES: usize = 42;

/// The same as base64 characters. 42 bytes fill them exactly, so that one key has one text.
const KEY_CHARACTERS: usize = 56;

/// A minisign public key: the base64 line of a `.pub` file, `RW` and 54 more characters. Two texts are equal exactly
/// when the keys are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(String);

as_string!(
    PublicKey,
    "A minisign public key: the second line of its .pub file.",
    "^RW[QRST][A-Za-z0-9+/]{53}$"
);

impl PublicKey {
    /// The base64 line.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's number as minisign prints it: 16 upper-case hexadecimal digits. Short enough for people, and no
    /// identity: whoever makes a key chooses its number.
    pub fn number(&self) -> String {
        let bytes = decode(&self.0).unwrap_or([0; KEY_BYTES]);
        bytes[2..10].iter().rev().map(|byte| format!("{byte:02X}")).collect()
    }
}

impl FromStr for PublicKey {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = |why: String| {
            let message = format!("{} is not a minisign public key: {why}", quoted(text));
            ValueError::new(message, "write the second line of the .pub file, `RW` and 54 more characters")
        };
        if text.len() != KEY_CHARACTERS {
            return Err(refuse(format!(
                "expected {KEY_CHARACTERS} characters, found {}",
                text.chars().count()
            )));
        }
        match decode(text) {
            Some(bytes) if bytes.starts_with(b"Ed") => Ok(Self(text.to_string())),
            Some(_) => Err(refuse("its algorithm is not Ed25519 (`Ed`)".into())),
            None => Err(refuse("it holds something else than base64 characters".into())),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Base64 (RFC 4648, section 4) of exactly one key.
fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    if text.len() != KEY_CHARACTERS {
        return None;
    }
    for (three, four) in bytes.chunks_exact_mut(3).zip(text.as_bytes().chunks_exact(4)) {
        let mut bits = 0;
        for character in four {
            let value = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                b'0'..=b'9' => character - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        three.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of minisign's own documentation; its number is the one printed there.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn a_key_parses_prints_and_has_its_number() {
        let key: PublicKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(key.number(), "E7620F1842B4E81F");
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        let message = |text: &str| text.parse::<PublicKey>().unwrap_err().message;
        assert!(message(&KEY[1..]).ends_with("expected 56 characters, found 55"));
        assert!(message("").ends_with("expected 56 characters, found 0"));
        assert!(message(&KEY.replace('Q', "*")).ends_with("something else than base64 characters"));
        assert!(message(&"ä".repeat(28)).ends_with("something else than base64 characters"));
        // `ED` is the algorithm of a signature over a hash, never of a key.
        assert!(message(&KEY.replacen("RWQ", "RUQ", 1)).ends_with("its algorithm is not Ed25519 (`Ed`)"));
    }
}
