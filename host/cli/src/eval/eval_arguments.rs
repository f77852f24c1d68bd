//! The words of `modularbase eval`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use manifests::MixtureChoice;

/// `modularbase eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    /// A domain and its text, a file or folder of documents; may be given several times.
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) domain: Vec<NamedFile>,
    /// A folder with a folder for each domain, such as DIR/medical/val.jsonl.zst.
    #[arg(long, value_name = "DIR")]
    pub(crate) corpora: Option<PathBuf>,
    /// Which file of each domain's folder.
    #[arg(long, value_name = "NAME", default_value = "val", requires = "corpora")]
    pub(crate) split: String,
    /// Leave this domain of --corpora out; may be given several times.
    #[arg(long, value_name = "NAME", requires = "corpora")]
    pub(crate) except: Vec<String>,
    /// A pack to evaluate, by its name in the packs folder or by its own folder (default: all of the packs folder);
    /// may be given several times.
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) pack: Vec<String>,
    /// A mixture to evaluate, such as medical=0.5,general=0.5; may be given several times.
    #[arg(long, value_name = "MIXTURE")]
    pub(crate) mix: Vec<MixtureChoice>,
    /// Read these weights instead of the pack's own; the name may be left out where one pack is evaluated.
    #[arg(long, value_name = "[PACK=]FILE")]
    pub(crate) weights: Vec<OptionallyNamedFile>,
    /// Compare with a whole trained model: the file that `train baseline` wrote; may be given several times.
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) baseline: Vec<NamedFile>,
    /// Score about this many tokens of each domain, evenly spread (default: all).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_tokens: Option<u64>,
    /// The most tokens of a window; windows do not overlap.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) length: u32,
    /// Rows that are computed at once (default: 2048 on the CPU, 16384 on a GPU).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rows: Option<u32>,
    /// Of conversations, score the answers alone.
    #[arg(long)]
    pub(crate) answers_only: bool,
    /// Round what is stored as deltas as the host does when it serves them.
    #[arg(long)]
    pub(crate) as_host: bool,
    /// Compute in f32 on a GPU too.
    #[arg(long)]
    pub(crate) f32: bool,
    /// Resampled corpora behind each interval.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) resamples: u32,
    /// Seed of the resampling.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Let the columns continue this many documents of each domain.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) sample: u32,
    /// Tokens of a document that are continued.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=2048))]
    pub(crate) sample_prompt: u32,
    /// Tokens of a continuation.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=2048))]
    pub(crate) sample_tokens: u32,
    /// Write evaluation.json and evaluation.html into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `NAME=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for NamedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.trim().is_empty() && !path.is_empty() => {
                Ok(Self { name: name.trim().to_owned(), path: PathBuf::from(path) })
            }
            _ => Err("write it as NAME=FILE, such as medical=val.jsonl.zst".to_owned()),
        }
    }
}

/// `FILE` or `NAME=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OptionallyNamedFile {
    pub(crate) name: Option<String>,
    pub(crate) path: PathBuf,
}

impl FromStr for OptionallyNamedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A path may hold `=` itself; a pack's name never holds `/`.
        match text.split_once('=').filter(|(name, _)| !name.contains('/')) {
            Some(_) => {
                text.parse::<NamedFile>().map(|named| Self { name: Some(named.name), path: named.path })
            }
            None if text.is_empty() => Err("write it as FILE or PACK=FILE".to_owned()),
            None => Ok(Self { name: None, path: PathBuf::from(text) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_or_not() {
        let named: NamedFile = "a=b=c".parse().unwrap();
        assert_eq!((named.name.as_str(), named.path), ("a", PathBuf::from("b=c")));
        assert!("a".parse::<NamedFile>().is_err() && "=b".parse::<NamedFile>().is_err());
        let of = |text: &str| text.parse::<OptionallyNamedFile>().unwrap();
        assert_eq!(of("law=x/y").name.as_deref(), Some("law"));
        assert_eq!(of("x/y=z"), OptionallyNamedFile { name: None, path: PathBuf::from("x/y=z") });
    }
}
