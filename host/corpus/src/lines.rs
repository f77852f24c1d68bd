//! Lines of a file, compressed or not, each whole, of bounded length, and UTF-8.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::CorpusError;

/// How a file is compressed, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The lines of one file.
pub(crate) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    compression: Compression,
    /// Lines read so far.
    line: u64,
    limit: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// `limit`: the most bytes that a line may have.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self, CorpusError> {
        Self::named(path, &path.to_string_lossy(), limit)
    }

    /// The same for a file that is kept under another name than `name`, which says how it is compressed.
    pub(crate) fn named(path: &Path, name: &str, limit: u64) -> Result<Self, CorpusError> {
        let file = File::open(path).map_err(CorpusError::read(path))?;
        let compression = Compression::of(Path::new(name));
        let reader: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(BufReader::with_capacity(1 << 16, file)),
            Compression::Gzip => {
                let decoder = flate2::read::MultiGzDecoder::new(BufReader::new(file));
                Box::new(BufReader::with_capacity(1 << 16, decoder))
            }
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(file).map_err(CorpusError::read(path))?;
                Box::new(BufReader::with_capacity(1 << 16, decoder))
            }
        };
        Ok(Self { path: path.to_path_buf(), reader, compression, line: 0, limit, buffer: Vec::new() })
    }

    /// The next line that is not blank, with its number from 1, without its end.
    pub(crate) fn next_line(&mut self) -> Result<Option<(u64, &str)>, CorpusError> {
        loop {
            self.buffer.clear();
            // One more than the limit for the line's end, and one more to see that the line goes on.
            let mut bounded = (&mut self.reader).take(self.limit.saturating_add(2));
            let read = bounded.read_until(b'\n', &mut self.buffer).map_err(|error| self.unreadable(error))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if self.buffer.last() == Some(&b'\n') {
                self.buffer.pop();
            }
            if self.buffer.len() as u64 > self.limit {
                let (path, line, limit) = (self.path.clone(), self.line, self.limit);
                return Err(CorpusError::TooLong { path, line, limit });
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        let line = self.line;
        let bytes = without_mark(&self.buffer, line == 1);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some((line, text.strip_suffix('\r').unwrap_or(text)))),
            Err(error) => {
                let (path, byte) = (self.path.clone(), error.valid_up_to() + 1);
                Err(CorpusError::NotUtf8 { path, line, byte })
            }
        }
    }

    /// Everything that is left, as one text.
    pub(crate) fn whole_text(mut self) -> Result<String, CorpusError> {
        let mut bytes = Vec::new();
        let mut bounded = (&mut self.reader).take(self.limit.saturating_add(1));
        bounded.read_to_end(&mut bytes).map_err(|error| self.unreadable(error))?;
        if bytes.len() as u64 > self.limit {
            return Err(CorpusError::TooLong { path: self.path, line: 1, limit: self.limit });
        }
        if without_mark(&bytes, true).len() < bytes.len() {
            bytes.drain(..MARK.len());
        }
        String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            let byte = valid.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            CorpusError::NotUtf8 { path: self.path.clone(), line, byte }
        })
    }

    fn unreadable(&self, error: std::io::Error) -> CorpusError {
        let path = self.path.clone();
        match self.compression {
            // What the operating system has to say carries its number; the rest comes from the decompressor.
            _ if error.raw_os_error().is_some() => CorpusError::Read { path, source: error },
            Compression::None => CorpusError::Read { path, source: error },
            _ => CorpusError::Damaged { path, line: self.line, why: error.to_string() },
        }
    }
}

/// The byte-order mark that some editors put first.
const MARK: &[u8] = b"\xef\xbb\xbf";

fn without_mark(bytes: &[u8], is_first: bool) -> &[u8] {
    if is_first { bytes.strip_prefix(MARK).unwrap_or(bytes) } else { bytes }
}
