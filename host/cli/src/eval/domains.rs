//! The text of an evaluation: domains and their files.

use std::path::{Path, PathBuf};

use modularbase_corpus::{CorpusError, Encoder, ReadOptions, TokenCache, TokenizedCorpus};

use super::eval_arguments::EvalArguments;
use crate::failure::{Exit, Failure};
use crate::settings::cache_folder;

/// A domain whose text is known to be there.
pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// What the files of a split may end with.
const ENDINGS: [&str; 4] = ["jsonl.zst", "jsonl.gz", "jsonl", "txt"];

/// The domains of the command line in its order, then those of the folder by name.
pub(super) fn find(arguments: &EvalArguments) -> anyhow::Result<Vec<Domain>> {
    let named = arguments.domain.iter();
    let mut domains: Vec<Domain> =
        named.map(|domain| Domain { name: domain.name.clone(), path: domain.path.clone() }).collect();
    if let Some(folder) = &arguments.corpora {
        let found = in_folder(folder, &arguments.split, &arguments.except)?;
        domains.extend(found.into_iter().filter(|found| {
            // What is said by name stands above what lies in the folder.
            !arguments.domain.iter().any(|domain| domain.name == found.name)
        }));
    }
    for (index, domain) in domains.iter().enumerate() {
        if domains[..index].iter().any(|other| other.name == domain.name) {
            return Err(Failure::usage(format!("the domain `{}` is named twice", domain.name)).into());
        }
        if let Err(error) = std::fs::metadata(&domain.path) {
            let message = format!("the domain `{}`: can't read {}", domain.name, domain.path.display());
            return Err(anyhow::Error::new(error).context(Failure::usage(message)));
        }
    }
    if domains.is_empty() {
        let failure = Failure::usage("there is nothing to evaluate on");
        return Err(failure.help("say --domain NAME=FILE, or --corpora DIR for a folder of domains").into());
    }
    Ok(domains)
}

fn in_folder(folder: &Path, split: &str, except: &[String]) -> anyhow::Result<Vec<Domain>> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        let message = format!("--corpora: can't read {}", folder.display());
        anyhow::Error::new(error).context(Failure::usage(message))
    })?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut domains = Vec::new();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let files = ENDINGS.iter().map(|ending| path.join(format!("{split}.{ending}")));
        if let Some(file) = files.into_iter().find(|file| file.is_file()) {
            domains.push(Domain { name: name.to_owned(), path: file });
        }
    }
    if let Some(unknown) = except.iter().find(|name| !domains.iter().any(|domain| domain.name == **name)) {
        return Err(
            Failure::usage(format!("--except: {} has no domain `{unknown}`", folder.display())).into()
        );
    }
    domains.retain(|domain| !except.contains(&domain.name));
    if domains.is_empty() {
        let message = format!("--corpora: {} holds no folder with {split}.jsonl.zst", folder.display());
        let failure = Failure::usage(message);
        return Err(failure.help("--split names another file; .jsonl, .gz and .txt are read too").into());
    }
    Ok(domains)
}

impl Domain {
    /// Its tokens, from the cache where they are there.
    pub(crate) fn tokens(&self, encoder: &dyn Encoder) -> anyhow::Result<TokenizedCorpus> {
        let cache = TokenCache::new(cache_folder()?.join("tokens"));
        let tokens = cache.tokens(&self.path, &ReadOptions::default(), encoder, &());
        tokens.map_err(|error| {
            let exit = match error {
                CorpusError::Cancelled => return Failure::interrupted().into(),
                CorpusError::Write { .. } => Exit::Failed,
                _ => Exit::Usage,
            };
            let failure = Failure::new(exit, format!("the domain `{}` can't be read", self.name));
            anyhow::Error::new(error).context(failure)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_with_the_split_is_a_domain() {
        let folder = tempfile::tempdir().unwrap();
        for (name, file) in [("law", "val.jsonl"), ("code", "val.txt"), ("empty", "train.jsonl")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join(file), "x").unwrap();
        }
        let names = |split: &str, except: &[&str]| {
            let except: Vec<String> = except.iter().map(|name| name.to_string()).collect();
            in_folder(folder.path(), split, &except)
                .map(|domains| domains.into_iter().map(|domain| domain.name).collect::<Vec<_>>())
        };
        assert_eq!(names("val", &[]).unwrap(), ["code", "law"]);
        assert_eq!(names("val", &["code"]).unwrap(), ["law"]);
        assert!(names("test", &[]).unwrap_err().to_string().contains("test.jsonl.zst"));
        assert!(names("val", &["lwa"]).unwrap_err().to_string().contains("no domain `lwa`"));
    }
}
