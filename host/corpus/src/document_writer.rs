//! Documents to a file, in the form in which they are read again.

use std::io::{BufWriter, Write};
use std::path::Path;

use crate::document::{Body, Document, Message};
use crate::error::CorpusError;
use crate::lines::Compression;

/// Bytes and zstd level of what is written: text of this kind shrinks to a quarter, at 100 MB/s and more.
const ZSTD_LEVEL: i32 = 9;

/// One line of JSONL.
#[derive(serde::Serialize)]
struct Record<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a [Message]>,
}

/// Writes `documents` as JSONL to `path`, compressed as its name says (`.zst`, `.gz` or not). The file appears whole or
/// not at all; its folder must exist. Gives the number of documents.
///
/// # Errors
/// An error of `documents`, or one of writing.
pub fn write_documents(
    path: &Path,
    documents: impl IntoIterator<Item = Result<Document, CorpusError>>,
) -> Result<u64, CorpusError> {
    let mut refused = None;
    let mut count = 0;
    let written = manifests::replace_atomically(path, |file| {
        let file = BufWriter::with_capacity(1 << 16, file);
        let lines = |out: &mut dyn Write| {
            for document in documents {
                match document {
                    Ok(document) => write_line(out, &document)?,
                    Err(error) => {
                        refused = Some(error);
                        return Err(std::io::ErrorKind::InvalidData.into());
                    }
                }
                count += 1;
            }
            Ok::<(), std::io::Error>(())
        };
        match Compression::of(path) {
            Compression::None => {
                let mut out = file;
                lines(&mut out)?;
                out.flush()
            }
            Compression::Zstd => {
                let mut out = zstd::stream::write::Encoder::new(file, ZSTD_LEVEL)?;
                out.include_checksum(true)?;
                lines(&mut out)?;
                out.finish()?.flush()
            }
            Compression::Gzip => {
                let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::default());
                lines(&mut out)?;
                out.finish()?.flush()
            }
        }
    });
    match (refused, written) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(CorpusError::write(path)(error)),
        (None, Ok(())) => Ok(count),
    }
}

fn write_line(out: &mut dyn Write, document: &Document) -> std::io::Result<()> {
    let (text, messages) = match &document.body {
        Body::Text(text) => (Some(text.as_str()), None),
        Body::Conversation(messages) => (None, Some(messages.as_slice())),
    };
    let record = Record {
        id: &document.id,
        group: document.group.as_deref(),
        source: document.source.as_deref(),
        license: document.license.as_deref(),
        text,
        messages,
    };
    serde_json::to_writer(&mut *out, &record)?;
    out.write_all(b"\n")
}
