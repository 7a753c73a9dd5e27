//! Machines that go to another host.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::FieldError;
use crate::name::HostName;
use crate::vm::{HostRef, field};

/// How a machine goes to another host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MigrationMode {
    /// It runs meanwhile, but for a moment at the end.
    #[default]
    Live,
}

impl FromStr for MigrationMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "live" => Ok(Self::Live),
            _ => Err(InvalidMode),
        }
    }
}

/// A text that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected live")]
pub struct InvalidMode;

/// Where a host waits for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// As the other host reaches it.
    pub address: IpAddr,
    pub memory_port: u16,
    /// Where what is on its disks is written.
    pub disk_port: u16,
}

/// What a migration does right now, for whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CopyPhase {
    /// The disks are copied, and kept in step from then on.
    Disks,
    /// The memory is copied while the guest changes it.
    Memory,
    /// The guest stands still, and the rest is copied.
    Switchover,
}

/// How far a copy is. Bytes are those of the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyProgress {
    pub phase: CopyPhase,
    /// Bytes that are still to be copied, as far as known by now.
    pub remaining_bytes: u64,
    /// How fast the guest changes what was copied, in bytes a second.
    pub dirty_bytes_per_s: u64,
    /// How fast it is copied, in bytes a second.
    pub bytes_per_s: u64,
    /// How often the whole memory was gone through.
    pub rounds: u64,
}

/// What sending a machine took, as its hypervisor counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sent {
    /// Disks and memory.
    pub transferred_bytes: u64,
    /// From the beginning to the moment in which everything had arrived.
    pub total_ms: u64,
    /// What the hypervisor says of the time in which the guest stood still.
    pub downtime_ms: u64,
    /// From the moment in which the guest stood still to the end of sending,
    /// measured from outside.
    pub paused_ms: u64,
}

/// What a migration took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationResult {
    /// From the request to the machine that runs on the other host.
    pub total_ms: u64,
    pub transferred_bytes: u64,
    /// What the hypervisor says of the time in which the guest stood still.
    pub downtime_ms: u64,
    /// From the moment in which the guest stood still on its old host to the one
    /// in which it ran on the new one, as the server and both hosts measured it.
    pub blackout_ms: u64,
}

/// Where a VM goes, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationView {
    pub mode: MigrationMode,
    pub from: HostRef,
    pub to: HostRef,
    /// What is being copied, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyProgress>,
    /// Known once the machine runs on its new host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<MigrationResult>,
}

/// A host that a VM may go to, or why not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationTarget {
    pub host: HostRef,
    /// How well it suits, from 0 to 1: the share that it has left then.
    pub score: f64,
    /// What keeps the VM from going there; nothing where it can.
    pub refusal: Option<String>,
}

/// The form that moves a VM to another host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MigrateVm {
    /// Name of the host that it is to go to.
    pub host: String,
    #[serde(default)]
    pub mode: MigrationMode,
}

impl MigrateVm {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    pub fn check(&self) -> Result<(HostName, MigrationMode), Error> {
        let host: Result<HostName, FieldError> = field("host", HostName::new(self.host.as_str()));
        Ok((host?, self.mode))
    }
}
