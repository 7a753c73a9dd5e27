//! How sessions begin, break and begin again.

use std::sync::Arc;
use std::time::Duration;

use vimana_driver::Power;
use vimana_driver_sim::{Call, SimDriver};
use vimana_protocol::agent::Work;

use crate::orders::{OK, boot, command, prepare, vm};
use crate::world::World;

#[tokio::test]
async fn the_hello_carries_identity_and_inventory() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.carry_out(&boot(vm(1), 1)).await;
    drop(session);
    world.host.crash(vm(1), "lightning");
    let (_, again) = world.hello().await;
    assert_eq!(again.inventory.len(), 1);
    assert_eq!(again.inventory[0].vm_id, vm(1));
    world.stop_agent().await;

    // Another agent process on the same host is the same host.
    world.start_agent();
    let (_, restarted) = world.hello().await;
    assert_eq!(restarted.host_id, again.host_id);
    let reason = "lightning".to_owned();
    assert_eq!(restarted.inventory[0].power, Power::Crashed { reason });
}

#[tokio::test]
async fn an_outcome_survives_a_reconnect() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    world.host.delay(Call::Prepare, Duration::from_millis(200));
    let order = prepare(vm(1), 0, &image);
    session.order(&order).await;
    world.downloads_reach(1).await;
    drop(session);
    let mut session = world.session().await;
    assert_eq!(session.outcome().await, (order.command, OK));
    // The server did not know that and repeats the command.
    assert_eq!(session.carry_out(&order).await, OK);
    assert_eq!(world.host.effects(vm(1)).prepared, 1);
}

#[tokio::test]
async fn machines_outlive_a_stopped_agent() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.carry_out(&boot(vm(1), 1)).await;
    // Work under way does not hold the agent up.
    world.host.delay(Call::Shutdown, Duration::from_secs(3600));
    session
        .order(&command(vm(1), 2, Work::Shutdown { grace_ms: 1 }))
        .await;
    world.stop_agent().await;
    assert_eq!(world.host.power(vm(1)), Some(Power::Running));
}

#[tokio::test]
async fn stopping_the_machines_needs_no_agent_and_leaves_the_disks() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    for n in 1..=2 {
        session.carry_out(&prepare(vm(n), 0, &image)).await;
        session.carry_out(&boot(vm(n), 1)).await;
    }
    world.stop_agent().await;
    world.host.ignore_shutdown(vm(2), true);
    let driver = SimDriver::new(Arc::clone(&world.host));
    let grace = Duration::from_millis(20);
    assert_eq!(
        vimana_agent::stop_machines(&driver, grace).await.unwrap(),
        2
    );
    assert_eq!(world.host.power(vm(1)), Some(Power::Off));
    assert_eq!(world.host.power(vm(2)), Some(Power::Off));
    assert_eq!(
        vimana_agent::stop_machines(&driver, grace).await.unwrap(),
        0
    );
}

#[tokio::test]
async fn the_ledger_outlives_kills_and_stops_on_the_disk() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let orders = [prepare(vm(1), 0, &image), boot(vm(1), 1)];
    let mut session = world.session().await;
    for order in &orders {
        assert_eq!(session.carry_out(order).await, OK);
    }
    for round in 0..4 {
        if round % 2 == 0 {
            world.kill_agent().await;
        } else {
            world.stop_agent().await;
        }
        world.start_agent();
        let (mut session, hello) = world.hello().await;
        assert_eq!(hello.session_number, 1);
        session.welcome().await;
        for order in &orders {
            assert_eq!(session.carry_out(order).await, OK);
        }
    }
    let effects = world.host.effects(vm(1));
    assert_eq!((effects.prepared, effects.booted), (1, 1));
}

#[tokio::test]
async fn an_older_agents_directory_without_a_ledger_serves_and_its_machines_run_on() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.carry_out(&boot(vm(1), 1)).await;
    world.stop_agent().await;
    std::fs::remove_file(world.dir.path().join("ledger")).unwrap();
    std::fs::remove_dir(world.dir.path().join("saved")).unwrap();
    world.start_agent();
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.session_number, 0);
    assert_eq!(hello.inventory[0].power, Power::Running);
    session.welcome().await;
    // What is not in the ledger, the driver knows.
    assert_eq!(session.carry_out(&boot(vm(1), 1)).await, OK);
    assert_eq!(world.host.effects(vm(1)).booted, 1);
}
