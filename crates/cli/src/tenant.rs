//! Tenants.

use vimana_client::Client;
use vimana_model::TenantId;
use vimana_model::tenant::{CreateTenant as Form, TenantView, UpdateTenant};

use crate::args::{CreateTenant, Json, SetKind, Tenant};
use crate::failure::{Failure, Outcome};
use crate::{credentials, output};

pub async fn run(command: Tenant) -> Outcome {
    match command {
        Tenant::List(json) => list(json).await,
        Tenant::Create(args) => create(args).await,
        Tenant::SetKind(args) => set_kind(args).await,
    }
}

async fn list(Json { json }: Json) -> Outcome {
    let tenants = credentials::client()?.tenants().await?;
    if json {
        return output::json(&tenants);
    }
    let rows: Vec<_> = tenants
        .iter()
        .map(|tenant| {
            [
                tenant.name.to_string(),
                tenant.kind.to_string(),
                output::time(tenant.created_at),
                tenant.id.to_string(),
            ]
        })
        .collect();
    let titles = ["NAME", "LIFE-CYCLE", "SINCE", "ID"];
    output::table(titles, &rows, "no tenants")
}

async fn create(args: CreateTenant) -> Outcome {
    let CreateTenant { name, kind, json } = args;
    let form = Form { name, kind };
    print(&credentials::client()?.create_tenant(&form).await?, json)
}

async fn set_kind(args: SetKind) -> Outcome {
    let SetKind { tenant, kind, json } = args;
    let client = credentials::client()?;
    let found = find(&client, &tenant).await?;
    let form = UpdateTenant { kind };
    print(&client.update_tenant(found.id, &form).await?, json)
}

/// A tenant by its id, which anybody may say, or by its name, which staff may.
pub async fn find_id(client: &Client, text: &str) -> Outcome<TenantId> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => {
            let me = client.me().await?;
            if me.tenant.as_str() == text {
                return Ok(me.tenant_id);
            }
            Ok(find(client, text).await?.id)
        }
    }
}

async fn find(client: &Client, text: &str) -> Outcome<TenantView> {
    let id = text.parse().ok();
    client
        .tenants()
        .await?
        .into_iter()
        .find(|tenant| tenant.name.as_str() == text || Some(tenant.id) == id)
        .ok_or_else(|| Failure::Failed(format!("tenant `{text}` not found")))
}

fn print(tenant: &TenantView, Json { json }: Json) -> Outcome {
    if json {
        return output::json(tenant);
    }
    output::line(&format!(
        "tenant {} ({}) is {}",
        tenant.name, tenant.id, tenant.kind
    ))
}
