//! Documents from files and folders.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::document::{Body, Document, Format};
use crate::error::CorpusError;
use crate::lines::Lines;
use crate::record;

/// The most bytes that a document may have, where nothing else is said. Fifty MB on one line are well within it.
pub const MAX_DOCUMENT_BYTES: u64 = 256 << 20;

/// The ends of the names of files that are read.
const ENDINGS: [&str; 4] = [".jsonl", ".jsonl.zst", ".jsonl.gz", ".txt"];

/// How documents are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// The records' format; `None`: it is found by their fields, and where these fit several, it is that of the file's
    /// first record.
    pub format: Option<Format>,
    /// The most bytes a line of JSONL or a file of text may have.
    pub max_document_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { format: None, max_document_bytes: MAX_DOCUMENT_BYTES }
    }
}

/// The documents of a file or of all files of a folder (in the order of their paths, files of other kinds left out).
/// A `.txt` file is one document. Errors come at the document that they concern, and end the reading.
///
/// # Errors
/// `path` can't be read, or leads to no file of text.
pub fn read_documents(path: &Path, format: Option<Format>) -> Result<Documents, CorpusError> {
    read_documents_with(path, &ReadOptions { format, ..ReadOptions::default() })
}

/// [`read_documents`] with more to choose.
pub fn read_documents_with(path: &Path, options: &ReadOptions) -> Result<Documents, CorpusError> {
    let mut files = files_of(path)?;
    files.reverse();
    let root = path.to_path_buf();
    Ok(Documents { root, files, options: options.clone(), open: None, has_any: false, is_over: false })
}

/// The files of text at `path`, sorted; never none.
pub(crate) fn files_of(path: &Path) -> Result<Vec<PathBuf>, CorpusError> {
    let facts = std::fs::metadata(path).map_err(CorpusError::read(path))?;
    let mut files = Vec::new();
    if facts.is_dir() {
        collect(path, &mut files)?;
        files.sort();
    } else if is_text_file(path) {
        files.push(path.to_path_buf());
    }
    if files.is_empty() { Err(CorpusError::NoFiles { path: path.to_path_buf() }) } else { Ok(files) }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CorpusError> {
    for entry in std::fs::read_dir(folder).map_err(CorpusError::read(folder))? {
        let entry = entry.map_err(CorpusError::read(folder))?;
        // What is still being written has a dot before its name.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(CorpusError::read(&path))?;
        if kind.is_dir() {
            collect(&path, files)?;
        } else if is_text_file(&path) {
            // A link to a file is followed, one to a folder is not: it may lead in circles.
            if kind.is_file() || std::fs::metadata(&path).map_err(CorpusError::read(&path))?.is_file() {
                files.push(path);
            }
        }
    }
    Ok(())
}

fn is_text_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The documents of [`read_documents`].
pub struct Documents {
    root: PathBuf,
    /// Still to be read, the next one last.
    files: Vec<PathBuf>,
    options: ReadOptions,
    open: Option<OpenFile>,
    has_any: bool,
    is_over: bool,
}

struct OpenFile {
    path: PathBuf,
    lines: Lines,
    /// The format that all records are to have.
    asked: Option<Format>,
    /// The format of the first record: a later one of other fields may still have another.
    first: Option<Format>,
}

impl Documents {
    fn next_document(&mut self) -> Result<Option<Document>, CorpusError> {
        loop {
            if let Some(file) = &mut self.open {
                match next_record(file, &self.root)? {
                    Some(document) => return Ok(Some(document)),
                    None => self.open = None,
                }
            }
            let Some(path) = self.files.pop() else { return Ok(None) };
            let lines = Lines::open(&path, self.options.max_document_bytes)?;
            if path.extension().is_some_and(|ending| ending == "txt") {
                let text = lines.whole_text()?;
                if !text.trim().is_empty() {
                    return Ok(Some(Document::text(name_of(&path, &self.root), text)));
                }
            } else {
                self.open = Some(OpenFile { path, lines, asked: self.options.format, first: None });
            }
        }
    }
}

fn next_record(file: &mut OpenFile, root: &Path) -> Result<Option<Document>, CorpusError> {
    let Some((line, text)) = file.lines.next_line()? else { return Ok(None) };
    let not_json = |why: String| CorpusError::NotJson { path: file.path.clone(), line, why };
    let record = match serde_json::from_str(text) {
        Ok(Value::Object(record)) => record,
        Ok(_) => return Err(not_json("it is another kind of value".into())),
        Err(error) => return Err(not_json(error.to_string())),
    };
    let asked = |file: &OpenFile| file.asked.map_or_else(|| record::detect(&record, file.first), Ok);
    let document = asked(file).and_then(|format| {
        file.first.get_or_insert(format);
        record::document(record, format, || format!("{}:{line}", name_of(&file.path, root)))
    });
    document.map(Some).map_err(|fault| {
        let (path, fault) = (file.path.clone(), Box::new(fault));
        CorpusError::WrongFields { path, line, fault }
    })
}

/// The file's path below what was asked for; its own name if it was asked for itself.
pub(crate) fn name_of(path: &Path, root: &Path) -> String {
    let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
    let name = below.map(Path::as_os_str).or(path.file_name()).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Iterator for Documents {
    type Item = Result<Document, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = match self.next_document() {
            Ok(None) if !self.has_any => Err(CorpusError::Empty { path: self.root.clone() }),
            Ok(None) => {
                self.is_over = true;
                return None;
            }
            Ok(Some(document)) => Ok(document),
            Err(error) => Err(error),
        };
        self.has_any = true;
        self.is_over = next.is_err();
        Some(next)
    }
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documents").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Whether a body says anything.
pub(crate) fn is_blank(body: &Body) -> bool {
    body.pieces().all(|piece| piece.trim().is_empty())
}
