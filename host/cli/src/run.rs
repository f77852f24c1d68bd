//! `run`: one prompt, one answer.

use std::time::Instant;

use modularbase_core::ChatMessage;
use modularbase_engine::{FinishReason, Session};

use crate::answer_json::AnswerJson;
use crate::answer_stream::AnswerStream;
use crate::arguments::RunArguments;
use crate::failure::Failure;
use crate::interrupt::{self, Meaning, Scope};
use crate::model::{self, explain, warn_of_omitted};
use crate::prompt;
use crate::settings::{Settings, check_answer};
use crate::terminal::{print, print_json};

/// Answers one prompt: the text streams to stdout, or one JSON object does when it is complete.
pub(crate) fn run(arguments: &RunArguments, settings: &Settings, started: Instant) -> anyhow::Result<()> {
    let prompt = prompt::read(arguments.prompt.as_deref())?;
    check_answer(&arguments.answer, &settings.host)?;
    let model = model::load(settings, started)?;
    let sampling = model.sampling(&arguments.answer, settings)?;
    let limits = model.limits(&arguments.answer, settings)?;
    let tokens = if arguments.raw {
        let tokens = model.host.tokenizer().encode_prompt(&prompt, true);
        tokens.map_err(|error| explain(error.into()))?
    } else {
        let system = arguments.answer.system.as_ref().map(ChatMessage::system);
        let messages: Vec<ChatMessage> =
            system.into_iter().chain([ChatMessage::user(prompt.clone())]).collect();
        model.chat_tokens(&messages, true)?
    };
    let (choice, _) = model.host.choose(&settings.host.mixture, &[&prompt]).map_err(explain)?;
    let mut session = Session::new(&model.host, choice).map_err(explain)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;

    let _scope = Scope::enter(Meaning::Cancel);
    let mut stream = AnswerStream::new(!settings.json);
    let answer =
        session.answer(&tokens, &sampling, &limits, interrupt::flag(), &mut |text| stream.write(text));
    stream.result()?;
    let answer = answer.map_err(explain)?;
    warn_of_omitted(&answer.omitted);
    let cancelled = answer.finish_reason == FinishReason::Cancelled;
    if settings.json {
        print_json(&AnswerJson::new(answer, load_ms, model.host.memory()))?;
    } else {
        print("\n")?;
    }
    if cancelled { Err(Failure::interrupted().into()) } else { Ok(()) }
}
