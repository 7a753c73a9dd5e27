//! Disks that move to another datastore of their host.

use std::time::Duration;

use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Call, Course, Mishap, RunLog, SimDatastore};
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::migration::{MigrateVm, MigrationMode, StorageTarget};
use vimana_model::name::DatastoreName;
use vimana_model::operation::OperationState;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::unit::MiB;
use vimana_model::vm::{AcceptedView, ResizeVm, VmView};
use vimana_model::volume::{AcceptedVolume, CreateVolume, GrowVolume, MoveVolume, VolumeState};
use vimana_model::{Error, HostId, VmState, VolumeId};
use vimana_testkit::TestHost;

use super::Scene;
use super::volumes::held;

impl Scene {
    async fn relocate(&self, volume: VolumeId, to: &str) -> Result<AcceptedVolume, Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let datastore = to.to_owned();
        engine
            .move_volume(admin, volume, &MoveVolume { datastore })
            .await
    }

    /// Moves it, to the end.
    async fn relocated(&self, volume: VolumeId, to: &str) {
        let moving = self.relocate(volume, to).await.unwrap();
        let there = DatastoreName::new(to).unwrap();
        assert_eq!(moving.volume.moving_to, Some(there.clone()));
        self.world.until_rest(self.vm).await;
        let now = self.volume(volume).await;
        assert_eq!((now.datastore, now.moving_to), (there.clone(), None));
        assert_eq!(held(&self.hosts[0]).await[0].datastore, there);
    }

    /// Gives the VM a volume that leaves little room in datastore `fast`.
    async fn fills_fast(&self) -> VolumeId {
        let large = CreateVolume {
            name: "large".to_owned(),
            size_mib: MiB(950),
            datastore: Some("fast".to_owned()),
            ..CreateVolume::default()
        };
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let large = engine.create_volume(admin, &large).await.unwrap().id;
        self.attached(large).await;
        large
    }

    /// What volumes hold of datastore `fast`.
    async fn used_of_fast(&self) -> MiB {
        let hosts = self.world.engine.hosts(&self.world.admin).await.unwrap();
        let fast = &hosts[0].datastores[0];
        assert_eq!((fast.name.as_str(), fast.present), ("fast", true));
        fast.used_mib
    }

    /// Of the host's own disk, beside the VM's, and of datastore `fast`.
    async fn room(&self) -> (MiB, MiB) {
        let MiB(disk) = self.used().await.disk_mib;
        (MiB(disk - 1024), self.used_of_fast().await)
    }
}

#[tokio::test]
async fn a_volume_moves_while_its_machine_runs_and_is_claimed_where_it_is() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.attached(id).await;
    assert_eq!(scene.room().await, (MiB(100), MiB(0)));
    scene.relocated(id, "fast").await;
    assert_eq!(scene.room().await, (MiB(0), MiB(100)));
    assert_eq!(scene.world.vm(scene.vm).await.state, VmState::Running);
    scene.sound().await;

    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let larger = GrowVolume { size_mib: MiB(150) };
    engine.grow_volume(admin, id, larger).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.room().await, (MiB(0), MiB(150)));
    scene.relocated(id, "local").await;
    assert_eq!(scene.room().await, (MiB(150), MiB(0)));
    let told = engine.volume_timeline(admin, id).await.unwrap();
    let told: Vec<_> = told.iter().map(|event| event.event.sentence()).collect();
    let moved = |to| told.contains(&format!("Volume data is in datastore {to} now"));
    assert!(moved("fast") && moved("local"), "{told:?}");
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_moves_while_its_machine_is_off_and_goes_with_its_room() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", true).await;
    scene.attached(id).await;
    scene.through(VmAction::PowerOff).await;
    scene.relocated(id, "fast").await;
    assert_eq!(scene.world.vm(scene.vm).await.state, VmState::PoweredOff);
    scene.through(VmAction::Delete).await;
    scene.until_removed(id).await;
    assert_eq!(scene.used_of_fast().await, MiB(0));
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_that_cannot_move_says_why() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.attached(id).await;
    let refusal = async |to: &str| scene.relocate(id, to).await.unwrap_err();
    let said = refusal("local").await.public;
    assert_eq!(said, "volume `data` is in datastore `local` already");
    let said = refusal("slow").await.public;
    assert_eq!(said, "host `host-1` has no datastore `slow`");
    assert_eq!(refusal("../x").await.fields[0].field, "datastore");
    let large = scene.fills_fast().await;
    let said = refusal("fast").await.public;
    assert_eq!(
        said,
        "datastore `fast` of host `host-1` has no room for 100 MiB"
    );

    // Each disk's share of a snapshot is claimed where the disk is.
    let refused = scene.ask(VmAction::Snapshot, both()).await.unwrap_err();
    assert_eq!(
        refused.public,
        "datastore `fast` of host `host-1` has no room for 950 MiB"
    );
    scene.detach(large).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    scene.ask(VmAction::Snapshot, both()).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let said = refusal("fast").await.public;
    assert_eq!(
        said,
        "volume `data` is in snapshot `both` of `web-1`; delete that first"
    );
    assert_eq!(scene.used_of_fast().await, MiB(950));
    scene.sound().await;
}

fn both() -> ActionArgs {
    ActionArgs::TakeSnapshot(TakeSnapshot {
        name: "both".to_owned(),
        memory: false,
        volume: None,
    })
}

#[tokio::test]
async fn a_snapshot_holds_room_where_its_disks_are() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.relocate(id, "fast").await.unwrap();
    scene.attached(id).await;
    assert_eq!(scene.room().await, (MiB(0), MiB(100)));
    let take = async || {
        scene.ask(VmAction::Snapshot, both()).await.unwrap();
        scene.world.until_rest(scene.vm).await;
        let (engine, admin) = (&scene.world.engine, &scene.world.admin);
        engine
            .vm_snapshots(admin, scene.vm)
            .await
            .unwrap()
            .remove(0)
    };
    let taken = take().await;
    assert_eq!(taken.claimed_mib, MiB(1024 + 100));
    assert_eq!(scene.room().await, (MiB(1024), MiB(200)));
    scene.sound().await;
    let args = ActionArgs::Snapshot(taken.id);
    scene.ask(VmAction::RemoveSnapshot, args).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.room().await, (MiB(0), MiB(100)));
    take().await;
    scene.through(VmAction::Delete).await;
    assert_eq!(scene.used_of_fast().await, MiB(100), "the volume stays");
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_that_no_vm_has_is_made_where_it_is_to_be() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    let moved = scene.relocate(id, "fast").await.unwrap();
    assert_eq!(
        (moved.volume.datastore.as_str(), moved.operation),
        ("fast", None)
    );
    scene.attached(id).await;
    assert_eq!(held(&scene.hosts[0]).await[0].datastore.as_str(), "fast");
    assert_eq!(scene.room().await, (MiB(0), MiB(100)));
    scene.detach(id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let said = scene.relocate(id, "local").await.unwrap_err().public;
    assert!(said.ends_with("so attach it first"), "{said}");
    scene.sound().await;
    scene.delete(id).await.unwrap();
    scene.until_removed(id).await;
    assert_eq!(scene.room().await, (MiB(0), MiB(0)));
    scene.sound().await;
}

#[tokio::test]
async fn a_move_that_is_cancelled_or_fails_leaves_the_volume_and_its_room_as_they_were() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.attached(id).await;
    let sim = &scene.hosts[0].sim;
    sim.fail_next(
        Call::MoveDisk,
        Fault::new(FaultKind::NoSpace, "the datastore is full"),
    );
    scene.relocate(id, "fast").await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    assert_eq!(scene.room().await, (MiB(100), MiB(0)));
    assert_eq!(scene.volume(id).await.moving_to, None);

    sim.delay(Call::MoveDisk, Duration::from_millis(300));
    let moving = scene.relocate(id, "fast").await.unwrap().operation.unwrap();
    assert_eq!(scene.room().await, (MiB(100), MiB(100)), "both may have it");
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    engine.cancel_operation(admin, moving.id).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Cancelled);
    assert_eq!(scene.room().await, (MiB(100), MiB(0)));
    assert_eq!(held(&scene.hosts[0]).await[0].datastore.as_str(), "local");
    scene.sound().await;
}

/// Nobody knows which of the two has it, until the host is asked to have it in
/// one of them.
#[tokio::test]
async fn a_volume_whose_vm_goes_while_it_moves_is_not_lost() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.attached(id).await;
    let sim = &scene.hosts[0].sim;
    sim.delay(Call::MoveDisk, Duration::from_millis(300));
    scene.relocate(id, "fast").await.unwrap();
    scene.world.operate(scene.vm, VmAction::Delete).await;
    scene.world.until(scene.vm, VmState::Done).await;
    let free = scene.volume(id).await;
    assert_eq!(free.state, VolumeState::Ready);
    assert_eq!(free.moving_to, Some(DatastoreName::new("fast").unwrap()));
    scene.sound().await;
    sim.delay(Call::MoveDisk, Duration::ZERO);
    let other = scene.world.create("web-2").await.id;
    scene.world.until(other, VmState::Running).await;
    scene.attach(id, other).await.unwrap();
    scene.world.until_rest(other).await;
    let there = scene.volume(id).await;
    assert_eq!(
        (there.state, there.moving_to),
        (VolumeState::Attached, None)
    );
    assert_eq!(held(&scene.hosts[0]).await[0].datastore, there.datastore);
    assert_eq!(scene.room().await, (MiB(100), MiB(0)));
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_in_a_shared_datastore_goes_to_a_vm_of_any_host_that_reaches_it() {
    let shared = SimDatastore::default();
    let scene = Scene::of(
        (1..=2).map(|number| TestHost::new(number).sharing("fast", 1, MiB(1000), &shared)),
    )
    .await;
    let id = scene.make("data", false).await;
    scene.relocate(id, "fast").await.unwrap();
    scene.attached(id).await;
    let first = scene.volume(id).await.host.unwrap();
    let sim = |host: HostId| &scene.hosts.iter().find(|h| h.id == host).unwrap().sim;
    sim(first.id).scribble(id);
    let other = scene.on_another_host().await;
    let refused = scene.attach(id, other).await.unwrap_err();
    assert_eq!(refused.public, "volume `data` is attached to a VM already");
    scene.detach(id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    scene.sound().await;

    scene.attach(id, other).await.unwrap();
    scene.world.until_rest(other).await;
    let there = scene.volume(id).await;
    let second = there.host.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(there.state, VolumeState::Attached);
    assert_eq!(
        sim(second.id).reads_zeros(id),
        Some(false),
        "it is the same one"
    );
    assert_eq!(sim(first.id).reads_zeros(id), None, "it has it no more");
    let hosts = scene.world.engine.hosts(&scene.world.admin).await.unwrap();
    let shown = hosts.iter().map(|host| host.datastores[0].used_mib);
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [MiB(100); 2],
        "what all have of it"
    );
    scene.sound().await;

    scene.world.operate(other, VmAction::Delete).await;
    scene.world.until(other, VmState::Done).await;
    scene.delete(id).await.unwrap();
    scene.until_removed(id).await;
    assert_eq!(sim(first.id).reads_zeros(id), None);
    scene.sound().await;
}

#[tokio::test]
async fn another_directory_that_gets_the_name_is_not_taken_for_the_datastore() {
    let mut scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.relocate(id, "fast").await.unwrap();
    scene.attached(id).await;
    let engine = scene.world.engine.clone();
    scene.hosts[0].disconnect();
    scene.hosts[0].rename_datastores(9);
    scene.hosts[0].connect(&engine).await;
    let hosts = engine.hosts(&scene.world.admin).await.unwrap();
    let fast = &hosts[0].datastores[0];
    assert_eq!((fast.present, fast.used_mib), (false, MiB(100)));
    let more = scene.make("more", false).await;
    scene.relocate(more, "fast").await.unwrap();
    let said = scene.attach(more, scene.vm).await.unwrap_err().public;
    assert_eq!(said, "host `host-1` has no datastore `fast`");
}

impl Scene {
    /// With a datastore that has room for all disks of the VM.
    async fn roomy() -> Self {
        let host = TestHost::new(1).with_datastore("fast", 1, MiB(1500));
        Self::of(std::iter::once(host)).await
    }

    /// Has all disks of the VM brought to a datastore.
    async fn storage(&self, to: &str) -> Result<AcceptedView, Error> {
        let form = MigrateVm {
            datastore: Some(to.to_owned()),
            ..MigrateVm::default()
        };
        let asked = self.ask(VmAction::Migrate, ActionArgs::Migrate(form));
        asked.await
    }

    /// As [`Scene::storage`], to the end, whatever that is.
    async fn stored(&self, to: &str) -> VmView {
        self.storage(to).await.unwrap();
        self.world.until_rest(self.vm).await
    }

    /// Where the VM's own disk is, as it is recorded and as its host has it.
    async fn home(&self) -> String {
        let vm = self.world.vm(self.vm).await;
        assert_eq!(vm.moving_to, None);
        let host = self
            .hosts
            .iter()
            .find(|host| Some(host.id) == vm.host.as_ref().map(|h| h.id));
        let there = host.unwrap().sim.datastore(self.vm);
        assert_eq!(there.as_ref(), Some(&vm.datastore));
        vm.datastore.to_string()
    }

    /// Where its disks can go, and why not elsewhere.
    async fn storage_targets(&self) -> Vec<(String, Option<String>, u64)> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let found = engine.storage_targets(admin, self.vm).await.unwrap();
        let shown = found.into_iter().map(|target| {
            let StorageTarget {
                datastore,
                refusal,
                copied_mib,
            } = target;
            (datastore.to_string(), refusal, copied_mib.0)
        });
        shown.collect()
    }

    /// Fails the move of so manieth disk from now on, and what follows it `then` times.
    fn break_moves(&self, nth: u32, then: u32) {
        let fault = Fault::new(FaultKind::Hypervisor, "the mirror broke");
        let mut calls = 0;
        self.hosts[0].sim.direct(Box::new(move |call, _| {
            calls += u32::from(call == Call::MoveDisk);
            let fails = call == Call::MoveDisk && (nth..=nth + then).contains(&calls);
            Course {
                mishap: fails.then(|| Mishap::Fail(fault.clone())),
                ..Course::default()
            }
        }));
    }
}

#[tokio::test]
async fn the_disk_of_a_vm_moves_while_it_runs_and_is_claimed_where_it_is() {
    let scene = Scene::roomy().await;
    let used = async || (scene.used().await.disk_mib, scene.used_of_fast().await);
    assert_eq!(
        scene.storage_targets().await,
        [("fast".to_owned(), None, 1024)]
    );
    let vm = scene.stored("fast").await;
    assert_eq!(
        (vm.state, vm.datastore.as_str()),
        (VmState::Running, "fast")
    );
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(operation.migration.unwrap().mode, MigrationMode::Storage);
    assert_eq!(scene.home().await, "fast");
    assert_eq!(used().await, (MiB(0), MiB(1024)));
    assert_eq!(
        scene.storage_targets().await,
        [("local".to_owned(), None, 1024)]
    );
    scene.sound().await;
    let said = scene.storage("fast").await.unwrap_err().public;
    assert_eq!(said, "all disks of `web-1` are in datastore `fast` already");
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let told = engine.vm_timeline(admin, scene.vm).await.unwrap();
    let told: Vec<_> = told.iter().map(|event| event.event.sentence()).collect();
    assert!(
        told.contains(&"Its disk is in datastore fast now".to_owned()),
        "{told:?}"
    );

    // It starts from there, is off, and goes back.
    scene.through(VmAction::PowerOff).await;
    assert_eq!(scene.home().await, "fast");
    scene.through(VmAction::Start).await;
    scene.through(VmAction::PowerOff).await;
    scene.stored("local").await;
    assert_eq!(scene.home().await, "local");
    assert_eq!(used().await, (MiB(1024), MiB(0)));
    scene.through(VmAction::Start).await;
    scene.sound().await;
    scene.stored("fast").await;
    scene.through(VmAction::Stop).await;
    assert_eq!(used().await, (MiB(0), MiB(0)));
    assert_eq!(scene.storage_targets().await, []);
    scene.through(VmAction::Resume).await;
    assert_eq!(scene.home().await, "fast", "where it was");
    scene.through(VmAction::Delete).await;
    assert_eq!(used().await, (MiB(0), MiB(0)));
    scene.sound().await;
}

#[tokio::test]
async fn a_disk_that_cannot_move_says_why() {
    let scene = Scene::roomy().await;
    let refusal = async |to: &str| scene.storage(to).await.unwrap_err();
    let said = refusal("local").await.public;
    assert_eq!(
        said,
        "all disks of `web-1` are in datastore `local` already"
    );
    assert_eq!(
        refusal("slow").await.public,
        "host `host-1` has no datastore `slow`"
    );
    let large = scene.fills_fast().await;
    let full = "datastore `fast` of host `host-1` has no room for 1 GiB";
    assert_eq!(refusal("fast").await.public, full);
    let targets = scene.storage_targets().await;
    let wanted = [("local", None, 950), ("fast", Some(full), 1024)];
    let wanted = wanted.map(|(to, why, mib)| (to.to_owned(), why.map(str::to_owned), mib));
    assert_eq!(targets, wanted);
    scene.detach(large).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    scene.ask(VmAction::Snapshot, both()).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let tied = "`web-1` has snapshots, which its disks do not move with; delete them first";
    assert_eq!(refusal("fast").await.public, tied);
    assert_eq!(scene.storage_targets().await[0].1.as_deref(), Some(tied));
    scene.through(VmAction::Suspend).await;
    let saved = refusal("fast").await.public;
    assert!(saved.contains("has its memory saved"), "{saved}");
    assert_eq!(scene.storage_targets().await, []);
    assert_eq!(scene.used_of_fast().await, MiB(950));
    scene.sound().await;
}

#[tokio::test]
async fn a_move_of_a_disk_that_is_cancelled_or_fails_leaves_it_and_its_room_as_they_were() {
    let scene = Scene::roomy().await;
    let used = async || (scene.used().await.disk_mib, scene.used_of_fast().await);
    scene.break_moves(1, 0);
    let vm = scene.stored("fast").await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    assert_eq!(scene.home().await, "local");
    assert_eq!(used().await, (MiB(1024), MiB(0)));
    let sim = &scene.hosts[0].sim;
    sim.delay(Call::MoveDisk, Duration::from_millis(300));
    let moving = scene.storage("fast").await.unwrap();
    let to = moving.vm.moving_to.unwrap();
    assert_eq!(
        (to.as_str(), moving.vm.datastore.as_str()),
        ("fast", "local")
    );
    assert_eq!(used().await, (MiB(1024), MiB(1024)), "both may have it");
    scene.sound().await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let id = moving.operation.id;
    engine.cancel_operation(admin, id).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Cancelled);
    assert_eq!(scene.home().await, "local");
    assert_eq!(used().await, (MiB(1024), MiB(0)));
    scene.storage("fast").await.unwrap();
    scene.world.operate(scene.vm, VmAction::Delete).await;
    scene.world.until(scene.vm, VmState::Done).await;
    assert_eq!(used().await, (MiB(0), MiB(0)));
    scene.sound().await;
}

/// Nobody knows which of the two has it, until the host is asked to have it in one of
/// them.
#[tokio::test]
async fn a_disk_that_neither_came_nor_went_back_is_brought_to_either() {
    for to in ["fast", "local"] {
        let scene = Scene::roomy().await;
        let used = async || (scene.used().await.disk_mib, scene.used_of_fast().await);
        // Neither forth nor back.
        scene.break_moves(1, 1);
        let vm = scene.stored("fast").await;
        assert_eq!(vm.state, VmState::Failed, "{:?}", vm.operation);
        assert_eq!(vm.moving_to.unwrap().as_str(), "fast");
        assert_eq!(used().await, (MiB(1024), MiB(1024)));
        scene.sound().await;
        scene.through(VmAction::Retry).await;
        let between = "the disk of `web-1` is between datastores `local` and `fast`; bring it to one of them first";
        let larger = ResizeVm {
            disk_mib: Some(MiB(2048)),
            ..ResizeVm::default()
        };
        let refused = scene
            .ask(VmAction::Resize, ActionArgs::Resize(larger))
            .await;
        assert_eq!(refused.unwrap_err().public, between);
        let targets = scene.storage_targets().await;
        let targets: Vec<_> = targets
            .iter()
            .map(|(to, why, _)| (to.as_str(), why))
            .collect();
        assert_eq!(targets, [("local", &None), ("fast", &None)]);
        let vm = scene.stored(to).await;
        assert_eq!(vm.operation.unwrap().state, OperationState::Succeeded);
        assert_eq!(scene.home().await, to);
        let wanted = match to {
            "fast" => (MiB(0), MiB(1024)),
            _ => (MiB(1024), MiB(0)),
        };
        assert_eq!(used().await, wanted);
        scene.sound().await;
    }
}

#[tokio::test]
async fn all_disks_of_a_vm_move_one_after_the_other() {
    let scene = Scene::roomy().await;
    let used = async || (scene.used().await.disk_mib, scene.used_of_fast().await);
    let first = scene.make("data", false).await;
    scene.attached(first).await;
    let second = scene.make("logs", false).await;
    scene.attached(second).await;
    assert_eq!(used().await, (MiB(1224), MiB(0)));
    assert_eq!(scene.storage_targets().await[0].2, 1224);
    let vm = scene.stored("fast").await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(used().await, (MiB(0), MiB(1224)));
    let operation = vm.operation.unwrap();
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(operation.steps.len(), 3);
    let migration = operation.migration.unwrap();
    assert_eq!(migration.mode, MigrationMode::Storage);
    assert_eq!(migration.datastore.unwrap().as_str(), "fast");
    let result = migration.result.unwrap();
    assert_eq!(result.transferred_bytes, 1224 << 20, "of all");
    // The last one cannot go back: the others have, and stay there.
    scene.break_moves(3, 0);
    let vm = scene.stored("local").await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    assert_eq!(used().await, (MiB(1124), MiB(100)));
    assert_eq!(scene.home().await, "local");
    for id in [first, second] {
        assert_eq!(scene.volume(id).await.moving_to, None);
    }
    scene.sound().await;
    // Only what is not there yet goes.
    let vm = scene.stored("local").await;
    assert_eq!(vm.operation.unwrap().steps.len(), 1);
    assert_eq!(used().await, (MiB(1224), MiB(0)));
}

#[tokio::test]
async fn a_disk_goes_to_a_shared_datastore_and_from_there_nothing_is_copied() {
    let shared = SimDatastore::default();
    let log = RunLog::new();
    let host = |number| TestHost::new(number).beside(&log);
    let hosts = (1..=2).map(|number| host(number).sharing("fast", 1, MiB(2000), &shared));
    let scene = Scene::of(hosts).await;
    scene.stored("fast").await;
    assert_eq!(scene.home().await, "fast");
    let on = scene.world.vm(scene.vm).await.host.unwrap();
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let target = engine
        .migration_targets(admin, scene.vm)
        .await
        .unwrap()
        .remove(0);
    assert_eq!((target.refusal, target.copied_mib), (None, MiB(0)));
    let form = MigrateVm {
        host: Some(target.host.name.clone()),
        ..MigrateVm::default()
    };
    scene
        .ask(VmAction::Migrate, ActionArgs::Migrate(form))
        .await
        .unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Succeeded);
    assert_ne!(vm.host.unwrap().id, on.id);
    scene.stored("local").await;
    assert_eq!(shared.machines(), []);
    scene.sound().await;
}
