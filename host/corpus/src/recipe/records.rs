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
        let at = self.fields.at.as_deref().unwrap_or("");
        let place = at.strip_suffix("/*").unwrap_or(at);
        let found =
            whole.pointer_mut(place).map(Value::take).ok_or_else(|| format!("nothing is at {place}"))?;
        match found {
            found if place == at => Ok(found),
            Value::Object(records) => {
                Ok(Value::Array(records.into_iter().map(|(_, record)| record).collect()))
            }
            _ => Err(format!("at {place} is no object whose values could be taken")),
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
    if let Some(value) = record.get(name) {
        return text(value);
    }
    let mut parts = name.split('.');
    let first = record.get(parts.next().unwrap_or_default());
    first.map_or(Cow::Borrowed(""), |value| inside(value, &parts.collect::<Vec<_>>()))
}

/// The field of a field; of a list that of each of its objects, a line each.
fn inside<'r>(value: &'r Value, path: &[&str]) -> Cow<'r, str> {
    match (path.split_first(), value) {
        (None, value) => text(value),
        (Some(_), Value::Array(list)) => {
            Cow::Owned(list.iter().map(|value| inside(value, path)).collect::<Vec<_>>().join("\n"))
        }
        (Some((name, rest)), value) => value.get(name).map_or(Cow::Borrowed(""), |value| inside(value, rest)),
    }
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
        let steps = record(r#"{"by": {"steps": [{"n": "one"}, {"n": 2}, {"m": "x"}, "y"]}}"#);
        assert_eq!(fill("{by.steps.n}|{by.steps.n.m}", &steps), "one\n2\n\n|\n\n\n");
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

        let values = |at: &str, json: &str| {
            let fields = RecordFields { at: Some(at.into()), ..RecordFields::default() };
            RecordTemplates::new(&fields).place(serde_json::from_str(json).unwrap())
        };
        assert_eq!(values("/data/*", r#"{"data": {"a": 1, "b": 2}}"#), Ok(serde_json::json!([1, 2])));
        assert_eq!(values("/*", r#"{"a": {"b": 2}}"#), Ok(serde_json::json!([{"b": 2}])));
        assert!(values("/data/*", r#"{"data": [1]}"#).unwrap_err().starts_with("at /data is no object"));
        assert_eq!(values("/no/*", "{}"), Err("nothing is at /no".into()));
    }
}
