//! People with an account, and the tenants they belong to.

use std::collections::HashMap;
use std::fmt;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use vimana_model::name::UserName;
use vimana_model::session::{Role, StaffRole};
use vimana_model::{TenantId, Timestamp, UserId};

use crate::column::Row;
use crate::entity::membership;
use crate::entity::user::{Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

/// A person with an account.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    pub id: UserId,
    pub name: UserName,
    /// As the password hash function wrote it, with its parameters.
    pub password_hash: String,
    pub staff: Option<StaffRole>,
    pub created_at: Timestamp,
}

/// What a user may do in a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipRecord {
    pub tenant_id: TenantId,
    pub user_id: UserId,
    pub role: Role,
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserRecord({} {})", self.id, self.name)
    }
}

/// # Errors
/// `Duplicate` "user name".
pub async fn insert(tx: &WriteTx, user: &UserRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(user)?, "user name").await
}

pub async fn find(conn: &impl Conn, id: UserId) -> Result<Option<UserRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

pub async fn find_by_name(conn: &impl Conn, name: &UserName) -> Result<Option<UserRecord>> {
    let found = Entity::find().filter(Column::Name.eq(name.as_str()));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Whether there is such a user.
pub async fn set_password(tx: &WriteTx, id: UserId, hash: &str) -> Result<bool> {
    let update = Entity::update_many()
        .col_expr(Column::PasswordHash, Expr::value(hash))
        .filter(Column::Id.eq(id.to_string()));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

/// # Errors
/// `Duplicate` "membership".
pub async fn insert_membership(tx: &WriteTx, membership: &MembershipRecord) -> Result<()> {
    let row = membership_to_row(membership)?;
    query::insert::<membership::Entity>(tx, row, "membership").await
}

/// The tenants of one user, in the order of their ids.
pub async fn memberships(conn: &impl Conn, id: UserId) -> Result<Vec<MembershipRecord>> {
    let rows = membership::Entity::find()
        .filter(membership::Column::UserId.eq(id.to_string()))
        .order_by_asc(membership::Column::TenantId)
        .all(conn.raw())
        .await?;
    query::all(rows, membership_from_row)
}

/// What a user may do in a tenant, kept so until the transaction ends; `None`
/// where there is no such user or membership.
pub async fn standing(
    tx: &WriteTx,
    id: UserId,
    tenant: TenantId,
) -> Result<Option<(Option<StaffRole>, Role)>> {
    // SQLite has one writer at a time and no such clause: it is left out there.
    let user = Entity::find_by_id(id.to_string()).lock_shared();
    let Some(user) = user.one(tx.raw()).await?.map(from_row).transpose()? else {
        return Ok(None);
    };
    let member = membership::Entity::find()
        .filter(membership::Column::UserId.eq(id.to_string()))
        .filter(membership::Column::TenantId.eq(tenant.to_string()))
        .lock_shared();
    let member = member.one(tx.raw()).await?;
    let member = member.map(membership_from_row).transpose()?;
    Ok(member.map(|member| (user.staff, member.role)))
}

/// Whether there is such a membership.
pub async fn set_role(tx: &WriteTx, membership: &MembershipRecord) -> Result<bool> {
    let row = membership_to_row(membership)?;
    let update = membership::Entity::update_many()
        .col_expr(membership::Column::Role, Expr::value(row.role))
        .filter(membership::Column::UserId.eq(row.user_id))
        .filter(membership::Column::TenantId.eq(row.tenant_id));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

/// All users with their memberships, by name.
pub async fn list(conn: &impl Conn) -> Result<Vec<(UserRecord, MembershipRecord)>> {
    let mut users = query::all(Entity::find().all(conn.raw()).await?, from_row)?;
    users.sort_by(|a, b| a.name.cmp(&b.name));
    let memberships = membership::Entity::find()
        .order_by_asc(membership::Column::TenantId)
        .all(conn.raw())
        .await?;
    let memberships = query::all(memberships, membership_from_row)?;
    let mut found = Vec::with_capacity(memberships.len());
    for user in users {
        let of_user = memberships.iter().filter(|m| m.user_id == user.id);
        found.extend(of_user.map(|membership| (user.clone(), membership.clone())));
    }
    Ok(found)
}

/// Those who belong to a tenant, by name.
pub async fn members(
    conn: &impl Conn,
    tenant: TenantId,
) -> Result<Vec<(UserRecord, MembershipRecord)>> {
    let memberships = membership::Entity::find()
        .filter(membership::Column::TenantId.eq(tenant.to_string()))
        .all(conn.raw())
        .await?;
    let mut found = Vec::with_capacity(memberships.len());
    for chunk in memberships.chunks(CHUNK) {
        let ids = chunk.iter().map(|membership| membership.user_id.as_str());
        let users = Entity::find().filter(Column::Id.is_in(ids));
        let users = query::all(users.all(conn.raw()).await?, from_row)?;
        let mut users: HashMap<_, _> = users.into_iter().map(|user| (user.id, user)).collect();
        for membership in chunk {
            let membership = membership_from_row(membership.clone())?;
            let user = users.remove(&membership.user_id);
            found.extend(user.map(|user| (user, membership)));
        }
    }
    // Here and not there: PostgreSQL sorts names by its locale.
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(found)
}

fn to_row(user: &UserRecord) -> Result<Model> {
    let UserRecord {
        id,
        name,
        password_hash,
        staff,
        created_at,
    } = user;
    let id = id.to_string();
    let row = Row {
        table: "users",
        key: &id,
    };
    let staff = staff
        .map(|staff| row.to_slug("staff", &staff))
        .transpose()?;
    Ok(Model {
        id,
        name: name.to_string(),
        password_hash: password_hash.clone(),
        staff,
        created_at: created_at.as_ms(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<UserRecord> {
    let Model {
        id,
        name,
        password_hash,
        staff,
        created_at,
    } = row;
    let row = Row {
        table: "users",
        key: &id.clone(),
    };
    Ok(UserRecord {
        id: row.parse("id", id)?,
        name: row.parse("name", name)?,
        password_hash,
        staff: staff.map(|staff| row.slug("staff", staff)).transpose()?,
        created_at: Timestamp::from_ms(created_at),
    })
}

fn membership_to_row(membership: &MembershipRecord) -> Result<membership::Model> {
    let MembershipRecord {
        tenant_id,
        user_id,
        role,
    } = membership;
    let user_id = user_id.to_string();
    let row = Row {
        table: "memberships",
        key: &user_id,
    };
    let role = row.to_slug("role", role)?;
    Ok(membership::Model {
        user_id,
        tenant_id: tenant_id.to_string(),
        role,
    })
}

pub(crate) fn membership_from_row(row: membership::Model) -> Result<MembershipRecord> {
    let membership::Model {
        user_id,
        tenant_id,
        role,
    } = row;
    let row = Row {
        table: "memberships",
        key: &user_id.clone(),
    };
    Ok(MembershipRecord {
        tenant_id: row.parse("tenant_id", tenant_id)?,
        user_id: row.parse("user_id", user_id)?,
        role: row.slug("role", role)?,
    })
}
