//! kill -9 of the agent, anywhere.

use std::time::Duration;

use vimana_driver::Power;
use vimana_driver_sim::Call;
use vimana_protocol::agent::{FromAgent, Work};

use crate::orders::{OK, boot, command, image_of, prepare, vm};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn twenty_running_machines_live_through_a_kill_and_are_reported_at_once() {
    let mut world = World::new();
    let image = image_of(b"content");
    let mut session = world.session().await;
    for n in 1..=20 {
        assert_eq!(session.carry_out(&prepare(vm(n), 0, &image)).await, OK);
        assert_eq!(session.carry_out(&boot(vm(n), 1)).await, OK);
    }
    world.kill().await;
    world.start();
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.inventory.len(), 20);
    for held in &hello.inventory {
        assert_eq!((held.run_epoch, &held.power), (1, &Power::Running));
    }
    session.welcome(world.next_number()).await;
    // The server repeats what it has no answer to, be it all of it: every
    // command is answered, none is carried out, and no machine flaps.
    for n in 1..=20 {
        for order in [prepare(vm(n), 0, &image), boot(vm(n), 1)] {
            session.order(&order).await;
            let frame = session.next().await.unwrap();
            assert!(
                matches!(&frame, FromAgent::Done { command, outcome, .. }
                    if *command == order.command && *outcome == OK),
                "{frame:?}"
            );
        }
        let effects = world.host.effects(vm(n));
        assert_eq!((effects.prepared, effects.booted), (1, 1));
    }
}

/// Kills the agent that long after it got an order to reset a machine; says
/// how often it was reset before and after the server has asked again, and
/// whether the outcome was on record.
async fn kill_after(ms: u64) -> (u32, u32, bool) {
    let mut world = World::new();
    let image = image_of(b"content");
    let mut session = world.session().await;
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.carry_out(&boot(vm(1), 1)).await;
    world.journal.sync_takes(Duration::from_millis(10));
    world.host.delay(Call::Reset, Duration::from_millis(10));
    let reset = command(vm(1), 2, Work::Reset);
    session.order(&reset).await;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    world.kill().await;
    let before = world.host.effects(vm(1)).reset;
    let records = world.journal.records();
    let about = |kind: &str| {
        let kind = format!(r#""record":"{kind}""#);
        let is = |record: &&String| record.contains(&kind) && record.contains(r#""step":2"#);
        records.iter().filter(is).count()
    };
    assert!(
        about("begun") == 1 || before == 0,
        "no effect without a record"
    );
    let is_ended = about("ended") == 1;

    world.start();
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&reset).await, OK);
    (before, world.host.effects(vm(1)).reset, is_ended)
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_loses_no_command_and_repeats_none_that_had_ended() {
    let mut courses = Vec::new();
    for ms in 0..40 {
        let (before, after, is_ended) = kill_after(ms).await;
        // Only what had begun and was not on record as ended runs again.
        assert_eq!(after, if is_ended { before } else { before + 1 }, "{ms} ms");
        courses.push((before, is_ended));
    }
    // Both was seen: a kill before the effect, and one after the record.
    assert_eq!(courses.first(), Some(&(0, false)));
    assert_eq!(courses.last(), Some(&(1, true)));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_yet_on_the_disk_when_power_failed_had_no_effect() {
    let mut world = World::new();
    let mut session = world.session().await;
    world.journal.sync_takes(Duration::from_secs(1));
    let order = prepare(vm(1), 0, &image_of(b"content"));
    session.order(&order).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.kill().await;
    world.journal.lose_power(0);
    assert_eq!(world.host.effects(vm(1)).prepared, 0);
    world.start();
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&order).await, OK);
    assert_eq!(world.host.effects(vm(1)).prepared, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_agent_leaves_its_outcomes_to_the_next() {
    let mut world = World::new();
    let mut session = world.session().await;
    let order = prepare(vm(1), 0, &image_of(b"content"));
    assert_eq!(session.carry_out(&order).await, OK);
    world.stop().await;
    assert_eq!(session.next().await, None);
    world.start();
    let mut session = world.session().await;
    world.host.crash_all("nobody asks the driver");
    assert_eq!(session.carry_out(&order).await, OK);
    assert_eq!(world.host.effects(vm(1)).prepared, 1);
}
