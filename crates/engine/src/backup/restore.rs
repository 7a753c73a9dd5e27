//! A backup becomes an image, and that a VM.
//!
//! The files of a disk, from the full backup to the one that is meant, are read
//! and compared with what is recorded, and made one image of by the same
//! confined process that converts images. Where a VM is wanted, it is recorded
//! in the transaction that makes the image ready; the image then lies in the
//! trash as long as the VM is made from it. What was on the backup's other
//! disks becomes volumes in the same way: they are recorded together with the VM
//! and begin as their images when they are attached.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use vimana_authz::Permission;
use vimana_datastore::ItemFile;
use vimana_model::backup::{
    AcceptedRestore, BackupSource, Becomes, DiskId, FromBackup, Restoration, RestoreBackup,
    RestoredVolume, restored_image_name,
};
use vimana_model::event::{Actor, EventKind};
use vimana_model::image::{ImageSource, ImageState, Origin};
use vimana_model::name::{DatastoreName, ImageName, VmName, VolumeName};
use vimana_model::operation::Progress;
use vimana_model::vm::CreateVm;
use vimana_model::volume::VolumeRequest;
use vimana_model::{BackupId, Error, ErrorKind, FieldError, ImageId, Result, TenantId};
use vimana_repository::{Arrived, Refusal, Tell};
use vimana_store::backup::{BackupRecord, DiskRecord, StoredFile};
use vimana_store::image::{ImageOrder, ImageRecord};
use vimana_store::volume::{ImageOf, VolumeRecord};
use vimana_store::{Conn, StoreError, TxError, WriteTx, backup, flavor, user, vm, volume};

use super::what;
use crate::Engine;
use crate::authorize::{authorized, permit};
use crate::context::{OpContext, new_id};
use crate::image::{ImageChange, NewImage};
use crate::limits::MAX_VOLUMES;
use crate::quota::{self, Growth};
use crate::vm::Owner;

/// How much of a file is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A file of a disk, and what it must be.
struct Link {
    file: ItemFile,
    stored: StoredFile,
}

impl Engine {
    /// Makes a new VM from a backup's root disk, and volumes of its others.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` where nothing can be
    /// made from it, `NotFound`, `Forbidden`.
    pub async fn restore_backup(
        &self,
        cx: &OpContext,
        id: BackupId,
        form: &RestoreBackup,
    ) -> Result<AcceptedRestore> {
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
        let tenant_id = record.tenant_id;
        let volumes = match form.root_only {
            true => Vec::new(),
            false => volumes_to_be(&record, &wanted.name)?,
        };
        if !volumes.is_empty() {
            permit(cx, Permission::ManageVolumes, Some(tenant_id))?;
        }
        let names = volumes.iter().map(|volume| volume.name.clone()).collect();
        let from = FromBackup {
            backup_id: id,
            disk: DiskId::Root,
        };
        let origin = self.judge_backup(cx, &from).await?;
        let becomes = Becomes::Vm(Restoration {
            name: wanted.name,
            flavor: flavor_name,
            ssh_key: form.ssh_key.clone(),
            by: cx.subject.user_id,
            volumes,
        });
        let image = image_to_be(tenant_id, (image_id, name), from, origin, becomes);
        let accepted = self.begin_import(cx, image, Permission::CreateVm).await?;
        Ok(AcceptedRestore {
            image: accepted.image,
            operation: accepted.operation,
            volumes: names,
        })
    }

    /// What would make nothing of it at the end is told at the beginning.
    pub(crate) async fn refuse_names_in_use(tx: &WriteTx, image: &NewImage) -> Result<()> {
        let (Some(tenant), ImageSource::Backup(BackupSource { becomes, .. })) =
            (image.tenant_id, &image.order.source)
        else {
            return Ok(());
        };
        let Some(Becomes::Vm(wanted)) = becomes else {
            return Ok(());
        };
        if vm::is_named(tx, tenant, &wanted.name).await? {
            let message = format!("there is already a VM named `{}`", wanted.name);
            return Err(Error::conflict(message));
        }
        volumes_are_free(tx, tenant, &wanted.volumes).await
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
        // Its bytes are more than a look at it.
        permit(cx, Permission::ManageImages, Some(record.tenant_id))?;
        record
            .state
            .judge_restore()
            .map_err(|refusal| Error::conflict(format!("backup `{}` {refusal}", record.name)))?;
        origin(&record, from.disk)
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
            copy: None,
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
    /// image goes to the trash, where it stays as long as it is used; so are
    /// the VM's volumes, whose images, which are answered, begin to be made.
    /// Where that VM cannot be, the image stays, and says why.
    pub(crate) async fn finish_restoration(
        &self,
        tx: &WriteTx,
        image: &ImageRecord,
        from: BackupId,
        wanted: &Restoration,
    ) -> Result<Vec<ImageId>, TxError> {
        let made = self.insert_restored(tx, image, from, wanted).await;
        let lock = ImageChange::lock(tx, self.world(), Actor::System, image.id).await?;
        let Some(mut change) = lock else {
            return Ok(Vec::new());
        };
        let begun = match made {
            Ok(begun) => {
                change.turn(ImageState::Trashed);
                begun
            }
            Err(TxError::Engine(error)) => {
                change.add_event(EventKind::Note {
                    text: format!("VM {} was not made of it: {}", wanted.name, error.public),
                });
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        change.save().await?;
        Ok(begun)
    }

    async fn insert_restored(
        &self,
        tx: &WriteTx,
        image: &ImageRecord,
        from: BackupId,
        wanted: &Restoration,
    ) -> Result<Vec<ImageId>, TxError> {
        let gone = || Error::conflict("who asked for it is no longer here");
        let tenant_id = image.tenant_id.ok_or_else(gone)?;
        let name = image.owner_name.clone().ok_or_else(gone)?;
        user::standing(tx, wanted.by, tenant_id)
            .await?
            .ok_or_else(gone)?;
        // Looked at before anything is written: all of it is made, or nothing.
        volumes_are_free(tx, tenant_id, &wanted.volumes).await?;
        quota::may_have(tx, tenant_id, &name, &takes(tx, wanted).await?).await?;
        let mut origins = Vec::new();
        if !wanted.volumes.is_empty() {
            let record = backup::find(tx, from).await?;
            let record = record.filter(|record| record.state.judge_restore().is_ok());
            let lost = || Error::conflict("the backup of its volumes is gone");
            let record = record.ok_or_else(lost)?;
            for volume in &wanted.volumes {
                origins.push(origin(&record, volume.disk)?);
            }
        }
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
        let actor = Actor::User(name.clone());
        let made = self.insert_vm(tx, actor, owner, &request, None).await;
        made.map_err(anew)?;
        let mut begun = Vec::new();
        for (volume, origin) in wanted.volumes.iter().zip(origins) {
            let id = new_id!(self.world(), ImageId);
            let called = ImageName::new(restored_image_name(id)).map_err(Error::internal)?;
            let from = FromBackup {
                backup_id: from,
                disk: volume.disk,
            };
            let of = ImageOf {
                id,
                name: called.clone(),
            };
            let new = image_to_be(tenant_id, (id, called), from, origin, Becomes::Volume);
            self.record_import(tx, &name, &new).await?;
            let new = VolumeRequest {
                name: volume.name.clone(),
                size: volume.size,
                image: None,
                datastore: DatastoreName::local(),
                delete_with_vm: false,
            };
            let volume = new_id!(self.world(), VolumeId);
            let made = self.record_volume(tx, (tenant_id, &name), volume, new, Some(of));
            made.await.map_err(anew)?;
            begun.push(id);
        }
        Ok(begun)
    }
}

/// A limit was lowered after it was asked about, and something is written already:
/// all of it is tried again.
fn anew(error: TxError) -> TxError {
    match error {
        TxError::Engine(error) if error.kind == ErrorKind::OverQuota => StoreError::Conflict.into(),
        error @ (TxError::Store(_) | TxError::Engine(_)) => error,
    }
}

/// What all of it counts.
async fn takes(conn: &impl Conn, wanted: &Restoration) -> Result<Growth> {
    let flavor = flavor::find_by_name(conn, &wanted.flavor).await?;
    // One that is gone is refused by name.
    let size = flavor.map(|flavor| flavor.resources).unwrap_or_default();
    let vm = quota::of_new(quota::to_be(size));
    let local = DatastoreName::local();
    Ok(wanted.volumes.iter().fold(vm, |sum, volume| {
        quota::sum(sum, quota::of_new_volume(&local, volume.size))
    }))
}

/// What the backup's other disks become beside a VM of that name.
fn volumes_to_be(record: &BackupRecord, vm: &VmName) -> Result<Vec<RestoredVolume>> {
    let mut volumes = Vec::new();
    for disk in &record.disks {
        let Some(was) = disk.volume.as_ref().filter(|_| disk.disk != DiskId::Root) else {
            continue;
        };
        let name = VolumeName::new(format!("{vm}-{was}")).map_err(|wrong| {
            let message = format!("with volume `{was}` behind it: {wrong}");
            Error::from(FieldError::new("name", message))
        })?;
        volumes.push(RestoredVolume {
            disk: disk.disk,
            name,
            size: disk.size_mib,
        });
    }
    Ok(volumes)
}

async fn volumes_are_free(
    conn: &impl Conn,
    tenant: TenantId,
    wanted: &[RestoredVolume],
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let all = volume::list(conn, tenant).await?;
    if all.len().saturating_add(wanted.len()) > MAX_VOLUMES {
        let message = format!("the tenant would have more than {MAX_VOLUMES} volumes");
        return Err(Error::conflict(message));
    }
    for volume in wanted {
        let same = |other: &VolumeRecord| other.name == volume.name && other.state.holds_name();
        if all.iter().any(same) {
            let message = format!("there is already a volume named `{}`", volume.name);
            return Err(Error::conflict(message));
        }
    }
    Ok(())
}

fn image_to_be(
    tenant: TenantId,
    (id, name): (ImageId, ImageName),
    from: FromBackup,
    origin: Origin,
    becomes: Becomes,
) -> NewImage {
    let source = BackupSource {
        from,
        becomes: Some(becomes),
    };
    NewImage {
        id,
        name,
        tenant_id: Some(tenant),
        order: ImageOrder {
            source: ImageSource::Backup(source),
            checksum: None,
            declared: None,
        },
        origin: Some(origin),
        refresh: None,
    }
}

fn origin(record: &BackupRecord, disk: DiskId) -> Result<Origin> {
    let disk = disk_of(record, disk)?;
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

fn disk_of(record: &BackupRecord, disk: DiskId) -> Result<&DiskRecord> {
    let found = record.disks.iter().find(|found| found.disk == disk);
    found.ok_or_else(|| {
        let message = format!("backup `{}` has no such disk in it", record.name);
        FieldError::new("backup.disk", message).into()
    })
}
