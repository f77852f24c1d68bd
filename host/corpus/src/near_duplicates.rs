//! Near duplicates by MinHash (Broder, "On the resemblance and containment of documents", 1997).
//!
//! A document is the set of its word 5-grams, of its character 5-grams where most of it is Chinese or
//! Japanese. Each of 64 hash functions keeps its smallest value over the set: two documents share such a value with the
//! probability of their Jaccard similarity. In 16 bands of 4 values, pairs of similarity 0.7 meet with 99 %, of 0.3
//! with 12 %; what meets is compared by all 64 values.

use std::collections::HashMap;

use crate::document::Body;

const HASHES: usize = 64;
const BANDS: usize = 16;
const BAND: usize = HASHES / BANDS;
/// Words or characters of a shingle.
const SHINGLE: usize = 5;

/// A document as 64 smallest hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature([u64; HASHES]);

impl Signature {
    /// The signature of a body; `None` where there is no letter or digit in it.
    pub fn of(body: &Body) -> Option<Self> {
        let mut least = [u64::MAX; HASHES];
        let mut has_any = false;
        let mut take = |shingle: u64| {
            has_any = true;
            for (index, least) in least.iter_mut().enumerate() {
                *least = (*least).min(scramble(shingle ^ SEEDS[index]));
            }
        };
        let units = if is_mostly_cjk(body) { characters(body) } else { words(body) };
        if units.len() < SHINGLE {
            // A short document is one shingle: only its equals are near.
            if !units.is_empty() {
                take(join(&units));
            }
        } else {
            units.windows(SHINGLE).for_each(|window| take(join(window)));
        }
        has_any.then_some(Self(least))
    }

    /// Estimated Jaccard similarity, 0 to 1, in steps of 1/64; standard deviation 0.06 at 0.7.
    pub fn similarity(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).filter(|(a, b)| a == b).count() as f64 / HASHES as f64
    }
}

/// An index of signatures by their bands.
#[derive(Debug, Default)]
pub struct NearDuplicates {
    signatures: Vec<(usize, Signature)>,
    /// Band number and content to positions in `signatures`.
    bands: HashMap<(u8, u64), Vec<u32>>,
}

impl NearDuplicates {
    /// Adds a document under the number `name`.
    pub fn insert(&mut self, name: usize, signature: Signature) {
        let position = self.signatures.len() as u32;
        for key in band_keys(&signature) {
            self.bands.entry(key).or_default().push(position);
        }
        self.signatures.push((name, signature));
    }

    /// The most similar document of those that are at least `threshold` similar: its number and the similarity.
    pub fn nearest(&self, signature: &Signature, threshold: f64) -> Option<(usize, f64)> {
        let mut candidates: Vec<u32> =
            band_keys(signature).filter_map(|key| self.bands.get(&key)).flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let near = candidates.into_iter().filter_map(|position| {
            let (name, other) = self.signatures.get(position as usize)?;
            let similarity = signature.similarity(other);
            (similarity >= threshold).then_some((*name, similarity))
        });
        // Of equals the first one, so that the answer does not hang on the order of candidates.
        near.fold(None, |best, next| match best {
            Some((_, similarity)) if similarity >= next.1 => best,
            _ => Some(next),
        })
    }
}

fn band_keys(signature: &Signature) -> impl Iterator<Item = (u8, u64)> + '_ {
    signature.0.chunks_exact(BAND).zip(0..).map(|(band, number)| (number, join(band)))
}

fn words(body: &Body) -> Vec<u64> {
    let pieces = body.pieces();
    let words = pieces.flat_map(|piece| piece.split(|c: char| !c.is_alphanumeric()));
    words.filter(|word| !word.is_empty()).map(hash_of_word).collect()
}

fn characters(body: &Body) -> Vec<u64> {
    let characters = body.pieces().flat_map(str::chars).filter(|c| c.is_alphanumeric());
    characters.map(|c| scramble(u64::from(c))).collect()
}

/// FNV-1a over the lower-case characters.
fn hash_of_word(word: &str) -> u64 {
    word.chars()
        .flat_map(char::to_lowercase)
        .fold(0xcbf2_9ce4_8422_2325, |hash, c| (hash ^ u64::from(c)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn join(units: &[u64]) -> u64 {
    units.iter().fold(units.len() as u64, |hash, unit| scramble(hash ^ unit))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input changes half of the output's.
const fn scramble(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

const SEEDS: [u64; HASHES] = {
    let mut seeds = [0; HASHES];
    let mut index = 0;
    while index < HASHES {
        seeds[index] = scramble(index as u64 ^ 0x5eed);
        index += 1;
    }
    seeds
};

/// Whether more than a third of the letters belong to scripts that put no spaces between words. The first few
/// thousand letters decide.
fn is_mostly_cjk(body: &Body) -> bool {
    const LOOKED_AT: usize = 4096;
    let letters = body.pieces().flat_map(str::chars).filter(|c| c.is_alphabetic()).take(LOOKED_AT);
    let (mut all, mut cjk) = (0, 0);
    for letter in letters {
        all += 1;
        let code = u32::from(letter);
        cjk += usize::from(matches!(code,
            0x3040..=0x30ff | 0x3400..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff));
    }
    cjk * 3 > all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(text: &str) -> Signature {
        Signature::of(&Body::Text(text.into())).unwrap()
    }

    fn prose(words: std::ops::Range<usize>) -> String {
        words.map(|word| format!("wort{} ", word * 7919 % 1009)).collect()
    }

    #[test]
    fn the_estimate_follows_the_jaccard_similarity() {
        let text = signature(&prose(0..500));
        assert_eq!(text.similarity(&signature(&prose(0..500).to_uppercase().replace(' ', ", "))), 1.0);
        // 396 shingles in common of 596 in all.
        let half = text.similarity(&signature(&prose(100..600)));
        assert!((half - 396.0 / 596.0).abs() < 0.2, "{half}");
        assert!(text.similarity(&signature(&prose(1100..1600).replace("wort", "tag"))) < 0.1);
    }

    #[test]
    fn near_texts_are_found_and_far_ones_are_not() {
        let mut index = NearDuplicates::default();
        index.insert(5, signature(&prose(0..500)));
        index.insert(6, signature(&prose(500..1000)));
        let nearly = prose(0..490) + "und noch etwas anderes";
        let (found, similarity) = index.nearest(&signature(&nearly), 0.7).unwrap();
        assert_eq!(found, 5);
        assert!(similarity > 0.85, "{similarity}");
        assert!(index.nearest(&signature("etwas ganz anderes, das niemand gesagt hat"), 0.7).is_none());
    }

    #[test]
    fn chinese_is_compared_by_characters() {
        let poem = "多少恨昨夜夢魂中還似舊時遊上苑車如流水馬如龍花月正春風閑夢遠南國正芳春船上管絃江面淥滿城飛絮輥輕塵";
        let changed = poem.replace('龍', "風");
        assert!(signature(poem).similarity(&signature(&changed)) > 0.6);
        assert!(signature(poem).similarity(&signature(&poem.chars().rev().collect::<String>())) < 0.2);
    }

    #[test]
    fn a_text_without_letters_has_no_signature_and_a_short_one_equals_itself_only() {
        assert!(Signature::of(&Body::Text(" -- \n".into())).is_none());
        assert_eq!(signature("ab cd").similarity(&signature("AB, cd!")), 1.0);
        assert!(signature("ab cd").similarity(&signature("ab cd ef")) < 0.1);
    }
}
