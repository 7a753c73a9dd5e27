//! Volumes and snapshots.

use futures::future::join_all;
use vimana_model::name::{DatastoreName, ImageName, SnapshotName, VolumeName};
use vimana_model::snapshot::SnapshotState;
use vimana_model::unit::MiB;
use vimana_model::vm::HostRef;
use vimana_model::volume::{VmRef, VolumeState};
use vimana_model::{DatastoreId, ErrorKind, SnapshotId, VmId, VolumeId};
use vimana_store::claim::Taken;
use vimana_store::host::HostRecord;
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::snapshot::{Elsewhere, Held, SnapshotRecord};
use vimana_store::vm::VmRecord;
use vimana_store::volume::{ImageOf, VolumeRecord};
use vimana_store::{claim, host, host_datastore, snapshot, volume, write_tx};

use super::catalogue::new_image;
use super::world::{NOW, World, resources};

pub fn volume_of(world: &World, name: &str) -> VolumeRecord {
    VolumeRecord {
        id: VolumeId::from_parts(world.next(), [7; 10]),
        tenant_id: world.tenant.id,
        owner_name: world.user.name.clone(),
        name: VolumeName::new(name).unwrap(),
        state: VolumeState::Ready,
        size: MiB(100),
        image: None,
        made: false,
        delete_with_vm: true,
        host: None,
        datastore: DatastoreName::local(),
        moving_to: None,
        vm: None,
        place: None,
        generation: 0,
        created_at: NOW,
    }
}

fn on(host: &HostRecord) -> HostRef {
    HostRef {
        id: host.id,
        name: host.name.to_string(),
        zone: host.zone.to_string(),
    }
}

async fn insert(world: &World, record: &VolumeRecord) -> vimana_model::Result<()> {
    write_tx!(world.store, |tx| Ok(volume::insert(tx, record).await?))
}

/// It is the VM's now, if nobody was quicker.
async fn give(world: &World, id: VolumeId, vm: &VmRecord, host: &HostRecord) -> bool {
    let given: vimana_model::Result<bool> = write_tx!(world.store, |tx| {
        let mut record = volume::lock(tx, id).await?.unwrap();
        if record.vm.is_some() {
            return Ok(false);
        }
        record.state = VolumeState::Attaching;
        record.host = Some(on(host));
        record.moving_to = Some(DatastoreName::new("slow").unwrap());
        record.vm = Some(VmRef {
            id: vm.id,
            name: vm.name.clone(),
        });
        volume::update(tx, &mut record).await?;
        Ok(true)
    });
    given.unwrap()
}

pub async fn volumes_survive_with_all_columns(world: World) {
    let node = world.new_host("node-a", resources(4, 1024, 4096)).await;
    let vm = world.new_vm("web").await;
    let plain = volume_of(&world, "plain");
    insert(&world, &plain).await.unwrap();
    let mut full = volume_of(&world, "full");
    full.made = true;
    full.datastore = DatastoreName::new("fast").unwrap();
    insert(&world, &full).await.unwrap();
    assert!(give(&world, full.id, &vm, &node).await);
    let read = world.store.read();
    let found = volume::find(&read, full.id).await.unwrap().unwrap();
    let expected = VolumeRecord {
        state: VolumeState::Attaching,
        host: Some(on(&node)),
        moving_to: Some(DatastoreName::new("slow").unwrap()),
        vm: Some(VmRef {
            id: vm.id,
            name: vm.name.clone(),
        }),
        generation: 1,
        ..full.clone()
    };
    assert_eq!(found, expected);
    let listed = volume::list(&read, world.tenant.id).await.unwrap();
    assert_eq!(listed, [expected.clone(), plain]);
    assert_eq!(volume::of_vm(&read, vm.id).await.unwrap(), [expected]);
    assert_eq!(volume::removing(&read, None).await.unwrap(), []);
}

pub async fn a_datastore_of_a_host_never_holds_more_than_it_has(world: World) {
    let node = world.new_host("node-a", resources(4, 1024, 4096)).await;
    let fast = HostDatastoreRecord {
        host_id: node.id,
        name: DatastoreName::new("fast").unwrap(),
        id: DatastoreId::from_parts(1, [1; 10]),
        capacity: MiB(1000),
        used: MiB(0),
        used_by_all: MiB(0),
        present: true,
    };
    let put = async |record: &HostDatastoreRecord| {
        let put: vimana_model::Result<()> =
            write_tx!(world.store, |tx| Ok(host_datastore::put(tx, record).await?));
        put.unwrap();
    };
    let change = async |name: &str, from: u64, to: u64| -> Taken {
        let name = DatastoreName::new(name).unwrap();
        let taken: vimana_model::Result<Taken> = write_tx!(world.store, |tx| {
            Ok(host_datastore::change(tx, node.id, &name, MiB(from), MiB(to)).await?)
        });
        taken.unwrap()
    };
    let known = async || {
        let read = world.store.read();
        host_datastore::for_host(&read, node.id).await.unwrap()
    };
    assert_eq!(change("fast", 0, 1).await, Taken::NoRoom);
    put(&fast).await;
    assert_eq!(change("slow", 0, 1).await, Taken::NoRoom);
    // Of twenty who want a tenth each, ten get it.
    let all = join_all((0..20).map(|_| change("fast", 0, 100))).await;
    let taken = all.iter().filter(|taken| **taken == Taken::Ok).count();
    assert_eq!(taken, 10);
    assert_eq!(known().await[0].used, MiB(1000));
    // What is said anew of it leaves that alone.
    let smaller = HostDatastoreRecord {
        capacity: MiB(500),
        present: false,
        ..fast.clone()
    };
    put(&smaller).await;
    assert_eq!(
        known().await,
        [HostDatastoreRecord {
            used: MiB(1000),
            used_by_all: MiB(1000),
            ..smaller
        }]
    );
    assert_eq!(change("fast", 900, 100).await, Taken::Ok);
    assert_eq!(change("fast", 0, 100).await, Taken::NoRoom, "it is away");
    put(&fast).await;
    assert_eq!(change("fast", 0, 800).await, Taken::Ok);
    assert_eq!(change("fast", 0, 1).await, Taken::NoRoom);
    let read = world.store.read();
    assert_eq!(host_datastore::list(&read).await.unwrap(), known().await);
}

pub async fn hosts_that_share_a_datastore_share_its_room(world: World) {
    let mut hosts = Vec::new();
    for name in ["node-a", "node-b"] {
        let host = world.new_host(name, resources(4, 1024, 4096)).await;
        let shared = HostDatastoreRecord {
            host_id: host.id,
            name: DatastoreName::new("fast").unwrap(),
            id: DatastoreId::from_parts(1, [1; 10]),
            capacity: MiB(1000),
            used: MiB(0),
            used_by_all: MiB(0),
            present: true,
        };
        let put: vimana_model::Result<()> = write_tx!(world.store, |tx| Ok(host_datastore::put(
            tx, &shared
        )
        .await?));
        put.unwrap();
        hosts.push(host.id);
    }
    // Of twenty who want a tenth each, on either host, ten get it.
    let tries = (0..20).map(|n| {
        let (world, host) = (world.clone(), hosts[n % 2]);
        tokio::spawn(async move {
            let name = DatastoreName::new("fast").unwrap();
            let taken: vimana_model::Result<Taken> = write_tx!(world.store, |tx| {
                Ok(host_datastore::change(tx, host, &name, MiB(0), MiB(100)).await?)
            });
            taken.unwrap()
        })
    });
    let all = join_all(tries).await;
    let taken = all
        .iter()
        .filter(|taken| *taken.as_ref().unwrap() == Taken::Ok);
    assert_eq!(taken.count(), 10);
    let all = host_datastore::list(&world.store.read()).await.unwrap();
    let used: u64 = all.iter().map(|record| record.used.0).sum();
    assert_eq!(used, 1000);
    assert!(all.iter().all(|record| record.used_by_all == MiB(1000)));
}

pub async fn volume_names_are_taken_by_tenant_and_freed(world: World) {
    let first = volume_of(&world, "data");
    insert(&world, &first).await.unwrap();
    let refused = insert(&world, &volume_of(&world, "data")).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Conflict);
    let gone: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        let mut record = volume::lock(tx, first.id).await?.unwrap();
        record.state = VolumeState::Removed;
        Ok(volume::update(tx, &mut record).await?)
    });
    gone.unwrap();
    insert(&world, &volume_of(&world, "data")).await.unwrap();
}

pub async fn one_of_twenty_gets_a_volume(world: World) {
    let node = world
        .new_host("node-a", resources(64, 1 << 20, 1 << 20))
        .await;
    let record = volume_of(&world, "data");
    insert(&world, &record).await.unwrap();
    let mut vms = Vec::new();
    for number in 0..20 {
        vms.push(world.new_vm(&format!("vm-{number}")).await);
    }
    let tries = vms.into_iter().map(|vm| {
        let (world, node) = (world.clone(), node.clone());
        tokio::spawn(async move { give(&world, record.id, &vm, &node).await })
    });
    let given = join_all(tries).await;
    let given = given.iter().filter(|given| *given.as_ref().unwrap());
    assert_eq!(given.count(), 1);
}

pub async fn disk_of_a_host_is_claimed_to_its_last_mib(world: World) {
    let node = world.new_host("node-a", resources(1, 256, 100)).await;
    let change = async |from, to| {
        let changed: vimana_model::Result<Taken> = write_tx!(world.store, |tx| {
            Ok(claim::change_disk(tx, node.id, MiB(from), MiB(to)).await?)
        });
        changed.unwrap()
    };
    assert_eq!(change(0, 60).await, Taken::Ok);
    assert_eq!(change(0, 41).await, Taken::NoRoom);
    assert_eq!(change(0, 40).await, Taken::Ok);
    assert_eq!(change(60, 61).await, Taken::NoRoom);
    assert_eq!(change(60, 0).await, Taken::Ok);
    let found = host::find(&world.store.read(), node.id).await.unwrap();
    assert_eq!(found.unwrap().used, resources(0, 0, 40));
}

pub async fn an_image_is_waited_for_until_the_volume_is_made(world: World) {
    let mut image = new_image(&world, "debian");
    image.tenant_id = Some(world.tenant.id);
    let mut record = volume_of(&world, "data");
    record.image = Some(ImageOf {
        id: image.id,
        name: ImageName::new("debian").unwrap(),
    });
    let inserted: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        vimana_store::image::insert(tx, &image).await?;
        Ok(volume::insert(tx, &record).await?)
    });
    inserted.unwrap();
    let read = world.store.read();
    let waits = volume::that_waits_for(&read, image.id).await.unwrap();
    assert!(waits.is_some());
    let made: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        let mut record = volume::lock(tx, record.id).await?.unwrap();
        record.made = true;
        Ok(volume::update(tx, &mut record).await?)
    });
    made.unwrap();
    let read = world.store.read();
    let waits = volume::that_waits_for(&read, image.id).await.unwrap();
    assert_eq!(waits, None);
}

fn snapshot_of(vm: VmId, number: u64, parent: Option<SnapshotId>) -> SnapshotRecord {
    SnapshotRecord {
        id: SnapshotId::from_parts(number, [7; 10]),
        vm_id: vm,
        parent_id: parent,
        owner_name: "ann".to_owned().try_into().unwrap(),
        name: SnapshotName::new(format!("s{number}")).unwrap(),
        state: SnapshotState::Taking,
        memory: true,
        resources: resources(1, 256, 1024),
        root: number != 2,
        volumes: vec![Held {
            id: VolumeId::from_parts(1, [7; 10]),
            name: VolumeName::new("data").unwrap(),
            size: (number != 1).then_some(MiB(64)),
            elsewhere: (number == 3).then(|| Elsewhere {
                datastore: DatastoreName::new("fast").unwrap(),
                size: MiB(64),
            }),
        }],
        claimed: MiB(1280),
        scheduled: false,
        created_at: NOW.plus_ms(i64::try_from(number).unwrap()),
    }
}

pub async fn snapshots_survive_and_hand_on_their_parents(world: World) {
    let vm = world.new_vm("web").await;
    let first = snapshot_of(vm.id, 1, None);
    let second = snapshot_of(vm.id, 2, Some(first.id));
    let third = snapshot_of(vm.id, 3, Some(second.id));
    let taken: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        for one in [&third, &first, &second] {
            snapshot::insert(tx, one).await?;
        }
        snapshot::set_state(tx, first.id, SnapshotState::Ready).await?;
        Ok(())
    });
    taken.unwrap();
    let twice = SnapshotRecord {
        id: SnapshotId::from_parts(9, [7; 10]),
        ..first.clone()
    };
    let refused: vimana_model::Result<()> =
        write_tx!(world.store, |tx| Ok(snapshot::insert(tx, &twice).await?));
    assert!(refused.is_err(), "a name is taken once by each VM");
    let ready = SnapshotRecord {
        state: SnapshotState::Ready,
        ..first.clone()
    };
    let all = snapshot::for_vm(&world.store.read(), vm.id).await.unwrap();
    assert_eq!(all, [ready.clone(), second.clone(), third.clone()]);
    let sums = snapshot::claimed(&all);
    assert_eq!(sums.get(&vm.id), Some(&MiB(3 * 1280)));

    let gone: vimana_model::Result<()> =
        write_tx!(world.store, |tx| Ok(snapshot::delete(tx, &second).await?));
    gone.unwrap();
    let heir = SnapshotRecord {
        parent_id: Some(first.id),
        ..third
    };
    let all = snapshot::for_vm(&world.store.read(), vm.id).await.unwrap();
    assert_eq!(all, [ready, heir]);
    let gone: vimana_model::Result<()> =
        write_tx!(world.store, |tx| Ok(snapshot::delete_all(tx, vm.id).await?));
    gone.unwrap();
    assert_eq!(
        snapshot::for_vm(&world.store.read(), vm.id).await.unwrap(),
        []
    );
}
