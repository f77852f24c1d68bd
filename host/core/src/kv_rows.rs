//! Rows of one layer's keys or values, one after the other, in host memory or on a device.

use std::borrow::Cow;

use modularbase_kernels::{self as kernels, ThreadPool};

use crate::{CoreError, KvDtype, device_rows::DeviceRows, kv_cache::make_room};

/// Rows of one layer's keys or values.
#[derive(Debug)]
pub(crate) enum KvRows {
    F32(Vec<f32>),
    /// Bits of IEEE half-precision numbers.
    F16(Vec<u16>),
    /// In f32.
    Device(DeviceRows),
}

impl KvRows {
    pub(crate) fn host(dtype: KvDtype) -> Self {
        match dtype {
            KvDtype::F32 => Self::F32(Vec::new()),
            KvDtype::F16 => Self::F16(Vec::new()),
        }
    }

    /// None yet, in the same precision and place.
    pub(crate) fn emptied(&self) -> Self {
        match self {
            Self::F32(_) => Self::F32(Vec::new()),
            Self::F16(_) => Self::F16(Vec::new()),
            Self::Device(rows) => Self::Device(rows.emptied()),
        }
    }

    /// Where they are on a device.
    ///
    /// # Errors
    /// Rows in host memory.
    pub(crate) fn on_device(&mut self) -> Result<&mut DeviceRows, CoreError> {
        match self {
            Self::Device(rows) => Ok(rows),
            _ => Err(CoreError::mismatch("KV cache", "one made by this plan", "host memory")),
        }
    }

    /// Appends rows that lie in host memory.
    pub(crate) fn append(&mut self, pool: &ThreadPool, rows: &[f32], width: usize) -> Result<(), CoreError> {
        match self {
            Self::F32(store) => {
                make_room(store, rows.len(), width);
                store.extend_from_slice(rows);
            }
            Self::F16(store) => {
                make_room(store, rows.len(), width);
                let old = store.len();
                store.resize(old + rows.len(), 0);
                kernels::f32_to_f16(pool, rows, &mut store[old..])?;
            }
            Self::Device(store) => store.append_values(rows, width)?,
        }
        Ok(())
    }

    /// Forgets all rows from `len` on.
    pub(crate) fn truncate(&mut self, len: usize, width: usize) {
        match self {
            Self::F32(store) => store.truncate(len * width),
            Self::F16(store) => store.truncate(len * width),
            Self::Device(rows) => rows.truncate(len),
        }
    }

    /// Forgets the first `count` rows; the others move up.
    pub(crate) fn drop_first(&mut self, count: usize, width: usize) -> Result<(), CoreError> {
        match self {
            Self::F32(store) => drop(store.drain(..count * width)),
            Self::F16(store) => drop(store.drain(..count * width)),
            Self::Device(rows) => rows.drop_first(count)?,
        }
        Ok(())
    }

    /// Values held.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(store) => store.len(),
            Self::F16(store) => store.len(),
            Self::Device(rows) => rows.values(),
        }
    }

    /// Bytes of a value.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::F16(_) => size_of::<u16>(),
            Self::F32(_) | Self::Device(_) => size_of::<f32>(),
        }
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(store) => store.capacity() * size_of::<f32>(),
            Self::F16(store) => store.capacity() * size_of::<u16>(),
            Self::Device(rows) => rows.bytes(),
        }
    }

    /// Widens values from number `first` on.
    pub(crate) fn read(&self, pool: &ThreadPool, first: usize, out: &mut [f32]) -> Result<(), CoreError> {
        match self {
            Self::F32(store) => out.copy_from_slice(&store[first..first + out.len()]),
            Self::F16(store) => kernels::f16_to_f32(pool, &store[first..first + out.len()], out)?,
            Self::Device(rows) => rows.read(first, out)?,
        }
        Ok(())
    }

    /// `count` values from number `first` on as bits of f16.
    pub(crate) fn read_f16(
        &self,
        pool: &ThreadPool,
        first: usize,
        count: usize,
    ) -> Result<Cow<'_, [u16]>, CoreError> {
        let narrowed = |values: &[f32]| -> Result<_, CoreError> {
            let mut bits = vec![0; count];
            kernels::f32_to_f16(pool, values, &mut bits)?;
            Ok(Cow::Owned(bits))
        };
        match self {
            Self::F32(store) => narrowed(&store[first..first + count]),
            Self::F16(store) => Ok(Cow::Borrowed(&store[first..first + count])),
            Self::Device(rows) => {
                let mut values = vec![0.0; count];
                rows.read(first, &mut values)?;
                narrowed(&values)
            }
        }
    }

    /// Replaces values from number `first` on.
    pub(crate) fn write(&mut self, pool: &ThreadPool, first: usize, values: &[f32]) -> Result<(), CoreError> {
        match self {
            Self::F32(store) => store[first..first + values.len()].copy_from_slice(values),
            Self::F16(store) => kernels::f32_to_f16(pool, values, &mut store[first..first + values.len()])?,
            Self::Device(rows) => rows.write(first, values)?,
        }
        Ok(())
    }

    /// Replaces values from number `first` on by those of bits of f16, one part after the other.
    pub(crate) fn write_f16(
        &mut self,
        pool: &ThreadPool,
        first: usize,
        parts: &[&[u16]],
    ) -> Result<(), CoreError> {
        match self {
            Self::F32(store) => widen(pool, parts, &mut store[first..])?,
            Self::F16(store) => {
                let mut rest = &mut store[first..];
                for bits in parts {
                    let (part, behind) = rest.split_at_mut(bits.len());
                    part.copy_from_slice(bits);
                    rest = behind;
                }
            }
            Self::Device(rows) => {
                let mut values = vec![0.0; parts.iter().map(|bits| bits.len()).sum()];
                widen(pool, parts, &mut values)?;
                rows.write(first, &values)?;
            }
        }
        Ok(())
    }

    /// Values from number `first` on as bytes.
    pub(crate) fn bytes_from(&self, first: usize) -> Result<Cow<'_, [u8]>, CoreError> {
        Ok(match self {
            Self::F32(store) => Cow::Borrowed(bytemuck::cast_slice(&store[first..])),
            Self::F16(store) => Cow::Borrowed(bytemuck::cast_slice(&store[first..])),
            Self::Device(rows) => {
                let mut values = vec![0.0; rows.values() - first];
                rows.read(first, &mut values)?;
                Cow::Owned(bytemuck::cast_slice(&values).to_vec())
            }
        })
    }

    /// `zeros` zeros and behind them the values of `bytes`, in place of what is there.
    pub(crate) fn restore(&mut self, zeros: usize, bytes: &[u8], width: usize) -> Result<(), CoreError> {
        match self {
            Self::F32(store) => refill(store, zeros, bytes, width),
            Self::F16(store) => refill(store, zeros, bytes, width),
            Self::Device(rows) => {
                let mut values = Vec::new();
                refill(&mut values, zeros, bytes, width);
                rows.truncate(0);
                rows.append_values(&values, width)?;
            }
        }
        Ok(())
    }
}

/// Widens parts of bits of f16, one after the other.
fn widen(pool: &ThreadPool, parts: &[&[u16]], mut out: &mut [f32]) -> Result<(), CoreError> {
    for bits in parts {
        let (part, behind) = out.split_at_mut(bits.len());
        kernels::f16_to_f32(pool, bits, part)?;
        out = behind;
    }
    Ok(())
}

fn refill<T: bytemuck::Pod + Default>(store: &mut Vec<T>, zeros: usize, bytes: &[u8], width: usize) {
    store.clear();
    make_room(store, zeros + bytes.len() / size_of::<T>(), width);
    store.resize(zeros, T::default());
    store.extend(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>));
}
