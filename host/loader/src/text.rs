//! Text from outside, cut to a bound.

/// The first at most `bytes` bytes of `text`, ending at a character's end.
pub(crate) fn clipped(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::clipped;

    #[test]
    fn characters_stay_whole() {
        assert_eq!(clipped("aäb", 2), "a");
        assert_eq!(clipped("aäb", 3), "aä");
        assert_eq!(clipped("aäb", 99), "aäb");
        assert_eq!(clipped("ä", 0), "");
    }
}
