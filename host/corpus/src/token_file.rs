//! Token ids on disk.
//!
//! ```text
//! magic (8)  ids: u32 little-endian each  answers: one bit a token  table: JSON
//! ids (u64)  answers (u64, bytes)  table (u64, bytes)  end of text (u32)  SHA-256 of all before (32)
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::document::{Body, Document};
use crate::tokenized_corpus::TokenizedCorpus;

const MAGIC: &[u8; 8] = b"MBTOKEN1";
/// Bytes of the sizes and of the digest at the end.
const SIZES: usize = 8 + 8 + 8 + 4;
const DIGEST: usize = 32;

/// What is known of each document besides its ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct TokenTable {
    /// Sources and licences, each once.
    pub(crate) labels: Vec<String>,
    pub(crate) documents: Vec<TableEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct TableEntry {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) license: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_conversation: bool,
    pub(crate) tokens: u64,
    pub(crate) text_bytes: u64,
}

/// A table in the making.
#[derive(Default)]
pub(crate) struct TableBuilder {
    pub(crate) table: TokenTable,
    known: HashMap<String, u32>,
}

impl TableBuilder {
    pub(crate) fn push(&mut self, document: Document, tokens: u64) {
        let text_bytes = document.body.bytes();
        let is_conversation = matches!(document.body, Body::Conversation(_));
        let Document { id, group, source, license, .. } = document;
        let (source, license) = (self.index_of(source), self.index_of(license));
        let entry = TableEntry { id, group, source, license, is_conversation, tokens, text_bytes };
        self.table.documents.push(entry);
    }

    fn index_of(&mut self, label: Option<String>) -> Option<u32> {
        let label = label?;
        if let Some(index) = self.known.get(&label) {
            return Some(*index);
        }
        let index = u32::try_from(self.table.labels.len()).ok()?;
        self.table.labels.push(label.clone());
        self.known.insert(label, index);
        Some(index)
    }
}

impl TokenTable {
    pub(crate) fn label(&self, index: Option<u32>) -> Option<&str> {
        self.labels.get(index? as usize).map(String::as_str)
    }

    /// Where each document's ids begin, and the end of the last.
    pub(crate) fn starts(&self) -> Vec<u64> {
        let mut end = 0;
        let mut starts = vec![0];
        starts.extend(self.documents.iter().map(|document| {
            end += document.tokens;
            end
        }));
        starts
    }
}

/// Writes the corpus whole or not at all.
pub(crate) fn write(path: &Path, corpus: &TokenizedCorpus) -> io::Result<()> {
    manifests::replace_atomically(path, |file| {
        let mut out = Hashed { inner: BufWriter::with_capacity(1 << 20, file), hasher: Sha256::new() };
        out.write_all(MAGIC)?;
        let mut bytes = Vec::with_capacity(1 << 16);
        for ids in corpus.ids.chunks(1 << 14) {
            bytes.clear();
            bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        out.write_all(&corpus.answers)?;
        let table = serde_json::to_vec(&corpus.table)?;
        out.write_all(&table)?;
        for size in [corpus.ids.len(), corpus.answers.len(), table.len()] {
            out.write_all(&(size as u64).to_le_bytes())?;
        }
        out.write_all(&corpus.end_of_text.to_le_bytes())?;
        let digest = out.hasher.finalize();
        out.inner.write_all(&digest)?;
        out.inner.flush()
    })
}

struct Hashed<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// `InvalidData`, with the reason, for a file that is anything else; what the operating system says.
pub(crate) fn read(path: &Path) -> io::Result<TokenizedCorpus> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(body) = length.checked_sub((MAGIC.len() + SIZES + DIGEST) as u64) else {
        return Err(damaged("it is too short"));
    };
    let sizes = read_sizes(&file, length)?;
    let [ids, answers, table] = sizes.0;
    let ids_bytes = ids.checked_mul(4);
    if ids_bytes.and_then(|ids| ids.checked_add(answers)?.checked_add(table)) != Some(body) {
        return Err(damaged("its parts are not as long as it says"));
    }
    let mut reader = HashedReader { inner: BufReader::with_capacity(1 << 20, file), hasher: Sha256::new() };
    let mut magic = [0; 8];
    reader.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(damaged("it is no token file of this version"));
    }
    // The sizes were checked against the file's length, so none of these is larger than the file.
    let mut corpus_ids = Vec::with_capacity(ids as usize);
    let mut buffer = vec![0; 1 << 16];
    let mut left = ids as usize * 4;
    while left > 0 {
        let part = buffer.len().min(left);
        reader.read_exact(&mut buffer[..part])?;
        let words = buffer[..part].chunks_exact(4);
        corpus_ids.extend(words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
        left -= part;
    }
    let mut answer_bits = vec![0; answers as usize];
    reader.read_exact(&mut answer_bits)?;
    let mut table_bytes = vec![0; table as usize];
    reader.read_exact(&mut table_bytes)?;
    reader.read_exact(&mut [0; SIZES])?;
    let mut digest = [0; DIGEST];
    reader.inner.read_exact(&mut digest)?;
    if reader.hasher.finalize().as_slice() != digest {
        return Err(damaged("its SHA-256 is not that of its content"));
    }
    let table: TokenTable =
        serde_json::from_slice(&table_bytes).map_err(|_| damaged("its table can't be read"))?;
    let starts = table.starts();
    let answers_fit = answer_bits.is_empty() || answer_bits.len() == corpus_ids.len().div_ceil(8);
    if starts.last() != Some(&ids) || !answers_fit {
        return Err(damaged("its table is that of other tokens"));
    }
    Ok(TokenizedCorpus { end_of_text: sizes.1, ids: corpus_ids, answers: answer_bits, table, starts })
}

fn read_sizes(mut file: &File, length: u64) -> io::Result<([u64; 3], u32)> {
    use std::io::{Seek, SeekFrom};
    let mut bytes = [0; SIZES];
    file.seek(SeekFrom::Start(length - (SIZES + DIGEST) as u64))?;
    file.read_exact(&mut bytes)?;
    file.seek(SeekFrom::Start(0))?;
    let mut sizes = [0; 3];
    for (size, part) in sizes.iter_mut().zip(bytes.chunks_exact(8)) {
        *size = part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    }
    let end_of_text = bytes[24..].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
    Ok((sizes, end_of_text))
}

struct HashedReader<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for HashedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
