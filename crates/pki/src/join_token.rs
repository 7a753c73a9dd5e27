//! The text an operator carries from the server to a new host.

use std::fmt;
use std::str::FromStr;

use crate::Fingerprint;
use crate::fingerprint::read_hex;

/// Lets a leak scanner recognize a token.
const PREFIX: &str = "vjt_";
const SECRET_BYTES: usize = 32;

/// A one-use permission to join: a secret for the server, and what the agent
/// recognizes the server's authority by. It shows itself to nobody who does
/// not ask for [`JoinToken::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: String,
    authority: Fingerprint,
}

/// A text that is not a join token. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: expected `vjt_`, 64 hexadecimal digits, `_`, and 64 more")]
pub struct InvalidJoinToken;

impl JoinToken {
    #[must_use]
    pub fn new(random: [u8; SECRET_BYTES], authority: Fingerprint) -> Self {
        let secret = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { secret, authority }
    }

    /// The secret alone, which is all the server needs.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The authority whose server this token is for.
    #[must_use]
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// The whole text, for whoever asked for the token.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.secret, self.authority)
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;

    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        let (secret, authority) = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .ok_or(InvalidJoinToken)?;
        let random = read_hex(secret).ok_or(InvalidJoinToken)?;
        let authority = authority.parse().map_err(|_| InvalidJoinToken)?;
        Ok(Self::new(random, authority))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken(for the authority {})", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_does_not_show_itself() {
        let token = JoinToken::new([0xab; 32], Fingerprint::of(b"ca"));
        let text = token.reveal();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(token.secret(), "ab".repeat(32));
        assert!(!format!("{token:?}").contains("abab"));
        for wrong in ["", "vjt_", "vjt_ab_cd", &text[1..], &format!("{text}0")] {
            let refusal = wrong.parse::<JoinToken>().unwrap_err().to_string();
            assert!(!refusal.contains("abab"));
        }
    }
}
