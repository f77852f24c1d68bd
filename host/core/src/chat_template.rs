//! Chat templates: Jinja text that comes with a base and turns messages into a prompt.
//!
//! Rendered as Hugging Face's `apply_chat_template` renders them: blocks trimmed, Python's string methods,
//! `raise_exception`, `strftime_now`, and `tojson` that writes what Python's `json.dumps` would.

mod python_json;
mod time_format;

use std::time::SystemTime;

use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::tokenizer::TokenizerError;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// A base's chat template with the two tokens that it may name.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The text is not compiled before it is used: a base whose template fails still completes raw text.
    pub fn new(source: String, bos_token: String, eos_token: String) -> Self {
        Self { source, bos_token, eos_token }
    }

    /// The prompt for `messages`.
    ///
    /// Errors: [`TokenizerError::ChatTemplate`], with the template's own words where it raised them.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TokenizerError> {
        let environment = environment();
        let wrong = |error: minijinja::Error| TokenizerError::ChatTemplate {
            why: error.detail().map_or_else(|| error.to_string(), str::to_owned),
        };
        let template = environment.template_from_str(&self.source).map_err(wrong)?;
        template
            .render(context! {
                messages => messages,
                add_generation_prompt => add_generation_prompt,
                bos_token => self.bos_token,
                eos_token => self.eos_token,
                // Passed as None by Hugging Face where there are none.
                tools => Value::from(()),
                documents => Value::from(()),
            })
            .map_err(wrong)
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment
        .add_function("strftime_now", |format: String| time_format::format_utc(&format, SystemTime::now()));
    environment.add_filter("tojson", python_json::to_json);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[ChatMessage]) -> Result<String, TokenizerError> {
        ChatTemplate::new(source.to_owned(), "<s>".to_owned(), "</s>".to_owned()).render(messages, true)
    }

    #[test]
    fn blocks_are_trimmed_as_hugging_face_does() {
        let source = "{{ bos_token }}\n{% for message in messages %}\n    {% if true %}\n{{ message.role }}\n    {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}go{% endif %}\n";
        assert_eq!(render(source, &[ChatMessage::user("x")]).unwrap(), "<s>\nuser\ngo");
    }

    #[test]
    fn python_methods_loop_controls_and_none_for_tools_work() {
        let source = "{% if tools is not none %}tools{% endif %}{% for m in messages %}{% if m['role'].startswith('sys') %}{% continue %}{% endif %}{{ m['content'].strip().split('a')[-1] | trim }}{% endfor %}";
        let messages = [ChatMessage::system("no"), ChatMessage::user("  a b ")];
        assert_eq!(render(source, &messages).unwrap(), "b");
    }

    #[test]
    fn a_template_that_raises_says_why() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
    }

    #[test]
    fn a_template_that_does_not_compile_is_an_error_with_advice() {
        let error = render("{% if %}", &[]).unwrap_err();
        assert!(error.to_string().contains("--raw"), "{error}");
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        let source = "{{ {'b': [1, 'ä<'], 'a': none} | tojson }} {{ [1] | tojson(indent=2) }}";
        assert_eq!(render(source, &[]).unwrap(), "{\"a\": null, \"b\": [1, \"ä<\"]} [\n  1\n]");
    }
}
