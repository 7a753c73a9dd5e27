//! What bytes must hash to.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// A sentence about the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a checksum is 64 (SHA-256) or 128 (SHA-512) hexadecimal digits")]
pub struct ChecksumError;

impl Checksum {
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Sha512(_) => "SHA-512",
        }
    }
}

impl FromStr for Checksum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        match text.len() {
            64 => digits(text).map(Self::Sha256),
            128 => digits(text).map(Self::Sha512),
            _ => Err(ChecksumError),
        }
    }
}

fn digits<const N: usize>(text: &str) -> Result<[u8; N], ChecksumError> {
    let mut bytes = [0; N];
    let pairs = text.as_bytes().chunks_exact(2);
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).map_err(|_| ChecksumError)?;
        // The parser would take a sign.
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ChecksumError);
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| ChecksumError)?;
    }
    Ok(bytes)
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => f.write_str(&hex(bytes)),
            Self::Sha512(bytes) => f.write_str(&hex(bytes)),
        }
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.kind())
    }
}

pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // A string takes everything.
        let _written = write!(text, "{byte:02x}");
    }
    text
}

/// Adds up what comes, in every way that will be asked for.
#[derive(Clone)]
pub struct Hashes {
    sha256: Sha256,
    sha512: Option<Sha512>,
}

impl Hashes {
    pub fn of(expected: Option<&Checksum>) -> Self {
        let long = matches!(expected, Some(Checksum::Sha512(_)));
        Self {
            sha256: Sha256::new(),
            sha512: long.then(Sha512::new),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    pub fn sha256(&self) -> Checksum {
        Checksum::Sha256(self.sha256.clone().finalize().into())
    }

    /// The one that was expected.
    pub fn like(&self, expected: &Checksum) -> Checksum {
        match (&self.sha512, expected) {
            (Some(sha512), Checksum::Sha512(_)) => {
                Checksum::Sha512(sha512.clone().finalize().into())
            }
            _ => self.sha256(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_as_they_are_written() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let read: Checksum = empty.to_uppercase().parse().unwrap();
        assert_eq!(read, Hashes::of(None).sha256());
        assert_eq!(read.to_string(), empty);
        for wrong in [
            "",
            "abc",
            &"g".repeat(64),
            &"+1".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(wrong.parse::<Checksum>(), Err(ChecksumError), "{wrong}");
        }
    }
}
