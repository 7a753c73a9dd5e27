//! Backups and schedules.

use futures::future::join_all;
use vimana_model::backup::{BackupState, DiskId};
use vimana_model::name::{BackupName, DatastoreName, FlavorName, ImageName, VolumeName};
use vimana_model::schedule::{Schedule, ScheduleKind};
use vimana_model::unit::MiB;
use vimana_model::{BackupId, Timestamp, VolumeId};
use vimana_store::backup::{BackupRecord, DiskRecord, StoredFile};
use vimana_store::schedule::ScheduleRecord;
use vimana_store::vm::VmRecord;
use vimana_store::{backup, schedule, write_tx};

use super::world::{NOW, World, resources};

fn backup_of(vm: &VmRecord, number: u64, since: Option<BackupId>) -> BackupRecord {
    BackupRecord {
        id: BackupId::from_parts(number, [7; 10]),
        tenant_id: vm.tenant_id,
        vm_id: vm.id,
        vm_name: vm.name.clone(),
        owner_name: "ann".to_owned().try_into().unwrap(),
        name: BackupName::new(format!("b{number}")).unwrap(),
        state: BackupState::Ready,
        datastore: DatastoreName::new("backups").unwrap(),
        since,
        scheduled: true,
        frozen: false,
        resources: resources(1, 256, 1024),
        flavor_name: FlavorName::new("tiny").unwrap(),
        image_name: ImageName::new("debian").unwrap(),
        disks: vec![
            DiskRecord {
                disk: DiskId::Root,
                volume: None,
                size_mib: MiB(1024),
                stored: Some(StoredFile {
                    size_bytes: 10,
                    sha256: "00".to_owned(),
                }),
            },
            DiskRecord {
                disk: DiskId::Volume(VolumeId::from_parts(1, [7; 10])),
                volume: Some(VolumeName::new("data").unwrap()),
                size_mib: MiB(10),
                stored: None,
            },
        ],
        claimed: MiB(1034),
        failure: None,
        generation: 0,
        created_at: NOW.plus_ms(i64::try_from(number).unwrap()),
    }
}

pub async fn backups_survive_and_know_who_needs_them(world: World) {
    let vm = world.new_vm("web").await;
    let first = backup_of(&vm, 1, None);
    let second = backup_of(&vm, 2, Some(first.id));
    let making = BackupRecord {
        state: BackupState::Making,
        ..backup_of(&vm, 3, Some(second.id))
    };
    let inserted: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        for one in [&second, &making, &first] {
            backup::insert(tx, one).await?;
        }
        Ok(())
    });
    inserted.unwrap();
    let twice = BackupRecord {
        id: BackupId::from_parts(9, [7; 10]),
        ..first.clone()
    };
    let refused: vimana_model::Result<()> =
        write_tx!(world.store, |tx| Ok(backup::insert(tx, &twice).await?));
    assert!(refused.is_err(), "a name is taken once by each VM");
    let read = world.store.read();
    let all = backup::for_vm(&read, vm.id).await.unwrap();
    assert_eq!(all, [making.clone(), second.clone(), first.clone()]);
    assert_eq!(backup::list(&read, vm.tenant_id).await.unwrap(), all);
    assert_eq!(backup::with_content(&read).await.unwrap(), all);
    let needs = backup::since(&read, first.id).await.unwrap();
    assert_eq!(needs, std::slice::from_ref(&second));
    assert_eq!(first.stored_bytes(), 10);
    let sums = backup::claimed(&all);
    assert_eq!(sums.get(&vm.id), Some(&MiB(1034)), "one is being made");

    let removed: vimana_model::Result<BackupRecord> = write_tx!(world.store, |tx| {
        let mut record = backup::lock(tx, second.id).await?.unwrap();
        record.state = BackupState::Removing;
        backup::update(tx, &mut record).await?;
        Ok(record)
    });
    let removed = removed.unwrap();
    let read = world.store.read();
    assert_eq!(
        backup::for_vm(&read, vm.id).await.unwrap(),
        [making, first.clone()]
    );
    assert_eq!(backup::since(&read, first.id).await.unwrap(), []);
    assert_eq!(backup::removing(&read).await.unwrap(), [removed]);
    // Its name is free.
    let named = BackupRecord {
        name: second.name.clone(),
        ..backup_of(&vm, 4, None)
    };
    let inserted: vimana_model::Result<()> =
        write_tx!(world.store, |tx| Ok(backup::insert(tx, &named).await?));
    inserted.unwrap();
}

fn schedule_of(vm: &VmRecord, kind: ScheduleKind, next_at: Timestamp) -> ScheduleRecord {
    ScheduleRecord {
        vm_id: vm.id,
        kind,
        owner_name: "ann".to_owned().try_into().unwrap(),
        schedule: Schedule {
            every_s: 3600,
            keep: 7,
            full_every: 7,
            datastore: None,
        },
        next_at,
        last_at: None,
        trouble: None,
    }
}

pub async fn one_alone_takes_on_what_is_due(world: World) {
    let vm = world.new_vm("web").await;
    let later = NOW.plus_ms(1);
    // Farther away than it can have been meant.
    let beyond = NOW.plus_ms(3_600_001);
    let due = schedule_of(&vm, ScheduleKind::Backup, NOW);
    let other = world.new_vm("db").await;
    let all = [
        due.clone(),
        schedule_of(&vm, ScheduleKind::Snapshot, later),
        schedule_of(&other, ScheduleKind::Backup, beyond),
    ];
    let put: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        for one in &all {
            schedule::put(tx, one).await?;
            schedule::put(tx, one).await?;
        }
        Ok(())
    });
    put.unwrap();
    let read = world.store.read();
    let found = schedule::due(&read, NOW, 10).await.unwrap();
    assert_eq!(found, [due.clone(), all[2].clone()]);
    let next = NOW.plus_ms(3_600_000);
    let takes = (0..8).map(|_| async {
        let taken: vimana_model::Result<bool> =
            write_tx!(world.store, |tx| Ok(schedule::take(tx, &due, next).await?));
        taken.unwrap()
    });
    let taken = join_all(takes).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);

    let told: vimana_model::Result<()> = write_tx!(world.store, |tx| {
        schedule::tell(tx, (vm.id, due.kind), NOW, Some("it was busy")).await?;
        assert!(schedule::delete(tx, vm.id, ScheduleKind::Snapshot).await?);
        assert!(!schedule::delete(tx, vm.id, ScheduleKind::Snapshot).await?);
        Ok(())
    });
    told.unwrap();
    let now = ScheduleRecord {
        next_at: next,
        last_at: Some(NOW),
        trouble: Some("it was busy".to_owned()),
        ..due
    };
    let read = world.store.read();
    assert_eq!(schedule::for_vm(&read, vm.id).await.unwrap(), [now]);
    let gone: vimana_model::Result<()> =
        write_tx!(world.store, |tx| Ok(schedule::delete_all(tx, vm.id).await?));
    gone.unwrap();
    assert_eq!(
        schedule::for_vm(&world.store.read(), vm.id).await.unwrap(),
        []
    );
}
