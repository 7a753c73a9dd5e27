//! Bootable read-only content.

use vimana_model::image::ImageFormat;
use vimana_model::name::ImageName;
use vimana_model::unit::MiB;
use vimana_model::{ImageId, Timestamp};

use crate::{Conn, Result, WriteTx};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
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

pub async fn insert(_tx: &WriteTx, _image: &ImageRecord) -> Result<()> {
    todo!()
}
pub async fn find(_conn: &impl Conn, _id: ImageId) -> Result<Option<ImageRecord>> {
    todo!()
}
pub async fn find_by_name(_conn: &impl Conn, _name: &ImageName) -> Result<Option<ImageRecord>> {
    todo!()
}
pub async fn list(_conn: &impl Conn) -> Result<Vec<ImageRecord>> {
    todo!()
}
pub async fn delete(_tx: &WriteTx, _id: ImageId) -> Result<bool> {
    todo!()
}
