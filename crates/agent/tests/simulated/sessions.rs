//! Sessions, their numbers, heartbeats and leases.

use std::time::Duration;

use tokio::time::Instant;
use vimana_agent::watchdog::{BootTime, Fenced};
use vimana_driver::FaultKind;
use vimana_driver_sim::Call;
use vimana_protocol::agent::{Disks, FromAgent, PROTOCOL_VERSIONS, ToAgent, Work};
use vimana_protocol::limits::{HEARTBEAT_EVERY, HEARTBEAT_TIMEOUT, RETRY_FIRST};

use crate::orders::{OK, boot, command, image_of, prepare, vm};
use crate::world::{World, welcome};

const LEASE: Duration = Duration::from_secs(30);

fn heartbeat() -> ToAgent {
    ToAgent::Heartbeat {
        lease_ms: Some(30_000),
    }
}

#[tokio::test(start_paused = true)]
async fn a_sessions_number_is_on_the_disk_before_the_agent_says_anything_else() {
    let mut world = World::new();
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.session_number, 0);
    world.journal.sync_takes(Duration::from_secs(3));
    session.send(welcome(7)).await;
    let asked = Instant::now();
    let ready = session.next().await.unwrap();
    assert_eq!(ready, FromAgent::Ready { session_number: 7 });
    assert!(asked.elapsed() >= Duration::from_secs(3));
    world.kill().await;
    world.journal.lose_power(0);
    world.start();
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.session_number, 7);
    // Killed before it was written: the old number is as good.
    session.send(welcome(8)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.kill().await;
    world.journal.lose_power(0);
    world.start();
    assert_eq!(world.hello().await.1.session_number, 7);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_cannot_be_kept_opens_no_session() {
    let mut world = World::new();
    let (mut session, _) = world.hello().await;
    world.journal.fail(Some(std::io::ErrorKind::StorageFull));
    session.send(welcome(1)).await;
    assert_eq!(session.next().await, None);
    world.journal.fail(None);
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.session_number, 0, "the one that is on disk");
    session.welcome(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_when_the_agent_asked_for_it() {
    let mut world = World::new();
    let started = Instant::now();
    let (mut session, _) = world.hello().await;
    let asked = started.elapsed();
    // The answer takes its time; the lease does not wait for it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    session
        .send(ToAgent::Welcome {
            protocol: PROTOCOL_VERSIONS.max,
            session_number: 1,
            lease_ms: Some(30_000),
        })
        .await;
    assert!(matches!(
        session.next().await,
        Some(FromAgent::Ready { .. })
    ));
    let mut expected = vec![(asked, Some(LEASE))];
    assert_eq!(world.lease.grants(), expected);

    // Two heartbeats, then both answers, late.
    let mut beats = Vec::new();
    for _ in 0..2 {
        assert_eq!(session.frame().await, Some(FromAgent::Heartbeat));
        beats.push(started.elapsed());
    }
    assert_eq!(beats[1] - beats[0], HEARTBEAT_EVERY);
    tokio::time::sleep(HEARTBEAT_EVERY / 2).await;
    session.send(heartbeat()).await;
    session.send(ToAgent::Heartbeat { lease_ms: None }).await;
    // And one that answers nothing.
    session.send(heartbeat()).await;
    let order = command(vm(1), 0, Work::Kill);
    assert_eq!(session.carry_out(&order).await, OK);
    expected.push((beats[0], Some(LEASE)));
    expected.push((beats[1], None));
    assert_eq!(world.lease.grants(), expected);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_carried_out_once_the_lease_is_over() {
    let mut world = World::new();
    let mut session = world.session().await;
    *world.lease.over.lock().unwrap() = true;
    session.order(&prepare(vm(1), 0, &image_of(b"x"))).await;
    assert_eq!(session.next().await, None);
    *world.lease.over.lock().unwrap() = false;
    world.session().await;
    assert_eq!(world.host.effects(vm(1)).prepared, 0);
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_once_that_machines_were_stopped() {
    let mut world = World::new();
    let (session, hello) = world.hello().await;
    assert_eq!(hello.fenced, 0);
    *world.lease.fenced.lock().unwrap() = Some(Fenced {
        boot_id: "this".to_owned(),
        at_ms: BootTime::from_ms(1),
        vms: vec![vm(1).to_string(), vm(2).to_string()],
        complete: true,
    });
    drop(session);
    // Until the server has answered, it may not know.
    assert_eq!(world.hello().await.1.fenced, 2);
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.fenced, 2);
    session.welcome(1).await;
    drop(session);
    assert_eq!(world.hello().await.1.fenced, 0);
}

#[tokio::test(start_paused = true)]
async fn the_server_may_ask_for_the_inventory_at_any_time() {
    let mut world = World::new();
    let mut session = world.session().await;
    let order = prepare(vm(1), 0, &image_of(b"content"));
    assert_eq!(session.carry_out(&order).await, OK);
    session.send(ToAgent::TakeInventory).await;
    let inventory = world.host.observed();
    assert_eq!(inventory.len(), 1);
    let told = session.next().await.unwrap();
    let disks = Some(Disks::default());
    assert_eq!(told, FromAgent::Inventory { inventory, disks });
    // A host that cannot tell goes on.
    let fault = vimana_driver::Fault::new(FaultKind::Host, "no");
    world.host.fail_next(Call::Inventory, fault);
    session.send(ToAgent::TakeInventory).await;
    assert_eq!(session.carry_out(&order).await, OK);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left() {
    let mut world = World::new();
    let mut session = world.session().await;
    let since = Instant::now();
    while session.frame().await.is_some() {}
    let lasted = since.elapsed();
    assert!(
        lasted >= HEARTBEAT_TIMEOUT && lasted < HEARTBEAT_TIMEOUT * 2,
        "{lasted:?}"
    );
    world.session().await;
}

#[tokio::test(start_paused = true)]
async fn agents_that_lost_the_server_do_not_come_back_in_step() {
    let mut worlds: Vec<World> = (0..50).map(World::seeded).collect();
    for world in &mut worlds {
        drop(world.session().await);
    }
    let cut = Instant::now();
    let mut comings = Vec::new();
    for world in worlds {
        comings.push(tokio::spawn(async move {
            let mut world = world;
            world.hello().await;
            cut.elapsed()
        }));
    }
    let mut at = Vec::new();
    for coming in comings {
        at.push(coming.await.unwrap());
    }
    at.sort_unstable();
    assert!(at[49] <= RETRY_FIRST && at[24] < at[40]);
    at.dedup();
    assert!(at.len() > 40, "{} instants for 50 agents", at.len());
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_away_is_tried_again_and_again() {
    let mut world = World::new();
    let session = world.session().await;
    world.set_network(false);
    drop(session);
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.set_network(true);
    let since = Instant::now();
    world.session().await;
    assert!(since.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_there_was_no_session_is_told_in_the_next() {
    let mut world = World::new();
    let mut session = world.session().await;
    world.host.delay(Call::Prepare, Duration::from_secs(60));
    let order = prepare(vm(1), 0, &image_of(b"content"));
    session.order(&order).await;
    assert_eq!(session.frame().await, Some(FromAgent::Heartbeat));
    world.set_network(false);
    drop(session);
    tokio::time::sleep(Duration::from_secs(120)).await;
    world.set_network(true);
    let mut session = world.session().await;
    assert_eq!(session.done().await, (order.command, 1, OK));
}

#[tokio::test(start_paused = true)]
async fn more_outcomes_than_a_queue_holds_do_not_break_the_session() {
    let mut world = World::new();
    let mut session = world.session().await;
    // Written all at once, thousands of answers become free in one moment.
    world.journal.sync_takes(Duration::from_secs(1));
    for n in 0..=250 {
        for step in 0..8 {
            let order = command(vm(n), step, Work::Kill);
            session.far.sender.try_send(frame(order)).ok();
            tokio::task::yield_now().await;
        }
    }
    let probe = boot(vm(255), 0);
    session.order(&probe).await;
    loop {
        let (command, _, outcome) = session.done().await;
        if command == probe.command {
            let kind = crate::world::fault_kind(&outcome);
            assert_eq!(kind, Some(FaultKind::NoSuchVm));
            break;
        }
        assert_eq!(outcome, OK);
    }
}

fn frame(order: vimana_protocol::agent::Command) -> String {
    serde_json::to_string(&ToAgent::Command(order)).unwrap()
}
