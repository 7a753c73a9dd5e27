//! What users ask for under the manual life-cycle.

use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use vimana_model::name::UserName;
use vimana_model::request::{Remark, RequestState};
use vimana_model::vm::CreateVm;
use vimana_model::{RequestId, TenantId, Timestamp, UserId, VmId};

use crate::column::Row;
use crate::entity::request::{Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    pub id: RequestId,
    pub tenant_id: TenantId,
    pub requester_id: UserId,
    pub requester_name: UserName,
    pub state: RequestState,
    pub state_since: Timestamp,
    pub terms: CreateVm,
    pub vm_id: Option<VmId>,
    pub remarks: Vec<Remark>,
    pub generation: u64,
    pub created_at: Timestamp,
}

/// Which requests to list; a field left out filters nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFilter {
    pub tenant: Option<TenantId>,
    pub requester: Option<UserId>,
    /// Any of these; empty for all.
    pub states: Vec<RequestState>,
    pub limit: u32,
}

/// # Errors
/// `Duplicate` "request".
pub async fn insert(tx: &WriteTx, request: &RequestRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(request)?, "request").await
}

pub async fn find(conn: &impl Conn, id: RequestId) -> Result<Option<RequestRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock(tx: &WriteTx, id: RequestId) -> Result<Option<RequestRecord>> {
    let found = Entity::find_by_id(id.to_string()).lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// Those of `ids` that exist, in no particular order.
pub async fn find_many(conn: &impl Conn, ids: &[RequestId]) -> Result<Vec<RequestRecord>> {
    let mut requests = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let found = Entity::find().filter(Column::Id.is_in(chunk.iter().map(RequestId::to_string)));
        for row in found.all(conn.raw()).await? {
            requests.push(from_row(row)?);
        }
    }
    Ok(requests)
}

/// Newest first.
pub async fn list(conn: &impl Conn, filter: &RequestFilter) -> Result<Vec<RequestRecord>> {
    let RequestFilter {
        tenant,
        requester,
        states,
        limit,
    } = filter;
    let mut wanted = Condition::all()
        .add_option(tenant.map(|id| Column::TenantId.eq(id.to_string())))
        .add_option(requester.map(|id| Column::RequesterId.eq(id.to_string())));
    if !states.is_empty() {
        wanted = wanted.add(Column::State.is_in(states.iter().map(|state| state.slug())));
    }
    let rows = Entity::find()
        .filter(wanted)
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .limit(u64::from(*limit))
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

/// Writes the record if it is still the generation that was read, and makes it
/// the next one, in the row and in `request`.
///
/// # Errors
/// [`crate::StoreError::Conflict`] when somebody else wrote it meanwhile.
pub async fn update(tx: &WriteTx, request: &mut RequestRecord) -> Result<()> {
    let row = to_row(request)?;
    let generation = (Column::Generation, row.generation);
    query::replace::<Entity>(tx, row, Column::Id, generation, "request").await?;
    request.generation = request.generation.saturating_add(1);
    Ok(())
}

fn to_row(request: &RequestRecord) -> Result<Model> {
    let RequestRecord {
        id,
        tenant_id,
        requester_id,
        requester_name,
        state,
        state_since,
        terms,
        vm_id,
        remarks,
        generation,
        created_at,
    } = request;
    let id = id.to_string();
    let row = Row {
        table: "requests",
        key: &id,
    };
    let terms = row.to_json("terms", terms)?;
    let remarks = row.to_json("remarks", remarks)?;
    let generation = row.to_amount("generation", *generation)?;
    Ok(Model {
        id,
        tenant_id: tenant_id.to_string(),
        requester_id: requester_id.to_string(),
        requester_name: requester_name.to_string(),
        state: state.slug().to_owned(),
        state_since: state_since.as_ms(),
        terms,
        vm_id: vm_id.map(|id| id.to_string()),
        remarks,
        generation,
        created_at: created_at.as_ms(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<RequestRecord> {
    let Model {
        id,
        tenant_id,
        requester_id,
        requester_name,
        state,
        state_since,
        terms,
        vm_id,
        remarks,
        generation,
        created_at,
    } = row;
    let row = Row {
        table: "requests",
        key: &id.clone(),
    };
    Ok(RequestRecord {
        id: row.parse("id", id)?,
        tenant_id: row.parse("tenant_id", tenant_id)?,
        requester_id: row.parse("requester_id", requester_id)?,
        requester_name: row.parse("requester_name", requester_name)?,
        state: row.slug("state", state)?,
        state_since: Timestamp::from_ms(state_since),
        terms: row.json("terms", &terms)?,
        vm_id: row.parse_option("vm_id", vm_id)?,
        remarks: row.json("remarks", &remarks)?,
        generation: row.amount("generation", generation)?,
        created_at: Timestamp::from_ms(created_at),
    })
}
