//! The one table that says which action is accepted in which state, and the
//! sentence that refuses it elsewhere. Engine, REST, CLI and the portal's
//! buttons and tooltips all read it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::operation::OperationKind;
use crate::state::VmState;

/// Something a person can ask of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VmAction {
    /// Keep a pending VM from being placed.
    Hold,
    /// Let a held VM be placed.
    Release,
    /// Save the memory on the host and give vCPUs and memory back.
    Suspend,
    /// Save memory and disk to the datastore and give the host back.
    Stop,
    /// Let a suspended or stopped VM run on from where it was.
    Resume,
    /// Switch the guest off; its disk stays.
    #[serde(rename = "poweroff")]
    PowerOff,
    /// Switch a powered-off VM on.
    Start,
    /// Ask the guest to restart.
    Reboot,
    /// Restart at once, as by the reset button.
    Reset,
    /// Change vCPUs, memory and disk.
    Resize,
    /// Keep its disks, and its memory where asked for, as they are.
    Snapshot,
    /// Go back to a snapshot.
    Revert,
    /// Let go of a snapshot.
    RemoveSnapshot,
    /// Copy its disks to a datastore.
    Backup,
    /// Give it a volume.
    Attach,
    /// Take a volume from it.
    Detach,
    /// Make one of its volumes larger.
    Grow,
    /// Bring its disks, or one of its volumes, to another datastore.
    Move,
    /// Bring it to another host.
    Migrate,
    /// Try again what failed.
    Retry,
    /// Ask the guest to switch itself off, then give everything back.
    Shutdown,
    /// Stop at once and give everything back.
    Delete,
    /// Open the serial console.
    Console,
}

impl VmAction {
    pub const ALL: [Self; 23] = [
        Self::Hold,
        Self::Release,
        Self::Suspend,
        Self::Stop,
        Self::Resume,
        Self::PowerOff,
        Self::Start,
        Self::Reboot,
        Self::Reset,
        Self::Resize,
        Self::Snapshot,
        Self::Revert,
        Self::RemoveSnapshot,
        Self::Backup,
        Self::Attach,
        Self::Detach,
        Self::Grow,
        Self::Move,
        Self::Migrate,
        Self::Retry,
        Self::Shutdown,
        Self::Delete,
        Self::Console,
    ];

    /// The name on the wire, in the CLI and in routes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
            Self::Resume => "resume",
            Self::PowerOff => "poweroff",
            Self::Start => "start",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Resize => "resize",
            Self::Snapshot => "snapshot",
            Self::Revert => "revert",
            Self::RemoveSnapshot => "remove-snapshot",
            Self::Backup => "backup",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Grow => "grow",
            Self::Move => "move",
            Self::Migrate => "migrate",
            Self::Retry => "retry",
            Self::Shutdown => "shutdown",
            Self::Delete => "delete",
            Self::Console => "console",
        }
    }

    /// What a button says.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Hold => "Hold",
            Self::Release => "Release",
            Self::Suspend => "Suspend",
            Self::Stop => "Stop",
            Self::Resume => "Resume",
            Self::PowerOff => "Power off",
            Self::Start => "Start",
            Self::Reboot => "Reboot",
            Self::Reset => "Reset",
            Self::Resize => "Resize",
            Self::Snapshot => "Take a snapshot",
            Self::Revert => "Go back",
            Self::RemoveSnapshot => "Delete snapshot",
            Self::Backup => "Back up",
            Self::Attach => "Attach a volume",
            Self::Detach => "Detach",
            Self::Grow => "Make larger",
            Self::Move => "Move",
            Self::Migrate => "Migrate",
            Self::Retry => "Retry",
            Self::Shutdown => "Shut down",
            Self::Delete => "Delete",
            Self::Console => "Console",
        }
    }

    /// One sentence for a person who has not used the action yet.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Hold => "keep it from being placed",
            Self::Release => "let it be placed",
            Self::Suspend => "save the memory on the host; vCPUs and memory are given back",
            Self::Stop => "save memory and disk to the datastore; the host is given back",
            Self::Resume => "let it run on from where it was",
            Self::PowerOff => "switch the guest off; its disk stays",
            Self::Start => "switch it on",
            Self::Reboot => "ask the guest to restart",
            Self::Reset => "restart at once, as by the reset button",
            Self::Resize => "change vCPUs, memory and disk",
            Self::Snapshot => "keep its disks, and its memory where asked for, as they are now",
            Self::Revert => "put its disks back to what they were; what came later is lost",
            Self::RemoveSnapshot => "let go of a snapshot; the VM stays as it is",
            Self::Backup => "copy its disks to a datastore; it runs on meanwhile",
            Self::Attach => "give it a volume",
            Self::Detach => "take a volume from it; the volume stays",
            Self::Grow => "make one of its volumes larger",
            Self::Move => {
                "bring its disks, or one of its volumes, to another datastore; it runs on meanwhile"
            }
            Self::Migrate => "bring it to another host; one that runs goes on running",
            Self::Retry => "try again what failed",
            Self::Shutdown => "switch the guest off and give everything back",
            Self::Delete => "stop it at once and give everything back",
            Self::Console => "open the serial console",
        }
    }

    /// Whether the VM's data is gone afterwards, so that people are asked twice.
    #[must_use]
    pub const fn is_destructive(self) -> bool {
        matches!(self, Self::Shutdown | Self::Delete | Self::Revert)
    }

    /// Whether the action is accepted in `state` beside the operation in
    /// flight, if there is one.
    ///
    /// # Errors
    /// The sentence that refuses it, beginning with a verb: the VM is its
    /// subject ("`web-1` is already held").
    pub const fn accept(
        self,
        state: VmState,
        in_flight: Option<OperationKind>,
    ) -> Result<(), Refusal> {
        // A held VM waits for a person; nothing comes of waiting for it.
        if let Some(kind) = in_flight
            && !matches!(state, VmState::Hold)
            && let Err(refusal) = self.judge_beside(kind)
        {
            return Err(refusal);
        }
        self.judge(state)
    }

    /// Whether the action is accepted in `state`, nothing being in flight.
    ///
    /// # Errors
    /// The sentence that refuses it.
    pub const fn judge(self, state: VmState) -> Result<(), Refusal> {
        let refusal = match self {
            Self::Hold => hold(state),
            Self::Release => release(state),
            Self::Suspend => suspend(state),
            Self::Stop => stop(state),
            Self::Resume => resume(state),
            Self::PowerOff => power_off(state),
            Self::Start => start(state),
            Self::Reboot | Self::Reset => restart(state),
            Self::Resize => resize(state),
            Self::Snapshot
            | Self::Revert
            | Self::RemoveSnapshot
            | Self::Backup
            | Self::Attach
            | Self::Detach
            | Self::Grow
            | Self::Move => disks(state),
            Self::Migrate => migrate(state),
            Self::Retry => retry(state),
            Self::Shutdown => shutdown(state),
            Self::Delete => delete(state),
            Self::Console => console(state),
        };
        match refusal {
            None => Ok(()),
            Some(sentence) => Err(Refusal(sentence)),
        }
    }

    /// Whether the action is accepted while an operation of `kind` is in
    /// flight, the state aside.
    ///
    /// # Errors
    /// The sentence that refuses it.
    pub const fn judge_beside(self, kind: OperationKind) -> Result<(), Refusal> {
        match self {
            // Looking changes nothing; a deletion overtakes everything.
            Self::Console | Self::Delete => return Ok(()),
            Self::Hold | Self::Release => match kind {
                // These wait for a host as long as they have none.
                OperationKind::Create | OperationKind::Resume => return Ok(()),
                OperationKind::Start
                | OperationKind::Suspend
                | OperationKind::Stop
                | OperationKind::PowerOff
                | OperationKind::Reboot
                | OperationKind::Reset
                | OperationKind::Resize
                | OperationKind::Shutdown
                | OperationKind::Delete
                | OperationKind::Snapshot
                | OperationKind::Revert
                | OperationKind::RemoveSnapshot
                | OperationKind::Backup
                | OperationKind::Attach
                | OperationKind::Detach
                | OperationKind::Grow
                | OperationKind::Move
                | OperationKind::Migrate
                | OperationKind::Import
                | OperationKind::Refresh => {}
            },
            Self::Suspend
            | Self::Stop
            | Self::Resume
            | Self::PowerOff
            | Self::Start
            | Self::Reboot
            | Self::Reset
            | Self::Resize
            | Self::Snapshot
            | Self::Revert
            | Self::RemoveSnapshot
            | Self::Backup
            | Self::Attach
            | Self::Detach
            | Self::Grow
            | Self::Move
            | Self::Migrate
            | Self::Retry
            | Self::Shutdown => {}
        }
        Err(Refusal(match kind {
            OperationKind::Create => "is still being created; wait for it, or cancel it",
            OperationKind::Start => "is being started; wait for it, or cancel it",
            OperationKind::Suspend => "is being suspended; wait for it, or cancel it",
            OperationKind::Resume => "is being resumed; wait for it",
            OperationKind::Stop => "is being stopped; wait for it, or cancel it",
            OperationKind::PowerOff => "is being switched off; wait for it",
            OperationKind::Reboot => "is being rebooted; wait for it",
            OperationKind::Reset => "is being reset; wait for it",
            OperationKind::Resize => "is being resized; wait for it",
            OperationKind::Shutdown => "is already shutting down",
            OperationKind::Delete => "is already being removed",
            OperationKind::Snapshot => "has a snapshot taken of it; wait for it, or cancel it",
            OperationKind::Revert => "is going back to a snapshot; wait for it",
            OperationKind::RemoveSnapshot => "has a snapshot deleted; wait for it",
            OperationKind::Backup => "is being backed up; wait for it, or cancel it",
            OperationKind::Attach => "is being given a volume; wait for it, or cancel it",
            OperationKind::Detach => "has a volume taken from it; wait for it",
            OperationKind::Grow => "has a volume made larger; wait for it",
            OperationKind::Move => "has a disk moved; wait for it, or cancel it",
            OperationKind::Migrate => "is moving to another host; wait for it, or cancel it",
            OperationKind::Import | OperationKind::Refresh => "is being imported; wait for it",
        }))
    }
}

const STARTING: &str = "is still starting; wait until it runs";
const MOVING: &str = "is moving; wait until it has arrived";
const UNREACHABLE: &str = "cannot be reached: its host is silent";
const SWITCHING_OFF: &str = "is already shutting down";
const REMOVED: &str = "is already being removed";
const DONE: &str = "is done";

const fn hold(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Pending => None,
        S::Hold => Some("is already held"),
        S::Stopped => Some("has no host and waits for none; resume it instead"),
        S::Done => Some(DONE),
        S::Prolog
        | S::Boot
        | S::Running
        | S::Migrate
        | S::Suspended
        | S::PoweredOff
        | S::Shutdown
        | S::Epilog
        | S::Unknown
        | S::Failed => Some("already has a host; only a pending machine can be held"),
    }
}

const fn release(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Hold => None,
        S::Done => Some(DONE),
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
        | S::Failed => Some("is not held"),
    }
}

const fn suspend(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Running => None,
        S::Suspended => Some("is already suspended"),
        S::Stopped => Some("is already stopped"),
        S::PoweredOff => Some("is off; there is no memory to save"),
        S::Pending | S::Hold => Some("has not started"),
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some(SWITCHING_OFF),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry or delete it"),
    }
}

const fn stop(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Running | S::Suspended => None,
        S::Stopped => Some("is already stopped"),
        S::PoweredOff => Some("is off; start it first"),
        S::Pending | S::Hold => Some("has not started"),
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some(SWITCHING_OFF),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry or delete it"),
    }
}

const fn resume(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Suspended | S::Stopped => None,
        S::Running => Some("runs already"),
        S::PoweredOff => Some("is off; start it instead"),
        S::Pending => Some("is already waiting for a host"),
        S::Hold => Some("is held; release it instead"),
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some(SWITCHING_OFF),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry it instead"),
    }
}

const fn power_off(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Running => None,
        S::PoweredOff => Some("is already off"),
        S::Suspended | S::Stopped => Some("does not run; resume it first"),
        S::Pending | S::Hold => Some("has not started"),
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some(SWITCHING_OFF),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry or delete it"),
    }
}

const fn start(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::PoweredOff => None,
        S::Running => Some("runs already"),
        S::Suspended | S::Stopped => Some("has its memory saved; resume it instead"),
        S::Pending => Some("is already waiting for a host"),
        S::Hold => Some("is held; release it instead"),
        S::Prolog | S::Boot => Some("is already starting"),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some("is shutting down"),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry it instead"),
    }
}

const fn restart(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Running => None,
        S::PoweredOff => Some("is off; start it instead"),
        S::Suspended | S::Stopped => Some("does not run; resume it first"),
        S::Pending | S::Hold => Some("has not started"),
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some("is shutting down"),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry it instead"),
    }
}

const fn resize(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        // A running machine only where its host can; the engine asks.
        S::Running | S::PoweredOff => None,
        S::Pending | S::Hold => Some("has not started; delete it and ask for another size"),
        S::Suspended | S::Stopped => {
            Some("has its memory saved, which fixes its size; resume it first")
        }
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some("is shutting down"),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry or delete it"),
    }
}

/// Of its disks, which must be on a host and at hand there.
const fn disks(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Running | S::PoweredOff => None,
        S::Suspended | S::Stopped => {
            Some("has its memory saved, which fixes its disks; resume it first")
        }
        S::Pending | S::Hold => Some("has not started"),
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some(MOVING),
        S::Shutdown => Some("is shutting down"),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry or delete it"),
    }
}

const fn migrate(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        // Live or cold, as its state is.
        S::Running | S::PoweredOff | S::Suspended | S::Stopped => None,
        S::Pending | S::Hold => Some("has not started"),
        S::Prolog | S::Boot => Some(STARTING),
        S::Migrate => Some("is moving already"),
        S::Shutdown => Some(SWITCHING_OFF),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; retry or delete it"),
    }
}

const fn retry(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Failed => None,
        S::Done => Some(DONE),
        S::Pending
        | S::Hold
        | S::Prolog
        | S::Boot
        | S::Running
        | S::Migrate
        | S::Suspended
        | S::Stopped
        | S::PoweredOff
        | S::Shutdown
        | S::Epilog
        | S::Unknown => Some("has not failed"),
    }
}

const fn shutdown(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Running => None,
        S::Pending | S::Hold => Some("has not started; delete it instead"),
        S::Prolog | S::Boot => Some("is still starting; wait for it, or delete it"),
        S::Migrate => Some(MOVING),
        S::Suspended | S::Stopped | S::PoweredOff => Some("does not run; delete it instead"),
        S::Shutdown => Some(SWITCHING_OFF),
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed; delete it instead"),
    }
}

const fn delete(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Pending
        | S::Hold
        | S::Prolog
        | S::Boot
        | S::Running
        | S::Migrate
        | S::Suspended
        | S::Stopped
        | S::PoweredOff
        | S::Shutdown
        | S::Unknown
        | S::Failed => None,
        S::Epilog => Some(REMOVED),
        S::Done => Some(DONE),
    }
}

const fn console(state: VmState) -> Option<&'static str> {
    use VmState as S;
    match state {
        S::Running | S::Boot | S::Shutdown => None,
        S::Pending | S::Hold | S::Prolog => Some("has not started yet"),
        S::Migrate => Some(MOVING),
        S::Suspended | S::Stopped | S::PoweredOff => Some("does not run"),
        S::Epilog | S::Done => Some("no longer runs"),
        S::Unknown => Some(UNREACHABLE),
        S::Failed => Some("has failed"),
    }
}

impl fmt::Display for VmAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such action: one of {}", VmAction::ALL.map(VmAction::name).join(", "))]
pub struct InvalidAction;

impl FromStr for VmAction {
    type Err = InvalidAction;

    fn from_str(text: &str) -> Result<Self, InvalidAction> {
        Self::ALL
            .into_iter()
            .find(|action| action.name() == text)
            .ok_or(InvalidAction)
    }
}

/// Why the table refuses an action; a verb phrase about the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(judged: Result<(), Refusal>) -> String {
        match judged {
            Ok(()) => "accepted".to_owned(),
            Err(refusal) => format!("refused: the VM {refusal}"),
        }
    }

    #[test]
    fn every_state_and_action_has_its_answer() {
        let mut table = String::new();
        for action in VmAction::ALL {
            for state in VmState::ALL {
                let answer = answer(action.judge(state));
                table.push_str(&format!("{action:<15} {state:<11} {answer}\n"));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn every_action_has_its_answer_beside_every_operation() {
        let mut table = String::new();
        for action in VmAction::ALL {
            for kind in OperationKind::ALL {
                let answer = answer(action.judge_beside(kind));
                table.push_str(&format!("{action:<15} beside {kind:<15} {answer}\n"));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn nobody_is_told_to_wait_for_a_held_vm() {
        for kind in [OperationKind::Create, OperationKind::Resume] {
            for action in VmAction::ALL {
                let beside = action.accept(VmState::Hold, Some(kind));
                assert_eq!(
                    beside,
                    action.judge(VmState::Hold),
                    "{action} beside {kind}"
                );
            }
        }
    }

    #[test]
    fn every_action_is_called_what_the_wire_calls_it() {
        for action in VmAction::ALL {
            let name = action.name();
            assert_eq!(name.parse(), Ok(action));
            let wire = serde_json::to_string(&action).unwrap();
            assert_eq!(wire, format!("\"{name}\""));
        }
    }
}
