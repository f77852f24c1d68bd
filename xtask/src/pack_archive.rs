//! `pack archive`: a laid-out pack as one file that can be dropped into a packs directory.
//!
//! The layout is the host's: a tar in one zstd frame, the manifest first, then the files it names in order; no times, no
//! owners, so that equal packs give equal archives.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use manifests::{FileName, PACK_MANIFEST_FILE, PackManifest, Sha256};

/// As the host's own archives; weights hardly shrink.
const LEVEL: i32 = 6;

/// `cargo xtask pack archive`.
pub(crate) fn archive(folder: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let (_, manifest) = read_whole(folder)?;
    let out = match out {
        Some(out) => out.to_path_buf(),
        None => PathBuf::from(format!("{}-{}.mbpack", manifest.pack.name, manifest.pack.version)),
    };
    let bytes = archive_pack(folder, &out)?;
    println!("{} {} in {}: {bytes} bytes", manifest.pack.name, manifest.pack.version, out.display());
    Ok(())
}

/// Writes the archive of the laid-out pack in `folder` to the file `out`, whole or not at all; gives its size in bytes.
pub fn archive_pack(folder: &Path, out: &Path) -> anyhow::Result<u64> {
    let (bytes, manifest) = read_whole(folder)?;
    let mut names: Vec<FileName> = manifest.files().into_iter().map(|record| record.file).collect();
    names.extend(manifest.signer.map(|signer| signer.signature));
    names.sort();
    for name in &names {
        // The field of a plain tar; longer names need extensions, which hosts refuse.
        ensure!(
            name.as_str().len() <= 100,
            "the name `{name}` has more than 100 bytes: give it a shorter one"
        );
    }
    // A link or a bare name: the file is made beside what it names.
    let out = if out.parent() == Some(Path::new("")) { Path::new(".").join(out) } else { out.to_path_buf() };
    manifests::replace_atomically(&out, |file| {
        let mut encoder = zstd::Encoder::new(file, LEVEL)?;
        encoder.include_checksum(true)?;
        let mut tar = tar::Builder::new(encoder);
        append(&mut tar, PACK_MANIFEST_FILE, bytes.len() as u64, &bytes[..])?;
        for name in &names {
            let file = File::open(name.in_folder(folder))?;
            let size = file.metadata()?.len();
            append(&mut tar, name.as_str(), size, file.take(size))?;
        }
        tar.into_inner()?.finish()?.flush()
    })
    .with_context(|| format!("can't write {}", out.display()))?;
    Ok(std::fs::metadata(&out)?.len())
}

/// The manifest of a laid-out pack, as bytes too, once every file is what it says.
pub(crate) fn read_whole(folder: &Path) -> anyhow::Result<(Vec<u8>, PackManifest)> {
    let path = folder.join(PACK_MANIFEST_FILE);
    if !path.is_file() {
        bail!(
            "{} holds no {PACK_MANIFEST_FILE}: name the folder that `cargo xtask pack build` laid out",
            folder.display()
        );
    }
    let bytes = std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    let manifest = PackManifest::parse_bytes(&bytes).map_err(|error| error.in_file(&path))?;
    for record in manifest.files() {
        let path = record.file.in_folder(folder);
        let found = Sha256::of_file(&path).with_context(|| format!("can't read {}", path.display()))?;
        ensure!(
            found == (record.sha256, record.size),
            "{} is not the file that the manifest names: run `cargo xtask pack build` again",
            path.display()
        );
    }
    Ok((bytes, manifest))
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    tar.append(&header, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack_sign::tests::lay_out;

    fn entries(archive: &Path) -> Vec<(String, Vec<u8>)> {
        let decoder = zstd::Decoder::new(File::open(archive).unwrap()).unwrap();
        let mut tar = tar::Archive::new(decoder);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(header.entry_type(), tar::EntryType::Regular);
            let facts = (header.mode().unwrap(), header.mtime().unwrap(), header.uid().unwrap());
            assert_eq!(facts, (0o644, 0, 0));
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        });
        entries.collect()
    }

    #[test]
    fn an_archive_holds_the_manifest_first_and_then_exactly_the_files_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let pack = lay_out(folder.path());
        std::fs::write(pack.join("notes.txt"), "not of the pack").unwrap();
        let out = folder.path().join("law.mbpack");
        let bytes = archive_pack(&pack, &out).unwrap();
        assert_eq!(bytes, std::fs::metadata(&out).unwrap().len());
        let entries = entries(&out);
        let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["pack.toml", "DATA.md", "liblaw.so"]);
        for (name, content) in &entries {
            assert_eq!(*content, std::fs::read(pack.join(name)).unwrap());
        }
        let again = folder.path().join("again.mbpack");
        archive_pack(&pack, &again).unwrap();
        assert_eq!(std::fs::read(out).unwrap(), std::fs::read(again).unwrap());
    }

    #[test]
    fn a_folder_that_is_not_what_its_manifest_says_gives_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let pack = lay_out(folder.path());
        std::fs::write(pack.join("liblaw.so"), b"changed").unwrap();
        let out = folder.path().join("law.mbpack");
        let error = archive_pack(&pack, &out).unwrap_err().to_string();
        assert!(error.contains("liblaw.so is not the file that the manifest names"), "{error}");
        let error = archive_pack(folder.path(), &out).unwrap_err().to_string();
        assert!(error.contains("holds no pack.toml"), "{error}");
        assert!(!out.exists());
    }
}
