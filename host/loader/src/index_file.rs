//! The file behind the pack index: JSON lines, appended, compacted when it is opened.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use manifests::Sha256;
use serde::{Deserialize, Serialize};

use crate::{
    Generation,
    pack_index::{ContextKey, Known, ProbeKey, ProbeOutcome},
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
    pub(crate) probe: Option<(ProbeKey, ProbeOutcome)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forget: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forget_path: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forget_probe: Option<ProbeKey>,
}

impl Line {
    fn empty(context: ContextKey) -> Self {
        Self { context, pack: None, probe: None, forget: None, forget_path: None, forget_probe: None }
    }

    pub(crate) fn pack(context: ContextKey, path: PathBuf, stamp: Sha256, known: Known) -> Self {
        Self { pack: Some((path, stamp, known)), ..Self::empty(context) }
    }

    pub(crate) fn probe(context: ContextKey, key: ProbeKey, outcome: ProbeOutcome) -> Self {
        Self { probe: Some((key, outcome)), ..Self::empty(context) }
    }

    pub(crate) fn forget_generation(context: ContextKey, generation: Generation) -> Self {
        Self { forget: Some(generation), ..Self::empty(context) }
    }

    pub(crate) fn forget_probe(context: ContextKey, key: ProbeKey) -> Self {
        Self { forget_probe: Some(key), ..Self::empty(context) }
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
    /// Gives every line that can be read to `each`, and compacts the file when more than half of it is superseded. Of a
    /// file of ten thousand packs no more than a line is in memory at once.
    pub(crate) fn open(path: &Path, mut each: impl FnMut(Line)) -> Self {
        let mut index = Self { path: path.to_owned(), file: None, warned: false };
        let mut count = LiveCount::default();
        let mut read = |file: File| -> io::Result<()> {
            let mut reader = BufReader::new(file);
            let mut text = Vec::new();
            while reader.read_until(b'\n', &mut text)? > 0 {
                let line = serde_json::from_slice::<Line>(&text).ok();
                count.add(line.as_ref());
                line.into_iter().for_each(&mut each);
                text.clear();
            }
            Ok(())
        };
        match File::open(path).and_then(&mut read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return index,
            Err(error) => {
                index.warn("read", &error);
                return index;
            }
            Ok(()) => {}
        }
        if count.total >= MIN_LINES_TO_COMPACT
            && count.live.len() * 2 < count.total
            && let Err(error) = index.compact()
        {
            index.warn("compact", &error);
        }
        index
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
        let lines = parse(&bytes);
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

/// The lines that can be read, each with its text.
fn parse(bytes: &[u8]) -> Vec<(Line, &[u8])> {
    let texts = bytes.split(|&byte| byte == b'\n');
    texts.filter_map(|text| Some((serde_json::from_slice(text).ok()?, text))).collect()
}

/// About how many lines still count: what [`live`] tells exactly, without keeping the lines.
#[derive(Default)]
struct LiveCount {
    total: usize,
    live: HashSet<u64>,
}

impl LiveCount {
    fn add(&mut self, line: Option<&Line>) {
        self.total += 1;
        let Some(line) = line else { return };
        let subject = |subject: Subject<'_>| {
            let mut hasher = DefaultHasher::new();
            (line.context, subject).hash(&mut hasher);
            hasher.finish()
        };
        if let Some((path, ..)) = &line.pack {
            self.live.insert(subject(Subject::Pack(path)));
        }
        if let Some((key, _)) = &line.probe {
            self.live.insert(subject(Subject::Probe(*key)));
        }
        if let Some(path) = &line.forget_path {
            self.live.remove(&subject(Subject::Pack(path)));
        }
        if let Some(key) = line.forget_probe {
            self.live.remove(&subject(Subject::Probe(key)));
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Subject<'a> {
    Pack(&'a Path),
    Probe(ProbeKey),
}

/// Positions of the lines that no later one supersedes, in order.
fn live(lines: &[(Line, &[u8])]) -> Vec<usize> {
    let mut last: HashMap<(ContextKey, Subject<'_>), usize> = HashMap::new();
    for (position, (line, _)) in lines.iter().enumerate() {
        let context = line.context;
        if let Some((path, ..)) = &line.pack {
            last.insert((context, Subject::Pack(path)), position);
        }
        if let Some((key, _)) = &line.probe {
            last.insert((context, Subject::Probe(*key)), position);
        }
        if let Some(key) = line.forget_probe {
            last.remove(&(context, Subject::Probe(key)));
        }
        if let Some(path) = &line.forget_path {
            last.remove(&(context, Subject::Pack(path)));
        }
        if let Some(generation) = line.forget {
            let mut disproved = Vec::new();
            last.retain(|(other, _), &mut position| {
                let known = lines[position].0.pack.as_ref().map(|(.., known)| known);
                let forgotten = known.filter(|known| *other == context && known.generation == generation);
                disproved.extend(forgotten.and_then(|known| known.refused_by));
                forgotten.is_none()
            });
            for key in disproved {
                last.remove(&(context, Subject::Probe(key)));
            }
        }
    }
    let mut live: Vec<usize> = last.into_values().collect();
    live.sort_unstable();
    live.dedup();
    live
}
