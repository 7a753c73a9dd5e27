//! Where the bytes of an import come from.

use std::fmt;
use std::io::SeekFrom;

use tokio::io::AsyncSeekExt as _;
use vimana_fetch::{FetchError, Mark, Opened, Reach, Source};

use crate::LocalFile;

/// Where the bytes are.
#[derive(Clone, Debug)]
pub enum Input {
    /// On a server of somebody's.
    Remote { source: Source, reach: Reach },
    /// On this machine.
    Local(LocalFile),
    /// In the staging directory, so many of them: they were uploaded.
    Uploaded { size_bytes: u64 },
}

/// As it may be shown: without a password.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote { source, .. } => source.fmt(f),
            Self::Local(file) => f.write_str(&file.identity()),
            Self::Uploaded { size_bytes } => write!(f, "an upload of {size_bytes} bytes"),
        }
    }
}

impl Input {
    /// Looks whether it may be had at all, and connects to nothing. Whether it
    /// can be had, the import finds out.
    ///
    /// # Errors
    /// It never may.
    pub async fn judge(&self) -> Result<(), FetchError> {
        match self {
            Self::Remote { source, reach } => match vimana_fetch::look_up(source, reach).await {
                Err(error @ FetchError::Forbidden(_)) => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
            Self::Local(_) | Self::Uploaded { .. } => Ok(()),
        }
    }

    /// Tells it from others; may hold a password.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Remote { source, .. } => source.with_password().to_owned(),
            Self::Local(file) => file.identity(),
            Self::Uploaded { .. } => self.to_string(),
        }
    }

    /// What the source's version is now, where that can be told; an error
    /// where it is not to be had. Of what is on this machine nothing is told.
    ///
    /// # Errors
    /// The source's.
    pub async fn version(&self) -> Result<Option<String>, FetchError> {
        match self {
            Self::Remote { .. } => Ok(self.open(None).await?.version),
            Self::Local(_) | Self::Uploaded { .. } => Ok(None),
        }
    }

    /// As [`vimana_fetch::open`].
    pub(crate) async fn open(&self, mark: Option<&Mark>) -> Result<Opened, FetchError> {
        match self {
            Self::Remote { source, reach } => vimana_fetch::open(source, mark, reach).await,
            Self::Local(file) => {
                let (mut body, total, version) = file.open().await?;
                let offset = mark
                    .filter(|mark| mark.version.as_ref() == Some(&version) && mark.offset <= total)
                    .map_or(0, |mark| mark.offset);
                let found = body.seek(SeekFrom::Start(offset)).await;
                found.map_err(|error| FetchError::Broken(error.to_string()))?;
                Ok(Opened {
                    offset,
                    total: Some(total),
                    version: Some(version),
                    body: Box::pin(body),
                })
            }
            Self::Uploaded { size_bytes } => match mark {
                Some(mark) if mark.offset == *size_bytes => Ok(Opened {
                    offset: mark.offset,
                    total: Some(*size_bytes),
                    version: None,
                    body: Box::pin(tokio::io::empty()),
                }),
                Some(_) | None => Err(FetchError::Broken("it has not come whole".to_owned())),
            },
        }
    }
}
