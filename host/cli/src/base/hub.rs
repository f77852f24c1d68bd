//! A file from the Hugging Face hub.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hf_hub::api::Progress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Repo, RepoType};
use indicatif::ProgressBar;
use manifests::HuggingFaceSource;

use crate::interrupt;
use crate::terminal::byte_bar;

/// How often Ctrl-C is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Downloads the file into a cache below `folder`; gives its path there. The token and the endpoint of the user's
/// environment hold.
pub(crate) fn download_file(source: &HuggingFaceSource, folder: &Path) -> anyhow::Result<PathBuf> {
    let revision = source.revision.as_deref().unwrap_or("main");
    download(RepoType::Model, source.repo.as_str(), revision, source.file.as_str(), folder)
}

/// The same for any kind of repository.
pub(crate) fn download(
    kind: RepoType,
    repo: &str,
    revision: &str,
    file: &str,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    let api = ApiBuilder::from_env().with_cache_dir(folder.to_path_buf()).with_progress(false).build()?;
    let what = format!("{repo}/{file}");
    let repo = api.repo(Repo::with_revision(repo.to_owned(), kind, revision.to_owned()));
    let file = file.to_owned();
    let bar = BytesSeen(byte_bar(&format!("Downloading {what}"), 0));
    // On a thread of its own: the client can't be asked to stop, so after Ctrl-C it is left behind and the process
    // ends; and a panic in it becomes an error.
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let path = repo.download_with_progress(&file, bar);
        // Nobody waits any more after Ctrl-C.
        done.send(path).ok();
    });
    loop {
        interrupt::check()?;
        match is_done.recv_timeout(LOOK) {
            Ok(path) => {
                return path
                    .map_err(|error| anyhow!(error))
                    .with_context(|| format!("can't download {what}"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the download of {what} broke off"),
        }
    }
}

struct BytesSeen(ProgressBar);

impl Progress for BytesSeen {
    fn init(&mut self, size: usize, _: &str) {
        self.0.set_length(size as u64);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}
