//! Data recipes: every refusal names the line, the column and the reason.

use manifests::{DataOrigin, DataRecipe, Extraction, Refusal};

const RECIPE: &str = r#"schema_version = 1

[recipe]
name = "law"
description = "Laws."

[clean]
min_bytes = 10
max_bytes = 100
near_duplicates = 0.7

[split]
train = 0.9
val = 0.1

[source.a]
title = "Laws 1.0"
license = "MIT"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
from.npm = { package = "@scope/laws", version = "1.0.0" }
files = ["data/*.json"]
extract.records = { text = "{title}\n{body}" }
group = "folder"
keep = 0.5

[source.b]
title = "More"
license = "CC0-1.0"
from.path = "more"
extract.text = { head = true }
only.language = ["", "de"]
"#;

fn refusal(from: &str, to: &str) -> Refusal {
    let text = RECIPE.replacen(from, to, 1);
    assert_ne!(text, RECIPE, "`{from}` is in the recipe");
    DataRecipe::parse(&text).unwrap_err().refusal().unwrap().clone()
}

#[test]
fn a_recipe_is_what_it_says_and_survives_being_written() {
    let recipe = DataRecipe::parse(RECIPE).unwrap();
    let (a, b) = (&recipe.source["a"], &recipe.source["b"]);
    assert_eq!(a.from.in_words(), "npm package @scope/laws 1.0.0");
    assert_eq!(b.from, DataOrigin::Path("more".into()));
    assert_eq!((b.files.as_slice(), &b.extract), (&["**".to_owned()][..], &Extraction::Text { head: true }));
    assert_eq!(recipe.split.as_ref().map(|split| (split.test, split.near_duplicates)), Some((0.0, 0.7)));
    assert_eq!(DataRecipe::parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
}

#[test]
fn faults_are_found_where_they_stand() {
    for (from, to, line, reason) in [
        ("description = \"Laws.\"", "description = \" \"", 5, "description is empty"),
        ("max_bytes = 100", "max_bytes = 5", 9, "max_bytes must be at least min_bytes (10), found 5"),
        ("near_duplicates = 0.7", "near_duplicates = 0.2", 10, "near_duplicates must lie between 0.5 and 1"),
        ("train = 0.9", "train = 0.0", 13, "train must be above 0"),
        ("val = 0.1", "val = -1.0", 14, "a share must be a number from 0 up, found -1"),
        ("title = \"Laws 1.0\"", "title = \"\"", 17, "title is empty"),
        ("keep = 0.5", "keep = 1.5", 24, "keep must lie above 0 and be at most 1, found 1.5"),
        ("@scope/laws", "../laws", 20, "`../laws` is no package of this kind of source"),
        ("@scope/laws", "--help", 20, "`--help` is no package"),
        ("1.0.0", "-r x", 20, "`-r x` is no version"),
        ("data/*.json", "/etc/*", 21, "`/etc/*` is no glob over relative paths"),
        ("{body}", "{body", 22, "leaves a brace open"),
        ("{body}", "{}", 22, "has empty braces"),
        ("{body}", "body}", 22, "closes a brace that was not opened"),
        ("text = \"{title}", "question = \"{title}", 22, "question and answer go together"),
        ("group = \"folder\"", "group = \"word\"", 23, "unknown variant `word`"),
        ("extract.text", "extract.pdf", 30, "unknown variant `pdf`"),
        ("head = true", "tail = true", 30, "unexpected keys in table: tail, available keys: head"),
        ("from.path = \"more\"", "from.path = \"\"", 29, "is no path of this kind of source"),
    ] {
        let refusal = refusal(from, to);
        assert_eq!(refusal.line, line, "{to}: {refusal}");
        assert!(refusal.message.contains(reason), "{to}: {refusal}");
    }
}

#[test]
fn sources_are_pinned_and_addresses_are_no_commands() {
    let digest = RECIPE.lines().find(|line| line.starts_with("sha256")).unwrap();
    let without = refusal(digest, "");
    assert_eq!(without.message, "the source has no sha256");
    assert!(without.help.unwrap().contains("the refusal of the fetch then says the right ones"));
    let npm = "from.npm = { package = \"@scope/laws\", version = \"1.0.0\" }";
    let git = |url: &str, commit: &str| format!("from.git = {{ url = \"{url}\", commit = \"{commit}\" }}");
    let hash = "0123456789".repeat(4);
    assert!(DataRecipe::parse(&RECIPE.replace(npm, &git("https://example.org/x", &hash))).is_ok());
    for (url, commit, reason) in [
        ("ext::sh -c x", hash.as_str(), "is no url"),
        ("--upload-pack=x", hash.as_str(), "is no url"),
        ("https://example.org/x", "main", "`main` is no commit"),
    ] {
        let refusal = refusal(npm, &git(url, commit));
        assert!(refusal.message.contains(reason), "{refusal}");
        assert_eq!(refusal.line, 20);
    }
}
