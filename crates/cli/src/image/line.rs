//! How far an image is on its way, for who watches.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;
use vimana_model::Error;
use vimana_model::unit::MiB;

use crate::limits::TELL_EVERY;
use crate::text::shown;

/// One line on the terminal, written over and over; none where nobody watches.
pub struct Line {
    name: String,
    /// What becomes of the bytes: "sent".
    done: &'static str,
    watched: bool,
    told_at: Option<Instant>,
    /// When and where this command began, to tell how fast it goes.
    began: Option<(Instant, u64)>,
}

impl Line {
    pub fn new(name: &str, done: &'static str) -> Self {
        Self {
            name: shown(name),
            done,
            watched: io::stderr().is_terminal(),
            told_at: None,
            began: None,
        }
    }

    /// So many bytes of so many are there.
    pub fn tell(&mut self, offset_bytes: u64, size_bytes: u64) {
        let now = Instant::now();
        let (since, from) = *self.began.get_or_insert((now, offset_bytes));
        if self.told_at.is_some_and(|at| now - at < TELL_EVERY) {
            return;
        }
        self.told_at = Some(now);
        let mut text = progress(offset_bytes, size_bytes, self.done);
        text.push_str(&rate(offset_bytes.saturating_sub(from), now - since));
        self.write(&text);
    }

    pub fn broken(&mut self, error: &Error) {
        self.told_at = None;
        let text = format!("{}; trying again", shown(&error.public));
        self.write(&text);
    }

    fn write(&self, text: &str) {
        if self.watched {
            // Back to the left, and nothing of what was there before.
            let _ = write!(io::stderr(), "\r\u{1b}[K{}: {text}", self.name);
        }
    }

    pub fn end(&self) {
        if self.watched {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

fn progress(offset_bytes: u64, size_bytes: u64, done: &str) -> String {
    let percent = u128::from(offset_bytes) * 100 / u128::from(size_bytes.max(1));
    format!(
        "{} of {} {done} ({percent} %)",
        MiB::from_bytes(offset_bytes),
        MiB::from_bytes(size_bytes)
    )
}

fn rate(came: u64, within: Duration) -> String {
    let rate = u128::from(came) * 1000 / within.as_millis().max(1);
    match u64::try_from(rate) {
        Ok(rate) if rate > 0 && within.as_secs() > 0 => format!(", {} KiB/s", rate >> 10),
        Ok(_) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_few_words() {
        let mut told = progress(512 << 20, 3 << 30, "sent");
        told.push_str(&rate(100 << 20, Duration::from_secs(10)));
        assert_eq!(told, "512 MiB of 3 GiB sent (16 %), 10240 KiB/s");
    }
}
