//! Packs that are whole by their manifests and of a few bytes. Nobody opens their libraries here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use manifests::{PackManifest, Sha256, Signer};
use minisign::KeyPair;

/// Lays out `packs/NAME` with a library and weights that hold `content`.
pub fn lay_out(packs: &Path, name: &str, content: &[u8]) -> PathBuf {
    lay_out_with(packs, name, content, |_| {})
}

/// As [`lay_out`], with the manifest changed before it is written.
pub fn lay_out_with(
    packs: &Path,
    name: &str,
    content: &[u8],
    change: impl FnOnce(&mut PackManifest),
) -> PathBuf {
    let folder = packs.join(name);
    fs::create_dir_all(&folder).unwrap();
    let weights = [content, b" as weights"].concat();
    fs::write(folder.join("libsmall.so"), content).unwrap();
    fs::write(folder.join("weights.safetensors"), &weights).unwrap();
    let text = format!(
        r#"schema_version = 1
pack = {{ id = "org.example.{name}", name = "{name}", version = "0.1.0", kind = "expert", description = "Small.", license = "MIT" }}
abi = {{ version = "1.0.0", opset = 1, target = "x86_64-unknown-linux-gnu" }}
base = {{ fingerprint = "any" }}
library = {{ file = "libsmall.so", sha256 = "{}", size = {} }}
weights = {{ file = "weights.safetensors", sha256 = "{}", size = {}, dtype = "f32" }}
memory = {{ resident_bytes = {{ f32 = 4 }} }}
"#,
        Sha256::of_bytes(content),
        content.len(),
        Sha256::of_bytes(&weights),
        weights.len()
    );
    let mut manifest = PackManifest::parse(&text).unwrap();
    change(&mut manifest);
    fs::write(folder.join("pack.toml"), manifest.to_toml().unwrap()).unwrap();
    folder
}

/// Adds `[signer]` to the manifest and signs its bytes; with `public` the manifest carries the key.
pub fn sign(folder: &Path, keys: &KeyPair, key_id: &str, public: bool) {
    let path = folder.join("pack.toml");
    let mut manifest = PackManifest::read(&path).unwrap();
    manifest.signer = Some(Signer {
        key_id: key_id.to_owned(),
        public_key: public.then(|| keys.pk.to_base64().parse().unwrap()),
        signature: "pack.toml.minisig".parse().unwrap(),
    });
    fs::write(&path, manifest.to_toml().unwrap()).unwrap();
    sign_bytes(folder, keys);
}

/// Signs the manifest as it lies there.
pub fn sign_bytes(folder: &Path, keys: &KeyPair) {
    let bytes = fs::read(folder.join("pack.toml")).unwrap();
    let signature = minisign::sign(Some(&keys.pk), &keys.sk, &bytes[..], None, None).unwrap();
    fs::write(folder.join("pack.toml.minisig"), signature.into_string()).unwrap();
}
