//! Where a VM can go, and what keeps it from going elsewhere.

use vimana_authz::Permission;
use vimana_model::action::{Refusal, VmAction};
use vimana_model::migration::{MigrationMode, MigrationTarget, StorageTarget};
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{Error, VmId};
use vimana_store::host::HostRecord;
use vimana_store::vm::VmRecord;
use vimana_store::{Conn, host, host_datastore, migration, operation, snapshot, vm, volume};

use super::disks::{Disks, is_between};
use super::{Manner, host_ref, manner};
use crate::Engine;
use crate::authorize::authorized;
use crate::context::OpContext;
use crate::host::host_view;
use crate::placement::facts;
use crate::volume::room::no_room;

impl Engine {
    /// The hosts that a VM may go to, those that suit best first, and then those
    /// that it cannot go to, each with the reason.
    ///
    /// # Errors
    /// `Conflict` where it can go nowhere now, `NotFound`, `Forbidden`.
    pub async fn migration_targets(
        &self,
        cx: &OpContext,
        id: VmId,
    ) -> Result<Vec<MigrationTarget>, Error> {
        let read = self.store().read();
        let found = vm::find(&read, id).await?;
        let permission = Permission::ActOnVm(VmAction::Migrate);
        let vm = authorized(cx, permission, format!("vm `{id}`"), found)?.into_inner();
        let refused = |refusal: Refusal| Error::conflict(format!("`{}` {refusal}", vm.name));
        let in_flight = operation::in_flight(&read, vm.operation_id).await?;
        let in_flight = in_flight.map(|operation| operation.kind);
        VmAction::Migrate
            .accept(vm.state, in_flight)
            .map_err(refused)?;
        let on = vm.host.as_ref().map(|host| host.id);
        let all = host::list(&read).await?;
        let here = all.iter().find(|host| Some(host.id) == on);
        let disks = Disks {
            vm: &vm,
            volumes: &volume::of_vm(&read, id).await?,
            snapshots: &snapshot::for_vm(&read, id).await?,
            places: &host_datastore::list(&read).await?,
        };
        let mut targets = ways(&disks, here, &all);
        let tie = match here.filter(|here| !here.connected) {
            Some(_) => Some(source_is_away(&vm)),
            None => ties(&read, &vm).await?,
        };
        for target in &mut targets {
            let there = all.iter().find(|there| there.id == target.host.id);
            match (&tie, there) {
                (Some(tie), _) => {
                    target.refusal.get_or_insert_with(|| tie.clone());
                }
                (None, Some(there)) => target.into = datastores_there(&disks, here, there),
                (None, None) => {}
            }
        }
        Ok(targets)
    }

    /// The datastores of its host that the disks of a VM may go to, and those that
    /// they cannot go to, each with the reason; none where it is on no host, or they
    /// cannot move now.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn storage_targets(
        &self,
        cx: &OpContext,
        id: VmId,
    ) -> Result<Vec<StorageTarget>, Error> {
        let read = self.store().read();
        let found = vm::find(&read, id).await?;
        let permission = Permission::ActOnVm(VmAction::Migrate);
        let vm = authorized(cx, permission, format!("vm `{id}`"), found)?.into_inner();
        let host = match &vm.host {
            Some(on) if VmAction::Move.judge(vm.state).is_ok() => host::find(&read, on.id).await?,
            Some(_) | None => None,
        };
        let Some(host) = host else {
            return Ok(Vec::new());
        };
        let disks = Disks {
            vm: &vm,
            volumes: &volume::of_vm(&read, id).await?,
            snapshots: &snapshot::for_vm(&read, id).await?,
            places: &host_datastore::for_host(&read, host.id).await?,
        };
        let free = |all: MiB, used: MiB| all.0.saturating_sub(used.0);
        let own = free(host.capacity.disk_mib, host.used.disk_mib);
        let others = disks.places.iter().filter(|place| place.present);
        let others = others.map(|place| {
            let free = free(place.capacity, place.used_by_all);
            (place.name.clone(), free)
        });
        let all = std::iter::once((DatastoreName::local(), own)).chain(others);
        let target = |place| storage_target(&disks, &host, place);
        Ok(all.filter_map(target).collect())
    }
}

/// Whether the datastore of their host takes all disks that are not there yet;
/// nothing where all are.
fn storage_target(
    disks: &Disks<'_>,
    host: &HostRecord,
    (datastore, free): (DatastoreName, u64),
) -> Option<StorageTarget> {
    let vm = disks.vm;
    let on_its_way = vm.moving.as_ref().map(|moving| &moving.to);
    let own = (&vm.datastore, on_its_way, vm.resources.disk_mib);
    let volumes = disks.volumes.iter();
    let volumes = volumes.map(|disk| (&disk.datastore, disk.moving_to.as_ref(), disk.size));
    let all: Vec<_> = std::iter::once(own).chain(volumes).collect();
    if all
        .iter()
        .all(|(at, to, _)| **at == datastore && to.is_none())
    {
        return None;
    }
    let copied: Vec<_> = all.iter().filter(|(at, ..)| **at != datastore).collect();
    let sum = |sum: u64, (_, _, size): &&(_, _, MiB)| sum.saturating_add(size.0);
    // Of one that is on its way there, the room is claimed.
    let wanted = copied
        .iter()
        .copied()
        .filter(|(_, to, _)| *to != Some(&datastore));
    let wanted = wanted.fold(0, |all, disk| sum(all, &disk));
    let elsewhere = copied.iter().find_map(|(at, to, _)| {
        let to = to.filter(|to| **to != datastore)?;
        Some(is_between(&format!("a disk of `{}`", vm.name), at, to))
    });
    let refusal = if !disks.snapshots.is_empty() {
        Some(tied_by_snapshots(vm))
    } else if wanted > free {
        Some(no_room(host.name.as_str(), &datastore, MiB(wanted)))
    } else {
        elsewhere
    };
    let copied = copied.iter().fold(0, sum);
    Some(StorageTarget {
        datastore,
        refusal,
        copied_mib: MiB(copied),
    })
}

/// Of a VM whose disks are to go to another datastore.
pub fn tied_by_snapshots(vm: &VmRecord) -> String {
    let name = &vm.name;
    format!("`{name}` has snapshots, which its disks do not move with; delete them first")
}

/// The datastores of the other host that all disks could go into, where that makes a
/// difference.
fn datastores_there(
    disks: &Disks<'_>,
    here: Option<&HostRecord>,
    there: &HostRecord,
) -> Vec<DatastoreName> {
    if obstacle(disks, here, there).is_some() {
        return Vec::new();
    }
    let on = here.map(|here| here.id);
    let size = manner(disks.vm.state).holding.of(disks.vm.resources);
    let facts = facts(&host_view(there.clone(), Vec::new()));
    let usual = disks.carried(on, there, None).ok();
    let takes = |name: &DatastoreName| {
        let named = disks.carried(on, there, Some(name)).ok();
        let named = named.filter(|named| Some(named) != usual.as_ref());
        named.is_some_and(|named| disks.lack(size, &named, &facts).is_none())
    };
    disks.datastores_of(there.id).filter(takes).collect()
}

/// The hosts that a VM may go to, those that suit best first, and then those that
/// it cannot go to, each with the reason; not into which other datastores there.
pub fn ways(
    disks: &Disks<'_>,
    here: Option<&HostRecord>,
    all: &[HostRecord],
) -> Vec<MigrationTarget> {
    let vm = disks.vm;
    let on = here.map(|here| here.id);
    let Manner { holding, .. } = manner(vm.state);
    let size = holding.of(vm.resources);
    let others = all.iter().filter(|there| Some(there.id) != on);
    let mut targets: Vec<_> = others
        .map(|there| {
            let facts = facts(&host_view(there.clone(), Vec::new()));
            let carried = disks.carried(on, there, None);
            let refusal = obstacle(disks, here, there).or_else(|| match &carried {
                Ok(carried) => disks.lack(size, carried, &facts),
                Err(refusal) => Some(refusal.clone()),
            });
            let copied = carried.iter().flatten().filter(|disk| !disk.shared);
            let copied = copied.fold(0, |sum: u64, disk| sum.saturating_add(disk.size.0));
            MigrationTarget {
                host: host_ref(there),
                score: vimana_placement::score(&size.into(), &facts),
                refusal,
                copied_mib: MiB(copied),
                into: Vec::new(),
            }
        })
        .collect();
    targets.sort_by(|a, b| {
        let order = |target: &MigrationTarget| target.refusal.is_some();
        order(a)
            .cmp(&order(b))
            .then(b.score.total_cmp(&a.score))
            .then_with(|| a.host.name.cmp(&b.host.name))
    });
    targets
}

/// Why the host takes no VM, whichever it is.
pub fn refusal_to_take(host: &HostRecord) -> Option<String> {
    let away = (!host.connected).then_some("takes no VMs now");
    let refusal = host.state.takes_vms().err().or(away)?;
    Some(format!("host `{}` {refusal}", host.name))
}

/// What keeps a VM from going from one host to another, as far as the two are
/// concerned. A stopped one is on none.
pub fn obstacle(
    disks: &Disks<'_>,
    here: Option<&HostRecord>,
    there: &HostRecord,
) -> Option<String> {
    let vm = disks.vm;
    let (name, to) = (&vm.name, &there.name);
    if here.is_some_and(|here| here.id == there.id) {
        return Some(format!("`{name}` is on host `{to}` already"));
    }
    if let Some(refusal) = refusal_to_take(there) {
        return Some(refusal);
    }
    // A disk alone fits everywhere.
    let (here, memory) = (here?, disks.memory()?);
    if there.zone != here.zone {
        return Some(format!(
            "host `{to}` is in zone `{}`, and `{name}` in zone `{}`: with {memory}, a VM migrates within its zone",
            there.zone, here.zone
        ));
    }
    if there.accelerator != here.accelerator {
        return Some(format!(
            "host `{to}` runs machines with {}, and the host of `{name}` with {}: with {memory}, none can go from one to the other",
            there.accelerator, here.accelerator
        ));
    }
    other_hardware(vm, here, there, memory)
}

/// What keeps a machine with its memory from a host whose machines see something
/// else, as far as both have told.
fn other_hardware(
    vm: &VmRecord,
    here: &HostRecord,
    there: &HostRecord,
    memory: &str,
) -> Option<String> {
    let (name, to) = (&vm.name, &there.name);
    let (ours, theirs) = (here.hardware.as_ref()?, there.hardware.as_ref()?);
    let live = manner(vm.state).mode == MigrationMode::Live;
    if live && !theirs.live_migration {
        return Some(format!(
            "host `{to}` cannot take a machine that runs: its hypervisor, {}, is too old",
            there.hypervisor
        ));
    }
    if live && !ours.live_migration {
        return Some(format!(
            "`{name}` cannot leave its host while it runs: the hypervisor there, {}, is too old",
            here.hypervisor
        ));
    }
    let differs = [
        ("machine type", &ours.machine_type, &theirs.machine_type),
        ("CPU model", &ours.cpu_model, &theirs.cpu_model),
    ];
    let differs = differs.into_iter().find(|(_, ours, theirs)| ours != theirs);
    differs.map(|(what, ours, theirs)| {
        format!(
            "host `{to}` gives machines {what} {theirs}, and the host of `{name}` {ours}: with {memory}, none can go from one to the other"
        )
    })
}

/// Nobody could send it.
pub fn source_is_away(vm: &VmRecord) -> String {
    format!("the host of `{}` is away", vm.name)
}

/// What keeps a VM on its host, whichever it is to go to.
pub async fn ties(conn: &impl Conn, vm: &VmRecord) -> vimana_store::Result<Option<String>> {
    let Some(left) = migration::find(conn, vm.id).await? else {
        return Ok(None);
    };
    let (name, peer) = (&vm.name, &left.peer.name);
    let what = if left.committed {
        "was on"
    } else {
        "was to go to"
    };
    Ok(Some(format!(
        "host `{peer}`, which `{name}` {what}, still holds something of it; that is removed as soon as the host connects"
    )))
}
