//! VMs that go to another host with all of their disks: what both hosts reach stays
//! where it is, and the rest is copied.

mod snapshots;

use std::time::Duration;

use vimana_driver::{Fault, FaultKind, Power};
use vimana_driver_sim::{Call, Mishap, RunLog, SimDatastore};
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::host::Hardware;
use vimana_model::migration::MigrateVm;
use vimana_model::name::DatastoreName;
use vimana_model::operation::{OperationState, StepKind, StepState};
use vimana_model::unit::MiB;
use vimana_model::vm::{CreateVm, ResizeVm, VmView};
use vimana_model::volume::CreateVolume;
use vimana_model::{ErrorKind, VmState, VolumeId};
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

use super::Scene;
use super::migrations::{host_fault, states};
use super::volumes::held;

fn form(name: &str, datastore: &str) -> CreateVm {
    CreateVm {
        name: name.to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        datastore: Some(datastore.to_owned()),
        ..CreateVm::default()
    }
}

impl Scene {
    /// A VM with its disk in a datastore that both of two hosts reach; each has
    /// another one of its own, which has the same name on both.
    async fn of_sharing() -> Self {
        let (log, shared) = (RunLog::new(), SimDatastore::default());
        let place = |number: u8| {
            TestHost::new(number)
                .beside(&log)
                .with_datastore("fast", number, MiB(1000))
                .sharing("shared", 9, MiB(4000), &shared)
        };
        let world = TestWorld::new().await;
        let mut hosts = vec![place(1), place(2)];
        for host in &mut hosts {
            host.connect(&world.engine).await;
        }
        let scheduler = TestScheduler::connect(&world.engine).await;
        let form = form("web-1", "shared");
        let made = world.engine.create_vm(&world.admin, &form).await;
        let vm = made.unwrap().vm.id;
        world.until(vm, VmState::Running).await;
        Self {
            world,
            hosts,
            _scheduler: scheduler,
            vm,
        }
    }

    /// What the datastore holds, as either host shows it.
    async fn of_shared(&self, name: &str) -> Vec<u64> {
        let hosts = self.world.engine.hosts(&self.world.admin).await.unwrap();
        let places = hosts.iter().flat_map(|host| &host.datastores);
        let named = places.filter(|place| place.name.as_str() == name);
        named.map(|place| place.used_mib.0).collect()
    }

    async fn made_in(&self, name: &str, datastore: &str) -> VolumeId {
        let form = CreateVolume {
            name: name.to_owned(),
            size_mib: MiB(100),
            datastore: Some(datastore.to_owned()),
            ..CreateVolume::default()
        };
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let id = engine.create_volume(admin, &form).await.unwrap().id;
        self.attached(id).await;
        id
    }

    /// A volume in each datastore that a host has, of which the last one is empty.
    async fn load(&self, on: &TestHost) -> [VolumeId; 3] {
        let ids = [
            self.made_in("local", "local").await,
            self.made_in("shared", "shared").await,
            self.made_in("fast", "fast").await,
        ];
        on.sim.scribble(ids[0]);
        on.sim.scribble(ids[1]);
        ids
    }

    /// Those are on the other host, with all that is on them, and so is what is claimed
    /// for them; `fast` was before.
    async fn has_brought(
        &self,
        ids: [VolumeId; 3],
        (source, target): (&TestHost, &TestHost),
        fast: Vec<u64>,
    ) {
        let mut swapped = self.of_shared("fast").await;
        swapped.reverse();
        assert_eq!(swapped, fast);
        assert_eq!(held(source).await, []);
        for (id, empty) in ids.into_iter().zip([false, false, true]) {
            assert_eq!(self.volume(id).await.host.unwrap().id, target.id);
            assert_eq!(target.sim.reads_zeros(id), Some(empty));
        }
    }

    /// The datastores of the other host that all disks could go into.
    async fn offered(&self, to: &TestHost) -> Vec<String> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let targets = engine.migration_targets(admin, self.vm).await.unwrap();
        let target = targets.into_iter().find(|target| target.host.id == to.id);
        let into = target.unwrap().into.into_iter();
        into.map(|name| name.to_string()).collect()
    }

    /// That host connects again and again, until nothing of the VM is left there.
    async fn connects_until_left(&mut self, index: usize) {
        self.hosts[index].disconnect();
        while self.hosts[index].sim.power(self.vm).is_some() {
            self.hosts[index].connect(&self.world.engine).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn refusal(&self, to: &TestHost) -> String {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let targets = engine.migration_targets(admin, self.vm).await.unwrap();
        let target = targets.into_iter().find(|target| target.host.id == to.id);
        let told = target.unwrap().refusal.unwrap();
        let refused = self.migrate(&to.name).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        assert_eq!(refused.public, told, "the same sentence");
        self.sound().await;
        told
    }
}

#[tokio::test]
async fn memory_alone_goes_where_both_hosts_reach_the_disk() {
    let scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    let before = scene.used().await;
    assert_eq!(before.disk_mib, MiB(0), "nothing of the hosts' own disks");
    assert_eq!(scene.of_shared("shared").await, [1024, 1024]);
    target.sim.delay(Call::Receive, Duration::from_millis(50));
    scene.migrate(&target.name).await.unwrap();
    assert_eq!(scene.used().await.vcpus, before.vcpus * 2);
    assert_eq!(scene.of_shared("shared").await, [1024, 1024]);
    scene.sound().await;
    let vm = scene.went(source, target).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.datastore, DatastoreName::new("shared").unwrap());
    assert_eq!(scene.used().await, before);
    assert_eq!(scene.of_shared("shared").await, [1024, 1024]);
    // It is all of its new host's, to be saved, to run on and to be removed.
    let suspended = scene.through(VmAction::Suspend).await;
    assert_eq!(suspended.state, VmState::Suspended);
    assert_eq!(scene.of_shared("shared").await, [1024 + 128; 2]);
    scene.sound().await;
    scene.through(VmAction::Resume).await;
    let larger = ActionArgs::Resize(ResizeVm {
        disk_mib: Some(MiB(2048)),
        ..ResizeVm::default()
    });
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let resized = engine.act_on_vm(admin, scene.vm, VmAction::Resize, larger);
    resized.await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.of_shared("shared").await, [2048; 2]);
    scene.through(VmAction::Delete).await;
    assert_eq!(scene.of_shared("shared").await, [0, 0]);
    scene.sound().await;
}

#[tokio::test]
async fn volumes_go_along_whatever_datastore_they_are_in() {
    let scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    let ids = scene.load(source).await;
    let before = scene.used().await;
    let fast = scene.of_shared("fast").await;
    target.sim.delay(Call::Receive, Duration::from_millis(50));
    scene.migrate(&target.name).await.unwrap();
    assert_eq!(scene.used().await.disk_mib, MiB(200), "of both hosts");
    assert_eq!(scene.of_shared("fast").await, [100, 100]);
    assert_eq!(scene.of_shared("shared").await, [1124, 1124]);
    scene.sound().await;
    scene.went(source, target).await;
    assert_eq!(scene.used().await, before);
    assert_eq!(scene.of_shared("shared").await, [1124, 1124]);
    scene.has_brought(ids, (source, target), fast).await;
    // And they are its new host's: one is detached, another grows and moves.
    scene.detach(ids[1]).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(source.sim.reads_zeros(ids[1]), Some(false), "free for both");
    scene.migrate(&source.name).await.unwrap();
    let vm = scene.went(target, source).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Succeeded);
    assert_eq!(source.sim.reads_zeros(ids[0]), Some(false));
}

#[tokio::test]
async fn what_comes_to_nothing_leaves_disks_and_claims_as_they_were() {
    let scene = Scene::of_sharing().await;
    let ids = [
        scene.made_in("own", "local").await,
        scene.made_in("both", "shared").await,
    ];
    let (source, target) = scene.source_and_target().await;
    source.sim.scribble(ids[0]);
    let (before, shared) = (scene.used().await, scene.of_shared("shared").await);
    for call in [Call::Receive, Call::Send] {
        let host = if call == Call::Send { source } else { target };
        host.sim.fail_next(call, host_fault("no"));
        scene.migrate(&target.name).await.unwrap();
        scene.stayed(source, target).await;
        assert_eq!(scene.used().await, before, "{call:?}");
        assert_eq!(scene.of_shared("shared").await, shared);
        assert_eq!(held(target).await, []);
        assert_eq!(held(source).await.len(), 2);
        assert_eq!(source.sim.reads_zeros(ids[0]), Some(false));
    }
    // Deleted on its way, nothing of it is left anywhere.
    source.sim.delay(Call::Send, Duration::from_secs(5));
    scene.migrate(&target.name).await.unwrap();
    scene.until_step(1).await;
    scene.through(VmAction::Delete).await;
    assert_eq!(source.sim.power(scene.vm), None);
    assert_eq!(target.sim.power(scene.vm), None);
    assert_eq!(held(target).await.len(), 1, "the one that all reach");
    for id in ids {
        assert_eq!(scene.volume(id).await.vm, None);
    }
    scene.sound().await;
}

#[tokio::test]
async fn a_host_that_was_left_keeps_the_room_of_copies_until_it_is_clean() {
    let mut scene = Scene::of_sharing().await;
    let id = scene.made_in("own", "local").await;
    let (source, target) = scene.source_and_target().await;
    let (source, target) = (source.id, target.id);
    let at = |scene: &Scene, id| scene.hosts.iter().position(|host| host.id == id).unwrap();
    let (from, to) = (at(&scene, source), at(&scene, target));
    let away = Mishap::Fail(host_fault("not now"));
    for _ in 0..20 {
        scene.hosts[from].sim.mishap(Call::Clean, away.clone());
    }
    let name = scene.hosts[to].name.clone();
    scene.migrate(&name).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.host.unwrap().id, target);
    assert_eq!(scene.used().await.disk_mib, MiB(200));
    scene.sound().await;
    // Clean once it connects, with what was copied and nothing else.
    scene.connects_until_left(from).await;
    let clean = async {
        while scene.used().await.disk_mib != MiB(100) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), clean)
        .await
        .unwrap();
    assert_eq!(held(&scene.hosts[from]).await, []);
    assert_eq!(held(&scene.hosts[to]).await.len(), 1);
    assert_eq!(scene.volume(id).await.host.unwrap().id, target);
    assert_eq!(scene.hosts[to].sim.power(scene.vm), Some(Power::Running));
    scene.sound().await;
}

#[tokio::test]
async fn one_at_rest_is_handed_over_without_a_byte() {
    for (action, wakes) in [
        (VmAction::PowerOff, VmAction::Start),
        (VmAction::Suspend, VmAction::Resume),
    ] {
        let scene = Scene::of_sharing().await;
        let both = scene.made_in("both", "shared").await;
        let (source, target) = scene.source_and_target().await;
        source.sim.scribble(both);
        let rests = scene.through(action).await;
        let boots = source.sim.boots(scene.vm);
        let before = (scene.used().await, scene.of_shared("shared").await);
        scene.migrate(&target.name).await.unwrap();
        let vm: VmView = scene.went(source, target).await;
        assert_eq!(vm.state, rests.state);
        let operation = vm.operation.unwrap();
        let done = StepState::Done;
        assert_eq!(
            states(&operation),
            [(StepKind::Arrive, done), (StepKind::Leave, done)]
        );
        let result = operation.migration.unwrap().result.unwrap();
        assert_eq!(result.transferred_bytes, 0);
        assert_eq!(source.sim.effects(scene.vm).exported, 0);
        assert_eq!(target.sim.boots(scene.vm), boots);
        let after = (scene.used().await, scene.of_shared("shared").await);
        assert_eq!(after, before);
        assert_eq!(scene.through(wakes).await.state, VmState::Running);
        assert_eq!(target.sim.reads_zeros(both), Some(false));
        scene.sound().await;
    }
}

#[tokio::test]
async fn volumes_go_along_with_one_at_rest() {
    for (action, wakes) in [
        (VmAction::PowerOff, VmAction::Start),
        (VmAction::Suspend, VmAction::Resume),
    ] {
        let scene = Scene::of_sharing().await;
        let (source, target) = scene.source_and_target().await;
        let ids = scene.load(source).await;
        let rests = scene.through(action).await;
        let before = (scene.used().await, scene.of_shared("shared").await);
        let fast = scene.of_shared("fast").await;
        // What comes to nothing leaves all of it where it was.
        for call in [Call::Export, Call::Import] {
            let host = if call == Call::Export { source } else { target };
            let damaged = Fault::new(FaultKind::BadImage, "no");
            host.sim.fail_next(call, damaged);
            scene.migrate(&target.name).await.unwrap();
            assert_eq!(scene.used().await.disk_mib, MiB(200), "of both hosts");
            assert_eq!(scene.of_shared("fast").await, [100, 100]);
            let vm = scene.world.until_rest(scene.vm).await;
            assert_eq!(
                (vm.state, vm.host.unwrap().id),
                (rests.state, source.id),
                "{call:?}"
            );
            assert_eq!(held(target).await, []);
            assert_eq!(held(source).await.len(), 3);
            let after = (scene.used().await, scene.of_shared("shared").await);
            assert_eq!(after, before);
            assert_eq!(scene.of_shared("fast").await, fast);
            scene.sound().await;
        }
        scene.migrate(&target.name).await.unwrap();
        let vm: VmView = scene.went(source, target).await;
        assert_eq!(vm.state, rests.state);
        let operation = vm.operation.unwrap();
        let done = StepState::Done;
        assert_eq!(
            states(&operation),
            [
                (StepKind::Upload, done),
                (StepKind::Arrive, done),
                (StepKind::Discard, done),
                (StepKind::Leave, done)
            ]
        );
        let result = operation.migration.unwrap().result.unwrap();
        assert!(result.transferred_bytes > 0);
        let after = (scene.used().await, scene.of_shared("shared").await);
        assert_eq!(after, before);
        scene.has_brought(ids, (source, target), fast).await;
        assert_eq!(scene.through(wakes).await.state, VmState::Running);
        scene.sound().await;
    }
}

#[tokio::test]
async fn an_arrival_that_fails_leaves_one_at_rest_where_it_was() {
    let scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    scene.through(VmAction::Suspend).await;
    for _ in 0..10 {
        target.sim.fail_next(Call::Import, host_fault("no"));
    }
    scene.migrate(&target.name).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(
        (vm.state, vm.host.unwrap().id),
        (VmState::Suspended, source.id)
    );
    assert_eq!(target.sim.power(scene.vm), None);
    scene.sound().await;
    assert_eq!(
        scene.through(VmAction::Resume).await.state,
        VmState::Running
    );
}

#[tokio::test]
async fn what_keeps_disks_from_going_is_told_before_anything_begins() {
    let mut scene = Scene::of_sharing().await;
    let (source, target) = scene.source_and_target().await;
    let to = scene
        .hosts
        .iter()
        .position(|host| host.id == target.id)
        .unwrap();
    let from = source.name.clone();
    let other = target.name.clone();
    // Full, on the other host.
    let id = scene.made_in("data", "fast").await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let grown = vimana_model::volume::GrowVolume { size_mib: MiB(900) };
    engine.grow_volume(admin, id, grown).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let elsewhere = scene.on_another_host().await;
    let takes = CreateVolume {
        name: "takes".to_owned(),
        size_mib: MiB(200),
        datastore: Some("fast".to_owned()),
        ..CreateVolume::default()
    };
    let takes = engine.create_volume(admin, &takes).await.unwrap().id;
    scene.attach(takes, elsewhere).await.unwrap();
    scene.world.until_rest(elsewhere).await;
    let told = scene.refusal(&scene.hosts[to]).await;
    let full = format!("datastore `fast` of host `{other}` has no room for `web-1`");
    assert_eq!(told, full);
    // Not running, it needs the same room.
    scene.through(VmAction::PowerOff).await;
    let told = scene.refusal(&scene.hosts[to]).await;
    assert_eq!(told, full);
    // No datastore of that name.
    scene.hosts[to].disconnect();
    scene.hosts[to].loses_datastore("shared");
    scene.hosts[to].connect(&scene.world.engine).await;
    let told = scene.refusal(&scene.hosts[to]).await;
    assert_eq!(
        told,
        format!("host `{other}` has no datastore `shared`, which the disk of `web-1` is in")
    );
    assert_eq!(scene.world.vm(scene.vm).await.host.unwrap().name, from);
}

#[tokio::test]
async fn a_vm_is_placed_where_its_datastore_is_and_has_room() {
    let scene = Scene::of_sharing().await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let nowhere = engine.create_vm(admin, &form("web-2", "nowhere")).await;
    let refused = nowhere.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert_eq!(refused.fields[0].field, "datastore");
    for n in 2..=3 {
        let form = form(&format!("web-{n}"), "shared");
        let id = engine.create_vm(admin, &form).await.unwrap().vm.id;
        scene.world.until(id, VmState::Running).await;
    }
    let fourth = engine.create_vm(admin, &form("web-4", "shared")).await;
    let fourth = fourth.unwrap().vm.id;
    let waits = scene.world.until_vm(fourth, "why it waits", |vm| {
        let pending = vm.pending.as_ref();
        pending.is_some_and(|pending| pending.explanation.is_some())
    });
    let why = waits.await.pending.unwrap().message;
    assert!(
        why.contains("lack disk (needs 1 GiB; the roomiest host has 928 MiB free)"),
        "{why}"
    );
    scene.through(VmAction::Delete).await;
    scene.world.until(fourth, VmState::Running).await;
    scene.sound().await;
}

#[tokio::test]
async fn a_host_whose_machines_see_something_else_takes_none_that_runs() {
    let mut scene = Scene::of_sharing().await;
    let (_, target) = scene.source_and_target().await;
    let to = scene
        .hosts
        .iter()
        .position(|host| host.id == target.id)
        .unwrap();
    let name = target.name.clone();
    let usual = Hardware {
        machine_type: "simulated-1".to_owned(),
        cpu_model: "simulated".to_owned(),
        live_migration: true,
    };
    let cases = [
        (
            Hardware {
                machine_type: "simulated-2".to_owned(),
                ..usual.clone()
            },
            "gives machines machine type simulated-2, and the host of `web-1` simulated-1",
        ),
        (
            Hardware {
                cpu_model: "other".to_owned(),
                ..usual.clone()
            },
            "gives machines CPU model other, and the host of `web-1` simulated",
        ),
        (
            Hardware {
                live_migration: false,
                ..usual.clone()
            },
            "cannot take a machine that runs: its hypervisor, simulation",
        ),
    ];
    for (hardware, why) in cases {
        scene.hosts[to].disconnect();
        scene.hosts[to].sim.set_hardware(hardware);
        scene.hosts[to].connect(&scene.world.engine).await;
        let told = scene.refusal(&scene.hosts[to]).await;
        assert!(told.starts_with(&format!("host `{name}` {why}")), "{told}");
    }
    // Its disk alone fits anywhere.
    scene.through(VmAction::PowerOff).await;
    scene.migrate(&name).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.host.unwrap().name, name);
}

/// Two hosts with a datastore each of the same name, and one that both reach.
fn roomy_hosts() -> [TestHost; 2] {
    let (log, shared) = (RunLog::new(), SimDatastore::default());
    [1, 2].map(|number| {
        TestHost::new(number)
            .beside(&log)
            .with_datastore("fast", number, MiB(2000))
            .sharing("shared", 9, MiB(4000), &shared)
    })
}

fn into(host: &TestHost, datastore: &str) -> MigrateVm {
    MigrateVm {
        host: Some(host.name.clone()),
        datastore: Some(datastore.to_owned()),
        ..MigrateVm::default()
    }
}

#[tokio::test]
async fn all_disks_go_into_the_datastore_that_is_named() {
    // Live, and cold.
    for off in [false, true] {
        let scene = Scene::of(roomy_hosts().into_iter()).await;
        let (source, target) = scene.source_and_target().await;
        let ids = [
            scene.made_in("data", "local").await,
            scene.made_in("logs", "fast").await,
        ];
        source.sim.scribble(ids[0]);
        if off {
            scene.through(VmAction::PowerOff).await;
        }
        let before = scene.used().await;
        assert_eq!(before.disk_mib, MiB(1124));
        let fast = scene.of_shared("fast").await;
        assert_eq!(scene.offered(target).await, ["local", "fast"]);
        for call in [Call::Receive, Call::Export] {
            target.sim.delay(call, Duration::from_millis(50));
            source.sim.delay(call, Duration::from_millis(50));
        }
        scene.migrate_as(into(target, "fast")).await.unwrap();
        let both = scene.of_shared("fast").await;
        assert_eq!(both.iter().sum::<u64>(), 1224 + 100, "{both:?}");
        scene.sound().await;
        let vm = scene.went(source, target).await;
        assert_eq!(vm.datastore.as_str(), "fast");
        assert_eq!(target.sim.datastore(vm.id), Some(vm.datastore));
        assert_eq!(scene.used().await.disk_mib, MiB(0));
        let mut now = scene.of_shared("fast").await;
        now.reverse();
        let had = fast.iter().position(|used| *used > 0).unwrap();
        assert_eq!((now[had], now[1 - had]), (1224, 0));
        assert_eq!(held(source).await, []);
        for (id, empty) in ids.into_iter().zip([false, true]) {
            let volume = scene.volume(id).await;
            assert_eq!(volume.datastore.as_str(), "fast");
            assert_eq!(volume.host.unwrap().id, target.id);
            assert_eq!(target.sim.reads_zeros(id), Some(empty));
        }
        scene.sound().await;
        // And out of it again.
        assert_eq!(scene.offered(source).await, ["local"]);
        scene.migrate_as(into(source, "local")).await.unwrap();
        let vm = scene.went(target, source).await;
        assert_eq!(vm.datastore.as_str(), "local");
        assert_eq!(scene.used().await.disk_mib, MiB(1224));
        assert_eq!(scene.of_shared("fast").await, [0, 0]);
        scene.sound().await;
    }
}

#[tokio::test]
async fn a_vm_that_does_not_go_into_another_datastore_stays_in_its_own() {
    let scene = Scene::of(roomy_hosts().into_iter()).await;
    let (source, target) = scene.source_and_target().await;
    let id = scene.made_in("data", "local").await;
    let before = scene.used().await;
    let fault = Fault::new(FaultKind::Hypervisor, "the mirror broke");
    source.sim.fail_next(Call::Send, fault);
    scene.migrate_as(into(target, "fast")).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    assert_eq!(
        (vm.state, vm.datastore.as_str()),
        (VmState::Running, "local")
    );
    assert_eq!(scene.volume(id).await.datastore.as_str(), "local");
    assert_eq!(scene.used().await, before);
    assert_eq!(scene.of_shared("fast").await, [0, 0]);
    assert_eq!(held(target).await, []);
    scene.sound().await;

    let refusal = async |datastore: &str| {
        let refused = scene.migrate_as(into(target, datastore)).await.unwrap_err();
        scene.sound().await;
        refused.public
    };
    let to = &target.name;
    let absent = format!("host `{to}` has no datastore `slow`");
    assert_eq!(refusal("slow").await, absent);
    let both = "its own host reaches datastore `shared` as well: bring the disk of `web-1` there first, and then migrate it without naming one";
    assert_eq!(refusal("shared").await, both);
    let storage = |datastore: &str| MigrateVm {
        datastore: Some(datastore.to_owned()),
        ..MigrateVm::default()
    };
    scene.detach(id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let ask = |form| scene.ask(VmAction::Migrate, ActionArgs::Migrate(form));
    ask(storage("shared")).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let there = format!(
        "host `{to}` reaches datastore `shared`, which the disk of `web-1` is in: migrate it without naming one, and bring its disks to `fast` there"
    );
    assert_eq!(refusal("fast").await, there);
    // So it goes.
    scene.migrate(to).await.unwrap();
    scene.went(source, target).await;
    ask(storage("fast")).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.datastore.as_str(), "fast");
    assert_eq!(scene.of_shared("shared").await, [0, 0]);
    scene.sound().await;
}
