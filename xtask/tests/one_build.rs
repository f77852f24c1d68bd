//! `cargo xtask run` and `cargo xtask test` share one build: what one compiled the other one uses.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use xtask::CargoWorkspace;

/// Every crate that a build compiles, with its features.
fn crates(workspace: &CargoWorkspace, arguments: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--no-dedupe", "--format", "{p} [{f}]"])
        .args(arguments)
        .current_dir(&workspace.root)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_a_user_runs_and_what_the_tests_run_are_built_with_the_same_features() {
    let workspace = CargoWorkspace::discover(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let tests = crates(&workspace, &["--workspace", "--edges", "normal,build,dev"]);
    let run = crates(&workspace, &["--package", "modularbase", "--edges", "normal,build"]);
    assert!(run.iter().any(|line| line.starts_with("candle-core ")), "{run:?}");
    let twice: Vec<_> = run.difference(&tests).collect();
    assert!(
        twice.is_empty(),
        "compiled once for `cargo xtask run` and once more for `cargo xtask test`, with all that uses them: {twice:#?}\n\
         ask for the features that the tests want in the workspace's Cargo.toml too, where `getrandom` is"
    );
}
