//! Limits are kept as they are set, and usage is the sum over what there is.

use std::collections::BTreeSet;

use futures::future::join_all;
use vimana_model::name::{DatastoreName, TenantName, UserName};
use vimana_model::quota::{Counted, Limit, Measure, QuotaLimit, Scope};
use vimana_model::unit::MiB;
use vimana_model::volume::VolumeState;
use vimana_model::{Error, TenantId, VmState};
use vimana_store::quota::Usage;
use vimana_store::tenant::TenantRecord;
use vimana_store::vm::{Counts, VmRecord};
use vimana_store::{quota, tenant, vm, volume, write_tx};

use super::disks::volume_of;
use super::world::World;

fn limit(measure: Measure, soft: Limit, hard: Limit) -> QuotaLimit {
    QuotaLimit {
        measure,
        datastore: None,
        soft,
        hard,
    }
}

fn at_most(measure: Measure, most: u64) -> QuotaLimit {
    limit(measure, Limit::Unlimited, Limit::AtMost(most))
}

async fn set(world: &World, scope: &Scope, limits: &[QuotaLimit]) {
    write_tx!(world.store, |tx| {
        Ok(quota::replace(tx, scope, limits).await?)
    })
    .unwrap();
}

fn everything() -> BTreeSet<Measure> {
    Measure::ALL.into()
}

async fn usage(world: &World, user: Option<&UserName>) -> Usage {
    let read = world.store.read();
    quota::usage(&read, world.tenant.id, user, &everything())
        .await
        .unwrap()
}

/// A VM that counts itself as running.
fn counted(world: &World, name: &str) -> VmRecord {
    let vm = world.vm(name);
    let size = vm.resources;
    VmRecord {
        counts: Counts {
            running: true,
            operation: false,
            vcpus: size.vcpus,
            memory: size.memory_mib,
            disk: size.disk_mib,
        },
        ..vm
    }
}

pub async fn ones_own_limits_take_the_place_of_the_defaults(world: World) {
    let tenant = world.tenant.id;
    let (ada, other) = (&world.user.name, UserName::new("other").unwrap());
    let mut there = at_most(Measure::VolumeMib, 100);
    there.datastore = Some(DatastoreName::new("fast").unwrap());
    let (vms, vcpus) = (at_most(Measure::Vms, 5), at_most(Measure::Vcpus, 9));
    set(&world, &Scope::AllTenants, &[vms.clone(), vcpus.clone()]).await;
    let unlimited = limit(Measure::Vms, Limit::AtMost(3), Limit::Unlimited);
    let own = [unlimited.clone(), there.clone()];
    set(&world, &Scope::Tenant(tenant), &own).await;
    set(
        &world,
        &Scope::AllUsers(tenant),
        &[at_most(Measure::Vms, 2)],
    )
    .await;
    let user = Scope::User(tenant, ada.clone());
    set(&world, &user, &[at_most(Measure::Vms, 1)]).await;

    let read = world.store.read();
    let (of_tenant, of_ada) = quota::in_force(&read, tenant, ada).await.unwrap();
    let found: Vec<_> = of_tenant
        .iter()
        .map(|(counted, limit)| (counted.clone(), limit.soft, limit.hard, limit.inherited))
        .collect();
    let none = Limit::Unlimited;
    assert_eq!(
        found,
        [
            (unlimited.counted(), Limit::AtMost(3), none, false),
            (vcpus.counted(), none, Limit::AtMost(9), true),
            (there.counted(), none, Limit::AtMost(100), false),
        ]
    );
    assert_eq!(of_ada[&vms.counted()].hard, Limit::AtMost(1));
    let (_, of_other) = quota::in_force(&read, tenant, &other).await.unwrap();
    assert_eq!(of_other[&vms.counted()].hard, Limit::AtMost(2));
    let elsewhere = TenantId::from_parts(9, [9; 10]);
    let (of_elsewhere, nobody) = quota::in_force(&read, elsewhere, ada).await.unwrap();
    assert_eq!((of_elsewhere.len(), nobody.len()), (2, 0));

    assert_eq!(
        quota::own(&read, &Scope::Tenant(tenant)).await.unwrap(),
        own
    );
    set(&world, &Scope::Tenant(tenant), &[]).await;
    assert_eq!(quota::own(&read, &Scope::Tenant(tenant)).await.unwrap(), []);
    let (of_tenant, _) = quota::in_force(&read, tenant, ada).await.unwrap();
    assert!(of_tenant.values().all(|limit| limit.inherited));
}

pub async fn usage_is_the_sum_over_what_there_is(world: World) {
    assert_eq!(usage(&world, None).await, Usage::new());
    let mut running = counted(&world, "running");
    running.counts.operation = true;
    let off = VmRecord {
        state: VmState::PoweredOff,
        counts: Counts {
            running: false,
            ..running.counts
        },
        ..counted(&world, "off")
    };
    let theirs = VmRecord {
        owner_name: UserName::new("bob").unwrap(),
        ..counted(&world, "theirs")
    };
    let done = VmRecord {
        state: VmState::Done,
        ..counted(&world, "done")
    };
    let other = TenantRecord {
        id: TenantId::from_parts(9, [9; 10]),
        name: TenantName::new("other").unwrap(),
        ..world.tenant.clone()
    };
    write_tx!(world.store, |tx| Ok(tenant::insert(tx, &other).await?)).unwrap();
    let elsewhere = VmRecord {
        tenant_id: other.id,
        ..counted(&world, "elsewhere")
    };
    for vm in [&running, &off, &theirs, &done, &elsewhere] {
        world.insert_vm(vm).await;
    }
    let (local, fast) = (DatastoreName::local(), DatastoreName::new("fast").unwrap());
    let mut moves = volume_of(&world, "moves");
    moves.moving_to = Some(fast.clone());
    let mut gone = volume_of(&world, "gone");
    gone.state = VolumeState::Removing;
    for record in [&moves, &gone, &volume_of(&world, "stays")] {
        write_tx!(world.store, |tx| Ok(volume::insert(tx, record).await?)).unwrap();
    }
    let at = |datastore: &DatastoreName| Counted {
        measure: Measure::VolumeMib,
        datastore: Some(datastore.clone()),
    };
    let expected = [
        (Measure::Vms.into(), 3),
        (Measure::RunningVms.into(), 2),
        (Measure::Vcpus.into(), 3),
        (Measure::RunningVcpus.into(), 2),
        (Measure::MemoryMib.into(), 3 * 256),
        (Measure::RunningMemoryMib.into(), 2 * 256),
        (Measure::DiskMib.into(), 3 * 1024),
        (Measure::Operations.into(), 2),
        (Measure::Volumes.into(), 2),
        (Measure::VolumeMib.into(), 200),
        (at(&local), 200),
        (at(&fast), 100),
    ];
    assert_eq!(usage(&world, None).await, Usage::from(expected));
    let bob = UserName::new("bob").unwrap();
    let of_bob = usage(&world, Some(&bob)).await;
    assert_eq!(of_bob.get(&Measure::Vms.into()), Some(&1));
    assert_eq!(of_bob.get(&Measure::Volumes.into()), None);
    let read = world.store.read();
    let alone = BTreeSet::from([Measure::RunningVms]);
    let running = quota::usage(&read, world.tenant.id, None, &alone).await;
    let alone = Usage::from([(Measure::RunningVms.into(), 2)]);
    assert_eq!(running.unwrap(), alone);
}

pub async fn ten_of_fifty_at_once_get_one_each(world: World) {
    let takes = (0..50).map(|number| {
        let world = world.clone();
        tokio::spawn(async move {
            let record = counted(&world, &format!("vm-{number}"));
            let taken: vimana_model::Result<()> = write_tx!(world.store, |tx| {
                vm::insert(tx, &record).await?;
                tenant::lock(tx, record.tenant_id).await?;
                let vms = BTreeSet::from([Measure::Vms]);
                let usage = quota::usage(tx, record.tenant_id, None, &vms).await?;
                if usage[&Measure::Vms.into()] > 10 {
                    return Err(Error::over_quota("ten are enough").into());
                }
                Ok(())
            });
            taken.is_ok()
        })
    });
    let taken = join_all(takes).await;
    let taken = taken.into_iter().filter(|taken| *taken.as_ref().unwrap());
    assert_eq!(taken.count(), 10);
    assert_eq!(usage(&world, None).await[&Measure::Vms.into()], 10);
}

pub async fn what_a_vm_counts_survives(world: World) {
    let mut record = counted(&world, "counts");
    record.counts = Counts {
        running: false,
        operation: true,
        vcpus: 7,
        memory: MiB(11),
        disk: MiB(13),
    };
    world.insert_vm(&record).await;
    let found = vm::find(&world.store.read(), record.id).await.unwrap();
    assert_eq!(found.unwrap(), record);
}
