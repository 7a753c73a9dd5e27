//! cloud-init user-data, handed to the guest verbatim.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest accepted user-data in bytes.
pub const MAX_USER_DATA_BYTES: usize = 64 * 1024;

/// Why a text is not user-data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserData {
    #[error("longer than {} KiB", MAX_USER_DATA_BYTES / 1024)]
    TooLong,
    #[error("starts with neither `#cloud-config` nor `#!`: cloud-init would ignore it")]
    UnknownKind,
    #[error("has a NUL character: only text is accepted")]
    Nul,
}

/// What the user wrote, byte for byte.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct UserData(String);

impl UserData {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidUserData> {
        let text = text.into();
        if text.len() > MAX_USER_DATA_BYTES {
            return Err(InvalidUserData::TooLong);
        }
        if text.contains('\0') {
            return Err(InvalidUserData::Nul);
        }
        // The kinds cloud-init knows by their first line.
        const KINDS: [&str; 7] = [
            "#!",
            "#cloud-config",
            "#include",
            "#cloud-boothook",
            "#part-handler",
            "## template:",
            "Content-Type:",
        ];
        if !KINDS.iter().any(|kind| text.starts_with(kind)) {
            return Err(InvalidUserData::UnknownKind);
        }
        Ok(Self(text))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// User-data may hold passwords: it is never shown by accident.
impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.len())
    }
}

impl TryFrom<String> for UserData {
    type Error = InvalidUserData;

    fn try_from(text: String) -> Result<Self, InvalidUserData> {
        Self::new(text)
    }
}

impl From<UserData> for String {
    fn from(data: UserData) -> String {
        data.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cloud_init_reads_is_accepted() {
        assert!(UserData::new("#cloud-config\nhostname: x\n").is_ok());
        assert!(UserData::new("#!/bin/sh\necho hi\n").is_ok());
        assert_eq!(UserData::new("hello"), Err(InvalidUserData::UnknownKind));
        assert_eq!(UserData::new("#!/bin/sh\n\0"), Err(InvalidUserData::Nul));
        assert_eq!(
            UserData::new(format!("#!{}", "x".repeat(70_000))),
            Err(InvalidUserData::TooLong)
        );
    }

    #[test]
    fn debug_does_not_show_the_text() {
        assert_eq!(
            format!("{:?}", UserData::new("#!secret").unwrap()),
            "UserData(8 bytes)"
        );
    }
}
