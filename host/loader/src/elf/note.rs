//! The note that a pack's library carries: which ABI, which opset, which target.

use pack_abi::{AbiNote, NOTE_NAME, NOTE_TYPE};
use serde::{Deserialize, Serialize};

/// What a library says of itself before any of its code runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackNote {
    /// Major version of `pack-abi`: the ABI.
    pub abi_major: u32,
    /// Minor version.
    pub abi_minor: u32,
    /// Patch version.
    pub abi_patch: u32,
    /// Operator set of its graph.
    pub opset: u32,
    /// Target triple.
    pub target: String,
    /// Compiler.
    pub rustc: String,
}

const WORD: usize = 4;
const HEADER: usize = 3 * WORD;
const DESCRIPTOR: usize = size_of::<AbiNote>() - HEADER - NOTE_NAME.len();
const TARGET_BYTES: usize = 48;
const RUSTC_BYTES: usize = 64;

impl PackNote {
    /// Reads the bytes of a note section or segment, in which other notes may stand too. `Ok(None)`: no pack's note.
    ///
    /// # Errors
    /// What is malformed, in words.
    pub(crate) fn find(mut bytes: &[u8]) -> Result<Option<Self>, String> {
        while !bytes.is_empty() {
            let word = |index: usize| {
                let word: Option<[u8; WORD]> =
                    bytes.get(index * WORD..(index + 1) * WORD).and_then(|slice| slice.try_into().ok());
                word.map(u32::from_le_bytes).ok_or("a note ends within its header")
            };
            let (name_size, descriptor_size, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
            let name_end = HEADER.checked_add(name_size);
            let descriptor_start = name_end.and_then(|end| end.checked_next_multiple_of(WORD));
            let descriptor_end = descriptor_start.and_then(|start| start.checked_add(descriptor_size));
            let name = name_end.and_then(|end| bytes.get(HEADER..end));
            let descriptor =
                descriptor_start.zip(descriptor_end).and_then(|(start, end)| bytes.get(start..end));
            let (Some(name), Some(descriptor), Some(end)) = (name, descriptor, descriptor_end) else {
                return Err("a note is longer than its section".to_owned());
            };
            if name == NOTE_NAME && kind == NOTE_TYPE {
                return Self::parse(descriptor).map(Some);
            }
            bytes = bytes.get(end.next_multiple_of(WORD)..).unwrap_or_default();
        }
        Ok(None)
    }

    fn parse(descriptor: &[u8]) -> Result<Self, String> {
        // A later minor version may append fields; what is here never moves.
        if descriptor.len() < DESCRIPTOR {
            return Err(format!("the note has {} bytes, expected at least {DESCRIPTOR}", descriptor.len()));
        }
        let word = |index: usize| {
            let mut word = [0; WORD];
            word.copy_from_slice(&descriptor[index * WORD..(index + 1) * WORD]);
            u32::from_le_bytes(word)
        };
        let texts = &descriptor[4 * WORD..];
        Ok(Self {
            abi_major: word(0),
            abi_minor: word(1),
            abi_patch: word(2),
            opset: word(3),
            target: text(&texts[..TARGET_BYTES], "target")?,
            rustc: text(&texts[TARGET_BYTES..TARGET_BYTES + RUSTC_BYTES], "compiler")?,
        })
    }
}

fn text(bytes: &[u8], what: &str) -> Result<String, String> {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    match std::str::from_utf8(&bytes[..length]) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| !c.is_control()) => Ok(text.to_owned()),
        _ => Err(format!("the note's {what} is no printable text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn pack_note(target: &[u8]) -> Vec<u8> {
        let mut note = words(&[NOTE_NAME.len() as u32, DESCRIPTOR as u32, NOTE_TYPE]);
        note.extend(NOTE_NAME);
        note.extend(words(&[1, 2, 3, 4]));
        note.extend(target.iter().copied().chain(std::iter::repeat(0)).take(TARGET_BYTES));
        note.extend(b"rustc 1.0".iter().copied().chain(std::iter::repeat(0)).take(RUSTC_BYTES));
        note
    }

    #[test]
    fn the_note_is_found_behind_others() {
        let mut bytes = words(&[4, 5, 7]);
        bytes.extend(b"GNU\0hello\0\0\0");
        bytes.extend(pack_note(b"x86_64-unknown-linux-gnu"));
        let note = PackNote::find(&bytes).unwrap().unwrap();
        assert_eq!((note.abi_major, note.abi_minor, note.abi_patch, note.opset), (1, 2, 3, 4));
        assert_eq!((note.target.as_str(), note.rustc.as_str()), ("x86_64-unknown-linux-gnu", "rustc 1.0"));
        assert_eq!(PackNote::find(&bytes[..24]).unwrap(), None);
        for cut in 25..bytes.len() {
            assert!(PackNote::find(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn sizes_that_overflow_and_texts_that_are_none_are_refused() {
        assert!(PackNote::find(&words(&[u32::MAX, u32::MAX, 1])).is_err());
        assert!(PackNote::find(&words(&[1, 0, 1, 0])).unwrap().is_none());
        assert!(PackNote::find(&pack_note(b"\xff\xfe")).is_err());
        assert!(PackNote::find(&pack_note(b"")).is_err());
        assert!(PackNote::find(&pack_note(b"x\x1b[31m")).is_err());
    }
}
