//! What `cargo xtask pack sign` and `pack archive` make, before the host.

use std::fs;

use manifests::{HostConfig, TrustMode};
use modularbase_loader::{
    FileCache, PackFolder, Signature, TrustError, TrustPolicy, install, pack_archive, unpack,
};

use crate::small_pack::lay_out;

#[test]
fn a_pack_signed_and_archived_by_the_authors_tools_is_let_in_and_installed() {
    let root = tempfile::tempdir().unwrap();
    let pack = lay_out(root.path(), "law", b"library");
    let (secret, key) = xtask::generate_keys("alice", &root.path().join("keys"), true).unwrap();
    xtask::sign_pack(&pack, &secret, None).unwrap();
    let archive = root.path().join("law.mbpack");
    xtask::archive_pack(&pack, &archive).unwrap();

    // The two writers of archives agree to the byte.
    let mut own = Vec::new();
    pack_archive(&PackFolder::read(&pack).unwrap(), &mut own).unwrap();
    assert_eq!(fs::read(&archive).unwrap(), own);

    let cache = FileCache::new(root.path().join("cache"));
    let unpacked = PackFolder::read(&unpack(&archive, &cache).unwrap().folder).unwrap();
    let config = format!(
        "schema_version = 1\n[trust]\npolicy = \"require-known-signer\"\n[trust.keys]\nalice = \"{key}\"\n"
    );
    let policy = TrustPolicy::from(HostConfig::parse(&config).unwrap().settings().trust);
    assert_eq!(policy.mode(), TrustMode::RequireKnownSigner);
    assert_eq!(policy.judge(&unpacked).unwrap(), Signature::SignedBy { name: "alice".into() });
    let stranger = TrustPolicy::new(TrustMode::RequireKnownSigner, Default::default());
    assert!(matches!(stranger.judge(&unpacked), Err(TrustError::UnknownSigner { .. })));

    let installed = install(&archive, &root.path().join("packs"), &cache).unwrap();
    assert_eq!(PackFolder::read(&installed.path).unwrap().generation, unpacked.generation);
}
