//! Server and scheduler.
//!
//! `GET /scheduler/v1/session` with `Authorization: Bearer` and the
//! schedulers' secret. The server sends a snapshot first, then every change.
//! A scheduler decides and never acts: the server checks each proposal inside
//! a transaction and may refuse it. Several schedulers may be connected.

use serde::{Deserialize, Serialize};
use vimana_model::host::HostState;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::pending::Explanation;
use vimana_model::unit::Resources;
use vimana_model::{HostId, Timestamp, VmId};

/// The version this build speaks.
pub const PROTOCOL_VERSION: u32 = 2;

/// Server to scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToScheduler {
    /// First frame; replaces all that was known.
    Snapshot {
        hosts: Vec<HostFacts>,
        pending: Vec<PendingVm>,
    },
    /// A host is new or looks different now.
    Host(HostFacts),
    /// A VM became pending, or is pending with other terms.
    Pending(PendingVm),
    /// A VM is no longer pending.
    Gone {
        vm_id: VmId,
    },
    /// Answer to one proposal.
    Verdict {
        vm_id: VmId,
        generation: u64,
        refused: Option<String>,
    },
    Heartbeat,
}

/// Scheduler to server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromScheduler {
    /// First frame.
    Hello {
        protocol: u32,
        name: String,
    },
    /// Put this VM there.
    Proposal {
        vm_id: VmId,
        generation: u64,
        host_id: HostId,
        explanation: Explanation,
    },
    /// No host takes this VM as things are.
    NoHost {
        vm_id: VmId,
        generation: u64,
        explanation: Explanation,
    },
    Heartbeat,
}

/// What a scheduler knows of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    pub id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub state: HostState,
    pub connected: bool,
    pub capacity: Resources,
    pub used: Resources,
}

/// What a scheduler knows of a VM that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingVm {
    pub id: VmId,
    /// The generation a proposal must name.
    pub generation: u64,
    pub resources: Resources,
    pub since: Timestamp,
}
