//! Facts that happened, in one gapless sequence.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::HostView;
use crate::name::{HostName, UserName};
use crate::operation::{OperationKind, StepKind};
use crate::state::VmState;
use crate::vm::VmView;
use crate::{HostId, Timestamp, VmId};

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
    HostConnected,
    HostDisconnected,
    /// Its grace time is over: it counts as Unknown.
    HostSilent,
}

impl EventKind {
    /// What happened, for a timeline: begins with a capital, no period.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Requested {
                operation: OperationKind::Create,
            } => "Asked for the VM".to_owned(),
            Self::Requested {
                operation: OperationKind::Shutdown,
            } => "Asked to shut it down".to_owned(),
            Self::Requested {
                operation: OperationKind::Delete,
            } => "Asked to delete it".to_owned(),
            Self::State { from, to } => format!("{from} → {to}"),
            Self::Placed { host } => format!("Placed on {host}"),
            Self::NotPlaced { reason } => format!("No host yet: {reason}"),
            Self::Step { step } => format!("{}: done", step.title()),
            Self::Failed { during, reason } => format!("Failed during {during}: {reason}"),
            Self::Note { text } => text.clone(),
            Self::ConsoleOpened => "Opened the serial console".to_owned(),
            Self::HostConnected => "Host connected".to_owned(),
            Self::HostDisconnected => "Host disconnected".to_owned(),
            Self::HostSilent => "Host is silent".to_owned(),
        }
    }
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
}
