//! `run`: one prompt, one answer.

use std::time::Instant;

use modularbase_core::ChatMessage;
use modularbase_engine::FinishReason;

use crate::answer_json::AnswerJson;
use crate::answer_stream::AnswerStream;
use crate::arguments::RunArguments;
use crate::failure::Failure;
use crate::interrupt::{self, Meaning, Scope};
use crate::kept_conversation::{Conversation, settings_for};
use crate::model::{self, explain, tell_changes, warn_of_omitted};
use crate::prompt;
use crate::settings::{Settings, check_answer};
use crate::terminal::{print, print_json};

/// Answers one prompt: the text streams to stdout, or one JSON object does when it is complete.
pub(crate) fn run(arguments: &RunArguments, settings: &Settings, started: Instant) -> anyhow::Result<()> {
    let prompt = prompt::read(arguments.prompt.as_deref())?;
    check_answer(&arguments.answer, &settings.host)?;
    let settings = &settings_for(&arguments.keep, settings);
    let model = model::load(settings, started)?;
    let sampling = model.sampling(&arguments.answer, settings)?;
    let limits = model.limits(&arguments.answer, settings)?;
    let chosen = model.host.choose(&settings.host.mixture, &[&prompt]).map_err(explain)?;
    let system = arguments.answer.system.as_deref();
    let mut conversation = Conversation::open(&model, chosen.choice.clone(), &arguments.keep, system)?;
    conversation.session.choose(chosen);
    let tokens = if arguments.raw {
        let tokens = model.host.tokenizer().encode_prompt(&prompt, true);
        tokens.map_err(|error| explain(error.into()))?
    } else {
        conversation.messages.push(ChatMessage::user(prompt));
        model.chat_tokens(&conversation.messages, true)?
    };
    let load_ms = started.elapsed().as_secs_f64() * 1e3;

    let _scope = Scope::enter(Meaning::Cancel);
    let mut stream = AnswerStream::new(!settings.json);
    let answer = conversation
        .session
        .answer(&tokens, &sampling, &limits, interrupt::flag(), &mut |text| stream.write(text));
    stream.result()?;
    let answer = answer.map_err(explain)?;
    conversation.messages.push(ChatMessage::assistant(answer.text.clone()));
    conversation.save();
    warn_of_omitted(&answer.omitted);
    let cancelled = answer.finish_reason == FinishReason::Cancelled;
    if settings.json {
        print_json(&AnswerJson::new(answer, load_ms, model.host.memory()))?;
    } else {
        print("\n")?;
        tell_changes(&answer.changes);
    }
    if cancelled { Err(Failure::interrupted().into()) } else { Ok(()) }
}
