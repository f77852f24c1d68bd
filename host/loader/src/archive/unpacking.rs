//! Unpacking into the cache, by the archive's own hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use manifests::{FileName, MAX_MANIFEST_BYTES, PACK_MANIFEST_FILE, PackManifest, Sha256};
use rustix::fs::{Mode, OFlags};
use sha2::Digest;
use tar::{Entry, EntryType};

use super::{
    ArchiveError, ArchiveFault,
    frame::{FrameFailure, FrameReader},
};
use crate::{FileCache, MAX_SIGNATURE_BYTES, PackFolder, Stamp, staging, text::clipped};

/// How the names of folders begin that are being unpacked into.
const TEMPORARY: &str = ".tmp-";

/// What an archive was unpacked to.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// Its files.
    pub folder: PathBuf,
    /// The archive, without symbolic links.
    pub(crate) archive: PathBuf,
    /// The archive's own hash.
    pub(crate) hash: Sha256,
    /// What the file system said of the archive before it was read; `None`: it had changed that very moment.
    pub(crate) stamp: Option<Stamp>,
}

/// Unpacks an archive into `unpacked/<SHA-256 of the archive>` of the cache. One that is there and whole
/// costs only the hashing of the two.
///
/// # Errors
/// [`ArchiveError`]; nothing of it is left then.
pub fn unpack(archive: &Path, cache: &FileCache) -> Result<Unpacked, ArchiveError> {
    let read_error = |source| ArchiveError::Read { path: archive.to_owned(), source };
    let canonical = archive.canonicalize().map_err(read_error)?;
    let stamp = Stamp::to_rely_on(&canonical);
    let mut file = open(&canonical)?;
    let (hash, _) = Sha256::of_reader(&file).map_err(read_error)?;
    let folder = unpacked_to(cache, &hash);
    if PackFolder::read(&folder).is_err() {
        file.rewind().map_err(read_error)?;
        unpack_into(&folder, archive, file, &hash)?;
    }
    Ok(Unpacked { folder, archive: canonical, hash, stamp })
}

/// Where the archive with that hash is unpacked to.
pub fn unpacked_to(cache: &FileCache, hash: &Sha256) -> PathBuf {
    unpacked_folder(cache).join(hash.to_string())
}

/// The folder appears when it is whole.
fn unpack_into(folder: &Path, archive: &Path, file: File, hash: &Sha256) -> Result<(), ArchiveError> {
    let write_error = |source| ArchiveError::Write { path: folder.to_owned(), source };
    let unpacked = folder.parent().unwrap_or(folder);
    fs::create_dir_all(unpacked).map_err(write_error)?;
    let staging = staging::StagingFolder::new(unpacked, TEMPORARY).map_err(write_error)?;
    let found = Unpacking { archive, folder: staging.path() }.run(file)?;
    if found != *hash {
        return Err(ArchiveError::Incomplete(archive.to_owned()));
    }
    match staging.appear_as(folder) {
        // Somebody was faster, and may be using it; or a damaged one lies there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match PackFolder::read(folder) {
            Ok(_) => Ok(()),
            Err(_) => staging.replace(folder).map_err(write_error),
        },
        appeared => appeared.map_err(write_error),
    }
}

/// Reads no more of an archive than its manifest.
///
/// # Errors
/// As [`unpack`], as far as that part is concerned.
pub fn archive_manifest(archive: &Path) -> Result<PackManifest, ArchiveError> {
    Unpacking { archive, folder: Path::new("") }.manifest_only(open(archive)?)
}

/// Removes the folders of archives that are not in `keep` (see [`unpack`]), and what crashes have left; says how
/// many. Nothing may be between unpacking and being put into `keep` meanwhile.
///
/// # Errors
/// The cache can't be read or written.
pub fn sweep_unpacked(cache: &FileCache, keep: &BTreeSet<PathBuf>) -> io::Result<usize> {
    let unpacked = unpacked_folder(cache);
    let mut removed = staging::sweep(&unpacked, TEMPORARY)?;
    // By name: the same folder may be known by a path with and without links.
    let kept: BTreeSet<_> = keep.iter().filter_map(|path| path.file_name()).collect();
    for entry in staging::entries(&unpacked)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_unpacked(Path::new(&name)) && !kept.contains(name.as_os_str()) {
            staging::discard(&entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether an archive may have been unpacked to a folder: its name is a hash.
pub fn is_unpacked(folder: &Path) -> bool {
    let name = folder.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.parse::<Sha256>().is_ok())
}

fn unpacked_folder(cache: &FileCache) -> PathBuf {
    cache.folder().join("unpacked")
}

/// Opens the archive; a pipe or device is refused without waiting for it.
fn open(path: &Path) -> Result<File, ArchiveError> {
    let read_error = |source| ArchiveError::Read { path: path.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| read_error(error.into()))?;
    let file = File::from(file);
    if file.metadata().map_err(read_error)?.is_file() {
        Ok(file)
    } else {
        Err(ArchiveError::Unsound { path: path.to_owned(), fault: Box::new(ArchiveFault::NotRegular) })
    }
}

/// What the manifest says of a file: size and hash; of a signature neither.
type Expected = BTreeMap<FileName, Option<(u64, Sha256)>>;

/// One archive on its way into one folder.
struct Unpacking<'a> {
    archive: &'a Path,
    folder: &'a Path,
}

impl Unpacking<'_> {
    /// Writes every file; gives the hash of the archive.
    fn run(&self, file: File) -> Result<Sha256, ArchiveError> {
        let (reader, failures) = FrameReader::new(file).map_err(|failure| self.failed(failure))?;
        let explain = |error: io::Error| self.failed(failures.explain(&error));
        let mut tar = tar::Archive::new(reader);
        // Raw: no extension is obeyed that renames or resizes the entry after it; each is refused for its type.
        let mut entries = tar.entries().map_err(explain)?.raw(true);

        let mut first = entries.next().transpose().map_err(explain)?;
        let (bytes, manifest) = self.manifest(first.as_mut(), &explain)?;
        let mut expected = expected_files(&manifest);
        self.has_room(&manifest)?;
        self.write(PACK_MANIFEST_FILE, &bytes[..]).map_err(|(error, _)| error)?;

        let mut seen = BTreeSet::from([PACK_MANIFEST_FILE.to_owned()]);
        for entry in entries {
            let mut entry = entry.map_err(explain)?;
            let name = self.name(&entry)?;
            let Some(stated) = expected.remove(&name) else {
                let twice = seen.contains(name.as_str());
                let reason = if twice { "it is there twice" } else { "the manifest does not name it" };
                return Err(self.entry_fault(name.as_str(), reason));
            };
            self.file(&name, stated, &mut entry, &explain)?;
            seen.insert(name.to_string());
        }
        if let Some(missing) = expected.keys().next() {
            return Err(self.unsound(ArchiveFault::Missing(missing.to_string())));
        }
        tar.into_inner().finish().map_err(|failure| self.failed(failure))
    }

    fn manifest_only(&self, file: File) -> Result<PackManifest, ArchiveError> {
        let (reader, failures) = FrameReader::new(file).map_err(|failure| self.failed(failure))?;
        let explain = |error: io::Error| self.failed(failures.explain(&error));
        let mut tar = tar::Archive::new(reader);
        let mut entries = tar.entries().map_err(explain)?.raw(true);
        let mut first = entries.next().transpose().map_err(explain)?;
        Ok(self.manifest(first.as_mut(), &explain)?.1)
    }

    fn manifest<R: Read>(
        &self,
        first: Option<&mut Entry<'_, R>>,
        explain: &dyn Fn(io::Error) -> ArchiveError,
    ) -> Result<(Vec<u8>, PackManifest), ArchiveError> {
        let not_first = |found: String| self.unsound(ArchiveFault::ManifestNotFirst(found));
        let entry = first.ok_or_else(|| not_first("nothing".to_owned()))?;
        let name = self.name(entry)?;
        if name.as_str() != PACK_MANIFEST_FILE {
            return Err(not_first(quoted(name.as_str().as_bytes())));
        }
        let size = entry.size();
        if size > MAX_MANIFEST_BYTES {
            return Err(self.size_fault(PACK_MANIFEST_FILE, MAX_MANIFEST_BYTES, size));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(explain)?;
        if bytes.len() as u64 != size {
            return Err(self.size_fault(PACK_MANIFEST_FILE, size, bytes.len() as u64));
        }
        let manifest = PackManifest::parse_bytes(&bytes).map_err(|error| {
            self.unsound(ArchiveFault::Manifest(error.in_file(PACK_MANIFEST_FILE.as_ref())))
        })?;
        Ok((bytes, manifest))
    }

    /// The name of an entry that is a plain file.
    fn name<R: Read>(&self, entry: &Entry<'_, R>) -> Result<FileName, ArchiveError> {
        let name = entry.path_bytes();
        let refuse = |reason| self.unsound(ArchiveFault::Entry { name: quoted(&name), reason });
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Symlink | EntryType::Link => return Err(refuse("it is a link")),
            EntryType::Directory => return Err(refuse("it is a folder; a pack's files lie side by side")),
            EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink => {
                return Err(refuse("extended headers are not allowed; write a plain tar (`--format=ustar`)"));
            }
            _ => return Err(refuse("it is no regular file")),
        }
        let text = std::str::from_utf8(&name).map_err(|_| refuse("its name is not UTF-8"))?;
        text.parse().map_err(|_| refuse("it is not the plain name of a file"))
    }

    /// Writes one entry that the manifest names.
    fn file<R: Read>(
        &self,
        name: &FileName,
        stated: Option<(u64, Sha256)>,
        entry: &mut Entry<'_, R>,
        explain: &dyn Fn(io::Error) -> ArchiveError,
    ) -> Result<(), ArchiveError> {
        let size = entry.size();
        match stated {
            Some((expected, _)) if expected != size => {
                return Err(self.size_fault(name.as_str(), expected, size));
            }
            None if size > MAX_SIGNATURE_BYTES => {
                return Err(self.size_fault(name.as_str(), MAX_SIGNATURE_BYTES, size));
            }
            _ => {}
        }
        let (found, length) = self.write(name.as_str(), &mut *entry).map_err(|(error, read)| match read {
            Some(read) => explain(read),
            None => error,
        })?;
        if length != size {
            return Err(self.size_fault(name.as_str(), size, length));
        }
        match stated {
            Some((_, expected)) if expected != found => {
                Err(self.unsound(ArchiveFault::Hash { name: name.to_string(), expected, found }))
            }
            _ => Ok(()),
        }
    }

    /// Writes a file; gives its hash and length. An error of `content` comes beside the other one.
    fn write(
        &self,
        name: &str,
        mut content: impl Read,
    ) -> Result<(Sha256, u64), (ArchiveError, Option<io::Error>)> {
        let path = self.folder.join(name);
        let write_error = |source| (ArchiveError::Write { path: path.clone(), source }, None);
        let mut file = File::create_new(&path).map_err(write_error)?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 1 << 17];
        let mut length = 0;
        loop {
            let read = match content.read(&mut buffer) {
                Ok(0) => return Ok((Sha256::from_bytes(hasher.finalize().into()), length)),
                Ok(read) => read,
                Err(error) => return Err((ArchiveError::Incomplete(self.archive.to_owned()), Some(error))),
            };
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(write_error)?;
            length += read as u64;
        }
    }

    /// Refuses what the disk can't hold before the first byte is written.
    fn has_room(&self, manifest: &PackManifest) -> Result<(), ArchiveError> {
        let needed =
            manifest.files().iter().fold(MAX_MANIFEST_BYTES, |sum, file| sum.saturating_add(file.size));
        let disk = rustix::fs::statvfs(self.folder)
            .map_err(|error| ArchiveError::Write { path: self.folder.to_owned(), source: error.into() })?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed > free {
            let (path, folder) = (self.archive.to_owned(), self.folder.to_owned());
            return Err(ArchiveError::NoSpace { path, folder, needed, free });
        }
        Ok(())
    }

    fn failed(&self, failure: FrameFailure) -> ArchiveError {
        match failure {
            FrameFailure::Read(source) => ArchiveError::Read { path: self.archive.to_owned(), source },
            FrameFailure::Incomplete => ArchiveError::Incomplete(self.archive.to_owned()),
            FrameFailure::Fault(fault) => self.unsound(fault),
        }
    }

    fn unsound(&self, fault: ArchiveFault) -> ArchiveError {
        ArchiveError::Unsound { path: self.archive.to_owned(), fault: Box::new(fault) }
    }

    fn entry_fault(&self, name: &str, reason: &'static str) -> ArchiveError {
        self.unsound(ArchiveFault::Entry { name: quoted(name.as_bytes()), reason })
    }

    fn size_fault(&self, name: &str, expected: u64, found: u64) -> ArchiveError {
        self.unsound(ArchiveFault::Size { name: name.to_owned(), expected, found })
    }
}

fn expected_files(manifest: &PackManifest) -> Expected {
    let files = manifest.files().into_iter().map(|record| (record.file, Some((record.size, record.sha256))));
    let signature = manifest.signer.as_ref().map(|signer| (signer.signature.clone(), None));
    files.chain(signature).collect()
}

/// A name from outside, for a message.
fn quoted(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    format!("`{}`", clipped(&text, 120).escape_debug())
}
