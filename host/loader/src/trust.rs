//! Whose packs are let in: minisign signatures over manifests, judged by the host's policy.
//!
//! The signature covers the bytes of `pack.toml`, and the manifest names the hashes of all other files: so everything
//! is covered. A name proves nothing; a signer is known by the key alone.

use std::{collections::BTreeMap, fmt, io::Read};

use manifests::{PublicKey, Signer, TrustMode, TrustSettings};
use minisign_verify::Error as MinisignError;
use serde::{Deserialize, Serialize};

use crate::{FolderError, PackFolder, pack_folder::open_inside};

/// A minisign signature has four short lines; a file larger than this (bytes) is none and is not read.
pub const MAX_SIGNATURE_BYTES: u64 = 64 << 10;

/// What a host asks of a pack, and the keys it knows. The default lets unsigned packs in and knows no key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustPolicy {
    mode: TrustMode,
    keys: BTreeMap<String, PublicKey>,
}

/// What is known of who made a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// It names no signer.
    Unsigned,
    /// It names a signer whom this host does not know.
    SignedByUnknownKey {
        /// What the manifest calls the key.
        key_id: String,
        /// Number of the manifest's own key, with which the signature verifies; `None`: the manifest holds no key, so
        /// nothing could be checked.
        fingerprint: Option<String>,
    },
    /// The signature verifies with a key that this host knows.
    SignedBy {
        /// What this host calls the key.
        name: String,
    },
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("unsigned"),
            Self::SignedByUnknownKey { key_id, fingerprint: Some(number) } => {
                write!(f, "signed by `{key_id}`, a key this host does not know ({number})")
            }
            Self::SignedByUnknownKey { key_id, fingerprint: None } => {
                write!(f, "says to be signed by `{key_id}`, whom this host does not know; not checked")
            }
            Self::SignedBy { name } => write!(f, "signed by `{name}`"),
        }
    }
}

/// Why a pack is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No signature where one is asked for.
    #[error(
        "the pack is unsigned, and this host's trust policy is {0}: sign it with `cargo xtask pack sign`"
    )]
    Unsigned(TrustMode),
    /// The signature could not be read.
    #[error("can't read the signature: {0}")]
    File(#[from] FolderError),
    /// The signature's file holds something else.
    #[error("`{file}` holds no minisign signature ({reason}): sign the pack again, or copy it again")]
    NoSignature {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another key than the one that the host knows by this name.
    #[error(
        "the manifest's key of `{key_id}` is {found}, this host knows {known} by that name: if the signer has a new \
         key, put it into [trust.keys]; else do not use the pack"
    )]
    KeyReplaced {
        /// The key's name.
        key_id: String,
        /// Number of the host's key.
        known: String,
        /// Number of the manifest's key.
        found: String,
    },
    /// The signature was made with another key.
    #[error(
        "the signature was not made with the key {expected} of `{key_id}`: sign the pack with that key, or correct \
         `key_id` and `public_key`"
    )]
    OtherKey {
        /// The key's name.
        key_id: String,
        /// Number of the key that should have signed.
        expected: String,
    },
    /// The manifest is not the one that was signed.
    #[error(
        "the signature of `{key_id}` does not fit the manifest: one of the two was changed; get the pack again, or \
         sign it again"
    )]
    DoesNotVerify {
        /// The key's name.
        key_id: String,
    },
    /// Nothing to check the signature with.
    #[error(
        "there is no key to check the signature of `{key_id}` with, and this host's trust policy is {mode}: put the \
         key into [trust.keys], or `public_key` into the manifest's [signer]"
    )]
    NoKey {
        /// What the manifest calls the key.
        key_id: String,
        /// The policy.
        mode: TrustMode,
    },
    /// A key that the host does not know, where it must.
    #[error(
        "the signature verifies, but this host does not know the key of `{key_id}`, and its trust policy is {mode}: if \
         you trust the signer, put `{key_id} = \"{key}\"` into [trust.keys]",
        mode = TrustMode::RequireKnownSigner
    )]
    UnknownSigner {
        /// What the manifest calls the key.
        key_id: String,
        /// The manifest's key.
        key: PublicKey,
    },
}

impl From<TrustSettings> for TrustPolicy {
    fn from(settings: TrustSettings) -> Self {
        Self { mode: settings.policy, keys: settings.keys }
    }
}

impl TrustPolicy {
    /// A policy and the keys that are known, by name.
    pub fn new(mode: TrustMode, keys: BTreeMap<String, PublicKey>) -> Self {
        Self { mode, keys }
    }

    /// What a pack must show.
    pub fn mode(&self) -> TrustMode {
        self.mode
    }

    /// The keys that are known, by name.
    pub fn keys(&self) -> &BTreeMap<String, PublicKey> {
        &self.keys
    }

    /// Who signed the pack, if the policy lets it in.
    ///
    /// # Errors
    /// [`TrustError`]. A signature that is there and does not verify, and a key that is not the one known by its name,
    /// are refused under every policy.
    pub fn judge(&self, folder: &PackFolder) -> Result<Signature, TrustError> {
        let Some(signer) = &folder.manifest.signer else {
            return match self.mode {
                TrustMode::AllowUnsigned => Ok(Signature::Unsigned),
                mode => Err(TrustError::Unsigned(mode)),
            };
        };
        let key_id = || signer.key_id.clone();
        let signature = read_signature(folder, signer)?;
        let Some(key) = self.key_for(signer)? else {
            return match self.mode {
                TrustMode::AllowUnsigned => {
                    Ok(Signature::SignedByUnknownKey { key_id: key_id(), fingerprint: None })
                }
                mode => Err(TrustError::NoKey { key_id: key_id(), mode }),
            };
        };
        verify(&folder.manifest_bytes, &signature, key, &signer.key_id)?;
        match self.name_of(key, &signer.key_id) {
            Some(name) => Ok(Signature::SignedBy { name: name.to_owned() }),
            None if self.mode == TrustMode::RequireKnownSigner => {
                Err(TrustError::UnknownSigner { key_id: key_id(), key: key.clone() })
            }
            None => Ok(Signature::SignedByUnknownKey { key_id: key_id(), fingerprint: Some(key.number()) }),
        }
    }

    /// The key to check with: the host's before the manifest's, which must be the same.
    fn key_for<'a>(&'a self, signer: &'a Signer) -> Result<Option<&'a PublicKey>, TrustError> {
        match (self.keys.get(&signer.key_id), &signer.public_key) {
            (Some(known), Some(found)) if known != found => Err(TrustError::KeyReplaced {
                key_id: signer.key_id.clone(),
                known: known.number(),
                found: found.number(),
            }),
            (Some(known), _) => Ok(Some(known)),
            (None, said) => Ok(said.as_ref()),
        }
    }

    /// What this host calls a key; the manifest's own word where the host uses the same.
    fn name_of(&self, key: &PublicKey, key_id: &str) -> Option<&str> {
        let same_name = self.keys.get_key_value(key_id).filter(|(_, known)| *known == key);
        let by_key = || self.keys.iter().find(|(_, known)| *known == key);
        same_name.or_else(by_key).map(|(name, _)| name.as_str())
    }
}

fn read_signature(folder: &PackFolder, signer: &Signer) -> Result<minisign_verify::Signature, TrustError> {
    let refuse = |reason: String| TrustError::NoSignature { file: signer.signature.to_string(), reason };
    let path = signer.signature.in_folder(&folder.path);
    let mut bytes = Vec::new();
    open_inside(&folder.path, &path)?
        .take(MAX_SIGNATURE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| FolderError::Read { path, source })?;
    if bytes.len() as u64 > MAX_SIGNATURE_BYTES {
        return Err(refuse(format!("more than {MAX_SIGNATURE_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("it is no text".to_owned()))?;
    minisign_verify::Signature::decode(text).map_err(|error| refuse(lower_case(&error)))
}

/// Signatures over the bytes themselves, as old versions of minisign make them, count as those over their hash do.
fn verify(
    bytes: &[u8],
    signature: &minisign_verify::Signature,
    key: &PublicKey,
    key_id: &str,
) -> Result<(), TrustError> {
    let other_key = || TrustError::OtherKey { key_id: key_id.to_owned(), expected: key.number() };
    let verifier = minisign_verify::PublicKey::from_base64(key.as_str()).map_err(|_| other_key())?;
    verifier.verify(bytes, signature, true).map_err(|error| match error {
        MinisignError::UnexpectedKeyId => other_key(),
        _ => TrustError::DoesNotVerify { key_id: key_id.to_owned() },
    })
}

/// The library's words, in the middle of a sentence.
fn lower_case(error: &MinisignError) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<TrustError>() < 128, "{}", size_of::<TrustError>());
    }
}
