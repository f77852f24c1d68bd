//! From one JSON object to a document.

use serde_json::{Map, Value};

use crate::document::{Body, Document, Format, Message};
use crate::error::FieldFault;

type Record = Map<String, Value>;

/// Which format a record has, by its fields: that of the `first` record where it fits.
pub(crate) fn detect(record: &Record, first: Option<Format>) -> Result<Format, FieldFault> {
    let has = |name: &str| record.contains_key(name);
    let fits = |format: &Format| match format {
        Format::Text => has("text"),
        Format::Conversations => has("messages") || has("conversations"),
        Format::InstructionOutput => has("instruction") && has("output"),
        Format::QuestionAnswer => has("question") && has("answer"),
    };
    first.into_iter().chain(Format::ALL).find(fits).ok_or_else(|| FieldFault {
        why: "the record has no text that is known here".into(),
        expected: first.map_or_else(|| Format::ALL.map(Format::fields).join(", or "), |f| f.fields().into()),
        found: names(record),
    })
}

/// The document of a record; `or_id` names it where the record does not.
pub(crate) fn document(
    mut record: Record,
    format: Format,
    or_id: impl FnOnce() -> String,
) -> Result<Document, FieldFault> {
    let fault = |why: String| FieldFault { why, expected: format.fields().to_owned(), found: names(&record) };
    let body = match format {
        Format::Text => Body::Text(String::new()),
        Format::Conversations => {
            let list = ["messages", "conversations"].into_iter().find_map(|name| record.get(name));
            let Some(Value::Array(list)) = list else {
                return Err(fault("the record has no list of messages".into()));
            };
            let messages = list.iter().enumerate().map(|(index, value)| message(index, value));
            let messages = messages.collect::<Result<Vec<_>, _>>().map_err(fault)?;
            if messages.is_empty() {
                return Err(fault("the list of messages is empty".into()));
            }
            Body::Conversation(messages)
        }
        Format::InstructionOutput | Format::QuestionAnswer => {
            let (asked, answered) = match format {
                Format::QuestionAnswer => ("question", "answer"),
                _ => ("instruction", "output"),
            };
            let text = |name: &str| string(&record, name).map_err(|why| fault(why.to_owned()));
            let needed = |name: &str| text(name)?.ok_or_else(|| fault(format!("`{name}` is missing")));
            let mut question = needed(asked)?.to_owned();
            let input = if format == Format::InstructionOutput { text("input")? } else { None };
            if let Some(input) = input.filter(|input| !input.trim().is_empty()) {
                question = format!("{question}\n\n{input}");
            }
            let system = text("system")?.filter(|system| !system.trim().is_empty());
            let mut messages = Vec::from_iter(system.map(|system| Message::new("system", system)));
            messages.push(Message::new("user", question));
            messages.push(Message::new("assistant", needed(answered)?));
            Body::Conversation(messages)
        }
    };
    let name_of = |name: &str| match record.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let id = name_of("id").unwrap_or_else(or_id);
    let (group, source, license) = (name_of("group"), name_of("source"), name_of("license"));
    let body = match body {
        // Taken and not copied: a text may be tens of MB long.
        Body::Text(_) => match record.remove("text") {
            Some(Value::String(text)) => Body::Text(text),
            Some(other) => {
                let why = format!("`text` is {} and no string", kind(&other));
                record.insert("text".into(), Value::Null);
                return Err(FieldFault { why, expected: format.fields().into(), found: names(&record) });
            }
            None => {
                let why = "`text` is missing".to_owned();
                return Err(FieldFault { why, expected: format.fields().into(), found: names(&record) });
            }
        },
        conversation => conversation,
    };
    Ok(Document { id, group, source, license, body })
}

fn message(index: usize, value: &Value) -> Result<Message, String> {
    let text = |names: [&str; 2]| names.into_iter().find_map(|name| value.get(name)?.as_str());
    let number = index + 1;
    let role = text(["role", "from"]).ok_or_else(|| format!("message {number} has no `role`"))?;
    let content = text(["content", "value"]).ok_or_else(|| format!("message {number} has no `content`"))?;
    let role = match role {
        "human" => "user",
        "gpt" | "bot" | "model" => "assistant",
        other => other,
    };
    Ok(Message::new(role, content))
}

/// A field's string, `None` where it is absent or null.
fn string<'a>(record: &'a Record, name: &str) -> Result<Option<&'a str>, String> {
    match record.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{name}` is {} and no string", kind(other))),
    }
}

fn names(record: &Record) -> Vec<String> {
    record.keys().cloned().collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Document, FieldFault> {
        let record: Record = serde_json::from_str(json).unwrap();
        let format = detect(&record, None)?;
        document(record, format, || "file:1".into())
    }

    fn conversation(json: &str) -> Vec<(String, String)> {
        match read(json).unwrap().body {
            Body::Conversation(messages) => {
                messages.into_iter().map(|message| (message.role, message.content)).collect()
            }
            Body::Text(text) => panic!("{text}"),
        }
    }

    fn turns(turns: &[(&str, &str)]) -> Vec<(String, String)> {
        turns.iter().map(|(role, content)| (role.to_string(), content.to_string())).collect()
    }

    #[test]
    fn a_text_keeps_what_is_said_of_it() {
        let document =
            read(r#"{"text": "Hallo", "id": 7, "group": "g", "source": "s", "license": "MIT", "x": []}"#)
                .unwrap();
        assert_eq!((document.id.as_str(), document.group.as_deref()), ("7", Some("g")));
        assert_eq!((document.source.as_deref(), document.license.as_deref()), (Some("s"), Some("MIT")));
        assert_eq!(document.body, Body::Text("Hallo".into()));
        assert_eq!(read(r#"{"text": ""}"#).unwrap().id, "file:1");
    }

    #[test]
    fn everything_that_asks_and_answers_becomes_a_conversation() {
        let asked = turns(&[("user", "2+2?"), ("assistant", "4")]);
        assert_eq!(conversation(r#"{"question": "2+2?", "answer": "4"}"#), asked);
        assert_eq!(conversation(r#"{"instruction": "2+2?", "input": "", "output": "4"}"#), asked);
        let messages = r#"[{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]"#;
        assert_eq!(conversation(&format!(r#"{{"messages": {messages}}}"#)), asked);
        let shared = r#"[{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]"#;
        assert_eq!(conversation(&format!(r#"{{"conversations": {shared}}}"#)), asked);
        assert_eq!(
            conversation(
                r#"{"instruction": "Add.", "input": "2 and 2", "output": "4", "system": "Be brief."}"#
            ),
            turns(&[("system", "Be brief."), ("user", "Add.\n\n2 and 2"), ("assistant", "4")])
        );
    }

    #[test]
    fn wrong_fields_are_named_beside_the_right_ones() {
        let said = |json: &str| read(json).unwrap_err().to_string();
        let unknown = said(r#"{"body": "x", "prompt": "y"}"#);
        assert!(unknown.contains("found `body`, `prompt`"), "{unknown}");
        assert!(unknown.contains("expected `text`, or `messages`"), "{unknown}");
        assert!(
            said(r#"{"text": 3}"#)
                .starts_with("`text` is a number and no string; expected `text`; found `text`")
        );
        assert!(said(r#"{"question": "x", "answer": null}"#).starts_with("`answer` is missing"));
        assert!(said(r#"{"messages": [{"role": "user"}]}"#).starts_with("message 1 has no `content`"));
        assert!(said(r#"{"messages": []}"#).starts_with("the list of messages is empty"));
        assert!(said("{}").ends_with("found no field"));
    }
}
