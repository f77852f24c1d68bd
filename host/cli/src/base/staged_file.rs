//! A file that appears in its folder whole and checked, or not at all.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use indicatif::ProgressBar;
use manifests::{BaseFile, Sha256};
use sha2::Digest;

use crate::failure::Failure;
use crate::interrupt;
use crate::terminal::bytes_text;

/// What the name of an unfinished file in the folder of bases starts with.
pub(crate) const UNFINISHED: &str = ".fetch-";

/// Writes what `source` gives to `folder`/`expected.name`: beside it first, with size and SHA-256 checked on the way,
/// then renamed. Nothing is left behind on failure or Ctrl-C.
pub(crate) fn install(
    source: &mut dyn Read,
    expected: &BaseFile,
    folder: &Path,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut beside = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempfile_in(folder)
        .map_err(|e| disk_error(e, expected, folder))?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut written = 0_u64;
    loop {
        interrupt::check()?;
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(|| format!("can't read `{}`", expected.name)),
        };
        written += count as u64;
        if written > expected.size {
            anyhow::bail!("`{}` is larger than the {} bytes of its manifest", expected.name, expected.size);
        }
        hasher.update(&buffer[..count]);
        beside.write_all(&buffer[..count]).map_err(|error| disk_error(error, expected, folder))?;
        bar.inc(count as u64);
    }
    if written != expected.size {
        anyhow::bail!("`{}` has {written} bytes, its manifest says {}", expected.name, expected.size);
    }
    let found = Sha256::from_bytes(hasher.finalize().into());
    if found != expected.sha256 {
        anyhow::bail!("`{}` has SHA-256 {found}, its manifest says {}", expected.name, expected.sha256);
    }
    let file = beside.as_file();
    file.set_permissions(Permissions::from_mode(0o644))
        .map_err(|error| disk_error(error, expected, folder))?;
    file.sync_all().map_err(|error| disk_error(error, expected, folder))?;
    beside
        .persist(expected.name.in_folder(folder))
        .map_err(|error| disk_error(error.error, expected, folder))?;
    // The rename itself outlives a crash only once the folder is written too.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| disk_error(error, expected, folder))?;
    Ok(())
}

/// What the operating system said of a write, with advice where the disk is full or closed.
pub(crate) fn disk_error(error: std::io::Error, expected: &BaseFile, folder: &Path) -> anyhow::Error {
    let help = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => format!(
            "the file needs {} and its download as much again for a while: free some space, or set MODULARBASE_CACHE to a folder on another disk",
            bytes_text(expected.size)
        ),
        _ => "may this user write there? MODULARBASE_CACHE chooses another folder".to_owned(),
    };
    let failure = Failure::new(crate::failure::Exit::Failed, format!("can't write to {}", folder.display()));
    anyhow::Error::new(error).context(failure.help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(content: &[u8]) -> BaseFile {
        let (name, size) = ("model.gguf".parse().unwrap(), content.len() as u64);
        BaseFile { name, sha256: Sha256::of_bytes(content), size }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_sound_file_appears_under_its_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        install(&mut &b"model"[..], &expected(b"model"), folder.path(), &ProgressBar::hidden()).unwrap();
        assert_eq!(names(folder.path()), ["model.gguf"]);
    }

    #[test]
    fn what_is_short_long_or_changed_leaves_nothing_and_the_old_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.gguf"), "old").unwrap();
        for (given, why) in [("mode", "has 4 bytes"), ("models", "is larger than"), ("modle", "has SHA-256")]
        {
            let bar = ProgressBar::hidden();
            let error = install(&mut given.as_bytes(), &expected(b"model"), folder.path(), &bar).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!(names(folder.path()), ["model.gguf"]);
        assert_eq!(std::fs::read(folder.path().join("model.gguf")).unwrap(), b"old");
    }

    #[test]
    fn a_full_disk_is_called_so() {
        let error = disk_error(ErrorKind::StorageFull.into(), &expected(b"model"), Path::new("/full"));
        assert_eq!(error.to_string(), "can't write to /full");
        let advice = error.downcast_ref::<Failure>().and_then(Failure::advice);
        assert!(advice.is_some_and(|advice| advice.contains("free some space")), "{advice:?}");
    }
}
