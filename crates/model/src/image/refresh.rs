//! How often an image's source is asked for something new.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::url;
use crate::vm::field;
use crate::{Error, Timestamp};

/// The form that says how often an image is refreshed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RefreshImage {
    /// In seconds: from an hour to 90 days.
    pub every_seconds: u64,
    /// Where it is, if that is not known any more: a password is not kept for
    /// an image that is not refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl RefreshImage {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<(RefreshEvery, Option<String>), Error> {
        let every = field("every_seconds", RefreshEvery::new(self.every_seconds));
        let given = self.url.as_deref().map(str::trim);
        let url = field("url", given.map(url).transpose());
        match (every, url) {
            (Ok(every), Ok(url)) => Ok((every, url)),
            (every, url) => {
                let wrong = [every.err(), url.err()];
                Err(Error::invalid(wrong.into_iter().flatten().collect()))
            }
        }
    }
}

/// How often an image's source is asked for something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "u64", into = "u64")]
pub struct RefreshEvery(u64);

/// Neither too often nor next to never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an image is refreshed daily, weekly, or every 1 hour to 90 days (such as 12h or 30d)")]
pub struct InvalidRefresh;

const HOUR_SECONDS: u64 = 3600;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;

impl RefreshEvery {
    pub const SHORTEST_SECONDS: u64 = HOUR_SECONDS;
    pub const LONGEST_SECONDS: u64 = 90 * DAY_SECONDS;

    /// # Errors
    /// It is out of bounds.
    pub const fn new(seconds: u64) -> Result<Self, InvalidRefresh> {
        if seconds < Self::SHORTEST_SECONDS || seconds > Self::LONGEST_SECONDS {
            return Err(InvalidRefresh);
        }
        Ok(Self(seconds))
    }

    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// As times are counted.
    #[must_use]
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.0)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000)
    }
}

impl TryFrom<u64> for RefreshEvery {
    type Error = InvalidRefresh;

    fn try_from(seconds: u64) -> Result<Self, InvalidRefresh> {
        Self::new(seconds)
    }
}

impl From<RefreshEvery> for u64 {
    fn from(every: RefreshEvery) -> Self {
        every.seconds()
    }
}

/// `daily`, `weekly`, or hours and days: `12h`, `30d`.
impl FromStr for RefreshEvery {
    type Err = InvalidRefresh;

    fn from_str(text: &str) -> Result<Self, InvalidRefresh> {
        let times = |number: &str, unit: u64| {
            let number: u64 = number.parse().ok()?;
            number.checked_mul(unit)
        };
        let seconds = match text {
            "daily" => Some(DAY_SECONDS),
            "weekly" => Some(7 * DAY_SECONDS),
            _ => match (text.strip_suffix('h'), text.strip_suffix('d')) {
                (Some(hours), _) => times(hours, HOUR_SECONDS),
                (None, Some(days)) => times(days, DAY_SECONDS),
                (None, None) => None,
            },
        };
        Self::new(seconds.ok_or(InvalidRefresh)?)
    }
}

/// For people: `12 hours`, `1 day`.
impl fmt::Display for RefreshEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            seconds if seconds % DAY_SECONDS == 0 => (seconds / DAY_SECONDS, "day"),
            seconds if seconds % HOUR_SECONDS == 0 => (seconds / HOUR_SECONDS, "hour"),
            seconds => (seconds, "second"),
        };
        write!(f, "{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}

/// How an image is kept up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefreshView {
    pub every_seconds: RefreshEvery,
    /// When its source is asked next; nothing until it is imported.
    pub next_at: Option<Timestamp>,
    /// When it was last known to be what its source has.
    pub last_at: Option<Timestamp>,
    /// Why it was not, since then.
    pub failure: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_is_said_in_words_hours_or_days() {
        let every = |text: &str| text.parse::<RefreshEvery>();
        for (text, shown) in [
            ("daily", "1 day"),
            ("weekly", "7 days"),
            ("1h", "1 hour"),
            ("36h", "36 hours"),
            ("48h", "2 days"),
            ("90d", "90 days"),
        ] {
            assert_eq!(every(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "h",
            "0h",
            "91d",
            "-1d",
            "59m",
            "1",
            "18446744073709551615d",
            "1 d",
        ] {
            assert_eq!(every(text), Err(InvalidRefresh), "{text}");
        }
        assert!(serde_json::from_str::<RefreshEvery>("3599").is_err());
    }
}
