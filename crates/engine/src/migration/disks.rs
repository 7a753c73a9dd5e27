//! What becomes of a VM's disks where it goes to another host.
//!
//! One that lies in a datastore that both hosts reach stays where it is; every other
//! is copied to the datastore of that name on the other host, or from the one's own
//! directory to the other's; or all to a datastore that is named.
//!
//! Snapshots are inside the files of the disks, and go with them: with one that stays
//! where it is, and with the copy of a machine's that does not run. While its guest
//! writes, what the guest sees of a disk is copied, and not its file.

use std::collections::BTreeMap;

use vimana_driver::{DiskPlan, SnapshotPlan, VolumePlan};
use vimana_model::migration::MigrationMode;
use vimana_model::name::DatastoreName;
use vimana_model::snapshot::SnapshotState;
use vimana_model::state::VmState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::volume::VolumeState;
use vimana_model::{DatastoreId, HostId, VolumeId};
use vimana_placement::{Needs, fits};
use vimana_protocol::scheduler::HostFacts;
use vimana_store::host::HostRecord;
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::migration::{Carried, MigrationRecord};
use vimana_store::snapshot::SnapshotRecord;
use vimana_store::vm::VmRecord;
use vimana_store::volume::VolumeRecord;

use super::manner;
use crate::change::with_kept;

/// The disks of a VM, and where hosts keep disks besides their own directories.
pub struct Disks<'a> {
    pub vm: &'a VmRecord,
    pub volumes: &'a [VolumeRecord],
    /// Those in them.
    pub snapshots: &'a [SnapshotRecord],
    pub places: &'a [HostDatastoreRecord],
}

impl Disks<'_> {
    fn place(&self, host: HostId, name: &DatastoreName) -> Option<&HostDatastoreRecord> {
        let mut places = self.places.iter().filter(|place| place.present);
        places.find(|place| place.host_id == host && place.name == *name)
    }

    /// The host's own directory, and what it has besides.
    pub fn datastores_of(&self, host: HostId) -> impl Iterator<Item = DatastoreName> {
        let places = self.places.iter().filter(|place| place.present);
        let places = places.filter(move |place| place.host_id == host);
        let others = places.map(|place| place.name.clone());
        std::iter::once(DatastoreName::local()).chain(others)
    }

    /// All of them on their way from `here`, if the VM is on a host, to `there`, into
    /// the datastore `into` where one is named.
    ///
    /// # Errors
    /// What keeps them from going there, as a sentence.
    pub fn carried(
        &self,
        here: Option<HostId>,
        there: &HostRecord,
        into: Option<&DatastoreName>,
    ) -> Result<Vec<Carried>, String> {
        let vm = &self.vm.name;
        let what = format!("the disk of `{vm}`");
        let (datastore, size) = (&self.vm.datastore, self.vm.resources.disk_mib);
        let shared = self.is_shared(&what, datastore, here, (there, into))?;
        if let Some(moving) = &self.vm.moving {
            return Err(is_between(&what, datastore, &moving.to));
        }
        let to = |datastore: &DatastoreName| into.unwrap_or(datastore).clone();
        let own = |datastore: &DatastoreName| {
            let changes = into.is_some_and(|into| into != datastore);
            changes.then(|| datastore.clone())
        };
        let mut carried = vec![Carried {
            volume: None,
            datastore: to(datastore),
            own: own(datastore),
            size,
            place: 0,
            shared,
            kept: MiB(0),
        }];
        for volume in self.volumes {
            let what = format!("volume `{}` of `{vm}`", volume.name);
            let shared = self.is_shared(&what, &volume.datastore, here, (there, into))?;
            if let Some(other) = &volume.moving_to {
                return Err(is_between(&what, &volume.datastore, other));
            }
            let place = volume
                .place
                .filter(|_| volume.state == VolumeState::Attached);
            let Some(place) = place else {
                return Err(format!(
                    "of {what} it is not known where its guest has it; detach it and attach it again"
                ));
            };
            carried.push(Carried {
                volume: Some(volume.id),
                datastore: to(&volume.datastore),
                own: own(&volume.datastore),
                size: volume.size,
                place,
                shared,
                kept: self.kept(volume.id),
            });
        }
        match self.snapshots_stay(into, &carried) {
            Some(refusal) => Err(refusal),
            None => Ok(carried),
        }
    }

    /// What snapshots claim beside a volume.
    fn kept(&self, volume: VolumeId) -> MiB {
        let held = self.snapshots.iter().flat_map(|taken| &taken.volumes);
        let beside = held.filter(|held| held.id == volume);
        let beside = beside.filter_map(|held| Some(held.elsewhere.as_ref()?.size.0));
        MiB(beside.fold(0, u64::saturating_add))
    }

    /// Why its snapshots cannot go along, where it has some.
    fn snapshots_stay(&self, into: Option<&DatastoreName>, carried: &[Carried]) -> Option<String> {
        if self.snapshots.is_empty() {
            return None;
        }
        let vm = &self.vm.name;
        if let Some(into) = into {
            return Some(format!(
                "`{vm}` has snapshots, which do not go to datastore `{into}` with its disks: migrate it without naming one, or delete them first"
            ));
        }
        let copied = carried.iter().any(|disk| !disk.shared);
        let runs = manner(self.vm.state).mode == MigrationMode::Live;
        (copied && runs).then(|| {
            format!(
                "`{vm}` has snapshots, which do not go along with a disk that is copied while it is written: power it off or suspend it first, or delete them"
            )
        })
    }

    /// Which memory of a machine goes along, if any: only hosts that are alike can use it.
    pub fn memory(&self) -> Option<&'static str> {
        if self.vm.state != VmState::PoweredOff {
            return Some("its memory");
        }
        let mut snapshots = self.snapshots.iter();
        let kept = snapshots.any(|taken| taken.memory && taken.state == SnapshotState::Ready);
        kept.then_some("the memory in a snapshot of it")
    }

    /// What the other host is to hold for the machine itself, which needs `size` there.
    pub fn own_claim(&self, size: Resources, carried: &[Carried]) -> Resources {
        let mut roots = carried.iter().filter(|disk| disk.volume.is_none());
        if roots.any(|disk| disk.shared) {
            return Resources {
                disk_mib: MiB(0),
                ..size
            };
        }
        with_kept(size, self.vm.kept)
    }

    fn is_shared(
        &self,
        what: &str,
        datastore: &DatastoreName,
        here: Option<HostId>,
        (there, into): (&HostRecord, Option<&DatastoreName>),
    ) -> Result<bool, String> {
        let to = &there.name;
        let ours = here.and_then(|here| self.place(here, datastore));
        if let Some(into) = into.filter(|into| *into != datastore) {
            let place = self.place(there.id, into);
            if place.is_none() && !into.is_local() {
                return Err(format!("host `{to}` has no datastore `{into}`"));
            }
            // Of two hosts that reach a disk, one at a time has it there.
            if place.is_some_and(|place| self.reaches(here, place.id)) {
                return Err(format!(
                    "its own host reaches datastore `{into}` as well: bring {what} there first, and then migrate it without naming one"
                ));
            }
            if ours.is_some_and(|ours| self.reaches(Some(there.id), ours.id)) {
                return Err(format!(
                    "host `{to}` reaches datastore `{datastore}`, which {what} is in: migrate it without naming one, and bring its disks to `{into}` there"
                ));
            }
            return Ok(false);
        }
        if datastore.is_local() {
            return Ok(false);
        }
        let Some(place) = self.place(there.id, datastore) else {
            return Err(format!(
                "host `{to}` has no datastore `{datastore}`, which {what} is in"
            ));
        };
        Ok(ours.is_some_and(|ours| ours.id == place.id))
    }

    /// Whether a host reaches that datastore, under whichever name.
    fn reaches(&self, host: Option<HostId>, datastore: DatastoreId) -> bool {
        let mut places = self.places.iter().filter(|place| place.present);
        places.any(|place| Some(place.host_id) == host && place.id == datastore)
    }

    /// What a host with such facts lacks for the VM, which holds `size` there, and for
    /// what is copied to it.
    pub fn lack(&self, size: Resources, carried: &[Carried], there: &HostFacts) -> Option<String> {
        let (vm, to) = (&self.vm.name, &there.name);
        let mut wanted: BTreeMap<&DatastoreName, u64> = BTreeMap::new();
        for disk in carried.iter().filter(|disk| !disk.shared) {
            let amount = match disk.volume {
                Some(_) => disk.claimed(),
                None => with_kept(size, self.vm.kept).disk_mib,
            };
            let sum = wanted.entry(&disk.datastore).or_default();
            *sum = sum.saturating_add(amount.0);
        }
        let own = wanted.iter().find(|(name, _)| name.is_local());
        if !fits(
            &own_needs(size, own.map_or(0, |(_, amount)| *amount)),
            there,
        ) {
            return Some(format!("host `{to}` has no room for `{vm}`"));
        }
        let full = |(name, amount): (&DatastoreName, u64)| {
            let place = self.place(there.id, name)?;
            let free = place.capacity.0.saturating_sub(place.used_by_all.0);
            let full = !name.is_local() && amount > free;
            full.then(|| format!("datastore `{name}` of host `{to}` has no room for `{vm}`"))
        };
        wanted.into_iter().find_map(full)
    }
}

/// Of a disk, that nobody knows which of two datastores has it.
pub fn is_between(what: &str, one: &DatastoreName, other: &DatastoreName) -> String {
    format!("{what} is between datastores `{one}` and `{other}`; bring it to one of them first")
}

/// What is needed of the host itself.
pub fn own_needs(size: Resources, disk: u64) -> Needs {
    let own = Resources {
        disk_mib: MiB(disk),
        ..size
    };
    own.into()
}

/// What hosts are told of the disks of a VM that goes from one to the other, without
/// the snapshots in them.
pub fn disk_plan(migration: &MigrationRecord) -> DiskPlan {
    let volume = |disk: &Carried| {
        Some(VolumePlan {
            volume_id: disk.volume?,
            size_mib: disk.size,
            datastore: disk.datastore.clone(),
            place: disk.place,
            shared: disk.shared,
        })
    };
    DiskPlan {
        shares_root: migration.shares_root(),
        volumes: migration.disks.iter().filter_map(volume).collect(),
        snapshots: Vec::new(),
    }
}

/// The same of a snapshot that goes along.
pub fn snapshot_plan(record: &SnapshotRecord) -> SnapshotPlan {
    SnapshotPlan {
        snapshot_id: record.id,
        memory: record.memory,
        whole: record.state == SnapshotState::Ready,
        resources: record.resources,
        root: record.root,
        volumes: record.volumes.iter().map(|held| held.id).collect(),
    }
}
