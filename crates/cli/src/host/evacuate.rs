//! What administrators want of hosts.

use vimana_model::evacuation::{EvacuateHost, EvacuationView};
use vimana_model::host::HostView;

use super::find;
use crate::args::{Evacuate, HostShown};
use crate::failure::{Failure, Outcome};
use crate::wait::EvacuationWatch;
use crate::{credentials, output};

pub async fn cordon(args: HostShown) -> Outcome {
    let client = credentials::client()?;
    let host = find(&client, &args.host).await?;
    let host = client.cordon_host(host.id).await?;
    print(&host, args.json.json)
}

pub async fn enable(args: HostShown) -> Outcome {
    let client = credentials::client()?;
    let host = find(&client, &args.host).await?;
    let host = client.enable_host(host.id).await?;
    print(&host, args.json.json)
}

fn print(host: &HostView, json: bool) -> Outcome {
    if json {
        return output::json(host);
    }
    let silent = match host.desired.state() == host.state {
        true => String::new(),
        false => format!("; it is {} now", host.state.slug()),
    };
    output::line(&format!("{} is {}{silent}", host.name, host.desired.slug()))
}

pub async fn evacuate(args: Evacuate) -> Outcome {
    let client = credentials::client()?;
    let host = find(&client, &args.host).await?;
    let watch = EvacuationWatch::open(&client, args.wait, args.timeout).await?;
    let form = EvacuateHost { limit: args.limit };
    let waits = watch.is_some();
    if !args.status {
        client.evacuate_host(host.id, &form).await?;
    }
    let view = match watch {
        Some(watch) => watch.until_rest(host.id).await?,
        None => client.host_evacuation(host.id).await?,
    };
    if args.json.json {
        output::json(&view)?;
    } else if view.over || !waits {
        output::line(&format!("{} is {}", view.host, progress(&view)))?;
        let stays = stays(&view);
        for stay in stays.iter().filter_map(Failure::message) {
            output::line(&stay)?;
        }
    }
    if waits && !view.over {
        stays(&view).iter().for_each(Failure::tell);
        return Err(Failure::Told);
    }
    Ok(())
}

/// What stays on the host, and why.
fn stays(view: &EvacuationView) -> Vec<Failure> {
    let each = view.stuck.iter().map(|stuck| {
        let (name, reason) = (&stuck.vm.name, &stuck.reason);
        Failure::Failed(format!("`{name}` could not be moved: {reason}"))
    });
    let orphans = match view.orphans {
        0 => None,
        count => Some(Failure::Failed(format!(
            "host `{}` holds {}; see `vimana host orphans`",
            view.host,
            counted(
                count,
                "machine that is not recorded",
                "machines that are not recorded"
            )
        ))),
    };
    each.chain(orphans).collect()
}

/// How far it is: "draining; 3 VMs were moved, 2 are on their way, 5 wait".
pub fn progress(view: &EvacuationView) -> String {
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let (moving, waiting, stuck) = (
        count(view.moving.len()),
        count(view.waiting.len()),
        count(view.stuck.len()),
    );
    let moved = counted(view.moved, "VM was moved", "VMs were moved");
    if view.over {
        return format!("in maintenance; {moved}");
    }
    let mut parts = vec![moved];
    let others = [
        (moving, "is on its way", "are on their way"),
        (waiting, "waits", "wait"),
        (stuck, "cannot be moved", "cannot be moved"),
    ];
    let others = others.into_iter().filter(|(count, ..)| *count > 0);
    parts.extend(others.map(|(count, one, more)| counted(count, one, more)));
    format!("draining; {}", parts.join(", "))
}

fn counted(count: u32, one: &str, more: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(over: bool, moving: &Value, waiting: &Value, stuck: &Value) -> EvacuationView {
        serde_json::from_value(json!({
            "host_id": format!("host_{:032x}", 1), "host": "a", "state": "draining",
            "begun_at": "2026-11-22T18:00:00Z", "by": "ann", "limit": 2, "over": over,
            "moved": 1, "orphans": 0, "moving": moving, "waiting": waiting, "stuck": stuck,
        }))
        .unwrap()
    }

    #[test]
    fn how_far_an_evacuation_is_reads_like_speech() {
        let vm = |name: &str| json!({ "id": format!("vm_{:032x}", 1), "name": name });
        let to = json!({ "id": format!("host_{:032x}", 2), "name": "b", "zone": "default" });
        let moving = json!([{ "vm": vm("x"), "to": to, "operation_id": format!("op_{:032x}", 1) }]);
        let waiting = json!([{ "vm": vm("y") }, { "vm": vm("z"), "reason": "it waits" }]);
        let stuck = json!([{ "vm": vm("w"), "reason": "no room" }]);
        let none = json!([]);
        let says = |view: EvacuationView| (progress(&view), view.is_stuck());
        let told = "draining; 1 VM was moved, 1 is on its way, 2 wait, 1 cannot be moved";
        assert_eq!(
            says(view(false, &moving, &waiting, &stuck)),
            (told.to_owned(), false)
        );
        let told = "draining; 1 VM was moved, 1 cannot be moved";
        assert_eq!(
            says(view(false, &none, &none, &stuck)),
            (told.to_owned(), true)
        );
        let told = "in maintenance; 1 VM was moved";
        assert_eq!(
            says(view(true, &none, &none, &none)),
            (told.to_owned(), false)
        );
        let stays = stays(&view(false, &none, &none, &stuck));
        let sentence = "`w` could not be moved: no room";
        assert_eq!(stays[0].message().as_deref(), Some(sentence));
    }
}
