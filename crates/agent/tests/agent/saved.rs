//! Saved machines, over HTTP to the datastore and back.

use axum::http::StatusCode;
use vimana_driver::{DiskPlan, FaultKind, Power, SavedMachine};
use vimana_protocol::agent::{Command, Outcome, Work};

use crate::orders::{OK, UPLOAD, boot, command, prepare, vm};
use crate::world::{Session, World};

const UPLOAD_STEP: u32 = 3;

/// A machine that is saved on the host, in real files.
pub async fn saved() -> (World, Session) {
    let mut world = World::new().await;
    world.host.keep_files_in(world.dir.path().join("exported"));
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &image)).await, OK);
    assert_eq!(session.carry_out(&boot(vm(1), 1)).await, OK);
    assert_eq!(session.carry_out(&command(vm(1), 2, Work::Save)).await, OK);
    (world, session)
}

pub async fn upload(session: &mut Session) -> Outcome {
    session
        .carry_out(&command(vm(1), UPLOAD_STEP, UPLOAD))
        .await
}

/// Another host of the same server, that is asked to take the machine.
pub async fn take_over(world: &mut World, saved: SavedMachine) -> (Session, Command) {
    world.stop_agent().await;
    world.move_to_another_host();
    world.start_agent();
    let session = world.session().await;
    let image = world.add_image(b"content");
    let Work::Prepare { mut spec } = prepare(vm(1), 0, &image).work else {
        unreachable!()
    };
    spec.run_epoch = 2;
    let mut download = command(
        vm(1),
        0,
        Work::Download {
            spec,
            saved,
            disks: DiskPlan::default(),
        },
    );
    download.run_epoch = 2;
    (session, download)
}

pub fn fault(outcome: Outcome) -> (FaultKind, String) {
    match outcome {
        Outcome::Fault { fault } => (fault.kind, fault.message),
        Outcome::Ok { .. } | Outcome::Unknown => panic!("{outcome:?}"),
    }
}

pub fn machine(outcome: Outcome) -> SavedMachine {
    match outcome {
        Outcome::Ok {
            saved: Some(saved), ..
        } => saved,
        Outcome::Ok { .. } | Outcome::Fault { .. } | Outcome::Unknown => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn a_machine_goes_to_the_datastore_and_comes_back_on_another_host() {
    let (mut world, mut session) = saved().await;
    let machine = machine(upload(&mut session).await);
    assert_eq!(machine.run_epoch, 1);
    for part in &machine.parts {
        let place = format!("{}/1/{}", vm(1), part.part);
        assert_eq!(world.saved().parts[&place].len() as u64, part.size_bytes);
    }
    let (mut session, download) = take_over(&mut world, machine).await;
    assert_eq!(session.carry_out(&download).await, OK);
    assert_eq!(world.host.power(vm(1)), Some(Power::Saved));
    assert_eq!(world.on_the_way(), 0);
    let mut load = command(vm(1), 1, Work::Load);
    load.run_epoch = 2;
    assert_eq!(session.carry_out(&load).await, OK);
    // It went on where it was: the disk was started once.
    assert_eq!(world.host.boots(vm(1)), Some(1));
}

#[tokio::test]
async fn a_datastore_with_a_bad_moment_is_asked_again() {
    let (mut world, mut session) = saved().await;
    let busy = (StatusCode::SERVICE_UNAVAILABLE, "");
    world.saved().answers.extend([busy, busy]);
    // Something else arrived than went: once may be chance.
    world.saved().lies.push_back(b"garbled");
    let machine = machine(upload(&mut session).await);
    assert_eq!(world.saved().requests, 5);
    let (mut session, download) = take_over(&mut world, machine).await;
    world.saved().answers.push_back(busy);
    assert_eq!(session.carry_out(&download).await, OK);
}

#[tokio::test]
async fn a_datastore_that_stays_away_is_a_fault_that_may_pass_in_its_own_words() {
    const PROBLEM: &str = r#"{"type":"about:blank","title":"t","status":503,
        "code":"unavailable","detail":"the datastore is full"}"#;
    let (world, mut session) = saved().await;
    let full = (StatusCode::SERVICE_UNAVAILABLE, PROBLEM);
    world.saved().answers.extend([full; 20]);
    let (kind, message) = fault(upload(&mut session).await);
    assert_eq!(kind, FaultKind::Unavailable);
    assert_eq!(
        message,
        "copying the machine to the datastore: the datastore is full"
    );
    // Nothing is lost: the machine is where it was.
    assert_eq!(world.host.power(vm(1)), Some(Power::Saved));
}

#[tokio::test]
async fn an_upload_that_never_arrives_as_it_went_is_no_upload() {
    let (world, mut session) = saved().await;
    world.saved().lies.extend([b"garbled".as_slice(); 20]);
    let (kind, message) = fault(upload(&mut session).await);
    assert_eq!(kind, FaultKind::BadImage);
    assert_eq!(
        message,
        "copying the machine to the datastore: other bytes arrived than went"
    );
}

#[tokio::test]
async fn a_part_that_is_not_what_was_promised_leaves_nothing() {
    let (mut world, mut session) = saved().await;
    let machine = machine(upload(&mut session).await);
    let (mut session, download) = take_over(&mut world, machine).await;
    let place = format!("{}/1/memory", vm(1));
    let good = world.saved().parts[&place].clone();
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    let attempts = [
        (flipped, "'s checksum is not the one promised"),
        (good[1..].to_vec(), " has fewer bytes than the"),
        ([&good[..], b"!"].concat(), " has more bytes than the"),
    ];
    let mut order = download;
    for (bytes, says) in attempts {
        world.saved().parts.insert(place.clone(), bytes);
        let (kind, message) = fault(session.carry_out(&order).await);
        assert_eq!(kind, FaultKind::BadImage);
        assert!(
            message.starts_with(&format!("the saved machine{says}")),
            "{message}"
        );
        assert_eq!(world.on_the_way(), 0);
        assert_eq!(world.host.power(vm(1)), None);
        order.command.attempt += 1;
    }
    world.saved().parts.remove(&place);
    let (kind, message) = fault(session.carry_out(&order).await);
    assert_eq!(kind, FaultKind::BadImage);
    assert_eq!(message, "the datastore does not have the saved machine");
    world.saved().parts.insert(place, good);
    order.command.attempt += 1;
    assert_eq!(session.carry_out(&order).await, OK);
}

#[tokio::test]
async fn what_was_on_its_way_when_the_agent_died_goes_at_the_start() {
    let mut world = World::without_agent().await;
    let half = world.dir.path().join("saved/.partial-x");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("memory"), b"half").unwrap();
    world.start_agent();
    let _session = world.session().await;
    assert_eq!(world.on_the_way(), 0);
}
