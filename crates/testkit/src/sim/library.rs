//! The simulated server's images: one that is always there, and no others.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use vimana_model::ImageId;
use vimana_model::image::{ImageContent, ImageFormat, Origin};
use vimana_model::unit::MiB;
use vimana_repository::{Arrived, Kept, Order, Refusal, Repository, Tell};

pub struct Library;

/// The one that is always there.
#[must_use]
pub fn image_id() -> ImageId {
    ImageId::from_parts(1, [0; 10])
}

#[must_use]
pub fn content() -> ImageContent {
    ImageContent {
        format: ImageFormat::Qcow2,
        size_bytes: 512,
        virtual_mib: MiB(64),
        sha256: "0".repeat(64),
    }
}

#[async_trait]
impl Repository for Library {
    async fn judge(&self, _order: &Order) -> Result<Origin, Refusal> {
        Err(closed())
    }

    async fn fetch(
        &self,
        _id: ImageId,
        _order: &Order,
        _tell: Tell<'_>,
    ) -> Result<Arrived, Refusal> {
        Err(closed())
    }

    async fn version(&self, _order: &Order) -> Result<Option<String>, Refusal> {
        Err(closed())
    }

    async fn copy_in(&self, _id: ImageId, _file: &Path) -> Result<Arrived, Refusal> {
        Err(closed())
    }

    async fn merge_in(&self, _id: ImageId, _chain: &[PathBuf]) -> Result<Arrived, Refusal> {
        Err(closed())
    }

    async fn enter(&self, _id: ImageId, _format: ImageFormat) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    async fn discard(&self, _id: ImageId) -> io::Result<()> {
        Ok(())
    }

    async fn contents(&self) -> io::Result<BTreeMap<ImageId, Kept>> {
        let kept = Kept {
            files: vec![(content().format, content().size_bytes)],
            staged: false,
        };
        Ok(BTreeMap::from([(image_id(), kept)]))
    }

    fn path(&self, id: ImageId, format: ImageFormat) -> PathBuf {
        PathBuf::from(format!("/simulated/images/{id}.{format}"))
    }
}

fn closed() -> Refusal {
    Refusal {
        message: "is not taken in here".to_owned(),
    }
}
