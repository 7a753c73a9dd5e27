//! What tenants and users may have at most, and what they have: limits are
//! recorded, what is in use is summed up over what there is.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::sea_query::{Expr, ExprTrait as _, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait as _, FromQueryResult, PaginatorTrait as _,
    QueryFilter as _, QuerySelect as _, QueryTrait as _, SelectModel, Selector,
};
use vimana_model::TenantId;
use vimana_model::backup::BackupState;
use vimana_model::image::ImageState;
use vimana_model::name::{DatastoreName, UserName};
use vimana_model::quota::{Counted, Limit, Measure, QuotaLimit, Scope};
use vimana_model::volume::VolumeState;

use crate::column::Row;
use crate::entity::quota::{Column, Entity, Model};
use crate::entity::{backup as backup_row, image, snapshot, vm, volume};
use crate::store::Raw as _;
use crate::{Conn, Result, StoreError, WriteTx, backup, query};

/// The keys of its rows.
fn keys(scope: &Scope) -> (String, String) {
    match scope {
        Scope::AllTenants => (String::new(), String::new()),
        Scope::Tenant(tenant) => (tenant.to_string(), String::new()),
        Scope::AllUsers(tenant) => (tenant.to_string(), EVERYBODY.to_owned()),
        Scope::User(tenant, user) => (tenant.to_string(), user.to_string()),
    }
}

fn rows_of(scope: &Scope) -> Condition {
    let (tenant, user) = keys(scope);
    Condition::all()
        .add(Column::TenantId.eq(tenant))
        .add(Column::UserName.eq(user))
}

/// In place of a user's name; no user has it.
const EVERYBODY: &str = "*";

/// One limit, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRecord {
    pub scope: Scope,
    pub limit: QuotaLimit,
}

/// The limits that hold for a tenant, or for one of its users.
pub type Limits = BTreeMap<Counted, InForce>;

/// A limit that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    pub soft: Limit,
    pub hard: Limit,
    /// It is the default one.
    pub inherited: bool,
}

/// How much of everything is in use; what is absent is not.
pub type Usage = BTreeMap<Counted, u64>;

/// The limits that are recorded for that scope itself.
pub async fn own(conn: &impl Conn, scope: &Scope) -> Result<Vec<QuotaLimit>> {
    let found = Entity::find().filter(rows_of(scope));
    let found = query::all(found.all(conn.raw()).await?, from_row)?;
    let mut limits: Vec<_> = found.into_iter().map(|record| record.limit).collect();
    limits.sort_by_key(QuotaLimit::counted);
    Ok(limits)
}

/// Puts these in the place of all that are recorded for that scope.
///
/// # Errors
/// `Duplicate` "limit" where one thing is limited twice.
pub async fn replace(tx: &WriteTx, scope: &Scope, limits: &[QuotaLimit]) -> Result<()> {
    let delete = Entity::delete_many().filter(rows_of(scope));
    delete.exec(tx.raw()).await?;
    for limit in limits {
        query::insert::<Entity>(tx, to_row(scope, limit)?, "limit").await?;
    }
    Ok(())
}

/// What holds for the tenant, and for that user of it.
pub async fn in_force(
    conn: &impl Conn,
    tenant: TenantId,
    user: &UserName,
) -> Result<(Limits, Limits)> {
    let scopes = [
        Scope::AllTenants,
        Scope::Tenant(tenant),
        Scope::AllUsers(tenant),
        Scope::User(tenant, user.clone()),
    ];
    let found = of_scopes(conn, &scopes).await?;
    let (of_users, of_tenants) = found
        .into_iter()
        .partition(|record| matches!(record.scope, Scope::AllUsers(_) | Scope::User(_, _)));
    Ok((overlaid(of_tenants), overlaid(of_users)))
}

/// What holds where these are all that there is: the defaults, and the limits of
/// one tenant or user.
pub async fn in_force_for(conn: &impl Conn, scopes: &[Scope]) -> Result<Limits> {
    Ok(overlaid(of_scopes(conn, scopes).await?))
}

async fn of_scopes(conn: &impl Conn, scopes: &[Scope]) -> Result<Vec<QuotaRecord>> {
    let wanted = scopes
        .iter()
        .fold(Condition::any(), |wanted, scope| wanted.add(rows_of(scope)));
    let found = Entity::find().filter(wanted).all(conn.raw()).await?;
    query::all(found, from_row)
}

/// One's own limits take the place of the defaults.
fn overlaid(records: Vec<QuotaRecord>) -> Limits {
    let mut limits = Limits::new();
    for QuotaRecord { scope, limit } in records {
        let inherited = matches!(scope, Scope::AllTenants | Scope::AllUsers(_));
        let counted = limit.counted();
        if inherited && limits.contains_key(&counted) {
            continue;
        }
        let QuotaLimit { soft, hard, .. } = limit;
        let in_force = InForce {
            soft,
            hard,
            inherited,
        };
        limits.insert(counted, in_force);
    }
    limits
}

/// How much of these the tenant has in use, or one user of it has.
pub async fn usage(
    conn: &impl Conn,
    tenant: TenantId,
    user: Option<&UserName>,
    measures: &BTreeSet<Measure>,
) -> Result<Usage> {
    use Measure as M;
    let mut usage = Usage::new();
    let of = Whose { tenant, user };
    let wanted = |some: &[Measure]| some.iter().any(|one| measures.contains(one));
    let of_vms = [
        M::Vms,
        M::RunningVms,
        M::Vcpus,
        M::RunningVcpus,
        M::MemoryMib,
        M::RunningMemoryMib,
        M::DiskMib,
        M::Operations,
    ];
    if wanted(&of_vms) {
        count_vms(conn, of, &mut usage).await?;
    }
    if wanted(&[M::Volumes, M::VolumeMib]) {
        count_volumes(conn, of, &mut usage).await?;
    }
    if wanted(&[M::Snapshots]) {
        count_snapshots(conn, of, &mut usage).await?;
    }
    if wanted(&[M::Backups, M::BackupBytes]) {
        count_backups(conn, of, &mut usage).await?;
    }
    if wanted(&[M::Images, M::ImageBytes, M::Operations]) {
        count_images(conn, of, &mut usage).await?;
    }
    usage.retain(|counted, used| *used > 0 && measures.contains(&counted.measure));
    Ok(usage)
}

/// Whose things are counted.
#[derive(Clone, Copy)]
struct Whose<'a> {
    tenant: TenantId,
    /// All of them, or this user's.
    user: Option<&'a UserName>,
}

impl Whose<'_> {
    fn are<C: ColumnTrait>(self, tenant: C, owner: C) -> Condition {
        Condition::all()
            .add(tenant.eq(self.tenant.to_string()))
            .add_option(self.user.map(|user| owner.eq(user.as_str())))
    }
}

fn add(usage: &mut Usage, counted: impl Into<Counted>, more: u64) {
    let used = usage.entry(counted.into()).or_default();
    *used = used.saturating_add(more);
}

/// PostgreSQL makes more than 64 bits of a sum.
fn sum(column: impl ColumnTrait) -> SimpleExpr {
    Expr::expr(column.sum()).cast_as("BIGINT")
}

/// VMs that count alike.
#[derive(FromQueryResult)]
struct Vms {
    tenant_id: String,
    counts_running: bool,
    counts_operation: bool,
    vms: i64,
    vcpus: i64,
    memory_mib: i64,
    disk_mib: i64,
}

impl Vms {
    fn add_to(&self, usage: &mut Usage) -> Result<()> {
        let row = of("vms");
        let vms = row.amount("id", self.vms)?;
        let vcpus = row.amount("counts_vcpus", self.vcpus)?;
        let memory = row.amount("counts_memory_mib", self.memory_mib)?;
        let disk = row.amount("counts_disk_mib", self.disk_mib)?;
        add(usage, Measure::Vms, vms);
        add(usage, Measure::Vcpus, vcpus);
        add(usage, Measure::MemoryMib, memory);
        add(usage, Measure::DiskMib, disk);
        if self.counts_running {
            add(usage, Measure::RunningVms, vms);
            add(usage, Measure::RunningVcpus, vcpus);
            add(usage, Measure::RunningMemoryMib, memory);
        }
        if self.counts_operation {
            add(usage, Measure::Operations, vms);
        }
        Ok(())
    }
}

fn sums_of_vms(wanted: Condition) -> Selector<SelectModel<Vms>> {
    use vm::Column as C;
    vm::Entity::find()
        .select_only()
        .column(C::TenantId)
        .column(C::CountsRunning)
        .column(C::CountsOperation)
        .column_as(C::Id.count(), "vms")
        .column_as(sum(C::CountsVcpus), "vcpus")
        .column_as(sum(C::CountsMemoryMib), "memory_mib")
        .column_as(sum(C::CountsDiskMib), "disk_mib")
        .filter(wanted)
        .group_by(C::TenantId)
        .group_by(C::CountsRunning)
        .group_by(C::CountsOperation)
        .into_model()
}

/// What the VMs of every tenant that has some have in use.
pub async fn usage_of_tenants(conn: &impl Conn) -> Result<BTreeMap<TenantId, Usage>> {
    let sums = sums_of_vms(Condition::all().add(vm::Column::LiveName.is_not_null()));
    let mut usage: BTreeMap<TenantId, Usage> = BTreeMap::new();
    for sums in sums.all(conn.raw()).await? {
        let tenant = of("vms").parse("tenant_id", sums.tenant_id.clone())?;
        sums.add_to(usage.entry(tenant).or_default())?;
    }
    Ok(usage)
}

/// What holds for every tenant: the limits of those that have some of their own, and
/// what holds for all others.
pub async fn in_force_for_tenants(
    conn: &impl Conn,
) -> Result<(BTreeMap<TenantId, Limits>, Limits)> {
    let found = Entity::find().filter(Column::UserName.eq(""));
    let found = query::all(found.all(conn.raw()).await?, from_row)?;
    let mut by_tenant: BTreeMap<TenantId, Vec<QuotaRecord>> = BTreeMap::new();
    let mut defaults = Vec::new();
    for record in found {
        match record.scope {
            Scope::Tenant(id) => by_tenant.entry(id).or_default().push(record),
            Scope::AllTenants | Scope::AllUsers(_) | Scope::User(_, _) => defaults.push(record),
        }
    }
    let with_defaults = |own: Vec<QuotaRecord>| overlaid([own, defaults.clone()].concat());
    let limits = by_tenant.into_iter();
    let limits = limits.map(|(id, own)| (id, with_defaults(own))).collect();
    Ok((limits, overlaid(defaults)))
}

async fn count_vms(conn: &impl Conn, whose: Whose<'_>, usage: &mut Usage) -> Result<()> {
    use vm::Column as C;
    let live = whose
        .are(C::TenantId, C::OwnerName)
        .add(C::LiveName.is_not_null());
    for sums in sums_of_vms(live).all(conn.raw()).await? {
        sums.add_to(usage)?;
    }
    Ok(())
}

/// Sums have no row of their own.
const fn of(table: &'static str) -> Row<'static> {
    Row { table, key: "" }
}

async fn count_volumes(conn: &impl Conn, whose: Whose<'_>, usage: &mut Usage) -> Result<()> {
    use volume::Column as C;
    let row = of("volumes");
    let gone = [VolumeState::Removing, VolumeState::Removed];
    let gone = gone.iter().map(|state| row.to_slug("state", state));
    let gone = gone.collect::<Result<Vec<_>>>()?;
    let live = whose
        .are(C::TenantId, C::OwnerName)
        .add(C::State.is_not_in(gone));
    // One that moves is in two of them.
    for place in [C::Datastore, C::MovingTo] {
        let sums: Vec<(String, i64, i64)> = volume::Entity::find()
            .select_only()
            .column(place)
            .column_as(C::Id.count(), "volumes")
            .column_as(sum(C::SizeMib), "size")
            .filter(live.clone().add(place.is_not_null()))
            .group_by(place)
            .into_tuple()
            .all(conn.raw())
            .await?;
        for (datastore, volumes, size) in sums {
            let size = row.amount("size_mib", size)?;
            let there = Counted {
                measure: Measure::VolumeMib,
                datastore: Some(row.parse("datastore", datastore)?),
            };
            add(usage, there, size);
            if matches!(place, C::Datastore) {
                add(usage, Measure::Volumes, row.amount("id", volumes)?);
                add(usage, Measure::VolumeMib, size);
            }
        }
    }
    Ok(())
}

async fn count_snapshots(conn: &impl Conn, whose: Whose<'_>, usage: &mut Usage) -> Result<()> {
    use snapshot::Column as C;
    let Whose { tenant, user } = whose;
    let vms = vm::Entity::find()
        .select_only()
        .column(vm::Column::Id)
        .filter(vm::Column::TenantId.eq(tenant.to_string()))
        .filter(vm::Column::LiveName.is_not_null());
    let wanted = Condition::all()
        .add(C::VmId.in_subquery(vms.into_query()))
        .add_option(user.map(|user| C::OwnerName.eq(user.as_str())));
    let snapshots = snapshot::Entity::find().filter(wanted);
    add(
        usage,
        Measure::Snapshots,
        snapshots.count(conn.raw()).await?,
    );
    Ok(())
}

async fn count_backups(conn: &impl Conn, whose: Whose<'_>, usage: &mut Usage) -> Result<()> {
    use backup_row::Column as C;
    let row = of("backups");
    let kept = [BackupState::Making, BackupState::Ready];
    let kept = kept.iter().map(|state| row.to_slug("state", state));
    let kept = kept.collect::<Result<Vec<_>>>()?;
    let wanted = whose
        .are(C::TenantId, C::OwnerName)
        .add(C::State.is_in(kept));
    let found = backup_row::Entity::find().filter(wanted);
    for record in query::all(found.all(conn.raw()).await?, backup::from_row)? {
        add(usage, Measure::Backups, 1);
        add(usage, Measure::BackupBytes, record.stored_bytes());
    }
    Ok(())
}

/// What lies in the trash is no image any more, and has its bytes as long as it can
/// be brought back.
async fn count_images(conn: &impl Conn, whose: Whose<'_>, usage: &mut Usage) -> Result<()> {
    use image::Column as C;
    let row = of("images");
    let kept = [
        ImageState::Importing,
        ImageState::Ready,
        ImageState::Trashed,
    ];
    for state in kept {
        let wanted = whose
            .are(C::TenantId, C::OwnerName)
            .add(C::State.eq(row.to_slug("state", &state)?));
        let sums: Option<(i64, Option<i64>)> = image::Entity::find()
            .select_only()
            .column_as(C::Id.count(), "images")
            .column_as(sum(C::SizeBytes), "size")
            .filter(wanted)
            .into_tuple()
            .one(conn.raw())
            .await?;
        let (images, size) = sums.unwrap_or_default();
        let images = row.amount("id", images)?;
        if state != ImageState::Trashed {
            add(usage, Measure::Images, images);
        }
        let size = row.amount("size_bytes", size.unwrap_or(0))?;
        add(usage, Measure::ImageBytes, size);
        if state == ImageState::Importing {
            add(usage, Measure::Operations, images);
        }
    }
    Ok(())
}

fn to_row(scope: &Scope, limit: &QuotaLimit) -> Result<Model> {
    let QuotaLimit {
        measure,
        datastore,
        soft,
        hard,
    } = limit;
    let (tenant_id, user_name) = keys(scope);
    let row = Row {
        table: "quotas",
        key: &tenant_id,
    };
    let most = |column, limit: &Limit| {
        let most = limit.most().map(|most| row.to_amount(column, most));
        most.transpose()
    };
    Ok(Model {
        user_name,
        measure: measure.slug().to_owned(),
        datastore: datastore
            .as_ref()
            .map_or_else(String::new, DatastoreName::to_string),
        soft: most("soft", soft)?,
        hard: most("hard", hard)?,
        tenant_id,
    })
}

pub(crate) fn from_row(row: Model) -> Result<QuotaRecord> {
    let Model {
        tenant_id,
        user_name,
        measure,
        datastore,
        soft,
        hard,
    } = row;
    let row = Row {
        table: "quotas",
        key: &tenant_id.clone(),
    };
    let tenant = (!tenant_id.is_empty()).then(|| row.parse::<TenantId>("tenant_id", tenant_id));
    let scope = match (tenant.transpose()?, user_name.as_str()) {
        (None, "") => Scope::AllTenants,
        (Some(tenant), "") => Scope::Tenant(tenant),
        (Some(tenant), EVERYBODY) => Scope::AllUsers(tenant),
        (Some(tenant), _) => Scope::User(tenant, row.parse("user_name", user_name)?),
        (None, _) => return Err(row.corrupt("user_name")),
    };
    let datastore = (!datastore.is_empty()).then(|| row.parse("datastore", datastore));
    let most = |column, limit: Option<i64>| -> Result<Limit, StoreError> {
        let most = limit.map(|limit| row.amount(column, limit)).transpose()?;
        Ok(most.into())
    };
    Ok(QuotaRecord {
        scope,
        limit: QuotaLimit {
            measure: row.slug("measure", measure)?,
            datastore: datastore.transpose()?,
            soft: most("soft", soft)?,
            hard: most("hard", hard)?,
        },
    })
}
