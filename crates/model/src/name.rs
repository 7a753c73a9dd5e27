//! Names that people give to things, valid by construction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes; a DNS label's limit, since a VM's name becomes its
/// host name.
pub const MAX_NAME_BYTES: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("give it a name")]
    Empty,
    #[error("longer than {MAX_NAME_BYTES} characters")]
    TooLong,
    #[error("starts with `{0}`: a name starts with a letter or a digit")]
    BadStart(char),
    #[error("ends with `{0}`: a name ends with a letter or a digit")]
    BadEnd(char),
    #[error("has {}: only letters a–z, digits, `-`, `_` and `.` are allowed", Shown(*.0))]
    BadCharacter(char),
    #[error("looks like an id")]
    LikeAnId,
}

/// A character as a person can read it, whatever it is.
struct Shown(char);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ' ' => f.write_str("a space"),
            c if c.is_ascii_graphic() || c.is_alphanumeric() => write!(f, "`{c}`"),
            c => write!(f, "the character U+{:04X}", u32::from(c)),
        }
    }
}

fn check(text: &str) -> Result<(), InvalidName> {
    let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) else {
        return Err(InvalidName::Empty);
    };
    if let Some(bad) = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        return Err(InvalidName::BadCharacter(bad));
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(InvalidName::TooLong);
    }
    if !first.is_ascii_alphanumeric() {
        return Err(InvalidName::BadStart(first));
    }
    if !last.is_ascii_alphanumeric() {
        return Err(InvalidName::BadEnd(last));
    }
    if is_like_an_id(text) {
        return Err(InvalidName::LikeAnId);
    }
    Ok(())
}

/// Where a name or an id may stand, the id would win.
fn is_like_an_id(text: &str) -> bool {
    text.rsplit_once('_').is_some_and(|(prefix, hex)| {
        prefix.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && hex.len() == 32
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// # Errors
            /// Says which rule the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check(&text).map(|()| Self(text))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    )+};
}

names! {
    /// A VM's name, unique among the live VMs of a tenant.
    VmName;
    /// A host's name, unique in the installation.
    HostName;
    ZoneName;
    TenantName;
    UserName;
    ImageName;
    FlavorName;
    /// A template's name, unique among those of a tenant, and among those for all.
    TemplateName;
    /// What a template calls one of its inputs.
    InputName;
    /// A volume's name, unique among the volumes of a tenant.
    VolumeName;
    /// A snapshot's name, unique among those of its VM.
    SnapshotName;
    /// A backup's name, unique among those of its VM.
    BackupName;
    /// A datastore's name, as the operator calls it.
    DatastoreName;
}

impl DatastoreName {
    /// The datastore that every host has: its agent's own directory.
    #[must_use]
    pub fn local() -> Self {
        Self(LOCAL.to_owned())
    }

    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0 == LOCAL
    }
}

const LOCAL: &str = "local";

impl VmName {
    /// The guest's host name: lower case, and `-` for what DNS does not take.
    #[must_use]
    pub fn guest_host_name(&self) -> String {
        self.0
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        VmName::new(text).unwrap_err().to_string()
    }

    #[test]
    fn names_people_use_are_accepted() {
        for name in ["a", "web-1", "My_VM.2", "0", &"x".repeat(63)] {
            assert_eq!(VmName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refusals_say_what_to_change() {
        assert_eq!(refusal(""), "give it a name");
        assert_eq!(refusal(&"x".repeat(64)), "longer than 63 characters");
        assert_eq!(
            refusal("-o"),
            "starts with `-`: a name starts with a letter or a digit"
        );
        assert_eq!(
            refusal("a."),
            "ends with `.`: a name ends with a letter or a digit"
        );
        assert_eq!(
            refusal("my vm"),
            "has a space: only letters a–z, digits, `-`, `_` and `.` are allowed"
        );
        assert_eq!(
            refusal("a\u{202e}b"),
            "has the character U+202E: only letters a–z, digits, `-`, `_` and `.` are allowed"
        );
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in [
            "\"><svg onload=alert(1)>",
            ",file=/etc/passwd",
            "../../etc",
            "a\0b",
            "a\nb",
        ] {
            assert!(VmName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn guest_host_name_is_a_dns_label() {
        assert_eq!(VmName::new("My_VM.2").unwrap().guest_host_name(), "my-vm-2");
    }
}
