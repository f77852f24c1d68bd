//! `packs`: what is in the folder, what speaks against it, and the table of a verification.

use std::path::{Path, PathBuf};

use fixture_packs::{Fixture, lay_out, lay_out_with};
use manifests::{BaseFingerprint, Dtype, PackKind, PackManifest};
use serde_json::Value;

use crate::program::{Ended, with_base};

fn verify(dir: &Path) -> (Ended, Value) {
    let ended =
        Ended::of(with_base(["packs".as_ref(), "verify".as_ref(), "--json".as_ref(), dir.as_os_str()]));
    let table = ended.json();
    (ended, table)
}

/// How a check of the table ended, and what it says.
fn check<'a>(table: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = table["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no `{name}`: {table}"));
    (check["status"].as_str().unwrap(), check["detail"].as_str().unwrap())
}

fn damage(library: PathBuf) {
    let mut bytes = std::fs::read(&library).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(library, bytes).unwrap();
}

#[test]
fn the_list_shows_what_is_usable_and_why_the_rest_is_not() {
    let packs = tempfile::tempdir().unwrap();
    let general = lay_out("general", packs.path());
    damage(lay_out("scaled", packs.path()).join("libfixture_scaled.so"));
    let list = |json: &[&str]| {
        let arguments = ["packs", "list", "--packs-dir", packs.path().to_str().unwrap()];
        Ended::of(with_base(arguments.iter().chain(json))).success()
    };
    let listed = list(&["--json"]).json();
    let of = |name: &str| listed.as_array().unwrap().iter().find(|pack| pack["name"] == name).unwrap();
    assert_eq!((&of("general")["state"], &of("general")["kind"]), (&"registered".into(), &"general".into()));
    assert_eq!(of("general")["generation"].as_str().unwrap().len(), 64);
    assert_eq!(of("scaled")["state"], "quarantined");
    assert!(of("scaled")["reason"].as_str().unwrap().contains("SHA-256"), "{listed}");
    let table = list(&[]).stdout;
    assert!(table.starts_with("NAME ") && table.contains("quarantined: "), "{table}");

    let show = ["packs", "show", "general", "--packs-dir", packs.path().to_str().unwrap()];
    assert!(Ended::of(with_base(show)).success().stdout.contains("org.modularbase.general"));
    let inspect =
        Ended::of(with_base(["packs", "inspect", "--json", general.to_str().unwrap()])).success().json();
    assert_eq!(inspect["library"]["note"]["abi_major"], 1);
    let library =
        Ended::of(with_base(["packs", "inspect", general.join("libpack_general.so").to_str().unwrap()]));
    assert!(library.success().stdout.contains("ABI"));
}

#[test]
fn the_general_pack_passes_every_check_and_answers_as_the_base_does() {
    let packs = tempfile::tempdir().unwrap();
    let general = lay_out("general", packs.path());
    let (ended, table) = verify(&general);
    assert_eq!(ended.code, Some(0), "{table:#}");
    assert_eq!(table["passed"], true);
    for name in [
        "manifest", "hashes", "base", "elf", "abi note", "layout", "build", "unload", "cycles", "graph",
        "forward",
    ] {
        assert_eq!(check(&table, name).0, "pass", "{name}");
    }
    assert_eq!(check(&table, "effect"), ("pass", "same as the base, by design"));

    let answer = |mixture: &str| {
        let arguments = ["run", "Hello", "--greedy", "--max-tokens", "8", "--json", "--mixture", mixture];
        let folder = ["--packs-dir", packs.path().to_str().unwrap()];
        Ended::of(with_base(arguments.iter().chain(&folder))).success().json()
    };
    let (with_pack, without) = (answer("general=1"), answer("none"));
    assert_eq!(with_pack["token_ids"], without["token_ids"]);
    assert_eq!(with_pack["mixture"][0]["pack"], "general");
    assert_eq!(with_pack["memory"]["packs"], serde_json::json!([{ "pack": "general", "resident_bytes": 0 }]));
}

#[test]
fn a_pack_with_an_effect_passes_and_bad_ones_fail_at_the_check_that_is_about_them() {
    let packs = tempfile::tempdir().unwrap();
    let (ended, table) = verify(&lay_out("scaled", packs.path()));
    assert_eq!(ended.code, Some(0), "{table:#}");
    assert!(check(&table, "effect").1.contains("moves the hidden states"), "{table:#}");

    let damaged = lay_out("general", packs.path());
    damage(damaged.join("libpack_general.so"));
    for (folder, failed, words) in [
        (damaged, "hashes", "SHA-256"),
        (lay_out("panics", packs.path()), "build", "panicked"),
        (lay_out("exits", packs.path()), "build", "ended the process"),
        (lay_out("cyclic", packs.path()), "build", "cycl"),
        (lay_out("lies-about-bytes", packs.path()), "forward", "resident bytes"),
    ] {
        let (ended, table) = verify(&folder);
        assert_eq!((ended.code, &table["passed"]), (Some(4), &Value::Bool(false)), "{}", folder.display());
        let (status, detail) = check(&table, failed);
        assert!(status == "fail" && detail.contains(words), "{}: {table:#}", folder.display());
        assert_eq!(check(&table, "effect").0, "skip");
    }
    let none = Ended::of(with_base(["packs".as_ref(), "verify".as_ref(), packs.path().as_os_str()]));
    assert_eq!((none.code, none.stdout.as_str()), (Some(2), ""));
    assert!(none.stderr.contains("holds no pack.toml"), "{}", none.stderr);
}

#[test]
fn pack_without_effect_fails_verification() {
    let packs = tempfile::tempdir().unwrap();
    // An expert that is nothing but the base's own layers.
    let folder = lay_out_with("general", packs.path(), |manifest| manifest.pack.kind = PackKind::Expert);
    let (ended, table) = verify(&folder);
    assert_eq!((ended.code, &table["passed"]), (Some(4), &Value::Bool(false)), "{table:#}");
    assert_eq!(check(&table, "forward").0, "pass", "nothing else speaks against it: {table:#}");
    let (status, detail) = check(&table, "effect");
    assert_eq!(status, "fail");
    assert!(detail.contains("none: its hidden states are those of the base's own layers"), "{detail}");
    let said = Ended::of(with_base(["packs".as_ref(), "verify".as_ref(), folder.as_os_str()]));
    assert_eq!(said.code, Some(4));
    assert!(said.stdout.contains("effect") && said.stdout.contains("train it"), "{}", said.stdout);
}

#[test]
fn a_verification_waits_for_its_pack_however_little_time_requests_have() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("modularbase")).unwrap();
    let hasty = "schema_version = 1\npacks = { admission_wait_ms = 0 }\n";
    std::fs::write(folder.path().join("modularbase/config.toml"), hasty).unwrap();
    let pack = lay_out("scaled", folder.path());
    let mut command = with_base(["packs", "verify", "--json", pack.to_str().unwrap()]);
    command.env("XDG_CONFIG_HOME", folder.path());
    let table = Ended::of(command).success().json();
    assert_eq!(check(&table, "effect").0, "pass", "{table:#}");
}

#[test]
fn a_packs_weights_go_into_another_format_and_its_manifest_with_them() {
    let packs = tempfile::tempdir().unwrap();
    let folder = Fixture::of("own-slot").owning_everything().lay_out(packs.path());
    let manifest = || PackManifest::read(&folder.join("pack.toml")).unwrap();
    let quantize = |to: &str, more: &[&str]| {
        let mut arguments = vec!["packs", "quantize", folder.to_str().unwrap(), "--json", "--to", to];
        arguments.extend(more);
        Ended::of(with_base(arguments))
    };
    assert_eq!(manifest().base.fingerprint, BaseFingerprint::Any);

    // Elsewhere, the pack stays as it is.
    let before = manifest();
    let elsewhere = packs.path().join("out.safetensors");
    let told = quantize("delta-q1", &["--out", elsewhere.to_str().unwrap()]).success().json();
    assert_eq!(told["bytes"], std::fs::metadata(&elsewhere).unwrap().len());
    assert_eq!(manifest(), before);

    let told = quantize("delta-q3", &[]).success().json();
    let kind = |kind: &str| &told["kinds"][kind];
    assert_eq!(kind("ffn_down")["dtypes"], serde_json::json!(["delta-q3"]));
    assert_eq!(kind("attn_norm")["dtypes"], serde_json::json!(["f32"]));
    assert_eq!(
        (&kind("attn_norm")["relative_error"], &kind("attn_norm")["lost_delta"]),
        (&0.0.into(), &Value::Null)
    );
    let lost = kind("attn_q")["lost_delta"].as_f64().unwrap();
    assert!(lost > 0.01 && lost < 0.05, "{told:#}");
    let now = manifest();
    let weights = now.weights.as_ref().unwrap();
    assert_eq!((weights.dtype, told["bytes"].as_u64()), (Dtype::DeltaQ3, Some(weights.size)));
    assert!(matches!(now.base.fingerprint, BaseFingerprint::Exact(_)));
    assert!(now.memory.resident_bytes.contains_key(&Dtype::DeltaQ3));
    let (ended, table) = verify(&folder);
    assert_eq!(ended.code, Some(0), "{table:#}");

    // And to whole values; what was lost before is not lost again.
    let told = quantize("bf16", &[]).success().json();
    assert!(told["relative_error"].as_f64().unwrap() < 0.003 && told["lost_delta"].is_null(), "{told:#}");
    assert_eq!(manifest().weights.unwrap().dtype, Dtype::Bf16);
    let (ended, table) = verify(&folder);
    assert_eq!(ended.code, Some(0), "{table:#}");

    let refused = quantize("q4_k", &[]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("packs can't be stored as `q4_k`"), "{}", refused.stderr);
    let general = lay_out("general", packs.path());
    let refused = Ended::of(with_base(["packs", "quantize", general.to_str().unwrap(), "--to", "bf16"]));
    assert_eq!(refused.code, Some(4));
    assert!(refused.stderr.contains("names no weights file"), "{}", refused.stderr);
}
