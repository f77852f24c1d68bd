//! `chat`: a conversation on the terminal, or line by line through pipes.

use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use manifests::MixtureChoice;
use modularbase_core::{ChatMessage, SamplingOptions};
use modularbase_engine::{Answer, AnswerLimits, FinishReason, Turn, mixture_parts};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;

use crate::answer_json::AnswerJson;
use crate::answer_stream::AnswerStream;
use crate::arguments::ChatArguments;
use crate::failure::StdoutClosed;
use crate::interrupt::{self, Meaning, Scope};
use crate::kept_conversation::{Conversation, settings_for};
use crate::model::{self, Model, explain, tell_changes, warn_of_omitted};
use crate::packs;
use crate::served_host::serve_control;
use crate::settings::{Settings, cache_folder, check_answer};
use crate::terminal::{bytes_text, is_interactive, notice, print, print_line};

const HELP: &str = "\
/packs               the packs of the folder
/mixture [MIXTURE]   show which packs answer, or choose: auto, none, NAME[=WEIGHT],..
/stats               time and memory of the last answer
/context             which tokens are hot and which cold, and what they take
/clear               start a new conversation
/quit                leave; so does Ctrl-D
Ctrl-C stops an answer; what was said of it stays in the conversation.";

/// Holds a conversation until the input ends.
pub(crate) fn chat(arguments: &ChatArguments, settings: &Settings, started: Instant) -> anyhow::Result<()> {
    check_answer(&arguments.answer, &settings.host)?;
    let mut lines = Lines::open()?;
    interrupt::install()?;
    let settings = &settings_for(&arguments.keep, settings);
    let model = model::load(settings, started)?;
    // Dropped before the host that it serves.
    let _control = serve_control(&model.host);
    // A document is read with the packs that are asked for; which of them the router takes is seen with the first question.
    let system = arguments.answer.system.as_deref();
    let conversation = Conversation::open(&model, settings.host.mixture.clone(), &arguments.keep, system)?;
    let mut chat = Chat {
        sampling: model.sampling(&arguments.answer, settings)?,
        limits: model.limits(&arguments.answer, settings)?,
        last: None,
        load_ms: started.elapsed().as_secs_f64() * 1e3,
        json: settings.json,
        conversation,
        choice: settings.host.mixture.clone(),
        model: &model,
    };
    chat.show_said();
    if is_interactive() {
        let mixture = mixture_text(&model.turn(settings)?);
        notice(&format!("{} with {mixture}. /help lists commands, Ctrl-D leaves.", model.name));
    }
    while let Some(line) = lines.next()? {
        match chat.take(line.trim()) {
            Ok(Next::Stay) => {}
            Ok(Next::Leave) => break,
            Err(error) if error.is::<StdoutClosed>() => return Err(error),
            // One failed turn is no reason to lose the conversation.
            Err(error) => {
                crate::failure::report(&error);
            }
        }
    }
    Ok(())
}

/// What follows a line.
enum Next {
    Stay,
    Leave,
}

struct Chat<'a> {
    model: &'a Model,
    conversation: Conversation<'a>,
    /// Which packs are asked for; `auto` is chosen anew for every message.
    choice: MixtureChoice,
    sampling: SamplingOptions,
    limits: AnswerLimits,
    /// The last answer, for `/stats`.
    last: Option<Answer>,
    load_ms: f64,
    json: bool,
}

impl Chat<'_> {
    fn take(&mut self, line: &str) -> anyhow::Result<Next> {
        let Some(command) = line.strip_prefix('/') else {
            if !line.is_empty() {
                self.answer(line)?;
            }
            return Ok(Next::Stay);
        };
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match word {
            "quit" | "exit" => return Ok(Next::Leave),
            "help" => notice(HELP),
            "clear" => self.conversation.start_over(),
            "packs" => print(&packs::reports_table(&self.model.host.manager().reports()))?,
            "stats" => self.show_stats(),
            "context" => self.show_context(),
            "mixture" if rest.trim().is_empty() => {
                let said = self.said();
                let chosen = self.model.host.choose(&self.choice, &said).map_err(explain)?;
                notice(&mixture_text(&self.model.host.turn(&chosen.choice).map_err(explain)?));
                if let Some(routing) = chosen.routing {
                    notice(&format!("chosen by the router: {}", routing.reason));
                }
            }
            "mixture" => {
                let choice =
                    rest.trim().parse().map_err(|error: manifests::ValueError| anyhow::anyhow!(error))?;
                // Leased once now, so that what is wrong with a choice is said at once.
                let turn = self.model.host.turn(&choice).map_err(explain)?;
                warn_of_omitted(turn.omitted());
                notice(&mixture_text(&turn));
                self.choice = choice;
            }
            _ => notice(&format!("there is no command /{word}; /help lists them")),
        }
        Ok(Next::Stay)
    }

    /// Answers a message. An answer that was stopped stays in the conversation as far as it came; one that failed, or
    /// was stopped before its first word, is taken out of it with its question.
    fn answer(&mut self, question: &str) -> anyhow::Result<()> {
        let messages = &mut self.conversation.messages;
        messages.push(ChatMessage::user(question));
        let said = self.say();
        let messages = &mut self.conversation.messages;
        match &said {
            Ok(answer) if !answer.text.is_empty() || answer.finish_reason != FinishReason::Cancelled => {
                messages.push(ChatMessage::assistant(answer.text.clone()));
                self.conversation.save();
            }
            _ => {
                messages.pop();
            }
        }
        self.last = Some(said?);
        Ok(())
    }

    /// Streams the answer to the conversation so far.
    fn say(&mut self) -> anyhow::Result<Answer> {
        // Only the first turn says that there is no template.
        let tokens = self.model.chat_tokens(&self.conversation.messages, self.last.is_none())?;
        let chosen = self.model.host.choose(&self.choice, &self.said()).map_err(explain)?;
        self.conversation.session.choose(chosen);
        let _scope = Scope::enter(Meaning::Cancel);
        let mut stream = AnswerStream::new(!self.json);
        let answer = self.conversation.session.answer(
            &tokens,
            &self.sampling,
            &self.limits,
            interrupt::flag(),
            &mut |text| stream.write(text),
        );
        stream.result()?;
        let answer = answer.map_err(explain)?;
        warn_of_omitted(&answer.omitted);
        if self.json {
            let object = AnswerJson::new(answer.clone(), self.load_ms, self.model.host.memory());
            print_line(&serde_json::to_string(&object).context("the answer can't be written as JSON")?)?;
        } else {
            print("\n")?;
            tell_changes(&answer.changes);
        }
        if answer.finish_reason == FinishReason::Cancelled && is_interactive() {
            notice("(stopped)");
        }
        Ok(answer)
    }

    /// What the user said so far, oldest first.
    fn said(&self) -> Vec<&str> {
        let own = self.conversation.messages.iter().filter(|message| message.role == "user");
        own.map(|message| message.content.as_str()).collect()
    }

    /// What was said before, where a conversation goes on.
    fn show_said(&self) {
        for message in self.conversation.said() {
            let mark = if message.role == "user" { "> " } else { "" };
            notice(&format!("{mark}{}", message.content));
        }
    }

    fn show_context(&self) {
        let Some(report) = self.conversation.session.context() else {
            let limit = self.model.host.core().shape().max_position;
            notice(&format!(
                "context: {} tokens of {limit}; [context] enabled = true lets texts be longer",
                self.conversation.session.tokens()
            ));
            return;
        };
        notice(&format!(
            "context: {} tokens, {} hot ({}), {} cold ({} stored, {} in memory), {} retrieved",
            report.tokens,
            report.hot_tokens,
            bytes_text(report.hot_bytes),
            report.cold_tokens,
            bytes_text(report.disk_bytes),
            bytes_text(report.ram_bytes),
            report.retrieved_tokens
        ));
        if report.critical_blocks + report.redundant_blocks > 0 {
            notice(&format!(
                "of {} cold blocks of all layers {} are kept whole, {} as means",
                report.cold_blocks, report.critical_blocks, report.redundant_blocks
            ));
        }
        if let Some(rate) = report.hit_rate {
            notice(&format!("blocks found in memory: {:.1} %", rate * 100.0));
        }
    }

    fn show_stats(&self) {
        if let Some(answer) = &self.last {
            let (timings, tokens) = (&answer.timings, answer.token_ids.len());
            notice(&format!(
                "prompt: {} tokens; to the first token {:.0} ms, {:.0} new prompt tokens/s",
                answer.prompt_tokens, timings.prefill_ms, timings.prefill_tokens_per_s
            ));
            notice(&format!(
                "answer: {tokens} tokens in {:.0} ms, {:.0} tokens/s",
                timings.decode_ms, timings.decode_tokens_per_s
            ));
        }
        let memory = self.model.host.memory();
        let packs: u64 = memory.packs.iter().map(|pack| pack.resident_bytes).sum();
        notice(&format!(
            "memory: base {}, context {} ({} tokens), packs {}, of {}",
            bytes_text(memory.base_bytes),
            bytes_text(memory.kv_bytes),
            self.conversation.session.tokens(),
            bytes_text(packs),
            bytes_text(memory.budget_bytes)
        ));
    }
}

fn mixture_text(turn: &Turn) -> String {
    let parts = mixture_parts(turn.mixture());
    let texts: Vec<String> = parts.iter().map(|part| format!("{} {:.2}", part.pack, part.weight)).collect();
    format!("mixture: {}", texts.join(", "))
}

/// Where the user's lines come from.
enum Lines {
    Terminal { editor: Box<rustyline::Editor<(), FileHistory>>, history: Option<PathBuf> },
    Pipe,
}

impl Lines {
    fn open() -> anyhow::Result<Self> {
        if !is_interactive() {
            return Ok(Self::Pipe);
        }
        let mut editor = rustyline::DefaultEditor::new().context("can't read from the terminal")?;
        let history = cache_folder().ok().map(|cache| cache.join("chat_history"));
        if let Some(path) = history.as_deref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            tracing::debug!(path = %path.display(), %error, "the history of lines is not read");
        }
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Terminal { editor, history } => {
                // The editor reads Ctrl-C as a key; a signal from elsewhere must not end the program either.
                let _scope = Scope::enter(Meaning::Ignore);
                loop {
                    match editor.readline("> ") {
                        Ok(line) => {
                            remember(editor, history.as_deref(), &line);
                            return Ok(Some(line));
                        }
                        Err(ReadlineError::Interrupted) => {}
                        Err(ReadlineError::Eof) => return Ok(None),
                        Err(error) => return Err(error).context("can't read from the terminal"),
                    }
                }
            }
            Self::Pipe => {
                let mut bytes = Vec::new();
                let read =
                    std::io::stdin().lock().read_until(b'\n', &mut bytes).context("can't read stdin")?;
                if read == 0 { Ok(None) } else { crate::prompt::utf8(bytes, "the line on stdin").map(Some) }
            }
        }
    }
}

/// Adds a line to the history; one that can't be kept is no reason to stop a conversation.
fn remember(editor: &mut rustyline::Editor<(), FileHistory>, path: Option<&std::path::Path>, line: &str) {
    let kept = editor.add_history_entry(line).and_then(|_| match path {
        Some(path) => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            editor.append_history(path)
        }
        None => Ok(()),
    });
    if let Err(error) = kept {
        tracing::debug!(%error, "the line is not kept in the history");
    }
}
