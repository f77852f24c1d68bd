//! `pack new`: a pack's repository from the template that also serves `cargo generate`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, bail};
use manifests::{PackId, PackName};

/// Path in the new folder and text of every file of the template, compiled in so that it works from anywhere.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml.liquid", include_str!("../../pack-sdk/template/Cargo.toml.liquid")),
    (".cargo/config.toml", include_str!("../../pack-sdk/template/.cargo/config.toml")),
    (".gitignore", include_str!("../../pack-sdk/template/.gitignore")),
    ("README.md", include_str!("../../pack-sdk/template/README.md")),
    ("DATA.md", include_str!("../../pack-sdk/template/DATA.md")),
    ("pack.toml", include_str!("../../pack-sdk/template/pack.toml")),
    ("src/lib.rs", include_str!("../../pack-sdk/template/src/lib.rs")),
    ("xtask/Cargo.toml.liquid", include_str!("../../pack-sdk/template/xtask/Cargo.toml.liquid")),
    ("xtask/src/main.rs", include_str!("../../pack-sdk/template/xtask/src/main.rs")),
];

/// Where a new pack takes the SDK from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SdkSource {
    /// A checkout of ModularBase.
    Checkout(PathBuf),
    /// A git address of ModularBase.
    Git(String),
}

/// A pack to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPack {
    name: String,
    id: PackId,
    authors: String,
    sdk: SdkSource,
}

impl NewPack {
    /// A pack of this name, which becomes the crate's and the mixture's; `id` absent: `org.example.<name>`.
    pub fn new(name: &str, id: Option<&str>, authors: &str, sdk: SdkSource) -> anyhow::Result<Self> {
        name.parse::<PackName>()?;
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            bail!("`{name}` can't be a crate's name: it must start with a letter");
        }
        if ["test", "core", "std", "pack-sdk", "pack-xtask", "xtask"].contains(&name) {
            bail!("`{name}` is taken by a crate that the pack needs; choose another name");
        }
        let id = match id {
            Some(id) => id.parse()?,
            None => format!("org.example.{}", name.replace('_', "-").trim_end_matches('-')).parse()?,
        };
        Ok(Self { name: name.to_string(), id, authors: authors.to_string(), sdk })
    }

    /// Writes the pack into `folder`, which must not exist or be empty. On failure nothing is left of it.
    pub fn create(&self, folder: &Path) -> anyhow::Result<()> {
        let existed = folder.exists();
        if existed
            && fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?.count() > 0
        {
            bail!("{} exists and is not empty; choose another folder with --path", folder.display());
        }
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
        let beside = parent.join(format!(".{}-{}.part", self.name, std::process::id()));
        let written = self.write_into(&beside).and_then(|()| {
            // A rename replaces an empty folder and nothing else.
            fs::rename(&beside, folder).with_context(|| format!("can't move {} into place", folder.display()))
        });
        if written.is_err() {
            fs::remove_dir_all(&beside).ok();
        }
        written
    }

    fn write_into(&self, folder: &Path) -> anyhow::Result<()> {
        for (name, text) in FILES {
            let path = folder.join(name.strip_suffix(".liquid").unwrap_or(name));
            let text = self.fill(text).with_context(|| format!("in the template's {name}"))?;
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
            }
            fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(())
    }

    /// Replaces `{{name}}` and `{{name | replace: "a", "b"}}`, the part of Liquid that the template uses.
    fn fill(&self, text: &str) -> anyhow::Result<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, behind) = after.split_once("}}").context("a placeholder has no end")?;
            filled.push_str(before);
            let (name, filter) = match inside.split_once('|') {
                Some((name, filter)) => (name.trim(), Some(filter.trim())),
                None => (inside.trim(), None),
            };
            let value = self.value(name)?;
            match filter {
                None => filled.push_str(&value),
                Some(filter) => {
                    let words =
                        filter.strip_prefix("replace:").map(|words| words.split('"').collect::<Vec<_>>());
                    match words.as_deref() {
                        Some([_, from, _, to, _]) => filled.push_str(&value.replace(from, to)),
                        _ => bail!("unknown filter `{filter}`"),
                    }
                }
            }
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, name: &str) -> anyhow::Result<Cow<'_, str>> {
        Ok(match name {
            "project-name" => Cow::from(&self.name),
            "crate_name" => Cow::from(self.name.replace('-', "_")),
            "pack_id" => Cow::from(self.id.as_str()),
            "authors" => Cow::from(toml_escaped(&self.authors)),
            "sdk_source" => Cow::from(match &self.sdk {
                SdkSource::Checkout(root) => {
                    let sdk = root.join("pack-sdk/sdk");
                    let sdk = sdk.to_str().with_context(|| format!("{} is not UTF-8", sdk.display()))?;
                    format!("path = \"{}\"", toml_escaped(sdk))
                }
                SdkSource::Git(address) => format!("git = \"{}\"", toml_escaped(address)),
            }),
            _ => bail!("unknown placeholder `{name}`"),
        })
    }
}

/// The inside of a basic TOML string.
fn toml_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Creates the pack and says what comes next.
pub(crate) fn new_pack(
    name: &str,
    path: Option<&Path>,
    id: Option<&str>,
    git: Option<&str>,
) -> anyhow::Result<()> {
    let sdk = match git {
        Some(address) => SdkSource::Git(address.to_string()),
        None => SdkSource::Checkout(checkout()?),
    };
    let folder = path.unwrap_or(Path::new(name));
    NewPack::new(name, id, &author(), sdk)?.create(folder)?;
    println!("created {}\n\n    cd {}", folder.display(), folder.display());
    println!("    cargo xtask pack build\n    cargo xtask pack verify");
    Ok(())
}

/// The checkout that this crate was compiled from.
fn checkout() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(""));
    if !root.join("pack-sdk/sdk/Cargo.toml").is_file() {
        bail!("the checkout that xtask was built from is gone ({}); say --git URL", root.display());
    }
    Ok(root.to_path_buf())
}

/// `Name <mail>` from git's settings, as far as there are any.
fn author() -> String {
    let setting = |name: &str| {
        let output = std::process::Command::new("git").args(["config", "--get", name]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    match (setting("user.name"), setting("user.email")) {
        (Some(name), Some(mail)) => format!("{name} <{mail}>"),
        (Some(name), None) => name,
        _ => env::var("USER").unwrap_or_else(|_| "unknown".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::PackSource;

    fn example(name: &str) -> NewPack {
        NewPack::new(name, None, "A \"B\" <a@example.org>", SdkSource::Checkout("/src/modular base".into()))
            .unwrap()
    }

    fn files(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                files(&entry.path(), &format!("{name}/"), found)
            } else {
                found.push(name)
            }
        }
    }

    #[test]
    fn every_file_of_the_template_is_compiled_in() {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pack-sdk/template");
        let mut found = Vec::new();
        files(&template, "", &mut found);
        found.retain(|name| name != "cargo-generate.toml");
        found.sort();
        let mut known: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn a_new_pack_has_valid_manifests_and_no_placeholder_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my-law");
        example("my-law").create(&path).unwrap();
        let mut names = Vec::new();
        files(&path, "", &mut names);
        assert_eq!(names.len(), FILES.len());
        for name in &names {
            let text = fs::read_to_string(path.join(name)).unwrap();
            assert!(!text.contains("{{") && !name.ends_with(".liquid"), "{name}");
        }
        let source = PackSource::read(&path.join("pack.toml")).unwrap();
        assert_eq!(source.pack.id.as_str(), "org.example.my-law");
        assert_eq!(source.library.unwrap().file.as_str(), "libmy_law.so");
        let cargo: toml::Table = fs::read_to_string(path.join("Cargo.toml")).unwrap().parse().unwrap();
        assert_eq!(cargo["package"]["authors"][0].as_str(), Some("A \"B\" <a@example.org>"));
        assert_eq!(
            cargo["dependencies"]["pack-sdk"]["path"].as_str(),
            Some("/src/modular base/pack-sdk/sdk")
        );
        let xtask: toml::Table = fs::read_to_string(path.join("xtask/Cargo.toml")).unwrap().parse().unwrap();
        assert_eq!(xtask["dependencies"]["xtask"]["path"].as_str(), Some("/src/modular base/xtask"));
    }

    #[test]
    fn the_sdk_can_come_from_git() {
        let git = SdkSource::Git("https://example.org/modularbase".into());
        let pack = NewPack::new("law", Some("org.mine.law"), "", git).unwrap();
        let filled =
            pack.fill("{{pack_id}} { {{sdk_source | replace: \"pack-sdk/sdk\", \"xtask\"}} }").unwrap();
        assert_eq!(filled, "org.mine.law { git = \"https://example.org/modularbase\" }");
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone_and_an_empty_one_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let message = {
            fs::write(folder.path().join("mine"), "x").unwrap();
            example("law").create(folder.path()).unwrap_err().to_string()
        };
        assert!(message.contains("exists and is not empty"), "{message}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        example("law").create(&empty).unwrap();
        assert!(empty.join("Cargo.toml").is_file());
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let broken = NewPack { sdk: SdkSource::Checkout(not_utf8()), ..example("law") };
        broken.create(&folder.path().join("law")).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    fn not_utf8() -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::OsStr::from_bytes(b"/\xff").into()
    }

    #[test]
    fn names_that_are_no_crate_or_no_pack_are_refused() {
        let make = |name: &str, id| NewPack::new(name, id, "", SdkSource::Git("x".into()));
        for name in ["", "2law", "Law", "a b", "auto", "../law", "xtask", "pack-sdk"] {
            assert!(make(name, None).is_err(), "{name}");
        }
        assert!(make("law", Some("law")).is_err());
        assert_eq!(make("law_x", None).unwrap().id.as_str(), "org.example.law-x");
    }
}
