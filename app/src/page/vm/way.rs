//! The way of the operation in flight through the life-cycle.

use vimana_model::VmState;
use vimana_model::operation::{OperationKind, OperationState, OperationView, StepKind};
use vimana_model::vm::VmView;

/// Where the VM is being taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// From the state it is in; less than two where it stays there.
    pub states: Vec<VmState>,
    /// What was done is being taken back.
    pub back: bool,
}

/// The way that is left.
#[must_use]
pub fn way(vm: &VmView) -> Way {
    match &vm.operation {
        Some(operation) if operation.state == OperationState::Undoing => Way {
            states: back(vm.state, operation),
            back: true,
        },
        Some(operation) if operation.state == OperationState::Running => Way {
            states: ahead(vm.state, operation),
            back: false,
        },
        Some(_) | None => Way::default(),
    }
}

fn has(operation: &OperationView, step: StepKind) -> bool {
    operation.steps.iter().any(|other| other.kind == step)
}

fn ahead(now: VmState, operation: &OperationView) -> Vec<VmState> {
    use VmState::{
        Boot, Done, Epilog, Hold, Migrate, Pending, PoweredOff, Prolog, Running, Shutdown, Stopped,
        Suspended,
    };
    let whole: &[VmState] = match operation.kind {
        OperationKind::Create => &[Hold, Pending, Prolog, Boot, Running],
        OperationKind::Start => &[PoweredOff, Boot, Running],
        OperationKind::Suspend => &[Running, Suspended],
        OperationKind::Stop => &[Running, Suspended, Stopped],
        OperationKind::Resume if has(operation, StepKind::Place) => {
            &[Stopped, Pending, Prolog, Boot, Running]
        }
        OperationKind::Resume => &[Suspended, Running],
        OperationKind::PowerOff if has(operation, StepKind::Kill) => &[Running, PoweredOff],
        OperationKind::PowerOff => &[Running, Shutdown, PoweredOff],
        OperationKind::Shutdown => &[Running, Shutdown, Epilog, Done],
        OperationKind::Delete => &[now, Epilog, Done],
        OperationKind::Migrate => &[Running, Migrate, Running],
        OperationKind::Reboot
        | OperationKind::Reset
        | OperationKind::Resize
        | OperationKind::Snapshot
        | OperationKind::Revert
        | OperationKind::RemoveSnapshot
        | OperationKind::Backup
        | OperationKind::Attach
        | OperationKind::Detach
        | OperationKind::Grow
        | OperationKind::Move
        | OperationKind::Import
        | OperationKind::Refresh => &[],
    };
    let at = whole.iter().rposition(|state| *state == now);
    match (at, now) {
        (Some(at), _) => whole.iter().skip(at).copied().collect(),
        // Nobody knows how far it is.
        (None, VmState::Unknown) => Vec::new(),
        (None, _) => {
            let rest = whole.iter().skip(1).copied();
            std::iter::once(now).chain(rest).collect()
        }
    }
}

fn back(now: VmState, operation: &OperationView) -> Vec<VmState> {
    let origin = match operation.kind {
        // Cancelled it can be begun anew; failed it has nothing to go back to.
        OperationKind::Create if operation.error.is_some() => VmState::Failed,
        OperationKind::Create => VmState::Hold,
        OperationKind::Start => VmState::PoweredOff,
        OperationKind::Suspend => VmState::Running,
        OperationKind::Stop if has(operation, StepKind::Save) => VmState::Running,
        OperationKind::Stop => VmState::Suspended,
        OperationKind::Resume if has(operation, StepKind::Place) => VmState::Stopped,
        OperationKind::Resume => VmState::Suspended,
        OperationKind::Migrate => VmState::Running,
        OperationKind::PowerOff
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
        | OperationKind::Import
        | OperationKind::Refresh => now,
    };
    if origin == now {
        return Vec::new();
    }
    vec![now, origin]
}

#[cfg(test)]
mod tests {
    use vimana_model::operation::{Object, Situation};
    use vimana_model::{OperationId, Timestamp, VmId};

    use super::*;

    fn operation(kind: OperationKind, at: Situation) -> OperationView {
        let step = |kind: &StepKind| vimana_model::operation::StepView {
            kind: *kind,
            state: vimana_model::operation::StepState::Waiting,
            attempts: 0,
            retry_at: None,
            started_at: None,
            ended_at: None,
        };
        OperationView {
            id: OperationId::from_parts(1, [0; 10]),
            object: Object::Vm(VmId::from_parts(1, [0; 10])),
            kind,
            piece: None,
            state: OperationState::Running,
            steps: kind.steps(at).iter().map(step).collect(),
            requested_by: "ann".to_owned(),
            cancelled_by: None,
            error: None,
            progress: None,
            migration: None,
            waits_for: None,
            created_at: Timestamp::from_ms(0),
            ended_at: None,
        }
    }

    /// The way of every operation begun in every state its action is accepted
    /// in.
    fn begun() -> Vec<(VmState, OperationView)> {
        use vimana_model::action::VmAction as A;
        let kinds = [
            (A::Start, OperationKind::Start),
            (A::Suspend, OperationKind::Suspend),
            (A::Stop, OperationKind::Stop),
            (A::Resume, OperationKind::Resume),
            (A::PowerOff, OperationKind::PowerOff),
            (A::Shutdown, OperationKind::Shutdown),
            (A::Delete, OperationKind::Delete),
        ];
        let mut all = Vec::new();
        for (action, kind) in kinds {
            for state in VmState::ALL {
                for force in [false, true] {
                    let at = Situation {
                        on_host: state != VmState::Stopped,
                        in_datastore: state == VmState::Stopped,
                        runs: state == VmState::Running,
                        force,
                        post_copy: false,
                    };
                    if action.judge(state).is_ok() {
                        all.push((state, operation(kind, at)));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_way_takes_edges_of_the_life_cycle() {
        for (state, operation) in begun() {
            let way = ahead(state, &operation);
            assert!(
                way.len() > 1 || state == VmState::Unknown,
                "{state} {}",
                operation.kind
            );
            for pair in way.windows(2) {
                let (from, to) = (pair[0], pair[1]);
                assert!(from.can_become(to), "{}: {from} → {to}", operation.kind);
            }
        }
    }

    #[test]
    fn what_is_behind_is_not_on_the_way() {
        let at = Situation {
            on_host: false,
            in_datastore: false,
            runs: false,
            force: false,
            post_copy: false,
        };
        let create = operation(OperationKind::Create, at);
        assert_eq!(
            ahead(VmState::Boot, &create),
            [VmState::Boot, VmState::Running]
        );
        assert_eq!(back(VmState::Boot, &create), [VmState::Boot, VmState::Hold]);
        assert_eq!(back(VmState::Hold, &create), []);
        let failed = OperationView {
            error: Some("the disk is full".to_owned()),
            ..create
        };
        assert_eq!(
            back(VmState::Boot, &failed),
            [VmState::Boot, VmState::Failed]
        );
    }
}
