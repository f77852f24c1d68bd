//! Scalars as TensorBoard reads them: event files of length-prefixed, checksummed protocol buffers.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::TrainError;

/// An event file that is open for writing.
pub(crate) struct EventFile {
    file: File,
    path: std::path::PathBuf,
}

impl EventFile {
    /// A new event file in `folder`; TensorBoard reads all of a folder, so that a run that goes on adds one.
    pub(crate) fn create(folder: &Path, wall_time: f64) -> Result<Self, TrainError> {
        let path = folder.join(format!("events.out.tfevents.{:010}.modularbase", wall_time as u64));
        let file = File::create(&path).map_err(TrainError::file("create", &path))?;
        let mut events = Self { file, path };
        let mut event = wall_time_field(wall_time);
        bytes_field(&mut event, 3, b"brain.Event:2");
        events.record(&event)?;
        Ok(events)
    }

    /// Adds one value.
    pub(crate) fn scalar(
        &mut self,
        tag: &str,
        step: u64,
        value: f64,
        wall_time: f64,
    ) -> Result<(), TrainError> {
        let mut scalar = Vec::new();
        bytes_field(&mut scalar, 1, tag.as_bytes());
        scalar.push(2 << 3 | 5);
        scalar.extend_from_slice(&(value as f32).to_le_bytes());
        let mut summary = Vec::new();
        bytes_field(&mut summary, 1, &scalar);
        let mut event = wall_time_field(wall_time);
        event.push(2 << 3);
        varint(&mut event, step);
        bytes_field(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, event: &[u8]) -> Result<(), TrainError> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend_from_slice(&masked_crc(&length));
        record.extend_from_slice(event);
        record.extend_from_slice(&masked_crc(event));
        self.file.write_all(&record).map_err(TrainError::file("write", &self.path))
    }
}

fn wall_time_field(wall_time: f64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend_from_slice(&wall_time.to_le_bytes());
    event
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The record format's checksum: CRC-32C, rotated and shifted so that a checksum of checksums differs.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_as_tensorboard_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 12.0).unwrap();
        events.scalar("loss", 300, 1.5, 13.0).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]));
            let event = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(event));
            records.push(event.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 2);
        let value = 1.5_f32.to_le_bytes();
        // wall time, step 300 as a varint, then the summary with the tag and the value.
        assert_eq!(records[1][9..12], [0x10, 0xac, 0x02]);
        assert!(records[1].windows(4).any(|window| window == b"loss"));
        assert!(records[1].ends_with(&value));
    }
}
