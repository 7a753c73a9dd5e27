//! Breaches between the database and what hosts and the datastore hold: a line
//! for each.

use std::collections::BTreeMap;
use vimana_driver::{Observed, ObservedSnapshot, ObservedVolume, Power};

use vimana_datastore::{Copies, Disks as Backed};
use vimana_engine::check::{Check, Outside, Source};
use vimana_model::backup::DiskId;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::saved::Part;
use vimana_model::unit::MiB;
use vimana_model::{BackupId, HostId, SnapshotId};
use vimana_protocol::agent::Disks;
use vimana_repository::Kept;

use crate::installation::{Installation, observed};
use crate::plant::{Plant, assert_complete, prove};

type P = Plant;

#[tokio::test]
async fn every_breach_in_what_hosts_and_datastore_hold_is_found() {
    let installation = Installation::new().await;
    let all = [
        HELD, LOST, POWER, QUARANTINE, DATASTORE, REPOSITORY, DISKS, BACKUPS,
    ];
    prove(&installation, &all).await;
    assert_complete(Source::Reports, &all);
}

/// As the host holds it.
fn alter(outside: &mut Outside, of: &Installation, vm: &str, how: impl FnOnce(&mut Observed)) {
    let id = of.vm(vm);
    let mut all = outside.inventories.values_mut().flatten();
    how(all.find(|observed| observed.vm_id == id).unwrap());
}

fn powers(outside: &mut Outside, of: &Installation, vm: &str, power: Power) {
    alter(outside, of, vm, |observed| observed.power = power);
}

fn holds(outside: &mut Outside, host: HostId, what: Observed) {
    outside.inventories.get_mut(&host).unwrap().push(what);
}

fn forgets(outside: &mut Outside, of: &Installation, vm: &str) {
    let id = of.vm(vm);
    for inventory in outside.inventories.values_mut() {
        inventory.retain(|observed| observed.vm_id != id);
    }
}

fn copies<'a>(outside: &'a mut Outside, of: &Installation, vm: &str) -> &'a mut Copies {
    let held = outside.in_datastore.as_mut().unwrap();
    held.entry(of.vm(vm)).or_default()
}

const HELD: &[P] = &[
    P::reports(Check::RunsTwice, "VM runs", |outside, of| {
        holds(
            outside,
            of.other_host("runs"),
            observed(of.vm("runs"), Power::Running),
        );
    }),
    // Whatever the run: two write to what was one disk.
    P::reports(Check::RunsTwice, "VM runs", |outside, of| {
        let later = Observed {
            run_epoch: 9,
            ..observed(of.vm("runs"), Power::Running)
        };
        holds(outside, of.other_host("runs"), later);
    }),
    P::reports(Check::HeldElsewhere, "VM runs", |outside, of| {
        holds(
            outside,
            of.other_host("runs"),
            observed(of.vm("runs"), Power::Off),
        );
    }),
    P::reports(Check::HeldElsewhere, "VM stopped", |outside, of| {
        holds(
            outside,
            of.hosts()[0],
            observed(of.vm("stopped"), Power::Saved),
        );
    }),
    P::reports(Check::HeldElsewhere, "VM waits", |outside, of| {
        holds(
            outside,
            of.hosts()[1],
            observed(of.vm("waits"), Power::Running),
        );
    }),
    P::reports(Check::HeldElsewhere, "VM held", |outside, of| {
        holds(
            outside,
            of.hosts()[1],
            observed(of.vm("held"), Power::Prepared),
        );
    }),
    P::reports(Check::RunsLaterEpoch, "VM runs", |outside, of| {
        alter(outside, of, "runs", |observed| observed.run_epoch += 1);
    }),
    P::reports(Check::RunsLaterEpoch, "VM off", |outside, of| {
        alter(outside, of, "off", |observed| observed.run_epoch += 1);
    }),
    // An old copy of the database.
    P::both(
        Check::RunsLaterEpoch,
        "VM runs",
        "UPDATE vms SET run_epoch = run_epoch - 1 WHERE id = {runs}",
        |_, _| {},
    ),
    // Also while something is under way.
    P::reports(Check::RunsLaterEpoch, "VM boots", |outside, of| {
        alter(outside, of, "boots", |observed| observed.run_epoch += 1);
    }),
    P::reports(Check::HeldUnrecorded, "VM {no vm}", |outside, of| {
        holds(
            outside,
            of.hosts()[0],
            observed(of.vm("no vm"), Power::Running),
        );
    }),
    P::reports(Check::HeldUnrecorded, "VM {no vm}", |outside, of| {
        holds(
            outside,
            of.hosts()[0],
            observed(of.vm("no vm"), Power::Unknown),
        );
    }),
    P::reports(Check::DoneStillHeld, "VM gone", |outside, of| {
        holds(
            outside,
            of.hosts()[0],
            observed(of.vm("gone"), Power::Running),
        );
    }),
    P::reports(Check::DoneStillHeld, "VM gone", |outside, of| {
        holds(outside, of.hosts()[0], observed(of.vm("gone"), Power::Off));
    }),
];

const LOST: &[P] = &[
    P::reports(Check::HostLostIt, "VM runs", |outside, of| {
        forgets(outside, of, "runs")
    }),
    P::reports(Check::HostLostIt, "VM off", |outside, of| {
        forgets(outside, of, "off")
    }),
    P::reports(Check::HostLostIt, "VM sleeps", |outside, of| {
        forgets(outside, of, "sleeps")
    }),
    P::both(
        Check::HostLostIt,
        "VM runs",
        "UPDATE vms SET state = 'unknown' WHERE id = {runs}",
        |outside, of| {
            forgets(outside, of, "runs");
        },
    ),
];

const POWER: &[P] = &[
    P::reports(Check::PowerDiffers, "VM runs", |outside, of| {
        powers(outside, of, "runs", Power::Off)
    }),
    P::reports(Check::PowerDiffers, "VM runs", |outside, of| {
        powers(outside, of, "runs", Power::Saved)
    }),
    P::reports(Check::PowerDiffers, "VM runs", |outside, of| {
        powers(outside, of, "runs", Power::Prepared)
    }),
    P::reports(Check::PowerDiffers, "VM runs", |outside, of| {
        powers(
            outside,
            of,
            "runs",
            Power::Crashed {
                reason: "killed".to_owned(),
            },
        );
    }),
    P::reports(Check::PowerDiffers, "VM off", |outside, of| {
        powers(outside, of, "off", Power::Running)
    }),
    P::reports(Check::PowerDiffers, "VM off", |outside, of| {
        powers(outside, of, "off", Power::Saved)
    }),
    P::reports(Check::PowerDiffers, "VM sleeps", |outside, of| {
        powers(outside, of, "sleeps", Power::Running)
    }),
    P::reports(Check::PowerDiffers, "VM sleeps", |outside, of| {
        powers(outside, of, "sleeps", Power::Off)
    }),
    // Its host speaks.
    P::both(
        Check::PowerDiffers,
        "VM runs",
        "UPDATE vms SET state = 'unknown' WHERE id = {runs}",
        |_, _| {},
    ),
    // It runs in an earlier run than is recorded.
    P::both(
        Check::PowerDiffers,
        "VM runs",
        "UPDATE vms SET run_epoch = run_epoch + 1 WHERE id = {runs}",
        |_, _| {},
    ),
];

/// What the host of VM `keeps` says of volumes and snapshots.
fn disks<'a>(outside: &'a mut Outside, of: &Installation) -> &'a mut Disks {
    outside.disks.get_mut(&of.host_of("keeps")).unwrap()
}

const DISKS: &[P] = &[
    P::reports(Check::VolumeOfOtherVm, "volume data", |outside, of| {
        let id = of.id("volume data").parse().unwrap();
        let mut held = disks(outside, of).volumes.iter_mut();
        let data = held.find(|held| held.volume_id == id).unwrap();
        data.attached_to = Some(of.vm("runs"));
    }),
    P::reports(Check::VolumeOfOtherVm, "volume spare", |outside, of| {
        let id = of.id("volume spare").parse().unwrap();
        let mut held = disks(outside, of).volumes.iter_mut();
        let spare = held.find(|held| held.volume_id == id).unwrap();
        spare.attached_to = Some(of.vm("keeps"));
    }),
    P::reports(
        Check::VolumeInOtherDatastore,
        "volume spare",
        |outside, of| {
            let id = of.id("volume spare").parse().unwrap();
            let mut held = disks(outside, of).volumes.iter_mut();
            let spare = held.find(|held| held.volume_id == id).unwrap();
            spare.datastore = DatastoreName::new("elsewhere").unwrap();
        },
    ),
    P::reports(Check::VolumeLost, "volume spare", |outside, of| {
        let id = of.id("volume spare").parse().unwrap();
        let held = &mut disks(outside, of).volumes;
        held.retain(|held| held.volume_id != id);
    }),
    P::reports(
        Check::VolumeUnrecorded,
        "volume {no volume}",
        |outside, of| {
            let held = &mut disks(outside, of).volumes;
            held.push(ObservedVolume {
                volume_id: of.id("no volume").parse().unwrap(),
                size_mib: MiB(1),
                attached_to: None,
                datastore: DatastoreName::local(),
            });
        },
    ),
    P::reports(Check::VolumeHeldElsewhere, "volume spare", |outside, of| {
        let spare = ObservedVolume {
            volume_id: of.id("volume spare").parse().unwrap(),
            size_mib: MiB(10),
            attached_to: None,
            datastore: DatastoreName::new("fast").unwrap(),
        };
        let other = outside.disks.get_mut(&of.other_host("keeps")).unwrap();
        other.volumes.push(spare);
    }),
    P::reports(Check::SnapshotLost, "VM keeps", |outside, of| {
        disks(outside, of).snapshots.clear();
    }),
    P::reports(Check::SnapshotUnrecorded, "VM keeps", |outside, of| {
        disks(outside, of).snapshots.push(ObservedSnapshot {
            vm_id: of.vm("keeps"),
            snapshot_id: SnapshotId::from_parts(1, [9; 10]),
            memory: false,
        });
    }),
];

const QUARANTINE: &[P] = &[
    P::both(
        Check::QuarantinedAndGone,
        "VM {no vm}",
        "INSERT INTO orphans VALUES ({host-1}, {no vm}, 1, 'off', FALSE, 1); UPDATE hosts SET orphans = 1 WHERE id = {host-1}",
        |_, _| {},
    ),
    P::both(
        Check::HeldUnrecorded,
        "VM {no vm}",
        "INSERT INTO orphans VALUES ({host-1}, {no vm}, 1, 'off', FALSE, 1); UPDATE hosts SET orphans = 1 WHERE id = {host-1}",
        |outside, of| {
            holds(outside, of.hosts()[0], observed(of.vm("no vm"), Power::Off));
        },
    ),
    // What was last heard of a host that is silent now.
    P::both(
        Check::HeldUnrecorded,
        "VM {no vm}",
        "INSERT INTO orphans VALUES ({host-1}, {no vm}, 1, 'off', FALSE, 1); UPDATE hosts SET orphans = 1 WHERE id = {host-1}",
        |outside, of| {
            outside.inventories.remove(&of.hosts()[0]);
        },
    ),
    P::both(
        Check::DoneStillHeld,
        "VM gone",
        "INSERT INTO orphans VALUES ({host-2}, {gone}, 1, 'off', FALSE, 1); UPDATE hosts SET orphans = 1 WHERE id = {host-2}",
        |outside, of| {
            outside.inventories.remove(&of.hosts()[1]);
        },
    ),
    P::both(
        Check::HeldElsewhere,
        "VM stopped",
        "INSERT INTO orphans VALUES ({host-2}, {stopped}, 1, 'off', FALSE, 1); UPDATE hosts SET orphans = 1 WHERE id = {host-2}",
        |outside, of| {
            outside.inventories.remove(&of.hosts()[1]);
        },
    ),
];

const BACKUPS: &[P] = &[
    P::reports(
        Check::BackupOfNobody,
        "backup {no backup}",
        |outside, of| {
            held(outside).insert(of.backup("no backup"), Backed::new());
        },
    ),
    P::both(
        Check::BackupOfNobody,
        "backup changes",
        "UPDATE backups SET state = 'removing', live_name = NULL WHERE id = {backup changes}",
        |_, _| {},
    ),
    P::reports(Check::BackupGone, "backup changes", |outside, of| {
        held(outside).remove(&of.backup("backup changes"));
    }),
    P::reports(Check::BackupGone, "backup whole", |outside, of| {
        let backup = of.backup("backup whole");
        held(outside).insert(backup, [(DiskId::Root, 2)].into());
    }),
];

fn held(outside: &mut Outside) -> &mut BTreeMap<BackupId, Backed> {
    outside.backups.values_mut().next().unwrap()
}

const DATASTORE: &[P] = &[
    P::reports(Check::CopyOfNobody, "VM {no vm}", |outside, of| {
        copies(outside, of, "no vm").insert(1, [(Part::Disk, 1)].into());
    }),
    // A directory with nothing in it is left over, too.
    P::reports(Check::CopyOfNobody, "VM gone", |outside, of| {
        copies(outside, of, "gone");
    }),
    P::reports(Check::CopyOfNobody, "VM runs", |outside, of| {
        copies(outside, of, "runs").insert(1, [(Part::Disk, 1)].into());
    }),
    P::reports(Check::CopyOfOtherRun, "VM stopped", |outside, of| {
        copies(outside, of, "stopped").insert(7, [(Part::Disk, 1)].into());
    }),
    P::reports(Check::CopyGone, "VM stopped", |outside, of| {
        outside
            .in_datastore
            .as_mut()
            .unwrap()
            .remove(&of.vm("stopped"));
    }),
    P::reports(Check::CopyGone, "VM stopped", |outside, of| {
        copies(outside, of, "stopped").clear();
    }),
    P::reports(Check::PartMissing, "VM stopped", |outside, of| {
        copies(outside, of, "stopped")
            .get_mut(&1)
            .unwrap()
            .remove(&Part::Disk);
    }),
    P::reports(Check::PartMissing, "VM stopped", |outside, of| {
        copies(outside, of, "stopped")
            .get_mut(&1)
            .unwrap()
            .remove(&Part::Memory);
    }),
    P::reports(Check::PartOfOtherSize, "VM stopped", |outside, of| {
        copies(outside, of, "stopped")
            .get_mut(&1)
            .unwrap()
            .insert(Part::Disk, 0);
    }),
    P::reports(Check::PartOfOtherSize, "VM stopped", |outside, of| {
        copies(outside, of, "stopped")
            .get_mut(&1)
            .unwrap()
            .insert(Part::Memory, 2);
    }),
];

/// What the repository has of it.
fn kept<'a>(outside: &'a mut Outside, of: &Installation, image: &str) -> &'a mut Kept {
    let held = outside.in_repository.as_mut().unwrap();
    held.entry(of.id(image).parse().unwrap()).or_default()
}

const REPOSITORY: &[P] = &[
    P::reports(Check::ImageGone, "image demo", |outside, of| {
        let id = of.id("image demo").parse().unwrap();
        outside.in_repository.as_mut().unwrap().remove(&id);
    }),
    // One in the trash can be restored.
    P::reports(Check::ImageGone, "image old", |outside, of| {
        kept(outside, of, "image old").files.clear();
    }),
    P::reports(Check::ImageOfOtherSize, "image demo", |outside, of| {
        kept(outside, of, "image demo").files[0].1 -= 1;
    }),
    P::reports(Check::ImageOfOtherSize, "image old", |outside, of| {
        kept(outside, of, "image old").files[0].1 = 0;
    }),
    P::reports(Check::ImageOfNobody, "image {no image}", |outside, of| {
        let files = &mut kept(outside, of, "no image").files;
        files.push((ImageFormat::Raw, 1));
    }),
    P::reports(Check::ImageOfNobody, "image {no image}", |outside, of| {
        kept(outside, of, "no image").staged = true;
    }),
    P::reports(Check::ImageOfNobody, "image demo", |outside, of| {
        kept(outside, of, "image demo").staged = true;
    }),
    P::reports(Check::ImageOfNobody, "image demo", |outside, of| {
        let files = &mut kept(outside, of, "image demo").files;
        files.push((ImageFormat::Raw, 1));
    }),
    P::both(
        Check::ImageOfNobody,
        "image old",
        "UPDATE images SET state = 'removed' WHERE id = {image old}",
        |_, _| {},
    ),
];
