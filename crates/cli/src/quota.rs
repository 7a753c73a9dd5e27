//! Limits of tenants and users.

use vimana_client::Client;
use vimana_model::quota::{QuotaLimit, QuotaLine, Scope, SetQuota as Form};

use crate::args::{Json, LimitChange, Quota, SetQuota, ShowQuota, Whose};
use crate::failure::Outcome;
use crate::{credentials, output, tenant};

pub async fn run(command: Quota) -> Outcome {
    match command {
        Quota::Show(args) => show(args).await,
        Quota::Set(args) => set(args).await,
    }
}

async fn show(ShowQuota { whose, json }: ShowQuota) -> Outcome {
    let client = credentials::client()?;
    if let Some(scope) = scope_of(&client, &whose).await? {
        let quota = client.quota(&scope).await?;
        return print(&quota, &quota.lines, json);
    }
    let own = client.own_quota().await?;
    if json.json {
        return output::json(&own);
    }
    let tenant = own.tenant.iter().map(|line| row("tenant", line));
    let user = own.user.iter().filter(|line| line.is_limited());
    let rows: Vec<_> = tenant.chain(user.map(|line| row("you", line))).collect();
    let titles = ["LIMIT", "OF", "USED", "SOFT", "HARD", "FROM"];
    output::table(titles, &rows, "nothing is counted")
}

/// Limits that are not named stay as they are.
async fn set(args: SetQuota) -> Outcome {
    let SetQuota {
        whose,
        limits: changes,
        json,
    } = args;
    let client = credentials::client()?;
    let scope = match scope_of(&client, &whose).await? {
        Some(scope) => scope,
        None => Scope::Tenant(client.me().await?.tenant_id),
    };
    let now = client.quota(&scope).await?.lines.into_iter();
    let own = now.filter(|line| line.is_own());
    let kept = own.filter(|line| {
        !changes
            .iter()
            .any(|change| change.counted == line.counted())
    });
    let kept = kept.map(|line| line.limit());
    let wanted = changes
        .iter()
        .filter_map(|LimitChange { counted, limits }| {
            let (soft, hard) = (*limits)?;
            let counted = counted.clone();
            Some(QuotaLimit {
                measure: counted.measure,
                datastore: counted.datastore,
                soft,
                hard,
            })
        });
    let form = Form {
        limits: kept.chain(wanted).collect(),
    };
    let quota = client.set_quota(&scope, &form).await?;
    print(&quota, &quota.lines, json)
}

/// None where the caller's own are meant.
async fn scope_of(client: &Client, whose: &Whose) -> Outcome<Option<Scope>> {
    let Whose {
        defaults,
        tenant,
        user,
        users,
    } = whose;
    if *defaults {
        return Ok(Some(Scope::AllTenants));
    }
    let id = match tenant {
        Some(tenant) => tenant::find_id(client, tenant).await?,
        None if user.is_none() && !users => return Ok(None),
        None => client.me().await?.tenant_id,
    };
    Ok(Some(match user {
        Some(user) => Scope::User(id, user.clone()),
        None if *users => Scope::AllUsers(id),
        None => Scope::Tenant(id),
    }))
}

fn print(quota: &impl serde::Serialize, lines: &[QuotaLine], Json { json }: Json) -> Outcome {
    if json {
        return output::json(quota);
    }
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            let [_, of, used, soft, hard, from] = row("", line);
            [of, used, soft, hard, from]
        })
        .collect();
    let titles = ["OF", "USED", "SOFT", "HARD", "FROM"];
    output::table(titles, &rows, "nothing is counted")
}

fn row(whose: &str, line: &QuotaLine) -> [String; 6] {
    let measure = line.measure;
    let from = match (line.is_limited(), line.inherited) {
        (_, false) => "its own",
        (true, true) => "defaults",
        (false, true) => "",
    };
    [
        whose.to_owned(),
        line.counted().slug(),
        measure.show(line.used),
        line.soft.show(measure),
        line.hard.show(measure),
        from.to_owned(),
    ]
}
