//! `data`: recipes made from files of this machine, text counted and split, and what is refused.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::program::{Ended, modularbase, names, with_base};

fn with_cache(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = modularbase(arguments);
    command.env("MODULARBASE_CACHE", cache);
    command
}

/// Forty documents about different things, and the recipe that reads them.
fn recipe(folder: &Path) -> String {
    std::fs::create_dir(folder.join("texts")).unwrap();
    for number in 0..40 {
        let words: String = (0..50).map(|word| format!("w{} ", number * 1000 + word)).collect();
        std::fs::write(folder.join(format!("texts/{number:02}.txt")), words).unwrap();
    }
    let text = "schema_version = 1\n[recipe]\nname = \"mine\"\ndescription = \"My texts.\"\n\
                [split]\ntrain = 0.6\nval = 0.4\n\
                [source.notes]\ntitle = \"Notes\"\nlicense = \"CC0-1.0\"\nfrom.path = \"texts\"\nextract.text = {}\n";
    std::fs::write(folder.join("mine.toml"), text).unwrap();
    folder.join("mine.toml").to_str().unwrap().to_owned()
}

#[test]
fn a_recipe_is_made_counted_and_split_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, recipe) = (folder.path().join("cache"), recipe(folder.path()));
    let made = Ended::of(with_cache(&cache, &["data", "fetch", &recipe])).success();
    assert!(
        made.stdout.contains("mine was made: ") && made.stdout.contains("train.jsonl.zst"),
        "{}",
        made.stdout
    );
    let out = cache.join("data/mine");
    assert_eq!(names(&out), ["report.json", "train.jsonl.zst", "val.jsonl.zst"]);

    let elsewhere = folder.path().join("elsewhere");
    let arguments = ["data", "fetch", &recipe, "--out", elsewhere.to_str().unwrap(), "--json"];
    let json = Ended::of(with_cache(&cache, &arguments)).success().json();
    assert_eq!(json["report"]["sources"]["notes"]["documents"], 40);
    let train = elsewhere.join("train.jsonl.zst");
    assert_eq!(std::fs::read(&train).unwrap(), std::fs::read(out.join("train.jsonl.zst")).unwrap());

    // Without a base, tokens are not counted; with it, they are.
    let text = folder.path().join("texts");
    let bare = Ended::of(with_cache(&cache, &["data", "stats", text.to_str().unwrap(), "--json"])).success();
    assert!(bare.stderr.contains("tokens are not counted"), "{}", bare.stderr);
    assert_eq!(bare.json()["all"]["documents"], 40);
    assert!(bare.json()["all"].get("tokens").is_none());
    let counted = Ended::of(with_base(["data", "stats", train.to_str().unwrap(), "--json"])).success().json();
    assert!(counted["sources"]["Notes"]["tokens"].as_u64().unwrap() > 1000, "{counted}");

    let parts = folder.path().join("parts");
    let arguments = ["data", "split", text.to_str().unwrap(), "--out", parts.to_str().unwrap(), "--json"];
    let shares = ["--train", "0.5", "--val", "0.5", "--test", "0"];
    let split = Ended::of(modularbase([&arguments[..], &shares[..]].concat())).success().json();
    let documents: u64 = (0..2).map(|part| split["files"][part]["documents"].as_u64().unwrap()).sum();
    assert_eq!((documents, split["left_out"].as_u64()), (40, Some(0)));
    assert_eq!(names(&parts), ["train.jsonl.zst", "val.jsonl.zst"]);
}

#[test]
fn the_built_in_recipes_are_listed_and_shown() {
    let list = Ended::of(modularbase(["data", "list", "--json"])).success().json();
    for recipe in list.as_array().unwrap() {
        let name = recipe["name"].as_str().unwrap();
        let shown = Ended::of(modularbase(["data", "show", name])).success().stdout;
        assert!(shown.contains("SHA-256") && shown.contains("split: train"), "{shown}");
    }
    assert!(list.as_array().unwrap().len() >= 6);
}

#[test]
fn a_source_that_cannot_be_reached_is_named_with_what_failed_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let digest = "0".repeat(64);
    for (from, words) in [
        ("from.npm = { package = \"x\", version = \"1.0.0\" }", "none of `npm` answers"),
        ("from.pip = { package = \"x\", version = \"1.0.0\" }", "none of `python3 -m pip`, `pip3`"),
        (
            "from.hugging_face = { repo = \"a/b\", revision = \"main\", file = \"x.jsonl\" }",
            "can't download a/b/x.jsonl",
        ),
    ] {
        let text = format!(
            "schema_version = 1\n[recipe]\nname = \"r\"\ndescription = \"R.\"\n[source.far]\ntitle = \"F\"\n\
             license = \"MIT\"\nsha256 = \"{digest}\"\n{from}\nextract.records = {{}}\n"
        );
        let path = folder.path().join("r.toml");
        std::fs::write(&path, text).unwrap();
        let mut command = with_cache(folder.path(), &["data", "fetch", path.to_str().unwrap()]);
        command
            .env("PATH", "/nowhere")
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("HF_HOME", folder.path());
        let ended = Ended::of(command);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("the source `far`") && ended.stderr.contains(words),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains("help: "), "{}", ended.stderr);
    }
}

/// A hub with one file, whose first download breaks off half-way. Gives its address, and what ranges were asked for.
fn hub_with(content: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut downloads = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head: Vec<String> = BufReader::new(&stream)
                .lines()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            assert!(head[0].starts_with("GET /datasets/a/b/resolve/v1/part.jsonl "), "{head:?}");
            let range = head
                .iter()
                .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let range = range.unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let first: usize = first.parse().unwrap();
            let end = last.parse().map_or(content.len(), |last: usize| last + 1);
            told.lock().unwrap().push(range.clone());
            let size = content.len();
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\netag: \"e1\"\r\nx-repo-commit: c1\r\nconnection: close\r\n\
                 content-range: bytes {first}-{}/{size}\r\ncontent-length: {}\r\n\r\n",
                end - 1,
                end - first
            )
            .unwrap();
            let is_download = last.is_empty();
            downloads += usize::from(is_download);
            let end = if is_download && downloads == 1 { size / 2 } else { end };
            stream.write_all(&content[first..end]).unwrap();
        }
    });
    (address, asked)
}

#[test]
fn a_data_set_of_the_hub_whose_download_broke_off_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let content: String =
        (0..2000).map(|line| format!("{{\"text\": \"line {line} of a data set\"}}\n")).collect();
    let content = content.into_bytes();
    let half = content.len() / 2;
    let recipe = folder.path().join("r.toml");
    let text = format!(
        "schema_version = 1\n[recipe]\nname = \"r\"\ndescription = \"R.\"\n[source.far]\ntitle = \"F\"\n\
         license = \"MIT\"\nsha256 = \"{}\"\nfiles = [\"**\"]\nextract.records = {{}}\n\
         from.hugging_face = {{ repo = \"a/b\", revision = \"v1\", file = \"part.jsonl\" }}\n",
        manifests::Sha256::of_bytes(&content)
    );
    std::fs::write(&recipe, text).unwrap();
    let (address, asked) = hub_with(content);
    let out = folder.path().join("out");
    let fetch = || {
        let arguments = ["data", "fetch", recipe.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
        let mut command = with_cache(folder.path(), &arguments);
        command.env("HF_ENDPOINT", &address).env("HF_HOME", folder.path()).env_remove("HF_TOKEN");
        Ended::of(command)
    };
    let broken = fetch();
    assert_eq!(broken.code, Some(1), "{}", broken.stderr);
    assert!(broken.stderr.contains("can't download a/b/part.jsonl"), "{}", broken.stderr);
    assert!(broken.stderr.contains("say the same command again"), "{}", broken.stderr);

    let made = fetch().success().json();
    assert_eq!(made["report"]["sources"]["far"]["documents"], 2000);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["0-0".to_owned(), "0-".to_owned(), "0-0".to_owned(), format!("{half}-")]);
    // Nothing but what was verified is left.
    let left = names(&folder.path().join("downloads"));
    assert!(left.iter().all(|name| !name.starts_with(".unfinished")), "{left:?}");
}

#[test]
fn wrong_recipes_and_texts_are_refused_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let bad_recipe = path("r.toml", "schema_version = 1\n[recipe]\nname = \"r\"\n");
    let fields = path("fields.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\"}\n");
    let empty = path("empty.jsonl", "\n");
    for (arguments, words) in [
        (vec!["data", "show", "absent"], "there is no recipe `absent`"),
        (vec!["data", "fetch", &bad_recipe], "r.toml:2:1: missing field `description`"),
        (vec!["data", "stats", &fields], "fields.jsonl:2: the record has no text that is known here"),
        (vec!["data", "stats", &empty], "holds no document"),
        (
            vec!["data", "split", &fields, "--out", "/nowhere", "--near", "0.1"],
            "--near must lie between 0.5 and 1",
        ),
    ] {
        let ended = Ended::of(with_cache(folder.path(), &arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{arguments:?}: {}", ended.stderr);
    }
}
