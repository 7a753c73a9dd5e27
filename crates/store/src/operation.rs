//! User-visible pieces of work.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait as _, ActiveValue, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use serde::{Deserialize, Serialize};
use vimana_model::migration::{Endpoint, Limits, MigrationMode, Sent};
use vimana_model::name::{DatastoreName, FlavorName};
use vimana_model::operation::{Object, OperationKind, OperationState, Piece, StepKind, StepState};
use vimana_model::state::VmState;
use vimana_model::unit::Resources;
use vimana_model::vm::HostRef;
use vimana_model::{ImageId, OperationId, Timestamp, VmId};

use crate::column::{Row, time, to_time};
use crate::entity::operation::{ActiveModel, Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub kind: StepKind,
    pub state: StepState,
    /// How often it, or its undoing, was begun.
    #[serde(default)]
    pub attempt: u32,
    /// When it is tried again; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// The size it is to give the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Size>,
    /// The piece of the machine that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece: Option<Piece>,
    /// Where the machine goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationPlan>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// Where a machine goes, and what was said on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationPlan {
    pub mode: MigrationMode,
    /// None where it comes from the datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<HostRef>,
    pub to: HostRef,
    /// Where a volume of it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<DatastoreName>,
    /// The state it has on its new host, where it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_as: Option<VmState>,
    #[serde(default)]
    pub limits: Limits,
    /// Where the other host waits, once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// What it took, once it has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
}

/// How large a machine is, and what that size is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub flavor_name: FlavorName,
    pub resources: Resources,
}

/// Why what was done is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case", deny_unknown_fields)]
pub enum Undo {
    /// A step failed; the operation's error says how.
    Failed,
    Cancelled {
        /// Name of the user.
        by: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRecord {
    pub id: OperationId,
    pub object: Object,
    pub kind: OperationKind,
    pub state: OperationState,
    /// Index of the current step.
    pub step: u32,
    pub steps: Vec<StepRecord>,
    /// Name of the user who asked.
    pub requested_by: String,
    /// Why it failed, in the user's words.
    pub error: Option<String>,
    /// Grows whenever a server takes the operation on.
    pub claim_epoch: u64,
    pub undo: Option<Undo>,
    /// When a step that failed is tried again.
    pub due_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// # Errors
/// `Duplicate` "operation".
pub async fn insert(tx: &WriteTx, operation: &OperationRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(operation)?, "operation").await
}

pub async fn find(conn: &impl Conn, id: OperationId) -> Result<Option<OperationRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// The latest operation of something, where it is not over.
pub async fn in_flight(
    conn: &impl Conn,
    latest: Option<OperationId>,
) -> Result<Option<OperationRecord>> {
    let Some(id) = latest else { return Ok(None) };
    let found = find(conn, id).await?;
    Ok(found.filter(|operation| !operation.state.is_over()))
}

/// Those of `ids` that exist, in no particular order.
pub async fn find_many(conn: &impl Conn, ids: &[OperationId]) -> Result<Vec<OperationRecord>> {
    let mut operations = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let chunk = chunk.iter().map(OperationId::to_string);
        let found = Entity::find().filter(Column::Id.is_in(chunk));
        for row in found.all(conn.raw()).await? {
            operations.push(from_row(row)?);
        }
    }
    Ok(operations)
}

/// Whether there is such an operation. Who may write it is decided by the
/// generation of its object, written in the same transaction.
pub async fn update(tx: &WriteTx, operation: &OperationRecord) -> Result<bool> {
    let row = to_row(operation)?;
    let id = row.id.clone();
    let next = ActiveModel {
        id: ActiveValue::NotSet,
        ..row.into_active_model().reset_all()
    };
    let update = Entity::update_many().set(next).filter(Column::Id.eq(id));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

/// All of one VM, newest first: by their ids, which grow for each VM whatever
/// the clock shows.
pub async fn for_vm(conn: &impl Conn, vm_id: VmId) -> Result<Vec<OperationRecord>> {
    let rows = Entity::find()
        .filter(Column::VmId.eq(vm_id.to_string()))
        .order_by_desc(Column::Id)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

/// The migrations that were asked for since then, oldest first.
pub async fn migrations_since(conn: &impl Conn, since: Timestamp) -> Result<Vec<OperationRecord>> {
    let rows = Entity::find()
        // As the index has it: no database looks into a parameter for that.
        .filter(Expr::cust("kind = 'migrate'"))
        .filter(Column::CreatedAt.gte(since.as_ms()))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

/// All of one image, newest first.
pub async fn for_image(conn: &impl Conn, image_id: ImageId) -> Result<Vec<OperationRecord>> {
    let rows = Entity::find()
        .filter(Column::ImageId.eq(image_id.to_string()))
        .order_by_desc(Column::Id)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

/// All that have not ended, oldest first.
pub async fn running(conn: &impl Conn) -> Result<Vec<OperationRecord>> {
    let rows = Entity::find()
        .filter(Column::State.is_in(IN_FLIGHT))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

const IN_FLIGHT: [&str; 2] = [
    OperationState::Running.name(),
    OperationState::Undoing.name(),
];

/// The VMs of the first `limit` operations in flight that are due at `now`,
/// the longest due first; those due only after `beyond` count as well.
pub async fn due(
    conn: &impl Conn,
    now: Timestamp,
    beyond: Timestamp,
    limit: u32,
) -> Result<Vec<VmId>> {
    let due = Column::DueAt
        .lte(now.as_ms())
        .or(Column::DueAt.gt(beyond.as_ms()));
    let rows = Entity::find()
        .filter(due)
        .filter(Column::VmId.is_not_null())
        .filter(Column::State.is_in(IN_FLIGHT))
        .order_by_asc(Column::DueAt)
        .order_by_asc(Column::Id)
        .limit(u64::from(limit))
        .all(conn.raw())
        .await?;
    let vms = query::all(rows, |row| from_row(row).map(|found| found.object.vm()))?;
    Ok(vms.into_iter().flatten().collect())
}

fn to_row(operation: &OperationRecord) -> Result<Model> {
    let OperationRecord {
        id,
        object,
        kind,
        state,
        step,
        steps,
        requested_by,
        error,
        claim_epoch,
        undo,
        due_at,
        created_at,
        ended_at,
    } = operation;
    let id = id.to_string();
    let row = Row {
        table: "operations",
        key: &id,
    };
    let kind = row.to_slug("kind", kind)?;
    let state = row.to_slug("state", state)?;
    let steps = row.to_json("steps", steps)?;
    let undo = row.to_json_option("undo", undo.as_ref())?;
    let claim_epoch = row.to_amount("claim_epoch", *claim_epoch)?;
    Ok(Model {
        id,
        vm_id: object.vm().map(|id| id.to_string()),
        image_id: object.image().map(|id| id.to_string()),
        kind,
        state,
        step: i64::from(*step),
        steps,
        requested_by: requested_by.clone(),
        error: error.clone(),
        created_at: created_at.as_ms(),
        ended_at: to_time(*ended_at),
        claim_epoch,
        undo,
        due_at: to_time(*due_at),
    })
}

pub(crate) fn from_row(row: Model) -> Result<OperationRecord> {
    let Model {
        id,
        vm_id,
        image_id,
        kind,
        state,
        step,
        steps,
        requested_by,
        error,
        created_at,
        ended_at,
        claim_epoch,
        undo,
        due_at,
    } = row;
    let row = Row {
        table: "operations",
        key: &id.clone(),
    };
    let object = match (vm_id, image_id) {
        (Some(vm), None) => Object::Vm(row.parse("vm_id", vm)?),
        (None, Some(image)) => Object::Image(row.parse("image_id", image)?),
        (Some(_), Some(_)) | (None, None) => return Err(row.corrupt("vm_id")),
    };
    Ok(OperationRecord {
        id: row.parse("id", id)?,
        object,
        kind: row.slug("kind", kind)?,
        state: row.slug("state", state)?,
        step: row.amount("step", step)?,
        steps: row.json("steps", &steps)?,
        requested_by,
        error,
        claim_epoch: row.amount("claim_epoch", claim_epoch)?,
        undo: row.json_option("undo", undo)?,
        due_at: time(due_at),
        created_at: Timestamp::from_ms(created_at),
        ended_at: time(ended_at),
    })
}
