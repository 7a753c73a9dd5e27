//! What commands do, and how often.

use std::time::Duration;

use vimana_driver::{Fault, FaultKind, Power};
use vimana_driver_sim::Call;
use vimana_protocol::agent::{FromAgent, Outcome, Work};

use crate::orders::{OK, boot, command, prepare, vm};
use crate::world::World;

fn fault_kind(outcome: &Outcome) -> Option<FaultKind> {
    match outcome {
        Outcome::Ok { .. } | Outcome::Unknown => None,
        Outcome::Fault { fault } => Some(fault.kind),
    }
}

#[tokio::test]
async fn a_machine_is_prepared_booted_shut_down_and_cleaned() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    let vm = vm(1);
    assert_eq!(session.carry_out(&prepare(vm, 0, &image)).await, OK);
    assert_eq!(session.carry_out(&boot(vm, 1)).await, OK);
    assert_eq!(world.host.power(vm), Some(Power::Running));
    let shutdown = Work::Shutdown { grace_ms: 1000 };
    assert_eq!(session.carry_out(&command(vm, 2, shutdown)).await, OK);
    assert_eq!(session.carry_out(&command(vm, 3, Work::Clean)).await, OK);
    assert_eq!(world.host.power(vm), None);
}

#[tokio::test]
async fn changes_of_power_are_told_before_the_outcome_they_belong_to() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.order(&boot(vm(1), 1)).await;
    let told = session.next().await;
    assert!(matches!(told, FromAgent::Observed(o) if o.power == Power::Running));
    assert_eq!(session.outcome().await.1, OK);
    world.host.crash(vm(1), "lightning");
    let told = session.next().await;
    let reason = "lightning".to_owned();
    assert!(matches!(told, FromAgent::Observed(o) if o.power == Power::Crashed { reason }));
}

#[tokio::test]
async fn a_forced_shutdown_says_so() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.carry_out(&boot(vm(1), 1)).await;
    world.host.ignore_shutdown(vm(1), true);
    let outcome = session
        .carry_out(&command(vm(1), 2, Work::Shutdown { grace_ms: 20 }))
        .await;
    let note = Some("the guest did not react; it was switched off".to_owned());
    assert_eq!(
        outcome,
        Outcome::Ok {
            note,
            saved: None,
            backup: None,
            endpoint: None,
            sent: None,
            place: None,
        }
    );
}

#[tokio::test]
async fn the_same_command_twice_has_one_effect_and_the_same_outcome() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    world.host.delay(Call::Prepare, Duration::from_millis(100));
    let order = prepare(vm(1), 0, &image);
    // Twice while it runs: one outcome.
    session.order(&order).await;
    assert_eq!(session.carry_out(&order).await, OK);
    session.is_silent().await;
    // Once more when it is done: the outcome again.
    assert_eq!(session.carry_out(&order).await, OK);
    assert_eq!(world.host.effects(vm(1)).prepared, 1);

    let fault = Fault::new(FaultKind::Hypervisor, "broken");
    world.host.fail_next(Call::Boot, fault.clone());
    let boot = boot(vm(1), 1);
    let failed = Outcome::Fault { fault };
    assert_eq!(session.carry_out(&boot).await, failed);
    assert_eq!(session.carry_out(&boot).await, failed);
    assert_eq!(world.host.effects(vm(1)).booted, 0);
}

#[tokio::test]
async fn a_kill_overtakes_a_slow_prepare_and_what_waits_behind_it() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    world.close_gate();
    let mut session = world.session().await;
    session.order(&prepare(vm(1), 0, &image)).await;
    session.order(&boot(vm(1), 1)).await;
    world.downloads_reach(1).await;
    session.order(&command(vm(1), 2, Work::Kill)).await;
    session.order(&command(vm(1), 3, Work::Clean)).await;

    let mut ended = Vec::new();
    for _ in 0..4 {
        let (done, outcome) = session.outcome().await;
        ended.push((done.step, fault_kind(&outcome)));
    }
    ended.sort_unstable_by_key(|(step, _)| *step);
    let cancelled = Some(FaultKind::Cancelled);
    assert_eq!(
        ended,
        [(0, cancelled), (1, cancelled), (2, None), (3, None)]
    );
    assert_eq!(world.host.effects(vm(1)).prepared, 0);
    assert!(world.cached().is_empty());
}

#[tokio::test]
async fn a_kill_of_an_earlier_run_does_not_cancel_a_later_one() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    world.close_gate();
    let mut session = world.session().await;
    let mut later = prepare(vm(1), 0, &image);
    later.run_epoch = 2;
    if let Work::Prepare { spec } = &mut later.work {
        spec.run_epoch = 2;
    }
    session.order(&later).await;
    world.downloads_reach(1).await;
    let earlier = session.carry_out(&command(vm(1), 1, Work::Kill)).await;
    assert_eq!(fault_kind(&earlier), Some(FaultKind::Superseded));
    world.open_gate();
    assert_eq!(session.outcome().await, (later.command, OK));
}

#[tokio::test]
async fn vms_do_not_wait_for_each_other() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    world.close_gate();
    let mut session = world.session().await;
    session.order(&prepare(vm(1), 0, &image)).await;
    world.downloads_reach(1).await;
    assert_eq!(session.carry_out(&command(vm(2), 0, Work::Kill)).await, OK);
}
