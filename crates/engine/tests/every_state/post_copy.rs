//! VMs that run on another host before all of their memory is there.

use std::time::Duration;

use vimana_driver::{Fault, FaultKind, Power};
use vimana_driver_sim::{Call, Mishap};
use vimana_model::action::VmAction;
use vimana_model::migration::MigrateVm;
use vimana_model::operation::{OperationState, OperationView, StepKind, StepState};
use vimana_model::{Error, VmState};

use super::Scene;
use super::migrations::{host_fault, states};

impl Scene {
    async fn migrate_by_post_copy(&self, host: &str) -> Result<OperationView, Error> {
        self.migrate_as(MigrateVm {
            host: Some(host.to_owned()),
            post_copy: true,
            ..MigrateVm::default()
        })
        .await
    }
}

#[tokio::test]
async fn a_vm_goes_by_post_copy_and_its_old_host_is_cleaned_last() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let before = scene.used().await;
    target.sim.delay(Call::Complete, Duration::from_millis(100));
    scene.migrate_by_post_copy(&target.name).await.unwrap();
    scene.until_step(4).await;
    let vm = scene.world.vm(scene.vm).await;
    assert_eq!(vm.state, VmState::Running, "it runs, and is not complete");
    assert_eq!(vm.host.unwrap().id, target.id);
    assert!(vm.operation.unwrap().migration.unwrap().result.is_none());
    assert_eq!(source.sim.power(scene.vm), Some(Power::Left));
    scene.sound().await;
    let vm = scene.went(source, target).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(scene.used().await, before);
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Succeeded);
    let steps = [
        StepKind::Receive,
        StepKind::Send,
        StepKind::Switch,
        StepKind::Run,
        StepKind::Complete,
        StepKind::Leave,
    ];
    assert_eq!(
        states(&operation),
        steps.map(|step| (step, StepState::Done))
    );
    let result = operation.migration.unwrap().result.unwrap();
    assert_eq!(result.downtime_ms, Some(10));
    let (total, blackout) = (result.total_ms, result.blackout_ms.unwrap());
    assert!(total >= 100 && blackout >= 12, "{result:?}");
    assert!(blackout < total, "it ran while the rest came: {result:?}");
    assert_eq!(target.sim.effects(scene.vm).arrived, 1);
}

#[tokio::test]
async fn one_that_does_not_run_does_not_go_by_post_copy() {
    let scene = Scene::of_two().await;
    let (_, target) = scene.source_and_target().await;
    scene.through(VmAction::Suspend).await;
    let refused = scene.migrate_by_post_copy(&target.name).await.unwrap_err();
    assert_eq!(
        refused.public,
        "`web-1` does not run: only what runs migrates by post-copy"
    );
    scene.sound().await;
}

#[tokio::test]
async fn what_is_refused_or_cancelled_before_the_commit_leaves_the_vm_where_it_was() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let fault = Fault::new(FaultKind::Unsupported, "this host takes none by post-copy");
    target.sim.mishap(Call::Receive, Mishap::Fail(fault));
    scene.migrate_by_post_copy(&target.name).await.unwrap();
    let vm = scene.stayed(source, target).await;
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Failed);
    let error = operation.error.unwrap();
    assert_eq!(error, "this host takes none by post-copy");
    for (step, host, call) in [(0, target, Call::Receive), (1, source, Call::Send)] {
        host.sim.delay(call, Duration::from_secs(3600));
        let begun = scene.migrate_by_post_copy(&target.name).await.unwrap();
        scene.until_step(step).await;
        let (engine, admin) = (&scene.world.engine, &scene.world.admin);
        engine.cancel_operation(admin, begun.id).await.unwrap();
        let vm = scene.stayed(source, target).await;
        assert_eq!(vm.operation.unwrap().state, OperationState::Cancelled);
        host.sim.delay(call, Duration::ZERO);
    }
    // A part of it has arrived, and nobody knows.
    let fault = host_fault("the line is cut");
    source.sim.mishap(Call::Send, Mishap::FailAfter(fault));
    scene.migrate_by_post_copy(&target.name).await.unwrap();
    scene.stayed(source, target).await;
    scene.migrate_by_post_copy(&target.name).await.unwrap();
    scene.went(source, target).await;
}

#[tokio::test]
async fn it_cannot_be_cancelled_once_its_other_host_has_it() {
    for (index, call) in [(2, Call::Switch), (3, Call::Run), (4, Call::Complete)] {
        let scene = Scene::of_two().await;
        let (source, target) = scene.source_and_target().await;
        let host = if index == 2 { source } else { target };
        host.sim.delay(call, Duration::from_millis(200));
        let begun = scene.migrate_by_post_copy(&target.name).await.unwrap();
        scene.until_step(index).await;
        let (engine, admin) = (&scene.world.engine, &scene.world.admin);
        let refused = engine.cancel_operation(admin, begun.id).await.unwrap_err();
        assert!(
            refused.public.contains("past the point of no return"),
            "{refused}"
        );
        scene.went(source, target).await;
    }
}

/// What was in its memory is lost, and it never runs again where it was.
#[tokio::test]
async fn one_whose_memory_is_lost_can_be_started_on_its_new_host() {
    for call in [Call::Switch, Call::Run, Call::Complete] {
        let scene = Scene::of_two().await;
        let (source, target) = scene.source_and_target().await;
        let host = if call == Call::Switch { source } else { target };
        let fault = host_fault("QEMU is gone");
        host.sim.mishap(call, Mishap::Fail(fault));
        scene.migrate_by_post_copy(&target.name).await.unwrap();
        let vm = scene.went(source, target).await;
        assert_eq!(vm.state, VmState::Failed, "{call:?}");
        let operation = vm.operation.unwrap();
        assert_eq!(operation.state, OperationState::Failed);
        assert_eq!(operation.error.as_deref(), Some("QEMU is gone"));
        let last = *states(&operation).last().unwrap();
        assert_eq!(last, (StepKind::Leave, StepState::Done), "{call:?}");
        scene.world.operate(scene.vm, VmAction::Retry).await;
        scene.world.until(scene.vm, VmState::Running).await;
        scene.world.until_rest(scene.vm).await;
        assert_eq!(target.sim.power(scene.vm), Some(Power::Running));
        assert_eq!(scene.log().breaches(), [""; 0]);
        scene.sound().await;
    }
}

/// Its process is needed for as long as a part of the memory is missing.
#[tokio::test]
async fn one_whose_source_dies_on_the_way_has_failed_on_its_new_host() {
    for (index, call) in [(2, Call::Switch), (4, Call::Complete)] {
        let scene = Scene::of_two().await;
        let (source, target) = scene.source_and_target().await;
        let host = if index == 2 { source } else { target };
        host.sim.delay(call, Duration::from_millis(200));
        scene.migrate_by_post_copy(&target.name).await.unwrap();
        scene.until_step(index).await;
        assert!(source.sim.crash(scene.vm, "its host burns"));
        let vm = scene.went(source, target).await;
        assert_eq!(vm.state, VmState::Failed, "{call:?}");
        scene.world.operate(scene.vm, VmAction::Retry).await;
        scene.world.until(scene.vm, VmState::Running).await;
        scene.world.until_rest(scene.vm).await;
        assert_eq!(scene.log().breaches(), [""; 0]);
        scene.sound().await;
    }
}

#[tokio::test]
async fn one_that_switches_itself_off_before_all_has_come_is_off() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    target.sim.delay(Call::Complete, Duration::from_millis(200));
    scene.migrate_by_post_copy(&target.name).await.unwrap();
    scene.until_step(4).await;
    assert!(target.sim.guest_power_off(scene.vm));
    let vm = scene.went(source, target).await;
    assert_eq!(vm.state, VmState::PoweredOff);
}

#[tokio::test]
async fn one_can_be_deleted_at_every_step_of_it() {
    for (index, call) in [(2, Call::Switch), (3, Call::Run), (4, Call::Complete)] {
        let scene = Scene::of_two().await;
        let (source, target) = scene.source_and_target().await;
        let host = if index == 2 { source } else { target };
        host.sim.delay(call, Duration::from_secs(3600));
        scene.migrate_by_post_copy(&target.name).await.unwrap();
        scene.until_step(index).await;
        scene.deleted(call).await;
    }
}

/// Agents that know nothing of post-copy have copied all of it before.
#[tokio::test]
async fn hosts_that_do_not_know_it_do_as_they_always_did() {
    let scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    for (host, call) in [(source, Call::Switch), (target, Call::Complete)] {
        let message = "this agent does not know this work";
        let fault = Fault::new(FaultKind::Unsupported, message);
        host.sim.mishap(call, Mishap::FailAfter(fault));
    }
    scene.migrate_by_post_copy(&target.name).await.unwrap();
    let vm = scene.went(source, target).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.operation.unwrap().state, OperationState::Succeeded);
}

/// Whether it handed the machine over, nobody knows, and it does not run there.
#[tokio::test]
async fn one_whose_source_falls_silent_at_the_handover_has_failed_on_its_new_host() {
    let mut scene = Scene::of_two().await;
    let (source, target) = scene.source_and_target().await;
    let (here, there) = (source.name.clone(), target.id);
    source.sim.delay(Call::Switch, Duration::from_secs(3600));
    scene
        .migrate_by_post_copy(&target.name.clone())
        .await
        .unwrap();
    scene.until_step(2).await;
    let index = scene.hosts.iter().position(|host| host.name == here);
    let index = index.unwrap();
    scene.hosts[index].disconnect();
    let vm = scene.world.until(scene.vm, VmState::Failed).await;
    assert_eq!(vm.host.unwrap().id, there);
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    scene.sound().await;
    scene.world.operate(scene.vm, VmAction::Retry).await;
    scene.world.until(scene.vm, VmState::Running).await;
    assert_eq!(scene.log().breaches(), [""; 0]);
    // What is left there goes when it is back, and never ran again.
    let engine = scene.world.engine.clone();
    scene.hosts[index].connect(&engine).await;
    let gone = async {
        while scene.hosts[index].sim.power(scene.vm).is_some() {
            tokio::task::yield_now().await;
        }
    };
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, gone).await.unwrap();
    assert_eq!(scene.log().breaches(), [""; 0]);
    scene.sound().await;
}
