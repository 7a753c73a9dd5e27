//! Copies of saved machines that break off, and go on where they were.

use std::path::PathBuf;

use vimana_driver::{DiskPlan, FaultKind, Power, SavedMachine};
use vimana_driver_sim::Call;
use vimana_protocol::agent::{Command, Outcome, Work};

use crate::orders::{OK, UPLOAD, command, vm};
use crate::saved::{fault, machine, saved, take_over, upload};
use crate::world::{Session, World};

/// Of each part of a machine, in order: bytes.
fn sizes(machine: &SavedMachine) -> Vec<u64> {
    machine.parts.iter().map(|part| part.size_bytes).collect()
}

/// A machine in the datastore, and a host that is asked to take it.
async fn on_its_way() -> (World, Session, Command, SavedMachine) {
    let (mut world, mut session) = saved().await;
    let machine = machine(upload(&mut session).await);
    let (session, download) = take_over(&mut world, machine.clone()).await;
    world.saved().moved.clear();
    (world, session, download, machine)
}

async fn starts_anew(world: &mut World) -> Session {
    world.kill_agent().await;
    world.start_agent();
    world.session().await
}

fn partials(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.dir.path().join("saved")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn again(order: &mut Command) -> &Command {
    order.command.attempt += 1;
    order
}

#[tokio::test]
async fn an_upload_goes_on_after_what_came_wherever_it_broke_off() {
    let (world, mut session) = saved().await;
    let mut order = command(vm(1), 3, UPLOAD);
    let whole = machine(session.carry_out(&order).await);
    let sizes = sizes(&whole);
    assert_eq!(world.saved().take_moved(), sizes.iter().sum::<u64>());
    let last = usize::try_from(sizes[0]).unwrap();
    for cut in [1, 2, last / 2, last - 1, last] {
        world.saved().parts.clear();
        world.saved().cuts.push_back(cut);
        let now = machine(session.carry_out(again(&mut order)).await);
        assert_eq!(now, whole);
        let (moved, cut) = (std::mem::take(&mut world.saved().moved), cut as u64);
        let expected = [(0, cut), (cut, sizes[0] - cut), (0, sizes[1])];
        assert_eq!(moved, expected, "the second try sends only the rest");
    }
    // What came whole is not sent again, as where the answer was lost.
    assert_eq!(machine(session.carry_out(again(&mut order)).await), whole);
    assert_eq!(world.saved().take_moved(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_by_another_agent_of_the_host() {
    let (mut world, mut session) = saved().await;
    let busy = (axum::http::StatusCode::SERVICE_UNAVAILABLE, "");
    world.saved().cuts.extend([usize::MAX, 5]);
    let mut order = command(vm(1), 3, UPLOAD);
    world.saved().answers.clear();
    session.order(&order).await;
    while !world
        .saved()
        .staged
        .contains_key(&format!("{}/1/memory", vm(1)))
    {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    world.saved().answers.extend([busy; 20]);
    let mut session = starts_anew(&mut world).await;
    world.saved().answers.clear();
    world.saved().moved.clear();
    let whole = machine(session.carry_out(again(&mut order)).await);
    let moved = std::mem::take(&mut world.saved().moved);
    assert_eq!(moved, [(5, sizes(&whole)[1] - 5)]);
    for part in &whole.parts {
        let place = format!("{}/1/{}", vm(1), part.part);
        assert_eq!(world.saved().parts[&place].len() as u64, part.size_bytes);
    }
}

#[tokio::test]
async fn an_upload_of_which_other_bytes_came_begins_anew() {
    let (world, mut session) = saved().await;
    let mut order = command(vm(1), 3, UPLOAD);
    let whole = machine(session.carry_out(&order).await);
    let place = format!("{}/1/disk", vm(1));
    let good = world.saved().parts[&place].clone();
    let longer = [&good[..], b"!"].concat();
    for damaged in [b"?".to_vec(), good[1..].to_vec(), longer] {
        world.saved().parts.remove(&place);
        world.saved().staged.insert(place.clone(), damaged);
        world.saved().moved.clear();
        assert_eq!(machine(session.carry_out(again(&mut order)).await), whole);
        assert_eq!(world.saved().moved, [(0, good.len() as u64)]);
    }
    // As does one that came whole, of what the machine was before.
    world.saved().parts.insert(place.clone(), b"other".to_vec());
    assert_eq!(machine(session.carry_out(again(&mut order)).await), whole);
    assert_eq!(world.saved().parts[&place], good);
}

#[tokio::test]
async fn a_server_that_knows_no_offsets_gets_and_gives_everything_anew() {
    let (mut world, mut session) = saved().await;
    world.saved().is_old = true;
    world.saved().cuts.push_back(3);
    let machine = machine(upload(&mut session).await);
    let sizes = sizes(&machine);
    let moved = std::mem::take(&mut world.saved().moved);
    assert_eq!(moved, [(0, 3), (0, sizes[0]), (0, sizes[1])]);
    let (mut session, download) = take_over(&mut world, machine).await;
    world.saved().cuts.push_back(3);
    assert_eq!(session.carry_out(&download).await, OK);
    let moved = std::mem::take(&mut world.saved().moved);
    assert_eq!(moved, [(0, 3), (0, sizes[0]), (0, sizes[1])]);
    assert_eq!(world.on_the_way(), 0);
}

#[tokio::test]
async fn a_download_goes_on_after_what_came_wherever_it_broke_off() {
    let (mut world, mut session, mut download, machine) = on_its_way().await;
    let sizes = sizes(&machine);
    let last = usize::try_from(sizes[0]).unwrap();
    for cut in [1, 2, last / 2, last - 1] {
        world.saved().cuts.push_back(cut);
        assert_eq!(session.carry_out(again(&mut download)).await, OK);
        let (moved, cut) = (std::mem::take(&mut world.saved().moved), cut as u64);
        let expected = [(0, cut), (cut, sizes[0] - cut), (0, sizes[1])];
        assert_eq!(moved, expected, "the second try fetches only the rest");
        assert_eq!(world.host.power(vm(1)), Some(Power::Saved));
        assert_eq!(world.on_the_way(), 0);
        let (next, order) = take_over(&mut world, machine.clone()).await;
        session = next;
        download = order;
    }
}

#[tokio::test]
async fn a_download_goes_on_by_another_agent_of_the_host() {
    let (mut world, mut session, mut download, machine) = on_its_way().await;
    let sizes = sizes(&machine);
    // All of the disk, and some of the memory; then the server is away.
    let busy = (axum::http::StatusCode::SERVICE_UNAVAILABLE, "");
    world.saved().cuts.extend([usize::MAX, 7]);
    session.order(&download).await;
    while world.saved().moved.len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    world.saved().answers.extend([busy; 20]);
    let (_, outcome) = session.outcome().await;
    assert_eq!(fault(outcome).0, FaultKind::Unavailable);
    assert_eq!(world.on_the_way(), 2, "kept for the next try");
    let mut session = starts_anew(&mut world).await;
    assert_eq!(world.on_the_way(), 2);
    world.saved().answers.clear();
    world.saved().moved.clear();
    assert_eq!(session.carry_out(again(&mut download)).await, OK);
    assert_eq!(world.saved().moved, [(7, sizes[1] - 7)]);
    assert_eq!(world.on_the_way(), 0);
}

#[tokio::test]
async fn what_was_fetched_and_not_taken_over_need_not_come_again() {
    let (world, mut session, mut download, _) = on_its_way().await;
    let fault = vimana_driver::Fault::new(FaultKind::Unavailable, "a bad moment");
    world.host.fail_next(Call::Import, fault);
    let outcome = session.carry_out(&download).await;
    assert!(matches!(outcome, Outcome::Fault { .. }), "{outcome:?}");
    assert_eq!(world.on_the_way(), 2);
    world.saved().moved.clear();
    assert_eq!(session.carry_out(again(&mut download)).await, OK);
    assert_eq!(world.saved().moved, []);
    assert_eq!(world.on_the_way(), 0);
}

#[tokio::test]
async fn a_download_whose_beginning_was_damaged_begins_anew() {
    let (mut world, mut session, mut download, machine) = on_its_way().await;
    let part = &machine.parts[0];
    let size = usize::try_from(part.size_bytes).unwrap();
    let name = format!(".partial-{}-1-disk-{}", vm(1), part.sha256);
    for damaged in [1, size - 1, size, size + 1] {
        let partial = world.dir.path().join("saved").join(&name);
        std::fs::write(&partial, vec![b'!'; damaged]).unwrap();
        assert_eq!(session.carry_out(&download).await, OK, "{damaged}");
        let moved = std::mem::take(&mut world.saved().moved);
        assert!(moved.contains(&(0, part.size_bytes)), "{moved:?}");
        assert_eq!(world.on_the_way(), 0);
        (session, download) = take_over(&mut world, machine.clone()).await;
    }
}

#[tokio::test]
async fn what_was_fetched_goes_with_the_machine_that_nobody_wants_here() {
    let (world, mut session, mut download, machine) = on_its_way().await;
    let busy = (axum::http::StatusCode::SERVICE_UNAVAILABLE, "");
    let mut step = 1;
    for work in [
        Work::Clean,
        Work::Leave {
            disks: DiskPlan::default(),
        },
    ] {
        world.saved().cuts.push_back(3);
        session.order(&download).await;
        while world.saved().moved.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        world.saved().answers.extend([busy; 20]);
        let (_, outcome) = session.outcome().await;
        assert_eq!(fault(outcome).0, FaultKind::Unavailable);
        assert_eq!(world.on_the_way(), 1);
        world.saved().answers.clear();
        world.saved().moved.clear();
        let mut undo = command(vm(1), step, work);
        undo.run_epoch = 2;
        assert_eq!(session.carry_out(&undo).await, OK);
        assert_eq!(partials(&world), Vec::<PathBuf>::new());
        step += 1;
        download.command.step = step;
        step += 1;
    }
    assert_eq!(machine.parts.len(), 2);
}

#[tokio::test]
async fn what_nobody_goes_on_with_goes_at_the_start_after_a_week() {
    let mut world = World::without_agent().await;
    let dir = world.dir.path().join("saved");
    std::fs::create_dir_all(&dir).unwrap();
    let digest = "0".repeat(64);
    let day = std::time::Duration::from_secs(24 * 3600);
    let now = std::time::SystemTime::now();
    let file = |name: String, age: u32| {
        let path = dir.join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_modified(now - day * age).unwrap();
        path
    };
    let young = file(format!(".partial-{}-1-disk-{digest}", vm(1)), 6);
    let old = file(format!(".partial-{}-1-memory-{digest}", vm(1)), 8);
    let strange = [
        format!(".partial-{}-1-disk-{}", vm(1), &digest[1..]),
        format!(".partial-{}-1-cpu-{digest}", vm(1)),
        format!(".partial-{}--disk-{digest}", vm(1)),
        format!(".partial-x-1-disk-{digest}"),
        ".partial-".to_owned(),
    ];
    for name in strange {
        file(name, 0);
    }
    let theirs = file("notes.txt".to_owned(), 30);
    world.start_agent();
    let _session = world.session().await;
    assert!(young.exists() && theirs.exists() && !old.exists());
    assert_eq!(world.on_the_way(), 2);
}
