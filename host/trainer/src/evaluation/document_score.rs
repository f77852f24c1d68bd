//! The loss of one document.

use serde::Serialize;

/// What the columns make of one document, or of the part of it that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DocumentScore {
    /// Its id in the corpus.
    pub id: String,
    /// Where it comes from; empty where the corpus does not say.
    pub source: String,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// UTF-8 bytes of those tokens: the document's, or its share of them by tokens where only a part was looked at.
    pub bytes: f64,
    /// The summed loss in nats, one a column.
    pub nats: Vec<f64>,
}
