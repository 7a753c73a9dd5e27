//! Nobody takes more of a host than it has.

use futures::future::join_all;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::HostRef;
use vimana_model::{DatastoreId, HostId, OperationId, VmId, VolumeId};
use vimana_store::claim::{ClaimRecord, Taken};
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::migration::{Carried, MigrationRecord};
use vimana_store::{StoreError, TxError, claim, host, host_datastore, migration, write_tx};

use super::world::{World, resources};

const ONE: Resources = resources(1, 256, 1024);

fn claim_of(vm_id: VmId, host_id: HostId, resources: Resources) -> ClaimRecord {
    ClaimRecord {
        vm_id,
        host_id,
        resources,
        datastore: DatastoreName::local(),
    }
}

async fn take(world: &World, claim: &ClaimRecord) -> Result<Taken, vimana_model::Error> {
    write_tx!(world.store, |tx| Ok(claim::take(tx, claim).await?))
}

async fn used(world: &World, host_id: HostId) -> (Resources, u32) {
    let found = host::find(&world.store.read(), host_id).await.unwrap();
    let found = found.unwrap();
    (found.used, found.vms)
}

/// Checks every host's sums against the claims themselves.
async fn assert_sums(world: &World) {
    let tx = world.store.begin().await.unwrap();
    let claims = claim::list(&tx).await.unwrap();
    for host in host::list(&tx).await.unwrap() {
        let mut sum = Resources::default();
        let mut vms = 0;
        for claim in claims.iter().filter(|claim| claim.host_id == host.id) {
            sum.vcpus += claim.resources.vcpus;
            sum.memory_mib.0 += claim.resources.memory_mib.0;
            sum.disk_mib.0 += claim.resources.disk_mib.0;
            vms += 1;
        }
        assert_eq!((sum, vms), (host.used, host.vms), "{}", host.name);
        let (used, capacity) = (host.used, host.capacity);
        assert!(used.vcpus <= capacity.vcpus, "{}", host.name);
        assert!(used.memory_mib <= capacity.memory_mib, "{}", host.name);
        assert!(used.disk_mib <= capacity.disk_mib, "{}", host.name);
    }
}

pub async fn last_slot_goes_to_one_of_twenty(world: World) {
    let host = world.new_host("node-a", resources(3, 768, 3072)).await;
    for number in 0..2 {
        let vm = world.new_vm(&format!("early-{number}")).await;
        let taken = take(&world, &claim_of(vm.id, host.id, ONE)).await;
        assert_eq!(taken.unwrap(), Taken::Ok);
    }
    let mut claims = Vec::new();
    for number in 0..20 {
        let vm = world.new_vm(&format!("vm-{number}")).await;
        claims.push(claim_of(vm.id, host.id, ONE));
    }
    let tries = claims.into_iter().map(|claim| {
        let world = world.clone();
        tokio::spawn(async move { take(&world, &claim).await.unwrap() })
    });
    let outcomes = join_all(tries).await;
    let taken = outcomes
        .iter()
        .filter(|outcome| *outcome.as_ref().unwrap() == Taken::Ok);
    assert_eq!(taken.count(), 1);
    assert_eq!(used(&world, host.id).await, (host.capacity, 3));
    assert_sums(&world).await;
}

pub async fn claim_that_does_not_fit_changes_nothing(world: World) {
    let host = world.new_host("node-a", ONE).await;
    let vm = world.new_vm("web").await;
    for too_much in [
        resources(2, 256, 1024),
        resources(1, 257, 1024),
        resources(1, 256, 1025),
    ] {
        let taken = take(&world, &claim_of(vm.id, host.id, too_much)).await;
        assert_eq!(taken.unwrap(), Taken::NoRoom);
    }
    let nowhere = world.host("nowhere", ONE);
    let taken = take(&world, &claim_of(vm.id, nowhere.id, ONE)).await;
    assert_eq!(taken.unwrap(), Taken::NoRoom);
    assert_eq!(used(&world, host.id).await, (Resources::default(), 0));
    let reader = world.store.read();
    assert_eq!(claim::find(&reader, vm.id).await.unwrap(), None);
}

pub async fn claim_as_large_as_numbers_go_finds_no_room(world: World) {
    let host = world.new_host("node-a", resources(4, 1024, 4096)).await;
    let (first, vm) = (world.new_vm("first").await, world.new_vm("web").await);
    let taken = take(&world, &claim_of(first.id, host.id, ONE)).await;
    assert_eq!(taken.unwrap(), Taken::Ok);
    let mut huge = claim_of(vm.id, host.id, ONE);
    huge.resources.memory_mib = MiB(u64::MAX >> 1);
    assert_eq!(take(&world, &huge).await.unwrap(), Taken::NoRoom);

    huge.resources.memory_mib = MiB(u64::MAX);
    let tx = world.store.begin().await.unwrap();
    let error = claim::take(&tx, &huge).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    drop(tx);
    assert_sums(&world).await;
}

pub async fn second_claim_of_a_vm_is_refused_and_rolls_back(world: World) {
    let first = world.new_host("node-a", resources(4, 1024, 4096)).await;
    let second = world.new_host("node-b", resources(4, 1024, 4096)).await;
    let vm = world.new_vm("web").await;
    let taken = take(&world, &claim_of(vm.id, first.id, ONE)).await;
    assert_eq!(taken.unwrap(), Taken::Ok);
    let error = take(&world, &claim_of(vm.id, second.id, ONE)).await;
    assert_eq!(error.unwrap_err().public, "claim is already taken");
    assert_eq!(used(&world, second.id).await, (Resources::default(), 0));
    assert_sums(&world).await;
}

pub async fn giving_back_twice_gives_back_once(world: World) {
    let host = world.new_host("node-a", resources(4, 1024, 4096)).await;
    let (kept, vm) = (world.new_vm("kept").await, world.new_vm("web").await);
    let mine = claim_of(vm.id, host.id, ONE);
    for claim in [&claim_of(kept.id, host.id, ONE), &mine] {
        assert_eq!(take(&world, claim).await.unwrap(), Taken::Ok);
    }
    let given = write_tx!(world.store, |tx| {
        let first = claim::give_back(tx, vm.id).await?;
        Ok((first, claim::give_back(tx, vm.id).await?))
    });
    assert_eq!(given.unwrap(), (Some(mine), None));
    assert_eq!(used(&world, host.id).await, (ONE, 1));
    assert_sums(&world).await;
}

pub async fn a_claim_that_changes_twice_changes_once(world: World) {
    let host = world.new_host("node-a", resources(2, 1024, 4096)).await;
    let vm = world.new_vm("web").await;
    let taken = take(&world, &claim_of(vm.id, host.id, ONE)).await;
    assert_eq!(taken.unwrap(), Taken::Ok);
    let disk = resources(0, 0, 1024);
    let kept = Some(claim_of(vm.id, host.id, disk));
    let answers = write_tx!(world.store, |tx| {
        let first = claim::change(tx, vm.id, disk).await?;
        Ok((first, claim::change(tx, vm.id, disk).await?))
    });
    assert_eq!(answers.unwrap(), (Taken::Ok, Taken::Ok));
    assert_eq!(used(&world, host.id).await, (disk, 1));
    let found = claim::find(&world.store.read(), vm.id).await.unwrap();
    assert_eq!(found, kept);

    // It grows as far as there is room, and not at all beyond.
    let all = resources(2, 1024, 4096);
    let answers = write_tx!(world.store, |tx| {
        let beyond = claim::change(tx, vm.id, resources(1, 1025, 1024)).await?;
        Ok((beyond, claim::change(tx, vm.id, all).await?))
    });
    assert_eq!(answers.unwrap(), (Taken::NoRoom, Taken::Ok));
    assert_eq!(used(&world, host.id).await, (all, 1));
    assert_sums(&world).await;

    let answers = write_tx!(world.store, |tx| {
        let given = claim::give_back(tx, vm.id).await?;
        Ok((given.is_some(), claim::change(tx, vm.id, disk).await?))
    });
    assert_eq!(answers.unwrap(), (true, Taken::NoRoom));
    assert_eq!(used(&world, host.id).await, (Resources::default(), 0));
}

pub async fn twenty_givers_of_one_claim_give_back_once(world: World) {
    let host = world.new_host("node-a", resources(4, 1024, 4096)).await;
    let vm = world.new_vm("web").await;
    let taken = take(&world, &claim_of(vm.id, host.id, ONE)).await;
    assert_eq!(taken.unwrap(), Taken::Ok);
    let givers = (0..20).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            write_tx!(world.store, |tx| Ok(claim::give_back(tx, vm.id).await?)).unwrap()
        })
    });
    let answers = join_all(givers).await;
    let given = answers
        .iter()
        .filter(|answer| answer.as_ref().unwrap().is_some());
    assert_eq!(given.count(), 1);
    assert_eq!(used(&world, host.id).await, (Resources::default(), 0));
}

pub async fn sums_are_right_after_a_storm(world: World) {
    let mut hosts = Vec::new();
    for name in ["node-a", "node-b", "node-c"] {
        hosts.push(world.new_host(name, resources(4, 900, 5000)).await.id);
    }
    let mut vms = Vec::new();
    for number in 0..16 {
        vms.push(world.new_vm(&format!("vm-{number}")).await.id);
    }
    let storm = vms.into_iter().enumerate().map(|(number, vm_id)| {
        let (world, hosts) = (world.clone(), hosts.clone());
        tokio::spawn(async move {
            for round in 0..12 {
                let host_id = hosts[(number + round) % hosts.len()];
                blow(&world, number * 31 + round * 7, vm_id, host_id).await;
            }
        })
    });
    for blown in join_all(storm).await {
        blown.unwrap();
    }
    assert_sums(&world).await;
}

/// One of the things that happen to a claim, sometimes rolled back.
async fn blow(world: &World, dice: usize, vm_id: VmId, host_id: HostId) {
    let outcome: Result<(), _> = write_tx!(world.store, |tx| {
        if claim::find(tx, vm_id).await?.is_none() {
            let claim = claim_of(vm_id, host_id, ONE);
            let _taken = claim::take(tx, &claim).await?;
        } else if dice.is_multiple_of(3) {
            let disk = resources(0, 0, 1024);
            let _changed = claim::change(tx, vm_id, disk).await?;
        } else {
            claim::give_back(tx, vm_id).await?;
        }
        if dice.is_multiple_of(5) {
            return Err(TxError::Engine(vimana_model::Error::conflict(
                "changed my mind",
            )));
        }
        Ok(())
    });
    if let Err(error) = outcome {
        assert_eq!(error.public, "changed my mind");
    }
}

/// Two hosts that reach a datastore of 4000 MiB.
async fn sharing(world: &World) -> [HostId; 2] {
    let mut hosts = Vec::new();
    for name in ["node-a", "node-b"] {
        let host = world.new_host(name, resources(8, 2048, 500)).await;
        let shared = HostDatastoreRecord {
            host_id: host.id,
            name: shared(),
            id: DatastoreId::from_parts(1, [1; 10]),
            capacity: MiB(4000),
            used: MiB(0),
            used_by_all: MiB(0),
            present: true,
        };
        let put: vimana_model::Result<()> = write_tx!(world.store, |tx| {
            Ok(host_datastore::put(tx, &shared).await?)
        });
        put.unwrap();
        hosts.push(host.id);
    }
    [hosts[0], hosts[1]]
}

fn shared() -> DatastoreName {
    DatastoreName::new("shared").unwrap()
}

/// What each host has of the datastore.
async fn of_shared(world: &World) -> Vec<u64> {
    let all = host_datastore::list(&world.store.read()).await.unwrap();
    all.iter().map(|record| record.used.0).collect()
}

pub async fn a_disk_in_a_datastore_is_claimed_there_and_the_rest_of_the_host(world: World) {
    let [host, other] = sharing(&world).await;
    let vm = world.new_vm("one").await;
    let claim = ClaimRecord {
        datastore: shared(),
        ..claim_of(vm.id, host, ONE)
    };
    assert_eq!(take(&world, &claim).await.unwrap(), Taken::Ok);
    assert_eq!(used(&world, host).await, (resources(1, 256, 0), 1));
    assert_eq!(of_shared(&world).await, [1024, 0]);
    let change = async |to: Resources| {
        let changed: vimana_model::Result<Taken> =
            write_tx!(world.store, |tx| Ok(claim::change(tx, vm.id, to).await?));
        changed.unwrap()
    };
    assert_eq!(change(resources(0, 0, 3000)).await, Taken::Ok);
    assert_eq!(used(&world, host).await, (resources(0, 0, 0), 1));
    assert_eq!(of_shared(&world).await, [3000, 0]);
    // What either has no room for changes nothing.
    assert_eq!(change(resources(1, 1, 4001)).await, Taken::NoRoom);
    assert_eq!(change(resources(9, 1, 3500)).await, Taken::NoRoom);
    assert_eq!(of_shared(&world).await, [3000, 0]);
    let second = world.new_vm("two").await;
    let more = ClaimRecord {
        datastore: shared(),
        ..claim_of(second.id, other, ONE)
    };
    assert_eq!(take(&world, &more).await.unwrap(), Taken::NoRoom);
    let too_large = ClaimRecord {
        resources: resources(9, 256, 100),
        ..more
    };
    assert_eq!(take(&world, &too_large).await.unwrap(), Taken::NoRoom);
    assert_eq!(of_shared(&world).await, [3000, 0]);
    let back: vimana_model::Result<_> =
        write_tx!(world.store, |tx| Ok(claim::give_back(tx, vm.id).await?));
    assert_eq!(back.unwrap().unwrap().datastore, shared());
    assert_eq!(of_shared(&world).await, [0, 0]);
    assert_eq!(used(&world, host).await, (Resources::default(), 0));
}

pub async fn a_disk_that_both_hosts_reach_goes_over_with_the_commit(world: World) {
    let [from, to] = sharing(&world).await;
    let vm = world.new_vm("one").await;
    let claim = ClaimRecord {
        datastore: shared(),
        ..claim_of(vm.id, from, ONE)
    };
    assert_eq!(take(&world, &claim).await.unwrap(), Taken::Ok);
    let host_ref = |id: HostId, name: &str| HostRef {
        id,
        name: name.to_owned(),
        zone: "zone-a".to_owned(),
    };
    let migration = MigrationRecord {
        vm_id: vm.id,
        operation_id: OperationId::from_parts(1, [1; 10]),
        peer: host_ref(to, "node-b"),
        resources: resources(1, 256, 0),
        datastore: shared(),
        disks: vec![
            Carried {
                volume: None,
                datastore: shared(),
                own: None,
                size: MiB(1024),
                place: 0,
                shared: true,
                kept: MiB(0),
            },
            Carried {
                volume: Some(VolumeId::from_parts(1, [1; 10])),
                datastore: shared(),
                own: Some(DatastoreName::local()),
                size: MiB(10),
                place: 1,
                shared: false,
                kept: MiB(4),
            },
        ],
        committed: false,
    };
    let begun: vimana_model::Result<Taken> = write_tx!(world.store, |tx| {
        Ok(migration::begin(tx, &migration).await?)
    });
    assert_eq!(begun.unwrap(), Taken::Ok);
    let found = migration::find(&world.store.read(), vm.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&migration));
    assert_eq!(of_shared(&world).await, [1024, 0]);
    assert_eq!(used(&world, to).await, (resources(1, 256, 0), 1));
    let here = host_ref(from, "node-a");
    let done: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        migration::commit(tx, &migration, &here).await?;
        Ok(())
    });
    done.unwrap();
    assert_eq!(of_shared(&world).await, [0, 1024]);
    let now = claim::find(&world.store.read(), vm.id).await.unwrap();
    let wanted = ClaimRecord {
        host_id: to,
        ..claim
    };
    assert_eq!(now, Some(wanted));
    let left = migration::find(&world.store.read(), vm.id).await.unwrap();
    let left = left.unwrap();
    assert_eq!((left.peer.id, left.resources), (from, resources(1, 256, 0)));
    let places = left.disks.iter().map(|disk| (&disk.datastore, &disk.own));
    let (shared, local) = (shared(), DatastoreName::local());
    let wanted = [(&shared, &None), (&local, &Some(shared.clone()))];
    assert_eq!(
        places.collect::<Vec<_>>(),
        wanted,
        "those of the host it left"
    );
    let ended: vimana_model::Result<()> =
        write_tx!(world.store, |tx| Ok(migration::end(tx, vm.id).await?));
    ended.unwrap();
    assert_eq!(used(&world, from).await, (Resources::default(), 0));
    assert_eq!(of_shared(&world).await, [0, 1024]);
    let moved: vimana_model::Result<_> = write_tx!(world.store, |tx| Ok(claim::relocate(
        tx, vm.id, &local
    )
    .await?));
    assert_eq!(moved.unwrap(), MiB(1024));
    let now = claim::find(&world.store.read(), vm.id).await.unwrap();
    assert_eq!(now.unwrap().datastore, local);
    assert_eq!(
        of_shared(&world).await,
        [0, 1024],
        "the sums are the caller's"
    );
}
