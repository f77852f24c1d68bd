//! Documents into parts (train, validation, test): by group or document, never by chunk.

use std::collections::HashSet;

use manifests::Sha256;

use crate::document::Document;
use crate::error::CorpusError;
use crate::near_duplicates::{NearDuplicates, Signature};

/// How to split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitOptions {
    /// Name and share of each part; shares are scaled to the sum 1. Where two parts hold nearly the same document, the
    /// part that stands later here keeps it: write train first and what is measured on after it.
    pub parts: Vec<(String, f64)>,
    /// Another seed, another split.
    pub seed: u64,
    /// From which similarity (0 to 1) on two documents are nearly the same; `None` leaves all of them in.
    pub near: Option<f64>,
}

impl Default for SplitOptions {
    fn default() -> Self {
        let parts = [("train", 0.96), ("val", 0.02), ("test", 0.02)];
        Self { parts: parts.map(|(name, share)| (name.into(), share)).into(), seed: 0, near: Some(0.7) }
    }
}

/// What becomes of a document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// It belongs to the part with this index.
    Part(usize),
    /// It is left out: a later part holds nearly the same.
    Dropped(Dropped),
}

/// A document that was left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropped {
    /// The part that it would have belonged to.
    pub part: usize,
    /// The document that it is nearly the same as, by its place among all.
    pub near: usize,
    /// How similar they are, 0 to 1.
    pub similarity: f64,
}

/// What becomes of each document, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitPlan {
    /// The parts' names.
    pub parts: Vec<String>,
    /// One a document.
    pub fates: Vec<Fate>,
}

impl SplitPlan {
    /// Plans the split in one pass over the documents, of which only hashes are kept (512 bytes each). A group's part
    /// follows from its name and the seed, so documents that are added later move none of the others.
    ///
    /// # Errors
    /// Those of `documents`; [`CorpusError::Shares`]; [`CorpusError::EmptyPart`] when a part would get nothing.
    pub fn of(
        documents: impl IntoIterator<Item = Result<Document, CorpusError>>,
        options: &SplitOptions,
    ) -> Result<Self, CorpusError> {
        let borders = borders(options)?;
        let mut chosen = Vec::new();
        let mut signatures = Vec::new();
        let mut groups = HashSet::new();
        for document in documents {
            let document = document?;
            let place = place_of(document.group_or_id(), options.seed);
            groups.insert(place.to_bits());
            let part = borders.iter().position(|border| place < *border).unwrap_or(borders.len() - 1);
            chosen.push(part);
            signatures.push(options.near.and_then(|_| Signature::of(&document.body)));
        }
        for (index, (name, share)) in options.parts.iter().enumerate() {
            if *share > 0.0 && !chosen.contains(&index) {
                let (part, share) = (name.clone(), *share);
                return Err(CorpusError::EmptyPart { part, groups: groups.len(), share });
            }
        }
        let mut fates: Vec<Fate> = chosen.iter().map(|part| Fate::Part(*part)).collect();
        if let Some(threshold) = options.near {
            drop_near(&chosen, signatures, options.parts.len(), threshold, &mut fates);
        }
        Ok(Self { parts: options.parts.iter().map(|(name, _)| name.clone()).collect(), fates })
    }

    /// How many documents each part has.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.parts.len()];
        for fate in &self.fates {
            if let Fate::Part(part) = fate {
                counts[*part] += 1;
            }
        }
        counts
    }

    /// Every document that was left out, by its place among all.
    pub fn dropped(&self) -> impl Iterator<Item = (usize, Dropped)> + '_ {
        self.fates.iter().enumerate().filter_map(|(index, fate)| match fate {
            Fate::Part(_) => None,
            Fate::Dropped(dropped) => Some((index, *dropped)),
        })
    }
}

/// Splits documents that are in memory; see [`SplitPlan`] for those that are not. Gives each part's documents, in
/// their old order, and the plan.
///
/// # Errors
/// Those of [`SplitPlan::of`].
pub fn split(
    documents: Vec<Document>,
    options: &SplitOptions,
) -> Result<(Vec<Vec<Document>>, SplitPlan), CorpusError> {
    let plan = SplitPlan::of(documents.iter().cloned().map(Ok), options)?;
    let mut parts = vec![Vec::new(); plan.parts.len()];
    for (document, fate) in documents.into_iter().zip(&plan.fates) {
        if let Fate::Part(part) = fate {
            parts[*part].push(document);
        }
    }
    Ok((parts, plan))
}

/// From the last part to the first: what is near a document of a later part goes.
fn drop_near(
    chosen: &[usize],
    mut signatures: Vec<Option<Signature>>,
    parts: usize,
    threshold: f64,
    fates: &mut [Fate],
) {
    let mut later = NearDuplicates::default();
    for part in (0..parts).rev() {
        let mut kept = Vec::new();
        for index in (0..chosen.len()).filter(|index| chosen[*index] == part) {
            let Some(signature) = signatures[index].take() else { continue };
            match later.nearest(&signature, threshold) {
                Some((near, similarity)) => {
                    fates[index] = Fate::Dropped(Dropped { part, near, similarity });
                }
                None => kept.push((index, signature)),
            }
        }
        if part > 0 {
            kept.into_iter().for_each(|(index, signature)| later.insert(index, signature));
        }
    }
}

/// The upper border of each part in `[0, 1]`.
fn borders(options: &SplitOptions) -> Result<Vec<f64>, CorpusError> {
    let shares: Vec<f64> = options.parts.iter().map(|(_, share)| *share).collect();
    let refuse = |why| Err(CorpusError::Shares { shares: format!("{shares:?}"), why });
    let sum: f64 = shares.iter().sum();
    if shares.iter().any(|share| !share.is_finite() || *share < 0.0) {
        return refuse("a share is a number from 0 up");
    }
    if !(sum > 0.0 && sum.is_finite()) {
        return refuse("at least one share must be above 0");
    }
    let mut border = 0.0;
    Ok(shares
        .iter()
        .map(|share| {
            border += share / sum;
            border
        })
        .collect())
}

/// Where in `[0, 1)` a group lies.
pub(crate) fn place_of(group: &str, seed: u64) -> f64 {
    let digest = Sha256::of_bytes(&[&seed.to_le_bytes(), group.as_bytes()].concat());
    let bits = digest.as_bytes()[..8].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    // 53 bits are what a double holds exactly.
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
