//! What the ledger refuses, answers, and does without.

use std::io::ErrorKind;
use std::time::Duration;

use vimana_driver::{FaultKind, Power};
use vimana_driver_sim::Call;
use vimana_protocol::agent::{Command, FromAgent, ToAgent, Work};

use crate::orders::{OK, boot, command, image_of, prepare, vm};
use crate::world::{Session, World, fault_kind};

const SUPERSEDED: Option<FaultKind> = Some(FaultKind::Superseded);

async fn running() -> (World, Session) {
    let mut world = World::new();
    let mut session = world.session().await;
    let image = image_of(b"content");
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &image)).await, OK);
    let mut again = boot(vm(1), 1);
    again.run_epoch = 2;
    again.claim_epoch = 3;
    again.command.attempt = 4;
    assert_eq!(session.carry_out(&again).await, OK);
    (world, session)
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_ledger_is_refused_and_has_no_effect_even_after_a_kill() {
    let (mut world, mut session) = running().await;
    for round in 0..2 {
        let mut kill = command(vm(1), 2, Work::Kill);
        (kill.run_epoch, kill.claim_epoch) = (2, 3);
        let stale: [fn(&mut Command); 3] = [
            |kill| kill.run_epoch = 1,
            |kill| kill.claim_epoch = 2,
            // Another try of the boot is known.
            |kill| (kill.command.step, kill.command.attempt) = (1, 3),
        ];
        for make_stale in stale {
            let mut order = kill.clone();
            make_stale(&mut order);
            let outcome = session.carry_out(&order).await;
            assert_eq!(fault_kind(&outcome), SUPERSEDED, "{order:?}");
        }
        assert_eq!(world.host.power(vm(1)), Some(Power::Running));
        if round == 0 {
            world.kill().await;
            world.start();
            session = world.session().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_names_the_claim_under_which_the_command_came_last() {
    let mut world = World::new();
    let mut session = world.session().await;
    world.host.delay(Call::Prepare, Duration::from_secs(1));
    let mut order = prepare(vm(1), 0, &image_of(b"content"));
    session.order(&order).await;
    order.claim_epoch = 2;
    session.order(&order).await;
    assert_eq!(session.done().await, (order.command, 2, OK));
    order.claim_epoch = 3;
    assert_eq!(session.carry_out(&order).await, OK);
    assert_eq!(world.host.effects(vm(1)).prepared, 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_on_the_disk_before_anything_is_said_under_it() {
    let mut world = World::new();
    let mut session = world.session().await;
    let mut order = prepare(vm(1), 0, &image_of(b"content"));
    assert_eq!(session.carry_out(&order).await, OK);
    order.claim_epoch = 9;
    assert_eq!(session.carry_out(&order).await, OK);
    world.kill().await;
    world.journal.lose_power(0);
    world.start();
    let mut session = world.session().await;
    order.claim_epoch = 8;
    let outcome = session.carry_out(&order).await;
    assert_eq!(fault_kind(&outcome), SUPERSEDED);
}

#[tokio::test(start_paused = true)]
async fn without_a_record_there_is_no_effect() {
    let mut world = World::new();
    let mut session = world.session().await;
    let order = prepare(vm(1), 0, &image_of(b"content"));
    world.journal.fail(Some(ErrorKind::StorageFull));
    let outcome = session.carry_out(&order).await;
    assert_eq!(fault_kind(&outcome), Some(FaultKind::NoSpace));
    world.journal.fail(Some(ErrorKind::Other));
    let outcome = session.carry_out(&order).await;
    assert_eq!(fault_kind(&outcome), Some(FaultKind::Host));
    assert_eq!(world.host.effects(vm(1)).prepared, 0);
    world.journal.fail(None);
    assert_eq!(session.carry_out(&order).await, OK);
    // The ledger is whole again.
    world.kill().await;
    world.start();
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&order).await, OK);
    assert_eq!(world.host.effects(vm(1)).prepared, 1);
}

#[tokio::test(start_paused = true)]
async fn many_commands_share_a_sync() {
    let mut world = World::new();
    let mut session = world.session().await;
    world.journal.sync_takes(Duration::from_millis(5));
    let before = world.journal.syncs();
    for n in 1..=50 {
        session.order(&command(vm(n), 0, Work::Kill)).await;
    }
    for _ in 1..=50 {
        assert_eq!(session.done().await.2, OK);
    }
    let syncs = world.journal.syncs() - before;
    assert!(
        syncs <= 10,
        "{syncs} syncs for 50 commands and their outcomes"
    );
}

#[tokio::test(start_paused = true)]
async fn the_journal_stays_bounded() {
    let mut world = World::new();
    let mut session = world.session().await;
    for attempt in 1..=2500 {
        let mut kill = command(vm(1), 0, Work::Kill);
        kill.command.attempt = attempt;
        assert_eq!(session.carry_out(&kill).await, OK);
    }
    let records = world.journal.records().len();
    assert!(records < 2000, "{records}");
    let mut kill = command(vm(1), 0, Work::Kill);
    kill.command.attempt = 2499;
    let outcome = session.carry_out(&kill).await;
    assert_eq!(fault_kind(&outcome), SUPERSEDED);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_not_recorded_goes_for_good() {
    let (mut world, mut session) = running().await;
    let discard = |run_epoch| ToAgent::Discard {
        vm_id: vm(1),
        run_epoch,
        elsewhere: None,
    };
    // An earlier run was meant: this one stays.
    session.send(discard(1)).await;
    let probe = command(vm(2), 0, Work::Kill);
    assert_eq!(session.carry_out(&probe).await, OK);
    assert_eq!(world.host.power(vm(1)), Some(Power::Running));

    session.send(discard(2)).await;
    let gone = FromAgent::Discarded { vm_id: vm(1) };
    while session.next().await.unwrap() != gone {}
    assert_eq!(world.host.power(vm(1)), None);
    assert_eq!(world.host.effects(vm(1)).cleaned, 1);
    // Once more: nothing is left, and that is said again.
    session.send(discard(2)).await;
    while session.next().await.unwrap() != gone {}
    assert_eq!(world.host.effects(vm(1)).cleaned, 1);
    world.kill().await;
    world.start();
    assert!(world.hello().await.1.inventory.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_discarded_although_a_later_run_of_it_was_once_tried() {
    let mut world = World::new();
    let mut session = world.session().await;
    let image = image_of(b"content");
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &image)).await, OK);
    let mut later = boot(vm(1), 1);
    later.run_epoch = 2;
    let fault = vimana_driver::Fault::new(FaultKind::Hypervisor, "broken");
    world.host.fail_next(Call::Boot, fault);
    assert_eq!(
        fault_kind(&session.carry_out(&later).await),
        Some(FaultKind::Hypervisor)
    );
    session
        .send(ToAgent::Discard {
            vm_id: vm(1),
            run_epoch: 1,
            elsewhere: None,
        })
        .await;
    let gone = FromAgent::Discarded { vm_id: vm(1) };
    while session.next().await.unwrap() != gone {}
    assert_eq!(world.host.power(vm(1)), None);
}
