//! Quotas: what a tenant or a user takes more of is asked for in the transaction
//! that accepts it, once it is recorded there.
//!
//! Usage is never recorded on its own. It is the sum over what there is, so it
//! cannot drift; a VM's row says what it counts (`Counts`), which follows from its
//! state and the operation in flight. Whoever takes more holds the tenant's row
//! until the end of the transaction, so two who ask at once cannot both have the
//! last of something. What gives back asks nobody.

use std::collections::{BTreeMap, BTreeSet};

use vimana_authz::Permission;
use vimana_model::name::{DatastoreName, UserName};
use vimana_model::operation::{OperationKind, StepKind};
use vimana_model::quota::{
    Counted, Limit, Measure, OwnQuotaView, QuotaLine, QuotaView, Scope, SetQuota, TenantQuotaView,
    refusal, warning,
};
use vimana_model::state::VmState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{Error, Result, TenantId};
use vimana_store::operation::OperationRecord;
use vimana_store::quota::{self, InForce, Limits, Usage};
use vimana_store::tenant::TenantRecord;
use vimana_store::vm::{Counts, VmRecord};
use vimana_store::{Conn, TxError, WriteTx, tenant, user, write_tx};

use crate::Engine;
use crate::authorize::{Owned, authorized, current, permit};
use crate::context::OpContext;
use crate::idempotency::{recall, remember};

/// What is taken more of; 0 of what nobody knows the amount of yet.
pub type Growth = BTreeMap<Counted, u64>;

/// What a VM counts, with its operation in flight.
pub fn counts(vm: &VmRecord, in_flight: Option<&OperationRecord>) -> Counts {
    let kind = in_flight.map(|operation| operation.kind);
    // A running machine is larger once it is resized; what it is to be is taken now.
    let targets = in_flight.into_iter().flat_map(|operation| &operation.steps);
    let targets = targets.filter_map(|step| Some(step.target.as_ref()?.resources));
    let largest = targets.fold(vm.resources, |mut largest, target| {
        largest.vcpus = largest.vcpus.max(target.vcpus);
        largest.memory_mib = largest.memory_mib.max(target.memory_mib);
        largest.disk_mib = largest.disk_mib.max(target.disk_mib);
        largest
    });
    Counts {
        running: runs(vm, in_flight),
        operation: vm.state != VmState::Hold && kind.is_some_and(takes_a_turn),
        vcpus: largest.vcpus,
        memory: largest.memory_mib,
        disk: largest.disk_mib,
    }
}

/// Whether it runs, or is to: from the moment that this is accepted to the one in
/// which it is at rest.
fn runs(vm: &VmRecord, in_flight: Option<&OperationRecord>) -> bool {
    match vm.state {
        VmState::Pending
        | VmState::Prolog
        | VmState::Boot
        | VmState::Running
        | VmState::Migrate
        | VmState::Shutdown => true,
        VmState::Hold | VmState::Epilog | VmState::Done => false,
        VmState::Suspended | VmState::Stopped | VmState::PoweredOff | VmState::Failed => {
            in_flight.is_some_and(will_run)
        }
        // Nobody knows: it is as it was.
        VmState::Unknown => vm.counts.running,
    }
}

/// Whether a machine at rest is to run: that is what is being done, or what becomes
/// of it where a stop fails or is cancelled.
fn will_run(operation: &OperationRecord) -> bool {
    let kind = operation.kind;
    if kind == OperationKind::Stop {
        let ran = operation
            .steps
            .iter()
            .any(|step| step.kind == StepKind::Save);
        let step = usize::try_from(operation.step).ok();
        let step = step.and_then(|step| operation.steps.get(step));
        return ran && step.is_some_and(|step| !kind.is_past_return(step.kind));
    }
    matches!(
        kind,
        OperationKind::Create | OperationKind::Start | OperationKind::Resume
    )
}

/// What a VM counts more than before.
pub fn growth(before: Counts, after: Counts) -> Growth {
    let mut growth = Growth::new();
    let mut more = |measure: Measure, before: u64, after: u64| {
        if after > before {
            growth.insert(measure.into(), after - before);
        }
    };
    let running = |counts: Counts, amount: u64| if counts.running { amount } else { 0 };
    let vcpus = |counts: Counts| u64::from(counts.vcpus);
    let memory = |counts: Counts| counts.memory.0;
    more(Measure::Vcpus, vcpus(before), vcpus(after));
    more(Measure::MemoryMib, memory(before), memory(after));
    more(Measure::DiskMib, before.disk.0, after.disk.0);
    more(Measure::RunningVms, running(before, 1), running(after, 1));
    more(
        Measure::RunningVcpus,
        running(before, vcpus(before)),
        running(after, vcpus(after)),
    );
    more(
        Measure::RunningMemoryMib,
        running(before, memory(before)),
        running(after, memory(after)),
    );
    more(
        Measure::Operations,
        before.operation.into(),
        after.operation.into(),
    );
    growth
}

/// Whether it counts as one of the operations at once. What gives something back
/// never waits for a turn, nor does what the provider does.
const fn takes_a_turn(kind: OperationKind) -> bool {
    match kind {
        OperationKind::Create
        | OperationKind::Start
        | OperationKind::Resume
        | OperationKind::Reboot
        | OperationKind::Reset
        | OperationKind::Resize
        | OperationKind::Snapshot
        | OperationKind::Revert
        | OperationKind::Backup
        | OperationKind::Attach
        | OperationKind::Grow
        | OperationKind::Import
        | OperationKind::Refresh => true,
        OperationKind::Suspend
        | OperationKind::Stop
        | OperationKind::PowerOff
        | OperationKind::Shutdown
        | OperationKind::Delete
        | OperationKind::RemoveSnapshot
        | OperationKind::Detach
        | OperationKind::Move
        | OperationKind::Migrate => false,
    }
}

/// What a VM that comes to be counts.
pub fn of_new(counts: Counts) -> Growth {
    let mut growth = growth(Counts::default(), counts);
    growth.insert(Measure::Vms.into(), 1);
    growth
}

/// What one of that size is to count.
pub const fn to_be(size: Resources) -> Counts {
    Counts {
        running: true,
        operation: true,
        vcpus: size.vcpus,
        memory: size.memory_mib,
        disk: size.disk_mib,
    }
}

/// Both together.
pub fn sum(mut growth: Growth, other: Growth) -> Growth {
    for (counted, more) in other {
        let amount = growth.entry(counted).or_default();
        *amount = amount.saturating_add(more);
    }
    growth
}

/// What so much more of a volume counts.
pub fn of_volume(datastore: &DatastoreName, size: MiB) -> Growth {
    let mut growth = of_place(datastore, size);
    growth.insert(Measure::VolumeMib.into(), size.0);
    growth
}

/// What a volume that comes to be counts.
pub fn of_new_volume(datastore: &DatastoreName, size: MiB) -> Growth {
    let mut growth = of_volume(datastore, size);
    growth.insert(Measure::Volumes.into(), 1);
    growth
}

/// What a volume counts in a datastore that it comes to.
pub fn of_place(datastore: &DatastoreName, size: MiB) -> Growth {
    let there = Counted {
        measure: Measure::VolumeMib,
        datastore: Some(datastore.clone()),
    };
    Growth::from([(there, size.0)])
}

/// Lets the user of that tenant have so much more, which this transaction has
/// recorded already; answers a sentence for each soft limit that is passed by it.
///
/// # Errors
/// `OverQuota` with the first limit that it does not fit.
pub async fn admit(
    tx: &WriteTx,
    tenant_id: TenantId,
    user: &UserName,
    growth: &Growth,
) -> Result<Vec<String>, TxError> {
    judge(tx, tenant_id, user, growth, Recorded::Already).await
}

/// Asks whether that user may have so much more, which nothing is recorded of: for
/// who cannot go back once it is. What is true stays so until the transaction ends.
///
/// # Errors
/// As [`admit`].
pub async fn may_have(
    tx: &WriteTx,
    tenant_id: TenantId,
    user: &UserName,
    growth: &Growth,
) -> Result<(), TxError> {
    judge(tx, tenant_id, user, growth, Recorded::NotYet).await?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recorded {
    Already,
    NotYet,
}

async fn judge(
    tx: &WriteTx,
    tenant_id: TenantId,
    user: &UserName,
    growth: &Growth,
    recorded: Recorded,
) -> Result<Vec<String>, TxError> {
    let mut warnings = Vec::new();
    if growth.is_empty() {
        return Ok(warnings);
    }
    let (of_tenant, of_user) = quota::in_force(tx, tenant_id, user).await?;
    if !limits_any(&of_tenant, growth) && !limits_any(&of_user, growth) {
        return Ok(warnings);
    }
    let tenant = tenant::lock(tx, tenant_id).await?;
    let tenant = tenant.ok_or_else(|| Error::not_found("your tenant"))?;
    let scopes = [
        (of_tenant, None, format!("tenant `{}`", tenant.name)),
        (of_user, Some(user), format!("user `{user}`")),
    ];
    for (limits, user, whose) in scopes {
        if !limits_any(&limits, growth) {
            continue;
        }
        let measures = growth.keys().map(|counted| counted.measure).collect();
        let usage = quota::usage(tx, tenant_id, user, &measures).await?;
        for (counted, more) in growth {
            let Some(limit) = limits.get(counted) else {
                continue;
            };
            let used = usage.get(counted).copied().unwrap_or_default();
            let (before, now) = match recorded {
                Recorded::Already => (used.saturating_sub(*more), used),
                Recorded::NotYet => (used, used.saturating_add(*more)),
            };
            if let Some(hard) = limit.hard.most()
                && !fits(now, *more, hard)
            {
                let sentence = refusal(&whose, counted, before, *more, hard);
                return Err(Error::over_quota(sentence).into());
            }
            if let Some(soft) = limit.soft.most()
                && now > soft
                && before <= soft
            {
                warnings.push(warning(&whose, counted, now, soft));
            }
        }
    }
    Ok(warnings)
}

/// Where nobody knows yet how much more it becomes, something must be left.
const fn fits(now: u64, more: u64, hard: u64) -> bool {
    now < hard || (more > 0 && now == hard)
}

fn limits_any(limits: &Limits, growth: &Growth) -> bool {
    growth.keys().any(|counted| limits.contains_key(counted))
}

impl Owned for TenantRecord {
    fn tenant_id(&self) -> Option<TenantId> {
        Some(self.id)
    }
}

impl Engine {
    /// What the caller may have in their tenant, and has.
    ///
    /// # Errors
    /// The database fails.
    pub async fn own_quota(&self, cx: &OpContext) -> Result<OwnQuotaView> {
        let tenant_id = cx.subject.tenant_id;
        permit(cx, Permission::ViewQuota, Some(tenant_id))?;
        let user = &cx.subject.user_name;
        let read = self.store().read();
        let (of_tenant, of_user) = quota::in_force(&read, tenant_id, user).await?;
        let all = all_measures();
        let used = quota::usage(&read, tenant_id, None, &all).await?;
        let used_by_user = quota::usage(&read, tenant_id, Some(user), &all).await?;
        Ok(OwnQuotaView {
            tenant: lines(&of_tenant, &used),
            user: lines(&of_user, &used_by_user),
        })
    }

    /// Every tenant, by name, with what its VMs have in use.
    ///
    /// # Errors
    /// `Forbidden` for anyone but the provider's staff.
    pub async fn tenant_quotas(&self, cx: &OpContext) -> Result<Vec<TenantQuotaView>> {
        let tenants = self.tenants(cx).await?;
        let read = self.store().read();
        let (limits, defaults) = quota::in_force_for_tenants(&read).await?;
        let usage = quota::usage_of_tenants(&read).await?;
        let views = tenants.into_iter().map(|tenant| {
            let limits = limits.get(&tenant.id).unwrap_or(&defaults);
            let usage = usage.get(&tenant.id).cloned().unwrap_or_default();
            let line = |measure: Measure| line(measure.into(), limits, &usage);
            TenantQuotaView {
                lines: Measure::OF_VMS.map(line).into(),
                tenant,
            }
        });
        Ok(views.collect())
    }

    /// The limits of a tenant, or of one of its users, with what is used of them;
    /// of those that hold for all, the limits alone.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn quota(&self, cx: &OpContext, scope: &Scope) -> Result<QuotaView> {
        let read = self.store().read();
        look_at(&read, cx, Permission::ViewQuota, scope).await?;
        view(&read, scope).await
    }

    /// Gives them these limits of their own, in the place of those they had.
    ///
    /// # Errors
    /// `Invalid` naming each limit at fault, `NotFound`, `Forbidden`.
    pub async fn set_quota(
        &self,
        cx: &OpContext,
        scope: &Scope,
        form: &SetQuota,
    ) -> Result<QuotaView> {
        form.check()?;
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            look_at(tx, cx, permission_to_set(scope), scope).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            // Whoever has asked what may be had is told the truth until they are done.
            if let Scope::Tenant(id) | Scope::AllUsers(id) | Scope::User(id, _) = scope {
                tenant::lock(tx, *id).await?;
            }
            quota::replace(tx, scope, &form.limits).await?;
            let answer = view(tx, scope).await?;
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })
    }
}

/// A tenant never raises its own limits: its managers share out what it has.
const fn permission_to_set(scope: &Scope) -> Permission {
    match scope {
        Scope::AllTenants | Scope::Tenant(_) => Permission::SetQuota,
        Scope::AllUsers(_) | Scope::User(_, _) => Permission::ShareQuota,
    }
}

async fn look_at(
    conn: &impl Conn,
    cx: &OpContext,
    permission: Permission,
    scope: &Scope,
) -> Result<()> {
    let (Scope::Tenant(id) | Scope::AllUsers(id) | Scope::User(id, _)) = scope else {
        return permit(cx, permission, None);
    };
    let found = tenant::find(conn, *id).await?;
    let found = authorized(cx, permission, format!("tenant `{id}`"), found)?;
    if let Scope::User(_, name) = scope {
        let absent = || Error::not_found(format!("user `{name}` of tenant `{}`", found.name));
        let user = user::find_by_name(conn, name).await?.ok_or_else(absent)?;
        let memberships = user::memberships(conn, user.id).await?;
        if !memberships.iter().any(|member| member.tenant_id == *id) {
            return Err(absent());
        }
    }
    Ok(())
}

async fn view(conn: &impl Conn, scope: &Scope) -> Result<QuotaView> {
    let all = all_measures();
    let lines = match scope {
        Scope::AllTenants | Scope::AllUsers(_) => {
            let own = quota::own(conn, scope).await?;
            let own = own.into_iter().map(|limit| {
                let in_force = InForce {
                    soft: limit.soft,
                    hard: limit.hard,
                    inherited: false,
                };
                (limit.counted(), in_force)
            });
            lines(&own.collect(), &Usage::new())
        }
        Scope::Tenant(id) => {
            let limits = quota::in_force_for(conn, &[Scope::AllTenants, scope.clone()]).await?;
            lines(&limits, &quota::usage(conn, *id, None, &all).await?)
        }
        Scope::User(id, user) => {
            let limits = quota::in_force_for(conn, &[Scope::AllUsers(*id), scope.clone()]).await?;
            lines(&limits, &quota::usage(conn, *id, Some(user), &all).await?)
        }
    };
    Ok(QuotaView { lines })
}

fn all_measures() -> BTreeSet<Measure> {
    Measure::ALL.into()
}

/// Everything that is counted, and each datastore that something is known of.
fn lines(limits: &Limits, usage: &Usage) -> Vec<QuotaLine> {
    let everywhere = Measure::ALL.into_iter().map(Counted::from);
    let all: BTreeSet<Counted> = everywhere
        .chain(limits.keys().cloned())
        .chain(usage.keys().cloned())
        .collect();
    all.into_iter()
        .map(|counted| line(counted, limits, usage))
        .collect()
}

fn line(counted: Counted, limits: &Limits, usage: &Usage) -> QuotaLine {
    let limit = limits.get(&counted).copied().unwrap_or(InForce {
        soft: Limit::Unlimited,
        hard: Limit::Unlimited,
        inherited: true,
    });
    QuotaLine {
        used: usage.get(&counted).copied().unwrap_or_default(),
        measure: counted.measure,
        datastore: counted.datastore,
        soft: limit.soft,
        hard: limit.hard,
        inherited: limit.inherited,
    }
}

#[cfg(test)]
mod tests {
    use vimana_model::operation::{Object, Situation};
    use vimana_model::{OperationId, Timestamp, VmId};

    use super::*;
    use crate::operation::begun;

    #[test]
    fn a_stop_that_may_still_be_called_off_gives_nothing_back() {
        let stop = |runs: bool, step: u32| {
            let at = Situation {
                on_host: true,
                runs,
                ..Situation::default()
            };
            let kind = OperationKind::Stop;
            let id = OperationId::from_parts(1, [1; 10]);
            let vm = Object::Vm(VmId::from_parts(1, [1; 10]));
            let now = Timestamp::from_ms(0);
            let mut stop = begun(id, vm, kind, kind.steps(at), "ada", now);
            stop.step = step;
            stop
        };
        let of = |runs, steps: [u32; 3]| steps.map(|step| will_run(&stop(runs, step)));
        // Save, upload, clean; and after the last of them.
        assert_eq!(of(true, [0, 1, 2]), [true, true, false]);
        assert!(!will_run(&stop(true, 3)));
        // One that was suspended already.
        assert_eq!(of(false, [0, 1, 2]), [false; 3]);
    }
}
