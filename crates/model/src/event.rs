//! Facts that happened, in one gapless sequence.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::HostView;
use crate::image::{ImageState, ImageView, RefreshEvery};
use crate::name::{BackupName, DatastoreName, HostName, SnapshotName, UserName, VolumeName};
use crate::operation::{OperationKind, OperationView, StepKind};
use crate::request::{RequestAction, RequestState, RequestView};
use crate::state::VmState;
use crate::unit::{MiB, Resources};
use crate::vm::VmView;
use crate::volume::VolumeView;
use crate::{HostId, ImageId, RequestId, Timestamp, VmId, VolumeId};

/// Who or what made it happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Actor {
    User(UserName),
    /// An agent reported it.
    Host(HostName),
    Scheduler,
    /// A reconciler of the server.
    System,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "{name}"),
            Self::Host(name) => write!(f, "host {name}"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::System => f.write_str("Vimana"),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// Someone asked for an operation and it was accepted.
    Requested {
        operation: OperationKind,
    },
    /// The VM went from one state to another.
    State {
        from: VmState,
        to: VmState,
    },
    /// A step failed in a way that may pass; it is tried again.
    StepRetried {
        step: StepKind,
        reason: String,
    },
    /// The operation failed, and what it did is taken back.
    Undoing {
        operation: OperationKind,
        reason: String,
    },
    /// The operation failed; the VM is what it was before.
    OperationFailed {
        operation: OperationKind,
        reason: String,
    },
    /// Someone cancelled the operation, and what it did is taken back.
    Cancelling {
        operation: OperationKind,
    },
    /// The operation was cancelled; what it did was taken back.
    Cancelled {
        operation: OperationKind,
    },
    Resized {
        from: Resources,
        to: Resources,
    },
    SnapshotTaken {
        name: SnapshotName,
    },
    /// The VM is what it was when the snapshot was taken.
    Reverted {
        name: SnapshotName,
    },
    SnapshotRemoved {
        name: SnapshotName,
    },
    /// A backup is in the datastore.
    BackedUp {
        name: BackupName,
    },
    BackupDeleted {
        name: BackupName,
    },
    VolumeCreated {
        name: VolumeName,
    },
    VolumeAttached {
        name: VolumeName,
    },
    /// The VM has let go of it, or is gone.
    VolumeDetached {
        name: VolumeName,
    },
    VolumeGrown {
        name: VolumeName,
        to: MiB,
    },
    /// It is in another datastore now.
    VolumeMoved {
        name: VolumeName,
        to: DatastoreName,
    },
    /// The VM's own disk is in another datastore now.
    DiskMoved {
        to: DatastoreName,
    },
    /// It has come along with its VM.
    VolumeCame {
        name: VolumeName,
        /// Name of the host.
        to: String,
    },
    /// Someone deleted it, or it went with its VM.
    VolumeDeleted {
        name: VolumeName,
    },
    /// Its host has removed what it held.
    VolumeRemoved {
        name: VolumeName,
    },
    /// It is on another host now.
    Migrated {
        /// None where it came from the datastore.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        to: String,
    },
    /// A machine of another host, or from the datastore, is to come to this one;
    /// room is kept for it.
    Expected {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
    },
    /// Nothing is left of a machine that went elsewhere, or did not come.
    Cleared {},
    /// A scheduler's proposal was accepted and the room claimed.
    Placed {
        host: String,
    },
    /// A scheduler looked and found no host.
    NotPlaced {
        reason: String,
    },
    /// A step of the operation in flight ended.
    Step {
        step: StepKind,
    },
    /// The VM failed.
    Failed {
        during: VmState,
        reason: String,
    },
    /// Worth knowing, changes nothing: "the guest did not react; it was switched off".
    Note {
        text: String,
    },
    ConsoleOpened,
    /// Something was done with a request of the manual life-cycle; nothing
    /// where it was made.
    Request {
        action: Option<RequestAction>,
    },
    /// The machine of a request runs, or its release is through.
    RequestMoved {
        to: RequestState,
    },
    HostConnected,
    HostDisconnected,
    /// Its grace time is over: it counts as Unknown.
    HostSilent,
    /// A session of it was refused: an alarm.
    HostRefused {
        reason: String,
    },
    /// What it reports of itself makes no sense; it takes no new VMs.
    HostDoubted {
        reason: String,
    },
    /// It takes no new VMs, and keeps those it has.
    HostCordoned,
    /// It takes VMs again.
    HostEnabled,
    /// Its VMs are moved away, so many at once.
    HostDraining {
        limit: u32,
    },
    /// It is drained no further now: what is left there cannot be moved.
    HostStuck {
        left: u32,
    },
    /// Nothing is on it any more: it is in maintenance.
    HostDrained,
    /// It has a certificate now: it joined, or renewed.
    HostCertified,
    /// Its certificate is no longer accepted.
    HostRevoked,
    /// It holds a machine that is not recorded there; nothing is done to it.
    OrphanFound {
        machine: VmId,
    },
    /// The machine that was not recorded is no longer there.
    OrphanGone {
        machine: VmId,
    },
    /// Someone had the machine that was not recorded removed.
    OrphanDiscarded {
        machine: VmId,
    },
    /// Its watchdog stopped the machines, since the agent had no lease any more.
    HostFenced {
        machines: u32,
    },
    /// An image went from one state to another.
    Image {
        from: ImageState,
        to: ImageState,
    },
    /// The source of an image was asked for something new, which took its name
    /// where there was some.
    ImageRefreshed {
        successor: Option<ImageId>,
    },
    /// Someone said how often an image is to be refreshed; nothing for never.
    ImageRefreshSet {
        every: Option<RefreshEvery>,
    },
}

impl EventKind {
    /// What happened, for a timeline: begins with a capital, no period.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Requested { operation } => operation.asked().to_owned(),
            Self::State { from, to } => format!("{from} → {to}"),
            Self::Placed { host } => format!("Placed on {host}"),
            Self::Migrated { from, to } => match from {
                Some(from) => format!("Moved from {from} to {to}"),
                None => format!("Brought from the datastore to {to}"),
            },
            Self::Expected { from } => match from {
                Some(from) => format!("A machine of {from} is to come"),
                None => "A machine is to come from the datastore".to_owned(),
            },
            Self::Cleared {} => "Nothing is left of a machine that is elsewhere".to_owned(),
            Self::NotPlaced { reason } => format!("No host yet: {reason}"),
            Self::Step { step } => format!("{}: done", step.title()),
            Self::Failed { during, reason } => format!("Failed during {during}: {reason}"),
            Self::StepRetried { step, reason } => {
                format!("{}: tried again, since {reason}", step.title())
            }
            Self::Undoing { operation, reason } => {
                format!("The {operation} failed and is taken back: {reason}")
            }
            Self::OperationFailed { operation, reason } => {
                format!("The {operation} failed: {reason}")
            }
            Self::Cancelling { operation } => format!("Cancelled the {operation}"),
            Self::Cancelled { operation } => format!("The {operation} was taken back"),
            Self::Resized { from, to } => resized(*from, *to),
            Self::SnapshotTaken { name } => format!("Snapshot {name} was taken"),
            Self::Reverted { name } => format!("Went back to snapshot {name}"),
            Self::SnapshotRemoved { name } => format!("Snapshot {name} was deleted"),
            Self::BackedUp { name } => format!("Backup {name} is in the datastore"),
            Self::BackupDeleted { name } => format!("Backup {name} was deleted"),
            Self::VolumeCreated { name } => format!("Created volume {name}"),
            Self::VolumeAttached { name } => format!("Volume {name} is attached"),
            Self::VolumeDetached { name } => format!("Volume {name} is detached"),
            Self::VolumeGrown { name, to } => format!("Volume {name} has {to} now"),
            Self::DiskMoved { to } => format!("Its disk is in datastore {to} now"),
            Self::VolumeMoved { name, to } => format!("Volume {name} is in datastore {to} now"),
            Self::VolumeCame { name, to } => format!("Volume {name} is on host {to} now"),
            Self::VolumeDeleted { name } => format!("Volume {name} was deleted"),
            Self::VolumeRemoved { name } => format!("Nothing of volume {name} is left"),
            Self::Note { text } => text.clone(),
            Self::ConsoleOpened => "Opened the serial console".to_owned(),
            Self::HostConnected => "Host connected".to_owned(),
            Self::HostDisconnected => "Host disconnected".to_owned(),
            Self::HostSilent => "Host is silent".to_owned(),
            Self::Request { action: None } => "Asked for a machine".to_owned(),
            Self::Request {
                action: Some(action),
            } => action.title().to_owned(),
            Self::RequestMoved { to } => format!("{to}: {}", to.meaning()),
            Self::HostRefused { reason } => format!("A session was refused: {reason}"),
            Self::HostDoubted { reason } => format!("Takes no new VMs: {reason}"),
            Self::HostCordoned => "Cordoned: takes no new VMs".to_owned(),
            Self::HostEnabled => "Takes VMs again".to_owned(),
            Self::HostDraining { limit: 1 } => "Draining: its VMs go one by one".to_owned(),
            Self::HostDraining { limit } => format!("Draining: its VMs go, {limit} at once"),
            Self::HostStuck { left: 1 } => {
                "Cannot be drained further now: 1 machine is left".to_owned()
            }
            Self::HostStuck { left } => {
                format!("Cannot be drained further now: {left} machines are left")
            }
            Self::HostDrained => "In maintenance: nothing is on it any more".to_owned(),
            Self::HostCertified => "Has a new certificate".to_owned(),
            Self::HostRevoked => "Its certificate was revoked".to_owned(),
            Self::OrphanFound { machine } => {
                format!("Holds {machine}, which is not recorded there; it is left alone")
            }
            Self::OrphanGone { machine } => format!("No longer holds {machine}"),
            Self::OrphanDiscarded { machine } => format!("{machine} was removed"),
            Self::Image { from, to } => format!("{from} → {to}"),
            Self::ImageRefreshed { successor: None } => "Its source has nothing new".to_owned(),
            Self::ImageRefreshed {
                successor: Some(successor),
            } => format!("Its source had something new: {successor} took its name"),
            Self::ImageRefreshSet { every: None } => "Is no longer refreshed".to_owned(),
            Self::ImageRefreshSet { every: Some(every) } => format!("Is refreshed every {every}"),
            Self::HostFenced { machines } => {
                format!("The watchdog stopped {machines} machines: the host's lease had run out")
            }
        }
    }
}

fn resized(from: Resources, to: Resources) -> String {
    let mut parts = Vec::new();
    if from.vcpus != to.vcpus {
        parts.push(format!("{} → {} vCPUs", from.vcpus, to.vcpus));
    }
    if from.memory_mib != to.memory_mib {
        parts.push(format!("{} → {} memory", from.memory_mib, to.memory_mib));
    }
    if from.disk_mib != to.disk_mib {
        parts.push(format!("{} → {} disk", from.disk_mib, to.disk_mib));
    }
    format!("Resized: {}", parts.join(", "))
}

/// One entry of the sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventView {
    /// Position in the installation's sequence; no gaps.
    pub seq: u64,
    pub at: Timestamp,
    pub actor: Actor,
    pub vm_id: Option<VmId>,
    pub host_id: Option<HostId>,
    pub request_id: Option<RequestId>,
    #[serde(default)]
    pub image_id: Option<ImageId>,
    #[serde(default)]
    pub volume_id: Option<VolumeId>,
    pub event: EventKind,
}

/// What the event stream carries: the fact, and how things look after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamItem {
    pub event: EventView,
    /// The VM now, if the event is about one.
    pub vm: Option<VmView>,
    /// The host now, if one is concerned and the reader may see hosts.
    pub host: Option<HostView>,
    /// The request now, if the event is about one.
    pub request: Option<RequestView>,
    /// The image now, if the event is about one.
    #[serde(default)]
    pub image: Option<ImageView>,
    /// The volume now, if the event is about one.
    #[serde(default)]
    pub volume: Option<VolumeView>,
}

/// What the stream carries beside the sequence: how far an operation is.
/// Nothing is lost where it is missed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProgressItem {
    pub operation: OperationView,
}
