//! Archives: what was packed comes out again, and nothing else ever does.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use manifests::Sha256;
use minisign::KeyPair;
use modularbase_loader::{
    ArchiveError, ArchiveFault, FileCache, FolderError, PackFolder, TrustPolicy, archive_manifest, inspect,
    pack_archive, sweep_unpacked, unpack,
};
use tar::{EntryType, Header};
use tempfile::TempDir;

use crate::small_pack::{lay_out, sign};

/// A pack, a place for archives of it, and a cache.
struct Bench {
    root: TempDir,
    cache: FileCache,
    pack: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let cache = FileCache::new(root.path().join("cache"));
        let pack = lay_out(&root.path().join("packs"), "law", &[b'l'; 5000]);
        Self { root, cache, pack }
    }

    fn archive(&self, bytes: &[u8]) -> PathBuf {
        let path = self.root.path().join("law.mbpack");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn unpack(&self, bytes: &[u8]) -> Result<PathBuf, ArchiveError> {
        Ok(unpack(&self.archive(bytes), &self.cache)?.folder)
    }

    /// What speaks against the archive; nothing of it may be left.
    fn fault(&self, bytes: &[u8]) -> ArchiveFault {
        let error = self.unpack(bytes).unwrap_err();
        assert!(!error.is_incomplete(), "{error}");
        self.nothing_is_left();
        match error {
            ArchiveError::Unsound { fault, .. } => *fault,
            other => panic!("{other}"),
        }
    }

    fn nothing_is_left(&self) {
        let left = fs::read_dir(self.cache.folder().join("unpacked")).map_or(0, Iterator::count);
        assert_eq!(left, 0);
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.pack.join(name)).unwrap()
    }

    /// The entries of a sound archive, in a sound order.
    fn entries(&self) -> Vec<(Header, Vec<u8>)> {
        ["pack.toml", "libsmall.so", "weights.safetensors"]
            .map(|name| entry(name, EntryType::Regular, &self.file(name)))
            .into()
    }
}

fn entry(name: &str, kind: EntryType, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_ustar();
    // Written raw: the crate itself refuses the names that are tried here.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    (header, content.to_vec())
}

fn tar_of(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (header, content) in entries {
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn frame(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn archive_of(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    frame(&tar_of(entries))
}

fn packed(folder: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let length = pack_archive(&PackFolder::read(folder).unwrap(), &mut out).unwrap();
    assert_eq!(length, out.len() as u64);
    out
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_unpacked_is_what_was_packed_signature_included() {
    let bench = Bench::new();
    let alice = KeyPair::generate_unencrypted_keypair().unwrap();
    sign(&bench.pack, &alice, "alice", true);
    fs::write(bench.pack.join("notes.txt"), "not of the pack").unwrap();
    let archive = packed(&bench.pack);
    let folder = bench.unpack(&archive).unwrap();
    assert_eq!(folder.file_name().unwrap().to_str(), Some(Sha256::of_bytes(&archive).to_string().as_str()));
    assert_eq!(names(&folder), ["libsmall.so", "pack.toml", "pack.toml.minisig", "weights.safetensors"]);
    let (one, other) = (PackFolder::read(&bench.pack).unwrap(), PackFolder::read(&folder).unwrap());
    assert_eq!(one.generation, other.generation);
    let signature = TrustPolicy::default().judge(&other).unwrap();
    assert!(signature.to_string().contains("alice"), "{signature}");
    assert_eq!(archive_manifest(&bench.archive(&archive)).unwrap(), one.manifest);
}

#[test]
fn a_real_pack_survives_its_archive() {
    let bench = Bench::new();
    let laid_out = fixture_packs::lay_out("scaled", &bench.root.path().join("real"));
    let folder = bench.unpack(&packed(&laid_out)).unwrap();
    assert_eq!(inspect(&folder).unwrap().folder.generation, inspect(&laid_out).unwrap().folder.generation);
}

#[test]
fn equal_packs_give_equal_archives_wherever_and_whenever_they_lie() {
    let bench = Bench::new();
    let elsewhere = lay_out(&bench.root.path().join("other"), "law", &[b'l'; 5000]);
    for name in ["libsmall.so", "pack.toml"] {
        let file = fs::File::options().write(true).open(elsewhere.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    assert_eq!(packed(&bench.pack), packed(&elsewhere));
}

#[test]
fn the_order_of_the_files_and_the_padding_of_other_tars_do_not_matter() {
    let bench = Bench::new();
    let mut entries = bench.entries();
    entries[1..].reverse();
    let mut tar = tar_of(&entries);
    tar.resize(tar.len().next_multiple_of(10_240), 0);
    let folder = bench.unpack(&frame(&tar)).unwrap();
    PackFolder::read(&folder).unwrap();
}

#[test]
fn an_archive_that_was_unpacked_is_not_unpacked_again_and_a_damaged_copy_is_repaired() {
    let bench = Bench::new();
    let archive = packed(&bench.pack);
    let folder = bench.unpack(&archive).unwrap();
    let made = |folder: &Path| fs::metadata(folder.join("libsmall.so")).unwrap().modified().unwrap();
    let first = made(&folder);
    assert_eq!(bench.unpack(&archive).unwrap(), folder);
    assert_eq!(made(&folder), first);
    fs::write(folder.join("libsmall.so"), b"damaged").unwrap();
    assert_eq!(bench.unpack(&archive).unwrap(), folder);
    PackFolder::read(&folder).unwrap();
    assert_eq!(names(folder.parent().unwrap()).len(), 1, "and the damaged one is gone");
}

#[test]
fn every_part_of_an_archive_counts_as_incomplete_and_leaves_nothing() {
    let bench = Bench::new();
    let archive = packed(&bench.pack);
    let all = 0..archive.len();
    assert!(all.len() > 300, "{}", all.len());
    for length in all {
        let error = bench.unpack(&archive[..length]).unwrap_err();
        assert!(error.is_incomplete(), "{length} bytes of {}: {error}", archive.len());
    }
    bench.nothing_is_left();
    bench.unpack(&archive).unwrap();
}

#[test]
fn no_flipped_bit_is_overlooked() {
    let bench = Bench::new();
    let archive = packed(&bench.pack);
    let sound = PackFolder::read(&bench.pack).unwrap().generation;
    for at in 0..archive.len() {
        let mut flipped = archive.clone();
        flipped[at] ^= 1 << (at % 8);
        match bench.unpack(&flipped) {
            Err(ArchiveError::Unsound { .. } | ArchiveError::Incomplete(_)) => {}
            Err(error) => panic!("byte {at}: {error}"),
            // A bit of the frame's header that means nothing to the content.
            Ok(folder) => assert_eq!(PackFolder::read(&folder).unwrap().generation, sound, "byte {at}"),
        }
    }
}

#[test]
fn a_file_that_is_no_archive_is_called_so() {
    let bench = Bench::new();
    for bytes in [&b"PK\x03\x04 a zip"[..], &[0; 4096], b"schema_version = 1"] {
        assert!(matches!(bench.fault(bytes), ArchiveFault::NotZstd));
    }
    assert!(matches!(bench.fault(&frame(b"")), ArchiveFault::ManifestNotFirst(_)));
    assert!(matches!(bench.fault(&frame(&[b'x'; 2000])), ArchiveFault::Tar(_)));
    // A skippable frame may hold anything.
    assert!(matches!(bench.fault(b"\x50\x2a\x4d\x18\x01\x00\x00\x00x"), ArchiveFault::NotZstd));
    let fifo = bench.root.path().join("pipe.mbpack");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    assert!(matches!(unpack(&fifo, &bench.cache), Err(ArchiveError::Unsound { .. })), "without waiting");
    assert!(matches!(unpack(Path::new("/no/such"), &bench.cache), Err(ArchiveError::Read { .. })));
}

#[test]
fn the_manifest_must_come_first_and_hold() {
    let bench = Bench::new();
    let mut entries = bench.entries();
    entries.swap(0, 1);
    let fault = bench.fault(&archive_of(&entries));
    assert!(matches!(&fault, ArchiveFault::ManifestNotFirst(found) if found == "`libsmall.so`"), "{fault}");

    let mut entries = bench.entries();
    entries[0] = entry("pack.toml", EntryType::Regular, b"schema_version = 1\n[pack]\nid = 3\n");
    let fault = bench.fault(&archive_of(&entries));
    assert!(fault.to_string().starts_with("pack.toml:3:6: "), "{fault}");

    entries[0] = entry("pack.toml", EntryType::Regular, &vec![b'#'; (1 << 20) + 1]);
    assert!(matches!(bench.fault(&archive_of(&entries)), ArchiveFault::Size { .. }));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let bench = Bench::new();
    for name in [
        "../libsmall.so",
        "/tmp/libsmall.so",
        "a/libsmall.so",
        "./libsmall.so",
        "..",
        ".",
        "",
        ".hidden",
        "a\\b",
    ] {
        let mut entries = bench.entries();
        entries[1] = entry(name, EntryType::Regular, &bench.file("libsmall.so"));
        let fault = bench.fault(&archive_of(&entries));
        assert!(matches!(&fault, ArchiveFault::Entry { .. }), "{name}: {fault}");
    }
    // The same through the field that holds a path's beginning.
    let (mut header, content) = entry("libsmall.so", EntryType::Regular, &bench.file("libsmall.so"));
    header.as_ustar_mut().unwrap().prefix[..2].copy_from_slice(b"..");
    header.set_cksum();
    let mut entries = bench.entries();
    entries[1] = (header, content);
    let fault = bench.fault(&archive_of(&entries));
    assert!(fault.to_string().contains("`../libsmall.so`"), "{fault}");
}

#[test]
fn links_folders_devices_and_pipes_are_refused() {
    let bench = Bench::new();
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::new(b'Z'),
    ] {
        let (mut header, _) = entry("libsmall.so", kind, b"");
        header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/passwd");
        header.set_cksum();
        let mut entries = bench.entries();
        entries[1] = (header, Vec::new());
        let fault = bench.fault(&archive_of(&entries));
        assert!(matches!(&fault, ArchiveFault::Entry { .. }), "{kind:?}: {fault}");
    }
}

#[test]
fn headers_that_rename_or_resize_what_follows_are_refused() {
    let bench = Bench::new();
    for (kind, content) in [
        (EntryType::XGlobalHeader, &b"20 path=../escaped\n"[..]),
        (EntryType::XHeader, b"20 path=../escaped\n"),
        (EntryType::XHeader, b"17 size=99999999\n"),
        (EntryType::GNULongName, b"../escaped\0"),
        (EntryType::GNULongLink, b"/etc/passwd\0"),
    ] {
        for at in [0, 1, 3] {
            let mut entries = bench.entries();
            entries.insert(at, entry("extended", kind, content));
            let fault = bench.fault(&archive_of(&entries));
            let is_right =
                matches!(&fault, ArchiveFault::Entry { reason, .. } if reason.contains("extended"));
            assert!(is_right, "{kind:?} at {at}: {fault}");
        }
    }
}

#[test]
fn unknown_repeated_and_missing_files_are_refused() {
    let bench = Bench::new();
    let reason = |entries: &[(Header, Vec<u8>)]| match bench.fault(&archive_of(entries)) {
        ArchiveFault::Entry { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let mut entries = bench.entries();
    entries.push(entry("more.txt", EntryType::Regular, b"more"));
    assert_eq!(reason(&entries), "the manifest does not name it");
    for twice in 0..3 {
        let mut entries = bench.entries();
        entries.push(entries[twice].clone());
        assert_eq!(reason(&entries), "it is there twice");
    }
    for missing in 1..3 {
        let mut entries = bench.entries();
        entries.remove(missing);
        assert!(matches!(bench.fault(&archive_of(&entries)), ArchiveFault::Missing(_)));
    }
}

#[test]
fn a_file_of_another_size_or_content_is_refused() {
    let bench = Bench::new();
    let library = bench.file("libsmall.so");
    for other in [&library[1..], &[&library[..], b"x"].concat(), b""] {
        let mut entries = bench.entries();
        entries[1] = entry("libsmall.so", EntryType::Regular, other);
        assert!(matches!(bench.fault(&archive_of(&entries)), ArchiveFault::Size { .. }));
    }
    let mut entries = bench.entries();
    entries[1] = entry("libsmall.so", EntryType::Regular, &[b'L'; 5000]);
    assert!(matches!(bench.fault(&archive_of(&entries)), ArchiveFault::Hash { .. }));
    // An entry that states its size rightly and ends with the tar.
    let tar = tar_of(&bench.entries());
    let cut = tar.len() - 1024 - 5120 + 100;
    let fault = bench.fault(&frame(&tar[..cut]));
    assert!(matches!(fault, ArchiveFault::Size { .. } | ArchiveFault::Tar(_)), "{fault}");
    // A tar without its end.
    let fault = bench.fault(&frame(&tar[..tar.len() - 1024]));
    assert!(matches!(fault, ArchiveFault::Tar(_)), "{fault}");
}

#[test]
fn a_bomb_costs_what_its_manifest_declares_and_no_more() {
    let bench = Bench::new();
    // A gigabyte of zeros in an entry that the manifest says has 5000 bytes.
    let mut entries = bench.entries();
    let (header, _) = &mut entries[1];
    header.set_size(1 << 30);
    header.set_cksum();
    let tar = [entries[0].0.as_bytes(), &entries[0].1[..]].concat();
    let mut tar = {
        let mut tar = tar;
        tar.resize(tar.len().next_multiple_of(512), 0);
        tar
    };
    tar.extend_from_slice(entries[1].0.as_bytes());
    tar.resize(tar.len() + (1 << 30), 0);
    let bomb = frame(&tar);
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    drop(tar);
    assert!(matches!(bench.fault(&bomb), ArchiveFault::Size { .. }));

    // Behind the end of a sound tar.
    let mut tar = tar_of(&bench.entries());
    tar.resize(tar.len() + (64 << 20), 0);
    assert!(matches!(bench.fault(&frame(&tar)), ArchiveFault::TrailingData));

    // And one whose manifest admits it: more than any disk has.
    let manifest = String::from_utf8(bench.file("pack.toml")).unwrap();
    let mut entries = bench.entries();
    let admitted = manifest.replacen("size = 5000", &format!("size = {}", 1_u64 << 46), 1);
    entries[0] = entry("pack.toml", EntryType::Regular, admitted.as_bytes());
    let error = bench.unpack(&archive_of(&entries)).unwrap_err();
    assert!(matches!(error, ArchiveError::NoSpace { needed, .. } if needed > 1 << 46), "{error}");
    bench.nothing_is_left();
}

#[test]
fn a_frame_that_asks_for_too_much_memory_is_refused() {
    let bench = Bench::new();
    let with_window = |log| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&tar_of(&bench.entries())).unwrap();
        encoder.finish().unwrap()
    };
    bench.unpack(&with_window(27)).unwrap();
    fs::remove_dir_all(bench.cache.folder()).unwrap();
    let fault = bench.fault(&with_window(28));
    assert!(matches!(&fault, ArchiveFault::Frame(_)), "{fault}");
}

#[test]
fn what_follows_the_end_is_refused() {
    let bench = Bench::new();
    let archive = packed(&bench.pack);
    for more in [&b"\0"[..], b"more", &frame(b"a second frame"), &archive] {
        let fault = bench.fault(&[&archive[..], more].concat());
        assert!(matches!(fault, ArchiveFault::TrailingData), "{fault}");
    }
    let mut tar = tar_of(&bench.entries());
    tar.extend_from_slice(b"behind the end");
    assert!(matches!(bench.fault(&frame(&tar)), ArchiveFault::TrailingData));
}

#[test]
fn a_huge_signature_is_refused() {
    let bench = Bench::new();
    let alice = KeyPair::generate_unencrypted_keypair().unwrap();
    sign(&bench.pack, &alice, "alice", true);
    let mut entries = bench.entries();
    entries.push(entry("pack.toml.minisig", EntryType::Regular, &vec![b'x'; 70 << 10]));
    assert!(matches!(bench.fault(&archive_of(&entries)), ArchiveFault::Size { .. }));
}

#[test]
fn a_pack_that_changes_while_it_is_packed_gives_no_archive() {
    let bench = Bench::new();
    let folder = PackFolder::read(&bench.pack).unwrap();
    let fails = |is_right: fn(&FolderError) -> bool| {
        let error = pack_archive(&folder, &mut Vec::new()).unwrap_err();
        assert!(matches!(&error, ArchiveError::Folder(error) if is_right(error)), "{error}");
    };
    let library = bench.file("libsmall.so");
    fs::write(bench.pack.join("libsmall.so"), [b'L'; 5000]).unwrap();
    fails(|error| matches!(error, FolderError::Hash { .. }));
    fs::write(bench.pack.join("libsmall.so"), [b'l'; 5001]).unwrap();
    fails(|error| matches!(error, FolderError::Size { found: 5001, .. }));
    fs::write(bench.pack.join("libsmall.so"), &library[1..]).unwrap();
    fails(|error| matches!(error, FolderError::Size { found: 4999, .. } | FolderError::Read { .. }));
    fs::write(bench.pack.join("libsmall.so"), &library).unwrap();
    // Of the manifest the bytes that were read are taken, which fit the files.
    fs::write(bench.pack.join("pack.toml"), "changed").unwrap();
    pack_archive(&folder, &mut Vec::new()).unwrap();
}

#[test]
fn a_sweep_removes_what_is_not_kept_and_what_crashes_left() {
    let bench = Bench::new();
    let kept = bench.unpack(&packed(&bench.pack)).unwrap();
    let other = bench.unpack(&archive_of(&bench.entries())).unwrap();
    let unpacked = kept.parent().unwrap();
    fs::create_dir(unpacked.join(".tmp-left")).unwrap();
    fs::write(unpacked.join("README"), "not ours").unwrap();
    assert_ne!(kept, other);
    assert_eq!(sweep_unpacked(&bench.cache, &BTreeSet::from([kept.clone()])).unwrap(), 2);
    assert_eq!(names(unpacked), ["README", kept.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(sweep_unpacked(&bench.cache, &BTreeSet::new()).unwrap(), 1);
    assert_eq!(sweep_unpacked(&FileCache::new("/no/such"), &BTreeSet::new()).unwrap(), 0);
}

#[test]
fn many_who_unpack_the_same_archive_get_the_same_whole_folder() {
    let bench = Bench::new();
    let archive = bench.archive(&packed(&bench.pack));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    PackFolder::read(&unpack(&archive, &bench.cache).unwrap().folder).unwrap().generation
                })
            })
            .collect();
        let generations: BTreeSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(generations.len(), 1);
    });
    assert_eq!(names(&bench.cache.folder().join("unpacked")).len(), 1);
}
