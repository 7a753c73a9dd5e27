//! Images and flavors: what a VM is made from.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vimana_authz::Permission;
use vimana_driver::qcow2;
use vimana_model::flavor::FlavorView;
use vimana_model::image::{ImageFormat, ImageView};
use vimana_model::name::ImageName;
use vimana_model::unit::MiB;
use vimana_model::{Error, FieldError, ImageId, Result};
use vimana_store::flavor::FlavorRecord;
use vimana_store::image::ImageRecord;
use vimana_store::{flavor, image, write_tx};

use crate::Engine;
use crate::authorize::permit;
use crate::context::{OpContext, new_id};
use crate::secret::hex;

impl Engine {
    /// All images, by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn images(&self, cx: &OpContext) -> Result<Vec<ImageView>> {
        permit(cx, Permission::ViewCatalogue, None)?;
        let found = image::list(&self.store().read()).await?;
        Ok(found.into_iter().map(image_view).collect())
    }

    /// All flavors, the smallest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn flavors(&self, cx: &OpContext) -> Result<Vec<FlavorView>> {
        permit(cx, Permission::ViewCatalogue, None)?;
        let found = flavor::list(&self.store().read()).await?;
        Ok(found
            .into_iter()
            .map(
                |FlavorRecord {
                     id,
                     name,
                     resources,
                     created_at: _,
                 }| FlavorView {
                    id,
                    name,
                    resources,
                },
            )
            .collect())
    }

    /// Where an image's bytes are, for the agents that ask for them.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_file(&self, id: ImageId) -> Result<PathBuf> {
        let found = image::find(&self.store().read(), id).await?;
        let found = found.ok_or_else(|| Error::not_found(format!("image `{id}`")))?;
        Ok(self.image_path(found.id, found.format))
    }

    /// Takes a qcow2 file of this machine into the repository under `name`,
    /// on behalf of the operator who starts the server. Content that is
    /// already there under that name is left as it is; other content replaces
    /// it for VMs to come, while VMs that exist keep theirs.
    ///
    /// # Errors
    /// `Invalid` for a file that is no self-contained qcow2 image.
    pub async fn import_image_file(&self, name: &ImageName, path: &Path) -> Result<ImageView> {
        let unreadable = |error: std::io::Error| {
            Error::from(FieldError::new(
                "image",
                format!("`{name}` cannot be read: {error}"),
            ))
        };
        let mut source = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let virtual_bytes = check_header(&mut source, name).await?;
        tokio::fs::create_dir_all(&self.inner.image_dir)
            .await
            .map_err(Error::internal)?;
        let id = new_id!(self.world(), ImageId);
        let staged = self.inner.image_dir.join(format!("{id}.partial"));
        let copied = copy(path, &staged).await;
        let (size_bytes, sha256) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                let _best_effort = tokio::fs::remove_file(&staged).await;
                return Err(unreadable(error));
            }
        };
        let record = ImageRecord {
            id,
            name: name.clone(),
            format: ImageFormat::Qcow2,
            size_bytes,
            virtual_mib: MiB::from_bytes(virtual_bytes.saturating_add((1 << 20) - 1)),
            sha256,
            created_at: self.world().now(),
        };
        self.adopt(record, &staged).await
    }

    /// Names the staged file in the catalogue, unless the same is there.
    async fn adopt(&self, record: ImageRecord, staged: &Path) -> Result<ImageView> {
        let existing = image::find_by_name(&self.store().read(), &record.name).await?;
        if let Some(existing) = existing
            && existing.sha256 == record.sha256
            && self.image_path(existing.id, existing.format).exists()
        {
            tokio::fs::remove_file(staged)
                .await
                .map_err(Error::internal)?;
            return Ok(image_view(existing));
        }
        let path = self.image_path(record.id, record.format);
        tokio::fs::rename(staged, path)
            .await
            .map_err(Error::internal)?;
        write_tx!(self.store(), |tx| {
            if let Some(old) = image::find_by_name(tx, &record.name).await? {
                let name = superseded_name(&old)?;
                image::delete(tx, old.id).await?;
                image::insert(tx, &ImageRecord { name, ..old }).await?;
            }
            image::insert(tx, &record).await?;
            Ok(())
        })?;
        Ok(image_view(record))
    }

    fn image_path(&self, id: ImageId, format: ImageFormat) -> PathBuf {
        self.inner.image_dir.join(format!("{id}.{}", format.name()))
    }
}

/// What an image is called once another has taken its name: the old name and
/// the first digits of its checksum.
fn superseded_name(old: &ImageRecord) -> Result<ImageName> {
    let name: String = old.name.as_str().chars().take(50).collect();
    let digits: String = old.sha256.chars().take(12).collect();
    ImageName::new(format!("{name}.{digits}")).map_err(Error::internal)
}

fn image_view(record: ImageRecord) -> ImageView {
    let ImageRecord {
        id,
        name,
        format,
        size_bytes,
        virtual_mib,
        sha256,
        created_at,
    } = record;
    ImageView {
        id,
        name,
        format,
        size_bytes,
        virtual_mib,
        sha256,
        created_at,
    }
}

/// The size of the disk a guest will see, in bytes.
async fn check_header(file: &mut tokio::fs::File, name: &ImageName) -> Result<u64> {
    let mut start = Vec::with_capacity(qcow2::HEADER_BYTES);
    let most = u64::try_from(qcow2::HEADER_BYTES).unwrap_or(u64::MAX);
    file.take(most)
        .read_to_end(&mut start)
        .await
        .map_err(Error::internal)?;
    match qcow2::Header::parse(&start).and_then(|header| header.self_contained().map(|()| header)) {
        Ok(header) => Ok(header.virtual_bytes),
        Err(refusal) => Err(FieldError::new("image", format!("`{name}` {refusal}")).into()),
    }
}

/// Copies and hashes in one pass; the copy is on disk when this returns.
async fn copy(from: &Path, to: &Path) -> std::io::Result<(u64, String)> {
    let mut source = tokio::fs::File::open(from).await?;
    let mut target = tokio::fs::File::create_new(to).await?;
    let mut hasher = Sha256::new();
    let mut size = 0_u64;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = source.read(&mut buffer).await?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        hasher.update(chunk);
        target.write_all(chunk).await?;
        size = size.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    target.sync_all().await?;
    Ok((size, hex(&hasher.finalize())))
}
