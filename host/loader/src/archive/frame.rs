//! The one zstd frame of an archive, read with doubt.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

use manifests::Sha256;
use sha2::Digest;
use zstd::Decoder;

use super::ArchiveFault;

/// The most memory that a frame may ask for: a window of 2^27 bytes, 128 MiB.
const MAX_WINDOW_LOG: u32 = 27;

/// First bytes of a zstd frame (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Zeros behind a tar's end: two blocks at least; tar pads to records of 20 blocks, and may be told of larger ones.
const MIN_END: u64 = 512;
const MAX_END: u64 = 1 << 20;

/// Why reading the frame failed.
pub(super) enum FrameFailure {
    /// The file can't be read.
    Read(io::Error),
    /// The file ends before the frame does.
    Incomplete,
    /// The archive is at fault.
    Fault(ArchiveFault),
}

/// What the frame holds. Whoever reads through others looks into [`Failures`] to learn why an error came.
pub(super) struct FrameReader {
    decoder: Decoder<'static, BufReader<HashedFile>>,
    failures: Failures,
}

/// The first failure of a frame, shared with its reader.
#[derive(Clone, Default)]
pub(super) struct Failures(Rc<RefCell<Option<FrameFailure>>>);

impl Failures {
    /// What the frame failed with; where it did not fail, its content is no tar.
    pub(super) fn explain(&self, error: &io::Error) -> FrameFailure {
        let first = self.0.borrow_mut().take();
        first.unwrap_or_else(|| FrameFailure::Fault(ArchiveFault::Tar(error.to_string())))
    }
}

impl FrameReader {
    /// A reader of the frame that begins where `file` stands.
    pub(super) fn new(file: File) -> Result<(Self, Failures), FrameFailure> {
        let hashed = HashedFile { file, hasher: sha2::Sha256::new(), error: None };
        let mut input = BufReader::with_capacity(1 << 17, hashed);
        let start = input.fill_buf().map_err(FrameFailure::Read)?;
        let start = &start[..start.len().min(MAGIC.len())];
        if !MAGIC.starts_with(start) {
            return Err(FrameFailure::Fault(ArchiveFault::NotZstd));
        }
        if start.len() < MAGIC.len() {
            return Err(FrameFailure::Incomplete);
        }
        let refuse = |error: io::Error| FrameFailure::Fault(ArchiveFault::Frame(error.to_string()));
        let mut decoder = Decoder::with_buffer(input).map_err(refuse)?.single_frame();
        decoder.window_log_max(MAX_WINDOW_LOG).map_err(refuse)?;
        let failures = Failures::default();
        Ok((Self { decoder, failures: failures.clone() }, failures))
    }

    /// Reads what follows the tar's first block of zeros: more zeros, the frame's end, the file's end. Gives the hash
    /// of the whole file.
    pub(super) fn finish(mut self) -> Result<Sha256, FrameFailure> {
        let failures = self.failures.clone();
        let explain = |error| failures.explain(&error);
        let mut buffer = [0; 4096];
        let mut zeros = 0;
        loop {
            let read = self.read(&mut buffer).map_err(explain)?;
            if read == 0 {
                break;
            }
            zeros += read as u64;
            if zeros > MAX_END || buffer[..read].iter().any(|byte| *byte != 0) {
                return Err(FrameFailure::Fault(ArchiveFault::TrailingData));
            }
        }
        if zeros < MIN_END {
            let reason = "its end is missing".to_owned();
            return Err(FrameFailure::Fault(ArchiveFault::Tar(reason)));
        }
        let mut input = self.decoder.finish();
        if !input.fill_buf().map_err(FrameFailure::Read)?.is_empty() {
            return Err(FrameFailure::Fault(ArchiveFault::TrailingData));
        }
        Ok(Sha256::from_bytes(input.into_inner().hasher.finalize().into()))
    }
}

impl Read for FrameReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).inspect_err(|error| {
            let failure = match self.decoder.get_mut().get_mut().error.take() {
                Some(error) => FrameFailure::Read(error),
                None if error.kind() == io::ErrorKind::UnexpectedEof => FrameFailure::Incomplete,
                None => FrameFailure::Fault(ArchiveFault::Frame(error.to_string())),
            };
            self.failures.0.borrow_mut().get_or_insert(failure);
        })
    }
}

/// A file whose bytes are hashed as they are read, and whose own errors are told from those of its content.
struct HashedFile {
    file: File,
    hasher: sha2::Sha256,
    error: Option<io::Error>,
}

impl Read for HashedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                Ok(read) => {
                    self.hasher.update(&buffer[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.error = Some(error);
                    return Err(kind.into());
                }
            }
        }
    }
}
