//! Every checker finds what it is there for: in a world where all is well
//! somebody does what must never happen. (What the engine's own check finds is
//! tested with the engine.)

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vimana_driver::{HostDriver as _, ImageRef, IncarnationSpec, Seed};
use vimana_driver_sim::SimDriver;
use vimana_model::event::{Actor, EventKind};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::operation::OperationKind;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::CreateVm;
use vimana_model::{ImageId, OperationId, VmId};
use vimana_store::event::NewEvent;
use vimana_store::{event, operation, vm, write_tx};
use vimana_testkit::sim::{
    ADMIN, Answer, Ask, Host, MANUAL, MONA, PAUL, Person, Promise, World, in_time,
};

/// A world with a VM that runs, where nothing is wrong.
async fn a_world() -> (World, VmId) {
    let world = World::running(7, 2).await;
    let form = CreateVm {
        name: "web-1".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    };
    let made = world.people.ask(PAUL, Ask::Create(form)).await.unwrap();
    world.come_to_rest().await;
    world.check_rest().await;
    world.check_people().await;
    world.check_readers().await;
    assert_eq!(
        world.journal.breaches(),
        [""; 0],
        "{}",
        world.journal.text()
    );
    (world, made.vm.unwrap())
}

/// After `crime` the rule is found broken.
fn is_found(rule: u8, crime: impl AsyncFnOnce(&World, VmId)) {
    in_time(async {
        let (world, vm) = a_world().await;
        crime(&world, vm).await;
        world.check().await;
        world.check_rest().await;
        world.check_people().await;
        world.check_readers().await;
        let breaches = world.journal.breaches();
        let found = breaches
            .iter()
            .any(|b| b.starts_with(&format!("rule {rule}: ")));
        assert!(found, "{breaches:#?}\n{}", world.journal.text());
    });
}

/// The host that has the VM, and one that has not.
async fn hosts(world: &World, id: VmId) -> (&Host, &Host) {
    let read = world.server.engine().unwrap().store().read();
    let on = vm::find(&read, id).await.unwrap().unwrap().host.unwrap().id;
    let find = |here| world.hosts.iter().find(|host| (host.id == on) == here);
    (find(true).unwrap(), find(false).unwrap())
}

/// Another run of a VM begins there, behind everybody's back.
async fn starts(host: &Host, vm_id: VmId, run_epoch: u64) {
    let driver = SimDriver::new(Arc::clone(&host.sim));
    let resources = Resources {
        vcpus: 1,
        memory_mib: MiB(128),
        disk_mib: MiB(1024),
    };
    let spec = IncarnationSpec {
        vm_id,
        run_epoch,
        resources,
        datastore: DatastoreName::local(),
        image: ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Qcow2,
            size_bytes: 512,
            sha256: "0".repeat(64),
        },
        seed: Seed {
            host_name: "web-1".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    };
    let image = Path::new("/simulated/image");
    driver.prepare(&spec, image).await.unwrap();
    driver.boot(vm_id, run_epoch, &resources).await.unwrap();
}

#[test]
fn two_writers_are_found() {
    is_found(1, async |world, vm| {
        let (_, other) = hosts(world, vm).await;
        starts(other, vm, 2).await;
    });
}

#[test]
fn who_sees_over_the_wall_is_found() {
    is_found(6, async |world, _| {
        // Staff sees all, and is taken for somebody of the other tenant.
        let spy = Person {
            tenant: MANUAL,
            ..ADMIN
        };
        world.check_wall(spy).await;
    });
}

#[test]
fn a_machine_that_runs_where_nobody_has_it_is_found() {
    is_found(9, async |world, vm| {
        let (_, other) = hosts(world, vm).await;
        starts(other, vm, 2).await;
    });
}

#[test]
fn a_move_without_a_confirmed_stop_is_found() {
    is_found(9, async |world, vm| {
        let (host, other) = hosts(world, vm).await;
        host.sim.crash(vm, "it was killed");
        starts(other, vm, 2).await;
        // By the time that anybody looks nothing is to be seen any more.
        let driver = SimDriver::new(Arc::clone(&other.sim));
        driver.kill(vm, 2).await.unwrap();
        driver.clean(vm, 2).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
}

#[test]
fn an_effect_without_a_record_is_found() {
    is_found(11, async |world, vm| {
        let (host, _) = hosts(world, vm).await;
        host.sim.crash(vm, "it was killed");
        starts(host, vm, 2).await;
    });
}

#[test]
fn a_file_that_stays_is_found() {
    is_found(12, async |world, vm| {
        let (host, _) = hosts(world, vm).await;
        world.sweep_up().await;
        starts(host, vm, 9).await;
        world.check_nothing_left().await;
    });
}

#[test]
fn an_operation_that_two_keys_began_is_found() {
    is_found(13, async |world, vm| {
        let first = world.people.promises().into_iter().next().unwrap();
        world.people.hold(Promise {
            key: "another".to_owned(),
            ..first
        });
        assert!(
            world
                .people
                .promises()
                .iter()
                .all(|p| p.answer.vm == Some(vm))
        );
    });
}

#[test]
fn a_promise_that_is_lost_is_found() {
    for lost in [
        Answer {
            vm: Some(VmId::from_parts(1, [1; 10])),
            ..Answer::default()
        },
        Answer {
            operation: Some(OperationId::from_parts(1, [1; 10])),
            ..Answer::default()
        },
    ] {
        is_found(14, async move |world, _| {
            world.people.hold(Promise {
                key: "lost".to_owned(),
                who: PAUL,
                answer: lost,
                began: false,
            });
        });
    }
}

#[test]
fn what_is_promised_to_one_who_cannot_find_it_is_found() {
    is_found(14, async |world, vm| {
        world.people.hold(Promise {
            key: "hidden".to_owned(),
            who: MONA,
            answer: Answer {
                vm: Some(vm),
                ..Answer::default()
            },
            began: false,
        });
    });
}

#[test]
fn what_is_done_without_a_right_is_found() {
    is_found(19, async |world, vm| {
        world.people.take_rights(PAUL).await;
        let engine = world.server.engine().unwrap();
        let store = engine.store();
        let record = vm::find(&store.read(), vm).await.unwrap().unwrap();
        let fact = NewEvent {
            at: record.created_at,
            actor: Actor::User(PAUL.subject().user_name),
            tenant_id: Some(record.tenant_id),
            vm_id: Some(vm),
            host_id: None,
            request_id: None,
            image_id: None,
            volume_id: None,
            event: EventKind::Requested {
                operation: OperationKind::Suspend,
            },
        };
        let done: vimana_model::Result<()> = write_tx!(store, |tx| {
            event::append(tx, std::slice::from_ref(&fact)).await?;
            Ok(())
        });
        done.unwrap();
    });
}

#[test]
fn rights_that_are_lost_are_lost_to_a_call_under_way() {
    in_time(async {
        let (world, vm) = a_world().await;
        let engine = world.server.engine().unwrap();
        // Who asks is known, and all of it has not yet arrived.
        let subject = engine
            .subject_of_user(PAUL.subject().user_id)
            .await
            .unwrap();
        let cx = vimana_engine::OpContext::new(subject);
        world.people.take_rights(PAUL).await;
        let action = vimana_model::action::VmAction::Suspend;
        let asked = engine.act_on_vm(&cx, vm, action, vimana_engine::ActionArgs::None);
        let error = asked.await.unwrap_err();
        assert_eq!(error.kind, vimana_model::ErrorKind::Forbidden);
        let all = operation::for_vm(&engine.store().read(), vm).await.unwrap();
        assert_eq!(all.len(), 1, "the creation alone");
    });
}

#[test]
fn a_secret_that_is_told_is_found() {
    const SECRET: &str = "open sesame";
    is_found(21, async |world, _| {
        world.journal.keep_secret(SECRET);
        world.journal.say("agent", format!("it is {SECRET}, and"));
    });
    // Also where it becomes one only afterwards, and nobody reads along.
    is_found(21, async |world, _| {
        world.journal.overhear("engine", &format!("made {SECRET}"));
        world.journal.keep_secret(SECRET);
    });
    in_time(async {
        let (world, _) = a_world().await;
        world.journal.keep_secret(SECRET);
        world.journal.say("agent", SECRET);
        assert!(!world.journal.breaches().is_empty());
        let told = world.journal.breaches().join("\n");
        assert!(!told.contains(SECRET), "{told}");
    });
}
