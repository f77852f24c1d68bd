//! An encoder whose ids can be read: one id a word, and the words of a conversation between its roles.

use std::sync::atomic::{AtomicUsize, Ordering};

use modularbase_corpus::{EncodeError, EncodedConversation, Encoder, Message};

pub const END: u32 = 0;
pub const ROLE: u32 = 1;

/// A number is its own id; any other word is 2.
#[derive(Default)]
pub struct Words {
    pub fingerprint: String,
    pub texts: AtomicUsize,
}

impl Encoder for Words {
    fn text(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        self.texts.fetch_add(1, Ordering::Relaxed);
        if text.contains("unspeakable") {
            return Err("no token for that".into());
        }
        Ok(text.split_whitespace().map(|word| word.parse().unwrap_or(2)).collect())
    }

    fn conversation(&self, messages: &[Message]) -> Result<EncodedConversation, EncodeError> {
        let (mut ids, mut is_answer) = (Vec::new(), Vec::new());
        for message in messages {
            ids.push(ROLE);
            is_answer.push(false);
            ids.extend(self.text(&message.content)?);
            is_answer.resize(ids.len(), message.role == "assistant");
        }
        Ok(EncodedConversation { ids, is_answer })
    }

    fn end_of_text(&self) -> u32 {
        END
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
