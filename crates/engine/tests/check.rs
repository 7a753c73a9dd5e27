//! Every breach that can be planted is named, and a healthy installation has
//! none.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

use std::collections::BTreeMap;

use vimana_driver::{Observed, Power};
use vimana_engine::check::{Breach, Outside, Rule, check, lasting};
use vimana_model::action::VmAction;
use vimana_model::{HostId, VmId, VmState};
use vimana_store::StoreError;
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

struct Scene {
    world: TestWorld,
    hosts: [TestHost; 2],
    _scheduler: TestScheduler,
    vm: VmId,
    run_epoch: u64,
    /// The host it runs on, and the other one.
    on: HostId,
    other: HostId,
}

impl Scene {
    async fn new() -> Self {
        let world = TestWorld::new().await;
        let mut hosts = [TestHost::new(1), TestHost::new(2)];
        for host in &mut hosts {
            host.connect(&world.engine).await;
        }
        let scheduler = TestScheduler::connect(&world.engine).await;
        let vm = world.create("web-1").await.id;
        let running = world.until(vm, VmState::Running).await;
        let on = running.host.unwrap().id;
        let other = hosts.iter().find(|host| host.id != on).unwrap().id;
        Self {
            world,
            hosts,
            _scheduler: scheduler,
            vm,
            run_epoch: running.run_epoch,
            on,
            other,
        }
    }

    async fn plant(&self, statement: &str) {
        self.world.engine.store().plant(statement).await.unwrap();
    }

    /// What is found with these inventories.
    async fn found(&self, inventories: &[(HostId, Vec<Observed>)]) -> Vec<Breach> {
        let outside = Outside {
            inventories: inventories.iter().cloned().collect::<BTreeMap<_, _>>(),
            in_datastore: Some(Vec::new()),
        };
        let read = self.world.engine.store().read();
        check(&read, &outside).await.unwrap()
    }

    async fn rules(&self, inventories: &[(HostId, Vec<Observed>)]) -> Vec<Rule> {
        let found = self.found(inventories).await;
        let mut rules: Vec<Rule> = found.into_iter().map(|breach| breach.rule).collect();
        rules.dedup();
        rules
    }

    fn observed(&self, power: Power) -> Observed {
        Observed {
            vm_id: self.vm,
            run_epoch: self.run_epoch,
            power,
        }
    }
}

#[tokio::test]
async fn a_healthy_installation_has_no_breach() {
    let scene = Scene::new().await;
    assert_eq!(scene.world.engine.check().await.unwrap(), []);
    for action in [VmAction::Suspend, VmAction::Stop] {
        scene.world.operate(scene.vm, action).await;
        scene.world.until_rest(scene.vm).await;
        // The test's hosts keep what they upload in memory.
        let inventories = scene
            .world
            .engine
            .inventories(std::time::Duration::from_secs(5));
        let outside = Outside {
            inventories: inventories.await,
            in_datastore: None,
        };
        assert_eq!(outside.inventories.len(), scene.hosts.len());
        let read = scene.world.engine.store().read();
        assert_eq!(check(&read, &outside).await.unwrap(), []);
    }
}

#[tokio::test]
async fn what_hosts_hold_is_compared_with_the_record() {
    let scene = Scene::new().await;
    let running = scene.observed(Power::Running);
    let right = [(scene.on, vec![running.clone()])];
    assert_eq!(scene.rules(&right).await, []);

    let twice = [
        (scene.on, vec![running.clone()]),
        (scene.other, vec![running.clone()]),
    ];
    let both = [Rule::OneWriter, Rule::OnePlacement];
    assert_eq!(scene.rules(&twice).await, both);

    let gone = [(scene.on, Vec::new())];
    assert_eq!(scene.rules(&gone).await, [Rule::DisksStay]);

    let off = [(scene.on, vec![scene.observed(Power::Off)])];
    assert_eq!(scene.rules(&off).await, [Rule::ReportsAgree]);

    let later = Observed {
        run_epoch: scene.run_epoch + 1,
        ..running.clone()
    };
    let later = [(scene.on, vec![later])];
    assert_eq!(scene.rules(&later).await, [Rule::EpochsGrow]);

    scene
        .plant("UPDATE vms SET run_epoch = run_epoch + 1")
        .await;
    assert_eq!(scene.rules(&right).await, [Rule::ReportsAgree]);
    scene
        .plant("UPDATE vms SET run_epoch = run_epoch - 1")
        .await;

    scene.plant("UPDATE vms SET state = 'unknown'").await;
    assert_eq!(scene.rules(&right).await, [Rule::ReportsAgree]);
    scene.plant("UPDATE vms SET state = 'running'").await;

    let stranger = Observed {
        vm_id: VmId::from_parts(1, [9; 10]),
        ..running.clone()
    };
    let strange = [(scene.other, vec![stranger])];
    assert_eq!(scene.rules(&strange).await, [Rule::RecordFirst]);
}

#[tokio::test]
async fn a_copy_that_no_record_points_to_is_found() {
    let scene = Scene::new().await;
    let outside = Outside {
        inventories: BTreeMap::new(),
        in_datastore: Some(vec![scene.vm]),
    };
    let read = scene.world.engine.store().read();
    let found = check(&read, &outside).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule, Rule::NothingLeft);
    assert_eq!(found[0].subject, scene.vm.to_string());
}

#[tokio::test]
async fn every_breach_in_the_database_is_named() {
    let plants: [(&str, &[Rule]); 13] = [
        (
            "UPDATE hosts SET used_vcpus = used_vcpus + 1",
            &[Rule::ClaimsFit],
        ),
        ("UPDATE hosts SET cap_memory_mib = 1", &[Rule::ClaimsFit]),
        ("DELETE FROM claims", &[Rule::ClaimsFit, Rule::OnePlacement]),
        (
            "UPDATE vms SET host_id = NULL, host_name = NULL, host_zone = NULL",
            &[Rule::OnePlacement],
        ),
        (
            "UPDATE claims SET vcpus = 0",
            &[Rule::ClaimsFit, Rule::OnePlacement],
        ),
        ("UPDATE vms SET state = 'boot'", &[Rule::OperationsEnd]),
        (
            "UPDATE operations SET state = 'running'",
            &[Rule::OperationsEnd],
        ),
        (
            "UPDATE vms SET operation_id = NULL; UPDATE operations SET state = 'running', step = 0",
            &[Rule::OperationsEnd],
        ),
        ("UPDATE vms SET state = 'done'", &[Rule::NothingLeft]),
        (
            "UPDATE vms SET state = 'stopped'",
            &[Rule::NothingLeft, Rule::DisksStay],
        ),
        ("UPDATE vms SET state = 'hold'", &[Rule::NothingLeft]),
        ("DELETE FROM events WHERE seq = 1", &[Rule::NoGaps]),
        ("DELETE FROM events WHERE seq = 2", &[Rule::NoGaps]),
    ];
    for (plant, expected) in plants {
        let scene = Scene::new().await;
        for statement in plant.split("; ") {
            scene.plant(statement).await;
        }
        assert_eq!(scene.rules(&[]).await, expected, "{plant}");
    }
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_an_error_that_names_it() {
    let scene = Scene::new().await;
    scene.plant("UPDATE vms SET state = 'nonsense'").await;
    let read = scene.world.engine.store().read();
    let error = check(&read, &Outside::default()).await.unwrap_err();
    let source = error.source.unwrap();
    let source = source.downcast_ref::<StoreError>().unwrap();
    assert!(matches!(source, StoreError::Corrupt { what } if what.contains("`state`")));
}

#[test]
fn only_what_is_there_twice_counts() {
    let breach = |subject: &str| Breach {
        rule: Rule::NoGaps,
        subject: subject.to_owned(),
        what: "gap".to_owned(),
    };
    let first = [breach("a"), breach("b")];
    let second = vec![breach("b"), breach("c")];
    assert_eq!(lasting(&first, second), [breach("b")]);
}
