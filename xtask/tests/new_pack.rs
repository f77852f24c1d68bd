//! A pack started with `pack new` builds and verifies outside this workspace, before its author changes a line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use manifests::{Dtype, PackManifest};

/// Where cargo builds the new pack: kept between runs, so that only the first one compiles the SDK.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-pack")
}

fn checked(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\nstdout:\n{}\nstderr:\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// The host that `cargo xtask test` has built and names; else this workspace's, built now beside this xtask.
fn host() -> PathBuf {
    if let Some(path) = std::env::var_os("MODULARBASE_BIN") {
        return path.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    checked(
        Command::new("cargo").args(["build", "--release", "--package", "modularbase"]).current_dir(workspace),
    );
    Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("modularbase")
}

fn cargo_xtask(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("cargo");
    command.arg("xtask").args(arguments).current_dir(folder);
    command.env("CARGO_TARGET_DIR", target()).env("MODULARBASE_BIN", host());
    checked(&mut command)
}

#[test]
fn a_new_pack_builds_and_verifies_before_its_author_changes_a_line() {
    let empty = tempfile::tempdir().unwrap();
    checked(
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(["pack", "new", "my-pack"]).current_dir(empty.path()),
    );
    let folder = empty.path().join("my-pack");
    // The versions that this workspace is tested with; without the file cargo would take the newest ones.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).unwrap();

    cargo_xtask(&folder, &["pack", "build"]);
    let out = target().join("packs/my-pack");
    let manifest = PackManifest::read(&out.join("pack.toml")).unwrap();
    assert_eq!(manifest.pack.id.as_str(), "org.example.my-pack");
    assert!(out.join("weights.safetensors").is_file(), "the initial weights are made");
    assert!(!folder.join("weights.safetensors").exists(), "and not put among the sources");
    let own_weights = 2 * 64 * 576 * 4;
    assert_eq!(manifest.memory.resident_bytes[&Dtype::F32], own_weights, "the base's layers cost nothing");

    cargo_xtask(&folder, &["pack", "verify"]);
    let json = cargo_xtask(&folder, &["pack", "verify", "--json"]).stdout;
    serde_json::from_slice::<serde_json::Value>(&json).expect("one JSON value and nothing else");
}
