//! What a session is after a turn: its tokens, the hot KV to the bit, and what its owner notes, in one file.
//!
//! `MBTN`, the version, the bytes of the head and its CRC-32C, each 4 bytes little-endian; the head in JSON;
//! the tokens, 4 bytes each; the parts. Tokens and every part have a CRC-32C in the head. The file appears
//! whole under its name or not at all, and is never written to again, so another name of it is a copy.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::session_folder::UNFINISHED;
use crate::{ContextError, ContextOptions};

const MAGIC: [u8; 4] = *b"MBTN";
const VERSION: u32 = 1;

/// What was saved at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedTurn {
    /// The text.
    pub tokens: Vec<u32>,
    /// What the session's owner wrote down.
    pub note: String,
    /// Named bytes, such as the KV of the hot window by stream and layer.
    pub parts: Vec<(String, Vec<u8>)>,
}

/// What is known of a saved turn without its tokens and parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TurnHead {
    pub(crate) base: String,
    pub(crate) options: ContextOptions,
    /// Seconds since 1970.
    pub(crate) saved: u64,
    pub(crate) note: String,
    /// The KV was given up for the disk budget: no parts and no blocks belong to the text.
    pub(crate) given_up: bool,
    /// Blocks of the text, each layer's counted.
    pub(crate) blocks: usize,
    pub(crate) tokens: usize,
    tokens_crc: u32,
    parts: Vec<PartHead>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PartHead {
    name: String,
    bytes: usize,
    crc: u32,
}

impl TurnHead {
    pub(crate) fn new(base: &str, options: &ContextOptions, note: &str, blocks: usize) -> Self {
        let saved = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self {
            base: base.into(),
            options: options.clone(),
            saved,
            note: note.into(),
            given_up: false,
            blocks,
            tokens: 0,
            tokens_crc: 0,
            parts: Vec::new(),
        }
    }

    /// Writes the turn to `path`, in place of what is there, and waits until the disk has it.
    pub(crate) fn write(
        mut self,
        path: &Path,
        tokens: &[u32],
        parts: &[(&str, &[u8])],
    ) -> Result<(), ContextError> {
        let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        self.tokens = tokens.len() / 4;
        self.tokens_crc = crc32c::crc32c(&tokens);
        let part = |(name, bytes): &(&str, &[u8])| PartHead {
            name: (*name).into(),
            bytes: bytes.len(),
            crc: crc32c::crc32c(bytes),
        };
        self.parts = parts.iter().map(part).collect();
        let written = || {
            let head = serde_json::to_vec(&self)?;
            let folder = path.parent().unwrap_or(Path::new("."));
            let mut beside = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
            beside.write_all(&MAGIC)?;
            beside.write_all(&VERSION.to_le_bytes())?;
            beside.write_all(&(head.len() as u32).to_le_bytes())?;
            beside.write_all(&crc32c::crc32c(&head).to_le_bytes())?;
            for bytes in [&head[..], &tokens].into_iter().chain(parts.iter().map(|(_, bytes)| *bytes)) {
                beside.write_all(bytes)?;
            }
            beside.as_file().sync_data()?;
            beside.persist(path)?;
            File::open(folder)?.sync_all()
        };
        written().map_err(ContextError::write(path))
    }

    /// The turn without its KV, for when that is gone.
    pub(crate) fn without_kv(self) -> Self {
        Self { given_up: true, blocks: 0, ..self }
    }

    /// The head of the turn at `path`; `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ContextError> {
        Ok(Self::open(path)?.map(|(head, _)| head))
    }

    /// Head and tokens of the turn at `path`; `None` where there is none.
    pub(crate) fn read_text(path: &Path) -> Result<Option<(Self, Vec<u32>)>, ContextError> {
        let Some((head, mut file)) = Self::open(path)? else { return Ok(None) };
        let tokens = head.tokens(path, &mut file)?;
        Ok(Some((head, tokens)))
    }

    fn tokens(&self, path: &Path, file: &mut File) -> Result<Vec<u32>, ContextError> {
        let Some(bytes) = read_checked(path, file, self.tokens.saturating_mul(4), self.tokens_crc)? else {
            let (path, found) = (path.into(), "has damaged tokens".into());
            return Err(ContextError::Format { path, found, expected: "tokens as they were saved".into() });
        };
        Ok(bytes.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect())
    }

    fn open(path: &Path) -> Result<Option<(Self, File)>, ContextError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(ContextError::read(path))?,
        };
        let damaged = |found: &str| ContextError::Format {
            path: path.into(),
            found: found.into(),
            expected: format!("saved turns of version {VERSION}").into(),
        };
        let mut start = [0; 16];
        file.read_exact(&mut start).map_err(|_| damaged("is cut off"))?;
        let word = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
        if start[..4] != MAGIC {
            return Err(damaged("is no saved turn"));
        }
        if word(4) != VERSION {
            return Err(damaged(&format!("has version {}", word(4))));
        }
        let mut head = Vec::new();
        Read::by_ref(&mut file)
            .take(word(8).into())
            .read_to_end(&mut head)
            .map_err(ContextError::read(path))?;
        if crc32c::crc32c(&head) != word(12) {
            return Err(damaged("has a damaged head"));
        }
        let strange = |error: String| damaged(&format!("has a strange head: {error}"));
        let head: Self = serde_json::from_slice(&head).map_err(|error| strange(error.to_string()))?;
        head.options.check().map_err(|error| strange(error.to_string()))?;
        Ok(Some((head, file)))
    }
}

impl SavedTurn {
    /// The turn at `path`; `None` where there is none. Where only parts are damaged it comes without any, and
    /// with the reason: its text is what it was.
    pub(crate) fn read(path: &Path) -> Result<Option<(TurnHead, Self, Option<String>)>, ContextError> {
        let Some((head, mut file)) = TurnHead::open(path)? else { return Ok(None) };
        let tokens = head.tokens(path, &mut file)?;
        let mut turn = Self { tokens, note: head.note.clone(), parts: Vec::new() };
        for PartHead { name, bytes, crc } in &head.parts {
            match read_checked(path, &mut file, *bytes, *crc)? {
                Some(content) => turn.parts.push((name.clone(), content)),
                None => {
                    turn.parts.clear();
                    let reason = format!("`{}`: the part `{name}` is damaged", path.display());
                    return Ok(Some((head, turn, Some(reason))));
                }
            }
        }
        Ok(Some((head, turn, None)))
    }
}

/// The next bytes of the file, where they are as many as that and have this checksum.
fn read_checked(
    path: &Path,
    file: &mut File,
    bytes: usize,
    crc: u32,
) -> Result<Option<Vec<u8>>, ContextError> {
    // Room for all of it at once, but never for more than a file can have.
    let rest = file.metadata().map_err(ContextError::read(path))?.len();
    let mut content = Vec::with_capacity((bytes as u64).min(rest) as usize);
    file.take(bytes as u64).read_to_end(&mut content).map_err(ContextError::read(path))?;
    Ok((content.len() == bytes && crc32c::crc32c(&content) == crc).then_some(content))
}

/// A second name of a file, in place of what has that name; a copy where the file system knows no second
/// names.
pub(crate) fn link(file: &Path, name: &Path) -> Result<(), ContextError> {
    let linked = || {
        let folder = name.parent().unwrap_or(Path::new("."));
        let beside = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .make_in(folder, |path| fs::hard_link(file, path).or_else(|_| fs::copy(file, path).map(drop)))?;
        beside.persist(name).map_err(io::Error::from)
    };
    linked().map(drop).map_err(ContextError::write(name))
}
