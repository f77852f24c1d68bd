//! Documents from a JSONL file: one object a line with `text`, packed or not.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::prompt::utf8;

/// Most bytes of one line: a file that is no JSONL is refused instead of filling the memory.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// The objects of a JSONL file, in its order. Empty lines are skipped; any other line that is no such object is an error
/// that names the line.
pub(crate) struct JsonLines<T> {
    path: PathBuf,
    lines: Box<dyn BufRead>,
    line: usize,
    object: PhantomData<T>,
}

/// An object with a string `text`.
#[derive(serde::Deserialize)]
pub(crate) struct Document {
    text: String,
}

/// The texts of a file's documents.
pub(crate) struct Documents(JsonLines<Document>);

impl Documents {
    /// Opens a file; `.zst` and `.gz` are unpacked on the way.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        JsonLines::open(path).map(Self)
    }
}

impl Iterator for Documents {
    type Item = anyhow::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(|document| document.text))
    }
}

impl<T> JsonLines<T> {
    /// Opens a file; `.zst` and `.gz` are unpacked on the way.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let refuse = |error: std::io::Error| {
            anyhow::Error::new(error).context(Failure::usage(format!("can't read {}", path.display())))
        };
        let file = File::open(path).map_err(refuse)?;
        let lines: Box<dyn BufRead> = match path.extension().and_then(|ending| ending.to_str()) {
            Some("zst") => Box::new(BufReader::new(zstd::Decoder::new(file).map_err(refuse)?)),
            Some("gz") => Box::new(BufReader::new(MultiGzDecoder::new(file))),
            _ => Box::new(BufReader::new(file)),
        };
        Ok(Self { path: path.to_path_buf(), lines, line: 0, object: PhantomData })
    }

    /// The next line; `None` at the end.
    fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        self.line += 1;
        let place = format!("{}:{}", self.path.display(), self.line);
        let mut bytes = Vec::new();
        let read = self.lines.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes);
        let read = read.map_err(|error| {
            anyhow::Error::new(error).context(Failure::usage(format!("{place}: can't read on")))
        })?;
        if read as u64 > MAX_LINE_BYTES {
            return Err(
                Failure::usage(format!("{place}: the line is longer than {MAX_LINE_BYTES} bytes")).into()
            );
        }
        if read == 0 { Ok(None) } else { utf8(bytes, &place).map(Some) }
    }
}

impl<T: DeserializeOwned> Iterator for JsonLines<T> {
    type Item = anyhow::Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.next_line() {
                Ok(line) => line?,
                Err(error) => return Some(Err(error)),
            };
            if line.trim().is_empty() {
                continue;
            }
            return Some(match serde_json::from_str::<T>(&line) {
                Ok(object) => Ok(object),
                Err(error) => {
                    let message = format!("{}:{}: {error}", self.path.display(), self.line);
                    Err(Failure::usage(message)
                        .help("each line is one JSON object with a string `text`")
                        .into())
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LINES: &str = "{\"text\": \"one\", \"more\": 1}\n\n{\"text\": \"two\"}\n";

    fn texts(path: &Path) -> Vec<String> {
        Documents::open(path).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn packed_and_plain_files_give_the_same_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a.jsonl"), LINES).unwrap();
        std::fs::write(path("a.jsonl.zst"), zstd::encode_all(LINES.as_bytes(), 1).unwrap()).unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(LINES.as_bytes()).unwrap();
        std::fs::write(path("a.jsonl.gz"), packed.finish().unwrap()).unwrap();
        for name in ["a.jsonl", "a.jsonl.zst", "a.jsonl.gz"] {
            assert_eq!(texts(&path(name)), ["one", "two"], "{name}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        for (line, why) in [
            ("{\"x\": 1}", "missing field `text`"),
            ("no", "expected ident"),
            ("{\"text\": 1}", "invalid type"),
        ] {
            std::fs::write(&path, format!("{{\"text\": \"one\"}}\n{line}\n")).unwrap();
            let error = Documents::open(&path).unwrap().nth(1).unwrap().unwrap_err().to_string();
            assert!(error.contains("a.jsonl:2: ") && error.contains(why), "{error}");
        }
        std::fs::write(&path, b"{\"text\": \"\xff\"}\n").unwrap();
        let error = Documents::open(&path).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with("a.jsonl:1 is not UTF-8: invalid byte at offset 10"), "{error}");
    }
}
