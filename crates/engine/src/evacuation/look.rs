//! How far the evacuation of a host is: read off its VMs, their operations, and
//! what they hold of other hosts. Nothing else is kept of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vimana_model::action::VmAction;
use vimana_model::evacuation::{EvacuationView, LeavingVm, MAX_TRIES, StuckVm, WaitingVm};
use vimana_model::host::DesiredState;
use vimana_model::migration::CopyProgress;
use vimana_model::operation::OperationState;
use vimana_model::vm::HostRef;
use vimana_model::volume::VmRef;
use vimana_model::{HostId, OperationId, Timestamp, VmId};
use vimana_store::host::{EvacuationRecord, HostRecord};
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::migration::MigrationRecord;
use vimana_store::operation::{MigrationPlan, OperationRecord};
use vimana_store::vm::VmRecord;
use vimana_store::{
    Conn, Result, host, host_datastore, migration, operation, snapshot, vm, volume,
};

use crate::migration::{Disks, ties, ways};

/// Most hosts whose refusals are told of one VM.
const MAX_REFUSALS: usize = 3;

/// What there is to be done about the VMs of a host.
#[derive(Default)]
pub struct Look {
    pub moved: u32,
    pub moving: Vec<Moving>,
    /// In the order in which they go.
    pub ready: Vec<Ready>,
    pub waiting: Vec<(VmRef, String)>,
    pub stuck: Vec<(VmRef, String)>,
    /// In how long the first of those that rest goes again.
    pub goes_again: Option<Duration>,
}

/// How soon a VM is sent away again.
#[derive(Clone, Copy)]
pub struct Pace {
    pub now: Timestamp,
    /// See [`crate::Settings::evacuation_pause`].
    pub pause: Duration,
}

/// A VM that can go.
pub struct Ready {
    pub vm: VmRecord,
    /// The hosts that it did not get to.
    pub tried: Vec<HostId>,
}

/// A VM on its way.
pub struct Moving {
    vm: VmRef,
    to: HostRef,
    operation_id: OperationId,
}

/// Where a VM of the host stands.
enum Standing {
    Moving(HostRef, OperationId),
    Ready,
    /// For so long.
    Rests(String, Duration),
    Waits(String),
    Stuck(String),
}

/// What is read once for all VMs of the host.
struct Scene<'a> {
    here: &'a HostRecord,
    hosts: Vec<HostRecord>,
    places: Vec<HostDatastoreRecord>,
    /// Operations in flight of the VMs that are there.
    in_flight: BTreeMap<OperationId, OperationRecord>,
    /// What was tried since the evacuation began and came to nothing, by VM.
    tries: BTreeMap<VmId, Vec<OperationRecord>>,
    pace: Pace,
}

pub async fn look(
    conn: &impl Conn,
    here: &HostRecord,
    evacuation: &EvacuationRecord,
    pace: Pace,
) -> Result<Look> {
    let mut look = Look::default();
    let vms = vm::on_host(conn, here.id).await?;
    let mut gone = BTreeSet::new();
    let mut tries: BTreeMap<VmId, Vec<OperationRecord>> = BTreeMap::new();
    for record in operation::migrations_since(conn, evacuation.begun_at).await? {
        let left_here = leaving(&record, here.id).is_some();
        let Some(vm) = record.object.vm().filter(|_| left_here) else {
            continue;
        };
        match record.state {
            OperationState::Running | OperationState::Undoing => {}
            OperationState::Succeeded => {
                gone.insert(vm);
            }
            OperationState::Failed | OperationState::Cancelled => {
                tries.entry(vm).or_default().push(record);
            }
        }
    }
    look.moved = u32::try_from(gone.len()).unwrap_or(u32::MAX);
    let latest: Vec<OperationId> = vms.iter().filter_map(|vm| vm.operation_id).collect();
    let latest = operation::find_many(conn, &latest).await?;
    let in_flight = latest.into_iter().filter(|found| !found.state.is_over());
    let scene = Scene {
        here,
        hosts: host::list(conn).await?,
        places: host_datastore::list(conn).await?,
        in_flight: in_flight.map(|found| (found.id, found)).collect(),
        tries,
        pace,
    };
    for record in vms {
        let reference = vm_ref(&record);
        match scene.standing(conn, &record).await? {
            Standing::Moving(to, operation_id) => look.moving.push(Moving {
                vm: reference,
                to,
                operation_id,
            }),
            Standing::Ready => look.ready.push(Ready {
                tried: scene.tried(record.id),
                vm: record,
            }),
            Standing::Rests(reason, left) => {
                look.waiting.push((reference, reason));
                let first = look.goes_again.map_or(left, |first| first.min(left));
                look.goes_again = Some(first);
            }
            Standing::Waits(reason) => look.waiting.push((reference, reason)),
            Standing::Stuck(reason) => look.stuck.push((reference, reason)),
        }
    }
    for found in migration::on_host(conn, here.id).await? {
        look_at_guest(conn, &mut look, found).await?;
    }
    Ok(look)
}

/// A VM of another host that holds something here: it comes, or has gone.
async fn look_at_guest(conn: &impl Conn, look: &mut Look, found: MigrationRecord) -> Result<()> {
    let Some(record) = vm::find(conn, found.vm_id).await? else {
        return Ok(());
    };
    let reference = vm_ref(&record);
    let migrates = operation::find(conn, found.operation_id).await?;
    let under_way = migrates.is_some_and(|found| !found.state.is_over());
    let name = &record.name;
    match (under_way, found.committed, record.host) {
        (true, true, Some(to)) => look.moving.push(Moving {
            vm: reference,
            to,
            operation_id: found.operation_id,
        }),
        (true, false, _) | (true, true, None) => {
            let reason = format!("`{name}` is on its way to this host");
            look.waiting.push((reference, reason));
        }
        (false, _, _) => {
            let reason = format!("what `{name}` left here is not cleaned yet");
            look.stuck.push((reference, reason));
        }
    }
    Ok(())
}

/// How many VMs are on their way from the host.
pub async fn on_their_way(conn: &impl Conn, from: HostId) -> Result<usize> {
    let all = migration::list(conn).await?;
    let ids: Vec<OperationId> = all.iter().map(|found| found.operation_id).collect();
    let operations = operation::find_many(conn, &ids).await?;
    let leaves = operations
        .iter()
        .filter(|found| !found.state.is_over() && leaving(found, from).is_some());
    Ok(leaves.count())
}

impl Scene<'_> {
    async fn standing(&self, conn: &impl Conn, vm: &VmRecord) -> Result<Standing> {
        let in_flight = vm.operation_id.and_then(|id| self.in_flight.get(&id));
        if let Some(found) = in_flight
            && let Some(plan) = leaving(found, self.here.id)
        {
            return Ok(Standing::Moving(plan.to.clone(), found.id));
        }
        let kind = in_flight.map(|found| found.kind);
        if let Err(refusal) = VmAction::Migrate.accept(vm.state, kind) {
            let reason = format!("`{}` {refusal}", vm.name);
            // What is in flight ends.
            return Ok(match kind {
                Some(_) => Standing::Waits(reason),
                None => Standing::Stuck(reason),
            });
        }
        if let Some(reason) = self.exhausted(vm.id) {
            return Ok(Standing::Stuck(reason));
        }
        if let Some(reason) = ties(conn, vm).await? {
            return Ok(Standing::Stuck(reason));
        }
        if let Some(reason) = self.walled_in(conn, vm).await? {
            return Ok(Standing::Stuck(reason));
        }
        if !self.here.connected {
            let reason = format!("host `{}` is away", self.here.name);
            return Ok(Standing::Waits(reason));
        }
        Ok(self.rests(vm.id).unwrap_or(Standing::Ready))
    }

    /// A VM that was sent away in vain a moment ago: what kept it may pass.
    fn rests(&self, vm: VmId) -> Option<Standing> {
        let tries = self.tries.get(&vm)?;
        let last = tries.last()?;
        let times = u32::try_from(tries.len()).unwrap_or(u32::MAX);
        // One that ended in the future ended before the clock was set.
        let since = u64::try_from(self.pace.now.since_ms(last.ended_at?)).ok()?;
        let pause = self.pace.pause.saturating_mul(times);
        let left = pause.saturating_sub(Duration::from_millis(since));
        (!left.is_zero()).then(|| {
            let why = why(last);
            let reason = format!("it did not go, and is sent again in a moment: {why}");
            Standing::Rests(reason, left)
        })
    }

    fn tried(&self, vm: VmId) -> Vec<HostId> {
        let tries = self.tries.get(&vm).into_iter().flatten();
        let plans = tries.filter_map(|found| leaving(found, self.here.id));
        plans.map(|plan| plan.to.id).collect()
    }

    /// Why the VM is not sent on its way again, where it was as often as it may.
    fn exhausted(&self, vm: VmId) -> Option<String> {
        let tries = self.tries.get(&vm)?;
        let last = tries.last().filter(|_| is_exhausted(tries.len()))?;
        let why = why(last);
        Some(format!("tried {} times; the last time: {why}", tries.len()))
    }

    /// Why no host takes the VM, where none does.
    async fn walled_in(&self, conn: &impl Conn, vm: &VmRecord) -> Result<Option<String>> {
        let disks = Disks {
            vm,
            volumes: &volume::of_vm(conn, vm.id).await?,
            snapshots: &snapshot::for_vm(conn, vm.id).await?,
            places: &self.places,
        };
        let ways = ways(&disks, Some(self.here), &self.hosts);
        if ways.iter().any(|way| way.refusal.is_none()) {
            return Ok(None);
        }
        let refusals = ways.into_iter().filter_map(|way| way.refusal);
        let mut refusals: Vec<String> = refusals.collect();
        // What it is about is the VM itself.
        refusals.dedup();
        let mut told: Vec<String> = refusals.iter().take(MAX_REFUSALS).cloned().collect();
        match refusals.len().saturating_sub(MAX_REFUSALS) {
            0 if told.is_empty() => return Ok(Some("there is no other host".to_owned())),
            0 => {}
            more => told.push(format!("and so on for {more} more")),
        }
        Ok(Some(told.join("; ")))
    }
}

/// Why a try came to nothing.
fn why(tried: &OperationRecord) -> &str {
    tried.error.as_deref().unwrap_or("it was cancelled")
}

/// Whether a VM was sent on its way in vain as often as it may be.
pub fn is_exhausted(tries: usize) -> bool {
    usize::try_from(MAX_TRIES).is_ok_and(|most| tries >= most)
}

/// Where the operation brings its machine, if that is from `host` to another.
pub fn leaving(operation: &OperationRecord, host: HostId) -> Option<&MigrationPlan> {
    let mut steps = operation.steps.iter();
    let plan = steps.find_map(|step| step.migration.as_ref())?;
    let from = plan.from.as_ref()?.id;
    // Volumes alone stay on their host.
    (from == host && plan.to.id != host).then_some(plan)
}

fn vm_ref(vm: &VmRecord) -> VmRef {
    VmRef {
        id: vm.id,
        name: vm.name.clone(),
    }
}

pub fn view(
    host: HostRecord,
    evacuation: EvacuationRecord,
    look: Look,
    copy: impl Fn(OperationId) -> Option<CopyProgress>,
) -> EvacuationView {
    let Look {
        moved,
        moving,
        ready,
        waiting,
        stuck,
        goes_again: _,
    } = look;
    let leaving = |Moving {
                       vm,
                       to,
                       operation_id,
                   }| LeavingVm {
        vm,
        to,
        operation_id,
        copy: copy(operation_id),
    };
    let next = ready.iter().map(|ready| WaitingVm {
        vm: vm_ref(&ready.vm),
        reason: None,
    });
    let waits = waiting.into_iter().map(|(vm, reason)| WaitingVm {
        vm,
        reason: Some(reason),
    });
    let stays = stuck.into_iter().map(|(vm, reason)| StuckVm { vm, reason });
    EvacuationView {
        host_id: host.id,
        host: host.name,
        state: host.state,
        begun_at: evacuation.begun_at,
        by: evacuation.by,
        limit: evacuation.limit,
        over: host.desired == DesiredState::Maintenance,
        moved,
        moving: moving.into_iter().map(leaving).collect(),
        waiting: next.chain(waits).collect(),
        stuck: stays.collect(),
        orphans: host.orphans,
    }
}
