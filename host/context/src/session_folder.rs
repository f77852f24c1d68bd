//! A session's folder: what is in it, and who has it.
//!
//! | name | what |
//! | --- | --- |
//! | `lock` | locked (flock) by the process that has the session, with its number in it |
//! | `turn.mbturn` | the session after its last turn |
//! | `prefix.mbturn` | the session after a turn that others may begin with |
//! | `cold.mbkv` | the blocks of this session |
//! | `shared-N.mbkv` | blocks of another session that this one began with: a second name of that one's file |
//! | `.new-*` | unfinished files; of nobody when the session isn't locked |

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::ContextError;
use crate::file_lock::FileLock;

/// What the name of an unfinished file starts with.
pub(crate) const UNFINISHED: &str = ".new-";

/// The session after its last turn.
pub(crate) const TURN: &str = "turn.mbturn";
/// The session after a turn that others may begin with.
pub(crate) const PREFIX: &str = "prefix.mbturn";

/// What the name of a session's folder starts with when the session is removed.
pub(crate) const REMOVED: &str = ".removed-";

const LOCK: &str = "lock";
const EXTENSION: &str = "mbkv";

/// The folder of a session that this process has.
#[derive(Debug)]
pub(crate) struct SessionFolder {
    path: PathBuf,
    _lock: FileLock,
}

/// Bytes on disk of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// What the file is, whatever its name: device and inode.
    pub(crate) file: (u64, u64),
    pub(crate) bytes: u64,
    /// The file has other names.
    pub(crate) shared: bool,
}

impl SessionFolder {
    /// Makes the folder where there is none, locks it, and removes what an ended process left unfinished.
    pub(crate) fn lock(path: PathBuf) -> Result<Self, ContextError> {
        make_private(&path)?;
        let lock_path = path.join(LOCK);
        let Some(lock) = FileLock::try_now(&lock_path).map_err(ContextError::write(&lock_path))? else {
            return Err(ContextError::InUse {
                session: name(&path).into(),
                process: noted_owner(&path).into(),
            });
        };
        let process = format!("{}\n", std::process::id());
        let noted = lock.file().set_len(0).and_then(|()| lock.file().write_all_at(process.as_bytes(), 0));
        // Only for messages, and a full disk must not keep anybody from reading.
        noted.ok();
        let folder = Self { path, _lock: lock };
        for left in files(&folder.path)?.filter(|path| name(path).starts_with(UNFINISHED)) {
            fs::remove_file(&left).map_err(ContextError::write(&left))?;
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The session's name.
    pub(crate) fn name(&self) -> String {
        name(&self.path).into_owned()
    }

    pub(crate) fn turn(&self) -> PathBuf {
        self.path.join(TURN)
    }

    pub(crate) fn prefix(&self) -> PathBuf {
        self.path.join(PREFIX)
    }

    pub(crate) fn own_blocks(&self) -> PathBuf {
        self.path.join("cold").with_extension(EXTENSION)
    }

    /// A name for another session's blocks that nothing has.
    pub(crate) fn new_shared_blocks(&self) -> PathBuf {
        let names = (0..).map(|number| self.path.join(format!("shared-{number}.{EXTENSION}")));
        names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| self.own_blocks())
    }

    /// All files of blocks, those of others first.
    pub(crate) fn block_files(&self) -> Result<Vec<PathBuf>, ContextError> {
        block_files(&self.path)
    }
}

/// Makes a folder that only its user may look into, where there is none: it holds what people say.
pub(crate) fn make_private(path: &Path) -> Result<(), ContextError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(ContextError::write(path))
}

/// The files of blocks in a session's folder, those of others first.
pub(crate) fn block_files(folder: &Path) -> Result<Vec<PathBuf>, ContextError> {
    let is_blocks = |path: &PathBuf| path.extension().is_some_and(|found| found == EXTENSION);
    let mut files: Vec<PathBuf> = files(folder)?.filter(is_blocks).collect();
    files.sort_by_key(|path| (!name(path).starts_with("shared"), path.clone()));
    Ok(files)
}

fn files(folder: &Path) -> Result<impl Iterator<Item = PathBuf>, ContextError> {
    let entries = fs::read_dir(folder).map_err(ContextError::read(folder))?;
    Ok(entries.filter_map(Result::ok).map(|entry| entry.path()))
}

/// The folders of all sessions, in the order of their names; none where `root` isn't there.
pub(crate) fn session_folders(root: &Path) -> Result<Vec<PathBuf>, ContextError> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let mut folders: Vec<PathBuf> =
        files(root)?.filter(|path| path.is_dir() && !name(path).starts_with('.')).collect();
    folders.sort();
    Ok(folders)
}

/// The files of a folder, as the disk counts them.
pub(crate) fn usage(folder: &Path) -> Result<Vec<Usage>, ContextError> {
    // What is gone meanwhile takes nothing.
    let found = files(folder)?.filter_map(|path| fs::metadata(path).ok()).filter(fs::Metadata::is_file);
    let usage = |found: fs::Metadata| Usage {
        file: (found.dev(), found.ino()),
        bytes: found.blocks() * 512,
        shared: found.nlink() > 1,
    };
    Ok(found.map(usage).collect())
}

/// The process that has the session in this folder.
pub(crate) fn lock_owner(folder: &Path) -> Result<Option<String>, ContextError> {
    let path = folder.join(LOCK);
    let free = !path.exists() || FileLock::try_now(&path).map_err(ContextError::read(&path))?.is_some();
    Ok((!free).then(|| noted_owner(folder)))
}

/// As it noted itself.
fn noted_owner(folder: &Path) -> String {
    let noted = fs::read_to_string(folder.join(LOCK)).unwrap_or_default();
    noted.trim().into()
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}
