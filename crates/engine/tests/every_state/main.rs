//! Every state and edge of the automatic life-cycle, and the way back from
//! each, with the real engine on simulated hosts.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may give up loudly"
)]

mod backups;
mod carried;
mod cold;
mod evacuations;
mod fleet;
mod migrations;
mod moves;
mod post_copy;
mod snapshots;
mod volumes;

use std::time::Duration;

use vimana_datastore::{DatastoreDriver as _, DirDatastore, Item};
use vimana_driver::{Fault, FaultKind, Power};
use vimana_driver_sim::{Call, Mishap};
use vimana_engine::{Acted, ActionArgs, IdempotencyKey};
use vimana_model::action::VmAction;
use vimana_model::operation::{OperationKind, OperationState, StepState};
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::{CreateVm, ResizeVm, VmView};
use vimana_model::{ErrorKind, VmId, VmState};
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

struct Scene {
    world: TestWorld,
    hosts: Vec<TestHost>,
    _scheduler: TestScheduler,
    vm: VmId,
}

impl Scene {
    /// One VM that runs, on one of `hosts`.
    async fn new(count: u8) -> Self {
        let hosts = 1..=count;
        Self::of(
            hosts.map(|number| TestHost::new(number).with_datastore("fast", number, MiB(1000))),
        )
        .await
    }

    async fn of(made: impl Iterator<Item = TestHost>) -> Self {
        let world = TestWorld::new().await;
        let mut hosts = Vec::new();
        for mut host in made {
            host.sim.set_hot_resize(false);
            host.connect(&world.engine).await;
            hosts.push(host);
        }
        let scheduler = TestScheduler::connect(&world.engine).await;
        let vm = world.create("web-1").await.id;
        world.until(vm, VmState::Running).await;
        Self {
            world,
            hosts,
            _scheduler: scheduler,
            vm,
        }
    }

    /// A VM that runs on another host than the scene's.
    async fn on_another_host(&self) -> VmId {
        let on = self.world.vm(self.vm).await.host.unwrap();
        loop {
            let vm = self.world.create("web").await.id;
            let running = self.world.until(vm, VmState::Running).await;
            if running.host.unwrap().id != on.id {
                return vm;
            }
            self.world.operate(vm, VmAction::Delete).await;
            self.world.until(vm, VmState::Done).await;
        }
    }

    async fn used(&self) -> Resources {
        let hosts = self.world.engine.hosts(&self.world.admin).await.unwrap();
        let sum = |amount: fn(Resources) -> u64| hosts.iter().map(|h| amount(h.used)).sum();
        Resources {
            vcpus: hosts.iter().map(|host| host.used.vcpus).sum(),
            memory_mib: MiB(sum(|used| used.memory_mib.0)),
            disk_mib: MiB(sum(|used| used.disk_mib.0)),
        }
    }

    fn host_of(&self, vm: &VmView) -> &TestHost {
        let on = vm.host.as_ref().unwrap().id;
        self.hosts.iter().find(|host| host.id == on).unwrap()
    }

    /// Lets the action run to its end and gives the VM as it is then.
    async fn through(&self, action: VmAction) -> VmView {
        self.world.operate(self.vm, action).await;
        self.world.until_rest(self.vm).await
    }

    async fn saved(&self) -> Vec<VmId> {
        let dir = self.world.dir.path().join("saved");
        let held = DirDatastore::new(dir).holds().await.unwrap();
        let saved = held.into_iter().filter_map(|item| match item {
            Item::Saved(vm) => Some(vm),
            Item::Backup(_) => None,
        });
        saved.collect()
    }
}

const TINY: Resources = Resources {
    vcpus: 1,
    memory_mib: MiB(128),
    disk_mib: MiB(1024),
};

fn disk_of(mib: u64) -> Resources {
    Resources {
        disk_mib: MiB(mib),
        ..Resources::default()
    }
}

#[tokio::test]
async fn a_suspended_vm_gives_its_capacity_back_and_runs_on_where_it_was() {
    let scene = Scene::new(1).await;
    let suspended = scene.through(VmAction::Suspend).await;
    assert_eq!(suspended.state, VmState::Suspended);
    assert_eq!(scene.used().await, disk_of(1024 + 128));
    let host = &scene.hosts[0];
    assert_eq!(host.sim.power(scene.vm), Some(Power::Saved));

    let resumed = scene.through(VmAction::Resume).await;
    assert_eq!(resumed.state, VmState::Running);
    assert_eq!(resumed.run_epoch, suspended.run_epoch + 1);
    assert_eq!(scene.used().await, TINY);
    let effects = host.sim.effects(scene.vm);
    assert_eq!((effects.booted, effects.saved, effects.loaded), (1, 1, 1));
}

#[tokio::test]
async fn a_stopped_vm_holds_no_host_and_resumes_on_another() {
    let mut scene = Scene::new(2).await;
    let first = scene.world.vm(scene.vm).await.host.unwrap();
    let stopped = scene.through(VmAction::Stop).await;
    assert_eq!(stopped.state, VmState::Stopped);
    assert_eq!(stopped.host, None);
    assert_eq!(scene.used().await, Resources::default());

    // Its host goes away for good; the other one takes it.
    let gone = scene.hosts.iter().position(|h| h.id == first.id).unwrap();
    scene.hosts[gone].disconnect();
    let resumed = scene.through(VmAction::Resume).await;
    assert_eq!(resumed.state, VmState::Running);
    assert_ne!(resumed.host.as_ref().unwrap().id, first.id);
    let effects = scene.host_of(&resumed).sim.effects(scene.vm);
    assert_eq!((effects.booted, effects.loaded), (0, 1));
    let back = scene.through(VmAction::Delete).await;
    assert_eq!(back.state, VmState::Done);
}

#[tokio::test]
async fn a_suspended_vm_can_be_stopped() {
    let scene = Scene::new(1).await;
    scene.through(VmAction::Suspend).await;
    let stopped = scene.through(VmAction::Stop).await;
    assert_eq!(stopped.state, VmState::Stopped);
    assert_eq!(scene.used().await, Resources::default());
    // Deleted from there, nothing is left.
    let done = scene.through(VmAction::Delete).await;
    assert_eq!(done.state, VmState::Done);
    assert!(scene.saved().await.is_empty());
}

#[tokio::test]
async fn a_guest_that_switches_itself_off_is_powered_off_and_starts_again() {
    let scene = Scene::new(1).await;
    assert!(scene.hosts[0].sim.guest_power_off(scene.vm));
    scene.world.until(scene.vm, VmState::PoweredOff).await;
    assert_eq!(scene.used().await, disk_of(1024));
    let started = scene.through(VmAction::Start).await;
    assert_eq!((started.state, started.run_epoch), (VmState::Running, 2));
    assert_eq!(scene.used().await, TINY);

    let off = scene.through(VmAction::PowerOff).await;
    assert_eq!(off.state, VmState::PoweredOff);
    let started = scene.through(VmAction::Start).await;
    assert_eq!(started.run_epoch, 3);
    let force = ActionArgs::PowerOff(vimana_model::vm::PowerOffVm { force: true });
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let acted = engine.act_on_vm(admin, scene.vm, VmAction::PowerOff, force);
    acted.await.unwrap();
    let off = scene.world.until_rest(scene.vm).await;
    assert_eq!(off.state, VmState::PoweredOff);
    assert_eq!(scene.hosts[0].sim.effects(scene.vm).stopped, 1);
}

#[tokio::test]
async fn a_restart_keeps_the_run() {
    let scene = Scene::new(1).await;
    for action in [VmAction::Reboot, VmAction::Reset] {
        let after = scene.through(action).await;
        assert_eq!((after.state, after.run_epoch), (VmState::Running, 1));
    }
}

#[tokio::test]
async fn a_start_without_room_is_refused_and_changes_nothing() {
    let scene = Scene::new(1).await;
    scene.through(VmAction::PowerOff).await;
    // Another one takes the room.
    let form = CreateVm {
        name: "big".to_owned(),
        image: "demo".to_owned(),
        flavor: "medium".to_owned(),
        ..CreateVm::default()
    };
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    for n in 0..2 {
        let form = CreateVm {
            name: format!("big-{n}"),
            ..form.clone()
        };
        let big = engine.create_vm(admin, &form).await.unwrap().vm;
        scene.world.until(big.id, VmState::Running).await;
    }
    let before = scene.used().await;
    let refused = scene.world.act(scene.vm, VmAction::Start).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.public.contains("has no room"), "{refused:?}");
    assert_eq!(scene.used().await, before);
    assert_eq!(scene.world.vm(scene.vm).await.state, VmState::PoweredOff);
}

#[tokio::test]
async fn a_save_that_fails_leaves_the_machine_running() {
    let scene = Scene::new(1).await;
    let full = Fault::new(FaultKind::NoSpace, "the host's disk is full");
    for action in [VmAction::Suspend, VmAction::Stop] {
        scene.hosts[0].sim.fail_next(Call::Save, full.clone());
        let after = scene.through(action).await;
        assert_eq!(after.state, VmState::Running, "{action}");
        let operation = after.operation.unwrap();
        assert_eq!(operation.state, OperationState::Failed);
        assert_eq!(operation.error.as_deref(), Some("the host's disk is full"));
        assert_eq!(operation.steps[0].state, StepState::Undone);
        assert_eq!(scene.used().await, TINY);
    }
    assert_eq!(scene.hosts[0].sim.power(scene.vm), Some(Power::Running));
}

#[tokio::test]
async fn a_resume_that_failed_after_its_work_was_done_leaves_the_vm_running() {
    let scene = Scene::new(1).await;
    scene.through(VmAction::Suspend).await;
    let host = &scene.hosts[0];
    // The machine runs, and its host says that it does not, the first time in
    // a way that may pass and then in one that does not.
    let host_fault = Fault::new(FaultKind::Host, "the host has a bad moment");
    host.sim.mishap(Call::Load, Mishap::FailAfter(host_fault));
    let full = Fault::new(FaultKind::NoSpace, "the host's disk is full");
    host.sim.mishap(Call::Load, Mishap::Fail(full));
    let vm = scene.through(VmAction::Resume).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    assert_eq!(host.sim.power(scene.vm), Some(Power::Running));
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(scene.used().await, TINY);
    let off = scene.through(VmAction::PowerOff).await;
    assert_eq!(off.state, VmState::PoweredOff);
}

#[tokio::test]
async fn a_create_that_fails_leaves_nothing_on_the_host_and_can_be_retried() {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    host.connect(&world.engine).await;
    let _scheduler = TestScheduler::connect(&world.engine).await;
    let fault = Fault::new(FaultKind::Hypervisor, "it does not like it");
    for call in [Call::Prepare, Call::Boot] {
        host.sim.fail_next(call, fault.clone());
        let vm = world.create(&format!("web-{call:?}").to_lowercase()).await;
        let failed = world.until(vm.id, VmState::Failed).await;
        assert_eq!(failed.host, None);
        assert_eq!(host.sim.power(vm.id), None);
        let hosts = world.engine.hosts(&world.admin).await.unwrap();
        assert_eq!(hosts[0].used, Resources::default());
        world.operate(vm.id, VmAction::Retry).await;
        world.until(vm.id, VmState::Running).await;
        world.operate(vm.id, VmAction::Delete).await;
        world.until(vm.id, VmState::Done).await;
    }
}

#[tokio::test]
async fn a_crashed_machine_is_started_again_by_a_retry() {
    let scene = Scene::new(1).await;
    scene.hosts[0].sim.crash(scene.vm, "killed by signal 9");
    scene.world.until(scene.vm, VmState::Failed).await;
    assert_eq!(scene.used().await, disk_of(1024));
    let running = scene.through(VmAction::Retry).await;
    assert_eq!((running.state, running.run_epoch), (VmState::Running, 2));
    assert_eq!(scene.used().await, TINY);
}

#[tokio::test]
async fn a_fault_that_may_pass_is_tried_again() {
    let scene = Scene::new(1).await;
    let away = Fault::new(FaultKind::Unavailable, "the server is away");
    scene.hosts[0].sim.fail_next(Call::Export, away);
    let stopped = scene.through(VmAction::Stop).await;
    assert_eq!(stopped.state, VmState::Stopped);
    assert_eq!(stopped.operation.unwrap().steps[1].attempts, 2);
}

#[tokio::test]
async fn what_is_cancelled_is_taken_back() {
    let scene = Scene::new(1).await;
    let sim = &scene.hosts[0].sim;
    sim.delay(Call::Save, Duration::from_secs(3600));
    for kind in [VmAction::Suspend, VmAction::Stop] {
        let operation = scene.world.operate(scene.vm, kind).await.operation;
        let (engine, admin) = (&scene.world.engine, &scene.world.admin);
        engine.cancel_operation(admin, operation.id).await.unwrap();
        let after = scene.world.until_rest(scene.vm).await;
        assert_eq!(after.state, VmState::Running);
        let operation = after.operation.unwrap();
        assert_eq!(operation.state, OperationState::Cancelled);
        assert_eq!(operation.cancelled_by.as_deref(), Some("admin"));
        assert_eq!(scene.used().await, TINY);
        let again = engine.cancel_operation(admin, operation.id).await;
        assert_eq!(again.unwrap_err().kind, ErrorKind::Conflict);
    }
}

#[tokio::test]
async fn a_cancelled_creation_is_held_and_can_be_released() {
    let world = TestWorld::new().await;
    let vm = world.create("web-1").await;
    let operation = vm.operation.unwrap();
    let cancelled = world.engine.cancel_operation(&world.admin, operation.id);
    assert_eq!(cancelled.await.unwrap().state, OperationState::Cancelled);
    assert_eq!(world.vm(vm.id).await.state, VmState::Hold);
    let mut host = TestHost::new(1);
    host.connect(&world.engine).await;
    let _scheduler = TestScheduler::connect(&world.engine).await;
    world.act(vm.id, VmAction::Release).await.unwrap();
    world.until(vm.id, VmState::Running).await;

    // While it is being prepared, too.
    let second = world.create("web-2").await;
    world.until(second.id, VmState::Running).await;
    host.sim.delay(Call::Prepare, Duration::from_secs(3600));
    let third = world.create("web-3").await;
    world.until(third.id, VmState::Prolog).await;
    let operation = third.operation.unwrap();
    let cancelled = world.engine.cancel_operation(&world.admin, operation.id);
    cancelled.await.unwrap();
    let held = world.until(third.id, VmState::Hold).await;
    assert_eq!(held.host, None);
    assert_eq!(host.sim.power(third.id), None);
}

#[tokio::test]
async fn an_operation_in_flight_refuses_others_but_a_deletion() {
    let scene = Scene::new(1).await;
    scene.hosts[0]
        .sim
        .delay(Call::Save, Duration::from_secs(3600));
    scene.world.operate(scene.vm, VmAction::Suspend).await;
    let refused = scene.world.act(scene.vm, VmAction::Reset).await;
    let sentence = "`web-1` is being suspended; wait for it, or cancel it";
    assert_eq!(refused.unwrap_err().public, sentence);
    let done = scene.through(VmAction::Delete).await;
    assert_eq!(done.state, VmState::Done);
    assert_eq!(scene.used().await, Resources::default());
}

#[tokio::test]
async fn a_size_changes_cold_and_where_the_host_can_hot() {
    let scene = Scene::new(1).await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let larger = |vcpus: u32| {
        ActionArgs::Resize(ResizeVm {
            vcpus: Some(vcpus),
            memory_mib: Some(MiB(256)),
            ..ResizeVm::default()
        })
    };
    let refused = engine.act_on_vm(admin, scene.vm, VmAction::Resize, larger(2));
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.public.contains("power it off first"));

    scene.through(VmAction::PowerOff).await;
    let to_small = ActionArgs::Resize(ResizeVm {
        flavor: Some("small".to_owned()),
        ..ResizeVm::default()
    });
    let acted = engine.act_on_vm(admin, scene.vm, VmAction::Resize, to_small);
    let Acted::Accepted(accepted) = acted.await.unwrap() else {
        panic!("a resize is an operation");
    };
    assert_eq!(accepted.operation.state, OperationState::Succeeded);
    assert_eq!(accepted.vm.flavor.as_str(), "small");
    assert_eq!(scene.used().await, disk_of(5 * 1024));
    let started = scene.through(VmAction::Start).await;
    assert_eq!(started.resources.memory_mib, MiB(512));
    let shrunk = ActionArgs::Resize(ResizeVm {
        disk_mib: Some(MiB(1)),
        ..ResizeVm::default()
    });
    let refused = engine.act_on_vm(admin, scene.vm, VmAction::Resize, shrunk);
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid, "{refused:?}");
}

#[tokio::test]
async fn a_running_machine_grows_where_its_host_can() {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    host.sim.set_hot_resize(true);
    host.connect(&world.engine).await;
    let _scheduler = TestScheduler::connect(&world.engine).await;
    let vm = world.create("web-1").await.id;
    world.until(vm, VmState::Running).await;
    let larger = ActionArgs::Resize(ResizeVm {
        vcpus: Some(2),
        ..ResizeVm::default()
    });
    let (engine, admin) = (&world.engine, &world.admin);
    let acted = engine.act_on_vm(admin, vm, VmAction::Resize, larger);
    acted.await.unwrap();
    let grown = world.until_rest(vm).await;
    assert_eq!(grown.operation.unwrap().kind, OperationKind::Resize);
    assert_eq!(grown.resources.vcpus, 2);
    assert_eq!(engine.hosts(admin).await.unwrap()[0].used.vcpus, 2);
}

#[tokio::test]
async fn the_disk_of_a_running_machine_grows_on_any_host() {
    let scene = Scene::new(1).await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let larger = ActionArgs::Resize(ResizeVm {
        disk_mib: Some(MiB(2048)),
        ..ResizeVm::default()
    });
    let acted = engine.act_on_vm(admin, scene.vm, VmAction::Resize, larger);
    acted.await.unwrap();
    let grown = scene.world.until_rest(scene.vm).await;
    assert_eq!(grown.state, VmState::Running);
    assert_eq!(grown.resources.disk_mib, MiB(2048));
    assert_eq!(scene.used().await, grown.resources);
}

#[tokio::test]
async fn a_size_that_was_not_reached_is_not_recorded() {
    let scene = Scene::new(1).await;
    let sim = &scene.hosts[0].sim;
    sim.set_hot_resize(true);
    // Hosts say what they can when they connect.
    let mut host = scene.hosts.into_iter().next().unwrap();
    host.disconnect();
    host.connect(&scene.world.engine).await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let small = ActionArgs::Resize(ResizeVm {
        flavor: Some("small".to_owned()),
        ..ResizeVm::default()
    });
    let fault = Fault::new(FaultKind::Hypervisor, "it does not like it");
    host.sim.fail_next(Call::Resize, fault);
    let acted = engine.act_on_vm(admin, scene.vm, VmAction::Resize, small);
    acted.await.unwrap();
    let after = scene.world.until_rest(scene.vm).await;
    assert_eq!(after.operation.unwrap().state, OperationState::Failed);
    assert_eq!((after.flavor.as_str(), after.resources), ("tiny", TINY));
    let hosts = engine.hosts(admin).await.unwrap();
    assert_eq!(hosts[0].used, TINY);
}

#[tokio::test]
async fn one_key_has_one_effect() {
    let world = TestWorld::new().await;
    let form = CreateVm {
        name: "web-1".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    };
    let keyed = |fingerprint: &str| {
        world.admin.clone().with_idempotency(IdempotencyKey {
            key: "abc".to_owned(),
            fingerprint: fingerprint.to_owned(),
        })
    };
    let (same, other) = (keyed("create web-1"), keyed("create web-2"));
    let first = world.engine.create_vm(&same, &form).await.unwrap();
    let again = world.engine.create_vm(&same, &form).await.unwrap();
    assert_eq!(first.operation.id, again.operation.id);
    let all = world.engine.vms(&world.admin, &Default::default()).await;
    assert_eq!(all.unwrap().len(), 1);
    let refused = world.engine.create_vm(&other, &form).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn a_machine_that_is_not_recorded_is_quarantined_until_someone_decides() {
    let mut scene = Scene::new(1).await;
    let (engine, admin) = (scene.world.engine.clone(), scene.world.admin.clone());
    scene.through(VmAction::PowerOff).await;
    scene.through(VmAction::Start).await;
    // The record is gone, as after a database was restored from a backup.
    let host_id = scene.hosts[0].id;
    scene.hosts[0].disconnect();
    let other = TestWorld::new().await;
    scene.hosts[0].forget_session();
    scene.hosts[0].connect(&other.engine).await;
    let orphans = async || {
        let found = other.engine.host_orphans(&other.admin, host_id).await;
        found.unwrap()
    };
    while orphans().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let orphans = orphans().await;
    assert_eq!(orphans.len(), 1);
    assert_eq!(
        (orphans[0].vm_id, orphans[0].power.as_str()),
        (scene.vm, "running")
    );
    assert_eq!(scene.hosts[0].sim.power(scene.vm), Some(Power::Running));

    let discarded = other.engine.discard_orphan(&other.admin, host_id, scene.vm);
    assert!(discarded.await.unwrap().discarding);
    let mut left = 1;
    while left > 0 {
        tokio::task::yield_now().await;
        let orphans = other.engine.host_orphans(&other.admin, host_id).await;
        left = orphans.unwrap().len();
    }
    assert_eq!(scene.hosts[0].sim.power(scene.vm), None);
    drop((engine, admin));
}
