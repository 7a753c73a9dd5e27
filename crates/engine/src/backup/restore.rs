//! A backup becomes an image, and that a VM.
//!
//! The files of a disk, from the full backup to the one that is meant, are read
//! and compared with what is recorded, and made one image of by the same
//! confined process that converts images. Where a VM is wanted, it is recorded
//! in the transaction that makes the image ready; the image then lies in the
//! trash as long as the VM is made from it.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use vimana_authz::Permission;
use vimana_datastore::ItemFile;
use vimana_model::backup::{
    BackupSource, DiskId, FromBackup, Restoration, RestoreBackup, restored_image_name,
};
use vimana_model::event::{Actor, EventKind};
use vimana_model::image::{AcceptedImage, ImageSource, ImageState, Origin};
use vimana_model::name::DatastoreName;
use vimana_model::operation::Progress;
use vimana_model::vm::CreateVm;
use vimana_model::{BackupId, Error, FieldError, ImageId, Result};
use vimana_repository::{Arrived, Refusal, Tell};
use vimana_store::backup::{BackupRecord, DiskRecord, StoredFile};
use vimana_store::image::{ImageOrder, ImageRecord};
use vimana_store::{TxError, WriteTx, backup, flavor, user};

use super::what;
use crate::Engine;
use crate::authorize::{authorized, permit};
use crate::context::{OpContext, new_id};
use crate::image::{ImageChange, NewImage};
use crate::vm::Owner;

/// How much of a file is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A file of a disk, and what it must be.
struct Link {
    file: ItemFile,
    stored: StoredFile,
}

impl Engine {
    /// Makes a new VM from a backup's root disk.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` where nothing can be
    /// made from it, `NotFound`, `Forbidden`.
    pub async fn restore_backup(
        &self,
        cx: &OpContext,
        id: BackupId,
        form: &RestoreBackup,
    ) -> Result<AcceptedImage> {
        let record = self.viewable_backup(cx, id).await?.into_inner();
        permit(cx, Permission::CreateVm, Some(record.tenant_id))?;
        let flavor = form.flavor.clone().filter(|name| !name.trim().is_empty());
        let flavor = flavor.unwrap_or_else(|| record.flavor_name.to_string());
        let image_id = new_id!(self.world(), ImageId);
        let vm = CreateVm {
            name: form.name.clone(),
            image: restored_image_name(image_id),
            flavor,
            ssh_key: form.ssh_key.clone(),
            ..CreateVm::default()
        };
        let wanted = vm.check()?;
        let unsaid = || Error::internal("a form without what was put into it");
        let (flavor_name, name) = wanted.flavor.zip(wanted.image).ok_or_else(unsaid)?;
        let read = self.store().read();
        crate::request::refuse_direct(&read, record.tenant_id).await?;
        let found = flavor::find_by_name(&read, &flavor_name).await?;
        let absent = || FieldError::new("flavor", format!("there is no flavor `{flavor_name}`"));
        let found = found.ok_or_else(|| Error::from(absent()))?;
        let root = disk_of(&record, DiskId::Root)?;
        let (needed, given) = (root.size_mib, found.resources.disk_mib);
        if needed > given {
            let message = format!("its disk of {given} is smaller than the backup's, of {needed}");
            return Err(FieldError::new("flavor", message).into());
        }
        let source = BackupSource {
            from: FromBackup {
                backup_id: id,
                disk: DiskId::Root,
            },
            restoration: Some(Restoration {
                name: wanted.name,
                flavor: flavor_name,
                ssh_key: form.ssh_key.clone(),
                by: cx.subject.user_id,
            }),
        };
        let origin = self.judge_backup(cx, &source.from).await?;
        let order = ImageOrder {
            source: ImageSource::Backup(source),
            checksum: None,
            declared: None,
        };
        let image = NewImage {
            id: image_id,
            name,
            tenant_id: Some(record.tenant_id),
            order,
            origin: Some(origin),
            refresh: None,
        };
        self.begin_import(cx, image, Permission::CreateVm).await
    }

    /// Where an image that is to be made from a backup will have come from.
    ///
    /// # Errors
    /// `Conflict` where nothing can be made from it, `Invalid` for a disk that
    /// is not in it, `NotFound`.
    pub(crate) async fn judge_backup(&self, cx: &OpContext, from: &FromBackup) -> Result<Origin> {
        let found = backup::find(&self.store().read(), from.backup_id).await?;
        let permission = Permission::ViewVm;
        let record = authorized(cx, permission, what(from.backup_id), found)?.into_inner();
        record
            .state
            .judge_restore()
            .map_err(|refusal| Error::conflict(format!("backup `{}` {refusal}", record.name)))?;
        let disk = disk_of(&record, from.disk)?;
        Ok(Origin::Backup {
            backup_id: record.id,
            backup: record.name.to_string(),
            vm: record.vm_name.to_string(),
            disk: match &disk.volume {
                Some(volume) => volume.to_string(),
                None => "root disk".to_owned(),
            },
            fetched: None,
        })
    }

    /// The disk's files become one image in the staging area.
    pub(crate) async fn fetch_backup(
        &self,
        id: ImageId,
        from: &FromBackup,
        tell: Tell<'_>,
    ) -> Result<Arrived, Refusal> {
        let (datastore, chain) = self.chain(from).await?;
        let name = &datastore;
        let datastore = self.inner.datastores.find(name).ok_or_else(|| Refusal {
            message: format!("is in datastore `{name}`, which this server does not have"),
        })?;
        let total_bytes = chain.iter().map(|link| link.stored.size_bytes);
        let mut progress = Progress {
            done_bytes: 0,
            total_bytes: total_bytes.fold(0, u64::saturating_add),
        };
        let mut files: Vec<PathBuf> = Vec::new();
        for link in &chain {
            let unreadable = |error: std::io::Error| {
                tracing::error!(file = ?link.file, %error, "a backup cannot be read");
                Refusal {
                    message: "cannot be read: a file of it is missing or damaged".to_owned(),
                }
            };
            let (mut file, _) = datastore.open(link.file).await.map_err(unreadable)?;
            let mut hash = Sha256::new();
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                let count = file.read(&mut piece).await.map_err(unreadable)?;
                let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                hash.update(bytes);
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                progress.done_bytes = progress.done_bytes.saturating_add(count);
                tell(progress);
            }
            if format!("{:x}", hash.finalize()) != link.stored.sha256 {
                tracing::error!(file = ?link.file, "a backup is not what was stored");
                return Err(Refusal {
                    message: "is damaged: a file of it is not what was stored".to_owned(),
                });
            }
            files.extend(datastore.path(link.file));
        }
        if files.len() != chain.len() {
            return Err(Refusal {
                message: format!("is in datastore `{name}`, whose files cannot be read here"),
            });
        }
        self.inner.repository.merge_in(id, &files).await
    }

    /// The files of a disk, the full one last.
    async fn chain(&self, from: &FromBackup) -> Result<(DatastoreName, Vec<Link>), Refusal> {
        let read = self.store().read();
        let mut chain = Vec::new();
        let mut next = Some(from.backup_id);
        let mut datastore = None;
        while let Some(id) = next {
            let broken = || Refusal {
                message: "cannot be read: a backup that it needs is gone".to_owned(),
            };
            let found = backup::find(&read, id).await.map_err(|error| Refusal {
                message: format!("cannot be read now: {error}"),
            })?;
            let found = found.filter(|found| found.state.judge_restore().is_ok());
            let record = found.ok_or_else(broken)?;
            let disk = record.disks.iter().find(|disk| disk.disk == from.disk);
            let stored = disk.and_then(|disk| disk.stored.clone());
            chain.push(Link {
                file: ItemFile::Backup {
                    backup: id,
                    disk: from.disk,
                },
                stored: stored.ok_or_else(broken)?,
            });
            if chain.len() > crate::limits::MAX_LINKS {
                return Err(broken());
            }
            next = record.since;
            datastore = Some(record.datastore);
        }
        let datastore = datastore.ok_or_else(|| Refusal {
            message: "is not recorded".to_owned(),
        })?;
        Ok((datastore, chain))
    }

    /// The image is ready: the VM that it was made for is recorded, and the
    /// image goes to the trash, where it stays as long as it is used. Where
    /// that VM cannot be, the image stays, and says why.
    pub(crate) async fn finish_restoration(
        &self,
        tx: &WriteTx,
        image: &ImageRecord,
        wanted: &Restoration,
    ) -> Result<(), TxError> {
        let made = self.insert_restored(tx, image, wanted).await;
        let lock = ImageChange::lock(tx, self.world(), Actor::System, image.id).await?;
        let Some(mut change) = lock else {
            return Ok(());
        };
        match made {
            Ok(()) => change.turn(ImageState::Trashed),
            Err(TxError::Engine(error)) => change.add_event(EventKind::Note {
                text: format!("VM {} was not made of it: {}", wanted.name, error.public),
            }),
            Err(error) => return Err(error),
        }
        change.save().await?;
        Ok(())
    }

    async fn insert_restored(
        &self,
        tx: &WriteTx,
        image: &ImageRecord,
        wanted: &Restoration,
    ) -> Result<(), TxError> {
        let gone = || Error::conflict("who asked for it is no longer here");
        let tenant_id = image.tenant_id.ok_or_else(gone)?;
        let name = image.owner_name.clone().ok_or_else(gone)?;
        user::standing(tx, wanted.by, tenant_id)
            .await?
            .ok_or_else(gone)?;
        let form = CreateVm {
            name: wanted.name.to_string(),
            image: image.name.to_string(),
            flavor: wanted.flavor.to_string(),
            ssh_key: wanted.ssh_key.clone(),
            ..CreateVm::default()
        };
        let request = form.check()?;
        let owner = Owner {
            tenant_id,
            id: wanted.by,
            name: name.clone(),
        };
        self.insert_vm(tx, Actor::User(name), owner, &request, None)
            .await
            .map(drop)
    }
}

fn disk_of(record: &BackupRecord, disk: DiskId) -> Result<&DiskRecord> {
    let found = record.disks.iter().find(|found| found.disk == disk);
    found.ok_or_else(|| {
        let message = format!("backup `{}` has no such disk in it", record.name);
        FieldError::new("backup.disk", message).into()
    })
}
