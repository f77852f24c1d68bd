//! Packing: the same folder gives the same bytes.

use std::io::{self, Read, Write};

use manifests::{FileName, PACK_MANIFEST_FILE, Sha256};
use sha2::Digest;
use zstd::Encoder;

use super::{ArchiveError, ArchiveFault};
use crate::{FolderError, MAX_SIGNATURE_BYTES, PackFolder, pack_folder::open_inside};

/// Weights hardly shrink; a higher level would only take longer.
const LEVEL: i32 = 6;

/// Writes the archive of a pack to `out` and gives its length in bytes. Equal packs give equal archives: no times, no
/// owners, names in order.
///
/// # Errors
/// A file is no longer what the manifest says, has a name that a plain tar can't hold (100 bytes), or `out` refuses. What
/// `out` got until then is no archive.
pub fn pack_archive(folder: &PackFolder, out: &mut dyn Write) -> Result<u64, ArchiveError> {
    let manifest = &folder.manifest_bytes;
    let mut counted = Counted { out, bytes: 0 };
    let write_error = |source| ArchiveError::Write { path: "the archive".into(), source };
    let mut encoder = Encoder::new(&mut counted, LEVEL).map_err(write_error)?;
    encoder.include_checksum(true).map_err(write_error)?;
    let mut tar = tar::Builder::new(encoder);
    append(&mut tar, folder, PACK_MANIFEST_FILE, manifest.len() as u64, &manifest[..])?;

    let mut files: Vec<_> =
        folder.manifest.files().into_iter().map(|record| (record.file.clone(), Some(record))).collect();
    files.extend(folder.manifest.signer.as_ref().map(|signer| (signer.signature.clone(), None)));
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, record) in files {
        match record {
            Some(record) => append_file(&mut tar, folder, &name, record.size, Some(record.sha256))?,
            None => append_file(&mut tar, folder, &name, signature_size(folder, &name)?, None)?,
        }
    }
    let encoder = tar.into_inner().map_err(write_error)?;
    encoder.finish().map_err(write_error)?.flush().map_err(write_error)?;
    Ok(counted.bytes)
}

/// The signature is the one file whose size the manifest does not state: it is made last.
fn signature_size(folder: &PackFolder, name: &FileName) -> Result<u64, ArchiveError> {
    let path = name.in_folder(&folder.path);
    let metadata = open_inside(&folder.path, &path)?.metadata();
    let found = metadata.map_err(|source| FolderError::Read { path: path.clone(), source })?.len();
    if found > MAX_SIGNATURE_BYTES {
        return Err(FolderError::Size { path, expected: MAX_SIGNATURE_BYTES, found }.into());
    }
    Ok(found)
}

fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    folder: &PackFolder,
    name: &FileName,
    size: u64,
    sha256: Option<Sha256>,
) -> Result<(), ArchiveError> {
    let path = name.in_folder(&folder.path);
    let file = open_inside(&folder.path, &path)?;
    // One byte more than there should be, so that a file that has grown is noticed.
    let mut content = Hashed { file: file.take(size + 1), hasher: sha2::Sha256::new(), bytes: 0 };
    append(tar, folder, name.as_str(), size, content.by_ref().take(size))?;
    let over = io::copy(&mut content.file, &mut io::sink());
    let over = over.map_err(|source| FolderError::Read { path: path.clone(), source })?;
    if content.bytes + over != size {
        return Err(FolderError::Size { path, expected: size, found: content.bytes + over }.into());
    }
    let found = Sha256::from_bytes(content.hasher.finalize().into());
    match sha256 {
        Some(expected) if expected != found => Err(FolderError::Hash { path, expected, found }.into()),
        _ => Ok(()),
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    folder: &PackFolder,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<(), ArchiveError> {
    let mut header = tar::Header::new_ustar();
    if header.set_path(name).is_err() || header.path_bytes() != name.as_bytes() {
        let fault = ArchiveFault::Entry {
            name: format!("`{name}`"),
            reason: "a name in an archive has at most 100 bytes; give the file a shorter one",
        };
        return Err(ArchiveError::Unsound { path: folder.path.clone(), fault: Box::new(fault) });
    }
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    tar.append(&header, content)
        .map_err(|source| ArchiveError::Write { path: format!("the archive's {name}").into(), source })
}

/// A file and the hash of what was read of it.
struct Hashed<R> {
    file: R,
    hasher: sha2::Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
