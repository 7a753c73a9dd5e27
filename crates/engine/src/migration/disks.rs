//! What becomes of a VM's disks where it goes to another host.
//!
//! One that lies in a datastore that both hosts reach stays where it is; every other
//! is copied to the datastore of that name on the other host, or from the one's own
//! directory to the other's.

use std::collections::BTreeMap;

use vimana_driver::{DiskPlan, VolumePlan};
use vimana_model::HostId;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::volume::VolumeState;
use vimana_placement::{Needs, fits};
use vimana_protocol::scheduler::HostFacts;
use vimana_store::host::HostRecord;
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::migration::{Carried, MigrationRecord};
use vimana_store::vm::VmRecord;
use vimana_store::volume::VolumeRecord;

/// The disks of a VM, and where hosts keep disks besides their own directories.
pub struct Disks<'a> {
    pub vm: &'a VmRecord,
    pub volumes: &'a [VolumeRecord],
    pub places: &'a [HostDatastoreRecord],
}

impl Disks<'_> {
    fn place(&self, host: HostId, name: &DatastoreName) -> Option<&HostDatastoreRecord> {
        let mut places = self.places.iter().filter(|place| place.present);
        places.find(|place| place.host_id == host && place.name == *name)
    }

    /// All of them on their way from `here`, if the VM is on a host, to `there`.
    ///
    /// # Errors
    /// What keeps them from going there, as a sentence.
    pub fn carried(
        &self,
        here: Option<HostId>,
        there: &HostRecord,
        runs: bool,
    ) -> Result<Vec<Carried>, String> {
        let vm = &self.vm.name;
        let what = format!("the disk of `{vm}`");
        let (datastore, size) = (&self.vm.datastore, self.vm.resources.disk_mib);
        let shared = self.is_shared(&what, datastore, here, there)?;
        let mut carried = vec![Carried {
            volume: None,
            datastore: datastore.clone(),
            size,
            place: 0,
            shared,
        }];
        for volume in self.volumes {
            let what = format!("volume `{}` of `{vm}`", volume.name);
            let shared = self.is_shared(&what, &volume.datastore, here, there)?;
            if let Some(other) = &volume.moving_to {
                let at = &volume.datastore;
                return Err(format!(
                    "{what} is between datastores `{at}` and `{other}`; move it to one of them first"
                ));
            }
            let place = volume
                .place
                .filter(|_| volume.state == VolumeState::Attached);
            let Some(place) = place else {
                return Err(format!(
                    "of {what} it is not known where its guest has it; detach it and attach it again"
                ));
            };
            if !shared && !runs {
                return Err(format!(
                    "{what} is not where host `{}` reaches it, and only goes along while `{vm}` runs",
                    there.name
                ));
            }
            carried.push(Carried {
                volume: Some(volume.id),
                datastore: volume.datastore.clone(),
                size: volume.size,
                place,
                shared,
            });
        }
        Ok(carried)
    }

    fn is_shared(
        &self,
        what: &str,
        datastore: &DatastoreName,
        here: Option<HostId>,
        there: &HostRecord,
    ) -> Result<bool, String> {
        if datastore.is_local() {
            return Ok(false);
        }
        let Some(place) = self.place(there.id, datastore) else {
            let to = &there.name;
            return Err(format!(
                "host `{to}` has no datastore `{datastore}`, which {what} is in"
            ));
        };
        let ours = here.and_then(|here| self.place(here, datastore));
        Ok(ours.is_some_and(|ours| ours.id == place.id))
    }

    /// What a host with such facts lacks for the VM, which holds `size` there, and for
    /// what is copied to it.
    pub fn lack(&self, size: Resources, carried: &[Carried], there: &HostFacts) -> Option<String> {
        let (vm, to) = (&self.vm.name, &there.name);
        let mut wanted: BTreeMap<&DatastoreName, u64> = BTreeMap::new();
        for disk in carried.iter().filter(|disk| !disk.shared) {
            let amount = match disk.volume {
                Some(_) => disk.size,
                None => size.disk_mib,
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

/// What is needed of the host itself.
pub fn own_needs(size: Resources, disk: u64) -> Needs {
    let own = Resources {
        disk_mib: MiB(disk),
        ..size
    };
    own.into()
}

/// What hosts are told of the disks of a VM that goes from one to the other.
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
    }
}
