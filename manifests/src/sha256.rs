//! SHA-256 digests as manifests write them.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use sha2::Digest;

use crate::string_type::{ValueError, as_string, quoted};

/// A SHA-256 digest. Text form: 64 hexadecimal digits, with or without `sha256:` before them; it prints as bare
/// lower-case digits, and with the prefix through [`Sha256::prefixed`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

as_string!(
    Sha256,
    "A SHA-256 digest: 64 hexadecimal digits, `sha256:` before them is allowed.",
    "^(sha256:)?[0-9a-fA-F]{64}$"
);

impl Sha256 {
    /// From the digest's 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digest and the length in bytes of everything that `reader` still holds.
    pub fn of_reader(mut reader: impl Read) -> std::io::Result<(Self, u64)> {
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut length = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((Self(hasher.finalize().into()), length)),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    length += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The digest and the length in bytes of a file.
    pub fn of_file(path: &Path) -> std::io::Result<(Self, u64)> {
        Self::of_reader(std::fs::File::open(path)?)
    }

    /// `sha256:` and the digits.
    pub fn prefixed(&self) -> String {
        format!("sha256:{self}")
    }
}

impl FromStr for Sha256 {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let refuse = |why: String| {
            let message = format!("{} is not a SHA-256 digest: {why}", quoted(text));
            ValueError::new(message, "write the 64 hexadecimal digits that `sha256sum FILE` prints")
        };
        if digits.len() != 64 {
            return Err(refuse(format!("expected 64 hexadecimal digits, found {} characters", digits.len())));
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Err(refuse("it holds something else than hexadecimal digits".into())),
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn both_text_forms_parse_and_the_bare_one_prints() {
        let digest = Sha256::of_bytes(b"abc");
        assert_eq!(digest.to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(digest));
        assert_eq!(ABC.to_uppercase().parse(), Ok(digest));
        assert_eq!(digest.prefixed().parse(), Ok(digest));
        assert_eq!(Sha256::of_reader(&b"abc"[..]).unwrap(), (digest, 3));
    }

    #[test]
    fn wrong_lengths_and_letters_are_refused() {
        let message = |text: &str| text.parse::<Sha256>().unwrap_err().message;
        assert!(message("sha256:abcd").ends_with("expected 64 hexadecimal digits, found 4 characters"));
        assert!(message(&"g".repeat(64)).ends_with("something else than hexadecimal digits"));
        assert!(message(&"ä".repeat(32)).ends_with("something else than hexadecimal digits"));
    }
}
