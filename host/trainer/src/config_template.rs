//! The settings file that `train config` prints: every setting with its default, and above it what it means, in the words of
//! the settings' own documentation.

use serde_json::Value;

use crate::TrainConfig;

/// Columns of a comment, at most.
const WIDTH: usize = 110;

impl TrainConfig {
    /// The defaults as TOML with comments. A setting without a default stands there as a comment.
    pub fn commented_defaults() -> String {
        let schema = schemars::schema_for!(TrainConfig).to_value();
        let definitions = &schema["$defs"];
        let (mut text, mut section) = (String::new(), Section::of(&schema, definitions));
        for line in Self::default().to_toml().lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section.end(&mut text);
                let property = &schema["properties"][name];
                text.push('\n');
                comment(&mut text, description(property));
                section = Section::of(resolved(property, definitions), definitions);
            } else if let Some((key, _)) = line.split_once(" = ") {
                section.explain(&mut text, key);
            }
            if !line.is_empty() {
                text += &format!("{line}\n");
            }
        }
        section.end(&mut text);
        text
    }
}

/// What a table's schema says of its settings, and which of them were not written yet.
struct Section<'a> {
    properties: &'a Value,
    definitions: &'a Value,
    left: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn of(table: &'a Value, definitions: &'a Value) -> Self {
        let properties = &table["properties"];
        let names = properties.as_object().into_iter().flatten();
        // Tables follow under a heading of their own.
        let left = names.filter(|(_, property)| resolved(property, definitions)["properties"].is_null());
        Self { properties, definitions, left: left.map(|(name, _)| name.as_str()).collect() }
    }

    fn explain(&mut self, text: &mut String, key: &str) {
        self.left.retain(|left| *left != key);
        let property = &self.properties[key];
        comment(text, description(property));
        for choice in resolved(property, self.definitions)["oneOf"].as_array().into_iter().flatten() {
            comment(text, &format!("{}: {}", choice["const"], description(choice)));
        }
    }

    /// Settings that have no default.
    fn end(&mut self, text: &mut String) {
        for key in std::mem::take(&mut self.left) {
            self.explain(text, key);
            *text += &format!("# {key} =\n");
        }
    }
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// The schema that a property refers to, or itself.
fn resolved<'a>(property: &'a Value, definitions: &'a Value) -> &'a Value {
    match property["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        Some(name) => &definitions[name],
        None => property,
    }
}

/// Adds `words` as lines of a comment.
fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            *text += &format!("{line}\n");
            line.truncate(1);
        }
        line += &format!(" {word}");
    }
    if line.len() > 1 {
        *text += &format!("{line}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_stands_there_with_its_meaning_and_the_file_is_the_defaults() {
        let text = TrainConfig::commented_defaults();
        assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), TrainConfig::default());
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in
            lines.iter().enumerate().filter(|(_, line)| line.contains(" = ") && !line.starts_with('#'))
        {
            assert!(index > 0 && lines[index - 1].starts_with("# "), "nothing explains `{line}`\n{text}");
        }
        for without_default in ["# format =", "\"distillation\": That the model", "delta-q2"] {
            assert!(text.contains(without_default), "{without_default}\n{text}");
        }
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
    }
}
