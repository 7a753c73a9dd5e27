//! A user-visible piece of work with steps.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{OperationId, Timestamp, VmId};

/// What an operation sets out to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// From the request to a running VM.
    Create,
    /// The guest switches itself off, then everything is given back.
    Shutdown,
    /// Stopped at once, then everything is given back.
    Delete,
}

/// One step of an operation; each is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A scheduler finds a host and the room is claimed.
    Place,
    /// The host fetches the image, makes the disk and the seed.
    Prepare,
    /// The hypervisor starts the machine.
    Boot,
    /// The guest is asked to switch itself off.
    Shutdown,
    /// The machine is stopped at once.
    Kill,
    /// The host removes the machine's files.
    Clean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    Running,
    Succeeded,
    Failed,
    /// Overtaken by a later operation, such as a delete.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Waiting,
    Running,
    Done,
    Failed,
    /// Never begun, since the operation ended before.
    Skipped,
}

impl OperationKind {
    pub const ALL: [Self; 3] = [Self::Create, Self::Shutdown, Self::Delete];

    /// The steps in their order.
    #[must_use]
    pub const fn steps(self) -> &'static [StepKind] {
        match self {
            Self::Create => &[StepKind::Place, StepKind::Prepare, StepKind::Boot],
            Self::Shutdown => &[StepKind::Shutdown, StepKind::Clean],
            Self::Delete => &[StepKind::Kill, StepKind::Clean],
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Shutdown => "shutdown",
            Self::Delete => "delete",
        }
    }
}

impl StepKind {
    /// What the step does, as people read it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Place => "Find a host",
            Self::Prepare => "Prepare disk and seed",
            Self::Boot => "Start the machine",
            Self::Shutdown => "Switch off the guest",
            Self::Kill => "Stop the machine",
            Self::Clean => "Remove its files",
        }
    }
}

impl OperationState {
    pub const ALL: [Self; 4] = [
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationView {
    pub id: OperationId,
    pub vm_id: VmId,
    pub kind: OperationKind,
    pub state: OperationState,
    pub steps: Vec<StepView>,
    /// Name of the user who asked.
    pub requested_by: String,
    /// Why it failed, in the user's words.
    pub error: Option<String>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepView {
    pub kind: StepKind,
    pub state: StepState,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}
