//! Bootable read-only content.

use serde::{Deserialize, Serialize};

use crate::name::ImageName;
use crate::unit::MiB;
use crate::{ImageId, Timestamp};

/// How an image's bytes are laid out; recorded once and never guessed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    Qcow2,
    Raw,
}

impl ImageFormat {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageView {
    pub id: ImageId,
    pub name: ImageName,
    pub format: ImageFormat,
    /// Bytes as stored.
    pub size_bytes: u64,
    /// Size of the disk a guest sees.
    pub virtual_mib: MiB,
    /// Hexadecimal SHA-256 of the stored bytes.
    pub sha256: String,
    pub created_at: Timestamp,
}
