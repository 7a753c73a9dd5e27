//! Why a VM was placed where it is, or why it still waits.

use serde::{Deserialize, Serialize};

use crate::{HostId, Timestamp};

/// Most host names kept per rejection; the count is always exact.
pub const MAX_NAMED_HOSTS: usize = 16;
/// Most scored hosts kept per explanation.
pub const MAX_SCORED_HOSTS: usize = 8;

/// A hard condition on hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The agent is connected.
    Connected,
    /// No administrator has cordoned the host.
    Cordoned,
    /// The host is not being drained.
    Draining,
    /// The host is not in maintenance.
    Maintenance,
    /// The host takes new VMs.
    Enabled,
    Vcpus,
    Memory,
    /// The host reaches the datastore that the disk is to be in.
    Datastore,
    Disk,
}

impl Filter {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Enabled => "enabled",
            Self::Vcpus => "vcpus",
            Self::Memory => "memory",
            Self::Datastore => "datastore",
            Self::Disk => "disk",
        }
    }
}

/// The hosts one filter removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rejection {
    pub filter: Filter,
    /// The condition and the best that was on offer:
    /// "needs 4 vCPUs; the roomiest host has 2 free".
    pub reason: String,
    /// Names of removed hosts, at most [`MAX_NAMED_HOSTS`].
    pub hosts: Vec<String>,
    /// How many hosts it removed in all.
    pub count: u32,
}

/// One host that passed all filters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Score {
    pub host_id: HostId,
    pub host: String,
    /// Higher is better; 0 to 1.
    pub score: f64,
}

/// How a placement was found, or why none was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// Hosts looked at.
    pub considered: u32,
    pub rejections: Vec<Rejection>,
    /// The best hosts, best first, at most [`MAX_SCORED_HOSTS`].
    pub scores: Vec<Score>,
}

/// Why a VM is still pending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PendingView {
    /// The whole reason in one sentence.
    pub message: String,
    /// The last look a scheduler took; none before the first.
    pub explanation: Option<Explanation>,
    pub explained_at: Option<Timestamp>,
}
