//! Backups, what is made again and again, and where it is kept.

use vimana_model::backup::{AcceptedRestore, BackupView, RestoreBackup, TakeBackup};
use vimana_model::datastore::DatastoreView;
use vimana_model::schedule::{ScheduleKind, ScheduleView, SetSchedule};
use vimana_model::vm::AcceptedView;
use vimana_model::{BackupId, Result, VmId};

use crate::Client;
use crate::transport::Items;

impl Client {
    /// The tenant's, newest first.
    pub async fn backups(&self) -> Result<Vec<BackupView>> {
        let list: Items<_> = self.get("/api/v1/backups").await?;
        Ok(list.items)
    }

    /// Newest first.
    pub async fn vm_backups(&self, vm: VmId) -> Result<Vec<BackupView>> {
        let list: Items<_> = self.get(&format!("/api/v1/vms/{vm}/backups")).await?;
        Ok(list.items)
    }

    pub async fn backup(&self, id: BackupId) -> Result<BackupView> {
        self.get(&of(id)).await
    }

    pub async fn back_up(&self, vm: VmId, form: &TakeBackup) -> Result<AcceptedView> {
        self.post_json(&format!("/api/v1/vms/{vm}/backups"), form)
            .await
    }

    pub async fn delete_backup(&self, id: BackupId) -> Result<BackupView> {
        self.delete(&of(id)).await
    }

    pub async fn restore_backup(
        &self,
        id: BackupId,
        form: &RestoreBackup,
    ) -> Result<AcceptedRestore> {
        self.post_json(&format!("{}/restore", of(id)), form).await
    }

    pub async fn schedules(&self, vm: VmId) -> Result<Vec<ScheduleView>> {
        let list: Items<_> = self.get(&format!("/api/v1/vms/{vm}/schedules")).await?;
        Ok(list.items)
    }

    pub async fn set_schedule(
        &self,
        vm: VmId,
        kind: ScheduleKind,
        form: &SetSchedule,
    ) -> Result<ScheduleView> {
        self.put_json(&format!("/api/v1/vms/{vm}/schedules/{kind}"), form)
            .await
    }

    pub async fn remove_schedule(&self, vm: VmId, kind: ScheduleKind) -> Result<()> {
        self.delete(&format!("/api/v1/vms/{vm}/schedules/{kind}"))
            .await
    }

    pub async fn datastores(&self) -> Result<Vec<DatastoreView>> {
        let list: Items<_> = self.get("/api/v1/datastores").await?;
        Ok(list.items)
    }
}

fn of(id: BackupId) -> String {
    format!("/api/v1/backups/{id}")
}
