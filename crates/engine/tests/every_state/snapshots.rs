//! Snapshots of VMs: taken, gone back to, deleted, and what stands in the way.

use std::time::Duration;

use vimana_driver::{Fault, FaultKind, HostDriver as _};
use vimana_driver_sim::{Call, Mishap, SimDriver};
use vimana_engine::{Acted, ActionArgs};
use vimana_model::action::VmAction;
use vimana_model::operation::{OperationKind, OperationState, Piece, StepKind};
use vimana_model::snapshot::{SnapshotState, SnapshotView, TakeSnapshot};
use vimana_model::unit::MiB;
use vimana_model::vm::{AcceptedView, VmView};
use vimana_model::{Error, ErrorKind, SnapshotId, VmState};

use vimana_testkit::TestHost;

use super::{Scene, TINY, disk_of};

impl Scene {
    async fn take(&self, name: &str, memory: bool) -> Result<AcceptedView, Error> {
        let form = TakeSnapshot {
            name: name.to_owned(),
            memory,
            volume: None,
        };
        self.ask(VmAction::Snapshot, ActionArgs::TakeSnapshot(form))
            .await
    }

    pub(super) async fn ask(
        &self,
        action: VmAction,
        args: ActionArgs,
    ) -> Result<AcceptedView, Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        match engine.act_on_vm(admin, self.vm, action, args).await? {
            Acted::Accepted(accepted) => Ok(*accepted),
            Acted::Vm(vm) => Err(Error::internal(format!("no operation of {}", vm.name))),
        }
    }

    /// Takes one to its end.
    pub(super) async fn taken(&self, name: &str, memory: bool) -> SnapshotId {
        let accepted = self.take(name, memory).await.unwrap();
        let Some(Piece::Snapshot { id, .. }) = accepted.operation.piece else {
            unreachable!("a snapshot's operation is about it");
        };
        let vm = self.world.until_rest(self.vm).await;
        assert_eq!(vm.operation.unwrap().state, OperationState::Succeeded);
        id
    }

    pub(super) async fn revert(&self, id: SnapshotId) -> VmView {
        let args = ActionArgs::Snapshot(id);
        self.ask(VmAction::Revert, args).await.unwrap();
        self.world.until_rest(self.vm).await
    }

    async fn snapshots(&self) -> Vec<SnapshotView> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.vm_snapshots(admin, self.vm).await.unwrap()
    }

    async fn on_host(&self) -> Vec<SnapshotId> {
        on(&self.hosts[0]).await
    }

    /// What always holds, holds.
    pub(super) async fn sound(&self) {
        assert_eq!(self.world.engine.check().await.unwrap(), []);
    }
}

/// Those that a host has.
pub(super) async fn on(host: &TestHost) -> Vec<SnapshotId> {
    let driver = SimDriver::new(host.sim.clone());
    let held = driver.snapshots().await.unwrap();
    held.into_iter().map(|held| held.snapshot_id).collect()
}

fn dislikes() -> Fault {
    Fault::new(FaultKind::Hypervisor, "it does not like it")
}

#[tokio::test]
async fn a_running_vm_goes_back_to_a_snapshot_with_its_memory() {
    let scene = Scene::new(1).await;
    let first = scene.taken("before", true).await;
    let second = scene.taken("after", false).await;
    assert_eq!(scene.on_host().await.len(), 2);
    let claimed = MiB(1024 + 128 + 1024 + 1024);
    assert_eq!(
        scene.used().await.disk_mib,
        claimed,
        "two snapshots beside it"
    );

    let running = scene.revert(first).await;
    assert_eq!((running.state, running.run_epoch), (VmState::Running, 1));
    let operation = running.operation.unwrap();
    assert_eq!(operation.kind, OperationKind::Revert);
    assert_eq!(operation.piece.unwrap().to_string(), "snapshot before");
    assert_eq!(scene.hosts[0].sim.effects(scene.vm).reverted, 1);

    let all = scene.snapshots().await;
    let names = all.iter().map(|one| (one.name.as_str(), one.current));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [("before", true), ("after", false)]
    );
    assert_eq!(
        all[1].parent_id,
        Some(first),
        "the second came from the first"
    );
    scene.sound().await;

    for id in [first, second] {
        let args = ActionArgs::Snapshot(id);
        scene.ask(VmAction::RemoveSnapshot, args).await.unwrap();
        scene.world.until_rest(scene.vm).await;
    }
    assert_eq!(scene.snapshots().await, []);
    assert_eq!(scene.on_host().await, []);
    assert_eq!(scene.used().await, TINY);
    scene.sound().await;
}

#[tokio::test]
async fn without_its_memory_a_snapshot_is_for_a_vm_that_is_off() {
    let scene = Scene::new(1).await;
    let id = scene.taken("disks", false).await;
    let args = || ActionArgs::Snapshot(id);
    let refused = scene.ask(VmAction::Revert, args()).await.unwrap_err();
    assert_eq!(
        refused.public,
        "snapshot `disks` has no memory in it; power the VM off first"
    );
    let off = scene.through(VmAction::PowerOff).await;
    assert_eq!(off.state, VmState::PoweredOff);
    let off = scene.revert(id).await;
    assert_eq!(off.state, VmState::PoweredOff);
    assert_eq!(scene.used().await, disk_of(2048));
    let refused = scene.take("memory", true).await.unwrap_err();
    assert_eq!(
        refused.public,
        "`web-1` does not run; there is no memory to keep"
    );
    let running = scene.through(VmAction::Start).await;
    assert_eq!(running.state, VmState::Running);
    scene.sound().await;
}

#[tokio::test]
async fn a_snapshot_needs_a_name_of_its_own_and_room() {
    let scene = Scene::new(1).await;
    let refused = scene.take("../x", false).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "name");
    scene.taken("one", false).await;
    let refused = scene.take("one", false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert_eq!(refused.public, "there is already a snapshot named `one`");
    // 100 GiB, of which the VM and each snapshot take one.
    let mut taken = 1;
    let refused = loop {
        match scene.take(&format!("more-{taken}"), false).await {
            Ok(_) => {
                scene.world.until_rest(scene.vm).await;
                taken += 1;
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(taken, 64, "{refused}");
    assert_eq!(refused.public, "`web-1` has 64 snapshots already");
    scene.sound().await;
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_taken_leaves_nothing() {
    let scene = Scene::new(1).await;
    let sim = &scene.hosts[0].sim;
    sim.fail_next(Call::Snapshot, dislikes());
    scene.take("no", true).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);

    // Taken, and nobody was told.
    sim.mishap(Call::Snapshot, Mishap::FailAfter(dislikes()));
    scene.take("yes-and-no", false).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.on_host().await, []);

    // Somebody thinks better of it.
    sim.delay(Call::Snapshot, Duration::from_secs(3600));
    let operation = scene.take("later", false).await.unwrap().operation;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    engine.cancel_operation(admin, operation.id).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Cancelled);

    assert_eq!(scene.snapshots().await, []);
    assert_eq!(scene.used().await, TINY);
    scene.sound().await;
}

#[tokio::test]
async fn what_cannot_be_taken_back_can_still_be_deleted() {
    let scene = Scene::new(1).await;
    let sim = &scene.hosts[0].sim;
    sim.mishap(Call::Snapshot, Mishap::FailAfter(dislikes()));
    sim.fail_next(Call::RemoveSnapshot, dislikes());
    scene.take("half", false).await.unwrap();
    let failed = scene.world.until(scene.vm, VmState::Failed).await;
    assert!(failed.failure.unwrap().reason.contains("taken back"));
    let left = scene.snapshots().await;
    assert_eq!(left[0].state, SnapshotState::Removing);

    let running = scene.through(VmAction::Retry).await;
    assert_eq!(running.state, VmState::Running);
    let args = || ActionArgs::Snapshot(left[0].id);
    let refused = scene.ask(VmAction::Revert, args()).await.unwrap_err();
    assert_eq!(refused.public, "snapshot `half` is not whole");
    scene.ask(VmAction::RemoveSnapshot, args()).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.snapshots().await, []);
    assert_eq!(scene.used().await, TINY);
    scene.sound().await;
}

#[tokio::test]
async fn after_half_a_revert_only_a_whole_one_starts_the_vm() {
    let scene = Scene::new(1).await;
    let id = scene.taken("good", true).await;
    scene.hosts[0].sim.fail_next(Call::Revert, dislikes());
    let failed = scene.revert(id).await;
    assert_eq!(failed.state, VmState::Failed);

    scene.hosts[0].sim.fail_next(Call::Revert, dislikes());
    let failed = scene.through(VmAction::Retry).await;
    assert_eq!(failed.state, VmState::Failed);
    let running = scene.through(VmAction::Retry).await;
    assert_eq!(running.state, VmState::Running);
    let steps = running.operation.unwrap().steps;
    let kinds: Vec<_> = steps.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [StepKind::Kill, StepKind::Revert, StepKind::Boot]);
    assert!(scene.snapshots().await[0].current);
    scene.sound().await;
}

#[tokio::test]
async fn what_the_host_refuses_to_go_back_to_changes_nothing() {
    let scene = Scene::new(1).await;
    let id = scene.taken("lost", true).await;
    let lost = Fault::new(FaultKind::NoSuchSnapshot, "there is no such snapshot");
    scene.hosts[0].sim.fail_next(Call::Revert, lost);
    let vm = scene.revert(id).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    scene.sound().await;
}

#[tokio::test]
async fn a_vm_with_snapshots_stays_on_its_host_and_takes_them_with_it() {
    let scene = Scene::new(1).await;
    scene.taken("one", true).await;
    let refused = scene.world.act(scene.vm, VmAction::Stop).await.unwrap_err();
    assert_eq!(
        refused.public,
        "`web-1` has snapshots, which do not go to the datastore; delete them first, or suspend it instead"
    );
    let suspended = scene.through(VmAction::Suspend).await;
    assert_eq!(suspended.state, VmState::Suspended);
    let refused = scene.take("two", false).await.unwrap_err();
    assert!(refused.public.contains("memory saved"), "{refused}");
    scene.through(VmAction::Resume).await;
    let done = scene.through(VmAction::Delete).await;
    assert_eq!(done.state, VmState::Done);
    assert_eq!(scene.snapshots().await, []);
    assert_eq!(scene.on_host().await, []);
    assert_eq!(scene.used().await, disk_of(0));
    scene.sound().await;
}

#[tokio::test]
async fn a_deletion_overtakes_a_snapshot() {
    let scene = Scene::new(1).await;
    let sim = &scene.hosts[0].sim;
    sim.delay(Call::Snapshot, Duration::from_secs(3600));
    scene.take("never", true).await.unwrap();
    let done = scene.through(VmAction::Delete).await;
    assert_eq!(done.state, VmState::Done);
    assert_eq!(scene.snapshots().await, []);
    assert_eq!(scene.used().await, disk_of(0));
    scene.sound().await;
}

#[tokio::test]
async fn another_vms_snapshot_is_none() {
    let scene = Scene::new(1).await;
    let id = scene.taken("mine", false).await;
    let other = scene.world.create("web-2").await.id;
    scene.world.until(other, VmState::Running).await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    for action in [VmAction::Revert, VmAction::RemoveSnapshot] {
        let args = ActionArgs::Snapshot(id);
        let refused = engine.act_on_vm(admin, other, action, args).await;
        assert_eq!(refused.unwrap_err().kind, ErrorKind::NotFound, "{action}");
    }
}
