//! The means of prompts, kept in the cache folder: reading prompts takes longer than training on them, and the same ones are
//! read whenever one of them is added or the training is changed.
//!
//! One file for a base, its slot and token weights. An entry is the SHA-256 of a prompt's text and its means as f32, little
//! endian; entries are only ever appended, each by one write, so several runs may share the file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use manifests::{Sha256, Slot};

/// Bytes of a hash.
const HASH: usize = 32;

/// What is known of prompts.
pub(super) struct KeptMeans {
    known: HashMap<Sha256, Vec<f32>>,
    file: File,
    width: usize,
}

impl KeptMeans {
    /// Opens what `folder` keeps for this base and these token weights; means have `width` values. What is no whole entry
    /// of finite numbers counts as not there.
    pub(super) fn open(
        folder: &Path,
        base: Sha256,
        slot: Slot,
        token_weights: &[f32],
        width: usize,
    ) -> anyhow::Result<Self> {
        let mut of = format!("{base} {slot:?} {width}\0").into_bytes();
        of.extend(token_weights.iter().flat_map(|value| value.to_le_bytes()));
        let path = folder.join(format!("{}.means", Sha256::of_bytes(&of)));
        let refuse = || format!("can't keep the means of prompts in {}", path.display());
        std::fs::create_dir_all(folder).with_context(refuse)?;
        let entry = HASH + width * size_of::<f32>();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(refuse),
        };
        let known = bytes.chunks_exact(entry).filter_map(|entry| {
            let (hash, values) = entry.split_first_chunk::<HASH>()?;
            let values: Vec<f32> =
                values.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
            values.iter().all(|value| value.is_finite()).then(|| (Sha256::from_bytes(*hash), values))
        });
        let known = known.collect();
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(refuse)?;
        // A run that was killed within a write leaves part of an entry, behind which all others would be shifted.
        if !bytes.len().is_multiple_of(entry) {
            file.set_len((bytes.len() - bytes.len() % entry) as u64).with_context(refuse)?;
        }
        Ok(Self { known, file, width })
    }

    /// The means of a prompt: as they are kept, or as `read` finds them, which are kept from now on.
    pub(super) fn of(
        &mut self,
        text: &str,
        read: impl FnOnce() -> anyhow::Result<Vec<f32>>,
    ) -> anyhow::Result<Vec<f32>> {
        let hash = Sha256::of_bytes(text.as_bytes());
        if let Some(means) = self.known.get(&hash) {
            return Ok(means.clone());
        }
        let means = read()?;
        if means.len() == self.width && means.iter().all(|value| value.is_finite()) {
            let mut entry = hash.as_bytes().to_vec();
            entry.extend(means.iter().flat_map(|value| value.to_le_bytes()));
            self.file.write_all(&entry).context("can't keep the means of a prompt")?;
            self.known.insert(hash, means.clone());
        }
        Ok(means)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, token_weights: &[f32]) -> KeptMeans {
        let slot = Slot::new(2, 4).unwrap();
        KeptMeans::open(folder, Sha256::of_bytes(b"base"), slot, token_weights, 2).unwrap()
    }

    fn kept(means: &mut KeptMeans, text: &str) -> bool {
        let mut was_kept = true;
        let read = || {
            was_kept = false;
            Ok(vec![1.5, -2.0])
        };
        assert_eq!(means.of(text, read).unwrap(), [1.5, -2.0]);
        was_kept
    }

    #[test]
    fn means_are_read_once_and_anew_with_other_token_weights() {
        let folder = tempfile::tempdir().unwrap();
        let mut means = open(folder.path(), &[1.0]);
        assert!(!kept(&mut means, "one") && kept(&mut means, "one"));
        let mut again = open(folder.path(), &[1.0]);
        assert!(kept(&mut again, "one") && !kept(&mut again, "two"));
        assert!(!kept(&mut open(folder.path(), &[0.5]), "one"));
    }

    #[test]
    fn an_entry_that_was_cut_off_is_read_anew_and_those_behind_it_stay_whole() {
        let folder = tempfile::tempdir().unwrap();
        kept(&mut open(folder.path(), &[1.0]), "one");
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..9]].concat()).unwrap();
        assert!(!kept(&mut open(folder.path(), &[1.0]), "two"));
        let mut means = open(folder.path(), &[1.0]);
        assert!(kept(&mut means, "one") && kept(&mut means, "two"));
    }
}
