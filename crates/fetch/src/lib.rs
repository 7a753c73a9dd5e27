//! Files from elsewhere: over HTTP, FTP and NFS.
//!
//! A [`Source`] is where a file is; [`open`] gives its bytes from any place in
//! it on, so that a transfer that broke goes on where it was. A [`Reach`] says
//! which addresses may be talked to at all: it is asked about every address
//! right before a connection is made to it, and names are resolved only once
//! per connection, so that an answer cannot change in between.
//!
//! Nothing here mounts anything or needs privileges.

mod error;
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a library's errors, of which few differ for us"
)]
mod ftp;
mod http;
mod limits;
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a library's errors, of which few differ for us"
)]
mod nfs;
mod reach;
mod source;

use std::pin::Pin;

use tokio::io::AsyncRead;

pub use error::FetchError;
pub use reach::Reach;
pub use source::{Scheme, Source, SourceError};

/// Where a transfer that broke goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bytes that are there already.
    pub offset: u64,
    /// What [`Opened::version`] was when they came.
    pub version: Option<String>,
}

/// A file that is being read.
pub struct Opened {
    /// Where in the file the first byte is. Zero although a [`Mark`] was given
    /// where the file changed since, or its server cannot begin elsewhere.
    pub offset: u64,
    /// Bytes of the whole file, where its server says so.
    pub total: Option<u64>,
    /// Tells this content from another under the same name; opaque.
    pub version: Option<String>,
    /// What follows. Ends with an error where the file does not end well.
    pub body: Pin<Box<dyn AsyncRead + Send>>,
}

/// Looks the source's server up, and connects to nothing.
///
/// # Errors
/// `Forbidden` where none of its addresses may be talked to, `Away` where it
/// has none.
pub async fn look_up(source: &Source, reach: &Reach) -> Result<(), FetchError> {
    // The port is of no interest.
    reach.resolve(&source.host(), 0).await.map(|_addresses| ())
}

/// Opens the file and lets it begin at the mark, where it still is the same.
///
/// # Errors
/// [`FetchError::is_passing`] tells whether trying again may help.
pub async fn open(
    source: &Source,
    mark: Option<&Mark>,
    reach: &Reach,
) -> Result<Opened, FetchError> {
    match source.scheme() {
        Scheme::Http | Scheme::Https => http::open(source, mark, reach).await,
        Scheme::Ftp => ftp::open(source, mark, reach).await,
        Scheme::Nfs => nfs::open(source, mark, reach).await,
    }
}

/// Where to begin in a file that is `version` now: a mark in another version
/// is worth nothing, and neither is one in a file that cannot be told from
/// another.
fn begin(mark: Option<&Mark>, version: Option<&str>, total: Option<u64>) -> u64 {
    match mark {
        Some(mark)
            if version.is_some()
                && mark.version.as_deref() == version
                && total.is_none_or(|total| mark.offset <= total) =>
        {
            mark.offset
        }
        Some(_) | None => 0,
    }
}
