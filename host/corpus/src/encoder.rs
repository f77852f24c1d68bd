//! What turns text into token ids; the tokenizer itself is the caller's.

use crate::document::Message;

/// What a tokenizer says when it can't encode.
pub type EncodeError = Box<dyn std::error::Error + Send + Sync>;

/// The ids of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedConversation {
    /// The ids, chat template and all.
    pub ids: Vec<u32>,
    /// For each id whether it belongs to an answer (what the model itself is to say, its end included).
    pub is_answer: Vec<bool>,
}

/// A tokenizer, as the corpus sees it. Used from several threads at once.
pub trait Encoder: Sync {
    /// The ids of running text, without any token before or after it. Spellings of special tokens are plain text.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn text(&self, text: &str) -> Result<Vec<u32>, EncodeError>;

    /// The ids of a conversation; both lists have one length.
    ///
    /// # Errors
    /// The tokenizer's own, or those of a chat template that does not take these messages.
    fn conversation(&self, messages: &[Message]) -> Result<EncodedConversation, EncodeError>;

    /// The id that ends a document, and that stands before its first token.
    fn end_of_text(&self) -> u32;

    /// Changes with everything that changes what the other methods give (vocabulary, rules, chat template).
    fn fingerprint(&self) -> String;
}
