//! Public SSH keys in the one-line form of `authorized_keys`, without options.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Longest accepted line in bytes; an RSA key of 16,384 bits fits.
pub const MAX_SSH_KEY_BYTES: usize = 4096;

const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Why a text is not a public SSH key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSshKey {
    #[error("this is a private key: paste the public half, usually in a file ending in `.pub`")]
    Private,
    #[error("longer than {MAX_SSH_KEY_BYTES} characters")]
    TooLong,
    #[error("has more than one line: paste a single public key")]
    SeveralLines,
    #[error("not a public SSH key: it starts with a type such as `ssh-ed25519`")]
    UnknownType,
    #[error("the key is cut short or damaged: paste the whole line")]
    Damaged,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct SshKey(String);

impl SshKey {
    /// Accepts `TYPE BASE64 [COMMENT]`, with white space around it.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, InvalidSshKey> {
        let line = text.trim();
        if line.contains("PRIVATE KEY") {
            return Err(InvalidSshKey::Private);
        }
        if line.len() > MAX_SSH_KEY_BYTES {
            return Err(InvalidSshKey::TooLong);
        }
        if line.chars().any(char::is_control) {
            return Err(InvalidSshKey::SeveralLines);
        }
        let mut words = line.split_ascii_whitespace();
        let kind = words.next().filter(|kind| TYPES.contains(kind));
        let kind = kind.ok_or(InvalidSshKey::UnknownType)?;
        let blob = words
            .next()
            .and_then(|word| STANDARD.decode(word).ok())
            .ok_or(InvalidSshKey::Damaged)?;
        if !blob_holds(&blob, kind) {
            return Err(InvalidSshKey::Damaged);
        }
        Ok(Self(line.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The blob repeats the type as its first length-prefixed string and is a
/// whole number of such strings (RFC 4253, section 6.6).
fn blob_holds(mut blob: &[u8], kind: &str) -> bool {
    let mut count = 0_u32;
    while let Some((length, rest)) = blob.split_first_chunk::<4>() {
        let Ok(length) = usize::try_from(u32::from_be_bytes(*length)) else {
            return false;
        };
        let Some((value, rest)) = rest.split_at_checked(length) else {
            return false;
        };
        if count == 0 && value != kind.as_bytes() {
            return false;
        }
        count += 1;
        blob = rest;
    }
    // An sk-ed25519 blob ends in a string, too; only stray bytes are left over.
    count >= 2 && blob.is_empty()
}

/// Most keys of one machine.
pub const MAX_SSH_KEYS: usize = 16;

/// Why a text is not a list of public SSH keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSshKeys {
    #[error("paste at least one public key")]
    None,
    #[error("at most {MAX_SSH_KEYS} keys")]
    TooMany,
    #[error("{0}")]
    Key(InvalidSshKey),
    #[error("line {line}: {error}")]
    KeyOfLine { line: usize, error: InvalidSshKey },
}

/// Some keys, a line each.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct SshKeys(Vec<SshKey>);

impl SshKeys {
    /// Accepts one key a line, with empty lines and comments between, as a
    /// file of such keys has them.
    ///
    /// # Errors
    /// Says what is wrong with which line.
    pub fn new(text: &str) -> Result<Self, InvalidSshKeys> {
        if text.contains("PRIVATE KEY") {
            return Err(InvalidSshKeys::Key(InvalidSshKey::Private));
        }
        let lines = text.lines().zip(1..);
        let mut lines = lines.filter(|(line, _)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        });
        let mut keys = Vec::new();
        while let Some((text, line)) = lines.next() {
            if keys.len() >= MAX_SSH_KEYS {
                return Err(InvalidSshKeys::TooMany);
            }
            match SshKey::new(text) {
                Ok(key) => keys.push(key),
                Err(error) if keys.is_empty() && lines.next().is_none() => {
                    return Err(InvalidSshKeys::Key(error));
                }
                Err(error) => return Err(InvalidSshKeys::KeyOfLine { line, error }),
            }
        }
        if keys.is_empty() {
            return Err(InvalidSshKeys::None);
        }
        Ok(Self(keys))
    }

    pub fn iter(&self) -> impl Iterator<Item = &SshKey> {
        self.0.iter()
    }
}

impl fmt::Display for SshKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys = self.0.iter();
        if let Some(key) = keys.next() {
            key.fmt(f)?;
        }
        keys.try_for_each(|key| write!(f, "\n{key}"))
    }
}

impl fmt::Debug for SshKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for SshKeys {
    type Error = InvalidSshKeys;

    fn try_from(text: String) -> Result<Self, InvalidSshKeys> {
        Self::new(&text)
    }
}

impl From<SshKeys> for String {
    fn from(keys: SshKeys) -> String {
        keys.to_string()
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl TryFrom<String> for SshKey {
    type Error = InvalidSshKey;

    fn try_from(text: String) -> Result<Self, InvalidSshKey> {
        Self::new(&text)
    }
}

impl From<SshKey> for String {
    fn from(key: SshKey) -> String {
        key.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ2rGOwkGpQ8bDJcCk3vYrdcDnVK6tA0gGwXz1iHx9r me@laptop";

    #[test]
    fn public_key_is_accepted_with_space_around_it() {
        assert_eq!(SshKey::new(&format!("  {KEY}\n")).unwrap().as_str(), KEY);
    }

    #[test]
    fn keys_stand_a_line_each() {
        let text = format!("# mine\r\n{KEY}\r\n\n  {KEY} two\n");
        let keys = SshKeys::new(&text).unwrap();
        assert_eq!(keys.to_string(), format!("{KEY}\n{KEY} two"));
        assert_eq!(keys.iter().count(), 2);
        let json = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<SshKeys>(&json).unwrap(), keys);
        let refusal = |text: &str| SshKeys::new(text).unwrap_err().to_string();
        assert_eq!(
            refusal(&format!("{KEY}\nhello")),
            "line 2: not a public SSH key: it starts with a type such as `ssh-ed25519`"
        );
        // Of a single one it is clear which.
        assert_eq!(
            refusal("hello"),
            "not a public SSH key: it starts with a type such as `ssh-ed25519`"
        );
        assert_eq!(refusal("# none\n"), "paste at least one public key");
        let many = format!("{KEY}\n").repeat(MAX_SSH_KEYS + 1);
        assert_eq!(refusal(&many), "at most 16 keys");
        let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3\n";
        assert!(refusal(private).starts_with("this is a private key"));
    }

    #[test]
    fn refusals_say_what_to_paste() {
        assert_eq!(
            SshKey::new("-----BEGIN OPENSSH PRIVATE KEY-----\nb3"),
            Err(InvalidSshKey::Private)
        );
        assert_eq!(SshKey::new(&KEY[..60]), Err(InvalidSshKey::Damaged));
        assert_eq!(
            SshKey::new(&format!("{KEY}\n{KEY}")),
            Err(InvalidSshKey::SeveralLines)
        );
        assert_eq!(SshKey::new("hello"), Err(InvalidSshKey::UnknownType));
        assert_eq!(
            SshKey::new(&KEY.replace("ssh-ed25519", "ssh-rsa")),
            Err(InvalidSshKey::Damaged)
        );
        assert_eq!(SshKey::new(&"a".repeat(5000)), Err(InvalidSshKey::TooLong));
    }
}
