//! The general pack: the base's own layers of the slot.
