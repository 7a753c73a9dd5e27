//! People with an account, and the tenants they belong to.

use vimana_model::name::UserName;
use vimana_model::session::{Role, StaffRole};
use vimana_model::{TenantId, Timestamp, UserId};

use crate::{Conn, Result, WriteTx};

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

pub async fn insert(_tx: &WriteTx, _user: &UserRecord) -> Result<()> {
    todo!()
}
pub async fn find(_conn: &impl Conn, _id: UserId) -> Result<Option<UserRecord>> {
    todo!()
}
pub async fn find_by_name(_conn: &impl Conn, _name: &UserName) -> Result<Option<UserRecord>> {
    todo!()
}
pub async fn set_password(_tx: &WriteTx, _id: UserId, _hash: &str) -> Result<bool> {
    todo!()
}
pub async fn insert_membership(_tx: &WriteTx, _membership: &MembershipRecord) -> Result<()> {
    todo!()
}
pub async fn memberships(_conn: &impl Conn, _id: UserId) -> Result<Vec<MembershipRecord>> {
    todo!()
}
