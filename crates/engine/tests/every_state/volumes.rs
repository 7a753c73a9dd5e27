//! Volumes: made, attached, grown, detached, deleted, and what stands in the
//! way.

use std::time::Duration;

use futures::StreamExt as _;
use vimana_driver::{Fault, FaultKind, HostDriver as _, ObservedVolume};
use vimana_driver_sim::{Call, SimDriver};
use vimana_engine::{ActionArgs, IdempotencyKey};
use vimana_model::action::VmAction;
use vimana_model::name::DatastoreName;
use vimana_model::operation::OperationState;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::unit::MiB;
use vimana_model::volume::{
    AcceptedVolume, AttachVolume, ChangeVolume, CreateVolume, GrowVolume, VolumeState, VolumeView,
};
use vimana_model::{Error, ErrorKind, VmId, VmState, VolumeId};

use vimana_testkit::TestHost;

use super::{Scene, TINY, disk_of};

impl Scene {
    pub(super) async fn make(&self, name: &str, delete_with_vm: bool) -> VolumeId {
        let form = CreateVolume {
            name: name.to_owned(),
            size_mib: MiB(100),
            delete_with_vm,
            ..CreateVolume::default()
        };
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.create_volume(admin, &form).await.unwrap().id
    }

    pub(super) async fn attach(
        &self,
        volume: VolumeId,
        vm_id: VmId,
    ) -> Result<AcceptedVolume, Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let form = AttachVolume { vm_id };
        engine.attach_volume(admin, volume, form).await
    }

    /// Attaches it to the scene's VM, to the end.
    pub(super) async fn attached(&self, volume: VolumeId) {
        self.attach(volume, self.vm).await.unwrap();
        self.world.until_rest(self.vm).await;
        let state = self.volume(volume).await.state;
        assert_eq!(state, VolumeState::Attached);
    }

    pub(super) async fn detach(&self, volume: VolumeId) -> Result<AcceptedVolume, Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.detach_volume(admin, volume).await
    }

    async fn grow(&self, volume: VolumeId, mib: u64) -> Result<AcceptedVolume, Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let form = GrowVolume { size_mib: MiB(mib) };
        engine.grow_volume(admin, volume, form).await
    }

    pub(super) async fn delete(&self, volume: VolumeId) -> Result<VolumeView, Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.delete_volume(admin, volume).await
    }

    pub(super) async fn volume(&self, id: VolumeId) -> VolumeView {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.volume(admin, id).await.unwrap()
    }

    /// Waits for its host.
    pub(super) async fn until_removed(&self, id: VolumeId) {
        let mut told = Box::pin(self.world.engine.watch(&self.world.admin, None));
        let removed = async {
            while self.volume(id).await.state != VolumeState::Removed {
                told.next().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), removed)
            .await
            .unwrap();
    }
}

pub(super) async fn held(host: &TestHost) -> Vec<ObservedVolume> {
    let driver = SimDriver::new(host.sim.clone());
    driver.volumes().await.unwrap()
}

#[tokio::test]
async fn a_volume_is_made_where_it_is_attached_and_outlives_its_vm() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    assert_eq!(scene.volume(id).await.host, None);
    assert_eq!(held(&scene.hosts[0]).await, []);
    scene.attached(id).await;
    assert_eq!(scene.used().await.disk_mib, MiB(1024 + 100));
    let there = ObservedVolume {
        volume_id: id,
        size_mib: MiB(100),
        attached_to: Some(scene.vm),
        datastore: DatastoreName::local(),
    };
    assert_eq!(held(&scene.hosts[0]).await, [there]);
    scene.sound().await;

    let refused = scene.delete(id).await.unwrap_err();
    assert_eq!(
        refused.public,
        "volume `data` is attached to a VM; detach it first"
    );
    let refused = scene.world.act(scene.vm, VmAction::Stop).await.unwrap_err();
    assert!(refused.public.contains("has volumes"), "{refused}");

    scene.through(VmAction::Delete).await;
    let left = scene.volume(id).await;
    assert_eq!((left.state, left.vm), (VolumeState::Ready, None));
    assert_eq!(scene.used().await, disk_of(100));
    scene.sound().await;

    let deleted = scene.delete(id).await.unwrap();
    assert_eq!(deleted.state, VolumeState::Removing);
    scene.until_removed(id).await;
    assert_eq!(held(&scene.hosts[0]).await, []);
    assert_eq!(scene.used().await, disk_of(0));
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_can_go_with_its_vm() {
    let scene = Scene::new(1).await;
    let goes = scene.make("scratch", true).await;
    let stays = scene.make("data", true).await;
    for id in [goes, stays] {
        scene.attached(id).await;
    }
    let keep = ChangeVolume {
        delete_with_vm: Some(false),
    };
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    engine.change_volume(admin, stays, &keep).await.unwrap();
    scene.through(VmAction::Delete).await;
    scene.until_removed(goes).await;
    assert_eq!(scene.volume(stays).await.state, VolumeState::Ready);
    assert_eq!(scene.used().await, disk_of(100));
    scene.sound().await;
}

/// A18.
#[tokio::test]
async fn of_two_who_want_it_at_once_one_gets_it() {
    let scene = Scene::new(1).await;
    let other = scene.world.create("web-2").await.id;
    scene.world.until(other, VmState::Running).await;
    let id = scene.make("data", false).await;
    let (one, two) = tokio::join!(scene.attach(id, scene.vm), scene.attach(id, other));
    let refused = match (one, two) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => unreachable!("{both:?}"),
    };
    assert_eq!(refused.kind, ErrorKind::Conflict);
    scene.world.until_rest(scene.vm).await;
    scene.world.until_rest(other).await;
    let has = scene.volume(id).await.vm.unwrap().id;
    let loser = if has == other { scene.vm } else { other };
    let refused = scene.attach(id, loser).await.unwrap_err();
    assert_eq!(refused.public, "volume `data` is attached to a VM already");
    assert_eq!(held(&scene.hosts[0]).await[0].attached_to, Some(has));
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_only_grows() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    let grown = scene.grow(id, 200).await.unwrap();
    assert_eq!((grown.volume.size_mib, grown.operation), (MiB(200), None));
    scene.attached(id).await;
    scene.grow(id, 300).await.unwrap().operation.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(held(&scene.hosts[0]).await[0].size_mib, MiB(300));
    assert_eq!(scene.used().await.disk_mib, MiB(1024 + 300));
    for wrong in [100, 0, 200 << 20] {
        let refused = scene.grow(id, wrong).await.unwrap_err();
        assert_eq!(refused.fields[0].field, "size_mib", "{wrong}: {refused}");
    }
    let refused = scene.grow(id, 200 << 10).await.unwrap_err();
    assert_eq!(refused.public, "host `host-1` has no room for 200 GiB");

    scene.detach(id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    scene.grow(id, 400).await.unwrap();
    assert_eq!(held(&scene.hosts[0]).await[0].size_mib, MiB(300));
    scene.attached(id).await;
    assert_eq!(held(&scene.hosts[0]).await[0].size_mib, MiB(400));
    scene.sound().await;
}

#[tokio::test]
async fn what_a_snapshot_holds_is_not_detached() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.attached(id).await;
    let form = TakeSnapshot {
        name: "both".to_owned(),
        memory: true,
        volume: None,
    };
    let args = ActionArgs::TakeSnapshot(form);
    scene.ask(VmAction::Snapshot, args).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.used().await.disk_mib, MiB(2 * (1024 + 100) + 128));
    let refused = scene.detach(id).await.unwrap_err();
    assert_eq!(
        refused.public,
        "volume `data` is in snapshot `both` of `web-1`; delete that first"
    );

    // Its memory knows one volume; now there are two.
    let later = scene.make("later", false).await;
    scene.attached(later).await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let taken = engine.vm_snapshots(admin, scene.vm).await.unwrap();
    assert_eq!(taken[0].volumes, ["data"]);
    let args = ActionArgs::Snapshot(taken[0].id);
    let refused = scene.ask(VmAction::Revert, args).await.unwrap_err();
    assert!(refused.public.contains("other volumes"), "{refused}");
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_has_snapshots_of_its_own() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    let form = |name: &str, volume: &str| {
        ActionArgs::TakeSnapshot(TakeSnapshot {
            name: name.to_owned(),
            memory: false,
            volume: Some(volume.to_owned()),
        })
    };
    let refused = scene.ask(VmAction::Snapshot, form("one", "data")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.fields[0].field, "volume");
    assert_eq!(refused.fields[0].message, "`web-1` has no volume `data`");
    scene.attached(id).await;
    for (name, volume) in [("one", "data".to_owned()), ("two", id.to_string())] {
        let taken = scene.ask(VmAction::Snapshot, form(name, &volume)).await;
        taken.unwrap();
        scene.world.until_rest(scene.vm).await;
    }
    assert_eq!(scene.used().await.disk_mib, MiB(1024 + 3 * 100));
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let taken = engine.vm_snapshots(admin, scene.vm).await.unwrap();
    assert_eq!(taken.len(), 2);
    for one in &taken {
        assert!(
            !one.root && !one.current && one.parent_id.is_none(),
            "{one:?}"
        );
        assert_eq!(one.volumes, ["data"]);
    }
    let refused = scene.detach(id).await.unwrap_err();
    assert!(refused.public.contains("is in snapshot `one`"), "{refused}");
    let args = || ActionArgs::Snapshot(taken[0].id);
    let refused = scene.ask(VmAction::Revert, args()).await.unwrap_err();
    assert!(
        refused.public.contains("power the VM off first"),
        "{refused}"
    );
    scene.grow(id, 150).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.used().await.disk_mib, MiB(1024 + 150 + 2 * 100));
    scene.through(VmAction::PowerOff).await;
    scene.ask(VmAction::Revert, args()).await.unwrap();
    let off = scene.world.until_rest(scene.vm).await;
    assert_eq!(off.operation.unwrap().state, OperationState::Succeeded);
    assert_eq!(scene.volume(id).await.size_mib, MiB(100), "as it was then");
    assert_eq!(scene.used().await.disk_mib, MiB(1024 + 3 * 100));
    let after = engine.vm_snapshots(admin, scene.vm).await.unwrap();
    assert!(
        after.iter().all(|one| !one.current),
        "the VM is where it was"
    );
    // There and back: it is as large as in the snapshot each time.
    scene.grow(id, 200).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let larger = scene.ask(VmAction::Snapshot, form("larger", "data")).await;
    larger.unwrap();
    scene.world.until_rest(scene.vm).await;
    let taken = engine.vm_snapshots(admin, scene.vm).await.unwrap();
    for (one, size) in [(0, 100), (2, 200), (1, 100), (2, 200)] {
        let args = ActionArgs::Snapshot(taken[one].id);
        scene.ask(VmAction::Revert, args).await.unwrap();
        scene.world.until_rest(scene.vm).await;
        assert_eq!(scene.volume(id).await.size_mib, MiB(size));
        let disks = 1024 + size + 2 * 100 + 200;
        assert_eq!(scene.used().await.disk_mib, MiB(disks));
    }
    for one in &taken {
        let args = ActionArgs::Snapshot(one.id);
        scene.ask(VmAction::RemoveSnapshot, args).await.unwrap();
        scene.world.until_rest(scene.vm).await;
    }
    scene.detach(id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    scene.sound().await;
}

#[tokio::test]
async fn an_attachment_that_fails_leaves_the_volume_free() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    let fault = Fault::new(FaultKind::Hypervisor, "it does not like it");
    for call in [Call::CreateVolume, Call::Attach] {
        scene.hosts[0].sim.fail_next(call, fault.clone());
        scene.attach(id, scene.vm).await.unwrap();
        let vm = scene.world.until_rest(scene.vm).await;
        assert_eq!(vm.state, VmState::Running);
        assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
        let free = scene.volume(id).await;
        assert_eq!((free.state, free.vm), (VolumeState::Ready, None));
    }
    scene.attached(id).await;
    scene.hosts[0].sim.fail_next(Call::Detach, fault);
    scene.detach(id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    assert_eq!(scene.volume(id).await.state, VolumeState::Attached);
    scene.sound().await;
}

#[tokio::test]
async fn a_volume_stays_on_its_host() {
    let scene = Scene::new(2).await;
    let id = scene.make("data", false).await;
    scene.attached(id).await;
    scene.detach(id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let other = scene.on_another_host().await;
    let refused = scene.attach(id, other).await.unwrap_err();
    assert!(refused.public.contains("is on host"), "{refused}");
}

#[tokio::test]
async fn one_key_has_one_answer_whatever_became_of_the_volume() {
    let scene = Scene::new(1).await;
    let id = scene.make("data", false).await;
    scene.attached(id).await;
    let key = |key: &str| {
        let cx = scene.world.admin.clone();
        cx.with_idempotency(IdempotencyKey {
            key: key.to_owned(),
            fingerprint: key.to_owned(),
        })
    };
    let engine = &scene.world.engine;
    let first = engine.detach_volume(&key("a"), id).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let again = engine.detach_volume(&key("a"), id).await.unwrap();
    let operation = |answer: AcceptedVolume| answer.operation.map(|operation| operation.id);
    assert_eq!(operation(first), operation(again));
    let refused = engine.detach_volume(&key("b"), id).await.unwrap_err();
    assert_eq!(refused.public, "volume `data` is attached to no VM");
}

#[tokio::test]
async fn a_vm_that_is_off_stays_off_while_its_host_is_silent() {
    let mut scene = Scene::new(1).await;
    scene.through(VmAction::PowerOff).await;
    let id = scene.make("data", false).await;
    scene.hosts[0].disconnect();
    scene.attach(id, scene.vm).await.unwrap();
    scene.world.until(scene.vm, VmState::Unknown).await;
    let engine = scene.world.engine.clone();
    scene.hosts[0].connect(&engine).await;
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::PoweredOff);
    assert_eq!(scene.volume(id).await.state, VolumeState::Attached);
    assert_eq!(scene.used().await, disk_of(1024 + 100));
    scene.through(VmAction::Start).await;
    assert_eq!(scene.used().await.vcpus, TINY.vcpus);
    scene.sound().await;
}
