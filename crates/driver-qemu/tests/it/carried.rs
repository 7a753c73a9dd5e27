//! Machines that go from host to host with all of their disks: what both hosts
//! reach stays where it is, the rest is copied.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use vimana_driver::conformance::{
    Harness as _, answer, guest_answers, new_snapshot, new_spec, new_volume,
};
use vimana_driver::{
    Arrival, DiskPlan, FaultKind, HostDriver, IncarnationSpec, Keep, Power, Sending, SnapshotPlan,
    VolumePlan, VolumeSource, unwatched,
};
use vimana_driver_qemu::{BOOTS, COUNT, QemuConfig, QemuDriver};
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{HostId, SnapshotId, VmId, VolumeId};

use crate::host::{QemuHost, other_datastore};

const SEEDED: u8 = 0x5a;

fn id(n: u8) -> HostId {
    HostId::from_parts(n.into(), [n; 10])
}

/// Two hosts that share a datastore, and a machine on the first of them.
struct Scene {
    hosts: [QemuHost; 2],
    one: Arc<dyn HostDriver>,
    two: Arc<dyn HostDriver>,
    spec: IncarnationSpec,
    /// In the shared datastore, and in the host's own directory.
    volumes: Vec<VolumeId>,
    plan: DiskPlan,
}

impl Scene {
    fn config(hosts: &[QemuHost; 2], n: usize) -> QemuConfig {
        let mut config = hosts[n].config();
        config.datastores = hosts[0].config().datastores;
        config.owner = format!("host-{n}");
        config
    }

    async fn open(hosts: &[QemuHost; 2], n: usize) -> Arc<dyn HostDriver> {
        let driver = QemuDriver::open(Self::config(hosts, n)).await;
        Arc::new(driver.unwrap())
    }

    /// The second host's agent starts anew.
    async fn reopen(&mut self) -> Arc<dyn HostDriver> {
        // Dropped before anything else is opened on the same directory.
        self.two = Arc::clone(&self.one);
        self.two = Self::open(&self.hosts, 1).await;
        Arc::clone(&self.two)
    }

    /// With its own disk in the shared datastore, or in the host's directory.
    async fn new(shares_root: bool) -> Self {
        let places = vec![other_datastore(), DatastoreName::local()];
        Self::with_volumes(shares_root, places).await
    }

    /// The same, with a volume in each of those.
    async fn with_volumes(shares_root: bool, places: Vec<DatastoreName>) -> Self {
        Self::of(shares_root, places, None).await
    }

    /// The same, with so much memory.
    async fn of(shares_root: bool, places: Vec<DatastoreName>, memory: Option<MiB>) -> Self {
        let hosts = [QemuHost::new().await, QemuHost::new().await];
        let (one, two) = (Self::open(&hosts, 0).await, Self::open(&hosts, 1).await);
        let mut spec = new_spec(&hosts[0]);
        if let Some(memory) = memory {
            spec.resources.memory_mib = memory;
        }
        if shares_root {
            spec.datastore = other_datastore();
        }
        one.prepare(&spec, &hosts[0].image().1).await.unwrap();
        let volumes: Vec<VolumeId> = places.iter().map(|_| new_volume()).collect();
        let mut plans = Vec::new();
        for (volume, datastore) in volumes.iter().copied().zip(places) {
            let made = one.create_volume(volume, MiB(4), &VolumeSource::Empty, &datastore);
            made.await.unwrap();
            let file = one_file(&hosts[0], &datastore, volume);
            qemu_io(&file, &format!("write -P {SEEDED} 1M 64k"));
            plans.push(VolumePlan {
                volume_id: volume,
                size_mib: MiB(4),
                shared: !datastore.is_local(),
                datastore,
                place: one.attach(spec.vm_id, 1, volume).await.unwrap(),
            });
        }
        one.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
        guest_answers(&*one, spec.vm_id).await;
        assert_eq!(answer(&*one, spec.vm_id, COUNT).await, 'A');
        Self {
            plan: DiskPlan {
                shares_root,
                volumes: plans,
                snapshots: Vec::new(),
            },
            hosts,
            one,
            two,
            spec,
            volumes,
        }
    }

    const fn vm(&self) -> VmId {
        self.spec.vm_id
    }

    async fn receive(&self) -> Sending {
        let (_, image) = self.hosts[1].image();
        let arrival = self.arrival();
        let awaited = self.two.receive(&self.spec, &image, &arrival);
        Sending {
            to: id(2),
            endpoint: awaited.await.unwrap(),
            max_downtime_ms: 300,
            max_bytes_per_s: None,
            disks: self.plan.clone(),
        }
    }

    fn arrival(&self) -> Arrival {
        Arrival {
            disks: self.plan.clone(),
            ..Arrival::of(id(1))
        }
    }

    /// Takes a snapshot, which goes along.
    async fn snapshot(&mut self, memory: bool) -> SnapshotId {
        let id = new_snapshot();
        let keep = if memory { Keep::Memory } else { Keep::Disks };
        let taken = self.one.snapshot(self.vm(), 1, id, keep);
        taken.await.unwrap();
        self.plan.snapshots.push(SnapshotPlan {
            snapshot_id: id,
            memory,
            whole: true,
            resources: self.spec.resources,
            root: true,
            volumes: self.volumes.clone(),
        });
        id
    }

    fn shared_root(&self) -> PathBuf {
        let place = &self.hosts[0].config().datastores[&other_datastore()];
        place.join(self.vm().to_string()).join("disk.qcow2")
    }

    /// What is on each of its volumes, as host `n` has them.
    fn reads(&self, n: usize) {
        for plan in &self.plan.volumes {
            let host = if plan.shared { 0 } else { n };
            let file = one_file(&self.hosts[host], &plan.datastore, plan.volume_id);
            qemu_io(&file, &format!("read -P {SEEDED} 1M 64k"));
        }
    }
}

fn one_file(host: &QemuHost, datastore: &DatastoreName, volume: VolumeId) -> PathBuf {
    let config = host.config();
    let place = config.datastores.get(datastore);
    let place = place.unwrap_or(&config.state_dir);
    place.join(volume.to_string()).join("volume.qcow2")
}

fn qemu_io(file: &PathBuf, command: &str) {
    let did = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", command])
        .arg(file)
        .output();
    let did = did.unwrap();
    let said = String::from_utf8_lossy(&did.stdout);
    assert!(
        did.status.success() && !said.contains("failed"),
        "{command} {}: {said} {}",
        file.display(),
        String::from_utf8_lossy(&did.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_come_along_and_what_is_shared_stays_where_it_is() {
    for shares_root in [true, false] {
        let scene = Scene::new(shares_root).await;
        let (vm, one, two) = (scene.vm(), &*scene.one, &*scene.two);
        let sending = scene.receive().await;
        assert_eq!(two.inventory().await.unwrap()[0].power, Power::Arriving);
        let sent = one.send(vm, 1, &sending, unwatched()).await.unwrap();
        assert!(sent.transferred_bytes > 0);
        two.run(vm, 2).await.unwrap();
        assert_eq!(answer(two, vm, COUNT).await, 'B');
        one.kill(vm, 2).await.unwrap();
        one.leave(vm, 2, &scene.plan).await.unwrap();
        one.leave(vm, 2, &scene.plan).await.unwrap();
        assert_eq!(scene.hosts[0].left_behind(vm), [""; 0]);
        assert_eq!(scene.shared_root().exists(), shares_root);
        assert_eq!(one.volumes().await.unwrap(), []);
        let here = two.volumes().await.unwrap();
        let owners: Vec<_> = here.iter().map(|held| held.attached_to).collect();
        assert_eq!(owners, [Some(vm); 2]);
        // Its disk is the same one, or all of it.
        two.reset(vm, 2).await.unwrap();
        guest_answers(two, vm).await;
        assert_eq!(answer(two, vm, BOOTS).await, 'B');
        two.shutdown(vm, 2, std::time::Duration::ZERO)
            .await
            .unwrap();
        scene.reads(1);
        // All of it is the new host's to use from here on: also for a new run, to
        // give a volume away, and to remove.
        two.boot(vm, 3, &scene.spec.resources).await.unwrap();
        guest_answers(two, vm).await;
        assert_eq!(answer(two, vm, BOOTS).await, 'C');
        two.detach(vm, 3, scene.volumes[0]).await.unwrap();
        assert_eq!(one.volumes().await.unwrap().len(), 1, "it is free again");
        two.kill(vm, 3).await.unwrap();
        two.clean(vm, 3).await.unwrap();
        assert!(!scene.shared_root().exists());
        let left = two.volumes().await.unwrap();
        assert!(left.iter().all(|held| held.attached_to.is_none()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_goes_on_with_its_disks_and_nothing_is_left() {
    let scene = Scene::new(true).await;
    let (vm, one, two) = (scene.vm(), &*scene.one, &*scene.two);
    // Never sent, and sent but never let run.
    for (sent, count) in [(false, 'B'), (true, 'C')] {
        let sending = scene.receive().await;
        if sent {
            one.send(vm, 1, &sending, unwatched()).await.unwrap();
        }
        one.call_off(vm, 1).await.unwrap();
        assert_eq!(answer(one, vm, COUNT).await, count);
        two.kill(vm, 1).await.unwrap();
        two.leave(vm, 1, &scene.plan).await.unwrap();
        assert_eq!(scene.hosts[1].left_behind(vm), [""; 0]);
        assert_eq!(two.volumes().await.unwrap(), []);
        assert!(scene.shared_root().exists());
        assert_eq!(one.volumes().await.unwrap().len(), 2);
    }
    one.kill(vm, 1).await.unwrap();
    scene.reads(0);
    one.boot(vm, 2, &scene.spec.resources).await.unwrap();
    guest_answers(one, vm).await;
    assert_eq!(answer(one, vm, BOOTS).await, 'B');
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_start_anew_find_the_disks_as_they_are() {
    let mut scene = Scene::new(true).await;
    let vm = scene.vm();
    let sending = scene.receive().await;
    scene.one.send(vm, 1, &sending, unwatched()).await.unwrap();
    scene.reopen().await;
    scene.two.run(vm, 2).await.unwrap();
    assert_eq!(answer(&*scene.two, vm, COUNT).await, 'B');
    scene.one = Arc::clone(&scene.two);
    scene.one = Scene::open(&scene.hosts, 0).await;
    scene.one.kill(vm, 2).await.unwrap();
    scene.one.leave(vm, 2, &scene.plan).await.unwrap();
    assert_eq!(answer(&*scene.two, vm, COUNT).await, 'C');
    assert_eq!(scene.two.volumes().await.unwrap().len(), 2);
    assert!(scene.shared_root().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_reach_a_disk_does_not_wait_for_the_machine() {
    let scene = Scene::new(true).await;
    let stranger = QemuHost::new().await;
    let driver = stranger.driver().await;
    let (_, image) = stranger.image();
    let arrival = scene.arrival();
    let refused = driver.receive(&scene.spec, &image, &arrival);
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Host, "{refused}");
    assert_eq!(stranger.left_behind(scene.vm()), [""; 0]);
    // And a plan that forgets a volume is no plan.
    let mut sending = scene.receive().await;
    sending.disks.volumes.pop();
    let refused = scene.one.send(scene.vm(), 1, &sending, unwatched());
    assert_eq!(refused.await.unwrap_err().kind, FaultKind::Conflict);
    assert_eq!(answer(&*scene.one, scene.vm(), COUNT).await, 'B');
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_is_saved_beside_a_disk_that_is_in_a_datastore() {
    let scene = Scene::new(true).await;
    let (vm, one) = (scene.vm(), &*scene.one);
    one.save(vm, 1).await.unwrap();
    let memory = scene.shared_root().with_file_name("memory");
    assert!(memory.exists());
    one.load(vm, 2).await.unwrap();
    assert_eq!(answer(one, vm, COUNT).await, 'B');
    assert!(!memory.exists());
    one.kill(vm, 2).await.unwrap();
    // Made anew, it takes the place of what was there.
    one.clean(vm, 2).await.unwrap();
    fs::create_dir(scene.shared_root().parent().unwrap()).unwrap();
    let again = IncarnationSpec {
        run_epoch: 3,
        ..scene.spec.clone()
    };
    let (_, image) = scene.hosts[0].image();
    one.prepare(&again, &image).await.unwrap();
    one.boot(vm, 3, &again.resources).await.unwrap();
    guest_answers(one, vm).await;
    assert_eq!(answer(one, vm, BOOTS).await, 'A');
}

#[tokio::test(flavor = "multi_thread")]
async fn by_post_copy_too_the_disks_are_the_new_hosts_alone() {
    let scene = Scene::new(true).await;
    let (vm, one, two) = (scene.vm(), &*scene.one, &*scene.two);
    let arrival = scene.arrival().by_post_copy();
    let (_, image) = scene.hosts[1].image();
    let endpoint = two.receive(&scene.spec, &image, &arrival).await.unwrap();
    assert!(endpoint.post_copy);
    let sending = Sending {
        to: id(2),
        endpoint,
        max_downtime_ms: 300,
        max_bytes_per_s: None,
        disks: scene.plan.clone(),
    };
    one.send(vm, 1, &sending, unwatched()).await.unwrap();
    one.switch(vm, 2).await.unwrap();
    two.run(vm, 2).await.unwrap();
    two.complete(vm, 2).await.unwrap();
    assert_eq!(answer(two, vm, COUNT).await, 'B');
    one.kill(vm, 2).await.unwrap();
    one.leave(vm, 2, &scene.plan).await.unwrap();
    assert!(scene.shared_root().exists());
    two.kill(vm, 2).await.unwrap();
    scene.reads(1);
    two.boot(vm, 3, &scene.spec.resources).await.unwrap();
    guest_answers(two, vm).await;
    assert_eq!(answer(two, vm, BOOTS).await, 'B');
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_go_along_in_disks_that_stay_where_they_are() {
    let mut scene = Scene::with_volumes(true, vec![other_datastore()]).await;
    let vm = scene.vm();
    let (early, late) = (scene.snapshot(true).await, scene.snapshot(false).await);
    let (one, two) = (&*scene.one, &*scene.two);
    let before = one.snapshots().await.unwrap();
    // It comes to nothing once: they are where they were.
    scene.receive().await;
    assert_eq!(two.snapshots().await.unwrap(), before);
    two.kill(vm, 1).await.unwrap();
    two.leave(vm, 1, &scene.plan).await.unwrap();
    assert_eq!(two.snapshots().await.unwrap(), []);
    let sending = scene.receive().await;
    one.send(vm, 1, &sending, unwatched()).await.unwrap();
    two.run(vm, 2).await.unwrap();
    one.kill(vm, 2).await.unwrap();
    one.leave(vm, 2, &scene.plan).await.unwrap();
    assert_eq!(one.snapshots().await.unwrap(), []);
    assert_eq!(two.snapshots().await.unwrap(), before);
    assert_eq!(answer(two, vm, COUNT).await, 'B');
    two.reset(vm, 2).await.unwrap();
    guest_answers(two, vm).await;
    assert_eq!(answer(two, vm, BOOTS).await, 'B');
    // With its memory, taken on the other host.
    two.revert(vm, 2, early).await.unwrap();
    assert_eq!(answer(two, vm, COUNT).await, 'B');
    assert_eq!(answer(two, vm, BOOTS).await, 'A');
    two.remove_snapshot(vm, 2, early).await.unwrap();
    two.kill(vm, 2).await.unwrap();
    two.revert(vm, 2, late).await.unwrap();
    scene.reads(1);
    let driver = scene.reopen().await;
    let left = driver.snapshots().await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    driver.boot(vm, 3, &scene.spec.resources).await.unwrap();
    guest_answers(&*driver, vm).await;
    assert_eq!(answer(&*driver, vm, BOOTS).await, 'B');
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_go_along_in_the_files_of_a_machine_that_does_not_run() {
    let mut scene = Scene::new(false).await;
    let vm = scene.vm();
    // Nobody has said that they go: they would stay.
    let snapshot = scene.snapshot(true).await;
    let plan = std::mem::take(&mut scene.plan.snapshots);
    let (one, two) = (Arc::clone(&scene.one), Arc::clone(&scene.two));
    let sending = scene.receive().await;
    let stays = one.send(vm, 1, &sending, unwatched()).await.unwrap_err();
    assert_eq!(stays.kind, FaultKind::Conflict, "{stays}");
    two.kill(vm, 1).await.unwrap();
    two.leave(vm, 1, &scene.plan).await.unwrap();
    scene.plan.snapshots = plan;
    // And not with what a guest sees of a disk.
    let sending = scene.receive().await;
    let copied = one.send(vm, 1, &sending, unwatched()).await.unwrap_err();
    assert_eq!(copied.kind, FaultKind::Conflict, "{copied}");
    two.kill(vm, 1).await.unwrap();
    two.leave(vm, 1, &scene.plan).await.unwrap();
    assert_eq!(answer(&*one, vm, COUNT).await, 'B');
    one.save(vm, 1).await.unwrap();
    let without = DiskPlan {
        snapshots: Vec::new(),
        ..scene.plan.clone()
    };
    let stays = one.export(vm, 1, &without).await.unwrap_err();
    assert_eq!(stays.kind, FaultKind::Conflict, "{stays}");
    let files = one.export(vm, 1, &scene.plan).await.unwrap();
    let copies = tempfile::tempdir().unwrap();
    let copy = |(part, path): (_, PathBuf)| {
        let to = copies.path().join(format!("{part}"));
        fs::copy(path, &to).unwrap();
        (part, to)
    };
    let files: Vec<_> = files.into_iter().map(copy).collect();
    let arrives = IncarnationSpec {
        run_epoch: 2,
        ..scene.spec.clone()
    };
    let (_, image) = scene.hosts[1].image();
    let imported = two.import(&arrives, &image, &files, &scene.plan);
    imported.await.unwrap();
    one.leave(vm, 2, &scene.plan).await.unwrap();
    assert_eq!(one.snapshots().await.unwrap(), []);
    assert_eq!(two.snapshots().await.unwrap().len(), 1);
    two.load(vm, 2).await.unwrap();
    assert_eq!(answer(&*two, vm, COUNT).await, 'C');
    two.revert(vm, 2, snapshot).await.unwrap();
    assert_eq!(answer(&*two, vm, COUNT).await, 'B', "as it was then");
    two.kill(vm, 2).await.unwrap();
    scene.reads(1);
}

/// What is large comes by several channels, which a file has not.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_machine_that_came_from_elsewhere_goes_back_to_its_memory() {
    let large = Some(MiB(1024));
    let mut scene = Scene::of(true, vec![other_datastore()], large).await;
    let vm = scene.vm();
    let early = scene.snapshot(true).await;
    let (one, two) = (&*scene.one, &*scene.two);
    let sending = scene.receive().await;
    assert!(sending.endpoint.channels > 0);
    one.send(vm, 1, &sending, unwatched()).await.unwrap();
    one.call_off(vm, 1).await.unwrap();
    two.kill(vm, 1).await.unwrap();
    two.leave(vm, 1, &scene.plan).await.unwrap();
    one.revert(vm, 1, early).await.unwrap();
    assert_eq!(answer(one, vm, COUNT).await, 'B');
    let sending = scene.receive().await;
    one.send(vm, 1, &sending, unwatched()).await.unwrap();
    two.run(vm, 2).await.unwrap();
    one.kill(vm, 2).await.unwrap();
    one.leave(vm, 2, &scene.plan).await.unwrap();
    assert_eq!(answer(two, vm, COUNT).await, 'C');
    let late = new_snapshot();
    two.snapshot(vm, 2, late, Keep::Memory).await.unwrap();
    for (snapshot, count) in [(early, 'B'), (late, 'D')] {
        two.revert(vm, 2, snapshot).await.unwrap();
        assert_eq!(answer(two, vm, COUNT).await, count);
    }
}
