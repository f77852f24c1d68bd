//! An own reader for GGUF headers that trusts nothing it reads.
//!
//! Every count, length and offset is checked against the bytes that are really there before anything is
//! allocated, so that a truncated or bit-flipped file ends in [`BaseFileError::Damaged`]. (candle's reader
//! divides by a zero alignment, and keeps each token of the vocabulary as an enum with a string of its own;
//! here a string array is one buffer with end positions.)
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::BaseFileError;

/// No sound header is larger; the vocabulary of 256 k tokens with its merges takes about 12 MB.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// How much is read from the file at once.
const WINDOW_BYTES: usize = 256 << 10;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// Strings one after another in one buffer.
#[derive(Debug, Default)]
pub(crate) struct StringArray {
    text: String,
    ends: Vec<u32>,
}

impl StringArray {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        self.text.get(start..end)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// One metadata value. All integers that fit are widened to `i128`, so that signedness (which writers
/// choose freely) does not matter to readers.
#[derive(Debug)]
pub(crate) enum GgufValue {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Texts(StringArray),
    /// A kind of array that no reader here asks for (of bools, or of arrays); skipped.
    Skipped,
}

impl GgufValue {
    fn describe(&self) -> String {
        match self {
            Self::Integer(value) => format!("the integer {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Bool(value) => format!("{value}"),
            Self::Text(value) => format!("'{}'", value.chars().take(40).collect::<String>()),
            Self::Integers(values) => format!("an array of {} integers", values.len()),
            Self::Floats(values) => format!("an array of {} numbers", values.len()),
            Self::Texts(values) => format!("an array of {} strings", values.len()),
            Self::Skipped => "an array of another type".to_owned(),
        }
    }
}

/// One entry of the tensor table.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensor {
    /// Rows first: the file's order is reversed.
    pub shape: Vec<usize>,
    /// `enum ggml_type`.
    pub ggml_type: u32,
    /// From the start of the data section, in bytes.
    pub offset: u64,
}

/// A GGUF file's header.
#[derive(Debug)]
pub(crate) struct GgufHeader {
    path: PathBuf,
    metadata: HashMap<String, GgufValue>,
    pub tensors: HashMap<String, GgufTensor>,
    /// Where the data section begins, in bytes from the start of the file.
    pub data_offset: u64,
}

impl GgufHeader {
    /// Gives back the metadata's memory: every key is missing afterwards.
    pub(crate) fn forget_metadata(&mut self) {
        self.metadata = HashMap::new();
    }

    /// Reads the header of `file` (`length` bytes long).
    pub(crate) fn read(path: &Path, file: &File, length: u64) -> Result<Self, BaseFileError> {
        let mut reader = HeaderReader::new(path, file, length);
        let magic = reader.array::<4>("the magic number")?;
        if &magic != b"GGUF" {
            return Err(BaseFileError::NotABase {
                path: path.to_path_buf(),
                why: "it does not begin with 'GGUF'".to_owned(),
            });
        }
        let version = reader.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(BaseFileError::unsupported(path, "GGUF version", version, "2 and 3, little-endian"));
        }
        let tensor_count = reader.u64("the tensor count")?;
        let metadata_count = reader.u64("the metadata count")?;
        // A tensor entry takes at least 24 bytes, a metadata entry at least 13.
        reader.expect_room(tensor_count, 24, "tensors")?;
        reader.expect_room(metadata_count, 13, "metadata entries")?;

        let mut metadata = HashMap::new();
        for _ in 0..metadata_count {
            let key = reader.string("a metadata key")?;
            let kind = reader.u32("a metadata type")?;
            let value = reader.value(kind, &key)?;
            metadata.insert(key, value);
        }
        let mut tensors = HashMap::new();
        for _ in 0..tensor_count {
            let name = reader.string("a tensor name")?;
            let tensor = reader.tensor(&name)?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(reader.damaged(format!("tensor '{name}' is listed twice")));
            }
        }
        let position = reader.position;
        let mut header = Self { path: path.to_path_buf(), metadata, tensors, data_offset: 0 };
        let alignment =
            header.optional_integer("general.alignment", 1, 1 << 20)?.unwrap_or(DEFAULT_ALIGNMENT);
        header.data_offset = position.div_ceil(alignment) * alignment;
        Ok(header)
    }

    fn wrong(&self, key: &str, expected: &str, found: &GgufValue) -> BaseFileError {
        BaseFileError::field(&self.path, key, expected, found.describe())
    }

    fn missing(&self, key: &str, expected: &str) -> BaseFileError {
        BaseFileError::field(&self.path, key, expected, "nothing")
    }

    pub(crate) fn optional_integer(
        &self,
        key: &str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, BaseFileError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match value {
            GgufValue::Integer(number) if (i128::from(min)..=i128::from(max)).contains(number) => {
                Ok(Some(*number as u64))
            }
            other => Err(self.wrong(key, &format!("an integer from {min} to {max}"), other)),
        }
    }

    pub(crate) fn integer(&self, key: &str, min: u64, max: u64) -> Result<u64, BaseFileError> {
        let expected = format!("an integer from {min} to {max}");
        self.optional_integer(key, min, max)?.ok_or_else(|| self.missing(key, &expected))
    }

    pub(crate) fn optional_float(&self, key: &str) -> Result<Option<f64>, BaseFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Float(number)) => Ok(Some(*number)),
            Some(GgufValue::Integer(number)) => Ok(Some(*number as f64)),
            Some(other) => Err(self.wrong(key, "a number", other)),
        }
    }

    pub(crate) fn optional_bool(&self, key: &str) -> Result<Option<bool>, BaseFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, "true or false", other)),
        }
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&str>, BaseFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, "a string", other)),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str, BaseFileError> {
        self.optional_text(key)?.ok_or_else(|| self.missing(key, "a string"))
    }

    pub(crate) fn optional_texts(&self, key: &str) -> Result<Option<&StringArray>, BaseFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Texts(texts)) => Ok(Some(texts)),
            Some(other) => Err(self.wrong(key, "an array of strings", other)),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<&StringArray, BaseFileError> {
        self.optional_texts(key)?.ok_or_else(|| self.missing(key, "an array of strings"))
    }

    pub(crate) fn optional_integers(&self, key: &str) -> Result<Option<&[i64]>, BaseFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Integers(values)) => Ok(Some(values)),
            Some(other) => Err(self.wrong(key, "an array of integers", other)),
        }
    }

    pub(crate) fn optional_floats(&self, key: &str) -> Result<Option<&[f32]>, BaseFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Floats(values)) => Ok(Some(values)),
            Some(other) => Err(self.wrong(key, "an array of numbers", other)),
        }
    }
}

/// Reads forward through the header, a window at a time, and never past `length`.
struct HeaderReader<'a> {
    path: &'a Path,
    file: &'a File,
    /// Where reading must stop: the file's end, or the limit for headers.
    end: u64,
    position: u64,
    window: Vec<u8>,
    /// The file position of `window[0]`.
    window_start: u64,
}

impl<'a> HeaderReader<'a> {
    fn new(path: &'a Path, file: &'a File, length: u64) -> Self {
        Self {
            path,
            file,
            end: length.min(MAX_HEADER_BYTES),
            position: 0,
            window: Vec::new(),
            window_start: 0,
        }
    }

    fn damaged(&self, what: impl Into<String>) -> BaseFileError {
        BaseFileError::Damaged { path: self.path.to_path_buf(), offset: self.position, what: what.into() }
    }

    fn remaining(&self) -> u64 {
        self.end - self.position
    }

    fn expect_room(&self, count: u64, bytes_each: u64, what: &str) -> Result<(), BaseFileError> {
        let needed = count.checked_mul(bytes_each);
        if needed.is_none_or(|needed| needed > self.remaining()) {
            return Err(self.damaged(format!(
                "{count} {what} are announced, but only {} header bytes remain",
                self.remaining()
            )));
        }
        Ok(())
    }

    /// The next `count` bytes.
    fn bytes(&mut self, count: usize, what: &str) -> Result<&[u8], BaseFileError> {
        if count as u64 > self.remaining() {
            return Err(self.damaged(format!(
                "{what} needs {count} bytes, only {} header bytes remain",
                self.remaining()
            )));
        }
        let held = self.window_start + self.window.len() as u64;
        if self.position + count as u64 > held {
            let wanted = (count.max(WINDOW_BYTES) as u64).min(self.remaining()) as usize;
            self.window.resize(wanted, 0);
            self.window_start = self.position;
            self.file
                .read_exact_at(&mut self.window, self.position)
                .map_err(|source| BaseFileError::io(self.path, "read", source))?;
        }
        let start = (self.position - self.window_start) as usize;
        self.position += count as u64;
        Ok(&self.window[start..start + count])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], BaseFileError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32, BaseFileError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, BaseFileError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn string(&mut self, what: &str) -> Result<String, BaseFileError> {
        let length = self.u64(what)?;
        self.expect_room(length, 1, "bytes of text")?;
        let text = self.bytes(length as usize, what)?.to_vec();
        String::from_utf8(text).map_err(|_| self.damaged(format!("{what} is not UTF-8")))
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<GgufValue, BaseFileError> {
        Ok(match kind {
            0..=5 | 10 | 11 => GgufValue::Integer(self.integer(kind, key)?),
            6 | 12 => GgufValue::Float(self.float(kind, key)?),
            7 => match self.array::<1>(key)? {
                [0] => GgufValue::Bool(false),
                [1] => GgufValue::Bool(true),
                [other] => return Err(self.damaged(format!("'{key}' holds {other} where 0 or 1 belongs"))),
            },
            8 => GgufValue::Text(self.string(key)?),
            9 => self.array_value(key)?,
            other => return Err(self.damaged(format!("'{key}' has the unknown type {other}"))),
        })
    }

    fn integer(&mut self, kind: u32, key: &str) -> Result<i128, BaseFileError> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array(key)?).into(),
            1 => i8::from_le_bytes(self.array(key)?).into(),
            2 => u16::from_le_bytes(self.array(key)?).into(),
            3 => i16::from_le_bytes(self.array(key)?).into(),
            4 => u32::from_le_bytes(self.array(key)?).into(),
            5 => i32::from_le_bytes(self.array(key)?).into(),
            10 => u64::from_le_bytes(self.array(key)?).into(),
            _ => i64::from_le_bytes(self.array(key)?).into(),
        })
    }

    fn float(&mut self, kind: u32, key: &str) -> Result<f64, BaseFileError> {
        Ok(match kind {
            6 => f32::from_le_bytes(self.array(key)?).into(),
            _ => f64::from_le_bytes(self.array(key)?),
        })
    }

    fn array_value(&mut self, key: &str) -> Result<GgufValue, BaseFileError> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(self.damaged(format!("'{key}' is an array of arrays"))),
            other => return Err(self.damaged(format!("'{key}' is an array of the unknown type {other}"))),
        };
        self.expect_room(count, smallest, "array elements")?;
        Ok(match kind {
            6 | 12 => {
                let mut values = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    values.push(self.float(kind, key)? as f32);
                }
                GgufValue::Floats(values)
            }
            7 => {
                for _ in 0..count {
                    self.array::<1>(key)?;
                }
                GgufValue::Skipped
            }
            8 => {
                let mut strings = StringArray::default();
                strings.ends.reserve_exact(count as usize);
                for _ in 0..count {
                    let length = self.u64(key)?;
                    self.expect_room(length, 1, "bytes of text")?;
                    let (path, offset) = (self.path, self.position);
                    let text = self.bytes(length as usize, key)?;
                    let text = std::str::from_utf8(text).map_err(|_| BaseFileError::Damaged {
                        path: path.to_path_buf(),
                        offset,
                        what: format!("'{key}' holds text that is not UTF-8"),
                    })?;
                    strings.text.push_str(text);
                    // The header limit keeps this below 2^32.
                    strings.ends.push(strings.text.len() as u32);
                }
                strings.text.shrink_to_fit();
                GgufValue::Texts(strings)
            }
            _ => {
                let mut values = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    let value = self.integer(kind, key)?;
                    let value = i64::try_from(value)
                        .map_err(|_| self.damaged(format!("'{key}' holds {value}, more than 63 bits")))?;
                    values.push(value);
                }
                GgufValue::Integers(values)
            }
        })
    }

    fn tensor(&mut self, name: &str) -> Result<GgufTensor, BaseFileError> {
        let dimensions = self.u32(name)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.damaged(format!("tensor '{name}' has {dimensions} dimensions")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            let size = self.u64(name)?;
            let size = usize::try_from(size)
                .map_err(|_| self.damaged(format!("tensor '{name}' has a dimension of {size}")))?;
            shape.push(size);
        }
        shape.reverse();
        let ggml_type = self.u32(name)?;
        let offset = self.u64(name)?;
        Ok(GgufTensor { shape, ggml_type, offset })
    }
}
