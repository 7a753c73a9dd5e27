//! Where images are kept, and how they get there.
//!
//! An image comes in two steps, each idempotent: [`Repository::fetch`] brings
//! its bytes into a staging area that nobody reads, unpacked and checked, and
//! [`Repository::enter`] gives them their place. What is never entered is
//! removed by [`Repository::discard`], and whoever keeps the records compares
//! them with [`Repository::contents`] now and then.

mod dir;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
pub use dir::{DirRepository, Terms};
pub use vimana_import::Receiving;
use vimana_model::ImageId;
use vimana_model::image::{ImageContent, ImageFormat, ImageSource, Origin, Upload};
use vimana_model::operation::Progress;

/// An image that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub source: ImageSource,
    /// Hexadecimal SHA-256 or SHA-512 of what is fetched.
    pub checksum: Option<String>,
    /// What it is, once unpacked; without it its first bytes decide.
    pub declared: Option<ImageFormat>,
}

/// What has come into the staging area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub content: ImageContent,
    /// Bytes that were fetched.
    pub fetched_bytes: u64,
    /// Their checksum, as people write it.
    pub fetched_checksum: String,
    /// What tells this content of the source from another; opaque.
    pub version: Option<String>,
}

/// Why an image cannot be had; a verb phrase about it, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub message: String,
}

/// What there is of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Where it was entered; by format, of which there should be one.
    pub files: Vec<(ImageFormat, u64)>,
    /// Something waits in the staging area.
    pub staged: bool,
}

/// Told how far a fetch is.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// A place for images.
#[async_trait]
pub trait Repository: Send + Sync + 'static {
    /// Looks at an order before it is taken on, and connects to nothing. Where
    /// the image comes from, as it may be shown: without a password.
    ///
    /// # Errors
    /// No such order is ever taken on.
    async fn judge(&self, order: &Order) -> Result<Origin, Refusal>;

    /// Begins to take in the next part of an upload, where it stands. A place
    /// that takes none has none.
    ///
    /// # Errors
    /// The file system's.
    async fn receive(&self, _id: ImageId, _upload: &Upload) -> io::Result<Receiving> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bytes of an upload that are here for good.
    ///
    /// # Errors
    /// The file system's.
    async fn uploaded(&self, _id: ImageId, _upload: &Upload) -> io::Result<u64> {
        Ok(0)
    }

    /// Brings the image's bytes into the staging area and checks them. Dropped
    /// and called again with the same order it goes on where it was. An upload
    /// must have come whole.
    ///
    /// # Errors
    /// The image is not to be had, or not acceptable.
    async fn fetch(&self, id: ImageId, order: &Order, tell: Tell<'_>) -> Result<Arrived, Refusal>;

    /// What the source's version is now, to compare with [`Arrived::version`];
    /// nothing where its server does not tell.
    ///
    /// # Errors
    /// The image is not to be had.
    async fn version(&self, order: &Order) -> Result<Option<String>, Refusal>;

    /// As [`Repository::fetch`], from a file of this machine.
    ///
    /// # Errors
    /// The file cannot be read, or is not acceptable.
    async fn copy_in(&self, id: ImageId, file: &Path) -> Result<Arrived, Refusal>;

    /// As [`Repository::fetch`], from qcow2 files of this machine that each lie
    /// over the next one, whatever their headers say.
    ///
    /// # Errors
    /// They cannot be read, or what comes of them is not acceptable.
    async fn merge_in(&self, id: ImageId, chain: &[PathBuf]) -> Result<Arrived, Refusal>;

    /// Gives what is staged its place; fine where it has it already.
    ///
    /// # Errors
    /// The file system's.
    async fn enter(&self, id: ImageId, format: ImageFormat) -> io::Result<()>;

    /// Removes all of an image; fine if there is nothing.
    ///
    /// # Errors
    /// The file system's.
    async fn discard(&self, id: ImageId) -> io::Result<()>;

    /// The images of which anything is there, and what that is.
    ///
    /// # Errors
    /// The file system's.
    async fn contents(&self) -> io::Result<BTreeMap<ImageId, Kept>>;

    /// Where an entered image's bytes are.
    fn path(&self, id: ImageId, format: ImageFormat) -> PathBuf;
}
