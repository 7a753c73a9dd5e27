//! The phases of a migration: what people follow, where its steps are what hosts
//! are asked for.

use std::fmt;

use super::CopyPhase;
use crate::operation::{OperationKind, OperationState, OperationView, StepKind, StepState};

/// In their order. A mode has those that its steps are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It is decided where it goes, and whether it can.
    Plan,
    /// The room there is claimed.
    Reserve,
    /// The other host makes place, and waits.
    Prepare,
    /// What is on its disks and in its memory is copied.
    Copy,
    /// The guest stands still while the rest is copied.
    Switchover,
    /// It runs on the other host.
    Confirm,
    /// What it left is removed.
    CleanUp,
}

impl Phase {
    pub const ALL: [Self; 7] = [
        Self::Plan,
        Self::Reserve,
        Self::Prepare,
        Self::Copy,
        Self::Switchover,
        Self::Confirm,
        Self::CleanUp,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plan => "Plan",
            Self::Reserve => "Reserve",
            Self::Prepare => "Prepare",
            Self::Copy => "Copy",
            Self::Switchover => "Switchover",
            Self::Confirm => "Confirm",
            Self::CleanUp => "Clean up",
        }
    }

    /// What a step of a migration is for; of [`StepKind::Send`], what comes
    /// before the switchover. Nothing for the steps that no migration has.
    const fn of(step: StepKind) -> Option<Self> {
        use StepKind as S;
        match step {
            S::Receive => Some(Self::Prepare),
            S::Send | S::Upload | S::Arrive | S::Move => Some(Self::Copy),
            S::Switch => Some(Self::Switchover),
            S::Run | S::Complete => Some(Self::Confirm),
            S::Leave | S::Discard => Some(Self::CleanUp),
            S::Place
            | S::Prepare
            | S::Boot
            | S::Shutdown
            | S::Kill
            | S::Clean
            | S::Save
            | S::Load
            | S::Download
            | S::GiveBack
            | S::Reboot
            | S::Reset
            | S::Resize
            | S::Snapshot
            | S::Revert
            | S::RemoveSnapshot
            | S::Backup
            | S::DropBackup
            | S::Attach
            | S::Detach
            | S::Grow
            | S::MoveBack
            | S::Dismiss
            | S::CallOff
            | S::Fetch
            | S::Enter => None,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How far a migration is, phase by phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// Those that it has, in their order.
    pub phases: Vec<(Phase, StepState)>,
    /// Where it broke off: it failed there, or was cancelled.
    pub broke_in: Option<Phase>,
}

impl Course {
    /// Nothing of an operation that is no migration. That of volumes to another
    /// datastore is one as well.
    #[must_use]
    pub fn of(operation: &OperationView) -> Option<Self> {
        let moves = matches!(operation.kind, OperationKind::Migrate | OperationKind::Move);
        if !moves || operation.migration.is_none() {
            return None;
        }
        let stands_still = operation
            .progress
            .and_then(|progress| progress.copy)
            .is_some_and(|copy| copy.phase == CopyPhase::Switchover);
        // Both were done by the transaction that accepted it.
        let mut phases = vec![
            (Phase::Plan, StepState::Done),
            (Phase::Reserve, StepState::Done),
        ];
        let mut furthest = None;
        for step in &operation.steps {
            let Some(phase) = Phase::of(step.kind) else {
                continue;
            };
            let mut last = phase;
            if step.kind == StepKind::Send {
                let (copy, switchover) = of_send(step.state, stands_still);
                enter(&mut phases, phase, copy);
                enter(&mut phases, Phase::Switchover, switchover);
                if stands_still || step.state == StepState::Done {
                    last = Phase::Switchover;
                }
            } else {
                enter(&mut phases, phase, step.state);
            }
            if step.started_at.is_some() {
                furthest = furthest.max(Some(last));
            }
        }
        phases.sort_by_key(|(phase, _)| *phase);
        // What goes on after a failure only tidies up; on the way back, what
        // fails is not what it broke off in.
        let goes_back = |state| matches!(state, StepState::Undoing | StepState::Undone);
        let failed = |(_, state): &&(Phase, StepState)| *state == StepState::Failed;
        let failed = if phases.iter().any(|(_, state)| goes_back(*state)) {
            None
        } else {
            phases.iter().find(failed).map(|(phase, _)| *phase)
        };
        give_back(&mut phases, operation.state);
        Some(Self {
            phases,
            broke_in: failed.or(furthest).filter(|_| broke_off(operation.state)),
        })
    }

    /// The phase under way, forward or back.
    #[must_use]
    pub fn current(&self) -> Option<Phase> {
        let mut phases = self.phases.iter().rev();
        let found =
            phases.find(|(_, state)| matches!(state, StepState::Running | StepState::Undoing));
        found.map(|(phase, _)| *phase)
    }
}

/// How copy and switchover are while the step that does both is so.
const fn of_send(step: StepState, stands_still: bool) -> (StepState, StepState) {
    use StepState as S;
    match (step, stands_still) {
        (S::Waiting | S::Done | S::Skipped, _) => (step, step),
        (S::Running, true) => (S::Done, S::Running),
        (S::Running, false) => (S::Running, S::Waiting),
        (S::Failed, true) => (S::Done, S::Failed),
        (S::Undoing | S::Undone, true) => (step, step),
        (S::Failed | S::Undoing | S::Undone, false) => (step, S::Skipped),
    }
}

fn enter(phases: &mut Vec<(Phase, StepState)>, phase: Phase, state: StepState) {
    match phases.iter_mut().find(|(known, _)| *known == phase) {
        Some((_, before)) => *before = joined(*before, state),
        None => phases.push((phase, state)),
    }
}

/// How a phase is whose steps, one after the other, are so.
fn joined(first: StepState, then: StepState) -> StepState {
    use StepState as S;
    let either = |state: S| first == state || then == state;
    // What stands out most comes first.
    let standing_out = [S::Failed, S::Undoing, S::Running, S::Undone, S::Skipped];
    if let Some(state) = standing_out.into_iter().find(|state| either(*state)) {
        return state;
    }
    match (either(S::Waiting), either(S::Done)) {
        // Between the two.
        (true, true) => S::Running,
        (true, false) => S::Waiting,
        (false, _) => S::Done,
    }
}

/// The claim goes with what was made of it.
fn give_back(phases: &mut [(Phase, StepState)], operation: OperationState) {
    let undone = |(_, state): &(Phase, StepState)| *state == StepState::Undone;
    if !operation.is_over() || !phases.iter().any(undone) {
        return;
    }
    for (phase, state) in phases {
        if *phase == Phase::Reserve {
            *state = StepState::Undone;
        }
    }
}

const fn broke_off(operation: OperationState) -> bool {
    match operation {
        OperationState::Undoing | OperationState::Failed | OperationState::Cancelled => true,
        OperationState::Running | OperationState::Succeeded => false,
    }
}

#[cfg(test)]
mod tests;
