//! Every operation, from everywhere it begins, and every way back.

mod broken;

use vimana_driver_sim::Call;
use vimana_model::action::VmAction as A;
use vimana_model::operation::OperationState::{Cancelled, Succeeded};
use vimana_model::operation::{OperationState, StepKind as S};
use vimana_model::request::{RequestAction as R, RequestState};
use vimana_model::state::VmState as V;

use super::Scene::{Breaks, MachineDies, Mends, SchedulersCome, SchedulersGo};
use super::{Deed, Plan, Scene, Setback};

type Ends = &'static [(Option<OperationState>, Option<V>)];

const CREATE: Scene = Scene::Ask(Deed::Create);
const SUSPEND: Scene = Scene::Ask(Deed::Act(A::Suspend));
const STOP: Scene = Scene::Ask(Deed::Act(A::Stop));
const POWER_OFF: Scene = Scene::Ask(Deed::Act(A::PowerOff));
const HOLD: Scene = Scene::Ask(Deed::Act(A::Hold));
const ASK: Scene = Scene::Ask(Deed::Request);
const APPROVE: Scene = Scene::Ask(Deed::Decide(R::Approve));
const ASK_BACK: Scene = Scene::Ask(Deed::Decide(R::AskBack));
const ASK_RELEASE: Scene = Scene::Ask(Deed::Decide(R::AskRelease));

const DELETED: Ends = &[(Some(Succeeded), Some(V::Done))];

/// All of them.
#[must_use]
pub fn plans() -> Vec<Plan> {
    [
        forward(),
        of_its_disks(),
        migrating(),
        migrating_cold(),
        of_what_does_not_run(),
        cancelled(),
        overtaken(),
        broken::failing(),
        broken::retried(),
        manual(),
    ]
    .concat()
}

const fn plan(name: &'static str, before: &'static [Scene], deed: Deed, ends: Ends) -> Plan {
    Plan {
        name,
        before,
        deed,
        setback: Setback::None,
        calls: &[],
        removes: false,
        places: false,
        ends,
        request: None,
    }
}

impl Plan {
    const fn calls(mut self, calls: &'static [Call]) -> Self {
        self.calls = calls;
        self
    }

    const fn removes(mut self) -> Self {
        self.removes = true;
        self
    }

    const fn places(mut self) -> Self {
        self.places = true;
        self
    }

    const fn but(mut self, setback: Setback) -> Self {
        self.setback = setback;
        self
    }

    const fn request(mut self, state: RequestState) -> Self {
        self.request = Some(state);
        self
    }
}

/// What people do with a VM that is well.
fn forward() -> Vec<Plan> {
    const RUNS: Ends = &[(Some(Succeeded), Some(V::Running))];
    const OFF: Ends = &[(Some(Succeeded), Some(V::PoweredOff))];
    const STOPPED: Ends = &[(Some(Succeeded), Some(V::Stopped))];
    let act = |name, before, action, ends| plan(name, before, Deed::Act(action), ends);
    vec![
        plan("create", &[], Deed::Create, RUNS)
            .calls(&[Call::Prepare, Call::Boot])
            .places(),
        act("start", &[CREATE, POWER_OFF], A::Start, RUNS).calls(&[Call::Boot]),
        act(
            "suspend",
            &[CREATE],
            A::Suspend,
            &[(Some(Succeeded), Some(V::Suspended))],
        )
        .calls(&[Call::Save]),
        act("stop", &[CREATE], A::Stop, STOPPED).calls(&[Call::Save, Call::Export, Call::Clean]),
        act(
            "stop of a suspended VM",
            &[CREATE, SUSPEND],
            A::Stop,
            STOPPED,
        )
        .calls(&[Call::Export, Call::Clean]),
        act("resume", &[CREATE, SUSPEND], A::Resume, RUNS).calls(&[Call::Load]),
        act(
            "resume from the datastore",
            &[CREATE, STOP],
            A::Resume,
            RUNS,
        )
        .calls(&[Call::Import, Call::Load])
        .removes()
        .places(),
        act("power off", &[CREATE], A::PowerOff, OFF).calls(&[Call::Shutdown]),
        plan("power off by force", &[CREATE], Deed::Force, OFF).calls(&[Call::Kill]),
        act("reboot", &[CREATE], A::Reboot, RUNS).calls(&[Call::Reboot]),
        act("reset", &[CREATE], A::Reset, RUNS).calls(&[Call::Reset]),
        plan("resize", &[CREATE], Deed::Grow, RUNS).calls(&[Call::Resize]),
        act("shutdown", &[CREATE], A::Shutdown, DELETED).calls(&[Call::Shutdown, Call::Clean]),
        act("delete", &[CREATE], A::Delete, DELETED).calls(&[Call::Kill, Call::Clean]),
    ]
}

/// What people do with snapshots and volumes.
fn of_its_disks() -> Vec<Plan> {
    const RUNS: Ends = &[(Some(Succeeded), Some(V::Running))];
    const OFF: Ends = &[(Some(Succeeded), Some(V::PoweredOff))];
    const CANCELLED: Ends = &[(Some(Cancelled), Some(V::Running))];
    const FREE: Ends = &[(None, Some(V::Running))];
    const WHOLE: Deed = Deed::Snapshot { memory: true };
    const DISKS: Deed = Deed::Snapshot { memory: false };
    const VOLUME: Scene = Scene::Ask(Deed::MakeVolume);
    const REVERT: Deed = Deed::OfSnapshot(A::Revert);
    const REMOVE: Deed = Deed::OfSnapshot(A::RemoveSnapshot);
    const ATTACH: Deed = Deed::OfVolume(A::Attach);
    const DETACH: Deed = Deed::OfVolume(A::Detach);
    const BACKUP: Deed = Deed::Act(A::Backup);
    const HAS_VOLUME: &[Scene] = &[CREATE, VOLUME, Scene::Ask(ATTACH)];
    const MOVE: Deed = Deed::MoveVolume;
    const MOVE_ALL: Deed = Deed::MoveDisks;
    let make = &[Call::CreateVolume, Call::Attach];
    let back_up = &[Call::BackUp, Call::EndBackup];
    vec![
        plan("snapshot", &[CREATE], WHOLE, RUNS).calls(&[Call::Snapshot]),
        plan(
            "snapshot of a VM that is off",
            &[CREATE, POWER_OFF],
            DISKS,
            OFF,
        )
        .calls(&[Call::Snapshot]),
        plan("snapshot, cancelled", &[CREATE], WHOLE, CANCELLED)
            .but(Setback::Cancelled(S::Snapshot))
            .calls(&[Call::Snapshot, Call::RemoveSnapshot]),
        plan("snapshot, deleted", &[CREATE], WHOLE, DELETED)
            .but(Setback::Deleted(S::Snapshot))
            .calls(&[Call::Kill, Call::Clean]),
        plan("revert", &[CREATE, Scene::Ask(WHOLE)], REVERT, RUNS).calls(&[Call::Revert]),
        plan(
            "revert of a VM that is off",
            &[CREATE, Scene::Ask(DISKS), POWER_OFF],
            REVERT,
            OFF,
        )
        .calls(&[Call::Revert]),
        plan(
            "removal of a snapshot",
            &[CREATE, Scene::Ask(WHOLE)],
            REMOVE,
            RUNS,
        )
        .calls(&[Call::RemoveSnapshot]),
        plan(
            "snapshot of a volume",
            HAS_VOLUME,
            Deed::SnapshotVolume,
            RUNS,
        )
        .calls(&[Call::Snapshot]),
        plan(
            "revert of a volume",
            &[
                CREATE,
                VOLUME,
                Scene::Ask(ATTACH),
                Scene::Ask(Deed::SnapshotVolume),
                POWER_OFF,
            ],
            REVERT,
            OFF,
        )
        .calls(&[Call::Revert]),
        plan("backup", &[CREATE], BACKUP, RUNS).calls(back_up),
        plan(
            "backup of what changed, of a VM that is off",
            &[CREATE, Scene::Ask(BACKUP), POWER_OFF],
            BACKUP,
            OFF,
        )
        .calls(back_up),
        plan("backup, cancelled", &[CREATE], BACKUP, CANCELLED)
            .but(Setback::Cancelled(S::Backup))
            .calls(back_up),
        plan("backup, deleted", &[CREATE], BACKUP, DELETED)
            .but(Setback::Deleted(S::Backup))
            .calls(&[Call::Kill, Call::Clean]),
        plan("attach", &[CREATE, VOLUME], ATTACH, RUNS).calls(make),
        plan("attach, cancelled", &[CREATE, VOLUME], ATTACH, CANCELLED)
            .but(Setback::Cancelled(S::Attach))
            .calls(&[Call::Attach, Call::Detach]),
        plan("attach, deleted", &[CREATE, VOLUME], ATTACH, DELETED)
            .but(Setback::Deleted(S::Attach))
            .calls(&[Call::Kill, Call::Clean]),
        plan("detach", HAS_VOLUME, DETACH, RUNS).calls(&[Call::Detach]),
        plan("move of a volume", HAS_VOLUME, MOVE, RUNS).calls(&[Call::MoveDisk]),
        plan("move of a volume, cancelled", HAS_VOLUME, MOVE, CANCELLED)
            .but(Setback::Cancelled(S::Move))
            .calls(&[Call::MoveDisk]),
        plan("move of a volume, deleted", HAS_VOLUME, MOVE, DELETED)
            .but(Setback::Deleted(S::Move))
            .calls(&[Call::Kill, Call::Clean]),
        plan("move of all disks", HAS_VOLUME, MOVE_ALL, RUNS).calls(&[Call::MoveDisk]),
        plan(
            "move of the disk of a VM that is off",
            &[CREATE, POWER_OFF],
            MOVE_ALL,
            OFF,
        )
        .calls(&[Call::MoveDisk]),
        plan("move of a disk, cancelled", &[CREATE], MOVE_ALL, CANCELLED)
            .but(Setback::Cancelled(S::Move))
            .calls(&[Call::MoveDisk]),
        plan("move of a disk, deleted", &[CREATE], MOVE_ALL, DELETED)
            .but(Setback::Deleted(S::Move))
            .calls(&[Call::Kill, Call::Clean]),
        plan("growth of a volume", HAS_VOLUME, Deed::GrowVolume, RUNS).calls(&[Call::GrowVolume]),
        plan(
            "delete of a VM whose volume goes with it",
            HAS_VOLUME,
            Deed::Act(A::Delete),
            DELETED,
        )
        .calls(&[Call::Kill, Call::Clean, Call::RemoveVolume]),
        plan(
            "delete of a volume",
            &[CREATE, VOLUME, Scene::Ask(ATTACH), Scene::Ask(DETACH)],
            Deed::DeleteVolume,
            FREE,
        )
        .calls(&[Call::RemoveVolume]),
    ]
}

/// A VM goes to another host, or does not.
fn migrating() -> Vec<Plan> {
    const RUNS: Ends = &[(Some(Succeeded), Some(V::Running))];
    const CANCELLED: Ends = &[(Some(Cancelled), Some(V::Running))];
    let migrate = |name, ends| plan(name, &[CREATE], Deed::Migrate, ends);
    let by_post_copy = |name, ends| plan(name, &[CREATE], Deed::MigrateByPostCopy, ends);
    vec![
        migrate("migrate", RUNS).calls(&[
            Call::Receive,
            Call::Send,
            Call::Run,
            Call::Kill,
            Call::Clean,
        ]),
        migrate("migrate, cancelled in receive", CANCELLED)
            .but(Setback::Cancelled(S::Receive))
            .calls(&[Call::Receive, Call::Kill, Call::Clean]),
        migrate("migrate, cancelled in send", CANCELLED)
            .but(Setback::Cancelled(S::Send))
            .calls(&[Call::Send, Call::CallOff, Call::Kill, Call::Clean]),
        by_post_copy("migrate by post-copy", RUNS).calls(&[
            Call::Receive,
            Call::Send,
            Call::Switch,
            Call::Run,
            Call::Complete,
            Call::Kill,
            Call::Clean,
        ]),
        by_post_copy("migrate by post-copy, cancelled in send", CANCELLED)
            .but(Setback::Cancelled(S::Send))
            .calls(&[Call::Send, Call::CallOff, Call::Kill, Call::Clean]),
        by_post_copy("migrate by post-copy, deleted in complete", DELETED)
            .but(Setback::Deleted(S::Complete))
            .calls(&[Call::Complete, Call::Kill, Call::Clean]),
    ]
}

/// One that does not run goes, or does not.
fn migrating_cold() -> Vec<Plan> {
    const OFF: Ends = &[(Some(Succeeded), Some(V::PoweredOff))];
    const SAVED: Ends = &[(Some(Succeeded), Some(V::Suspended))];
    const STAYS: Ends = &[(Some(Cancelled), Some(V::Suspended))];
    let all = &[Call::Export, Call::Import, Call::Kill, Call::Clean];
    let migrate = |name, before, ends| plan(name, before, Deed::Migrate, ends);
    vec![
        migrate("migrate of what is off", &[CREATE, POWER_OFF], OFF)
            .calls(all)
            .removes(),
        migrate(
            "migrate of what is off and has a snapshot",
            &[
                CREATE,
                Scene::Ask(Deed::Snapshot { memory: true }),
                POWER_OFF,
            ],
            OFF,
        )
        .calls(all)
        .removes(),
        migrate("migrate of what is suspended", &[CREATE, SUSPEND], SAVED)
            .calls(all)
            .removes(),
        migrate("migrate of what is stopped", &[CREATE, STOP], SAVED)
            .calls(&[Call::Import])
            .removes(),
        migrate(
            "migrate cold, cancelled in upload",
            &[CREATE, SUSPEND],
            STAYS,
        )
        .but(Setback::Cancelled(S::Upload))
        .calls(&[Call::Export])
        .removes(),
        migrate(
            "migrate cold, cancelled in arrive",
            &[CREATE, SUSPEND],
            STAYS,
        )
        .but(Setback::Cancelled(S::Arrive))
        .calls(all)
        .removes(),
    ]
}

/// What people do with a VM that does not run.
fn of_what_does_not_run() -> Vec<Plan> {
    const BREAK_BOOT: &[Scene] = &[Breaks(Call::Boot), CREATE, Mends];
    let delete = |name, before| plan(name, before, Deed::Act(A::Delete), DELETED);
    let removes = &[Call::Kill, Call::Clean];
    vec![
        plan(
            "resize of a powered-off VM",
            &[CREATE, POWER_OFF],
            Deed::Grow,
            &[(Some(Succeeded), Some(V::PoweredOff))],
        ),
        plan(
            "hold",
            &[SchedulersGo, CREATE],
            Deed::Act(A::Hold),
            &[(None, Some(V::Hold))],
        ),
        plan(
            "release",
            &[SchedulersGo, CREATE, HOLD, SchedulersCome],
            Deed::Act(A::Release),
            &[(None, Some(V::Running))],
        )
        .calls(&[Call::Prepare, Call::Boot])
        .places(),
        delete("delete of a pending VM", &[SchedulersGo, CREATE]),
        delete("delete of a held VM", &[SchedulersGo, CREATE, HOLD]),
        delete("delete of a suspended VM", &[CREATE, SUSPEND]).calls(removes),
        delete("delete of a stopped VM", &[CREATE, STOP]).removes(),
        delete("delete of a powered-off VM", &[CREATE, POWER_OFF]).calls(removes),
        delete("delete of a VM that never came to be", BREAK_BOOT),
        delete("delete of a VM that died", &[CREATE, MachineDies]).calls(removes),
    ]
}

/// Somebody thinks better of it.
fn cancelled() -> Vec<Plan> {
    const HELD: Ends = &[(Some(Cancelled), Some(V::Hold))];
    const OFF: Ends = &[(Some(Cancelled), Some(V::PoweredOff))];
    const RUNS: Ends = &[(Some(Cancelled), Some(V::Running))];
    const SUSPENDED: Ends = &[(Some(Cancelled), Some(V::Suspended))];
    const STOPPED: Ends = &[(Some(Cancelled), Some(V::Stopped))];
    let act = |name, before, action, step, ends| {
        plan(name, before, Deed::Act(action), ends).but(Setback::Cancelled(step))
    };
    let create =
        |name, before, step| plan(name, before, Deed::Create, HELD).but(Setback::Cancelled(step));
    let resume = |name, before, step| act(name, before, A::Resume, step, STOPPED);
    vec![
        create("create, cancelled in place", &[SchedulersGo], S::Place),
        create("create, cancelled in prepare", &[], S::Prepare)
            .calls(&[Call::Prepare, Call::Clean])
            .places(),
        create("create, cancelled in boot", &[], S::Boot)
            .calls(&[Call::Boot, Call::Kill, Call::Clean])
            .places(),
        act(
            "start, cancelled",
            &[CREATE, POWER_OFF],
            A::Start,
            S::Boot,
            OFF,
        )
        .calls(&[Call::Boot, Call::Kill]),
        act("suspend, cancelled", &[CREATE], A::Suspend, S::Save, RUNS)
            .calls(&[Call::Save, Call::Load]),
        act("stop, cancelled in save", &[CREATE], A::Stop, S::Save, RUNS)
            .calls(&[Call::Save, Call::Load]),
        act(
            "stop, cancelled in upload",
            &[CREATE],
            A::Stop,
            S::Upload,
            RUNS,
        )
        .calls(&[Call::Export, Call::Load])
        .removes(),
        act(
            "stop of a suspended VM, cancelled in upload",
            &[CREATE, SUSPEND],
            A::Stop,
            S::Upload,
            SUSPENDED,
        )
        .calls(&[Call::Export])
        .removes(),
        resume(
            "resume, cancelled in place",
            &[CREATE, STOP, SchedulersGo],
            S::Place,
        ),
        resume(
            "resume, cancelled in download",
            &[CREATE, STOP],
            S::Download,
        )
        .calls(&[Call::Import, Call::Clean])
        .places(),
    ]
}

/// A deletion gets ahead.
fn overtaken() -> Vec<Plan> {
    let during =
        |name, before, deed, step| plan(name, before, deed, DELETED).but(Setback::Deleted(step));
    let act = |name, before, action, step| during(name, before, Deed::Act(action), step);
    let removes = &[Call::Kill, Call::Clean];
    let undone = |name, before, deed, step| {
        plan(name, before, deed, DELETED).but(Setback::CancelledAndDeleted(step))
    };
    vec![
        during(
            "create, deleted in place",
            &[SchedulersGo],
            Deed::Create,
            S::Place,
        ),
        during("create, deleted in prepare", &[], Deed::Create, S::Prepare)
            .calls(&[Call::Prepare, Call::Kill, Call::Clean])
            .places(),
        during("create, deleted in boot", &[], Deed::Create, S::Boot)
            .calls(&[Call::Boot, Call::Kill, Call::Clean])
            .places(),
        act("start, deleted", &[CREATE, POWER_OFF], A::Start, S::Boot).calls(removes),
        act("suspend, deleted", &[CREATE], A::Suspend, S::Save).calls(removes),
        act("stop, deleted in save", &[CREATE], A::Stop, S::Save).calls(removes),
        act("stop, deleted in upload", &[CREATE], A::Stop, S::Upload)
            .calls(&[Call::Export, Call::Kill, Call::Clean])
            .removes(),
        act("stop, deleted in clean", &[CREATE], A::Stop, S::Clean)
            .calls(removes)
            .removes(),
        act(
            "resume, deleted in place",
            &[CREATE, STOP, SchedulersGo],
            A::Resume,
            S::Place,
        )
        .removes(),
        act(
            "resume, deleted in download",
            &[CREATE, STOP],
            A::Resume,
            S::Download,
        )
        .calls(&[Call::Import, Call::Kill, Call::Clean])
        .removes(),
        act(
            "resume, deleted in load",
            &[CREATE, STOP],
            A::Resume,
            S::Load,
        )
        .calls(&[Call::Load, Call::Kill, Call::Clean])
        .removes(),
        act(
            "resume, deleted in discard",
            &[CREATE, STOP],
            A::Resume,
            S::Discard,
        )
        .calls(removes)
        .removes(),
        act("power off, deleted", &[CREATE], A::PowerOff, S::Shutdown).calls(removes),
        act("shutdown, deleted", &[CREATE], A::Shutdown, S::Shutdown).calls(removes),
        act("reboot, deleted", &[CREATE], A::Reboot, S::Reboot).calls(removes),
        during("resize, deleted", &[CREATE], Deed::Grow, S::Resize).calls(removes),
        undone("create, cancelled and deleted", &[], Deed::Create, S::Boot).calls(removes),
        undone(
            "stop, cancelled and deleted",
            &[CREATE],
            Deed::Act(A::Stop),
            S::Upload,
        )
        .calls(removes)
        .removes(),
        undone(
            "resume, cancelled and deleted",
            &[CREATE, STOP],
            Deed::Act(A::Resume),
            S::Download,
        )
        .calls(removes)
        .removes(),
    ]
}

/// What is asked for and decided about.
fn manual() -> Vec<Plan> {
    const NO_VM: Ends = &[(None, None)];
    const RUNS: Ends = &[(None, Some(V::Running))];
    const DONE: Ends = &[(None, Some(V::Done))];
    let decide = |name, before, action, ends| plan(name, before, Deed::Decide(action), ends);
    let make = &[Call::Prepare, Call::Boot];
    vec![
        plan("request", &[], Deed::Request, NO_VM).request(RequestState::Request),
        decide("approve", &[ASK], R::Approve, RUNS)
            .request(RequestState::Operation)
            .calls(make)
            .places(),
        plan("approve with changes", &[ASK], Deed::ApproveChanged, RUNS)
            .request(RequestState::Operation)
            .calls(make)
            .places(),
        decide("reject", &[ASK], R::Reject, NO_VM).request(RequestState::Rejected),
        decide("ask back", &[ASK], R::AskBack, NO_VM).request(RequestState::Returned),
        decide("answer", &[ASK, ASK_BACK], R::Answer, NO_VM).request(RequestState::Request),
        decide("withdraw", &[ASK], R::Withdraw, NO_VM).request(RequestState::Withdrawn),
        decide("ask for a release", &[ASK, APPROVE], R::AskRelease, RUNS)
            .request(RequestState::Release),
        decide("keep", &[ASK, APPROVE, ASK_RELEASE], R::Keep, RUNS)
            .request(RequestState::Operation),
        decide(
            "confirm a release",
            &[ASK, APPROVE, ASK_RELEASE],
            R::ConfirmRelease,
            DONE,
        )
        .request(RequestState::Released)
        .calls(&[Call::Shutdown, Call::Clean]),
    ]
}
