//! Whole tables, row by row, for the checker of the rules that always hold: a
//! row that makes no sense is told apart, and hides none of the others.

use sea_orm::sea_query::{Condition, SimpleExpr, Value};
use sea_orm::{
    ColumnTrait, ConnectionTrait as _, DbErr, EntityTrait, FromQueryResult, Iden as _,
    QueryFilter as _, QueryOrder as _, QueryResult, QuerySelect as _, QueryTrait as _,
};

use crate::column::{Row, is_id};
use crate::limits::SURVEY_PAGE;
use crate::{
    Conn, Result, StoreError, backup, claim, entity, event, flavor, host, host_datastore,
    idempotency, image, join_token, migration, operation, orphan, quota, request, schedule,
    session, snapshot, template, tenant, token, user, vm, volume,
};

/// A row that makes no sense. Of what is in it nothing is kept but ids: the
/// rest may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRow {
    pub table: &'static str,
    /// Its key, where that is an id or a number.
    pub key: Option<String>,
    /// Which column, and whose.
    pub what: String,
    /// Every id in it, its own among them.
    pub ids: Vec<String>,
}

/// A row, or what is wrong with it.
pub type Surveyed<R> = Result<R, CorruptRow>;

macro_rules! surveys {
    ($($name:ident: $entity:ident [$($key:ident),+] => $record:ty, $convert:expr;)+) => {
        /// Every table that has rows of its own.
        pub const TABLES: &[&str] = &[$(stringify!($name)),+];

        $(
            #[doc = concat!("Every row of `", stringify!($name), "`, in the order of their keys.")]
            pub async fn $name(
                conn: &impl Conn,
                visit: impl FnMut(Surveyed<$record>),
            ) -> Result<()> {
                use entity::$entity::{Column, Entity};
                each::<Entity, _>(conn, &[$(Column::$key),+], $convert, visit).await
            }
        )+
    };
}

surveys! {
    tenants: tenant [Id] => tenant::TenantRecord, tenant::from_row;
    users: user [Id] => user::UserRecord, user::from_row;
    memberships: membership [UserId, TenantId] => user::MembershipRecord, user::membership_from_row;
    tokens: token [Id] => token::TokenRecord, token::from_row;
    sessions: session [IdHash] => session::SessionRecord, sensible_session;
    flavors: flavor [Id] => flavor::FlavorRecord, flavor::from_row;
    templates: template [Id] => template::TemplateRecord, template::from_row;
    images: image [Id] => image::ImageRecord, image::from_row;
    hosts: host [Id] => host::HostRecord, host::from_row;
    host_datastores: host_datastore [HostId, Name]
        => host_datastore::HostDatastoreRecord, host_datastore::from_row;
    claims: claim [VmId] => claim::ClaimRecord, claim::from_row;
    migrations: migration [VmId] => migration::MigrationRecord, migration::from_row;
    vms: vm [Id] => vm::VmRecord, vm::from_row_with_its_name;
    backups: backup [Id] => backup::BackupRecord, backup::from_row;
    schedules: schedule [VmId, Kind] => schedule::ScheduleRecord, schedule::from_row;
    snapshots: snapshot [Id] => snapshot::SnapshotRecord, snapshot::from_row;
    volumes: volume [Id] => volume::VolumeRecord, volume::from_row;
    operations: operation [Id] => operation::OperationRecord, operation::from_row;
    events: event [Seq] => event::EventRecord, event::from_row;
    requests: request [Id] => request::RequestRecord, request::from_row;
    idempotency_keys: idempotency [UserId, IdempotencyKey] => idempotency::IdempotencyRecord,
        sensible_answer;
    quotas: quota [TenantId, UserName, Measure, Datastore] => quota::QuotaRecord, quota::from_row;
    orphans: orphan [HostId, VmId] => orphan::OrphanRecord, orphan::from_row;
    join_tokens: join_token [Id] => join_token::JoinTokenRecord, join_token::from_row;
}

fn sensible_session(row: entity::session::Model) -> Result<session::SessionRecord> {
    let named = Row {
        table: "sessions",
        key: &row.id_hash,
    };
    let _data: serde_json::Value = named.json("data", &row.data)?;
    Ok(session::from_row(row))
}

fn sensible_answer(row: entity::idempotency::Model) -> Result<idempotency::IdempotencyRecord> {
    let named = Row {
        table: "idempotency_keys",
        key: &row.user_id.clone(),
    };
    let _answer: serde_json::Value = named.json("answer", &row.answer)?;
    idempotency::from_row(row)
}

/// Page by page, so that a long table is never in memory as a whole.
async fn each<E, R>(
    conn: &impl Conn,
    keys: &[E::Column],
    convert: impl Fn(E::Model) -> Result<R>,
    mut visit: impl FnMut(Surveyed<R>),
) -> Result<()>
where
    E: EntityTrait,
    E::Model: FromQueryResult,
{
    let raw = conn.raw();
    let mut last: Option<Vec<Value>> = None;
    loop {
        let mut page = E::find().limit(SURVEY_PAGE);
        for key in keys {
            page = page.order_by_asc(*key);
        }
        if let Some(last) = &last {
            page = page.filter(beyond(keys, last));
        }
        let page = page.build(raw.get_database_backend());
        let rows = raw.query_all_raw(page).await?;
        for row in &rows {
            match E::Model::from_query_result(row, "").map_err(undecoded::<E>) {
                Ok(model) => match convert(model) {
                    Ok(record) => visit(Ok(record)),
                    Err(error) => visit(Err(corrupt::<E>(row, keys, error)?)),
                },
                Err(error) => visit(Err(corrupt::<E>(row, keys, error)?)),
            }
        }
        let full = u64::try_from(rows.len()).is_ok_and(|n| n >= SURVEY_PAGE);
        let Some(end) = rows.last().filter(|_| full) else {
            return Ok(());
        };
        let place = keys.iter().map(|key| value(end, *key));
        last = Some(place.collect::<Result<_>>()?);
    }
}

/// The rows after the one with these keys.
fn beyond<C: ColumnTrait>(keys: &[C], last: &[Value]) -> Condition {
    let mut any = Condition::any();
    for (n, (key, value)) in keys.iter().zip(last).enumerate() {
        let same = keys.iter().zip(last).take(n);
        let all = same.fold(Condition::all(), |all, (key, value)| {
            all.add(equal(*key, value))
        });
        any = any.add(all.add(key.gt(value.clone())));
    }
    any
}

fn equal<C: ColumnTrait>(key: C, value: &Value) -> SimpleExpr {
    key.eq(value.clone())
}

fn value<C: ColumnTrait>(row: &QueryResult, key: C) -> Result<Value> {
    let column = key.to_string();
    if let Ok(number) = row.try_get::<i64>("", &column) {
        return Ok(number.into());
    }
    Ok(row.try_get::<String>("", &column)?.into())
}

/// A column of a type that it never has.
fn undecoded<E: EntityTrait>(error: DbErr) -> StoreError {
    let mut error = StoreError::from(error);
    if let StoreError::Corrupt { what } = &mut error {
        *what = format!("{what} in {}", E::default().table_name());
    }
    error
}

/// # Errors
/// What is no fault of the row.
fn corrupt<E: EntityTrait>(
    row: &QueryResult,
    keys: &[E::Column],
    error: StoreError,
) -> Result<CorruptRow> {
    let StoreError::Corrupt { what } = error else {
        return Err(error);
    };
    let text = |column: &str| row.try_get::<String>("", column).ok();
    let shown = |key: &E::Column| {
        let column = key.to_string();
        let number = row.try_get::<i64>("", &column).ok();
        number
            .map(|number| number.to_string())
            .or_else(|| text(&column).filter(|text| is_id(text)))
    };
    let columns = row.column_names();
    Ok(CorruptRow {
        table: E::default().table_name(),
        key: keys.first().and_then(shown),
        what,
        ids: columns
            .iter()
            .filter_map(|column| text(column))
            .filter(|text| is_id(text))
            .collect(),
    })
}
