//! `pack keygen`: a pair of keys for signing packs, in the files that minisign uses too.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use manifests::{FileName, PublicKey};
use minisign::{KeyPair, SecretKey, SecretKeyBox};

/// `cargo xtask pack keygen`.
pub(crate) fn keygen(name: &str, out: &Path, no_password: bool) -> anyhow::Result<()> {
    let (secret, key) = generate_keys(name, out, no_password)?;
    eprintln!("{} signs packs: keep it to yourself, and keep a copy", secret.display());
    eprintln!("hosts that shall know the key need these lines in their configuration:");
    println!("{}", trust_lines(name, &key));
    Ok(())
}

/// Makes `NAME.key` (readable by this user alone) and `NAME.pub` in `out`; neither may exist. Without `no_password` the
/// terminal is asked for the password of the secret key. Gives the path of the secret key, and the public one.
pub fn generate_keys(name: &str, out: &Path, no_password: bool) -> anyhow::Result<(PathBuf, PublicKey)> {
    let file_name: FileName =
        format!("{name}.key").parse().context("the key's name is also that of its files")?;
    let secret_path = file_name.in_folder(out);
    let public_path = out.join(format!("{name}.pub"));
    for path in [&secret_path, &public_path] {
        if path.exists() {
            bail!("{} exists: a key is never overwritten; choose another name or folder", path.display());
        }
    }
    std::fs::create_dir_all(out).with_context(|| format!("can't create {}", out.display()))?;
    let keys = if no_password {
        KeyPair::generate_unencrypted_keypair()
    } else {
        KeyPair::generate_encrypted_keypair(None)
    }
    .context("no keys were made")?;
    let key: PublicKey = keys.pk.to_base64().parse()?;
    let comment = format!("secret key `{name}` of packs, number {}", key.number());
    write_new(&secret_path, 0o600, &keys.sk.to_box(Some(&comment))?.into_string())?;
    write_new(&public_path, 0o644, &keys.pk.to_box()?.into_string())?;
    Ok((secret_path, key))
}

/// Reads a secret key; asks the terminal for its password if it has one.
pub(crate) fn read_secret_key(path: &Path) -> anyhow::Result<SecretKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let wrong = || format!("{} is no secret key of minisign", path.display());
    let parse = || SecretKeyBox::from_string(&text).with_context(wrong);
    match parse()?.into_unencrypted_secret_key() {
        Ok(key) => Ok(key),
        Err(error) if error.to_string().contains("might be encrypted") => {
            parse()?.into_secret_key(None).with_context(|| format!("can't open {}", path.display()))
        }
        Err(error) => Err(error).with_context(wrong),
    }
}

/// What a host's configuration needs to know the key.
fn trust_lines(name: &str, key: &PublicKey) -> String {
    format!("[trust.keys]\n{} = \"{key}\"", toml_edit::Key::new(name))
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_key_is_its_owners_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("keys");
        let (secret, key) = generate_keys("alice", &out, true).unwrap();
        assert_eq!(secret, out.join("alice.key"));
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        let public = std::fs::read_to_string(out.join("alice.pub")).unwrap();
        assert_eq!(public.lines().nth(1), Some(key.as_str()));
        let read = minisign::PublicKey::from_secret_key(&read_secret_key(&secret).unwrap()).unwrap();
        assert_eq!(read.to_base64(), key.as_str());

        let before = std::fs::read(&secret).unwrap();
        assert!(generate_keys("alice", &out, true).unwrap_err().to_string().contains("never overwritten"));
        std::fs::remove_file(out.join("alice.pub")).unwrap();
        assert!(generate_keys("alice", &out, true).is_err());
        assert_eq!(std::fs::read(&secret).unwrap(), before);
        assert!(generate_keys("../alice", &out, true).is_err());
        assert!(generate_keys("", &out, true).is_err());
    }

    #[test]
    fn the_lines_to_paste_are_a_host_configuration() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["alice", "Alice @ work", "a.b \"c\""] {
            let (_, key) = generate_keys(name, &folder.path().join("keys"), true).unwrap();
            let config = format!("schema_version = 1\n{}\n", trust_lines(name, &key));
            let config = manifests::HostConfig::parse(&config).unwrap();
            assert_eq!(config.trust.keys[name], key);
        }
    }

    #[test]
    fn what_is_no_secret_key_is_called_so() {
        let folder = tempfile::tempdir().unwrap();
        generate_keys("alice", folder.path(), true).unwrap();
        for name in ["alice.pub", "absent.key"] {
            let error = format!("{:#}", read_secret_key(&folder.path().join(name)).unwrap_err());
            assert!(error.contains(name), "{error}");
        }
    }
}
