//! Documents to a file, in the form in which they are read again.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::document::{Body, Document, Message};
use crate::error::CorpusError;
use crate::lines::Compression;

/// Text of this kind shrinks to a quarter at this level, at 50 MB/s and more.
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
    let mut writer = DocumentWriter::create(path)?;
    for document in documents {
        writer.push(&document?)?;
    }
    writer.finish()
}

/// A file of documents in the making: it appears under its name when it is finished, and leaves nothing when it is
/// dropped before.
pub struct DocumentWriter {
    path: PathBuf,
    out: Packed,
    count: u64,
}

enum Packed {
    Plain(BufWriter<NamedTempFile>),
    Gzip(flate2::write::GzEncoder<BufWriter<NamedTempFile>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<NamedTempFile>>),
}

impl DocumentWriter {
    /// Begins the file `path`; compressed as its name says. Its folder must exist.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn create(path: &Path) -> Result<Self, CorpusError> {
        let failed = CorpusError::write(path);
        let made = (|| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut builder = tempfile::Builder::new();
            builder.prefix(".unfinished-");
            let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
            let file = BufWriter::with_capacity(1 << 16, file);
            Ok(match Compression::of(path) {
                Compression::None => Packed::Plain(file),
                Compression::Gzip => {
                    Packed::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default()))
                }
                Compression::Zstd => {
                    let mut encoder = zstd::stream::write::Encoder::new(file, ZSTD_LEVEL)?;
                    encoder.include_checksum(true)?;
                    Packed::Zstd(encoder)
                }
            })
        })();
        Ok(Self { path: path.to_path_buf(), out: made.map_err(failed)?, count: 0 })
    }

    /// Appends a document.
    ///
    /// # Errors
    /// The disk.
    pub fn push(&mut self, document: &Document) -> Result<(), CorpusError> {
        let out: &mut dyn Write = match &mut self.out {
            Packed::Plain(out) => out,
            Packed::Gzip(out) => out,
            Packed::Zstd(out) => out,
        };
        write_line(out, document).map_err(CorpusError::write(&self.path))?;
        self.count += 1;
        Ok(())
    }

    /// Documents so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Ends the file, puts it in its place, and gives the number of documents.
    ///
    /// # Errors
    /// The disk; then nothing is left of it, and an older file of that name is as it was.
    pub fn finish(self) -> Result<u64, CorpusError> {
        let Self { path, out, count } = self;
        let finished = (|| {
            let out = match out {
                Packed::Plain(out) => out,
                Packed::Gzip(out) => out.finish()?,
                Packed::Zstd(out) => out.finish()?,
            };
            let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            let readable = permissions(file.as_file())?;
            file.as_file().set_permissions(readable)?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(count)
        })();
        finished.map_err(CorpusError::write(&path))
    }
}

/// Temporary files are their owner's alone; data is for everybody to read.
fn permissions(file: &File) -> std::io::Result<std::fs::Permissions> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = file.metadata()?.permissions();
    permissions.set_mode(0o644);
    Ok(permissions)
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
