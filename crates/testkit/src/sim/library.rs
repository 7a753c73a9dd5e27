//! The simulated server's images: one that is always there, and no others.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use vimana_model::ImageId;
use vimana_model::image::{ImageFormat, Origin};
use vimana_repository::{Arrived, Order, Refusal, Repository, Tell};

pub struct Library;

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

    async fn holds(&self) -> io::Result<BTreeSet<ImageId>> {
        Ok(BTreeSet::new())
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
