//! Installing, replacing and removing, with everything that can go wrong in the middle.

use std::{
    env, fs,
    os::unix::{fs::symlink, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use minisign::KeyPair;
use modularbase_loader::{
    FileCache, FolderError, Generation, InstallError, Installed, PackFolder, install, pack_archive, remove,
    sweep_staging,
};
use tempfile::TempDir;

use crate::small_pack::{lay_out, lay_out_with, sign};

/// A packs directory, and a place for sources beside it.
struct Bench {
    root: TempDir,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("packs")).unwrap();
        Self { root }
    }

    fn packs(&self) -> PathBuf {
        self.root.path().join("packs")
    }

    fn cache(&self) -> FileCache {
        FileCache::new(self.root.path().join("cache"))
    }

    /// A pack of the name `law` outside the packs directory.
    fn source(&self, content: &[u8]) -> PathBuf {
        lay_out(&self.root.path().join(format!("source-{}", content.len())), "law", content)
    }

    fn archive(&self, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack_archive(&PackFolder::read(&self.source(content)).unwrap(), &mut bytes).unwrap();
        bytes
    }

    fn install(&self, source: &Path) -> Result<Installed, InstallError> {
        install(source, &self.packs(), &self.cache())
    }

    /// Everything in the packs directory, hidden names too.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.packs()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn generation(&self, folder: &str) -> Generation {
        generation(&self.packs().join(folder))
    }
}

fn generation(folder: &Path) -> Generation {
    PackFolder::read(folder).unwrap().generation
}

#[test]
fn a_folder_is_installed_whole_under_its_manifests_name() {
    let bench = Bench::new();
    let source = bench.source(b"one");
    sign(&source, &KeyPair::generate_unencrypted_keypair().unwrap(), "alice", true);
    fs::write(source.join("notes.txt"), "not of the pack").unwrap();
    let renamed = source.with_file_name("downloaded (1)");
    fs::rename(&source, &renamed).unwrap();
    let installed = bench.install(&renamed).unwrap();
    assert_eq!((installed.name.as_str(), &installed.path), ("law", &bench.packs().join("law")));
    assert_eq!(installed.replaced, None);
    assert_eq!(bench.names(), ["law"]);
    assert_eq!(bench.generation("law"), generation(&renamed));
    assert!(!bench.packs().join("law/notes.txt").exists());
    assert!(bench.packs().join("law/pack.toml.minisig").exists());
}

#[test]
fn an_archive_is_installed_as_a_folder_also_where_there_is_no_packs_directory_yet() {
    let bench = Bench::new();
    let archive = bench.root.path().join("any-name.mbpack");
    fs::write(&archive, bench.archive(b"one")).unwrap();
    let packs = bench.root.path().join("made/on/demand");
    let installed = install(&archive, &packs, &bench.cache()).unwrap();
    assert_eq!(installed.path, packs.join("law"));
    assert_eq!(generation(&installed.path), generation(&bench.source(b"one")));
}

#[test]
fn a_pack_of_the_same_name_is_replaced_under_whatever_folder_name_it_lies() {
    let bench = Bench::new();
    bench.install(&bench.source(b"one")).unwrap();
    let installed = bench.install(&bench.source(b"other")).unwrap();
    assert_eq!(installed.replaced, Some(bench.packs().join("law")));
    assert_eq!(bench.names(), ["law"]);
    assert_eq!(bench.generation("law"), generation(&bench.source(b"other")));

    fs::rename(bench.packs().join("law"), bench.packs().join("my-own-name")).unwrap();
    let installed = bench.install(&bench.source(b"one")).unwrap();
    assert_eq!(installed.path, bench.packs().join("my-own-name"));
    assert_eq!(bench.names(), ["my-own-name"]);
    assert_eq!(bench.generation("my-own-name"), generation(&bench.source(b"one")));
}

#[test]
fn an_archive_of_the_same_name_is_replaced_by_a_folder() {
    let bench = Bench::new();
    let old = bench.packs().join("law-0.1.mbpack");
    fs::write(&old, bench.archive(b"one")).unwrap();
    let installed = bench.install(&bench.source(b"other")).unwrap();
    assert_eq!(installed.path, bench.packs().join("law"));
    assert_eq!(installed.replaced, Some(old));
    assert_eq!(bench.names(), ["law"]);
    assert_eq!(bench.generation("law"), generation(&bench.source(b"other")));
}

#[test]
fn a_linked_pack_is_replaced_and_removed_as_a_link_and_its_folder_stays() {
    let bench = Bench::new();
    let elsewhere = bench.source(b"one");
    let link = bench.packs().join("linked");
    symlink(&elsewhere, &link).unwrap();
    let installed = bench.install(&bench.source(b"other")).unwrap();
    assert_eq!(installed.path, link);
    assert!(!link.is_symlink() && elsewhere.join("libsmall.so").exists());
    assert_eq!(bench.generation("linked"), generation(&bench.source(b"other")));

    fs::remove_dir_all(&link).unwrap();
    symlink(&elsewhere, &link).unwrap();
    assert_eq!(remove(&bench.packs(), "law").unwrap(), link);
    assert!(bench.names().is_empty() && elsewhere.join("libsmall.so").exists());
}

#[test]
fn what_is_no_pack_or_another_pack_is_never_overwritten() {
    let bench = Bench::new();
    let source = bench.source(b"one");
    let target = bench.packs().join("law");

    fs::create_dir(&target).unwrap();
    fs::write(target.join("thesis.txt"), "years of work").unwrap();
    let error = bench.install(&source).unwrap_err();
    assert!(matches!(&error, InstallError::NotAPack(path) if *path == target), "{error}");
    assert!(target.join("thesis.txt").exists());
    fs::remove_dir_all(&target).unwrap();

    fs::write(&target, "a file").unwrap();
    assert!(matches!(bench.install(&source), Err(InstallError::NotAPack(_))));
    fs::remove_file(&target).unwrap();

    lay_out_with(&bench.packs(), "law", b"contract", |manifest| {
        manifest.pack.name = "contract".parse().unwrap();
    });
    let error = bench.install(&source).unwrap_err();
    assert!(
        matches!(&error, InstallError::Occupied { holds, .. } if holds.as_str() == "contract"),
        "{error}"
    );
    assert_eq!(fs::read(target.join("libsmall.so")).unwrap(), b"contract");
    assert_eq!(bench.names(), ["law"]);
}

#[test]
fn a_damaged_pack_is_repaired_by_installing_it_again() {
    let bench = Bench::new();
    bench.install(&bench.source(b"one")).unwrap();
    fs::write(bench.packs().join("law/pack.toml"), "damaged").unwrap();
    bench.install(&bench.source(b"one")).unwrap();
    assert_eq!(bench.generation("law"), generation(&bench.source(b"one")));
    assert_eq!(bench.names(), ["law"]);
}

#[test]
fn an_unsound_source_is_refused_before_anything_is_touched() {
    let bench = Bench::new();
    let source = bench.source(b"one");
    fs::write(source.join("libsmall.so"), b"two").unwrap();
    assert!(matches!(bench.install(&source), Err(InstallError::Folder(FolderError::Hash { .. }))));
    let archive = bench.root.path().join("cut.mbpack");
    let bytes = bench.archive(b"another one");
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let error = bench.install(&archive).unwrap_err();
    assert!(matches!(&error, InstallError::Archive(error) if error.is_incomplete()), "{error}");
    assert!(matches!(bench.install(Path::new("/no/such")), Err(InstallError::Folder(_))));
    assert!(bench.names().is_empty());
}

#[test]
fn two_packs_of_one_name_are_not_guessed_between() {
    let bench = Bench::new();
    bench.install(&bench.source(b"one")).unwrap();
    fs::write(bench.packs().join("copy.mbpack"), bench.archive(b"other")).unwrap();
    assert!(matches!(bench.install(&bench.source(b"third one")), Err(InstallError::Ambiguous { .. })));
    let error = remove(&bench.packs(), "law").unwrap_err();
    assert!(error.to_string().contains("copy.mbpack"), "{error}");
    assert_eq!(bench.names(), ["copy.mbpack", "law"]);
    remove(&bench.packs(), "copy.mbpack").unwrap();
    assert_eq!(bench.generation("law"), generation(&bench.source(b"one")));
    remove(&bench.packs(), "law").unwrap();
    assert!(bench.names().is_empty());
}

#[test]
fn removing_takes_folders_archives_and_broken_packs_and_nothing_else() {
    let bench = Bench::new();
    fs::write(bench.packs().join("law.mbpack"), bench.archive(b"one")).unwrap();
    assert_eq!(remove(&bench.packs(), "law").unwrap(), bench.packs().join("law.mbpack"));
    fs::create_dir(bench.packs().join("broken")).unwrap();
    fs::write(bench.packs().join("broken/pack.toml"), "broken").unwrap();
    fs::create_dir(bench.packs().join("no-pack")).unwrap();
    remove(&bench.packs(), "broken").unwrap();
    let outside = bench.source(b"one");
    for name in ["no-pack", "law", "", ".", "..", "../source-3/law", outside.to_str().unwrap()] {
        assert!(matches!(remove(&bench.packs(), name), Err(InstallError::NotFound { .. })), "{name}");
    }
    assert_eq!(bench.names(), ["no-pack"]);
    assert!(outside.exists());
}

#[test]
fn many_who_install_the_same_name_leave_one_whole_pack() {
    let bench = Bench::new();
    let sources: Vec<_> = (1..=4).map(|size| bench.source(&vec![b'x'; size * 1000])).collect();
    std::thread::scope(|scope| {
        for source in &sources {
            scope.spawn(|| (0..10).for_each(|_| drop(bench.install(source).unwrap())));
        }
    });
    assert_eq!(bench.names(), ["law"]);
    assert!(sources.iter().any(|source| generation(source) == bench.generation("law")));
}

/// Set in the second process: what it shall install, by turns, and the packs directory's parent.
const CHILD: &str = "DISTRIBUTION_TEST_CHILD";

/// This test binary once more, to run one test as the second process, after `words` of a shell.
fn child(test: &str, root: &Path, words: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{words} exec \"$0\" \"$@\"")]).arg(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, root);
    command
}

#[test]
fn an_install_that_is_killed_leaves_the_old_pack_or_the_new_one_whole() {
    if let Some(root) = env::var_os(CHILD).map(PathBuf::from) {
        let cache = FileCache::new(root.join("cache"));
        loop {
            for source in ["other", "one"] {
                install(&root.join(source), &root.join("packs"), &cache).unwrap();
            }
        }
    }
    let bench = Bench::new();
    let root = bench.root.path();
    let mut generations = Vec::new();
    for (name, size) in [("one", 3 << 20), ("other", 2 << 20)] {
        let source = bench.source(&vec![b'x'; size]);
        fs::rename(source, root.join(name)).unwrap();
        generations.push(generation(&root.join(name)));
    }
    bench.install(&root.join("one")).unwrap();
    let (mut left_something, mut seen) = (0, [0, 0]);
    for round in 0..40_u64 {
        let test = "installs::an_install_that_is_killed_leaves_the_old_pack_or_the_new_one_whole";
        let mut process = child(test, root, "").stdout(std::process::Stdio::null()).spawn().unwrap();
        // From before the first install to amid a later one; no two rounds wait equally long.
        std::thread::sleep(Duration::from_millis(10 + round * 37 % 190));
        process.kill().unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it was still at work");

        let found = bench.generation("law");
        let which = generations.iter().position(|generation| *generation == found);
        seen[which.expect("the old pack or the new one")] += 1;
        let hidden = bench.names().len() - 1;
        assert!(hidden <= 1, "round {round}: {:?}", bench.names());
        left_something += hidden;
        assert_eq!(sweep_staging(&bench.packs()).unwrap(), hidden);
        assert_eq!(bench.names(), ["law"]);
    }
    println!("of 40 kills {left_something} were in the middle; packs found {seen:?}");
    assert!(left_something > 0, "no kill was in the middle of an install");
}

#[test]
fn a_sweep_spares_the_install_that_is_running() {
    let bench = Bench::new();
    let sources = [bench.source(&[b'x'; 200_000]), bench.source(&[b'y'; 300_000])];
    std::thread::scope(|scope| {
        let installing = scope.spawn(|| {
            for turn in 0..40 {
                bench.install(&sources[turn % 2]).unwrap();
            }
        });
        while !installing.is_finished() {
            sweep_staging(&bench.packs()).unwrap();
        }
    });
    assert_eq!(bench.names(), ["law"]);
    assert_eq!(bench.generation("law"), generation(&sources[1]));
}

/// The pack `big` does not fit; the one that is there stays.
fn a_full_disk_is_said_and_changes_nothing(bench: &Bench, big: &Path) {
    let before = bench.generation("law");
    let error = bench.install(big).unwrap_err();
    assert!(matches!(error, InstallError::Full { .. }), "{error}");
    assert!(error.to_string().contains("there is no room for"), "{error}");
    assert_eq!(bench.names(), ["law"]);
    assert_eq!(bench.generation("law"), before);
}

#[test]
fn a_full_disk_leaves_the_old_pack_and_no_staging_behind() {
    let test = "installs::a_full_disk_leaves_the_old_pack_and_no_staging_behind";
    if let Some(root) = env::var_os(CHILD).map(PathBuf::from) {
        let error = install(&root.join("big"), &root.join("packs"), &FileCache::new(root.join("cache")));
        let error = error.unwrap_err();
        assert!(matches!(error, InstallError::Full { .. }), "{error}");
        return;
    }
    let bench = Bench::new();
    bench.install(&bench.source(b"one")).unwrap();
    let big = bench.root.path().join("big");
    fs::rename(bench.source(&vec![b'x'; 1 << 20]), &big).unwrap();

    // For everybody: no file of this process may grow beyond 64 blocks, of 512 or 1024 bytes.
    let before = bench.generation("law");
    let limited = child(test, bench.root.path(), "trap '' XFSZ; ulimit -f 64;");
    let Output { status, stdout, stderr } = { limited }.output().unwrap();
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(bench.names(), ["law"]);
    assert_eq!(bench.generation("law"), before);

    // Where file systems may be mounted: a disk that is really full.
    let mounted = |words: &[&str]| {
        Command::new(words[0])
            .args(&words[1..])
            .arg(bench.packs())
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if mounted(&["mount", "-t", "tmpfs", "-o", "size=256k", "none"]) {
        let result = std::panic::catch_unwind(|| {
            bench.install(&bench.source(b"one")).unwrap();
            a_full_disk_is_said_and_changes_nothing(&bench, &big);
        });
        assert!(mounted(&["umount"]));
        result.unwrap();
    } else {
        println!("no file system may be mounted here: tried with a limit on files only");
    }
}
