use leptos::prelude::*;
use serde::{Deserialize, Serialize};
use vimana_model::backup::{AcceptedRestore, BackupView, RestoreBackup};
use vimana_model::datastore::DatastoreView;
use vimana_model::schedule::{ScheduleKind, ScheduleView, SetSchedule};
use vimana_model::volume::VmRef;
use vimana_model::{BackupId, VmId};

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// What the page of backups shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupsData {
    /// Newest first.
    pub backups: Vec<BackupView>,
    pub schedules: Vec<ScheduleView>,
    pub datastores: Vec<DatastoreView>,
    /// The VMs that are not done.
    pub vms: Vec<VmRef>,
    /// Names of the sizes that a VM can be made with.
    pub flavors: Vec<String>,
}

#[server(prefix = "/portal/api", endpoint = "backups", input = Json, output = Json)]
pub async fn backups() -> Result<BackupsData, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let found = async {
        let vms = engine.vms(&cx, &vimana_engine::VmQuery::default()).await?;
        let there = vms.into_iter().filter(|vm| !vm.state.is_final());
        let flavors = engine.flavors(&cx).await?;
        Ok(BackupsData {
            backups: engine.backups(&cx).await?,
            schedules: engine.all_schedules(&cx).await?,
            datastores: engine.datastores(&cx).await?,
            vms: there
                .map(|vm| VmRef {
                    id: vm.id,
                    name: vm.name,
                })
                .collect(),
            flavors: flavors
                .into_iter()
                .map(|flavor| flavor.name.to_string())
                .collect(),
        })
    };
    found.await.map_err(ssr::refuse)
}

#[server(name = DeleteBackupCall, prefix = "/portal/api", endpoint = "delete-backup", input = Json, output = Json)]
pub async fn delete_backup(id: BackupId, key: Key) -> Result<BackupView, ApiError> {
    let cx = ssr::caller_once("delete-backup", &id, key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .delete_backup(&cx, id)
        .await
        .map_err(ssr::refuse)
}

#[server(name = RestoreBackupCall, prefix = "/portal/api", endpoint = "restore-backup", input = Json, output = Json)]
pub async fn restore_backup(
    id: BackupId,
    form: RestoreBackup,
    key: Key,
) -> Result<AcceptedRestore, ApiError> {
    let cx = ssr::caller_once("restore-backup", &(id, &form), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .restore_backup(&cx, id, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = SetScheduleCall, prefix = "/portal/api", endpoint = "set-schedule", input = Json, output = Json)]
pub async fn set_schedule(
    vm: VmId,
    kind: ScheduleKind,
    form: SetSchedule,
    key: Key,
) -> Result<ScheduleView, ApiError> {
    let cx = ssr::caller_once("set-schedule", &(vm, kind, &form), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .set_schedule(&cx, vm, kind, &form)
        .await
        .map_err(ssr::refuse)
}

#[server(name = RemoveScheduleCall, prefix = "/portal/api", endpoint = "remove-schedule", input = Json, output = Json)]
pub async fn remove_schedule(vm: VmId, kind: ScheduleKind, key: Key) -> Result<(), ApiError> {
    let cx = ssr::caller_once("remove-schedule", &(vm, kind), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .remove_schedule(&cx, vm, kind)
        .await
        .map_err(ssr::refuse)
}
