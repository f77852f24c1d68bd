//! A base's tokenizer, as the corpus crate asks for it.

use modularbase_core::{BaseFile, ChatMessage, Tokenizer};
use modularbase_corpus::{EncodeError, EncodedConversation, Encoder, Message};

use crate::TrainError;

/// Encodes text plainly and conversations by the base's chat template.
pub struct BaseEncoder {
    tokenizer: Tokenizer,
    end_of_text: u32,
    fingerprint: String,
}

impl BaseEncoder {
    /// The tokenizer of a base whose identity is `fingerprint`.
    ///
    /// # Errors
    /// A tokenizer that can't be read, or that has no token to end a document with.
    pub fn new(file: &BaseFile, fingerprint: &str) -> Result<Self, TrainError> {
        let tokenizer = Tokenizer::of_base(file)?;
        let end_of_text = tokenizer.document_end().ok_or_else(|| {
            TrainError::Graph("the base's tokenizer has no token that ends a document".to_owned())
        })?;
        Ok(Self { tokenizer, end_of_text, fingerprint: fingerprint.to_owned() })
    }

    /// The tokenizer itself.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The ids of the chat template's text for these messages.
    fn rendered(&self, messages: &[ChatMessage], prompt: bool) -> Result<Vec<u32>, EncodeError> {
        let rendered = self.tokenizer.render_chat(messages, prompt)?;
        Ok(self.tokenizer.encode(&rendered.text, rendered.from_template)?)
    }
}

impl Encoder for BaseEncoder {
    fn text(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        Ok(self.tokenizer.encode(text, false)?)
    }

    /// An answer's ids are those that the template adds to the prompt that ends where the answer begins.
    fn conversation(&self, messages: &[Message]) -> Result<EncodedConversation, EncodeError> {
        let messages: Vec<ChatMessage> =
            messages.iter().map(|message| ChatMessage::new(&message.role, &message.content)).collect();
        let ids = self.rendered(&messages, false)?;
        let mut is_answer = vec![false; ids.len()];
        for (index, message) in messages.iter().enumerate() {
            if message.role == "assistant" {
                let start = self.rendered(&messages[..index], true)?.len();
                let end = self.rendered(&messages[..=index], false)?.len().min(ids.len());
                is_answer[start.min(end)..end].fill(true);
            }
        }
        Ok(EncodedConversation { ids, is_answer })
    }

    fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
