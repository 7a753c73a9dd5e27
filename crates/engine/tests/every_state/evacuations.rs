//! Hosts that are cordoned, drained and enabled again.

use std::time::Duration;

use futures::StreamExt as _;
use vimana_driver::{Fault, FaultKind, Power};
use vimana_driver_sim::{Call, Mishap};
use vimana_engine::{ActionArgs, Settings, WatchItem};
use vimana_model::action::VmAction;
use vimana_model::evacuation::{EvacuateHost, EvacuationView};
use vimana_model::event::EventKind;
use vimana_model::host::{DesiredState, HostState};
use vimana_model::operation::{OperationKind, OperationState};
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::unit::MiB;
use vimana_model::{ErrorKind, VmState};
use vimana_testkit::{TestHost, TestWorld};

use super::fleet::{Fleet, WITHIN};

fn name(vm: &vimana_model::volume::VmRef) -> String {
    vm.name.to_string()
}

fn stuck(view: &EvacuationView) -> Vec<(String, String)> {
    let stuck = view.stuck.iter();
    stuck
        .map(|stuck| (name(&stuck.vm), stuck.reason.clone()))
        .collect()
}

#[tokio::test]
async fn a_host_is_emptied_and_never_are_more_on_their_way_than_was_asked() {
    let fleet = Fleet::new(3, 10).await;
    for host in &fleet.hosts {
        host.sim.delay(Call::Receive, Duration::from_millis(20));
    }
    let watch = fleet.world.engine.watch(&fleet.world.admin, None);
    let most = tokio::spawn(async move {
        let mut watch = Box::pin(watch);
        let mut moving = std::collections::BTreeSet::new();
        let (mut most, mut begun) = (0, 0);
        while let Some(item) = watch.next().await {
            let WatchItem::Item(item) = item else {
                panic!("too slow");
            };
            match (&item.event.event, item.event.vm_id) {
                (EventKind::Requested { operation }, Some(vm)) => {
                    assert_eq!(*operation, OperationKind::Migrate);
                    moving.insert(vm);
                    begun += 1;
                    most = most.max(moving.len());
                }
                (EventKind::Cleared {}, Some(vm)) => {
                    moving.remove(&vm);
                }
                (EventKind::HostDrained, _) => break,
                _ => {}
            }
        }
        (most, begun)
    });
    let asked = fleet.evacuate(0, None).await;
    assert_eq!(
        (asked.state, asked.desired),
        (HostState::Draining, DesiredState::Draining)
    );
    let view = fleet.evacuation(0).await.unwrap();
    assert_eq!(
        (view.limit, view.by.as_str(), view.over),
        (2, "admin", false)
    );
    assert_eq!(view.stuck, []);
    let empty = fleet.until_state(0, HostState::Maintenance).await;
    assert_eq!((empty.vms, empty.used), (0, Default::default()));
    assert_eq!(most.await.unwrap(), (2, 10));
    let mut elsewhere = [0, 0];
    for vm in &fleet.vms {
        let on = fleet.world.vm(*vm).await;
        assert_eq!(on.state, VmState::Running);
        let on = on.host.unwrap().id;
        let index = fleet.hosts.iter().position(|host| host.id == on).unwrap();
        elsewhere[index - 1] += 1;
        assert_eq!(fleet.hosts[index].sim.power(*vm), Some(Power::Running));
        assert_eq!(fleet.hosts[0].sim.power(*vm), None);
        let operation = fleet.world.vm(*vm).await.operation.unwrap();
        assert_eq!(operation.requested_by, "admin");
    }
    assert_eq!(elsewhere, [5, 5], "those that suit best");
    let through = fleet.evacuation(0).await.unwrap();
    assert_eq!((through.over, through.moved), (true, 10));
    assert_eq!(
        (
            through.moving.len(),
            through.waiting.len(),
            through.stuck.len()
        ),
        (0, 0, 0)
    );
    fleet.sound().await;
    // Asked again, nothing changes.
    let again = fleet.evacuate(0, Some(5)).await;
    assert_eq!(again.state, HostState::Maintenance);
    let told = fleet.told(0).await;
    let drained = told
        .iter()
        .filter(|event| **event == EventKind::HostDrained);
    assert_eq!(drained.count(), 1);
    let asked = told
        .iter()
        .filter(|event| matches!(event, EventKind::HostDraining { .. }));
    assert_eq!(asked.count(), 1);
}

#[tokio::test]
async fn a_host_in_maintenance_takes_no_vm_until_it_is_enabled() {
    let fleet = Fleet::new(2, 0).await;
    fleet.evacuate(0, None).await;
    fleet.until_state(0, HostState::Maintenance).await;
    fleet.cordon(1).await;
    let waits = fleet.world.create("web-1").await.id;
    let reason = "none of 2 hosts has room: host-2 is cordoned; host-1 is in maintenance";
    fleet
        .world
        .until_vm(waits, "why it waits", |vm| {
            vm.pending
                .as_ref()
                .is_some_and(|pending| pending.message.contains(reason))
        })
        .await;
    fleet.enable(1).await;
    fleet.world.until(waits, VmState::Running).await;
    let refused = async |sentence: &str| {
        let refused = fleet.migrate(waits, 0).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        assert_eq!(refused.public, sentence);
        let targets = fleet
            .world
            .engine
            .migration_targets(&fleet.world.admin, waits);
        let refusal = targets.await.unwrap()[0].refusal.clone();
        assert_eq!(refusal.as_deref(), Some(sentence));
    };
    refused("host `host-1` is in maintenance").await;
    let cordoned = fleet.cordon(0).await;
    assert_eq!(cordoned.state, HostState::Cordoned);
    refused("host `host-1` is cordoned").await;
    let missing = fleet.evacuation(0).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::Conflict);
    assert_eq!(missing.public, "host `host-1` is not being evacuated");
    assert_eq!(fleet.enable(0).await.state, HostState::Enabled);
    fleet.migrate(waits, 0).await.unwrap();
    fleet.world.until_rest(waits).await;
    assert_eq!(fleet.on(waits).await, "host-1");
    fleet.sound().await;
}

#[tokio::test]
async fn what_is_wanted_of_a_host_outlasts_its_silence_and_its_doubt() {
    let settings = Settings {
        silence_grace: Duration::ZERO,
        ..Settings::default()
    };
    let mut fleet = Fleet::with_settings(1, 1, settings).await;
    let engine = fleet.world.engine.clone();
    fleet.cordon(0).await;
    for (desired, state) in [
        (DesiredState::Cordoned, HostState::Cordoned),
        (DesiredState::Draining, HostState::Draining),
    ] {
        fleet.hosts[0].disconnect();
        let silent = fleet.until_state(0, HostState::Unknown).await;
        assert_eq!(silent.desired, desired);
        // It comes back with a capacity that makes no sense.
        let capacity = fleet.hosts[0].capacity;
        fleet.hosts[0].capacity.memory_mib = MiB(0);
        fleet.hosts[0].connect(&engine).await;
        let doubted = fleet.until_host(0, |host| host.connected).await;
        assert_eq!(
            (doubted.state, doubted.desired),
            (HostState::Doubted, desired)
        );
        fleet.hosts[0].disconnect();
        fleet.until_state(0, HostState::Unknown).await;
        fleet.hosts[0].capacity = capacity;
        fleet.hosts[0].connect(&engine).await;
        let back = fleet.until_host(0, |host| host.connected).await;
        assert_eq!((back.state, back.desired), (state, desired));
        fleet.evacuate(0, Some(3)).await;
    }
    // What is asked while it is silent holds when it is back.
    fleet.hosts[0].disconnect();
    fleet.until_state(0, HostState::Unknown).await;
    let asked = fleet.enable(0).await;
    assert_eq!(
        (asked.state, asked.desired),
        (HostState::Unknown, DesiredState::Enabled)
    );
    fleet.hosts[0].connect(&engine).await;
    fleet.until_state(0, HostState::Enabled).await;
}

#[tokio::test]
async fn what_is_wanted_of_hosts_outlasts_the_server() {
    let mut fleet = Fleet::new(2, 2).await;
    fleet.cordon(1).await;
    fleet.evacuate(0, Some(1)).await;
    fleet.until(0, EvacuationView::is_stuck).await;
    fleet.world.restart_engine(Settings::default()).await;
    assert_eq!(fleet.host(0).await.desired, DesiredState::Draining);
    assert_eq!(fleet.host(1).await.desired, DesiredState::Cordoned);
    let engine = fleet.world.engine.clone();
    for host in &mut fleet.hosts {
        host.disconnect();
        host.connect(&engine).await;
    }
    assert_eq!(fleet.host(1).await.state, HostState::Cordoned);
    fleet.enable(1).await;
    fleet.until_state(0, HostState::Maintenance).await;
    let through = fleet.evacuation(0).await.unwrap();
    assert_eq!((through.limit, through.moved), (1, 2));
    fleet.sound().await;
}

#[tokio::test]
async fn a_vm_that_fits_nowhere_is_named_and_the_others_go() {
    let mut fleet = Fleet::new(1, 3).await;
    let engine = fleet.world.engine.clone();
    let big = fleet.vms[1];
    fleet.world.operate(big, VmAction::PowerOff).await;
    fleet.world.until_rest(big).await;
    let args = ActionArgs::Resize(vimana_model::vm::ResizeVm {
        vcpus: Some(4),
        ..Default::default()
    });
    let admin = fleet.world.admin.clone();
    let resized = engine.act_on_vm(&admin, big, VmAction::Resize, args);
    resized.await.unwrap();
    fleet.world.operate(big, VmAction::Start).await;
    fleet.world.until_rest(big).await;
    let mut small = TestHost::new(2).beside(&fleet.log);
    small.capacity.vcpus = 3;
    small.connect(&engine).await;
    fleet.hosts.push(small);
    fleet.evacuate(0, Some(16)).await;
    let view = fleet.until(0, EvacuationView::is_stuck).await;
    assert_eq!(view.moved, 2);
    assert_eq!(
        stuck(&view),
        [(
            "web-2".to_owned(),
            "host `host-2` has no room for `web-2`".to_owned()
        )]
    );
    fleet.until_told(0, &EventKind::HostStuck { left: 1 }).await;
    // Room comes, and it goes by itself.
    let mut large = TestHost::new(3).beside(&fleet.log);
    large.connect(&engine).await;
    fleet.hosts.push(large);
    fleet.until_state(0, HostState::Maintenance).await;
    assert_eq!(fleet.on(big).await, "host-3");
    fleet.sound().await;
}

#[tokio::test]
async fn enabling_a_host_in_between_stops_further_moves() {
    let fleet = Fleet::new(2, 4).await;
    fleet.hosts[0]
        .sim
        .delay(Call::Send, Duration::from_secs(3600));
    fleet.evacuate(0, Some(1)).await;
    let view = fleet.until(0, |view| view.moving.len() == 1).await;
    assert_eq!((view.moved, view.waiting.len()), (0, 3));
    let moving = &view.moving[0];
    assert_eq!(moving.to.name, "host-2");
    let enabled = fleet.enable(0).await;
    assert_eq!(enabled.state, HostState::Enabled);
    // What is on its way goes on; this one comes back.
    let (engine, admin) = (&fleet.world.engine, &fleet.world.admin);
    engine
        .cancel_operation(admin, moving.operation_id)
        .await
        .unwrap();
    fleet.world.until_rest(moving.vm.id).await;
    fleet.hosts[0].sim.delay(Call::Send, Duration::ZERO);
    for vm in &fleet.vms {
        let vm = fleet.world.vm(*vm).await;
        assert_eq!(vm.state, VmState::Running);
        assert_eq!(vm.host.unwrap().name, "host-1");
    }
    assert_eq!(fleet.host(0).await.vms, 4);
    fleet.sound().await;
}

#[tokio::test]
async fn a_vm_that_cannot_be_moved_is_tried_three_times_and_named() {
    let settings = Settings {
        evacuation_pause: Duration::from_millis(200),
        ..Settings::default()
    };
    let fleet = Fleet::with_settings(3, 2, settings).await;
    // Sent first, and thrice; the other one in between, which goes the third time.
    for _ in 0..5 {
        let fault = Fault::new(FaultKind::Hypervisor, "the line is cut");
        fleet.hosts[0].sim.mishap(Call::Send, Mishap::Fail(fault));
    }
    fleet.evacuate(0, Some(1)).await;
    let rests = "it did not go, and is sent again in a moment: the line is cut";
    let rest = |view: &EvacuationView| {
        let mut reasons = view.waiting.iter().map(|vm| vm.reason.as_deref());
        reasons.any(|reason| reason == Some(rests))
    };
    fleet.until(0, rest).await;
    let view = fleet.until(0, EvacuationView::is_stuck).await;
    assert_eq!(view.moved, 1);
    let reason = "tried 3 times; the last time: the line is cut";
    assert_eq!(stuck(&view), [("web-1".to_owned(), reason.to_owned())]);
    let (engine, admin) = (&fleet.world.engine, &fleet.world.admin);
    let operations = engine.vm_operations(admin, fleet.vms[0]).await.unwrap();
    let tried: Vec<_> = operations
        .iter()
        .filter(|operation| operation.kind == OperationKind::Migrate)
        .map(|operation| {
            assert_eq!(operation.state, OperationState::Failed);
            operation.migration.as_ref().unwrap().to.name.clone()
        })
        .collect();
    assert_eq!(tried.len(), 3);
    assert!(tried.contains(&"host-2".to_owned()) && tried.contains(&"host-3".to_owned()));
    assert_eq!(fleet.world.vm(fleet.vms[0]).await.state, VmState::Running);
    // A new evacuation tries anew.
    fleet.cordon(0).await;
    fleet.evacuate(0, None).await;
    fleet.until_state(0, HostState::Maintenance).await;
    assert_eq!(fleet.evacuation(0).await.unwrap().moved, 1);
    fleet.sound().await;
}

#[tokio::test]
async fn a_vm_on_its_way_to_a_host_that_is_drained_arrives_and_goes_on() {
    let fleet = Fleet::new(3, 1).await;
    let vm = fleet.vms[0];
    fleet.hosts[0]
        .sim
        .delay(Call::Send, Duration::from_millis(200));
    fleet.migrate(vm, 1).await.unwrap();
    fleet.evacuate(1, None).await;
    let view = fleet.evacuation(1).await.unwrap();
    assert_eq!(
        view.waiting[0].reason.as_deref(),
        Some("`web-1` is on its way to this host")
    );
    assert!(!view.over);
    fleet.cordon(0).await;
    fleet.until_state(1, HostState::Maintenance).await;
    assert_eq!(fleet.on(vm).await, "host-3");
    assert_eq!(fleet.world.vm(vm).await.run_epoch, 3);
    fleet.sound().await;
}

#[tokio::test]
async fn a_vm_in_an_operation_is_waited_for_and_one_that_failed_is_named() {
    let fleet = Fleet::new(2, 3).await;
    let (busy, failed) = (fleet.vms[0], fleet.vms[1]);
    fleet.hosts[0].sim.crash(failed, "killed by signal 9");
    fleet.world.until(failed, VmState::Failed).await;
    fleet.hosts[0]
        .sim
        .delay(Call::Reset, Duration::from_secs(3600));
    let reset = fleet.world.operate(busy, VmAction::Reset).await.operation;
    fleet.evacuate(0, None).await;
    let view = fleet.until(0, |view| view.moved == 1).await;
    assert_eq!(
        view.waiting[0].reason.as_deref(),
        Some("`web-1` is being reset; wait for it")
    );
    assert_eq!(
        stuck(&view),
        [(
            "web-2".to_owned(),
            "`web-2` has failed; retry or delete it".to_owned()
        )]
    );
    assert!(!view.is_stuck());
    fleet.hosts[0].sim.delay(Call::Reset, Duration::ZERO);
    drop(reset);
    fleet.world.operate(failed, VmAction::Delete).await;
    fleet.world.until(failed, VmState::Done).await;
    let view = fleet.until(0, |view| view.stuck.is_empty()).await;
    assert_eq!(view.waiting.len(), 1);
    fleet.world.operate(busy, VmAction::Delete).await;
    fleet.until_state(0, HostState::Maintenance).await;
    fleet.sound().await;
}

#[tokio::test]
async fn what_ties_a_vm_to_its_host_is_said_and_it_goes_once_that_is_gone() {
    let fleet = Fleet::new(2, 2).await;
    let (engine, admin) = (&fleet.world.engine, &fleet.world.admin);
    let tied = fleet.vms[0];
    let args = ActionArgs::TakeSnapshot(TakeSnapshot {
        name: "before".to_owned(),
        memory: false,
        volume: None,
    });
    let taken = engine.act_on_vm(admin, tied, VmAction::Snapshot, args);
    taken.await.unwrap();
    fleet.world.until_rest(tied).await;
    fleet.evacuate(0, None).await;
    let view = fleet.until(0, EvacuationView::is_stuck).await;
    let stuck = stuck(&view);
    assert_eq!((view.moved, stuck.len()), (1, 1));
    assert!(stuck[0].1.contains("has snapshots"), "{stuck:?}");
    let id = engine.vm_snapshots(admin, tied).await.unwrap()[0].id;
    let args = ActionArgs::Snapshot(id);
    let removed = engine.act_on_vm(admin, tied, VmAction::RemoveSnapshot, args);
    removed.await.unwrap();
    fleet.until_state(0, HostState::Maintenance).await;
    assert_eq!(fleet.evacuation(0).await.unwrap().moved, 2);
    fleet.sound().await;
}

#[tokio::test]
async fn those_that_do_not_run_go_as_well_and_stay_as_they_are() {
    let fleet = Fleet::new(2, 3).await;
    let [off, asleep, runs] = fleet.vms[..] else {
        panic!("there are three");
    };
    fleet.world.operate(off, VmAction::PowerOff).await;
    fleet.world.until_rest(off).await;
    fleet.world.operate(asleep, VmAction::Suspend).await;
    fleet.world.until_rest(asleep).await;
    fleet.evacuate(0, None).await;
    fleet.until_state(0, HostState::Maintenance).await;
    assert_eq!(fleet.evacuation(0).await.unwrap().moved, 3);
    for (vm, state) in [
        (off, VmState::PoweredOff),
        (asleep, VmState::Suspended),
        (runs, VmState::Running),
    ] {
        assert_eq!(fleet.on(vm).await, "host-2");
        assert_eq!(fleet.world.vm(vm).await.state, state);
    }
    fleet.sound().await;
    fleet.world.operate(asleep, VmAction::Resume).await;
    fleet.world.until(asleep, VmState::Running).await;
}

/// Somebody may still need what is on it.
#[tokio::test]
async fn a_machine_that_is_not_recorded_keeps_its_host_from_maintenance() {
    let fleet = Fleet::new(1, 1).await;
    let other = TestWorld::new().await;
    let Fleet {
        mut hosts, world, ..
    } = fleet;
    let (mut host, vm) = (hosts.remove(0), fleet.vms[0]);
    host.disconnect();
    drop(world);
    host.forget_session();
    host.connect(&other.engine).await;
    let form = EvacuateHost::default();
    let (engine, admin) = (&other.engine, &other.admin);
    let view = async || engine.evacuation(admin, host.id).await.unwrap();
    let orphans = async |count: usize| {
        let found = async {
            while engine.host_orphans(admin, host.id).await.unwrap().len() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WITHIN, found).await.unwrap();
    };
    orphans(1).await;
    let asked = engine.evacuate_host(admin, host.id, &form).await.unwrap();
    assert_eq!(asked.state, HostState::Draining);
    let now = view().await;
    assert_eq!((now.orphans, now.is_stuck()), (1, true));
    engine.discard_orphan(admin, host.id, vm).await.unwrap();
    orphans(0).await;
    let empty = async {
        while !view().await.over {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, empty).await.unwrap();
}

#[tokio::test]
async fn how_many_go_at_once_can_be_changed_in_between() {
    let fleet = Fleet::new(2, 5).await;
    fleet.hosts[0]
        .sim
        .delay(Call::Send, Duration::from_secs(3600));
    fleet.evacuate(0, Some(1)).await;
    fleet.until(0, |view| view.moving.len() == 1).await;
    let begun_at = fleet.evacuation(0).await.unwrap().begun_at;
    fleet.evacuate(0, Some(3)).await;
    let view = fleet.until(0, |view| view.moving.len() == 3).await;
    assert_eq!((view.limit, view.begun_at), (3, begun_at));
    fleet.evacuate(0, None).await;
    assert_eq!(fleet.evacuation(0).await.unwrap().limit, 3);
    let engine = &fleet.world.engine;
    let wrong = EvacuateHost { limit: Some(17) };
    let refused = engine.evacuate_host(&fleet.world.admin, fleet.hosts[0].id, &wrong);
    assert_eq!(refused.await.unwrap_err().fields[0].field, "limit");
}
