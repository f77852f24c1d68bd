//! Losses of documents added up: by domain, by source, and over domains.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DocumentScore, Estimate, Resamples, bootstrap::per};

/// How intervals are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BootstrapOptions {
    /// Corpora that are drawn.
    pub resamples: usize,
    /// What the draws follow from.
    pub seed: u64,
}

impl Default for BootstrapOptions {
    fn default() -> Self {
        Self { resamples: 1000, seed: 1 }
    }
}

/// What a column makes of some text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ColumnFigures {
    /// Mean loss in nats a token.
    pub nats_per_token: Estimate,
    /// Mean loss in bits a byte of UTF-8.
    pub bits_per_byte: Estimate,
    /// Nats a token less than the first column, the base; paired.
    pub gain: Estimate,
}

/// What all columns make of some text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextResult {
    /// Documents.
    pub documents: usize,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// UTF-8 bytes of them.
    pub bytes: u64,
    /// In the order of the columns.
    pub columns: Vec<ColumnFigures>,
}

/// A domain.
#[derive(Debug, Clone, Serialize)]
pub struct DomainResult {
    /// Its name.
    pub name: String,
    /// All of its text.
    #[serde(flatten)]
    pub all: TextResult,
    /// The same by source, where there is more than one.
    pub sources: BTreeMap<String, TextResult>,
    /// Every document.
    pub scores: Vec<DocumentScore>,
    #[serde(skip)]
    resamples: Resamples,
}

/// The mean over domains, each counting the same.
#[derive(Debug, Clone, Serialize)]
pub struct MeanResult {
    /// In the order of the columns.
    pub columns: Vec<ColumnFigures>,
    /// Of packs on the domains that have their names; `None` where there is no such pair.
    pub own: Option<OwnGain>,
}

/// What packs gain on their own domains.
#[derive(Debug, Clone, Serialize)]
pub struct OwnGain {
    /// The domains, each with the index of its pack's column.
    pub pairs: Vec<(String, usize)>,
    /// The mean over them, in nats a token.
    pub gain: Estimate,
}

impl TextResult {
    /// Adds documents up; `resamples` are theirs.
    fn new(documents: &[&DocumentScore], resamples: &Resamples) -> Self {
        let tokens: u64 = documents.iter().map(|document| document.tokens).sum();
        let bytes: f64 = documents.iter().map(|document| document.bytes).sum();
        let nats = |column: usize| documents.iter().map(|document| document.nats[column]).sum::<f64>();
        let base = per(nats(0), tokens as f64);
        let columns = (0..resamples.nats_per_token.len()).map(|column| {
            let loss = per(nats(column), tokens as f64);
            ColumnFigures {
                nats_per_token: Estimate::new(loss, resamples.nats_per_token[column].clone()),
                bits_per_byte: Estimate::new(
                    per(nats(column) / std::f64::consts::LN_2, bytes),
                    resamples.bits_per_byte[column].clone(),
                ),
                gain: Estimate::new(base - loss, gains(resamples, column)),
            }
        });
        Self { documents: documents.len(), tokens, bytes: bytes.round() as u64, columns: columns.collect() }
    }
}

impl DomainResult {
    /// Adds the documents of a domain up.
    pub fn new(name: &str, scores: Vec<DocumentScore>, options: BootstrapOptions) -> Self {
        let columns = scores.first().map_or(0, |score| score.nats.len());
        let result = |documents: &[&DocumentScore]| {
            let resamples = Resamples::draw(documents, columns, options.resamples, options.seed);
            (TextResult::new(documents, &resamples), resamples)
        };
        let mut by_source: BTreeMap<&str, Vec<&DocumentScore>> = BTreeMap::new();
        for score in &scores {
            by_source.entry(&score.source).or_default().push(score);
        }
        let sources = match by_source.len() {
            0 | 1 => BTreeMap::new(),
            _ => by_source
                .into_iter()
                .map(|(name, documents)| (name.to_owned(), result(&documents).0))
                .collect(),
        };
        let (all, resamples) = result(&scores.iter().collect::<Vec<_>>());
        Self { name: name.to_owned(), all, sources, scores, resamples }
    }
}

impl MeanResult {
    /// The mean over domains with the same columns; `own_column` tells which column is a domain's own pack.
    pub fn new(domains: &[DomainResult], own_column: impl Fn(&str) -> Option<usize>) -> Self {
        let columns = domains.iter().map(|domain| domain.all.columns.len()).min().unwrap_or(0);
        let mean_of = |value: &dyn Fn(&DomainResult) -> f64,
                       resampled: &dyn Fn(&DomainResult) -> Vec<f64>| {
            let value = per(domains.iter().map(value).sum(), domains.len() as f64);
            Estimate::new(value, mean_resamples(domains.iter().map(resampled)))
        };
        let columns = (0..columns).map(|column| ColumnFigures {
            nats_per_token: mean_of(&|domain| domain.all.columns[column].nats_per_token.value, &|domain| {
                domain.resamples.nats_per_token[column].clone()
            }),
            bits_per_byte: mean_of(&|domain| domain.all.columns[column].bits_per_byte.value, &|domain| {
                domain.resamples.bits_per_byte[column].clone()
            }),
            gain: mean_of(&|domain| domain.all.columns[column].gain.value, &|domain| {
                gains(&domain.resamples, column)
            }),
        });
        let pairs: Vec<(&DomainResult, usize)> = domains
            .iter()
            .filter_map(|domain| own_column(&domain.name).map(|column| (domain, column)))
            .collect();
        let own = (!pairs.is_empty()).then(|| {
            let sum: f64 = pairs.iter().map(|(domain, column)| domain.all.columns[*column].gain.value).sum();
            let resampled =
                mean_resamples(pairs.iter().map(|(domain, column)| gains(&domain.resamples, *column)));
            OwnGain {
                gain: Estimate::new(sum / pairs.len() as f64, resampled),
                pairs: pairs.iter().map(|(domain, column)| (domain.name.clone(), *column)).collect(),
            }
        });
        Self { columns: columns.collect(), own }
    }
}

/// Gains of a column, resample by resample.
fn gains(resamples: &Resamples, column: usize) -> Vec<f64> {
    let losses = &resamples.nats_per_token;
    losses[0].iter().zip(&losses[column]).map(|(base, loss)| base - loss).collect()
}

/// Resample by resample, the mean over texts, which are drawn independently of each other.
fn mean_resamples(texts: impl ExactSizeIterator<Item = Vec<f64>>) -> Vec<f64> {
    let count = texts.len() as f64;
    let mut mean: Vec<f64> = Vec::new();
    for values in texts {
        mean.resize(values.len().max(mean.len()), 0.0);
        mean.iter_mut().zip(values).for_each(|(mean, value)| *mean += value / count);
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(source: &str, tokens: u64, nats: [f64; 2]) -> DocumentScore {
        let bytes = 4.0 * tokens as f64;
        DocumentScore { id: String::new(), source: source.to_owned(), tokens, bytes, nats: nats.to_vec() }
    }

    #[test]
    fn tokens_count_the_same_whatever_document_they_are_in() {
        let scores = vec![score("a", 10, [30.0, 20.0]), score("b", 30, [60.0, 30.0])];
        let domain = DomainResult::new("x", scores, BootstrapOptions::default());
        let column = domain.all.columns[1];
        assert_eq!((domain.all.tokens, domain.all.bytes), (40, 160));
        assert_eq!(column.nats_per_token.value, 50.0 / 40.0);
        assert_eq!(column.gain.value, 90.0 / 40.0 - 50.0 / 40.0);
        assert!((column.bits_per_byte.value - 50.0 / std::f64::consts::LN_2 / 160.0).abs() < 1e-12);
        assert_eq!(domain.sources["a"].columns[0].nats_per_token.value, 3.0);
        assert_eq!(domain.all.columns[0].gain, Estimate::default());
    }

    #[test]
    fn domains_count_the_same_and_packs_are_judged_on_their_own() {
        let one = DomainResult::new("one", vec![score("", 10, [30.0, 20.0])], BootstrapOptions::default());
        let two = DomainResult::new("two", vec![score("", 90, [90.0, 90.0])], BootstrapOptions::default());
        let mean = MeanResult::new(&[one, two], |domain| (domain == "one").then_some(1));
        assert_eq!(mean.columns[0].nats_per_token.value, 2.0);
        assert_eq!(mean.columns[1].gain.value, 0.5);
        let own = mean.own.unwrap();
        assert_eq!((own.pairs, own.gain.value), (vec![("one".to_owned(), 1)], 1.0));
    }
}
