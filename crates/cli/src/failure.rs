//! How a command ends when it does not succeed.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use vimana_model::Error;

use crate::text::shown_lines;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Asked in a way that makes no sense; status 2.
    Usage(String),
    /// Refused or failed; status 1.
    Failed(String),
    /// The server's or the client's refusal; status 1.
    Refused(Error),
    /// Everything about it has been said; status 1.
    Told,
    /// Nobody reads the output any more; not worth a word.
    OutputClosed,
}

pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) | Self::Refused(_) | Self::Told | Self::OutputClosed => {
                ExitCode::from(1)
            }
        }
    }

    /// What to say about it, if anything.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Usage(message) | Self::Failed(message) => Some(message.clone()),
            Self::Refused(error) if error.fields.len() > 1 => {
                let mut message = error.kind.title().to_owned();
                for field in &error.fields {
                    message.push_str(&format!("\n  {field}"));
                }
                Some(message)
            }
            Self::Refused(error) => Some(error.public.clone()),
            Self::Told | Self::OutputClosed => None,
        }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        if let Some(message) = self.message() {
            // A standard error that is gone changes nothing about the failure.
            let _ = writeln!(io::stderr(), "vimana: {}", shown_lines(&message));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message().unwrap_or_default())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// For writing to standard output, the only I/O without a context of its own.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Failed(format!("cannot write the output: {error}"))
    }
}
