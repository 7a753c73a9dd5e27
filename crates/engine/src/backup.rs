//! Copies of VMs' disks in a datastore.
//!
//! Making one is an operation of the VM, of one step that its host carries out
//! (`backup/make.rs`). The record is there before the effect (Making), and so
//! is the room on the host for the copies. A backup holds all of the disks, or
//! what has changed since another one, which then stays as long as it is
//! needed. The VM may be gone: its backups stay.
//!
//! A backup becomes a VM again by way of an image (`backup/restore.rs`).

mod make;
mod restore;
mod sweep;

use vimana_authz::Permission;
use vimana_model::backup::{BackupState, BackupView, DiskView};
use vimana_model::event::{Actor, EventKind};
use vimana_model::image::ImageSource;
use vimana_model::{BackupId, Error, Result, TenantId, VmId};
use vimana_store::backup::{BackupRecord, DiskRecord};
use vimana_store::event::NewEvent;
use vimana_store::image::ImageRecord;
use vimana_store::{TxError, WriteTx, backup, event, write_tx};

use crate::Engine;
use crate::authorize::{Authorized, Owned, authorized, current, permit};
use crate::context::OpContext;
use crate::idempotency::{recall, remember};
use crate::image::under_way;

pub use make::{BackupPlan, dated};

impl Owned for BackupRecord {
    fn tenant_id(&self) -> Option<TenantId> {
        Some(self.tenant_id)
    }
}

impl Engine {
    /// The tenant's backups, the newest first.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn backups(&self, cx: &OpContext) -> Result<Vec<BackupView>> {
        let tenant = cx.subject.tenant_id;
        permit(cx, Permission::ViewVm, Some(tenant))?;
        let found = backup::list(&self.store().read(), tenant).await?;
        Ok(found.into_iter().map(view).collect())
    }

    /// Those of one VM, the newest first; it may be done.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn vm_backups(&self, cx: &OpContext, id: VmId) -> Result<Vec<BackupView>> {
        self.viewable_vm(cx, id).await?;
        let found = backup::for_vm(&self.store().read(), id).await?;
        Ok(found.into_iter().map(view).collect())
    }

    /// One backup.
    ///
    /// # Errors
    /// `NotFound`, also when the caller may not see it.
    pub async fn backup(&self, cx: &OpContext, id: BackupId) -> Result<BackupView> {
        Ok(view(self.viewable_backup(cx, id).await?.into_inner()))
    }

    /// Deletes a backup.
    ///
    /// # Errors
    /// `Conflict` where it is being made or another one needs it, `NotFound`,
    /// `Forbidden`.
    pub async fn delete_backup(&self, cx: &OpContext, id: BackupId) -> Result<BackupView> {
        self.viewable_backup(cx, id).await?;
        let actor = Actor::User(cx.subject.user_name.clone());
        let answer = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let found = backup::lock(tx, id).await?;
            let permission = Permission::ManageBackups;
            let record = authorized(cx, permission, what(id), found)?.into_inner();
            let name = &record.name;
            record
                .state
                .judge_delete()
                .map_err(|refusal| Error::conflict(format!("backup `{name}` {refusal}")))?;
            if let Some(later) = backup::since(tx, id).await?.last() {
                let message = format!(
                    "backup `{name}` cannot be deleted: `{}` holds only what has changed since it",
                    later.name
                );
                return Err(Error::conflict(message).into());
            }
            if let Some(image) = made_from(tx, id).await? {
                let message = format!(
                    "backup `{name}` cannot be deleted: image `{}` is just made of it; wait for that, or cancel it",
                    image.name
                );
                return Err(Error::conflict(message).into());
            }
            let record = self.let_go(tx, actor.clone(), record).await?;
            let answer = view(record);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })?;
        self.inner.hub.wake();
        self.spawn_sweep_backups();
        Ok(answer)
    }

    /// A backup that nobody wants any more; the sweep removes what it has.
    async fn let_go(
        &self,
        tx: &WriteTx,
        actor: Actor,
        mut record: BackupRecord,
    ) -> Result<BackupRecord, TxError> {
        record.state = BackupState::Removing;
        backup::update(tx, &mut record).await?;
        let deleted = EventKind::BackupDeleted {
            name: record.name.clone(),
        };
        let fact = NewEvent {
            at: self.world().now(),
            actor,
            tenant_id: Some(record.tenant_id),
            vm_id: Some(record.vm_id),
            host_id: None,
            request_id: None,
            image_id: None,
            volume_id: None,
            event: deleted,
        };
        event::append(tx, &[fact]).await?;
        Ok(record)
    }

    async fn viewable_backup(
        &self,
        cx: &OpContext,
        id: BackupId,
    ) -> Result<Authorized<BackupRecord>> {
        let found = backup::find(&self.store().read(), id).await?;
        let found = found.filter(|found| found.state != BackupState::Removed);
        authorized(cx, Permission::ViewVm, what(id), found)
    }
}

/// The image that is just made of the backup.
async fn made_from(tx: &WriteTx, id: BackupId) -> Result<Option<ImageRecord>, TxError> {
    under_way(
        tx,
        |source, _| matches!(source, ImageSource::Backup(backup) if backup.from.backup_id == id),
    )
    .await
}

fn what(id: BackupId) -> String {
    format!("backup `{id}`")
}

fn view(record: BackupRecord) -> BackupView {
    let stored_bytes = record.stored_bytes();
    let BackupRecord {
        id,
        tenant_id,
        vm_id,
        vm_name,
        owner_name,
        name,
        state,
        datastore,
        since,
        scheduled,
        frozen,
        resources,
        flavor_name,
        image_name,
        disks,
        claimed: _,
        failure,
        generation: _,
        created_at,
    } = record;
    BackupView {
        id,
        tenant_id,
        vm_id,
        vm_name,
        name,
        state,
        datastore,
        since,
        scheduled,
        frozen,
        resources,
        flavor: flavor_name,
        image: image_name,
        disks: disks.into_iter().map(disk_view).collect(),
        stored_bytes,
        failure,
        owner: owner_name.to_string(),
        created_at,
    }
}

fn disk_view(disk: DiskRecord) -> DiskView {
    DiskView {
        disk: disk.disk,
        volume: disk.volume,
        size_mib: disk.size_mib,
        stored_bytes: disk.stored.map_or(0, |stored| stored.size_bytes),
    }
}
