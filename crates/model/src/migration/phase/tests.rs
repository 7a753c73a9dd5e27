use super::*;
use crate::migration::{CopyProgress, MigrationMode, MigrationView};
use crate::operation::{Object, Progress, Situation, StepView};
use crate::vm::HostRef;
use crate::{HostId, OperationId, Timestamp, VmId};

const LIVE: [StepKind; 4] = [
    StepKind::Receive,
    StepKind::Send,
    StepKind::Run,
    StepKind::Leave,
];

fn host(name: &str) -> HostRef {
    HostRef {
        id: HostId::from_parts(0, [0; 10]),
        name: name.to_owned(),
        zone: "default".to_owned(),
    }
}

fn migration(state: OperationState, steps: &[(StepKind, StepState)]) -> OperationView {
    let begun = |state: StepState| !matches!(state, StepState::Waiting | StepState::Skipped);
    let step = |(kind, state): &(StepKind, StepState)| StepView {
        kind: *kind,
        state: *state,
        attempts: u32::from(begun(*state)),
        retry_at: None,
        started_at: begun(*state).then_some(Timestamp::from_ms(1)),
        ended_at: None,
    };
    OperationView {
        id: OperationId::from_parts(0, [0; 10]),
        object: Object::Vm(VmId::from_parts(0, [0; 10])),
        kind: OperationKind::Migrate,
        piece: None,
        state,
        steps: steps.iter().map(step).collect(),
        requested_by: "admin".to_owned(),
        cancelled_by: None,
        error: None,
        migration: Some(MigrationView {
            mode: MigrationMode::Live,
            from: Some(host("host-a")),
            to: host("host-b"),
            datastore: None,
            copy: None,
            result: None,
        }),
        progress: None,
        waits_for: None,
        created_at: Timestamp::from_ms(0),
        ended_at: None,
    }
}

fn live(state: OperationState, steps: [StepState; 4]) -> OperationView {
    let steps: Vec<_> = LIVE.into_iter().zip(steps).collect();
    migration(state, &steps)
}

fn copying(mut operation: OperationView, phase: CopyPhase) -> OperationView {
    operation.progress = Some(Progress {
        done_bytes: 1,
        total_bytes: 2,
        copy: Some(CopyProgress {
            phase,
            remaining_bytes: 1,
            dirty_bytes_per_s: 0,
            bytes_per_s: 1,
            rounds: 1,
        }),
    });
    operation
}

/// One letter a phase: how each is, and where it broke off.
fn drawn(operation: &OperationView) -> (String, Option<Phase>, Option<Phase>) {
    let course = Course::of(operation).unwrap();
    let letter = |(_, state): &(Phase, StepState)| match state {
        StepState::Waiting => '.',
        StepState::Running => '>',
        StepState::Done => '+',
        StepState::Failed => '!',
        StepState::Skipped => '-',
        StepState::Undoing => '<',
        StepState::Undone => '~',
    };
    let states = course.phases.iter().map(letter).collect();
    (states, course.current(), course.broke_in)
}

#[test]
fn live_migration_goes_through_all_seven_phases() {
    use StepState::{Done, Running, Waiting};
    let run = |steps| live(OperationState::Running, steps);
    let course = Course::of(&run([Running, Waiting, Waiting, Waiting])).unwrap();
    let phases: Vec<Phase> = course.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, Phase::ALL);
    let sends = run([Done, Running, Waiting, Waiting]);
    let told = [
        run([Running, Waiting, Waiting, Waiting]),
        sends.clone(),
        copying(sends.clone(), CopyPhase::Disks),
        copying(sends.clone(), CopyPhase::Memory),
        copying(sends, CopyPhase::Switchover),
        run([Done, Done, Running, Waiting]),
        run([Done, Done, Done, Running]),
        live(OperationState::Succeeded, [Done; 4]),
    ]
    .map(|operation| drawn(&operation));
    let expected = [
        ("++>....", Some(Phase::Prepare)),
        ("+++>...", Some(Phase::Copy)),
        ("+++>...", Some(Phase::Copy)),
        ("+++>...", Some(Phase::Copy)),
        ("++++>..", Some(Phase::Switchover)),
        ("+++++>.", Some(Phase::Confirm)),
        ("++++++>", Some(Phase::CleanUp)),
        ("+++++++", None),
    ];
    for ((states, current, broke_in), (drawing, phase)) in told.into_iter().zip(expected) {
        assert_eq!((states.as_str(), current, broke_in), (drawing, phase, None));
    }
}

#[test]
fn what_is_taken_back_shows_where_it_broke_off() {
    use StepState::{Done, Failed, Skipped, Undoing, Undone, Waiting};
    let back = |steps| live(OperationState::Undoing, steps);
    let sends = back([Done, Undoing, Waiting, Waiting]);
    let told = [
        back([Undoing, Waiting, Waiting, Waiting]),
        copying(sends.clone(), CopyPhase::Memory),
        copying(sends, CopyPhase::Switchover),
        back([Undoing, Undone, Waiting, Waiting]),
        live(
            OperationState::Cancelled,
            [Undone, Undone, Skipped, Skipped],
        ),
        live(OperationState::Failed, [Undone, Skipped, Skipped, Skipped]),
        live(OperationState::Failed, [Failed, Undone, Skipped, Skipped]),
    ]
    .map(|operation| drawn(&operation));
    let expected = [
        ("++<....", Phase::Prepare),
        ("+++<-..", Phase::Copy),
        ("+++<<..", Phase::Switchover),
        ("++<~-..", Phase::Copy),
        // The claim went with it.
        ("+~~~---", Phase::Copy),
        ("+~~----", Phase::Prepare),
        ("+~!~---", Phase::Copy),
    ];
    for ((states, _, broke_in), (drawing, phase)) in told.into_iter().zip(expected) {
        assert_eq!((states.as_str(), broke_in), (drawing, Some(phase)));
    }
}

#[test]
fn after_the_commit_nothing_is_given_back() {
    use StepState::{Done, Failed};
    let broken = live(OperationState::Failed, [Done, Done, Failed, Done]);
    let expected = ("+++++!+".to_owned(), None, Some(Phase::Confirm));
    assert_eq!(drawn(&broken), expected);
    // The host that it left is cleaned when it is back: it has succeeded.
    let left = live(OperationState::Succeeded, [Done, Done, Done, Failed]);
    assert_eq!(drawn(&left), ("++++++!".to_owned(), None, None));
}

#[test]
fn steps_of_one_phase_are_one() {
    use StepState::{Done, Failed, Running, Undone, Waiting};
    assert_eq!(joined(Done, Waiting), Running);
    assert_eq!(joined(Done, Running), Running);
    assert_eq!(joined(Done, Done), Done);
    assert_eq!(joined(Waiting, Waiting), Waiting);
    assert_eq!(joined(Done, Failed), Failed);
    assert_eq!(joined(Undone, Done), Undone);
}

#[test]
fn a_mode_has_the_phases_that_its_steps_are_for() {
    use Phase::{CleanUp, Copy, Plan, Reserve};
    use StepState::{Done, Running, Waiting};
    let phases = |steps: &[(StepKind, StepState)]| {
        let course = Course::of(&migration(OperationState::Running, steps)).unwrap();
        let all: Vec<Phase> = course.phases.iter().map(|(phase, _)| *phase).collect();
        (all, course.current())
    };
    let cold = [
        (StepKind::Upload, Done),
        (StepKind::Arrive, Running),
        (StepKind::Discard, Waiting),
        (StepKind::Leave, Waiting),
    ];
    let all = vec![Plan, Reserve, Copy, CleanUp];
    assert_eq!(phases(&cold), (all.clone(), Some(Copy)));
    // A stopped VM is in the datastore already, and on no host.
    let stopped = [(StepKind::Arrive, Done), (StepKind::Discard, Running)];
    assert_eq!(phases(&stopped), (all, Some(CleanUp)));
    let volumes = [(StepKind::Move, Done), (StepKind::Move, Running)];
    assert_eq!(phases(&volumes), (vec![Plan, Reserve, Copy], Some(Copy)));
}

#[test]
fn every_step_of_a_migration_has_its_phase() {
    for (runs, on_host) in [(true, true), (false, true), (false, false)] {
        let at = Situation {
            runs,
            on_host,
            ..Situation::default()
        };
        for step in OperationKind::Migrate.steps(at) {
            assert!(Phase::of(*step).is_some(), "{step:?}");
        }
    }
}

#[test]
fn other_operations_have_no_course() {
    let mut operation = live(OperationState::Running, [StepState::Waiting; 4]);
    operation.kind = OperationKind::Backup;
    assert_eq!(Course::of(&operation), None);
}
