//! What can be asked about tenants and users.

use clap::{Args, Subcommand};
use vimana_model::session::Role;
use vimana_model::tenant::TenantKind;

use super::Json;

#[derive(Subcommand)]
pub enum Tenant {
    /// List them
    List(Json),
    /// Make a tenant
    Create(CreateTenant),
    /// Say which life-cycle its VMs have
    SetKind(SetKind),
}

#[derive(Args)]
pub struct CreateTenant {
    /// Name of the tenant
    pub name: String,
    /// `automatic`: what is asked for is made; `manual`: a manager decides
    #[arg(long, default_value_t)]
    pub kind: TenantKind,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct SetKind {
    /// Name or id of the tenant
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// `automatic` or `manual`
    pub kind: TenantKind,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Subcommand)]
pub enum User {
    /// List them
    List(Json),
    /// Make a user, member of one tenant
    Create(CreateUser),
}

#[derive(Args)]
pub struct CreateUser {
    /// Name to sign in with
    pub name: String,
    /// Name of the tenant
    #[arg(long)]
    pub tenant: String,
    /// `viewer`, `operator` or `manager`
    #[arg(long, value_parser = role)]
    pub role: Role,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub json: Json,
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "viewer" => Ok(Role::Viewer),
        "operator" => Ok(Role::Operator),
        "manager" => Ok(Role::Manager),
        _ => Err("no such role; the roles are viewer, operator, manager".to_owned()),
    }
}
