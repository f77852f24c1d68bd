//! A file of blocks: a header, then records that are only ever added at its end.
//!
//! The header is `MBKV`, the version, the identity of base and options, and a CRC-32C of these. Blocks are
//! read by position and not through a mapping: a file that somebody cuts off is then an error and no signal,
//! and its pages do not count as the process's memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::ContextError;
use crate::block_record::{Head, HeadFault};
use crate::token_chain::Identity;

const MAGIC: [u8; 4] = *b"MBKV";
const VERSION: u32 = 2;
const HEADER: usize = 44;
/// Enough for the head of nearly every record.
const HEAD_GUESS: usize = 4096;

/// Where a record lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) head_bytes: u32,
    /// Bits of a key or value; 0 for plain bytes.
    pub(crate) bits: u8,
}

/// How far a file's records go.
#[derive(Debug)]
pub(crate) struct Walked {
    /// Where the last whole record ends, and the next one is written.
    pub(crate) end: u64,
    /// What is wrong with the bytes behind `end`, where there are any.
    pub(crate) fault: Option<String>,
}

/// A file that was there.
pub(crate) enum OpenedFile {
    Sound(BlockFile),
    /// Nothing in it can be used, for this reason.
    Useless(String),
}

#[derive(Debug)]
pub(crate) struct BlockFile {
    path: PathBuf,
    file: File,
}

impl BlockFile {
    /// A new file, which must not exist yet.
    pub(crate) fn create(path: &Path, identity: &Identity) -> Result<Self, ContextError> {
        let created = File::options().read(true).write(true).create_new(true).open(path);
        Self::begin(path, created, identity)
    }

    /// A file without a name, gone with its last handle.
    pub(crate) fn unnamed(folder: &Path, identity: &Identity) -> Result<Self, ContextError> {
        Self::begin(folder, tempfile::tempfile_in(folder), identity)
    }

    fn begin(path: &Path, created: io::Result<File>, identity: &Identity) -> Result<Self, ContextError> {
        let file = created.map_err(ContextError::write(path))?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&identity.0);
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        file.write_all_at(&header, 0).map_err(ContextError::write(path))?;
        Ok(Self { path: path.into(), file })
    }

    /// A file that is there, for reading and adding.
    ///
    /// # Errors
    /// Where another program may know more of it: it can't be read, or has another version.
    pub(crate) fn open(path: &Path, identity: &Identity) -> Result<OpenedFile, ContextError> {
        let opened = File::options().read(true).write(true).open(path);
        let file = opened.map_err(ContextError::read(path))?;
        let useless = |reason| Ok(OpenedFile::Useless(format!("`{}` {reason}", path.display())));
        let mut header = [0; HEADER];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return useless("has no whole header");
            }
            read => read.map_err(ContextError::read(path))?,
        }
        if header[..4] != MAGIC || crc32c::crc32c(&header[..40]).to_le_bytes() != header[40..] {
            return useless("has a damaged header");
        }
        let version = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if version != VERSION {
            let found = format!("has version {version}").into();
            let expected = format!("blocks of version {VERSION}").into();
            return Err(ContextError::Format { path: path.into(), found, expected });
        }
        if header[8..40] != identity.0 {
            return useless("was made by another base or with other options");
        }
        Ok(OpenedFile::Sound(Self { path: path.into(), file }))
    }

    /// The same file under its new name.
    pub(crate) fn renamed(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Bytes of a file without records.
    pub(crate) const fn first_offset() -> u64 {
        HEADER as u64
    }

    /// Reads all heads, with their checksums, up to the first that is not whole.
    pub(crate) fn walk(&self, mut visit: impl FnMut(Head, Place)) -> Result<Walked, ContextError> {
        let length = self.metadata()?.len();
        let mut end = Self::first_offset();
        let mut buffer = vec![0; HEAD_GUESS];
        while end < length {
            let left = usize::try_from(length - end).unwrap_or(usize::MAX);
            let mut known = left.min(HEAD_GUESS);
            let parsed = loop {
                buffer.resize(buffer.len().max(known), 0);
                self.file.read_exact_at(&mut buffer[..known], end).map_err(ContextError::read(&self.path))?;
                match Head::parse(&buffer[..known]) {
                    Err(HeadFault::Short(needed)) if needed <= left => known = needed,
                    parsed => break parsed,
                }
            };
            let fault = |fault: &str| Some(self.fault(end, fault));
            match parsed {
                Ok(head) if head.bytes + head.payload_bytes <= left => {
                    let bytes = (head.bytes + head.payload_bytes) as u32;
                    let (head_bytes, bits) = (head.bytes as u32, head.content.bits());
                    let place = Place { offset: end, bytes, head_bytes, bits };
                    visit(head, place);
                    end += u64::from(bytes);
                }
                Ok(_) | Err(HeadFault::Short(_)) => {
                    return Ok(Walked { end, fault: fault("the record is cut off") });
                }
                Err(HeadFault::Damaged(reason)) => return Ok(Walked { end, fault: fault(reason) }),
            }
        }
        Ok(Walked { end, fault: None })
    }

    /// The first `bytes` of the record at `place`. Fewer are there when somebody cut the file off.
    pub(crate) fn read(&self, place: Place, bytes: u32) -> Result<Vec<u8>, ContextError> {
        let mut record = vec![0; bytes as usize];
        match self.file.read_exact_at(&mut record, place.offset) {
            Ok(()) => Ok(record),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
            Err(error) => Err(ContextError::read(&self.path)(error)),
        }
    }

    /// What is wrong with the record at `place`.
    pub(crate) fn fault_at(&self, place: Place) -> Result<Option<String>, ContextError> {
        let record = self.read(place, place.bytes)?;
        let fault = match Head::parse(&record) {
            Ok(head) => head.payload(&record).err(),
            Err(HeadFault::Short(_)) => Some("the record is cut off"),
            Err(HeadFault::Damaged(reason)) => Some(reason),
        };
        Ok(fault.map(|fault| self.fault(place.offset, fault)))
    }

    /// What is wrong, and where.
    pub(crate) fn fault(&self, offset: u64, fault: &str) -> String {
        format!("`{}` at byte {offset}: {fault}", self.path.display())
    }

    /// Writes a record at `end`. What a failure leaves there is no whole record: the next one is written over
    /// it, or it is cut off when the file is opened.
    pub(crate) fn add(&self, record: &[u8], end: u64) -> Result<(), ContextError> {
        self.file.write_all_at(record, end).map_err(ContextError::write(&self.path))
    }

    /// Cuts off what is behind `end`.
    pub(crate) fn cut(&self, end: u64) -> Result<(), ContextError> {
        self.file.set_len(end).map_err(ContextError::write(&self.path))
    }

    /// Waits until the disk has everything.
    pub(crate) fn sync(&self) -> Result<(), ContextError> {
        self.file.sync_data().map_err(ContextError::write(&self.path))
    }

    /// Refuses a file that its name does not lead to any more.
    pub(crate) fn check_in_place(&self) -> Result<(), ContextError> {
        let id = |found: std::fs::Metadata| (found.dev(), found.ino());
        let own = id(self.metadata()?);
        match std::fs::metadata(&self.path).map(id) {
            Ok(named) if named == own => Ok(()),
            _ => Err(ContextError::Deleted { path: self.path.as_path().into() }),
        }
    }

    /// How many names the file has.
    pub(crate) fn links(&self) -> Result<u64, ContextError> {
        Ok(self.metadata()?.nlink())
    }

    fn metadata(&self) -> Result<std::fs::Metadata, ContextError> {
        self.file.metadata().map_err(ContextError::read(&self.path))
    }
}
