//! Snapshots, which go along inside the files of the disks.

use std::time::Duration;

use vimana_driver_sim::{Call, Mishap};
use vimana_engine::ActionArgs;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::host::Hardware;
use vimana_model::operation::OperationState;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::unit::MiB;

use super::super::Scene;
use super::super::migrations::host_fault;
use super::super::snapshots::on;
use super::{into, roomy_hosts};

impl Scene {
    async fn succeeds(&self) -> VmState {
        let vm = self.world.until_rest(self.vm).await;
        let operation = vm.operation.unwrap();
        assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
        self.sound().await;
        vm.state
    }
}

#[tokio::test]
async fn they_stay_in_disks_that_both_hosts_reach_and_go_with_the_vm() {
    let scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    let written = scene.made_in("written", "shared").await;
    let empty = scene.made_in("empty", "shared").await;
    source.sim.scribble(written);
    let id = scene.taken("before", true).await;
    source.sim.scribble(empty);
    let held = 1024 + 200 + (1024 + 128 + 200);
    assert_eq!(scene.of_shared("shared").await, [held, held]);
    target.sim.delay(Call::Receive, Duration::from_millis(50));
    scene.migrate(&target.name).await.unwrap();
    assert_eq!(scene.of_shared("shared").await, [held, held], "once");
    scene.sound().await;
    scene.went(source, target).await;
    assert_eq!(scene.of_shared("shared").await, [held, held]);
    assert_eq!((on(source).await, on(target).await), (vec![], vec![id]));
    // It is gone back to there, and with it what was written since.
    let vm = scene.revert(id).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(target.sim.effects(scene.vm).reverted, 1);
    assert_eq!(target.sim.reads_zeros(written), Some(false));
    assert_eq!(target.sim.reads_zeros(empty), Some(true));
    // Asleep it goes as well, and is deleted where it is then.
    scene.through(VmAction::Suspend).await;
    scene.migrate(&source.name).await.unwrap();
    scene.went(target, source).await;
    scene.through(VmAction::Resume).await;
    assert_eq!((on(source).await, on(target).await), (vec![id], vec![]));
    let args = ActionArgs::Snapshot(id);
    scene.ask(VmAction::RemoveSnapshot, args).await.unwrap();
    assert_eq!(scene.succeeds().await, VmState::Running);
    assert_eq!(scene.of_shared("shared").await, [1224, 1224]);
    assert_eq!(on(source).await, []);
}

#[tokio::test]
async fn they_go_with_the_files_of_a_vm_that_does_not_run() {
    let scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    let ids = scene.load(source).await;
    let fast = scene.of_shared("fast").await;
    let id = scene.taken("before", false).await;
    source.sim.scribble(ids[2]);
    let (before, shared) = (scene.used().await, scene.of_shared("shared").await);
    assert_eq!(before.disk_mib, MiB(100 + 100), "what is in `local`");
    assert_eq!(shared, [1024 + 100 + 1024 + 100; 2]);
    // While it runs, some of what it writes is copied as its guest sees it.
    let told = scene.refusal(target).await;
    assert_eq!(
        told,
        "`web-1` has snapshots, which do not go along with a disk that is copied while it is \
         written: power it off or suspend it first, or delete them"
    );
    scene.through(VmAction::PowerOff).await;
    target
        .sim
        .fail_next(Call::Import, host_fault("it does not like it"));
    // Not before it was looked at.
    source.sim.delay(Call::Export, Duration::from_millis(300));
    for (fails, at) in [(true, source), (false, target)] {
        scene.migrate(&target.name).await.unwrap();
        let claimed = scene.of_shared("fast").await;
        assert_eq!(claimed, [200, 200], "of both hosts");
        assert_eq!(scene.used().await.disk_mib, MiB(400), "the same");
        assert_eq!(scene.of_shared("shared").await, shared);
        scene.sound().await;
        let vm = scene.world.until_rest(scene.vm).await;
        let failed = vm.operation.unwrap().state == OperationState::Failed;
        assert_eq!((failed, vm.host.unwrap().id), (fails, at.id));
        scene.sound().await;
        assert_eq!(scene.used().await.disk_mib, before.disk_mib);
        assert_eq!(scene.of_shared("shared").await, shared);
        assert_eq!(on(at).await, [id]);
    }
    assert_eq!(on(source).await, []);
    let mut twice = fast.iter().map(|mib| mib * 2).collect::<Vec<_>>();
    twice.reverse();
    assert_eq!(scene.of_shared("fast").await, twice);
    assert_eq!(target.sim.reads_zeros(ids[2]), Some(false));
    scene.revert(id).await;
    let zeros = ids.map(|id| target.sim.reads_zeros(id));
    assert_eq!(zeros, [Some(false), Some(false), Some(true)], "as then");
    scene.through(VmAction::Start).await;
    scene.through(VmAction::Delete).await;
    assert_eq!(scene.of_shared("shared").await, [100, 100]);
    scene.sound().await;
}

#[tokio::test]
async fn a_memory_in_one_goes_to_hosts_that_can_use_it() {
    let mut scene = Scene::of_two().await;
    let (_, target) = scene.source_and_target().await;
    let (to, name) = (target.id, target.name.clone());
    let to = scene.hosts.iter().position(|host| host.id == to).unwrap();
    let taken = scene.taken("before", true).await;
    scene.through(VmAction::PowerOff).await;
    scene.hosts[to].disconnect();
    scene.hosts[to].sim.set_hardware(Hardware {
        machine_type: "simulated-1".to_owned(),
        cpu_model: "other".to_owned(),
        live_migration: true,
    });
    scene.hosts[to].connect(&scene.world.engine).await;
    assert_eq!(
        scene.refusal(&scene.hosts[to]).await,
        format!(
            "host `{name}` gives machines CPU model other, and the host of `web-1` simulated: \
             with the memory in a snapshot of it, none can go from one to the other"
        )
    );
    let args = ActionArgs::Snapshot(taken);
    scene.ask(VmAction::RemoveSnapshot, args).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    scene.taken("after", false).await;
    let used = scene.used().await;
    scene.migrate(&name).await.unwrap();
    assert_eq!(scene.succeeds().await, VmState::PoweredOff);
    assert_eq!(scene.used().await, used);
    assert_eq!(on(&scene.hosts[to]).await.len(), 1);
}

#[tokio::test]
async fn they_are_handed_over_where_nothing_is_copied_and_nothing_runs() {
    let scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    let volume = scene.made_in("both", "shared").await;
    source.sim.scribble(volume);
    let whole = scene.taken("whole", false).await;
    let args = ActionArgs::TakeSnapshot(TakeSnapshot {
        name: "of-both".to_owned(),
        memory: false,
        volume: Some("both".to_owned()),
    });
    scene.ask(VmAction::Snapshot, args).await.unwrap();
    assert_eq!(scene.succeeds().await, VmState::Running);
    scene.through(VmAction::PowerOff).await;
    let held = scene.of_shared("shared").await;
    scene.migrate(&target.name).await.unwrap();
    assert_eq!(scene.succeeds().await, VmState::PoweredOff);
    assert_eq!(scene.of_shared("shared").await, held);
    assert_eq!(on(target).await.len(), 2);
    scene.revert(whole).await;
    assert_eq!(target.sim.reads_zeros(volume), Some(false));
    assert_eq!(target.sim.boots(scene.vm), Some(1));
    scene.through(VmAction::Delete).await;
    assert_eq!(scene.of_shared("shared").await, [100, 100]);
    scene.sound().await;
}

#[tokio::test]
async fn what_they_hold_of_a_host_that_was_left_is_held_until_it_is_clean() {
    let mut scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    let (source, name) = (source.id, target.name.clone());
    let from = scene.hosts.iter().position(|host| host.id == source);
    let from = from.unwrap();
    scene.made_in("fast", "fast").await;
    let id = scene.taken("before", false).await;
    scene.through(VmAction::PowerOff).await;
    for _ in 0..20 {
        let away = Mishap::Fail(host_fault("not now"));
        scene.hosts[from].sim.mishap(Call::Clean, away);
    }
    scene.migrate(&name).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.host.unwrap().name, name);
    scene.sound().await;
    // It is deleted where it has gone, and what it held there given back alone.
    let args = ActionArgs::Snapshot(id);
    scene.ask(VmAction::RemoveSnapshot, args).await.unwrap();
    scene.succeeds().await;
    let mut fast = scene.of_shared("fast").await;
    fast.sort_unstable();
    assert_eq!(fast, [100, 200]);
    scene.connects_until_left(from).await;
    let clean = async {
        while scene.of_shared("fast").await.contains(&200) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let clean = tokio::time::timeout(Duration::from_secs(20), clean);
    clean.await.unwrap();
    let mut fast = scene.of_shared("fast").await;
    fast.sort_unstable();
    assert_eq!(fast, [0, 100]);
    assert_eq!(on(&scene.hosts[from]).await, []);
    scene.sound().await;
}

#[tokio::test]
async fn cancelled_or_deleted_on_the_way_nothing_is_lost_and_nothing_held_twice() {
    for index in 0..2 {
        for deleted in [false, true] {
            let scene = Scene::of_sharing().await;
            let (source, target) = scene.source_and_target().await;
            scene.made_in("fast", "fast").await;
            let id = scene.taken("before", false).await;
            scene.through(VmAction::PowerOff).await;
            let (fast, used) = (scene.of_shared("fast").await, scene.used().await);
            let (host, call) = [(source, Call::Export), (target, Call::Import)][index];
            host.sim.delay(call, Duration::from_secs(3600));
            let begun = scene.migrate(&target.name).await.unwrap();
            scene.until_step(index).await;
            if deleted {
                let vm = scene.through(VmAction::Delete).await;
                assert_eq!(vm.state, VmState::Done);
                assert_eq!(on(source).await, []);
                assert_eq!(scene.of_shared("shared").await, [0, 0]);
            } else {
                let (engine, admin) = (&scene.world.engine, &scene.world.admin);
                engine.cancel_operation(admin, begun.id).await.unwrap();
                let vm = scene.world.until_rest(scene.vm).await;
                assert_eq!(vm.state, VmState::PoweredOff);
                assert_eq!(on(source).await, [id]);
                assert_eq!(scene.of_shared("fast").await, fast);
                assert_eq!(scene.used().await, used);
            }
            assert_eq!(on(target).await, []);
            scene.sound().await;
        }
    }
}

#[tokio::test]
async fn they_do_not_go_into_a_datastore_that_is_named() {
    let scene = Scene::of(roomy_hosts().into_iter()).await;
    let (_, target) = scene.source_and_target().await;
    scene.taken("before", false).await;
    for off in [false, true] {
        if off {
            scene.through(VmAction::PowerOff).await;
        }
        let refused = scene.migrate_as(into(target, "fast")).await.unwrap_err();
        assert_eq!(
            refused.public,
            "`web-1` has snapshots, which do not go to datastore `fast` with its disks: migrate \
             it without naming one, or delete them first"
        );
        scene.sound().await;
    }
}
