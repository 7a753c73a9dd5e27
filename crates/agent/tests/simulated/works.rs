//! What each kind of work does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vimana_driver::{DiskPlan, FaultKind, Part, Power};
use vimana_driver_sim::{Call, Mishap, SimHost};
use vimana_model::unit::MiB;
use vimana_protocol::agent::{Command, FromAgent, Outcome, Work};

use crate::orders::{OK, RESOURCES, UPLOAD, boot, command, image_of, prepare, vm};
use crate::shelf::Store;
use crate::world::{Session, World, fault_kind};

async fn running() -> (World, Session) {
    let mut world = World::new();
    let mut session = world.session().await;
    let image = image_of(b"content");
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &image)).await, OK);
    assert_eq!(session.carry_out(&boot(vm(1), 1)).await, OK);
    (world, session)
}

fn noted(text: &str) -> Outcome {
    Outcome::Ok {
        note: Some(text.to_owned()),
        saved: None,
        backup: None,
        endpoint: None,
        sent: None,
        place: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_restarted_reset_and_resized() {
    let (world, mut session) = running().await;
    let reboot = |step| command(vm(1), step, Work::Reboot { grace_ms: 50 });
    assert_eq!(session.carry_out(&reboot(2)).await, OK);
    world.host.ignore_shutdown(vm(1), true);
    let forced = noted("the guest did not react; it was reset");
    assert_eq!(session.carry_out(&reboot(3)).await, forced);
    let reset = command(vm(1), 4, Work::Reset);
    assert_eq!(session.carry_out(&reset).await, OK);
    let mut resources = RESOURCES;
    resources.memory_mib = MiB(256);
    let resize = command(vm(1), 5, Work::Resize { resources });
    assert_eq!(session.carry_out(&resize).await, OK);
    assert_eq!(world.host.resources(vm(1)), Some(resources));
    let shutdown = command(vm(1), 6, Work::Shutdown { grace_ms: 50 });
    let forced = noted("the guest did not react; it was switched off");
    assert_eq!(session.carry_out(&shutdown).await, forced);
    assert_eq!(world.host.power(vm(1)), Some(Power::Off));
}

#[tokio::test(start_paused = true)]
async fn a_saved_machine_goes_to_the_datastore_and_runs_on_elsewhere() {
    let store: Arc<Store> = Arc::default();
    let mut source = World::on(SimHost::new(), Arc::clone(&store));
    source.start();
    let mut session = source.session().await;
    let image = image_of(b"content");
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.carry_out(&boot(vm(1), 1)).await;
    assert_eq!(session.carry_out(&command(vm(1), 2, Work::Save)).await, OK);
    assert_eq!(source.host.power(vm(1)), Some(Power::Saved));
    let upload = command(vm(1), 3, UPLOAD);
    let outcome = session.carry_out(&upload).await;
    let Outcome::Ok {
        note: None,
        saved: Some(saved),
        backup: None,
        endpoint: None,
        sent: None,
        place: None,
    } = outcome.clone()
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(saved.run_epoch, 1);
    assert!(saved.hypervisor.starts_with("simulation"));
    let parts: Vec<Part> = saved.parts.iter().map(|part| part.part).collect();
    assert_eq!(parts, Part::OWN);
    // What it said is remembered, with all that it said.
    assert_eq!(session.carry_out(&upload).await, outcome);
    assert_eq!(source.host.effects(vm(1)).exported, 1);
    assert_eq!(session.carry_out(&command(vm(1), 4, Work::Clean)).await, OK);

    let mut target = World::on(SimHost::new(), store);
    target.start();
    let mut session = target.session().await;
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
    assert_eq!(session.carry_out(&download).await, OK);
    // Another try finds it there.
    download.command.attempt = 2;
    assert_eq!(session.carry_out(&download).await, OK);
    assert_eq!(target.host.effects(vm(1)).imported, 1);
    let mut load = command(vm(1), 1, Work::Load);
    load.run_epoch = 2;
    assert_eq!(session.carry_out(&load).await, OK);
    assert_eq!(target.host.power(vm(1)), Some(Power::Running));
    assert_eq!(target.host.boots(vm(1)), Some(1));
}

#[tokio::test(start_paused = true)]
async fn taking_a_step_back_overtakes_it() {
    let (world, mut session) = running().await;
    world.host.delay(Call::Save, Duration::from_secs(3600));
    let save = command(vm(1), 2, Work::Save);
    session.order(&save).await;
    assert_eq!(session.frame().await, Some(FromAgent::Heartbeat));
    let mut back = command(vm(1), 2, Work::Load);
    back.command.undo = true;
    back.run_epoch = 2;
    session.order(&back).await;
    let (first, _, outcome) = session.done().await;
    assert_eq!(first, save.command);
    assert_eq!(fault_kind(&outcome), Some(FaultKind::Cancelled));
    assert_eq!(session.done().await, (back.command, 1, OK));
    assert_eq!(world.host.power(vm(1)), Some(Power::Running));
    // However late the step itself comes once more, it is over.
    let mut late = save;
    late.run_epoch = 2;
    late.command.attempt = 2;
    let outcome = session.carry_out(&late).await;
    assert_eq!(fault_kind(&outcome), Some(FaultKind::Superseded));
    assert_eq!(world.host.power(vm(1)), Some(Power::Running));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_driver_is_a_fault_of_the_host_and_blocks_nothing() {
    let (world, mut session) = running().await;
    world.host.mishap(Call::Reset, Mishap::Panic);
    let reset = |attempt| {
        let mut reset = command(vm(1), 2, Work::Reset);
        reset.command.attempt = attempt;
        reset
    };
    let outcome = session.carry_out(&reset(1)).await;
    assert_eq!(fault_kind(&outcome), Some(FaultKind::Host));
    assert_eq!(session.carry_out(&reset(2)).await, OK);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_at_most_twice_a_second_and_never_after_the_end() {
    let mut world = World::new();
    let mut session = world.session().await;
    *world.shelf.image_takes.lock().unwrap() = Duration::from_secs(2);
    let order = prepare(vm(1), 0, &image_of(&[7; 1000]));
    session.order(&order).await;
    let mut told: Vec<(Instant, u64)> = Vec::new();
    loop {
        let frame = session.next().await.unwrap();
        if let FromAgent::Progress { command, progress } = frame {
            assert_eq!((command, progress.total_bytes), (order.command, 1000));
            told.push((Instant::now(), progress.done_bytes));
        } else if let FromAgent::Done { outcome, .. } = frame {
            assert_eq!(outcome, OK);
            break;
        }
    }
    assert!(told.len() >= 3, "{told:?}");
    assert!(told.is_sorted_by(|a, b| a.1 < b.1));
    for pair in told.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= Duration::from_millis(500));
    }
    let probe = command(vm(2), 0, Work::Kill);
    session.order(&probe).await;
    let next = session.next().await.unwrap();
    assert!(matches!(next, FromAgent::Done { .. }), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn too_many_commands_for_one_vm_are_sent_back_and_may_come_again() {
    let (world, mut session) = running().await;
    world.host.delay(Call::Reset, Duration::from_secs(1));
    let reset = |step, attempt| {
        let mut reset: Command = command(vm(1), step, Work::Reset);
        reset.command.attempt = attempt;
        reset
    };
    for step in 2..30 {
        session.order(&reset(step, 1)).await;
    }
    let mut back = Vec::new();
    for _ in 2..30 {
        let (command, _, outcome) = session.done().await;
        match fault_kind(&outcome) {
            None => {}
            Some(kind) => {
                assert_eq!(kind, FaultKind::Host);
                back.push(command.step);
            }
        }
    }
    assert!(!back.is_empty());
    for step in back {
        assert_eq!(session.carry_out(&reset(step, 1)).await, OK);
    }
    assert_eq!(world.host.effects(vm(1)).reset, 28);
}
