//! Serial numbers of certificates.

use std::fmt;
use std::str::FromStr;

use crate::fingerprint::{read_hex, write_hex};

const BYTES: usize = 16;

/// Which certificate it is; 32 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial([u8; BYTES]);

/// A text that is not a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number: expected 32 hexadecimal digits")]
pub struct InvalidSerial;

impl Serial {
    /// From the caller's randomness. The two highest bits are fixed: so the
    /// number is positive and always has the same length (RFC 5280, 4.1.2.2).
    #[must_use]
    pub fn from_random(mut random: [u8; BYTES]) -> Self {
        if let Some(first) = random.first_mut() {
            *first = (*first & 0x3f) | 0x40;
        }
        Self(random)
    }

    /// As it stands in a certificate; `None` for one that is not ours.
    pub(crate) fn from_certificate(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        read_hex(text).map(Self).ok_or(InvalidSerial)
    }
}
