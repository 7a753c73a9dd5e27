//! Who is signed in, and the credentials that prove it.

use serde::{Deserialize, Serialize};

use crate::name::{TenantName, UserName};
use crate::tenant::TenantKind;
use crate::{TenantId, Timestamp, TokenId, UserId, VmId};

/// Longest password in bytes; checked before any hashing.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// What a person types to sign in.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    pub user_name: String,
    pub password: String,
}

/// A role inside a tenant, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Viewer,
    Operator,
    Manager,
}

/// A role of the provider's staff, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StaffRole {
    Auditor,
    Admin,
}

/// The signed-in user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MeView {
    pub user_id: UserId,
    pub user_name: UserName,
    pub staff: Option<StaffRole>,
    pub tenant_id: TenantId,
    pub tenant: TenantName,
    /// Which life-cycle the tenant's VMs have.
    pub tenant_kind: TenantKind,
    pub role: Role,
}

/// A fresh API token; its text is shown this once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenView {
    pub id: TokenId,
    pub token: String,
    pub expires_at: Timestamp,
    pub user_name: UserName,
}

/// One-use, short-lived permission to open one serial console. It is sent as
/// the first message on the console's WebSocket, never in a URL.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TicketView {
    pub ticket: String,
    pub vm_id: VmId,
    pub expires_at: Timestamp,
    /// Path of the WebSocket that takes the ticket.
    pub path: String,
}

/// First message on a console's WebSocket.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConsoleHello {
    pub ticket: String,
}
