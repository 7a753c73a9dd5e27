//! The states of a VM's automatic life-cycle and the edges between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a VM is in its life. What is in flight is an Operation beside the
/// state, never a state of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Waits for the scheduler to find a host.
    Pending,
    /// Kept out of the scheduler's sight until released.
    Hold,
    /// The host prepares disks and configuration.
    Prolog,
    /// The hypervisor starts the machine.
    Boot,
    Running,
    /// Moves to another host.
    Migrate,
    /// Memory is saved on its host; capacity is given back.
    Suspended,
    /// Memory and disks are saved to the datastore; no host.
    Stopped,
    /// The guest is off, its disks stay.
    PoweredOff,
    /// The guest was asked to switch itself off.
    Shutdown,
    /// The host removes what the VM left.
    Epilog,
    /// Over; nothing is left but the record.
    Done,
    /// Its host is silent.
    Unknown,
    /// Something broke; see the failure beside it.
    Failed,
}

/// What a state means to someone who looks at a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing happens until somebody acts.
    Resting,
    /// Something is under way.
    Moving,
    Healthy,
    /// Wants attention.
    Troubled,
    Over,
}

impl VmState {
    pub const ALL: [Self; 14] = [
        Self::Pending,
        Self::Hold,
        Self::Prolog,
        Self::Boot,
        Self::Running,
        Self::Migrate,
        Self::Suspended,
        Self::Stopped,
        Self::PoweredOff,
        Self::Shutdown,
        Self::Epilog,
        Self::Done,
        Self::Unknown,
        Self::Failed,
    ];

    /// The name people see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Hold => "Hold",
            Self::Prolog => "Prolog",
            Self::Boot => "Boot",
            Self::Running => "Running",
            Self::Migrate => "Migrate",
            Self::Suspended => "Suspended",
            Self::Stopped => "Stopped",
            Self::PoweredOff => "PoweredOff",
            Self::Shutdown => "Shutdown",
            Self::Epilog => "Epilog",
            Self::Done => "Done",
            Self::Unknown => "Unknown",
            Self::Failed => "Failed",
        }
    }

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Hold => "hold",
            Self::Prolog => "prolog",
            Self::Boot => "boot",
            Self::Running => "running",
            Self::Migrate => "migrate",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
            Self::PoweredOff => "powered_off",
            Self::Shutdown => "shutdown",
            Self::Epilog => "epilog",
            Self::Done => "done",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }

    /// One sentence for a person who meets the state for the first time.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Pending => "waiting for the scheduler to find a host",
            Self::Hold => "kept back until someone releases it",
            Self::Prolog => "the host prepares the disk and the configuration",
            Self::Boot => "the hypervisor starts the machine",
            Self::Running => "the machine runs",
            Self::Migrate => "the machine moves to another host",
            Self::Suspended => "the memory is saved on the host",
            Self::Stopped => "memory and disks are saved to the datastore",
            Self::PoweredOff => "the guest is off, its disks stay",
            Self::Shutdown => "the guest was asked to switch itself off",
            Self::Epilog => "the host removes what the machine left",
            Self::Done => "over; only the record is left",
            Self::Unknown => "the host is silent; the machine may well run",
            Self::Failed => "something broke",
        }
    }

    #[must_use]
    pub const fn tone(self) -> Tone {
        match self {
            Self::Hold | Self::Suspended | Self::Stopped | Self::PoweredOff => Tone::Resting,
            Self::Pending
            | Self::Prolog
            | Self::Boot
            | Self::Migrate
            | Self::Shutdown
            | Self::Epilog => Tone::Moving,
            Self::Running => Tone::Healthy,
            Self::Unknown | Self::Failed => Tone::Troubled,
            Self::Done => Tone::Over,
        }
    }

    /// Nothing ever happens to the VM again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether the life-cycle has an edge from `self` to `next`.
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        EDGES.contains(&(self, next)) || TURNINGS.contains(&(self, next))
    }
}

/// The edges of the standard picture, in reading order; the portal draws these.
pub const EDGES: [(VmState, VmState); 15] = {
    use VmState::{
        Boot, Done, Epilog, Hold, Migrate, Pending, PoweredOff, Prolog, Running, Shutdown, Stopped,
        Suspended,
    };
    [
        (Pending, Prolog),
        (Prolog, Boot),
        (Boot, Running),
        (Running, Shutdown),
        (Shutdown, Epilog),
        (Epilog, Done),
        (Pending, Hold),
        (Hold, Pending),
        (Running, Migrate),
        (Migrate, Running),
        (Running, Suspended),
        (Suspended, Running),
        (Suspended, Stopped),
        (Stopped, Pending),
        (Running, PoweredOff),
    ]
};

/// Edges off the straight way: switched off and on again, taken back, deleted,
/// broken, silent.
pub const TURNINGS: [(VmState, VmState); 53] = {
    use VmState::{
        Boot, Done, Epilog, Failed, Hold, Migrate, Pending, PoweredOff, Prolog, Running, Shutdown,
        Stopped, Suspended, Unknown,
    };
    [
        // Switched off on request, and on again.
        (Shutdown, PoweredOff),
        (PoweredOff, Boot),
        // The guest switched itself off while it was being started.
        (Boot, PoweredOff),
        // Taken back: the operation failed or was cancelled, and is undone.
        (Prolog, Hold),
        (Boot, Hold),
        (Pending, Stopped),
        (Hold, Stopped),
        (Prolog, Stopped),
        (Boot, Stopped),
        // The guest was asked to switch itself off and the host gave up asking.
        (Shutdown, Running),
        // Deleted before it had a host.
        (Pending, Done),
        (Hold, Done),
        // Deleted at any later moment.
        (Pending, Epilog),
        (Hold, Epilog),
        (Prolog, Epilog),
        (Boot, Epilog),
        (Running, Epilog),
        (Migrate, Epilog),
        (Suspended, Epilog),
        (Stopped, Epilog),
        (PoweredOff, Epilog),
        (Unknown, Epilog),
        (Failed, Epilog),
        (Failed, Done),
        // Brought from the datastore to a host, where it is not resumed yet.
        (Stopped, Suspended),
        // Broke.
        (Prolog, Failed),
        (Boot, Failed),
        (Running, Failed),
        (Migrate, Failed),
        (Suspended, Failed),
        (Shutdown, Failed),
        (Epilog, Failed),
        (Unknown, Failed),
        (PoweredOff, Failed),
        // Tried again from where it broke.
        (Failed, Pending),
        (Failed, Boot),
        (Failed, Suspended),
        (Failed, Shutdown),
        (Failed, PoweredOff),
        // The host fell silent, and came back with what it found.
        (Prolog, Unknown),
        (Boot, Unknown),
        (Running, Unknown),
        (Migrate, Unknown),
        (Suspended, Unknown),
        (Shutdown, Unknown),
        (PoweredOff, Unknown),
        (Unknown, Prolog),
        (Unknown, Boot),
        (Unknown, Running),
        (Unknown, Migrate),
        (Unknown, Suspended),
        (Unknown, Shutdown),
        (Unknown, PoweredOff),
    ]
};

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such state: one of {}", VmState::ALL.map(VmState::slug).join(", "))]
pub struct InvalidState;

/// Takes the wire form and the shown form, in any case.
impl FromStr for VmState {
    type Err = InvalidState;

    fn from_str(text: &str) -> Result<Self, InvalidState> {
        let wanted = text.replace(['-', '_', ' '], "").to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|state| state.name().to_ascii_lowercase() == wanted)
            .ok_or(InvalidState)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_state_parses() {
        for state in VmState::ALL {
            assert_eq!(state.slug().parse(), Ok(state));
            assert_eq!(state.name().parse(), Ok(state));
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{}\"", state.slug())
            );
        }
        assert!("gone".parse::<VmState>().is_err());
    }

    #[test]
    fn every_state_can_be_left_until_done() {
        for state in VmState::ALL {
            let leaves = VmState::ALL.iter().any(|next| state.can_become(*next));
            assert_eq!(leaves, !state.is_final(), "{state}");
        }
    }

    #[test]
    fn no_edge_is_listed_twice() {
        let mut all: Vec<_> = EDGES.iter().chain(&TURNINGS).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
