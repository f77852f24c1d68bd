//! What is left out of extracted text, and how the rest is tidied.

use std::collections::{BTreeMap, HashSet};

use manifests::{CleanRules, DataSource, Sha256};

use super::extraction::Extracted;
use crate::document::{Body, Document};
use crate::near_duplicates::{NearDuplicates, Signature};
use crate::split::place_of;

/// Why documents were left out, and how many.
pub(crate) type LeftOut = BTreeMap<&'static str, u64>;

/// Keeps what is wanted, once.
pub(crate) struct Cleaner<'a> {
    rules: &'a CleanRules,
    seen: HashSet<Sha256>,
    near: NearDuplicates,
    count: usize,
}

impl<'a> Cleaner<'a> {
    pub(crate) fn new(rules: &'a CleanRules) -> Self {
        Self { rules, seen: HashSet::new(), near: NearDuplicates::default(), count: 0 }
    }

    /// The document, tidied; or why it is left out.
    pub(crate) fn clean(
        &mut self,
        extracted: Extracted,
        source: &DataSource,
    ) -> Result<Document, &'static str> {
        let Extracted { mut document, fields } = extracted;
        for (name, allowed) in &source.only {
            let value = fields.get(name).map_or("", String::as_str);
            if !allowed.iter().any(|allowed| allowed == value) {
                return Err("not asked for");
            }
        }
        if source.keep.is_some_and(|keep| place_of(document.group_or_id(), 0) >= keep) {
            return Err("not in the share that is kept");
        }
        match &mut document.body {
            Body::Text(text) => *text = tidy(text),
            Body::Conversation(messages) => {
                messages.iter_mut().for_each(|message| message.content = tidy(&message.content));
            }
        }
        if document.body.pieces().all(str::is_empty) {
            return Err("empty");
        }
        let bytes = document.body.bytes();
        if bytes < self.rules.min_bytes {
            return Err("too short");
        }
        if self.rules.max_bytes.is_some_and(|max| bytes > max) {
            return Err("too long");
        }
        let pieces: Vec<&str> = document.body.pieces().collect();
        if !self.seen.insert(Sha256::of_bytes(pieces.join("\0").as_bytes())) {
            return Err("a copy");
        }
        if let Some(threshold) = self.rules.near_duplicates
            && let Some(signature) = Signature::of(&document.body)
        {
            if self.near.nearest(&signature, threshold).is_some() {
                return Err("nearly a copy");
            }
            self.near.insert(self.count, signature);
            self.count += 1;
        }
        Ok(document)
    }
}

/// Line ends are `\n`, control characters and spaces at line ends gone, of empty lines at most one stands alone.
fn tidy(text: &str) -> String {
    let mut tidied = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.split('\n') {
        let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        let line = line.trim_end();
        empty = if line.is_empty() { empty + 1 } else { 0 };
        if empty <= 1 {
            tidied.push_str(line);
            tidied.push('\n');
        }
    }
    // Spaces before the first word belong to it: code is indented.
    tidied.truncate(tidied.trim_end().len());
    tidied.drain(..tidied.len() - tidied.trim_start_matches('\n').len());
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_tidied_without_losing_its_shape() {
        assert_eq!(tidy("\r\n\n  a\tb  \r\n\n\n\n\u{7}c\u{1b}\n\n"), "  a\tb\n\nc");
        assert_eq!(tidy(" \n "), "");
    }
}
