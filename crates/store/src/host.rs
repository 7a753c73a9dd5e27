//! Machines with an agent.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait as _, ActiveValue, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _,
    QueryFilter as _,
};
use serde::{Deserialize, Serialize};
use vimana_model::host::{Accelerator, DesiredState, Hardware, HostState};
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::Resources;
use vimana_model::{HostId, Timestamp};

use crate::column::{Row, time, to_time};
use crate::entity::host::{ActiveModel, Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord {
    pub id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub state: HostState,
    pub connected: bool,
    pub hypervisor: String,
    pub accelerator: Accelerator,
    pub accelerator_note: String,
    pub capacity: Resources,
    /// Sum of the claims on it; only `claim` writes it.
    pub used: Resources,
    /// Number of the claims on it; only `claim` writes it.
    pub vms: u32,
    pub agent_version: String,
    pub connected_since: Option<Timestamp>,
    pub silent_since: Option<Timestamp>,
    /// Running machines can get more vCPUs or memory.
    pub hot_resize: bool,
    /// What its machines see; absent where its agent has not told.
    pub hardware: Option<Hardware>,
    /// The protocol version of its latest session; 0 before the first.
    pub protocol: u32,
    /// What it proves itself with; only `enrolment` writes this and the next
    /// three.
    pub certificate: Option<HostCertificate>,
    /// Since when its certificate is not accepted any more.
    pub revoked_at: Option<Timestamp>,
    /// The latest session that the host is known to know of.
    pub session_number: u64,
    /// The latest session it was offered.
    pub session_offered: u64,
    /// Number of machines it holds that are not recorded there; only `orphan`
    /// writes it.
    pub orphans: u32,
    /// What is wanted of it; only [`set_desired`] writes this and the next one.
    pub desired: DesiredState,
    /// How it is drained; kept while it is in maintenance.
    pub evacuation: Option<EvacuationRecord>,
}

/// How the VMs of a host are moved away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvacuationRecord {
    pub begun_at: Timestamp,
    /// Name of the user who asked for it.
    pub by: String,
    /// VMs on their way at once.
    pub limit: u32,
    /// So many machines were left when it was told that none of them can be moved;
    /// absent while one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<u32>,
}

/// The certificate a host proves itself with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostCertificate {
    /// Hexadecimal serial number.
    pub serial: String,
    /// Hexadecimal SHA-256 of its public key.
    pub fingerprint: String,
    pub expires_at: Timestamp,
    /// Where it came with a join token: the host's last session before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_after: Option<u64>,
    /// Those handed out later and not used yet, the latest last. Several,
    /// where answers were lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<HostCertificate>,
}

/// # Errors
/// `Duplicate` "host name".
pub async fn insert(tx: &WriteTx, host: &HostRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(host)?, NAME).await
}

const NAME: &str = "host name";

pub async fn find(conn: &impl Conn, id: HostId) -> Result<Option<HostRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

pub async fn find_by_name(conn: &impl Conn, name: &HostName) -> Result<Option<HostRecord>> {
    let found = Entity::find().filter(Column::Name.eq(name.as_str()));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Those of `ids` that exist, in no particular order.
pub async fn find_many(conn: &impl Conn, ids: &[HostId]) -> Result<Vec<HostRecord>> {
    let mut hosts = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let found = Entity::find().filter(Column::Id.is_in(chunk.iter().map(HostId::to_string)));
        for row in found.all(conn.raw()).await? {
            hosts.push(from_row(row)?);
        }
    }
    Ok(hosts)
}

/// All, by name.
pub async fn list(conn: &impl Conn) -> Result<Vec<HostRecord>> {
    let mut hosts = query::all(Entity::find().all(conn.raw()).await?, from_row)?;
    // Here and not there: PostgreSQL sorts names by its locale.
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(hosts)
}

/// Those that are not connected and not known to be silent yet, by name.
pub async fn away(conn: &impl Conn) -> Result<Vec<HostRecord>> {
    let found = Entity::find()
        .filter(Column::Connected.eq(false))
        .filter(Column::State.ne(HostState::Unknown.slug()));
    let mut hosts = query::all(found.all(conn.raw()).await?, from_row)?;
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(hosts)
}

/// Those that are being drained, by name.
pub async fn draining(conn: &impl Conn) -> Result<Vec<HostRecord>> {
    let found = Entity::find().filter(Column::Desired.eq(DesiredState::Draining.slug()));
    let mut hosts = query::all(found.all(conn.raw()).await?, from_row)?;
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(hosts)
}

/// Writes what is wanted of the host, how it is drained, and the state that it is
/// shown in. Whether there is such a host.
pub async fn set_desired(tx: &WriteTx, host: &HostRecord) -> Result<bool> {
    let row = to_row(host)?;
    let update = Entity::update_many()
        .col_expr(Column::Desired, Expr::value(row.desired))
        .col_expr(Column::Evacuation, Expr::value(row.evacuation))
        .col_expr(Column::State, Expr::value(row.state))
        .filter(Column::Id.eq(row.id));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

/// Writes everything but what others write: claims, orphans, what is wanted of the
/// host, and what it proves itself with. Whether there is such a host.
///
/// # Errors
/// `Duplicate` "host name".
pub async fn update_facts(tx: &WriteTx, host: &HostRecord) -> Result<bool> {
    let row = to_row(host)?;
    let id = row.id.clone();
    let facts = ActiveModel {
        id: ActiveValue::NotSet,
        used_vcpus: ActiveValue::NotSet,
        used_memory_mib: ActiveValue::NotSet,
        used_disk_mib: ActiveValue::NotSet,
        vms: ActiveValue::NotSet,
        orphans: ActiveValue::NotSet,
        desired: ActiveValue::NotSet,
        evacuation: ActiveValue::NotSet,
        certificate: ActiveValue::NotSet,
        revoked_at: ActiveValue::NotSet,
        session_number: ActiveValue::NotSet,
        session_offered: ActiveValue::NotSet,
        ..row.into_active_model().reset_all()
    };
    let update = Entity::update_many()
        .set(facts)
        .filter(Column::Id.eq(id))
        .exec(tx.raw());
    let updated = update.await.map_err(query::unique(NAME))?;
    Ok(updated.rows_affected > 0)
}

/// At the start of the server: whoever was connected is so no longer, and is
/// silent since `now`. Those hosts.
pub async fn disconnect_all(tx: &WriteTx, now: Timestamp) -> Result<Vec<HostId>> {
    let rows = Entity::update_many()
        .col_expr(Column::Connected, Expr::value(false))
        .col_expr(Column::ConnectedSince, Expr::value(Option::<i64>::None))
        .col_expr(Column::SilentSince, Expr::value(now.as_ms()))
        .filter(Column::Connected.eq(true))
        .exec_with_returning(tx.raw())
        .await?;
    query::all(rows, |row| from_row(row).map(|host| host.id))
}

fn to_row(host: &HostRecord) -> Result<Model> {
    let HostRecord {
        id,
        name,
        zone,
        state,
        connected,
        hypervisor,
        accelerator,
        accelerator_note,
        capacity,
        used,
        vms,
        agent_version,
        connected_since,
        silent_since,
        hot_resize,
        hardware,
        protocol,
        certificate,
        revoked_at,
        session_number,
        session_offered,
        orphans,
        desired,
        evacuation,
    } = host;
    let id = id.to_string();
    let row = Row {
        table: "hosts",
        key: &id,
    };
    let state = row.to_slug("state", state)?;
    let accelerator = row.to_slug("accelerator", accelerator)?;
    let [cap_vcpus, cap_memory_mib, cap_disk_mib] = row.to_resources(*capacity)?;
    let [used_vcpus, used_memory_mib, used_disk_mib] = row.to_resources(*used)?;
    Ok(Model {
        id: id.clone(),
        name: name.to_string(),
        zone: zone.to_string(),
        state,
        connected: *connected,
        hypervisor: hypervisor.clone(),
        accelerator,
        accelerator_note: accelerator_note.clone(),
        cap_vcpus,
        cap_memory_mib,
        cap_disk_mib,
        used_vcpus,
        used_memory_mib,
        used_disk_mib,
        vms: i64::from(*vms),
        agent_version: agent_version.clone(),
        connected_since: to_time(*connected_since),
        silent_since: to_time(*silent_since),
        hot_resize: *hot_resize,
        hardware: row.to_json_option("hardware", hardware.as_ref())?,
        protocol: i64::from(*protocol),
        certificate: row.to_json_option("certificate", certificate.as_ref())?,
        revoked_at: to_time(*revoked_at),
        session_number: row.to_amount("session_number", *session_number)?,
        session_offered: row.to_amount("session_offered", *session_offered)?,
        orphans: i64::from(*orphans),
        desired: row.to_slug("desired", desired)?,
        evacuation: row.to_json_option("evacuation", evacuation.as_ref())?,
    })
}

pub(crate) fn from_row(row: Model) -> Result<HostRecord> {
    let Model {
        id,
        name,
        zone,
        state,
        connected,
        hypervisor,
        accelerator,
        accelerator_note,
        cap_vcpus,
        cap_memory_mib,
        cap_disk_mib,
        used_vcpus,
        used_memory_mib,
        used_disk_mib,
        vms,
        agent_version,
        connected_since,
        silent_since,
        hot_resize,
        protocol,
        certificate,
        revoked_at,
        session_number,
        session_offered,
        orphans,
        desired,
        evacuation,
        hardware,
    } = row;
    let row = Row {
        table: "hosts",
        key: &id.clone(),
    };
    Ok(HostRecord {
        id: row.parse("id", id)?,
        name: row.parse("name", name)?,
        zone: row.parse("zone", zone)?,
        state: row.slug("state", state)?,
        connected,
        hypervisor,
        accelerator: row.slug("accelerator", accelerator)?,
        accelerator_note,
        capacity: row.resources([cap_vcpus, cap_memory_mib, cap_disk_mib])?,
        used: row.resources([used_vcpus, used_memory_mib, used_disk_mib])?,
        vms: row.amount("vms", vms)?,
        agent_version,
        connected_since: time(connected_since),
        silent_since: time(silent_since),
        hot_resize,
        hardware: row.json_option("hardware", hardware)?,
        protocol: row.amount("protocol", protocol)?,
        certificate: row.json_option("certificate", certificate)?,
        revoked_at: time(revoked_at),
        session_number: row.amount("session_number", session_number)?,
        session_offered: row.amount("session_offered", session_offered)?,
        orphans: row.amount("orphans", orphans)?,
        desired: row.slug("desired", desired)?,
        evacuation: row.json_option("evacuation", evacuation)?,
    })
}
