//! `pack sign`: names the signer in a laid-out pack's manifest and signs the manifest's bytes.
//!
//! The manifest names the hashes of all other files, so its signature covers the pack.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use manifests::{FileName, PACK_MANIFEST_FILE, PackManifest, PublicKey, Signer};
use toml_edit::DocumentMut;

use crate::pack_archive::read_whole;
use crate::pack_sign_keys::read_secret_key;

/// The signature's file where the manifest names none.
const SIGNATURE_FILE: &str = "pack.toml.minisig";

/// `cargo xtask pack sign`.
pub(crate) fn sign(folder: &Path, key: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let (signer, signature) = sign_pack(folder, key, name)?;
    let number = signer.public_key.map(|key| key.number()).unwrap_or_default();
    println!("signed by `{}` ({number}): {}", signer.key_id, signature.display());
    Ok(())
}

/// Signs the laid-out pack in `folder` with the secret key in the file `key`. The signer is called `name`; else as the
/// manifest calls this very key already; else as the key's file, without its ending. Comments and order of the manifest
/// stay. Gives what the manifest says now, and the path of the signature.
pub fn sign_pack(folder: &Path, key: &Path, name: Option<&str>) -> anyhow::Result<(Signer, PathBuf)> {
    let (bytes, manifest) = read_whole(folder)?;
    let secret = read_secret_key(key)?;
    let public = minisign::PublicKey::from_secret_key(&secret)?;
    let signer = signer(&manifest, public.to_base64().parse()?, name, key)?;

    let mut text = String::from_utf8(bytes)?;
    if manifest.signer.as_ref() != Some(&signer) {
        text = with_signer(&text, &signer)?;
    }
    let manifest = PackManifest::parse(&text).context("the manifest with its signer would be refused")?;
    ensure!(manifest.signer.as_ref() == Some(&signer), "the signer could not be written into the manifest");

    let comment = format!("{} {} signed by {}", manifest.pack.name, manifest.pack.version, signer.key_id);
    let signature = minisign::sign(Some(&public), &secret, text.as_bytes(), None, Some(&comment))?;
    let path = signer.signature.in_folder(folder);
    // The signature first: where there was none, no moment shows a signer without it.
    for (path, content) in [(&path, signature.into_string()), (&folder.join(PACK_MANIFEST_FILE), text)] {
        manifests::write_atomically(path, content.as_bytes())
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok((signer, path))
}

fn signer(
    manifest: &PackManifest,
    public: PublicKey,
    name: Option<&str>,
    key: &Path,
) -> anyhow::Result<Signer> {
    let before = manifest.signer.as_ref();
    let same_key = before.filter(|signer| signer.public_key.as_ref() == Some(&public));
    let stem = || key.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let key_id =
        name.map(str::to_owned).or_else(|| same_key.map(|signer| signer.key_id.clone())).or_else(stem);
    let signature: FileName = match before {
        Some(signer) => signer.signature.clone(),
        None => SIGNATURE_FILE.parse()?,
    };
    Ok(Signer { key_id: key_id.unwrap_or_default(), public_key: Some(public), signature })
}

/// The manifest's text with another `[signer]`, otherwise as its author wrote it.
fn with_signer(text: &str, signer: &Signer) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    let table = document.entry("signer").or_insert(toml_edit::table());
    let table = table.as_table_like_mut().context("`signer` is no table")?;
    table.insert("key_id", toml_edit::value(signer.key_id.as_str()));
    if let Some(key) = &signer.public_key {
        table.insert("public_key", toml_edit::value(key.as_str()));
    }
    table.insert("signature", toml_edit::value(signer.signature.as_str()));
    Ok(document.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pack_sign_keys::generate_keys;
    use manifests::Sha256;

    /// A laid-out pack of three files, its manifest with comments.
    pub(crate) fn lay_out(parent: &Path) -> PathBuf {
        let folder = parent.join("law");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("liblaw.so"), b"library").unwrap();
        std::fs::write(folder.join("DATA.md"), b"# Data").unwrap();
        let manifest = format!(
            "# Written by hand.\nschema_version = 1\npack = {{ id = \"org.example.law\", name = \"law\", \
             version = \"0.1.0\", kind = \"expert\", description = \"Law.\", license = \"MIT\" }}\n\
             abi = {{ version = \"1.0.0\", opset = 1, target = \"x86_64-unknown-linux-gnu\" }}\n\
             base = {{ fingerprint = \"any\" }}\nmemory = {{ resident_bytes = {{ f32 = 0 }} }} # none\n\
             library = {{ file = \"liblaw.so\", sha256 = \"{}\", size = 7 }}\n\
             data_card = {{ file = \"DATA.md\", sha256 = \"{}\", size = 6 }}\n\n[config]\nlayers = 6 # six\n",
            Sha256::of_bytes(b"library"),
            Sha256::of_bytes(b"# Data")
        );
        std::fs::write(folder.join("pack.toml"), manifest).unwrap();
        folder
    }

    fn verifies(folder: &Path, public: &PublicKey) -> bool {
        let signature = minisign::SignatureBox::from_file(folder.join("pack.toml.minisig")).unwrap();
        let public = minisign::PublicKey::from_base64(public.as_str()).unwrap();
        let bytes = std::fs::read(folder.join("pack.toml")).unwrap();
        minisign::verify(&public, &signature, std::io::Cursor::new(bytes), true, false, false).is_ok()
    }

    #[test]
    fn signing_names_the_signer_and_leaves_the_rest_of_the_manifest_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let pack = lay_out(folder.path());
        let before = std::fs::read_to_string(pack.join("pack.toml")).unwrap();
        let (secret, public) = generate_keys("alice", folder.path(), true).unwrap();
        let (signer, path) = sign_pack(&pack, &secret, None).unwrap();
        assert_eq!((signer.key_id.as_str(), signer.public_key.as_ref()), ("alice", Some(&public)));
        assert_eq!(path, pack.join("pack.toml.minisig"));
        let after = std::fs::read_to_string(pack.join("pack.toml")).unwrap();
        assert!(after.starts_with(&before), "{after}");
        assert_eq!(PackManifest::read(&pack.join("pack.toml")).unwrap().signer, Some(signer));
        assert!(verifies(&pack, &public));

        // Once more: the same manifest, a fresh signature.
        sign_pack(&pack, &secret, None).unwrap();
        assert_eq!(std::fs::read_to_string(pack.join("pack.toml")).unwrap(), after);
        assert!(verifies(&pack, &public));
        std::fs::write(pack.join("pack.toml"), after.replace("# six", "# 6")).unwrap();
        assert!(!verifies(&pack, &public));
    }

    #[test]
    fn another_key_takes_over_with_its_own_name_and_the_same_key_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let pack = lay_out(folder.path());
        let (alice, alices) = generate_keys("alice", folder.path(), true).unwrap();
        let (bob, bobs) = generate_keys("bob", folder.path(), true).unwrap();
        assert_eq!(sign_pack(&pack, &alice, Some("alice@work")).unwrap().0.key_id, "alice@work");
        assert_eq!(sign_pack(&pack, &alice, None).unwrap().0.key_id, "alice@work");
        assert!(verifies(&pack, &alices));
        assert_eq!(sign_pack(&pack, &bob, None).unwrap().0.key_id, "bob");
        assert!(verifies(&pack, &bobs) && !verifies(&pack, &alices));
    }

    #[test]
    fn what_would_not_be_served_is_not_signed() {
        let folder = tempfile::tempdir().unwrap();
        let pack = lay_out(folder.path());
        let (alice, _) = generate_keys("alice", folder.path(), true).unwrap();
        let before = std::fs::read(pack.join("pack.toml")).unwrap();
        let error = format!("{:#}", sign_pack(&pack, &alice, Some(" ")).unwrap_err());
        assert!(error.contains("key_id is empty"), "{error}");
        std::fs::write(pack.join("liblaw.so"), b"changed").unwrap();
        assert!(sign_pack(&pack, &alice, None).is_err());
        assert_eq!(std::fs::read(pack.join("pack.toml")).unwrap(), before);
        assert!(!pack.join("pack.toml.minisig").exists());
    }
}
