//! Recipes over sources of this machine: what they give, what is not done twice, and what is refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifests::{DataRecipe, Sha256};
use modularbase_corpus::recipe::{Hub, REPORT_FILE, RecipeError, RecipeMaker, RecipeReport, make_recipe};
use modularbase_corpus::{Body, Document, read_documents};
use tempfile::TempDir;

/// A hub that nobody reaches.
struct NoHub;

impl Hub for NoHub {
    fn download(&self, repo: &str, _: &str, file: &str, _: &Path) -> Result<PathBuf, String> {
        Err(format!("can't reach the hub for {repo}/{file}"))
    }
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn make(&self, sources: &str) -> Result<(RecipeReport, bool), RecipeError> {
        self.make_with(&NoHub, sources)
    }

    fn make_with(&self, hub: &dyn Hub, sources: &str) -> Result<(RecipeReport, bool), RecipeError> {
        let text =
            format!("schema_version = 1\n[recipe]\nname = \"test\"\ndescription = \"A test.\"\n{sources}");
        let recipe = DataRecipe::parse(&text).unwrap();
        let maker = RecipeMaker {
            downloads: self.path("downloads"),
            recipe_folder: self.folder.path().to_path_buf(),
            hub,
            progress: &(),
        };
        make_recipe(&recipe, &self.path("out"), &maker)
    }

    fn documents(&self, file: &str) -> Vec<Document> {
        read_documents(&self.path("out").join(file), None).unwrap().map(Result::unwrap).collect()
    }

    fn names_in_out(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("out")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn texts(documents: &[Document]) -> Vec<&str> {
    documents.iter().flat_map(|document| document.body.pieces()).collect()
}

const SOURCE: &str = "title = \"T\"\nlicense = \"MIT\"\n";

#[test]
fn every_kind_of_file_gives_its_documents() {
    let place = Place::new();
    place.write("a/eins.txt", "Eins\r\n\n\n\nzwei\u{7}\n");
    place.write("a/kopie.txt", "Eins\n\nzwei");
    place.write("a/tief/drei.txt", "drei");
    place.write("a/latin.txt", b"\xe4");
    place.write("a/skip.md", "nicht");
    place.write(
        "b/list.json",
        r#"{"data": [{"q": "2+2?", "a": "4", "lang": "de"}, {"q": "x", "a": "y", "lang": "en"}]}"#,
    );
    place.write(
        "c/page.html",
        "<html><head><title>t</title></head><body><h1>Kopf</h1><p>Ein &amp;<br>zwei</body>",
    );
    place.write("d/x.1", ".TH X 1\n.SH NAME\nx \\- nichts\n");
    place.write("e/text.jsonl", "{\"text\": \"zeile\", \"license\": \"CC0-1.0\", \"id\": \"z\"}\n\n");
    let (report, was_there) = place
        .make(&format!(
            "[source.a]\n{SOURCE}from.path = \"a\"\nfiles = [\"**/*.txt\"]\nextract.text = {{}}\ngroup = \"folder\"\n\
             [source.b]\n{SOURCE}from.path = \"b\"\nonly.lang = [\"de\"]\n\
             extract.records = {{ at = \"/data\", question = \"Frage: {{q}}\", answer = \"{{a}}\" }}\n\
             [source.c]\n{SOURCE}from.path = \"c/page.html\"\nextract.markup = {{}}\n\
             [source.d]\n{SOURCE}from.path = \"d\"\nextract.man_page = {{}}\n\
             [source.e]\n{SOURCE}from.path = \"e\"\nextract.records = {{}}\n"
        ))
        .unwrap();
    assert!(!was_there);
    let documents = place.documents("all.jsonl.zst");
    assert_eq!(
        texts(&documents),
        [
            "Eins\n\nzwei",
            "drei",
            "Frage: 2+2?",
            "4",
            "Kopf\n\nEin &\nzwei",
            "X(1)\n\nNAME\nx - nichts",
            "zeile"
        ]
    );
    assert_eq!(documents[1].id, "a/tief/drei.txt");
    assert_eq!((documents[1].group.as_deref(), documents[1].source.as_deref()), (Some("a/tief"), Some("T")));
    assert!(matches!(documents[2].body, Body::Conversation(_)));
    assert_eq!((documents[5].id.as_str(), documents[5].license.as_deref()), ("z", Some("CC0-1.0")));
    let a = &report.sources["a"];
    assert_eq!((a.files, a.matching, a.unreadable, a.documents), (5, 4, 1, 2));
    assert_eq!(a.left_out.get("a copy"), Some(&1));
    assert_eq!(report.sources["b"].left_out.get("not asked for"), Some(&1));
    assert_eq!(report.files[0].documents, 6);
    assert_eq!(place.names_in_out(), ["all.jsonl.zst", REPORT_FILE]);
}

#[test]
fn a_recipe_is_made_once_and_again_when_a_file_is_not_what_it_was() {
    let place = Place::new();
    let path = place.write("t.txt", "Text");
    let digest = Sha256::of_file(&path).unwrap().0;
    let pinned =
        format!("[source.a]\n{SOURCE}sha256 = \"{digest}\"\nfrom.path = \"t.txt\"\nextract.text = {{}}\n");
    assert!(!place.make(&pinned).unwrap().1);
    let (first, was_there) = place.make(&pinned).unwrap();
    assert!(was_there);
    place.write("out/all.jsonl.zst", "broken");
    let (again, was_there) = place.make(&pinned).unwrap();
    assert!(!was_there);
    assert_eq!(again, first, "the same recipe gives the same bytes");
    assert!(!place.make(&pinned.replace("\"T\"", "\"U\"")).unwrap().1, "another recipe");
    let unpinned = format!("[source.a]\n{SOURCE}from.path = \"t.txt\"\nextract.text = {{}}\n");
    place.make(&unpinned).unwrap();
    assert!(!place.make(&unpinned).unwrap().1, "nobody knows whether an unpinned file changed");
}

#[test]
fn documents_are_split_as_the_recipe_says() {
    let place = Place::new();
    for number in 0..60 {
        let words: String = (0..40).map(|word| format!("w{} ", number * 1000 + word)).collect();
        place.write(&format!("t/{number}.txt"), words);
    }
    let source = format!("[source.a]\n{SOURCE}from.path = \"t\"\nextract.text = {{}}\n");
    let (report, _) = place.make(&format!("[split]\ntrain = 0.7\nval = 0.3\n{source}")).unwrap();
    assert_eq!(place.names_in_out(), [REPORT_FILE, "train.jsonl.zst", "val.jsonl.zst"]);
    let (train, val) = (place.documents("train.jsonl.zst"), place.documents("val.jsonl.zst"));
    assert_eq!(train.len() + val.len(), 60);
    assert!(val.len() > 8 && val.len() < 30, "{}", val.len());
    assert_eq!(report.files.iter().map(|file| file.documents).sum::<u64>(), 60);
    let kept = format!("{source}keep = 0.5\n");
    let (half, _) = place.make(&kept).unwrap();
    assert!((15..45).contains(&half.files[0].documents));
}

/// A gzipped tar as npm and cargo make them.
fn tar_gzip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in files {
        zip.start_file(*name, stored).unwrap();
        std::io::Write::write_all(&mut zip, content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn what_was_fetched_and_verified_is_not_fetched_again() {
    let place = Place::new();
    let npm =
        tar_gzip(&[("package/data/a.json", r#"[{"text": "aus npm"}]"#), ("package/README.md", "nicht")]);
    let wheel = zip(&[("p/a.txt", "aus dem Rad"), ("p/b.py", "nicht")]);
    let mut digests = Vec::new();
    for package in [&npm, &wheel] {
        digests.push(Sha256::of_bytes(package));
        place.write(&format!("downloads/{}", digests.last().unwrap()), package);
    }
    place.write("downloads/.unfinished-x/part", "left by one that was killed");
    let sources = format!(
        "[source.a]\n{SOURCE}sha256 = \"{}\"\nfrom.npm = {{ package = \"@absent/absent\", version = \"0.0.0\" }}\n\
         files = [\"data/*.json\"]\nextract.records = {{}}\n\
         [source.b]\n{SOURCE}sha256 = \"{}\"\nfrom.pip = {{ package = \"absent\", version = \"0.0.0\" }}\n\
         files = [\"p/*.txt\"]\nextract.text = {{}}\n",
        digests[0], digests[1]
    );
    place.make(&sources).unwrap();
    assert_eq!(texts(&place.documents("all.jsonl.zst")), ["aus npm", "aus dem Rad"]);
    assert!(!place.path("downloads/.unfinished-x").exists());
}

/// A hub that goes on with whatever part it finds, as the real one does, and breaks off at first.
struct BreaksOff {
    content: &'static [u8],
    calls: AtomicUsize,
}

impl Hub for BreaksOff {
    fn download(&self, _: &str, _: &str, file: &str, folder: &Path) -> Result<PathBuf, String> {
        let path = folder.join(file);
        let mut bytes = std::fs::read(&path).unwrap_or_default();
        let breaks_off = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
        let end = if breaks_off { self.content.len() / 2 } else { self.content.len() };
        bytes.extend(self.content.get(bytes.len()..end).unwrap_or_default());
        std::fs::write(&path, bytes).unwrap();
        if breaks_off { Err("it broke off".into()) } else { Ok(path) }
    }
}

#[test]
fn a_download_of_the_hub_is_gone_on_with_and_begun_anew_where_its_part_was_damaged() {
    let content = b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    let digest = Sha256::of_bytes(content);
    let sources = format!(
        "[source.a]\n{SOURCE}sha256 = \"{digest}\"\nfiles = [\"**\"]\nextract.records = {{}}\n\
         from.hugging_face = {{ repo = \"a/b\", revision = \"main\", file = \"x.jsonl\" }}\n"
    );
    for (is_damaged, calls) in [(false, 2), (true, 3)] {
        let place = Place::new();
        let hub = BreaksOff { content, calls: AtomicUsize::new(0) };
        place.make_with(&hub, &sources).unwrap_err();
        let part = place.path(&format!("downloads/.unfinished-{digest}/x.jsonl"));
        assert_eq!(std::fs::read(&part).unwrap(), content[..content.len() / 2]);
        if is_damaged {
            place.write(&format!("downloads/.unfinished-{digest}/x.jsonl"), b"{ damaged");
        }
        place.make_with(&hub, &sources).unwrap();
        assert_eq!(texts(&place.documents("all.jsonl.zst")), ["one", "two"]);
        assert_eq!(hub.calls.load(Ordering::Relaxed), calls);
        assert!(!part.parent().unwrap().exists());
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").arg("-C").arg(folder).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_commit_is_fetched_by_its_hash_and_checked_by_its_files() {
    let place = Place::new();
    place.write("repository/texts/a.txt", "alt");
    let repository = place.path("repository");
    git(&repository, &["init", "-q"]);
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-q", "-m", "first"]);
    let commit = git(&repository, &["rev-parse", "HEAD"]);
    place.write("repository/texts/a.txt", "neu");
    git(&repository, &["commit", "-q", "-a", "-m", "second"]);
    let digest = Sha256::of_bytes(format!("{}  texts/a.txt\n", Sha256::of_bytes(b"alt")).as_bytes());
    let source = |url: &str, digest: Sha256| {
        format!(
            "[source.a]\n{SOURCE}sha256 = \"{digest}\"\nfrom.git = {{ url = \"{url}\", commit = \"{commit}\" }}\n\
             extract.text = {{}}\n"
        )
    };
    let url = format!("file://{}", repository.display());
    place.make(&source(&url, digest)).unwrap();
    assert_eq!(texts(&place.documents("all.jsonl.zst")), ["alt"]);
    std::fs::remove_dir_all(&repository).unwrap();
    std::fs::remove_dir_all(place.path("out")).unwrap();
    place.make(&source(&url, digest)).unwrap();

    // The same commit with another digest is not there, and the repository is gone.
    let error = place.make(&source(&url, Sha256::of_bytes(b"x"))).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with(&format!("the source `a` (commit {} of file://", &commit[..12])), "{said}");
    assert!(said.contains("`git -C ") && said.contains("failed (exit status: 128)"), "{said}");
    assert!(error.help().unwrap().contains("check the network"));
    assert!(!place.path("out").join(REPORT_FILE).exists());
    let left = std::fs::read_dir(place.path("downloads")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with(".unfinished")), "{left:?}");
}

#[test]
fn what_is_another_package_than_the_recipe_says_is_refused_with_both_digests() {
    let place = Place::new();
    place.write("t.txt", "Text");
    let expected = Sha256::of_bytes(b"another text");
    let sources =
        format!("[source.a]\n{SOURCE}sha256 = \"{expected}\"\nfrom.path = \"t.txt\"\nextract.text = {{}}\n");
    let error = place.make(&sources).unwrap_err();
    let found = Sha256::of_bytes(b"Text");
    assert_eq!(
        error.to_string(),
        format!("the source `a` (t.txt) can't be had: its SHA-256 is {found}, the recipe says {expected}")
    );
    assert!(error.help().unwrap().contains("not the one that the recipe was written for"));
}

#[test]
fn sources_that_give_nothing_say_which_and_why() {
    let place = Place::new();
    place.write("t/a.txt", "Text");
    place.write("t/bad.json", "{");
    let said = |rest: &str| place.make(&format!("[source.a]\n{SOURCE}{rest}")).unwrap_err().to_string();
    let error = said("from.path = \"absent\"\nextract.text = {}\n");
    assert!(
        error.contains("the source `a` (absent) can't be had: ") && error.contains("No such file"),
        "{error}"
    );
    let error = said("from.path = \"t\"\nfiles = [\"*.md\"]\nextract.text = {}\n");
    assert!(
        error.ends_with("no file in it gives a document: 2 files, 0 of them match the recipe's globs"),
        "{error}"
    );
    let error = said("from.path = \"t\"\nfiles = [\"*.json\"]\nextract.records = {}\n");
    assert!(error.contains("can't be had: bad.json: EOF while parsing"), "{error}");
    let error = said("from.path = \"t\"\nfiles = [\"a.txt\"]\nextract.text = {}\nonly.x = [\"y\"]\n");
    assert_eq!(error, "the recipe gives no document: of 1 none was kept");
    let error = said("from.path = \"t\"\nfiles = [\"[\"]\nextract.text = {}\n");
    assert!(error.contains("the glob `[` is not sound"), "{error}");
    let digest = Sha256::of_bytes(b"x");
    let error = said(&format!(
        "sha256 = \"{digest}\"\nfrom.hugging_face = {{ repo = \"a/b\", revision = \"main\", file = \"x.jsonl\" }}\n\
         extract.records = {{}}\n"
    ));
    assert!(
        error.ends_with("(data set a/b at main, x.jsonl) can't be had: can't reach the hub for a/b/x.jsonl")
    );
}
