//! A machine with an agent.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{HostName, ZoneName};
use crate::unit::Resources;
use crate::{HostId, Timestamp};

/// What a host may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Takes new VMs.
    Enabled,
    /// Its agent has been silent for longer than the grace time.
    Unknown,
}

impl HostState {
    pub const ALL: [Self; 2] = [Self::Enabled, Self::Unknown];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Unknown => "Unknown",
        }
    }

    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
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
}

impl Accelerator {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
            Self::Simulated => "simulated",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostView {
    pub id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub state: HostState,
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
    /// VMs that hold a claim on it.
    pub vms: u32,
    pub agent_version: String,
    pub connected_since: Option<Timestamp>,
}
