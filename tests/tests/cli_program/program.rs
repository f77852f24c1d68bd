//! Starting the program and looking at what it left.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// `$MODULARBASE_BIN`, else the binary that cargo put beside these tests.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MODULARBASE_BIN").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("modularbase");
    assert!(program.is_file(), "{} is missing: run `cargo xtask test`", program.display());
    program
}

/// The program without any setting of the user's but the cache folder; packs may take a minute to be ready.
pub fn modularbase(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MODULARBASE_") && text != "MODULARBASE_CACHE" || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli_program/config");
    command.env("XDG_CONFIG_HOME", config).env("XDG_DATA_HOME", "/nowhere");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// As [`modularbase`], with the default base fetched.
pub fn with_base(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    static FETCHED: OnceLock<()> = OnceLock::new();
    FETCHED.get_or_init(|| drop(Ended::of(modularbase(["base", "fetch"])).success()));
    modularbase(arguments)
}

/// The default base's file in the user's cache, fetched.
pub fn base_file() -> PathBuf {
    let shown = Ended::of(with_base(["base", "list", "--json"])).success().json();
    PathBuf::from(shown[0]["path"].as_str().unwrap())
}

/// What a program that ended left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Runs a program to its end.
    pub fn of(mut command: Command) -> Self {
        command.output().unwrap().into()
    }

    /// The same with something on its stdin.
    pub fn with_input(mut command: Command, input: &[u8]) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // A program that does not read all of it has its reasons.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap().into()
    }

    /// It ended well.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Its whole stdout as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Sends a signal by its name, as `kill` does.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits for something to become true, for at most a minute.
#[track_caller]
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Names of the files and folders in a folder, hidden ones included, sorted; none where it does not exist.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
