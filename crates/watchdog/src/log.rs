//! The watchdog's log: a few lines, by the time since the host's start.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::BootTime;
use crate::limits::LOG_BYTES;

const FILE: &str = "watchdog.log";

pub struct Log(File);

impl Log {
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(data_dir.join(FILE))?;
        Ok(Self(file))
    }

    /// Adds a line. A disk that takes none must not keep us from our work.
    pub fn say(&self, text: fmt::Arguments<'_>) {
        if self.0.metadata().is_ok_and(|data| data.len() > LOG_BYTES) {
            let _ = self.0.set_len(0);
        }
        let _ = (&self.0).write_all(format!("{} {text}\n", BootTime::now()).as_bytes());
    }
}
