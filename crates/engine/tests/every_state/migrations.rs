//! VMs that go to another host, while they run.

use std::sync::Arc;
use std::time::Duration;

use vimana_driver::{Fault, FaultKind, Power};
use vimana_driver_sim::{Call, Mishap, RunLog};
use vimana_engine::{Acted, ActionArgs};
use vimana_model::action::VmAction;
use vimana_model::migration::MigrateVm;
use vimana_model::operation::{OperationState, OperationView, StepKind, StepState};
use vimana_model::pending::Explanation;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::unit::MiB;
use vimana_model::vm::VmView;
use vimana_model::{Error, VmState};
use vimana_protocol::scheduler::{FromScheduler, ToScheduler};
use vimana_testkit::TestHost;

use super::Scene;

impl Scene {
    /// A VM that runs on one of two hosts that machines can go between.
    pub(super) async fn of_two() -> Self {
        let log = RunLog::new();
        let place = |host: TestHost, number: u8| host.with_datastore("fast", number, MiB(1000));
        Self::of((1..=2).map(|number| place(TestHost::new(number).beside(&log), number))).await
    }

    pub(super) async fn migrate(&self, host: &str) -> Result<OperationView, Error> {
        self.migrate_as(MigrateVm {
            host: Some(host.to_owned()),
            ..MigrateVm::default()
        })
        .await
    }

    pub(super) async fn migrate_as(&self, form: MigrateVm) -> Result<OperationView, Error> {
        let args = ActionArgs::Migrate(form);
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let acted = engine.act_on_vm(admin, self.vm, VmAction::Migrate, args);
        match acted.await? {
            Acted::Accepted(accepted) => Ok(accepted.operation),
            Acted::Vm(vm) => panic!("{vm:?}"),
        }
    }

    /// Where it is, and where it can go.
    pub(super) async fn source_and_target(&self) -> (&TestHost, &TestHost) {
        let on = self.world.vm(self.vm).await.host.unwrap();
        let source = self.hosts.iter().find(|host| host.id == on.id).unwrap();
        let target = self.hosts.iter().find(|host| host.id != on.id).unwrap();
        (source, target)
    }

    /// That step of the latest operation is under way.
    pub(super) async fn until_step(&self, index: usize) {
        self.world
            .until_vm(self.vm, "its step", |vm| {
                let operation = vm.operation.as_ref().unwrap();
                operation.steps[index].state == StepState::Running
            })
            .await;
    }

    pub(super) fn log(&self) -> &Arc<RunLog> {
        self.hosts[0].sim.log()
    }

    /// It runs where it was, and nothing of it is left elsewhere.
    pub(super) async fn stayed(&self, source: &TestHost, target: &TestHost) -> VmView {
        let vm = self.world.until_rest(self.vm).await;
        assert_eq!(vm.state, VmState::Running);
        assert_eq!(vm.host.as_ref().unwrap().id, source.id);
        assert_eq!(source.sim.power(self.vm), Some(Power::Running));
        assert_eq!(target.sim.power(self.vm), None);
        assert_eq!(self.log().breaches(), [""; 0]);
        self.sound().await;
        vm
    }

    /// It is deleted while that call is under way, and nothing of it is left.
    pub(super) async fn deleted(&self, call: Call) {
        let vm = self.through(VmAction::Delete).await;
        assert_eq!(vm.state, VmState::Done, "in {call:?}");
        for host in &self.hosts {
            assert_eq!(host.sim.left_behind(self.vm), [""; 0], "in {call:?}");
        }
        assert_eq!(self.used().await.disk_mib, MiB(0), "in {call:?}");
        assert_eq!(self.log().breaches(), [""; 0]);
        self.sound().await;
    }

    /// It is on its new host, and nothing is left on the old one.
    pub(super) async fn went(&self, source: &TestHost, target: &TestHost) -> VmView {
        let vm = self.world.until_rest(self.vm).await;
        assert_eq!(vm.host.as_ref().unwrap().id, target.id);
        assert_eq!(source.sim.power(self.vm), None);
        assert_eq!(self.log().breaches(), [""; 0]);
        self.sound().await;
        vm
    }
}

pub(super) fn host_fault(message: &str) -> Fault {
    Fault::new(FaultKind::Hypervisor, message)
}

pub(super) fn states(operation: &OperationView) -> Vec<(StepKind, StepState)> {
    let steps = operation.steps.iter();
    steps.map(|step| (step.kind, step.state)).collect()
}

#[tokio::test]
async fn a_vm_goes_to_another_host_while_it_runs_and_back() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let before = scene.used().await;
    target.sim.delay(Call::Receive, Duration::from_millis(100));
    let begun = scene.migrate(&target.name).await.unwrap();
    let moving = scene.world.vm(scene.vm).await;
    assert_eq!(moving.state, VmState::Migrate);
    assert_eq!(moving.host.unwrap().id, source.id, "it is still there");
    let both = scene.used().await;
    assert_eq!(both.vcpus, before.vcpus * 2, "claimed on both");
    scene.sound().await;
    let again = scene.migrate(&target.name).await.unwrap_err().public;
    assert_eq!(
        again,
        "`web-1` is moving to another host; wait for it, or cancel it"
    );
    let vm = scene.went(source, target).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(scene.used().await, before);
    let operation = vm.operation.unwrap();
    assert_eq!(
        (operation.id, operation.state),
        (begun.id, OperationState::Succeeded)
    );
    let migration = operation.migration.unwrap();
    assert_eq!(
        (migration.from.unwrap().id, migration.to.id),
        (source.id, target.id)
    );
    let result = migration.result.unwrap();
    assert_eq!(result.downtime_ms, Some(10));
    assert!(result.blackout_ms.unwrap() >= 12, "{result:?}");
    assert!(result.total_ms >= 100, "{result:?}");
    let effects = target.sim.effects(scene.vm);
    assert_eq!(
        (effects.received, effects.arrived, effects.booted),
        (1, 1, 0)
    );
    let told = scene.world.engine.vm_timeline(&scene.world.admin, scene.vm);
    let told = told.await.unwrap();
    let sentence = format!("Moved from {} to {}", source.name, target.name);
    let sentences: Vec<_> = told.iter().map(|event| event.event.sentence()).collect();
    assert!(sentences.contains(&sentence), "{sentences:?}");
    scene.migrate(&source.name).await.unwrap();
    scene.went(target, source).await;
    scene.through(VmAction::Delete).await;
    assert_eq!(source.sim.left_behind(scene.vm), [""; 0]);
    assert_eq!(scene.used().await.vcpus, 0);
    scene.sound().await;
}

#[tokio::test]
async fn a_vm_that_cannot_go_there_says_why_and_stays() {
    let mut scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let (here, there) = (source.name.clone(), target.name.clone());
    let refusal = async |scene: &Scene, to: &str| scene.migrate(to).await.unwrap_err();
    assert_eq!(
        refusal(&scene, &here).await.public,
        format!("`web-1` is on host `{here}` already")
    );
    let nowhere = refusal(&scene, "host-9").await;
    assert_eq!(nowhere.fields[0].message, "there is no host `host-9`");
    assert_eq!(refusal(&scene, "../x").await.fields[0].field, "host");
    let args = ActionArgs::TakeSnapshot(TakeSnapshot {
        name: "before".to_owned(),
        memory: false,
        volume: None,
    });
    scene.ask(VmAction::Snapshot, args).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let said = refusal(&scene, &there).await.public;
    assert!(said.contains("has snapshots"), "{said}");
    let snapshots = scene
        .world
        .engine
        .vm_snapshots(&scene.world.admin, scene.vm);
    let id = snapshots.await.unwrap()[0].id;
    scene
        .ask(VmAction::RemoveSnapshot, ActionArgs::Snapshot(id))
        .await
        .unwrap();
    scene.world.until_rest(scene.vm).await;
    // The other host fills up, or goes away.
    let mut others = Vec::new();
    for number in 1..16 {
        let other = scene.world.create(&format!("filler-{number}")).await.id;
        scene.world.until(other, VmState::Running).await;
        others.push(other);
    }
    assert_eq!(
        refusal(&scene, &there).await.public,
        format!("host `{there}` has no room for `web-1`")
    );
    for other in others {
        scene.world.operate(other, VmAction::Delete).await;
        scene.world.until(other, VmState::Done).await;
    }
    let index = scene.hosts.iter().position(|host| host.name == there);
    scene.hosts[index.unwrap()].disconnect();
    let gone = async {
        let connected = async || {
            let hosts = scene.world.engine.hosts(&scene.world.admin).await.unwrap();
            hosts.iter().all(|host| host.connected)
        };
        while connected().await {
            tokio::task::yield_now().await;
        }
    };
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, gone).await.unwrap();
    assert_eq!(
        refusal(&scene, &there).await.public,
        format!("host `{there}` takes no VMs now")
    );
    scene.sound().await;
}

#[tokio::test]
async fn a_migration_that_is_cancelled_leaves_the_vm_where_it_was() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    for call in [Call::Receive, Call::Send] {
        let host = if call == Call::Receive {
            target
        } else {
            source
        };
        host.sim.delay(call, Duration::from_secs(3600));
        let begun = scene.migrate(&target.name).await.unwrap();
        let step = if call == Call::Receive { 0 } else { 1 };
        scene.until_step(step).await;
        let (engine, admin) = (&scene.world.engine, &scene.world.admin);
        engine.cancel_operation(admin, begun.id).await.unwrap();
        let vm = scene.stayed(source, target).await;
        let operation = vm.operation.unwrap();
        assert_eq!(operation.state, OperationState::Cancelled);
        host.sim.delay(call, Duration::ZERO);
    }
    scene.migrate(&target.name).await.unwrap();
    scene.went(source, target).await;
}

#[tokio::test]
async fn a_migration_that_fails_before_the_commit_leaves_the_vm_where_it_was() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let fault = host_fault("the line is cut");
    for (host, call, mishap) in [
        (target, Call::Receive, Mishap::Fail(fault.clone())),
        (target, Call::Receive, Mishap::FailAfter(fault.clone())),
        (source, Call::Send, Mishap::Fail(fault.clone())),
        // Everything has arrived, and nobody knows.
        (source, Call::Send, Mishap::FailAfter(fault.clone())),
    ] {
        host.sim.mishap(call, mishap);
        scene.migrate(&target.name).await.unwrap();
        let vm = scene.stayed(source, target).await;
        let operation = vm.operation.unwrap();
        assert_eq!(operation.state, OperationState::Failed, "{call:?}");
        assert!(operation.error.is_some());
    }
}

#[tokio::test]
async fn a_machine_that_ends_before_it_has_arrived_is_off_where_it_was() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    source.sim.delay(Call::Send, Duration::from_millis(100));
    scene.migrate(&target.name).await.unwrap();
    scene.until_step(1).await;
    assert!(source.sim.guest_power_off(scene.vm));
    let vm = scene.world.until(scene.vm, VmState::PoweredOff).await;
    assert_eq!(vm.host.unwrap().id, source.id);
    assert_eq!(target.sim.power(scene.vm), None);
    scene.world.until_rest(scene.vm).await;
    scene.sound().await;
}

/// The one that it was on never runs it again.
#[tokio::test]
async fn a_machine_that_does_not_run_after_the_commit_can_be_started_on_its_new_host() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    target
        .sim
        .mishap(Call::Run, Mishap::Fail(host_fault("QEMU is gone")));
    scene.migrate(&target.name).await.unwrap();
    let vm = scene.went(source, target).await;
    assert_eq!(vm.state, VmState::Failed);
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Failed);
    assert_eq!(operation.error.as_deref(), Some("QEMU is gone"));
    assert_eq!(
        states(&operation),
        [
            (StepKind::Receive, StepState::Done),
            (StepKind::Send, StepState::Done),
            (StepKind::Run, StepState::Failed),
            (StepKind::Leave, StepState::Done),
        ]
    );
    scene.world.operate(scene.vm, VmAction::Retry).await;
    scene.world.until(scene.vm, VmState::Running).await;
    scene.world.until_rest(scene.vm).await;
    assert_eq!(target.sim.power(scene.vm), Some(Power::Running));
    assert_eq!(scene.log().breaches(), [""; 0]);
    scene.sound().await;
}

#[tokio::test]
async fn what_cannot_be_cleaned_stays_claimed_until_it_is() {
    let mut scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let before = scene.used().await;
    let fault = Fault::new(FaultKind::Unsupported, "the disk is read-only");
    source.sim.mishap(Call::Clean, Mishap::Fail(fault));
    scene.migrate(&target.name).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::Running);
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(operation.steps[3].state, StepState::Failed);
    assert_ne!(scene.used().await, before);
    scene.sound().await;
    let (here, there) = (source.name.clone(), target.name.clone());
    let said = scene.migrate(&here).await.unwrap_err().public;
    assert!(
        said.contains("which `web-1` was on, still holds something"),
        "{said}"
    );
    assert_eq!(scene.world.vm(scene.vm).await.host.unwrap().name, there);
    // It can again, and is reminded when it connects.
    let index = scene.hosts.iter().position(|host| host.name == here);
    let index = index.unwrap();
    let engine = scene.world.engine.clone();
    scene.hosts[index].disconnect();
    scene.hosts[index].connect(&engine).await;
    let given_back = async {
        while scene.used().await != before {
            tokio::task::yield_now().await;
        }
    };
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, given_back).await.unwrap();
    assert_eq!(scene.hosts[index].sim.left_behind(scene.vm), [""; 0]);
    scene.sound().await;
}

/// It waits for nobody: what the other host holds goes when that is back.
#[tokio::test]
async fn a_vm_whose_other_host_goes_away_runs_on_and_is_free() {
    let mut scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let (there, before) = (target.name.clone(), scene.used().await);
    source.sim.delay(Call::Send, Duration::from_secs(3600));
    let begun = scene.migrate(&there).await.unwrap();
    scene.until_step(1).await;
    let index = scene.hosts.iter().position(|host| host.name == there);
    let index = index.unwrap();
    scene.hosts[index].disconnect();
    let within = Duration::from_secs(20);
    let connected = async |scene: &Scene| {
        let hosts = scene.world.engine.hosts(&scene.world.admin).await.unwrap();
        hosts.iter().all(|host| host.connected)
    };
    let gone = async {
        while connected(&scene).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(within, gone).await.unwrap();
    let engine = scene.world.engine.clone();
    engine
        .cancel_operation(&scene.world.admin, begun.id)
        .await
        .unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.operation.unwrap().state, OperationState::Cancelled);
    assert_eq!(
        scene.hosts[index].sim.power(scene.vm),
        Some(Power::Arriving)
    );
    scene.sound().await;
    scene.hosts[index].connect(&engine).await;
    let given_back = async {
        while scene.used().await != before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(within, given_back).await.unwrap();
    assert_eq!(scene.hosts[index].sim.power(scene.vm), None);
    assert_eq!(scene.log().breaches(), [""; 0]);
    scene.sound().await;
}

/// Were it placed there, what is left could not be told from it.
#[tokio::test]
async fn what_a_vm_left_on_a_host_keeps_it_from_coming_back_there() {
    let mut scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let fault = Fault::new(FaultKind::Unsupported, "the disk is read-only");
    source.sim.mishap(Call::Clean, Mishap::Fail(fault));
    scene.migrate(&target.name).await.unwrap();
    let (left_on, there) = (source.id, target.name.clone());
    scene.world.until_rest(scene.vm).await;
    let stopped = scene.through(VmAction::Stop).await;
    assert_eq!(stopped.state, VmState::Stopped);
    let index = scene.hosts.iter().position(|host| host.name == there);
    scene.hosts[index.unwrap()].disconnect();
    let engine = scene.world.engine.clone();
    let connected = engine.connect_scheduler("test".to_owned()).await;
    let (mut told, scheduler) = connected.unwrap().split();
    scene.world.operate(scene.vm, VmAction::Resume).await;
    let pending = scene.world.vm(scene.vm).await;
    let proposal = FromScheduler::Proposal {
        vm_id: scene.vm,
        generation: pending.generation,
        host_id: left_on,
        explanation: Explanation::default(),
    };
    scheduler.receive(proposal).await;
    let refused = loop {
        if let ToScheduler::Verdict { refused, .. } = told.recv().await.unwrap() {
            break refused.unwrap();
        }
    };
    assert!(
        refused.ends_with("still holds what the VM left there"),
        "{refused}"
    );
    assert_eq!(scene.log().breaches(), [""; 0]);
}

/// It overtakes the migration, on whichever side of the commit that is.
#[tokio::test]
async fn a_vm_can_be_deleted_on_its_way() {
    for (call, step) in [(Call::Receive, 0), (Call::Send, 1), (Call::Run, 2)] {
        let scene = Scene::of_two().await;
        let (source, target) = scene.source_and_target().await;
        let host = if call == Call::Send { source } else { target };
        host.sim.delay(call, Duration::from_secs(3600));
        scene.migrate(&target.name).await.unwrap();
        scene.until_step(step).await;
        scene.deleted(call).await;
    }
}

/// Nobody knows whether it runs, until that host is back: it is on its way again
/// then.
#[tokio::test]
async fn a_vm_whose_own_host_falls_silent_on_the_way_arrives_when_it_is_back() {
    let mut scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let (here, there) = (source.name.clone(), target.name.clone());
    source.sim.delay(Call::Send, Duration::from_secs(3600));
    scene.migrate(&there).await.unwrap();
    scene.until_step(1).await;
    let index = scene.hosts.iter().position(|host| host.name == here);
    let index = index.unwrap();
    scene.hosts[index].disconnect();
    scene.world.until(scene.vm, VmState::Unknown).await;
    scene.sound().await;
    scene.hosts[index].sim.delay(Call::Send, Duration::ZERO);
    let engine = scene.world.engine.clone();
    scene.hosts[index].connect(&engine).await;
    scene.world.until(scene.vm, VmState::Running).await;
    let (source, target) = (
        scene.hosts.iter().find(|host| host.name == here).unwrap(),
        scene.hosts.iter().find(|host| host.name == there).unwrap(),
    );
    scene.went(source, target).await;
}
