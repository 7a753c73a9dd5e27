//! Claims: their sums, and that they fit what the VMs are.

use std::collections::{BTreeMap, HashMap};

use vimana_model::host::DesiredState;
use vimana_model::name::DatastoreName;
use vimana_model::state::VmState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{DatastoreId, HostId, VmId};
use vimana_store::claim::ClaimRecord;
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::migration::MigrationRecord;
use vimana_store::snapshot::Elsewhere;
use vimana_store::vm::VmRecord;

use super::books::Books;
use super::{Check, Findings};
use crate::change::{Holding, with_kept};

/// What is claimed of a host, and by how many.
type Sum = (Resources, u32);

/// What is claimed, as far as it was added up.
#[derive(Default)]
struct Sums<'a> {
    hosts: BTreeMap<HostId, Sum>,
    /// Of the hosts' further datastores.
    places: BTreeMap<(HostId, &'a DatastoreName), MiB>,
}

impl<'a> Sums<'a> {
    fn add_machine(&mut self, host: HostId, resources: Resources, datastore: &'a DatastoreName) {
        let own = Resources {
            disk_mib: MiB(0),
            ..resources
        };
        let (sum, vms) = self.hosts.entry(host).or_default();
        *sum = add(*sum, own);
        *vms += 1;
        self.add_disk(host, datastore, resources.disk_mib);
    }

    fn add_disk(&mut self, host: HostId, datastore: &'a DatastoreName, size: MiB) {
        if datastore.is_local() {
            let (sum, _) = self.hosts.entry(host).or_default();
            *sum = with_kept(*sum, size);
        } else if size > MiB(0) {
            let sum = self.places.entry((host, datastore)).or_default();
            *sum = MiB(sum.0.saturating_add(size.0));
        }
    }
}

pub fn check_claims(books: &Books, found: &mut Findings) {
    let mut sums = Sums::default();
    let mut claimed: HashMap<VmId, &ClaimRecord> = HashMap::new();
    for claim in &books.claims {
        sums.add_machine(claim.host_id, claim.resources, &claim.datastore);
        claimed.insert(claim.vm_id, claim);
        let host = books.host(claim.host_id);
        if books.is_no_vm(claim.vm_id) {
            let what = format!("it is not recorded, and claims room on host {host}");
            found.add(Check::ClaimOfNoVm, books.about_vm(claim.vm_id), what);
        }
        if books.is_no_host(claim.host_id) {
            let what = format!("its claim is on host {host}, which is not recorded");
            found.add(Check::ClaimOnNoHost, books.about_vm(claim.vm_id), what);
        }
    }
    for migration in books.migrations.values() {
        let peer = migration.peer.id;
        sums.add_machine(peer, migration.resources, &migration.datastore);
        for (_, disk) in migration.copied_volumes() {
            sums.add_disk(peer, &disk.datastore, disk.claimed());
        }
        check_migration(books, migration, found);
    }
    for vm in books.vms.values() {
        if let (Some(host), Some(moving)) = (&vm.host, &vm.moving) {
            sums.add_disk(host.id, &moving.to, moving.size);
        }
    }
    for volume in books.volumes.values() {
        let Some(host) = &volume.host else { continue };
        for datastore in volume.places() {
            sums.add_disk(host.id, datastore, volume.size);
        }
    }
    for snapshot in &books.snapshots {
        let vm = books.vms.get(&snapshot.vm_id);
        let Some(host) = vm.and_then(|vm| vm.host.as_ref()) else {
            continue;
        };
        for Elsewhere { datastore, size } in snapshot.elsewhere() {
            sums.add_disk(host.id, datastore, *size);
        }
    }
    check_sums(books, &sums.hosts, found);
    check_places(books, sums.places, found);
    for vm in books.vms.values() {
        if !books.doubts("claims", vm.id) {
            check_claim(books, vm, claimed.get(&vm.id).copied(), found);
        }
        check_place(books, vm, found);
    }
}

/// A VM has another host only while it moves, or as long as the one that it was
/// on is not cleaned.
fn check_migration(books: &Books, migration: &MigrationRecord, found: &mut Findings) {
    let id = migration.vm_id;
    let host = books.host(migration.peer.id);
    let Some(vm) = books.vms.get(&id) else {
        if books.is_no_vm(id) {
            let what = format!("it is not recorded, and claims room on host {host}");
            found.add(Check::ClaimOfNoVm, books.about_vm(id), what);
        }
        return;
    };
    let home = vm
        .host
        .as_ref()
        .is_some_and(|on| on.id == migration.peer.id);
    if home {
        let what = format!("it claims room on host {host} for a migration that is none");
        found.add(Check::ClaimElsewhere, books.about_vm(id), what);
    }
}

fn check_sums(books: &Books, sums: &BTreeMap<HostId, Sum>, found: &mut Findings) {
    for (id, host) in &books.hosts {
        if books.doubts("claims", id) || books.doubts("volumes", id) {
            continue;
        }
        let (sum, vms) = sums.get(id).copied().unwrap_or_default();
        if sum != host.used || vms != host.vms {
            let what = format!(
                "what is recorded as used is off the sum of its claims and volumes by {}",
                difference((host.used, host.vms), (sum, vms))
            );
            found.add(Check::SumIsOff, books.about_host(*id), what);
        }
        if !fits(sum, host.capacity) {
            let what = format!(
                "its claims are {}, it has {}",
                amounts(sum),
                amounts(host.capacity)
            );
            found.add(Check::ClaimsExceed, books.about_host(*id), what);
        }
        if vms > 0 && host.desired == DesiredState::Maintenance {
            let what = format!("it is in maintenance, and {vms} VMs claim room there");
            found.add(Check::ClaimsInMaintenance, books.about_host(*id), what);
        }
    }
}

/// What disks hold of the hosts' further datastores.
fn check_places<'a>(
    books: &'a Books,
    mut places: BTreeMap<(HostId, &'a DatastoreName), MiB>,
    found: &mut Findings,
) {
    let mut whole: BTreeMap<DatastoreId, MiB> = BTreeMap::new();
    for place in &books.places {
        let HostDatastoreRecord {
            host_id,
            name,
            id,
            capacity,
            used,
            ..
        } = place;
        let sum = places.remove(&(*host_id, name)).unwrap_or_default();
        if books.doubts("volumes", host_id) {
            continue;
        }
        if sum != *used {
            let what = format!("what is in datastore {name} has {sum}, recorded is {used}");
            found.add(Check::SumIsOff, books.about_host(*host_id), what);
        }
        // Of all hosts so far that reach the same one.
        let whole = whole.entry(*id).or_default();
        *whole = MiB(whole.0.saturating_add(sum.0));
        if *whole > *capacity {
            let what = format!("disks in datastore {name} have {whole}, there is {capacity}");
            found.add(Check::ClaimsExceed, books.about_host(*host_id), what);
        }
    }
    for ((host_id, name), sum) in places {
        if !books.doubts("host_datastores", host_id) && !books.doubts("volumes", host_id) {
            let what = format!("its disks have {sum} in datastore {name}, which is not recorded");
            found.add(Check::SumIsOff, books.about_host(host_id), what);
        }
    }
}

fn check_claim(books: &Books, vm: &VmRecord, claim: Option<&ClaimRecord>, found: &mut Findings) {
    let mut add = |check, what: String| found.add(check, books.about_vm(vm.id), what);
    match (&vm.host, claim) {
        (None, None) => {}
        (None, Some(claim)) => {
            let host = books.host(claim.host_id);
            if vm.state == VmState::Done {
                let what = format!("it is done and still holds a claim on host {host}");
                add(Check::DoneWithClaim, what);
            } else {
                let what = format!("it has no host, but a claim on host {host}");
                add(Check::ClaimWithoutPlacement, what);
            }
        }
        (Some(on), None) => {
            let host = books.host(on.id);
            let what = format!("it is placed on host {host} without a claim there");
            add(Check::PlacementWithoutClaim, what);
        }
        (Some(on), Some(claim)) if on.id != claim.host_id => {
            let (on, claimed) = (books.host(on.id), books.host(claim.host_id));
            let what = format!("it is placed on host {on}, its claim is on host {claimed}");
            add(Check::ClaimElsewhere, what);
        }
        (Some(_), Some(claim)) => {
            if vm.datastore != claim.datastore {
                let (is, should) = (&claim.datastore, &vm.datastore);
                let what = format!("its disk is in datastore {should}, and claimed in {is}");
                add(Check::ClaimOfOtherSize, what);
            }
            let holding = holding_at_rest(vm.state).filter(|_| books.rests(vm));
            let expected = holding.map(|holding| with_kept(holding.of(vm.resources), vm.kept));
            if let Some(expected) = expected.filter(|expected| *expected != claim.resources) {
                let what = format!(
                    "it is {} and claims {} instead of {}",
                    vm.state,
                    amounts(claim.resources),
                    amounts(expected)
                );
                add(Check::ClaimOfOtherSize, what);
            }
        }
    }
}

/// What a VM holds of its host for certain when nothing is in flight for it.
const fn holding_at_rest(state: VmState) -> Option<Holding> {
    match state {
        VmState::Running => Some(Holding::Full),
        VmState::PoweredOff => Some(Holding::Disk),
        VmState::Suspended => Some(Holding::Saved),
        VmState::Pending
        | VmState::Hold
        | VmState::Prolog
        | VmState::Boot
        | VmState::Migrate
        | VmState::Stopped
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Done
        | VmState::Unknown
        | VmState::Failed => None,
    }
}

/// Whether the state goes with having a host.
fn check_place(books: &Books, vm: &VmRecord, found: &mut Findings) {
    let (state, placed) = (vm.state, vm.host.is_some());
    let check = match state {
        VmState::Done => placed.then_some(Check::DoneWithHost),
        VmState::Pending | VmState::Hold | VmState::Stopped => {
            placed.then_some(Check::HostWithoutNeed)
        }
        VmState::Prolog
        | VmState::Boot
        | VmState::Running
        | VmState::Migrate
        | VmState::Suspended
        | VmState::PoweredOff
        | VmState::Shutdown
        | VmState::Unknown => (!placed).then_some(Check::StateWithoutHost),
        // It may have been given back before it broke, or before it goes.
        VmState::Epilog | VmState::Failed => None,
    };
    if let Some(check) = check {
        let has = if placed {
            "still has a host"
        } else {
            "has no host"
        };
        let what = format!("it is {state} and {has}");
        found.add(check, books.about_vm(vm.id), what);
    }
}

fn add(a: Resources, b: Resources) -> Resources {
    Resources {
        vcpus: a.vcpus.saturating_add(b.vcpus),
        memory_mib: MiB(a.memory_mib.0.saturating_add(b.memory_mib.0)),
        disk_mib: MiB(a.disk_mib.0.saturating_add(b.disk_mib.0)),
    }
}

fn fits(sum: Resources, capacity: Resources) -> bool {
    sum.vcpus <= capacity.vcpus
        && sum.memory_mib <= capacity.memory_mib
        && sum.disk_mib <= capacity.disk_mib
}

fn amounts(resources: Resources) -> String {
    let Resources {
        vcpus,
        memory_mib,
        disk_mib,
    } = resources;
    format!("{vcpus} vCPUs, {memory_mib} memory, {disk_mib} disk")
}

fn difference(found: Sum, expected: Sum) -> String {
    let by = |found: u64, expected: u64| i128::from(found) - i128::from(expected);
    let ((found, vms), (expected, expected_vms)) = (found, expected);
    format!(
        "{:+} vCPUs, {:+} MiB memory, {:+} MiB disk, {:+} VMs",
        by(found.vcpus.into(), expected.vcpus.into()),
        by(found.memory_mib.0, expected.memory_mib.0),
        by(found.disk_mib.0, expected.disk_mib.0),
        by(vms.into(), expected_vms.into()),
    )
}
