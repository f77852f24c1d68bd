//! One visit to a pack's code: open, check, build, copy, close.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use abi_stable::std_types::{RErr, ROk, RStr};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use modularbase_graph::{Graph, GraphError};
use pack_abi::{ErrorCode, PackModule_Ref};
use serde::{Deserialize, Serialize};

use super::{
    host_api::{self, LogLine},
    layout,
    pack_threads::{ThreadMark, mark_this_thread, thread_ids, threads_left},
    unloading::{Unload, is_mapped},
};

/// What is asked of a library.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The library: a copy that nobody writes to, named so that no other library ever has the same path.
    pub library: PathBuf,
    /// The configuration for `build`, JSON (see `pack_sdk::config_json`).
    pub config: String,
    /// How long it may take.
    pub time_limit: Duration,
}

/// What a pack says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Crate name.
    pub name: String,
    /// Crate version.
    pub version: String,
    /// Compiler.
    pub rustc: String,
    /// Version of the SDK, or of whatever it was built with.
    pub sdk_version: String,
}

/// What came out of a library. All of it is the host's own memory.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltPack {
    /// What the pack says of itself.
    pub info: PackInfo,
    /// Its graph: typed and sorted, shapes not inferred yet.
    pub graph: Graph,
    /// What it wrote to the log.
    pub log: Vec<LogLine>,
    /// What became of the library.
    pub unload: Unload,
    /// Threads of the pack that live on; where there are any, the library was not even asked to unload.
    pub threads_left: usize,
    /// From opening to closed.
    pub elapsed: Duration,
}

/// Why a library gave no graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LibraryError {
    /// The dynamic loader refused it.
    #[error("the dynamic loader can't open it: {0}")]
    Open(String),
    /// The symbol that leads into the pack is missing.
    #[error("it does not export a pack ({0}): use export_pack! once in a crate of type cdylib")]
    NoExport(String),
    /// Built with another abi_stable, or damaged.
    #[error("its header does not fit this host: {0}")]
    Header(String),
    /// Another major version of the ABI.
    #[error(
        "built for ABI {found}, this host has ABI {expected}: rebuild it with a pack SDK of ABI {expected}"
    )]
    AbiMajor {
        /// The host's.
        expected: u32,
        /// The pack's.
        found: u32,
    },
    /// Exported without a description of its types.
    #[error("it was exported without the layout of its types: use export_pack!")]
    NoLayout,
    /// A type differs although the major version is the same.
    #[error("its types differ from this host's: rebuild it with an unchanged pack SDK\n{0}")]
    Layout(String),
    /// Its root module could not be made.
    #[error("its root module failed: {0}")]
    Constructor(String),
    /// `build` panicked.
    #[error("its build {0}")]
    Panicked(String),
    /// `build` gave an error.
    #[error("its build failed: {0}")]
    Build(String),
    /// The graph is none the host runs.
    #[error("its graph is refused: {0}")]
    Graph(#[from] GraphError),
    /// It did not come back. Its thread and library stay.
    #[error("its build did not end within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The host's own fault: no thread could be started, or it panicked.
    #[error("the host's thread for the pack failed: {0}")]
    Thread(String),
}

/// One library at a time: the thread count and the loader's own tables are the process's, and what a pack does to them
/// must be told from what another does.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Opens the library, checks it, calls `build`, copies the graph, closes the library and looks whether it is gone.
///
/// All of the pack's code runs on a thread made for it, which has ended before the library closes: thread-local
/// destructors of the pack would otherwise run in unmapped memory.
///
/// # Errors
/// [`LibraryError`]. The library is closed in every case but [`LibraryError::TimedOut`].
pub fn build_graph(request: &BuildRequest) -> Result<BuiltPack, LibraryError> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let watch_error = |error: io::Error| LibraryError::Thread(error.to_string());
    let threads_before = thread_ids().map_err(watch_error)?;
    let (done, is_done) = mpsc::sync_channel(1);
    let (path, config) = (request.library.clone(), request.config.clone());
    let pack_thread = thread::Builder::new()
        .name("pack".to_owned())
        .spawn(move || {
            // The receiver is gone after a time-out; then the result, and the library with it, stays here.
            if let Err(mpsc::SendError(visit)) = done.send(visit(&path, &config)) {
                std::mem::forget(visit);
            }
        })
        .map_err(watch_error)?;
    let visit = match is_done.recv_timeout(request.time_limit) {
        Ok(visit) => visit?,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err(LibraryError::TimedOut(request.time_limit));
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = pack_thread.join().err();
            let text = panic.and_then(|panic| panic.downcast_ref::<String>().cloned());
            return Err(LibraryError::Thread(text.unwrap_or_else(|| "panicked".to_owned())));
        }
    };
    // Ends when the thread's destructors have run.
    pack_thread.join().map_err(|_| LibraryError::Thread("panicked at its end".to_owned()))?;
    let threads_left = threads_left(&threads_before, &visit.mark).map_err(watch_error)?;
    if threads_left > 0 {
        // A thread pins its library only once it has registered a destructor. Until then closing would unmap the code
        // it runs.
        std::mem::forget(visit.library);
    } else {
        // A failure to close shows below.
        let _ = visit.library.close();
    }
    let (info, graph) = visit.result?;
    let unload = if is_mapped(&request.library) { Unload::Pinned } else { Unload::Unloaded };
    Ok(BuiltPack { info, graph, log: visit.log, unload, threads_left, elapsed: start.elapsed() })
}

struct Visit {
    library: Library,
    mark: ThreadMark,
    log: Vec<LogLine>,
    result: Result<(PackInfo, Graph), LibraryError>,
}

/// Runs on the pack's own thread.
fn visit(path: &Path, config: &str) -> Result<Visit, LibraryError> {
    let mark = mark_this_thread().map_err(|error| LibraryError::Thread(error.to_string()))?;
    // SAFETY: opening runs the library's constructors. The caller has inspected the file and probed it in a child
    // process before; nothing else can be known about foreign code.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| LibraryError::Open(error.to_string()))?;
    let result = call(&library, config);
    Ok(Visit { library, mark, log: host_api::take_lines(), result })
}

fn call(library: &Library, config: &str) -> Result<(PackInfo, Graph), LibraryError> {
    let module = layout::root_module::<PackModule_Ref>(library)?;
    let info = (module.info())();
    let info = PackInfo {
        name: info.name.to_string(),
        version: info.version.to_string(),
        rustc: info.rustc.to_string(),
        sdk_version: info.sdk_version.to_string(),
    };
    match (module.build())(host_api::host_api(), RStr::from_str(config)) {
        // Copied here; the pack's own graph is freed by the pack's code at the end of this arm, on this thread.
        ROk(graph) => Ok((info, Graph::from_abi(&graph)?)),
        RErr(error) if error.code == ErrorCode::PANIC => {
            Err(LibraryError::Panicked(error.message.to_string()))
        }
        RErr(error) => Err(LibraryError::Build(error.message.to_string())),
    }
}
