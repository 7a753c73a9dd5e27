//! What people ask for in a case.

use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::migration::MigrateVm;
use vimana_model::request::{CreateRequest, RequestAction};
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::unit::MiB;
use vimana_model::vm::{CreateVm, PowerOffVm, ResizeVm};
use vimana_model::volume::{CreateVolume, GrowVolume};
use vimana_model::{OperationId, RequestId, SnapshotId, VmId, VolumeId};

use super::Deed;
use crate::sim::host::fast;
use crate::sim::people::{ADMIN, Ask, Person, RITA, decision};
use crate::sim::setup::USER_DATA;

/// What the case is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    pub vm: Option<VmId>,
    pub request: Option<RequestId>,
    pub operation: Option<OperationId>,
    pub snapshot: Option<SnapshotId>,
    pub volume: Option<VolumeId>,
    /// Number of the host that the VM is not on.
    pub other: Option<usize>,
    /// What was asked for was not accepted.
    pub refused: bool,
}

/// Who asks, and for what.
pub fn asked(deed: Deed, about: About) -> (Person, Ask) {
    // In the lab it is hers to use.
    let user = if about.request.is_some() { RITA } else { ADMIN };
    let act = |action, args| (user, Ask::Act(about.vm.unwrap(), action, args));
    let decide = |action, terms| decision(about.request.unwrap(), action, terms);
    match deed {
        Deed::Create => (ADMIN, Ask::Create(form("web-1", "tiny"))),
        Deed::Act(action) => act(action, ActionArgs::None),
        Deed::Force => {
            let force = PowerOffVm { force: true };
            act(VmAction::PowerOff, ActionArgs::PowerOff(force))
        }
        Deed::Grow => {
            let more = ResizeVm {
                vcpus: Some(2),
                memory_mib: Some(MiB(256)),
                ..ResizeVm::default()
            };
            act(VmAction::Resize, ActionArgs::Resize(more))
        }
        Deed::Snapshot { memory } => {
            let form = TakeSnapshot {
                name: "before".to_owned(),
                memory,
                volume: None,
            };
            act(VmAction::Snapshot, ActionArgs::TakeSnapshot(form))
        }
        Deed::SnapshotVolume => {
            let form = TakeSnapshot {
                name: "before".to_owned(),
                memory: false,
                volume: about.volume.map(|volume| volume.to_string()),
            };
            act(VmAction::Snapshot, ActionArgs::TakeSnapshot(form))
        }
        Deed::OfSnapshot(action) => act(action, ActionArgs::Snapshot(about.snapshot.unwrap())),
        Deed::MakeVolume => {
            let form = CreateVolume {
                name: "data".to_owned(),
                size_mib: MiB(64),
                delete_with_vm: true,
                ..CreateVolume::default()
            };
            (user, Ask::MakeVolume(form))
        }
        Deed::OfVolume(action) => act(action, ActionArgs::Volume(about.volume.unwrap())),
        Deed::GrowVolume => {
            let size_mib = MiB(128);
            let form = GrowVolume { size_mib };
            (user, Ask::GrowVolume(about.volume.unwrap(), form))
        }
        Deed::MoveVolume => {
            let (volume, to) = (about.volume.unwrap(), fast());
            act(VmAction::Move, ActionArgs::Move { volume, to })
        }
        Deed::MoveDisks => {
            let form = MigrateVm {
                datastore: Some(fast().to_string()),
                ..MigrateVm::default()
            };
            act(VmAction::Migrate, ActionArgs::Migrate(form))
        }
        Deed::Migrate | Deed::MigrateByPostCopy => {
            let form = MigrateVm {
                host: Some(format!("host-{}", about.other.unwrap_or(0))),
                post_copy: deed == Deed::MigrateByPostCopy,
                ..MigrateVm::default()
            };
            act(VmAction::Migrate, ActionArgs::Migrate(form))
        }
        Deed::DeleteVolume => (user, Ask::DeleteVolume(about.volume.unwrap())),
        Deed::Request => {
            let form = CreateRequest {
                terms: form("lab-1", "tiny"),
                purpose: "an experiment".to_owned(),
            };
            (RITA, Ask::Request(form))
        }
        Deed::Decide(action) => decide(action, None),
        Deed::ApproveChanged => decide(RequestAction::Approve, Some(form("lab-1", "small"))),
    }
}

fn form(name: &str, flavor: &str) -> CreateVm {
    CreateVm {
        name: name.to_owned(),
        image: "demo".to_owned(),
        flavor: flavor.to_owned(),
        user_data: Some(USER_DATA.to_owned()),
        ..CreateVm::default()
    }
}
