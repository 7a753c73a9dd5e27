//! Records of VMs: whole, never lost to a race, found as asked.

use futures::future::join_all;
use vimana_model::name::{TenantName, VmName};
use vimana_model::pending::{Explanation, Filter, Rejection, Score};
use vimana_model::ssh_key::SshKeys;
use vimana_model::tenant::TenantKind;
use vimana_model::user_data::UserData;
use vimana_model::vm::{Failure, HostRef};
use vimana_model::{VmId, VmState};
use vimana_store::tenant::TenantRecord;
use vimana_store::vm::{VmFilter, VmRecord};
use vimana_store::{StoreError, tenant, vm, write_tx};

use super::world::{NOW, World, resources};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ2rGOwkGpQ8bDJcCk3vYrdcDnVK6tA0gGwXz1iHx9r me@laptop";

/// A VM with something in every column.
async fn full(world: &World) -> VmRecord {
    let host = world.new_host("node-a", resources(4, 1024, 4096)).await;
    VmRecord {
        state: VmState::Failed,
        state_since: NOW.plus_ms(3),
        failure: Some(Failure {
            during: VmState::Boot,
            reason: "the \"kernel\" wasn't found; ∅".to_owned(),
        }),
        ssh_key: Some(SshKeys::new(&format!("{KEY}\n{KEY} two")).unwrap()),
        user_data: Some(UserData::new("#cloud-config\nhostname: 'ü'\n").unwrap()),
        host: Some(HostRef {
            id: host.id,
            name: "node-a".to_owned(),
            zone: "zone-a".to_owned(),
        }),
        run_epoch: 7,
        generation: 41,
        operation_id: Some(world.operation_id()),
        explanation: Some(Explanation {
            considered: 2,
            rejections: vec![Rejection {
                filter: Filter::Memory,
                reason: "needs 2 GiB; the roomiest host has 1 GiB free".to_owned(),
                hosts: vec!["node-b".to_owned()],
                count: 1,
            }],
            scores: vec![Score {
                host_id: host.id,
                host: "node-a".to_owned(),
                score: 0.1,
            }],
        }),
        explained_at: Some(NOW.plus_ms(2)),
        ..world.vm("web")
    }
}

pub async fn vm_survives_with_all_columns(world: World) {
    let (mut full, bare) = (full(&world).await, world.vm("bare"));
    world.insert_vm(&full).await;
    world.insert_vm(&bare).await;
    let reader = world.store.read();
    for record in [&full, &bare] {
        let found = vm::find(&reader, record.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(record));
    }
    // Every column can be written again, and emptied.
    full = VmRecord {
        id: full.id,
        generation: full.generation,
        ..bare
    };
    full.name = VmName::new("web").unwrap();
    let tx = world.store.begin().await.unwrap();
    vm::update(&tx, &mut full).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(full.generation, 42);
    assert_eq!(vm::find(&reader, full.id).await.unwrap(), Some(full));
}

pub async fn stale_generation_conflicts(world: World) {
    let mut mine = world.new_vm("web").await;
    let mut theirs = mine.clone();
    theirs.run_epoch = 5;
    let tx = world.store.begin().await.unwrap();
    vm::update(&tx, &mut theirs).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(theirs.generation, 1);

    mine.run_epoch = 9;
    let tx = world.store.begin().await.unwrap();
    let error = vm::update(&tx, &mut mine).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error:?}");
    assert!(error.is_retryable());
    tx.rollback().await.unwrap();
    assert_eq!(mine.generation, 0);
    let found = vm::find(&world.store.read(), mine.id).await.unwrap();
    assert_eq!(found, Some(theirs));

    let mut nobody = world.vm("nobody");
    let tx = world.store.begin().await.unwrap();
    let error = vm::update(&tx, &mut nobody).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error:?}");
}

async fn insert(world: &World, record: &VmRecord) -> Result<(), StoreError> {
    let tx = world.store.begin().await?;
    vm::insert(&tx, record).await?;
    tx.commit().await
}

pub async fn live_name_is_unique_in_its_tenant_and_free_when_done(world: World) {
    let mut first = world.new_vm("web").await;
    let second = world.vm("web");
    let error = insert(&world, &second).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Duplicate { what: "vm name" }),
        "{error:?}"
    );

    let neighbour = TenantRecord {
        id: world.tenant_id(),
        name: TenantName::new("neighbour").unwrap(),
        kind: TenantKind::default(),
        created_at: NOW,
    };
    let theirs = VmRecord {
        tenant_id: neighbour.id,
        ..world.vm("web")
    };
    write_tx!(world.store, |tx| {
        tenant::insert(tx, &neighbour).await?;
        vm::insert(tx, &theirs).await?;
        Ok(())
    })
    .unwrap();

    // Failed and powered off are not the end.
    for (state, free) in [
        (VmState::Failed, false),
        (VmState::PoweredOff, false),
        (VmState::Done, true),
    ] {
        first.state = state;
        let tx = world.store.begin().await.unwrap();
        vm::update(&tx, &mut first).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(insert(&world, &second).await.is_ok(), free, "{state}");
    }
    let found = vm::find(&world.store.read(), first.id).await.unwrap();
    assert_eq!(found.unwrap().name.as_str(), "web", "the record keeps it");
}

pub async fn list_filters_and_begins_with_the_newest(world: World) {
    let neighbour = TenantRecord {
        id: world.tenant_id(),
        name: TenantName::new("neighbour").unwrap(),
        kind: TenantKind::default(),
        created_at: NOW,
    };
    let (a, mut b, c) = (world.vm("a"), world.vm("b"), world.vm("c"));
    b.state = VmState::Running;
    b.created_at = c.created_at;
    let theirs = VmRecord {
        tenant_id: neighbour.id,
        ..world.vm("a")
    };
    write_tx!(world.store, |tx| {
        tenant::insert(tx, &neighbour).await?;
        for record in [&c, &a, &theirs, &b] {
            vm::insert(tx, record).await?;
        }
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    let all = VmFilter {
        limit: 100,
        ..VmFilter::default()
    };
    let mine = VmFilter {
        tenant: Some(world.tenant.id),
        ..all.clone()
    };
    let named = VmFilter {
        name: Some("a".to_owned()),
        ..all.clone()
    };
    let pending = VmFilter {
        states: vec![VmState::Pending, VmState::Hold],
        ..mine.clone()
    };
    let first_two = VmFilter {
        limit: 2,
        ..all.clone()
    };
    let none = VmFilter {
        limit: 0,
        ..all.clone()
    };
    for (filter, wanted) in [
        (all, vec![&theirs, &c, &b, &a]),
        (mine, vec![&c, &b, &a]),
        (named, vec![&theirs, &a]),
        (pending, vec![&c, &a]),
        (first_two, vec![&theirs, &c]),
        (none, vec![]),
    ] {
        let listed = vm::list(&reader, &filter).await.unwrap();
        let listed: Vec<VmId> = listed.iter().map(|vm| vm.id).collect();
        let wanted: Vec<VmId> = wanted.iter().map(|vm| vm.id).collect();
        assert_eq!(listed, wanted, "{filter:?}");
    }
}

pub async fn many_ids_are_found_at_once(world: World) {
    let records: Vec<VmRecord> = (0..1200).map(|n| world.vm(&format!("vm-{n}"))).collect();
    write_tx!(world.store, |tx| {
        for record in &records {
            vm::insert(tx, record).await?;
        }
        Ok(())
    })
    .unwrap();
    let mut ids: Vec<VmId> = records.iter().map(|vm| vm.id).collect();
    ids.push(world.vm("nobody").id);
    let reader = world.store.read();
    let mut found = vm::find_many(&reader, &ids).await.unwrap();
    found.sort_by_key(|vm| vm.id);
    assert_eq!(found, records);
    assert_eq!(vm::find_many(&reader, &[]).await.unwrap(), []);
}

pub async fn pending_and_on_host_begin_with_the_oldest(world: World) {
    let host = world.new_host("node-a", resources(4, 1024, 4096)).await;
    let placed = |name: &str, state: VmState| VmRecord {
        state,
        host: Some(HostRef {
            id: host.id,
            name: host.name.to_string(),
            zone: host.zone.to_string(),
        }),
        ..world.vm(name)
    };
    let (old, new) = (world.vm("old"), world.vm("new"));
    let running = placed("running", VmState::Running);
    let done = placed("done", VmState::Done);
    let boot = placed("boot", VmState::Boot);
    for record in [&new, &boot, &done, &running, &old] {
        world.insert_vm(record).await;
    }
    let reader = world.store.read();
    assert_eq!(vm::pending(&reader).await.unwrap(), [old, new]);
    let on_host = vm::on_host(&reader, host.id).await.unwrap();
    assert_eq!(on_host, [running, boot]);
}

pub async fn locked_changes_are_all_kept(world: World) {
    let vm_id = world.new_vm("web").await.id;
    let writers = (0..20).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            write_tx!(world.store, |tx| {
                let mut record = vm::lock(tx, vm_id).await?.unwrap();
                record.run_epoch += 1;
                vm::update(tx, &mut record).await?;
                Ok(())
            })
            .unwrap();
        })
    });
    for written in join_all(writers).await {
        written.unwrap();
    }
    let found = vm::find(&world.store.read(), vm_id).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.run_epoch, found.generation), (20, 20));
}

pub async fn unlocked_changes_are_all_kept_by_retrying(world: World) {
    let vm_id = world.new_vm("web").await.id;
    let writers = (0..6).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            write_tx!(world.store, |tx| {
                let mut record = vm::find(tx, vm_id).await?.unwrap();
                record.run_epoch += 1;
                vm::update(tx, &mut record).await?;
                Ok(())
            })
            .unwrap();
        })
    });
    for written in join_all(writers).await {
        written.unwrap();
    }
    let found = vm::find(&world.store.read(), vm_id).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.run_epoch, found.generation), (6, 6));
}
