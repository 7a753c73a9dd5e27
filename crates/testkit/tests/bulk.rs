//! A lot of the same: a thousand operations through twenty restarts, a
//! thousand failures in a row.

use std::time::Duration;

use tokio::task::JoinSet;
use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Call, Course, Mishap};
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::CreateVm;
use vimana_store::{claim, operation};
use vimana_testkit::sim::{ADMIN, Ask, World, all, in_time};

const MANY: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(3600);

fn form(name: String) -> CreateVm {
    CreateVm {
        name,
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    }
}

fn assert_clean(world: &World) {
    let breaches = world.journal.breaches();
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn a_thousand_operations_and_twenty_restarts_have_each_effect_once() {
    in_time(async {
        let mut world = World::new(20).await;
        for _ in 0..4 {
            world.add_host();
        }
        for host in &mut world.hosts {
            host.capacity = Resources {
                vcpus: 400,
                memory_mib: MiB(1 << 20),
                disk_mib: MiB(1 << 20),
            };
            host.sim.delay(Call::Prepare, Duration::from_millis(700));
            host.sim.delay(Call::Boot, Duration::from_millis(900));
        }
        world.add_scheduler();
        world.start_all();
        assert!(world.until_connected(PATIENCE).await);
        let mut asked = JoinSet::new();
        for n in 0..MANY {
            let people = world.people.clone();
            asked.spawn(async move {
                let ask = Ask::Create(form(format!("vm-{n}")));
                people.ask(ADMIN, ask).await.unwrap();
            });
        }
        for n in 0..20 {
            tokio::time::sleep(Duration::from_millis(300 + n * 37)).await;
            world.server.crash("once more");
            tokio::time::sleep(Duration::from_millis(200)).await;
            world.server.start();
        }
        while asked.join_next().await.is_some() {}
        let ended = world.until(PATIENCE, async |store| {
            operation::running(&store).await.unwrap().is_empty()
        });
        assert!(ended.await, "some operation never ends");
        let read = world.server.until_serving().await.store().read();
        let vms = all(&read).await;
        assert_eq!(vms.len(), MANY);
        for (id, vm) in vms {
            let had = world.effects(id);
            let effects = (had.prepared, had.booted, had.stopped, had.cleaned);
            assert_eq!(effects, (1, 1, 0, 0), "{}", vm.name);
        }
        world.check().await;
        world.check_rest().await;
        assert_clean(&world);
    });
}

#[test]
fn a_thousand_failed_deployments_leave_nothing_behind() {
    in_time(async {
        let world = World::running(11, 1).await;
        let host = world.hosts.first().unwrap();
        let fault = Fault::new(FaultKind::Hypervisor, "it never starts");
        host.sim.direct(Box::new(move |call, _| Course {
            mishap: (call == Call::Boot).then(|| Mishap::Fail(fault.clone())),
            ..Course::default()
        }));
        let ask = Ask::Create(form("web-1".to_owned()));
        let vm = world.people.ask(ADMIN, ask).await.unwrap().vm.unwrap();
        for _ in 1..MANY {
            let failed = world.until(PATIENCE, async |store| {
                operation::running(&store).await.unwrap().is_empty()
            });
            assert!(failed.await, "the creation never ends");
            let retry = Ask::Act(vm, VmAction::Retry, ActionArgs::None);
            world.people.ask(ADMIN, retry).await.unwrap();
        }
        world.come_to_rest().await;
        let read = world.server.until_serving().await.store().read();
        assert_eq!(claim::list(&read).await.unwrap(), []);
        assert_eq!(host.sim.left_behind(vm), [""; 0]);
        assert_eq!(world.effects(vm).prepared, 1000);
        assert_eq!(world.effects(vm).cleaned, 1000);
        world.check_rest().await;
        world.sweep_up().await;
        world.check_nothing_left().await;
        assert_clean(&world);
    });
}
