//! A long text is encoded piece by piece: what the tokenizer needs beside the ids is then that of a piece, however long the
//! text.
//!
//! A piece ends in front of white space, at a border that is tried first: what lies around it must have the same tokens in
//! one piece and in two, and a pre-token must begin there. Pre-tokenizers look no further ahead than over white space, so
//! the whole text has a border there as well. Where a tokenizer knows no such borders (SentencePiece without a
//! pre-tokenizer takes a text as one word), it gets the text in one piece.

use tokenizers::{Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::{Tokenizer, TokenizerError};

/// Bytes of a piece, about.
const PIECE: usize = 32 << 10;
/// Bytes on each side of a border that it is tried with.
const AROUND: usize = 128;
/// Borders that are tried before what is left is taken as one piece.
const TRIES: usize = 16;

impl Tokenizer {
    /// The ids of `text`, without a begin-of-text token. With `parse_special`, the spelling of a special token
    /// (such as `<|im_end|>`) is that token; without, it is text like any other.
    ///
    /// # Errors
    /// A text that the tokenizer has no tokens for.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        self.encode_by(text, parse_special, PIECE)
    }

    /// As [`Tokenizer::encode`], in pieces of about so many bytes; the ids are the same for any number.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_by(
        &self,
        mut text: &str,
        parse_special: bool,
        bytes: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        while text.len() > bytes.saturating_mul(2)
            && let Some(border) = self.border(text, parse_special, bytes)?
        {
            let (piece, rest) = text.split_at(border);
            ids.extend(self.encode_piece(piece, parse_special)?);
            text = rest;
        }
        ids.extend(self.encode_piece(text, parse_special)?);
        Ok(ids)
    }

    /// Where a piece of about so many bytes may end: the first border behind them that is found sound.
    fn border(&self, text: &str, parse_special: bool, bytes: usize) -> Result<Option<usize>, TokenizerError> {
        // A tokenizer that cuts long texts off would cut off every piece.
        if self.inner.get_pre_tokenizer().is_none() || self.inner.get_truncation().is_some() {
            return Ok(None);
        }
        let start = text.ceil_char_boundary(bytes.max(1));
        let before = text[..start].chars().next_back().is_some_and(char::is_whitespace);
        let candidates = text[start..].char_indices().scan(before, |before, (at, c)| {
            let border = c.is_whitespace() && !*before;
            *before = c.is_whitespace();
            Some((start + at, border))
        });
        for (border, _) in candidates.filter(|&(_, border)| border).take(TRIES) {
            if self.is_sound(text, border, parse_special)? {
                return Ok(Some(border));
            }
        }
        Ok(None)
    }

    /// Whether a text around `border` has the same tokens in one piece and in two.
    fn is_sound(&self, text: &str, border: usize, parse_special: bool) -> Result<bool, TokenizerError> {
        let from = text.ceil_char_boundary(border.saturating_sub(AROUND));
        let to = text.floor_char_boundary(border + AROUND);
        if !self.begins_pre_token(&text[from..to], border - from)? {
            return Ok(false);
        }
        let whole = self.encode_piece(&text[from..to], parse_special)?;
        let left = self.encode_piece(&text[from..border], parse_special)?;
        let right = self.encode_piece(&text[border..to], parse_special)?;
        Ok(whole.strip_prefix(left.as_slice()) == Some(right.as_slice()))
    }

    fn begins_pre_token(&self, text: &str, at: usize) -> Result<bool, TokenizerError> {
        let wrong = |error: tokenizers::Error| TokenizerError::Encode { why: error.to_string() };
        let mut pieces = PreTokenizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece)).map_err(wrong)?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(wrong)?;
        }
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits.iter().any(|(_, (begin, _), _)| *begin == at))
    }
}
