use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::action::VmAction;
use vimana_model::event::EventView;
use vimana_model::migration::{MigrateVm, MigrationTarget, StorageTarget};
use vimana_model::operation::OperationView;
use vimana_model::session::TicketView;
use vimana_model::snapshot::{SnapshotView, TakeSnapshot};
use vimana_model::unit::MiB;
use vimana_model::vm::{AcceptedView, CreateVm, PowerOffVm, ResizeVm, VmView};
use vimana_model::{SnapshotId, VmId, VmState, VolumeId};

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// Which VMs a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    #[default]
    Active,
    Done,
    All,
}

impl Show {
    pub const ALL: [Self; 3] = [Self::Active, Self::Done, Self::All];

    /// Reads the query parameter; what is no such word means the default.
    #[must_use]
    pub fn from_query(text: Option<&str>) -> Self {
        match text {
            Some("done") => Self::Done,
            Some("all") => Self::All,
            Some(_) | None => Self::Active,
        }
    }

    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Done => "done",
            Self::All => "all",
        }
    }

    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Done => "Done",
            Self::All => "All",
        }
    }

    #[must_use]
    pub const fn takes(self, state: VmState) -> bool {
        match self {
            Self::Active => !state.is_final(),
            Self::Done => state.is_final(),
            Self::All => true,
        }
    }

    #[cfg(feature = "ssr")]
    fn query(self) -> vimana_engine::VmQuery {
        let states = match self {
            Self::All => Vec::new(),
            Self::Active | Self::Done => VmState::ALL
                .into_iter()
                .filter(|state| self.takes(*state))
                .collect(),
        };
        vimana_engine::VmQuery {
            name: None,
            states,
            limit: super::MAX_LISTED_VMS,
        }
    }
}

/// The caller's VMs, newest first.
#[server(prefix = "/portal/api", endpoint = "vms", input = Json, output = Json)]
pub async fn vms(show: Show) -> Result<Vec<VmView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .vms(&cx, &show.query())
        .await
        .map_err(ssr::refuse)
}

#[server(prefix = "/portal/api", endpoint = "vm", input = Json, output = Json)]
pub async fn vm(id: VmId) -> Result<VmView, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .vm(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// What happened to it, oldest first.
#[server(prefix = "/portal/api", endpoint = "vm-timeline", input = Json, output = Json)]
pub async fn vm_timeline(id: VmId) -> Result<Vec<EventView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .vm_timeline(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Newest first.
#[server(prefix = "/portal/api", endpoint = "vm-operations", input = Json, output = Json)]
pub async fn vm_operations(id: VmId) -> Result<Vec<OperationView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .vm_operations(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Oldest first.
#[server(prefix = "/portal/api", endpoint = "vm-snapshots", input = Json, output = Json)]
pub async fn vm_snapshots(id: VmId) -> Result<Vec<SnapshotView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .vm_snapshots(&cx, id)
        .await
        .map_err(ssr::refuse)
}

#[server(name = CreateVmCall, prefix = "/portal/api", endpoint = "create-vm", input = Json, output = Json)]
pub async fn create_vm(form: CreateVm, key: Key) -> Result<AcceptedView, ApiError> {
    let cx = ssr::caller_once("create-vm", &form.clone().without_values(), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .create_vm(&cx, &form)
        .await
        .map_err(ssr::refuse)
}

/// What comes with an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmArgs {
    #[default]
    None,
    PowerOff(PowerOffVm),
    Resize(ResizeVm),
    TakeSnapshot(TakeSnapshot),
    /// Of a revert, or a removal.
    Snapshot(SnapshotId),
    /// To attach or to detach.
    Volume(VolumeId),
    Grow {
        volume: VolumeId,
        size: MiB,
    },
    Migrate(MigrateVm),
}

#[cfg(feature = "ssr")]
impl From<VmArgs> for vimana_engine::ActionArgs {
    fn from(args: VmArgs) -> Self {
        match args {
            VmArgs::None => Self::None,
            VmArgs::PowerOff(form) => Self::PowerOff(form),
            VmArgs::Resize(form) => Self::Resize(form),
            VmArgs::TakeSnapshot(form) => Self::TakeSnapshot(form),
            VmArgs::Snapshot(id) => Self::Snapshot(id),
            VmArgs::Volume(id) => Self::Volume(id),
            VmArgs::Grow { volume, size } => Self::Grow { volume, size },
            VmArgs::Migrate(form) => Self::Migrate(form),
        }
    }
}

/// The hosts that it may go to, and those that it may not.
#[server(prefix = "/portal/api", endpoint = "migration-targets", input = Json, output = Json)]
pub async fn migration_targets(id: VmId) -> Result<Vec<MigrationTarget>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .migration_targets(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// The datastores of its host that its disks may go to, and those that they may not.
#[server(prefix = "/portal/api", endpoint = "storage-targets", input = Json, output = Json)]
pub async fn storage_targets(id: VmId) -> Result<Vec<StorageTarget>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .storage_targets(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Does it, or begins to; answers how the VM is then.
#[server(name = ActOnVmCall, prefix = "/portal/api", endpoint = "act-on-vm", input = Json, output = Json)]
pub async fn act_on_vm(
    id: VmId,
    action: VmAction,
    args: VmArgs,
    key: Key,
) -> Result<VmView, ApiError> {
    use vimana_engine::Acted;

    let cx = ssr::caller_once("act-on-vm", &(id, action, &args), key)
        .await
        .map_err(ssr::refuse)?;
    let acted = ssr::engine()
        .map_err(ssr::refuse)?
        .act_on_vm(&cx, id, action, args.into())
        .await
        .map_err(ssr::refuse)?;
    Ok(match acted {
        Acted::Vm(vm) => *vm,
        Acted::Accepted(accepted) => accepted.vm,
    })
}

/// One-use permission to open the serial console.
#[server(prefix = "/portal/api", endpoint = "console-ticket", input = Json, output = Json)]
pub async fn console_ticket(id: VmId) -> Result<TicketView, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .console_ticket(&cx, id)
        .await
        .map_err(ssr::refuse)
}
