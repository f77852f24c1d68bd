//! What a process takes for a text that is longer than its window, on the base that pass keys are looked for with.

use serde_json::Value;
use system_tests::passkey_base;

use crate::program::{Ended, modularbase};

const NOVEL: &str = include_str!("../../../host/core/tests/data/novel.txt");

#[test]
fn a_text_of_32_thousand_tokens_takes_the_memory_of_one_of_8_thousand() {
    let folder = tempfile::tempdir().unwrap();
    let (text, config) = (folder.path().join("novel.txt"), folder.path().join("config.toml"));
    std::fs::write(&text, NOVEL.repeat(8)).unwrap();
    // At 8,192 tokens decoded blocks fill their memory already.
    let context = "hot_tokens = 1024\nram = \"16MiB\"\n";
    std::fs::write(&config, format!("schema_version = 1\n[context]\n{context}")).unwrap();
    let mut command = modularbase(["bench", "long-text", "--mixture", "none", "--decode-tokens", "8"]);
    command.arg("--base").arg(passkey_base()).arg("--config").arg(&config).arg("--text").arg(&text);
    command.args(["--lengths", "8192,32768"]).env("MODULARBASE_CACHE", folder.path().join("cache"));
    let figures = Ended::of(command).success().json();
    let bytes = |row: &Value, what: &str| row[what].as_u64().unwrap() as f64;
    let [short, long] = figures["rows"].as_array().unwrap().as_slice() else { panic!("{figures}") };
    assert_eq!((&short["tokens"], &long["tokens"]), (&8192.into(), &32768.into()));
    // Beside the ledger's bytes the process has the text's tokens, the tokenizer's words and what its allocator leaves free.
    for (what, most) in [("ledger_bytes", 1.05), ("peak_rss_bytes", 1.10)] {
        let (short, long) = (bytes(short, what), bytes(long, what));
        assert!(long < most * short, "{what}: {short} at 8,192 tokens, {long} at 32,768");
    }
    assert!(
        bytes(&long["context"], "disk_bytes") > 3.5 * bytes(&short["context"], "disk_bytes"),
        "{figures}"
    );
}
