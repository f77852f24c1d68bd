//! Records of JSON to documents, by the templates of a recipe.

use std::borrow::Cow;

use manifests::RecordFields;
use serde_json::{Map, Value};

use super::extraction::Fields;
use crate::document::{Body, Document, Message};
use crate::record;

/// The templates of a source.
pub(crate) struct RecordTemplates<'a> {
    fields: &'a RecordFields,
}

impl<'a> RecordTemplates<'a> {
    pub(crate) fn new(fields: &'a RecordFields) -> Self {
        Self { fields }
    }

    /// The records of a file's one value.
    pub(crate) fn place(&self, mut whole: Value) -> Result<Value, String> {
        match self.fields.at.as_deref() {
            None | Some("") => Ok(whole),
            Some(at) => whole.pointer_mut(at).map(Value::take).ok_or_else(|| format!("nothing is at {at}")),
        }
    }

    /// The document of a record and its fields.
    pub(crate) fn document(
        &self,
        record: Map<String, Value>,
        or_id: impl FnOnce() -> String,
    ) -> Result<(Document, Fields), String> {
        let scalar = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let named = record.iter().filter(|(name, _)| name.as_str() != "text");
        let fields = named.filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect();
        let filled = |template: &Option<String>| template.as_deref().map(|template| fill(template, &record));
        let id = filled(&self.fields.id).filter(|id| !id.trim().is_empty());
        let group = filled(&self.fields.group).filter(|group| !group.trim().is_empty());
        let body = match (filled(&self.fields.text), filled(&self.fields.question)) {
            (Some(text), _) => Body::Text(text),
            (None, Some(question)) => {
                let answer = filled(&self.fields.answer).unwrap_or_default();
                Body::Conversation(vec![Message::new("user", question), Message::new("assistant", answer)])
            }
            (None, None) => {
                let format = record::detect(&record, None).map_err(|fault| fault.to_string())?;
                let mut document =
                    record::document(record, format, or_id).map_err(|fault| fault.to_string())?;
                document.id = id.unwrap_or(document.id);
                document.group = group.or(document.group);
                return Ok((document, fields));
            }
        };
        let id = id.unwrap_or_else(or_id);
        Ok((Document { id, group, source: None, license: None, body }, fields))
    }
}

/// The template with every `{field}` replaced; what the record does not have is empty.
fn fill(template: &str, record: &Map<String, Value>) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, after)) = after.split_once('}') else { break };
        filled.push_str(&field(name, record));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

fn field<'r>(name: &str, record: &'r Map<String, Value>) -> Cow<'r, str> {
    let mut parts = name.split('.');
    let mut value = record.get(name).or_else(|| record.get(parts.next().unwrap_or_default()));
    if !record.contains_key(name) {
        for part in parts {
            value = value.and_then(|value| value.get(part));
        }
    }
    value.map_or(Cow::Borrowed(""), text)
}

fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(list) => Cow::Owned(list.iter().map(text).collect::<Vec<_>>().join("\n")),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    fn read(fields: RecordFields, json: &str) -> Result<(Document, Fields), String> {
        RecordTemplates::new(&fields).document(record(json), || "file#1".into())
    }

    #[test]
    fn templates_take_fields_lists_and_fields_of_fields() {
        let poem = record(r#"{"title": "T", "by": {"name": "N"}, "lines": ["a", "b"], "n": 3, "x": null}"#);
        assert_eq!(fill("《{title}》 {by.name}\n{lines}\n{n}{x}{absent}.", &poem), "《T》 N\na\nb\n3.");
        assert_eq!(fill("{a.b}", &record(r#"{"a.b": "dotted"}"#)), "dotted");
    }

    #[test]
    fn questions_become_conversations_and_ids_and_groups_follow_their_templates() {
        let template = |text: &str| Some(text.to_owned());
        let fields = RecordFields {
            question: template("{Q}"),
            answer: template("{A}"),
            id: template("q{n}"),
            group: template("{topic}"),
            ..RecordFields::default()
        };
        let (document, known) = read(fields, r#"{"Q": "2+2?", "A": "4", "n": 7, "topic": "sums"}"#).unwrap();
        assert_eq!((document.id.as_str(), document.group.as_deref()), ("q7", Some("sums")));
        let turns = vec![Message::new("user", "2+2?"), Message::new("assistant", "4")];
        assert_eq!(document.body, Body::Conversation(turns));
        assert_eq!(known.get("topic").map(String::as_str), Some("sums"));
    }

    #[test]
    fn without_templates_the_usual_fields_are_read() {
        let (document, _) = read(RecordFields::default(), r#"{"text": "t", "license": "MIT"}"#).unwrap();
        assert_eq!((document.id.as_str(), document.license.as_deref()), ("file#1", Some("MIT")));
        let refused = read(RecordFields::default(), r#"{"body": "t"}"#).err().unwrap();
        assert!(refused.ends_with("found `body`"), "{refused}");
    }

    #[test]
    fn records_are_found_at_their_place() {
        let fields = RecordFields { at: Some("/data/rows".into()), ..RecordFields::default() };
        let templates = RecordTemplates::new(&fields);
        let whole: Value = serde_json::from_str(r#"{"data": {"rows": [1, 2]}}"#).unwrap();
        assert_eq!(templates.place(whole), Ok(serde_json::json!([1, 2])));
        assert_eq!(templates.place(Value::Null), Err("nothing is at /data/rows".into()));
    }
}
