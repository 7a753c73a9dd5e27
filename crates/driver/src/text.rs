//! Texts for people that come from another machine: they end up in records and
//! on screens, so that nothing in them may be long or work on a terminal or a
//! database.

use serde::{Deserialize as _, Deserializer};

/// What is kept of one text.
pub const MAX_TEXT_CHARS: usize = 1000;

/// For `#[serde(deserialize_with = "text::deserialize")]`.
///
/// # Errors
/// Where it is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| tame(&text))
}

/// As [`deserialize`], for a text that may be absent.
///
/// # Errors
/// Where it is no text.
pub fn deserialize_option<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| tame(&text)))
}

/// The text in one line that does nothing, cut where it is too long.
#[must_use]
pub fn tame(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut tamed: String = text.chars().take(MAX_TEXT_CHARS).map(printable).collect();
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        tamed.push('…');
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_one_line_of_bounded_length() {
        assert_eq!(tame("killed by signal 9"), "killed by signal 9");
        assert_eq!(tame("a\0b\x1b[2Jc\nd"), "a b [2Jc d");
        let long = tame(&"é".repeat(MAX_TEXT_CHARS + 1));
        assert_eq!(long.chars().count(), MAX_TEXT_CHARS + 1);
        assert!(long.ends_with("é…"));
    }
}
