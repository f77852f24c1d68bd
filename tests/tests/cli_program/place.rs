//! A host of a test's own, and where it works.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ended, base_file, names, wait_until, with_base};

/// A folder of packs and a folder for sockets of a test's own.
pub struct Place {
    folder: TempDir,
    /// With a cache of its own too.
    has_cache: bool,
}

/// A `chat` that serves the place; it leaves when this is dropped.
pub struct Chat {
    pub child: Child,
    stdin: Option<ChildStdin>,
    pub stdout: ChildStdout,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("packs")).unwrap();
        Self { folder, has_cache: false }
    }

    /// The same with a cache folder of its own, in which the default base lies.
    pub fn with_cache() -> Self {
        let place = Self { has_cache: true, ..Self::new() };
        std::fs::create_dir(place.cache()).unwrap();
        std::os::unix::fs::symlink(base_file().parent().unwrap(), place.cache().join("bases")).unwrap();
        place
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The cache folder, if it has one of its own.
    pub fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub fn packs(&self) -> PathBuf {
        self.folder.path().join("packs")
    }

    pub fn sockets(&self) -> Vec<String> {
        names(&self.folder.path().join("modularbase"))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = with_base(arguments);
        command.arg("--packs-dir").arg(self.packs()).env("XDG_RUNTIME_DIR", self.folder.path());
        if self.has_cache {
            command.env("MODULARBASE_CACHE", self.cache());
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments))
    }

    /// Starts a host and waits until it listens.
    pub fn chat(&self, arguments: &[&str]) -> Chat {
        let mut command = self.command(&["chat", "--greedy"]);
        command.args(arguments);
        self.chat_by(command)
    }

    /// As [`Place::chat`], by a command of one's own.
    pub fn chat_by(&self, mut command: Command) -> Chat {
        let listening = || self.sockets().into_iter().filter(|name| name.ends_with(".sock"));
        let before: Vec<String> = listening().collect();
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        wait_until("the host listens", || listening().any(|name| !before.contains(&name)));
        Chat { child, stdin, stdout }
    }

    pub fn list(&self) -> Vec<Value> {
        self.run(&["packs", "list", "--json"]).success().json().as_array().unwrap().clone()
    }

    pub fn state(&self, name: &str) -> String {
        let list = self.list();
        let pack = list.iter().find(|pack| pack["name"] == name);
        pack.map_or("none".to_owned(), |pack| pack["state"].as_str().unwrap().to_owned())
    }

    pub fn has_state(&self, name: &str, state: &str) {
        wait_until(&format!("`{name}` is {state}"), || self.state(name) == state);
    }
}

impl Chat {
    pub fn say(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub fn leave(mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // One that has left already can't be ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
