//! One source of a data recipe: a package, a commit, a data set or a local path, and what of it is text.

use std::collections::BTreeMap;

use crate::document::Problem;
use crate::names::RelativePath;
use crate::sha256::Sha256;
use crate::string_type::quoted;

/// `[source.NAME]`: where text comes from and how it is taken out.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// What its documents name as their source.
    pub title: String,
    /// SPDX expression or a few words: the licence of the text.
    pub license: String,
    /// SHA-256 of the package file; of a commit or a folder, that of its list of files (`sha256sum` of each, sorted by
    /// path). Only a local path may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Where it is.
    pub from: DataOrigin,
    /// Which files are read: globs over paths inside the package, without the folder that packages put around all.
    #[serde(default = "every_file", skip_serializing_if = "is_every_file")]
    pub files: Vec<String>,
    /// Which of these are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// How text is taken out of a file.
    pub extract: Extraction,
    /// Only documents whose field has one of these values; an empty value stands for an absent field. Fields are those
    /// of records and of the head of a text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, Vec<String>>,
    /// What belongs together when documents are split.
    #[serde(default, skip_serializing_if = "is_document")]
    pub group: Grouping,
    /// The share of groups that is kept (above 0, up to 1), chosen by their names; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<f64>,
}

/// Where a source is. Packages are fetched by the user's own client programs, which know the registry, the proxies and
/// the certificates that hold on the machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataOrigin {
    /// A wheel, by pip.
    Pip {
        /// Name of the package.
        package: String,
        /// Its exact version.
        version: String,
    },
    /// A package, by npm.
    Npm {
        /// Name of the package, with its scope.
        package: String,
        /// Its exact version.
        version: String,
    },
    /// A crate, by cargo.
    Cargo {
        /// Name of the crate.
        package: String,
        /// Its exact version.
        version: String,
    },
    /// A binary package, by apt.
    Debian {
        /// Name of the package.
        package: String,
        /// Its exact version.
        version: String,
    },
    /// A commit, by git.
    Git {
        /// Address of the repository, or its folder on this machine.
        url: String,
        /// The commit's full hash.
        commit: String,
    },
    /// A file of a data set on the Hugging Face hub.
    HuggingFace {
        /// `owner/name`.
        repo: RelativePath,
        /// Branch, tag or commit.
        revision: String,
        /// Path of the file in the data set.
        file: RelativePath,
    },
    /// A file or folder on this machine; relative to the recipe's own folder.
    Path(String),
}

/// How text is taken out of a file. Files that end in `.gz` or `.zst` are unpacked first.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Extraction {
    /// The file is a document: prose, source code.
    Text {
        /// Whether the file begins with lines between two lines of `---`; they are cut off, and `only` looks at their
        /// `key: value` lines.
        #[serde(default)]
        head: bool,
    },
    /// JSON: an object a line (`.jsonl`), or one value (`.json`) that is a record or a list of records.
    Records(RecordFields),
    /// XML or HTML: the text of its elements.
    Markup {
        /// Each outermost element of this name is a document; absent: the file is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        element: Option<String>,
        /// Elements that are left out with all that they hold, besides `script`, `style` and `head`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skip: Vec<String>,
        /// Elements that stand within a line, besides those of HTML; others are paragraphs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        inline: Vec<String>,
        /// Elements that are a line each, besides those of HTML.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lines: Vec<String>,
    },
    /// A manual page in `man` or `mdoc` form.
    ManPage {},
}

/// Which fields of a record are its document. Each is a template: `{name}` stands for the field of that name (`{a.b}`
/// for a field of a field, or of each object of a list; a list is joined by line ends), everything else for itself. Without any of them the record
/// is read as the trainer reads JSONL: by `text`, `messages`, `instruction` and `output`, or `question` and `answer`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct RecordFields {
    /// Running text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What is asked; goes with `answer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// What is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The document's id; absent: the file's path and the record's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The document's group; stands above the source's `group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where in a `.json` file the records are: a JSON pointer such as `/data`. With `/*` at its end: the values of the
    /// object there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// What belongs together when documents are split.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Each document is a group.
    #[default]
    Document,
    /// All of a file.
    File,
    /// All of a folder.
    Folder,
    /// All of the source.
    Source,
}

fn every_file() -> Vec<String> {
    vec!["**".to_owned()]
}

fn is_every_file(globs: &[String]) -> bool {
    globs == ["**"]
}

fn is_document(group: &Grouping) -> bool {
    *group == Grouping::Document
}

impl DataOrigin {
    /// The source in words: `npm package chinese-poetry 2.0.1`.
    pub fn in_words(&self) -> String {
        match self {
            Self::Pip { package, version } => format!("Python package {package} {version}"),
            Self::Npm { package, version } => format!("npm package {package} {version}"),
            Self::Cargo { package, version } => format!("crate {package} {version}"),
            Self::Debian { package, version } => format!("Debian package {package} {version}"),
            Self::Git { url, commit } => format!("commit {} of {url}", commit.get(..12).unwrap_or(commit)),
            Self::HuggingFace { repo, revision, file } => format!("data set {repo} at {revision}, {file}"),
            Self::Path(path) => path.clone(),
        }
    }

    fn problems(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut problems = Vec::new();
        let mut word = |key: &'static str, text: &str, is_right: bool, help: &'static str| {
            if !is_right {
                problems.push((key, format!("{} is no {key} of this kind of source", quoted(text)), help));
            }
        };
        const EXACT: &str = "write the exact name and version that the client program takes";
        match self {
            Self::Npm { package, version } => {
                let bare = package.strip_prefix('@').unwrap_or(package);
                let parts = if package.starts_with('@') { 2 } else { 1 };
                let is_right = bare.split('/').count() == parts && bare.split('/').all(is_word);
                word("package", package, is_right, EXACT);
                word("version", version, is_word(version), EXACT);
            }
            Self::Pip { package, version }
            | Self::Cargo { package, version }
            | Self::Debian { package, version } => {
                word("package", package, is_word(package), EXACT);
                word("version", version, is_word(version), EXACT);
            }
            Self::Git { url, commit } => {
                let schemes = ["https://", "ssh://", "file://", "/"];
                let is_address = schemes.iter().any(|scheme| url.starts_with(scheme))
                    && !url.chars().any(|c| c.is_control() || c.is_whitespace());
                word("url", url, is_address, "write https://, ssh://, file:// or an absolute path");
                let is_hash =
                    matches!(commit.len(), 40 | 64) && commit.chars().all(|c| c.is_ascii_hexdigit());
                word("commit", commit, is_hash, "write the full hash that `git rev-parse HEAD` prints");
            }
            Self::HuggingFace { repo, revision, file: _ } => {
                let is_repo = repo.as_str().split('/').count() == 2 && repo.as_str().split('/').all(is_word);
                word("repo", repo.as_str(), is_repo, "write it as `owner/name`");
                word("revision", revision, is_word(revision), "write a branch, tag or commit");
            }
            Self::Path(path) => {
                let is_right = !path.is_empty() && !path.chars().any(char::is_control);
                word("path", path, is_right, "write a path from the recipe's folder, or an absolute one");
            }
        }
        problems
    }
}

impl DataSource {
    pub(crate) fn problems(&self, at: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |keys: &[&str], message: String| {
            problems.push(Problem::new(&[at, keys].concat(), message));
        };
        for (key, text) in [("title", &self.title), ("license", &self.license)] {
            if text.trim().is_empty() {
                problem(&[key], format!("{key} is empty"));
            }
        }
        for (key, globs) in [("files", &self.files), ("exclude", &self.exclude)] {
            for pattern in globs {
                if pattern.is_empty() || pattern.starts_with('/') || pattern.contains("***") {
                    problem(&[key], format!("{} is no glob over relative paths", quoted(pattern)));
                }
            }
        }
        if self.files.is_empty() {
            problem(&["files"], "files is empty: nothing would be read".into());
        }
        if let Some(keep) = self.keep.filter(|keep| !(*keep > 0.0 && *keep <= 1.0)) {
            problem(&["keep"], format!("keep must lie above 0 and be at most 1, found {keep}"));
        }
        if let Extraction::Records(fields) = &self.extract {
            if fields.question.is_some() != fields.answer.is_some() {
                problem(&["extract"], "question and answer go together".into());
            }
            if fields.text.is_some() && fields.question.is_some() {
                problem(&["extract"], "a record is either text or a question with its answer".into());
            }
            let templates = [&fields.text, &fields.question, &fields.answer, &fields.id, &fields.group];
            for template in templates.into_iter().flatten() {
                if let Err(why) = template_is_sound(template) {
                    problem(&["extract"], format!("the template {} {why}", quoted(template)));
                }
            }
            if let Some(pointer) = fields.at.as_deref().filter(|at| !at.is_empty() && !at.starts_with('/')) {
                problem(
                    &["extract"],
                    format!("at is {}, no JSON pointer: it begins with /", quoted(pointer)),
                );
            }
        }
        for (key, message, help) in self.from.problems() {
            problems.push(Problem::new(&[at, &["from", key]].concat(), message).help(help));
        }
        if self.sha256.is_none() && !matches!(self.from, DataOrigin::Path(_)) {
            let problem = Problem::new(at, "the source has no sha256");
            problems
                .push(problem.help("write any 64 digits; the refusal of the fetch then says the right ones"));
        }
        problems
    }
}

fn template_is_sound(template: &str) -> Result<(), &'static str> {
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        if rest[at..].starts_with('}') {
            return Err("closes a brace that was not opened");
        }
        let Some(end) = rest[at + 1..].find(['{', '}']) else { return Err("leaves a brace open") };
        if end == 0 {
            return Err("has empty braces");
        }
        if !rest[at + 1 + end..].starts_with('}') {
            return Err("opens a brace within braces");
        }
        rest = &rest[at + 1 + end + 1..];
    }
    Ok(())
}

/// Safe as an argument of a client program and as a part of a path or address: never an option, never a path upwards.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '~' | ':');
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    starts_well && text.len() <= 128 && text.chars().all(allowed)
}
