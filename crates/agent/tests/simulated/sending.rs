//! Volumes whose content the server asks for.

use std::time::Duration;

use tokio::time::timeout;
use vimana_driver::{Fault, FaultKind, VolumeSpec};
use vimana_driver_sim::{Call, Mishap};
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{ImageId, OperationId, VolumeId};
use vimana_protocol::agent::{FromAgent, Outcome, ToAgent, VolumeOrder, Work};

use crate::orders::{OK, boot, command, image_of, prepare, vm};
use crate::world::{Session, World};

fn order(n: u64) -> VolumeOrder {
    VolumeOrder {
        volume_id: VolumeId::from_parts(1, [1; 10]),
        image_id: ImageId::from_parts(n, [2; 10]),
        operation_id: OperationId::from_parts(n, [3; 10]),
    }
}

/// A machine that runs and has a volume.
async fn attached() -> (World, Session) {
    let mut world = World::new();
    let mut session = world.session().await;
    let image = image_of(b"content");
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &image)).await, OK);
    assert_eq!(session.carry_out(&boot(vm(1), 1)).await, OK);
    let volume = VolumeSpec {
        volume_id: order(1).volume_id,
        size_mib: MiB(1),
        image: None,
        datastore: DatastoreName::local(),
        made: false,
    };
    let attach = command(vm(1), 2, Work::Attach { volume });
    let done = session.carry_out(&attach).await;
    assert!(
        matches!(done, Outcome::Ok { place: Some(0), .. }),
        "{done:?}"
    );
    (world, session)
}

async fn not_sent(session: &mut Session, of: VolumeOrder) -> Fault {
    let said = session.next().await.unwrap();
    let FromAgent::VolumeNotSent { order, fault } = said else {
        panic!("{said:?}")
    };
    assert_eq!(order, of);
    fault
}

/// Until all is at rest, of which the server hears nothing.
async fn quiet(session: &mut Session) {
    let said = timeout(Duration::from_secs(60), session.next()).await;
    assert!(said.is_err(), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_twice_is_sent_once_and_nothing_is_left() {
    let (world, mut session) = attached().await;
    let slowly = Duration::from_secs(5);
    world.host.delay(Call::CopyVolume, slowly);
    for n in [1, 1, 2, 1] {
        session.send(ToAgent::SendVolume(order(n))).await;
    }
    quiet(&mut session).await;
    let sent = |world: &World| -> Vec<VolumeOrder> {
        let sent = world.shelf.store.sent.lock().unwrap();
        sent.iter().map(|(order, _)| *order).collect()
    };
    assert_eq!(sent(&world), [order(1), order(2)]);
    assert_eq!(world.host.copies().len(), 0);
    // Whoever asks after the end has not got it.
    session.send(ToAgent::SendVolume(order(1))).await;
    quiet(&mut session).await;
    assert_eq!(sent(&world), [order(1), order(2), order(1)]);
}

#[tokio::test(start_paused = true)]
async fn what_makes_way_is_copied_anew_and_what_fails_is_told() {
    let (world, mut session) = attached().await;
    let makes_way = Fault::new(FaultKind::Cancelled, "a later call overtook this one");
    for _ in 0..3 {
        let mishap = Mishap::Fail(makes_way.clone());
        world.host.mishap(Call::CopyVolume, mishap);
    }
    session.send(ToAgent::SendVolume(order(1))).await;
    quiet(&mut session).await;
    assert_eq!(world.shelf.store.sent.lock().unwrap().len(), 1);

    let full = Fault::new(FaultKind::NoSpace, "the host's disk is full");
    world
        .host
        .mishap(Call::CopyVolume, Mishap::Fail(full.clone()));
    session.send(ToAgent::SendVolume(order(2))).await;
    assert_eq!(not_sent(&mut session, order(2)).await, full);

    let large = Fault::new(FaultKind::BadImage, "it is too large");
    world
        .shelf
        .store
        .sending
        .lock()
        .unwrap()
        .push(large.clone());
    session.send(ToAgent::SendVolume(order(3))).await;
    assert_eq!(not_sent(&mut session, order(3)).await, large);
    assert_eq!(world.host.copies().len(), 0);

    let mut unknown = order(4);
    unknown.volume_id = VolumeId::from_parts(9, [9; 10]);
    session.send(ToAgent::SendVolume(unknown)).await;
    let fault = not_sent(&mut session, unknown).await;
    assert_eq!(fault.kind, FaultKind::NoSuchVolume);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_leaves_no_copy_and_is_asked_again() {
    let (mut world, mut session) = attached().await;
    let long = Duration::from_secs(3600);
    world.host.delay(Call::RemoveCopy, long);
    session.send(ToAgent::SendVolume(order(1))).await;
    quiet(&mut session).await;
    assert_eq!(world.host.copies().len(), 1);
    world.kill().await;
    world.host.delay(Call::RemoveCopy, Duration::ZERO);
    world.start();
    let mut session = world.session().await;
    assert_eq!(world.host.copies().len(), 0);
    session.send(ToAgent::SendVolume(order(1))).await;
    quiet(&mut session).await;
    assert_eq!(world.shelf.store.sent.lock().unwrap().len(), 2);
    assert_eq!(world.host.copies().len(), 0);
}
