//! `cargo xtask`: builds, lays out, verifies, runs and measures.
//!
//! A library with a thin binary, so that the repository of a pack can have the same commands:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     xtask::main()
//! }
//! ```
//!
//! It knows cargo, files and the `modularbase` command line. It does not know the model: whatever needs it is asked
//! of the `modularbase` binary, so that this crate builds in seconds.
#![forbid(unsafe_code)]

mod bench;
mod cargo_workspace;
mod ci;
mod command;
mod host_binary;
mod pack_archive;
mod pack_build;
mod pack_layout;
mod pack_sign;
mod pack_sign_keys;
mod pack_template;
mod pack_train;
mod pack_verify;
mod run;
mod schema;
mod soak;
mod test;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use cargo_workspace::{CargoWorkspace, CdylibPackage};
pub use pack_archive::archive_pack;
pub use pack_layout::{HostHelp, PackParts, lay_out};
pub use pack_sign::sign_pack;
pub use pack_sign_keys::generate_keys;
pub use pack_template::{NewPack, SdkSource};

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, verify, run and measure.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the release host and the packs, fetch the base if it is missing, and start `modularbase ARGS`.
    ///
    /// Without arguments: `chat` on a terminal, else one worked example.
    Run {
        /// Arguments of `modularbase`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },
    /// Build everything, fetch the base if it is missing, and run every test.
    Test {
        /// What `cargo test -- FILTER` takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FILTER")]
        filter: Vec<OsString>,
    },
    /// Make, build and verify packs.
    #[command(subcommand)]
    Pack(PackCommand),
    /// Measure, beside llama.cpp in the same run; results as JSON in `target/bench`.
    Bench(bench::BenchArguments),
    /// Serve with many more packs than fit, under requests, while files change; every answer is checked.
    Soak {
        /// Minutes of requests.
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        /// More of the soak's own arguments: `--packs`, `--room-for`, `--streams`, `--seed`, `--growth`, `--tiny`, `--json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },
    /// What has to hold before a change lands: format, lints, two minutes of soak, tests.
    Ci,
    /// Write the JSON schemas of the manifests.
    Schema {
        /// Only tell whether they are current.
        #[arg(long)]
        check: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PackCommand {
    /// Start a pack in a folder of its own; it builds and verifies before you change a line.
    New {
        /// Its name: a-z, 0-9 and -, starting with a letter.
        name: String,
        /// The folder to create (default: NAME in the current folder).
        #[arg(long, value_name = "DIR")]
        path: Option<PathBuf>,
        /// Its reverse-DNS id (default: `org.example.NAME`).
        #[arg(long)]
        id: Option<String>,
        /// Take the SDK from this git address instead of this checkout.
        #[arg(long, value_name = "URL")]
        git: Option<String>,
    },
    /// Build a pack and lay it out: library, weights, manifest with hashes and sizes.
    Build {
        /// A pack of this workspace by name, or the folder of its crate (default: the only pack here).
        pack: Option<String>,
        /// The folder to lay it out in (default: `target/packs/NAME`).
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Build a pack's library and train the pack, which needs no weights yet: `modularbase train pack` with its
    /// train.toml.
    Train {
        /// A pack of this workspace by name, or the folder of its crate.
        pack: String,
        /// What else `modularbase train pack` is told, such as `--data DIR --out DIR`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Check a laid-out pack in every way the host does before it serves one, and more.
    Verify {
        /// The laid-out folder (default: that of the only pack here).
        dir: Option<PathBuf>,
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Make a pair of keys for signing packs: NAME.key and NAME.pub.
    Keygen {
        /// What hosts and manifests call the key.
        name: String,
        /// The folder for the two files.
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// Leave the secret key without a password; whoever reads the file can sign.
        #[arg(long)]
        no_password: bool,
    },
    /// Sign a laid-out pack: [signer] in its manifest, and the signature beside it.
    Sign {
        /// The laid-out folder.
        dir: PathBuf,
        /// The secret key that `pack keygen` made.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// What hosts call the key (default: the manifest's name for it, else the name of FILE).
        #[arg(long, value_name = "KEY_ID")]
        name: Option<String>,
    },
    /// Put a laid-out pack into one file that can be dropped into a packs directory.
    Archive {
        /// The laid-out folder.
        dir: PathBuf,
        /// The file (default: `NAME-VERSION.mbpack` here).
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Runs the command line of this process; errors go to stderr with their causes.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command line whose first item is the program's name; gives the exit code: 0 done, 1 failed, 2 wrong usage,
/// or that of the program it ran.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let code = error.downcast_ref::<command::Failed>().and_then(command::Failed::exit_code);
            ExitCode::from(code.unwrap_or(1))
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { arguments } => run::run(&arguments),
        Command::Test { filter } => test::test(&filter),
        Command::Pack(PackCommand::New { name, path, id, git }) => {
            pack_template::new_pack(&name, path.as_deref(), id.as_deref(), git.as_deref())
        }
        Command::Pack(PackCommand::Build { pack, out }) => pack_build::build(pack.as_deref(), out.as_deref()),
        Command::Pack(PackCommand::Train { pack, arguments }) => pack_train::train(&pack, &arguments),
        Command::Pack(PackCommand::Verify { dir, json }) => pack_verify::verify(dir.as_deref(), json),
        Command::Pack(PackCommand::Keygen { name, out, no_password }) => {
            pack_sign_keys::keygen(&name, &out, no_password)
        }
        Command::Pack(PackCommand::Sign { dir, key, name }) => pack_sign::sign(&dir, &key, name.as_deref()),
        Command::Pack(PackCommand::Archive { dir, out }) => pack_archive::archive(&dir, out.as_deref()),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Soak { minutes, arguments } => soak::soak(minutes, &arguments),
        Command::Ci => ci::ci(),
        Command::Schema { check } => schema::schema(check),
    }
}
