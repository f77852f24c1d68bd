//! Whether a pack's folder holds all that its manifest names, or waits for more.

use std::{fs, io, path::Path};

use crate::pack_folder::{FolderError, PackFolder, StatedPack};

/// What a look into a pack's folder gave.
#[derive(Debug)]
pub enum Examined {
    /// Every file is there and is what the manifest says.
    Complete(Box<PackFolder>),
    /// Bytes are still missing.
    Incomplete {
        /// What is waited for, for people.
        reason: String,
    },
    /// All bytes are there, and they are not what they should be; or the manifest is none. A file that is being written
    /// in place looks so too: whether that is the end is told by how long nothing has changed.
    Unsound(FolderError),
}

/// Looks into the folder at `path`: sizes first, which needs no reading, then hashes.
pub fn examine(path: &Path) -> Examined {
    let stated = match StatedPack::read(path) {
        Ok(stated) => stated,
        Err(FolderError::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
            return Examined::Incomplete { reason: format!("waiting for {}", file_name(&path)) };
        }
        Err(error) => return Examined::Unsound(error),
    };
    if let Some(reason) = missing_bytes(&stated) {
        return Examined::Incomplete { reason };
    }
    match stated.verify() {
        Ok(folder) => Examined::Complete(Box::new(folder)),
        // Shortened or taken away since the sizes were looked at.
        Err(FolderError::Size { path, expected, found }) if found < expected => {
            Examined::Incomplete { reason: waiting_for(&file_name(&path), found, expected) }
        }
        Err(FolderError::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
            Examined::Incomplete { reason: format!("waiting for {}", file_name(&path)) }
        }
        Err(error) => Examined::Unsound(error),
    }
}

/// The first file that is missing or shorter than stated.
fn missing_bytes(stated: &StatedPack) -> Option<String> {
    let signature = stated.manifest.signer.as_ref().map(|signer| (signer.signature.clone(), 1));
    let files = stated.manifest.files().into_iter().map(|record| (record.file, record.size));
    files.chain(signature).find_map(|(file, expected)| match fs::metadata(file.in_folder(&stated.path)) {
        Ok(metadata) if metadata.is_file() && metadata.len() < expected => {
            Some(waiting_for(file.as_str(), metadata.len(), expected))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!("waiting for {file}")),
        _ => None,
    })
}

fn waiting_for(file: &str, found: u64, expected: u64) -> String {
    format!("waiting for {file}: {found} of {expected} bytes")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
