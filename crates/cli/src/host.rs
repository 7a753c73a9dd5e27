//! Hosts.

mod evacuate;

use vimana_client::Client;
use vimana_model::host::{CreateJoinToken, DesiredState, HostView, OrphanView};
use vimana_model::unit::MiB;

use crate::args::{Discard, Host, HostShown, JoinToken, Json};
use crate::failure::{Failure, Outcome};
use crate::text::shown;
use crate::{credentials, output};

pub use evacuate::progress;

pub async fn run(command: Host) -> Outcome {
    match command {
        Host::List(json) => list(json).await,
        Host::Show(args) => show(args).await,
        Host::Events(args) => events(args).await,
        Host::Token(args) => token(args).await,
        Host::Revoke(args) => revoke(args).await,
        Host::Cordon(args) => evacuate::cordon(args).await,
        Host::Enable(args) => evacuate::enable(args).await,
        Host::Evacuate(args) => evacuate::evacuate(args).await,
        Host::Orphans(args) => orphans(args).await,
        Host::Discard(args) => discard(args).await,
    }
}

async fn list(Json { json }: Json) -> Outcome {
    let hosts = credentials::client()?.hosts().await?;
    if json {
        return output::json(&hosts);
    }
    let rows: Vec<_> = hosts
        .iter()
        .map(|host| {
            [
                host.name.to_string(),
                host.zone.to_string(),
                state(host),
                format!("{}, {}", host.hypervisor, host.accelerator),
                host.vms.to_string(),
                host.orphans.to_string(),
                format!("{} of {}", host.used.vcpus, host.capacity.vcpus),
                of(host.used.memory_mib, host.capacity.memory_mib),
                of(host.used.disk_mib, host.capacity.disk_mib),
            ]
        })
        .collect();
    let titles = [
        "NAME",
        "ZONE",
        "STATE",
        "HYPERVISOR",
        "VMS",
        "ORPHANS",
        "VCPUS",
        "MEMORY",
        "DISK",
    ];
    output::table(titles, &rows, "no hosts")
}

/// With everything that keeps it from its work.
fn state(host: &HostView) -> String {
    let mut state = host.state.slug().to_owned();
    if host.state != host.desired.state() && host.desired != DesiredState::Enabled {
        state.push_str(&format!(", {}", host.desired.slug()));
    }
    if !host.connected {
        state.push_str(", disconnected");
    }
    if host.revoked {
        state.push_str(", revoked");
    }
    state
}

fn of(used: MiB, capacity: MiB) -> String {
    format!("{used} of {capacity}")
}

async fn show(args: HostShown) -> Outcome {
    let host = find(&credentials::client()?, &args.host).await?;
    if args.json.json {
        return output::json(&host);
    }
    let since = |at| format!("since {}", output::time(at));
    let certificate = match (host.revoked, host.certificate_expires_at) {
        (true, _) => "revoked".to_owned(),
        (false, Some(at)) => format!("good until {}", output::time(at)),
        (false, None) => "none".to_owned(),
    };
    let accelerator = match host.accelerator_note.as_str() {
        "" => host.accelerator.to_string(),
        note => format!("{}: {note}", host.accelerator),
    };
    let mut pairs = vec![
        ("name", host.name.to_string()),
        ("id", host.id.to_string()),
        ("zone", host.zone.to_string()),
        ("state", state(&host)),
        (
            "connected",
            host.connected_since.map_or("no".to_owned(), since),
        ),
        ("certificate", certificate),
        ("agent", host.agent_version.clone()),
        ("hypervisor", host.hypervisor.clone()),
        ("accelerator", accelerator),
        (
            "hot resize",
            if host.hot_resize { "yes" } else { "no" }.to_owned(),
        ),
        (
            "vcpus",
            format!("{} of {}", host.used.vcpus, host.capacity.vcpus),
        ),
        ("memory", of(host.used.memory_mib, host.capacity.memory_mib)),
        ("disk", of(host.used.disk_mib, host.capacity.disk_mib)),
    ];
    for datastore in &host.datastores {
        let room = of(datastore.used_mib, datastore.capacity_mib);
        let away = if datastore.present { "" } else { "; away" };
        pairs.push(("datastore", format!("{}: {room}{away}", datastore.name)));
    }
    pairs.push(("vms", host.vms.to_string()));
    pairs.push(("orphans", host.orphans.to_string()));
    output::fields(&pairs)
}

async fn events(args: HostShown) -> Outcome {
    let client = credentials::client()?;
    let host = find(&client, &args.host).await?;
    let events = client.host_timeline(host.id).await?;
    if args.json.json {
        return output::json(&events);
    }
    output::timeline(&events)
}

async fn token(args: JoinToken) -> Outcome {
    let form = CreateJoinToken {
        host_name: args.name.map(String::from),
        ttl_seconds: Some(args.ttl),
    };
    let token = credentials::client()?.create_join_token(&form).await?;
    if args.json.json {
        return output::json(&token);
    }
    // The token alone, so that it can go to a file as it is.
    output::line(&shown(&token.token))
}

async fn revoke(args: HostShown) -> Outcome {
    let client = credentials::client()?;
    let host = find(&client, &args.host).await?;
    let host = client.revoke_host(host.id).await?;
    if args.json.json {
        return output::json(&host);
    }
    output::line(&format!("{} is revoked", host.name))
}

async fn orphans(args: HostShown) -> Outcome {
    let client = credentials::client()?;
    let host = find(&client, &args.host).await?;
    let orphans = client.host_orphans(host.id).await?;
    if args.json.json {
        return output::json(&orphans);
    }
    let rows: Vec<_> = orphans
        .iter()
        .map(|orphan| {
            [
                orphan.vm_id.to_string(),
                state_of(orphan),
                orphan.run_epoch.to_string(),
                output::time(orphan.first_seen_at),
            ]
        })
        .collect();
    let titles = ["MACHINE", "STATE", "EPOCH", "FIRST SEEN"];
    output::table(titles, &rows, "no orphans")
}

async fn discard(args: Discard) -> Outcome {
    let client = credentials::client()?;
    let host = find(&client, &args.host).await?;
    let orphan = client.discard_orphan(host.id, args.machine).await?;
    if args.json.json {
        return output::json(&orphan);
    }
    output::line(&format!("{} is {}", orphan.vm_id, state_of(&orphan)))
}

fn state_of(orphan: &OrphanView) -> String {
    match orphan.discarding {
        true => format!("{}, being removed", orphan.power),
        false => orphan.power.clone(),
    }
}

/// A host by its name or its id.
pub async fn find(client: &Client, text: &str) -> Outcome<HostView> {
    let id = text.parse().ok();
    client
        .hosts()
        .await?
        .into_iter()
        .find(|host| host.name.as_str() == text || Some(host.id) == id)
        .ok_or_else(|| Failure::Failed(format!("host `{text}` not found")))
}
