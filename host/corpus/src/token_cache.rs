//! Every corpus is encoded once: what came out is kept on disk, under everything that it follows from.

use std::path::{Path, PathBuf};

use manifests::Sha256;

use crate::document_files::{ReadOptions, files_of, name_of, read_documents_with};
use crate::encoder::Encoder;
use crate::error::CorpusError;
use crate::progress::Progress;
use crate::token_file;
use crate::tokenized_corpus::TokenizedCorpus;

/// Changes when the same files would be encoded in another way.
const VERSION: u32 = 1;

/// A folder of token files. Files are made when they are missing, made again when they are damaged, and never changed;
/// the folder can be deleted at any time.
#[derive(Debug, Clone)]
pub struct TokenCache {
    folder: PathBuf,
}

impl TokenCache {
    /// A cache in `folder`, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The tokens of the text at `path`: from the cache if these files (names below `path` and content), these options
    /// and this encoder were there before, else encoded now. A cache that can't be written costs time later and is
    /// only noted.
    ///
    /// # Errors
    /// Those of reading `path`, of the encoder, and [`CorpusError::Cancelled`].
    pub fn tokens(
        &self,
        path: &Path,
        options: &ReadOptions,
        encoder: &dyn Encoder,
        progress: &dyn Progress,
    ) -> Result<TokenizedCorpus, CorpusError> {
        let file = self.file_of(path, options, encoder)?;
        match token_file::read(&file) {
            Ok(corpus) => return Ok(corpus),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the token cache is damaged and made again");
            }
        }
        let corpus = TokenizedCorpus::encode(read_documents_with(path, options)?, encoder, progress)?;
        let kept = std::fs::create_dir_all(&self.folder).and_then(|()| token_file::write(&file, &corpus));
        if let Err(error) = kept {
            tracing::warn!(file = %file.display(), %error, "the tokens are not kept");
        }
        Ok(corpus)
    }

    /// Where the tokens of this text are kept, whether they are there or not.
    ///
    /// # Errors
    /// `path` can't be read, or leads to no file of text.
    pub fn file_of(
        &self,
        path: &Path,
        options: &ReadOptions,
        encoder: &dyn Encoder,
    ) -> Result<PathBuf, CorpusError> {
        let mut key = vec![
            format!("version {VERSION}"),
            format!("encoder {} {}", encoder.end_of_text(), encoder.fingerprint()),
            format!("format {}", options.format.map_or("by fields", crate::Format::name)),
            format!("limit {}", options.max_document_bytes),
        ];
        for file in files_of(path)? {
            let (digest, length) = Sha256::of_file(&file).map_err(CorpusError::read(&file))?;
            key.push(format!("file {digest} {length} {}", name_of(&file, path)));
        }
        let digest = Sha256::of_bytes(key.join("\n").as_bytes()).to_string();
        Ok(self.folder.join(format!("{}-{}.tokens", readable(path), &digest[..24])))
    }
}

/// Enough of the path for a person who looks into the folder.
fn readable(path: &Path) -> String {
    let parts: Vec<_> = path.components().rev().take(2).collect();
    let parts: Vec<_> = parts.iter().rev().map(|part| part.as_os_str().to_string_lossy()).collect();
    let name = parts.join("-");
    let name = name.split(".jsonl").next().unwrap_or_default();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(48).collect()
}
