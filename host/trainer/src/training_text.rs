//! The text of a run: what is trained on and what is looked at.

use std::path::{Path, PathBuf};

use modularbase_corpus::{
    Encoder, LossOn, MixedRows, PackedRows, Progress, ReadOptions, TokenCache, TokenizedCorpus,
    TokenizedDocument, Window, windows,
};

use crate::{TrainConfig, TrainError, checkpoint::digest};

/// Where a run's text comes from.
pub struct TextSource<'a> {
    /// Keeps ids from run to run.
    pub cache: &'a TokenCache,
    /// The base's tokenizer.
    pub encoder: &'a dyn Encoder,
    /// Is told how far encoding has come.
    pub progress: &'a dyn Progress,
}

impl TextSource<'_> {
    /// The tokens of the text at `path`.
    ///
    /// # Errors
    /// Those of reading and encoding.
    pub fn tokens(&self, path: &Path, config: &TrainConfig) -> Result<TokenizedCorpus, TrainError> {
        let options = ReadOptions { format: config.data.format, ..ReadOptions::default() };
        Ok(self.cache.tokens(path, &options, self.encoder, self.progress)?)
    }
}

/// Text that is looked at on the way: windows of documents, each token once.
#[derive(Debug, Clone)]
pub struct ValidationText {
    windows: Vec<Window>,
}

impl ValidationText {
    /// Windows of at most `length` targets from these files: whole documents from everywhere in them, until there are
    /// `tokens`.
    ///
    /// # Errors
    /// Those of reading and encoding.
    pub fn open(
        files: &[PathBuf],
        length: usize,
        tokens: usize,
        source: &TextSource<'_>,
        config: &TrainConfig,
    ) -> Result<Self, TrainError> {
        let mut chosen = Vec::new();
        let share = tokens / files.len().max(1);
        for file in files {
            let corpus = source.tokens(file, config)?;
            let all: Vec<Window> = windows(&corpus, length, loss_on(config)).collect();
            // Every n-th window, so that a short look sees all of the file.
            let whole: usize = all.iter().map(|window| window.targets().len()).sum();
            let stride = whole.div_ceil(share.max(1)).max(1);
            chosen.extend(all.into_iter().step_by(stride));
        }
        Ok(Self { windows: chosen })
    }

    /// The windows.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

/// All text of a run.
pub struct TrainingText {
    /// What is trained on.
    pub rows: MixedRows,
    /// The sources of `rows` from here on are general text.
    pub general_from: usize,
    /// Text of the domain to look at.
    pub validation: ValidationText,
    /// General text to look at.
    pub general: ValidationText,
    /// Over the ids of all rows, for checkpoints.
    pub fingerprint: String,
}

impl TrainingText {
    /// Opens the files of a configuration. Files of one list are mixed by their tokens.
    ///
    /// # Errors
    /// Those of reading and encoding; no text at all, or less than a row of it.
    pub fn open(config: &TrainConfig, source: &TextSource<'_>) -> Result<Self, TrainError> {
        let data = &config.data;
        if data.train.is_empty() {
            return Err(TrainError::config("data.train", "names no text to train on"));
        }
        let mut hashed = Vec::new();
        let (mut sources, mut general_from) = (Vec::new(), 0);
        let lists = [(&data.train, 1.0 - data.general_share), (&data.general, data.general_share)];
        for (index, (files, share)) in lists.into_iter().enumerate().filter(|(_, (_, share))| *share > 0.0) {
            let mut corpora = Vec::new();
            for file in files {
                let corpus = source.tokens(file, config)?;
                let corpus = match index == 1 && !data.general_without.is_empty() {
                    true => corpus.filtered(|document| !is_held_back(document, &data.general_without)),
                    false => corpus,
                };
                hashed.extend(corpus.documents().map(|document| digest_of(&document)));
                corpora.push(corpus);
            }
            let tokens: u64 = corpora.iter().map(TokenizedCorpus::tokens).sum();
            for corpus in corpora {
                let part = share * corpus.tokens() as f64 / tokens.max(1) as f64;
                let rows = PackedRows::new(corpus.into(), config.batch.length, config.seed, loss_on(config))?;
                sources.push((rows, part));
            }
            if index == 0 {
                general_from = sources.len();
            }
        }
        let look = |files: &[PathBuf]| {
            ValidationText::open(files, config.batch.length, config.evaluation.tokens, source, config)
        };
        let hashed: Vec<&[u8]> = hashed.iter().map(|digest| digest.as_bytes()).collect();
        Ok(Self {
            rows: MixedRows::new(sources, config.seed)?,
            general_from,
            validation: look(&data.validation)?,
            general: look(&data.general_validation)?,
            fingerprint: digest(&hashed),
        })
    }
}

fn loss_on(config: &TrainConfig) -> LossOn {
    if config.data.answers_only { LossOn::Answers } else { LossOn::Everything }
}

fn is_held_back(document: &TokenizedDocument<'_>, sources: &[String]) -> bool {
    document.source.is_some_and(|source| sources.iter().any(|held| held == source))
}

fn digest_of(document: &TokenizedDocument<'_>) -> String {
    let bytes: Vec<u8> = document.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    digest(&[&bytes])
}
