//! From a source to a checked image in the staging area.
//!
//! ```text
//! source ──▶ line ──▶ hash, `download` ──▶ unpack ──▶ hash, `content`
//!   ▲ connects again where it broke
//! ```
//!
//! The bytes are fetched by a task and taken in by a thread, one pass for
//! everything: hashed as they come, kept as they come where they are packed,
//! unpacked, hashed again and written, with holes where there are only zeros.
//! A connection that breaks is made again and goes on where it was. A process
//! that ends and starts again finds in the staging directory what came before,
//! and goes on from there as well: bytes that are there are read again, not
//! fetched again.
//!
//! A file of this machine takes the same way. So does one that was uploaded:
//! its bytes are in the staging directory before the import begins
//! ([`Receiving`]), and are only read again.
//!
//! What is in the staging directory is nobody's image. It becomes one by a
//! rename, once everything about it has been checked.

mod checksum;
mod convert;
mod error;
mod input;
mod intake;
mod limits;
mod line;
mod local;
mod receive;
mod sparse;
mod staging;
mod unpack;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use checksum::{Checksum, ChecksumError};
pub use convert::merge;
pub use error::ImportError;
pub use input::Input;
pub use local::{LocalError, LocalFile};
pub use receive::Receiving;
pub use staging::{Staged, Staging};
use vimana_format::Content;

use crate::intake::Intake;
use crate::limits::MAX_CHANGES;

/// What is to be imported.
#[derive(Clone, Debug)]
pub struct Job {
    pub input: Input,
    /// What the source's bytes, as they are fetched, must have.
    pub checksum: Option<Checksum>,
    /// The program that converts images of other hypervisors; without one they
    /// are refused.
    pub converter: Option<PathBuf>,
    /// What the image is said to be, once it is unpacked. Without it, what its
    /// first bytes look like; from then on they are not asked again.
    pub declared: Option<Content>,
    pub bounds: Bounds,
    pub patience: Patience,
}

/// How long a source that brings nothing is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Connections in a row that bring nothing, until it is given up.
    pub tries: u32,
    /// Between the first two; doubles, up to half a minute.
    pub first_wait: Duration,
}

impl Default for Patience {
    /// About two minutes.
    fn default() -> Self {
        Self {
            tries: 9,
            first_wait: Duration::from_millis(500),
        }
    }
}

/// How much may come in, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes fetched, and bytes that come of them.
    pub max_bytes: u64,
    /// Size of the disk a guest sees.
    pub max_virtual_bytes: u64,
    pub bytes_per_second: Option<NonZeroU64>,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub received_bytes: u64,
    /// Bytes that will still be here if this process ends now.
    pub durable_bytes: u64,
    /// Of so many, where the source's server says so.
    pub total_bytes: Option<u64>,
    /// Times the connection was made anew.
    pub interruptions: u32,
}

/// Brings the image in. `tell` is called often, and must not take long.
///
/// Dropping the future ends the import where it is; the same job in the same
/// staging directory goes on from there.
///
/// # Errors
/// Why there is no image. The staging directory is as it was then; the caller
/// discards it, unless it wants to go on.
pub async fn import(
    job: &Job,
    staging: &Staging,
    tell: impl Fn(Progress),
) -> Result<Staged, ImportError> {
    let mut left = MAX_CHANGES;
    let staged = loop {
        match once(job, staging, &tell).await {
            Err(ImportError::Changed) if left > 0 => {
                left -= 1;
                staging.forget().await?;
            }
            ended => break ended?,
        }
    };
    match (convert::format(staged.content), &job.converter) {
        (Some(format), Some(converter)) => {
            convert::convert(converter, format, staged, staging, job.bounds).await
        }
        _ => Ok(staged),
    }
}

async fn once(
    job: &Job,
    staging: &Staging,
    tell: &impl Fn(Progress),
) -> Result<Staged, ImportError> {
    let lock = staging.lock().await?;
    let resumed = staging.resume(&job.input).await?;
    let (line, incoming) = line::new();
    let intake = Intake::new(job, staging, &resumed, lock);
    let mut taken = tokio::task::spawn_blocking(move || intake.run(incoming));
    // Known before the last byte is: whoever takes that in may end first.
    let version = Mutex::new(None);
    let feed = line::feed(job, staging, resumed, line, &version, tell);
    let (fed, early) = tokio::select! {
        biased;
        // Whoever takes in knows better why it came to an end.
        taken = &mut taken => (Ok(()), Some(taken)),
        fed = feed => (fed, None),
    };
    let taken = match early {
        Some(taken) => taken,
        None => taken.await,
    };
    let taken = taken.map_err(ImportError::panicked)?;
    match (fed, taken) {
        // That nobody fetched any more is only what followed.
        (Err(error), Err(ImportError::Deserted)) => Err(error),
        (_, taken) => taken.map(|staged| Staged {
            version: version.into_inner().unwrap_or_else(PoisonError::into_inner),
            ..staged
        }),
    }
}
