//! Signatures against policies, on folders as they lie on disk.

use std::{fs, path::Path};

use manifests::{PublicKey, TrustMode};
use minisign::KeyPair;
use modularbase_loader::{FolderError, PackFolder, Signature, TrustError, TrustPolicy};

use crate::small_pack::{lay_out, lay_out_with, sign, sign_bytes};

fn keys() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

fn public(keys: &KeyPair) -> PublicKey {
    keys.pk.to_base64().parse().unwrap()
}

fn policy(mode: TrustMode, known: &[(&str, &KeyPair)]) -> TrustPolicy {
    TrustPolicy::new(mode, known.iter().map(|(name, keys)| (name.to_string(), public(keys))).collect())
}

fn judge(folder: &Path, mode: TrustMode, known: &[(&str, &KeyPair)]) -> Result<Signature, TrustError> {
    policy(mode, known).judge(&PackFolder::read(folder).unwrap())
}

/// Under every policy, whether the key is known or not.
fn refused_always(folder: &Path, keys: &KeyPair, is_right: fn(&TrustError) -> bool) {
    for mode in TrustMode::ALL {
        for known in [&[][..], &[("alice", keys)][..]] {
            let error = judge(folder, mode, known).unwrap_err();
            assert!(is_right(&error), "{mode}: {error}");
        }
    }
}

#[test]
fn a_pack_signed_by_a_known_key_is_let_in_under_every_policy() {
    let (packs, alice) = (tempfile::tempdir().unwrap(), keys());
    for public in [true, false] {
        let folder = lay_out(packs.path(), "law", b"library");
        sign(&folder, &alice, "alice", public);
        for mode in TrustMode::ALL {
            let signature = judge(&folder, mode, &[("alice", &alice), ("bob", &keys())]).unwrap();
            assert_eq!(signature, Signature::SignedBy { name: "alice".into() });
            assert_eq!(signature.to_string(), "signed by `alice`");
        }
    }
}

#[test]
fn a_known_key_is_known_by_itself_and_not_by_the_name_in_the_manifest() {
    let (packs, alice) = (tempfile::tempdir().unwrap(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &alice, "alice@work", true);
    let signature = judge(&folder, TrustMode::RequireKnownSigner, &[("alice", &alice)]).unwrap();
    assert_eq!(signature, Signature::SignedBy { name: "alice".into() });
}

#[test]
fn an_unsigned_pack_is_let_in_only_where_unsigned_ones_are_allowed() {
    let packs = tempfile::tempdir().unwrap();
    let folder = lay_out(packs.path(), "law", b"library");
    assert_eq!(judge(&folder, TrustMode::AllowUnsigned, &[]).unwrap(), Signature::Unsigned);
    for mode in [TrustMode::RequireSigned, TrustMode::RequireKnownSigner] {
        let error = judge(&folder, mode, &[]).unwrap_err();
        assert!(matches!(error, TrustError::Unsigned(_)), "{error}");
        assert!(error.to_string().contains(mode.name()), "{error}");
    }
}

#[test]
fn a_signature_by_an_unknown_key_satisfies_require_signed_and_not_require_known_signer() {
    let (packs, mallory) = (tempfile::tempdir().unwrap(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &mallory, "mallory", true);
    for mode in [TrustMode::AllowUnsigned, TrustMode::RequireSigned] {
        let signature = judge(&folder, mode, &[("alice", &keys())]).unwrap();
        let number = public(&mallory).number();
        assert!(signature.to_string().contains(&number), "{signature}");
        let expected = Signature::SignedByUnknownKey { key_id: "mallory".into(), fingerprint: Some(number) };
        assert_eq!(signature, expected);
    }
    let error = judge(&folder, TrustMode::RequireKnownSigner, &[("alice", &keys())]).unwrap_err();
    assert!(matches!(error, TrustError::UnknownSigner { .. }), "{error}");
    // The line to paste is in the message.
    let line = format!("mallory = \"{}\"", public(&mallory));
    assert!(error.to_string().contains(&line), "{error}");
}

#[test]
fn a_signature_that_nobody_can_check_counts_as_none() {
    let (packs, alice) = (tempfile::tempdir().unwrap(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &alice, "alice", false);
    let signature = judge(&folder, TrustMode::AllowUnsigned, &[]).unwrap();
    assert_eq!(signature, Signature::SignedByUnknownKey { key_id: "alice".into(), fingerprint: None });
    assert!(signature.to_string().ends_with("not checked"), "{signature}");
    for mode in [TrustMode::RequireSigned, TrustMode::RequireKnownSigner] {
        let error = judge(&folder, mode, &[]).unwrap_err();
        assert!(matches!(error, TrustError::NoKey { .. }), "{error}");
    }
}

#[test]
fn a_changed_manifest_is_refused_under_every_policy() {
    let (packs, alice) = (tempfile::tempdir().unwrap(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &alice, "alice", true);
    let text = fs::read_to_string(folder.join("pack.toml")).unwrap();
    for changed in [text.replace("\"Small.\"", "\"Smell.\""), format!("{text}\n")] {
        fs::write(folder.join("pack.toml"), changed).unwrap();
        refused_always(&folder, &alice, |error| matches!(error, TrustError::DoesNotVerify { .. }));
    }
}

#[test]
fn a_changed_library_never_reaches_the_judge() {
    let (packs, alice) = (tempfile::tempdir().unwrap(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &alice, "alice", true);
    fs::write(folder.join("libsmall.so"), b"librarY").unwrap();
    let error = PackFolder::read(&folder).unwrap_err();
    assert!(matches!(error, FolderError::Hash { .. }), "{error}");
    // And a manifest that is made to fit the changed library has another signature.
    let folder = lay_out_with(packs.path(), "law", b"librarY", |manifest| {
        manifest.signer = Some(manifests::Signer {
            key_id: "alice".into(),
            public_key: Some(public(&alice)),
            signature: "pack.toml.minisig".parse().unwrap(),
        });
    });
    refused_always(&folder, &alice, |error| matches!(error, TrustError::DoesNotVerify { .. }));
}

#[test]
fn a_signature_by_another_key_is_refused_under_every_policy() {
    let (packs, alice, mallory) = (tempfile::tempdir().unwrap(), keys(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &alice, "alice", true);
    sign_bytes(&folder, &mallory);
    refused_always(&folder, &alice, |error| matches!(error, TrustError::OtherKey { .. }));

    // The same key number does not make the same key.
    let mut forged = mallory.pk.to_bytes();
    forged[2..10].copy_from_slice(alice.pk.keynum());
    let mut secret = mallory.sk.to_bytes();
    let number = secret.windows(8).position(|bytes| bytes == mallory.sk.keynum()).unwrap();
    secret[number..number + 8].copy_from_slice(alice.sk.keynum());
    let forged = KeyPair {
        pk: minisign::PublicKey::from_bytes(&forged).unwrap(),
        sk: minisign::SecretKey::from_bytes(&secret).unwrap(),
    };
    sign_bytes(&folder, &forged);
    refused_always(&folder, &alice, |error| matches!(error, TrustError::DoesNotVerify { .. }));
}

#[test]
fn a_replaced_key_under_a_known_name_is_refused_under_every_policy() {
    let (packs, alice, mallory) = (tempfile::tempdir().unwrap(), keys(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &mallory, "alice", true);
    for mode in TrustMode::ALL {
        let error = judge(&folder, mode, &[("alice", &alice)]).unwrap_err();
        assert!(matches!(error, TrustError::KeyReplaced { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&public(&alice).number()) && text.contains(&public(&mallory).number()),
            "{text}"
        );
    }
    // Without the key in the manifest it is a signature by another key.
    sign(&folder, &mallory, "alice", false);
    for mode in TrustMode::ALL {
        let error = judge(&folder, mode, &[("alice", &alice)]).unwrap_err();
        assert!(matches!(error, TrustError::OtherKey { .. }), "{error}");
    }
}

#[test]
fn a_cut_off_an_empty_a_huge_and_a_foreign_signature_file_are_refused_under_every_policy() {
    let (packs, alice) = (tempfile::tempdir().unwrap(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &alice, "alice", true);
    let path = folder.join("pack.toml.minisig");
    let whole = fs::read(&path).unwrap();
    for cut in [0, 1, 30, whole.len() / 2, whole.len() - 10] {
        fs::write(&path, &whole[..cut]).unwrap();
        refused_always(&folder, &alice, |error| matches!(error, TrustError::NoSignature { .. }));
    }
    for other in [vec![b'x'; 70 << 10], vec![0xff; 300], b"-----BEGIN PGP SIGNATURE-----".to_vec()] {
        fs::write(&path, other).unwrap();
        refused_always(&folder, &alice, |error| matches!(error, TrustError::NoSignature { .. }));
    }
    // A trusted comment that was changed: it is signed too.
    let comment = String::from_utf8(whole).unwrap().replace("timestamp:", "timestamp:1");
    fs::write(&path, comment).unwrap();
    refused_always(&folder, &alice, |error| matches!(error, TrustError::DoesNotVerify { .. }));
}

#[test]
fn a_signature_file_that_goes_missing_or_becomes_a_link_out_is_an_error_and_not_unsigned() {
    let (packs, alice) = (tempfile::tempdir().unwrap(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &alice, "alice", true);
    let read = PackFolder::read(&folder).unwrap();
    let path = folder.join("pack.toml.minisig");
    let outside = packs.path().join("outside.minisig");
    fs::rename(&path, &outside).unwrap();
    let lenient = TrustPolicy::default();
    assert!(matches!(lenient.judge(&read), Err(TrustError::File(FolderError::Read { .. }))));
    assert!(PackFolder::read(&folder).is_err(), "and the folder is not whole without it");
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    assert!(matches!(lenient.judge(&read), Err(TrustError::File(FolderError::LeavesFolder { .. }))));
}

#[test]
fn judged_is_the_manifest_that_was_read_whatever_lies_there_now() {
    let (packs, alice, mallory) = (tempfile::tempdir().unwrap(), keys(), keys());
    let folder = lay_out(packs.path(), "law", b"library");
    sign(&folder, &mallory, "alice", false);
    let read = PackFolder::read(&folder).unwrap();
    lay_out_with(packs.path(), "law", b"library", |manifest| manifest.pack.description.push('!'));
    sign(&folder, &alice, "alice", false);
    let known = policy(TrustMode::RequireKnownSigner, &[("alice", &alice)]);
    assert!(matches!(known.judge(&read), Err(TrustError::DoesNotVerify { .. })));
    known.judge(&PackFolder::read(&folder).unwrap()).unwrap();
}

#[test]
fn signatures_of_old_versions_of_minisign_count_and_do_not_fit_other_bytes() {
    let packs = tempfile::tempdir().unwrap();
    fs::write(packs.path().join("liblaw.so"), b"a library").unwrap();
    fs::write(packs.path().join("pack.toml"), LEGACY_MANIFEST).unwrap();
    fs::write(packs.path().join("pack.toml.minisig"), LEGACY_SIGNATURE).unwrap();
    let keys = [("old".to_string(), LEGACY_KEY.parse().unwrap())].into();
    let policy = TrustPolicy::new(TrustMode::RequireKnownSigner, keys);
    let judge = || policy.judge(&PackFolder::read(packs.path()).unwrap());
    assert_eq!(judge().unwrap(), Signature::SignedBy { name: "old".into() });
    fs::write(packs.path().join("pack.toml"), LEGACY_MANIFEST.replace("German", "Danish")).unwrap();
    assert!(matches!(judge(), Err(TrustError::DoesNotVerify { .. })));
}

#[test]
fn what_is_known_of_a_signer_travels_as_json() {
    for signature in [
        Signature::Unsigned,
        Signature::SignedBy { name: "alice".into() },
        Signature::SignedByUnknownKey { key_id: "bob".into(), fingerprint: Some("0102030405060708".into()) },
    ] {
        let json = serde_json::to_string(&signature).unwrap();
        assert_eq!(serde_json::from_str::<Signature>(&json).unwrap(), signature);
    }
}

// A signature over the bytes themselves, not over their hash: minisign before 0.6, `minisign -S -l` today.
const LEGACY_KEY: &str = "RWQBAgMEBQYHCIfA3VmqMxYxQOwFAZ1UFAU4XaYWxyJ4KUon32fERBEI";
const LEGACY_SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
RWQBAgMEBQYHCJvZ14cr5IkPyEtw4xeYMqr8gtMVmRKKCVKQZwJIeSUMuGmXE6N63l7wK9e4QNp3LG2GLp9H9b+C3U2mm/NALA8=\n\
trusted comment: timestamp:1700000000\tfile:pack.toml\n\
hO5boClugPYUT1SXLtUtORzMlGBVIBWN58QTGi5kMlpfHDsZxsC2kWEVY/lqCrFEoxeq3GUNo1hszZX1YwQ0Cg==\n";
const LEGACY_MANIFEST: &str = r#"schema_version = 1

[pack]
id = "org.example.law"
name = "law"
version = "0.1.0"
kind = "expert"
description = "German law."
license = "Apache-2.0"

[abi]
version = "1.0.0"
opset = 1
target = "x86_64-unknown-linux-gnu"

[base]
fingerprint = "any"

[library]
file = "liblaw.so"
sha256 = "31f109ab38348582abdc9e1c9942f74505c719e98c6d0ab6fbcfdccfd8c9935b"
size = 9

[memory]
resident_bytes = { f32 = 0 }

[signer]
key_id = "old"
signature = "pack.toml.minisig"
"#;
