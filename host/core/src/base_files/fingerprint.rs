//! A base's identity: a SHA-256 over its config, tokenizer and weights.
//!
//! - A GGUF file holds all three, so its fingerprint is the SHA-256 of the file, as `sha256sum` prints it.
//! - A folder's fingerprint is the SHA-256 of the text that `sha256sum FILE..` prints for its parts: one line
//!   `<64 hex digits>  <file name>\n` for each part, in byte order of the names. The parts are those of
//!   `config.json`, `generation_config.json`, `tokenizer.json`, `tokenizer_config.json`,
//!   `chat_template.jinja`, `model.safetensors.index.json` that exist, and the safetensors files that are
//!   read.
//!
//! It depends on neither path nor time. The written form is `sha256:` and 64 hex digits.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::BaseFileError;

const READ_BYTES: usize = 1 << 20;

/// The fingerprint of a base made of `parts`; `single` for a GGUF file.
pub(crate) fn fingerprint(parts: &[PathBuf], single: bool) -> Result<String, BaseFileError> {
    let mut lines = Vec::new();
    for part in parts {
        let digest = sha256_of_file(part)?;
        if single {
            return Ok(format!("sha256:{digest}"));
        }
        let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lines.push((name, digest));
    }
    lines.sort();
    let mut hash = Sha256::new();
    for (name, digest) in lines {
        hash.update(format!("{digest}  {name}\n"));
    }
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}

/// Like [`fingerprint`], but remembers the answer in `cache_dir` under a key of each part's path, size,
/// modification time and inode. A cache that can't be read or written costs time, never the answer.
pub(crate) fn cached_fingerprint(
    parts: &[PathBuf],
    single: bool,
    cache_dir: &Path,
) -> Result<String, BaseFileError> {
    let entry = cache_dir.join("fingerprints").join(cache_key(parts, single)?);
    if let Ok(text) = std::fs::read_to_string(&entry)
        && is_fingerprint(text.trim_end())
    {
        return Ok(text.trim_end().to_owned());
    }
    let answer = fingerprint(parts, single)?;
    if let Err(error) = write_entry(&entry, &answer) {
        tracing::debug!(entry = %entry.display(), %error, "the fingerprint is not remembered");
    }
    Ok(answer)
}

fn cache_key(parts: &[PathBuf], single: bool) -> Result<String, BaseFileError> {
    let mut hash = Sha256::new();
    hash.update(if single { "file 1\n" } else { "folder 1\n" });
    for part in parts {
        let path = part.canonicalize().map_err(|source| BaseFileError::io(part, "find", source))?;
        let facts = path.metadata().map_err(|source| BaseFileError::io(part, "look at", source))?;
        let path = path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        for number in [facts.len(), facts.mtime() as u64, facts.mtime_nsec() as u64, facts.ino(), facts.dev()]
        {
            hash.update(number.to_le_bytes());
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Written beside and renamed, so that a reader sees all of it or nothing.
fn write_entry(entry: &Path, answer: &str) -> std::io::Result<()> {
    let Some(folder) = entry.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    let beside = entry.with_extension(format!("{}.part", std::process::id()));
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(answer.as_bytes()))
        .and_then(|()| std::fs::rename(&beside, entry));
    if written.is_err() {
        // Best effort: the entry that failed must not be left half-written.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn is_fingerprint(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn sha256_of_file(path: &Path) -> Result<String, BaseFileError> {
    let mut file = File::open(path).map_err(|source| BaseFileError::io(path, "open", source))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(|source| BaseFileError::io(path, "read", source))?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
