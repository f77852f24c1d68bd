//! `bench routing`: what the router's choices are worth.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::program::{Ended, with_base};

const MEDICAL: &str = "The patient is a 64-year-old man with hypertension and type 2 diabetes who presented with exertional \
    dyspnea and bilateral leg edema. Echocardiography showed a left ventricular ejection fraction of 35 percent. ";
const SHELL: &str = "#!/bin/bash\nset -euo pipefail\nfor file in /var/log/*.log; do\n  gzip -9 \"$file\"\ndone\n\
    find /backup -name '*.tar.gz' -mtime +30 -print0 | xargs -0 rm -f\n";

/// One document of a domain, longer than a prompt and its continuation.
fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(format!("{name}.jsonl"));
    std::fs::write(&path, format!("{}\n", json!({ "text": text.repeat(12) }))).unwrap();
    format!("{name}={}", path.display())
}

fn bench(arguments: &[&str]) -> Ended {
    let packs = std::env::var_os("MODULARBASE_PACKS_DIR").map(PathBuf::from);
    let packs = packs.expect("MODULARBASE_PACKS_DIR names no folder of packs: run `cargo xtask test`");
    let packs = packs.display().to_string();
    Ended::of(with_base(["bench", "routing", "--packs-dir", &packs].iter().chain(arguments)))
}

#[test]
fn the_worth_of_choices_is_measured_beside_base_oracle_and_other_policies() {
    let folder = tempfile::tempdir().unwrap();
    let medical = written(folder.path(), "medical", MEDICAL);
    let shell = written(folder.path(), "shell", SHELL);
    let arguments =
        ["--text", &medical, "--text", &shell, "--mixed", "medical+shell", "--changing", "medical+shell"];
    let policies = ["--policy", "threshold=1.0", "--policy", "again_every=32"];
    let sizes = ["--texts", "1", "--prompt-tokens", "64", "--attention", "0"];
    let figures = bench(&[&arguments[..], &policies, &sizes].concat()).success().json();
    let measured = &figures["lengths"][0];
    assert_eq!((&measured["prompt_tokens"], &figures["continuation_tokens"]), (&64.into(), &256.into()));
    let loss =
        |texts: &str, column: &str| measured["texts"][texts]["loss"][column]["value"].as_f64().unwrap();
    for domain in ["medical", "shell"] {
        assert!((loss(domain, "threshold=1.0") - loss(domain, "base")).abs() < 1e-9, "no pack is so sure");
        assert_eq!(measured["texts"][domain]["right"]["routed"], 1.0, "{measured}");
    }
    assert!(loss("shell", "oracle") < loss("shell", "base"), "{measured}");
    let kept =
        |column: &str| measured["summary"][column]["share_of_the_oracles_gain"]["value"].as_f64().unwrap();
    assert!(kept("routed") > 0.9 && kept("threshold=1.0").abs() < 1e-9, "{measured}");
    assert_eq!(measured["texts"]["medical+shell"]["kind"], "mixed");
    let attended = loss("medical+shell", "both, attention 0") - loss("medical+shell", "both");
    assert!(attended.abs() < 1e-4, "attention that attends to nothing is the weighted sum: {measured}");
    let changing = &measured["texts"]["medical, then shell"];
    assert!(changing["changes"]["again_every=32"].as_u64().unwrap() >= 1, "{changing}");
    assert!(
        loss("medical, then shell", "again_every=32") < loss("medical, then shell", "routed"),
        "{changing}"
    );
    assert_eq!(measured["summary"]["routed"]["cost_on_general_text"], Value::Null, "there is none");
}

#[test]
fn what_is_no_policy_and_no_pair_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let medical = written(folder.path(), "medical", MEDICAL);
    let refused = |arguments: &[&str]| {
        let ended =
            bench(&[&["--text", &medical, "--texts", "1", "--prompt-tokens", "16"], arguments].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        ended.stderr
    };
    let said = refused(&["--policy", "topk=1"]);
    assert!(said.contains("--policy topk=1") && said.contains("KEY=VALUE"), "{said}");
    assert!(refused(&["--policy", "top_k=0"]).contains("top_k must be at least 1"));
    assert!(refused(&["--mixed", "medical+law"]).contains("both of them named by --text"));

    let nothing = folder.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    let without_packs = ["bench", "routing", "--text", &medical, "--packs-dir", nothing.to_str().unwrap()];
    let ended = Ended::of(with_base(without_packs));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("named as a registered pack (registered: none)"), "{}", ended.stderr);
}
