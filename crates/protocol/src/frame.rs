//! How frames are read: what is not understood is told apart from what is none.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::limits::MAX_COMPLAINT_CHARS;

/// Why a frame cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// JSON, but not what was expected: of a later version, or of a broken
    /// peer. It costs this frame and nothing else, for whoever sends it once
    /// sends it again after every new connection.
    #[error("unreadable frame: {0}")]
    Strange(String),
    /// Not JSON: it is no peer that speaks there.
    #[error("unreadable frame: {0}")]
    Noise(String),
}

/// # Errors
/// Where there is no such frame in the text.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|error| {
        let complaint = error.to_string();
        let why = complaint.chars().take(MAX_COMPLAINT_CHARS).collect();
        match error.classify() {
            Category::Data => Unreadable::Strange(why),
            Category::Io | Category::Syntax | Category::Eof => Unreadable::Noise(why),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::FromAgent;

    #[test]
    fn strange_frames_and_noise_are_told_apart() {
        for strange in [
            r#"{"frame":"observed","vm_id":7}"#,
            r#"{"frame":["done"]}"#,
            r#"{"no":"frame"}"#,
            "[]",
            "null",
        ] {
            let read = read::<FromAgent>(strange);
            assert!(matches!(read, Err(Unreadable::Strange(_))), "{read:?}");
        }
        for noise in [
            "",
            "{",
            "HTTP/1.1 400 Bad Request",
            r#"{"frame":NaN}"#,
            r#"{"frame":1e999}"#,
            &format!(r#"{{"deep":{}"#, "[".repeat(100_000)),
        ] {
            let read = read::<FromAgent>(noise);
            assert!(matches!(read, Err(Unreadable::Noise(_))), "{read:?}");
        }
        let long = format!(
            r#"{{"frame":"ready","session_number":"{}"}}"#,
            "x".repeat(5000)
        );
        let why = read::<FromAgent>(&long).unwrap_err().to_string();
        assert!(why.chars().count() < 400, "{why}");
    }
}
