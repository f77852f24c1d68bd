//! From the files of a package to documents.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use glob::{MatchOptions, Pattern};
use manifests::{DataSource, Extraction, Grouping};
use serde_json::{Map, Value};

use super::error::SourceFault;
use super::package::Package;
use super::records::RecordTemplates;
use super::{man_page, markup};
use crate::document::{Body, Document};
use crate::document_files::MAX_DOCUMENT_BYTES;
use crate::lines::{Compression, Lines};

/// A document with the fields that `only` looks at.
pub(crate) struct Extracted {
    pub(crate) document: Document,
    pub(crate) fields: Fields,
}

pub(crate) type Fields = BTreeMap<String, String>;

/// What was seen in a package.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FilesSeen {
    /// All files.
    pub(crate) files: u64,
    /// Files that the recipe's globs take.
    pub(crate) matching: u64,
    /// Of these, files that are no UTF-8, or no markup.
    pub(crate) unreadable: u64,
}

/// Takes the documents out of `package`, in an order that follows from the package, and hands each to `take`.
pub(crate) fn extract(
    name: &str,
    source: &DataSource,
    package: &Package,
    take: &mut dyn FnMut(Extracted) -> Result<(), SourceFault>,
) -> Result<FilesSeen, SourceFault> {
    let (files, exclude) = (globs(&source.files)?, globs(&source.exclude)?);
    let records = match &source.extract {
        Extraction::Records(fields) => Some(RecordTemplates::new(fields)),
        _ => None,
    };
    let mut seen = FilesSeen::default();
    package.each_file(&mut |path, content, on_disk| {
        seen.files += 1;
        let matches = |globs: &[Pattern]| globs.iter().any(|glob| glob.matches_with(path, PATHS));
        if !matches(&files) || matches(&exclude) {
            return Ok(());
        }
        seen.matching += 1;
        let file = OneFile { name, path, source };
        match &records {
            Some(records) => file.records(records, content, on_disk, take),
            None => {
                let bytes = file.bytes(content)?;
                let Ok(text) = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))
                else {
                    seen.unreadable += 1;
                    return Ok(());
                };
                if !file.texts(text, take)? {
                    seen.unreadable += 1;
                }
                Ok(())
            }
        }
    })?;
    Ok(seen)
}

const PATHS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

fn globs(globs: &[String]) -> Result<Vec<Pattern>, SourceFault> {
    let sound = |glob: &String| {
        Pattern::new(glob).map_err(|error| SourceFault::Glob { glob: glob.clone(), why: error.to_string() })
    };
    globs.iter().map(sound).collect()
}

/// One file of a package.
struct OneFile<'a> {
    /// The source's name in the recipe.
    name: &'a str,
    path: &'a str,
    source: &'a DataSource,
}

type Take<'a> = dyn FnMut(Extracted) -> Result<(), SourceFault> + 'a;

impl OneFile<'_> {
    /// Every document of a file of text; false where the file is not what it should be.
    fn texts(&self, text: &str, take: &mut Take<'_>) -> Result<bool, SourceFault> {
        match &self.source.extract {
            Extraction::Text { head } => {
                let (fields, text) = if *head { without_head(text) } else { (Fields::new(), text) };
                take(self.document(None, text.to_owned(), fields))?;
            }
            Extraction::ManPage {} => {
                if let Some(text) = man_page::text(text) {
                    take(self.document(None, text, Fields::new()))?;
                }
            }
            Extraction::Markup { element, skip, inline, lines } => {
                let elements = markup::Elements { document: element.as_deref(), skip, inline, lines };
                let Some(texts) = markup::texts(text, &elements) else { return Ok(false) };
                let is_alone = element.is_none();
                for (number, text) in texts.into_iter().enumerate() {
                    let number = (!is_alone).then_some(number as u64 + 1);
                    take(self.document(number, text, Fields::new()))?;
                }
            }
            // Records are read as JSON and come by another way.
            Extraction::Records(_) => return Ok(false),
        }
        Ok(true)
    }

    fn document(&self, number: Option<u64>, text: String, fields: Fields) -> Extracted {
        let document = Document {
            id: self.id(number),
            group: self.group(),
            source: Some(self.source.title.clone()),
            license: Some(self.source.license.clone()),
            body: Body::Text(text),
        };
        Extracted { document, fields }
    }

    fn id(&self, number: Option<u64>) -> String {
        match number {
            Some(number) => format!("{}/{}#{number}", self.name, self.path),
            None => format!("{}/{}", self.name, self.path),
        }
    }

    fn group(&self) -> Option<String> {
        match self.source.group {
            Grouping::Document => None,
            Grouping::File => Some(format!("{}/{}", self.name, self.path)),
            Grouping::Folder => {
                let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Some(format!("{}/{folder}", self.name))
            }
            Grouping::Source => Some(self.name.to_owned()),
        }
    }

    /// Every record of a file of JSON. Files of other kinds are passed over.
    fn records(
        &self,
        templates: &RecordTemplates<'_>,
        content: &mut dyn Read,
        on_disk: Option<&Path>,
        take: &mut Take<'_>,
    ) -> Result<(), SourceFault> {
        let plain = self.path.trim_end_matches(".gz").trim_end_matches(".zst");
        let mut number = 0;
        let mut one = |record: Map<String, Value>| {
            number += 1;
            let (document, fields) = templates
                .document(record, || self.id(Some(number)))
                .map_err(|why| self.fault(format!("record {number}: {why}")))?;
            let document = Document {
                group: document.group.map(|group| format!("{}/{group}", self.name)).or_else(|| self.group()),
                source: Some(self.source.title.clone()),
                license: Some(document.license.unwrap_or_else(|| self.source.license.clone())),
                ..document
            };
            take(Extracted { document, fields })
        };
        if plain.ends_with(".jsonl") {
            let mut object = |line: u64, text: &str| match serde_json::from_str(text) {
                Ok(Value::Object(record)) => one(record),
                Ok(_) => Err(self.fault(format!("line {line} is no JSON object"))),
                Err(error) => Err(self.fault(format!("line {line}: {error}"))),
            };
            if let Some(path) = on_disk {
                // As long as it may be, line by line.
                let mut lines = Lines::named(path, self.path, MAX_DOCUMENT_BYTES)?;
                while let Some((line, text)) = lines.next_line()? {
                    object(line, text)?;
                }
                return Ok(());
            }
            let bytes = self.bytes(content)?;
            let text = std::str::from_utf8(&bytes).map_err(|error| self.fault(error.to_string()))?;
            for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
                object(line, text)?;
            }
        } else if plain.ends_with(".json") {
            let bytes = self.bytes(content)?;
            let whole: Value =
                serde_json::from_slice(&bytes).map_err(|error| self.fault(error.to_string()))?;
            match templates.place(whole).map_err(|why| self.fault(why))? {
                Value::Object(record) => one(record)?,
                Value::Array(list) => {
                    for value in list {
                        match value {
                            Value::Object(record) => one(record)?,
                            _ => return Err(self.fault("the list holds something else than objects".into())),
                        }
                    }
                }
                _ => return Err(self.fault("it is neither an object nor a list".into())),
            }
        }
        Ok(())
    }

    /// The content, decompressed as the name says.
    fn bytes(&self, content: &mut dyn Read) -> Result<Vec<u8>, SourceFault> {
        let mut bytes = Vec::new();
        let limit = MAX_DOCUMENT_BYTES + 1;
        match Compression::of(Path::new(self.path)) {
            Compression::None => content.take(limit).read_to_end(&mut bytes),
            Compression::Gzip => {
                flate2::read::MultiGzDecoder::new(content).take(limit).read_to_end(&mut bytes)
            }
            Compression::Zstd => zstd::stream::read::Decoder::new(content)
                .and_then(|decoder| decoder.take(limit).read_to_end(&mut bytes)),
        }
        .map_err(|error| self.fault(error.to_string()))?;
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(self.fault(format!("it is longer than {MAX_DOCUMENT_BYTES} bytes")));
        }
        Ok(bytes)
    }

    fn fault(&self, why: String) -> SourceFault {
        SourceFault::File { file: self.path.to_owned(), why }
    }
}

/// The `key: value` lines between two lines of `---` at the beginning, and what follows. Values that go over several
/// lines count as absent.
fn without_head(text: &str) -> (Fields, &str) {
    let Some(rest) = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n")) else {
        return (Fields::new(), text);
    };
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            let fields = rest[..at].lines().filter(|line| !line.starts_with([' ', '-', '#']));
            let fields = fields.filter_map(|line| line.split_once(':'));
            let fields =
                fields.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect();
            return (fields, &rest[at + line.len()..]);
        }
        at += line.len();
    }
    (Fields::new(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_cut_off_and_its_fields_are_known() {
        let text = "---\nkey: mit\ncategory: Permissive\nother_urls:\n  - http: x\n---\n\nText\n--- mehr\n";
        let (fields, rest) = without_head(text);
        assert_eq!(rest, "\nText\n--- mehr\n");
        assert_eq!(fields.get("category").map(String::as_str), Some("Permissive"));
        assert_eq!(fields.get("other_urls").map(String::as_str), Some(""));
        assert_eq!(fields.len(), 3);
        for without in ["Text", "---\nnever closed", ""] {
            assert_eq!(without_head(without), (Fields::new(), without));
        }
    }
}
