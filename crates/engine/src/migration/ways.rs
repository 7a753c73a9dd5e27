//! Where a VM can go, and what keeps it from going elsewhere.

use vimana_authz::Permission;
use vimana_model::action::{Refusal, VmAction};
use vimana_model::migration::{MigrationMode, MigrationTarget};
use vimana_model::state::VmState;
use vimana_model::{Error, VmId};
use vimana_store::host::HostRecord;
use vimana_store::vm::VmRecord;
use vimana_store::{Conn, host, host_datastore, migration, snapshot, vm, volume};

use super::disks::Disks;
use super::{Manner, host_ref, manner};
use crate::Engine;
use crate::authorize::authorized;
use crate::context::OpContext;
use crate::host::host_view;
use crate::placement::facts;

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
        VmAction::Migrate.judge(vm.state).map_err(refused)?;
        let on = vm.host.as_ref().map(|host| host.id);
        let all = host::list(&read).await?;
        let here = all.iter().find(|host| Some(host.id) == on);
        let disks = Disks {
            vm: &vm,
            volumes: &volume::of_vm(&read, id).await?,
            places: &host_datastore::list(&read).await?,
        };
        Ok(ways(&disks, here, &all))
    }
}

/// The hosts that a VM may go to, those that suit best first, and then those that
/// it cannot go to, each with the reason.
pub fn ways(
    disks: &Disks<'_>,
    here: Option<&HostRecord>,
    all: &[HostRecord],
) -> Vec<MigrationTarget> {
    let vm = disks.vm;
    let on = here.map(|here| here.id);
    let Manner { mode, holding, .. } = manner(vm.state);
    let size = holding.of(vm.resources);
    let others = all.iter().filter(|there| Some(there.id) != on);
    let mut targets: Vec<_> = others
        .map(|there| {
            let facts = facts(&host_view(there.clone(), Vec::new()));
            let refusal = obstacle(vm, here, there).or_else(|| {
                match disks.carried(on, there, mode == MigrationMode::Live) {
                    Ok(carried) => disks.lack(size, &carried, &facts),
                    Err(refusal) => Some(refusal),
                }
            });
            MigrationTarget {
                host: host_ref(there),
                score: vimana_placement::score(&size.into(), &facts),
                refusal,
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
pub fn obstacle(vm: &VmRecord, here: Option<&HostRecord>, there: &HostRecord) -> Option<String> {
    let (name, to) = (&vm.name, &there.name);
    if here.is_some_and(|here| here.id == there.id) {
        return Some(format!("`{name}` is on host `{to}` already"));
    }
    if let Some(refusal) = refusal_to_take(there) {
        return Some(refusal);
    }
    // A disk alone fits everywhere.
    let here = here.filter(|_| vm.state != VmState::PoweredOff)?;
    if there.zone != here.zone {
        return Some(format!(
            "host `{to}` is in zone `{}`, and `{name}` in zone `{}`: with its memory, a VM migrates within its zone",
            there.zone, here.zone
        ));
    }
    if there.accelerator != here.accelerator {
        return Some(format!(
            "host `{to}` runs machines with {}, and the host of `{name}` with {}: with its memory, none can go from one to the other",
            there.accelerator, here.accelerator
        ));
    }
    other_hardware(vm, here, there)
}

/// What keeps a machine with its memory from a host whose machines see something
/// else, as far as both have told.
fn other_hardware(vm: &VmRecord, here: &HostRecord, there: &HostRecord) -> Option<String> {
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
            "host `{to}` gives machines {what} {theirs}, and the host of `{name}` {ours}: with its memory, none can go from one to the other"
        )
    })
}

/// What keeps a VM on its host, whichever it is to go to.
pub async fn ties(conn: &impl Conn, vm: &VmRecord) -> vimana_store::Result<Option<String>> {
    if migration::find(conn, vm.id).await?.is_some() {
        let name = &vm.name;
        return Ok(Some(format!(
            "the host that `{name}` was on before is not cleaned yet; it is when it connects"
        )));
    }
    if snapshot::for_vm(conn, vm.id).await?.is_empty() {
        return Ok(None);
    }
    let name = &vm.name;
    Ok(Some(format!(
        "`{name}` has snapshots, which stay on its host; delete them first"
    )))
}
