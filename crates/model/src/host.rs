//! A machine with an agent.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{DatastoreName, HostName, ZoneName};
use crate::unit::{MiB, Resources};
use crate::{DatastoreId, HostId, Timestamp, VmId};

/// What a host may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Takes new VMs.
    Enabled,
    /// Runs what it has and takes no new VMs.
    Cordoned,
    /// Its VMs are being moved away; it takes none.
    Draining,
    /// Nothing is on it, and it takes no VMs.
    Maintenance,
    /// What it reports makes no sense: it takes no new VMs until it does.
    Doubted,
    /// Its agent has been silent for longer than the grace time.
    Unknown,
}

impl HostState {
    pub const ALL: [Self; 6] = [
        Self::Enabled,
        Self::Cordoned,
        Self::Draining,
        Self::Maintenance,
        Self::Doubted,
        Self::Unknown,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Cordoned => "Cordoned",
            Self::Draining => "Draining",
            Self::Maintenance => "Maintenance",
            Self::Doubted => "Doubted",
            Self::Unknown => "Unknown",
        }
    }

    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Doubted => "doubted",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a connected host in this state takes VMs.
    ///
    /// # Errors
    /// What it does instead: the host is the subject ("host `b` is cordoned").
    pub const fn takes_vms(self) -> Result<(), &'static str> {
        match self {
            Self::Enabled => Ok(()),
            Self::Cordoned => Err("is cordoned"),
            Self::Draining => Err("drains"),
            Self::Maintenance => Err("is in maintenance"),
            Self::Doubted | Self::Unknown => Err("takes no VMs now"),
        }
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is wanted of a host. It outlasts the host's silence and doubt, and is
/// its state whenever neither hides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    #[default]
    Enabled,
    Cordoned,
    Draining,
    /// Draining is through.
    Maintenance,
}

impl DesiredState {
    /// The state of a host that answers and makes sense.
    #[must_use]
    pub const fn state(self) -> HostState {
        match self {
            Self::Enabled => HostState::Enabled,
            Self::Cordoned => HostState::Cordoned,
            Self::Draining => HostState::Draining,
            Self::Maintenance => HostState::Maintenance,
        }
    }

    #[must_use]
    pub const fn slug(self) -> &'static str {
        self.state().slug()
    }
}

/// How a host runs guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// On the processor, by the Linux kernel.
    Kvm,
    /// Translated in software; works everywhere, slowly.
    Tcg,
    /// No guest code runs at all.
    Simulated,
    /// One that this build has no word for.
    #[serde(other)]
    Other,
}

impl Accelerator {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
            Self::Simulated => "simulated",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What machines of a host see of it: with its memory, one goes only to a host where
/// it sees the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hardware {
    /// With its version: "pc-q35-7.2".
    pub machine_type: String,
    /// "Westmere-v1".
    pub cpu_model: String,
    /// A machine can come from another host, or go there, while it runs.
    pub live_migration: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostView {
    pub id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub state: HostState,
    /// What its state is, or will be, when it answers and makes sense.
    #[serde(default)]
    pub desired: DesiredState,
    /// Its agent is connected right now.
    pub connected: bool,
    /// The hypervisor and its version: "QEMU 10.0.2".
    pub hypervisor: String,
    pub accelerator: Accelerator,
    /// How the accelerator was chosen: "KVM was probed and ran no kernel within 5 s".
    pub accelerator_note: String,
    /// What the host has to give to VMs.
    pub capacity: Resources,
    /// What is claimed of it.
    pub used: Resources,
    /// Where it keeps disks besides its own directory.
    #[serde(default)]
    pub datastores: Vec<HostDatastoreView>,
    /// VMs that hold a claim on it.
    pub vms: u32,
    pub agent_version: String,
    /// Running machines can get more vCPUs or memory.
    pub hot_resize: bool,
    /// Absent where its agent has not told.
    #[serde(default)]
    pub hardware: Option<Hardware>,
    pub connected_since: Option<Timestamp>,
    /// Until when its certificate is good; absent before it has joined.
    pub certificate_expires_at: Option<Timestamp>,
    /// Its certificate is no longer accepted.
    pub revoked: bool,
    /// Machines it holds that are not recorded there.
    pub orphans: u32,
}

/// A place for disks that a host has besides its own directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostDatastoreView {
    pub name: DatastoreName,
    /// Of the directory: two hosts that reach the same one say the same.
    pub id: DatastoreId,
    pub capacity_mib: MiB,
    /// What disks claim of it, of all hosts that reach it.
    pub used_mib: MiB,
    /// Its host can reach it.
    pub present: bool,
}

/// A machine a host holds that is not recorded there. It is left alone until
/// someone has it removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrphanView {
    pub host_id: HostId,
    pub vm_id: VmId,
    pub run_epoch: u64,
    /// What the host says of it: "running", "off".
    pub power: String,
    pub first_seen_at: Timestamp,
    /// Someone asked for its removal.
    pub discarding: bool,
}

/// A fresh permission for one host to join; its text is shown this once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinTokenView {
    pub token: String,
    /// The name the host must have; any where absent.
    pub host_name: Option<HostName>,
    pub expires_at: Timestamp,
}

/// The form that asks for a permission to join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateJoinToken {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// How long it is good for, in seconds; an hour where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}
