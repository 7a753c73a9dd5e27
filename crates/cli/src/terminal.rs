//! The person's terminal: typing unseen, and typing key by key.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::limits::MAX_ANSWER_BYTES;

/// A terminal in another mode, until dropped.
pub struct Changed {
    terminal: File,
    before: Termios,
}

impl Changed {
    /// Every key goes through at once and unseen, Ctrl-C included.
    pub fn raw() -> io::Result<Self> {
        Self::with(|termios| termios.make_raw())
    }

    /// Lines go through as usual, but are not shown.
    fn unseen() -> io::Result<Self> {
        Self::with(|termios| {
            termios.local_modes.remove(LocalModes::ECHO);
            termios.local_modes.insert(LocalModes::ECHONL);
        })
    }

    fn with(change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut termios = before.clone();
        change(&mut termios);
        tcsetattr(&terminal, OptionalActions::Flush, &termios)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // Nothing better can be done about a terminal that is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Whether a person reads what is said and can answer.
pub fn is_watched() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question whose answer is no unless it begins with a y.
pub fn confirms(question: &str) -> io::Result<bool> {
    let mut err = io::stderr().lock();
    err.write_all(question.as_bytes())?;
    err.flush()?;
    let mut answer = String::new();
    io::BufReader::new(io::stdin().lock().take(MAX_ANSWER_BYTES)).read_line(&mut answer)?;
    Ok(answer.trim_start().starts_with(['y', 'Y']))
}

/// Asks for a password; at most `limit` bytes are read.
pub fn ask_password(prompt: &str, limit: usize) -> io::Result<String> {
    let mut changed = Changed::unseen()?;
    changed.terminal.write_all(prompt.as_bytes())?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() <= limit && changed.terminal.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}
