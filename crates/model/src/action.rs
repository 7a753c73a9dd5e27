//! The one table that says which action is accepted in which state, and the
//! sentence that refuses it elsewhere. Engine, REST, CLI and the portal's
//! buttons and tooltips all read it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::VmState;

/// Something a person can ask of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum VmAction {
    /// Keep a pending VM from being placed.
    Hold,
    /// Let a held VM be placed.
    Release,
    /// Ask the guest to switch itself off, then give everything back.
    Shutdown,
    /// Stop at once and give everything back.
    Delete,
    /// Open the serial console.
    Console,
}

impl VmAction {
    pub const ALL: [Self; 5] = [
        Self::Hold,
        Self::Release,
        Self::Shutdown,
        Self::Delete,
        Self::Console,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Shutdown => "shutdown",
            Self::Delete => "delete",
            Self::Console => "console",
        }
    }

    /// Whether the action is accepted in `state`.
    ///
    /// # Errors
    /// The sentence that refuses it, beginning with a verb: the VM is its
    /// subject ("`web-1` is already held").
    pub const fn judge(self, state: VmState) -> Result<(), Refusal> {
        use VmState as S;
        let refusal = match self {
            Self::Hold => match state {
                S::Pending => return Ok(()),
                S::Hold => "is already held",
                S::Done => "is done",
                S::Prolog
                | S::Boot
                | S::Running
                | S::Migrate
                | S::Suspended
                | S::Stopped
                | S::PoweredOff
                | S::Shutdown
                | S::Epilog
                | S::Unknown
                | S::Failed => "already has a host; only a pending machine can be held",
            },
            Self::Release => match state {
                S::Hold => return Ok(()),
                S::Done => "is done",
                S::Pending
                | S::Prolog
                | S::Boot
                | S::Running
                | S::Migrate
                | S::Suspended
                | S::Stopped
                | S::PoweredOff
                | S::Shutdown
                | S::Epilog
                | S::Unknown
                | S::Failed => "is not held",
            },
            Self::Shutdown => match state {
                S::Running => return Ok(()),
                S::Pending | S::Hold => "has not started; delete it instead",
                S::Prolog | S::Boot => "is still starting; wait for it, or delete it",
                S::Migrate => "is moving; wait until it has arrived",
                S::Suspended | S::Stopped | S::PoweredOff => "does not run; delete it instead",
                S::Shutdown => "is already shutting down",
                S::Epilog => "is already being removed",
                S::Done => "is done",
                S::Unknown => "cannot be reached: its host is silent",
                S::Failed => "has failed; delete it instead",
            },
            Self::Delete => match state {
                S::Pending
                | S::Hold
                | S::Prolog
                | S::Boot
                | S::Running
                | S::PoweredOff
                | S::Shutdown
                | S::Unknown
                | S::Failed => return Ok(()),
                S::Migrate => "is moving; wait until it has arrived",
                S::Suspended | S::Stopped => "is saved; resume it first",
                S::Epilog => "is already being removed",
                S::Done => "is done",
            },
            Self::Console => match state {
                S::Running | S::Boot | S::Shutdown => return Ok(()),
                S::Pending | S::Hold | S::Prolog => "has not started yet",
                S::Migrate => "is moving; wait until it has arrived",
                S::Suspended | S::Stopped | S::PoweredOff => "does not run",
                S::Epilog | S::Done => "no longer runs",
                S::Unknown => "cannot be reached: its host is silent",
                S::Failed => "has failed",
            },
        };
        Err(Refusal(refusal))
    }
}

impl fmt::Display for VmAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why the table refuses an action; a verb phrase about the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_action_has_its_answer() {
        let mut table = String::new();
        for action in VmAction::ALL {
            for state in VmState::ALL {
                let answer = match action.judge(state) {
                    Ok(()) => "accepted".to_owned(),
                    Err(refusal) => format!("refused: the VM {refusal}"),
                };
                table.push_str(&format!("{action:<9} {state:<11} {answer}\n"));
            }
        }
        insta::assert_snapshot!(table);
    }
}
