//! The file behind the pack index: JSON lines, appended, compacted when it is opened.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use manifests::Sha256;
use serde::{Deserialize, Serialize};

use crate::{
    Generation,
    pack_index::{ContextKey, Known, ProbeOutcome},
};

/// Files below this many lines are not worth compacting.
const MIN_LINES_TO_COMPACT: usize = 64;
/// Most lines that a compaction keeps, the newest ones: packs that are long gone leave the index in the end.
const MAX_LINES: usize = 200_000;

/// One line: what one host configuration found out, or wants forgotten. Other fields are a later version's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) context: ContextKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pack: Option<(PathBuf, Sha256, Known)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probe: Option<(Generation, ProbeOutcome)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forget: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forget_path: Option<PathBuf>,
}

impl Line {
    fn empty(context: ContextKey) -> Self {
        Self { context, pack: None, probe: None, forget: None, forget_path: None }
    }

    pub(crate) fn pack(context: ContextKey, path: PathBuf, stamp: Sha256, known: Known) -> Self {
        Self { pack: Some((path, stamp, known)), ..Self::empty(context) }
    }

    pub(crate) fn probe(context: ContextKey, generation: Generation, outcome: ProbeOutcome) -> Self {
        Self { probe: Some((generation, outcome)), ..Self::empty(context) }
    }

    pub(crate) fn forget_generation(context: ContextKey, generation: Generation) -> Self {
        Self { forget: Some(generation), ..Self::empty(context) }
    }

    pub(crate) fn forget_path(context: ContextKey, path: PathBuf) -> Self {
        Self { forget_path: Some(path), ..Self::empty(context) }
    }
}

/// The file, opened at the first append.
#[derive(Debug)]
pub(crate) struct IndexFile {
    path: PathBuf,
    file: Option<File>,
    /// Trouble with the file is told once.
    warned: bool,
}

impl IndexFile {
    /// Reads every line that can be read, and compacts the file when more than half of it is superseded.
    pub(crate) fn open(path: &Path) -> (Self, Vec<Line>) {
        let mut index = Self { path: path.to_owned(), file: None, warned: false };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (index, Vec::new()),
            Err(error) => {
                index.warn("read", &error);
                return (index, Vec::new());
            }
        };
        let (lines, total) = parse(&bytes);
        let live = live(&lines);
        if total >= MIN_LINES_TO_COMPACT
            && live.len() * 2 < total
            && let Err(error) = index.compact()
        {
            index.warn("compact", &error);
        }
        (index, lines.into_iter().map(|(line, _)| line).collect())
    }

    /// Appends a line in one write.
    pub(crate) fn append(&mut self, line: &Line) {
        // Fails for a path that is not UTF-8: such a pack is found out anew at each start.
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        if let Err(error) = self.try_append(text) {
            self.file = None;
            self.warn("write", &error);
        }
    }

    fn try_append(&mut self, mut text: Vec<u8>) -> io::Result<()> {
        let file = self.locked()?;
        let end = file.metadata()?.len();
        let mut last = [b'\n'];
        if end > 0 {
            file.read_exact_at(&mut last, end - 1)?;
        }
        // A line that its writer did not finish ends here, lest this one be lost with it.
        if last != [b'\n'] {
            text.insert(0, b'\n');
        }
        let written = (&*file).write_all(&text);
        file.unlock()?;
        written
    }

    /// The file that has the path now, locked against a compaction by another process.
    fn locked(&mut self) -> io::Result<&File> {
        loop {
            let file = match self.file.take() {
                Some(file) => file,
                None => open_or_create(&self.path)?,
            };
            file.lock_shared()?;
            let ours = file.metadata()?;
            match fs::metadata(&self.path) {
                Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(self.file.insert(file));
                }
                // Compacted or deleted by another process: what is appended to the old file would be lost.
                _ => drop(file),
            }
        }
    }

    /// Writes the lines that still count to a new file and renames it, while nobody appends.
    fn compact(&mut self) -> io::Result<()> {
        let old = File::options().read(true).open(&self.path)?;
        if old.try_lock().is_err() {
            return Ok(()); // another process is at it
        }
        let mut bytes = Vec::new();
        (&old).read_to_end(&mut bytes)?;
        let (lines, _) = parse(&bytes);
        let mut kept = live(&lines);
        kept.drain(..kept.len().saturating_sub(MAX_LINES));
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut new = tempfile::Builder::new().prefix(".index-").tempfile_in(folder)?;
        let mut text = Vec::with_capacity(bytes.len());
        for line in kept {
            text.extend_from_slice(lines[line].1);
            text.push(b'\n');
        }
        new.write_all(&text)?;
        new.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }

    fn warn(&mut self, what: &str, error: &io::Error) {
        if !self.warned {
            tracing::warn!(path = %self.path.display(), %error, "can't {what} the index of known packs");
        }
        self.warned = true;
    }
}

fn open_or_create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::options().read(true).append(true).create(true).open(path)
}

/// The lines that can be read, each with its text, and how many there are in all.
fn parse(bytes: &[u8]) -> (Vec<(Line, &[u8])>, usize) {
    let texts = bytes.split(|&byte| byte == b'\n').filter(|text| !text.is_empty());
    let mut total = 0;
    let lines =
        texts.inspect(|_| total += 1).filter_map(|text| Some((serde_json::from_slice(text).ok()?, text)));
    (lines.collect(), total)
}

#[derive(PartialEq, Eq, Hash)]
enum Subject<'a> {
    Pack(&'a Path),
    Probe(Generation),
}

/// Positions of the lines that no later one supersedes, in order.
fn live(lines: &[(Line, &[u8])]) -> Vec<usize> {
    let mut last: HashMap<(ContextKey, Subject<'_>), usize> = HashMap::new();
    for (position, (line, _)) in lines.iter().enumerate() {
        let context = line.context;
        if let Some((path, ..)) = &line.pack {
            last.insert((context, Subject::Pack(path)), position);
        }
        if let Some((generation, _)) = &line.probe {
            last.insert((context, Subject::Probe(*generation)), position);
        }
        if let Some(path) = &line.forget_path {
            last.remove(&(context, Subject::Pack(path)));
        }
        if let Some(generation) = line.forget {
            last.retain(|(other, _), &mut position| {
                let line = &lines[position].0;
                let of_pack = line.pack.as_ref().is_some_and(|(.., known)| known.generation == generation);
                let of_probe = line.probe.as_ref().is_some_and(|(probed, _)| *probed == generation);
                *other != context || !(of_pack || of_probe)
            });
        }
    }
    let mut live: Vec<usize> = last.into_values().collect();
    live.sort_unstable();
    live.dedup();
    live
}
