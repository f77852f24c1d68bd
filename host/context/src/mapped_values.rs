//! Numbers whose memory goes back to the system with them.

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Bits of f16, in a mapping of their own: what leaves the RAM tier makes room in the process too, where an allocator would
/// keep it for blocks that never come.
pub struct MappedValues {
    map: MmapMut,
    length: usize,
}

impl MappedValues {
    /// So many zeros.
    pub fn zeros(length: usize) -> Self {
        let bytes = length * size_of::<u16>();
        let map = MmapMut::map_anon(bytes.max(1)).unwrap_or_else(|_| {
            handle_alloc_error(Layout::array::<u16>(length).unwrap_or(Layout::new::<u16>()))
        });
        Self { map, length }
    }
}

impl Deref for MappedValues {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        bytemuck::cast_slice(&self.map[..self.length * size_of::<u16>()])
    }
}

impl DerefMut for MappedValues {
    fn deref_mut(&mut self) -> &mut [u16] {
        bytemuck::cast_slice_mut(&mut self.map[..self.length * size_of::<u16>()])
    }
}

impl From<&[u16]> for MappedValues {
    fn from(values: &[u16]) -> Self {
        let mut mapped = Self::zeros(values.len());
        mapped.copy_from_slice(values);
        mapped
    }
}

impl PartialEq for MappedValues {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for MappedValues {}

impl fmt::Debug for MappedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_that_were_given_and_none_is_a_length_too() {
        let values: Vec<u16> = (0..5_000).collect();
        let mut mapped = MappedValues::from(&values[..]);
        assert_eq!(*mapped, values[..]);
        mapped[4_999] = 7;
        assert_ne!(mapped, MappedValues::from(&values[..]));
        assert!(MappedValues::zeros(0).is_empty());
    }
}
