//! VMs that go to another host, and do not run.

use std::time::Duration;

use vimana_driver::{Fault, FaultKind, Power};
use vimana_driver_sim::{Call, Mishap};
use vimana_engine::ActionArgs;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::migration::{MigrateVm, MigrationMode};
use vimana_model::operation::{OperationState, StepKind, StepState};
use vimana_model::unit::MiB;
use vimana_model::vm::VmView;

use super::Scene;
use super::migrations::{host_fault, states};

/// A VM that does not run.
struct Rest {
    /// How it comes to that.
    by: VmAction,
    state: VmState,
    power: Power,
    /// How it goes on, and how often it is then loaded and booted.
    on: VmAction,
    calls: (u32, u32),
}

const RESTS: [Rest; 2] = [
    Rest {
        by: VmAction::PowerOff,
        state: VmState::PoweredOff,
        power: Power::Off,
        on: VmAction::Start,
        calls: (0, 1),
    },
    Rest {
        by: VmAction::Suspend,
        state: VmState::Suspended,
        power: Power::Saved,
        on: VmAction::Resume,
        calls: (1, 0),
    },
];

impl Scene {
    /// It does not run, and is where it was.
    async fn kept(&self, before: &VmView) -> VmView {
        let vm = self.world.until_rest(self.vm).await;
        assert_eq!((vm.state, &vm.host), (before.state, &before.host));
        assert_eq!(self.saved().await, []);
        self.sound().await;
        vm
    }
}

#[tokio::test]
async fn a_vm_that_does_not_run_goes_to_another_host_and_goes_on_there() {
    for rest in RESTS {
        let scene = Scene::of_two().await;
        let (source, target) = scene.source_and_target().await;
        scene.through(rest.by).await;
        let before = scene.used().await;
        let begun = scene.migrate(&target.name).await.unwrap();
        let vm = scene.went(source, target).await;
        assert_eq!(vm.state, rest.state);
        assert_eq!(target.sim.power(scene.vm), Some(rest.power));
        assert_eq!(source.sim.left_behind(scene.vm), [""; 0]);
        assert_eq!(scene.used().await, before);
        assert_eq!(scene.saved().await, []);
        let operation = vm.operation.unwrap();
        assert_eq!(
            (operation.id, operation.state),
            (begun.id, OperationState::Succeeded)
        );
        let migration = operation.migration.unwrap();
        assert_eq!(migration.mode, MigrationMode::Cold);
        assert_eq!(migration.from.unwrap().id, source.id);
        let result = migration.result.unwrap();
        assert!(result.transferred_bytes > 0, "{result:?}");
        assert_eq!((result.blackout_ms, result.downtime_ms), (None, None));
        let vm = scene.through(rest.on).await;
        assert_eq!(vm.state, VmState::Running);
        assert_eq!(target.sim.power(scene.vm), Some(Power::Running));
        let effects = target.sim.effects(scene.vm);
        assert_eq!((effects.loaded, effects.booted), rest.calls);
        scene.migrate(&source.name).await.unwrap();
        scene.went(target, source).await;
        scene.through(VmAction::Delete).await;
        assert_eq!(scene.used().await.disk_mib, MiB(0));
        scene.sound().await;
    }
}

#[tokio::test]
async fn a_stopped_vm_comes_to_a_host_and_waits_there_with_its_memory() {
    let scene = Scene::of_two().await;
    let (_, target) = scene.source_and_target().await;
    scene.through(VmAction::Stop).await;
    assert_eq!(scene.used().await.disk_mib, MiB(0));
    let targets = scene
        .world
        .engine
        .migration_targets(&scene.world.admin, scene.vm);
    assert_eq!(targets.await.unwrap().len(), 2, "it is on none");
    scene.migrate(&target.name).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::Suspended);
    assert_eq!(vm.host.unwrap().id, target.id);
    assert_eq!(target.sim.power(scene.vm), Some(Power::Saved));
    assert_eq!(scene.saved().await, []);
    let migration = vm.operation.unwrap().migration.unwrap();
    assert_eq!(migration.from, None);
    assert!(migration.result.is_some());
    scene.sound().await;
    let vm = scene.through(VmAction::Resume).await;
    assert_eq!(vm.state, VmState::Running);
    scene.through(VmAction::Delete).await;
    assert_eq!(scene.used().await.disk_mib, MiB(0));
    scene.sound().await;
}

#[tokio::test]
async fn a_stopped_vm_that_cannot_come_stays_in_the_datastore() {
    let scene = Scene::of_two().await;
    let (_, target) = scene.source_and_target().await;
    scene.through(VmAction::Stop).await;
    for mishap in [
        Mishap::Fail(host_fault("the disk is damaged")),
        Mishap::FailAfter(host_fault("the disk is damaged")),
    ] {
        target.sim.mishap(Call::Import, mishap);
        scene.migrate(&target.name).await.unwrap();
        let vm = scene.world.until_rest(scene.vm).await;
        assert_eq!((vm.state, &vm.host), (VmState::Stopped, &None));
        assert_eq!(target.sim.left_behind(scene.vm), [""; 0]);
        assert_eq!(scene.used().await.disk_mib, MiB(0));
    }
    let vm = scene.through(VmAction::Resume).await;
    assert_eq!(vm.state, VmState::Running);
}

#[tokio::test]
async fn one_that_does_not_arrive_stays_where_it_was_with_all_that_it_had() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let fault = host_fault("the disk is damaged");
    for rest in RESTS {
        let before = scene.through(rest.by).await;
        for (host, call, mishap) in [
            (source, Call::Export, Mishap::Fail(fault.clone())),
            (target, Call::Import, Mishap::Fail(fault.clone())),
            // It is there, and nobody knows.
            (target, Call::Import, Mishap::FailAfter(fault.clone())),
        ] {
            host.sim.mishap(call, mishap);
            scene.migrate(&target.name).await.unwrap();
            let vm = scene.kept(&before).await;
            assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
            assert_eq!(source.sim.power(scene.vm), Some(rest.power.clone()));
            assert_eq!(target.sim.power(scene.vm), None);
        }
        for (host, call, index) in [(source, Call::Export, 0), (target, Call::Import, 1)] {
            host.sim.delay(call, Duration::from_secs(3600));
            let begun = scene.migrate(&target.name).await.unwrap();
            scene.until_step(index).await;
            let (engine, admin) = (&scene.world.engine, &scene.world.admin);
            engine.cancel_operation(admin, begun.id).await.unwrap();
            let vm = scene.kept(&before).await;
            assert_eq!(vm.operation.unwrap().state, OperationState::Cancelled);
            assert_eq!(target.sim.power(scene.vm), None);
            host.sim.delay(call, Duration::ZERO);
        }
        assert_eq!(scene.through(rest.on).await.state, VmState::Running);
        assert_eq!(source.sim.power(scene.vm), Some(Power::Running));
    }
}

#[tokio::test]
async fn one_that_is_deleted_on_its_way_leaves_nothing_anywhere() {
    for index in 0..2 {
        let scene = Scene::of_two().await;
        let (source, target) = scene.source_and_target().await;
        scene.through(VmAction::PowerOff).await;
        source.sim.delay(Call::Export, Duration::from_millis(50));
        target.sim.delay(Call::Import, Duration::from_secs(3600));
        scene.migrate(&target.name).await.unwrap();
        scene.until_step(index).await;
        let vm = scene.through(VmAction::Delete).await;
        assert_eq!(vm.state, VmState::Done);
        for host in [source, target] {
            assert_eq!(host.sim.left_behind(scene.vm), [""; 0]);
        }
        assert_eq!(scene.saved().await, []);
        assert_eq!(scene.used().await.disk_mib, MiB(0));
        scene.sound().await;
    }
}

/// The one it goes to being away, it waits for nobody; its own, it waits.
#[tokio::test]
async fn one_whose_new_host_falls_silent_is_free_where_it_was() {
    let mut scene = Scene::of_two().await;
    let (_, target) = scene.source_and_target().await;
    let before = scene.through(VmAction::Suspend).await;
    let used = scene.used().await;
    let there = target.name.clone();
    target.sim.delay(Call::Import, Duration::from_secs(3600));
    scene.migrate(&there).await.unwrap();
    scene.until_step(1).await;
    let index = scene.hosts.iter().position(|host| host.name == there);
    let index = index.unwrap();
    scene.hosts[index].disconnect();
    let vm = scene.kept(&before).await;
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Failed);
    let said = operation.error.unwrap();
    assert_eq!(said, format!("host `{there}` is silent"));
    let engine = scene.world.engine.clone();
    scene.hosts[index].connect(&engine).await;
    let given_back = async {
        while scene.used().await != used {
            tokio::task::yield_now().await;
        }
    };
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, given_back).await.unwrap();
    assert_eq!(
        scene.through(VmAction::Resume).await.state,
        VmState::Running
    );
    scene.sound().await;
}

#[tokio::test]
async fn what_it_left_and_cannot_be_cleaned_costs_it_nothing() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    scene.through(VmAction::PowerOff).await;
    let fault = Fault::new(FaultKind::Unsupported, "the disk is read-only");
    source.sim.mishap(Call::Clean, Mishap::Fail(fault));
    scene.migrate(&target.name).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::PoweredOff);
    assert_eq!(vm.host.as_ref().unwrap().id, target.id);
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(
        states(&operation),
        [
            (StepKind::Upload, StepState::Done),
            (StepKind::Arrive, StepState::Done),
            (StepKind::Discard, StepState::Done),
            (StepKind::Leave, StepState::Failed),
        ]
    );
    assert_eq!(scene.through(VmAction::Start).await.state, VmState::Running);
    assert_eq!(scene.log().breaches(), [""; 0]);
    scene.sound().await;
}

#[tokio::test]
async fn a_mode_that_does_not_suit_is_refused_in_words() {
    let scene = Scene::of_two().await;
    let (_, target) = scene.source_and_target().await;
    let ask = async |mode: MigrationMode| {
        let form = MigrateVm {
            host: Some(target.name.clone()),
            mode: Some(mode),
            ..MigrateVm::default()
        };
        let asked = scene.ask(VmAction::Migrate, ActionArgs::Migrate(form));
        asked.await.unwrap_err()
    };
    assert_eq!(
        ask(MigrationMode::Cold).await.public,
        "`web-1` runs: it migrates live; suspend it or power it off first"
    );
    assert_eq!(ask(MigrationMode::Storage).await.fields[0].field, "host");
    scene.through(VmAction::Suspend).await;
    assert_eq!(
        ask(MigrationMode::Live).await.public,
        "`web-1` does not run: it migrates cold"
    );
}
