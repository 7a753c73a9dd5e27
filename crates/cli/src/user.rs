//! Members of tenants.

use std::collections::HashMap;

use vimana_model::session::Role;
use vimana_model::tenant::CreateUser as Form;

use crate::args::{CreateUser, Json, User};
use crate::failure::Outcome;
use crate::{credentials, input, output};

pub async fn run(command: User) -> Outcome {
    match command {
        User::List(json) => list(json).await,
        User::Create(args) => create(args).await,
    }
}

async fn list(Json { json }: Json) -> Outcome {
    let client = credentials::client()?;
    let users = client.users().await?;
    if json {
        return output::json(&users);
    }
    let tenants: HashMap<_, _> = client
        .tenants()
        .await?
        .into_iter()
        .map(|tenant| (tenant.id, tenant.name.to_string()))
        .collect();
    let rows: Vec<_> = users
        .iter()
        .map(|user| {
            let tenant = tenants.get(&user.tenant_id).cloned();
            [
                user.name.to_string(),
                tenant.unwrap_or_else(|| user.tenant_id.to_string()),
                name_of(user.role).to_owned(),
                output::time(user.created_at),
                user.id.to_string(),
            ]
        })
        .collect();
    let titles = ["NAME", "TENANT", "ROLE", "SINCE", "ID"];
    output::table(titles, &rows, "no users")
}

async fn create(args: CreateUser) -> Outcome {
    let CreateUser {
        name,
        tenant,
        role,
        password_stdin,
        json,
    } = args;
    let client = credentials::client()?;
    let password = input::password(&name, password_stdin)?;
    let form = Form {
        name,
        password,
        tenant,
        role,
    };
    let user = client.create_user(&form).await?;
    if json.json {
        return output::json(&user);
    }
    output::line(&format!(
        "user {} ({}) is {} in tenant {}",
        user.name,
        user.id,
        name_of(user.role),
        form.tenant
    ))
}

const fn name_of(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Manager => "manager",
    }
}
